//! One debugger, from its first byte to its last.
//!
//! Packets are checked and framed by [`Link`], a few are answered here, and gdbstub answers the
//! rest. It gives up at what it cannot parse; then a new one takes its place and the debugger is
//! told of an error, so that no packet ends a session.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};

use crate::link::{Link, PACKET_BYTES, Received, framed};
use crate::stub::{Stub, VCPU, gdb_watch_kind};
use crate::target::{DebugTarget, Stopped};

/// What a debugger is told of a packet that makes no sense.
const MALFORMED: &str = "E16";
/// Room for a packet with its frame.
const BUFFER_BYTES: usize = PACKET_BYTES + 4;
/// Most bytes of memory that are read at once: their text fits in a packet.
const READ_BYTES: u64 = PACKET_BYTES as u64 / 2 - 16;

/// Where gdbstub writes to.
#[derive(Clone, Default)]
struct Outbox(Rc<RefCell<Vec<u8>>>);

impl Connection for Outbox {
    type Error = Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Infallible> {
        self.0.borrow_mut().push(byte);
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Outbox {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The machine stands, and the debugger has the word.
    Standing,
    /// The machine is to run.
    Running,
    /// The debugger has taken its leave.
    Detached,
    /// The machine has come to its end.
    Ended,
}

type Machine<'t, T> = GdbStubStateMachine<'static, Stub<'t, T>, Outbox>;

/// A debugger's session with a machine.
pub(crate) struct Session<'t, T: DebugTarget> {
    link: Link,
    stub: Stub<'t, T>,
    outbox: Outbox,
    /// gdbstub's state; `None` only while it is being replaced.
    gdb: Option<Machine<'t, T>>,
    /// The debugger's last `qSupported`, for a new gdbstub.
    features: Option<Vec<u8>>,
    phase: Phase,
}

impl<'t, T: DebugTarget> Session<'t, T> {
    /// A session with a debugger that has said nothing yet. The machine stands.
    pub(crate) fn new(target: &'t mut T) -> Self {
        let mut session = Self {
            link: Link::default(),
            stub: Stub::new(target),
            outbox: Outbox::default(),
            gdb: None,
            features: None,
            phase: Phase::Standing,
        };
        session.renew();
        session
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn target(&mut self) -> &mut T {
        self.stub.target
    }

    /// Takes what is to be sent to the debugger.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        self.link.take_output()
    }

    /// Bytes from the debugger. Those behind its leave are not looked at.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if matches!(self.phase, Phase::Detached | Phase::Ended) {
                return;
            }
            match self.link.feed(*byte) {
                Some(Received::Packet(contents)) => self.packet(contents),
                Some(Received::TooLong) => self.link.send(MALFORMED),
                Some(Received::Interrupt) => self.interrupt(),
                None => {}
            }
        }
    }

    /// Runs the machine as the debugger has asked. `interrupted` says whether it has sent something.
    pub(crate) fn run(&mut self, interrupted: &mut dyn FnMut() -> bool) {
        let requests = self.stub.requests();
        let stopped = self.stub.target.resume(self.stub.action, &requests, interrupted);
        let signal = |signal| MultiThreadStopReason::SignalWithThread { tid: VCPU, signal };
        let reason = match stopped {
            Stopped::Interrupted => return,
            Stopped::Done => signal(Signal::SIGTRAP),
            Stopped::Breakpoint(at) if self.stub.software.contains(&at) => {
                MultiThreadStopReason::SwBreak(VCPU)
            }
            Stopped::Breakpoint(at) if self.stub.hardware.contains(&at) => {
                MultiThreadStopReason::HwBreak(VCPU)
            }
            Stopped::Breakpoint(_) => signal(Signal::SIGTRAP),
            Stopped::Watchpoint { at, kind } => {
                MultiThreadStopReason::Watch { tid: VCPU, kind: gdb_watch_kind(kind), addr: at }
            }
            Stopped::Said(what) => return self.link.print(&format!("{what}\n")),
            Stopped::Noticed(what) => {
                self.link.print(&format!("{what}\n"));
                signal(Signal::SIGTRAP)
            }
            Stopped::Dying(why) => {
                self.link.print(&format!("{why}\n"));
                signal(Signal::SIGSEGV)
            }
            Stopped::Ended(status) => MultiThreadStopReason::Exited(status),
        };
        self.report(reason);
    }

    /// Whether the debugger wants the machine to be gone with it.
    pub(crate) fn has_killed(&self) -> bool {
        self.stub.killed
    }

    /// The machine has come to its end while it stood: the debugger is not waiting for anything.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Ended;
    }

    fn interrupt(&mut self) {
        // One that crosses a stop on its way is late.
        if self.phase == Phase::Running {
            self.report(MultiThreadStopReason::SignalWithThread {
                tid: VCPU,
                signal: Signal::SIGINT,
            });
        }
    }

    fn report(&mut self, reason: MultiThreadStopReason<u64>) {
        self.phase = Phase::Standing;
        let Some(GdbStubStateMachine::Running(gdb)) = self.gdb.take() else {
            return self.renew();
        };
        match gdb.report_stop(&mut self.stub, reason) {
            Ok(gdb) => self.settle(gdb),
            Err(_) => self.renew(),
        }
        self.forward();
    }

    /// A packet from the debugger.
    fn packet(&mut self, mut contents: Vec<u8>) {
        // While the machine runs, only an interrupt is expected.
        if self.phase == Phase::Running || self.answers_itself(&contents) {
            return;
        }
        if contents.first() == Some(&b'm') {
            contents = shortened(contents);
        }
        if contents.starts_with(b"qSupported") {
            self.features = Some(contents.clone());
        }
        if self.feed(&contents) {
            self.forward();
        } else {
            self.outbox.take();
            self.renew();
            self.link.send(MALFORMED);
        }
    }

    /// Packets that gdbstub does not know, or that are the link's business.
    fn answers_itself(&mut self, contents: &[u8]) -> bool {
        let answer = match contents {
            b"QStartNoAckMode" => {
                self.link.stop_acknowledging();
                return true;
            }
            // QEMU's mode in which addresses are physical.
            b"qqemu.Supported" => "PhyMemMode",
            b"qqemu.PhyMemMode" if self.stub.physical => "1",
            b"qqemu.PhyMemMode" => "0",
            b"Qqemu.PhyMemMode:1" => {
                self.stub.physical = true;
                "OK"
            }
            b"Qqemu.PhyMemMode:0" => {
                self.stub.physical = false;
                "OK"
            }
            _ => return false,
        };
        self.link.send(answer);
        true
    }

    /// Hands a packet to gdbstub; false if that cannot parse it.
    fn feed(&mut self, contents: &[u8]) -> bool {
        for byte in framed(contents) {
            let fed = match self.gdb.take() {
                Some(GdbStubStateMachine::Idle(gdb)) => gdb.incoming_data(&mut self.stub, byte),
                _ => return false,
            };
            match fed {
                Ok(gdb) => self.settle(gdb),
                Err(_) => return false,
            }
        }
        true
    }

    /// Takes over gdbstub's new state.
    fn settle(&mut self, gdb: Machine<'t, T>) {
        match &gdb {
            GdbStubStateMachine::Running(_) => self.phase = Phase::Running,
            GdbStubStateMachine::Disconnected(gdb) => {
                self.phase = match gdb.get_reason() {
                    DisconnectReason::Disconnect => Phase::Detached,
                    _ => Phase::Ended,
                };
            }
            GdbStubStateMachine::Idle(_) | GdbStubStateMachine::CtrlCInterrupt(_) => {}
        }
        self.gdb = Some(gdb);
    }

    /// Sends what gdbstub has answered.
    fn forward(&mut self) {
        let answer = self.outbox.take();
        if !answer.is_empty() {
            self.link.send_framed(&answer);
        }
    }

    /// A new gdbstub that knows what the debugger has negotiated. The link acknowledges for it.
    fn renew(&mut self) {
        let builder = GdbStub::builder(self.outbox.clone()).packet_buffer_size(BUFFER_BYTES);
        self.gdb = builder.build().ok().and_then(|gdb| gdb.run_state_machine(&mut self.stub).ok());
        let features = self.features.take();
        let negotiated = [b"QStartNoAckMode".to_vec()].into_iter().chain(features.clone());
        for contents in negotiated {
            self.feed(&contents);
        }
        self.features = features;
        self.outbox.take();
    }
}

/// `m ADDR,LENGTH` with a length that one packet can answer: the protocol allows fewer bytes than
/// asked for.
fn shortened(contents: Vec<u8>) -> Vec<u8> {
    let Some(comma) = contents.iter().position(|byte| *byte == b',') else { return contents };
    let length = std::str::from_utf8(&contents[comma + 1..]).ok();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    match length.filter(|text| digits(text)).map(|text| u64::from_str_radix(text, 16)) {
        Some(Ok(length)) if length <= READ_BYTES => contents,
        Some(_) => [&contents[..=comma], format!("{READ_BYTES:x}").as_bytes()].concat(),
        None => contents,
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
