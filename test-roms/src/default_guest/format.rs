//! Numbers and aligned texts, for 64-bit mode.
//!
//! As everywhere in the 64-bit code, routines keep RBX, RBP and R8-R15, and change the others.

use iced_x86::code_asm::*;

use crate::rom::{Emit, Section, emit};

pub(super) fn emit(a: &mut Section<'_>) -> Emit {
    emit_hex(a)?;
    emit_decimal(a)
}

/// `put_hex`: the low ECX digits of RAX. `put_hex64`: all sixteen, in two groups.
fn emit_hex(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("put_hex64");
        push(rax);
        shr(rax, 32);
        mov(ecx, 8);
        call -> "put_hex";
        mov(al, u32::from(b'_'));
        call -> "putc";
        pop(rax);
        mov(ecx, 8);
        jmp -> "put_hex";

        at("put_hex");
        push(rbx);
        push(rbp);
        mov(ebp, ecx);
        mov(rbx, rax);
        // The digits wanted, at the top.
        shl(ecx, 2);
        ror(rbx, cl);
        at(".digit");
        rol(rbx, 4);
        mov(al, bl);
        and(al, 0xF);
        cmp(al, 10);
        jb -> ".decimal";
        add(al, i32::from(b'A' - b'0' - 10));
        at(".decimal");
        add(al, i32::from(b'0'));
        call -> "putc";
        dec(ebp);
        jnz -> ".digit";
        pop(rbp);
        pop(rbx);
        ret();
    );
    Ok(())
}

/// `put_decimal`: RAX, unsigned. `put_decimal_wide`: in at least ECX columns.
/// `put_spaces`: ECX of them.
fn emit_decimal(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("put_decimal");
        mov(ecx, 1);
        at("put_decimal_wide");
        push(rbx);
        push(rbp);
        mov(ebp, ecx);
        xor(ebx, ebx);
        mov(ecx, 10);
        at(".divide");
        xor(edx, edx);
        div(rcx);
        push(rdx);
        inc(ebx);
        test(rax, rax);
        jnz -> ".divide";
        mov(ecx, ebp);
        sub(ecx, ebx);
        jbe -> ".digit";
        call -> "put_spaces";
        at(".digit");
        pop(rax);
        add(al, i32::from(b'0'));
        call -> "putc";
        dec(ebx);
        jnz -> ".digit";
        pop(rbp);
        pop(rbx);
        ret();

        at("put_spaces");
        push(rbx);
        mov(ebx, ecx);
        at(".space");
        mov(al, u32::from(b' '));
        call -> "putc";
        dec(ebx);
        jnz -> ".space";
        pop(rbx);
        ret();
    );
    Ok(())
}
