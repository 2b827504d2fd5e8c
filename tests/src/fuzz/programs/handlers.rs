//! The guest's handlers. Each counts and logs its event; a page fault is repaired and tried again
//! every other time; an external interrupt mostly returns; everything else continues at the next
//! place of a table, on a fresh stack. To continue elsewhere they reload CR3, so that no stale
//! translation survives that the program was about to drop.

use anyhow::Result;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::layout::*;

/// Vectors that push an error code (Intel SDM volume 3, table 6-1).
const WITH_ERROR: [u64; 8] = [8, 10, 11, 12, 13, 14, 17, 21];
/// Bits of EFLAGS that do not survive a change of place: TF and NT.
const CLEARED: u32 = 1 << 8 | 1 << 14;

/// The code from [`HANDLERS`] on, for code of this size at level 0. Vectors from 32 on are entered
/// at 32 ([`INTERRUPT`]) and 33 (all others).
pub(super) fn code(bits: u32) -> Result<Vec<u8>> {
    let mut code = Vec::new();
    for n in 0..34_u64 {
        let vector = match n {
            32 => INTERRUPT,
            33 => SERVICE,
            _ => n as u8,
        };
        // push 0 (where the processor pushes nothing); push vector; jmp near common
        let mut entry = vec![0x6a, 0, 0x6a, vector, 0xe9];
        if bits == 16 || WITH_ERROR.contains(&n) {
            entry.drain(..2);
        }
        let width = if bits == 16 { 2 } else { 4 };
        let end = HANDLERS + 16 * n + (entry.len() + width) as u64;
        entry.extend(&(COMMON - end).to_le_bytes()[..width]);
        entry.resize(16, 0xcc);
        code.extend(entry);
    }
    code.resize((COMMON - HANDLERS) as usize, 0xcc);
    let mut a = CodeAssembler::new(bits)?;
    match bits {
        16 => real(&mut a)?,
        32 => protected(&mut a)?,
        _ => long(&mut a)?,
    }
    code.extend(a.assemble(COMMON)?);
    Ok(code)
}

/// Frame: DX, CX, BX, AX, DS, BP, vector, IP, CS, FLAGS. DI is lost.
fn real(a: &mut CodeAssembler) -> Result<(), IcedError> {
    const VECTOR: i32 = 12;
    let (mut elsewhere, mut back) = (a.create_label(), a.create_label());
    a.push(bp)?;
    a.push(ds)?;
    for register in [ax, bx, cx, dx] {
        a.push(register)?;
    }
    a.mov(bp, sp)?;
    a.xor(ax, ax)?;
    a.mov(ds, ax)?;
    a.mov(bx, SYSTEM as i32)?;
    a.mov(cx, word_ptr(bx + COUNT as i32))?;
    a.inc(word_ptr(bx + COUNT as i32))?;
    a.mov(dx, word_ptr(bp + VECTOR))?;
    a.mov(ax, word_ptr(bp + VECTOR + 2))?;
    a.mov(di, cx)?;
    a.and(di, LOGGED as i32 - 1)?;
    a.shl(di, 4)?;
    a.mov(word_ptr(bx + di + LOG as i32), dx)?;
    a.mov(word_ptr(bx + di + LOG as i32 + 2), ax)?;
    a.cmp(dx, i32::from(INTERRUPT))?;
    a.jne(elsewhere)?;
    a.test(cl, 3)?;
    a.jne(back)?;
    a.set_label(&mut elsewhere)?;
    a.and(cx, TARGETS as i32 - 1)?;
    a.shl(cx, 3)?;
    a.add(bx, cx)?;
    a.mov(dx, word_ptr(bx + TABLE as i32))?;
    a.mov(ax, word_ptr(bp + VECTOR + 6))?;
    a.and(ax, !CLEARED as i32 & 0xffff)?;
    a.mov(cx, (STACK >> 4) as i32)?;
    a.mov(ss, cx)?;
    a.mov(sp, (STACK_TOP - STACK) as i32)?;
    a.push(ax)?;
    a.push(0)?;
    a.push(dx)?;
    a.mov(ax, (DATA >> 4) as i32)?;
    a.mov(ds, ax)?;
    a.mov(es, ax)?;
    a.iret()?;
    a.set_label(&mut back)?;
    for register in [dx, cx, bx, ax] {
        a.pop(register)?;
    }
    a.pop(ds)?;
    a.pop(bp)?;
    a.add(sp, 2)?;
    a.iret()
}

/// Frame: EDX, ECX, EBX, EAX, vector, error code, EIP, CS, EFLAGS, and ESP, SS from level 3.
fn protected(a: &mut CodeAssembler) -> Result<(), IcedError> {
    const VECTOR: i32 = 16;
    let mut labels: [CodeLabel; 5] = std::array::from_fn(|_| a.create_label());
    let [elsewhere, inner, service, interrupt, back] = &mut labels;
    for register in [eax, ebx, ecx, edx] {
        a.push(register)?;
    }
    for segment in [ds, es] {
        a.mov(ebx, u32::from(DATA32[0]))?;
        a.mov(segment, ebx)?;
    }
    a.mov(ebx, SYSTEM as u32)?;
    a.mov(ecx, dword_ptr(ebx + COUNT as i32))?;
    a.inc(dword_ptr(ebx + COUNT as i32))?;
    a.mov(edx, ecx)?;
    a.and(edx, LOGGED as i32 - 1)?;
    a.shl(edx, 4)?;
    a.add(edx, ebx)?;
    for (field, offset) in [(0, VECTOR), (4, VECTOR + 4), (12, VECTOR + 8)] {
        a.mov(eax, dword_ptr(esp + offset))?;
        a.mov(dword_ptr(edx + LOG as i32 + field), eax)?;
    }
    a.mov(eax, cr2)?;
    a.mov(dword_ptr(edx + LOG as i32 + 8), eax)?;
    a.mov(edx, dword_ptr(esp + VECTOR))?;
    a.cmp(edx, i32::from(INTERRUPT))?;
    a.je(*interrupt)?;
    a.cmp(edx, i32::from(SERVICE))?;
    a.je(*service)?;
    a.cmp(edx, 14)?;
    a.jne(*elsewhere)?;
    a.test(cl, 1)?;
    a.jne(*elsewhere)?;
    a.mov(edx, cr3)?;
    a.mov(cr3, edx)?;
    a.shr(eax, 12)?;
    a.cmp(eax, (UNMAPPED >> 12) as i32)?;
    a.jae(*elsewhere)?;
    // An entry of a page table has 8 bytes with CR4.PAE, else 4.
    a.mov(edx, cr4)?;
    a.shr(edx, 5)?;
    a.and(edx, 1)?;
    a.add(edx, 2)?;
    a.xchg(ecx, edx)?;
    a.shl(eax, cl)?;
    a.xchg(ecx, edx)?;
    a.or(dword_ptr(eax + WINDOW as i32), 7)?;
    a.jmp(*back)?;
    a.set_label(interrupt)?;
    a.test(cl, 3)?;
    a.jne(*back)?;
    a.jmp(*elsewhere)?;
    a.set_label(service)?;
    a.and(dword_ptr(esp + VECTOR + 12), !3)?;
    a.set_label(elsewhere)?;
    a.mov(edx, cr3)?;
    a.mov(cr3, edx)?;
    a.and(ecx, TARGETS as i32 - 1)?;
    a.lea(ebx, ptr(ebx + ecx * 8 + TABLE as i32))?;
    a.mov(ecx, dword_ptr(ebx))?;
    a.mov(dword_ptr(esp + VECTOR + 8), ecx)?;
    a.and(dword_ptr(esp + VECTOR + 16), !CLEARED as i32)?;
    a.test(byte_ptr(esp + VECTOR + 12), 3)?;
    a.je(*inner)?;
    a.movzx(ecx, word_ptr(ebx + 6))?;
    a.mov(dword_ptr(esp + VECTOR + 12), ecx)?;
    a.mov(dword_ptr(esp + VECTOR + 20), STACK_TOP as u32)?;
    a.mov(ecx, u32::from(DATA32[1]))?;
    a.mov(dword_ptr(esp + VECTOR + 24), ecx)?;
    a.mov(ds, ecx)?;
    a.mov(es, ecx)?;
    a.set_label(back)?;
    a.test(byte_ptr(esp + VECTOR + 12), 3)?;
    let mut same = a.create_label();
    a.je(same)?;
    a.mov(ecx, u32::from(DATA32[1]))?;
    a.mov(ds, ecx)?;
    a.mov(es, ecx)?;
    a.set_label(&mut same)?;
    for register in [edx, ecx, ebx, eax] {
        a.pop(register)?;
    }
    a.add(esp, 8)?;
    a.iretd()?;
    a.set_label(inner)?;
    a.movzx(edx, word_ptr(ebx + 4))?;
    a.mov(eax, dword_ptr(esp + VECTOR + 16))?;
    a.mov(ebx, u32::from(DATA32[0]))?;
    a.mov(ss, ebx)?;
    a.mov(esp, STACK_TOP as u32)?;
    a.push(eax)?;
    a.push(edx)?;
    a.push(ecx)?;
    a.iretd()
}

/// Frame: RDX, RCX, RBX, RAX, vector, error code, RIP, CS, RFLAGS, RSP, SS.
fn long(a: &mut CodeAssembler) -> Result<(), IcedError> {
    const VECTOR: i32 = 32;
    let mut labels: [CodeLabel; 6] = std::array::from_fn(|_| a.create_label());
    let [elsewhere, inner, service, interrupt, back, continued] = &mut labels;
    for register in [rax, rbx, rcx, rdx] {
        a.push(register)?;
    }
    a.mov(ebx, SYSTEM as u32)?;
    a.mov(ecx, dword_ptr(rbx + COUNT as i32))?;
    a.inc(dword_ptr(rbx + COUNT as i32))?;
    a.mov(edx, ecx)?;
    a.and(edx, LOGGED as i32 - 1)?;
    a.shl(edx, 4)?;
    a.add(edx, ebx)?;
    a.mov(rax, cr2)?;
    a.mov(qword_ptr(rdx + LOG as i32 + 8), rax)?;
    for (field, offset) in [(0, VECTOR), (4, VECTOR + 8)] {
        a.mov(eax, dword_ptr(rsp + offset))?;
        a.mov(dword_ptr(rdx + LOG as i32 + field), eax)?;
    }
    a.mov(edx, dword_ptr(rsp + VECTOR))?;
    a.cmp(edx, i32::from(INTERRUPT))?;
    a.je(*interrupt)?;
    a.cmp(edx, i32::from(SERVICE))?;
    a.je(*service)?;
    a.cmp(edx, 14)?;
    a.jne(*elsewhere)?;
    a.test(cl, 1)?;
    a.jne(*elsewhere)?;
    a.mov(rax, cr2)?;
    a.mov(rdx, cr3)?;
    a.mov(cr3, rdx)?;
    a.shr(rax, 12)?;
    a.cmp(rax, (UNMAPPED >> 12) as i32)?;
    a.jae(*elsewhere)?;
    a.or(dword_ptr(rax * 8 + WINDOW as i32), 7)?;
    a.jmp(*back)?;
    a.set_label(interrupt)?;
    a.test(cl, 3)?;
    a.jne(*back)?;
    a.jmp(*elsewhere)?;
    a.set_label(service)?;
    a.and(dword_ptr(rsp + VECTOR + 24), !3)?;
    a.set_label(elsewhere)?;
    a.mov(rdx, cr3)?;
    a.mov(cr3, rdx)?;
    a.and(ecx, TARGETS as i32 - 1)?;
    a.lea(rbx, ptr(rbx + rcx * 8 + TABLE as i32))?;
    a.mov(ecx, dword_ptr(rbx))?;
    a.mov(qword_ptr(rsp + VECTOR + 16), rcx)?;
    a.mov(dword_ptr(rsp + VECTOR + 40), STACK_TOP as u32)?;
    a.mov(dword_ptr(rsp + VECTOR + 44), 0)?;
    a.and(dword_ptr(rsp + VECTOR + 32), !CLEARED as i32)?;
    a.test(byte_ptr(rsp + VECTOR + 24), 3)?;
    a.je(*inner)?;
    a.movzx(edx, word_ptr(rbx + 6))?;
    a.mov(ecx, u32::from(DATA32[1]))?;
    a.jmp(*continued)?;
    a.set_label(inner)?;
    a.movzx(edx, word_ptr(rbx + 4))?;
    a.mov(ecx, u32::from(DATA32[0]))?;
    a.set_label(continued)?;
    a.mov(qword_ptr(rsp + VECTOR + 24), rdx)?;
    a.mov(qword_ptr(rsp + VECTOR + 48), rcx)?;
    a.mov(ds, ecx)?;
    a.mov(es, ecx)?;
    a.set_label(back)?;
    for register in [rdx, rcx, rbx, rax] {
        a.pop(register)?;
    }
    a.add(rsp, 16)?;
    a.iretq()
}
