//! The IDT, the interrupt controllers and what every interrupt does.

use iced_x86::code_asm::*;

use super::console::{UART, report, say};
use super::memory::*;
use crate::rom::tables::{self, interrupt_gate};
use crate::rom::{Emit, Placed, Section, emit};

pub(super) const IDT_SIZE: usize = 256 * 16;

/// Vectors of the master 8259's first input and of the slave's.
pub(super) const IRQ_BASE: u8 = 0x20;
pub(super) const IRQ8_BASE: u8 = IRQ_BASE + 8;
pub(super) const TIMER_VECTOR: u8 = IRQ_BASE;
pub(super) const UART_VECTOR: u8 = IRQ_BASE + 4;
pub(super) const RTC_VECTOR: u8 = IRQ8_BASE;
pub(super) const APIC_TIMER_VECTOR: u8 = 0x40;
pub(super) const APIC_SPURIOUS_VECTOR: u8 = 0xFF;

const MASTER: u16 = 0x20;
const SLAVE: u16 = 0xA0;
const END_OF_INTERRUPT: u8 = 0x20;
const READ_IN_SERVICE: u8 = 0x0B;

/// The local APIC's registers (SDM vol. 3A §12.4.1), at their reset address.
pub(super) const APIC: u32 = 0xFEE0_0000;
const APIC_EOI: u32 = 0xB0;
const APIC_SPURIOUS: u32 = 0xF0;
const APIC_LINT0: u32 = 0x350;
const APIC_LINT1: u32 = 0x360;
const CPUID_APIC_BIT: u32 = 9;

/// The handlers' stack frame: what they push, what the stub pushed, what the processor pushed.
pub(super) mod frame {
    pub(in super::super) const VECTOR: u32 = 15 * 8;
    pub(in super::super) const ERROR: u32 = 16 * 8;
    pub(in super::super) const RIP: u32 = 17 * 8;
}

/// Exceptions that push an error code themselves, a bit each: 8, 10-14, 17 and 21 (SDM vol. 3A
/// §7.3.1), 29 and 30 (AMD APM vol. 2 §8.2).
pub(super) const WITH_ERROR_CODE: u32 = 0x6022_7D00;

fn has_error_code(vector: usize) -> bool {
    vector < 32 && WITH_ERROR_CODE & 1 << vector != 0
}

fn stub(vector: usize) -> String {
    format!("vector_{vector}")
}

/// The IDT's bytes: a gate for every vector, #DF on a stack of its own.
pub(super) fn idt(long: &Placed) -> Vec<u8> {
    let gate = |vector| {
        let ist = u8::from(vector == 8);
        interrupt_gate(CODE64, u64::from(long.address_of(&stub(vector))), ist)
    };
    tables::bytes(&(0..256).flat_map(gate).collect::<Vec<_>>())
}

pub(super) fn emit(a: &mut Section<'_>) -> Emit {
    emit_init(a)?;
    for vector in 0..256 {
        emit!(a; at(&stub(vector)););
        if !has_error_code(vector) {
            emit!(a; push(0i32););
        }
        emit!(a; push(vector as i32); jmp -> "interrupt";);
    }
    emit_common(a)?;
    emit_irqs(a)
}

/// `init_interrupts`: the 8259s with all inputs masked but the cascade and COM1; the local APIC,
/// if there is one, in virtual wire mode (MultiProcessor Specification 1.4, §3.6.2.2).
fn emit_init(a: &mut Section<'_>) -> Emit {
    let (icw1, icw4) = (0x11, 0x01);
    emit!(a;
        at("init_interrupts");
        outb(MASTER, icw1);
        outb(SLAVE, icw1);
        outb(MASTER + 1, IRQ_BASE);
        outb(SLAVE + 1, IRQ8_BASE);
        outb(MASTER + 1, 1 << 2);
        outb(SLAVE + 1, 2);
        outb(MASTER + 1, icw4);
        outb(SLAVE + 1, icw4);
        outb(MASTER + 1, !(1 << 2 | 1 << 4));
        outb(SLAVE + 1, 0xFF);
        outb(UART + 1, 0x01);
    );
    report(a, "interrupts", "two 8259s at vectors 20-2F")?;
    emit!(a;
        push(rbx);
        mov(eax, 1);
        cpuid();
        pop(rbx);
        bt(edx, CPUID_APIC_BIT);
        jnc -> ".done";
        mov(eax, APIC);
        mov(dword_ptr(rax + APIC_SPURIOUS), 0x100 | u32::from(APIC_SPURIOUS_VECTOR));
        mov(dword_ptr(rax + APIC_LINT0), 0x700);
        mov(dword_ptr(rax + APIC_LINT1), 0x400);
        mov(qword_ptr(APIC_HZ), 1);
    );
    say(a, ", local APIC in virtual wire mode")?;
    emit!(a; at(".done"););
    say(a, "\n")?;
    emit!(a; ret(););
    Ok(())
}

/// `interrupt`: what all stubs come to. Handlers find the frame at RBP.
fn emit_common(a: &mut Section<'_>) -> Emit {
    let registers = [rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
    emit!(a; at("interrupt"););
    for register in registers {
        emit!(a; push(register););
    }
    emit!(a;
        cld();
        mov(rbp, rsp);
        mov(eax, dword_ptr(rbp + frame::VECTOR));
        inc(qword_ptr(rax * 8 + COUNTS));
        cmp(eax, i32::from(IRQ_BASE));
        jb -> ".exception";
        cmp(eax, i32::from(IRQ_BASE) + 16);
        jb -> ".irq";
        cmp(eax, i32::from(APIC_TIMER_VECTOR));
        jne -> "interrupt_done";
        mov(eax, APIC);
        mov(dword_ptr(rax + APIC_EOI), 0);
        jmp -> "interrupt_done";

        at(".exception");
        call -> "exception";
        jmp -> "interrupt_done";
        at(".irq");
        call -> "irq";
        at("interrupt_done");
    );
    for register in registers.into_iter().rev() {
        emit!(a; pop(register););
    }
    emit!(a; add(rsp, 16); iretq(););
    Ok(())
}

/// `irq`: EAX is the vector of an 8259's input. A spurious IRQ7 or IRQ15 is not in service and
/// ends without its EOI; the master's EOI is then due for IRQ15 alone (8259A datasheet).
fn emit_irqs(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("irq");
        mov(ebx, eax);
        cmp(ebx, i32::from(IRQ_BASE) + 7);
        je -> ".maybe_spurious_7";
        cmp(ebx, i32::from(IRQ8_BASE) + 7);
        je -> ".maybe_spurious_15";
        cmp(ebx, i32::from(UART_VECTOR));
        je -> ".uart";
        cmp(ebx, i32::from(RTC_VECTOR));
        je -> ".rtc";
        at(".end");
        cmp(ebx, i32::from(IRQ8_BASE));
        jb -> ".end_master";
        outb(SLAVE, END_OF_INTERRUPT);
        at(".end_master");
        outb(MASTER, END_OF_INTERRUPT);
        ret();

        at(".maybe_spurious_7");
        outb(MASTER, READ_IN_SERVICE);
        in_(al, dx);
        test(al, 0x80);
        jnz -> ".end_master";
        ret();
        at(".maybe_spurious_15");
        outb(SLAVE, READ_IN_SERVICE);
        in_(al, dx);
        test(al, 0x80);
        jnz -> ".end";
        jmp -> ".end_master";

        // Reading register C ends the RTC's request.
        at(".rtc");
        outb(0x70, 0x0C);
        inb(0x71);
        jmp -> ".end";

        at(".uart");
        inb(UART + 2);
        at(".receive");
        inb(UART + 5);
        test(al, 1);
        jz -> ".end";
        inb(UART);
        movzx(ecx, byte_ptr(RECEIVED_HEAD));
        mov(byte_ptr(rcx + RECEIVED), al);
        // A full buffer drops what comes.
        inc(cl);
        cmp(cl, byte_ptr(RECEIVED_TAIL));
        je -> ".receive";
        mov(byte_ptr(RECEIVED_HEAD), cl);
        jmp -> ".receive";
    );
    Ok(())
}
