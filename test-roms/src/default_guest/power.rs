//! Ways out: ACPI power-off, reset, the exit port.

use iced_x86::code_asm::*;

use super::console::say;
use super::timers::{MASK_IDLE, MASK_TIMING, MASTER_MASK};
use crate::rom::{Emit, Section, emit};

const EXIT_PORT: u16 = 0xF4;
const I8042_COMMAND: u16 = 0x64;
const I8042_PULSE_RESET: u8 = 0xFE;
const RESET_CONTROL: u16 = 0xCF9;
const RESET_HARD: u8 = 0x06;
const SETTLE_TICKS: u32 = 20;

/// Where a BIOS leaves the RSDP (ACPI 6.5 §5.2.5.1).
const RSDP_START: u32 = 0xE_0000;
const RSDP_END: i32 = 0x10_0000;
const RSDP_CHECKED: u32 = 20;
const RSDP_REVISION: u32 = 15;
const RSDP_RSDT: u32 = 16;
const RSDP_XSDT: u32 = 24;
const TABLE_LENGTH: u32 = 4;
const TABLE_HEADER: i32 = 36;
const FADT_DSDT: u32 = 40;
const FADT_PM1A_CONTROL: u32 = 64;
/// Their extensions, which count where those above are 0 (ACPI 6.5 §5.2.9): an address, and an
/// address in a Generic Address Structure.
const FADT_X_DSDT: u32 = 140;
const FADT_X_PM1A_CONTROL: u32 = 172 + 4;

const SLP_EN: i32 = 1 << 13;
const SLP_TYP_SHIFT: u32 = 10;

/// A PCI function that holds the power management registers, its register for their base, and a
/// bit of another that enables them. Where firmware left no tables, we are the firmware, and put
/// them where PCs' does.
struct PowerFunction {
    id: u32,
    base: u32,
    enable: u32,
    enable_bit: u32,
}

/// The PIIX4 (82371AB datasheet §7.2) and the ICH9's LPC bridge (datasheet §13.1).
const POWER_FUNCTIONS: [PowerFunction; 2] = [
    PowerFunction { id: 0x7113_8086, base: 0x40, enable: 0x80, enable_bit: 0 },
    PowerFunction { id: 0x2918_8086, base: 0x40, enable: 0x44, enable_bit: 7 },
];
const PM_BASE: u32 = 0x600;
const PM1_CONTROL: u32 = PM_BASE + 4;
const PCI_ADDRESS: u16 = 0xCF8;
const PCI_DATA: u16 = 0xCFC;
const PCI_ENABLE: u32 = 0x8000_0000;

pub(super) fn emit(a: &mut Section<'_>) -> Emit {
    emit_exit(a)?;
    emit_reset(a)?;
    emit_poweroff(a)?;
    emit_find_fadt(a)?;
    emit_sleep_type(a)?;
    emit_power_functions(a)
}

fn emit_exit(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("command_exit");
        mov(ecx, 10);
        call -> "parse_number";
        jc -> "bad_number";
        mov(edx, u32::from(EXIT_PORT));
        out(dx, eax);
    );
    say(a, "  there is no exit port at F4h\n")?;
    emit!(a; ret(););
    Ok(())
}

/// The 8042's reset line, then the reset control register, then a triple fault.
fn emit_reset(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("command_reset");
        outb(I8042_COMMAND, I8042_PULSE_RESET);
        call -> "settle";
        outb(RESET_CONTROL, RESET_HARD);
        call -> "settle";
        jmp -> "fault_triple";

        // Time for a reset or power-off to take effect.
        at("settle");
        outb(MASTER_MASK, MASK_TIMING);
        mov(ecx, SETTLE_TICKS);
        call -> "wait_ticks";
        outb(MASTER_MASK, MASK_IDLE);
        ret();
    );
    Ok(())
}

/// SLP_EN and S5's type to PM1a (ACPI 6.5 §16.1.7).
fn emit_poweroff(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("command_poweroff");
        call -> "find_fadt";
        jc -> ".no_tables";
        push(rsi);
        call -> "sleep_type";
        pop(rsi);
        mov(edx, dword_ptr(rsi + FADT_PM1A_CONTROL));
        test(edx, edx);
        jnz -> ".tables";
        mov(edx, dword_ptr(rsi + FADT_X_PM1A_CONTROL));
        at(".tables");
    );
    say_keeping(a, "  power off (ACPI tables)\n")?;
    emit!(a;
        jmp -> ".write";
        at(".no_tables");
        call -> "enable_power_management";
        mov(edx, PM1_CONTROL);
        xor(eax, eax);
    );
    say_keeping(a, "  power off (no ACPI tables: PM1 control at 604h)\n")?;
    emit!(a;
        at(".write");
        shl(eax, SLP_TYP_SHIFT);
        or(eax, SLP_EN);
        out(dx, ax);
        call -> "settle";
    );
    say(a, "  still running: no ACPI power management\n")?;
    emit!(a; ret(););
    Ok(())
}

fn say_keeping(a: &mut Section<'_>, text: &str) -> Emit {
    emit!(a; push(rax); push(rdx););
    say(a, text)?;
    emit!(a; pop(rdx); pop(rax););
    Ok(())
}

/// `find_fadt`: RSI, by way of the RSDP; CF if there is none. Tables lie below 4 GiB.
fn emit_find_fadt(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("find_fadt");
        mov(esi, RSDP_START);
        mov(rax, u64::from_le_bytes(*b"RSD PTR "));
        at(".rsdp");
        cmp(qword_ptr(rsi), rax);
        jne -> ".not_here";
        mov(ecx, RSDP_CHECKED);
        xor(edx, edx);
        at(".sum");
        add(dl, byte_ptr(rsi + rcx - 1));
        dec(ecx);
        jnz -> ".sum";
        test(dl, dl);
        jz -> ".rsdt";
        at(".not_here");
        add(esi, 16);
        cmp(esi, RSDP_END);
        jb -> ".rsdp";
        at(".none");
        stc();
        ret();

        // The XSDT, which has 8-byte entries, before the RSDT. R8: the size of an entry.
        at(".rsdt");
        mov(r8d, 8);
        cmp(byte_ptr(rsi + RSDP_REVISION), 2);
        jb -> ".rsdt_only";
        mov(rdi, qword_ptr(rsi + RSDP_XSDT));
        test(rdi, rdi);
        jnz -> ".root";
        at(".rsdt_only");
        mov(r8d, 4);
        mov(edi, dword_ptr(rsi + RSDP_RSDT));
        test(edi, edi);
        jz -> ".none";
        at(".root");
        mov(ecx, dword_ptr(rdi + TABLE_LENGTH));
        add(rcx, rdi);
        add(rdi, TABLE_HEADER);
        at(".table");
        cmp(rdi, rcx);
        jae -> ".none";
        mov(esi, dword_ptr(rdi));
        add(rdi, r8);
        cmp(dword_ptr(rsi), u32::from_le_bytes(*b"FACP"));
        jne -> ".table";
        clc();
        ret();
    );
    Ok(())
}

/// `sleep_type`: EAX, S5's SLP_TYPa of the FADT at RSI: the first number of the package named
/// `_S5_` in the DSDT's AML, or 0.
fn emit_sleep_type(a: &mut Section<'_>) -> Emit {
    let (package_op, byte_prefix) = (0x12, 0x0A);
    emit!(a;
        at("sleep_type");
        mov(eax, dword_ptr(rsi + FADT_DSDT));
        test(eax, eax);
        jnz -> ".dsdt";
        mov(eax, dword_ptr(rsi + FADT_X_DSDT));
        test(eax, eax);
        jz -> ".none";
        at(".dsdt");
        mov(esi, eax);
        mov(ecx, dword_ptr(rsi + TABLE_LENGTH));
        add(rcx, rsi);
        at(".next");
        inc(rsi);
        lea(rax, ptr(rsi + 8));
        cmp(rax, rcx);
        ja -> ".none";
        cmp(dword_ptr(rsi), u32::from_le_bytes(*b"_S5_"));
        jne -> ".next";
        cmp(byte_ptr(rsi + 4), package_op);
        jne -> ".next";
        // The two top bits of a package length say how many bytes follow its first.
        movzx(eax, byte_ptr(rsi + 5));
        shr(eax, 6);
        movzx(edx, byte_ptr(rsi + rax + 7));
        cmp(edx, byte_prefix);
        jne -> ".number";
        movzx(edx, byte_ptr(rsi + rax + 8));
        at(".number");
        // ZeroOp and OneOp are their own values.
        mov(eax, edx);
        and(eax, 7);
        ret();
        at(".none");
        xor(eax, eax);
        ret();
    );
    Ok(())
}

/// `enable_power_management`: its registers to [`PM_BASE`], if a function on PCI bus 0 has them.
/// R8D: the function's configuration address.
fn emit_power_functions(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("enable_power_management");
        mov(r8d, PCI_ENABLE);
        at(".function");
        xor(ecx, ecx);
        call -> "pci_select";
        in_(eax, dx);
    );
    for (i, PowerFunction { id, base, enable, enable_bit }) in
        POWER_FUNCTIONS.into_iter().enumerate()
    {
        let other = format!(".other_than_{i}");
        emit!(a;
            cmp(eax, id);
            jne -> &other;
            mov(ecx, base);
            call -> "pci_select";
            mov(eax, PM_BASE | 1);
            out(dx, eax);
            mov(ecx, enable);
            call -> "pci_select";
            in_(eax, dx);
            bts(eax, enable_bit);
            out(dx, eax);
            ret();
            at(&other);
        );
    }
    emit!(a;
        add(r8d, 0x100);
        cmp(r8w, 0);
        jne -> ".function";
        ret();

        // Register ECX of the function: DX is then its data port.
        at("pci_select");
        lea(eax, ptr(r8 + rcx));
        mov(edx, u32::from(PCI_ADDRESS));
        out(dx, eax);
        mov(edx, u32::from(PCI_DATA));
        ret();
    );
    Ok(())
}
