//! System instructions, far transfers and everything else that is rare.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::complex;
use crate::backend::{Backend, Handler};
use crate::cpuid::cpuid;
use crate::semantics::moves::nop;
use crate::system::{control, debug, far, flags, iret, misc, msr, port, segment, software};
use crate::system::{syscall, tables, test_registers};

/// The meaning of a system instruction.
pub(super) fn select<B: Backend>(i: &Instruction) -> Option<Handler<B>> {
    segments(i).or_else(|| transfers(i)).or_else(|| privileged(i)).or_else(|| registers(i))
}

fn is_segment(r: Register) -> bool {
    r.is_segment_register()
}

fn segments<B: Backend>(i: &Instruction) -> Option<Handler<B>> {
    Some(match i.mnemonic() {
        Mnemonic::Mov if is_segment(i.op0_register()) => complex!(segment::mov_to_sreg),
        Mnemonic::Mov if is_segment(i.op1_register()) => complex!(segment::mov_from_sreg),
        Mnemonic::Push if is_segment(i.op0_register()) => complex!(segment::push_sreg),
        Mnemonic::Pop if is_segment(i.op0_register()) => complex!(segment::pop_sreg),
        Mnemonic::Lds => complex!(segment::lds),
        Mnemonic::Les => complex!(segment::les),
        Mnemonic::Lfs => complex!(segment::lfs),
        Mnemonic::Lgs => complex!(segment::lgs),
        Mnemonic::Lss => complex!(segment::lss),
        Mnemonic::Lar => complex!(segment::lar),
        Mnemonic::Lsl => complex!(segment::lsl),
        Mnemonic::Verr => complex!(segment::verr),
        Mnemonic::Verw => complex!(segment::verw),
        Mnemonic::Arpl => complex!(segment::arpl),
        Mnemonic::Swapgs => complex!(segment::swapgs),
        Mnemonic::Rdfsbase => complex!(segment::rdfsbase),
        Mnemonic::Rdgsbase => complex!(segment::rdgsbase),
        Mnemonic::Wrfsbase => complex!(segment::wrfsbase),
        Mnemonic::Wrgsbase => complex!(segment::wrgsbase),
        Mnemonic::Sgdt => complex!(tables::sgdt),
        Mnemonic::Sidt => complex!(tables::sidt),
        Mnemonic::Lgdt => complex!(tables::lgdt),
        Mnemonic::Lidt => complex!(tables::lidt),
        Mnemonic::Sldt => complex!(tables::sldt),
        Mnemonic::Str => complex!(tables::str),
        Mnemonic::Lldt => complex!(tables::lldt),
        Mnemonic::Ltr => complex!(tables::ltr),
        Mnemonic::Smsw => complex!(tables::smsw),
        Mnemonic::Lmsw => complex!(tables::lmsw),
        _ => return None,
    })
}

fn transfers<B: Backend>(i: &Instruction) -> Option<Handler<B>> {
    Some(match i.mnemonic() {
        Mnemonic::Jmp => complex!(far::jmp_far),
        Mnemonic::Call => complex!(far::call_far),
        Mnemonic::Retf => complex!(far::ret_far),
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => complex!(iret::iret),
        Mnemonic::Int => complex!(software::int_n),
        Mnemonic::Int3 => complex!(software::int3),
        Mnemonic::Into => complex!(software::into),
        Mnemonic::Int1 => complex!(software::int1),
        Mnemonic::Bound => complex!(software::bound),
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => complex!(software::undefined),
        Mnemonic::Syscall => complex!(syscall::syscall),
        Mnemonic::Sysret | Mnemonic::Sysretq => complex!(syscall::sysret),
        Mnemonic::Sysenter => complex!(syscall::sysenter),
        Mnemonic::Sysexit | Mnemonic::Sysexitq => complex!(syscall::sysexit),
        _ => return None,
    })
}

fn privileged<B: Backend>(i: &Instruction) -> Option<Handler<B>> {
    Some(match i.mnemonic() {
        Mnemonic::Mov if i.op0_register().is_cr() => complex!(control::mov_to_cr),
        Mnemonic::Mov if i.op1_register().is_cr() => complex!(control::mov_from_cr),
        Mnemonic::Mov if i.op0_register().is_dr() => complex!(debug::mov_to_dr),
        Mnemonic::Mov if i.op1_register().is_dr() => complex!(debug::mov_from_dr),
        Mnemonic::Mov if i.op0_register().is_tr() => complex!(test_registers::mov_to_tr),
        Mnemonic::Mov if i.op1_register().is_tr() => complex!(test_registers::mov_from_tr),
        Mnemonic::Clts => complex!(control::clts),
        Mnemonic::Invlpg => complex!(control::invlpg),
        Mnemonic::Invpcid => complex!(control::invpcid),
        Mnemonic::Xgetbv => complex!(control::xgetbv),
        Mnemonic::Xsetbv => complex!(control::xsetbv),
        Mnemonic::Rdpkru => complex!(control::rdpkru),
        Mnemonic::Wrpkru => complex!(control::wrpkru),
        Mnemonic::Rdmsr => complex!(msr::rdmsr),
        Mnemonic::Wrmsr => complex!(msr::wrmsr),
        Mnemonic::Hlt => complex!(flags::hlt),
        Mnemonic::Wbinvd | Mnemonic::Wbnoinvd | Mnemonic::Invd => complex!(misc::wbinvd),
        Mnemonic::In => complex!(port::input),
        Mnemonic::Out => complex!(port::output),
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => complex!(port::ins),
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => complex!(port::outs),
        _ => return None,
    })
}

fn registers<B: Backend>(i: &Instruction) -> Option<Handler<B>> {
    Some(match i.mnemonic() {
        Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => complex!(flags::pushf),
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => complex!(flags::popf),
        Mnemonic::Cli => complex!(flags::cli),
        Mnemonic::Sti => complex!(flags::sti),
        Mnemonic::Cld => complex!(flags::cld),
        Mnemonic::Std => complex!(flags::std),
        Mnemonic::Stac => complex!(flags::stac),
        Mnemonic::Clac => complex!(flags::clac),
        Mnemonic::Cpuid => complex!(cpuid),
        Mnemonic::Rdtsc => complex!(misc::rdtsc),
        Mnemonic::Rdtscp => complex!(misc::rdtscp),
        Mnemonic::Rdpmc => complex!(misc::rdpmc),
        Mnemonic::Rdpid => complex!(misc::rdpid),
        Mnemonic::Rdrand | Mnemonic::Rdseed => complex!(misc::rdrand),
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => complex!(misc::clflush),
        // Code and data are coherent, and instructions execute one after the other.
        Mnemonic::Prefetch | Mnemonic::Prefetchw | Mnemonic::Serialize => nop::<B>,
        _ => return None,
    })
}

/// Whether the mode, the flags that gate events, or the machine's state may differ after `i`.
pub(super) fn ends_block(i: &Instruction) -> bool {
    let loads_segment = (0..i.op_count().min(1))
        .any(|n| i.op_kind(n) == OpKind::Register && is_segment(i.op_register(n)))
        && !matches!(i.mnemonic(), Mnemonic::Push);
    let control = i.op0_register().is_cr() || i.op0_register().is_dr();
    loads_segment
        || control
        || matches!(
            i.mnemonic(),
            Mnemonic::Lds
                | Mnemonic::Les
                | Mnemonic::Lfs
                | Mnemonic::Lgs
                | Mnemonic::Lss
                | Mnemonic::Lldt
                | Mnemonic::Lmsw
                | Mnemonic::Clts
                | Mnemonic::Invlpg
                | Mnemonic::Invpcid
                | Mnemonic::Xsetbv
                | Mnemonic::Wrpkru
                | Mnemonic::Wrmsr
                | Mnemonic::Hlt
                | Mnemonic::Wbinvd
                | Mnemonic::Wbnoinvd
                | Mnemonic::Invd
                | Mnemonic::In
                | Mnemonic::Out
                | Mnemonic::Insb
                | Mnemonic::Insw
                | Mnemonic::Insd
                | Mnemonic::Outsb
                | Mnemonic::Outsw
                | Mnemonic::Outsd
                | Mnemonic::Popf
                | Mnemonic::Popfd
                | Mnemonic::Popfq
                | Mnemonic::Cli
                | Mnemonic::Sti
                | Mnemonic::Stac
                | Mnemonic::Clac
        )
}
