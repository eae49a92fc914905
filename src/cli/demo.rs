//! `mcp-x demo`: two example MCP servers and a gateway in one process, on `config.example.toml`.
//!
//! The configuration is copied into a folder of its own, where it can be edited while the demo runs.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener as StdListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;
use tokio::runtime::Builder;

use super::args::Options;
use super::examples::{Example, serve as serve_example};
use super::serve::{Running, Signals, open_log, start};
use super::{Failure, print};
use crate::log::{Level, Log};
use crate::policy::ClientId;

const CONFIG: &str = include_str!("../../config.example.toml");
/// The example servers, with the address that the example configuration gives them.
const SERVERS: [(Example, &str); 2] = [(Example::Text, "localhost:9100"), (Example::Clock, "localhost:9101")];
/// Who may be played, and their tokens in the example configuration.
const CLIENTS: [(&str, &str); 3] = [("alice", "123"), ("bob", "456"), ("charlie", "789")];

/// Runs the demo until SIGTERM, SIGINT or SIGHUP.
///
/// # Errors
/// [`Failure`] if something cannot start; what it says tells what to do.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let log = open_log(&Options { log: Some(options.log.unwrap_or(Level::Warn)), ..options.clone() });
    let folder = private_folder(&std::env::temp_dir(), rand::random())?;
    let ended = play(options, &log, &folder);
    // The folder is the demo's own and goes with it.
    let _ = fs::remove_dir_all(&folder);
    log.flush();
    ended
}

/// Makes the demo's folder; `suffix` is random.
///
/// SECURITY: the gateway does what the configuration in it says. Others may write to where temporary files lie, so the
/// folder must be new, and nobody else's.
fn private_folder(parent: &Path, suffix: u64) -> Result<PathBuf, Failure> {
    let folder = parent.join(format!("mcp-x-demo-{suffix:016x}"));
    let made = fs::DirBuilder::new().mode(0o700).create(&folder);
    let failed = |e| Failure(format!("cannot create {}: {}", folder.display(), crate::log::os_error(&e)));
    made.map_err(failed).map(|()| folder)
}

fn play(options: &Options, log: &Log, folder: &Path) -> Result<(), Failure> {
    // Whoever registers here brings servers of this machine.
    let mut config = CONFIG.replace("#allow_private_upstreams = false", "allow_private_upstreams = true");
    for (example, configured) in SERVERS {
        let listener = listen(configured)?;
        let address = listener.local_addr()?;
        start_example(example, listener)?;
        if !configured.ends_with(&format!(":{}", address.port())) {
            config = config.replace(configured, &address.to_string());
        }
    }
    let path = folder.join("config.toml");
    fs::write(&path, config)?;
    let options = Options { config: Some(path.clone()), state_dir: Some(folder.to_owned()), ..options.clone() };
    let mut signals = Signals::listen()?;
    let running = start(&options, log)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    print(&runtime.block_on(introduction(&running, &path)))?;
    // Whatever it is: the demo ends with its terminal.
    signals.next();
    running.stop();
    Ok(())
}

/// Listens on the port that the example configuration gives a server, or on a free one if that is taken.
fn listen(configured: &str) -> Result<StdListener, Failure> {
    let port = configured.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
    let listener = StdListener::bind(("127.0.0.1", port)).or_else(|_| StdListener::bind(("127.0.0.1", 0)))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Starts an example server on a thread of its own, where it stays until the process ends.
fn start_example(example: Example, listener: StdListener) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(example.name().into()).spawn(move || {
        runtime.block_on(async {
            if let Ok(listener) = TcpListener::from_std(listener) {
                serve_example(listener, example).await;
            }
        });
    })?;
    Ok(())
}

/// What is printed: who sees what, and what to paste.
async fn introduction(running: &Running, config: &Path) -> String {
    let base = format!("http://{}", running.address);
    let url = format!("{base}/mcp");
    let mut out = String::from("MCP-X demo: two MCP servers, and a gateway on config.example.toml\n\n");
    let _ = writeln!(
        out,
        "  gateway  {url}\n  REST     {base}/docs\n  config   {}  (edit it: changes are in force within two seconds)\n",
        config.display()
    );
    let _ = writeln!(out, "  {:<9}{:<7}sees", "client", "token");
    let snapshot = running.gateway.snapshot();
    for (client, token) in CLIENTS {
        let view = running.gateway.view(&snapshot, &ClientId::new(client)).await;
        let _ = writeln!(out, "  {client:<9}{token:<7}{}", view.names().collect::<Vec<_>>().join(", "));
    }
    let _ = write!(out, "{}", SNIPPETS.replace("{url}", &url).replace("{base}", &base));
    out
}

const SNIPPETS: &str = r#"
List what bob may use, and call one of his tools:

  curl -s {url} -H 'Authorization: Bearer 456' -H 'Content-Type: application/json' \
    -d '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'

  curl -s {url} -H 'Authorization: Bearer 456' -H 'Content-Type: application/json' \
    -d '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"text_stats","arguments":{"text":"hello world"}}}'

Say why bob may not use json_format, and let him use it, as its owner alice:

  curl -s '{base}/explain?tool=json_format&client=bob&server=server_a' -H 'Authorization: Bearer 123'

  curl -s {base}/update_access_control -H 'Authorization: Bearer 123' -H 'Content-Type: application/json' \
    -d '{"client_id":"bob","server_access":{"server_a":["text_*","json_format"]}}'

Watch progress while a call runs:

  curl -sN {url} -H 'Authorization: Bearer 456' -H 'Content-Type: application/json' \
    -d '{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"countdown","arguments":{"seconds":3},"_meta":{"progressToken":"p"}}}'

From Python (pip install 'mcp<2'):

  import asyncio
  from mcp import ClientSession
  from mcp.client.streamable_http import streamablehttp_client

  async def main():
      headers = {"Authorization": "Bearer 456"}
      async with streamablehttp_client("{url}", headers=headers) as (read, write, _):
          async with ClientSession(read, write) as session:
              await session.initialize()
              print([tool.name for tool in (await session.list_tools()).tools])
              print(await session.call_tool("text_hash", {"text": "hello"}))

  asyncio.run(main())

Claude Code:

  claude mcp add --transport http mcp-x {url} --header "Authorization: Bearer 456"

Ctrl-C ends the demo.
"#;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_folder_is_new_and_private() {
        let parent = std::env::temp_dir().join(format!("mcp-x-demo-test-{}", std::process::id()));
        fs::create_dir_all(&parent).unwrap();
        let folder = private_folder(&parent, 7).unwrap();
        assert_eq!(folder, parent.join("mcp-x-demo-0000000000000007"));
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let taken = private_folder(&parent, 7).unwrap_err().to_string();
        assert_eq!(taken, format!("cannot create {}: file exists", folder.display()));
        fs::remove_dir_all(parent).unwrap();
    }
}
