//! SSE and SSE2 arithmetic: results and MXCSR of edges in all directions of rounding, with
//! denormals as zeros and flushed, and with each exception unmasked.

use iced_x86::code_asm::*;

use super::exact::{Operation, PE, Rounding};
use super::float::{Control, DOUBLE, Format, SINGLE};
use super::rules::{Input, Output, Reports, compute, enable_avx};
use crate::conformance::Rom;
use crate::conformance::features::{AVX, SSE2};
use crate::conformance::long::kit::{self, About, Kit};
use crate::rom::{Emit, emit};

const XM: u8 = 19;
const MASKS: u64 = 0x1f80;
const SOURCE: &str = "SDM vol. 1 4.8, 4.9, 10.2.3, 11.5";

const SINGLES: [u64; 19] = [
    0,
    0x8000_0000,
    1,
    0x8000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x8080_0001,
    0x3400_0000,
    0x3f7f_ffff,
    0x3f80_0000,
    0xbf80_0001,
    0x4049_0fdb,
    0x4b80_0001,
    0x7f7f_ffff,
    0xff7f_fffe,
    0x7f80_0000,
    0xff80_0000,
    0x7fc1_2345,
    0xff81_2345,
];
const DOUBLES: [u64; 19] = [
    0,
    1 << 63,
    1,
    0x8000_0000_0000_0001,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x8010_0000_0000_0001,
    0x3ca0_0000_0000_0000,
    0x3fef_ffff_ffff_ffff,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0001,
    0x4009_21fb_5444_2d18,
    0x4340_0000_0000_0001,
    0x7fef_ffff_ffff_ffff,
    0xffef_ffff_ffff_fffe,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_1234_5678_9abc,
    0xfff0_1234_5678_9abc,
];

/// MXCSR without status: all directions; denormals as zeros; flushed; each exception unmasked.
fn controls() -> Vec<u64> {
    const DAZ: u64 = 1 << 6;
    const FTZ: u64 = 1 << 15;
    let mut controls: Vec<u64> = (0..4).map(|rounding| MASKS | rounding << 13).collect();
    controls.extend([MASKS | DAZ, MASKS | FTZ, MASKS | DAZ | FTZ | 2 << 13]);
    controls.extend((0..6).map(|exception| MASKS & !(1 << (7 + exception))));
    controls
}

fn control(mxcsr: u64) -> Control {
    Control {
        rounding: Rounding::ALL[(mxcsr >> 13 & 3) as usize],
        denormals_are_zero: mxcsr & 1 << 6 != 0,
        flush_to_zero: mxcsr & 1 << 15 != 0,
        unmasked: !mxcsr >> 7 & 0x3f,
    }
}

pub(in crate::conformance) fn single() -> Emit<Rom> {
    rom("sse-single", "arithmetic of SSE's single precision", SINGLE, SINGLES)
}

pub(in crate::conformance) fn double() -> Emit<Rom> {
    rom("sse-double", "arithmetic of SSE2's double precision", DOUBLE, DOUBLES)
}

fn rom(name: &'static str, about: &'static str, format: Format, values: [u64; 19]) -> Emit<Rom> {
    // F3 and F2 name the precision, and 2 and 3 do in VEX.
    let (suffix, prefix, vex) =
        if format.precision == SINGLE.precision { ("SS", 0xf3, 2) } else { ("SD", 0xf2, 3) };
    kit::rom(About { name, about, needs: &[SSE2], five_levels: false }, |a| {
        let inputs = inputs(values);
        let operations = [
            (Operation::Add, 0x58),
            (Operation::Sub, 0x5c),
            (Operation::Mul, 0x59),
            (Operation::Div, 0x5e),
            (Operation::Sqrt, 0x51),
        ];
        for (op, opcode) in operations {
            let modrm = if op == Operation::Sqrt { 0xc0 } else { 0xc1 };
            let code = [prefix, 0x0f, opcode, modrm];
            operate(a, &format!("{op:?}{suffix}"), format, op, &inputs, &code)?;
        }
        a.need(&[AVX]);
        enable_avx(a)?;
        for (op, opcode) in &operations[..4] {
            let code = [0xc5, 0xf8 | vex, *opcode, 0xc1];
            operate(a, &format!("V{op:?}{suffix}"), format, *op, &inputs, &code)?;
        }
        Ok(())
    })
}

/// Each value with some others, under all controls.
fn inputs(values: [u64; 19]) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (n, &first) in values.iter().enumerate() {
        for step in [0, 6, 14] {
            let second = values[(n + step) % values.len()];
            let under = |mxcsr| Input { rax: first, rcx: second, rdx: mxcsr, flags: 0 };
            inputs.extend(controls().into_iter().map(under));
        }
    }
    inputs
}

fn operate(
    a: &mut Kit<'_, '_>,
    name: &str,
    format: Format,
    op: Operation,
    inputs: &[Input],
    code: &[u8],
) -> Emit {
    let reports = Reports { rdx: false, outcome: true, mxcsr: true };
    compute(
        a,
        (name, SOURCE),
        inputs,
        reports,
        |a| {
            emit!(a;
                mov(dword_ptr(rsp - 8), edx);
                ldmxcsr(dword_ptr(rsp - 8));
                movq(xmm0, rax);
                movq(xmm1, rcx);
            );
            a.db(code)?;
            a.movq(rax, xmm0)
        },
        |i| {
            let c = control(i.rdx);
            let (result, flags) = format.compute(op, i.rax, i.rcx, &c);
            let raises = (flags & c.unmasked != 0).then_some(XM);
            // Whether an unmasked overflow or underflow is inexact too is left open.
            let defined = if raises.is_some() && flags & c.unmasked & PE == 0 { !PE } else { !0 };
            Output {
                rax: Some(result),
                mxcsr: Some([i.rdx | flags, defined & 0xffff]),
                raises,
                ..Output::default()
            }
        },
    )
}
