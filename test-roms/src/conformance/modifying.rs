//! Self-modifying code: an IA-32 processor executes what was written, from the next instruction on
//! (SDM vol. 3A, 10.6 and 9.1.3: same linear address), whoever wrote it and by whatever address.

use iced_x86::code_asm::*;

use super::Rom;
use super::kit::{self, Kit, SCRATCH};
use crate::rom::{Emit, emit};

const SOURCE: &str = "SDM vol. 3A 10.1.3, 13.6";
/// Two pages of code.
const CODE: u32 = SCRATCH + 0x4000;
const RIGHT: u32 = 0x5a;

const MOV_AL: u8 = 0xb0;
const RET: u8 = 0xc3;
const NOP: u8 = 0x90;

pub(super) fn rom() -> Emit<Rom> {
    kit::rom("modifying", "code that changes itself", &[], |a| {
        stores(a)?;
        loops(a)?;
        a.value("REP MOVSB over code that has run", SOURCE, [RIGHT, 0xff], |a| {
            code(a, CODE, &[MOV_AL, 0, RET])?;
            call(a)?;
            code(a, CODE + 0x100, &[MOV_AL, RIGHT as u8, RET])?;
            emit!(a; mov(esi, CODE + 0x100); mov(edi, CODE); mov(ecx, 3););
            a.rep().movsb()?;
            call(a)
        })?;
        a.value("XCHG over code that has run", SOURCE, [RIGHT, 0xff], |a| {
            code(a, CODE, &[MOV_AL, 0, RET])?;
            call(a)?;
            emit!(a; mov(cl, RIGHT); xchg(byte_ptr(CODE + 1), cl););
            call(a)
        })?;
        a.value("LOCK CMPXCHG over code that has run", SOURCE, [RIGHT, 0xff], |a| {
            code(a, CODE, &[MOV_AL, 0, RET])?;
            call(a)?;
            emit!(a; xor(eax, eax); mov(cl, RIGHT););
            a.lock().cmpxchg(byte_ptr(CODE + 1), cl)?;
            call(a)
        })?;
        a.value("PUSH over code that has run", SOURCE, [RIGHT, 0xff], |a| {
            code(a, CODE, &[MOV_AL, 0, RET, NOP])?;
            call(a)?;
            emit!(a;
                mov(ebp, esp);
                mov(esp, CODE + 4);
                push(u32::from_le_bytes([MOV_AL, RIGHT as u8, RET, NOP]));
                mov(esp, ebp);
            );
            call(a)
        })?;
        a.value(
            "an instruction across two pages, changed in the second",
            SOURCE,
            [RIGHT, 0xff],
            |a| {
                let at = CODE + 0xfff;
                code(a, at, &[MOV_AL, 0, RET])?;
                emit!(a; mov(ebx, at); call(ebx); mov(byte_ptr(at + 1), RIGHT); call(ebx););
                Ok(())
            },
        )?;
        alias(a)
    })
}

/// Writes bytes of code.
fn code(a: &mut Kit<'_, '_>, at: u32, bytes: &[u8]) -> Emit {
    for (at, &byte) in (at..).zip(bytes) {
        a.mov(byte_ptr(at), u32::from(byte))?;
    }
    Ok(())
}

fn call(a: &mut Kit<'_, '_>) -> Emit {
    emit!(a; mov(ebx, CODE); call(ebx););
    Ok(())
}

/// An instruction that changes a later one of the same straight run: the next, or one further on.
fn stores(a: &mut Kit<'_, '_>) -> Emit {
    for distance in [0usize, 1, 3, 40, 200] {
        // MOV byte [changed], RIGHT; NOPs; changed: MOV AL, 0; RET.
        let length = 7 + distance as u32;
        let changed = CODE + length + 1;
        let mut bytes = vec![0xc6, 0x05];
        bytes.extend(changed.to_le_bytes());
        bytes.push(RIGHT as u8);
        bytes.extend(vec![NOP; distance]);
        bytes.extend([MOV_AL, 0, RET]);
        for runs in 1..=2 {
            let name = format!("the instruction {distance} bytes further, run {runs}");
            a.value(name, SOURCE, [RIGHT, 0xff], |a| {
                if runs == 1 {
                    code(a, CODE, &bytes)?;
                } else {
                    code(a, CODE + length, &[MOV_AL, 0])?;
                }
                call(a)
            })?;
        }
    }
    Ok(())
}

/// A loop whose body is changed by its own second iteration: the iterations after it see it.
fn loops(a: &mut Kit<'_, '_>) -> Emit {
    const TIMES: u32 = 100;
    a.value(
        "a loop that increments its own addend",
        SOURCE,
        [TIMES * (TIMES - 1) / 2, u32::MAX],
        |a| {
            // ADD EAX, imm32 (05); INC dword [its operand]; LOOP to it; RET.
            let operand = (CODE + 1).to_le_bytes();
            let mut bytes = vec![0x05, 0, 0, 0, 0, 0xff, 0x05];
            bytes.extend(operand);
            bytes.extend([0xe2, 0xf3, RET]);
            code(a, CODE, &bytes)?;
            emit!(a; xor(eax, eax); mov(ecx, TIMES););
            call(a)
        },
    )?;
    a.value(
        "code that writes the code it calls, again and again",
        SOURCE,
        [TIMES * (TIMES + 1) / 2, u32::MAX],
        |a| {
            code(a, CODE, &[0x05, 0, 0, 0, 0, RET])?;
            let again = a.fresh("again");
            emit!(a;
                xor(eax, eax);
                mov(ecx, TIMES);
                mov(ebx, CODE);
                at(&again);
                mov(dword_ptr(CODE + 1), ecx);
                call(ebx);
                dec(ecx);
                jnz -> &again;
            );
            Ok(())
        },
    )
}

/// Code that is written by another linear address than it runs at: a jump in between is enough.
fn alias(a: &mut Kit<'_, '_>) -> Emit {
    const DIRECTORY: u32 = SCRATCH + 0x1_0000;
    const TABLE: u32 = DIRECTORY + 0x1000;
    const ALIAS: u32 = 0x30_0000;
    emit!(a;
        mov(edi, TABLE);
        mov(eax, 3);
        at("identity");
        stosd();
        add(eax, 0x1000);
        cmp(edi, TABLE + 0x1000);
        jb -> "identity";
        mov(dword_ptr(DIRECTORY), TABLE | 3);
        mov(dword_ptr(TABLE + 4 * (ALIAS >> 12)), CODE | 3);
        mov(eax, DIRECTORY);
        mov(cr3, eax);
        mov(eax, cr0);
        or(eax, 0x8000_0000u32);
        mov(cr0, eax);
    );
    a.value("code written through another linear address", SOURCE, [RIGHT, 0xff], |a| {
        code(a, CODE, &[MOV_AL, 0, RET])?;
        call(a)?;
        a.mov(byte_ptr(ALIAS + 1), RIGHT)?;
        call(a)
    })?;
    a.value("code run through another linear address", SOURCE, [RIGHT, 0xff], |a| {
        code(a, CODE, &[MOV_AL, 0, RET])?;
        emit!(a; mov(ebx, ALIAS); call(ebx); mov(byte_ptr(CODE + 1), RIGHT); call(ebx););
        Ok(())
    })?;
    a.value("another page mapped where code has run", SOURCE, [RIGHT, 0xff], |a| {
        code(a, CODE, &[MOV_AL, 0, RET])?;
        code(a, CODE + 0x1000, &[MOV_AL, RIGHT as u8, RET])?;
        emit!(a;
            mov(ebx, ALIAS);
            call(ebx);
            mov(dword_ptr(TABLE + 4 * (ALIAS >> 12)), (CODE + 0x1000) | 3);
            invlpg(ptr(ALIAS));
            call(ebx);
        );
        Ok(())
    })
}
