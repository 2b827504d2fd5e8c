//! Opcodes, prefixes, operand sizes, addresses and stacks of 64-bit code.

use iced_x86::code_asm::*;

use super::kit::{GDT, Kit, SCRATCH, SPARE};
use super::rules::{Code, WORD};
use super::{GP, UD};
use crate::conformance::exception;
use crate::conformance::features::{CMPXCHG16B, LAHF64};
use crate::rom::{Emit, emit};

pub(super) fn emit(a: &mut Kit<'_, '_>) -> Emit {
    gone(a)?;
    widths(a)?;
    decoding(a)
}

/// Opcodes that 64-bit mode does not have (SDM vol. 2, tables A-2 and B; 2.2.1.2).
fn gone(a: &mut Kit<'_, '_>) -> Emit {
    let list: &[(&str, &[u8])] = &[
        ("PUSH ES", &[0x06]),
        ("POP ES", &[0x07]),
        ("PUSH CS", &[0x0e]),
        ("PUSH SS", &[0x16]),
        ("POP SS", &[0x17]),
        ("PUSH DS", &[0x1e]),
        ("POP DS", &[0x1f]),
        ("DAA", &[0x27]),
        ("DAS", &[0x2f]),
        ("AAA", &[0x37]),
        ("AAS", &[0x3f]),
        ("PUSHA", &[0x60]),
        ("POPA", &[0x61]),
        ("BOUND", &[0x62, 0x07, 0x90, 0x90, 0x90, 0x90]),
        ("group 1 at 82h", &[0x82, 0xc0, 0x01]),
        ("CALL ptr16:32", &[0x9a, 0, 0, 0, 0, 8, 0]),
        ("JMP ptr16:32", &[0xea, 0, 0, 0, 0, 8, 0]),
        ("INTO", &[0xce]),
        ("AAM", &[0xd4, 0x0a]),
        ("AAD", &[0xd5, 0x0a]),
        ("SALC", &[0xd6]),
        ("LES", &[0xc4, 0x07, 0x90, 0x90, 0x90]),
        ("LDS", &[0xc5, 0x07, 0x90, 0x90, 0x90]),
        ("MOV to CR1", &[0x0f, 0x22, 0xc8]),
        ("MOV from CR9", &[0x44, 0x0f, 0x20, 0xc8]),
        ("MOV from DR8", &[0x44, 0x0f, 0x21, 0xc0]),
        ("LOCK NOP", &[0xf0, 0x90]),
        ("UD0", &[0x0f, 0xff, 0xc0]),
        ("UD1", &[0x0f, 0xb9, 0xc0]),
    ];
    for &(name, bytes) in list {
        a.probe(format!("{name} in 64-bit mode"), "SDM vol. 2 A.3", exception(UD, 0), |a| {
            emit!(a; mov(edi, SCRATCH););
            a.db(bytes)
        })?;
    }
    Ok(())
}

/// What 64-bit registers become when their parts are written (SDM vol. 1, 3.4.1.1).
fn widths(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 1 3.4.1.1, vol. 2 2.2.1";
    const ONES: u64 = u64::MAX;
    /// Name, code of what RAX = WORD becomes with RCX all ones, and that.
    type Row<'a> = (&'a str, &'a [u8], u64);
    let list: &[Row<'_>] = &[
        ("MOV EAX, ECX extends with zeros", &[0x89, 0xc8], 0xffff_ffff),
        ("MOV AX, CX keeps the rest", &[0x66, 0x89, 0xc8], WORD | 0xffff),
        ("MOV AL, CL keeps the rest", &[0x88, 0xc8], WORD | 0xff),
        ("MOV AH, CL keeps the rest", &[0x88, 0xcc], WORD | 0xff00),
        ("NOP keeps RAX", &[0x90], WORD),
        ("XCHG EAX, EAX by 87h extends", &[0x87, 0xc0], WORD & 0xffff_ffff),
        ("REX NOP keeps RAX", &[0x40, 0x90], WORD),
        ("MOVSXD RAX, ECX", &[0x48, 0x63, 0xc1], ONES),
        ("63h without REX.W copies 32 bits", &[0x63, 0xc1], 0xffff_ffff),
        ("MOVZX EAX, CL", &[0x0f, 0xb6, 0xc1], 0xff),
        ("MOVSX EAX, CL", &[0x0f, 0xbe, 0xc1], 0xffff_ffff),
        ("MOVSX RAX, CX", &[0x48, 0x0f, 0xbf, 0xc1], ONES),
        ("CDQE", &[0x48, 0x98], 0x5566_7788),
        ("CWDE", &[0x98], 0x7788),
        ("CBW", &[0x66, 0x98], 0x1122_3344_5566_ff88),
        ("BSWAP EAX", &[0x0f, 0xc8], 0x8877_6655),
        ("BSWAP RAX", &[0x48, 0x0f, 0xc8], 0x8877_6655_4433_2211),
        ("CMOVC EAX, ECX that does not move extends", &[0xf8, 0x0f, 0x42, 0xc1], 0x5566_7788),
        ("CMOVC AX, CX that does not move", &[0xf8, 0x66, 0x0f, 0x42, 0xc1], WORD),
        ("CMPXCHG ECX, EDX loads EAX", &[0x31, 0xd2, 0x0f, 0xb1, 0xd1], 0xffff_ffff),
        ("XADD RAX, RCX", &[0x48, 0x0f, 0xc1, 0xc8], WORD.wrapping_sub(1)),
        ("INC EAX extends", &[0xff, 0xc0], 0x5566_7789),
        ("a REX behind which comes a prefix is ignored", &[0x48, 0x66, 0x89, 0xc8], WORD | 0xffff),
        ("REX.W before 66h wins", &[0x66, 0x48, 0x89, 0xc8], ONES),
        ("SHL RAX, 65 shifts by one", &[0x48, 0xc1, 0xe0, 65], WORD << 1),
        ("SHL EAX, 33 shifts by one", &[0xc1, 0xe0, 33], 0xaacc_ef10),
        ("SHL EAX, 32 shifts by none and extends", &[0xc1, 0xe0, 32], 0x5566_7788),
        ("MOV AL, SPL by REX", &[0x48, 0x89, 0xcc, 0x40, 0x88, 0xe0], WORD | 0xff),
        ("MOV AL, AH without REX", &[0x88, 0xe0], WORD & !0xff | 0x77),
        ("MOV AL, SIL", &[0x48, 0x89, 0xce, 0x40, 0x88, 0xf0], WORD | 0xff),
        ("XOR EAX, EAX", &[0x31, 0xc0], 0),
        ("IMUL EAX, ECX, 2", &[0x6b, 0xc1, 2], 0xffff_fffe),
        ("MOVSX by 8-bit immediate: OR RAX, -1", &[0x48, 0x83, 0xc8, 0xff], ONES),
        ("MOV EAX, imm32", &[0xb8, 1, 2, 3, 0x84], 0x8403_0201),
        (
            "MOV RAX, imm32 extends the sign",
            &[0x48, 0xc7, 0xc0, 1, 2, 3, 0x84],
            0xffff_ffff_8403_0201,
        ),
        ("SETC AL", &[0xf9, 0x0f, 0x92, 0xc0], WORD & !0xff | 1),
        ("SMSW EAX", &[0x31, 0xc0, 0x0f, 0x01, 0xe0, 0x83, 0xe0, 1], 1),
        ("LOOP counts RCX: 2^64-1 goes on", &[0xe2, 0x02, 0x31, 0xc0], WORD),
        ("LOOP by 67h counts ECX", &[0xb9, 1, 0, 0, 0, 0x67, 0xe2, 0x02, 0x31, 0xc0], 0),
        ("JECXZ looks at 32 bits", &[0x48, 0xc1, 0xe1, 32, 0x67, 0xe3, 0x02, 0x31, 0xc0], WORD),
        ("JRCXZ looks at 64 bits", &[0x48, 0xc1, 0xe1, 32, 0xe3, 0x02, 0x31, 0xc0], 0),
    ];
    for &(name, bytes, expected) in list {
        a.value(name, SOURCE, [expected, u64::MAX], |a| {
            emit!(a; mov(rbx, rsp); mov(rax, WORD); mov(rcx, u64::MAX););
            a.db(bytes)?;
            a.mov(rsp, rbx)
        })?;
    }
    a.need(&[LAHF64]);
    a.value("SAHF and LAHF in 64-bit mode", "SDM vol. 2, LAHF", [0xd700, 0xff00], |a| {
        emit!(a; mov(eax, 0xff00u32); sahf(); mov(eax, 0u32); lahf(););
        Ok(())
    })?;
    a.need(&[]);
    Ok(())
}

/// Addresses and stacks.
fn decoding(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 2 2.2.1, vol. 1 6.2";
    emit!(a; mov(rax, WORD); mov(qword_ptr(SCRATCH), rax););
    let read = |a: &mut Kit<'_, '_>, name: &str, code: Code| {
        a.value(name, SOURCE, [WORD, u64::MAX], |a| {
            emit!(a; mov(rbx, (1u64 << 32) + u64::from(SCRATCH)); mov(edi, SCRATCH); xor(eax, eax););
            code(a)
        })
    };
    read(a, "67h cuts an address to 32 bits", |a| a.db(&[0x67, 0x48, 0x8b, 0x03]))?;
    read(a, "SIB without base or index is absolute", |a| {
        a.db(&[0x48, 0x8b, 0x04, 0x25])?;
        a.db(&SCRATCH.to_le_bytes())
    })?;
    read(a, "MOV RAX, moffs64", |a| {
        a.db(&[0x48, 0xa1])?;
        a.db(&u64::from(SCRATCH).to_le_bytes())
    })?;
    read(a, "MOV RAX, moffs32 by 67h", |a| {
        a.db(&[0x67, 0x48, 0xa1])?;
        a.db(&SCRATCH.to_le_bytes())
    })?;
    read(a, "R12 as a base", |a| {
        emit!(a; mov(r12, rdi); mov(rax, qword_ptr(r12)););
        Ok(())
    })?;
    read(a, "R13 as a base", |a| {
        emit!(a; mov(r13, rdi); mov(rax, qword_ptr(r13)););
        Ok(())
    })?;
    read(a, "R12 as an index", |a| {
        emit!(a; mov(r12, rdi); shr(r12, 3); xor(ebx, ebx); mov(rax, qword_ptr(rbx + r12 * 8)););
        Ok(())
    })?;
    let stack = |a: &mut Kit<'_, '_>, name: &str, code: Code, expected: i64| {
        a.value(format!("{name}: RSP"), SOURCE, [expected as u64, u64::MAX], |a| {
            emit!(a; mov(rbx, rsp); mov(rbp, rsp););
            code(a)?;
            emit!(a; mov(rax, rsp); sub(rax, rbx); mov(rsp, rbx););
            Ok(())
        })
    };
    stack(a, "PUSH RAX", |a| a.push(rax), -8)?;
    stack(a, "PUSH AX", |a| a.push(ax), -2)?;
    stack(a, "PUSH imm8", |a| a.push(1), -8)?;
    stack(a, "PUSH imm16", |a| a.db(&[0x66, 0x6a, 1]), -2)?;
    stack(a, "PUSH FS", |a| a.push(fs), -8)?;
    stack(a, "PUSHFQ", |a| a.pushfq(), -8)?;
    stack(a, "ENTER 16, 0", |a| a.enter(16, 0), -24)?;
    stack(a, "ENTER 16, 2", |a| a.enter(16, 2), -40)?;
    a.value("PUSH imm8 extends the sign", SOURCE, [u64::MAX, u64::MAX], |a| {
        emit!(a; push(-1); pop(rax););
        Ok(())
    })?;
    a.value("PUSH GS extends with zeros", SOURCE, [0, !0], |a| {
        emit!(a; xor(eax, eax); mov(gs, eax); mov(qword_ptr(rsp - 8), -1); push(gs); pop(rax););
        Ok(())
    })?;
    a.value("POP of memory addresses with the new RSP", SOURCE, [7, !0], |a| {
        emit!(a; push(7); push(7); pop(qword_ptr(rsp - 8)); mov(rax, qword_ptr(rsp - 8)); pop(rcx););
        Ok(())
    })?;
    a.value("SGDT writes 8 bytes of base", "SDM vol. 2, SGDT", [GDT.into(), !0], |a| {
        emit!(a;
            mov(rax, u64::MAX);
            mov(qword_ptr(SPARE + 2), rax);
            sgdt(ptr(SPARE));
            mov(rax, qword_ptr(SPARE + 2));
        );
        Ok(())
    })?;
    a.need(&[CMPXCHG16B]);
    a.probe(
        "CMPXCHG16B of a misaligned operand",
        "SDM vol. 2, CMPXCHG16B",
        exception(GP, 0),
        |a| {
            emit!(a; mov(edi, SCRATCH); cmpxchg16b(xmmword_ptr(rdi + 8)););
            Ok(())
        },
    )?;
    a.value("CMPXCHG16B that is equal", "SDM vol. 2, CMPXCHG16B", [0x5_0000_0001, !0], |a| {
        emit!(a;
            mov(edi, SCRATCH);
            mov(rax, WORD);
            mov(qword_ptr(rdi), rax);
            mov(qword_ptr(rdi + 8), 9);
            mov(edx, 9);
            mov(ebx, 1);
            mov(ecx, 5);
            cmpxchg16b(xmmword_ptr(rdi));
            setz(al);
            movzx(eax, al);
            and(rax, qword_ptr(rdi));
            mov(rcx, qword_ptr(rdi + 8));
            shl(rcx, 32);
            or(rax, rcx);
        );
        Ok(())
    })?;
    a.value("CMPXCHG16B that differs", "SDM vol. 2, CMPXCHG16B", [WORD, !0], |a| {
        emit!(a;
            mov(edi, SCRATCH);
            mov(rax, WORD);
            mov(qword_ptr(rdi), rax);
            mov(qword_ptr(rdi + 8), 9);
            mov(edx, 8);
            cmpxchg16b(xmmword_ptr(rdi));
            mov(ecx, 0u32);
            cmovz(rax, rcx);
            cmp(rdx, 9);
            cmovne(rax, rcx);
        );
        Ok(())
    })?;
    a.need(&[]);
    Ok(())
}
