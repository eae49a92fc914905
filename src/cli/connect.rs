//! `mcp-x connect`: what to paste so that an MCP client finds the gateway.
//!
//! On stdout stands the snippet alone, so that it can go into a file; what to do with it is said on stderr. No snippet holds
//! a token: what is pasted ends up in repositories and histories.

use std::io::Write as _;
use std::net::IpAddr;

use super::args::{App, Connection, is_whole_url};
use super::local::{known_client, load};
use super::{Failure, print};
use crate::wire::config::Settings;
use crate::wire::json::write_text;

/// Prints the snippet, and says where it goes.
///
/// # Errors
/// [`Failure`] if the configuration cannot be used or has no such client.
pub(super) fn run(connection: &Connection) -> Result<(), Failure> {
    let (registry, _) = load(&connection.config)?;
    let client = known_client(&registry, &connection.client)?;
    let url = connection.url.clone().unwrap_or_else(|| url_of(registry.settings()));
    if !is_whole_url(&url) {
        return Err(Failure(format!(
            "cannot tell where clients reach the gateway, not at `{url}`\nhint: say it with --url"
        )));
    }
    let (snippet, place) = snippet(connection.app);
    let client = client.as_str();
    let mut command = format!("mcp-x token --config {}", quoted(&connection.config.display().to_string()));
    if let Some(folder) = &connection.state_dir {
        command += &format!(" --state-dir {}", quoted(&folder.display().to_string()));
    }
    command += &format!(" --client {} --for 7d", quoted(client));
    let notes = format!(
        "{place}\n{}: the token of `{client}`; a signed one that is good for a week:\n  {command}\n\n",
        token(connection.app),
    );
    // Whoever has closed stderr does not want to know.
    let _ = std::io::stderr().write_all(notes.as_bytes());
    print(&filled(snippet, &url, client))
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@%+,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Where clients reach a gateway: behind its proxy if it has a name of its own, else where it listens.
fn url_of(settings: &Settings) -> String {
    if let Some(host) = settings.allowed_hosts.first() {
        return format!("https://{host}/mcp");
    }
    let mut address = settings.listen;
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv6() { IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]) } else { [127, 0, 0, 1].into() };
        address.set_ip(loopback);
    }
    format!("http://{address}/mcp")
}

/// Puts the parts that differ into a snippet. The URL holds nothing that would end a quotation ([`is_whole_url`]).
fn filled(snippet: &str, url: &str, client: &str) -> String {
    let mut asked = Vec::new();
    write_text(&mut asked, &format!("MCP-X token of {client}"));
    // What mcp-remote allows without being told to.
    let is_local = |rest: &str| matches!(rest.split([':', '/']).next(), Some("localhost" | "127.0.0.1"));
    let insecure = match url.strip_prefix("http://") {
        Some(rest) if !is_local(rest) => ", \"--allow-http\"",
        _ => "",
    };
    let snippet = snippet.replace("{url}", url).replace("{insecure}", insecure);
    snippet.replace("{asked}", &String::from_utf8_lossy(&asked))
}

/// What has to hold the token.
fn token(app: App) -> &'static str {
    match app {
        App::ClaudeDesktop => "in the place of YOUR_TOKEN",
        App::VsCode => "what VS Code will ask for",
        _ => "the variable MCP_X_TOKEN has to hold",
    }
}

/// What is pasted, and where.
fn snippet(app: App) -> (&'static str, &'static str) {
    match app {
        App::ClaudeCode => (
            "claude mcp add --transport http mcp-x '{url}' --header \"Authorization: Bearer ${MCP_X_TOKEN:?}\"\n",
            "a command to run; Claude Code keeps the token in its own settings, ~/.claude.json",
        ),
        App::ClaudeDesktop => (CLAUDE_DESKTOP, "for claude_desktop_config.json (Settings, Developer, Edit Config)"),
        App::Cursor => (CURSOR, "for .cursor/mcp.json of a project, or ~/.cursor/mcp.json"),
        App::VsCode => (VS_CODE, "for .vscode/mcp.json"),
        App::Inspector => (
            "npx -y @modelcontextprotocol/inspector --cli '{url}' --transport http --method tools/list \\\n  --header \"Authorization: Bearer ${MCP_X_TOKEN:?}\"\n",
            "a command to run; it needs Node.js 22.19 or newer",
        ),
        App::Python => (PYTHON, "a program to run (pip install 'mcp<2')"),
        App::TypeScript => (TYPESCRIPT, "a module to run, such as list.mjs (npm install @modelcontextprotocol/sdk)"),
        App::Curl => (
            "curl -s '{url}' -H \"Authorization: Bearer ${MCP_X_TOKEN:?}\" -H 'Content-Type: application/json' \\\n  -d '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}'\n",
            "a command to run",
        ),
    }
}

const CLAUDE_DESKTOP: &str = r#"{
  "mcpServers": {
    "mcp-x": {
      "command": "npx",
      "args": ["-y", "mcp-remote", "{url}", "--transport", "http-only"{insecure}, "--header", "Authorization:${AUTHORIZATION}"],
      "env": { "AUTHORIZATION": "Bearer YOUR_TOKEN" }
    }
  }
}
"#;

const CURSOR: &str = r#"{
  "mcpServers": {
    "mcp-x": {
      "url": "{url}",
      "headers": { "Authorization": "Bearer ${env:MCP_X_TOKEN}" }
    }
  }
}
"#;

const VS_CODE: &str = r#"{
  "inputs": [
    { "type": "promptString", "id": "mcp-x-token", "description": {asked}, "password": true }
  ],
  "servers": {
    "mcp-x": {
      "type": "http",
      "url": "{url}",
      "headers": { "Authorization": "Bearer ${input:mcp-x-token}" }
    }
  }
}
"#;

const PYTHON: &str = r#"import asyncio
import os

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def main():
    headers = {"Authorization": f"Bearer {os.environ['MCP_X_TOKEN']}"}
    async with streamablehttp_client("{url}", headers=headers) as (read, write, _):
        async with ClientSession(read, write) as session:
            await session.initialize()
            print([tool.name for tool in (await session.list_tools()).tools])


asyncio.run(main())
"#;

const TYPESCRIPT: &str = r#"import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const headers = { Authorization: `Bearer ${process.env.MCP_X_TOKEN}` };
const transport = new StreamableHTTPClientTransport(new URL("{url}"), { requestInit: { headers } });
const client = new Client({ name: "example", version: "1" });
await client.connect(transport);
console.log((await client.listTools()).tools.map((tool) => tool.name));
await client.close();
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(listen: &str, allowed_hosts: &[&str], expected: &str) {
        let allowed_hosts = allowed_hosts.iter().map(|&host| host.to_owned()).collect();
        let settings = Settings { listen: listen.parse().unwrap(), allowed_hosts, ..Settings::default() };
        assert_eq!(url_of(&settings), expected);
    }

    #[test]
    fn the_url_is_that_of_the_proxy_or_of_the_gateway() {
        check("127.0.0.1:9000", &[], "http://127.0.0.1:9000/mcp");
        check("0.0.0.0:80", &[], "http://127.0.0.1:80/mcp");
        check("[::]:80", &[], "http://[::1]:80/mcp");
        check("10.0.0.1:9000", &["mcp.example.com", "b"], "https://mcp.example.com/mcp");
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        let words = ["a.toml", "", "two words", "it's", "$(id)"].map(quoted);
        assert_eq!(words, ["a.toml", "''", "'two words'", r"'it'\''s'", "'$(id)'"]);
    }

    #[test]
    fn every_snippet_is_filled_and_those_of_files_are_json() {
        for app in App::ALL {
            for url in ["https://mcp.example.com/mcp", "http://10.0.0.1:9000/mcp"] {
                let text = filled(snippet(app).0, url, "a \"quoted\" name");
                assert!(text.contains(url), "{text}");
                assert!(!["{url}", "{insecure}", "{asked}"].iter().any(|hole| text.contains(hole)), "{text}");
                if matches!(app, App::ClaudeDesktop | App::Cursor | App::VsCode) {
                    serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
                }
                assert_eq!(text.contains("--allow-http"), app == App::ClaudeDesktop && url.starts_with("http:"));
            }
        }
        for (url, allowed) in [
            ("http://localhost:9000/mcp", false),
            ("http://127.0.0.1/mcp", false),
            ("http://localhost.example.com/mcp", true),
            ("http://127.0.0.10:9000/mcp", true),
            ("https://mcp.example.com/mcp", false),
        ] {
            assert_eq!(filled(CLAUDE_DESKTOP, url, "a").contains("--allow-http"), allowed, "{url}");
        }
    }
}
