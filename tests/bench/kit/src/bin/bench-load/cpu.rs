//! What processes have used of a processor.

use std::path::Path;
use std::str::FromStr;
use std::{fs, io};

/// Processes to be watched, as `PID,PID…`.
#[derive(Default)]
pub(crate) struct Watched(Vec<u32>);

impl FromStr for Watched {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl Watched {
    /// Gives the nanoseconds that all threads of all processes together have run.
    ///
    /// # Errors
    ///
    /// A process is not there.
    pub(crate) fn nanoseconds(&self) -> Result<u64, String> {
        let spent = |pid: &u32| spent(pid).map_err(|error| format!("process {pid}: {error}"));
        self.0.iter().map(spent).sum()
    }
}

fn spent(pid: &u32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
        // A thread may end meanwhile.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(sum)
}
