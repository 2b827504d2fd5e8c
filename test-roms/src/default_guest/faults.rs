//! Exceptions: those that are expected, the report of all others, and the `fault` command.

use iced_x86::code_asm::*;

use super::console::{BOLD, PLAIN, RED, say};
use super::interrupts::{APIC_TIMER_VECTOR, WITH_ERROR_CODE, frame};
use super::memory::*;
use crate::rom::tables::table_register;
use crate::rom::{Emit, Section, emit};

/// The first vectors by name: exceptions (SDM vol. 3A §7.15), then the 8259s' inputs.
const VECTORS: [&str; 0x30] = [
    "#DE divide error",
    "#DB debug",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound range exceeded",
    "#UD invalid opcode",
    "#NM device not available",
    "#DF double fault",
    "coprocessor segment overrun",
    "#TS invalid TSS",
    "#NP segment not present",
    "#SS stack-segment fault",
    "#GP general protection",
    "#PF page fault",
    "reserved",
    "#MF x87 floating-point error",
    "#AC alignment check",
    "#MC machine check",
    "#XM SIMD floating-point",
    "#VE virtualization exception",
    "#CP control protection",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "#HV hypervisor injection",
    "#VC VMM communication",
    "#SX security exception",
    "reserved",
    "IRQ 0  PIT",
    "IRQ 1  keyboard",
    "IRQ 2  cascade",
    "IRQ 3  COM2",
    "IRQ 4  COM1",
    "IRQ 5",
    "IRQ 6  diskette",
    "IRQ 7",
    "IRQ 8  RTC",
    "IRQ 9",
    "IRQ 10",
    "IRQ 11",
    "IRQ 12 mouse",
    "IRQ 13",
    "IRQ 14 ATA",
    "IRQ 15 ATA",
];
const VECTOR_NAME_SIZE: usize = 32;
const PF: i32 = 14;

/// The kinds of the `fault` command.
const KINDS: [(&str, &str); 9] = [
    ("de", "divide by zero"),
    ("bp", "INT3"),
    ("ud", "an undefined opcode"),
    ("gp", "a non-canonical address"),
    ("pf", "read the null page"),
    ("wp", "write to read-only code"),
    ("nx", "execute data"),
    ("df", "page fault without a gate for it, nor for #GP: a double fault"),
    ("triple", "the same without any gate: the processor gives up"),
];

fn vector_names() -> Vec<u8> {
    let mut table = vec![0; VECTORS.len() * VECTOR_NAME_SIZE];
    for (entry, name) in table.chunks_mut(VECTOR_NAME_SIZE).zip(VECTORS) {
        entry[..name.len()].copy_from_slice(name.as_bytes());
    }
    table
}

pub(super) fn emit(a: &mut Section<'_>) -> Emit {
    emit_vector_name(a)?;
    emit_exception(a)?;
    emit_page_fault(a)?;
    emit_probe(a)?;
    emit_fault_command(a)
}

/// `put_vector_name`: EAX.
fn emit_vector_name(a: &mut Section<'_>) -> Emit {
    let names = a.constant(&vector_names());
    emit!(a;
        at("put_vector_name");
        cmp(eax, VECTORS.len() as u32);
        jae -> ".other";
        mov(esi, eax);
        shl(esi, VECTOR_NAME_SIZE.ilog2());
        add(esi, names);
        jmp -> "puts";
        at(".other");
        cmp(eax, u32::from(APIC_TIMER_VECTOR));
        jne -> ".unexpected";
    );
    say(a, "local APIC timer")?;
    emit!(a; ret(); at(".unexpected"););
    say(a, "unexpected")?;
    emit!(a; ret(););
    Ok(())
}

/// `exception`: EAX is the vector, RBP the frame. An expected one resumes at [`RECOVER`]; any
/// other is reported and ends in the monitor, or halts where there is none yet.
fn emit_exception(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("exception");
        mov(rcx, qword_ptr(RECOVER));
        test(rcx, rcx);
        jz -> ".report";
        mov(qword_ptr(rbp + frame::RIP), rcx);
        mov(qword_ptr(RECOVER), 0);
        ret();
        at(".report");
        mov(ebx, eax);
        call -> "load_idt";
    );
    say(a, &format!("  {RED}"))?;
    emit!(a; mov(eax, ebx); call -> "put_vector_name";);
    say(a, &format!("{PLAIN}  vector "))?;
    emit!(a; mov(eax, ebx); call -> "put_decimal";);
    emit!(a;
        mov(eax, WITH_ERROR_CODE);
        bt(eax, ebx);
        jnc -> ".rip";
    );
    say(a, "  error code ")?;
    emit!(a; mov(eax, dword_ptr(rbp + frame::ERROR)); mov(ecx, 4); call -> "put_hex";);
    emit!(a; at(".rip"););
    say(a, "  RIP ")?;
    emit!(a; mov(rax, qword_ptr(rbp + frame::RIP)); call -> "put_hex64";);
    say(a, "\n")?;
    emit!(a;
        cmp(ebx, PF);
        jne -> ".end";
        call -> "explain_page_fault";
        at(".end");
        cmp(byte_ptr(MONITOR_RUNS), 0);
        jne -> "monitor.prompt";
    );
    say(a, "  halted\n")?;
    emit!(a; at(".stuck"); cli(); hlt(); jmp -> ".stuck";);
    Ok(())
}

/// `explain_page_fault`: CR2 and the error code's bits (SDM vol. 3A §5.7).
fn emit_page_fault(a: &mut Section<'_>) -> Emit {
    emit!(a; at("explain_page_fault"););
    say(a, "  CR2 ")?;
    emit!(a; mov(rax, cr2); call -> "put_hex64";);
    say(a, ": ")?;
    let bits = [(4, "instruction fetch from", ""), (1, "write to", "read from")];
    let [fetch, write] = bits.map(|(bit, set, clear)| (bit, a.text(set), a.text(clear)));
    let protected = a.text(" a page that does not allow it\n");
    let absent = a.text(" a page that is not present\n");
    emit!(a;
        mov(ecx, dword_ptr(rbp + frame::ERROR));
        mov(esi, fetch.1);
        bt(ecx, fetch.0);
        jc -> ".access";
        mov(esi, write.1);
        bt(ecx, write.0);
        jc -> ".access";
        mov(esi, write.2);
        at(".access");
        call -> "puts";
        mov(esi, protected);
        test(byte_ptr(rbp + frame::ERROR), 1);
        jnz -> "puts";
        mov(esi, absent);
        jmp -> "puts";
    );
    Ok(())
}

/// `probe`: AL, the byte at RDI; CF if that faults.
fn emit_probe(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("probe");
        lea(rax) -> ".faulted";
        mov(qword_ptr(RECOVER), rax);
        mov(al, byte_ptr(rdi));
        mov(qword_ptr(RECOVER), 0);
        clc();
        ret();
        at(".faulted");
        stc();
        ret();
    );
    Ok(())
}

fn emit_fault_command(a: &mut Section<'_>) -> Emit {
    emit!(a; at("command_fault"););
    for (kind, _) in KINDS {
        let name = a.text(kind);
        emit!(a; mov(edi, name); call -> "word_is"; je -> &format!("fault_{kind}"););
    }
    let mut list = String::new();
    for (kind, what) in KINDS {
        list += &format!("  fault {BOLD}{kind:8}{PLAIN}{what}\n");
    }
    say(a, &list)?;
    emit!(a; ret(););
    emit_faults(a)
}

fn emit_faults(a: &mut Section<'_>) -> Emit {
    // Enough of the IDT for #DF, not for #GP and #PF.
    let short_idt = a.constant(&table_register(u64::from(IDT), 9 * 16));
    let no_idt = a.constant(&[0; 10]);
    emit!(a;
        at("fault_de");
        xor(ecx, ecx);
        div(ecx);
        at("fault_bp");
        int3();
        at("fault_ud");
        ud2();
        at("fault_gp");
        mov(rax, 0x8000_0000_0000_0000u64);
        mov(al, byte_ptr(rax));
        at("fault_pf");
        xor(eax, eax);
        mov(al, byte_ptr(rax));
        at("fault_wp");
        mov(eax, SHADOW);
        mov(byte_ptr(rax), al);
        at("fault_nx");
        mov(eax, VARIABLES);
        jmp(rax);
        at("fault_df");
        lidt(ptr(short_idt));
        jmp -> "fault_pf";
        at("fault_triple");
        lidt(ptr(no_idt));
        jmp -> "fault_pf";
    );
    Ok(())
}
