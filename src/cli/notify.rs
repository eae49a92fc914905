//! What the process that supervises this one is told: that the gateway is ready, and that it is stopping.
//!
//! Source: sd_notify(3). Without `NOTIFY_SOCKET` nobody asks.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::log::{Log, os_error};

/// The gateway listens and serves.
pub(super) const READY: &str = "READY=1";
/// The gateway is ending.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Tells the supervisor, if there is one that asks. If it cannot be told the gateway goes on all the same.
pub(super) fn notify(state: &str, log: &Log) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        log.warn("cannot tell the supervisor", |r| {
            r.field("state", state).field("socket", socket.display()).field("reason", os_error(&error));
        });
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address(socket)?).map(drop)
}

/// A path, or behind an `@` a name in Linux's abstract namespace.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(socket: &OsStr) {
        let listener = UnixDatagram::bind_addr(&address(socket).unwrap()).unwrap();
        send(socket, READY).unwrap();
        let mut told = [0; 32];
        let length = listener.recv(&mut told).unwrap();
        assert_eq!(&told[..length], READY.as_bytes());
    }

    #[test]
    fn a_supervisor_is_told_by_path_and_by_abstract_name() {
        let path = std::env::temp_dir().join(format!("mcp-x-notify-{}", std::process::id()));
        check(path.as_os_str());
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.as_os_str(), READY).is_err());
        if cfg!(target_os = "linux") {
            check(OsStr::new(&format!("@mcp-x-notify-{}", std::process::id())));
        }
    }
}
