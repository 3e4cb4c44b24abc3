//! What the operating system knows of this process and others.

use std::collections::BTreeSet;
use std::time::Duration;

/// CPU time of the calling thread, from the scheduler's own count.
pub(super) fn thread_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Datagrams that the sockets on these ports dropped because nobody took them in time.
pub(super) fn socket_drops(ports: &BTreeSet<u16>) -> u64 {
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"];
    tables.iter().map(|table| std::fs::read_to_string(table).map_or(0, |text| drops_in(&text, ports))).sum()
}

fn drops_in(table: &str, ports: &BTreeSet<u16>) -> u64 {
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        let port = words.nth(1)?.rsplit(':').next().and_then(|p| u16::from_str_radix(p, 16).ok())?;
        ports.contains(&port).then(|| words.next_back()?.parse::<u64>().ok()).flatten()
    };
    table.lines().skip(1).filter_map(of).sum()
}

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessUse {
    /// CPU time.
    pub(super) cpu: Duration,
    /// Resident memory in bytes.
    pub(super) memory: u64,
    /// How often a thread slept and was woken.
    pub(super) wakes: u64,
}

/// CPU time, memory and wake-ups of a process.
pub(super) fn process_use(pid: u32) -> Option<ProcessUse> {
    // Every thread's own count: the process's is in ticks of 10 ms.
    let (mut cpu, mut wakes) = (Duration::ZERO, 0);
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let ns = text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        cpu += Duration::from_nanos(ns);
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        wakes += line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(ProcessUse { cpu, memory: kib * 1024, wakes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_own_sockets_are_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            12: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 11 2 0 7\n\
            13: 0100007F:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12 2 0 5\n";
        assert_eq!(drops_in(table, &BTreeSet::from([0x1f90])), 7);
        assert_eq!(drops_in(table, &BTreeSet::from([0x1f90, 0x1f91])), 12);
        assert_eq!(drops_in(table, &BTreeSet::new()), 0);
        assert_eq!(drops_in("", &BTreeSet::from([1])), 0);
        let table = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            21: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 11 2 0 3\n";
        assert_eq!(drops_in(table, &BTreeSet::from([0x1f90])), 3);
    }

    #[test]
    fn work_shows_as_cpu_time() {
        let before = thread_cpu().unwrap();
        let start = std::time::Instant::now();
        let mut x = 0u64;
        while start.elapsed() < Duration::from_millis(60) {
            x = std::hint::black_box(x + 1);
        }
        let (used, took) = (thread_cpu().unwrap() - before, start.elapsed());
        assert!(
            used <= took + Duration::from_millis(10) && used > Duration::from_millis(1),
            "{used:?} of {took:?}"
        );
        let before = process_use(std::process::id()).unwrap();
        assert!(before.cpu >= used && before.memory > 1 << 20);
        std::thread::sleep(Duration::from_millis(5));
        assert!(process_use(std::process::id()).unwrap().wakes > before.wakes);
    }
}
