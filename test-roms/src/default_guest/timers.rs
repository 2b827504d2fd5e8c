//! Interrupts from the PIT, the RTC and the local APIC timer, counted against each other.

use iced_x86::code_asm::*;

use super::console::{report, say};
use super::interrupts::{APIC, APIC_TIMER_VECTOR, RTC_VECTOR, TIMER_VECTOR};
use super::memory::*;
use crate::rom::{Emit, Section, emit};

/// The 8254's input, Hz.
pub(super) const PIT_HZ: u32 = 1_193_182;
const TICKS_PER_SECOND: u32 = 100;
/// How long each timer is counted.
const TICKS: u32 = 10;
const CALIBRATION_TICKS: u32 = 5;

pub(super) const MASTER_MASK: u16 = 0x21;
const SLAVE_MASK: u16 = 0xA1;
/// Bits 0 (PIT), 2 (cascade), 4 (COM1) of the mask clear; without the PIT when idle.
pub(super) const MASK_TIMING: u8 = !(1 | 1 << 2 | 1 << 4);
pub(super) const MASK_IDLE: u8 = !(1 << 2 | 1 << 4);
const MASK_RTC: u8 = !1;

const LVT_TIMER: u32 = 0x320;
const LVT_MASKED: u32 = 1 << 16;
const LVT_PERIODIC: u32 = 1 << 17;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3E0;
const DIVIDE_BY_16: u32 = 3;

const fn count_of(vector: u8) -> u32 {
    COUNTS + vector as u32 * 8
}

/// `test_timers`.
pub(super) fn emit(a: &mut Section<'_>) -> Emit {
    emit!(a; at("test_timers"); push(rbx); push(rbp););
    emit_pit(a)?;
    emit_rtc(a)?;
    emit_apic(a)?;
    emit!(a;
        at("test_timers.end");
        outb(MASTER_MASK, MASK_IDLE);
        pop(rbp);
        pop(rbx);
        ret();
    );
    emit_wait(a)
}

/// Counts a vector's interrupts during [`TICKS`] and prints how many there were.
fn emit_count(a: &mut Section<'_>, vector: u8) -> Emit {
    emit!(a;
        mov(rbx, qword_ptr(count_of(vector)));
        mov(ecx, TICKS);
        call -> "wait_ticks";
        mov(rax, qword_ptr(count_of(vector)));
        sub(rax, rbx);
        call -> "put_decimal";
    );
    say(a, " interrupts")
}

fn emit_pit(a: &mut Section<'_>) -> Emit {
    let [divisor_low, divisor_high, ..] = (PIT_HZ / TICKS_PER_SECOND).to_le_bytes();
    report(a, "PIT", "IRQ 0 at 100 Hz: ")?;
    emit!(a;
        // Channel 0, both bytes, mode 2.
        outb(0x43, 0x34);
        outb(0x40, divisor_low);
        outb(0x40, divisor_high);
        outb(MASTER_MASK, MASK_TIMING);
    );
    emit_count(a, TIMER_VECTOR)?;
    say(a, " taken\n")
}

/// The RTC's periodic interrupt (MC146818: rate in register A, PIE in B, flags in C).
fn emit_rtc(a: &mut Section<'_>) -> Emit {
    let (rate_1024, pie) = (0x26, 0x40);
    report(a, "RTC", "IRQ 8 at 1024 Hz: ")?;
    emit!(a;
        outb(0x70, 0x0A);
        outb(0x71, rate_1024);
        outb(0x70, 0x0B);
        inb(0x71);
        or(al, pie);
        out(dx, al);
        outb(0x70, 0x0C);
        inb(0x71);
        outb(SLAVE_MASK, MASK_RTC);
        mov(ecx, 1);
        call -> "wait_ticks";
    );
    emit_count(a, RTC_VECTOR)?;
    emit!(a;
        outb(SLAVE_MASK, 0xFF);
        outb(0x70, 0x0B);
        inb(0x71);
        and(al, !pie);
        out(dx, al);
    );
    say(a, " in 100 ms\n")
}

/// Its counter's frequency against the PIT, then 1000 interrupts a second.
fn emit_apic(a: &mut Section<'_>) -> Emit {
    emit!(a;
        cmp(qword_ptr(APIC_HZ), 0);
        je -> "test_timers.end";
    );
    report(a, "APIC timer", "")?;
    emit!(a;
        mov(ebp, APIC);
        mov(dword_ptr(rbp + LVT_TIMER), LVT_MASKED);
        mov(dword_ptr(rbp + DIVIDE), DIVIDE_BY_16);
        mov(ecx, 1);
        call -> "wait_ticks";
        mov(dword_ptr(rbp + INITIAL_COUNT), u32::MAX);
        mov(ecx, CALIBRATION_TICKS);
        call -> "wait_ticks";
        mov(ebx, u32::MAX);
        sub(ebx, dword_ptr(rbp + CURRENT_COUNT));
        // Counts in 50 ms, by 16: counts a second are 20 times as many, the input 320 times.
        imul_3(rax, rbx, (16 * TICKS_PER_SECOND / CALIBRATION_TICKS) as i32);
        mov(qword_ptr(APIC_HZ), rax);
        add(rax, 500_000);
        xor(edx, edx);
        mov(ecx, 1_000_000);
        div(rcx);
        call -> "put_decimal";
    );
    say(a, " MHz by the PIT; at 1000 Hz: ")?;
    emit!(a;
        mov(eax, ebx);
        xor(edx, edx);
        mov(ecx, 1000 * CALIBRATION_TICKS / TICKS_PER_SECOND);
        div(ecx);
        mov(dword_ptr(rbp + LVT_TIMER), LVT_PERIODIC | u32::from(APIC_TIMER_VECTOR));
        mov(dword_ptr(rbp + INITIAL_COUNT), eax);
    );
    emit_count(a, APIC_TIMER_VECTOR)?;
    emit!(a;
        mov(dword_ptr(rbp + LVT_TIMER), LVT_MASKED);
        mov(dword_ptr(rbp + INITIAL_COUNT), 0);
    );
    say(a, " in 100 ms\n")
}

/// `wait_ticks`: halts until the PIT has interrupted ECX times.
fn emit_wait(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("wait_ticks");
        mov(rax, qword_ptr(count_of(TIMER_VECTOR)));
        add(rax, rcx);
        at(".again");
        cli();
        cmp(qword_ptr(count_of(TIMER_VECTOR)), rax);
        jae -> ".done";
        // No interrupt comes between these two, so none is missed.
        sti();
        hlt();
        jmp -> ".again";
        at(".done");
        sti();
        ret();
    );
    Ok(())
}
