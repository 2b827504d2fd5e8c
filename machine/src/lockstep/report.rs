//! What is told about a difference.

use std::fmt::{self, Display, Formatter};

use brolga_gdb::DebugTarget;
use brolga_mmu::{Backing, PAGE_SIZE, PhysMap};

use super::fields::{Field, Row, of_any, of_vcpu, rows};
use super::pair::Pair;
use crate::crash::{CodeLine, disassemble};

/// Instructions shown.
const INSTRUCTIONS: usize = 4;
/// Lines of memory shown.
const LINES: usize = 16;
/// Bytes in a line of memory.
const LINE: usize = 16;

/// The part of a run in which two engines begin to differ: nearly always one instruction, REP
/// iteration or delivery of an event.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The count of instructions before, at which the engines agree.
    pub before: u64,
    /// The count after, at which they differ.
    pub after: u64,
    /// Instructions retired at that point.
    pub retired: [u64; 2],
    /// The code at CS:RIP before.
    pub code: Vec<CodeLine>,
    /// Registers.
    pub registers: Vec<Row>,
    /// What has changed in the chips.
    pub chips: Vec<Row>,
    /// Where RAM differs.
    pub memory: Vec<MemoryLine>,
    /// What the guests have written from the first difference on.
    pub console: [String; 2],
    /// How the runs have ended, as far as they have.
    pub ends: [Option<String>; 2],
    registers_before: Vec<Field>,
    chips_before: Vec<Field>,
}

/// Bytes of RAM that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLine {
    /// The guest-physical address, a multiple of 16.
    pub at: u64,
    /// The bytes in either machine.
    pub bytes: [Vec<u8>; 2],
}

impl Report {
    /// Begins with machines that agree.
    pub(super) fn begin(pair: &Pair) -> Self {
        let machine = pair.machine(0);
        let (_, code) = disassemble(machine, &machine.registers(), INSTRUCTIONS);
        Self {
            before: pair.at(),
            code,
            registers_before: of_vcpu(&machine.core().vcpu),
            chips_before: of_any(&machine.chips()),
            ..Self::default()
        }
    }

    /// Ends with the same machines, which differ now.
    pub(super) fn finish(&mut self, pair: &Pair) {
        let both = [pair.machine(0), pair.machine(1)];
        self.after = pair.at();
        self.retired = both.map(|machine| machine.retired());
        let registers = both.map(|machine| of_vcpu(&machine.core().vcpu));
        self.registers = rows(&self.registers_before, registers.each_ref().map(Vec::as_slice));
        let chips = both.map(|machine| of_any(&machine.chips()));
        self.chips = rows(&self.chips_before, chips.each_ref().map(Vec::as_slice));
        self.memory =
            pair.differing_pages().into_iter().flat_map(|page| lines(pair, page)).collect();
        self.console = pair.console_tails();
        self.ends = pair.ends();
    }

    /// Whether nothing differs.
    pub(super) fn is_empty(&self) -> bool {
        self.retired[0] == self.retired[1]
            && self.memory.is_empty()
            && self.console[0] == self.console[1]
            && self.ends[0] == self.ends[1]
            && !self.registers.iter().chain(&self.chips).any(Row::differs)
    }
}

/// The lines of a page that differ.
fn lines(pair: &Pair, page: u64) -> impl Iterator<Item = MemoryLine> {
    let [first, second] = [0, 1].map(|number| pair.ram(number, page, PAGE_SIZE));
    let physical = physical(pair.machine(0).map(), page);
    (0..PAGE_SIZE as usize).step_by(LINE).filter_map(move |at| {
        let bytes = [&first, &second].map(|bytes| bytes[at..at + LINE].to_vec());
        (bytes[0] != bytes[1]).then_some(MemoryLine { at: physical + at as u64, bytes })
    })
}

/// The address of a page of RAM, by its offset.
fn physical(map: &PhysMap, page: u64) -> u64 {
    let ranges = map.ram_ranges().into_iter();
    let mut places = ranges.filter_map(|(at, len)| match map.lookup(at).backing {
        Backing::Ram { offset } if (offset..offset + len).contains(&page) => {
            Some(at.0 + (page - offset))
        }
        _ => None,
    });
    // RAM behind a ROM has no address, and no guest changes it.
    places.next().unwrap_or(page)
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { before, after, retired: [first, second], .. } = self;
        writeln!(f, "the engines agree after {before} instructions and differ after {after}")?;
        if after - before > 1 {
            writeln!(f, "(run in smaller steps, they agree: the difference depends on the steps)")?;
        }
        if first != second {
            writeln!(f, "> retired: {first} and {second}")?;
        }
        for (number, line) in self.code.iter().enumerate() {
            let mark = if number == 0 { ">" } else { " " };
            writeln!(f, "  {mark} {:016x}  {:<30} {}", line.ip, line.bytes, line.text)?;
        }
        writeln!(f, "  {:<12} {:<32} {:<32} after, second", "", "before", "after, first")?;
        for row in self.registers.iter().chain(&self.chips) {
            writeln!(f, "{row}")?;
        }
        for line in self.memory.iter().take(LINES) {
            let [first, second] = line.bytes.each_ref().map(|bytes| hexadecimal(bytes));
            writeln!(f, "> at {:<9x} {first} {second}", line.at)?;
        }
        if self.memory.len() > LINES {
            writeln!(f, "> and {} more lines of RAM", self.memory.len() - LINES)?;
        }
        if self.console[0] != self.console[1] {
            writeln!(f, "> serial output: {:?} and {:?}", self.console[0], self.console[1])?;
        }
        if self.ends[0] != self.ends[1] {
            let [first, second] = self.ends.each_ref().map(|end| end.as_deref().unwrap_or("runs"));
            writeln!(f, "> end of the run: {first}; {second}")?;
        }
        Ok(())
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
