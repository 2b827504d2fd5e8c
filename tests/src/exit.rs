//! The exit statuses that `brolga` documents, written down again: a test that took them from
//! the product's code would not notice a change that breaks users' scripts.

/// The guest switched the machine off.
pub const POWER_OFF: i32 = 0;
/// The user left by Ctrl-A x.
pub const QUIT: i32 = 0;
/// The user asked for something that cannot be done.
pub const USER_ERROR: i32 = 2;
/// The largest value of the exit port that has its own status.
pub const EXIT_PORT_MAX: i32 = 63;
/// The time of `--timeout` is over.
pub const TIMEOUT: i32 = 64;
/// A triple fault.
pub const TRIPLE_FAULT: i32 = 65;
/// The guest resets again and again.
pub const RESET_LOOP: i32 = 66;
/// The CPU is halted and nothing can wake it.
pub const HALTED: i32 = 67;
/// The instructions of `--max-insns` are executed.
pub const INSTRUCTION_LIMIT: i32 = 68;
/// The text of `--stop-on-serial` was seen.
pub const STOPPED_ON_SERIAL: i32 = 69;

/// Whether a status says how a guest ended: neither a user error nor a failure of Brolga's.
pub fn is_guest_end(status: i32) -> bool {
    (0..=EXIT_PORT_MAX).contains(&status) || (TRIPLE_FAULT..=STOPPED_ON_SERIAL).contains(&status)
}
