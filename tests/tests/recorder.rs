//! The effects of representative instructions, as the recorder writes them down. In the texts a
//! register or `flags` stands for its value before the instruction, `m0` for what memory held.

use std::fmt::Write;

use brolga_cpu::block::Mode;
use brolga_cpu::cpuid::CpuModel;
use brolga_tests::recorder::record;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;

const CASES: &[(&str, Emit)] = &[
    ("add [rbx+8], eax", |a| a.add(dword_ptr(rbx + 8), eax)),
    ("adc al, ch", |a| a.adc(al, ch)),
    ("lock sub [rdi+rcx*4-16], rdx", |a| a.lock().sub(qword_ptr(rdi + rcx * 4 - 16), rdx)),
    ("cmp word [rsp], 5", |a| a.cmp(word_ptr(rsp), 5)),
    ("test r9d, r10d", |a| a.test(r9d, r10d)),
    ("inc dword fs:[rax]", |a| a.inc(dword_ptr(rax).fs())),
    ("neg bx", |a| a.neg(bx)),
    ("imul esi, [rbp+4], 100", |a| a.imul_3(esi, dword_ptr(rbp + 4), 100)),
    ("mul r8", |a| a.mul(r8)),
    ("div dword [rsi]", |a| a.div(dword_ptr(rsi))),
    ("shl rax, cl", |a| a.shl(rax, cl)),
    ("ror dh, 3", |a| a.ror(dh, 3)),
    ("shld ecx, edx, 7", |a| a.shld(ecx, edx, 7)),
    ("bt qword [rdx], rax", |a| a.bt(qword_ptr(rdx), rax)),
    ("bsf ecx, edx", |a| a.bsf(ecx, edx)),
    ("mov r15b, [rip+100h]", |a| a.db(&[0x44, 0x8a, 0x3d, 0, 1, 0, 0])),
    ("movsx rdi, word [rax]", |a| a.movsx(rdi, word_ptr(rax))),
    ("lea eax, [rcx+rcx*2]", |a| a.lea(eax, rcx + rcx * 2)),
    ("xchg [rbx], rax", |a| a.xchg(qword_ptr(rbx), rax)),
    ("lock cmpxchg [rdi], ecx", |a| a.lock().cmpxchg(dword_ptr(rdi), ecx)),
    ("cmovl eax, ebx", |a| a.cmovl(eax, ebx)),
    ("setbe [rdx]", |a| a.setbe(byte_ptr(rdx))),
    ("push r12", |a| a.push(r12)),
    ("pop qword [rsp+8]", |a| a.pop(qword_ptr(rsp + 8))),
    ("call rax", |a| a.call(rax)),
    ("ret", |a| a.ret()),
    ("rep movsb", |a| a.rep().movsb()),
    ("movaps xmm1, [rax]", |a| a.movaps(xmm1, xmmword_ptr(rax))),
    ("paddb xmm3, xmm4", |a| a.paddb(xmm3, xmm4)),
    ("pshufd xmm0, xmm1, 1Bh", |a| a.pshufd(xmm0, xmm1, 0x1b)),
    ("addsd xmm2, [rcx]", |a| a.addsd(xmm2, qword_ptr(rcx))),
    ("cvttss2si eax, xmm5", |a| a.cvttss2si(eax, xmm5)),
    ("pxor mm1, mm2", |a| a.pxor(mm1, mm2)),
    ("fadd st0, st3", |a| a.fadd_2(st0, st3)),
    ("cpuid", |a| a.cpuid()),
];

fn effects(emit: Emit) -> Vec<String> {
    const ADDRESS: u64 = 0x1000_0000;
    let mode = Mode::default().with(Mode::CODE64, true).with(Mode::OSFXSR, true);
    let model = CpuModel::by_name("max").expect("a model");
    let mut assembler = CodeAssembler::new(64).expect("64-bit code");
    emit(&mut assembler).expect("an instruction");
    let code = assembler.assemble(ADDRESS).expect("its bytes");
    record(&code, mode, &model).expect("a whole instruction")
}

#[test]
fn effects_are_those_of_the_snapshot() {
    let mut text = String::new();
    for (name, emit) in CASES {
        let _ = writeln!(text, "{name}");
        for effect in effects(*emit) {
            let _ = writeln!(text, "    {effect}");
        }
    }
    let expected = include_str!("recorder.txt");
    if text != expected {
        let line = text.lines().zip(expected.lines()).position(|(got, want)| got != want);
        panic!("differs from tests/recorder.txt at line {:?}; now:\n{text}", line.map(|n| n + 1));
    }
}

#[test]
fn a_block_is_recorded_to_its_end() {
    let effects = effects(|a| {
        a.add(eax, ecx)?;
        a.jmp(rax)?;
        a.nop()
    });
    let expected = [
        "flags = Add.32(Add.32(rax.32, rcx.32); rax.32, rcx.32)",
        "rax.32 = Add.32(rax.32, rcx.32)",
        "check rax",
        "jump rax",
    ];
    assert_eq!(effects, expected);
}

#[test]
fn an_instruction_that_is_cut_short_has_no_effects() {
    let mode = Mode::default().with(Mode::CODE64, true);
    let model = CpuModel::by_name("max").expect("a model");
    assert_eq!(record(&[0x48, 0x01], mode, &model), None);
}
