//! Compares the interpreter with translated code: single instructions with many operands, and
//! programs of several.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Result, bail};
use brolga_jit::{Jit, JitConfig};
use fastrand::Rng;
use iced_x86::Mnemonic::{
    self, Fbld, Fbstp, Ffree, Fninit, Ldmxcsr, Stmxcsr, Vgatherdpd, Vgatherdps, Vgatherqpd,
    Vgatherqps, Vldmxcsr, Vmaskmovpd, Vmaskmovps, Vpgatherdd, Vpgatherdq, Vpgatherqd, Vpgatherqq,
    Vpmaskmovd, Vpmaskmovq, Vstmxcsr,
};
use iced_x86::{Code, Encoder, Instruction, MemoryOperand, OpKind, Register};

use super::families::{FAMILIES, Family};
use super::generate::{Generated, generate, vary};
use super::guest::Guest;
use super::layout::{INSTRUCTION, SCRATCH};
use super::state::{Mode, Remains, State};
use crate::operands::codes;

/// Instances of each encoding, and operands for each instance.
const INSTANCES: u32 = 4;
const OPERANDS: u32 = 8;
/// Programs, each run with [`OPERANDS`] states.
const PROGRAMS: u64 = 1000;
/// More than any program executes.
const BUDGET: u64 = 200;
/// MXCSR with all exceptions masked.
const MASKED: u32 = 0x1f80;
/// All exceptions masked, in the x87 control word's low byte.
const X87_MASKED: u8 = 0x3f;
/// Places in an FXSAVE image.
const MXCSR: usize = 24;
const XMM: usize = 160;

/// Both engines.
struct Engines {
    interpreter: Guest,
    translator: Guest<Jit>,
}

impl Engines {
    fn new() -> Result<Engines> {
        let config = JitConfig { threshold: 1, cache_bytes: 16 << 20, ..JitConfig::default() };
        let (interpreter, translator) = (Guest::new()?, Guest::with_tier(Jit::new(config)?)?);
        Ok(Engines { interpreter, translator })
    }

    /// Runs a program on both; says what differs.
    fn compare(&mut self, code: &[u8], mode: Mode, state: &State) -> Result<Option<String>> {
        let expected = self.interpreter.execute(code, mode, BUDGET, state)?;
        let got = self.translator.execute(code, mode, BUDGET, state)?;
        Ok((expected != got).then(|| differences(state, &expected, &got)))
    }
}

fn differences(before: &State, expected: &Remains, got: &Remains) -> String {
    let fields = |r: &Remains| {
        let regs = r.state.regs.iter().enumerate();
        let regs = regs.map(|(n, v)| (format!("r{n}"), u128::from(*v)));
        let other = [
            ("rip", r.rip),
            ("cr2", r.fault_address),
            ("retired", r.retired),
            ("flags", r.state.rflags),
        ];
        let other = other.map(|(name, v)| (name.to_owned(), u128::from(v)));
        regs.chain(r.state.fx_fields()).chain(other).collect::<Vec<_>>()
    };
    let names = before.fx_fields().map(|(name, v)| format!("{name}={v:x}"));
    let mut text = format!("\n    before: {}", names.collect::<Vec<_>>().join(" "));
    for (want, have) in fields(expected).into_iter().zip(fields(got)) {
        if want != have {
            let _ = write!(text, "\n    {}: {:x}, translated {:x}", want.0, want.1, have.1);
        }
    }
    if expected.state.scratch != got.state.scratch {
        text.push_str("\n    memory differs");
    }
    text
}

/// Runs all encodings of `family` on both engines.
pub fn run(family: &Family) -> Result<()> {
    let mut engines = Engines::new()?;
    let (mut bad, mut total) = (Vec::new(), 0);
    for mode in Mode::ALL {
        for code in codes(family.mnemonics, mode.bits()) {
            let (cases, difference) = run_encoding(&mut engines, code, mode)?;
            total += cases;
            bad.extend(difference);
        }
    }
    if !bad.is_empty() {
        bail!("{} encodings differ\n{}", bad.len(), bad.join("\n"));
    }
    println!("{}: {total} cases", family.name);
    Ok(())
}

/// The number of cases, and the first difference.
fn run_encoding(engines: &mut Engines, code: Code, mode: Mode) -> Result<(u32, Option<String>)> {
    let mut rng = Rng::with_seed(code as u64);
    let mut cases = 0;
    for _ in 0..INSTANCES {
        let mut case = generate(&mut rng, code, mode);
        for _ in 0..OPERANDS {
            cases += 1;
            if let Some(text) = engines.compare(&case.bytes, mode, &case.state)? {
                let head = format!("{mode:?} {code:?} {:02x?}", case.bytes);
                return Ok((cases, Some(head + &text)));
            }
            vary(&mut rng, &mut case);
        }
    }
    Ok((cases, None))
}

/// What translated code has the interpreter execute, of x87, MMX, SSE and AVX instructions.
const INTERPRETED: &[Mnemonic] = &[
    // They change or show what the host's MXCSR is, and must keep their place among arithmetic.
    Ldmxcsr, Stmxcsr, Vldmxcsr, Vstmxcsr, // The host's would do, but nobody uses them often.
    Fbld, Fbstp, Ffree, Fninit, // Which elements they access is known only when they run.
    Vmaskmovps, Vmaskmovpd, Vpmaskmovd, Vpmaskmovq, Vgatherdps, Vgatherdpd, Vgatherqps, Vgatherqpd,
    Vpgatherdd, Vpgatherdq, Vpgatherqd, Vpgatherqq,
];

/// All other instructions are translated, where the guest masks their exceptions.
pub fn run_native() -> Result<()> {
    let mut guest = Engines::new()?.translator;
    let mut interpreted = BTreeSet::new();
    let vectors = FAMILIES.iter().filter(|f| f.vector).flat_map(|f| codes(f.mnemonics, 64));
    for code in vectors.filter(|code| !code.is_string_instruction()) {
        // More than one instance: the first may fault.
        for seed in 0..4 {
            let mut rng = Rng::with_seed(seed << 32 | code as u64);
            let mut case = generate(&mut rng, code, Mode::Long);
            case.state.fx[MXCSR..][..4].copy_from_slice(&MASKED.to_le_bytes());
            case.state.fx[0] |= X87_MASKED;
            guest.execute(&case.bytes, Mode::Long, BUDGET, &case.state)?;
        }
        if guest.tier().interpreted().any(|(c, n)| c == code && n > 0) {
            interpreted.insert(code.mnemonic());
        }
    }
    let expected: BTreeSet<_> = INTERPRETED.iter().copied().collect();
    if interpreted != expected {
        let new: Vec<_> = interpreted.difference(&expected).collect();
        let gone: Vec<_> = expected.difference(&interpreted).collect();
        bail!("interpreted: {new:?}, translated by now: {gone:?}");
    }
    Ok(())
}

/// Runs programs on both engines: a few vector instructions, several times over.
pub fn run_programs() -> Result<()> {
    let mut engines = Engines::new()?;
    let vectors = FAMILIES.iter().filter(|f| f.vector);
    let all: Vec<Code> = vectors.flat_map(|f| codes(f.mnemonics, 64)).collect();
    // Scalars are kept in a form of their own: operations on them shall meet often.
    let is_scalar = |code: &&Code| {
        let name = format!("{:?}", code.mnemonic()).to_lowercase();
        name.ends_with("sd") || name.ends_with("ss") || name.contains("2s") || name == "movq"
    };
    let scalars: Vec<Code> = all.iter().filter(is_scalar).copied().collect();
    for seed in 0..PROGRAMS {
        let mut rng = Rng::with_seed(seed);
        let choice = if rng.bool() { &scalars } else { &all };
        let mut program = Program::new(&mut rng, choice)?;
        for n in 0..OPERANDS {
            program.next_state(&mut rng, n);
            if let Some(text) = engines.compare(&program.bytes, Mode::Long, &program.case.state)? {
                bail!("program {seed}: {:?}\n    {:02x?}{text}", program.codes, program.bytes);
            }
        }
    }
    Ok(())
}

/// Arithmetic on two NaNs, one of them just loaded: the first operand's is the result (SDM vol. 1,
/// table 4-7), so that a translator may not exchange the two.
pub fn run_nans() -> Result<()> {
    use Code::*;
    let doubles = [Addsd_xmm_xmmm64, Mulsd_xmm_xmmm64];
    let singles = [Addss_xmm_xmmm32, Mulss_xmm_xmmm32];
    let packed = [Addpd_xmm_xmmm128, Mulpd_xmm_xmmm128, Addps_xmm_xmmm128, Mulps_xmm_xmmm128];
    let loads = [
        (Movsd_xmm_xmmm64, doubles.as_slice()),
        (Movss_xmm_xmmm32, &singles),
        (Movups_xmm_xmmm128, &packed),
    ];
    let mut engines = Engines::new()?;
    let mut state = generate(&mut Rng::with_seed(0), Addsd_xmm_xmmm64, Mode::Long).state;
    state.fx[MXCSR..][..4].copy_from_slice(&MASKED.to_le_bytes());
    let [first, second] = [0x7ff8_1111_7fc1_1111_u64, 0x7ff8_2222_7fc2_2222];
    state.scratch.as_chunks_mut::<8>().0.fill(first.to_le_bytes());
    state.fx[XMM..].as_chunks_mut::<8>().0.fill(second.to_le_bytes());
    for (load, operations) in loads {
        for operation in operations {
            let place = MemoryOperand::with_displ(SCRATCH, 4);
            let load = Instruction::with2(load, Register::XMM0, place)?;
            let compute = Instruction::with2(*operation, Register::XMM0, Register::XMM1)?;
            let mut encoder = Encoder::new(64);
            let len = encoder.encode(&load, INSTRUCTION)?;
            encoder.encode(&compute, INSTRUCTION + len as u64)?;
            if let Some(text) = engines.compare(&encoder.take_buffer(), Mode::Long, &state)? {
                bail!("{operation:?}{text}");
            }
        }
    }
    Ok(())
}

/// Unmasks an exception and raises it: what translated code has been made for is over with LDMXCSR.
pub fn run_unmasking() -> Result<()> {
    const ZERO_DIVIDE: u32 = 1 << 9;
    let mut engines = Engines::new()?;
    let mut state = generate(&mut Rng::with_seed(0), Code::Divsd_xmm_xmmm64, Mode::Long).state;
    state.fx[MXCSR..][..4].copy_from_slice(&MASKED.to_le_bytes());
    state.fx[XMM..][..8].copy_from_slice(&1.0f64.to_le_bytes());
    state.fx[XMM + 16..][..8].fill(0);
    state.scratch[..4].copy_from_slice(&(MASKED & !ZERO_DIVIDE).to_le_bytes());
    let place = MemoryOperand::with_displ(SCRATCH, 4);
    let unmask = Instruction::with1(Code::Ldmxcsr_m32, place)?;
    let divide = Instruction::with2(Code::Divsd_xmm_xmmm64, Register::XMM0, Register::XMM1)?;
    let mut encoder = Encoder::new(64);
    let len = encoder.encode(&unmask, INSTRUCTION)?;
    encoder.encode(&divide, INSTRUCTION + len as u64)?;
    let code = encoder.take_buffer();
    for _ in 0..2 {
        if let Some(text) = engines.compare(&code, Mode::Long, &state)? {
            bail!("{text}");
        }
    }
    Ok(())
}

/// Flags that are made from those before, used on both sides of an access that the TLB does not know
/// yet: code that might leave there stores them, and must not take what it has stored for those before.
pub fn run_carries() -> Result<()> {
    use Code::*;
    let mut state = generate(&mut Rng::with_seed(0), Cmc, Mode::Long).state;
    let makers = [
        Instruction::with(Cmc),
        Instruction::with2(Rcl_rm64_imm8, Register::RDX, 1)?,
        Instruction::with1(Inc_rm64, Register::RDX)?,
        Instruction::with2(Shl_rm64_CL, Register::RDX, Register::CL)?,
        Instruction::with2(Rol_rm64_CL, Register::RDX, Register::CL)?,
    ];
    for (first, second) in makers.iter().flat_map(|a| makers.iter().map(move |b| (a, b))) {
        for (rflags, count) in [(2, 0), (3, 0), (2, 1), (3, 1)] {
            (state.rflags, state.regs[1]) = (rflags, count);
            let code = with_accesses(&[*first, *second])?;
            if let Some(text) = Engines::new()?.compare(&code, Mode::Long, &state)? {
                bail!("{first}, {second} with flags {rflags:#x} and count {count}{text}");
            }
        }
    }
    Ok(())
}

/// The instructions, a load behind each, and what stores all flags.
fn with_accesses(instructions: &[Instruction]) -> Result<Vec<u8>> {
    let mut encoder = Encoder::new(64);
    let mut at = INSTRUCTION;
    let mut add = |instruction: &Instruction| -> Result<()> {
        at += encoder.encode(instruction, at)? as u64;
        Ok(())
    };
    for instruction in instructions {
        add(instruction)?;
        let place = MemoryOperand::with_displ(SCRATCH, 4);
        add(&Instruction::with2(Code::Mov_r64_rm64, Register::RSI, place)?)?;
    }
    for (set, register) in [
        (Code::Setb_rm8, Register::R8L),
        (Code::Seto_rm8, Register::R9L),
        (Code::Sete_rm8, Register::R10L),
    ] {
        add(&Instruction::with1(set, register)?)?;
    }
    Ok(encoder.take_buffer())
}

/// A loop, counted by ECX, around some instructions.
struct Program {
    bytes: Vec<u8>,
    codes: Vec<Code>,
    /// What the states are varied from.
    case: Generated,
}

impl Program {
    fn new(rng: &mut Rng, choice: &[Code]) -> Result<Program> {
        let (mut bytes, mut codes) = (Vec::new(), Vec::new());
        let len = rng.usize(1..9);
        loop {
            let code = choice[rng.usize(..choice.len())];
            let case = generate(rng, code, Mode::Long);
            let i = &case.instruction;
            let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
            let counter = i.op0_register().full_register() == Register::RCX;
            // Addresses must not depend on what other instructions do.
            if counter || memory && i.memory_base() != Register::RIP {
                continue;
            }
            let mut encoder = Encoder::new(64);
            encoder.encode(i, INSTRUCTION + bytes.len() as u64)?;
            bytes.extend(encoder.take_buffer());
            codes.push(code);
            if codes.len() == len {
                bytes.extend(count_down(bytes.len()));
                return Ok(Program { bytes, codes, case });
            }
        }
    }

    /// Makes state number `n`.
    fn next_state(&mut self, rng: &mut Rng, n: u32) {
        vary(rng, &mut self.case);
        let state = &mut self.case.state;
        state.regs = std::array::from_fn(|_| rng.u64(..));
        state.regs[1] = 1 + u64::from(n % 3);
        if let Some(mxcsr) = state.fx[MXCSR..].first_chunk_mut().filter(|_| !n.is_multiple_of(4)) {
            *mxcsr = (u32::from_le_bytes(*mxcsr) | MASKED).to_le_bytes();
        }
        if n.is_multiple_of(4) {
            // Some of the x87's exceptions are unmasked.
            state.fx[0] &= rng.u8(..) | 0xc0;
        }
    }
}

/// `dec ecx` and `jnz` back over them and `len` bytes.
fn count_down(len: usize) -> Vec<u8> {
    const INSTRUCTIONS: [u8; 4] = [0xff, 0xc9, 0x0f, 0x85];
    let back = -(len as i32) - 8;
    INSTRUCTIONS.into_iter().chain(back.to_le_bytes()).collect()
}
