//! Command-line arguments → [`Command`].
//!
//! Environment variables stand in for flags that are not given: `MCP_X_CONFIG`, `MCP_X_STATE_DIR`, `MCP_X_LOG`.
//! All of it has to be UTF-8, paths too: they are shown in logs and messages.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::gateway::Subject;
use crate::log::{Format, Level};
use crate::wire::config::{listen_address, nearest};
use crate::wire::mcp::ListKind;

/// What `--help` prints.
pub const HELP: &str = "\
mcp-x — a multi-client MCP gateway with per-tool access control

Usage:
  mcp-x [serve] [options]   run the gateway
  mcp-x demo [options]      run it with two example MCP servers, on config.example.toml;
                            without --config and --state-dir, because it brings both
  mcp-x check [options]     read the configuration and report every problem
  mcp-x explain --client C (--tool T | --prompt P | --resource URI) [--server S]
                            say whether a client may use it, and which rule decides; asks the servers what they have
  mcp-x diff --config NEW [--from OLD]
                            say which client gains and which loses which tools by a change of the configuration
  mcp-x token               make a random token, and print it with its SHA-256
  mcp-x token --client C [--for 1h]
                            print a signed token that expires: for any client of the configuration
  mcp-x connect --client C --for APP [--url URL]
                            print what to paste into an MCP client; APP is one of claude-code, claude-desktop, cursor,
                            vscode, inspector, python, typescript and curl

Options:
  --config PATH             configuration file (default: config.toml)          [MCP_X_CONFIG]
  --state-dir DIR           where secrets and sessions are kept (default: the config's folder) [MCP_X_STATE_DIR]
  --listen ADDR             address to listen on, such as 127.0.0.1:9000
  --host HOST               only the host of that address
  --port PORT               only the port of that address
  --threads N               threads that serve clients (default: one a core)
  --log LEVEL               error, warn, info or debug (default: info)         [MCP_X_LOG]
  --log-format FORMAT       text or json (default: text)
  --client C                a client's name
  --tool T, --prompt P, --resource URI
                            a tool, prompt or resource as the client names it
  --server S                a server
  --for TIME                how long a token is good: 90s, 15m, 1h or 7d (default: 1h)
  --url URL                 where clients reach the gateway (default: allowed_hosts, or else where it listens)
  --from PATH               configuration to compare with (default: config.toml) [MCP_X_CONFIG]
  --help, --version

Exit codes: 0 fine, 1 a stated problem, 2 wrong usage.
";

/// What the user wants done.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// Run the gateway.
    Serve(Options),
    /// Run the gateway with example servers, on a configuration and a state folder of their own.
    Demo(Options),
    /// Report the configuration's problems. Takes all options of `serve`, so that a unit file can give both the same.
    Check(Options),
    /// Say whether a client may call a tool, and why.
    Explain(Question),
    /// Say what a change of the configuration changes for whom.
    Diff {
        /// The file as it is.
        from: PathBuf,
        /// The file as it is to be.
        to: PathBuf,
    },
    /// Make a random token.
    Token,
    /// Sign a token that expires.
    SignedToken {
        /// Where configuration and secret lie.
        options: Options,
        /// For whom.
        client: String,
        /// For how long.
        lifetime: Duration,
    },
    /// Say how a client is connected.
    Connect(Connection),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// The options of every command; a command takes those that concern it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Configuration file.
    pub config: Option<PathBuf>,
    /// Where secrets are kept.
    pub state_dir: Option<PathBuf>,
    /// Address to listen on, instead of the configured one.
    pub listen: Option<SocketAddr>,
    /// Host of that address.
    pub host: Option<IpAddr>,
    /// Port of that address.
    pub port: Option<u16>,
    /// Threads that serve clients.
    pub threads: Option<usize>,
    /// Gravest level that is not logged is the next one.
    pub log: Option<Level>,
    /// How records are written.
    pub log_format: Option<Format>,
}

impl Options {
    /// The configuration file, `config.toml` by default.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from("config.toml"))
    }

    /// The address to listen on, given the configured one.
    #[must_use]
    pub fn address(&self, configured: SocketAddr) -> SocketAddr {
        let base = self.listen.unwrap_or(configured);
        SocketAddr::new(self.host.unwrap_or(base.ip()), self.port.unwrap_or(base.port()))
    }
}

/// What `explain` is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Configuration file.
    pub config: PathBuf,
    /// Who wants to use it.
    pub client: String,
    /// The one server that is asked about.
    pub server: Option<String>,
    /// About what.
    pub subject: Subject,
}

/// What `connect` is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Configuration file.
    pub config: PathBuf,
    /// Where secrets are kept, if not beside it.
    pub state_dir: Option<PathBuf>,
    /// Who is to be connected.
    pub client: String,
    /// With which program.
    pub app: App,
    /// Where it reaches the gateway, if that is not to be told from the configuration.
    pub url: Option<String>,
}

/// A program that speaks MCP, or that one is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum App {
    ClaudeCode,
    ClaudeDesktop,
    Cursor,
    VsCode,
    Inspector,
    Python,
    TypeScript,
    Curl,
}

impl App {
    /// Every program.
    pub const ALL: [Self; 8] = [
        Self::ClaudeCode,
        Self::ClaudeDesktop,
        Self::Cursor,
        Self::VsCode,
        Self::Inspector,
        Self::Python,
        Self::TypeScript,
        Self::Curl,
    ];

    /// The name on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::ClaudeDesktop => "claude-desktop",
            Self::Cursor => "cursor",
            Self::VsCode => "vscode",
            Self::Inspector => "inspector",
            Self::Python => "python",
            Self::TypeScript => "typescript",
            Self::Curl => "curl",
        }
    }
}

/// Whether a text is a URL that can stand in a shell's quotation, in JSON and in a program as it is.
#[must_use]
pub fn is_whole_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let plain = |b: u8| b.is_ascii_graphic() && !b"'\"`\\$<>{}".contains(&b);
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(plain))
}

/// The options that only some commands take.
#[derive(Debug, Default)]
struct Special {
    client: Option<String>,
    server: Option<String>,
    /// What `explain` is asked about; once only.
    subjects: Vec<Subject>,
    /// A time or a program, as the command has it.
    aim: Option<String>,
    from: Option<PathBuf>,
    url: Option<String>,
}

/// Arguments that make no command: what is wrong, and perhaps what to do.
#[derive(Debug, PartialEq)]
pub struct UsageError {
    message: String,
    hint: Option<String>,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for UsageError {}

fn wrong(message: String) -> UsageError {
    UsageError { message, hint: None }
}

const COMMANDS: [&str; 7] = ["serve", "demo", "check", "explain", "diff", "token", "connect"];
const FLAGS: [&str; 18] = [
    "--config",
    "--state-dir",
    "--listen",
    "--host",
    "--port",
    "--threads",
    "--log",
    "--log-format",
    "--client",
    "--tool",
    "--prompt",
    "--resource",
    "--server",
    "--for",
    "--from",
    "--url",
    "--help",
    "--version",
];

/// Whether a command takes a flag. `check` takes those of `serve`, so that a unit file can give both the same.
fn takes(command: &str, flag: &str) -> bool {
    match command {
        "explain" => matches!(flag, "--config" | "--client" | "--tool" | "--prompt" | "--resource" | "--server"),
        "diff" => matches!(flag, "--config" | "--from"),
        "token" => matches!(flag, "--config" | "--state-dir" | "--client" | "--for"),
        "connect" => matches!(flag, "--config" | "--state-dir" | "--client" | "--for" | "--url"),
        "demo" if matches!(flag, "--config" | "--state-dir") => false,
        _ => !matches!(
            flag,
            "--client" | "--tool" | "--prompt" | "--resource" | "--server" | "--for" | "--from" | "--url"
        ),
    }
}

/// Reads the arguments behind the program's name; `environment` looks up a variable.
///
/// # Errors
/// [`UsageError`] for the first argument that cannot be used.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, UsageError> {
    let arguments: Vec<String> = arguments.into_iter().map(|a| utf8("argument", a)).collect::<Result<_, _>>()?;
    let mut arguments = arguments.into_iter().peekable();
    let command = match arguments.peek() {
        Some(first) if !first.starts_with('-') => arguments.next().unwrap_or_default(),
        _ => "serve".to_owned(),
    };
    if !COMMANDS.contains(&command.as_str()) {
        return Err(unknown("command", &command, &COMMANDS));
    }
    let (mut options, mut special) = (Options::default(), Special::default());
    while let Some(argument) = arguments.next() {
        let (flag, attached) = match argument.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        match flag.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--version" | "-V" => return Ok(Command::Version),
            known if FLAGS.contains(&known) && !takes(&command, known) => return Err(not_for(&command, known)),
            known if FLAGS.contains(&known) => {
                let value = attached.or_else(|| arguments.next());
                let value = value.ok_or_else(|| wrong(format!("expected a value after `{known}`")))?;
                if !special.set(known, &value)? {
                    set(&mut options, known, &value)?;
                }
            }
            other => return Err(unknown("option", other, &FLAGS)),
        }
    }
    // Of `diff`, `--config` names the new file, and `--from` stands for what it names elsewhere.
    let to = match command.as_str() {
        "diff" => std::mem::replace(&mut options.config, special.from.take()),
        _ => None,
    };
    fill_in(&mut options, environment)?;
    Ok(match command.as_str() {
        "demo" => Command::Demo(options),
        "check" => Command::Check(options),
        "explain" => Command::Explain(special.question(&options)?),
        "diff" => Command::Diff { to: to.ok_or_else(|| needs("diff", "--config"))?, from: options.config() },
        "token" => special.token(options)?,
        "connect" => Command::Connect(special.connection(&options)?),
        _ => Command::Serve(options),
    })
}

impl Special {
    /// Takes a flag that is one of these; false if it is none.
    fn set(&mut self, flag: &str, value: &str) -> Result<bool, UsageError> {
        match flag {
            "--client" => self.client = Some(value.to_owned()),
            "--server" => self.server = Some(value.to_owned()),
            "--tool" => self.subjects.push(Subject::new(ListKind::Tools, value)),
            "--prompt" => self.subjects.push(Subject::new(ListKind::Prompts, value)),
            "--resource" => self.subjects.push(Subject::new(ListKind::Resources, value)),
            "--from" => self.from = Some(value.into()),
            "--for" => self.aim = Some(value.to_owned()),
            "--url" => {
                if !is_whole_url(value) {
                    return Err(wrong(format!(
                        "`--url`: expected a URL such as `https://mcp.example.com/mcp`, found `{value}`"
                    )));
                }
                self.url = Some(value.to_owned());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn question(self, options: &Options) -> Result<Question, UsageError> {
        let client = self.client.ok_or_else(|| needs("explain", "--client"))?;
        let mut subjects = self.subjects.into_iter();
        match (subjects.next(), subjects.next()) {
            (Some(subject), None) => Ok(Question { config: options.config(), client, server: self.server, subject }),
            _ => Err(wrong("`explain` needs one of `--tool`, `--prompt` and `--resource`".to_owned())),
        }
    }

    fn token(self, options: Options) -> Result<Command, UsageError> {
        let read = |aim: &String| {
            let expected = || wrong(format!("`--for`: expected a time like `90s`, `15m`, `1h` or `7d`, found `{aim}`"));
            lifetime(aim).ok_or_else(expected)
        };
        match (self.client, self.aim.as_ref().map(read).transpose()?) {
            (Some(client), lifetime) => {
                Ok(Command::SignedToken { options, client, lifetime: lifetime.unwrap_or(DEFAULT_LIFETIME) })
            }
            (None, None) => Ok(Command::Token),
            (None, Some(_)) => Err(needs("token --for", "--client")),
        }
    }

    fn connection(self, options: &Options) -> Result<Connection, UsageError> {
        let aim = self.aim.ok_or_else(|| needs("connect", "--for"))?;
        let known = App::ALL.map(App::as_str);
        let app = App::ALL.into_iter().find(|app| app.as_str() == aim);
        Ok(Connection {
            config: options.config(),
            state_dir: options.state_dir.clone(),
            client: self.client.ok_or_else(|| needs("connect", "--client"))?,
            app: app.ok_or_else(|| {
                let hint = nearest(&aim, known.into_iter()).map(|near| format!("did you mean `{near}`?"));
                UsageError { message: format!("`--for`: expected one of {}, found `{aim}`", known.join(", ")), hint }
            })?,
            url: self.url,
        })
    }
}

/// How long a signed token is good unless `--for` says otherwise.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// A time such as `90s`, `15m`, `1h` or `7d`; at least a second and at most a year.
fn lifetime(text: &str) -> Option<Duration> {
    let units = [('s', 1), ('m', 60), ('h', 60 * 60), ('d', 24 * 60 * 60)];
    let (number, seconds) = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)))?;
    let number: u64 = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())??;
    let total = number.checked_mul(seconds)?;
    (1..=366 * 24 * 60 * 60).contains(&total).then(|| Duration::from_secs(total))
}

fn needs(command: &str, flag: &str) -> UsageError {
    wrong(format!("`{command}` needs `{flag}`"))
}

fn set(options: &mut Options, flag: &str, value: &str) -> Result<(), UsageError> {
    match flag {
        "--config" => options.config = Some(value.into()),
        "--state-dir" => options.state_dir = Some(value.into()),
        "--listen" => options.listen = Some(listen_address(value).map_err(|e| wrong(format!("`--listen`: {e}")))?),
        "--host" if value == "localhost" => options.host = Some(IpAddr::from([127, 0, 0, 1])),
        "--host" => options.host = Some(read(flag, value, "an IP address or `localhost`")?),
        "--port" => options.port = Some(read(flag, value, "a number up to 65535")?),
        "--threads" => {
            let threads: u8 = read(flag, value, "a number from 1 to 255")?;
            options.threads = Some(usize::from(threads.max(1)));
        }
        "--log" => options.log = Some(read(flag, value, "`error`, `warn`, `info` or `debug`")?),
        _ => options.log_format = Some(read(flag, value, "`text` or `json`")?),
    }
    Ok(())
}

fn fill_in(options: &mut Options, environment: impl Fn(&str) -> Option<OsString>) -> Result<(), UsageError> {
    let variable = |name: &str| environment(name).map(|value| utf8(&format!("`{name}`"), value)).transpose();
    if options.config.is_none() {
        options.config = variable("MCP_X_CONFIG")?.map(PathBuf::from);
    }
    if options.state_dir.is_none() {
        options.state_dir = variable("MCP_X_STATE_DIR")?.map(PathBuf::from);
    }
    if options.log.is_none()
        && let Some(level) = variable("MCP_X_LOG")?
    {
        options.log = Some(read("MCP_X_LOG", &level, "`error`, `warn`, `info` or `debug`")?);
    }
    Ok(())
}

fn utf8(what: &str, value: OsString) -> Result<String, UsageError> {
    value.into_string().map_err(|value| wrong(format!("{what}: expected UTF-8, found `{}`", value.display())))
}

fn not_for(command: &str, flag: &str) -> UsageError {
    let hint = match command {
        "demo" => "the demo brings its own; `mcp-x serve` takes yours",
        _ => "`mcp-x --help` says which command takes it",
    };
    UsageError { message: format!("`{command}` takes no `{flag}`"), hint: Some(hint.to_owned()) }
}

fn read<T: FromStr>(name: &str, value: &str, expected: &str) -> Result<T, UsageError> {
    value.parse().map_err(|_| wrong(format!("`{name}`: expected {expected}, found `{value}`")))
}

fn unknown(what: &str, found: &str, known: &[&str]) -> UsageError {
    let hint = match nearest(found, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`mcp-x --help` lists them".to_owned(),
    };
    UsageError { message: format!("unknown {what} `{found}`"), hint: Some(hint) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn run(line: &str) -> Result<Command, UsageError> {
        parse(line.split_whitespace().map(OsString::from), |_| None)
    }

    #[test]
    fn commands_and_options_are_read() {
        assert_eq!(run(""), Ok(Command::Serve(Options::default())));
        let options = Options { config: Some("a.toml".into()), port: Some(7), ..Options::default() };
        assert_eq!(run("--config a.toml --port=7"), Ok(Command::Serve(options)));
        assert!(matches!(run("demo --threads 2"), Ok(Command::Demo(o)) if o.threads == Some(2)));
        assert!(matches!(run("check --log-format json"), Ok(Command::Check(o)) if o.log_format == Some(Format::Json)));
        assert_eq!(run("serve --help"), Ok(Command::Help));
        assert_eq!(run("-V"), Ok(Command::Version));
    }

    #[test]
    fn wrong_usage_says_what_to_do() {
        let text = |line| run(line).unwrap_err().to_string();
        assert_eq!(text("--prot 1"), "unknown option `--prot`\nhint: did you mean `--port`?");
        assert_eq!(text("sevre"), "unknown command `sevre`\nhint: did you mean `serve`?");
        assert_eq!(text("--frobnicate"), "unknown option `--frobnicate`\nhint: `mcp-x --help` lists them");
        assert_eq!(text("--port"), "expected a value after `--port`");
        assert_eq!(text("--port x"), "`--port`: expected a number up to 65535, found `x`");
        assert_eq!(text("--log loud"), "`--log`: expected `error`, `warn`, `info` or `debug`, found `loud`");
    }

    #[test]
    fn the_environment_stands_in_for_flags() {
        let environment = |name: &str| (name == "MCP_X_CONFIG").then(|| OsString::from("env.toml"));
        let config = |line: &str| match parse(line.split_whitespace().map(OsString::from), environment) {
            Ok(Command::Serve(options)) => options.config(),
            other => panic!("{other:?}"),
        };
        assert_eq!(config(""), PathBuf::from("env.toml"));
        assert_eq!(config("--config flag.toml"), PathBuf::from("flag.toml"));
        assert!(parse([], |name| (name == "MCP_X_LOG").then(|| "loud".into())).is_err());
    }

    #[test]
    fn what_is_not_utf_8_is_wrong_usage() {
        let odd = || OsString::from_vec(b"a\xff".to_vec());
        let text = |result: Result<Command, UsageError>| result.unwrap_err().to_string();
        let arguments = [OsString::from("--config"), odd()];
        assert_eq!(text(parse(arguments, |_| None)), "argument: expected UTF-8, found `a\u{fffd}`");
        let environment = |name: &str| (name == "MCP_X_CONFIG").then(odd);
        assert_eq!(text(parse([], environment)), "`MCP_X_CONFIG`: expected UTF-8, found `a\u{fffd}`");
        assert!(parse(["--config".into(), "fine".into()], environment).is_ok(), "the variable is not needed");
    }

    #[test]
    fn the_demo_takes_no_files_of_the_users() {
        let text = |line| run(line).unwrap_err().to_string();
        let hint = "hint: the demo brings its own; `mcp-x serve` takes yours";
        assert_eq!(text("demo --config a.toml"), format!("`demo` takes no `--config`\n{hint}"));
        assert_eq!(text("demo --state-dir=a"), format!("`demo` takes no `--state-dir`\n{hint}"));
        let environment = |name: &str| (name == "MCP_X_CONFIG").then(|| OsString::from("env.toml"));
        assert!(parse(["demo".into()], environment).is_ok(), "variables are meant for others as well");
    }

    #[test]
    fn questions_about_the_configuration_are_read() {
        for (flag, kind) in
            [("--tool", ListKind::Tools), ("--prompt", ListKind::Prompts), ("--resource", ListKind::Resources)]
        {
            let (subject, server) = (Subject::new(kind, "t"), Some("s".to_owned()));
            let question = Question { config: "config.toml".into(), client: "bob".into(), server, subject };
            assert_eq!(run(&format!("explain --client bob --server s {flag}=t")), Ok(Command::Explain(question)));
        }
        let diff = |from: &str, to: &str| Ok(Command::Diff { from: from.into(), to: to.into() });
        assert_eq!(run("diff --config new.toml"), diff("config.toml", "new.toml"));
        assert_eq!(run("diff --config new.toml --from old.toml"), diff("old.toml", "new.toml"));
        let environment = |name: &str| (name == "MCP_X_CONFIG").then(|| OsString::from("env.toml"));
        let arguments = ["diff", "--config", "new.toml"].map(OsString::from);
        assert_eq!(parse(arguments, environment), diff("env.toml", "new.toml"));
        assert_eq!(run("token"), Ok(Command::Token));
        let hours = |lifetime: &str| match run(&format!("token --client c --for {lifetime}")) {
            Ok(Command::SignedToken { lifetime, .. }) => Some(lifetime.as_secs()),
            _ => None,
        };
        assert_eq!([hours("90s"), hours("15m"), hours("1h"), hours("7d")], [90, 900, 3_600, 604_800].map(Some));
        for wrong in ["", "1", "h", "0s", "-1h", "+1h", "1.5h", "367d", "99999999999999999999d", "1w"] {
            assert_eq!(hours(wrong), None, "{wrong}");
        }
        let connection = |url: Option<&str>| {
            let url = url.map(str::to_owned);
            Ok(Command::Connect(Connection {
                config: "config.toml".into(),
                state_dir: None,
                client: "bob".into(),
                app: App::VsCode,
                url,
            }))
        };
        assert_eq!(run("connect --client bob --for vscode"), connection(None));
        let url = "https://mcp.example.com:8443/team/mcp?a=b&c";
        assert_eq!(run(&format!("connect --client bob --for vscode --url {url}")), connection(Some(url)));
        let text = |line| run(line).unwrap_err().to_string();
        assert_eq!(text("connect --for curl"), "`connect` needs `--client`");
        assert_eq!(text("connect --client bob"), "`connect` needs `--for`");
        assert!(text("connect --client bob --for vs-code").ends_with("found `vs-code`\nhint: did you mean `vscode`?"));
        for url in
            ["mcp.example.com", "https://", "http://a'b", "http://$(id)", "http://a\\b", "ftp://a", "http://a\u{e9}"]
        {
            let expected = format!("`--url`: expected a URL such as `https://mcp.example.com/mcp`, found `{url}`");
            let line = format!("connect --client bob --for curl --url {url}");
            assert_eq!(run(&line).unwrap_err().to_string(), expected);
        }
        assert_eq!(text("explain --tool t"), "`explain` needs `--client`");
        for subjects in ["", " --tool t --prompt p", " --tool t --tool u"] {
            let expected = "`explain` needs one of `--tool`, `--prompt` and `--resource`";
            let line = format!("explain --client c{subjects}");
            assert_eq!(run(&line).unwrap_err().to_string(), expected);
        }
        assert_eq!(text("diff"), "`diff` needs `--config`");
        assert_eq!(text("token --for 1h"), "`token --for` needs `--client`");
        let hint = "hint: `mcp-x --help` says which command takes it";
        assert_eq!(text("serve --tool t"), format!("`serve` takes no `--tool`\n{hint}"));
        assert_eq!(text("diff --port 1"), format!("`diff` takes no `--port`\n{hint}"));
    }

    #[test]
    fn the_help_names_every_command_and_flag() {
        for name in COMMANDS.iter().chain(&FLAGS) {
            assert!(HELP.contains(name), "{name}");
        }
    }

    #[test]
    fn host_and_port_change_parts_of_the_address() {
        let configured = SocketAddr::from(([127, 0, 0, 1], 9000));
        let address = |line| match run(line) {
            Ok(Command::Serve(options)) => options.address(configured).to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(address(""), "127.0.0.1:9000");
        assert_eq!(address("--port 1"), "127.0.0.1:1");
        assert_eq!(address("--host ::1"), "[::1]:9000");
        assert_eq!(address("--listen 0.0.0.0:5 --port 6"), "0.0.0.0:6");
    }
}
