//! The two machines.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use brolga_mmu::PAGE_SIZE;

use super::Builder;
use crate::exit::End;
use crate::machine::{BuildError, Machine};
use crate::run::Limits;
use crate::serial::Serial;

/// Steps from so many instructions on are worth a thread.
const WORTH_A_THREAD: u64 = 100_000;

/// Pages of RAM read at a time.
const PAGES: u64 = 16;

/// Two machines that should be alike.
pub(super) struct Pair {
    sides: [Side; 2],
    /// The count of instructions that both have been run to.
    at: u64,
}

struct Side {
    machine: Machine,
    console: Console,
    /// How the run ended by itself: exit status and message.
    ended: Option<(u8, Option<String>)>,
    end: Option<End>,
}

/// What a machine has written to its serial line.
#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Console {
    fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Side {
    fn new(build: &Builder<'_>, number: usize) -> Result<Self, BuildError> {
        let console = Console::default();
        let machine = build(number, Serial::to(console.clone()))?;
        Ok(Self { machine, console, ended: None, end: None })
    }

    fn run_to(&mut self, count: u64) {
        let limits = Limits { instructions: Some(count), deadline: None };
        if self.ended.is_none() {
            match self.machine.run(&limits) {
                End::InstructionLimit => {}
                end => {
                    self.ended = Some((end.status(), end.message()));
                    self.end = Some(end);
                }
            }
        }
    }
}

impl Pair {
    /// Both at power-on.
    pub(super) fn new(build: &Builder<'_>) -> Result<Self, BuildError> {
        Ok(Self { sides: [Side::new(build, 0)?, Side::new(build, 1)?], at: 0 })
    }

    /// Both run to `count` in steps of `every`, beginning at power-on.
    pub(super) fn at_count(
        build: &Builder<'_>,
        every: u64,
        count: u64,
    ) -> Result<Self, BuildError> {
        let mut pair = Self::new(build)?;
        while pair.at < count {
            pair.run_to(pair.at.saturating_add(every).min(count));
        }
        Ok(pair)
    }

    /// Runs both until they have retired `count` instructions or their runs end.
    pub(super) fn run_to(&mut self, count: u64) {
        let [first, second] = &mut self.sides;
        if count - self.at < WORTH_A_THREAD {
            first.run_to(count);
            second.run_to(count);
        } else {
            thread::scope(|scope| {
                scope.spawn(|| first.run_to(count));
                second.run_to(count);
            });
        }
        self.at = count;
    }

    /// The count of instructions that both have been run to.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn machine(&self, number: usize) -> &Machine {
        &self.sides[number].machine
    }

    /// The end of the run of the first one that has ended.
    pub(super) fn take_end(&mut self) -> Option<End> {
        self.sides.iter_mut().find_map(|side| side.end.take())
    }

    /// How the runs have ended, as far as they have.
    pub(super) fn ends(&self) -> [Option<String>; 2] {
        self.sides.each_ref().map(|side| {
            let (status, message) = side.ended.as_ref()?;
            Some(format!("exit status {status} {}", message.as_deref().unwrap_or_default()))
        })
    }

    /// What either guest has written from the first difference on.
    pub(super) fn console_tails(&self) -> [String; 2] {
        let texts = self.sides.each_ref().map(|side| side.console.text());
        let same = texts[0].iter().zip(&texts[1]).take_while(|(a, b)| a == b).count();
        texts.map(|text| String::from_utf8_lossy(&text[same..]).into_owned())
    }

    /// Whether everything but RAM is the same, and the pages of RAM at these offsets.
    pub(super) fn agrees(&self, pages: &[u64]) -> bool {
        let [a, b] = &self.sides;
        a.ended == b.ended
            && a.machine.retired() == b.machine.retired()
            && a.machine.core().vcpu == b.machine.core().vcpu
            && a.console.text() == b.console.text()
            && a.machine.chips() == b.machine.chips()
            && !pages.iter().any(|&page| self.differs(page, PAGE_SIZE))
    }

    /// The offsets of the pages of RAM that differ.
    pub(super) fn differing_pages(&self) -> Vec<u64> {
        const RUN: u64 = PAGES * PAGE_SIZE;
        let len = self.machine(0).map().ram().len();
        let runs = (0..len).step_by(RUN as usize).filter(|&at| self.differs(at, RUN.min(len - at)));
        runs.flat_map(|at| (at..len.min(at + RUN)).step_by(PAGE_SIZE as usize))
            .filter(|&page| self.differs(page, PAGE_SIZE))
            .collect()
    }

    fn differs(&self, at: u64, len: u64) -> bool {
        self.ram(0, at, len) != self.ram(1, at, len)
    }

    /// `len` bytes of RAM at offset `at`.
    pub(super) fn ram(&self, number: usize, at: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        // A range that lies inside RAM, as all here do, can be read.
        let _ = self.machine(number).map().ram().read_bytes(at, &mut bytes);
        bytes
    }
}
