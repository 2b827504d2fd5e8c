//! Sessions with a machine that only remembers what it was asked.

use super::*;
use crate::layout::Register;
use crate::registers::Registers;
use crate::target::{DebugError, Requests, Resume, Watch, WatchKind};

/// Memory of so many bytes, at 0.
const MEMORY: usize = 0x1000;

struct Fake {
    memory: Vec<u8>,
    written: Vec<(Register, u128)>,
    resumed: Vec<(Resume, Requests)>,
    stops: Vec<Stopped>,
    end: Option<u8>,
}

impl Fake {
    fn new() -> Self {
        Self {
            memory: vec![0xa5; MEMORY],
            written: Vec::new(),
            resumed: Vec::new(),
            stops: Vec::new(),
            end: None,
        }
    }
}

impl DebugTarget for Fake {
    fn registers(&self) -> Registers {
        Registers::default()
    }
    fn has_long_mode(&self) -> bool {
        true
    }
    fn read_register(&self, register: Register) -> u128 {
        if register == Register::Pc { 0x1234 } else { 0 }
    }
    fn write_register(&mut self, register: Register, value: u128) -> Result<(), DebugError> {
        self.written.push((register, value));
        Ok(())
    }
    fn read_linear(&self, at: u64, to: &mut [u8]) -> usize {
        let Some(from) = usize::try_from(at).ok().and_then(|at| self.memory.get(at..)) else {
            return 0;
        };
        let count = to.len().min(from.len());
        to[..count].copy_from_slice(&from[..count]);
        count
    }
    fn write_linear(&mut self, at: u64, _: &[u8]) -> Result<(), DebugError> {
        Err(DebugError::NotMapped(at))
    }
    fn read_physical(&self, _: u64, to: &mut [u8]) -> Result<(), DebugError> {
        to.fill(0x5a);
        Ok(())
    }
    fn write_physical(&mut self, at: u64, _: &[u8]) -> Result<(), DebugError> {
        Err(DebugError::NoMemory(at))
    }
    fn resume(&mut self, how: Resume, requests: &Requests, _: &mut dyn FnMut() -> bool) -> Stopped {
        self.resumed.push((how, requests.clone()));
        self.stops.pop().unwrap_or(Stopped::Interrupted)
    }
    fn stand(&mut self) -> Option<u8> {
        self.end
    }
    fn command(&mut self, line: &str) -> String {
        format!("<{line}>")
    }
    fn restart(&mut self) -> Result<(), DebugError> {
        Ok(())
    }
    fn kill(&mut self) {
        self.end = Some(0);
    }
    fn engage(&mut self) {}
    fn release(&mut self) {}
}

/// Sends a packet; what comes back, without acknowledgements and checksums.
fn ask(session: &mut Session<'_, Fake>, packet: &str) -> String {
    session.receive(&framed(packet.as_bytes()));
    contents(session)
}

fn contents(session: &mut Session<'_, Fake>) -> String {
    let output = String::from_utf8_lossy(&session.take_output()).into_owned();
    let packets = output.split('$').skip(1).filter_map(|packet| packet.split('#').next());
    packets.map(expanded).collect::<Vec<_>>().join(" ")
}

/// Run-length encoding undone: `0*"` stands for `0000` (GDB manual, E.1).
fn expanded(packet: &str) -> String {
    let mut plain = String::new();
    let mut characters = packet.chars();
    while let Some(character) = characters.next() {
        if character == '*' {
            let count = characters.next().map_or(0, |count| count as usize - 29);
            let last = plain.chars().last().unwrap_or_default();
            plain.extend(std::iter::repeat_n(last, count));
        } else {
            plain.push(character);
        }
    }
    plain
}

fn run(session: &mut Session<'_, Fake>, stops: Vec<Stopped>) -> String {
    session.target().stops = stops;
    session.run(&mut || false);
    contents(session)
}

#[test]
fn long_reads_are_cut() {
    let cut = |text: &str| String::from_utf8(shortened(text.into())).expect("it was text");
    assert_eq!(cut("m1000,10"), "m1000,10");
    assert_eq!(cut("m1000,ffffffff"), "m1000,1ff0");
    assert_eq!(cut("m1000,ffffffffffffffffff"), "m1000,1ff0");
    assert_eq!(cut("m1000,xyz"), "m1000,xyz");
    assert_eq!(cut("m1000"), "m1000");
}

#[test]
fn memory_is_linear_or_physical() {
    let mut fake = Fake::new();
    let mut session = Session::new(&mut fake);
    assert_eq!(ask(&mut session, "m10,3"), "a5a5a5");
    assert_eq!(ask(&mut session, "mffe,8"), "a5a5");
    assert_eq!(ask(&mut session, "m1000,1"), "E0e");
    assert_eq!(ask(&mut session, "Qqemu.PhyMemMode:1"), "OK");
    assert_eq!(ask(&mut session, "qqemu.PhyMemMode"), "1");
    assert_eq!(ask(&mut session, "m1000,2"), "5a5a");
    assert_eq!(ask(&mut session, "M1000,1:00"), "E0e");
}

#[test]
fn registers_are_read_and_written_by_number() {
    let mut fake = Fake::new();
    let mut session = Session::new(&mut fake);
    assert_eq!(ask(&mut session, "p10"), "3412000000000000");
    assert_eq!(ask(&mut session, "P0=0100000000000000"), "OK");
    assert_eq!(ask(&mut session, "P0=01"), "E16");
    assert_eq!(ask(&mut session, "pfff"), "E16");
    assert_eq!(session.target().written, [(Register::General(0), 1)]);
}

#[test]
fn stops_are_asked_for_and_told() {
    let mut fake = Fake::new();
    let mut session = Session::new(&mut fake);
    for packet in ["Z0,100,1", "Z1,200,1", "Z4,300,8"] {
        assert_eq!(ask(&mut session, packet), "OK");
    }
    assert_eq!(ask(&mut session, "vCont;c"), "");
    assert_eq!(session.phase(), Phase::Running);
    assert_eq!(run(&mut session, vec![Stopped::Breakpoint(0x100)]), "T05thread:01;swbreak:;");
    let (how, requests) = session.target().resumed.remove(0);
    assert_eq!(how, Resume::Continue);
    assert_eq!(requests.breakpoints, [0x100, 0x200].into());
    assert_eq!(requests.watches, [Watch { at: 0x300, len: 8, kind: WatchKind::Access }]);
    ask(&mut session, "vCont;s:1");
    assert_eq!(run(&mut session, vec![Stopped::Done]), "T05thread:01;");
    ask(&mut session, "vCont;c");
    let watched = Stopped::Watchpoint { at: 0x304, kind: WatchKind::Access };
    assert_eq!(run(&mut session, vec![watched]), "T05thread:01;awatch:0304;");
    ask(&mut session, "vCont;c");
    assert_eq!(run(&mut session, vec![Stopped::Said("x".into())]), "O780a");
    assert_eq!(session.phase(), Phase::Running, "it was only told");
    assert_eq!(run(&mut session, vec![Stopped::Ended(3)]), "W03");
    assert_eq!(session.phase(), Phase::Ended);
}

#[test]
fn an_interrupt_stops_what_runs_and_nothing_else() {
    let mut fake = Fake::new();
    let mut session = Session::new(&mut fake);
    session.receive(b"\x03");
    assert_eq!(contents(&mut session), "");
    ask(&mut session, "c");
    session.run(&mut || true);
    session.receive(b"\x03");
    assert_eq!(contents(&mut session), "T02thread:01;");
    assert_eq!(session.phase(), Phase::Standing);
}

#[test]
fn no_packet_ends_a_session() {
    let mut fake = Fake::new();
    let mut session = Session::new(&mut fake);
    let negotiated = ask(&mut session, "qSupported:multiprocess+");
    assert!(negotiated.contains("PacketSize=4004"), "{negotiated}");
    for wrong in
        ["mzz,1", "m0", "Z0", "vCont;x", "vCont;s", "Hg", "P", "G00", "qXfer:features:read"]
    {
        let answer = ask(&mut session, wrong);
        assert!(answer.is_empty() || answer.starts_with('E'), "{wrong}: {answer}");
        assert_eq!(session.phase(), Phase::Standing);
    }
    // What was negotiated still holds.
    assert_eq!(ask(&mut session, "?"), "T05thread:p01.01;");
    session.receive(&framed(&[b'm'; PACKET_BYTES + 1]));
    assert_eq!(contents(&mut session), MALFORMED);
}

#[test]
fn commands_are_answered_on_the_console() {
    let mut fake = Fake::new();
    let mut session = Session::new(&mut fake);
    assert_eq!(ask(&mut session, "qRcmd,6162"), "O3c61623e OK");
}

#[test]
fn debuggers_detach_and_kill() {
    let mut fake = Fake::new();
    let mut session = Session::new(&mut fake);
    assert_eq!(ask(&mut session, "D"), "OK");
    assert_eq!(session.phase(), Phase::Detached);
    let mut fake = Fake::new();
    let mut session = Session::new(&mut fake);
    ask(&mut session, "k");
    assert!(session.phase() == Phase::Ended && session.has_killed());
    // Who can run it again only stops it.
    let mut fake = Fake::new();
    let mut session = Session::new(&mut fake);
    for packet in ["!", "vKill;1"] {
        assert_eq!(ask(&mut session, packet), "OK");
    }
    assert!(session.phase() == Phase::Standing && session.has_killed());
    assert_eq!(ask(&mut session, "vRun;"), "T05thread:01;");
    assert!(!session.has_killed());
}
