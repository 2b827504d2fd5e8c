//! A ROM whose rows each do one operation over and over, so that somebody outside can time it.
//!
//! It asks the host's stopwatch (ports [`STOPWATCH`] on) how often to repeat a row, writes marks
//! before and after the loop, and then tells how many operations have left their trace (a counter
//! in the handler, a sum of what was read): a row that does not do what it measures is found out.
//! Where nobody answers at these ports each row is run once, so that the ROM is a test by itself:
//! it says `PASS: NAME`, `FAIL: NAME` or `SKIP: NAME` on COM1 and exits with the number of
//! failures.
//!
//! All of it is 64-bit code in RAM, at level 0 but for the rows that say otherwise.
//!
//! | port | written | read |
//! |---|---|---|
//! | +0 | the number of a row, before it begins | how often to repeat it; 0: no more of it |
//! | +4 | [`START`], [`STOP`] | |
//! | +8 | how many operations were counted | |
//! | +12 | the vector of an exception that has ended the row | |

mod rows;
mod start;

use iced_x86::code_asm::*;

use crate::rom::{Emit, Mode, ROM_BASE, RomBuilder, Section, emit};
pub use rows::ROWS;

/// The first of the stopwatch's 16 ports; all are 32 bits wide.
pub const STOPWATCH: u16 = 0xB10;
/// Offsets of its ports.
pub const ROW: u16 = 0;
/// Where marks are written.
pub const MARK: u16 = 4;
/// Where the count of operations is written.
pub const RESULT: u16 = 8;
/// Where the vector of an unexpected exception is written.
pub const FAULT: u16 = 12;
/// The mark before the loop.
pub const START: u32 = 1;
/// The mark behind it.
pub const STOP: u32 = 2;

/// Repetitions where nobody is at the stopwatch.
const ALONE: u32 = 1000;
const NOBODY: i32 = -1;
const EXIT_PORT: u32 = 0xF4;

/// A part of a row's code.
type Code = fn(&mut Section<'_>) -> Emit;

/// A row: an operation, and how it is repeated.
pub struct Row {
    /// Its name, in one word.
    pub name: &'static str,
    /// What one operation is.
    pub about: &'static str,
    /// What of an operation's time is waiting for a timer, in nanoseconds of the guest.
    pub waits_ns: u64,
    /// Whether its loop runs at level 3.
    pub at_level_3: bool,
    /// R12D holds the number of repetitions, R13 is zero; RBX, RBP, RSI, RDI, R8 to R11 and R15
    /// are kept until the body.
    setup: Code,
    /// May change everything but R12 and R14.
    body: Code,
    /// Puts the number of operations that were seen to happen into EAX.
    count: Code,
}

/// The row whose loop is empty: what it takes is no part of the operations at level 0.
pub const EMPTY: usize = 0;
/// The same at level 3.
pub const EMPTY_AT_LEVEL_3: usize = 1;

impl Row {
    /// The row with the empty loop that is like this row's.
    pub fn baseline(&self) -> usize {
        if self.at_level_3 { EMPTY_AT_LEVEL_3 } else { EMPTY }
    }
}

/// The ROM's image, [`ROM_SIZE`](crate::rom::ROM_SIZE) bytes that end at 4 GiB.
pub fn nanobench_rom() -> Vec<u8> {
    build().expect("the ROM's instructions are all encodable")
}

fn build() -> Emit<Vec<u8>> {
    let mut rom = RomBuilder::new();
    let idt = rom.reserve(start::IDT_SIZE);
    let long = rom.section(Mode::Bits64, start::SHADOW, |a| {
        start::long(a, idt)?;
        for (number, row) in ROWS.iter().enumerate() {
            emit_row(a, number as u32, row)?;
        }
        emit_end(a)?;
        start::handlers(a)
    })?;
    rom.fill(idt, &start::idt(&long));
    let protected =
        rom.section(Mode::Bits32, ROM_BASE, |a| start::protected(a, long.address_of("long")))?;
    let entry =
        rom.section(Mode::Bits16, 0, |a| start::real(a, protected.address_of("protected")))?;
    Ok(rom.finish(u16::try_from(entry.address_of("entry")).expect("offsets are 16 bits")))
}

/// Writes EAX to a port of the stopwatch.
fn tell(a: &mut Section<'_>, port: u16) -> Emit {
    emit!(a; mov(edx, u32::from(STOPWATCH + port)); out(dx, eax););
    Ok(())
}

fn mark(a: &mut Section<'_>, mark: u32) -> Emit {
    a.mov(eax, mark)?;
    tell(a, MARK)
}

fn emit_row(a: &mut Section<'_>, number: u32, row: &Row) -> Emit {
    a.at(&format!("row_{number}"))?;
    emit!(a;
        lea(rax) -> ".faulted";
        mov(qword_ptr(start::ABANDON), rax);
        at(".again");
        mov(eax, number);
    );
    tell(a, ROW)?;
    emit!(a;
        in_(eax, dx);
        cmp(eax, NOBODY);
        jne -> ".asked";
        // Once, and no more when the row comes round again.
        mov(eax, ALONE);
        cmp(dword_ptr(start::ALONE_DONE), number + 1);
        mov(dword_ptr(start::ALONE_DONE), number + 1);
        jne -> ".asked";
        xor(eax, eax);
        at(".asked");
        test(eax, eax);
        jz -> ".passed";
        mov(dword_ptr(start::COUNT), eax);
        mov(r12d, eax);
        xor(r13d, r13d);
        xor(r15d, r15d);
    );
    (row.setup)(a)?;
    mark(a, START)?;
    if row.at_level_3 {
        emit_loop_at_level_3(a, row)?;
    } else {
        emit_loop(a, row)?;
    }
    mark(a, STOP)?;
    (row.count)(a)?;
    a.xor(r15d, r15d)?;
    tell(a, RESULT)?;
    emit!(a; cmp(eax, dword_ptr(start::COUNT)); je -> ".again";);
    let outcomes = [(".failed", "FAIL: "), (".faulted", "SKIP: "), (".passed", "PASS: ")];
    for (label, word) in outcomes {
        if label == ".failed" {
            emit!(a; inc(dword_ptr(start::FAILURES)););
        } else {
            a.at(label)?;
        }
        let text = a.text(&format!("{word}{}\n", row.name));
        emit!(a; mov(esi, text););
        if label != ".passed" {
            emit!(a; jmp -> ".say";);
        }
    }
    emit!(a; at(".say"); call -> "puts";);
    Ok(())
}

fn emit_loop(a: &mut Section<'_>, row: &Row) -> Emit {
    a.at(".loop")?;
    (row.body)(a)?;
    emit!(a; dec(r12d); jnz -> ".loop";);
    Ok(())
}

fn emit_loop_at_level_3(a: &mut Section<'_>, row: &Row) -> Emit {
    emit!(a;
        lea(r14) -> ".back";
        lea(rax) -> ".loop";
        push(u32::from(start::DATA3) as i32);
        push(start::USER_STACK as i32);
        push(2);
        push(u32::from(start::CODE3) as i32);
        push(rax);
        iretq();
    );
    emit_loop(a, row)?;
    emit!(a; int(i32::from(start::BACK)); at(".back"););
    Ok(())
}

fn emit_end(a: &mut Section<'_>) -> Emit {
    emit!(a;
        mov(eax, dword_ptr(start::FAILURES));
        mov(edx, EXIT_PORT);
        out(dx, al);
        at("stop");
        cli();
        hlt();
        jmp -> "stop";
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_have_names_of_their_own() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        assert!(!ROWS[EMPTY].at_level_3 && ROWS[EMPTY_AT_LEVEL_3].at_level_3);
    }

    #[test]
    fn building_twice_gives_the_same_image() {
        assert!(nanobench_rom() == nanobench_rom());
    }
}
