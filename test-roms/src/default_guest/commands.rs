//! The monitor's commands, but for those that have their own file.

use iced_x86::code_asm::*;

use super::console::{BOLD, DIM, PLAIN, say};
use super::memory::*;
use crate::rom::{Emit, Section, emit};

const EFER: u32 = 0xC000_0080;
const DUMP_DEFAULT: u32 = 0x80;
const DUMP_MAX: u32 = 0x1000;
const BYTES_PER_ROW: u32 = 16;

/// A command; its code is at `command_` + its name.
pub(super) struct Command {
    pub(super) name: &'static str,
    arguments: &'static str,
    what: &'static str,
}

const fn command(name: &'static str, arguments: &'static str, what: &'static str) -> Command {
    Command { name, arguments, what }
}

pub(super) const COMMANDS: [Command; 11] = [
    command("help", "", "this list"),
    command("cpuid", "[LEAF [SUBLEAF]]", "the processor, or one leaf of CPUID"),
    command("dump", "ADDRESS [LENGTH]", "memory; numbers are hexadecimal"),
    command("regs", "", "registers"),
    command("ints", "", "how often each interrupt and exception came"),
    command("timers", "", "PIT, RTC and APIC timer again"),
    command("speed", "", "instructions per second again"),
    command("fault", "[KIND]", "an exception on purpose"),
    command("reset", "", "start over"),
    command("poweroff", "", "ACPI power-off"),
    command("exit", "STATUS", "write a decimal number to the exit port, F4h"),
];

pub(super) fn emit(a: &mut Section<'_>) -> Emit {
    emit_help(a)?;
    emit!(a; at("command_timers"); jmp -> "test_timers";);
    emit!(a; at("command_speed"); jmp -> "report_speed";);
    emit_ints(a)?;
    emit_dump(a)?;
    emit_dump_row(a)?;
    emit_regs(a)
}

fn emit_help(a: &mut Section<'_>) -> Emit {
    let mut list = String::new();
    for Command { name, arguments, what } in &COMMANDS {
        list += &format!("  {BOLD}{name:9}{PLAIN}{DIM}{arguments:18}{PLAIN}{what}\n");
    }
    emit!(a; at("command_help"););
    say(a, &list)?;
    emit!(a; ret(); at("bad_number"););
    say(a, "  that needs a number\n")?;
    emit!(a; ret(););
    Ok(())
}

fn emit_ints(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("command_ints");
        push(rbx);
        xor(ebx, ebx);
        at(".vector");
        mov(rax, qword_ptr(rbx * 8 + COUNTS));
        test(rax, rax);
        jz -> ".next";
        mov(ecx, 10);
        call -> "put_decimal_wide";
    );
    say(a, &format!("  {DIM}vector "))?;
    emit!(a; mov(eax, ebx); mov(ecx, 2); call -> "put_hex";);
    say(a, &format!("{PLAIN}  "))?;
    emit!(a;
        mov(eax, ebx);
        call -> "put_vector_name";
        mov(al, u32::from(b'\n'));
        call -> "putc";
        at(".next");
        inc(ebx);
        cmp(ebx, 256);
        jb -> ".vector";
        pop(rbx);
        ret();
    );
    Ok(())
}

fn emit_dump(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("command_dump");
        mov(ecx, 16);
        call -> "parse_number";
        jc -> "bad_number";
        push(rbx);
        push(rbp);
        mov(rbx, rax);
        mov(eax, DUMP_DEFAULT);
        cmp(byte_ptr(rsi), 0);
        je -> ".length";
        mov(ecx, 16);
        call -> "parse_number";
        jc -> ".bad";
        mov(ecx, DUMP_MAX);
        cmp(rax, rcx);
        cmova(rax, rcx);
        at(".length");
        mov(rbp, rax);
        at(".row");
        test(rbp, rbp);
        jle -> ".end";
        call -> "dump_row";
        add(rbx, BYTES_PER_ROW as i32);
        sub(rbp, BYTES_PER_ROW as i32);
        jmp -> ".row";
        at(".bad");
        call -> "bad_number";
        at(".end");
        pop(rbp);
        pop(rbx);
        ret();
    );
    Ok(())
}

/// `dump_row`: up to 16 of the RBP bytes at RBX; those that cannot be read as `??`. R12: index,
/// the characters come together in [`TEXT`].
fn emit_dump_row(a: &mut Section<'_>) -> Emit {
    emit!(a; at("dump_row"); push(r12););
    say(a, &format!("  {DIM}"))?;
    emit!(a; mov(rax, rbx); call -> "put_hex64";);
    say(a, &format!("{PLAIN} "))?;
    emit!(a;
        xor(r12d, r12d);
        at(".byte");
        mov(al, u32::from(b' '));
        call -> "putc";
        mov(byte_ptr(r12 + TEXT), 0);
        cmp(r12, rbp);
        jae -> ".beyond";
        lea(rdi, ptr(rbx + r12));
        call -> "probe";
        jc -> ".unreadable";
        mov(byte_ptr(r12 + TEXT), al);
        lea(edx, ptr(rax - i32::from(b' ')));
        cmp(dl, i32::from(b'~' - b' '));
        jbe -> ".printable";
        mov(byte_ptr(r12 + TEXT), u32::from(b'.'));
        at(".printable");
        mov(ecx, 2);
        call -> "put_hex";
        jmp -> ".next";
        at(".unreadable");
        mov(byte_ptr(r12 + TEXT), u32::from(b'?'));
    );
    say(a, "??")?;
    emit!(a; jmp -> ".next"; at(".beyond"););
    say(a, "  ")?;
    emit!(a;
        at(".next");
        inc(r12d);
        cmp(r12d, BYTES_PER_ROW);
        jb -> ".byte";
        mov(byte_ptr(TEXT + BYTES_PER_ROW), 0);
    );
    say(a, "  ")?;
    emit!(a;
        mov(esi, TEXT);
        call -> "puts";
        mov(al, u32::from(b'\n'));
        call -> "putc";
        pop(r12);
        ret();
    );
    Ok(())
}

/// The registers as the command found them.
fn emit_regs(a: &mut Section<'_>) -> Emit {
    let general = [
        ("RAX", rax),
        ("RBX", rbx),
        ("RCX", rcx),
        ("RDX", rdx),
        ("RSI", rsi),
        ("RDI", rdi),
        ("RBP", rbp),
        ("RSP", rsp),
        ("R8", r8),
        ("R9", r9),
        ("R10", r10),
        ("R11", r11),
        ("R12", r12),
        ("R13", r13),
        ("R14", r14),
        ("R15", r15),
    ];
    emit!(a; at("command_regs"); pushfq(););
    for (_, register) in general {
        emit!(a; push(register););
    }
    for (i, (name, _)) in general.into_iter().enumerate() {
        let saved = (general.len() - 1 - i) * 8;
        emit!(a; mov(rax, qword_ptr(rsp + saved)););
        put_register(a, name, i)?;
    }
    let flags = general.len() * 8;
    emit!(a; mov(rax, qword_ptr(rsp + flags)););
    put_register(a, "RFLAGS", 16)?;
    emit!(a; lea(rax) -> "command_regs";);
    put_register(a, "RIP", 17)?;
    for (i, (name, register)) in
        [("CR0", cr0), ("CR2", cr2), ("CR3", cr3), ("CR4", cr4)].into_iter().enumerate()
    {
        emit!(a; mov(rax, register););
        put_register(a, name, 18 + i)?;
    }
    emit!(a; mov(ecx, EFER); rdmsr(); mov(eax, eax););
    put_register(a, "EFER", 22)?;
    emit!(a; xor(eax, eax); mov(ax, cs););
    put_register(a, "CS", 23)?;
    emit!(a; add(rsp, flags as i32 + 8); ret(););
    Ok(())
}

/// RAX under a name; `place` is its position among registers, three a line.
fn put_register(a: &mut Section<'_>, name: &str, place: usize) -> Emit {
    // `say` changes RAX.
    emit!(a; push(rax););
    say(a, &format!("  {DIM}{name:6}{PLAIN} "))?;
    emit!(a; pop(rax); call -> "put_hex64";);
    if place % 3 == 2 { say(a, "\n") } else { Ok(()) }
}
