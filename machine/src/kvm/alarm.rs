//! What brings a vCPU back out of KVM when its slice is over: a timer of the thread's, whose signal
//! is blocked but while the guest runs. One that comes too early to interrupt the guest is pending
//! when it is entered, and ends the run there: none is lost, and no handler is installed.

use std::io;
use std::time::Duration;

use kvm_ioctls::VcpuFd;

use super::sys;

/// An alarm for the thread that has made it.
pub(super) struct Alarm {
    timer: usize,
    thread: libc::pid_t,
}

/// The thread that asks.
fn this_thread() -> libc::pid_t {
    // SAFETY: always succeeds, takes nothing.
    unsafe { libc::gettid() }
}

/// The signal: one that nobody else has a use for.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 9
}

/// The set of this one signal.
fn alone() -> libc::sigset_t {
    // SAFETY: a set of signals is plain bits, and both calls are given one that exists.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal());
        set
    }
}

impl Alarm {
    /// An alarm for this thread's runs of `vcpu`.
    pub(super) fn new(vcpu: &VcpuFd) -> io::Result<Self> {
        let thread = this_thread();
        // SAFETY: the set exists; no old mask is asked for.
        let failed =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &alone(), std::ptr::null_mut()) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        sys::set_signal_mask(vcpu, 0)?;
        // SAFETY: plain data; what is not set is not used with SIGEV_THREAD_ID.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal();
        event.sigev_notify_thread_id = thread;
        let mut timer: libc::timer_t = std::ptr::null_mut();
        // SAFETY: both exist during the call.
        let failed = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { timer: timer as usize, thread })
    }

    /// Whether it is for the thread that asks.
    pub(super) fn is_mine(&self) -> bool {
        self.thread == this_thread()
    }

    /// Rings after `delay`, once; an earlier time is forgotten.
    pub(super) fn set(&self, delay: Duration) -> io::Result<()> {
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::timespec {
            tv_sec: delay.as_secs() as libc::time_t,
            // Zero would stop it.
            tv_nsec: libc::c_long::from(delay.subsec_nanos().max(1) as i32),
        };
        let times = libc::itimerspec { it_interval: never, it_value: value };
        // SAFETY: the timer exists until `self` is dropped, and so do the times.
        let failed = unsafe {
            libc::timer_settime(self.timer as libc::timer_t, 0, &times, std::ptr::null_mut())
        };
        if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Rings now, on the thread that it is for.
    pub(super) fn ring(&self) -> io::Result<()> {
        // SAFETY: sends a signal to this thread, which has it blocked.
        let failed = unsafe { libc::raise(signal()) };
        if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes the signal that has come, if it has.
    pub(super) fn silence(&self) {
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: set and time exist; nothing is to be known of the signal.
        unsafe { libc::sigtimedwait(&alone(), std::ptr::null_mut(), &none) };
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: nobody uses the timer from here on.
        unsafe { libc::timer_delete(self.timer as libc::timer_t) };
        if self.is_mine() {
            self.silence();
        }
    }
}
