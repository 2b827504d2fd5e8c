//! Exceptions: vectors, error codes, return addresses, priorities, and double faults.

use iced_x86::code_asm::*;

use super::features::{FPU, MSR, SSE2};
use super::kit::{self, BACK, CODE0, FREE, IDT, Kit, SCRATCH};
use super::{NOTHING, Rom, exception};
use crate::rom::tables::{self, DATA, PAGES, SIZE32, table_register};
use crate::rom::{Emit, emit};

const DE: u8 = 0;
const DB: u8 = 1;
const BP: u8 = 3;
const OF: u8 = 4;
const BR: u8 = 5;
const UD: u8 = 6;
const NM: u8 = 7;
const DF: u8 = 8;
const NP: u8 = 11;
const GP: u8 = 13;
const MF: u8 = 16;
const AC: u8 = 17;
const XM: u8 = 19;

/// Bits of error codes (SDM vol. 3A, 7.13).
const EXT: u32 = 1;
const IN_IDT: u32 = 2;

/// EFLAGS.AC, and IOPL 3.
const ALIGNMENT: u32 = 1 << 18;
const IOPL3: u32 = 3 << 12;

/// INTO, whose name Rust has another use for.
const INTO: [u8; 1] = [0xce];

/// Emits what raises an exception; a dot label named in the table marks where it returns to.
type Code = fn(&mut Kit<'_, '_>) -> Emit;

pub(super) fn rom() -> Emit<Rom> {
    kit::rom(
        "exceptions",
        "vectors, error codes, return addresses, priorities, double faults",
        &[FPU, MSR, SSE2],
        |a| {
            emit!(a; mov(eax, cr0); or(eax, 0x20); mov(cr0, eax); fninit(););
            vectors(a)?;
            privileged(a)?;
            gates(a)?;
            floating_point(a)?;
            alignment(a)?;
            priorities(a)?;
            double_faults(a)?;
            control_registers(a)
        },
    )
}

/// Faults return to the instruction, traps behind it (SDM vol. 3A, 7.5).
fn vectors(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 7.15";
    let faults: &[(&str, u8, Code)] = &[
        ("DIV by 0", DE, |a| a.div(ecx)),
        ("IDIV whose quotient is too large", DE, |a| a.idiv(esi)),
        ("BOUND outside", BR, |a| a.bound(ecx, ptr(SCRATCH))),
        ("UD2", UD, |a| a.ud2()),
        ("LOCK on a register", UD, |a| a.db(&[0xf0, 0x01, 0xc8])),
        ("MOV to CS", UD, |a| a.db(&[0x8e, 0xc8])),
        ("LEA of a register", UD, |a| a.db(&[0x8d, 0xc0])),
        ("an instruction of 16 bytes", GP, |a| a.db(&[[0x26; 15].as_slice(), &[0x90]].concat())),
    ];
    for &(name, vector, code) in faults {
        fault(a, name, SOURCE, vector, true, code)?;
    }
    let traps: &[(&str, u8, Code)] = &[
        ("INT3", BP, |a| a.int3()),
        ("INT 3 of two bytes", BP, |a| a.int(3)),
        ("INTO with OF", OF, |a| a.db(&INTO)),
        ("INT1", DB, |a| a.int1()),
        ("INT 0, which has no error code", DE, |a| a.int(0)),
    ];
    for &(name, vector, code) in traps {
        fault(a, name, SOURCE, vector, false, code)?;
    }
    a.probe("INTO without OF", SOURCE, NOTHING, |a| {
        emit!(a; xor(eax, eax); db(&INTO););
        Ok(())
    })
}

/// A fault or trap without error code, or with 0, and where it returns to.
fn fault(
    a: &mut Kit<'_, '_>,
    name: &str,
    source: &'static str,
    vector: u8,
    before: bool,
    code: Code,
) -> Emit {
    let label = a.fresh("returns");
    a.probe(name, source, exception(vector, 0), |a| {
        emit!(a;
            mov(dword_ptr(SCRATCH), 1);
            mov(dword_ptr(SCRATCH + 4), 2);
            // OF is set, and EDX:EAX is large.
            mov(eax, 0x7fff_ffff);
            xor(ecx, ecx);
            mov(edx, 0x4000_0000);
            mov(esi, 2);
            add(eax, 1);
        );
        if before {
            a.at(&label)?;
        }
        code(a)?;
        if before { Ok(()) } else { a.at(&label) }
    })?;
    a.returns_to(format!("{name}: return address"), source, &label)
}

/// What is #GP(0) above level 0, and #UD or #GP for other reasons.
fn privileged(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 6.9";
    let codes: &[(&str, Code)] = &[
        ("HLT", |a| a.hlt()),
        ("CLI", |a| a.cli()),
        ("STI", |a| a.sti()),
        ("IN", |a| a.in_(al, 0x80)),
        ("OUT", |a| a.out(0x80, al)),
        ("MOV from CR0", |a| a.mov(eax, cr0)),
        ("MOV to CR3", |a| a.mov(cr3, eax)),
        ("MOV from DR7", |a| a.mov(eax, dr7)),
        ("CLTS", |a| a.clts()),
        ("LMSW", |a| a.lmsw(ax)),
        ("LGDT", |a| a.lgdt(ptr(SCRATCH))),
        ("LIDT", |a| a.lidt(ptr(SCRATCH))),
        ("LLDT", |a| a.lldt(ax)),
        ("LTR", |a| a.ltr(ax)),
        ("INVLPG", |a| a.invlpg(ptr(SCRATCH))),
        ("WBINVD", |a| a.wbinvd()),
        ("RDMSR", |a| a.rdmsr()),
        ("WRMSR", |a| a.wrmsr()),
    ];
    for &(name, code) in codes {
        a.probe(format!("{name} at level 3"), SOURCE, exception(GP, 0), |a| {
            a.enter_user(0)?;
            code(a)?;
            a.back()
        })?;
    }
    a.probe("CLI and IN at level 3 with IOPL 3", "SDM vol. 1 20.5.1", NOTHING, |a| {
        a.enter_user(IOPL3)?;
        emit!(a; cli(); in_(al, 0x80););
        a.back()
    })?;
    a.probe("SMSW and SGDT at level 3", SOURCE, NOTHING, |a| {
        a.enter_user(0)?;
        emit!(a; smsw(eax); sgdt(ptr(SCRATCH)););
        a.back()
    })
}

/// What control registers and MSRs refuse.
fn control_registers(a: &mut Kit<'_, '_>) -> Emit {
    for (name, source, code) in [
        (
            "RDMSR of a register that does not exist",
            "SDM vol. 2, RDMSR",
            (|a| {
                emit!(a; mov(ecx, 0x1234_5678); rdmsr(););
                Ok(())
            }) as Code,
        ),
        ("CR0.PG without PE", "SDM vol. 3A 2.5", |a| {
            emit!(a; mov(eax, cr0); or(eax, 0x8000_0000u32); and(eax, !1); mov(cr0, eax););
            Ok(())
        }),
        ("CR0.NW without CD", "SDM vol. 3A 2.5", |a| {
            emit!(a; mov(eax, cr0); or(eax, 0x2000_0000); and(eax, !0x4000_0000); mov(cr0, eax););
            Ok(())
        }),
        ("a reserved bit of CR4", "SDM vol. 3A 2.5", |a| {
            emit!(a; mov(eax, cr4); or(eax, 0x8000); mov(cr4, eax););
            Ok(())
        }),
    ] {
        a.probe(name, source, exception(GP, 0), code)?;
    }
    a.probe("MOV to CR1", "SDM vol. 2, MOV", exception(UD, 0), |a| a.db(&[0x0f, 0x22, 0xc8]))
}

/// Gates that cannot be used: the error code names the vector (SDM vol. 3A, 7.12.1).
fn gates(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 2, INT n; vol. 3A 7.13";
    const VECTOR: u8 = 0x30;
    const AT: u32 = IDT + 8 * VECTOR as u32;
    const NAMES: u32 = (8 * VECTOR as u32) | IN_IDT;
    let set = |a: &mut Kit<'_, '_>, gate: u64| -> Emit {
        emit!(a; mov(dword_ptr(AT), gate as u32); mov(dword_ptr(AT + 4), (gate >> 32) as u32););
        Ok(())
    };
    for (name, gate, expected) in [
        ("a gate that is not present", kit::gate(CODE0, 0, 0x0e, 0), exception(NP, NAMES)),
        ("what is no gate", kit::gate(CODE0, 0, 0x82, 0), exception(GP, NAMES)),
        ("a gate with a null selector", kit::gate(0, 0, 0x8e, 0), exception(GP, 0)),
        ("a gate to a data segment", kit::gate(kit::DATA0, 0, 0x8e, 0), exception(GP, 0x10)),
        ("a gate to a selector beyond the GDT", kit::gate(0x400, 0, 0x8e, 0), exception(GP, 0x400)),
        ("a task gate to what is no task", kit::gate(CODE0, 0, 0x85, 0), exception(GP, 8)),
    ] {
        set(a, gate)?;
        a.probe(format!("INT through {name}"), SOURCE, expected, |a| a.int(i32::from(VECTOR)))?;
    }
    a.probe("INT beyond the IDT", SOURCE, exception(GP, 0xff << 3 | IN_IDT), |a| a.int(0xff))?;
    set(a, kit::gate(CODE0, 0, 0x8e, 0))?;
    a.probe("INT at level 3 through a gate of level 0", SOURCE, exception(GP, NAMES), |a| {
        a.enter_user(0)?;
        a.int(i32::from(VECTOR))
    })
}

/// x87 and SSE: CR0.EM and TS, and unmasked exceptions.
fn floating_point(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 2.5, table 2-2";
    const MP: u32 = 2;
    const EM: u32 = 4;
    const TS: u32 = 8;
    let cr0_with = |a: &mut Kit<'_, '_>, bits: u32| -> Emit {
        emit!(a; mov(eax, cr0); and(eax, !(MP | EM | TS)); or(eax, bits); mov(cr0, eax););
        Ok(())
    };
    for em in [0, EM] {
        for ts in [0, TS] {
            for mp in [0, MP] {
                let bits = em | ts | mp;
                let expected = |raises| if raises { exception(NM, 0) } else { NOTHING };
                let name = format!("with CR0.EM={} TS={} MP={}", em / EM, ts / TS, mp / MP);
                cr0_with(a, bits)?;
                a.probe(format!("x87 {name}"), SOURCE, expected(em | ts != 0), |a| a.fnop())?;
                let waits = ts != 0 && mp != 0;
                a.probe(format!("WAIT {name}"), SOURCE, expected(waits), |a| a.wait())?;
                let sse = if em != 0 { exception(UD, 0) } else { expected(ts != 0) };
                emit!(a; mov(ecx, cr4); or(ecx, 0x600); mov(cr4, ecx););
                a.probe(format!("SSE {name}"), SOURCE, sse, |a| a.xorps(xmm0, xmm0))?;
            }
        }
    }
    cr0_with(a, MP)?;
    let label = a.fresh("returns");
    a.probe("an unmasked x87 exception shows at the next instruction", "SDM vol. 1 8.7", exception(MF, 0), |a| {
        emit!(a; fninit(); push(0x37b); fldcw(word_ptr(esp)); fld1(); fldz(); fdivp(st1, st0); nop(); at(&label); wait(););
        Ok(())
    })?;
    a.returns_to("an unmasked x87 exception: return address", "SDM vol. 1 8.7", &label)?;
    a.fninit()?;
    for (name, unmasked_cr4, expected) in
        [("with", 0x600, exception(XM, 0)), ("without", 0x200, exception(UD, 0))]
    {
        a.probe(
            format!("an unmasked SSE exception {name} OSXMMEXCPT"),
            "SDM vol. 1 11.5.3",
            expected,
            |a| {
                emit!(a;
                    mov(eax, u32::from(unmasked_cr4 as u16));
                    mov(cr4, eax);
                    push(0x1d80);
                    ldmxcsr(dword_ptr(esp));
                    mov(eax, 0x3f80_0000);
                    movd(xmm0, eax);
                    xorps(xmm1, xmm1);
                    divss(xmm0, xmm1);
                );
                Ok(())
            },
        )?;
    }
    a.probe("SSE without OSFXSR", "SDM vol. 3A 2.5", exception(UD, 0), |a| {
        emit!(a; xor(eax, eax); mov(cr4, eax); xorps(xmm0, xmm0););
        Ok(())
    })
}

/// #AC needs CR0.AM, EFLAGS.AC and level 3 (SDM vol. 3A, 7.15).
fn alignment(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 7.15, #AC";
    for (am, ac, user) in (0..8).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0)) {
        emit!(a; mov(eax, cr0); btr(eax, 18););
        if am {
            a.bts(eax, 18)?;
        }
        a.mov(cr0, eax)?;
        for (width, offset) in [(2u32, 1u32), (4, 2), (4, 0), (8, 4)] {
            let raises = am && ac && user && offset % width != 0;
            let expected = if raises { exception(AC, 0) } else { NOTHING };
            let flag = if ac { ALIGNMENT } else { 0 };
            let name = format!(
                "{width} bytes at offset {offset}, AM={}, AC={}, level {}",
                u8::from(am),
                u8::from(ac),
                if user { 3 } else { 0 }
            );
            a.probe(name, SOURCE, expected, |a| {
                if user {
                    a.enter_user(flag)?;
                } else {
                    emit!(a; push(flag | 2); popfd(););
                }
                match width {
                    2 => a.mov(ax, word_ptr(SCRATCH + offset))?,
                    4 => a.mov(eax, dword_ptr(SCRATCH + offset))?,
                    _ => a.fld(qword_ptr(SCRATCH + offset))?,
                }
                if user { a.back() } else { Ok(()) }
            })?;
            emit!(a; push(2); popfd(); fninit(););
        }
    }
    emit!(a; mov(eax, cr0); btr(eax, 18); mov(cr0, eax););
    Ok(())
}

/// Where an instruction could raise two, the table of priorities decides (SDM vol. 3A, table 7-2).
fn priorities(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A table 7-2";
    let at_level_3: &[(&str, u32, Code)] = &[
        ("LOCK before a privileged instruction", exception(UD, 0), |a| a.db(&[0xf0, 0xf4])),
        ("LGDT of a register", exception(UD, 0), |a| a.db(&[0x0f, 0x01, 0xd0 | 7])),
        ("a misaligned access through a null segment", exception(GP, 0), |a| {
            emit!(a; xor(eax, eax); mov(es, eax); mov(eax, dword_ptr(SCRATCH + 1).es()););
            Ok(())
        }),
        (
            "a privileged instruction with an operand through a null segment",
            exception(GP, 0),
            |a| {
                emit!(a; xor(eax, eax); mov(es, eax); lgdt(ptr(SCRATCH).es()););
                Ok(())
            },
        ),
    ];
    for &(name, expected, code) in at_level_3 {
        a.probe(name, SOURCE, expected, |a| {
            a.enter_user(ALIGNMENT)?;
            code(a)?;
            a.back()
        })?;
    }
    a.probe("#NM before a bad operand", SOURCE, exception(NM, 0), |a| {
        emit!(a; mov(eax, cr0); or(eax, 8); mov(cr0, eax); xor(eax, eax); mov(es, eax); fld(qword_ptr(SCRATCH).es()););
        Ok(())
    })?;
    a.clts()?;
    a.probe("division by 0 after a bad operand", SOURCE, exception(GP, 0), |a| {
        emit!(a; xor(eax, eax); mov(es, eax); mov(dword_ptr(SCRATCH), eax); div(dword_ptr(SCRATCH).es()););
        Ok(())
    })?;
    // The destination's bounds are checked before it is read or the source is looked at.
    a.descriptor(FREE, tables::segment(0, 0xf_ffff, DATA & !0x80, PAGES | SIZE32))?;
    a.probe("a selector that is not present, from a bad operand", SOURCE, exception(GP, 0), |a| {
        emit!(a; xor(eax, eax); mov(es, eax); mov(fs, word_ptr(SCRATCH).es()););
        Ok(())
    })
}

/// SDM vol. 3A, tables 7-4 and 7-5: two contributory exceptions make a double fault, others come
/// one after the other. The vector that cannot be delivered has a gate that is not present.
fn double_faults(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A tables 7-4, 7-5";
    const ABSENT: u64 = kit::gate(CODE0, 0, 0x0e, 0);
    let raising: &[(&str, u8, u32, Code)] = &[
        ("#DE", DE, exception(DF, 0), |a| {
            emit!(a; xor(ecx, ecx); div(ecx););
            Ok(())
        }),
        ("#GP", GP, exception(DF, 0), |a| {
            emit!(a; xor(ecx, ecx); mov(es, ecx); mov(eax, dword_ptr(SCRATCH).es()););
            Ok(())
        }),
        ("#NP", NP, exception(DF, 0), |a| {
            emit!(a; mov(ecx, u32::from(FREE)); mov(es, ecx););
            Ok(())
        }),
        ("#UD", UD, exception(NP, (8 * UD as u32) | IN_IDT | EXT), |a| a.ud2()),
        ("#BR", BR, exception(NP, (8 * BR as u32) | IN_IDT | EXT), |a| {
            emit!(a; xor(ecx, ecx); bound(ecx, ptr(SCRATCH)););
            Ok(())
        }),
        ("#NM", NM, exception(NP, (8 * NM as u32) | IN_IDT | EXT), |a| {
            emit!(a; mov(eax, cr0); or(eax, 8); mov(cr0, eax); fnop(););
            Ok(())
        }),
        // Software interrupts are no exceptions: EXT is clear.
        ("INT 5", BR, exception(NP, (8 * BR as u32) | IN_IDT), |a| a.int(5)),
        ("INT3", BP, exception(NP, (8 * BP as u32) | IN_IDT), |a| a.int3()),
    ];
    for &(name, vector, expected, code) in raising {
        let at = IDT + 8 * u32::from(vector);
        let saved = SCRATCH + 0x100;
        emit!(a;
            mov(dword_ptr(SCRATCH), 1);
            mov(dword_ptr(SCRATCH + 4), 2);
            mov(eax, dword_ptr(at));
            mov(dword_ptr(saved), eax);
            mov(eax, dword_ptr(at + 4));
            mov(dword_ptr(saved + 4), eax);
            mov(dword_ptr(at), ABSENT as u32);
            mov(dword_ptr(at + 4), (ABSENT >> 32) as u32);
        );
        a.probe(format!("{name} whose gate is not present"), SOURCE, expected, code)?;
        emit!(a;
            mov(eax, dword_ptr(saved));
            mov(dword_ptr(at), eax);
            mov(eax, dword_ptr(saved + 4));
            mov(dword_ptr(at + 4), eax);
            clts();
        );
    }
    // An IDT that ends behind #DF: what lies beyond is #GP, whose gate lies beyond as well.
    let short = table_register(IDT.into(), 8 * usize::from(DF) + 8);
    let whole = table_register(IDT.into(), 8 * usize::from(BACK) + 8);
    let (short, whole) = (a.constant(&short), a.constant(&whole));
    a.probe("#GP beyond the IDT", SOURCE, exception(DF, 0), |a| {
        emit!(a; lidt(ptr(short)); xor(ecx, ecx); mov(es, ecx); mov(eax, dword_ptr(SCRATCH).es()););
        Ok(())
    })?;
    a.lidt(ptr(whole))
}
