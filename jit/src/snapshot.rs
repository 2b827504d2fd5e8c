//! The host code of representative guest instructions, so that a change of code generation shows in
//! review. To accept one: `INSTA_UPDATE=always cargo test -p brolga-jit --lib snapshot`.

use std::fmt::Write;

use brolga_cpu::block::Mode;
use brolga_cpu::cpuid::CpuModel;
use cranelift_codegen::isa;
use cranelift_codegen::settings::Configurable;
use iced_x86::code_asm::*;
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, IcedError, Instruction, NasmFormatter,
};

use crate::compile::{Compiler, set_up};
use crate::native;
use crate::plan::{Bounds, plan};
use crate::sites::Restless;
use crate::translate::Request;

type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Where in the page the code begins, and a target in another page.
const START: u16 = 0x100;
const FAR: u64 = 0x9000;

/// Instructions, some with one that uses their flags.
#[rustfmt::skip]
const CASES: &[(&str, Emit)] = &[
    ("mov rax, rbx", |a| a.mov(rax, rbx)),
    ("mov ah, bl", |a| a.mov(ah, bl)),
    ("mov cx, dx", |a| a.mov(cx, dx)),
    ("mov eax, [rbx+8]", |a| a.mov(eax, dword_ptr(rbx + 8))),
    ("mov [rdi+rcx*4-16], rdx", |a| a.mov(qword_ptr(rdi + rcx * 4 - 16), rdx)),
    ("mov byte [rsi], 7", |a| a.mov(byte_ptr(rsi), 7)),
    ("mov rax, fs:[40]", |a| a.mov(rax, qword_ptr(40).fs())),
    ("movzx eax, word [rdx]", |a| a.movzx(eax, word_ptr(rdx))),
    ("movsxd rax, ecx", |a| a.movsxd(rax, ecx)),
    ("lea rax, [rcx+rdx*8+24]", |a| a.lea(rax, rcx + rdx * 8 + 24)),
    ("push rbp", |a| a.push(rbp)),
    ("pop rbx", |a| a.pop(rbx)),
    ("leave", |a| a.leave()),
    ("xchg [rbx], rax", |a| a.xchg(qword_ptr(rbx), rax)),
    ("add eax, ecx", |a| a.add(eax, ecx)),
    ("add qword [rbx+8], 1", |a| a.add(qword_ptr(rbx + 8), 1)),
    ("adc rax, rdx", |a| a.adc(rax, rdx)),
    ("sub cl, 3", |a| a.sub(cl, 3)),
    ("sbb eax, eax", |a| a.sbb(eax, eax)),
    ("inc rcx", |a| a.inc(rcx)),
    ("neg edx", |a| a.neg(edx)),
    ("xor eax, eax", |a| a.xor(eax, eax)),
    ("imul rax, rdx", |a| a.imul_2(rax, rdx)),
    ("mul rcx", |a| a.mul(rcx)),
    ("div ecx", |a| a.div(ecx)),
    ("idiv r8", |a| a.idiv(r8)),
    ("shl rax, 5", |a| a.shl(rax, 5)),
    ("shr edx, cl", |a| a.shr(edx, cl)),
    ("sar rdx, 63", |a| a.sar(rdx, 63)),
    ("rol ecx, 7", |a| a.rol(ecx, 7)),
    ("shld rax, rdx, 12", |a| a.shld(rax, rdx, 12)),
    ("bt rax, 9", |a| a.bt(rax, 9)),
    ("bts [rdi], eax", |a| a.bts(dword_ptr(rdi), eax)),
    ("bsf eax, edx", |a| a.bsf(eax, edx)),
    ("popcnt rax, rcx", |a| a.popcnt(rax, rcx)),
    ("bswap r9", |a| a.bswap(r9)),
    ("crc32 eax, rdx", |a| a.crc32(rax, rdx)),
    ("cdq", |a| a.cdq()),
    ("lock add [rdi], ecx", |a| a.lock().add(dword_ptr(rdi), ecx)),
    ("lock xadd [rdi], rax", |a| a.lock().xadd(qword_ptr(rdi), rax)),
    ("lock cmpxchg [rdi], ecx", |a| a.lock().cmpxchg(dword_ptr(rdi), ecx)),
    ("cmp rax, rdx; jb", |a| { a.cmp(rax, rdx)?; a.jb(FAR) }),
    ("cmp ecx, 5; jne", |a| { a.cmp(ecx, 5)?; a.jne(FAR) }),
    ("test eax, eax; jle", |a| { a.test(eax, eax)?; a.jle(FAR) }),
    ("add rax, 16; jg", |a| { a.add(rax, 16)?; a.jg(FAR) }),
    ("dec ecx; jnz", |a| { a.dec(ecx)?; a.jnz(FAR) }),
    ("sub eax, edx; jo", |a| { a.sub(eax, edx)?; a.jo(FAR) }),
    ("shr eax, 1; jc", |a| { a.shr(eax, 1)?; a.jc(FAR) }),
    ("bt rdx, rcx; jc", |a| { a.bt(rdx, rcx)?; a.jc(FAR) }),
    ("cmp al, 'a'; setbe dl", |a| { a.cmp(al, 0x61)?; a.setbe(dl) }),
    ("cmp rax, rcx; cmovl rax, rcx", |a| { a.cmp(rax, rcx)?; a.cmovl(rax, rcx) }),
    ("add rax, rcx; adc rdx, rbx", |a| { a.add(rax, rcx)?; a.adc(rdx, rbx) }),
    ("lahf", |a| a.lahf()),
    ("cmc", |a| a.cmc()),
    ("jmp rax", |a| a.jmp(rax)),
    ("call [rbx]", |a| a.call(qword_ptr(rbx))),
    ("ret", |a| a.ret()),
    ("stosd", |a| a.stosd()),
    ("lodsb", |a| a.lodsb()),
    ("rep movsb", |a| a.rep().movsb()),
    ("movaps xmm1, xmm2", |a| a.movaps(xmm1, xmm2)),
    ("movaps xmm1, [rax]", |a| a.movaps(xmm1, xmmword_ptr(rax))),
    ("movups [rax], xmm1", |a| a.movups(xmmword_ptr(rax), xmm1)),
    ("movq xmm0, rax", |a| a.movq(xmm0, rax)),
    ("movd eax, xmm3", |a| a.movd(eax, xmm3)),
    ("movsd xmm1, [rdx]", |a| a.movsd_2(xmm1, qword_ptr(rdx))),
    ("movsd xmm1, xmm2", |a| a.movsd_2(xmm1, xmm2)),
    ("movhps xmm1, [rdx]", |a| a.movhps(xmm1, qword_ptr(rdx))),
    ("pxor xmm0, xmm0", |a| a.pxor(xmm0, xmm0)),
    ("paddd xmm1, xmm2", |a| a.paddd(xmm1, xmm2)),
    ("paddusb xmm1, [rax]", |a| a.paddusb(xmm1, xmmword_ptr(rax))),
    ("pcmpeqb xmm0, xmm1; pmovmskb eax, xmm0",
        |a| { a.pcmpeqb(xmm0, xmm1)?; a.pmovmskb(eax, xmm0) }),
    ("pminub xmm0, xmm1", |a| a.pminub(xmm0, xmm1)),
    ("pmulhw xmm0, xmm1", |a| a.pmulhw(xmm0, xmm1)),
    ("pmaddwd xmm0, xmm1", |a| a.pmaddwd(xmm0, xmm1)),
    ("psllq xmm0, 5", |a| a.psllq(xmm0, 5)),
    ("psrldq xmm0, 7", |a| a.psrldq(xmm0, 7)),
    ("palignr xmm0, xmm1, 7", |a| a.palignr(xmm0, xmm1, 7)),
    ("pshufd xmm0, xmm1, 1Bh", |a| a.pshufd(xmm0, xmm1, 0x1b)),
    ("pshufb xmm0, xmm1", |a| a.pshufb(xmm0, xmm1)),
    ("punpcklbw xmm0, xmm1", |a| a.punpcklbw(xmm0, xmm1)),
    ("packuswb xmm0, xmm1", |a| a.packuswb(xmm0, xmm1)),
    ("pblendvb xmm1, xmm2", |a| a.pblendvb(xmm1, xmm2)),
    ("pextrw eax, xmm1, 3", |a| a.pextrw(eax, xmm1, 3)),
    ("pinsrd xmm1, eax, 2", |a| a.pinsrd(xmm1, eax, 2)),
    ("ptest xmm0, xmm1; jz", |a| { a.ptest(xmm0, xmm1)?; a.jz(FAR) }),
    ("pcmpistri xmm0, [rsi], 1Ah; jbe",
        |a| { a.pcmpistri(xmm0, xmmword_ptr(rsi), 0x1a)?; a.jbe(FAR) }),
    ("vmovdqu ymm1, [rax]; vpcmpeqb; vpmovmskb",
        |a| {
            a.vmovdqu(ymm1, ymmword_ptr(rax))?;
            a.vpcmpeqb(ymm1, ymm1, ymm2)?;
            a.vpmovmskb(eax, ymm1)
        }),
    ("vmovups [rax], ymm1", |a| a.vmovups(ymmword_ptr(rax), ymm1)),
    ("vpxor xmm0, xmm1, xmm2", |a| a.vpxor(xmm0, xmm1, xmm2)),
    ("vzeroupper", |a| a.vzeroupper()),
    ("addsd xmm0, xmm1", |a| a.addsd(xmm0, xmm1)),
    ("mulsd xmm0, [rax]", |a| a.mulsd(xmm0, qword_ptr(rax))),
    ("addps xmm0, xmm1", |a| a.addps(xmm0, xmm1)),
    ("divpd xmm0, xmm1", |a| a.divpd(xmm0, xmm1)),
    ("sqrtss xmm0, xmm1", |a| a.sqrtss(xmm0, xmm1)),
    ("minsd xmm0, xmm1", |a| a.minsd(xmm0, xmm1)),
    ("haddps xmm0, xmm1", |a| a.haddps(xmm0, xmm1)),
    ("roundsd xmm0, xmm1, 1", |a| a.roundsd(xmm0, xmm1, 1)),
    ("cmpltsd xmm0, xmm1", |a| a.cmpltsd(xmm0, xmm1)),
    ("ucomisd xmm0, xmm1; ja", |a| { a.ucomisd(xmm0, xmm1)?; a.ja(FAR) }),
    ("cvtsi2sd xmm0, rax", |a| a.cvtsi2sd(xmm0, rax)),
    ("cvttsd2si eax, xmm0", |a| a.cvttsd2si(eax, xmm0)),
    ("cvtss2sd xmm0, xmm1", |a| a.cvtss2sd(xmm0, xmm1)),
    ("cvtdq2ps xmm0, xmm1", |a| a.cvtdq2ps(xmm0, xmm1)),
    ("paddw mm0, mm1", |a| a.paddw(mm0, mm1)),
    ("emms", |a| a.emms()),
    ("fld qword [rax]", |a| a.fld(qword_ptr(rax))),
    ("fadd st0, st3", |a| a.fadd_2(st0, st3)),
    ("fstp dword [rbx+4]", |a| a.fstp(dword_ptr(rbx + 4))),
    ("fcomi st0, st1; jb", |a| { a.fcomi(st0, st1)?; a.jb(FAR) }),
    ("fnstsw ax", |a| a.fnstsw(ax)),
    ("fldcw [rsp]", |a| a.fldcw(word_ptr(rsp))),
    ("cpuid", |a| a.cpuid()),
    ("rdtsc", |a| a.rdtsc()),
];

/// A compiler for a processor of the year 2013, whatever this one is.
fn compiler() -> Compiler {
    let mut builder = isa::lookup_by_name("x86_64-unknown-linux-gnu").expect("a backend");
    for feature in [
        "sse3",
        "ssse3",
        "sse41",
        "sse42",
        "popcnt",
        "cmpxchg16b",
        "avx",
        "avx2",
        "fma",
        "bmi1",
        "bmi2",
        "lzcnt",
    ] {
        builder.enable(&format!("has_{feature}")).expect("a feature");
    }
    Compiler::for_isa(set_up(builder).expect("settings"))
}

/// 64-bit code of a user.
fn mode() -> Mode {
    [
        Mode::CODE64,
        Mode::CS_FLAT,
        Mode::DS_FLAT,
        Mode::ES_FLAT,
        Mode::SS_FLAT,
        Mode::OSFXSR,
        Mode::AVX,
        Mode::PROTECTED,
    ]
    .into_iter()
    .fold(Mode::default(), |mode, bit| mode.with(bit, true))
}

/// The host code of the instructions, without what leaves the region.
fn host_code(compiler: &mut Compiler, emit: Emit) -> String {
    let mut assembler = CodeAssembler::new(64).expect("64-bit code");
    emit(&mut assembler).expect("an instruction");
    let guest = assembler.assemble(u64::from(START)).expect("its bytes");
    let mut page = vec![0x90; brolga_mmu::PAGE_SIZE as usize];
    page[usize::from(START)..][..guest.len()].copy_from_slice(&guest);
    let model = CpuModel::by_name("max").expect("a model");
    let end = START + guest.len() as u16;
    let bounds = Bounds { most: usize::MAX, warm: &|_| false, crowded: &|_| false, excluded: &[] };
    let plan = plan(&page, START, mode(), &model, &bounds).expect("a region");
    let numbers: Vec<u32> = (0..plan.interpreted() as u32).collect();
    let request = Request {
        plan: &plan,
        page: &page,
        mode: mode(),
        model: &model,
        first_cell: 0,
        sites: &[],
        sites_for_all: false,
        restless: &Restless::default(),
        numbers: &numbers,
        wants_text: false,
    };
    let code = compiler.compile(&request).expect("code").code;
    let mut text = String::new();
    for (range, insn) in compiler.origins() {
        if (START..end).contains(&insn) {
            disassemble(&mut text, &code[range]);
        }
    }
    text
}

/// Writes instructions down, without where they are and where jumps go.
fn disassemble(text: &mut String, code: &[u8]) {
    let mut formatter = NasmFormatter::new();
    formatter.options_mut().set_rip_relative_addresses(true);
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let mut line = String::new();
        let jumps = matches!(
            instruction.flow_control(),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
        );
        match jumps {
            true => formatter.format_mnemonic(&instruction, &mut line),
            false => formatter.format(&instruction, &mut line),
        }
        let _ = writeln!(text, "    {line}");
    }
}

#[test]
fn host_code_is_that_of_the_snapshot() {
    if !native::sse4_2() {
        eprintln!("skipped: this host lacks SSE4.2, and has the interpreter execute more");
        return;
    }
    let mut compiler = compiler();
    let mut text = String::new();
    for (name, emit) in CASES {
        let _ = writeln!(text, "{name}\n{}", host_code(&mut compiler, *emit));
    }
    insta::assert_snapshot!(text);
}
