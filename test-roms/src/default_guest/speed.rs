//! Instructions per second, in the guest's time.

use iced_x86::code_asm::*;

use super::console::{PLAIN, YELLOW, report, say};
use super::memory::*;
use super::timers::PIT_HZ;
use crate::rom::{Emit, Section, emit};

/// The PIT counts of one batch: above this, iterations are enough for a measurement. Doubling then
/// stays well below the 65536 at which the counter wraps.
const ENOUGH: i32 = 8192;
const FIRST_ITERATIONS: u32 = 0x200;
const MOST_ITERATIONS: i32 = 1 << 30;
const BATCHES: u32 = 16;

/// `report_speed`.
pub(super) fn emit(a: &mut Section<'_>) -> Emit {
    let per_iteration = emit_batch(a)?;
    emit!(a; at("report_speed"); push(rbx); push(rbp); push(r12););
    report(a, "speed", YELLOW)?;
    emit!(a;
        mov(ebx, FIRST_ITERATIONS);
        at(".longer");
        mov(ecx, ebx);
        call -> "batch";
        cmp(eax, ENOUGH);
        jae -> ".measure";
        shl(ebx, 1);
        cmp(ebx, MOST_ITERATIONS);
        jb -> ".longer";
    );
    say(a, &format!("PIT channel 2 does not count{PLAIN}\n"))?;
    emit!(a;
        jmp -> ".end";

        at(".measure");
        mov(ebp, BATCHES);
        xor(r12d, r12d);
        at(".batch");
        mov(ecx, ebx);
        call -> "batch";
        add(r12d, eax);
        dec(ebp);
        jnz -> ".batch";
        // Instructions * counts a second / counts / 10^6.
        mov(eax, ebx);
        imul_3(rax, rax, (per_iteration as u32 * BATCHES) as i32);
        mov(ecx, PIT_HZ);
        mul(rcx);
        div(r12);
        xor(edx, edx);
        mov(ecx, 1_000_000);
        div(rcx);
        call -> "put_decimal";
    );
    say(a, &format!(" million instructions per second{PLAIN} (guest time)\n"))?;
    emit!(a;
        at(".end");
        pop(r12);
        pop(rbp);
        pop(rbx);
        ret();
    );
    Ok(())
}

/// `batch`: runs the loop ECX times; EAX: PIT counts that it took. Returns how many instructions
/// an iteration has.
///
/// Channel 2 counts down from FFFF in mode 0, its gate on and the speaker off (port 61h). Mode 0
/// starts on the write of the count's second byte, and the latch command freezes what is read.
fn emit_batch(a: &mut Section<'_>) -> Emit<usize> {
    emit!(a;
        at("batch");
        push(rbx);
        mov(ebx, SPEED_DATA);
        mov(esi, 0x1234_5678);
        cli();
        inb(0x61);
        and(al, 0xFC);
        or(al, 1);
        out(dx, al);
        outb(0x43, 0xB0);
        outb(0x42, 0xFF);
        outb(0x42, 0xFF);
    );
    let before = a.instruction_count();
    emit_loop(a)?;
    let per_iteration = a.instruction_count() - before;
    emit!(a;
        outb(0x43, 0x80);
        inb(0x42);
        mov(cl, al);
        in_(al, dx);
        mov(ch, al);
        sti();
        movzx(eax, cx);
        xor(eax, 0xFFFF);
        pop(rbx);
        ret();
    );
    Ok(per_iteration)
}

/// What compiled code does: loads, stores, arithmetic, a call, branches taken and not taken.
fn emit_loop(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at(".loop");
        mov(rax, qword_ptr(rbx));
        add(rax, rsi);
        mov(rdx, rax);
        shr(rdx, 7);
        xor(rsi, rdx);
        lea(rdi, ptr(rsi + rax * 4 + 17));
        mov(qword_ptr(rbx), rdi);
        movzx(eax, byte_ptr(rbx + 3));
        imul_2(rsi, rax);
        and(eax, 0x38);
        add(dword_ptr(rbx + rax), edi);
        cmp(edi, esi);
        cmovb(rsi, rdi);
        test(rbx, rbx);
        jz -> ".loop";
        dec(ecx);
        jnz -> ".loop";
    );
    Ok(())
}
