//! String instructions: all widths, both directions, all repeat prefixes, counts of 0 and more, and
//! what they leave in RSI, RDI, RCX, the flags and memory.

use iced_x86::code_asm::*;

use super::integer::{STATUS, Size, sub};
use crate::conformance::features::ERMS;
use crate::conformance::long::kit::{self, About, Kit, SCRATCH, SPARE};
use crate::conformance::{Kind, Rom};
use crate::rom::{Emit, emit};

const SOURCE: &str = "SDM vol. 2, MOVS, STOS, LODS, SCAS, CMPS, REP; vol. 1 7.3.9";
/// Where both operands lie, in the middle of 128 bytes each.
const FROM: u32 = SCRATCH + 0x140;
const TO: u32 = SCRATCH + 0x240;
const AROUND: u32 = 64;
const REP: u8 = 0xf3;
const REPNE: u8 = 0xf2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Movs,
    Cmps,
    Stos,
    Lods,
    Scas,
}

/// A run of a string instruction.
#[derive(Clone, Copy)]
struct Run {
    op: Op,
    /// Bytes of an element.
    size: u32,
    prefix: Option<u8>,
    down: bool,
    count: u64,
}

/// Registers and memory, before and after.
#[derive(Clone)]
struct State {
    rax: u64,
    rcx: u64,
    rsi: u64,
    rdi: u64,
    flags: Option<u64>,
    from: Vec<u8>,
    to: Vec<u8>,
}

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    let about = About {
        name: "strings",
        about: "string instructions with all prefixes, widths and directions",
        needs: &[],
        five_levels: false,
    };
    kit::rom(about, |a| {
        let (from, to) = operands();
        let [from, to] = [a.constant(&from), a.constant(&to)];
        // The code is one, and what is executed is written to RAM.
        for op in [Op::Movs, Op::Cmps, Op::Stos, Op::Lods, Op::Scas] {
            for size in [1, 2, 4, 8] {
                for prefix in [None, Some(REP), Some(REPNE)] {
                    for down in [false, true] {
                        for count in [0, 1, 5] {
                            let plain = !matches!(op, Op::Cmps | Op::Scas);
                            if plain && prefix == Some(REPNE) || prefix.is_none() && count != 5 {
                                continue;
                            }
                            run(a, Run { op, size, prefix, down, count }, [from, to])?;
                        }
                    }
                }
            }
        }
        emit_run(a)?;
        a.need(&[ERMS]);
        fast(a)
    })
}

/// Elements that are equal at first and differ later, at all widths and in both directions.
fn operands() -> (Vec<u8>, Vec<u8>) {
    let from: Vec<u8> = (0..2 * AROUND as u8).map(|n| n.wrapping_mul(29) ^ 0x5a).collect();
    let mut to = from.clone();
    for at in [40, 47, 80, 86] {
        to[at] ^= 0x81;
    }
    (from, to)
}

impl Run {
    fn bytes(self) -> Vec<u8> {
        let opcode = match self.op {
            Op::Movs => 0xa4,
            Op::Cmps => 0xa6,
            Op::Stos => 0xaa,
            Op::Lods => 0xac,
            Op::Scas => 0xae,
        };
        let mut bytes: Vec<u8> = self.prefix.into_iter().collect();
        bytes.extend((self.size == 2).then_some(0x66));
        bytes.extend((self.size == 8).then_some(0x48));
        bytes.push(opcode | u8::from(self.size != 1));
        bytes
    }

    fn name(self) -> String {
        let prefix = match self.prefix {
            Some(REP) => "REP ",
            Some(_) => "REPNE ",
            None => "",
        };
        let way = if self.down { "down" } else { "up" };
        format!("{prefix}{:?} of {} bytes, {way}, count {}", self.op, self.size, self.count)
    }

    /// What it should do, an element at a time.
    fn expected(self) -> State {
        let (from, to) = operands();
        let mut s = State {
            // The element that SCAS finds is the third in the direction.
            rax: 0,
            rcx: self.count,
            rsi: FROM.into(),
            rdi: TO.into(),
            flags: None,
            from,
            to,
        };
        s.rax = self.wanted();
        let mut left = if self.prefix.is_some() { self.count } else { 1 };
        while left > 0 {
            self.element(&mut s);
            left -= 1;
            if self.prefix.is_some() {
                s.rcx -= 1;
            }
            let compares = matches!(self.op, Op::Cmps | Op::Scas);
            let equal = s.flags.is_some_and(|flags| flags & super::integer::ZF != 0);
            if compares && equal != (self.prefix == Some(REP)) {
                break;
            }
        }
        s
    }

    /// AL to RAX before: for SCAS what the operand holds in its third element.
    fn wanted(self) -> u64 {
        let (_, to) = operands();
        let step = if self.down { -(self.size as i32) } else { self.size as i32 };
        let third = (AROUND as i32 + 2 * step) as usize;
        let mut bytes = [0x77; 8];
        if self.op == Op::Scas && self.prefix == Some(REPNE) {
            bytes[..self.size as usize].copy_from_slice(&to[third..third + self.size as usize]);
        } else if self.op == Op::Scas {
            let first = AROUND as usize;
            bytes[..self.size as usize].copy_from_slice(&to[first..first + self.size as usize]);
        }
        u64::from_le_bytes(bytes)
    }

    fn element(self, s: &mut State) {
        let n = self.size as usize;
        let at = |address: u64, base: u32| (address - u64::from(base - AROUND)) as usize;
        let (i, j) = (at(s.rsi, FROM), at(s.rdi, TO));
        let read = |bytes: &[u8]| {
            bytes.iter().rev().fold(0_u64, |value, &byte| value << 8 | u64::from(byte))
        };
        let size = Size(8 * self.size);
        let step = if self.down { u64::from(self.size).wrapping_neg() } else { self.size.into() };
        let (mut source, mut destination) = (false, false);
        match self.op {
            Op::Movs => {
                s.to[j..j + n].copy_from_slice(&s.from[i..i + n]);
                (source, destination) = (true, true);
            }
            Op::Cmps => {
                let [x, y] = [read(&s.from[i..i + n]), read(&s.to[j..j + n])];
                s.flags = Some(sub(size, x, y, 0).1);
                (source, destination) = (true, true);
            }
            Op::Stos => {
                s.to[j..j + n].copy_from_slice(&s.rax.to_le_bytes()[..n]);
                destination = true;
            }
            Op::Lods => {
                s.rax = size.merge(s.rax, read(&s.from[i..i + n]));
                source = true;
            }
            Op::Scas => {
                s.flags = Some(sub(size, s.rax, read(&s.to[j..j + n]), 0).1);
                destination = true;
            }
        }
        s.rsi = if source { s.rsi.wrapping_add(step) } else { s.rsi };
        s.rdi = if destination { s.rdi.wrapping_add(step) } else { s.rdi };
    }
}

/// What memory is folded to: the sum of its quadwords, each rotated by the sum so far.
fn folded(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).fold(0_u64, |sum, chunk| {
        let word = chunk.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        sum.rotate_left(7).wrapping_add(word)
    })
}

/// Writes the instruction to RAM, runs it, and reports registers, flags and the destination.
fn run(a: &mut Kit<'_, '_>, run: Run, [from, to]: [u32; 2]) -> Emit {
    let expected = run.expected();
    let mut code = run.bytes();
    code.push(0xc3);
    code.resize(8, 0x90);
    let code = u64::from_le_bytes(code.try_into().unwrap_or_default());
    emit!(a;
        mov(rax, code);
        mov(qword_ptr(SCRATCH), rax);
        mov(r8d, from);
        mov(r9d, to);
        mov(rax, run.wanted());
        mov(ecx, run.count as u32);
        mov(r10d, if run.down { 0x402u32 } else { 2 });
        call -> "run_string";
    );
    let flags = expected.flags.map_or([2, STATUS], |flags| [flags, STATUS]);
    let name = run.name();
    for (what, value) in [
        ("RAX", [expected.rax, u64::MAX]),
        ("RCX", [expected.rcx, u64::MAX]),
        ("RSI", [expected.rsi, u64::MAX]),
        ("RDI", [expected.rdi, u64::MAX]),
        ("flags", flags),
        ("memory", [folded(&expected.to), u64::MAX]),
    ] {
        a.note(format!("{name}: {what}"), SOURCE, value, Kind::Number);
    }
    Ok(())
}

/// `run_string`: copies the operands, executes what lies at [`SCRATCH`], reports six values.
fn emit_run(a: &mut Kit<'_, '_>) -> Emit {
    let over = a.fresh("over");
    emit!(a;
        jmp -> &over;
        at("run_string");
        mov(r11, rcx);
        mov(r12, rax);
        mov(rsi, r8);
        mov(edi, FROM - AROUND);
        mov(ecx, AROUND / 2);
        cld();
        rep_movsd();
        mov(rsi, r9);
        mov(edi, TO - AROUND);
        mov(ecx, AROUND / 2);
        rep_movsd();
        mov(esi, FROM);
        mov(edi, TO);
        mov(rcx, r11);
        mov(rax, r12);
        mov(ebx, SCRATCH);
        push(r10);
        popfq();
        call(rbx);
        pushfq();
        pop(qword_ptr(SPARE));
        cld();
        call -> "report";
        mov(rax, rcx);
        call -> "report";
        mov(rax, rsi);
        call -> "report";
        mov(rax, rdi);
        call -> "report";
        mov(rax, qword_ptr(SPARE));
        call -> "report";
        mov(edx, TO - AROUND);
        xor(eax, eax);
        at(".fold");
        rol(rax, 7);
        add(rax, qword_ptr(rdx));
        add(rdx, 8);
        cmp(edx, TO + AROUND);
        jb -> ".fold";
        call -> "report";
        ret();
        at(&over);
    );
    Ok(())
}

/// Long ones, which an engine may do at once: overlapping copies go byte by byte.
fn fast(a: &mut Kit<'_, '_>) -> Emit {
    const LENGTH: u32 = 0x2345;
    a.value(
        "REP MOVSB onto what it reads next repeats the first byte",
        SOURCE,
        [0xabab_abab, !0],
        |a| {
            emit!(a;
                mov(edi, SCRATCH + 0x1000);
                mov(eax, 0x11u32);
                mov(ecx, LENGTH);
                db(&[0xf3, 0xaa]);
                mov(byte_ptr(SCRATCH + 0x1000), 0xab);
                mov(esi, SCRATCH + 0x1000);
                mov(edi, SCRATCH + 0x1001);
                mov(ecx, LENGTH);
                db(&[0xf3, 0xa4]);
                mov(eax, dword_ptr(SCRATCH + 0x1000 + LENGTH - 3));
            );
            Ok(())
        },
    )?;
    a.value("REP STOSB writes no further than it should", SOURCE, [0x11ab_abab, !0], |a| {
        emit!(a;
            mov(edi, SCRATCH + 0x1000);
            mov(eax, 0xabu32);
            mov(ecx, LENGTH + 4);
            db(&[0xf3, 0xaa]);
            mov(edi, SCRATCH + 0x1000 + LENGTH + 3);
            mov(eax, 0x11u32);
            stosb();
            mov(eax, dword_ptr(SCRATCH + 0x1000 + LENGTH));
        );
        Ok(())
    })
}
