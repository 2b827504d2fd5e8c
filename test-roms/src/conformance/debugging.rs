//! Debug registers and single-step: what raises #DB, where it returns to, and what DR6 says.

use iced_x86::code_asm::*;

use super::features::DE;
use super::kit::{self, Kit, RAISED_DR6, RAISED_EFLAGS, SCRATCH};
use super::{NOTHING, Rom, exception};
use crate::rom::{Emit, emit};

const DB: u8 = 1;
const UD: u8 = 6;
const TF: u32 = 1 << 8;
const RF: u32 = 1 << 16;
/// DR6: single step, and an access to the debug registers.
const BS: u32 = 1 << 14;
const BD: u32 = 1 << 13;
/// DR6 without the bits that newer processors use for other things.
const DR6: u32 = 0xe00f;
const DR6_ONES: u32 = 0xffff_0ff0;
/// DR7: L0; GD; what a breakpoint is for, and its length.
const L0: u32 = 1;
const GD: u32 = 1 << 13;
const WRITES: u32 = 1;
const PORTS: u32 = 2;
const ACCESSES: u32 = 3;

const SOURCE: &str = "SDM vol. 3B 18.2, 18.3";
const RESUME: &str = "SDM vol. 3B 18.3.1.1";
const AT: u32 = SCRATCH + 0x200;

type Code = fn(&mut Kit<'_, '_>) -> Emit;

pub(super) fn rom() -> Emit<Rom> {
    kit::rom("debugging", "debug registers and single-step", &[DE], |a| {
        single_step(a)?;
        instruction_breakpoints(a)?;
        data_breakpoints(a)?;
        others(a)
    })
}

/// Clears DR6 and DR7.
fn quiet(a: &mut Kit<'_, '_>) -> Emit {
    emit!(a; xor(eax, eax); mov(dr7, eax); mov(eax, DR6_ONES); mov(dr6, eax););
    Ok(())
}

fn step(a: &mut Kit<'_, '_>) -> Emit {
    emit!(a; pushfd(); or(dword_ptr(esp), TF); popfd(););
    Ok(())
}

/// The bits of DR6 at the last exception.
fn says(a: &mut Kit<'_, '_>, name: String, expected: u32) -> Emit {
    a.value(name, SOURCE, [expected, DR6], |a| a.mov(eax, dword_ptr(RAISED_DR6)))
}

/// TF traps behind the instruction after the one that sets it.
fn single_step(a: &mut Kit<'_, '_>) -> Emit {
    let cases: &[(&str, Code)] = &[
        ("NOP", |a| a.nop()),
        ("MOV SS and the instruction in its shadow", |a| {
            emit!(a; mov(ss, ebx); nop(););
            Ok(())
        }),
        ("POP SS and the instruction in its shadow", |a| {
            emit!(a; pop(ss); nop(););
            Ok(())
        }),
        ("STI, which casts no shadow on traps", |a| a.sti()),
        ("POPFD that clears TF", |a| a.popfd()),
        ("CPUID", |a| a.cpuid()),
    ];
    for &(name, code) in cases {
        let label = a.fresh("stepped");
        quiet(a)?;
        a.probe(format!("single-step over {name}"), SOURCE, exception(DB, 0), |a| {
            emit!(a; mov(ebx, u32::from(kit::DATA0)); push(if name.starts_with("POPFD") { 2 } else { 0x10 }););
            emit!(a; xor(eax, eax););
            step(a)?;
            code(a)?;
            a.at(&label)?;
            emit!(a; nop(); nop(););
            Ok(())
        })?;
        a.cli()?;
        a.returns_to(format!("single-step over {name}: return address"), SOURCE, &label)?;
        says(a, format!("single-step over {name}: DR6"), BS)?;
    }
    // One iteration at a time: the trap comes in front of the instruction again.
    let label = a.fresh("repeated");
    a.probe("single-step in REP MOVSB", SOURCE, exception(DB, 0), |a| {
        emit!(a; mov(esi, AT); mov(edi, AT + 0x100); mov(ecx, 5););
        step(a)?;
        a.at(&label)?;
        a.rep().movsb()
    })?;
    a.returns_to("single-step in REP MOVSB: return address", SOURCE, &label)?;
    a.value("single-step in REP MOVSB: iterations left", SOURCE, [4, u32::MAX], |a| {
        a.lea(eax, ptr(esi - (AT + 1) + 4))
    })?;
    // An interrupt clears TF: its handler is not stepped.
    let label = a.fresh("interrupted");
    a.probe(
        "INT with TF: the interrupt comes, and nothing in its handler",
        SOURCE,
        exception(0x30, 0),
        |a| {
            step(a)?;
            emit!(a; int(0x30); at(&label););
            Ok(())
        },
    )?;
    a.value("INT with TF: TF in the pushed flags", SOURCE, [TF, TF], |a| {
        a.mov(eax, dword_ptr(RAISED_EFLAGS))
    })
}

/// A breakpoint on an instruction is a fault: it comes first, and RF lets it pass.
fn instruction_breakpoints(a: &mut Kit<'_, '_>) -> Emit {
    let registers: [Code; 4] =
        [|a| a.mov(dr0, eax), |a| a.mov(dr1, eax), |a| a.mov(dr2, eax), |a| a.mov(dr3, eax)];
    for (n, set) in (0..).zip(registers) {
        let label = a.fresh("breakpoint");
        let target = a.address_of(&label);
        quiet(a)?;
        a.probe(format!("breakpoint {n} on an instruction"), SOURCE, exception(DB, 0), |a| {
            emit!(a; mov(eax, target););
            set(a)?;
            emit!(a; mov(eax, L0 << (2 * n)); mov(dr7, eax); nop(); at(&label); nop(); nop(););
            Ok(())
        })?;
        a.returns_to(format!("breakpoint {n}: return address"), SOURCE, &label)?;
        says(a, format!("breakpoint {n}: DR6"), 1 << n)?;
        // All faults but this push RF as 1.
        a.value(format!("breakpoint {n}: RF in the pushed flags"), RESUME, [0, RF], |a| {
            a.mov(eax, dword_ptr(RAISED_EFLAGS))
        })?;
    }
    quiet(a)?;
    a.probe("UD2, for its flags", RESUME, exception(UD, 0), |a| a.ud2())?;
    a.value("RF in the flags that another fault pushes", RESUME, [RF, RF], |a| {
        a.mov(eax, dword_ptr(RAISED_EFLAGS))
    })?;
    let label = a.fresh("passed");
    let target = a.address_of(&label);
    quiet(a)?;
    a.probe("IRETD with RF passes a breakpoint", SOURCE, NOTHING, |a| {
        emit!(a;
            mov(eax, target);
            mov(dr0, eax);
            mov(eax, L0);
            mov(dr7, eax);
            push(2 | RF);
            push(u32::from(kit::CODE0));
            mov(eax, target);
            push(eax);
            iretd();
            at(&label);
            nop();
        );
        Ok(())
    })?;
    quiet(a)?;
    a.probe("a breakpoint that is not enabled", SOURCE, NOTHING, |a| {
        emit!(a; xor(eax, eax); mov(dr7, eax); nop(););
        Ok(())
    })
}

/// A breakpoint on data is a trap: it comes behind the instruction that has accessed any of its
/// bytes.
fn data_breakpoints(a: &mut Kit<'_, '_>) -> Emit {
    for (kind, kind_name) in [(WRITES, "writes"), (ACCESSES, "accesses")] {
        for (bits, length) in [(0u32, 1u32), (1, 2), (3, 4)] {
            for offset in [-4i32, -3, -1, 0, 1, 2, 3, 4] {
                for write in [false, true] {
                    let touches = offset + 4 > 0 && offset < length as i32;
                    let expected = touches && (write || kind == ACCESSES);
                    let outcome = if expected { exception(DB, 0) } else { NOTHING };
                    let what = if write { "write" } else { "read" };
                    let name = format!(
                        "breakpoint for {kind_name} of {length} bytes, {what} of 4 bytes at {offset:+}"
                    );
                    let address = AT.wrapping_add_signed(offset);
                    let label = a.fresh("accessed");
                    quiet(a)?;
                    a.probe(&name, SOURCE, outcome, |a| {
                        emit!(a;
                            mov(eax, AT);
                            mov(dr0, eax);
                            mov(eax, L0 | kind << 16 | bits << 18);
                            mov(dr7, eax);
                        );
                        if write {
                            a.mov(dword_ptr(address), eax)?;
                        } else {
                            a.mov(eax, dword_ptr(address))?;
                        }
                        emit!(a; at(&label); nop(););
                        Ok(())
                    })?;
                    if expected {
                        a.returns_to(format!("{name}: return address"), SOURCE, &label)?;
                        says(a, format!("{name}: DR6"), 1)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Ports with CR4.DE, general detection, DR4 and DR5, and what DR6 keeps.
fn others(a: &mut Kit<'_, '_>) -> Emit {
    const DE: u32 = 8;
    const PORT: u32 = 0x80;
    quiet(a)?;
    emit!(a; mov(eax, DE); mov(cr4, eax););
    a.probe("breakpoint on a port", SOURCE, exception(DB, 0), |a| {
        emit!(a; mov(eax, PORT); mov(dr1, eax); mov(eax, (L0 << 2) | PORTS << 20); mov(dr7, eax); out(PORT as i32, al); nop(););
        Ok(())
    })?;
    says(a, "breakpoint on a port: DR6".into(), 2)?;
    quiet(a)?;
    a.probe("MOV to DR4 with CR4.DE", "SDM vol. 3B 18.2.2", exception(UD, 0), |a| a.mov(dr4, eax))?;
    emit!(a; xor(eax, eax); mov(cr4, eax););
    a.value("DR4 is DR6 without CR4.DE", "SDM vol. 3B 18.2.2", [BS, DR6], |a| {
        emit!(a; mov(eax, DR6_ONES | BS); mov(dr4, eax); xor(eax, eax); mov(eax, dr6););
        Ok(())
    })?;
    let label = a.fresh("detected");
    quiet(a)?;
    a.probe("general detection", SOURCE, exception(DB, 0), |a| {
        emit!(a; mov(eax, GD); mov(dr7, eax); at(&label); mov(eax, dr3););
        Ok(())
    })?;
    a.returns_to("general detection: return address", SOURCE, &label)?;
    says(a, "general detection: DR6".into(), BD)?;
    a.value("#DB clears GD", SOURCE, [0, GD], |a| a.mov(eax, dr7))?;
    quiet(a)?;
    a.value("DR6 and DR7 have bits that are always set", "SDM vol. 3B 18.2", [0x0ff0 | 0x400 << 16, 0x1ff0 | 0xdc00 << 16], |a| {
        emit!(a; xor(eax, eax); mov(dr6, eax); mov(dr7, eax); mov(eax, dr7); shl(eax, 16); mov(ecx, dr6); and(ecx, 0xffff); or(eax, ecx););
        Ok(())
    })?;
    quiet(a)?;
    a.probe("DR6 keeps what it said", SOURCE, exception(DB, 0), |a| {
        emit!(a; mov(eax, DR6_ONES | BD); mov(dr6, eax); pushfd(); or(dword_ptr(esp), TF); popfd(); nop(););
        Ok(())
    })?;
    says(a, "DR6 keeps what it said: DR6".into(), BS | BD)?;
    quiet(a)
}
