//! The terminal after a panic of Brolga itself. Nothing that a guest or a user does makes Brolga
//! panic, so a program that owns the terminal as `brolga` does panics on purpose: this binary,
//! started again on a pseudo-terminal.

use std::ffi::OsString;
use std::io::Read;
use std::time::Duration;
use std::{env, io, process, thread};

use anyhow::{Context, Result, ensure};
use brolga_machine::terminal::RawTerminal;
use brolga_tests::expect::Session;
use brolga_tests::suite::{self, trial};

const LIMIT: Duration = Duration::from_secs(30);
/// The argument that makes this binary the program that panics; the thread follows.
const PANIC: &str = "--panic-on";
const RAW: &str = "the terminal is raw";
const REASON: &str = "on purpose";
/// What `std` ends a process with whose main thread has panicked.
const PANICKED: i32 = 101;

fn main() {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() == Some(PANIC) {
        panic_with_the_terminal(arguments.next().as_deref() == Some("main"));
    }
    suite::run(vec![
        trial("is_restored_after_a_panic", || is_restored("main", PANICKED)),
        trial("is_restored_after_a_panic_of_another_thread", || is_restored("other", 0)),
    ])
}

/// Takes the terminal, waits for a key, panics.
fn panic_with_the_terminal(on_main_thread: bool) -> ! {
    let terminal = RawTerminal::take().expect("standard input can be looked at");
    let terminal = terminal.expect("standard input is a terminal");
    println!("{RAW}");
    let key = io::stdin().read(&mut [0]).expect("a key");
    if on_main_thread {
        panic!("{REASON}, after {key} key");
    }
    let other = thread::spawn(move || panic!("{REASON}, after {key} key"));
    let outcome = other.join();
    // Nothing but the panic itself gives the terminal back.
    std::mem::forget(terminal);
    process::exit(i32::from(outcome.is_ok()));
}

fn is_restored(thread: &str, status: i32) -> Result<()> {
    let this = env::current_exe()?.into_os_string();
    let mut session = Session::spawn(&[this, PANIC.into(), OsString::from(thread)])?;
    let before = session.initial_terminal_modes();
    session.expect(RAW, LIMIT)?;
    ensure!(session.terminal_modes()? != before, "the terminal is as it was before");
    session.send("x")?;
    let reported = session.expect(REASON, LIMIT).context("the panic is reported")?;
    session.wait(LIMIT)?;
    let after = session.terminal_modes()?;
    ensure!(after == before, "the terminal's modes were {before:?} and are {after:?}");
    ensure!(reported.contains("panicked at"), "{reported:?}");
    let ended = session.finish(LIMIT)?;
    ensure!(ended.status == Ok(status), "{ended:?}");
    ensure!(ended.output.contains("key\r\n"), "reported on a raw terminal: {:?}", ended.output);
    Ok(())
}
