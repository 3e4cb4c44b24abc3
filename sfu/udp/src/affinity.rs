//! Which core a thread runs on, before which others, and how much of it it used.

use std::io;
use std::time::Duration;

/// Pins the calling thread to one of the cores that the process may use: the `index`-th, wrapping around.
///
/// # Errors
/// When the kernel refuses, or the process may use no core at all.
pub fn pin_to_cpu(index: usize) -> io::Result<usize> {
    // SAFETY: `cpu_set_t` is a plain bit array, for which all zero is a valid, empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = std::mem::size_of::<libc::cpu_set_t>();
    // SAFETY: pid 0 is this thread; the pointer and size describe `allowed`.
    if unsafe { libc::sched_getaffinity(0, size, &mut allowed) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let cpus: Vec<usize> = (0..libc::CPU_SETSIZE as usize)
        // SAFETY: the index is below CPU_SETSIZE, the number of bits in the set.
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &allowed) })
        .collect();
    let cpu = *cpus
        .get(index % cpus.len().max(1))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the process may use no core"))?;
    // SAFETY: as above.
    let mut wanted: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` came out of the kernel's own set, so it is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(cpu, &mut wanted) };
    // SAFETY: pid 0 is this thread; the pointer and size describe `wanted`.
    if unsafe { libc::sched_setaffinity(0, size, &wanted) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cpu)
}

/// Lets the calling thread run before the process's others, and before what else is of usual priority: its nice value becomes
/// lower by ten. It takes root, `CAP_SYS_NICE` or `RLIMIT_NICE`.
///
/// # Errors
/// When the kernel refuses: then the thread is as it was.
pub fn run_before_others() -> io::Result<()> {
    const STEPS: libc::c_int = 10;
    // SAFETY: no pointers. On Linux a nice value is a thread's own, and 0 is the calling one.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice_value() - STEPS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The calling thread's. Its own can always be read.
fn nice_value() -> libc::c_int {
    // SAFETY: no pointers; 0 is the calling thread.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// CPU time that the calling thread has used, from `CLOCK_THREAD_CPUTIME_ID`; `getrusage` can be 4 ms stale.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } != 0 {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_is_the_threads_own() {
        let before = nice_value();
        std::thread::spawn(move || match run_before_others() {
            Ok(()) => assert_eq!(nice_value(), (before - 10).max(-20)),
            // Not allowed here.
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
                assert_eq!(nice_value(), before);
            }
        })
        .join()
        .unwrap();
        assert_eq!(nice_value(), before);
    }

    #[test]
    fn pins_and_counts() {
        std::thread::spawn(|| {
            let first = pin_to_cpu(0).unwrap();
            assert_eq!(pin_to_cpu(usize::MAX).unwrap(), first, "one core is left, any index is that one");
            let before = thread_cpu_time();
            let mut x = 1u64;
            while thread_cpu_time() - before < Duration::from_millis(2) {
                x = std::hint::black_box(x.wrapping_mul(3));
            }
        })
        .join()
        .unwrap();
    }
}
