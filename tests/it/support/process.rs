//! The program as a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::client::Client;
use super::http::Connection;
use super::{ALICE, Folder};

/// The program, without anything of this process's environment that concerns it.
pub(crate) fn program(arguments: &[&str]) -> Command {
    program_at(Path::new(env!("CARGO_BIN_EXE_mcp-x")), arguments)
}

fn program_at(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null());
    for name in ["MCP_X_CONFIG", "MCP_X_STATE_DIR", "MCP_X_LOG", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command
}

/// What is tried at length, if that is wanted: a program, as `tests/soak` builds it.
pub(crate) fn soaked() -> Option<PathBuf> {
    std::env::var_os("MCP_X_SOAK").map(PathBuf::from)
}

/// How `mcp-x serve` is started on a free port.
const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

/// `mcp-x serve` on a free port.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Reads what it writes, so that it never has to wait for that.
    log: Option<JoinHandle<String>>,
}

impl Served {
    pub(crate) fn start(folder: &Folder) -> Self {
        Self::start_in(folder, &[])
    }

    /// The same, with these variables in its environment.
    pub(crate) fn start_in(folder: &Folder, environment: &[(&str, &str)]) -> Self {
        Self::run(program(&SERVE), folder, environment)
    }

    /// The same, of the program that is tried at length if there is one.
    pub(crate) fn start_soaked(folder: &Folder, environment: &[(&str, &str)]) -> Self {
        let command = soaked().map_or_else(|| program(&SERVE), |path| program_at(&path, &SERVE));
        Self::run(command, folder, environment)
    }

    fn run(mut command: Command, folder: &Folder, environment: &[(&str, &str)]) -> Self {
        command.envs(environment.iter().copied());
        let mut child = command.current_dir(folder.path()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(" listening address=") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it does not listen");
        }
        let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap();
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).unwrap();
            log
        });
        Self { child, address, log: Some(log) }
    }

    pub(crate) fn client(&self) -> Client {
        self.client_of(ALICE)
    }

    /// A client with this token.
    pub(crate) fn client_of(&self, token: &str) -> Client {
        Client::new(Connection::open(self.address, Arc::default()), token)
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end; what it wrote meanwhile.
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        let log = self.log.take().unwrap().join().unwrap();
        (self.child.wait().unwrap(), log)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
