//! What CPUID says: the boot report's lines, and the `cpuid` command.

use iced_x86::code_asm::*;

use super::console::{DIM, PLAIN, report, say};
use super::memory::*;
use crate::rom::{Emit, Section, emit};

const BRAND: u32 = 0x8000_0002;
/// Columns of the feature list, which is indented like the report's texts.
const COLUMNS: i32 = 60;
const INDENT: u32 = 17;

/// A leaf, one of its registers, and features with their bits in it.
type Features = (u32, AsmRegister32, &'static [(u32, &'static str)]);

const FEATURES: [Features; 4] = [
    (
        1,
        edx,
        &[
            (0, "fpu"),
            (4, "tsc"),
            (5, "msr"),
            (6, "pae"),
            (8, "cx8"),
            (9, "apic"),
            (11, "sep"),
            (13, "pge"),
            (15, "cmov"),
            (16, "pat"),
            (23, "mmx"),
            (24, "fxsr"),
            (25, "sse"),
            (26, "sse2"),
        ],
    ),
    (
        1,
        ecx,
        &[
            (0, "sse3"),
            (1, "pclmul"),
            (9, "ssse3"),
            (12, "fma"),
            (13, "cx16"),
            (17, "pcid"),
            (19, "sse4.1"),
            (20, "sse4.2"),
            (21, "x2apic"),
            (22, "movbe"),
            (23, "popcnt"),
            (24, "tsc-deadline"),
            (25, "aes"),
            (26, "xsave"),
            (28, "avx"),
            (29, "f16c"),
            (30, "rdrand"),
        ],
    ),
    (
        7,
        ebx,
        &[
            (0, "fsgsbase"),
            (3, "bmi1"),
            (5, "avx2"),
            (7, "smep"),
            (8, "bmi2"),
            (9, "erms"),
            (10, "invpcid"),
            (18, "rdseed"),
            (19, "adx"),
            (20, "smap"),
            (29, "sha"),
        ],
    ),
    (
        0x8000_0001,
        edx,
        &[(11, "syscall"), (20, "nx"), (26, "1g-pages"), (27, "rdtscp"), (29, "long-mode")],
    ),
];

pub(super) fn emit(a: &mut Section<'_>) -> Emit {
    emit_report(a)?;
    emit_known_leaf(a)?;
    emit_put_feature(a)?;
    emit_command(a)
}

/// `report_cpu`: vendor, signature, brand, features.
fn emit_report(a: &mut Section<'_>) -> Emit {
    emit!(a; at("report_cpu"); push(rbx); push(r12); push(r13););
    report(a, "processor", "")?;
    emit!(a;
        xor(eax, eax);
        cpuid();
        mov(dword_ptr(TEXT), ebx);
        mov(dword_ptr(TEXT + 4), edx);
        mov(dword_ptr(TEXT + 8), ecx);
        mov(byte_ptr(TEXT + 12), 0);
        mov(esi, TEXT);
        call -> "puts";
        mov(eax, 1);
        cpuid();
        mov(r12d, eax);
    );
    // Family and model with their extensions (SDM vol. 2A, CPUID, leaf 1).
    say(a, " family ")?;
    emit!(a;
        mov(eax, r12d);
        shr(eax, 8);
        and(eax, 0xF);
        cmp(eax, 0xF);
        jne -> ".family";
        mov(ecx, r12d);
        shr(ecx, 20);
        movzx(ecx, cl);
        add(eax, ecx);
        at(".family");
        call -> "put_decimal";
    );
    say(a, " model ")?;
    emit!(a;
        mov(eax, r12d);
        shr(eax, 4);
        and(eax, 0xF);
        mov(ecx, r12d);
        shr(ecx, 12);
        and(ecx, 0xF0);
        or(eax, ecx);
        call -> "put_decimal";
    );
    say(a, " stepping ")?;
    emit!(a; mov(eax, r12d); and(eax, 0xF); call -> "put_decimal";);
    say(a, "\n")?;
    emit_brand(a)?;
    emit_features(a)?;
    emit!(a; pop(r13); pop(r12); pop(rbx); ret(););
    Ok(())
}

/// The brand string's 48 bytes, without the spaces that some start with.
fn emit_brand(a: &mut Section<'_>) -> Emit {
    for i in 0..3 {
        let text = TEXT + i * 16;
        emit!(a;
            mov(eax, BRAND + i);
            xor(ecx, ecx);
            call -> "known_leaf";
            mov(dword_ptr(text), eax);
            mov(dword_ptr(text + 4), ebx);
            mov(dword_ptr(text + 8), ecx);
            mov(dword_ptr(text + 12), edx);
        );
    }
    emit!(a;
        mov(byte_ptr(TEXT + 48), 0);
        mov(esi, TEXT);
        call -> "skip_spaces";
        cmp(byte_ptr(rsi), 0);
        je -> ".no_brand";
        mov(r12d, esi);
    );
    report(a, "", "")?;
    emit!(a; mov(esi, r12d); call -> "puts";);
    say(a, "\n")?;
    emit!(a; at(".no_brand"););
    Ok(())
}

fn emit_features(a: &mut Section<'_>) -> Emit {
    report(a, "", DIM)?;
    emit!(a; xor(r13d, r13d););
    for (leaf, register, features) in FEATURES {
        emit!(a;
            mov(eax, leaf);
            xor(ecx, ecx);
            call -> "known_leaf";
            mov(r12d, register);
        );
        for &(bit, name) in features {
            let text = a.text(name);
            let next = format!(".no_{name}");
            emit!(a;
                bt(r12d, bit);
                jnc -> &next;
                mov(esi, text);
                mov(ecx, name.len() as u32 + 1);
                call -> "put_feature";
                at(&next);
            );
        }
    }
    say(a, &format!("{PLAIN}\n"))
}

/// `known_leaf`: CPUID of leaf EAX and subleaf ECX, all zeros for a leaf above the greatest of its
/// range (for which Intel's processors answer with some other leaf).
fn emit_known_leaf(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("known_leaf");
        mov(r8d, eax);
        mov(r9d, ecx);
        and(eax, 0x8000_0000u32);
        cpuid();
        cmp(r8d, eax);
        ja -> ".unknown";
        mov(eax, r8d);
        mov(ecx, r9d);
        cpuid();
        ret();
        at(".unknown");
        xor(eax, eax);
        xor(ebx, ebx);
        xor(ecx, ecx);
        xor(edx, edx);
        ret();
    );
    Ok(())
}

/// `put_feature`: the name at ESI, ECX wide with its space, from column R13D on.
fn emit_put_feature(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("put_feature");
        add(r13d, ecx);
        cmp(r13d, COLUMNS);
        jbe -> ".here";
        mov(r13d, ecx);
        push(rsi);
        mov(al, u32::from(b'\n'));
        call -> "putc";
        mov(ecx, INDENT);
        call -> "put_spaces";
        pop(rsi);
        at(".here");
        call -> "puts";
        mov(al, u32::from(b' '));
        jmp -> "putc";
    );
    Ok(())
}

/// `cpuid [leaf [subleaf]]`.
fn emit_command(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("command_cpuid");
        cmp(byte_ptr(rsi), 0);
        je -> "report_cpu";
        mov(ecx, 16);
        call -> "parse_number";
        jc -> "bad_number";
        push(rbx);
        push(rbp);
        mov(ebp, eax);
        xor(eax, eax);
        cmp(byte_ptr(rsi), 0);
        je -> ".read";
        mov(ecx, 16);
        call -> "parse_number";
        at(".read");
        mov(ecx, eax);
        mov(eax, ebp);
        cpuid();
        push(rdx);
        push(rcx);
        push(rbx);
        push(rax);
    );
    for name in ["EAX", "EBX", "ECX", "EDX"] {
        say(a, &format!("  {DIM}{name}{PLAIN} "))?;
        emit!(a; pop(rax); mov(ecx, 8); call -> "put_hex";);
    }
    say(a, "\n")?;
    emit!(a; pop(rbp); pop(rbx); ret(););
    Ok(())
}
