//! Values that are computed only if something needs them. Most of what instructions compute beside
//! their results (flags above all) is never used, or only where execution leaves the region: it is
//! kept as an expression over values that exist, and becomes code where it is asked for.

use brolga_cpu::backend::{Bin, Cmp, Un};
use brolga_cpu::flags::Cond;
use brolga_mmu::Width;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use rustc_hash::FxHashMap;

use super::Translator;
use super::flags::FlagsId;
use super::group::Base;
use super::leave::RIP_FIELD;

/// An integer, zero-extended from its width, or a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Const(u64),
    /// The IP at the region's entry, and a distance.
    Ip(i64),
    /// Exists already.
    Given,
    Bin(Bin, Node, Node),
    Un(Un, Node),
    MulHigh(bool, Node, Node),
    Sext(Width, Node),
    Trunc(Node),
    Select(Node, Node, Node),
    /// 1 or 0.
    OfCondition(Node),
    Status(FlagsId),
    /// The flags after COMISS or one of its relatives, of numbers.
    Compared(Value, Value),
    // Conditions.
    Cmp(Cmp, Width, Node, Node),
    Flag(FlagsId, Cond),
    Known(bool),
}

pub(super) struct Entry {
    pub(super) kind: Kind,
    /// What it is zero-extended from.
    pub(super) width: Width,
    /// The value in that width, or the condition (0 or 1 in 8 bits), once computed.
    narrow: Option<Value>,
    /// The value in 64 bits, once computed.
    wide: Option<Value>,
}

/// The values of a region, and which of them were computed since a point.
#[derive(Default)]
pub(super) struct Nodes {
    entries: Vec<Entry>,
    computed: Vec<(Node, Form)>,
    /// Of values that are the sum of another and a constant: those two.
    sums: FxHashMap<Value, (Value, i64)>,
    /// The same of values that are the low 32 bits of such a sum, zero-extended or not.
    low_sums: FxHashMap<Value, (Value, i32)>,
}

/// The forms that a value exists in.
#[derive(Clone, Copy)]
enum Form {
    Narrow,
    Wide,
}

/// A point to return to with [`Translator::forget_since`].
#[derive(Clone, Copy)]
pub(super) struct Mark(usize);

pub(super) fn int(w: Width) -> Type {
    match w {
        Width::W8 => types::I8,
        Width::W16 => types::I16,
        Width::W32 => types::I32,
        Width::W64 => types::I64,
    }
}

impl Translator<'_> {
    pub(super) fn node(&mut self, width: Width, kind: Kind) -> Node {
        self.nodes.entries.push(Entry { kind, width, narrow: None, wide: None });
        Node(self.nodes.entries.len() as u32 - 1)
    }

    /// A node for a 64-bit value that exists.
    pub(super) fn given(&mut self, width: Width, wide: Value) -> Node {
        let node = self.node(width, Kind::Given);
        self.nodes.entries[node.0 as usize].wide = Some(wide);
        node
    }

    /// A node for a value of its width.
    pub(super) fn given_narrow(&mut self, width: Width, v: Value) -> Node {
        let node = self.node(width, Kind::Given);
        let entry = &mut self.nodes.entries[node.0 as usize];
        if width == Width::W64 {
            entry.wide = Some(v)
        } else {
            entry.narrow = Some(v)
        }
        node
    }

    pub(super) fn constant(&mut self, v: u64) -> Node {
        self.node(Width::W64, Kind::Const(v))
    }

    pub(super) fn kind(&self, n: Node) -> Kind {
        self.nodes.entries[n.0 as usize].kind
    }

    pub(super) fn width(&self, n: Node) -> Width {
        self.nodes.entries[n.0 as usize].width
    }

    pub(super) fn as_const(&self, n: Node) -> Option<u64> {
        if let Kind::Const(v) = self.kind(n) { Some(v) } else { None }
    }

    /// Where code that is only executed on some paths begins.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.nodes.computed.len())
    }

    /// Forgets the values computed since: they do not exist on other paths.
    pub(super) fn forget_since(&mut self, mark: Mark) {
        for (node, form) in self.nodes.computed.drain(mark.0..) {
            let entry = &mut self.nodes.entries[node.0 as usize];
            match form {
                Form::Narrow => entry.narrow = None,
                Form::Wide => entry.wide = None,
            }
        }
    }

    fn remember(&mut self, n: Node, form: Form, v: Value) {
        let entry = &mut self.nodes.entries[n.0 as usize];
        match form {
            Form::Narrow => entry.narrow = Some(v),
            Form::Wide => entry.wide = Some(v),
        }
        self.nodes.computed.push((n, form));
    }

    /// The value in 64 bits.
    pub(super) fn wide(&mut self, n: Node) -> Value {
        let entry = &self.nodes.entries[n.0 as usize];
        if let Some(v) = entry.wide {
            return v;
        }
        let (kind, width) = (entry.kind, entry.width);
        let v = match kind {
            Kind::Const(v) => return self.f.ins().iconst(types::I64, v as i64),
            Kind::Ip(by) => return self.ip_plus(by),
            Kind::Given => {
                let narrow = self.narrow(n, width);
                self.f.ins().uextend(types::I64, narrow)
            }
            _ if width == Width::W64 => self.compute(n),
            _ => {
                let narrow = self.narrow(n, width);
                let v = self.f.ins().uextend(types::I64, narrow);
                if let Some(sum) = self.as_low_sum(n, narrow) {
                    self.nodes.low_sums.insert(v, sum);
                }
                v
            }
        };
        // A given value has been there before this point.
        if kind != Kind::Given {
            self.remember(n, Form::Wide, v);
        }
        v
    }

    /// The low bits of `w`.
    pub(super) fn narrow(&mut self, n: Node, w: Width) -> Value {
        if w == Width::W64 {
            return self.wide(n);
        }
        let entry = &self.nodes.entries[n.0 as usize];
        let (kind, width) = (entry.kind, entry.width);
        if width == w
            && let Some(v) = entry.narrow
        {
            return v;
        }
        match kind {
            Kind::Const(v) => self.f.ins().iconst(int(w), (v & w.mask()) as i64),
            Kind::Trunc(a) if w <= width => self.narrow(a, w),
            Kind::Sext(from, a) if w <= from => self.narrow(a, w),
            _ if width == w && kind != Kind::Given => {
                let v = self.compute(n);
                self.remember(n, Form::Narrow, v);
                v
            }
            _ if width < w => {
                let narrow = self.narrow(n, width);
                self.f.ins().uextend(int(w), narrow)
            }
            _ => {
                let from = match self.nodes.entries[n.0 as usize].narrow {
                    Some(v) if width > w => v,
                    _ if width > w && width < Width::W64 && kind != Kind::Given => {
                        self.narrow(n, width)
                    }
                    _ => self.wide(n),
                };
                self.f.ins().ireduce(int(w), from)
            }
        }
    }

    /// A condition as 0 or 1 in 8 bits.
    pub(super) fn condition(&mut self, n: Node) -> Value {
        let entry = &self.nodes.entries[n.0 as usize];
        if let Some(v) = entry.narrow {
            return v;
        }
        let v = match entry.kind {
            Kind::Known(on) => return self.f.ins().iconst(types::I8, i64::from(on)),
            Kind::Cmp(op, w, a, b) => {
                let (a, b) = (self.narrow(a, w), self.narrow(b, w));
                let cc = match op {
                    Cmp::Eq => IntCC::Equal,
                    Cmp::Ne => IntCC::NotEqual,
                    Cmp::UnsignedLt => IntCC::UnsignedLessThan,
                    Cmp::SignedLt => IntCC::SignedLessThan,
                };
                self.f.ins().icmp(cc, a, b)
            }
            Kind::Flag(flags, cc) => self.flag(flags, cc),
            _ => {
                let v = self.wide(n);
                self.f.ins().icmp_imm_u(IntCC::NotEqual, v, 0)
            }
        };
        self.remember(n, Form::Narrow, v);
        v
    }

    /// The IP at the region's entry plus `by`. Outside 64-bit mode it has 32 bits.
    pub(super) fn ip_plus(&mut self, by: i64) -> Value {
        let ip = self.load_field(RIP_FIELD);
        if self.code64 {
            return if by == 0 { ip } else { self.f.ins().iadd_imm_s(ip, by) };
        }
        let ip = self.f.ins().ireduce(types::I32, ip);
        let by = self.f.ins().iconst(types::I32, i64::from(by as u32));
        let sum = self.f.ins().iadd(ip, by);
        self.f.ins().uextend(types::I64, sum)
    }

    /// Emits what computes a node, in its width.
    fn compute(&mut self, n: Node) -> Value {
        let Entry { kind, width: w, .. } = self.nodes.entries[n.0 as usize];
        match kind {
            Kind::Bin(op, a, b) => self.compute_bin(op, w, a, b),
            Kind::Un(op, a) => self.compute_un(op, w, a),
            Kind::MulHigh(signed, a, b) => self.compute_mul_high(signed, w, a, b),
            Kind::Sext(from, a) => {
                let v = self.narrow(a, from);
                self.f.ins().sextend(int(w), v)
            }
            Kind::Trunc(a) => self.narrow(a, w),
            Kind::Select(c, a, b) => {
                let c = self.condition(c);
                let (a, b) = (self.narrow(a, w), self.narrow(b, w));
                self.f.ins().select(c, a, b)
            }
            Kind::OfCondition(c) => self.condition(c),
            Kind::Status(flags) => self.status_bits(flags),
            Kind::Compared(a, b) => self.compared_flags(a, b),
            Kind::Const(_) | Kind::Ip(_) | Kind::Given => self.wide(n),
            Kind::Cmp(..) | Kind::Flag(..) | Kind::Known(_) => self.condition(n),
        }
    }

    fn compute_bin(&mut self, op: Bin, w: Width, a: Node, b: Node) -> Value {
        if matches!(op, Bin::Shl | Bin::Shr | Bin::Sar) {
            return self.compute_shift(op, w, a, b);
        }
        if matches!(op, Bin::Deposit | Bin::Extract) {
            return self.scatter(op, w, a, b);
        }
        if op == Bin::Mul && w == Width::W8 {
            let (a, b) = (self.narrow(a, Width::W32), self.narrow(b, Width::W32));
            let product = self.f.ins().imul(a, b);
            return self.f.ins().ireduce(types::I8, product);
        }
        if let Some(sum) = self.sum_with_constant(op, w, a, b) {
            return sum;
        }
        if let Some(sum) = self.low_sum_with_constant(op, w, a, b) {
            return sum;
        }
        let (a, b) = (self.narrow(a, w), self.narrow(b, w));
        let ins = self.f.ins();
        match op {
            Bin::Add => ins.iadd(a, b),
            Bin::Sub => ins.isub(a, b),
            Bin::And => ins.band(a, b),
            Bin::Or => ins.bor(a, b),
            Bin::Xor => ins.bxor(a, b),
            Bin::Mul => ins.imul(a, b),
            Bin::Rol => ins.rotl(a, b),
            _ => ins.rotr(a, b),
        }
    }

    /// A sum of 64 bits with a constant, as one addition to what `a` is a sum of: Cranelift folds
    /// two of them into an address only by a register for one of the constants.
    fn sum_with_constant(&mut self, op: Bin, w: Width, a: Node, b: Node) -> Option<Value> {
        if w != Width::W64 {
            return None;
        }
        let (a, by) = self.plus_constant(op, a, b)?;
        let v = self.wide(a);
        let (base, before) = self.as_sum(v);
        let by = before.wrapping_add(by);
        let sum = self.f.ins().iadd_imm_s(base, by);
        self.nodes.sums.insert(sum, (base, by));
        Some(sum)
    }

    /// A value of 64 bits as the sum of another and a constant.
    fn as_sum(&self, v: Value) -> (Value, i64) {
        self.nodes.sums.get(&v).copied().unwrap_or((v, 0))
    }

    /// What a constant is added to, and the constant.
    fn plus_constant(&self, op: Bin, a: Node, b: Node) -> Option<(Node, i64)> {
        match (op, self.as_const(a), self.as_const(b)) {
            (Bin::Add, _, Some(by)) => Some((a, by as i64)),
            (Bin::Add, Some(by), _) => Some((b, by as i64)),
            (Bin::Sub, _, Some(by)) => Some((a, (by as i64).wrapping_neg())),
            _ => None,
        }
    }

    /// As [`Translator::sum_with_constant`], for sums modulo 2^32: those that 32-bit code computes
    /// for addresses and in its stack pointer.
    fn low_sum_with_constant(&mut self, op: Bin, w: Width, a: Node, b: Node) -> Option<Value> {
        let of_address = (op, w, self.as_const(b)) == (Bin::And, Width::W64, Some(u32::MAX.into()));
        let (a, by) = match w {
            _ if of_address => (a, 0),
            Width::W32 if !self.code64 => self.plus_constant(op, a, b)?,
            _ => return None,
        };
        let (base, before) = self.low_parts(a);
        let by = before.wrapping_add(by as i32);
        let low = self.f.ins().ireduce(types::I32, base);
        let low = if by == 0 { low } else { self.f.ins().iadd_imm_s(low, i64::from(by)) };
        let sum = if of_address { self.f.ins().uextend(types::I64, low) } else { low };
        self.nodes.low_sums.insert(sum, (base, by));
        Some(sum)
    }

    /// The low 32 bits of a node as a sum of the low bits of a value of 64 bits and a constant.
    fn low_parts(&mut self, n: Node) -> (Value, i32) {
        let full = match self.kind(n) {
            Kind::Trunc(full) if self.width(n) == Width::W32 => full,
            _ => n,
        };
        let v = self.wide(full);
        let (base, by) = self.as_sum(v);
        let (base, before) = self.nodes.low_sums.get(&base).copied().unwrap_or((base, 0));
        (base, before.wrapping_add(by as i32))
    }

    /// The parts of a node of which `narrow` is the value in its width, if it is such a sum.
    fn as_low_sum(&mut self, n: Node, narrow: Value) -> Option<(Value, i32)> {
        let is_register = matches!(self.kind(n), Kind::Trunc(_)) && self.width(n) == Width::W32;
        if is_register && !self.code64 {
            return Some(self.low_parts(n));
        }
        self.nodes.low_sums.get(&narrow).copied()
    }

    /// An address as the sum of a base and a constant.
    pub(super) fn as_address(&self, linear: Value) -> (Base, i64) {
        match self.nodes.low_sums.get(&linear) {
            Some((value, by)) => (Base { value: *value, wraps: true }, i64::from(*by)),
            None => {
                let (value, by) = self.as_sum(linear);
                (Base { value, wraps: false }, by)
            }
        }
    }

    /// Shifts as 64-bit numbers, unless the count is known to stay below the width.
    fn compute_shift(&mut self, op: Bin, w: Width, a: Node, count: Node) -> Value {
        let narrow = self.bound(count) < u64::from(w.bits());
        let by = self.narrow(count, if narrow { w.max(Width::W32) } else { Width::W64 });
        let at = if narrow { w } else { Width::W64 };
        let v = match (op, narrow) {
            (Bin::Sar, false) => {
                let v = self.narrow(a, w);
                if w == Width::W64 { v } else { self.f.ins().sextend(types::I64, v) }
            }
            _ => self.narrow(a, at),
        };
        let v = match op {
            Bin::Shl => self.f.ins().ishl(v, by),
            Bin::Shr => self.f.ins().ushr(v, by),
            _ => self.f.ins().sshr(v, by),
        };
        if at == w { v } else { self.f.ins().ireduce(int(w), v) }
    }

    /// An upper bound of a value.
    fn bound(&self, n: Node) -> u64 {
        match self.kind(n) {
            Kind::Const(v) => v,
            Kind::Bin(Bin::And, a, b) => {
                let bound = |n| self.as_const(n).unwrap_or(u64::MAX);
                bound(a).min(bound(b)).min(self.width(n).mask())
            }
            _ => self.width(n).mask(),
        }
    }

    fn compute_un(&mut self, op: Un, w: Width, a: Node) -> Value {
        let small = w < Width::W32;
        match op {
            Un::Not => {
                let a = self.narrow(a, w);
                self.f.ins().bnot(a)
            }
            Un::Neg => {
                let a = self.narrow(a, w);
                self.f.ins().ineg(a)
            }
            Un::Bswap => {
                let a = self.narrow(a, w);
                self.f.ins().bswap(a)
            }
            Un::Popcnt => {
                let at = w.max(Width::W32);
                let a = self.narrow(a, at);
                let n = self.f.ins().popcnt(a);
                if small { self.f.ins().ireduce(int(w), n) } else { n }
            }
            Un::Ctz if small => {
                let a = self.narrow(a, Width::W32);
                let stop = self.f.ins().iconst(types::I32, 1 << w.bits());
                let a = self.f.ins().bor(a, stop);
                let n = self.f.ins().ctz(a);
                self.f.ins().ireduce(int(w), n)
            }
            Un::Ctz => {
                let a = self.narrow(a, w);
                self.f.ins().ctz(a)
            }
            Un::Clz if small => {
                let a = self.narrow(a, Width::W32);
                let n = self.f.ins().clz(a);
                let n = self.f.ins().iadd_imm_s(n, i64::from(w.bits()) - 32);
                self.f.ins().ireduce(int(w), n)
            }
            Un::Clz => {
                let a = self.narrow(a, w);
                self.f.ins().clz(a)
            }
        }
    }

    fn compute_mul_high(&mut self, signed: bool, w: Width, a: Node, b: Node) -> Value {
        if w == Width::W64 {
            let (a, b) = (self.wide(a), self.wide(b));
            let ins = self.f.ins();
            return if signed { ins.smulhi(a, b) } else { ins.umulhi(a, b) };
        }
        let mut extended = |n| {
            let v = self.narrow(n, w);
            if signed {
                self.f.ins().sextend(types::I64, v)
            } else {
                self.f.ins().uextend(types::I64, v)
            }
        };
        let (a, b) = (extended(a), extended(b));
        let product = self.f.ins().imul(a, b);
        let high = self.f.ins().ushr_imm_u(product, i64::from(w.bits()));
        self.f.ins().ireduce(int(w), high)
    }
}
