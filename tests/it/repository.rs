//! What the repository promises of itself: layers, purity, the package budget, a reason for each dependency.
//!
//! Reads the sources as tokens, so that comments and strings do not count; test code does. Follows design.md, sections 2 and 3.

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::de::DeTable;

use source::{Token, root_names, tokens};

/// The modules of the crate and their ranks: each may use only those of a lower one.
const RANKS: [(&str, u8); 16] = [
    ("alarm", 0),
    ("metrics", 0),
    ("shutdown", 0),
    ("time", 0),
    ("budget", 1),
    ("log", 1),
    ("wire", 1),
    ("policy", 2),
    ("outbound", 3),
    ("store", 4),
    ("upstream", 4),
    ("gateway", 5),
    ("http", 6),
    ("cli", 7),
    ("lib", 7),
    ("main", 7),
];
/// Names that have no place where there is no I/O, no clock, no task and no chance.
const IMPURE: [&str; 10] =
    ["async", "await", "Instant", "rand", "SystemTime", "TcpListener", "TcpSocket", "TcpStream", "tokio", "UdpSocket"];
/// Most packages in the normal dependency tree, the crate itself not counted.
const BUDGET: usize = 75;
/// The same without the default features.
const LEAN_BUDGET: usize = 62;

#[test]
fn no_module_uses_a_higher_rank() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        problems.extend(layer_problems(&path, &text));
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn wire_and_policy_are_pure() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        problems.extend(purity_problems(&path, &text));
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn the_package_budget_holds() {
    for (arguments, budget) in [(&[][..], BUDGET), (&["--no-default-features"][..], LEAN_BUDGET)] {
        let packages = packages(arguments);
        let list = packages.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(packages.len() <= budget, "expected at most {budget} packages, found {}:\n{list}", packages.len());
        assert!(packages.iter().any(|package| package.starts_with("hyper v")), "this is not our tree:\n{list}");
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let missing = unexplained(&read(&root().join("Cargo.toml")), &read(&root().join("README.md")));
    assert!(missing.is_empty(), "not in the Dependencies table of README.md: {}", missing.join(", "));
}

/// Lists uses of a module that is not below the file's own, and of names that are no module at all.
fn layer_problems(path: &str, text: &str) -> Vec<String> {
    let own = top_module(path);
    let Some(own_rank) = rank(own) else { return vec![format!("{path}:1: `{own}` has no rank")] };
    let problem = |(line, used): Token<'_>| match rank(used) {
        _ if used == own => None,
        Some(rank) if rank < own_rank => None,
        Some(rank) => Some(format!("{path}:{line}: `{own}` (rank {own_rank}) uses `{used}` (rank {rank})")),
        None => Some(format!("{path}:{line}: `{used}` has no rank")),
    };
    root_names(path, &tokens(text)).into_iter().filter_map(problem).collect()
}

/// Lists impure names under `wire` and `policy`, where only tests may read files, and serde derives outside `wire`.
fn purity_problems(path: &str, text: &str) -> Vec<String> {
    let own = top_module(path);
    let tokens = tokens(text);
    let names: Vec<&str> = tokens.iter().map(|(_, name)| *name).collect();
    let marked = names.windows(7).position(|w| w == ["#", "[", "cfg", "(", "test", ")", "]"]);
    let tests_from = if path.ends_with("/tests.rs") { 0 } else { marked.unwrap_or(names.len()) };
    let mut problems = Vec::new();
    if own == "wire" || own == "policy" {
        let impure =
            |(at, (_, name)): &(usize, &Token<'_>)| IMPURE.contains(name) || (*name == "fs" && *at < tests_from);
        let found = tokens.iter().enumerate().filter(impure);
        problems.extend(found.map(|(_, (line, name))| format!("{path}:{line}: `{own}` is pure, found `{name}`")));
        let logs = root_names(path, &tokens).into_iter().filter(|(_, name)| *name == "log");
        problems.extend(logs.map(|(line, _)| format!("{path}:{line}: `{own}` does not log")));
    }
    if own != "wire" {
        for derive in tokens.split(|(_, name)| *name == "derive").skip(1) {
            let derived = derive.iter().take_while(|(_, name)| *name != ")");
            let serde = derived.filter(|(_, name)| matches!(*name, "Serialize" | "Deserialize"));
            problems.extend(serde.map(|(line, name)| format!("{path}:{line}: `{name}` is derived outside `wire`")));
        }
    }
    problems
}

/// The package names and versions of the normal tree, without our own.
fn packages(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "-e", "normal", "--prefix", "none", "--locked", "--offline"])
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("cannot run cargo: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let own = concat!(env!("CARGO_PKG_NAME"), " v");
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).filter(|line| !line.starts_with(own)).collect()
}

/// The `[dependencies]` of a manifest, those of one target included, that have no row in the table under "Dependencies" of
/// a readme.
fn unexplained(manifest: &str, readme: &str) -> Vec<String> {
    let manifest = DeTable::parse(manifest).unwrap_or_else(|error| panic!("Cargo.toml: {error}"));
    let manifest = manifest.get_ref();
    let targets = manifest.get("target").and_then(|value| value.get_ref().as_table());
    let targets = targets.into_iter().flat_map(|table| table.values()).filter_map(|value| value.get_ref().as_table());
    let dependencies = targets.chain([manifest]).filter_map(|table| table.get("dependencies")?.get_ref().as_table());
    let names = dependencies.flat_map(|table| table.keys()).map(|key| key.get_ref());
    let section = readme.lines().skip_while(|line| line.trim_start_matches('#') != " Dependencies").skip(1);
    let table: String =
        section.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with('|')).collect();
    names.filter(|name| !table.contains(&format!("`{name}`"))).map(ToString::to_string).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every source file: its path from the root, with `/` between names, and its text.
fn sources() -> Vec<(String, String)> {
    let mut folders = vec![PathBuf::from("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(root().join(&folder)).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries.map(|entry| entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display()))) {
            let path = folder.join(entry.file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
                files.push((name, read(&root().join(&path))));
            }
        }
    }
    assert!(files.len() > 1, "no sources found");
    files
}

fn rank(module: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank)
}

/// `policy` for `src/policy/access.rs` and for `src/policy.rs`.
fn top_module(path: &str) -> &str {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    inner.split('/').next().unwrap_or(inner)
}

#[track_caller]
fn check(problems: Vec<String>, expected: &[&str]) {
    assert_eq!(problems, expected);
}

#[test]
fn an_upward_use_is_found_however_it_is_written() {
    for (path, text, expected) in [
        ("src/policy/access.rs", "fn f() {}\nuse crate::http::X;", "2: `policy` (rank 2) uses `http` (rank 6)"),
        (
            "src/policy.rs",
            "use crate::{\n    wire::{sse, jwt::Key},\n    gateway::{self, view},\n};",
            "3: `policy` (rank 2) uses `gateway` (rank 5)",
        ),
        ("src/store/file.rs", "fn f() { crate::upstream::probe() }", "1: `store` (rank 4) uses `upstream` (rank 4)"),
        ("src/wire/sse.rs", "use super::super::policy::Registry;", "1: `wire` (rank 1) uses `policy` (rank 2)"),
        ("src/wire/mod.rs", "use super::policy;", "1: `wire` (rank 1) uses `policy` (rank 2)"),
        ("src/wire/mod.rs", "use super::{time, store};", "1: `wire` (rank 1) uses `store` (rank 4)"),
        (
            "src/wire/sse.rs",
            "mod tests { use super::super::super::cli::args; }",
            "1: `wire` (rank 1) uses `cli` (rank 7)",
        ),
        (
            "src/shutdown.rs",
            "fn f() { if a { b } }\nmod tests { fn g() {} }\nuse super::time::X;",
            "3: `shutdown` (rank 0) uses `time` (rank 0)",
        ),
        (
            "src/log.rs",
            "/* /* */ \n */ r#\"\" \"#; '\"'; fn f<'a>(_: &'a str) -> crate::wire::X {}",
            "2: `log` (rank 1) uses `wire` (rank 1)",
        ),
        ("src/cli/mod.rs", "use crate::helpers::X;", "1: `helpers` has no rank"),
        ("src/cli/mod.rs", "use crate::*;", "1: `*` has no rank"),
        ("src/helpers/mod.rs", "", "1: `helpers` has no rank"),
    ] {
        check(layer_problems(path, text), &[&format!("{path}:{expected}")]);
    }
}

#[test]
fn downward_and_inner_uses_pass() {
    for (path, text) in [
        ("src/http/mcp/legacy.rs", "use crate::{gateway::{Gateway, cli::Odd}, log, http::router};\nuse super::modern;"),
        ("src/wire/sse.rs", "use super::jwt;\nmod tests { use super::*; use super::super::http; }"),
        (
            "src/wire/sse.rs",
            "pub(crate) fn f() {} // crate::http\n/// crate::http\nconst A: &str = \"\\\"crate::http\";",
        ),
        (
            "src/wire/sse.rs",
            "const A: &str = r#\"crate::http\"#; const B: char = '\\''; const C: &[u8] = br\"crate::http\";",
        ),
        ("src/lib.rs", "pub mod wire;\npub use crate::http::serve;"),
        ("src/main.rs", "use mcp_x::cli;"),
    ] {
        check(layer_problems(path, text), &[]);
    }
}

#[test]
fn impure_code_is_found() {
    for (path, text, expected) in [
        ("src/wire/sse.rs", "async fn f() {}", "1: `wire` is pure, found `async`"),
        ("src/wire/sse.rs", "\nuse std::{io, time::Instant};", "2: `wire` is pure, found `Instant`"),
        ("src/policy/auth.rs", "use std::fs;", "1: `policy` is pure, found `fs`"),
        ("src/policy/auth.rs", "#[cfg(test)]\nmod tests { use rand::Rng; }", "2: `policy` is pure, found `rand`"),
        ("src/policy/auth.rs", "fn f() { crate::log::warn() }", "1: `policy` does not log"),
        ("src/policy/auth.rs", "#[derive(Debug, serde::Deserialize)]", "1: `Deserialize` is derived outside `wire`"),
        ("src/http/api.rs", "#[cfg_attr(a, derive(Serialize))]", "1: `Serialize` is derived outside `wire`"),
    ] {
        check(purity_problems(path, text), &[&format!("{path}:{expected}")]);
    }
    check(
        purity_problems("src/wire/sse.rs", "#[derive(Serialize)] struct A; #[cfg(test)] mod tests { use std::fs; }"),
        &[],
    );
    check(
        purity_problems("src/http/api.rs", "#[derive(Debug)] struct A; impl Serialize for A {} async fn f() {}"),
        &[],
    );
}

#[test]
fn a_dependency_without_a_row_is_found() {
    let manifest =
        "[dependencies]\nhyper = \"1\"\nhyper-util = { version = \"1\" }\ntokio = \"1\"\n[dev-dependencies]\nx = \"1\"";
    let readme = "`tokio`\n## Dependencies\nText on `tokio`.\n\n| `hyper-util` | why |\n## Other\n| `tokio` | no |";
    check(unexplained(manifest, readme), &["hyper", "tokio"]);
    let of_a_target = format!("{manifest}\n[target.'cfg(unix)'.dependencies]\nlibc = \"1\"");
    check(unexplained(&of_a_target, readme), &["libc", "hyper", "tokio"]);
    check(unexplained(manifest, &readme.replace("## Other", "| `tokio`, `hyper` | why |")), &[]);
}
