//! Debuggers come and go while a machine runs.

use std::time::Duration;

use crate::door::{Door, Event, Peer};
use crate::session::{Phase, Session};
use crate::target::{DebugTarget, Requests, Resume, Stopped};

/// How long a standing machine is left without a look at the rest of the world.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    /// The machine goes on.
    Detached,
    /// The machine is at its end.
    Ended,
}

/// Runs `target` to its end, with debuggers that come in at `door`. With `wait`, it stands until
/// the first has come. Returns when the machine has come to its end.
pub fn serve(target: &mut impl DebugTarget, door: &mut Door, wait: bool) {
    let mut first = wait.then(|| wait_for_debugger(target, door)).flatten();
    if wait && first.is_none() {
        return;
    }
    loop {
        let peer = match first.take() {
            Some(peer) => peer,
            None => match run_alone(target, door) {
                Some(peer) => peer,
                None => return,
            },
        };
        target.engage();
        let parting = attend(target, door, peer);
        target.release();
        if parting == Parting::Ended {
            return;
        }
    }
}

/// The machine stands until a debugger comes; `None` if the machine is at its end.
fn wait_for_debugger(target: &mut impl DebugTarget, door: &mut Door) -> Option<Peer> {
    while target.stand().is_none() {
        if let Some(Event::Came(peer)) = door.next(LOOK_AROUND) {
            return Some(peer);
        }
    }
    None
}

/// The machine runs until a debugger comes; `None` if the machine is at its end.
fn run_alone(target: &mut impl DebugTarget, door: &mut Door) -> Option<Peer> {
    loop {
        let stopped =
            target.resume(Resume::Continue, &Requests::default(), &mut || door.has_event());
        if let Stopped::Ended(_) = stopped {
            return None;
        }
        if stopped == Stopped::Interrupted
            && let Some(Event::Came(peer)) = door.next(Duration::ZERO)
        {
            return Some(peer);
        }
    }
}

/// A session with a debugger that has just come, up to its end or the machine's.
fn attend(target: &mut impl DebugTarget, door: &mut Door, mut peer: Peer) -> Parting {
    let mut session = Session::new(target);
    let parting = converse(&mut session, door, &mut peer);
    if session.has_killed() {
        session.target().kill();
        return Parting::Ended;
    }
    parting
}

fn converse<T: DebugTarget>(
    session: &mut Session<'_, T>,
    door: &mut Door,
    peer: &mut Peer,
) -> Parting {
    loop {
        match session.phase() {
            Phase::Running => session.run(&mut || door.has_event()),
            Phase::Standing => {
                if session.target().stand().is_some() {
                    session.end();
                }
            }
            Phase::Detached => return Parting::Detached,
            Phase::Ended => return Parting::Ended,
        }
        let limit = if session.phase() == Phase::Standing { LOOK_AROUND } else { Duration::ZERO };
        if peer.send(&session.take_output()).is_err() {
            return Parting::Detached;
        }
        match door.next(limit) {
            Some(Event::Sent(number, bytes)) if number == peer.number => session.receive(&bytes),
            Some(Event::Left(number)) if number == peer.number => return Parting::Detached,
            // One at a time: whoever else comes is sent away. Words of those who have left are late.
            Some(Event::Came(_) | Event::Sent(..) | Event::Left(_)) | None => {}
        }
        if peer.send(&session.take_output()).is_err() {
            return Parting::Detached;
        }
    }
}
