//! Shifts and rotations: results and flags for all kinds of counts.

use super::integer::{CF, SIZES, STATUS, Shift, double_shift, shift};
use super::rules::{Input, Output, Reports, compute, sized};
use crate::conformance::Rom;
use crate::conformance::long::kit::{self, About};
use crate::rom::Emit;

const COUNTS: [u64; 16] = [0, 1, 2, 7, 8, 9, 15, 16, 17, 18, 31, 32, 33, 63, 64, 65];
const VALUES: [u64; 5] =
    [1, 0x8000_0000_0000_0000, 0x8180_8081_8001_8001, 0x7fff_7fff_7fff_7f7f, u64::MAX];

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    let about = About {
        name: "shifts",
        about: "results and flags of shifts and rotations at all sizes, with counts beyond them",
        needs: &[],
        five_levels: false,
    };
    kit::rom(about, |a| {
        let mut inputs = Vec::new();
        for rax in VALUES {
            for rcx in COUNTS {
                let rdx = !rax.rotate_left(3);
                // With CF both ways; the others must survive a rotation either way.
                inputs.extend([CF, STATUS & !CF].map(|flags| Input { rax, rcx, rdx, flags }));
            }
        }
        for (extension, kind) in (0_u8..).zip([
            Some(Shift::Rol),
            Some(Shift::Ror),
            Some(Shift::Rcl),
            Some(Shift::Rcr),
            Some(Shift::Shl),
            Some(Shift::Shr),
            None,
            Some(Shift::Sar),
        ]) {
            let Some(kind) = kind else { continue };
            for size in SIZES {
                let modrm = 0xc0 | extension << 3;
                let code = sized(size, [&[0xd2, modrm], &[0xd3, modrm]]);
                let name = format!("{kind:?} by CL, {} bits", size.0);
                let source = "SDM vol. 2, SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR";
                let rule = |i: &Input| {
                    let (v, flags, defined) = shift(kind, size, i.rax, i.rcx, i.flags);
                    let rax = size.merge(i.rax, v);
                    Output { rax: Some(rax), flags: [flags, defined], ..Output::default() }
                };
                compute(a, (&name, source), &inputs, Reports::default(), |a| a.db(&code), rule)?;
            }
        }
        for (name, left, opcode) in [("SHLD", true, 0xa5), ("SHRD", false, 0xad)] {
            for size in &SIZES[1..] {
                let code = sized(*size, [&[], &[0x0f, opcode, 0xd0]]);
                let name = format!("{name} by CL, {} bits", size.0);
                let rule = |i: &Input| {
                    let result = double_shift(left, *size, [i.rax, i.rdx], i.rcx, i.flags);
                    let Some((v, flags, defined)) = result else { return Output::default() };
                    let rax = size.merge(i.rax, v);
                    Output { rax: Some(rax), flags: [flags, defined], ..Output::default() }
                };
                let about = (name.as_str(), "SDM vol. 2, SHLD, SHRD");
                compute(a, about, &inputs, Reports::default(), |a| a.db(&code), rule)?;
            }
        }
        Ok(())
    })
}
