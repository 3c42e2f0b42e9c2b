//! The machine of the measurement.

use std::fs::read_to_string;
use std::thread::available_parallelism;

use crate::BenchError;

/// Unit of processor time in `/proc` (USER_HZ), the same on every platform today.
const TICKS_A_SECOND: f64 = 100.0;

/// Describes the machine and the services in one line.
pub(crate) fn describe(versions: &str) -> String {
    let cores = available_parallelism().map_or(0, usize::from);
    let read = |path| read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.split_once(':'));
        line.map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let processor = value(&read("/proc/cpuinfo"), "model name");
    let memory_kib = value(&read("/proc/meminfo"), "MemTotal");
    let memory_kib: u64 =
        memory_kib.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("unknown");
    format!(
        "{cores} cores of {processor}, {} GiB, Linux {}, {versions}, load {load} at the end; all programs and services on this machine",
        memory_kib >> 20,
        kernel.trim()
    )
}

/// Processor time of a process so far, in seconds.
pub(crate) fn processor_s(process: u32) -> Result<f64, BenchError> {
    let stat = read_to_string(format!("/proc/{process}/stat"))?;
    // The process name in parentheses may contain any character.
    let (_, fields) = stat.rsplit_once(')').ok_or("no stat")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next().ok_or("no times")?.parse::<f64>().map_err(BenchError::from);
    Ok((ticks()? + ticks()?) / TICKS_A_SECOND)
}
