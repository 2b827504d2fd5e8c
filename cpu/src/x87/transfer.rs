//! Loads, stores and constants.

use super::{C1, SF, X87};
use crate::softfloat::{
    Class, Env, Exact, F32, F64, F80, Format, Integer, Rounding, Unpacked, convert_unpacked, flag,
    from_int, round_pack, to_int,
};

/// A floating-point memory operand of FLD, as loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatMem {
    /// m32fp
    F32(u32),
    /// m64fp
    F64(u64),
    /// m80fp
    F80(F80),
}

/// A packed BCD operand: 18 digits, two to a byte, and the sign in the top bit.
pub type Bcd = [u8; 10];

const BCD_INDEFINITE: Bcd = [0, 0, 0, 0, 0, 0, 0, 0xC0, 0xFF, 0xFF];
/// One more than the largest packed BCD number.
const BCD_LIMIT: u64 = 1_000_000_000_000_000_000;

/// A store to memory that has been computed and not yet carried out: write `value`, if there is
/// one, and then hand this to [`X87::commit_store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Store<T> {
    /// What to write. None if an unmasked exception suppresses the store.
    pub value: Option<T>,
    /// Exception flags and SF.
    flags: u16,
    rounded_up: bool,
}

impl<T> Store<T> {
    /// The same store of a converted value.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Store<U> {
        let Self { value, flags, rounded_up } = self;
        Store { value: value.map(convert), flags, rounded_up }
    }
}

/// The significand of pi, its exponent 1.
pub(super) const PI: u128 = 0xC90F_DAA2_2168_C234_C4C6_628B_80DC_1CD1;
/// The significand of log2(e), its exponent 0.
pub(super) const LOG2_E: u128 = 0xB8AA_3B29_5C17_F0BB_BE87_FED0_691D_3E88;
/// The significand of ln(2), its exponent -1.
pub(super) const LN_2: u128 = 0xB172_17F7_D1CF_79AB_C9E3_B398_03F2_F6AF;

/// The constants that load instructions push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    /// FLD1
    One,
    /// FLDL2T: log2(10)
    Log2Of10,
    /// FLDL2E: log2(e)
    Log2OfE,
    /// FLDPI
    Pi,
    /// FLDLG2: log10(2)
    Log10Of2,
    /// FLDLN2: ln(2)
    LnOf2,
    /// FLDZ
    Zero,
}

impl Constant {
    /// The constant rounded as the RC field asks (SDM vol 1, 8.3.8); no exception is raised.
    fn value(self, rounding: Rounding) -> F80 {
        let (exp, sig) = match self {
            Self::Zero => return F80::zero(false),
            Self::One => (0, 1 << 127),
            Self::Log2Of10 => (1, 0xD49A_784B_CD1B_8AFE_492B_F6FF_4DAF_DB4C),
            Self::Log2OfE => (0, LOG2_E),
            Self::Pi => (1, PI),
            Self::Log10Of2 => (-2, 0x9A20_9A84_FBCF_F798_8F89_59AC_0B7C_9178),
            Self::LnOf2 => (-1, LN_2),
        };
        let mut env = Env { rounding, masks: flag::ALL, ..Env::default() };
        round_pack::<F80>(Exact { sign: false, exp, sig }, F80::PRECISION, &mut env)
    }
}

/// Loads.
impl X87 {
    /// FLD from memory.
    pub fn load(&mut self, operand: FloatMem) {
        self.push_result(|env| match operand {
            FloatMem::F32(bits) => widen(F32::unpack(bits), env),
            FloatMem::F64(bits) => widen(F64::unpack(bits), env),
            FloatMem::F80(value) => value,
        });
    }

    /// FILD; the operand is sign-extended.
    pub fn load_int(&mut self, value: i64) {
        self.push_result(|env| from_int::<F80>(value, env));
    }

    /// FBLD. Digits above nine are undefined; they count as their value.
    pub fn load_bcd(&mut self, operand: Bcd) {
        let digits = operand[..9].iter().rev();
        let magnitude =
            digits.fold(0, |n, byte| n * 100 + i64::from(byte >> 4) * 10 + i64::from(byte & 15));
        let negative = operand[9] & 0x80 != 0;
        self.push_result(|env| {
            let value = from_int::<F80>(magnitude, env);
            F80 { se: value.se | u16::from(negative) << 15, ..value }
        });
    }

    /// FLD ST(i).
    pub fn load_register(&mut self, i: u8) {
        if !self.is_empty(i) {
            let value = self.st(i);
            self.push_result(|_| value);
        } else if self.stack_underflow() {
            self.push(F80::default_nan());
        }
    }

    /// FLD1, FLDPI and their kin.
    pub fn load_constant(&mut self, constant: Constant) {
        self.push_result(|env| constant.value(env.rounding));
    }

    fn push_result(&mut self, operation: impl FnOnce(&mut Env) -> F80) {
        if !self.is_empty(7) {
            if self.stack_overflow() {
                self.push(F80::default_nan());
            }
            return;
        }
        let mut env = self.env();
        let result = operation(&mut env);
        self.set_conditions(C1, 0);
        self.raise(env.flags.into());
        // Unlike elsewhere, an unmasked denormal operand does not suppress the result.
        if env.unmasked() & flag::INVALID == 0 {
            self.push(result);
        }
    }
}

/// Stores.
impl X87 {
    /// FST, FSTP m32fp.
    pub fn prepare_store_f32(&self) -> Store<u32> {
        self.prepare_store_float::<F32>()
    }

    /// FST, FSTP m64fp.
    pub fn prepare_store_f64(&self) -> Store<u64> {
        self.prepare_store_float::<F64>()
    }

    /// FSTP m80fp.
    pub fn prepare_store_f80(&self) -> Store<F80> {
        self.prepare(F80::default_nan(), |st0, _| st0)
    }

    /// FIST, FISTP.
    pub fn prepare_store_int<I: Integer>(&self) -> Store<I> {
        self.prepare(I::INDEFINITE, |st0, env| to_int::<F80, I>(st0, env.rounding, env))
    }

    /// FISTTP.
    pub fn prepare_store_int_truncated<I: Integer>(&self) -> Store<I> {
        self.prepare(I::INDEFINITE, |st0, env| to_int::<F80, I>(st0, Rounding::Zero, env))
    }

    /// FBSTP.
    pub fn prepare_store_bcd(&self) -> Store<Bcd> {
        self.prepare(BCD_INDEFINITE, to_bcd)
    }

    /// Completes a store after its memory write (if it has one) succeeded.
    pub fn commit_store<T>(&mut self, store: Store<T>, pop: bool) {
        self.set_conditions(C1, if store.rounded_up { C1 } else { 0 });
        self.raise(store.flags);
        if pop && store.value.is_some() {
            self.pop();
        }
    }

    /// FST, FSTP ST(i).
    pub fn store_register(&mut self, i: u8, pop: bool) {
        let store = self.prepare_store_f80();
        if let Some(value) = store.value {
            self.set_st(i, value);
        }
        self.commit_store(store, pop);
    }

    fn prepare_store_float<F: Format>(&self) -> Store<F::Bits> {
        self.prepare(F::default_nan(), |st0, env| {
            let mut source = F80::unpack(st0);
            // A denormal source is not reported (SDM FST: no #D).
            if source.class == Class::Subnormal {
                source.class = Class::Normal;
            }
            convert_unpacked::<F>(source, env)
        })
    }

    /// Computes a store from ST(0). Other than with register destinations, unmasked overflow and
    /// underflow suppress the store (SDM vol 1, 8.5.4 and 8.5.5).
    fn prepare<T>(&self, indefinite: T, operation: impl FnOnce(F80, &mut Env) -> T) -> Store<T> {
        if self.is_empty(0) {
            let value = self.is_masked(flag::INVALID).then_some(indefinite);
            return Store { value, flags: SF | u16::from(flag::INVALID), rounded_up: false };
        }
        let mut env = self.env();
        let value = operation(self.st(0), &mut env);
        if env.unmasked() & !flag::INEXACT != 0 {
            // Nothing is stored, so nothing was rounded.
            let flags = env.flags & !flag::INEXACT;
            return Store { value: None, flags: flags.into(), rounded_up: false };
        }
        Store { value: Some(value), flags: env.flags.into(), rounded_up: env.rounded_up }
    }
}

/// Converts a loaded number. A denormal one is reported, and converted even so.
fn widen(mut source: Unpacked, env: &mut Env) -> F80 {
    if source.class == Class::Subnormal {
        env.raise(flag::DENORMAL);
        source.class = Class::Normal;
    }
    convert_unpacked::<F80>(source, env)
}

fn to_bcd(value: F80, env: &mut Env) -> Bcd {
    let flags = env.flags;
    let integer = to_int::<F80, i64>(value, env.rounding, env);
    let mut magnitude = integer.unsigned_abs();
    if magnitude >= BCD_LIMIT {
        env.flags = flags | flag::INVALID;
        env.rounded_up = false;
        return BCD_INDEFINITE;
    }
    let mut bcd = [0; 10];
    for byte in &mut bcd[..9] {
        let pair = (magnitude % 100) as u8;
        *byte = (pair / 10 * 16) + pair % 10;
        magnitude /= 100;
    }
    bcd[9] = u8::from(value.sign()) << 7;
    bcd
}
