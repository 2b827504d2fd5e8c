//! From 64-bit mode to real mode and back, through every mode on the way, and what CR0, CR4 and
//! EFER say of each.

use iced_x86::code_asm::*;

use super::GP;
use super::kit::{
    self, About, CODE0, COMPAT0, CR0_PG, CR4_PAE, DATA0, EFER, Kit, OUTCOME, REAL_DATA, REAL0,
    SCRATCH, SPARE,
};
use crate::conformance::features::{LA57, PSE, PSE36};
use crate::conformance::{NOTHING, Rom, exception};
use crate::rom::{Emit, ROM_BASE, emit};

const SOURCE: &str = "SDM vol. 3A 10.8.5, 10.9";
/// EFER's bits.
const SCE: u32 = 1;
const LME: u32 = 1 << 8;
const LMA: u32 = 1 << 10;
const NXE: u32 = 1 << 11;
const CR4_PSE: u32 = 1 << 4;
/// Tables for paging without long mode: a directory of 4 MiB pages, pointers of PAE.
const LEGACY_DIRECTORY: u32 = SCRATCH + 0x1000;
const PAE_POINTERS: u32 = SCRATCH + 0x2000;
/// The second page of 4 MiB.
const SECOND_PAGE: u32 = 0x40_0000;
/// What every mode reads.
const FLAT_READ: u32 = SCRATCH + 0x100;

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    let about = About {
        name: "modes",
        about: "switches between real, protected, PAE, compatibility and 64-bit mode",
        needs: &[PSE],
        five_levels: false,
    };
    kit::rom(about, |a| {
        round(a)?;
        refused(a)
    })
}

/// EFER's low half to a slot of [`SPARE`]; the same bytes in 32-bit and 16-bit code, with the
/// prefix.
fn note_efer(b: &mut CodeAssembler, slot: u32) -> Emit {
    emit!(b; mov(ecx, EFER); rdmsr(); mov(dword_ptr(SPARE + 4 * slot), eax););
    Ok(())
}

/// From 64-bit code to 32-bit code of compatibility mode, with flat segments.
fn descend(a: &mut Kit<'_, '_>, code: impl FnOnce(&mut CodeAssembler) -> Emit) -> Emit {
    const RETFQ: &[u8] = &[0x48, 0xcb];
    let down = a.fresh("down");
    emit!(a;
        push(i32::from(COMPAT0));
        lea(rax) -> &down;
        push(rax);
        db(RETFQ);
        at(&down);
    );
    a.bits(32, |b| {
        emit!(b; mov(eax, u32::from(DATA0)); mov(ds, eax); mov(es, eax); mov(ss, eax););
        code(b)
    })
}

/// Down to real mode and up again.
fn round(a: &mut Kit<'_, '_>) -> Emit {
    let labels = ["flat16", "real", "up", "long"].map(|label| a.fresh(label));
    let [flat16, real, up, long] = labels.each_ref().map(|label| a.address_of(label));
    emit!(a;
        mov(dword_ptr(FLAT_READ), 0x600d);
        mov(dword_ptr(LEGACY_DIRECTORY), kit::LARGE | kit::WRITABLE | kit::PRESENT);
        // With bit 13, the second page lies behind 4 GiB, and not where RAM has this.
        mov(dword_ptr(LEGACY_DIRECTORY + 4), 1 << 13 | kit::LARGE | kit::WRITABLE | kit::PRESENT);
        mov(dword_ptr(SECOND_PAGE), 0x600d);
        mov(dword_ptr(PAE_POINTERS), kit::DIRECTORY | kit::PRESENT);
    );
    descend(a, |b| {
        note_efer(b, 0)?;
        // Paging off: protected mode, and EFER.LMA goes by itself.
        emit!(b; mov(eax, cr0); btr(eax, 31); mov(cr0, eax););
        note_efer(b, 1)?;
        // PAE paging without long mode.
        emit!(b; mov(ecx, EFER); rdmsr(); and(eax, !LME); wrmsr(););
        emit!(b; mov(eax, PAE_POINTERS); mov(cr3, eax); mov(eax, cr0); bts(eax, 31); mov(cr0, eax););
        note_efer(b, 2)?;
        emit!(b; mov(eax, dword_ptr(FLAT_READ)); mov(dword_ptr(SPARE + 12), eax););
        // PAE may go while paging is on, out of long mode: 4 MiB pages of two levels.
        emit!(b; mov(eax, cr0); btr(eax, 31); mov(cr0, eax););
        emit!(b; mov(eax, cr4); and(eax, !CR4_PAE); or(eax, CR4_PSE); mov(cr4, eax););
        emit!(b; mov(eax, LEGACY_DIRECTORY); mov(cr3, eax); mov(eax, cr0); bts(eax, 31); mov(cr0, eax););
        emit!(b; mov(eax, dword_ptr(FLAT_READ)); mov(dword_ptr(SPARE + 16), eax););
        emit!(b;
            xor(ecx, ecx);
            cmp(dword_ptr(SECOND_PAGE), 0x600d);
            setz(cl);
            mov(dword_ptr(SPARE + 36), ecx);
        );
        emit!(b; mov(eax, cr0); btr(eax, 31); mov(cr0, eax););
        far_jump(b, REAL0, flat16.wrapping_sub(ROM_BASE))
    })?;
    a.at(&labels[0])?;
    a.bits(16, |b| {
        emit!(b; mov(eax, u32::from(REAL_DATA)); mov(ds, eax); mov(es, eax); mov(ss, eax););
        emit!(b; mov(eax, cr0); and(eax, !1); mov(cr0, eax););
        far_jump16(b, 0xf000, real.wrapping_sub(ROM_BASE))
    })?;
    a.at(&labels[1])?;
    a.bits(16, |b| {
        // A segment is its selector times 16, and SP has 16 bits.
        emit!(b;
            mov(eax, SCRATCH / 16);
            mov(ds, eax);
            movzx(ecx, word_ptr(0x100));
            mov(eax, SCRATCH / 16 + 1);
            mov(ss, eax);
            mov(esp, 0xff0u32);
            push(cx);
            pop(dx);
            xor(eax, eax);
            mov(ds, eax);
            mov(dword_ptr(SPARE + 20), edx);
            mov(eax, cr0);
            mov(dword_ptr(SPARE + 24), eax);
        );
        emit!(b; mov(eax, cr0); or(eax, 1); mov(cr0, eax););
        far_jump16_32(b, COMPAT0, up)
    })?;
    a.at(&labels[2])?;
    a.bits(32, |b| {
        emit!(b; mov(eax, u32::from(DATA0)); mov(ds, eax); mov(es, eax); mov(ss, eax););
        emit!(b; mov(eax, cr4); and(eax, !CR4_PSE); or(eax, CR4_PAE); mov(cr4, eax););
        emit!(b; mov(eax, kit::PML4); mov(cr3, eax););
        emit!(b; mov(ecx, EFER); rdmsr(); or(eax, LME); wrmsr(););
        note_efer(b, 7)?;
        emit!(b; mov(eax, cr0); bts(eax, 31); mov(cr0, eax););
        // Compatibility mode at once.
        note_efer(b, 8)?;
        far_jump(b, CODE0, long)
    })?;
    emit!(a; at(&labels[3]); mov(eax, u32::from(DATA0)); mov(ss, eax); mov(rsp, u64::from(kit::STACK)););
    for (name, slot, expected) in [
        ("EFER in compatibility mode", 0, SCE | LME | LMA | NXE),
        ("EFER with paging off", 1, SCE | LME | NXE),
        ("EFER with PAE paging out of long mode", 2, SCE | NXE),
        ("a read with PAE paging", 3, 0x600d),
        ("a read with 4 MiB pages", 4, 0x600d),
        ("a read in real mode", 5, 0x600d),
        ("CR0.PG and PE in real mode", 6, 0),
        ("EFER with LME before paging", 7, SCE | LME | NXE),
        ("EFER in long mode again", 8, SCE | LME | LMA | NXE),
    ] {
        let mask = if slot == 6 { CR0_PG | 1 } else { u32::MAX };
        a.value(name, SOURCE, [expected, mask].map(u64::from), |a| {
            a.mov(eax, dword_ptr(SPARE + 4 * slot))
        })?;
    }
    a.need(&[PSE36]);
    a.value("a page of 4 MiB behind 4 GiB is not RAM", SOURCE, [0, u64::MAX], |a| {
        a.mov(eax, dword_ptr(SPARE + 36))
    })?;
    a.need(&[]);
    a.value("64-bit registers in long mode again", SOURCE, [1 << 40, !0], |a| {
        emit!(a; mov(eax, 1u32); shl(rax, 40););
        Ok(())
    })
}

/// `JMP ptr16:32` of 32-bit code.
fn far_jump(b: &mut CodeAssembler, selector: u16, offset: u32) -> Emit {
    b.db(&[&[0xea], offset.to_le_bytes().as_slice(), &selector.to_le_bytes()].concat())
}

/// `JMP ptr16:16` of 16-bit code.
fn far_jump16(b: &mut CodeAssembler, selector: u16, offset: u32) -> Emit {
    b.db(&[&[0xea], (offset as u16).to_le_bytes().as_slice(), &selector.to_le_bytes()].concat())
}

/// `JMP ptr16:32` of 16-bit code.
fn far_jump16_32(b: &mut CodeAssembler, selector: u16, offset: u32) -> Emit {
    b.db(&[0x66])?;
    far_jump(b, selector, offset)
}

/// Ways into long mode that are closed (SDM vol. 2, MOV to control registers). Each is tried in
/// protected mode without paging, with an IDT of its own whose one handler notes #GP.
fn refused(a: &mut Kit<'_, '_>) -> Emit {
    type Try = fn(&mut CodeAssembler) -> Emit;
    let list: &[(&str, Try, u32)] = &[
        (
            "paging with LME but without PAE",
            |b| {
                emit!(b; mov(eax, cr4); and(eax, !CR4_PAE); mov(cr4, eax); mov(eax, cr0); bts(eax, 31); mov(cr0, eax););
                Ok(())
            },
            exception(GP, 0),
        ),
        (
            "CR4.PAE and the rest as it should be",
            |b| {
                emit!(b; mov(eax, cr4); or(eax, CR4_PAE); mov(cr4, eax););
                Ok(())
            },
            NOTHING,
        ),
        (
            "CR4.PCIDE out of long mode",
            |b| {
                emit!(b; mov(eax, cr4); bts(eax, 17); mov(cr4, eax););
                Ok(())
            },
            exception(GP, 0),
        ),
    ];
    for &(name, code, expected) in list {
        try_without_paging(a, name, expected, code)?;
    }
    a.need(&[LA57]);
    try_without_paging(a, "CR4.LA57 out of long mode", NOTHING, |b| {
        emit!(b; mov(eax, cr4); bts(eax, 12); mov(cr4, eax); btr(eax, 12); mov(cr4, eax););
        Ok(())
    })?;
    a.need(&[]);
    Ok(())
}

/// Executes `attempt` in protected mode without paging but with LME, and reports whether it raises
/// #GP.
fn try_without_paging(
    a: &mut Kit<'_, '_>,
    name: &str,
    expected: u32,
    attempt: impl FnOnce(&mut CodeAssembler) -> Emit,
) -> Emit {
    const IDT32: u32 = SCRATCH + 0x3000;
    const TABLES: u32 = SCRATCH + 0x3800;
    let labels = ["fault", "resume", "back"].map(|label| a.fresh(label));
    let [fault, resume, back] = labels.each_ref().map(|label| a.address_of(label));
    let gate = crate::conformance::kit::gate(COMPAT0, fault, 0x8e, 0);
    emit!(a;
        mov(dword_ptr(OUTCOME), 0);
        mov(dword_ptr(IDT32 + 8 * u32::from(GP)), gate as u32);
        mov(dword_ptr(IDT32 + 8 * u32::from(GP) + 4), (gate >> 32) as u32);
        sidt(ptr(TABLES));
        mov(word_ptr(TABLES + 16), 0xff);
        mov(dword_ptr(TABLES + 18), IDT32);
    );
    descend(a, |b| {
        emit!(b;
            mov(esp, kit::USER_STACK);
            mov(eax, cr0);
            btr(eax, 31);
            mov(cr0, eax);
            lidt(ptr(TABLES + 16));
        );
        attempt(b)?;
        far_jump(b, COMPAT0, resume)
    })?;
    a.at(&labels[0])?;
    a.bits(32, |b| {
        emit!(b; pop(eax); add(eax, exception(GP, 0)); mov(dword_ptr(OUTCOME), eax););
        Ok(())
    })?;
    a.at(&labels[1])?;
    a.bits(32, |b| {
        emit!(b;
            mov(eax, cr4);
            or(eax, CR4_PAE);
            mov(cr4, eax);
            mov(eax, cr0);
            bts(eax, 31);
            mov(cr0, eax);
        );
        far_jump(b, CODE0, back)
    })?;
    emit!(a;
        at(&labels[2]);
        mov(eax, u32::from(DATA0));
        mov(ss, eax);
        mov(rsp, u64::from(kit::STACK));
        lidt(ptr(TABLES));
    );
    a.probe_ended(name, SOURCE, expected)
}
