//! The timers of the chips against each other: the 8254 is the measure, as its input is known, and
//! what the others count in a time of its is compared with their rates. All on one clock, so that
//! it does not matter how fast the processor is.

use iced_x86::code_asm::*;

use super::features::{APIC, ARAT, INVARIANT_TSC, TSC_DEADLINE, X2APIC};
use super::long::kit::{self, About, Kit, SPARE};
use super::{Kind, Rom};
use crate::rom::{Emit, emit};

/// The 8254's input, Hz, and how many of its counts a measurement takes: 2 ms.
const PIT_HZ: u32 = 1_193_182;
const WINDOW: u32 = PIT_HZ / 500;
/// Counts of a rate of 10 kHz.
const FAST: u16 = (PIT_HZ / 10_000) as u16;

const LAPIC: u32 = 0xfee0_0000;
const EOI: i32 = 0xb0;
const SPURIOUS: i32 = 0xf0;
const LVT_TIMER: i32 = 0x320;
const INITIAL: i32 = 0x380;
const CURRENT: i32 = 0x390;
const DIVIDE: i32 = 0x3e0;
const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const DEADLINE: u32 = 1 << 18;
const BY_16: u32 = 3;
const BY_32: u32 = 8;
const IOAPIC: u32 = 0xfec0_0000;
const VECTOR: u8 = 0x41;

/// Interrupts taken, and values to compare.
const TAKEN: u32 = SPARE;
const FIRST: u32 = SPARE + 8;
const SECOND: u32 = SPARE + 16;
/// What the local APIC counts in a [`WINDOW`].
const APIC_COUNTS: u32 = SPARE + 24;

const SOURCE: &str = "8254, 8259A, MC146818 and 82093AA datasheets; SDM vol. 3A 11.5.4, 18.17";

pub(super) fn rom() -> Emit<Rom> {
    let about = About {
        name: "timing",
        about: "rates of PIT, RTC, local APIC timer and TSC against each other, by 8259 and IOAPIC",
        needs: &[APIC, ARAT, INVARIANT_TSC, TSC_DEADLINE, X2APIC],
        five_levels: false,
    };
    let rom = kit::rom(about, |a| {
        emit!(a;
            mov(r8d, LAPIC);
            mov(r9d, IOAPIC);
            mov(dword_ptr(r8 + SPURIOUS), 0x1ff);
            mov(dword_ptr(r8 + LVT_TIMER), MASKED);
            mov(dword_ptr(r8 + DIVIDE), BY_16);
        );
        emit_routines(a)?;
        pit(a)?;
        rtc(a)?;
        by_8259(a)?;
        counters(a)?;
        by_apics(a)?;
        deadline(a)
    })?;
    Ok(Rom { in_virtual_time: true, ..rom })
}

/// Reports a value, as `expected` if it is between `least` and `most`.
fn between(
    a: &mut Kit<'_, '_>,
    name: &str,
    [least, expected, most]: [u32; 3],
    code: impl FnOnce(&mut Kit<'_, '_>) -> Emit,
) -> Emit {
    a.outcome(code)?;
    let outside = a.fresh("outside");
    emit!(a;
        cmp(rax, least as i32);
        jb -> &outside;
        cmp(rax, most as i32);
        ja -> &outside;
        mov(eax, expected);
        at(&outside);
        call -> "report";
    );
    a.note(name, SOURCE, [expected.into(), u64::MAX], Kind::Number);
    Ok(())
}

/// `start`: channel 2 counts ECX down, once. `over`: ZF is clear when it is there.
/// `interrupted`: the hook for interrupts, which are counted.
fn emit_routines(a: &mut Kit<'_, '_>) -> Emit {
    let over = a.fresh("over");
    emit!(a;
        jmp -> &over;
        at("start");
        // The gate is open and the speaker off; mode 0.
        in_(al, 0x61);
        and(al, 0xfcu32);
        or(al, 1);
        out(0x61, al);
        mov(al, 0xb0u32);
        out(0x43, al);
        mov(eax, ecx);
        out(0x42, al);
        mov(al, ah);
        out(0x42, al);
        ret();
        at("over");
        in_(al, 0x61);
        test(al, 0x20);
        ret();
        at("interrupted");
        add(rsp, 16);
        inc(qword_ptr(TAKEN));
        mov(dword_ptr(r8 + EOI), 0);
        iretq();
        at(&over);
    );
    Ok(())
}

/// Executes `code` again and again for as long as `counts` of the 8254 take.
fn during(a: &mut Kit<'_, '_>, counts: u32, code: impl FnOnce(&mut Kit<'_, '_>) -> Emit) -> Emit {
    let again = a.fresh("during");
    emit!(a; mov(ecx, counts); call -> "start"; at(&again););
    code(a)?;
    emit!(a; call -> "over"; jz -> &again;);
    Ok(())
}

/// Channel 0 in a mode, with this divisor; changes EAX and EDX.
fn rate(a: &mut Kit<'_, '_>, mode: u8, divisor: u16) -> Emit {
    let [low, high] = divisor.to_le_bytes();
    emit!(a; outb(0x43, 0x30 | mode << 1); outb(0x40, low); outb(0x40, high););
    Ok(())
}

/// The latched count of channel 0 to EAX.
fn latched(a: &mut Kit<'_, '_>) -> Emit {
    emit!(a;
        outb(0x43, 0);
        in_(al, 0x40);
        movzx(ecx, al);
        in_(al, 0x40);
        movzx(eax, al);
        shl(eax, 8);
        or(eax, ecx);
    );
    Ok(())
}

/// Channels on one input: what channel 2 waits for, channel 0 counts; by two in mode 3.
fn pit(a: &mut Kit<'_, '_>) -> Emit {
    for (name, mode, expected) in [
        ("8254: mode 2 counts by one", 2, WINDOW),
        ("8254: mode 0 counts by one", 0, WINDOW),
        ("8254: mode 3 counts by two", 3, 2 * WINDOW),
    ] {
        // From 65536 down.
        between(a, name, [expected - 10, expected, expected + 10], |a| {
            rate(a, mode, 0)?;
            during(a, WINDOW, |_| Ok(()))?;
            latched(a)?;
            emit!(a; neg(ax); movzx(eax, ax););
            Ok(())
        })?;
    }
    a.value("8254: read-back says output, mode and access", SOURCE, [0x34, 0x3f], |a| {
        rate(a, 2, FAST)?;
        emit!(a; outb(0x43, 0xe2); in_(al, 0x40); movzx(eax, al););
        Ok(())
    })
}

/// The periodic flag of register C at two rates.
fn rtc(a: &mut Kit<'_, '_>) -> Emit {
    for (name, rate, range) in
        [("MC146818: 8192 Hz", 3, [15, 16, 17]), ("MC146818: 4096 Hz", 4, [7, 8, 9])]
    {
        between(a, name, range, |a| {
            let none = a.fresh("none");
            emit!(a;
                outb(0x70, 0x0a);
                outb(0x71, 0x20 | rate);
                outb(0x70, 0x0c);
                in_(al, 0x71);
                xor(ebx, ebx);
            );
            during(a, WINDOW, |a| {
                emit!(a;
                    outb(0x70, 0x0c);
                    in_(al, 0x71);
                    test(al, 0x40);
                    jz -> &none;
                    inc(ebx);
                    at(&none);
                );
                Ok(())
            })?;
            a.mov(rax, rbx)
        })?;
    }
    Ok(())
}

/// IRQ 0 at 1000 Hz, taken from the 8259A by its poll command.
fn by_8259(a: &mut Kit<'_, '_>) -> Emit {
    for (name, mode) in [("mode 2", 2), ("mode 3", 3)] {
        let name = format!("8259A: IRQ 0 of the 8254 in {name}, polled");
        between(a, &name, [19, 20, 21], |a| {
            let none = a.fresh("none");
            rate(a, mode, FAST)?;
            emit!(a;
                outb(0x20, 0x11);
                outb(0x21, 0x20);
                outb(0x21, 0x04);
                outb(0x21, 0x01);
                outb(0x21, 0xfe);
                xor(ebx, ebx);
            );
            during(a, WINDOW, |a| {
                emit!(a;
                    outb(0x20, 0x0c);
                    in_(al, 0x20);
                    test(al, 0x80);
                    jz -> &none;
                    inc(ebx);
                    outb(0x20, 0x20);
                    at(&none);
                );
                Ok(())
            })?;
            emit!(a; outb(0x21, 0xff); mov(rax, rbx););
            Ok(())
        })?;
    }
    Ok(())
}

/// The local APIC's counter and the TSC run evenly: twice the time, twice the counts; and half of
/// them with twice the divisor.
fn counters(a: &mut Kit<'_, '_>) -> Emit {
    let apic = |a: &mut Kit<'_, '_>, divide: u32, counts: u32, to: u32| -> Emit {
        emit!(a; mov(dword_ptr(r8 + DIVIDE), divide); mov(dword_ptr(r8 + INITIAL), -1););
        during(a, counts, |_| Ok(()))?;
        emit!(a;
            mov(eax, dword_ptr(r8 + CURRENT));
            not(eax);
            mov(qword_ptr(to), rax);
            mov(dword_ptr(r8 + INITIAL), 0);
        );
        Ok(())
    };
    // The first by the second, in thousandths.
    let ratio = |a: &mut Kit<'_, '_>| -> Emit {
        emit!(a;
            imul_3(rax, qword_ptr(FIRST), 1000);
            xor(edx, edx);
            div(qword_ptr(SECOND));
        );
        Ok(())
    };
    between(a, "local APIC timer: a time by its half, in thousandths", [1980, 2000, 2020], |a| {
        apic(a, BY_16, WINDOW, FIRST)?;
        apic(a, BY_16, WINDOW / 2, SECOND)?;
        emit!(a; mov(rax, qword_ptr(FIRST)); mov(qword_ptr(APIC_COUNTS), rax););
        ratio(a)
    })?;
    between(a, "local APIC timer: divided by 16 by divided by 32", [1980, 2000, 2020], |a| {
        apic(a, BY_32, WINDOW, SECOND)?;
        ratio(a)
    })?;
    between(a, "TSC: a time by its half, in thousandths", [1980, 2000, 2020], |a| {
        for (counts, to) in [(WINDOW, FIRST), (WINDOW / 2, SECOND)] {
            emit!(a; rdtsc(); shl(rdx, 32); or(rax, rdx); mov(rdi, rax););
            during(a, counts, |_| Ok(()))?;
            emit!(a; rdtsc(); shl(rdx, 32); or(rax, rdx); sub(rax, rdi); mov(qword_ptr(to), rax););
        }
        ratio(a)
    })?;
    Ok(())
}

/// Interrupts are let in for as long as `WINDOW` takes, and counted to RAX.
fn counted(a: &mut Kit<'_, '_>) -> Emit {
    let hook = a.address_of("interrupted");
    emit!(a; mov(rdi, qword_ptr(kit::HOOK)); mov(dword_ptr(kit::HOOK), hook); mov(qword_ptr(TAKEN), 0); sti(););
    during(a, WINDOW, |_| Ok(()))?;
    emit!(a; cli(); mov(qword_ptr(kit::HOOK), rdi); mov(rax, qword_ptr(TAKEN)););
    Ok(())
}

/// Interrupts of the 8254 by the IOAPIC, and of the local APIC's timer at the rate that it was found
/// to have.
fn by_apics(a: &mut Kit<'_, '_>) -> Emit {
    // IRQ 0 of ISA is pin 2 of an IOAPIC; edge, to this processor.
    const PIN: u32 = 0x10 + 2 * 2;
    between(a, "IOAPIC: the 8254 at 10 kHz", [19, 20, 21], |a| {
        rate(a, 2, FAST)?;
        emit!(a;
            mov(dword_ptr(r9), PIN + 1);
            mov(dword_ptr(r9 + 0x10), 0);
            mov(dword_ptr(r9), PIN);
            mov(dword_ptr(r9 + 0x10), u32::from(VECTOR));
        );
        counted(a)?;
        emit!(a; mov(dword_ptr(r9), PIN); mov(dword_ptr(r9 + 0x10), MASKED););
        Ok(())
    })?;
    between(a, "local APIC timer: periodic, a twentieth of the time", [19, 20, 21], |a| {
        emit!(a;
            mov(dword_ptr(r8 + DIVIDE), BY_16);
            mov(rax, qword_ptr(APIC_COUNTS));
            xor(edx, edx);
            mov(ecx, 20u32);
            div(rcx);
            mov(dword_ptr(r8 + LVT_TIMER), PERIODIC | u32::from(VECTOR));
            mov(dword_ptr(r8 + INITIAL), eax);
        );
        counted(a)?;
        emit!(a; mov(dword_ptr(r8 + LVT_TIMER), MASKED); mov(dword_ptr(r8 + INITIAL), 0););
        Ok(())
    })?;
    a.value("local APIC timer: one shot comes once", SOURCE, [1, u64::MAX], |a| {
        emit!(a; mov(dword_ptr(r8 + LVT_TIMER), u32::from(VECTOR)); mov(dword_ptr(r8 + INITIAL), 1000););
        counted(a)?;
        emit!(a; mov(dword_ptr(r8 + LVT_TIMER), MASKED););
        Ok(())
    })?;
    Ok(())
}

/// An interrupt at a value of the TSC: not before it, once, and never if the value is 0. Then the
/// same registers by x2APIC's MSRs.
fn deadline(a: &mut Kit<'_, '_>) -> Emit {
    const IA32_TSC_DEADLINE: u32 = 0x6e0;
    const IA32_APIC_BASE: u32 = 0x1b;
    let armed = |a: &mut Kit<'_, '_>| -> Emit {
        // MFENCE between the LVT and the MSR, as the manual wants.
        emit!(a;
            mov(dword_ptr(r8 + LVT_TIMER), DEADLINE | u32::from(VECTOR));
            mfence();
            rdtsc();
            add(eax, 100_000);
            adc(edx, 0);
            mov(ecx, IA32_TSC_DEADLINE);
            wrmsr();
        );
        Ok(())
    };
    a.value("TSC deadline: comes once", SOURCE, [1, u64::MAX], |a| {
        armed(a)?;
        counted(a)
    })?;
    a.value("TSC deadline: the MSR is 0 afterwards", SOURCE, [0, u64::MAX], |a| {
        emit!(a; mov(ecx, IA32_TSC_DEADLINE); rdmsr(); shl(rdx, 32); or(rax, rdx););
        Ok(())
    })?;
    a.value("TSC deadline: 0 disarms", SOURCE, [0, u64::MAX], |a| {
        armed(a)?;
        a.msr(IA32_TSC_DEADLINE, 0)?;
        counted(a)
    })?;
    a.value("TSC deadline: HLT ends behind it", SOURCE, [1, u64::MAX], |a| {
        let hook = a.address_of("interrupted");
        emit!(a; mov(rdi, qword_ptr(kit::HOOK)); mov(dword_ptr(kit::HOOK), hook););
        armed(a)?;
        // EDX:EAX is still the deadline.
        emit!(a;
            shl(rdx, 32);
            or(rdx, rax);
            mov(rbx, rdx);
            sti();
            hlt();
            cli();
            rdtsc();
            shl(rdx, 32);
            or(rax, rdx);
            cmp(rax, rbx);
            setae(al);
            movzx(eax, al);
            mov(qword_ptr(kit::HOOK), rdi);
            mov(dword_ptr(r8 + LVT_TIMER), MASKED);
        );
        Ok(())
    })?;
    a.value("x2APIC: the spurious vector's register is an MSR", SOURCE, [0x1ff, u64::MAX], |a| {
        emit!(a;
            mov(ecx, IA32_APIC_BASE);
            rdmsr();
            or(eax, 0xc00);
            wrmsr();
            mov(ecx, 0x80fu32);
            rdmsr();
            shl(rdx, 32);
            or(rax, rdx);
        );
        Ok(())
    })?;
    a.value(
        "x2APIC: a reserved register is #GP",
        SOURCE,
        [super::exception(13, 0).into(), !0],
        |a| {
            a.attempt(|a| {
                emit!(a; mov(ecx, 0x80eu32); rdmsr(););
                Ok(())
            })?;
            a.mov(eax, dword_ptr(kit::OUTCOME))
        },
    )?;
    Ok(())
}
