//! What 64-bit mode does otherwise with addresses, segments, prefixes and registers.

use iced_x86::code_asm::*;

use super::kit::{
    self, About, COMPAT0, COMPAT3, DATA0, DATA3, FREE, IDT, Kit, SCRATCH, SPARE, TSS,
};
use super::{GP, SS, UD, decoding};
use crate::conformance::features::{CLFLUSH, FSGSBASE, SSE};
use crate::conformance::{NOTHING, Rom, exception};
use crate::rom::tables::{CODE, DATA, PAGES, SIZE32, segment};
use crate::rom::{Emit, emit};

/// The first address that is not canonical with 48 bits.
pub(super) const HOLE: u64 = 0x8000_0000_0000;
/// One that is not with 57 bits either: bases in registers are checked for what the processor can
/// do, not for what CR4.LA57 says (SDM vol. 3A, 4.5.2).
pub(super) const FAR_HOLE: u64 = 0x4000_0000_0000_0000;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
pub(super) const WORD: u64 = 0x1122_3344_5566_7788;

pub(super) type Code = fn(&mut Kit<'_, '_>) -> Emit;

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    let about = About {
        name: "long-mode",
        about: "64-bit mode: addresses, segments, decoding; compatibility mode",
        needs: &[],
        five_levels: false,
    };
    kit::rom(about, |a| {
        canonical(a)?;
        segments(a)?;
        bases(a)?;
        decoding::emit(a)?;
        compatibility(a)
    })
}

/// Probes that raise nothing, or what `expected` says; RBX is [`HOLE`], RDI [`SCRATCH`].
pub(super) fn probes(
    a: &mut Kit<'_, '_>,
    source: &'static str,
    list: &[(&str, u32, Code)],
) -> Emit {
    for &(name, expected, code) in list {
        a.probe(name, source, expected, |a| {
            emit!(a; mov(rbx, HOLE); mov(edi, SCRATCH););
            code(a)
        })?;
    }
    Ok(())
}

/// SDM vol. 1, 3.3.7.1: #SS where the stack segment is meant, #GP elsewhere.
fn canonical(a: &mut Kit<'_, '_>) -> Emit {
    const STACK: u32 = exception(SS, 0);
    const OTHER: u32 = exception(GP, 0);
    probes(
        a,
        "SDM vol. 1 3.3.7.1",
        &[
            ("read of a non-canonical address", OTHER, |a| a.mov(al, byte_ptr(rbx))),
            ("write to a non-canonical address", OTHER, |a| a.mov(byte_ptr(rbx), al)),
            ("read below the upper half", OTHER, |a| {
                emit!(a; mov(rbx, 0xffff_7fff_ffff_ffffu64); mov(al, byte_ptr(rbx)););
                Ok(())
            }),
            ("non-canonical through RBP", STACK, |a| {
                emit!(a; mov(rbp, rbx); mov(al, byte_ptr(rbp)););
                Ok(())
            }),
            ("non-canonical through RBP with a DS prefix, which is ignored", STACK, |a| {
                emit!(a; mov(rbp, rbx); db(&[0x3e, 0x8a, 0x45, 0x00]););
                Ok(())
            }),
            ("non-canonical through RBP with an FS prefix", OTHER, |a| {
                emit!(a; mov(rbp, rbx); mov(al, byte_ptr(rbp).fs()););
                Ok(())
            }),
            ("non-canonical through RBX with an SS prefix, which is ignored", OTHER, |a| {
                a.db(&[0x36, 0x8a, 0x03])
            }),
            ("JMP to a non-canonical address", OTHER, |a| a.jmp(rbx)),
            ("CALL of a non-canonical address", OTHER, |a| a.call(rbx)),
            ("RET to a non-canonical address", OTHER, |a| {
                emit!(a; push(rbx); ret(););
                Ok(())
            }),
            ("LEA of a non-canonical address", NOTHING, |a| a.lea(rax, ptr(rbx))),
            ("NOP of a non-canonical address", NOTHING, |a| a.nop_1(dword_ptr(rbx))),
            ("INVLPG of a non-canonical address", NOTHING, |a| a.invlpg(ptr(rbx))),
            ("LGDT with a non-canonical base", OTHER, |a| {
                emit!(a; mov(rbx, FAR_HOLE); mov(word_ptr(rdi), 0xff); mov(qword_ptr(rdi + 2), rbx); sgdt(ptr(SPARE)); lgdt(ptr(rdi)); lgdt(ptr(SPARE)););
                Ok(())
            }),
            ("LIDT with a non-canonical base", OTHER, |a| {
                emit!(a; mov(rbx, FAR_HOLE); mov(word_ptr(rdi), 0xff); mov(qword_ptr(rdi + 2), rbx); sidt(ptr(SPARE)); lidt(ptr(rdi)); lidt(ptr(SPARE)););
                Ok(())
            }),
            ("MOVS from a non-canonical address", OTHER, |a| {
                emit!(a; mov(rsi, rbx); movsb(););
                Ok(())
            }),
            ("REP MOVS of nothing from a non-canonical address", NOTHING, |a| {
                emit!(a; mov(rsi, rbx); xor(ecx, ecx); rep_movsd(););
                Ok(())
            }),
        ],
    )?;
    // Handlers of these need another stack.
    on_other_stack(a, true)?;
    probes(
        a,
        "SDM vol. 1 3.3.7.1",
        &[
            ("PUSH to a non-canonical stack", STACK, |a| {
                emit!(a; mov(rsp, rbx); mov(rcx, 0x10000u64); add(rsp, rcx); push(rax););
                Ok(())
            }),
            ("POP from a non-canonical stack", STACK, |a| {
                emit!(a; mov(rsp, rbx); pop(rax););
                Ok(())
            }),
            ("CALL with a non-canonical stack", STACK, |a| {
                emit!(a; mov(rsp, rbx); mov(rcx, 0x10000u64); add(rsp, rcx); call(rdi););
                Ok(())
            }),
        ],
    )?;
    on_other_stack(a, false)?;
    a.need(&[CLFLUSH]);
    probes(
        a,
        "SDM vol. 2, CLFLUSH",
        &[("CLFLUSH of a non-canonical address", OTHER, |a| a.clflush(byte_ptr(rbx)))],
    )?;
    a.need(&[SSE]);
    probes(
        a,
        "SDM vol. 2, PREFETCHh; MOVAPS; vol. 1 10.8.3",
        &[
            ("PREFETCHT0 of a non-canonical address", NOTHING, |a| a.prefetcht0(byte_ptr(rbx))),
            ("MOVAPS of a misaligned address", OTHER, |a| a.movaps(xmm0, xmmword_ptr(rdi + 8))),
            ("MOVAPS of a misaligned address through RBP", OTHER, |a| {
                emit!(a; mov(rbp, rdi); movaps(xmm0, xmmword_ptr(rbp + 8)););
                Ok(())
            }),
            ("MOVUPS of a misaligned address", NOTHING, |a| a.movups(xmm0, xmmword_ptr(rdi + 8))),
        ],
    )?;
    a.need(&[]);
    // What a jump raises, it raises itself: the address is not the target's.
    let label = a.fresh("jump");
    a.attempt(|a| {
        emit!(a; mov(rbx, HOLE); at(&label); jmp(rbx););
        Ok(())
    })?;
    let at = a.address_of(&label);
    a.holds("JMP to a non-canonical address: RIP", "SDM vol. 2, JMP", kit::RAISED_RIP, at.into())
}

/// Whether handlers of #SS and #GP have the first stack of the IST.
fn on_other_stack(a: &mut Kit<'_, '_>, other: bool) -> Emit {
    emit!(a; mov(dword_ptr(TSS + 0x24), kit::INNER_STACK););
    for vector in [SS, GP] {
        emit!(a; mov(byte_ptr(IDT + 16 * u32::from(vector) + 4), u32::from(other)););
    }
    Ok(())
}

/// SDM vol. 3A, 5.3.1 and 3.2.4: base, limit and most of the type of DS, ES and SS do not count.
fn segments(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 3.2.4, 5.3.1, 5.4.1.1";
    a.descriptor(FREE, segment(0x1234_5000, 0xf, DATA, 0))?;
    a.descriptor(FREE + 8, segment(0, 0xf, CODE & !2, 0))?;
    a.descriptor(FREE + 16, segment(0, 0xf_ffff, DATA & !0x80, PAGES))?;
    probes(
        a,
        SOURCE,
        &[
            ("beyond the limit of DS", NOTHING, |a| {
                emit!(a; mov(eax, u32::from(FREE)); mov(ds, eax); mov(eax, dword_ptr(rdi)););
                Ok(())
            }),
            ("read with DS null", NOTHING, |a| {
                emit!(a; xor(eax, eax); mov(ds, eax); mov(eax, dword_ptr(rdi)););
                Ok(())
            }),
            ("string write with ES null", NOTHING, |a| {
                emit!(a; xor(eax, eax); mov(es, eax); stosd(););
                Ok(())
            }),
            ("read with FS null", NOTHING, |a| {
                emit!(a; xor(eax, eax); mov(fs, eax); mov(eax, dword_ptr(rdi).fs()););
                Ok(())
            }),
            ("SS null at level 0", NOTHING, |a| {
                emit!(a; xor(eax, eax); mov(ss, eax); push(rax); pop(rax););
                Ok(())
            }),
            ("SS null with RPL 3 at level 0", exception(GP, 0), |a| {
                emit!(a; mov(eax, 3); mov(ss, eax););
                Ok(())
            }),
            ("SS null at level 3", exception(GP, 0), |a| {
                a.enter_user(0)?;
                emit!(a; mov(eax, 3); mov(ss, eax););
                a.back()
            }),
            ("an execute-only segment in DS", exception(GP, FREE as u32 + 8), |a| {
                emit!(a; mov(eax, u32::from(FREE + 8)); mov(ds, eax););
                Ok(())
            }),
            ("a segment in DS that is not present", exception(super::NP, FREE as u32 + 16), |a| {
                emit!(a; mov(eax, u32::from(FREE + 16)); mov(ds, eax););
                Ok(())
            }),
            ("a segment in SS that is not present", exception(SS, FREE as u32 + 16), |a| {
                emit!(a; mov(eax, u32::from(FREE + 16)); mov(ss, eax););
                Ok(())
            }),
        ],
    )?;
    let through = |a: &mut Kit<'_, '_>, name: &str, code: Code| {
        a.value(format!("the base of {name} does not count"), SOURCE, [WORD, u64::MAX], |a| {
            emit!(a;
                mov(rax, WORD);
                mov(qword_ptr(SCRATCH), rax);
                xor(eax, eax);
                mov(edi, SCRATCH);
                mov(ecx, u32::from(FREE));
            );
            code(a)?;
            emit!(a; mov(ecx, u32::from(DATA0)); mov(ss, ecx); mov(ds, ecx); mov(es, ecx););
            Ok(())
        })
    };
    through(a, "DS", |a| {
        emit!(a; mov(ds, ecx); mov(rax, qword_ptr(rdi)););
        Ok(())
    })?;
    through(a, "ES", |a| {
        emit!(a; mov(es, ecx); db(&[0x26, 0x48, 0x8b, 0x07]););
        Ok(())
    })?;
    through(a, "SS", |a| {
        emit!(a; mov(ss, ecx); mov(rbp, rdi); mov(rax, qword_ptr(rbp)););
        Ok(())
    })
}

/// FS and GS: bases of 64 bits from MSRs and instructions, of 32 from descriptors; no limits.
fn bases(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 3.4.4, vol. 2 SWAPGS, RDFSBASE, WRFSBASE";
    const HIGH: u64 = 0xffff_8000_1234_5678;
    const CR4_FSGSBASE: i32 = 1 << 16;
    let read = |a: &mut Kit<'_, '_>, msr: u32| -> Emit {
        emit!(a; mov(ecx, msr); rdmsr(); shl(rdx, 32); or(rax, rdx););
        Ok(())
    };
    a.descriptor(FREE, segment(SCRATCH, 0, DATA, 0))?;
    emit!(a; mov(rax, WORD); mov(qword_ptr(SCRATCH + 8), rax););
    a.value("FS: base of a descriptor, beyond its limit", SOURCE, [WORD, u64::MAX], |a| {
        emit!(a; mov(eax, u32::from(FREE)); mov(fs, eax); mov(rax, qword_ptr(8).fs()););
        Ok(())
    })?;
    a.value("GS: base of a descriptor", SOURCE, [SCRATCH.into(), u64::MAX], |a| {
        emit!(a; mov(eax, u32::from(FREE)); mov(gs, eax););
        read(a, GS_BASE)
    })?;
    a.msr(FS_BASE, u64::from(SCRATCH) + 0x10)?;
    a.value("FS: base of the MSR, negative offset", SOURCE, [WORD, u64::MAX], |a| {
        a.mov(rax, qword_ptr(-8i32).fs())
    })?;
    for (name, msr) in [("FS", FS_BASE), ("GS", GS_BASE), ("the hidden GS", KERNEL_GS_BASE)] {
        a.msr(msr, HIGH)?;
        a.value(format!("{name}: a base of the upper half"), SOURCE, [HIGH, u64::MAX], |a| {
            read(a, msr)
        })?;
        a.probe(format!("{name}: a non-canonical base"), SOURCE, exception(GP, 0), |a| {
            a.msr(msr, FAR_HOLE)
        })?;
    }
    a.msr(GS_BASE, 0x1000)?;
    a.swapgs()?;
    a.value("SWAPGS: what was hidden", SOURCE, [HIGH, u64::MAX], |a| read(a, GS_BASE))?;
    a.value("SWAPGS: what is hidden", SOURCE, [0x1000, u64::MAX], |a| read(a, KERNEL_GS_BASE))?;
    a.probe("a base whose sum is not canonical", SOURCE, exception(GP, 0), |a| {
        a.msr(FS_BASE, HOLE - 1)?;
        a.mov(al, byte_ptr(1).fs())
    })?;
    a.msr(FS_BASE, 0)?;
    a.probe("SWAPGS at level 3", SOURCE, exception(GP, 0), |a| {
        a.enter_user(0)?;
        a.swapgs()
    })?;
    a.need(&[FSGSBASE]);
    a.probe("RDFSBASE without CR4.FSGSBASE", SOURCE, exception(UD, 0), |a| a.rdfsbase(rax))?;
    a.attempt(|a| {
        emit!(a; mov(rax, cr4); or(eax, CR4_FSGSBASE); mov(cr4, rax););
        Ok(())
    })?;
    a.value("WRFSBASE and the MSR", SOURCE, [HIGH, u64::MAX], |a| {
        emit!(a; mov(rax, HIGH); wrfsbase(rax););
        read(a, FS_BASE)
    })?;
    a.value("WRGSBASE of 32 bits and RDGSBASE", SOURCE, [HIGH & 0xffff_ffff, u64::MAX], |a| {
        emit!(a; mov(rax, HIGH); wrgsbase(eax); mov(rax, -1i64 as u64); rdgsbase(rax););
        Ok(())
    })?;
    a.value("RDFSBASE of 32 bits", SOURCE, [HIGH & 0xffff_ffff, u64::MAX], |a| {
        emit!(a; mov(rax, -1i64 as u64); rdfsbase(eax););
        Ok(())
    })?;
    probes(
        a,
        SOURCE,
        &[
            ("WRFSBASE of a non-canonical base", exception(GP, 0), |a| {
                emit!(a; mov(rbx, FAR_HOLE); wrfsbase(rbx););
                Ok(())
            }),
            ("WRFSBASE at level 3", NOTHING, |a| {
                a.enter_user(0)?;
                emit!(a; xor(eax, eax); wrfsbase(rax););
                a.back()
            }),
            ("RDFSBASE in compatibility mode", exception(UD, 0), |a| {
                a.compatible([COMPAT0, DATA0], |b| b.db(&[0xf3, 0x0f, 0xae, 0xc0]))
            }),
        ],
    )?;
    a.need(&[]);
    a.msr(FS_BASE, 0)?;
    a.msr(GS_BASE, 0)
}

/// Compatibility mode: limits, bases and opcodes of protected mode, events by 64-bit gates.
fn compatibility(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 2.1.1, 9.1; vol. 2, SYSCALL, SWAPGS";
    const LOW: [u16; 2] = [COMPAT0, DATA0];
    const USER: [u16; 2] = [COMPAT3, DATA3];
    type Code32 = fn(&mut CodeAssembler) -> Emit;
    a.descriptor(FREE, segment(SCRATCH, 0xf, DATA, SIZE32))?;
    emit!(a; mov(dword_ptr(SCRATCH + 4), 0x1234););
    let list: &[(&str, [u16; 2], u32, Code32)] = &[
        ("DS null", LOW, exception(GP, 0), |b| {
            emit!(b; xor(eax, eax); mov(ds, eax); mov(eax, dword_ptr(SCRATCH)););
            Ok(())
        }),
        ("beyond the limit of DS", LOW, exception(GP, 0), |b| {
            emit!(b; mov(eax, u32::from(FREE)); mov(ds, eax); mov(eax, dword_ptr(0x10)););
            Ok(())
        }),
        ("PUSH DS, DAA, INC by 40h, PUSHA", LOW, NOTHING, |b| b.db(&[0x1e, 0x27, 0x40, 0x60])),
        ("REX is DEC", LOW, NOTHING, |b| b.db(&[0x48, 0x90])),
        ("SYSCALL", USER, exception(UD, 0), |b| b.db(&[0x0f, 0x05])),
        ("SYSRET", LOW, exception(UD, 0), |b| b.db(&[0x0f, 0x07])),
        ("SWAPGS", LOW, exception(UD, 0), |b| b.db(&[0x0f, 0x01, 0xf8])),
        ("INTO with OF", USER, exception(4, 0), |b| {
            emit!(b; mov(al, 0x7fu32); inc(al); db(&[0xce]););
            Ok(())
        }),
        ("HLT at level 3", USER, exception(GP, 0), |b| b.hlt()),
        ("a far jump to a null selector", LOW, exception(GP, 0), |b| {
            b.db(&[0xea, 0, 0, 0, 0, 0, 0])
        }),
    ];
    for &(name, selectors, expected, code) in list {
        a.probe(format!("compatibility mode: {name}"), SOURCE, expected, |a| {
            a.compatible(selectors, |b| {
                emit!(b; mov(eax, u32::from(DATA3)); mov(ds, eax););
                code(b)
            })
        })?;
    }
    a.attempt(|a| {
        a.compatible(LOW, |b| {
            emit!(b;
                mov(eax, u32::from(FREE));
                mov(ds, eax);
                mov(eax, dword_ptr(4));
                mov(ecx, u32::from(DATA0));
                mov(ds, ecx);
                mov(dword_ptr(SPARE), eax);
                // 64-bit code takes 41h for REX.B, this one counts ECX.
                db(&[0x31, 0xc9, 0x41]);
                mov(dword_ptr(SPARE + 4), ecx);
            );
            Ok(())
        })
    })?;
    a.holds("compatibility mode: base of DS, and 41h is INC ECX", SOURCE, SPARE, 0x1_0000_1234)?;
    a.attempt(|a| a.compatible(USER, |b| b.ud2()))?;
    a.holds("compatibility mode: CS in the frame", SOURCE, kit::RAISED_CS, COMPAT3.into())?;
    a.holds("compatibility mode: SS in the frame", SOURCE, kit::RAISED_SS, DATA3.into())?;
    a.holds(
        "compatibility mode: RSP in the frame",
        SOURCE,
        kit::RAISED_RSP,
        (kit::USER_STACK + kit::USER_ALIAS).into(),
    )?;
    a.value("SS is null in the handler of another level", "SDM vol. 3A 7.14.2", [0, 0xffff], |a| {
        a.mov(eax, dword_ptr(kit::FRAME_SS))
    })
}
