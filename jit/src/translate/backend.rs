//! The integer half of the semantics' interface: values become [`Node`]s, effects become code.

use std::convert::Infallible;

use brolga_cpu::backend::{AtomicOp, Backend, Bin, Cmp, Complex, Un};
use brolga_cpu::core::translated::offset;
use brolga_cpu::flags::{Cond, FlagOp};
use brolga_cpu::insn::{Insn, bits};
use brolga_cpu::vcpu::{RIP, Seg, SegReg, ZERO, rflags};
use brolga_mmu::Width;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AtomicRmwOp, InstBuilder, Value, types};

use super::flags::State;
use super::memory::Place;
use super::node::{Kind, Node, int};
use super::{End, Translator, at};
use crate::plan::PlanBlock;
use crate::survey::{keeps_ip, slot};

impl Backend for Translator<'_> {
    type V = Node;
    type C = Node;
    type L = Place;
    type E = Infallible;

    fn imm(&mut self, v: u64) -> Node {
        self.constant(v)
    }

    fn reg(&mut self, w: Width, r: u8) -> Node {
        if w == Width::W8 {
            let full = self.gpr(slot(w, r));
            if r < 16 {
                return self.node(w, Kind::Trunc(full));
            }
            let by = self.constant(8);
            let high = self.node(Width::W64, Kind::Bin(Bin::Shr, full, by));
            return self.node(w, Kind::Trunc(high));
        }
        match r {
            RIP => self.node(Width::W64, Kind::Ip(self.block_at)),
            ZERO => self.constant(0),
            _ => {
                let full = self.gpr(usize::from(r & 15));
                if w == Width::W64 { full } else { self.node(w, Kind::Trunc(full)) }
            }
        }
    }

    fn set_reg(&mut self, w: Width, r: u8, v: Node) {
        self.changes();
        let wide = match w {
            Width::W64 => self.wide(v),
            Width::W32 if self.width(v) <= Width::W32 => self.wide(v),
            Width::W32 => {
                let narrow = self.narrow(v, w);
                self.f.ins().uextend(types::I64, narrow)
            }
            _ => self.merged(w, r, v),
        };
        self.set_gpr(slot(w, r), wide);
    }

    fn bin(&mut self, op: Bin, w: Width, a: Node, b: Node) -> Node {
        self.folded(op, w, a, b).unwrap_or_else(|| self.node(w, Kind::Bin(op, a, b)))
    }

    fn un(&mut self, op: Un, w: Width, a: Node) -> Node {
        self.node(w, Kind::Un(op, a))
    }

    fn mul_high(&mut self, signed: bool, w: Width, a: Node, b: Node) -> Node {
        self.node(w, Kind::MulHigh(signed, a, b))
    }

    fn divide(
        &mut self,
        signed: bool,
        w: Width,
        high: Node,
        low: Node,
        by: Node,
    ) -> Result<(Node, Node), Infallible> {
        Ok(match w {
            Width::W64 => self.divide_single(signed, high, low, by),
            _ => self.divide_double(signed, w, high, low, by),
        })
    }

    fn sext(&mut self, from: Width, to: Width, v: Node) -> Node {
        if to <= from { self.trunc(to, v) } else { self.node(to, Kind::Sext(from, v)) }
    }

    fn trunc(&mut self, w: Width, v: Node) -> Node {
        match self.kind(v) {
            _ if self.width(v) <= w => v,
            Kind::Const(c) => self.constant(c & w.mask()),
            Kind::Ip(at) if self.keeps_ip(w.mask(), at) => v,
            _ => self.node(w, Kind::Trunc(v)),
        }
    }

    fn cmp(&mut self, op: Cmp, w: Width, a: Node, b: Node) -> Node {
        if let (Some(a), Some(b)) = (self.as_const(a), self.as_const(b)) {
            let shift = 64 - w.bits();
            let (signed_a, signed_b) = ((a << shift) as i64, (b << shift) as i64);
            let on = match op {
                Cmp::Eq => a == b,
                Cmp::Ne => a != b,
                Cmp::UnsignedLt => a < b,
                Cmp::SignedLt => signed_a < signed_b,
            };
            return self.node(Width::W8, Kind::Known(on));
        }
        // A condition turned into a number and back.
        if let (Cmp::Ne, Kind::OfCondition(c), Some(0)) = (op, self.kind(a), self.as_const(b)) {
            return c;
        }
        self.node(Width::W8, Kind::Cmp(op, w, a, b))
    }

    fn select(&mut self, c: Node, a: Node, b: Node) -> Node {
        match self.kind(c) {
            Kind::Known(true) => a,
            Kind::Known(false) => b,
            _ => {
                let w = self.needed(a).max(self.needed(b));
                self.node(w, Kind::Select(c, a, b))
            }
        }
    }

    fn cond_value(&mut self, c: Node) -> Node {
        match self.kind(c) {
            Kind::Known(on) => self.constant(u64::from(on)),
            _ => self.node(Width::W8, Kind::OfCondition(c)),
        }
    }

    fn flags(&mut self, op: FlagOp, w: Width, r: Node, a: Node, b: Node) {
        self.changes();
        self.flags = self.produced(op, w, r, a, b);
    }

    fn flags_if(&mut self, c: Node, op: FlagOp, w: Width, r: Node, a: Node, b: Node) {
        self.changes();
        match self.kind(c) {
            Kind::Known(false) => {}
            Kind::Known(true) => self.flags = self.produced(op, w, r, a, b),
            _ => self.flags = self.produced_if(c, op, w, r, a, b),
        }
    }

    fn replace_flags(&mut self, mask: u64, new: Node) {
        self.changes();
        self.flags = self.flag_state(State::Replaced { before: self.flags, mask, new });
    }

    fn replace_flags_if(&mut self, c: Node, mask: u64, new: Node) {
        let otherwise = self.flags;
        match self.kind(c) {
            Kind::Known(false) => {}
            Kind::Known(true) => self.replace_flags(mask, new),
            _ => {
                self.replace_flags(mask, new);
                let then = self.flags;
                self.flags = self.flag_state(State::If { c, then, otherwise });
            }
        }
    }

    fn cond(&mut self, cc: Cond) -> Node {
        self.node(Width::W8, Kind::Flag(self.flags, cc))
    }

    fn status(&mut self) -> Node {
        self.node(Width::W64, Kind::Status(self.flags))
    }

    fn load(&mut self, w: Width, seg: Seg, ea: Node) -> Result<Node, Infallible> {
        let host = self.access(w.bytes(), seg, ea, false);
        Ok(self.load_integer(w, host))
    }

    fn store(&mut self, w: Width, seg: Seg, ea: Node, v: Node) -> Result<(), Infallible> {
        let host = self.access(w.bytes(), seg, ea, true);
        let v = self.narrow(v, w);
        self.store_host(v, host);
        Ok(())
    }

    fn modify(&mut self, w: Width, seg: Seg, ea: Node) -> Result<(Place, Node), Infallible> {
        let host = self.access(w.bytes(), seg, ea, true);
        Ok((Place(host), self.load_integer(w, host)))
    }

    fn commit(&mut self, at: Place, w: Width, v: Node) {
        let v = self.narrow(v, w);
        self.store_host(v, at.0);
    }

    fn atomic(
        &mut self,
        op: AtomicOp,
        w: Width,
        seg: Seg,
        ea: Node,
        v: Node,
    ) -> Result<Node, Infallible> {
        let host = self.aligned_access(w.bytes(), seg, ea, true);
        let v = self.narrow(v, w);
        let op = match op {
            AtomicOp::Add => AtomicRmwOp::Add,
            AtomicOp::And => AtomicRmwOp::And,
            AtomicOp::Or => AtomicRmwOp::Or,
            AtomicOp::Xor => AtomicRmwOp::Xor,
            AtomicOp::Xchg => AtomicRmwOp::Xchg,
        };
        let old = self.f.ins().atomic_rmw(int(w), super::trusted(), op, host, v);
        Ok(self.given_narrow(w, old))
    }

    fn compare_exchange(
        &mut self,
        w: Width,
        seg: Seg,
        ea: Node,
        expected: Node,
        new: Node,
    ) -> Result<Node, Infallible> {
        let host = self.aligned_access(w.bytes(), seg, ea, true);
        let (expected, new) = (self.narrow(expected, w), self.narrow(new, w));
        let old = self.f.ins().atomic_cas(super::trusted(), host, expected, new);
        Ok(self.given_narrow(w, old))
    }

    /// EFLAGS.DF is a bit that doubles into what turns +n into -n.
    fn string_step(&mut self, element: Width) -> Node {
        let flags = self.f.ins().load(types::I64, super::trusted(), self.core, at(offset::EFLAGS));
        let down = self.f.ins().band_imm_u(flags, rflags::DF as i64);
        let from = rflags::DF.trailing_zeros();
        let twice = 1 + element.bytes().trailing_zeros();
        let twice = self.f.ins().ushr_imm_u(down, i64::from(from - twice));
        let up = self.f.ins().iconst(types::I64, element.bytes() as i64);
        let by = self.f.ins().isub(up, twice);
        self.given(Width::W64, by)
    }

    /// In 64-bit code a target that is not canonical misses the jump cache, and is found out then;
    /// but an instruction that writes to memory first has to know.
    fn check_target(&mut self, insn: &Insn, target: Node) -> Result<(), Infallible> {
        if matches!(self.kind(target), Kind::Ip(_)) && (self.code64 || self.cs_flat) {
            return Ok(());
        }
        if insn.has(bits::CODE64) {
            if !super::is_call(insn) {
                self.before();
            } else {
                let v = self.wide(target);
                let bad = self.not_canonical(v);
                self.leave_if(bad);
            }
        } else if !insn.has(bits::CS_FLAT) {
            let bad = self.beyond_limit(target);
            self.leave_if(bad);
        }
        Ok(())
    }

    fn jump(&mut self, _: &Insn, target: Node) {
        self.end = Some(End::Jump(target));
    }

    fn branch_if(&mut self, insn: &Insn, c: Node) -> Result<(), Infallible> {
        let (target, next) = (self.direct_target(insn), self.next_ip(insn));
        if !self.code64 && !self.cs_flat {
            let (beyond, taken) = (self.beyond_limit(target), self.condition(c));
            let bad = self.f.ins().band(beyond, taken);
            self.leave_if(bad);
        }
        self.end = Some(End::Branch { c, target, next });
        Ok(())
    }

    /// The plan has the interpreter execute such an instruction.
    fn complex(&mut self, _: &Insn, _: Complex) -> Result<(), Infallible> {
        unreachable!("complex instructions are surveyed as interpreted")
    }

    fn x87(&mut self, insn: &Insn, _: Complex) -> Result<(), Infallible> {
        match crate::x87::form(insn) {
            Some(form) => self.x87_instruction(insn, form),
            None => unreachable!("surveyed as interpreted"),
        }
        Ok(())
    }
}

impl Translator<'_> {
    /// General register `r`, all of it.
    fn gpr(&mut self, r: usize) -> Node {
        let v = self.f.use_var(self.gprs[r]);
        self.given(Width::W64, v)
    }

    /// Whether an IP lies beyond CS's limit.
    fn beyond_limit(&mut self, ip: Node) -> Value {
        let v = self.wide(ip);
        let limit = self.segment_limit(SegReg::Cs as usize);
        self.f.ins().icmp(IntCC::UnsignedGreaterThan, v, limit)
    }

    fn set_gpr(&mut self, r: usize, v: Value) {
        self.f.def_var(self.gprs[r], v);
        self.dirty |= 1 << r;
    }

    /// A register with its low 16, low 8 or second 8 bits replaced.
    fn merged(&mut self, w: Width, r: u8, v: Node) -> Value {
        let full = self.gpr(slot(w, r));
        let full = self.wide(full);
        let shift = if w == Width::W8 && r >= 16 { 8 } else { 0 };
        let kept = self.f.ins().iconst(types::I64, !((w.mask() << shift) as i64));
        let kept = self.f.ins().band(full, kept);
        let v = self.narrow(v, w);
        let v = self.f.ins().uextend(types::I64, v);
        let v = if shift == 0 { v } else { self.f.ins().ishl_imm_u(v, shift) };
        self.f.ins().bor(kept, v)
    }

    /// The width that holds a node's value.
    fn needed(&self, n: Node) -> Width {
        match self.as_const(n) {
            Some(v) => [Width::W8, Width::W16, Width::W32]
                .into_iter()
                .find(|w| v <= w.mask())
                .unwrap_or(Width::W64),
            None => self.width(n),
        }
    }

    /// What needs no code.
    fn folded(&mut self, op: Bin, w: Width, a: Node, b: Node) -> Option<Node> {
        let (x, y) = (self.as_const(a), self.as_const(b));
        match (op, x, y) {
            (Bin::Add, Some(x), Some(y)) => Some(self.constant(x.wrapping_add(y) & w.mask())),
            (Bin::And, Some(x), Some(y)) => Some(self.constant(x & y)),
            (Bin::Shl, Some(x), Some(y)) => Some(self.constant(x << (y & 63) & w.mask())),
            (Bin::Sub, Some(x), Some(y)) => Some(self.constant(x.wrapping_sub(y) & w.mask())),
            (Bin::Add, Some(x), None) if w == Width::W64 => self.ip_offset(b, x),
            (Bin::Add, None, Some(y)) if w == Width::W64 => self.ip_offset(a, y),
            (Bin::And, None, Some(mask)) => self.masked(w, a, mask),
            (Bin::Shl | Bin::Shr | Bin::Or | Bin::Xor, None, Some(0)) if self.width(a) <= w => {
                Some(a)
            }
            _ => None,
        }
    }

    /// `n + by` in 64 bits.
    fn ip_offset(&mut self, n: Node, by: u64) -> Option<Node> {
        match self.kind(n) {
            _ if by == 0 => Some(n),
            Kind::Ip(at) => Some(self.node(Width::W64, Kind::Ip(at.wrapping_add(by as i64)))),
            _ => None,
        }
    }

    /// Whether `ip & mask` is `ip`: 16-bit code is known not to wrap inside the region only.
    fn keeps_ip(&self, mask: u64, at: i64) -> bool {
        let plan = self.request.plan;
        let inside = |b: &PlanBlock| i64::from(b.start) - i64::from(plan.entry()) == at;
        keeps_ip(mask, self.code16 && plan.blocks.iter().any(inside))
    }

    /// `a & mask` where that is a narrower `a`.
    fn masked(&mut self, w: Width, a: Node, mask: u64) -> Option<Node> {
        if mask == w.mask() && self.width(a) <= w {
            return Some(a);
        }
        let narrow = [Width::W8, Width::W16, Width::W32].into_iter().find(|n| n.mask() == mask)?;
        Some(self.trunc(narrow, a))
    }
}
