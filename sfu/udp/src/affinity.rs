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

/// The slice of a thread that runs before others. Where a waking thread's is shorter than that of the one that runs, it
/// need not wait until that has used its own up (Linux 6.12 and later, `PREEMPT_SHORT`): 3 ms, or 4 to the next tick, whatever
/// the nice values. The least that the kernel takes.
const SLICE: Duration = Duration::from_micros(100);

/// Lets the calling thread run before the process's others, and before what else is of usual priority: its nice value becomes
/// lower by ten, and its slice short, so that it runs soon after it wakes. The nice value takes root, `CAP_SYS_NICE` or
/// `RLIMIT_NICE`; the slice takes nothing, and is left as it is where the kernel does not know it.
///
/// # Errors
/// When the kernel refuses the nice value: then that is as it was.
pub fn run_before_others() -> io::Result<()> {
    const STEPS: libc::c_int = 10;
    let nice = nice_value();
    set_slice(nice);
    // SAFETY: no pointers. On Linux a nice value is a thread's own, and 0 is the calling one.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice - STEPS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Asks for [`SLICE`]. A kernel before 6.12 ignores it, a sandbox may forbid the call: neither matters to the caller.
fn set_slice(nice: libc::c_int) {
    // SAFETY: all fields are integers, for which zero is valid: the usual policy, and no flags.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    attr.size = std::mem::size_of::<libc::sched_attr>() as u32;
    attr.sched_nice = nice;
    attr.sched_runtime = SLICE.as_nanos() as u64;
    // SAFETY: the pointer is to a live `sched_attr` of the size that is in it, which the kernel reads; 0 is the calling thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
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
    fn a_thread_that_runs_before_others_has_a_short_slice() {
        let slice = || {
            // SAFETY: as in `set_slice`.
            let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
            let size = std::mem::size_of::<libc::sched_attr>() as u32;
            // SAFETY: the pointer is to a live `sched_attr` of that size, which the kernel fills in.
            let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
            assert_eq!(result, 0);
            Duration::from_nanos(attr.sched_runtime)
        };
        let (before, after, nice) = std::thread::spawn(move || {
            let nice = nice_value();
            let before = slice();
            set_slice(nice);
            (before, slice(), nice_value() - nice)
        })
        .join()
        .unwrap();
        // A kernel that has no slices of threads says that they have none.
        let short = if before.is_zero() { before } else { SLICE };
        assert_eq!((after, nice), (short, 0), "{before:?} before");
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
