//! Every vector instruction that the interpreter knows, in every form, against the host's
//! processor: the same bytes run natively and through `decode` and the handlers. Test code with
//! `unsafe`: it calls what it has assembled.

use std::arch::asm;

use iced_x86::{
    Code, CpuidFeature, Encoder, EncodingKind, Instruction, Mnemonic, OpCodeOperandKind, OpKind,
    Register,
};
use memmap2::{Mmap, MmapMut};

use super::tests::{Operands, control_words};
use crate::core::Core;
use crate::exception::Exception;
use crate::flags::LazyFlags;
use crate::semantics::sse::testing::{core, execute, peek, poke};
use crate::vcpu::{gpr, rflags};

/// Where the memory operand lies in guest memory.
const MEMORY_AT: u64 = 0x1000;

/// What an instruction may read and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
struct State {
    xmm: [u128; 3],
    mm: [u64; 4],
    gpr: [u64; 3],
    flags: u64,
    mxcsr: u64,
    unused: u64,
    /// Aligned to 16 bytes.
    memory: [u64; 4],
}

impl State {
    fn random(o: &mut Operands, mxcsr: u32) -> State {
        State {
            xmm: [o.vector(), o.vector(), o.vector()],
            mm: [0, o.vector() as u64, o.vector() as u64, 0],
            gpr: [o.small(), o.next(), o.small()],
            flags: 2 | o.next() & rflags::STATUS,
            mxcsr: mxcsr.into(),
            unused: 0,
            memory: [0; 4].map(|_| o.vector() as u64),
        }
    }
}

/// Executable memory with one instruction and a return.
struct Native {
    code: Mmap,
}

impl Native {
    fn new(bytes: &[u8]) -> Native {
        let mut code = MmapMut::map_anon(4096).expect("memory");
        code[..bytes.len()].copy_from_slice(bytes);
        code[bytes.len()] = 0xc3;
        Native { code: code.make_exec().expect("executable memory") }
    }

    /// Runs the instruction with RDI at the state's memory.
    fn run(&self, s: &mut State) {
        static HOST_MXCSR: u32 = 0x1f80;
        // SAFETY: the instruction is one of those enumerated below: it touches only what is saved
        // or declared here, and memory only at [rdi]. All exceptions are masked.
        unsafe {
            asm!(
                "ldmxcsr [rsi + 112]",
                "movdqu xmm0, [rsi]", "movdqu xmm1, [rsi + 16]", "movdqu xmm2, [rsi + 32]",
                "movq mm1, [rsi + 56]", "movq mm2, [rsi + 64]",
                "push qword ptr [rsi + 104]", "popfq",
                "call r8",
                "pushfq", "pop qword ptr [rsi + 104]",
                "movdqu [rsi], xmm0", "movdqu [rsi + 16], xmm1", "movdqu [rsi + 32], xmm2",
                "movq [rsi + 56], mm1", "movq [rsi + 64], mm2",
                "stmxcsr [rsi + 112]", "ldmxcsr [{host}]", "emms",
                host = in(reg) &HOST_MXCSR,
                in("rsi") s as *mut State,
                in("rdi") s.memory.as_mut_ptr(),
                in("r8") self.code.as_ptr(),
                inout("rax") s.gpr[0], inout("rcx") s.gpr[1], inout("rdx") s.gpr[2],
                out("xmm0") _, out("xmm1") _, out("xmm2") _,
                out("mm0") _, out("mm1") _, out("mm2") _, out("st(0)") _, out("st(1)") _,
                out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _, out("st(6)") _,
                out("st(7)") _, out("mm3") _, out("mm4") _, out("mm5") _, out("mm6") _,
                out("mm7") _,
            );
        }
        s.flags = s.flags & rflags::STATUS | 2;
    }
}

/// Runs `bytes` on the interpreter.
fn interpret(core: &mut Core, bytes: &[u8], s: &mut State) -> Result<(), Exception> {
    core.vcpu.xmm[..3].copy_from_slice(&s.xmm);
    for n in 1..3 {
        core.vcpu.x87.set_mmx(n, s.mm[usize::from(n)]);
    }
    core.vcpu.regs[..3].copy_from_slice(&s.gpr);
    core.vcpu.regs[usize::from(gpr::RDI)] = MEMORY_AT;
    core.vcpu.flags = LazyFlags::from_rflags(s.flags);
    core.vcpu.mxcsr = s.mxcsr as u32;
    for (n, v) in s.memory.iter().enumerate() {
        poke(core, MEMORY_AT + 8 * n as u64, *v);
    }
    execute(core, bytes)?;
    s.xmm.copy_from_slice(&core.vcpu.xmm[..3]);
    for n in 1..3 {
        s.mm[usize::from(n)] = core.vcpu.x87.mmx(n);
    }
    s.gpr.copy_from_slice(&core.vcpu.regs[..3]);
    s.flags = core.vcpu.flags.status() | 2;
    s.mxcsr = core.vcpu.mxcsr.into();
    for (n, v) in s.memory.iter_mut().enumerate() {
        *v = peek(core, MEMORY_AT + 8 * n as u64);
    }
    Ok(())
}

/// Sets operand `n` of kind `kind` to the register or memory that the tests use. False for kinds
/// that no vector instruction has, or that have no memory form.
fn set_operand(i: &mut Instruction, n: u32, kind: OpCodeOperandKind, memory: bool) -> bool {
    use OpCodeOperandKind::*;
    let (register, may_be_memory) = match kind {
        xmm_reg | xmm_rm => ([Register::XMM1, Register::XMM2], false),
        xmm_or_mem => ([Register::XMM1, Register::XMM2], true),
        mm_reg | mm_rm => ([Register::MM1, Register::MM2], false),
        mm_or_mem => ([Register::MM1, Register::MM2], true),
        r32_reg | r32_rm => ([Register::EAX, Register::ECX], false),
        r32_or_mem => ([Register::EAX, Register::ECX], true),
        r64_reg | r64_rm => ([Register::RAX, Register::RCX], false),
        r64_or_mem => ([Register::RAX, Register::RCX], true),
        r8_or_mem => ([Register::AL, Register::CH], true),
        r16_or_mem => ([Register::AX, Register::CX], true),
        mem if memory => ([Register::None; 2], true),
        imm8 => {
            i.set_op_kind(n, OpKind::Immediate8);
            return true;
        }
        _ => return false,
    };
    if memory && may_be_memory {
        i.set_op_kind(n, OpKind::Memory);
        i.set_memory_base(Register::RDI);
    } else {
        i.set_op_kind(n, OpKind::Register);
        i.set_op_register(n, register[n.min(1) as usize]);
    }
    true
}

/// The register or the memory form of `code`.
fn form(code: Code, mem: bool) -> Option<Instruction> {
    use CpuidFeature as F;
    let known = [
        F::MMX,
        F::SSE,
        F::SSE2,
        F::SSE3,
        F::SSSE3,
        F::SSE4_1,
        F::SSE4_2,
        F::AES,
        F::PCLMULQDQ,
        F::SHA,
        F::GFNI,
    ];
    let vector = code.cpuid_features().iter().any(|f| known.contains(f));
    let x87 = code.cpuid_features().contains(&F::FPU) || code.mnemonic() == Mnemonic::Fisttp;
    if !vector || x87 || code.encoding() != EncodingKind::Legacy || code.op_code().op_count() == 0 {
        return None;
    }
    let mut i = Instruction::default();
    i.set_code(code);
    // CRC32 r64, r/m8 with CH is not encodable: REX.W excludes it.
    let info = code.op_code();
    for n in 0..info.op_count() {
        if !set_operand(&mut i, n, info.op_kind(n), mem) {
            return None;
        }
    }
    if i.op1_register() == Register::CH && info.operand_size() == 64 {
        i.set_op1_register(Register::CL);
    }
    let has_memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    (has_memory == mem && !excluded(i.mnemonic())).then_some(i)
}

/// Not computations on the tested state: control registers and hints.
fn excluded(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(m, Ldmxcsr | Stmxcsr | Clflush | Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2)
}

fn encode(i: &Instruction, imm: u8) -> Vec<u8> {
    let mut i = *i;
    let immediate = (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Immediate8);
    if immediate.is_some() {
        i.set_immediate8(imm);
    }
    let mut encoder = Encoder::new(64);
    encoder.encode(&i, 0).unwrap_or_else(|e| panic!("{:?}: {e}", i.code()));
    encoder.take_buffer()
}

/// Results that the manual leaves to the processor: estimates where the portable twin computes
/// them, and which NaN a dot product passes on.
fn loosely_defined(i: &Instruction, native: &State, ours: &State) -> bool {
    use Mnemonic::*;
    let nan32 = |x: u128, n: u32| f32::from_bits((x >> (32 * n)) as u32).is_nan();
    let nan64 = |x: u128, n: u32| f64::from_bits((x >> (64 * n)) as u64).is_nan();
    let (a, b) = (native.xmm[1], ours.xmm[1]);
    match i.mnemonic() {
        Rcpps | Rcpss | Rsqrtps | Rsqrtss => cfg!(feature = "portable"),
        Dpps => (0..4).all(|n| nan32(a, n) == nan32(b, n)) && (0..4).any(|n| nan32(a, n)),
        Dppd => (0..2).all(|n| nan64(a, n) == nan64(b, n)) && (0..2).any(|n| nan64(a, n)),
        _ => false,
    }
}

/// The first difference between the host and the interpreter, in words.
fn difference(core: &mut Core, i: &Instruction, o: &mut Operands) -> Option<String> {
    let immediate = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Immediate8);
    let (imms, rounds) = if immediate { (48, 2) } else { (1, 20) };
    for _ in 0..imms {
        let imm = if o.next() & 1 == 0 { o.next() as u8 } else { o.small() as u8 };
        let bytes = encode(i, imm);
        let native = Native::new(&bytes);
        for csr in control_words() {
            for _ in 0..rounds {
                let before = State::random(o, csr);
                let (mut host, mut ours) = (before, before);
                native.run(&mut host);
                let done = interpret(core, &bytes, &mut ours);
                if done.is_err() || ours != host && !loosely_defined(i, &host, &ours) {
                    return Some(format!(
                        "{:?} {bytes:02x?} {done:?}\nbefore {before:x?}\nhost   {host:x?}\n\
                         ours   {ours:x?}\n",
                        i.code()
                    ));
                }
            }
        }
    }
    None
}

#[test]
fn every_instruction_equals_the_hosts() {
    let mut core = core();
    let mut o = Operands::new(2);
    let (mut count, mut differences) = (0, String::new());
    for code in Code::values() {
        for i in [false, true].into_iter().filter_map(|mem| form(code, mem)) {
            if host_has(&i) {
                differences.extend(difference(&mut core, &i, &mut o));
                count += 1;
            }
        }
    }
    assert!(differences.is_empty(), "{differences}");
    // Register and memory forms of MMX and SSE to SSE4.2; a test that enumerates nothing is none.
    assert!(count > 550, "only {count} forms");
}

fn host_has(i: &Instruction) -> bool {
    use CpuidFeature as F;
    i.cpuid_features().iter().all(|f| match f {
        F::SSE3 => is_x86_feature_detected!("sse3"),
        F::SSSE3 => is_x86_feature_detected!("ssse3"),
        F::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        F::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        F::AES => is_x86_feature_detected!("aes"),
        F::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        F::SHA => is_x86_feature_detected!("sha"),
        F::GFNI => is_x86_feature_detected!("gfni"),
        _ => true,
    })
}
