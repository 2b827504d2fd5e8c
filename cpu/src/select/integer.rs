//! Integer instructions.

use brolga_mmu::Width;
use iced_x86::{Instruction, Mnemonic, OpKind};

use super::{bound, complex};
use crate::backend::Backend;
use crate::chain::Bound;
use crate::semantics::alu::*;
use crate::semantics::atomic::*;
use crate::semantics::bits::{self, *};
use crate::semantics::bmi::*;
use crate::semantics::decimal;
use crate::semantics::divide::{div, idiv};
use crate::semantics::moves::*;
use crate::semantics::multiply::{narrow, wide};
use crate::semantics::operand::{I, Memory, R, S8, S16, S32, S64};
use crate::semantics::rotate_carry::rotate_through;
use crate::semantics::shift::*;
use crate::semantics::stack::*;

type R0 = R<0>;
type R1 = R<1>;

/// What an operand is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Reg,
    Mem,
    Imm,
    None,
}

pub(super) fn kind(i: &Instruction, n: u32) -> Kind {
    if n >= i.op_count() {
        return Kind::None;
    }
    match i.op_kind(n) {
        OpKind::Register => Kind::Reg,
        OpKind::Memory => Kind::Mem,
        _ => Kind::Imm,
    }
}

/// The width of operand `n`, a register or memory.
pub(super) fn width(i: &Instruction, n: u32) -> Width {
    let bytes = match i.op_kind(n) {
        OpKind::Register => i.op_register(n).size(),
        _ => i.memory_size().size(),
    };
    Width::from_bytes(bytes as u64).unwrap_or(Width::W64)
}

/// Picks the instance for a width: what `bound!`, or the function `$as`, makes of it.
macro_rules! sized {
    ($w:expr, $f:ident::<$($t:ty),*>) => {
        match $w {
            Width::W8 => bound!($f::<$($t,)* S8>),
            Width::W16 => bound!($f::<$($t,)* S16>),
            Width::W32 => bound!($f::<$($t,)* S32>),
            Width::W64 => bound!($f::<$($t,)* S64>),
        }
    };
    ($w:expr, $as:path, $f:ident::<$($t:ty),*>) => {
        match $w {
            Width::W8 => $as($f::<$($t,)* S8>),
            Width::W16 => $as($f::<$($t,)* S16>),
            Width::W32 => $as($f::<$($t,)* S32>),
            Width::W64 => $as($f::<$($t,)* S64>),
        }
    };
}

/// Picks the plain function over the core for a width.
macro_rules! sized_complex {
    ($w:expr, $f:ident $([$($t:tt),*])?) => {
        match $w {
            Width::W8 => Bound::full(complex!($f::<$($($t,)*)? S8>)),
            Width::W16 => Bound::full(complex!($f::<$($($t,)*)? S16>)),
            Width::W32 => Bound::full(complex!($f::<$($($t,)*)? S32>)),
            Width::W64 => Bound::full(complex!($f::<$($($t,)*)? S64>)),
        }
    };
}
pub(super) use {sized, sized_complex};

/// A two-operand operation in its register, memory (`M`) and immediate forms.
macro_rules! binary {
    ($i:expr, $f:ident::<$($t:ty),*>) => {
        match (kind($i, 0), kind($i, 1)) {
            (Kind::Reg, Kind::Reg) => sized!(width($i, 0), $f::<$($t,)* R0, R1>),
            (Kind::Reg, Kind::Mem) => sized!(width($i, 0), $f::<$($t,)* R0, M>),
            (Kind::Reg, _) => sized!(width($i, 0), $f::<$($t,)* R0, I>),
            (_, Kind::Reg) => sized!(width($i, 0), $f::<$($t,)* M, R1>),
            _ => sized!(width($i, 0), $f::<$($t,)* M, I>),
        }
    };
}

/// A one-operand operation on a register or memory (`M`).
macro_rules! single {
    ($i:expr, $f:ident::<$($t:ty),*>) => {
        match kind($i, 0) {
            Kind::Reg => sized!(width($i, 0), $f::<$($t,)* R0>),
            _ => sized!(width($i, 0), $f::<$($t,)* M>),
        }
    };
}

/// An operation of 32 or 64 bits whose operand `$n` is a register or memory (`M`).
macro_rules! wide {
    ($i:expr, $n:literal, $f:ident::<$($t:ty),*>) => {
        match (kind($i, $n), width($i, 0)) {
            (Kind::Reg, Width::W64) => bound!($f::<$($t,)* R<$n>, S64>),
            (Kind::Reg, _) => bound!($f::<$($t,)* R<$n>, S32>),
            (_, Width::W64) => bound!($f::<$($t,)* M, S64>),
            _ => bound!($f::<$($t,)* M, S32>),
        }
    };
}

/// The meaning of an integer instruction.
pub(super) fn select<B: Backend, M: Memory>(i: &Instruction) -> Option<Bound<B>> {
    arithmetic::<B, M>(i)
        .or_else(|| shifts::<B, M>(i))
        .or_else(|| bit_ops::<B, M>(i))
        .or_else(|| extensions::<B, M>(i))
        .or_else(|| movement::<B, M>(i))
        .or_else(|| conditional::<B, M>(i))
}

fn arithmetic<B: Backend, M: Memory>(i: &Instruction) -> Option<Bound<B>> {
    Some(match i.mnemonic() {
        Mnemonic::Add => alu_form::<B, M, Add>(i),
        Mnemonic::Or => alu_form::<B, M, Or>(i),
        Mnemonic::Adc => alu_form::<B, M, Adc>(i),
        Mnemonic::Sbb => alu_form::<B, M, Sbb>(i),
        Mnemonic::And => alu_form::<B, M, And>(i),
        Mnemonic::Sub => alu_form::<B, M, Sub>(i),
        Mnemonic::Xor => alu_form::<B, M, Xor>(i),
        Mnemonic::Cmp => binary!(i, compare::<B, Sub>),
        Mnemonic::Test => binary!(i, compare::<B, And>),
        Mnemonic::Inc => unary_form::<B, M, Inc>(i),
        Mnemonic::Dec => unary_form::<B, M, Dec>(i),
        Mnemonic::Not => unary_form::<B, M, Not>(i),
        Mnemonic::Neg if i.has_lock_prefix() => sized_complex!(width(i, 0), neg_locked),
        Mnemonic::Neg => single!(i, neg::<B>),
        Mnemonic::Mul => multiply_form::<B, M, false>(i),
        Mnemonic::Imul => match (kind(i, 1), kind(i, 2)) {
            (Kind::None, _) => multiply_form::<B, M, true>(i),
            (Kind::Reg, Kind::None) => sized!(width(i, 0), narrow::<B, R0, R1>),
            (_, Kind::None) => sized!(width(i, 0), narrow::<B, R0, M>),
            (Kind::Reg, _) => sized!(width(i, 0), narrow::<B, R1, I>),
            _ => sized!(width(i, 0), narrow::<B, M, I>),
        },
        Mnemonic::Div => single!(i, div::<B>),
        Mnemonic::Idiv => single!(i, idiv::<B>),
        Mnemonic::Daa => Bound::full(complex!(decimal::adjust_packed::<false>)),
        Mnemonic::Das => Bound::full(complex!(decimal::adjust_packed::<true>)),
        Mnemonic::Aaa => Bound::full(complex!(decimal::adjust_unpacked::<false>)),
        Mnemonic::Aas => Bound::full(complex!(decimal::adjust_unpacked::<true>)),
        Mnemonic::Aam => Bound::full(complex!(decimal::aam)),
        Mnemonic::Aad => Bound::full(complex!(decimal::aad)),
        _ => return None,
    })
}

fn alu_form<B: Backend, M: Memory, O: Alu>(i: &Instruction) -> Bound<B> {
    if !i.has_lock_prefix() {
        return binary!(i, alu::<B, O>);
    }
    match kind(i, 1) {
        Kind::Reg => sized!(width(i, 0), Bound::full, alu_locked::<B, O, R1>),
        _ => sized!(width(i, 0), Bound::full, alu_locked::<B, O, I>),
    }
}

fn unary_form<B: Backend, M: Memory, O: Unary>(i: &Instruction) -> Bound<B> {
    if i.has_lock_prefix() {
        return sized!(width(i, 0), Bound::full, unary_locked::<B, O>);
    }
    single!(i, unary::<B, O>)
}

fn multiply_form<B: Backend, M: Memory, const SIGNED: bool>(i: &Instruction) -> Bound<B> {
    macro_rules! form {
        ($s:ty) => {
            match width(i, 0) {
                Width::W8 => bound!(wide::<SIGNED, B, $s, S8>),
                Width::W16 => bound!(wide::<SIGNED, B, $s, S16>),
                Width::W32 => bound!(wide::<SIGNED, B, $s, S32>),
                Width::W64 => bound!(wide::<SIGNED, B, $s, S64>),
            }
        };
    }
    if kind(i, 0) == Kind::Reg { form!(R0) } else { form!(M) }
}

fn shifts<B: Backend, M: Memory>(i: &Instruction) -> Option<Bound<B>> {
    Some(match i.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => shift_form::<B, M, Shl>(i),
        Mnemonic::Shr => shift_form::<B, M, Shr>(i),
        Mnemonic::Sar => shift_form::<B, M, Sar>(i),
        Mnemonic::Rol => rotate_form::<B, M, Rol>(i),
        Mnemonic::Ror => rotate_form::<B, M, Ror>(i),
        Mnemonic::Rcl if kind(i, 1) == Kind::Reg => {
            sized_complex!(width(i, 0), rotate_through [true, ByCl])
        }
        Mnemonic::Rcl => sized_complex!(width(i, 0), rotate_through [true, ByImm]),
        Mnemonic::Rcr if kind(i, 1) == Kind::Reg => {
            sized_complex!(width(i, 0), rotate_through [false, ByCl])
        }
        Mnemonic::Rcr => sized_complex!(width(i, 0), rotate_through [false, ByImm]),
        Mnemonic::Shld => double_form::<B, M, Shld>(i),
        Mnemonic::Shrd => double_form::<B, M, Shrd>(i),
        _ => return None,
    })
}

fn shift_form<B: Backend, M: Memory, O: Shift>(i: &Instruction) -> Bound<B> {
    match kind(i, 1) {
        Kind::Reg => single!(i, shift::<B, O, ByCl>),
        _ => single!(i, shift::<B, O, ByImm>),
    }
}

fn rotate_form<B: Backend, M: Memory, O: Rotate>(i: &Instruction) -> Bound<B> {
    match kind(i, 1) {
        Kind::Reg => single!(i, rotate::<B, O, ByCl>),
        _ => single!(i, rotate::<B, O, ByImm>),
    }
}

fn double_form<B: Backend, M: Memory, O: Double>(i: &Instruction) -> Bound<B> {
    match kind(i, 2) {
        Kind::Reg => single!(i, double::<B, O, ByCl>),
        _ => single!(i, double::<B, O, ByImm>),
    }
}

fn bit_ops<B: Backend, M: Memory>(i: &Instruction) -> Option<Bound<B>> {
    Some(match i.mnemonic() {
        Mnemonic::Bt => bit_form::<B, M, bits::Test>(i),
        Mnemonic::Bts => bit_form::<B, M, Set>(i),
        Mnemonic::Btr => bit_form::<B, M, Reset>(i),
        Mnemonic::Btc => bit_form::<B, M, Complement>(i),
        Mnemonic::Bsf => scan_form::<B, M, false>(i),
        Mnemonic::Bsr => scan_form::<B, M, true>(i),
        Mnemonic::Popcnt if kind(i, 1) == Kind::Reg => sized!(width(i, 0), popcnt::<B, R1>),
        Mnemonic::Popcnt => sized!(width(i, 0), popcnt::<B, M>),
        Mnemonic::Xadd if kind(i, 0) == Kind::Reg => sized!(width(i, 0), xadd_register::<B>),
        Mnemonic::Xadd => sized!(width(i, 0), Bound::full, xadd_memory::<B>),
        Mnemonic::Cmpxchg if kind(i, 0) == Kind::Reg => {
            sized!(width(i, 0), cmpxchg_register::<B>)
        }
        Mnemonic::Cmpxchg => sized!(width(i, 0), Bound::full, cmpxchg_memory::<B>),
        Mnemonic::Cmpxchg8b => Bound::full(complex!(cmpxchg_pair::<false>)),
        Mnemonic::Cmpxchg16b => Bound::full(complex!(cmpxchg_pair::<true>)),
        _ => return None,
    })
}

/// BMI1, BMI2, LZCNT and ADX.
fn extensions<B: Backend, M: Memory>(i: &Instruction) -> Option<Bound<B>> {
    Some(match i.mnemonic() {
        Mnemonic::Andn => wide!(i, 2, andn::<B>),
        Mnemonic::Bextr => wide!(i, 1, bextr::<B>),
        Mnemonic::Blsi => wide!(i, 1, lowest::<B, Isolate>),
        Mnemonic::Blsr => wide!(i, 1, lowest::<B, Clear>),
        Mnemonic::Blsmsk => wide!(i, 1, lowest::<B, Mask>),
        Mnemonic::Bzhi => wide!(i, 1, bzhi::<B>),
        Mnemonic::Mulx => wide!(i, 2, mulx::<B>),
        Mnemonic::Pdep => wide!(i, 2, scatter::<B, Deposit>),
        Mnemonic::Pext => wide!(i, 2, scatter::<B, Extract>),
        Mnemonic::Rorx => wide!(i, 1, rorx::<B>),
        Mnemonic::Sarx => wide!(i, 1, shift_flagless::<B, Sar>),
        Mnemonic::Shlx => wide!(i, 1, shift_flagless::<B, Shl>),
        Mnemonic::Shrx => wide!(i, 1, shift_flagless::<B, Shr>),
        Mnemonic::Adcx => wide!(i, 1, add_chained::<B, ByCarry>),
        Mnemonic::Adox => wide!(i, 1, add_chained::<B, ByOverflow>),
        Mnemonic::Tzcnt => count_form::<B, M, false>(i),
        Mnemonic::Lzcnt => count_form::<B, M, true>(i),
        _ => return None,
    })
}

fn count_form<B: Backend, M: Memory, const LEADING: bool>(i: &Instruction) -> Bound<B> {
    macro_rules! form {
        ($s:ty) => {
            match width(i, 0) {
                Width::W16 => bound!(count_zeros::<B, LEADING, $s, S16>),
                Width::W32 => bound!(count_zeros::<B, LEADING, $s, S32>),
                _ => bound!(count_zeros::<B, LEADING, $s, S64>),
            }
        };
    }
    if kind(i, 1) == Kind::Reg { form!(R1) } else { form!(M) }
}

fn bit_form<B: Backend, M: Memory, O: BitOp>(i: &Instruction) -> Bound<B> {
    macro_rules! memory {
        ($f:ident, $s:ty, $far:literal) => {
            match width(i, 0) {
                Width::W16 => Bound::full($f::<B, O, $s, $far, S16>),
                Width::W32 => Bound::full($f::<B, O, $s, $far, S32>),
                _ => Bound::full($f::<B, O, $s, $far, S64>),
            }
        };
    }
    match (kind(i, 0), kind(i, 1), i.has_lock_prefix()) {
        (Kind::Reg, Kind::Reg, _) => sized!(width(i, 0), in_register::<B, O, R1>),
        (Kind::Reg, ..) => sized!(width(i, 0), in_register::<B, O, I>),
        (_, Kind::Reg, false) => memory!(in_memory, R1, true),
        (_, Kind::Reg, true) => memory!(in_memory_locked, R1, true),
        (_, _, false) => memory!(in_memory, I, false),
        (_, _, true) => memory!(in_memory_locked, I, false),
    }
}

fn scan_form<B: Backend, M: Memory, const REVERSE: bool>(i: &Instruction) -> Bound<B> {
    macro_rules! form {
        ($s:ty) => {
            match width(i, 0) {
                Width::W16 => bound!(scan::<B, REVERSE, $s, S16>),
                Width::W32 => bound!(scan::<B, REVERSE, $s, S32>),
                _ => bound!(scan::<B, REVERSE, $s, S64>),
            }
        };
    }
    if kind(i, 1) == Kind::Reg { form!(R1) } else { form!(M) }
}

fn movement<B: Backend, M: Memory>(i: &Instruction) -> Option<Bound<B>> {
    let gpr = |n| kind(i, n) != Kind::Reg || i.op_register(n).is_gpr();
    Some(match i.mnemonic() {
        Mnemonic::Mov if gpr(0) && gpr(1) => binary!(i, mov::<B>),
        Mnemonic::Movzx => extend_form::<B, M, false>(i),
        Mnemonic::Movsx | Mnemonic::Movsxd => extend_form::<B, M, true>(i),
        Mnemonic::Lea => sized!(width(i, 0), lea::<B>),
        Mnemonic::Xchg => match (kind(i, 0), kind(i, 1)) {
            (Kind::Reg, Kind::Reg) => sized!(width(i, 0), xchg_registers::<B>),
            (Kind::Reg, _) => exchange::<B, 0>(i),
            _ => exchange::<B, 1>(i),
        },
        Mnemonic::Bswap => sized!(width(i, 0), bswap::<B>),
        Mnemonic::Movbe if kind(i, 0) == Kind::Reg => sized!(width(i, 0), movbe::<B, R0, M>),
        Mnemonic::Movbe => sized!(width(i, 0), movbe::<B, M, R1>),
        Mnemonic::Xlatb => Bound::full(xlat::<B>),
        Mnemonic::Cbw => bound!(extend_accumulator::<B, S8, S16>),
        Mnemonic::Cwde => bound!(extend_accumulator::<B, S16, S32>),
        Mnemonic::Cdqe => bound!(extend_accumulator::<B, S32, S64>),
        Mnemonic::Cwd => bound!(sign_to_dx::<B, S16>),
        Mnemonic::Cdq => bound!(sign_to_dx::<B, S32>),
        Mnemonic::Cqo => bound!(sign_to_dx::<B, S64>),
        Mnemonic::Lahf => bound!(lahf::<B>),
        Mnemonic::Sahf => bound!(sahf::<B>),
        Mnemonic::Clc => bound!(clc::<B>),
        Mnemonic::Stc => bound!(stc::<B>),
        Mnemonic::Cmc => bound!(cmc::<B>),
        Mnemonic::Salc => bound!(salc::<B>),
        Mnemonic::Nop | Mnemonic::Pause | Mnemonic::Endbr32 | Mnemonic::Endbr64 => bound!(nop::<B>),
        Mnemonic::Reservednop
        | Mnemonic::Cldemote
        | Mnemonic::Prefetchit0
        | Mnemonic::Prefetchit1
        | Mnemonic::Rdsspd
        | Mnemonic::Rdsspq => bound!(nop::<B>),
        Mnemonic::Push if gpr(0) => push_form::<B, M>(i),
        Mnemonic::Pop if kind(i, 0) == Kind::Mem => {
            sized!(width(i, 0), Bound::full, pop_memory::<B>)
        }
        Mnemonic::Pop if gpr(0) => sized!(width(i, 0), pop_register::<B, M::Access>),
        Mnemonic::Pusha | Mnemonic::Pushad => Bound::full(complex!(pusha)),
        Mnemonic::Popa | Mnemonic::Popad => Bound::full(complex!(popa)),
        Mnemonic::Enter => Bound::full(complex!(enter)),
        Mnemonic::Leave => bound!(leave::<B, M::Access>),
        _ => return None,
    })
}

fn exchange<B: Backend, const N: usize>(i: &Instruction) -> Bound<B> {
    match width(i, 0) {
        Width::W8 => Bound::full(xchg_memory::<B, N, S8>),
        Width::W16 => Bound::full(xchg_memory::<B, N, S16>),
        Width::W32 => Bound::full(xchg_memory::<B, N, S32>),
        Width::W64 => Bound::full(xchg_memory::<B, N, S64>),
    }
}

fn push_form<B: Backend, M: Memory>(i: &Instruction) -> Bound<B> {
    match kind(i, 0) {
        Kind::Reg => sized!(width(i, 0), push_operand::<B, M::Access, R0>),
        Kind::Mem => sized!(width(i, 0), push_operand::<B, M::Access, M>),
        _ => {
            let bytes = i.stack_pointer_increment().unsigned_abs();
            let w = Width::from_bytes(bytes.into()).unwrap_or(Width::W64);
            sized!(w, push_operand::<B, M::Access, I>)
        }
    }
}

fn extend_form<B: Backend, M: Memory, const SIGNED: bool>(i: &Instruction) -> Bound<B> {
    macro_rules! form {
        ($s:ty, $from:ty) => {
            match (SIGNED, width(i, 0)) {
                (false, Width::W16) => bound!(movzx::<B, $s, $from, S16>),
                (false, Width::W32) => bound!(movzx::<B, $s, $from, S32>),
                (false, _) => bound!(movzx::<B, $s, $from, S64>),
                (true, Width::W16) => bound!(movsx::<B, $s, $from, S16>),
                (true, Width::W32) => bound!(movsx::<B, $s, $from, S32>),
                (true, _) => bound!(movsx::<B, $s, $from, S64>),
            }
        };
    }
    match (kind(i, 1), width(i, 1)) {
        (Kind::Reg, Width::W8) => form!(R1, S8),
        (Kind::Reg, Width::W16) => form!(R1, S16),
        (Kind::Reg, _) => form!(R1, S32),
        (_, Width::W8) => form!(M, S8),
        (_, Width::W16) => form!(M, S16),
        _ => form!(M, S32),
    }
}

fn conditional<B: Backend, M: Memory>(i: &Instruction) -> Option<Bound<B>> {
    macro_rules! by_condition {
        ($($set:ident $cmov:ident $cc:ident;)*) => {
            match i.mnemonic() {
                $(Mnemonic::$set if kind(i, 0) == Kind::Reg => bound!(setcc::<B, $cc, R0>),
                Mnemonic::$set => bound!(setcc::<B, $cc, M>),
                Mnemonic::$cmov if kind(i, 1) == Kind::Reg => {
                    sized!(width(i, 0), cmov::<B, $cc, R1>)
                }
                Mnemonic::$cmov => sized!(width(i, 0), cmov::<B, $cc, M>),)*
                _ => return None,
            }
        };
    }
    Some(by_condition! {
        Seto Cmovo CcO; Setno Cmovno CcNo; Setb Cmovb CcB; Setae Cmovae CcAe;
        Sete Cmove CcE; Setne Cmovne CcNe; Setbe Cmovbe CcBe; Seta Cmova CcA;
        Sets Cmovs CcS; Setns Cmovns CcNs; Setp Cmovp CcP; Setnp Cmovnp CcNp;
        Setl Cmovl CcL; Setge Cmovge CcGe; Setle Cmovle CcLe; Setg Cmovg CcG;
    })
}
