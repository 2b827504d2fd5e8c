//! How fast the host's time-stamp counter counts.

/// Cycles of the host's time-stamp counter in a nanosecond, where it has one: how far it comes in
/// a twentieth of a second of the monotonic clock.
#[cfg(target_arch = "x86_64")]
pub fn cycles_per_ns() -> Option<f64> {
    use std::time::{Duration, Instant};

    const LONG: Duration = Duration::from_millis(50);
    let (started, first) = (Instant::now(), now());
    while started.elapsed() < LONG {
        std::hint::spin_loop();
    }
    let (last, elapsed) = (now(), started.elapsed());
    let cycles = last.checked_sub(first)?;
    Some(cycles as f64 / elapsed.as_nanos() as f64).filter(|rate| *rate > 0.0)
}

/// As on other hosts: there is nothing that counts cycles for everybody.
#[cfg(not(target_arch = "x86_64"))]
pub fn cycles_per_ns() -> Option<f64> {
    None
}

#[cfg(target_arch = "x86_64")]
fn now() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and it reads nothing but the counter. Linux can
    // forbid it to a process (PR_SET_TSC), which then is ended by a signal: nobody does that here.
    unsafe { core::arch::x86_64::_rdtsc() }
}
