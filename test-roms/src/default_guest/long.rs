//! Long mode: tables, interrupt controllers, then the reports and the monitor.

use iced_x86::code_asm::*;

use super::console::{BOLD, PLAIN, report, say};
use super::interrupts::IDT_SIZE;
use super::memory::*;
use crate::rom::tables::table_register;
use crate::rom::{Emit, Section, emit};

const EFER: u32 = 0xC000_0080;

/// A 64-bit TSS (SDM vol. 3A §9.7): only the first interrupt stack and no I/O bitmap.
fn tss() -> Vec<u8> {
    let mut tss = vec![0; 0x68];
    tss[0x24..0x28].copy_from_slice(&FAULT_STACK_TOP.to_le_bytes());
    tss[0x66] = 0x68;
    tss
}

/// `long`, the entry; `idt` is the IDT's offset in the ROM.
pub(super) fn emit(a: &mut Section<'_>, idt: u32) -> Emit {
    let tss = tss();
    let tss_image = a.constant(&tss);
    emit!(a;
        at("long");
        mov(eax, u32::from(FLAT));
        mov(ds, eax);
        mov(es, eax);
        mov(ss, eax);
        xor(eax, eax);
        mov(fs, eax);
        mov(gs, eax);
        mov(esp, STACK_TOP);
        mov(esi, SHADOW + idt);
        mov(edi, IDT);
        mov(ecx, IDT_SIZE as u32 / 4);
        rep_movsd();
        mov(esi, tss_image);
        mov(edi, TSS);
        mov(ecx, tss.len() as u32 / 4);
        rep_movsd();
        mov(eax, u32::from(TSS_SELECTOR));
        ltr(ax);
        call -> "load_idt";
    );
    emit_report(a)?;
    emit!(a;
        call -> "init_interrupts";
        sti();
        call -> "test_timers";
        call -> "report_cpu";
        call -> "report_speed";
    );
    say(a, &format!("\n Type {BOLD}help{PLAIN} for what there is to try.\n\n"))?;
    emit!(a; jmp -> "monitor";);
    emit_load_idt(a)
}

fn emit_report(a: &mut Section<'_>) -> Emit {
    report(a, "long mode", "CR0 ")?;
    emit!(a; mov(rax, cr0); call -> "put_hex32";);
    say(a, "  CR4 ")?;
    emit!(a; mov(rax, cr4); call -> "put_hex32";);
    say(a, "  EFER ")?;
    emit!(a; mov(ecx, EFER); rdmsr(); call -> "put_hex32";);
    say(a, "\n")?;
    report(a, "", "256 interrupt gates, a TSS with a stack for double faults\n")
}

fn emit_load_idt(a: &mut Section<'_>) -> Emit {
    let idtr = a.constant(&table_register(u64::from(IDT), IDT_SIZE));
    emit!(a;
        at("load_idt");
        lidt(ptr(idtr));
        ret();
    );
    Ok(())
}
