//! The host's x87, which executes the guest's x87 instructions: as long as translated code runs, the
//! guest's whole state may lie in it, registers, tags, status and control word. What an
//! instruction does, flags and stack faults included, is then what the same instruction of the
//! host does. One of the crate's modules with `unsafe`.
//!
//! Rust code does not use the x87, so that the state survives the slow path; it goes back to the
//! vCPU before anything else is called. Guests that unmask exceptions are in another mode
//! ([`brolga_cpu::block::Mode::X87_UNMASKED`]), in which the interpreter executes these
//! instructions. Not the host's are the pointers to the last instruction.

use std::arch::{asm, naked_asm};

use brolga_cpu::core::Core;
use brolga_cpu::core::translated::offset;
use brolga_cpu::flags::Cond;
use brolga_cpu::insn::{Insn, bits};
use iced_x86::{Code, Mnemonic, OpCodeOperandKind};

use crate::preserve::preserving;

/// What an instruction is on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// FWAIT: no exception waits.
    Nothing,
    /// On registers.
    Registers(Opcode),
    /// FCOMI and its relatives.
    CompareFlags(Opcode),
    /// FCMOVcc from ST(i).
    MoveIf(Cond, u8),
    /// Reads or writes so many bytes of memory.
    Load(Opcode, u64),
    Store(Opcode, u64),
    /// FNSTSW AX.
    StatusToAx,
    /// FNCLEX: like FNSTSW, no last instruction.
    ClearExceptions,
    StoreStatus,
    StoreControl,
    LoadControl,
}

/// Both bytes of an instruction on registers; of one with an operand in memory, the ModRM byte is
/// the one that stands for `[rdx]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opcode {
    escape: u8,
    modrm: u8,
}

impl Opcode {
    pub(crate) const STORE_STATUS: Opcode = Opcode::on_memory(0xdd, 7);
    pub(crate) const LOAD_CONTROL: Opcode = Opcode::on_memory(0xd9, 5);
    pub(crate) const CLEAR_EXCEPTIONS: Opcode = Opcode { escape: 0xdb, modrm: 0xe2 };

    const fn on_memory(escape: u8, extension: u8) -> Opcode {
        Opcode { escape, modrm: extension << 3 | RDX }
    }

    /// The place of its function in [`FUNCTIONS`].
    pub(crate) fn index(self) -> usize {
        let row = match self.modrm {
            0xc0.. => usize::from(self.modrm & 63),
            modrm => 64 + usize::from(modrm >> 3),
        };
        72 * usize::from(self.escape & 7) + row
    }

    /// The place of its function that leaves flags: of DB E8-F7 and DF E8-F7.
    pub(crate) fn flags_index(self) -> usize {
        let row = usize::from(self.escape == 0xdf) << 4 | usize::from(self.modrm - 0xe8);
        offset_of_functions(std::mem::offset_of!(Functions, compare)) + row
    }
}

/// The place of the function that moves from ST(i).
pub(crate) fn move_index(i: u8) -> usize {
    offset_of_functions(std::mem::offset_of!(Functions, moves)) + usize::from(i & 7)
}

const fn offset_of_functions(bytes: usize) -> usize {
    bytes / size_of::<Function>()
}

/// The r/m field of `[rdx]`.
const RDX: u8 = 2;

/// What the host executes `insn` as; `None` if the interpreter has to.
pub(crate) fn form(insn: &Insn) -> Option<Form> {
    use Mnemonic::*;
    let code = Code::try_from(usize::from(insn.code)).ok()?;
    let memory = insn.has(bits::MEM0);
    let opcode = opcode(code, insn);
    let size = u64::from(insn.aux);
    Some(match code.mnemonic() {
        Wait => Form::Nothing,
        Fnclex => Form::ClearExceptions,
        Fnstsw if memory => Form::StoreStatus,
        Fnstsw => Form::StatusToAx,
        Fnstcw => Form::StoreControl,
        Fldcw => Form::LoadControl,
        Fst | Fstp | Fist | Fistp | Fisttp if memory => Form::Store(opcode, size),
        Fcomi | Fcomip | Fucomi | Fucomip => Form::CompareFlags(opcode),
        Fcmovb => Form::MoveIf(Cond::B, insn.reg[1]),
        Fcmovnb => Form::MoveIf(Cond::Ae, insn.reg[1]),
        Fcmove => Form::MoveIf(Cond::E, insn.reg[1]),
        Fcmovne => Form::MoveIf(Cond::Ne, insn.reg[1]),
        Fcmovbe => Form::MoveIf(Cond::Be, insn.reg[1]),
        Fcmovnbe => Form::MoveIf(Cond::A, insn.reg[1]),
        Fcmovu => Form::MoveIf(Cond::P, insn.reg[1]),
        Fcmovnu => Form::MoveIf(Cond::Np, insn.reg[1]),
        Fadd | Faddp | Fiadd | Fsub | Fsubp | Fsubr | Fsubrp | Fisub | Fisubr | Fmul | Fmulp
        | Fimul | Fdiv | Fdivp | Fdivr | Fdivrp | Fidiv | Fidivr | Fld | Fild | Fst | Fstp
        | Fcom | Fcomp | Fcompp | Fucom | Fucomp | Fucompp | Ficom | Ficomp | Ftst | Fxam
        | Fabs | Fchs | Fsqrt | Frndint | Fscale | Fxtract | Fprem | Fprem1 | Fld1 | Fldz
        | Fldpi | Fldl2e | Fldl2t | Fldlg2 | Fldln2 | Fxch | Fincstp | Fdecstp | Fnop | F2xm1
        | Fyl2x | Fyl2xp1 | Fptan | Fpatan | Fsin | Fcos | Fsincos => match memory {
            true => Form::Load(opcode, size),
            false => Form::Registers(opcode),
        },
        _ => return None,
    })
}

/// The bytes that `insn` has on the host.
fn opcode(code: Code, insn: &Insn) -> Opcode {
    let info = code.op_code();
    if let Ok(extension) = u8::try_from(info.group_index())
        && insn.has(bits::MEM0)
    {
        return Opcode::on_memory(info.op_code() as u8, extension);
    }
    let register = info.op_kinds().iter().position(|kind| *kind == OpCodeOperandKind::sti_opcode);
    let i = register.map_or(0, |n| insn.reg[n] & 7);
    Opcode { escape: (info.op_code() >> 8) as u8, modrm: info.op_code() as u8 | 0xc0 | i }
}

/// A function with a convention of its own, known by its address.
type Function = extern "C" fn();

/// One instruction, with the address of its operand in memory in RDX: RDI and RSI are those of
/// regions.
#[unsafe(naked)]
extern "C" fn instruction<const ESCAPE: u8, const MODRM: u8>() {
    naked_asm!(
        ".byte {escape}, {modrm}",
        "ret",
        escape = const ESCAPE,
        modrm = const MODRM,
    )
}

/// One that sets ZF, PF and CF: they go to the core, whose address is in RDI. AMD processors leave
/// C1, which it is to clear; moving TOP does.
#[unsafe(naked)]
extern "C" fn compare<const ESCAPE: u8, const MODRM: u8>() {
    naked_asm!(
        "fdecstp",
        "fincstp",
        ".byte {escape}, {modrm}",
        "push rax",
        "lahf",
        "mov [rdi + {flags} + 1], ah",
        "pop rax",
        "ret",
        escape = const ESCAPE,
        modrm = const MODRM,
        flags = const offset::RESULT_FLAGS,
    )
}

/// Moves from ST(`I`) if EDX is not zero.
#[unsafe(naked)]
extern "C" fn move_if<const I: u8>() {
    naked_asm!("test edx, edx", ".byte 0xdb, {modrm}", "ret", modrm = const 0xc8 + I)
}

/// Eight instructions: their ModRM bytes begin with `$first`, `$step` apart.
macro_rules! eight {
    ($name:ident $escape:literal $first:literal $step:literal) => {
        [
            $name::<$escape, $first>,
            $name::<$escape, { $first + $step }>,
            $name::<$escape, { $first + 2 * $step }>,
            $name::<$escape, { $first + 3 * $step }>,
            $name::<$escape, { $first + 4 * $step }>,
            $name::<$escape, { $first + 5 * $step }>,
            $name::<$escape, { $first + 6 * $step }>,
            $name::<$escape, { $first + 7 * $step }>,
        ]
    };
}

/// All instructions behind an escape byte: on registers, then on memory.
macro_rules! all {
    ($($escape:literal)+) => {
        [$([
            eight!(instruction $escape 0xc0 1),
            eight!(instruction $escape 0xc8 1),
            eight!(instruction $escape 0xd0 1),
            eight!(instruction $escape 0xd8 1),
            eight!(instruction $escape 0xe0 1),
            eight!(instruction $escape 0xe8 1),
            eight!(instruction $escape 0xf0 1),
            eight!(instruction $escape 0xf8 1),
            eight!(instruction $escape 0x02 8),
        ]),+]
    };
}

#[repr(C)]
struct Functions {
    instructions: [[[Function; 8]; 9]; 8],
    compare: [[Function; 8]; 4],
    moves: [Function; 8],
}

static FUNCTIONS: Functions = Functions {
    instructions: all!(0xd8 0xd9 0xda 0xdb 0xdc 0xdd 0xde 0xdf),
    compare: [
        eight!(compare 0xdb 0xe8 1),
        eight!(compare 0xdb 0xf0 1),
        eight!(compare 0xdf 0xe8 1),
        eight!(compare 0xdf 0xf0 1),
    ],
    moves: [
        move_if::<0>,
        move_if::<1>,
        move_if::<2>,
        move_if::<3>,
        move_if::<4>,
        move_if::<5>,
        move_if::<6>,
        move_if::<7>,
    ],
};

/// Tells translated code where the functions are.
pub(crate) fn prepare(core: &mut Core) {
    core.translated.x87_functions = (&raw const FUNCTIONS).addr() as u64;
    core.translated.load_x87 = load as *const () as u64;
    core.translated.take_x87 = take as *const () as u64;
}

/// Puts the state where [`load`] takes it from.
extern "sysv64" fn put_out(core: &mut Core) {
    core.translated.x87_image.0 = core.vcpu.x87.to_host();
    core.translated.x87_loaded = 1;
}

preserving! {
    /// Loads the guest's state into the host's x87; a translated instruction does so where it is
    /// not there yet.
    load = put_out, then "frstor [rdi + {image}]", image = const offset::X87_IMAGE
}

preserving! {
    /// [`take_back`] for translated code: MMX instructions work on the vCPU's registers.
    take = take_back
}

/// Takes the guest's state back from the host's x87, if it is there, and leaves that as Rust code
/// may expect it.
pub(crate) extern "sysv64" fn take_back(core: &mut Core) {
    if core.translated.x87_loaded == 0 {
        return;
    }
    core.translated.x87_loaded = 0;
    let image = &mut core.translated.x87_image.0;
    // SAFETY: stores to a place of that size. The registers are those that translated code has
    // left; afterwards they are all empty and the control word is the one that processes start
    // with, as the ABI wants it.
    unsafe { asm!("fnsave [{}]", in(reg) image, options(nostack, preserves_flags)) }
    core.vcpu.x87.take_from_host(&core.translated.x87_image.0);
}
