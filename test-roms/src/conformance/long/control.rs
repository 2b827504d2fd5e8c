//! What control and debug registers and MSRs refuse in long mode.

use iced_x86::code_asm::*;

use super::GP;
use super::kit::{self, About, Kit};
use super::rules::{FAR_HOLE, probes};
use crate::conformance::features::{PCID, SYSENTER};
use crate::conformance::{NOTHING, Rom, exception};
use crate::rom::{Emit, emit};

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    let about = About {
        name: "long-control",
        about: "what control and debug registers and MSRs refuse in long mode",
        needs: &[],
        five_levels: false,
    };
    kit::rom(about, registers)
}

fn registers(a: &mut Kit<'_, '_>) -> Emit {
    const REFUSED: u32 = exception(GP, 0);
    probes(
        a,
        "SDM vol. 3A 2.5, 5.10, 11.8.5; vol. 2, MOV",
        &[
            ("EFER.LME changed while paging", REFUSED, |a| {
                emit!(a; mov(ecx, kit::EFER); rdmsr(); btc(eax, 8); wrmsr(); btc(eax, 8); wrmsr(););
                Ok(())
            }),
            ("EFER with a reserved bit", REFUSED, |a| {
                emit!(a; mov(ecx, kit::EFER); rdmsr(); bts(eax, 3); wrmsr(); btr(eax, 3); wrmsr(););
                Ok(())
            }),
            ("CR8 with more than 4 bits", REFUSED, |a| {
                emit!(a; mov(eax, 0x10u32); mov(cr8, rax););
                Ok(())
            }),
            ("DR7 with a bit above 31", REFUSED, |a| {
                emit!(a; mov(rax, dr7); bts(rax, 32); mov(dr7, rax););
                Ok(())
            }),
            ("DR6 with a bit above 31", REFUSED, |a| {
                emit!(a; mov(rax, dr6); bts(rax, 63); mov(dr6, rax););
                Ok(())
            }),
            ("STAR and FMASK take anything", NOTHING, |a| {
                a.msr(0xc000_0081, 0)?;
                a.msr(0xc000_0084, 0xffff_ffff)
            }),
            ("LSTAR refuses what is not canonical", REFUSED, |a| a.msr(0xc000_0082, FAR_HOLE)),
        ],
    )?;
    a.value("CR8 is read as written", "SDM vol. 3A 11.8.6", [9, !0], |a| {
        emit!(a; mov(eax, 9u32); mov(cr8, rax); xor(eax, eax); mov(rax, cr8); xor(ecx, ecx); mov(cr8, rcx););
        Ok(())
    })?;
    a.value("EFER has LME, LMA, NXE and SCE", "SDM vol. 3A 2.2.1", [0xd01, !0], |a| {
        emit!(a; mov(ecx, kit::EFER); rdmsr(); shl(rdx, 32); or(rax, rdx););
        Ok(())
    })?;
    a.need(&[SYSENTER]);
    probes(
        a,
        "SDM vol. 2, WRMSR",
        &[
            ("SYSENTER_EIP refuses what is not canonical", REFUSED, |a| a.msr(0x176, FAR_HOLE)),
            ("SYSENTER_ESP refuses what is not canonical", REFUSED, |a| a.msr(0x175, FAR_HOLE)),
        ],
    )?;
    a.need(&[]);
    probes(
        a,
        // Who takes what should be refused is given the old value again, so that later checks run.
        "SDM vol. 3A 2.5, 5.10; vol. 2, MOV",
        &[
            ("CR4.PAE off in long mode", REFUSED, |a| {
                emit!(a; mov(rbx, cr4); mov(rax, rbx); btr(rax, 5); mov(cr4, rax); mov(cr4, rbx););
                Ok(())
            }),
            ("CR4.LA57 changed in long mode", REFUSED, |a| {
                emit!(a; mov(rbx, cr4); mov(rax, rbx); btc(rax, 12); mov(cr4, rax); mov(cr4, rbx););
                Ok(())
            }),
            ("CR4 with a bit above 31", REFUSED, |a| {
                emit!(a; mov(rbx, cr4); mov(rax, rbx); bts(rax, 40); mov(cr4, rax); mov(cr4, rbx););
                Ok(())
            }),
        ],
    )?;
    a.need(&[PCID]);
    probes(
        a,
        "SDM vol. 3A 4.10.1",
        &[
            ("CR4.PCIDE while CR3 has low bits", REFUSED, |a| {
                emit!(a; mov(rax, cr3); or(rax, 8); mov(cr3, rax); mov(rcx, cr4); bts(rcx, 17); mov(cr4, rcx););
                Ok(())
            }),
            ("CR4.PCIDE, and CR3 whose highest bit keeps the TLB", NOTHING, |a| {
                emit!(a;
                    mov(rax, cr3);
                    and(rax, !0xfff);
                    mov(cr3, rax);
                    mov(rcx, cr4);
                    bts(rcx, 17);
                    mov(cr4, rcx);
                    bts(rax, 63);
                    or(rax, 5);
                    mov(cr3, rax);
                );
                Ok(())
            }),
        ],
    )?;
    a.value(
        "CR3 is read without its highest bit",
        "SDM vol. 2, MOV",
        [kit::PML4 as u64 | 5, !0],
        |a| a.mov(rax, cr3),
    )?;
    a.attempt(|a| {
        emit!(a;
            mov(rax, cr3);
            and(rax, !0xfff);
            mov(cr3, rax);
            mov(rcx, cr4);
            btr(rcx, 17);
            mov(cr4, rcx);
        );
        Ok(())
    })?;
    a.need(&[]);
    probes(
        a,
        "SDM vol. 3A 2.5, 4.5, 5.10; vol. 2, MOV",
        &[
            ("CR3 with a bit beyond physical addresses", REFUSED, |a| {
                emit!(a; mov(rbx, cr3); mov(rax, rbx); bts(rax, 55); mov(cr3, rax); mov(cr3, rbx););
                Ok(())
            }),
            ("CR0.PG off in 64-bit mode", REFUSED, |a| {
                emit!(a; mov(rbx, cr0); mov(rax, rbx); btr(rax, 31); mov(cr0, rax); mov(cr0, rbx););
                Ok(())
            }),
            ("CR0 with a bit above 31", REFUSED, |a| {
                emit!(a; mov(rbx, cr0); mov(rax, rbx); bts(rax, 32); mov(cr0, rax); mov(cr0, rbx););
                Ok(())
            }),
            ("CR0.PE off", REFUSED, |a| {
                emit!(a; mov(rbx, cr0); mov(rax, rbx); btr(rax, 0); mov(cr0, rax); mov(cr0, rbx););
                Ok(())
            }),
        ],
    )
}
