//! Control transfers of long mode: system calls, IRET, far jumps and returns, call gates, the IDT.

use iced_x86::code_asm::*;

use super::kit::{
    self, About, CODE0, CODE3, COMPAT0, COMPAT3, DATA0, DATA3, FREE, GDT, IDT, INNER_STACK, Kit,
    RAISED_CS, RAISED_RSP, RAISED_SS, SCRATCH, SPARE, TASK, TSS, USER_ALIAS, USER_STACK,
};
use super::rules::HOLE;
use super::{BP, GP, NP, calls};
use crate::conformance::{NOTHING, Rom, exception};
use crate::rom::tables::{self, CODE, DATA, LONG, PAGES, SIZE32, segment};
use crate::rom::{Emit, emit};

pub(super) const CF: u32 = 1;
pub(super) const DF: u32 = 1 << 10;
const NT: u32 = 1 << 14;
/// Bit 1 is always set.
pub(super) const FIXED: u32 = 2;

/// A call gate of 64-bit mode that level 3 may use.
const CALL_GATE: u8 = 0xec;
/// Stacks of the IST.
const IST1: u32 = SCRATCH + 0x2000;

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    let about = About {
        name: "long-transfers",
        about: "SYSCALL, SYSENTER, IRET, far transfers, call gates and the IDT in long mode",
        needs: &[],
        five_levels: false,
    };
    kit::rom(about, |a| {
        calls::emit(a)?;
        interrupt_returns(a)?;
        far_jumps(a)?;
        call_gates(a)?;
        interrupt_gates(a)?;
        tasks(a)
    })
}

/// What an entry of the kernel leaves: RIP in RCX, flags in R11, both written to [`SPARE`], with
/// the new flags, CS and SS.
pub(super) fn emit_landing(a: &mut Kit<'_, '_>, label: &str) -> Emit {
    let over = a.fresh("over");
    emit!(a;
        jmp -> &over;
        at(label);
        mov(qword_ptr(SPARE), rcx);
        mov(qword_ptr(SPARE + 8), r11);
        mov(qword_ptr(SPARE + 16), rsp);
        mov(rsp, qword_ptr(kit::RESUME_STACK));
        pushfq();
        pop(rax);
        mov(qword_ptr(SPARE + 24), rax);
        mov(eax, cs);
        mov(qword_ptr(SPARE + 32), rax);
        mov(eax, ss);
        mov(qword_ptr(SPARE + 40), rax);
        jmp(qword_ptr(kit::RESUME));
        at(&over);
    );
    Ok(())
}

/// Descriptors that no transfer of 64-bit mode takes, for selectors from [`FREE`] on.
fn emit_descriptors(a: &mut Kit<'_, '_>) -> Emit {
    const USER: u8 = kit::USER;
    for (n, descriptor) in (0_u16..).zip([
        // L and D at once.
        segment(0, 0xf_ffff, CODE, PAGES | LONG | SIZE32),
        segment(0, 0xf_ffff, CODE & !0x80, PAGES | LONG),
        segment(0, 0xf_ffff, CODE | USER, PAGES | LONG),
        segment(0, 0xf_ffff, CODE | 4, PAGES | LONG),
        segment(0, 0, CODE, LONG),
        segment(0, 0xf_ffff, DATA & !2, PAGES | SIZE32),
    ]) {
        a.descriptor(FREE + 8 * n, descriptor)?;
    }
    Ok(())
}

const BOTH: u16 = FREE;
const ABSENT: u16 = FREE + 8;
const OUTER: u16 = FREE + 16;
const CONFORMING: u16 = FREE + 24;
const LIMITED: u16 = FREE + 32;
const READ_ONLY: u16 = FREE + 40;
/// Gates of 16 bytes lie from here on.
const GATE: u16 = FREE + 64;
const BEYOND: u16 = 0x1000;
/// Where a far pointer of 32 bits lies.
const NARROW: u32 = SPARE + 16;

/// SDM vol. 2, IRET: the frame is SS, RSP, RFLAGS, CS, RIP whatever the levels.
fn interrupt_returns(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 2, IRET";
    emit_descriptors(a)?;
    let gp = |selector: u16| exception(GP, (selector & !3).into());
    let [zero, np] = [exception(GP, 0), exception(NP, ABSENT.into())];
    for (name, code, stack, expected) in [
        ("level 0 with SS null", CODE0, 0, NOTHING),
        ("level 0 with SS null and RPL 3", CODE0, 3, zero),
        ("level 0 with SS of level 3", CODE0, DATA3, gp(DATA3)),
        ("level 0 with a read-only SS", CODE0, READ_ONLY, gp(READ_ONLY)),
        ("level 0 with an SS that is code", CODE0, CODE0, gp(CODE0)),
        ("level 0 with an SS beyond the GDT", CODE0, BEYOND, gp(BEYOND)),
        ("CS null", 0, DATA0, zero),
        ("CS that is data", DATA0, DATA0, gp(DATA0)),
        ("CS beyond the GDT", BEYOND, DATA0, gp(BEYOND)),
        ("CS that is a task", TASK, DATA0, gp(TASK)),
        ("CS with L and D", BOTH, DATA0, gp(BOTH)),
        ("CS that is not present", ABSENT, DATA0, np),
        ("CS of level 3 with RPL 0", OUTER, DATA0, gp(OUTER)),
        ("CS with a small limit", LIMITED, DATA0, NOTHING),
        ("conforming CS", CONFORMING, DATA0, NOTHING),
        ("level 3 with SS null", CODE3, 3, zero),
        ("level 3 with SS of level 0", CODE3, DATA0, gp(DATA0)),
        ("compatibility mode with SS null", COMPAT3, 3, zero),
    ] {
        a.probe(format!("IRETQ to {name}"), SOURCE, expected, |a| {
            let label = a.fresh("target");
            emit!(a;
                mov(rbx, rsp);
                push(i32::from(stack));
                push(rbx);
                pushfq();
                push(i32::from(code));
                lea(rcx) -> &label;
                push(rcx);
                iretq();
                at(&label);
            );
            Ok(())
        })?;
    }
    a.probe("IRETQ to a non-canonical RIP", SOURCE, zero, |a| {
        emit!(a; mov(rcx, HOLE); push(i32::from(DATA0)); push(rsp); pushfq(); push(i32::from(CODE0)); push(rcx); iretq(););
        Ok(())
    })?;
    a.probe("IRETQ with NT", SOURCE, zero, |a| {
        emit!(a; pushfq(); or(dword_ptr(rsp), NT); popfq(); iretq(););
        Ok(())
    })?;
    emit!(a; push(FIXED as i32); popfq(););
    // IRETD in 64-bit mode takes five doublewords, IRET by 66h five words.
    a.attempt(|a| {
        let label = a.fresh("narrow");
        emit!(a;
            sub(rsp, 20);
            mov(dword_ptr(rsp + 16), u32::from(DATA3));
            mov(dword_ptr(rsp + 12), 0x1234);
            mov(dword_ptr(rsp + 8), CF | FIXED);
            mov(dword_ptr(rsp + 4), u32::from(CODE3));
            lea(rcx) -> &label;
            add(ecx, USER_ALIAS as i32);
            mov(dword_ptr(rsp), ecx);
            iretd();
            at(&label);
            ud2();
        );
        Ok(())
    })?;
    a.holds("IRETD from 64-bit mode: RSP", SOURCE, RAISED_RSP, 0x1234)?;
    a.holds("IRETD from 64-bit mode: SS", SOURCE, RAISED_SS, DATA3.into())
}

/// SDM vol. 2, JMP and RET: far forms in 64-bit mode.
fn far_jumps(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 2, JMP, CALL, RET";
    let gp = |selector: u16| exception(GP, (selector & !3).into());
    let cases = [
        ("64-bit code", CODE0, NOTHING),
        ("conforming code", CONFORMING, NOTHING),
        ("code with a small limit", LIMITED, NOTHING),
        ("null", 0, exception(GP, 0)),
        ("data", DATA0, gp(DATA0)),
        ("L and D", BOTH, gp(BOTH)),
        ("what is not present", ABSENT, exception(NP, ABSENT.into())),
        ("level 3", OUTER, gp(OUTER)),
        ("beyond the GDT", BEYOND, gp(BEYOND)),
        ("a task", TASK, gp(TASK)),
    ];
    for (name, selector, expected) in cases {
        for wide in [false, true] {
            let size = if wide { 64 } else { 32 };
            a.probe(format!("JMP m16:{size} to {name}"), SOURCE, expected, |a| {
                with_pointers(a, selector, |a| emit_far(a, 5, wide))
            })?;
        }
        if selector == TASK {
            continue;
        }
        a.probe(format!("RETFQ to {name}"), SOURCE, expected, |a| {
            let label = a.fresh("returned");
            emit!(a;
                push(i32::from(selector));
                lea(rcx) -> &label;
                push(rcx);
                db(&[0x48, 0xcb]);
                at(&label);
            );
            Ok(())
        })?;
    }
    a.probe("JMP m16:64 to a non-canonical address", SOURCE, exception(GP, 0), |a| {
        emit!(a; mov(rcx, HOLE); mov(qword_ptr(SPARE), rcx); mov(word_ptr(SPARE + 8), u32::from(CODE0)););
        a.db(&[0x48, 0xff, 0x2c, 0x25])?;
        a.db(&SPARE.to_le_bytes())
    })?;
    a.attempt(|a| {
        let label = a.fresh("outer");
        emit!(a;
            push(i32::from(DATA3));
            push(0x1234);
            push(i32::from(CODE3));
            lea(rcx) -> &label;
            add(rcx, USER_ALIAS as i32);
            push(rcx);
            db(&[0x48, 0xcb]);
            at(&label);
            ud2();
        );
        Ok(())
    })?;
    a.holds("RETFQ to level 3: CS", SOURCE, RAISED_CS, CODE3.into())?;
    a.holds("RETFQ to level 3: RSP", SOURCE, RAISED_RSP, 0x1234)?;
    a.attempt(|a| {
        emit!(a; push(i32::from(COMPAT0)););
        let label = a.fresh("compatible");
        emit!(a; lea(rcx) -> &label; push(rcx); db(&[0x48, 0xcb]); at(&label););
        // 64-bit code would take 48h for a prefix of what follows.
        a.bits(32, |b| b.db(&[0x31, 0xc0, 0x48, 0x0f, 0x0b]))
    })?;
    let compatible = [COMPAT0.into(), 0xffff];
    a.value("RETFQ to compatibility mode: CS", SOURCE, compatible, |a| {
        a.mov(rax, qword_ptr(RAISED_CS))
    })
}

/// Executes `code` with far pointers to what comes behind it: m16:64 at [`SPARE`], m16:32 at
/// [`NARROW`].
fn with_pointers(
    a: &mut Kit<'_, '_>,
    selector: u16,
    code: impl FnOnce(&mut Kit<'_, '_>) -> Emit,
) -> Emit {
    let label = a.fresh("far");
    emit!(a;
        lea(rcx) -> &label;
        mov(qword_ptr(SPARE), rcx);
        mov(word_ptr(SPARE + 8), u32::from(selector));
        mov(dword_ptr(NARROW), ecx);
        mov(word_ptr(NARROW + 4), u32::from(selector));
    );
    code(a)?;
    a.at(&label)
}

/// `FF /extension` with an absolute address, 64 bits wide or 32.
fn emit_far(a: &mut Kit<'_, '_>, extension: u8, wide: bool) -> Emit {
    let (rex, at): (&[u8], u32) = if wide { (&[0x48], SPARE) } else { (&[], NARROW) };
    a.db(&[rex, &[0xff, 0x04 | extension << 3, 0x25], &at.to_le_bytes()].concat())
}

/// SDM vol. 3A, 6.8.3.1: call gates have 16 bytes, lead to 64-bit code and push 8 bytes each.
fn call_gates(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 6.8.3.1, vol. 2 CALL, JMP";
    let gp = |selector: u16| exception(GP, (selector & !3).into());
    let gate_at = GDT + u32::from(GATE);
    let landing = a.fresh("gate");
    emit_landing(a, &landing)?;
    let target = u64::from(a.address_of(&landing));
    let good = kit::gate(CODE0, target, CALL_GATE, 0);
    let refused = [
        ("to code of compatibility mode", kit::gate(COMPAT0, target, CALL_GATE, 0), gp(COMPAT0)),
        ("to data", kit::gate(DATA0, target, CALL_GATE, 0), gp(DATA0)),
        ("to code with L and D", kit::gate(BOTH, target, CALL_GATE, 0), gp(BOTH)),
        ("to null", kit::gate(0, target, CALL_GATE, 0), exception(GP, 0)),
        ("beyond the GDT", kit::gate(BEYOND, target, CALL_GATE, 0), gp(BEYOND)),
        (
            "to what is not present",
            kit::gate(ABSENT, target, CALL_GATE, 0),
            exception(NP, ABSENT.into()),
        ),
        (
            "that is not present",
            kit::gate(CODE0, target, CALL_GATE & !0x80, 0),
            exception(NP, GATE.into()),
        ),
        ("with a type in its upper half", [good[0], good[1] | 0xc << 40], gp(GATE)),
        ("of 16 bits", kit::gate(CODE0, target, 0xe4, 0), gp(GATE)),
        ("that is a task gate", kit::gate(TASK, target, 0xe5, 0), gp(GATE)),
        ("to a non-canonical address", kit::gate(CODE0, HOLE, CALL_GATE, 0), exception(GP, 0)),
    ];
    for (name, gate, expected) in refused {
        a.wide_descriptor(gate_at, gate)?;
        a.probe(format!("CALL through a gate {name}"), SOURCE, expected, |a| {
            with_pointers(a, GATE, |a| emit_far(a, 3, true))
        })?;
    }
    a.wide_descriptor(gate_at, kit::gate(CODE0, target, CALL_GATE & !kit::USER, 0))?;
    a.probe("CALL at level 3 through a gate of level 0", SOURCE, gp(GATE), |a| {
        with_pointers(a, GATE | 3, |a| {
            a.enter_user(0)?;
            emit_alias_far(a)
        })
    })?;
    a.wide_descriptor(gate_at, good)?;
    // At one level: CS and RIP.
    a.attempt(|a| with_pointers(a, GATE, |a| emit_far(a, 3, true)))?;
    a.value("CALL through a gate, one level: what is pushed", SOURCE, [16, u64::MAX], |a| {
        emit!(a; mov(rax, qword_ptr(kit::RESUME_STACK)); sub(rax, qword_ptr(SPARE + 16)););
        Ok(())
    })?;
    // From level 3: SS, RSP, CS, RIP on the stack of the TSS, and SS is null.
    a.attempt(|a| {
        with_pointers(a, GATE | 3, |a| {
            a.enter_user(0)?;
            emit_alias_far(a)
        })
    })?;
    let inner = u64::from(INNER_STACK);
    a.holds("CALL through a gate from level 3: RSP", SOURCE, SPARE + 16, inner - 32)?;
    a.holds("CALL through a gate from level 3: CS", SOURCE, SPARE + 32, CODE0.into())?;
    a.holds("CALL through a gate from level 3: SS", SOURCE, SPARE + 40, 0)?;
    for (what, offset, pushed) in [
        ("SS", 8, u64::from(DATA3)),
        ("RSP", 16, u64::from(USER_STACK + USER_ALIAS)),
        ("CS", 24, CODE3.into()),
    ] {
        let name = format!("CALL through a gate from level 3: {what} on the stack");
        a.holds(name, SOURCE, INNER_STACK - offset, pushed)?;
    }
    a.probe("JMP through a gate from level 3", SOURCE, gp(CODE0), |a| {
        with_pointers(a, GATE | 3, |a| {
            a.enter_user(0)?;
            a.db(&[0x48, 0xff, 0x2c, 0x25])?;
            a.db(&(SPARE + USER_ALIAS).to_le_bytes())
        })
    })
}

/// CALL through the pointer at [`SPARE`], as level 3 sees it.
fn emit_alias_far(a: &mut Kit<'_, '_>) -> Emit {
    a.db(&[0x48, 0xff, 0x1c, 0x25])?;
    a.db(&(SPARE + USER_ALIAS).to_le_bytes())
}

/// SDM vol. 3A, 7.14: gates of 16 bytes, aligned frames of five quadwords, the IST.
fn interrupt_gates(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 7.14";
    const VECTOR: u8 = 0x30;
    const AT: u32 = IDT + 16 * VECTOR as u32;
    /// The error code that names the gate.
    const NAMES: u32 = (8 * VECTOR as u32) | 2;
    let gp = |selector: u16| exception(GP, (selector & !3).into());
    for (name, gate, expected) in [
        ("that is not present", kit::gate(CODE0, 0, 0x6e, 0), exception(NP, NAMES)),
        ("of 16 bits", kit::gate(CODE0, 0, 0xe6, 0), exception(GP, NAMES)),
        ("that is a task gate", kit::gate(TASK, 0, 0xe5, 0), exception(GP, NAMES)),
        ("that is a call gate", kit::gate(CODE0, 0, 0xec, 0), exception(GP, NAMES)),
        ("to code of compatibility mode", kit::gate(COMPAT0, 0, 0xee, 0), gp(COMPAT0)),
        ("to data", kit::gate(DATA0, 0, 0xee, 0), gp(DATA0)),
        ("to null", kit::gate(0, 0, 0xee, 0), exception(GP, 0)),
        ("to code of level 3", kit::gate(OUTER, 0, 0xee, 0), gp(OUTER)),
        ("to what is not present", kit::gate(ABSENT, 0, 0xee, 0), exception(NP, ABSENT.into())),
        ("to a non-canonical address", kit::gate(CODE0, HOLE, 0xee, 0), exception(GP, 0)),
    ] {
        a.wide_descriptor(AT, gate)?;
        a.probe(format!("INT through a gate {name}"), SOURCE, expected, |a| {
            a.int(i32::from(VECTOR))
        })?;
    }
    a.wide_descriptor(AT, kit::gate(CODE0, 0, 0x8e, 0))?;
    a.probe("INT at level 3 through a gate of level 0", SOURCE, exception(GP, NAMES), |a| {
        a.enter_user(0)?;
        a.int(i32::from(VECTOR))
    })?;
    // The frame lies below the stack cut to 16 bytes; FRAME is where it begins.
    for misaligned in [0_u32, 8, 1, 15] {
        a.attempt(|a| {
            emit!(a; sub(rsp, misaligned as i32); int3(););
            Ok(())
        })?;
        let frame = u64::from((kit::STACK - misaligned) & !15) - 40;
        a.holds(format!("a frame from a stack at -{misaligned}"), SOURCE, kit::FRAME, frame)?;
        let stack = u64::from(kit::STACK - misaligned);
        a.holds(
            format!("RSP in a frame from a stack at -{misaligned}"),
            SOURCE,
            RAISED_RSP,
            stack,
        )?;
    }
    a.holds("SS stays where the level does", SOURCE, kit::FRAME_SS, DATA0.into())?;
    a.attempt(|a| {
        a.enter_user(0)?;
        a.int3()
    })?;
    a.holds("a frame from level 3", SOURCE, kit::FRAME, u64::from(INNER_STACK) - 40)?;
    a.holds("SS in a frame from level 3", SOURCE, RAISED_SS, DATA3.into())?;
    // The IST is used at any level, and cut to 16 bytes too.
    let saved = SCRATCH + 0x100;
    let breakpoint = IDT + 16 * u32::from(BP);
    emit!(a;
        mov(dword_ptr(TSS + 0x24), IST1 + 9);
        mov(rax, qword_ptr(breakpoint));
        mov(qword_ptr(saved), rax);
        mov(byte_ptr(breakpoint + 4), 1);
    );
    for (name, user) in [("0", false), ("3", true)] {
        a.attempt(|a| {
            if user {
                a.enter_user(0)?;
            }
            a.int3()
        })?;
        a.holds(format!("the IST, from level {name}"), SOURCE, kit::FRAME, u64::from(IST1) - 40)?;
    }
    emit!(a; mov(rax, qword_ptr(saved)); mov(qword_ptr(breakpoint), rax););
    Ok(())
}

/// SDM vol. 3A, 9.7: a task register, no task switches.
fn tasks(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 9.2.3, 9.7; vol. 2 LTR, LLDT, POPF";
    const TSS64: u8 = tables::TSS64;
    let at = GDT + u32::from(GATE);
    for (name, [low, high], expected) in [
        ("an available task", kit::system_segment(TSS.into(), 0x67, TSS64), NOTHING),
        (
            "a busy task",
            kit::system_segment(TSS.into(), 0x67, TSS64 | 2),
            exception(GP, GATE.into()),
        ),
        (
            "a task of 16 bits",
            kit::system_segment(TSS.into(), 0x67, 0x81),
            exception(GP, GATE.into()),
        ),
        (
            "a task that is not present",
            kit::system_segment(TSS.into(), 0x67, 9),
            exception(NP, GATE.into()),
        ),
        (
            "a task with a type in its upper half",
            [segment(TSS, 0x67, TSS64, 0), 1 << 40],
            exception(GP, GATE.into()),
        ),
    ] {
        a.wide_descriptor(at, [low, high])?;
        a.probe(format!("LTR of {name}"), SOURCE, expected, |a| {
            emit!(a; mov(eax, u32::from(GATE)); ltr(ax););
            Ok(())
        })?;
    }
    a.wide_descriptor(at, kit::system_segment(GDT.into(), 0xff, 0x82))?;
    a.probe("LLDT", SOURCE, NOTHING, |a| {
        emit!(a; mov(eax, u32::from(GATE)); lldt(ax););
        Ok(())
    })?;
    // Selector 2Ch of the LDT is that of level 3's code in the GDT, which is not level 0's.
    a.value("LAR of a selector of the LDT", SOURCE, [0xfb00, 0xff00], |a| {
        emit!(a; mov(ecx, 0x2cu32); xor(eax, eax); lar(eax, ecx););
        Ok(())
    })?;
    a.probe("LLDT of null", SOURCE, NOTHING, |a| {
        emit!(a; xor(eax, eax); lldt(ax););
        Ok(())
    })?;
    a.wide_descriptor(at, kit::system_segment(TSS.into(), 0x67, TSS64))?;
    a.probe("JMP to a task", SOURCE, exception(GP, GATE.into()), |a| {
        with_pointers(a, GATE, |a| emit_far(a, 5, true))
    })?;
    a.probe("IRETQ at level 3 to level 0", SOURCE, exception(GP, CODE0.into()), |a| {
        a.enter_user(0)?;
        emit!(a; push(i32::from(DATA0)); push(0); push(2); push(i32::from(CODE0)); push(0); iretq(););
        Ok(())
    })?;
    // A stack for level 0 that is not canonical.
    a.probe(
        "a task whose RSP0 is not canonical",
        "SDM vol. 3A 7.14.2; table 7-1",
        exception(8, 0),
        |a| {
            emit!(a;
                mov(rax, HOLE);
                mov(qword_ptr(TSS + 4), rax);
                mov(byte_ptr(IDT + 16 * 8 + 4), 1);
            );
            a.enter_user(0)?;
            a.ud2()
        },
    )?;
    emit!(a; mov(eax, INNER_STACK); mov(qword_ptr(TSS + 4), rax); mov(byte_ptr(IDT + 16 * 8 + 4), 0););
    a.value("VM is no flag that POPF sets", SOURCE, [0, 1 << 17], |a| {
        emit!(a; pushfq(); or(dword_ptr(rsp), 1 << 17); popfq(); pushfq(); pop(rax););
        Ok(())
    })
}
