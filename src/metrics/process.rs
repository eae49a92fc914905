//! This process, as the kernel sees it.
//!
//! Source: proc(5) of Linux. Where there is no such folder, nothing is known.

use std::fs;

/// Ticks a second in which the kernel tells processor time to programs: `USER_HZ`, 100 wherever this program runs.
const TICKS: f64 = 100.0;

/// What is known of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Bytes of memory that are resident.
    pub resident_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Seconds of processor time, of the kernel for it included.
    pub cpu_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// File descriptors that may be open.
    pub max_fds: Option<u64>,
}

impl Process {
    /// Looks at the process.
    #[must_use]
    pub fn read() -> Self {
        let text = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        // One of them is this reading.
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1));
        Self { open_fds, ..Self::parse(&text("status"), &text("stat"), &text("limits")) }
    }

    fn parse(status: &str, stat: &str, limits: &str) -> Self {
        Self {
            resident_bytes: number_after(status, "VmRSS:").map(|kib| kib * 1024),
            threads: number_after(status, "Threads:"),
            cpu_seconds: cpu_ticks(stat).map(|ticks| ticks as f64 / TICKS),
            open_fds: None,
            max_fds: number_after(limits, "Max open files"),
        }
    }
}

/// The first number on the line that begins with this name.
fn number_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15. The second is the program's name in parentheses, and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let status = "Name:\tmcp-x\nVmHWM:\t    9999 kB\nVmRSS:\t    2048 kB\nThreads:\t5\n";
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194304 100 0 0 0 250 50 7 8 20 0 5 0 1000 2000 300";
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024       524288     files\n";
        let expected = Process {
            resident_bytes: Some(2048 * 1024),
            threads: Some(5),
            cpu_seconds: Some(3.0),
            open_fds: None,
            max_fds: Some(1024),
        };
        assert_eq!(Process::parse(status, stat, limits), expected);
        assert_eq!(Process::parse("", "", "Max open files   unlimited  unlimited  files"), Process::default());
    }

    #[test]
    fn this_process_is_seen() {
        let process = Process::read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{process:?}");
        assert!(process.threads.is_some() && process.cpu_seconds.is_some() && process.max_fds.is_some(), "{process:?}");
        assert!(process.open_fds.is_some_and(|fds| fds >= 3), "{process:?}");
    }
}
