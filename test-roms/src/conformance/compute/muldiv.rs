//! Multiplication and division, with #DE.

use super::integer::{CF, OF, SIZES, STATUS, Size, flag};
use super::rules::{EDGES, Input, Output, Reports, compute, pairs, sized};
use crate::conformance::Rom;
use crate::conformance::features::BMI2;
use crate::conformance::long::kit::{self, About};
use crate::rom::Emit;

const DE: u8 = 0;

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    let about = About {
        name: "muldiv",
        about: "MUL, IMUL, DIV, IDIV and MULX at all sizes, with overflow and #DE",
        needs: &[],
        five_levels: false,
    };
    kit::rom(about, |a| {
        let inputs = pairs();
        for size in SIZES {
            for (name, extension, signed) in [("MUL", 4, false), ("IMUL", 5, true)] {
                let modrm = 0xc1 | extension << 3;
                let code = sized(size, [&[0xf6, modrm], &[0xf7, modrm]]);
                let name = format!("{name} of one operand, {} bits", size.0);
                let reports = Reports { rdx: true, ..Reports::default() };
                let rule = |i: &Input| multiply(size, signed, i);
                compute(
                    a,
                    (&name, "SDM vol. 2, MUL, IMUL"),
                    &inputs,
                    reports,
                    |a| a.db(&code),
                    rule,
                )?;
            }
        }
        for size in &SIZES[1..] {
            let code = sized(*size, [&[], &[0x0f, 0xaf, 0xc1]]);
            let name = format!("IMUL of two operands, {} bits", size.0);
            let rule = |i: &Input| product(*size, i.rax, size.signed(i.rax) * size.signed(i.rcx));
            compute(
                a,
                (&name, "SDM vol. 2, IMUL"),
                &inputs,
                Reports::default(),
                |a| a.db(&code),
                rule,
            )?;
            let code = sized(*size, [&[], &[0x6b, 0xc1, 0x85]]);
            let name = format!("IMUL by -123, {} bits", size.0);
            let rule = |i: &Input| product(*size, i.rax, size.signed(i.rcx) * -123);
            compute(
                a,
                (&name, "SDM vol. 2, IMUL"),
                &inputs,
                Reports::default(),
                |a| a.db(&code),
                rule,
            )?;
        }
        let inputs = dividends();
        for size in SIZES {
            for (name, extension, signed) in [("DIV", 6, false), ("IDIV", 7, true)] {
                let modrm = 0xc1 | extension << 3;
                let code = sized(size, [&[0xf6, modrm], &[0xf7, modrm]]);
                let name = format!("{name}, {} bits", size.0);
                let reports = Reports { rdx: true, outcome: true, ..Reports::default() };
                let rule = |i: &Input| divide(size, signed, i);
                compute(
                    a,
                    (&name, "SDM vol. 2, DIV, IDIV"),
                    &inputs,
                    reports,
                    |a| a.db(&code),
                    rule,
                )?;
            }
        }
        a.need(&[BMI2]);
        // MULX RAX, RDX, RCX: the high half to RAX, the low one to RDX; no flag changes.
        let reports = Reports { rdx: true, ..Reports::default() };
        let wide = |i: &Input| {
            let product = u128::from(i.rdx) * u128::from(i.rcx);
            Output {
                rax: Some((product >> 64) as u64),
                rdx: Some(product as u64),
                flags: [i.flags, STATUS],
                ..Output::default()
            }
        };
        let code = [0xc4, 0xe2, 0xeb, 0xf6, 0xc1];
        compute(a, ("MULX, 64 bits", "SDM vol. 2, MULX"), &pairs(), reports, |a| a.db(&code), wide)
    })
}

/// The double-width product of the accumulator and RCX; CF and OF say whether its high half counts.
fn multiply(size: Size, signed: bool, i: &Input) -> Output {
    let bits = size.0;
    let product = if signed {
        size.signed(i.rax) * size.signed(i.rcx)
    } else {
        (u128::from(size.cut(i.rax)) * u128::from(size.cut(i.rcx))) as i128
    };
    let [low, high] = [product as u64, (product as u128 >> bits) as u64];
    let counts = if signed { product != size.signed(low) } else { size.cut(high) != 0 };
    let [rax, rdx] = double(size, i, low, high);
    Output {
        rax: Some(rax),
        rdx: Some(rdx),
        flags: [flag(counts, CF | OF), CF | OF],
        ..Output::default()
    }
}

/// RAX and RDX when a pair of results is written: AX holds both of bytes.
fn double(size: Size, i: &Input, low: u64, high: u64) -> [u64; 2] {
    if size.0 == 8 {
        let pair = size.cut(high) << 8 | size.cut(low);
        return [Size(16).merge(i.rax, pair), i.rdx];
    }
    [size.merge(i.rax, low), size.merge(i.rdx, high)]
}

/// A product that is cut to the operand's size.
fn product(size: Size, rax: u64, product: i128) -> Output {
    let result = product as u64;
    let counts = product != size.signed(result);
    Output {
        rax: Some(size.merge(rax, result)),
        flags: [flag(counts, CF | OF), CF | OF],
        ..Output::default()
    }
}

/// Dividends whose quotients fit and do not, at all sizes.
fn dividends() -> Vec<Input> {
    let mut inputs = Vec::new();
    for rcx in [0, 1, 2, 7, 0x80, 0xff, u64::MAX, 0x8000_0000_0000_0000, 0x0001_0003] {
        for rax in EDGES {
            for rdx in [0, 1, u64::MAX] {
                inputs.push(Input { rax, rcx, rdx, flags: 0 });
            }
        }
    }
    inputs
}

/// Quotient and remainder, truncated towards 0; #DE if there is none or it does not fit.
fn divide(size: Size, signed: bool, i: &Input) -> Output {
    let bits = size.0;
    let [high, low] =
        if bits == 8 { [i.rax >> 8, i.rax] } else { [i.rdx, i.rax] }.map(|half| size.cut(half));
    let dividend = u128::from(high) << bits | u128::from(low);
    let refused = Output { raises: Some(DE), ..Output::default() };
    let (quotient, remainder) = if signed {
        let dividend = (dividend << (128 - 2 * bits)) as i128 >> (128 - 2 * bits);
        let divisor = size.signed(i.rcx);
        match (dividend.checked_div(divisor), dividend.checked_rem(divisor)) {
            (Some(q), Some(r)) if q == size.signed(q as u64) => (q as u64, r as u64),
            _ => return refused,
        }
    } else {
        let divisor = u128::from(size.cut(i.rcx));
        match dividend.checked_div(divisor) {
            Some(q) if q >> bits == 0 => (q as u64, (dividend % divisor) as u64),
            _ => return refused,
        }
    };
    let [rax, rdx] = double(size, i, quotient, remainder);
    // All status flags are undefined.
    Output { rax: Some(rax), rdx: Some(rdx), ..Output::default() }
}
