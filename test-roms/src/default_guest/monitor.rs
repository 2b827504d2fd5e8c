//! The monitor: a prompt on COM1, driven by its receive interrupt, halted while nothing comes.

use iced_x86::code_asm::*;

use super::commands::COMMANDS;
use super::console::{GREEN, PLAIN, say};
use super::memory::*;
use crate::rom::{Emit, Section, emit};

const CTRL_C: i32 = 0x03;
const BACKSPACE: i32 = 0x08;
const CTRL_U: i32 = 0x15;
const ESCAPE: i32 = 0x1B;
const DELETE: i32 = 0x7F;

/// `monitor`, which does not return; `monitor.prompt`, where faults come back to it.
pub(super) fn emit(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("monitor");
        mov(byte_ptr(MONITOR_RUNS), 1);
        at(".prompt");
        mov(esp, STACK_TOP);
        sti();
    );
    say(a, &format!("{GREEN}brolga>{PLAIN} "))?;
    emit!(a;
        call -> "read_line";
        mov(esi, LINE);
        call -> "skip_spaces";
        cmp(byte_ptr(rsi), 0);
        je -> ".prompt";
        lea(rax) -> ".prompt";
        push(rax);
    );
    // Commands are jumped to, their argument at RSI, and return to the prompt.
    for command in &COMMANDS {
        let name = a.text(command.name);
        let handler = format!("command_{}", command.name);
        emit!(a; mov(edi, name); call -> "word_is"; je -> &handler;);
    }
    say(a, "  no such command: try help\n")?;
    emit!(a; ret(););
    emit_line(a)?;
    emit_line_editing(a)?;
    emit_getc(a)?;
    emit_words(a)?;
    emit_number(a)
}

/// `read_line`: into [`LINE`], ended by a zero. RBX: its length so far.
fn emit_line(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("read_line");
        push(rbx);
        xor(ebx, ebx);
        at(".next");
        call -> "getc";
        cmp(al, i32::from(b'\r'));
        je -> ".end";
        cmp(al, i32::from(b'\n'));
        je -> ".end";
        cmp(al, BACKSPACE);
        je -> ".erase";
        cmp(al, DELETE);
        je -> ".erase";
        cmp(al, CTRL_U);
        je -> ".erase_all";
        cmp(al, CTRL_C);
        je -> ".cancel";
        cmp(al, ESCAPE);
        je -> ".escape";
        cmp(al, i32::from(b' '));
        jb -> ".next";
        cmp(al, i32::from(b'~'));
        ja -> ".next";
        call -> "insert";
        jmp -> ".next";

        at(".erase");
        call -> "erase";
        jmp -> ".next";
        at(".erase_all");
        call -> "erase_all";
        jmp -> ".next";

        // Cursor up, ESC [ A, brings the line before back. Other sequences do nothing.
        at(".escape");
        call -> "getc";
        cmp(al, i32::from(b'['));
        jne -> ".next";
        call -> "getc";
        cmp(al, i32::from(b'A'));
        jne -> ".next";
        call -> "erase_all";
        call -> "insert_previous";
        jmp -> ".next";

        at(".cancel");
        xor(ebx, ebx);
        at(".end");
        mov(byte_ptr(rbx + LINE), 0);
        mov(al, u32::from(b'\n'));
        call -> "putc";
        test(ebx, ebx);
        jz -> ".done";
        mov(esi, LINE);
        mov(edi, PREVIOUS_LINE);
        mov(ecx, LINE_MAX.div_ceil(4) + 1);
        rep_movsd();
        at(".done");
        pop(rbx);
        ret();
    );
    Ok(())
}

fn emit_line_editing(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("insert");
        cmp(ebx, LINE_MAX);
        jae -> ".full";
        mov(byte_ptr(rbx + LINE), al);
        inc(ebx);
        jmp -> "putc";
        at(".full");
        ret();

        at("insert_previous");
        mov(al, byte_ptr(rbx + PREVIOUS_LINE));
        test(al, al);
        jz -> ".done";
        call -> "insert";
        jmp -> "insert_previous";
        at(".done");
        ret();

        at("erase_all");
        test(ebx, ebx);
        jz -> "erase.nothing";
        call -> "erase";
        jmp -> "erase_all";

        at("erase");
        test(ebx, ebx);
        jz -> ".nothing";
        dec(ebx);
    );
    for c in [BACKSPACE as u32, u32::from(b' '), BACKSPACE as u32] {
        emit!(a; mov(al, c); call -> "putc";);
    }
    emit!(a; at("erase.nothing"); ret(););
    Ok(())
}

/// `getc`: the next byte received in AL; LF after CR is not one.
fn emit_getc(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("getc");
        cli();
        movzx(ecx, byte_ptr(RECEIVED_TAIL));
        cmp(cl, byte_ptr(RECEIVED_HEAD));
        jne -> ".take";
        // No interrupt comes between these two, so none is missed.
        sti();
        hlt();
        jmp -> "getc";
        at(".take");
        mov(al, byte_ptr(rcx + RECEIVED));
        inc(byte_ptr(RECEIVED_TAIL));
        sti();
        mov(ah, byte_ptr(LAST_RECEIVED));
        mov(byte_ptr(LAST_RECEIVED), al);
        cmp(ax, (i32::from(b'\r') << 8) | i32::from(b'\n'));
        je -> "getc";
        ret();
    );
    Ok(())
}

/// `word_is`: ZF if the word at RSI is the text at RDI; RSI is then at the word after it.
/// `skip_spaces`: RSI to the next other character.
fn emit_words(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("word_is");
        mov(r8, rsi);
        at(".next");
        mov(al, byte_ptr(rdi));
        mov(ah, byte_ptr(rsi));
        test(al, al);
        jz -> ".end";
        inc(rdi);
        inc(rsi);
        cmp(al, ah);
        je -> ".next";
        at(".different");
        mov(rsi, r8);
        or(al, 1);
        ret();
        at(".end");
        test(ah, ah);
        jz -> ".same";
        cmp(ah, i32::from(b' '));
        jne -> ".different";
        at(".same");
        call -> "skip_spaces";
        cmp(eax, eax);
        ret();

        at("skip_spaces");
        cmp(byte_ptr(rsi), u32::from(b' '));
        jne -> ".done";
        inc(rsi);
        jmp -> "skip_spaces";
        at(".done");
        ret();
    );
    Ok(())
}

/// `parse_number`: the word at RSI, in base ECX or, after 0x, in hexadecimal, to RAX; RSI is then
/// at the word after it. CF if it is no number.
fn emit_number(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("parse_number");
        xor(eax, eax);
        xor(r8d, r8d);
        cmp(word_ptr(rsi), u32::from(u16::from_le_bytes(*b"0x")));
        jne -> ".next";
        add(rsi, 2);
        mov(ecx, 16);
        at(".next");
        movzx(edx, byte_ptr(rsi));
        test(edx, edx);
        jz -> ".end";
        cmp(edx, i32::from(b' '));
        je -> ".end";
        inc(rsi);
        sub(edx, i32::from(b'0'));
        cmp(edx, 10);
        jb -> ".digit";
        // A letter of either case: 'A' - '0' is 11h.
        or(edx, 0x20);
        sub(edx, i32::from(b'a' - b'0' - 10));
        cmp(edx, 10);
        jb -> ".bad";
        at(".digit");
        cmp(edx, ecx);
        jae -> ".bad";
        mov(r9d, edx);
        mul(rcx);
        jc -> ".bad";
        add(rax, r9);
        jc -> ".bad";
        inc(r8d);
        jmp -> ".next";
        at(".end");
        call -> "skip_spaces";
        cmp(r8d, 1);
        ret();
        at(".bad");
        stc();
        ret();
    );
    Ok(())
}
