//! Arithmetic, comparison, classification and register moves.

use super::{C0, C1, C2, C3, X87};
use crate::softfloat::{
    self, Class, Env, F32, F64, F80, Format, Relation, RemainderKind, Unpacked, flag, from_int,
};

/// The basic operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arith {
    /// dst + src
    Add,
    /// dst * src
    Mul,
    /// dst - src
    Sub,
    /// src - dst
    SubR,
    /// dst / src
    Div,
    /// src / dst
    DivR,
}

impl Arith {
    fn apply(self, dst: Unpacked, src: Unpacked, env: &mut Env) -> F80 {
        match self {
            Self::Add => softfloat::add_unpacked::<F80>(dst, src, env),
            Self::Mul => softfloat::mul_unpacked::<F80>(dst, src, env),
            Self::Sub => softfloat::sub_unpacked::<F80>(dst, src, env),
            Self::SubR => softfloat::sub_unpacked::<F80>(src, dst, env),
            Self::Div => softfloat::div_unpacked::<F80>(dst, src, env),
            Self::DivR => softfloat::div_unpacked::<F80>(src, dst, env),
        }
    }
}

/// A memory operand of an arithmetic instruction, as loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArithMem {
    /// m32fp
    F32(u32),
    /// m64fp
    F64(u64),
    /// m16int
    I16(i16),
    /// m32int
    I32(i32),
}

impl ArithMem {
    fn unpack(self) -> Unpacked {
        let integer = |value: i32| F80::unpack(from_int::<F80>(value, &mut Env::default()));
        match self {
            Self::F32(bits) => F32::unpack(bits),
            Self::F64(bits) => F64::unpack(bits),
            Self::I16(value) => integer(value.into()),
            Self::I32(value) => integer(value),
        }
    }
}

/// The flags that FCOMI and FUCOMI write; OF, SF and AF become zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompareFlags {
    /// ZF
    pub zero: bool,
    /// PF
    pub parity: bool,
    /// CF
    pub carry: bool,
}

impl From<Relation> for CompareFlags {
    fn from(relation: Relation) -> Self {
        let unordered = relation == Relation::Unordered;
        Self {
            zero: unordered || relation == Relation::Equal,
            parity: unordered,
            carry: unordered || relation == Relation::Less,
        }
    }
}

/// Arithmetic.
impl X87 {
    /// FADD ST(dst), ST(src) and its kin; `pop` for FADDP.
    pub fn arith(&mut self, op: Arith, dst: u8, src: u8, pop: bool) {
        let result = if self.is_empty(dst) || self.is_empty(src) {
            self.stack_underflow().then(F80::default_nan)
        } else {
            let (a, b) = (F80::unpack(self.st(dst)), F80::unpack(self.st(src)));
            self.execute(|env| op.apply(a, b, env))
        };
        if let Some(result) = result {
            self.set_st(dst, result);
            if pop {
                self.pop();
            }
        }
    }

    /// FADD m32fp, FIADD m16int and their kin.
    pub fn arith_mem(&mut self, op: Arith, operand: ArithMem) {
        self.unary(|st0, env| op.apply(F80::unpack(st0), operand.unpack(), env));
    }

    /// FSQRT.
    pub fn sqrt(&mut self) {
        self.unary(softfloat::sqrt::<F80>);
    }

    /// FABS.
    pub fn abs(&mut self) {
        self.unary(|x, _| F80 { se: x.se & 0x7FFF, ..x });
    }

    /// FCHS.
    pub fn change_sign(&mut self) {
        self.unary(|x, _| F80 { se: x.se ^ 0x8000, ..x });
    }

    /// FRNDINT.
    pub fn round_to_int(&mut self) {
        self.unary(|x, env| {
            if !env.check_denormal(&[F80::unpack(x)]) {
                return x;
            }
            softfloat::round_to_int::<F80>(x, env.rounding, true, env)
        });
    }

    /// FSCALE.
    pub fn scale(&mut self) {
        self.with_st1(softfloat::scale);
    }

    /// FXTRACT: the exponent replaces ST(0), the significand is pushed.
    pub fn extract(&mut self) {
        self.unary_push(|x, env| {
            let (exponent, significand) = softfloat::extract(x, env);
            (exponent, Some(significand))
        });
    }

    /// FPREM, FPREM1. C2 is set while the reduction is incomplete; else C0, C3 and C1 hold
    /// the three low bits of the quotient, highest first.
    pub fn remainder(&mut self, kind: RemainderKind) {
        let mut conditions = None;
        self.with_st1(|x, y, env| {
            let remainder = softfloat::remainder(x, y, kind, env);
            let bit = |q: u64, n: u32, code| if q >> n & 1 != 0 { code } else { 0 };
            // Without a number as result only C2 is defined.
            if !F80::unpack(remainder.value).is_nan() {
                conditions = Some(match remainder.quotient {
                    None => C2,
                    Some(q) => bit(q, 2, C0) | bit(q, 1, C3) | bit(q, 0, C1),
                });
            }
            remainder.value
        });
        match conditions {
            Some(conditions) => self.set_conditions(C0 | C1 | C2 | C3, conditions),
            None => self.set_conditions(C2, 0),
        }
    }

    /// Replaces ST(0) by the result of an operation on it and ST(1).
    fn with_st1(&mut self, operation: impl FnOnce(F80, F80, &mut Env) -> F80) {
        if self.is_empty(0) || self.is_empty(1) {
            if self.stack_underflow() {
                self.set_st(0, F80::default_nan());
            }
            return;
        }
        let st1 = self.st(1);
        self.unary(|st0, env| operation(st0, st1, env));
    }
}

/// What a comparison came to.
struct Compared {
    /// What the conditions are to say. None if an unmasked invalid operation leaves them alone
    /// (SDM vol. 2, FCOM).
    relation: Option<Relation>,
    /// No exception keeps it from popping. An unmasked denormal operand does, but the conditions are
    /// set: the manual excepts invalid operations only, and processors do so.
    completes: bool,
}

/// Comparison and classification.
impl X87 {
    /// FCOM, FUCOM (`quiet`) ST(i) and their forms that pop up to two registers.
    pub fn compare(&mut self, i: u8, quiet: bool, pops: u8) {
        let compared = self.relate_registers(i, quiet);
        self.conclude(compared, pops);
    }

    /// FCOM m32fp, FICOM m16int and their kin.
    pub fn compare_mem(&mut self, operand: ArithMem, pop: bool) {
        let compared = self.relate(operand.unpack(), false);
        self.conclude(compared, pop.into());
    }

    /// FTST: compares with zero.
    pub fn test(&mut self) {
        let compared = self.relate(F80::unpack(F80::zero(false)), false);
        self.conclude(compared, 0);
    }

    /// FCOMI, FUCOMI (`quiet`) ST(i). None if an unmasked invalid operation leaves the flags alone.
    pub fn compare_flags(&mut self, i: u8, quiet: bool, pop: bool) -> Option<CompareFlags> {
        let compared = self.relate_registers(i, quiet);
        if pop && compared.completes {
            self.pop();
        }
        compared.relation.map(CompareFlags::from)
    }

    fn relate_registers(&mut self, i: u8, quiet: bool) -> Compared {
        if self.is_empty(i) {
            return self.relate_nothing();
        }
        self.relate(F80::unpack(self.st(i)), quiet)
    }

    /// Compares ST(0) with an operand.
    fn relate(&mut self, operand: Unpacked, quiet: bool) -> Compared {
        if self.is_empty(0) {
            return self.relate_nothing();
        }
        let st0 = F80::unpack(self.st(0));
        let mut relation = None;
        let completes = self.execute(|env| {
            let found = softfloat::compare_unpacked(st0, operand, !quiet, env);
            relation = (env.unmasked() & flag::INVALID == 0).then_some(found);
        });
        Compared { relation, completes: completes.is_some() }
    }

    /// Compares with an empty register.
    fn relate_nothing(&mut self) -> Compared {
        let masked = self.stack_underflow();
        Compared { relation: masked.then_some(Relation::Unordered), completes: masked }
    }

    fn conclude(&mut self, compared: Compared, pops: u8) {
        if let Some(relation) = compared.relation {
            self.set_relation(relation);
        }
        if compared.completes {
            (0..pops).for_each(|_| self.pop());
        }
    }

    fn set_relation(&mut self, relation: Relation) {
        let conditions = match relation {
            Relation::Greater => 0,
            Relation::Less => C0,
            Relation::Equal => C3,
            Relation::Unordered => C3 | C2 | C0,
        };
        self.set_conditions(C3 | C2 | C0, conditions);
    }

    /// FXAM.
    pub fn examine(&mut self) {
        let st0 = self.st(0);
        let class = match st0.class() {
            _ if self.is_empty(0) => C3 | C0,
            Class::Unsupported => 0,
            Class::QuietNan | Class::SignalingNan => C0,
            Class::Normal => C2,
            Class::Infinity => C2 | C0,
            Class::Zero => C3,
            Class::Subnormal => C3 | C2,
        };
        let sign = if st0.sign() { C1 } else { 0 };
        self.set_conditions(C0 | C1 | C2 | C3, class | sign);
    }
}

/// Moves between registers.
impl X87 {
    /// FXCH ST(i). Masked, an empty register counts as indefinite.
    pub fn exchange(&mut self, i: u8) {
        if (self.is_empty(0) || self.is_empty(i)) && !self.stack_underflow() {
            return;
        }
        let content = |fpu: &Self, i| if fpu.is_empty(i) { F80::default_nan() } else { fpu.st(i) };
        let (a, b) = (content(self, 0), content(self, i));
        self.set_conditions(C1, 0);
        self.set_st(0, b);
        self.set_st(i, a);
    }

    /// FCMOVcc ST(0), ST(i) with its condition evaluated.
    pub fn conditional_move(&mut self, i: u8, condition: bool) {
        if self.is_empty(0) || self.is_empty(i) {
            if self.stack_underflow() {
                self.set_st(0, F80::default_nan());
            }
        } else if condition {
            self.set_st(0, self.st(i));
        }
    }
}
