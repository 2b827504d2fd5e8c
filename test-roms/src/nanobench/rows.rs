//! The rows.

use iced_x86::code_asm::*;

use super::start::{
    COUNT, CR4, FRAMES, HPET, INTERRUPT, LAPIC, PAGE_TABLE, PML4, PRESENT, SCRATCH, SOFTWARE,
    SOURCE, TARGET, USER_STACK, WINDOW,
};
use super::{Code, Row};
use crate::rom::{Emit, Section, emit};

const POST_PORT: i32 = 0x80;
const PM_TIMER_PORT: u32 = 0x608;
const FS_BASE: u32 = 0xC000_0100;
const CR4_PCIDE: u32 = 1 << 17;
const KEEP_TLB: u64 = 1 << 63;
const PCID: u32 = 1;
const COPIED: u32 = 4096;

/// How long the row of HLT sleeps.
const SLEEP_NS: u32 = 50_000;
/// CPUID of the core crystal clock, which is the timer's (SDM vol. 3A, 12.5.4), and what it is taken
/// for where that is not told.
const CRYSTAL: u32 = 0x15;
const CRYSTAL_HZ: u32 = 1_000_000_000;

/// All rows, in the order in which they are run.
pub static ROWS: &[Row] = &[
    row("loop", "an empty loop: DEC, JNZ", [nothing, nothing, all]),
    Row {
        at_level_3: true,
        ..row("loop-user", "an empty loop at level 3: DEC, JNZ", [nothing, nothing, all])
    },
    row("call", "CALL, INC, RET", [call_setup, call, counted]),
    row(
        "indirect",
        "CALL to one of four places by a table, INC, RET",
        [indirect_setup, indirect, counted],
    ),
    row("lock-add", "LOCK ADD to memory", [lock_add_setup, lock_add, lock_add_count]),
    row("rep-movsb", "REP MOVSB of 4 KiB", [movsb_setup, movsb, movsb_count]),
    row("x87", "FLD, FMUL, FADDP", [x87_setup, x87, x87_count]),
    row("sse", "MOVAPD, MULPD, ADDPD", [sse_setup, sse, sse_count]),
    row("cpuid", "CPUID of leaf 0", [nothing, cpuid, cpuid_count]),
    row("rdtsc", "RDTSC", [rdtsc_setup, rdtsc, later_count]),
    row("rdmsr", "RDMSR of FS_BASE", [rdmsr_setup, rdmsr, counted]),
    row("wrmsr", "WRMSR to FS_BASE", [wrmsr_setup, wrmsr, wrmsr_count]),
    row("in-80", "IN from port 80h", [in_80_setup, in_80, counted]),
    row("in-pm", "IN from the power-management timer", [nothing, in_pm, in_pm_count]),
    row("mmio-hpet", "load of the HPET's counter", [hpet_setup, hpet, later_count]),
    row("mmio-apic", "load of a register of the local APIC", [apic_setup, apic, apic_count]),
    row("cr8", "MOV to CR8", [cr8_setup, cr8_write, cr8_count]),
    row("cr3", "MOV to CR3, which flushes", [cr3_setup, cr3_write, cr3_count]),
    row(
        "cr3-pcid",
        "MOV to CR3 with a PCID, which keeps the TLB",
        [pcid_setup, cr3_write, pcid_count],
    ),
    row("pte", "change of a page-table entry, INVLPG, load", [pte_setup, pte, pte_count]),
    row("int", "INT to a handler at level 0, IRET", [nothing, int, counted]),
    Row {
        at_level_3: true,
        ..row("syscall", "SYSCALL, SYSRET", [nothing, |a| a.syscall(), counted])
    },
    Row {
        at_level_3: true,
        ..row("sysenter", "SYSENTER, SYSEXIT", [sysenter_setup, sysenter, counted])
    },
    row(
        "page-fault",
        "page fault, handler, IRET",
        [fault_setup, |a| a.mov(rax, qword_ptr(rbx)), counted],
    ),
    row("divide", "divide error, handler, IRET", [divide_setup, |a| a.div(ecx), counted]),
    row("self-ipi", "interrupt sent to oneself, handler, EOI", [ipi_setup, ipi, interrupt_count]),
    row(
        "timer",
        "local APIC timer set, interrupt, handler, EOI",
        [interrupt_setup, timer, interrupt_count],
    ),
    Row {
        waits_ns: SLEEP_NS as u64,
        ..row(
            "hlt",
            "HLT until the timer interrupts, beyond the 50 us that it is set to",
            [hlt_setup, hlt, interrupt_count],
        )
    },
];

const fn row(name: &'static str, about: &'static str, [setup, body, count]: [Code; 3]) -> Row {
    Row { name, about, waits_ns: 0, at_level_3: false, setup, body, count }
}

fn nothing(_: &mut Section<'_>) -> Emit {
    Ok(())
}

/// The loop has come to its end.
fn all(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(eax, dword_ptr(COUNT)); sub(eax, r12d););
    Ok(())
}

/// R13 counts.
fn counted(a: &mut Section<'_>) -> Emit {
    a.mov(eax, r13d)
}

/// The flags are those of a comparison with what must be: all operations if it is equal.
fn all_if_equal(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(eax, 0); cmove(eax, dword_ptr(COUNT)););
    Ok(())
}

fn call_setup(a: &mut Section<'_>) -> Emit {
    emit!(a; jmp -> ".begin"; at(".callee"); inc(r13); ret(); at(".begin"););
    Ok(())
}

fn call(a: &mut Section<'_>) -> Emit {
    emit!(a; call -> ".callee";);
    Ok(())
}

fn indirect_setup(a: &mut Section<'_>) -> Emit {
    emit!(a; jmp -> ".begin";);
    let labels = [".callee_0", ".callee_1", ".callee_2", ".callee_3"];
    for label in labels {
        emit!(a; at(label); inc(r13); ret(););
    }
    emit!(a; at(".begin"); mov(ebx, SCRATCH););
    for (entry, label) in labels.iter().enumerate() {
        emit!(a; lea(rax) -> label; mov(qword_ptr(rbx + 8 * entry), rax););
    }
    Ok(())
}

fn indirect(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(eax, r12d); and(eax, 3); call(qword_ptr(rbx + rax * 8)););
    Ok(())
}

fn lock_add_setup(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(ebx, SCRATCH); mov(qword_ptr(rbx), 0););
    Ok(())
}

fn lock_add(a: &mut Section<'_>) -> Emit {
    a.lock().add(qword_ptr(rbx), 1)
}

fn lock_add_count(a: &mut Section<'_>) -> Emit {
    a.mov(eax, dword_ptr(SCRATCH))
}

fn movsb_setup(a: &mut Section<'_>) -> Emit {
    emit!(a;
        mov(eax, dword_ptr(COUNT));
        mov(edi, SOURCE);
        mov(ecx, COPIED / 4);
        rep_stosd();
        mov(dword_ptr(TARGET + COPIED - 4), 0);
    );
    Ok(())
}

fn movsb(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(esi, SOURCE); mov(edi, TARGET); mov(ecx, COPIED););
    a.rep().movsb()
}

/// The count itself was copied.
fn movsb_count(a: &mut Section<'_>) -> Emit {
    a.mov(eax, dword_ptr(TARGET + COPIED - 4))
}

fn x87_setup(a: &mut Section<'_>) -> Emit {
    let one = a.constant(&1f64.to_le_bytes());
    emit!(a; fninit(); fldz(); mov(ebx, one););
    Ok(())
}

/// ST0 counts.
fn x87(a: &mut Section<'_>) -> Emit {
    emit!(a; fld(qword_ptr(rbx)); fmul(qword_ptr(rbx)); faddp(st1, st0););
    Ok(())
}

fn x87_count(a: &mut Section<'_>) -> Emit {
    emit!(a; fistp(qword_ptr(SCRATCH)); mov(eax, dword_ptr(SCRATCH)););
    Ok(())
}

fn sse_setup(a: &mut Section<'_>) -> Emit {
    let ones = a.constant(&[1f64.to_le_bytes(); 2].concat());
    emit!(a; mov(ebx, ones); movupd(xmm2, xmmword_ptr(rbx)); xorpd(xmm0, xmm0););
    Ok(())
}

/// XMM0 counts.
fn sse(a: &mut Section<'_>) -> Emit {
    emit!(a; movapd(xmm1, xmm2); mulpd(xmm1, xmm2); addpd(xmm0, xmm1););
    Ok(())
}

fn sse_count(a: &mut Section<'_>) -> Emit {
    a.cvttsd2si(rax, xmm0)
}

/// R13: the sum of the highest leaf's number.
fn cpuid(a: &mut Section<'_>) -> Emit {
    emit!(a; xor(eax, eax); cpuid(); add(r13, rax););
    Ok(())
}

fn cpuid_count(a: &mut Section<'_>) -> Emit {
    emit!(a; xor(eax, eax); cpuid(); mov(ecx, eax); mov(rax, r13); xor(edx, edx); div(rcx););
    Ok(())
}

/// RBX: a time before the first of the times that RBP will hold.
fn rdtsc_setup(a: &mut Section<'_>) -> Emit {
    emit!(a; rdtsc(); shl(rdx, 32); or(rax, rdx); mov(rbx, rax););
    Ok(())
}

fn rdtsc(a: &mut Section<'_>) -> Emit {
    a.rdtsc()?;
    emit!(a; shl(rdx, 32); lea(rbp, ptr(rax + rdx)););
    Ok(())
}

/// The last time is later than the one before.
fn later_count(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(eax, 0); cmp(rbp, rbx); cmova(eax, dword_ptr(COUNT)););
    Ok(())
}

fn set_fs_base(a: &mut Section<'_>, value: u32) -> Emit {
    emit!(a; mov(ecx, FS_BASE); mov(eax, value); xor(edx, edx); wrmsr(););
    Ok(())
}

fn rdmsr_setup(a: &mut Section<'_>) -> Emit {
    set_fs_base(a, 1)
}

fn rdmsr(a: &mut Section<'_>) -> Emit {
    emit!(a; rdmsr(); add(r13, rax););
    Ok(())
}

fn wrmsr_setup(a: &mut Section<'_>) -> Emit {
    set_fs_base(a, 0)
}

/// The number of repetitions that are left, the last of which is 1.
fn wrmsr(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(eax, r12d); xor(edx, edx); wrmsr(););
    Ok(())
}

fn wrmsr_count(a: &mut Section<'_>) -> Emit {
    emit!(a; rdmsr(); cmp(eax, 1););
    all_if_equal(a)
}

fn in_80_setup(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(eax, 1); out(POST_PORT, al); xor(eax, eax););
    Ok(())
}

fn in_80(a: &mut Section<'_>) -> Emit {
    emit!(a; in_(al, POST_PORT); movzx(eax, al); add(r13, rax););
    Ok(())
}

/// The timer has 24 bits.
fn in_pm(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(edx, PM_TIMER_PORT); in_(eax, dx); shr(eax, 24); or(r13, rax););
    Ok(())
}

fn in_pm_count(a: &mut Section<'_>) -> Emit {
    emit!(a; test(r13, r13););
    all_if_equal(a)
}

fn hpet_setup(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(edi, HPET + 0xF0); mov(rbx, qword_ptr(rdi)););
    Ok(())
}

fn hpet(a: &mut Section<'_>) -> Emit {
    a.mov(rbp, qword_ptr(rdi))
}

fn apic_setup(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(edi, LAPIC););
    Ok(())
}

/// The divide configuration, which was set to 1011b.
fn apic(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(eax, dword_ptr(rdi + 0x3E0)); shr(eax, 3); add(r13, rax););
    Ok(())
}

fn apic_count(a: &mut Section<'_>) -> Emit {
    counted(a)
}

fn cr8_setup(a: &mut Section<'_>) -> Emit {
    a.mov(ebx, 5)
}

fn cr8_write(a: &mut Section<'_>) -> Emit {
    a.mov(cr8, rbx)
}

fn cr8_count(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(rcx, cr8); xor(eax, eax); mov(cr8, rax); cmp(ecx, 5););
    all_if_equal(a)
}

fn cr3_setup(a: &mut Section<'_>) -> Emit {
    a.mov(ebx, PML4)
}

fn cr3_write(a: &mut Section<'_>) -> Emit {
    a.mov(cr3, rbx)
}

fn cr3_count(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(rax, cr3); cmp(eax, PML4););
    all_if_equal(a)
}

fn pcid_setup(a: &mut Section<'_>) -> Emit {
    emit!(a;
        mov(eax, CR4 | CR4_PCIDE);
        mov(cr4, rax);
        mov(rbx, KEEP_TLB | u64::from(PML4 | PCID));
    );
    Ok(())
}

fn pcid_count(a: &mut Section<'_>) -> Emit {
    emit!(a;
        mov(rcx, cr3);
        mov(eax, PML4);
        mov(cr3, rax);
        mov(eax, CR4);
        mov(cr4, rax);
        cmp(ecx, PML4 | PCID);
    );
    all_if_equal(a)
}

/// The frames that are mapped in turn hold 1 and 2 to the power of 32, so that R13 counts both.
fn pte_setup(a: &mut Section<'_>) -> Emit {
    emit!(a;
        mov(dword_ptr(FRAMES[0]), 1);
        mov(dword_ptr(FRAMES[0] + 4), 0);
        mov(dword_ptr(FRAMES[1]), 0);
        mov(dword_ptr(FRAMES[1] + 4), 1);
        mov(ebx, WINDOW + 0x1000);
        mov(edi, PAGE_TABLE + 8);
        mov(dword_ptr(rdi), FRAMES[0] | PRESENT);
        invlpg(ptr(rbx));
    );
    Ok(())
}

fn pte(a: &mut Section<'_>) -> Emit {
    emit!(a;
        xor(dword_ptr(rdi), FRAMES[0] ^ FRAMES[1]);
        invlpg(ptr(rbx));
        add(r13, qword_ptr(rbx));
    );
    Ok(())
}

/// Both frames were read equally often, but for the last time.
fn pte_count(a: &mut Section<'_>) -> Emit {
    emit!(a;
        mov(eax, r13d);
        shr(r13, 32);
        mov(ecx, r13d);
        sub(ecx, eax);
        add(eax, r13d);
        cmp(ecx, 1);
        jbe -> ".counted";
        xor(eax, eax);
        at(".counted");
    );
    Ok(())
}

fn int(a: &mut Section<'_>) -> Emit {
    a.int(i32::from(SOFTWARE))
}

fn sysenter_setup(a: &mut Section<'_>) -> Emit {
    emit!(a; lea(r8) -> ".returned"; mov(r9d, USER_STACK););
    Ok(())
}

fn sysenter(a: &mut Section<'_>) -> Emit {
    emit!(a; sysenter(); at(".returned"););
    Ok(())
}

fn fault_setup(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(r15d, 1); mov(ebx, WINDOW););
    Ok(())
}

fn divide_setup(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(r15d, 1); xor(ecx, ecx););
    Ok(())
}

/// R9: how many interrupts have been caused.
fn interrupt_setup(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(r10d, LAPIC); xor(r9d, r9d); sti(););
    Ok(())
}

/// Waits for the interrupt that was caused.
fn wait(a: &mut Section<'_>) -> Emit {
    emit!(a; at(".wait"); cmp(r13, r9); jb -> ".wait";);
    Ok(())
}

fn interrupt_count(a: &mut Section<'_>) -> Emit {
    a.cli()?;
    counted(a)
}

/// RBX: a message to oneself, asserted, fixed.
fn ipi_setup(a: &mut Section<'_>) -> Emit {
    a.mov(ebx, 1 << 18 | 1 << 14 | u32::from(INTERRUPT))?;
    interrupt_setup(a)
}

fn ipi(a: &mut Section<'_>) -> Emit {
    emit!(a; inc(r9); mov(dword_ptr(r10 + 0x300), ebx););
    wait(a)
}

fn timer(a: &mut Section<'_>) -> Emit {
    emit!(a; inc(r9); mov(dword_ptr(r10 + 0x380), 1););
    wait(a)
}

/// EBP: the clocks of the timer that HLT sleeps for.
fn hlt_setup(a: &mut Section<'_>) -> Emit {
    const PART_OF_SECOND: u32 = 1_000_000_000 / SLEEP_NS;
    emit!(a;
        xor(eax, eax);
        cpuid();
        xor(ecx, ecx);
        cmp(eax, CRYSTAL);
        jb -> ".unknown";
        mov(eax, CRYSTAL);
        cpuid();
        at(".unknown");
        mov(eax, CRYSTAL_HZ);
        test(ecx, ecx);
        cmovne(eax, ecx);
        xor(edx, edx);
        mov(ecx, PART_OF_SECOND);
        div(ecx);
        mov(ebp, eax);
    );
    interrupt_setup(a)
}

/// STI holds interrupts off until HLT has begun.
fn hlt(a: &mut Section<'_>) -> Emit {
    emit!(a; cli(); mov(dword_ptr(r10 + 0x380), ebp); sti(); hlt(););
    Ok(())
}
