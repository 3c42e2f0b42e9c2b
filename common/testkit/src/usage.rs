//! What the kernel says of a running process.

use std::fs::{read_dir, read_to_string};
use std::io;

/// What a process has at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory of its own, in KiB: without the files that it has mapped,
    /// such as the program itself, whose pages come as they are first run.
    pub memory_kib: u64,
    /// The most resident memory that it ever had, files included.
    pub memory_peak_kib: u64,
    /// Threads.
    pub threads: u64,
    /// Descriptors: files, sockets.
    pub descriptors: u64,
}

impl Usage {
    /// That of the process of this id.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(process: u32) -> io::Result<Self> {
        let status = read_to_string(format!("/proc/{process}/status"))?;
        let number = |key: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            let number = found.and_then(|value| value.split_whitespace().next()?.parse().ok());
            // A process that has ended and was not waited for has no memory.
            number.ok_or_else(|| io::Error::other(format!("process {process}: no {key}")))
        };
        Ok(Self {
            memory_kib: number("RssAnon")?,
            memory_peak_kib: number("VmHWM")?,
            threads: number("Threads")?,
            descriptors: read_dir(format!("/proc/{process}/fd"))?.count() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_open_counts() {
        let usage = || Usage::of(std::process::id()).unwrap();
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let open = usage();
        assert!(open.memory_kib > 0 && open.memory_kib <= open.memory_peak_kib, "{open:?}");
        assert!(open.threads >= 1, "{open:?}");
        assert!(open.descriptors >= files.len() as u64, "{open:?}");
        Usage::of(u32::MAX).unwrap_err();
    }
}
