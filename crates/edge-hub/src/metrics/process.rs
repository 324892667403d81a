//! The process itself, by the names that Prometheus' own client libraries use.

use edge_core::metrics::exposition::Exposition;
use edge_core::metrics::names;

/// Ticks in a second, in which Linux shows CPU times and start times (USER_HZ; 100 on every architecture that Rust supports).
const TICKS_PER_SECOND: f64 = 100.0;

/// What cannot be read is left out.
pub(super) fn expose(exposition: &mut Exposition) {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let stat = read("/proc/self/stat");
    if let Some(seconds) = cpu_seconds(&stat) {
        exposition.value(&names::PROCESS_CPU, seconds);
    }
    if let Some(seconds) = start_seconds(&stat, &read("/proc/stat")) {
        exposition.value(&names::PROCESS_START, seconds);
    }
    if let Some(bytes) = resident_bytes(&read("/proc/self/status")) {
        exposition.value(&names::PROCESS_MEMORY, bytes);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        // Without the one that reads the directory.
        exposition.value(&names::PROCESS_FILES, files.count().saturating_sub(1));
    }
}

/// A field of `/proc/self/stat` by its number in proc(5), from the third on.
fn field(stat: &str, number: usize) -> Option<f64> {
    // Behind the name, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    const UTIME: usize = 14;
    const STIME: usize = 15;
    Some((field(stat, UTIME)? + field(stat, STIME)?) / TICKS_PER_SECOND)
}

fn start_seconds(stat: &str, of_system: &str) -> Option<f64> {
    const START_TIME: usize = 22;
    let booted = of_system.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(booted.trim().parse::<f64>().ok()? + field(stat, START_TIME)? / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kilobytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read_whatever_the_process_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 12345 1 2";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(start_seconds(stat, "cpu 1\nbtime 1700000000\n"), Some(1_700_000_123.45));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        for cut in ["", "42 (a", "42 (a) S 1"] {
            assert_eq!((cpu_seconds(cut), start_seconds(cut, cut), resident_bytes(cut)), (None, None, None));
        }
    }

    #[test]
    fn this_process_is_exposed_with_all_of_it() {
        let mut exposition = Exposition::default();
        expose(&mut exposition);
        let text = exposition.into_text();
        for metric in
            [&names::PROCESS_CPU, &names::PROCESS_START, &names::PROCESS_MEMORY, &names::PROCESS_FILES]
        {
            assert!(text.contains(&format!("\n{} ", metric.name)), "{text}");
        }
    }
}
