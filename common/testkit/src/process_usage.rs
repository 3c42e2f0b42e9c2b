//! Resource usage of a running process, as the kernel reports it in `/proc`.

use std::fs::{read_dir, read_to_string};
use std::io;

/// Resource usage at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Anonymous resident memory in KiB. Mapped files, such as the program itself, are not
    /// included: their pages are loaded when the code first runs.
    pub memory_kib: u64,
    /// Peak resident memory in KiB, mapped files included.
    pub memory_peak_kib: u64,
    /// Number of threads.
    pub threads: u64,
    /// Number of open file descriptors.
    pub descriptors: u64,
}

impl ProcessUsage {
    /// Reads the usage of the process with this id.
    ///
    /// # Errors
    /// Fails if there is no such process.
    pub fn read(process: u32) -> io::Result<Self> {
        let status = read_to_string(format!("/proc/{process}/status"))?;
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            let number = line.and_then(|value| value.split_whitespace().next()?.parse().ok());
            // A zombie process has no memory lines.
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
    fn open_files_are_counted() {
        let usage = || ProcessUsage::read(std::process::id()).unwrap();
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let open = usage();
        assert!(open.memory_kib > 0 && open.memory_kib <= open.memory_peak_kib, "{open:?}");
        assert!(open.threads >= 1, "{open:?}");
        assert!(open.descriptors >= files.len() as u64, "{open:?}");
        ProcessUsage::read(u32::MAX).unwrap_err();
    }
}
