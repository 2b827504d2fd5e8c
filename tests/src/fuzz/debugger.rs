//! Hostile debuggers: malformed packets, wrong checksums, lengths beyond reason, and connections
//! that break off at any byte. None of them may do the machine any harm, nor change the guest.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;

use crate::process::{self, Finished};
use crate::state::State;
use crate::{binary, exit};

/// The run that debuggers disturb: it ends after so many instructions.
const INSTRUCTIONS: &str = "20000000";
/// How long it may take.
const HANG: Duration = Duration::from_secs(120);
/// How long a debugger waits for answers that may not come.
const PATIENCE: Duration = Duration::from_millis(20);
/// Most connections of a case.
const CONNECTIONS: usize = 12;
/// Most packets of a connection.
const PACKETS: usize = 24;

/// Packets that leave the guest as it is. Mutations of them are sent too.
const HARMLESS: &[&[u8]] = &[
    b"qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+;xmlRegisters=i386",
    b"QStartNoAckMode",
    b"!",
    b"?",
    b"Hg0",
    b"Hgp1.1",
    b"Hc-1",
    b"qAttached",
    b"qC",
    b"qOffsets",
    b"qfThreadInfo",
    b"qsThreadInfo",
    b"qThreadExtraInfo,1",
    b"qXfer:features:read:target.xml:0,ffb",
    b"qXfer:features:read:target.xml:ffffffff,ffffffffffffffff",
    b"qXfer:memory-map:read::0,1000",
    b"qHostInfo",
    b"qProcessInfo",
    b"qRegisterInfo0",
    b"g",
    b"p10",
    b"pffffffffffffffff",
    b"mfffffff0,10",
    b"m0,ffffffffffffffff",
    b"mffffffffffffffff,ffff",
    b"m1000000000000000000,1",
    b"Z0,fff0,1",
    b"z0,fff0,1",
    b"Z1,ffff0,1",
    b"z1,ffff0,1",
    b"Z2,500,8",
    b"z2,500,8",
    b"Z3,0,ffffffffffffffff",
    b"z3,0,ffffffffffffffff",
    b"Z4,ffffffffffffffff,2",
    b"vMustReplyEmpty",
    b"vCont?",
    b"vCont;c",
    b"vCont;s:1;c",
    b"vCont;r0,ffffffff:1",
    b"c",
    b"s",
    b"Qqemu.PhyMemMode:1",
    b"qqemu.PhyMemMode",
    b"qRcmd,68656c70",
    b"qRcmd,7265677320",
    b"qRcmd,7074203078666666",
    b"qRcmd,697271",
    b"qRcmd,zz",
    b"D",
];

/// Packets that write, end or begin anew: mutations that have become one are not sent.
const WRITING: &[&[u8]] =
    &[b"G", b"P", b"M", b"X", b"R", b"k", b"vKill", b"vRun", b"vFlash", b"vAttach", b"qRcmd"];

/// One case: a machine under attack, and its state at the end.
pub(super) fn attack(seed: u64, directory: &Path) -> Result<()> {
    let door = directory.join(format!("door-{seed}"));
    let mut rng = Rng::with_seed(seed);
    let finished = std::thread::scope(|scope| {
        let attacker = scope.spawn(|| molest(&mut rng, &door));
        let finished = run(Some(&door));
        // What the attacker saw of a machine that is gone does not matter.
        drop(attacker.join());
        finished
    })?;
    let (status, stderr) = (finished.code()?, &finished.stderr);
    ensure!(status == exit::INSTRUCTION_LIMIT, "exit status {status}; stderr:\n{stderr}");
    // A panic on another thread than the first may leave the exit status alone.
    ensure!(!stderr.contains("panicked at"), "{stderr}");
    let state = State::find(stderr)?;
    ensure!(state == *undisturbed()?, "the guest is not what it is without debuggers: {state:?}");
    Ok(())
}

/// The state of the guest at the end of a run that nobody disturbs.
fn undisturbed() -> Result<&'static State> {
    static STATE: OnceLock<Result<State, String>> = OnceLock::new();
    let found = STATE.get_or_init(|| {
        let found = run(None).and_then(|finished| State::find(&finished.stderr));
        found.map_err(|error| format!("{error:#}"))
    });
    found.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn run(door: Option<&Path>) -> Result<Finished> {
    let mut command = Command::new(binary::brolga()?);
    command.args(["run", "--clock", "virtual", "--serial", "none", "--state-hash"]);
    command.args(["--max-insns", INSTRUCTIONS]);
    if let Some(door) = door {
        command.arg("--gdb").arg(format!("unix:{}", door.display())).arg("--wait");
    }
    process::run(&mut command, HANG)
}

/// Connects again and again until the machine is gone, the last time to let it run to its end.
fn molest(rng: &mut Rng, door: &Path) {
    // The socket is there a moment before anybody listens at it.
    let deadline = Instant::now() + HANG;
    let mut first = UnixStream::connect(door);
    while first.is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        first = UnixStream::connect(door);
    }
    let others = std::iter::repeat_with(|| UnixStream::connect(door));
    for stream in std::iter::once(first).chain(others).take(rng.usize(1..=CONNECTIONS)) {
        let Ok(mut stream) = stream else { return };
        let traffic = traffic(rng);
        let end = if rng.bool() { rng.usize(..=traffic.len()) } else { traffic.len() };
        // A machine that has hung up is what was to be seen.
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.write_all(&traffic[..end]);
        let _ = stream.read(&mut [0; 4096]);
    }
}

fn traffic(rng: &mut Rng) -> Vec<u8> {
    (0..rng.usize(1..=PACKETS)).flat_map(|_| piece(rng)).collect()
}

/// A packet, or something that is none.
fn piece(rng: &mut Rng) -> Vec<u8> {
    let packet = HARMLESS[rng.usize(..HARMLESS.len())];
    match rng.u8(..10) {
        0..4 => framed(packet),
        4..7 => {
            let mutated = mutated(packet, rng);
            if WRITING.iter().any(|writing| mutated.starts_with(writing)) {
                return framed(b"?");
            }
            framed(&mutated)
        }
        7 => {
            let mut wrong = framed(packet);
            if let Some(last) = wrong.last_mut() {
                *last ^= 1;
            }
            wrong
        }
        8 => vec![[b'+', b'-', b'$', b'#', 0x03, b'}'][rng.usize(..6)]],
        _ => framed(&vec![b'm'; rng.usize(..0x1_0000)]),
    }
}

fn framed(contents: &[u8]) -> Vec<u8> {
    let sum = contents.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", contents, format!("#{sum:02x}").as_bytes()].concat()
}

/// The packet with a few bytes changed, left out or put in. Frames stay whole.
fn mutated(packet: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(..=bytes.len());
        let byte = match rng.u8(..4) {
            0 => rng.u8(..),
            1 => b"0123456789abcdef"[rng.usize(..16)],
            _ => b",;:-+.*=~"[rng.usize(..9)],
        };
        match rng.u8(..3) {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => bytes[at] = byte,
            _ if at < bytes.len() => drop(bytes.remove(at)),
            _ => {}
        }
    }
    bytes.retain(|byte| !matches!(byte, b'$' | b'#'));
    bytes
}
