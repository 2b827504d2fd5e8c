//! x87 instructions: operands and exception reporting around [`crate::x87`]. Whether the FPU is
//! available at all has been decided at selection.

use brolga_mmu::{Linear, Width};
use iced_x86::{Code, Mnemonic};

use crate::backend::Backend;
use crate::core::{By, Core, Exit};
use crate::exception::{Exception, vector};
use crate::flags::LazyFlags;
use crate::insn::{Insn, bits};
use crate::softfloat::{F80, Integer, RemainderKind};
use crate::vcpu::{Activity, SegReg, cr0, gpr, rflags};
use crate::x87::{
    Arith, ArithMem, CompareFlags, Constant, FloatMem, ImageFormat, LastInstruction, Store,
    Transcendental,
};

/// Executes any x87 instruction, FWAIT among them.
pub fn execute(core: &mut Core, i: &Insn) -> Result<(), Exit> {
    let Ok(code) = Code::try_from(usize::from(i.code)) else {
        return Err(undefined(core));
    };
    let mnemonic = code.mnemonic();
    if !is_non_waiting(mnemonic) && core.vcpu.x87.pending() {
        report_pending(core)?;
    }
    if is_control(mnemonic) {
        let masked = core.vcpu.x87.masks_all();
        control(core, i, mnemonic)?;
        release_ferr(core);
        settle_masks(core, masked);
        return Ok(());
    }
    let was_pending = core.vcpu.x87.pending();
    if i.has(bits::MEM0) {
        with_memory(core, i, mnemonic)?;
    } else {
        with_registers(core, i, mnemonic)?;
    }
    record(core, i, was_pending);
    Ok(())
}

fn undefined(core: &mut Core) -> Exit {
    core.raise(Exception::ud("not an x87 instruction"))
}

/// An unmasked exception waits, and so do x87 and MMX instructions: #MF if CR0.NE asks for it.
/// With NE clear the board hears of it through FERR#, and the processor stops before the
/// instruction until the board interrupts it, unless IGNNE# is active (SDM vol. 3, 2.5; vol. 1, D.2).
#[cold]
pub(crate) fn report_pending(core: &mut Core) -> Result<(), Exit> {
    if core.vcpu.sys.cr0 & cr0::NE != 0 {
        return Err(core.raise(Exception::plain(vector::MF, "pending x87 exception")));
    }
    drive_ferr(core, true);
    if core.bus.ignne() {
        return Ok(());
    }
    core.vcpu.activity = Activity::Halted;
    Err(Exit::Again)
}

/// FERR# becomes inactive when no unmasked exception waits any more. To be called after whatever
/// may have cleared one.
pub(crate) fn release_ferr(core: &mut Core) {
    if !core.vcpu.x87.pending() {
        drive_ferr(core, false);
    }
}

/// Whether all exceptions are masked is part of the mode: if that was `masked` before, and has
/// changed, what follows is other code.
pub(crate) fn settle_masks(core: &mut Core, masked: bool) {
    if core.vcpu.x87.masks_all() != masked {
        core.mode_changed();
        core.leave_block(false);
    }
}

fn drive_ferr(core: &mut Core, active: bool) {
    if core.vcpu.ferr != active {
        core.vcpu.ferr = active;
        let now = core.now();
        core.bus.set_ferr(now, active);
        core.after_bus();
    }
}

fn is_non_waiting(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Fnclex, Fndisi, Fneni, Fninit, Fnsave, Fnsetpm, Fnstcw, Fnstenv, Fnstsw};
    matches!(
        mnemonic,
        Fnclex | Fndisi | Fneni | Fninit | Fnsave | Fnsetpm | Fnstcw | Fnstenv | Fnstsw
    )
}

/// The control instructions, which leave the last-instruction pointers alone (SDM vol. 1, 8.1.8).
fn is_control(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Fclex, Fdisi, Feni, Finit, Fldcw, Fldenv, Frstor, Fsave, Fsetpm, Fstcw, Fstenv, Fstsw, Wait,
    };
    is_non_waiting(mnemonic)
        || matches!(
            mnemonic,
            Fclex
                | Fdisi
                | Feni
                | Finit
                | Fldcw
                | Fldenv
                | Frstor
                | Fsave
                | Fsetpm
                | Fstcw
                | Fstenv
                | Fstsw
                | Wait
        )
}

/// Notes where the instruction and its operand were; its opcode only if it has raised an unmasked
/// exception, as processors since the Pentium 4 do (SDM vol. 1, 8.1.9.1).
fn record(core: &mut Core, i: &Insn, was_pending: bool) {
    let mut last = LastInstruction {
        ip: core.rip(),
        cs: core.vcpu.seg(SegReg::Cs).selector,
        ..core.vcpu.x87.last
    };
    if i.has(bits::MEM0) {
        last.dp = core.ea(i);
        last.ds = core.vcpu.segs[i.seg.index()].selector;
    }
    if core.vcpu.x87.pending() && !was_pending {
        last.opcode = opcode(core, i).unwrap_or(0);
    }
    core.vcpu.x87.last = last;
}

/// The low three bits of the escape opcode and the ModRM byte, read back from the code.
fn opcode(core: &mut Core, i: &Insn) -> Option<u16> {
    let start = core.rip();
    let bytes = (0..u64::from(i.next.wrapping_sub(i.at))).map(|n| {
        let at = core.code_address(start.wrapping_add(n));
        core.read_linear(at, Width::W8, By::Current).map_or(0, |byte| byte as u8)
    });
    let mut bytes = bytes.skip_while(|byte| byte & 0xF8 != 0xD8);
    let escape = bytes.next()?;
    Some(u16::from(escape & 7) << 8 | u16::from(bytes.next()?))
}

fn control(core: &mut Core, i: &Insn, mnemonic: Mnemonic) -> Result<(), Exit> {
    use Mnemonic::{
        Fclex, Finit, Fldcw, Fldenv, Fnclex, Fninit, Fnsave, Fnstcw, Fnstenv, Fnstsw, Frstor,
        Fsave, Fstcw, Fstenv, Fstsw,
    };
    let format = image_format(core, i);
    match mnemonic {
        Finit | Fninit => core.vcpu.x87.init(),
        Fclex | Fnclex => core.vcpu.x87.clear_exceptions(),
        Fldcw => {
            let control = load(core, i, Width::W16)?;
            core.vcpu.x87.set_control(control as u16);
        }
        Fstcw | Fnstcw => return store(core, i, Width::W16, core.vcpu.x87.control().into()),
        Fstsw | Fnstsw if i.has(bits::MEM0) => {
            return store(core, i, Width::W16, core.vcpu.x87.status().into());
        }
        Fstsw | Fnstsw => core.set_reg(Width::W16, gpr::RAX, core.vcpu.x87.status().into()),
        Fstenv | Fnstenv => {
            store_bytes(core, i, core.vcpu.x87.environment(format).as_bytes())?;
            core.vcpu.x87.commit_store_environment();
        }
        Fldenv => {
            let bytes = load_bytes::<28>(core, i, format.environment_len())?;
            core.vcpu.x87.load_environment(format, &bytes[..format.environment_len()]);
        }
        Fsave | Fnsave => {
            store_bytes(core, i, core.vcpu.x87.saved_state(format).as_bytes())?;
            core.vcpu.x87.init();
        }
        Frstor => {
            let bytes = load_bytes::<108>(core, i, format.state_len())?;
            core.vcpu.x87.restore_state(format, &bytes[..format.state_len()]);
        }
        // FWAIT has done its work; FENI, FDISI and FSETPM do nothing since the 387.
        _ => {}
    }
    Ok(())
}

/// The layout of an environment; [`Insn::aux`] is the size of the memory operand.
fn image_format(core: &Core, i: &Insn) -> ImageFormat {
    let wide = matches!(i.aux, 28 | 108);
    match (core.vcpu.protected(), wide) {
        (true, true) => ImageFormat::Protected32,
        (true, false) => ImageFormat::Protected16,
        (false, true) => ImageFormat::Real32,
        (false, false) => ImageFormat::Real16,
    }
}

fn load(core: &mut Core, i: &Insn, w: Width) -> Result<u64, Exit> {
    let ea = core.ea(i);
    core.load(w, i.seg, ea)
}

fn store(core: &mut Core, i: &Insn, w: Width, v: u64) -> Result<(), Exit> {
    let ea = core.ea(i);
    core.store(w, i.seg, ea, v)
}

/// Reads `len` bytes, at most `N`; all faults come first.
fn load_bytes<const N: usize>(core: &mut Core, i: &Insn, len: usize) -> Result<[u8; N], Exit> {
    let ea = core.ea(i);
    let at = core.check_area(i.seg, ea, len as u64, false)?;
    let mut bytes = [0; N];
    for (n, pair) in bytes[..len].chunks_exact_mut(2).enumerate() {
        let at = Linear(at.0.wrapping_add(2 * n as u64));
        let value = core.read_linear(at, Width::W16, By::Current)?;
        pair.copy_from_slice(&(value as u16).to_le_bytes());
    }
    Ok(bytes)
}

/// Writes an even number of bytes, all or nothing.
fn store_bytes(core: &mut Core, i: &Insn, bytes: &[u8]) -> Result<(), Exit> {
    let ea = core.ea(i);
    let at = core.check_area(i.seg, ea, bytes.len() as u64, true)?;
    let (pairs, _) = bytes.as_chunks::<2>();
    for (n, &pair) in pairs.iter().enumerate() {
        let at = Linear(at.0.wrapping_add(2 * n as u64));
        core.write_linear(at, Width::W16, u16::from_le_bytes(pair).into(), By::Current)?;
    }
    Ok(())
}

/// What an unmasked exception leaves of a store of `len` bytes: its place is checked all the same, as
/// processors do.
fn store_nothing(core: &mut Core, i: &Insn, len: u64) -> Result<(), Exit> {
    let ea = core.ea(i);
    core.check_area(i.seg, ea, len, true).map(drop)
}

/// Instructions with a memory operand.
fn with_memory(core: &mut Core, i: &Insn, mnemonic: Mnemonic) -> Result<(), Exit> {
    use Mnemonic::{
        Fbld, Fbstp, Fcom, Fcomp, Ficom, Ficomp, Fild, Fist, Fistp, Fisttp, Fld, Fst, Fstp,
    };
    match mnemonic {
        Fld => {
            let operand = load_float(core, i)?;
            core.vcpu.x87.load(operand);
        }
        Fild => {
            let w = Width::from_bytes(i.aux.into()).unwrap_or(Width::W64);
            let value = crate::flags::sign_extend(w, load(core, i, w)?);
            core.vcpu.x87.load_int(value as i64);
        }
        Fbld => {
            let operand = load_bytes(core, i, 10)?;
            core.vcpu.x87.load_bcd(operand);
        }
        Fst | Fstp => return store_float(core, i, mnemonic == Fstp),
        Fist | Fistp | Fisttp => return store_int(core, i, mnemonic),
        Fbstp => {
            let prepared = core.vcpu.x87.prepare_store_bcd();
            match prepared.value {
                Some(bcd) => store_bytes(core, i, &bcd)?,
                None => store_nothing(core, i, 10)?,
            }
            core.vcpu.x87.commit_store(prepared, true);
        }
        Fcom | Fcomp | Ficom | Ficomp => {
            let operand = load_operand(core, i, matches!(mnemonic, Ficom | Ficomp))?;
            core.vcpu.x87.compare_mem(operand, matches!(mnemonic, Fcomp | Ficomp));
        }
        _ => {
            let Some((op, integer)) = arith_mem(mnemonic) else {
                return Err(undefined(core));
            };
            let operand = load_operand(core, i, integer)?;
            core.vcpu.x87.arith_mem(op, operand);
        }
    }
    Ok(())
}

fn load_float(core: &mut Core, i: &Insn) -> Result<FloatMem, Exit> {
    Ok(match i.aux {
        4 => FloatMem::F32(load(core, i, Width::W32)? as u32),
        8 => FloatMem::F64(load(core, i, Width::W64)?),
        _ => FloatMem::F80(F80::from_le_bytes(load_bytes(core, i, 10)?)),
    })
}

/// The memory operand of an arithmetic instruction or a comparison.
fn load_operand(core: &mut Core, i: &Insn, integer: bool) -> Result<ArithMem, Exit> {
    Ok(match (integer, i.aux) {
        (true, 2) => ArithMem::I16(load(core, i, Width::W16)? as i16),
        (true, _) => ArithMem::I32(load(core, i, Width::W32)? as i32),
        (false, 4) => ArithMem::F32(load(core, i, Width::W32)? as u32),
        (false, _) => ArithMem::F64(load(core, i, Width::W64)?),
    })
}

fn store_float(core: &mut Core, i: &Insn, pop: bool) -> Result<(), Exit> {
    match i.aux {
        4 => store_prepared(core, i, core.vcpu.x87.prepare_store_f32(), Width::W32, pop),
        8 => store_prepared(core, i, core.vcpu.x87.prepare_store_f64(), Width::W64, pop),
        _ => {
            let prepared = core.vcpu.x87.prepare_store_f80();
            match prepared.value {
                Some(value) => store_bytes(core, i, &value.to_le_bytes())?,
                None => store_nothing(core, i, 10)?,
            }
            core.vcpu.x87.commit_store(prepared, pop);
            Ok(())
        }
    }
}

fn store_int(core: &mut Core, i: &Insn, mnemonic: Mnemonic) -> Result<(), Exit> {
    fn prepared<I: Integer>(core: &Core, truncate: bool) -> Store<I> {
        if truncate {
            core.vcpu.x87.prepare_store_int_truncated()
        } else {
            core.vcpu.x87.prepare_store_int()
        }
    }
    let truncate = mnemonic == Mnemonic::Fisttp;
    let pop = mnemonic != Mnemonic::Fist;
    match i.aux {
        2 => {
            let store = prepared::<i16>(core, truncate).map(|v| v as u16);
            store_prepared(core, i, store, Width::W16, pop)
        }
        4 => {
            let store = prepared::<i32>(core, truncate).map(|v| v as u32);
            store_prepared(core, i, store, Width::W32, pop)
        }
        _ => {
            let store = prepared::<i64>(core, truncate).map(|v| v as u64);
            store_prepared(core, i, store, Width::W64, pop)
        }
    }
}

fn store_prepared<T: Copy + Into<u64>>(
    core: &mut Core,
    i: &Insn,
    prepared: Store<T>,
    w: Width,
    pop: bool,
) -> Result<(), Exit> {
    match prepared.value {
        Some(value) => store(core, i, w, value.into())?,
        None => store_nothing(core, i, w.bytes())?,
    }
    core.vcpu.x87.commit_store(prepared, pop);
    Ok(())
}

/// The operation of an arithmetic instruction with a memory operand, and whether that is an
/// integer.
fn arith_mem(mnemonic: Mnemonic) -> Option<(Arith, bool)> {
    Some(match mnemonic {
        Mnemonic::Fiadd => (Arith::Add, true),
        Mnemonic::Fimul => (Arith::Mul, true),
        Mnemonic::Fisub => (Arith::Sub, true),
        Mnemonic::Fisubr => (Arith::SubR, true),
        Mnemonic::Fidiv => (Arith::Div, true),
        Mnemonic::Fidivr => (Arith::DivR, true),
        _ => return arith(mnemonic).filter(|(_, pop)| !pop),
    })
}

/// The operation of an arithmetic instruction, and whether it pops.
fn arith(mnemonic: Mnemonic) -> Option<(Arith, bool)> {
    Some(match mnemonic {
        Mnemonic::Fadd => (Arith::Add, false),
        Mnemonic::Fmul => (Arith::Mul, false),
        Mnemonic::Fsub => (Arith::Sub, false),
        Mnemonic::Fsubr => (Arith::SubR, false),
        Mnemonic::Fdiv => (Arith::Div, false),
        Mnemonic::Fdivr => (Arith::DivR, false),
        Mnemonic::Faddp => (Arith::Add, true),
        Mnemonic::Fmulp => (Arith::Mul, true),
        Mnemonic::Fsubp => (Arith::Sub, true),
        Mnemonic::Fsubrp => (Arith::SubR, true),
        Mnemonic::Fdivp => (Arith::Div, true),
        Mnemonic::Fdivrp => (Arith::DivR, true),
        _ => return None,
    })
}

/// Instructions on registers alone.
fn with_registers(core: &mut Core, i: &Insn, mnemonic: Mnemonic) -> Result<(), Exit> {
    let (first, second) = (i.reg[0], i.reg[1]);
    if let Some((op, pop)) = arith(mnemonic) {
        core.vcpu.x87.arith(op, first, second, pop);
    } else if let Some(op) = transcendental(mnemonic) {
        core.vcpu.x87.transcendental(op);
    } else if let Some(constant) = constant(mnemonic) {
        core.vcpu.x87.load_constant(constant);
    } else if let Some(condition) = move_condition(core, mnemonic) {
        core.vcpu.x87.conditional_move(second, condition);
    } else if !compare(core, mnemonic, second) && !simple(core, mnemonic, first, second) {
        return Err(undefined(core));
    }
    Ok(())
}

fn transcendental(mnemonic: Mnemonic) -> Option<Transcendental> {
    Some(match mnemonic {
        Mnemonic::F2xm1 => Transcendental::TwoToXMinus1,
        Mnemonic::Fyl2x => Transcendental::YLog2X,
        Mnemonic::Fyl2xp1 => Transcendental::YLog2XPlus1,
        Mnemonic::Fptan => Transcendental::Tan,
        Mnemonic::Fpatan => Transcendental::Atan,
        Mnemonic::Fsin => Transcendental::Sin,
        Mnemonic::Fcos => Transcendental::Cos,
        Mnemonic::Fsincos => Transcendental::SinCos,
        _ => return None,
    })
}

fn constant(mnemonic: Mnemonic) -> Option<Constant> {
    Some(match mnemonic {
        Mnemonic::Fld1 => Constant::One,
        Mnemonic::Fldl2t => Constant::Log2Of10,
        Mnemonic::Fldl2e => Constant::Log2OfE,
        Mnemonic::Fldpi => Constant::Pi,
        Mnemonic::Fldlg2 => Constant::Log10Of2,
        Mnemonic::Fldln2 => Constant::LnOf2,
        Mnemonic::Fldz => Constant::Zero,
        _ => return None,
    })
}

/// The condition of an FCMOVcc.
fn move_condition(core: &Core, mnemonic: Mnemonic) -> Option<bool> {
    let flags = &core.vcpu.flags;
    Some(match mnemonic {
        Mnemonic::Fcmovb => flags.cf(),
        Mnemonic::Fcmove => flags.zf(),
        Mnemonic::Fcmovbe => flags.cf() || flags.zf(),
        Mnemonic::Fcmovu => flags.pf(),
        Mnemonic::Fcmovnb => !flags.cf(),
        Mnemonic::Fcmovne => !flags.zf(),
        Mnemonic::Fcmovnbe => !(flags.cf() || flags.zf()),
        Mnemonic::Fcmovnu => !flags.pf(),
        _ => return None,
    })
}

/// Comparisons of ST(0) with ST(i); false if it is another instruction.
fn compare(core: &mut Core, mnemonic: Mnemonic, i: u8) -> bool {
    let fpu = &mut core.vcpu.x87;
    match mnemonic {
        Mnemonic::Fcom => fpu.compare(i, false, 0),
        Mnemonic::Fcomp => fpu.compare(i, false, 1),
        Mnemonic::Fcompp => fpu.compare(1, false, 2),
        Mnemonic::Fucom => fpu.compare(i, true, 0),
        Mnemonic::Fucomp => fpu.compare(i, true, 1),
        Mnemonic::Fucompp => fpu.compare(1, true, 2),
        Mnemonic::Fcomi => compare_flags(core, i, false, false),
        Mnemonic::Fcomip => compare_flags(core, i, false, true),
        Mnemonic::Fucomi => compare_flags(core, i, true, false),
        Mnemonic::Fucomip => compare_flags(core, i, true, true),
        _ => return false,
    }
    true
}

fn compare_flags(core: &mut Core, i: u8, quiet: bool, pop: bool) {
    if let Some(CompareFlags { zero, parity, carry }) = core.vcpu.x87.compare_flags(i, quiet, pop) {
        let bit = |on: bool, flag| if on { flag } else { 0 };
        let status = bit(zero, rflags::ZF) | bit(parity, rflags::PF) | bit(carry, rflags::CF);
        core.vcpu.flags = LazyFlags::from_rflags(status);
    }
}

/// What remains; false if it is another instruction.
fn simple(core: &mut Core, mnemonic: Mnemonic, first: u8, second: u8) -> bool {
    let fpu = &mut core.vcpu.x87;
    match mnemonic {
        Mnemonic::Fld => fpu.load_register(first),
        Mnemonic::Fst => fpu.store_register(first, false),
        Mnemonic::Fstp | Mnemonic::Fstpnce => fpu.store_register(first, true),
        Mnemonic::Fxch => fpu.exchange(second),
        Mnemonic::Ffree => fpu.free(first),
        Mnemonic::Ffreep => fpu.free_pop(first),
        Mnemonic::Fincstp => fpu.increment_top(),
        Mnemonic::Fdecstp => fpu.decrement_top(),
        Mnemonic::Fnop => {}
        Mnemonic::Fabs => fpu.abs(),
        Mnemonic::Fchs => fpu.change_sign(),
        Mnemonic::Fsqrt => fpu.sqrt(),
        Mnemonic::Frndint => fpu.round_to_int(),
        Mnemonic::Fscale => fpu.scale(),
        Mnemonic::Fxtract => fpu.extract(),
        Mnemonic::Fprem => fpu.remainder(RemainderKind::Truncate),
        Mnemonic::Fprem1 => fpu.remainder(RemainderKind::Nearest),
        Mnemonic::Ftst => fpu.test(),
        Mnemonic::Fxam => fpu.examine(),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests;
