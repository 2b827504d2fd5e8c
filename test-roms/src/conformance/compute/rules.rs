//! Tables of operands, code that goes through them, and the ROM of addition, subtraction and logic.

use iced_x86::code_asm::*;

use super::integer::{AF, CF, SIZES, STATUS, Size, add, of_result, sub};
use crate::conformance::long::kit::{self, About, CASE, Kit, OUTCOME, SPARE};
use crate::conformance::{Kind, Rom, exception};
use crate::rom::{Emit, emit};

/// What an instruction has before: RAX, RCX, RDX, and status flags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input {
    pub(super) rax: u64,
    pub(super) rcx: u64,
    pub(super) rdx: u64,
    pub(super) flags: u64,
}

/// What it leaves; what is `None` is not looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Output {
    pub(super) rax: Option<u64>,
    pub(super) rdx: Option<u64>,
    /// Flags, and which are defined.
    pub(super) flags: [u64; 2],
    /// MXCSR, and which bits count.
    pub(super) mxcsr: Option<[u64; 2]>,
    /// The vector of an exception: but for MXCSR nothing else is looked at then.
    pub(super) raises: Option<u8>,
}

/// Which values a case reports, besides RAX and flags.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reports {
    pub(super) rdx: bool,
    pub(super) outcome: bool,
    pub(super) mxcsr: bool,
}

/// Executes `code` for each of `inputs` and reports what comes out. Changes all registers.
pub(super) fn compute(
    a: &mut Kit<'_, '_>,
    (name, source): (&str, &'static str),
    inputs: &[Input],
    reports: Reports,
    code: impl FnOnce(&mut Kit<'_, '_>) -> Emit,
    rule: impl Fn(&Input) -> Output,
) -> Emit {
    for input in inputs {
        note(a, name, source, input, reports, &rule(input));
    }
    let bytes: Vec<u8> = inputs
        .iter()
        .flat_map(|input| [input.rax, input.rcx, input.rdx, input.flags | 2])
        .flat_map(u64::to_le_bytes)
        .collect();
    let table = a.constant(&bytes);
    let again = a.fresh("compute");
    emit!(a; mov(dword_ptr(CASE), 0); at(&again););
    a.attempt(|a| {
        emit!(a;
            mov(ebx, dword_ptr(CASE));
            shl(ebx, 5);
            push(qword_ptr(rbx + table + 24));
            popfq();
            mov(rax, qword_ptr(rbx + table));
            mov(rcx, qword_ptr(rbx + table + 8));
            mov(rdx, qword_ptr(rbx + table + 16));
        );
        code(a)?;
        emit!(a;
            pushfq();
            pop(qword_ptr(SPARE + 16));
            mov(qword_ptr(SPARE), rax);
            mov(qword_ptr(SPARE + 8), rdx);
        );
        Ok(())
    })?;
    if reports.outcome {
        emit!(a; mov(eax, dword_ptr(OUTCOME)); call -> "report";);
    }
    if reports.mxcsr {
        emit!(a;
            stmxcsr(dword_ptr(SPARE + 24));
            mov(eax, dword_ptr(SPARE + 24));
            call -> "report";
            mov(dword_ptr(SPARE + 24), 0x1f80);
            ldmxcsr(dword_ptr(SPARE + 24));
        );
    }
    if reports.rdx {
        emit!(a; mov(rax, qword_ptr(SPARE + 8)); call -> "report";);
    }
    emit!(a;
        mov(rax, qword_ptr(SPARE));
        call -> "report";
        mov(rax, qword_ptr(SPARE + 16));
        call -> "report";
        inc(dword_ptr(CASE));
        cmp(dword_ptr(CASE), inputs.len() as u32);
        jb -> &again;
    );
    Ok(())
}

fn note(
    a: &mut Kit<'_, '_>,
    name: &str,
    source: &'static str,
    input: &Input,
    reports: Reports,
    output: &Output,
) {
    let Input { rax: first, rcx: second, rdx: third, flags } = input;
    let case = format!("{name} of {first:#x}, {second:#x}, {third:#x}, flags {flags:#x}");
    let looked_at = |value: Option<u64>| match (value, output.raises) {
        (Some(value), None) => [value, u64::MAX],
        _ => [0, 0],
    };
    if reports.outcome {
        let outcome = output.raises.map_or(0, |vector| exception(vector, 0));
        let expected = [outcome.into(), u64::MAX];
        a.note(format!("{case}: exception"), source, expected, Kind::Outcome);
    }
    if reports.mxcsr {
        let mxcsr = output.mxcsr.unwrap_or_default();
        a.note(format!("{case}: MXCSR"), source, mxcsr, Kind::Number);
    }
    if reports.rdx {
        a.note(format!("{case}: RDX"), source, looked_at(output.rdx), Kind::Number);
    }
    a.note(format!("{case}: RAX"), source, looked_at(output.rax), Kind::Number);
    let [flags, defined] = if output.raises.is_some() { [0, 0] } else { output.flags };
    a.note(format!("{case}: flags"), source, [flags, defined], Kind::Number);
}

/// Sets CR4.OSXSAVE and XCR0, where there is AVX.
pub(super) fn enable_avx(a: &mut Kit<'_, '_>) -> Emit {
    a.attempt(|a| {
        emit!(a;
            mov(rax, cr4);
            bts(eax, 18);
            mov(cr4, rax);
            xor(ecx, ecx);
            xor(edx, edx);
            mov(eax, 7u32);
            xsetbv();
        );
        Ok(())
    })
}

/// Numbers at the edges of all sizes, and in between.
pub(super) const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0x7fff_ffff,
    0x8000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Pairs of edges, with and without the carry: not all, but each number on both sides.
pub(super) fn pairs() -> Vec<Input> {
    let mut inputs = Vec::new();
    for (n, &first) in EDGES.iter().enumerate() {
        for step in [0, 1, 5, 10] {
            let second = EDGES[(n + step) % EDGES.len()];
            let other = 0x0123_4567_89ab_cdef_u64.rotate_left(n as u32 * 7);
            // RDX is what memory and third operands are.
            for flags in [0, STATUS] {
                inputs.push(Input { rax: first, rcx: second, rdx: other, flags });
            }
        }
        let second = 0x0fed_cba9_8765_4321_u64.rotate_left(n as u32 * 5);
        inputs.push(Input { rax: first, rcx: second, rdx: second, flags: CF });
    }
    inputs
}

/// `opcode` of AL, AX, EAX or RAX and what CL, CX, ECX or RCX is: its bytes at this size.
pub(super) fn sized(size: Size, [byte, other]: [&[u8]; 2]) -> Vec<u8> {
    match size.0 {
        8 => byte.to_vec(),
        16 => [&[0x66], other].concat(),
        32 => other.to_vec(),
        _ => [&[0x48], other].concat(),
    }
}

/// An operation on RAX and RCX with the carry: the result, nothing if none is written, its flags
/// and which of these are defined.
type Rule = fn(Size, u64, u64, u64) -> (Option<u64>, u64, u64);

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    let about = About {
        name: "arithmetic",
        about: "results and flags of addition, subtraction and logic at all sizes",
        needs: &[],
        five_levels: false,
    };
    kit::rom(about, |a| {
        let inputs = pairs();
        for (name, bytes, rule) in operations() {
            for size in SIZES {
                let code = sized(size, bytes);
                let name = format!("{name}, {} bits", size.0);
                let rule = |input: &Input| {
                    let (result, flags, defined) = rule(size, input.rax, input.rcx, input.flags);
                    // What is undefined is not looked at, what is not written stays.
                    let kept = input.flags & STATUS & !written(&name);
                    let flags = flags & written(&name) | kept;
                    let value = result.map_or(input.rax, |result| size.merge(input.rax, result));
                    Output { rax: Some(value), flags: [flags, defined], ..Output::default() }
                };
                let source = "SDM vol. 2; vol. 1 3.4.3.1, A.1";
                compute(a, (&name, source), &inputs, Reports::default(), |a| a.db(&code), rule)?;
            }
        }
        Ok(())
    })
}

/// The status flags that an operation writes: INC and DEC leave CF, NOT leaves all.
fn written(name: &str) -> u64 {
    match name.split([' ', ',']).next() {
        Some("INC" | "DEC") => STATUS & !CF,
        Some("NOT") => 0,
        _ => STATUS,
    }
}

/// Names, opcodes at 8 bits and at others with their ModRM, rules.
fn operations() -> [(&'static str, [&'static [u8]; 2], Rule); 14] {
    [
        ("ADD", [&[0x00, 0xc8], &[0x01, 0xc8]], |s, a, b, _| all(add(s, a, b, 0))),
        ("ADC", [&[0x10, 0xc8], &[0x11, 0xc8]], |s, a, b, f| all(add(s, a, b, f & CF))),
        ("SUB", [&[0x28, 0xc8], &[0x29, 0xc8]], |s, a, b, _| all(sub(s, a, b, 0))),
        ("SBB", [&[0x18, 0xc8], &[0x19, 0xc8]], |s, a, b, f| all(sub(s, a, b, f & CF))),
        ("CMP", [&[0x38, 0xc8], &[0x39, 0xc8]], |s, a, b, _| (None, sub(s, a, b, 0).1, STATUS)),
        ("AND", [&[0x20, 0xc8], &[0x21, 0xc8]], |s, a, b, _| bitwise(s, Some(a & b), a & b)),
        ("OR", [&[0x08, 0xc8], &[0x09, 0xc8]], |s, a, b, _| bitwise(s, Some(a | b), a | b)),
        ("XOR", [&[0x30, 0xc8], &[0x31, 0xc8]], |s, a, b, _| bitwise(s, Some(a ^ b), a ^ b)),
        ("TEST", [&[0x84, 0xc8], &[0x85, 0xc8]], |s, a, b, _| bitwise(s, None, a & b)),
        ("NEG", [&[0xf6, 0xd8], &[0xf7, 0xd8]], |s, a, _, _| all(sub(s, 0, a, 0))),
        ("NOT", [&[0xf6, 0xd0], &[0xf7, 0xd0]], |_, a, _, _| (Some(!a), 0, STATUS)),
        ("INC", [&[0xfe, 0xc0], &[0xff, 0xc0]], |s, a, _, _| all(add(s, a, 1, 0))),
        ("DEC", [&[0xfe, 0xc8], &[0xff, 0xc8]], |s, a, _, _| all(sub(s, a, 1, 0))),
        ("XADD", [&[0x0f, 0xc0, 0xc8], &[0x0f, 0xc1, 0xc8]], |s, a, b, _| all(add(s, a, b, 0))),
    ]
}

fn all((result, flags): (u64, u64)) -> (Option<u64>, u64, u64) {
    (Some(result), flags, STATUS)
}

/// AND, OR, XOR and TEST clear CF and OF, and leave AF undefined.
fn bitwise(size: Size, result: Option<u64>, v: u64) -> (Option<u64>, u64, u64) {
    (result, of_result(size, v), STATUS & !AF)
}
