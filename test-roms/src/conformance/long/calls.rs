//! SYSCALL, SYSRET, SYSENTER and SYSEXIT.

use iced_x86::code_asm::*;

use super::kit::{
    self, CODE0, CODE3, COMPAT3, DATA0, DATA3, Kit, RAISED_CS, RAISED_FLAGS, RAISED_RIP,
    RAISED_RSP, RAISED_SS, SCRATCH, SPARE, USER_ALIAS, USER_STACK,
};
use super::rules::{Code, HOLE};
use super::transfers::{CF, DF, FIXED, emit_landing};
use super::{GP, UD};
use crate::conformance::exception;
use crate::conformance::features::{SYSCALL, SYSENTER};
use crate::rom::{Emit, emit};

const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const FMASK: u32 = 0xc000_0084;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;
const IF: u32 = 1 << 9;
const RF: u32 = 1 << 16;

pub(super) fn emit(a: &mut Kit<'_, '_>) -> Emit {
    system_calls(a)?;
    system_returns(a)?;
    fast_calls(a)
}

/// SDM vol. 2, SYSCALL.
fn system_calls(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 2, SYSCALL";
    a.need(&[SYSCALL]);
    let landing = a.fresh("landing");
    emit_landing(a, &landing)?;
    let target = a.address_of(&landing);
    a.msr(STAR, u64::from(CODE0) << 32 | u64::from(COMPAT3) << 48)?;
    a.msr(LSTAR, target.into())?;
    a.msr(FMASK, (CF | IF).into())?;
    let after = a.fresh("behind");
    a.attempt(|a| {
        a.enter_user(IF)?;
        emit!(a; cld(); stc(); std(); syscall(); at(&after););
        Ok(())
    })?;
    let user = u64::from(a.address_of(&after) + USER_ALIAS);
    let [new, old] = [DF | FIXED, DF | CF | IF | FIXED].map(u64::from);
    a.holds("SYSCALL: RCX is the next RIP", SOURCE, SPARE, user)?;
    // The arithmetic flags but CF are those of code before.
    a.value("SYSCALL: R11 is RFLAGS", SOURCE, [old, (DF | CF | IF | FIXED | RF).into()], |a| {
        a.mov(rax, qword_ptr(SPARE + 8))
    })?;
    a.value(
        "SYSCALL: flags of FMASK are clear",
        SOURCE,
        [new, (DF | CF | IF | FIXED).into()],
        |a| a.mov(rax, qword_ptr(SPARE + 24)),
    )?;
    a.holds("SYSCALL: RSP stays", SOURCE, SPARE + 16, (USER_STACK + USER_ALIAS).into())?;
    a.holds("SYSCALL: CS of STAR", SOURCE, SPARE + 32, CODE0.into())?;
    a.holds("SYSCALL: SS behind CS", SOURCE, SPARE + 40, DATA0.into())?;
    emit!(a; cld(););
    for (name, code) in
        [("SYSCALL", (|a: &mut Kit<'_, '_>| a.syscall()) as Code), ("SYSRET", |a| a.sysretq())]
    {
        a.probe(format!("{name} without EFER.SCE"), SOURCE, exception(UD, 0), |a| {
            emit!(a; mov(ecx, kit::EFER); rdmsr(); btr(eax, 0); wrmsr(););
            code(a)
        })?;
        emit!(a; mov(ecx, kit::EFER); rdmsr(); bts(eax, 0); wrmsr(););
    }
    Ok(())
}

/// SDM vol. 2, SYSRET.
fn system_returns(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 2, SYSRET";
    a.need(&[SYSCALL]);
    a.probe("SYSRET at level 3", SOURCE, exception(GP, 0), |a| {
        a.enter_user(0)?;
        a.sysretq()
    })?;
    a.probe("SYSRET to a non-canonical RIP", SOURCE, exception(GP, 0), |a| {
        emit!(a; mov(rcx, HOLE); sysretq(););
        Ok(())
    })?;
    // 63 bits of RIP are cut by the 32-bit form, and what R11 may not change is as it must be.
    for (name, wide, code) in [("64", true, CODE3), ("32", false, COMPAT3)] {
        let label = a.fresh("returned");
        a.attempt(|a| {
            emit!(a;
                lea(rcx) -> &label;
                add(rcx, USER_ALIAS as i32);
                mov(r11d, CF | IF | RF | (1 << 17) | (1 << 3));
            );
            if wide {
                a.sysretq()?
            } else {
                a.sysret()?
            }
            emit!(a; at(&label); ud2(););
            Ok(())
        })?;
        let rip = u64::from(a.address_of(&label) + USER_ALIAS);
        a.holds(format!("SYSRET to {name} bits: RIP"), SOURCE, RAISED_RIP, rip)?;
        a.holds(format!("SYSRET to {name} bits: CS"), SOURCE, RAISED_CS, code.into())?;
        a.holds(format!("SYSRET to {name} bits: SS"), SOURCE, RAISED_SS, DATA3.into())?;
        // #UD, a fault, pushes RF.
        let flags = u64::from(CF | IF | RF | FIXED);
        a.holds(format!("SYSRET to {name} bits: flags"), SOURCE, RAISED_FLAGS, flags)?;
    }
    Ok(())
}

/// SDM vol. 2, SYSENTER and SYSEXIT.
fn fast_calls(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 2, SYSENTER, SYSEXIT";
    a.need(&[SYSENTER]);
    let landing = a.fresh("entered");
    emit_landing(a, &landing)?;
    a.msr(SYSENTER_CS, 0)?;
    for (name, code) in
        [("SYSENTER", (|a: &mut Kit<'_, '_>| a.sysenter()) as Code), ("SYSEXIT", |a| a.sysexitq())]
    {
        a.probe(format!("{name} with a null SYSENTER_CS"), SOURCE, exception(GP, 0), code)?;
    }
    let target = a.address_of(&landing);
    a.msr(SYSENTER_CS, u64::from(CODE0 | 3))?;
    a.msr(SYSENTER_ESP, (SCRATCH + 0x800).into())?;
    a.msr(SYSENTER_EIP, target.into())?;
    type Enter = fn(&mut Kit<'_, '_>) -> Emit;
    let from: [(&str, Enter); 2] = [
        ("64-bit code", |a| {
            a.enter_user(IF)?;
            a.sysenter()
        }),
        ("compatibility mode", |a| a.compatible([COMPAT3, DATA3], |b| b.db(&[0x0f, 0x34]))),
    ];
    for (name, code) in from {
        a.attempt(code)?;
        let name = |what| format!("SYSENTER from {name}: {what}");
        a.holds(name("RSP"), SOURCE, SPARE + 16, (SCRATCH + 0x800).into())?;
        a.holds(name("CS"), SOURCE, SPARE + 32, CODE0.into())?;
        a.holds(name("SS"), SOURCE, SPARE + 40, DATA0.into())?;
        a.value(name("IF is clear"), SOURCE, [0, IF.into()], |a| {
            a.mov(rax, qword_ptr(SPARE + 24))
        })?;
    }
    a.probe("SYSEXIT at level 3", SOURCE, exception(GP, 0), |a| {
        a.enter_user(0)?;
        a.sysexitq()
    })?;
    a.probe("SYSEXIT to a non-canonical RIP", SOURCE, exception(GP, 0), |a| {
        emit!(a; mov(rdx, HOLE); mov(ecx, USER_STACK); sysexitq(););
        Ok(())
    })?;
    a.probe("SYSEXIT to a non-canonical RSP", SOURCE, exception(GP, 0), |a| {
        emit!(a; mov(rcx, HOLE); mov(edx, USER_STACK); sysexitq(););
        Ok(())
    })?;
    // CS of the MSR, 16 or 32 further, with RPL 3.
    for (name, wide, [code, stack]) in [("64", true, [0x2b_u64, 0x33]), ("32", false, [0x1b, 0x23])]
    {
        let label = a.fresh("left");
        a.attempt(|a| {
            emit!(a; lea(rdx) -> &label; add(rdx, USER_ALIAS as i32); mov(ecx, 0x1234););
            if wide {
                a.sysexitq()?
            } else {
                a.sysexit()?
            }
            emit!(a; at(&label); ud2(););
            Ok(())
        })?;
        let rip = u64::from(a.address_of(&label) + USER_ALIAS);
        a.holds(format!("SYSEXIT to {name} bits: RIP"), SOURCE, RAISED_RIP, rip)?;
        a.holds(format!("SYSEXIT to {name} bits: RSP"), SOURCE, RAISED_RSP, 0x1234)?;
        a.holds(format!("SYSEXIT to {name} bits: CS"), SOURCE, RAISED_CS, code)?;
        a.holds(format!("SYSEXIT to {name} bits: SS"), SOURCE, RAISED_SS, stack)?;
    }
    a.need(&[]);
    Ok(())
}
