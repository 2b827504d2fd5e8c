//! A backend that executes nothing: it writes down what an instruction does, as text. It shares
//! nothing with the interpreter, and so shows that the semantics assume nothing of one.

mod vector;

use std::convert::Infallible;

use brolga_cpu::backend::{AtomicOp, Backend, Bin, Cmp, Complex, Un};
use brolga_cpu::block::Mode;
use brolga_cpu::cpuid::CpuModel;
use brolga_cpu::decode::{Decoded, decode};
use brolga_cpu::flags::{Cond, FlagOp};
use brolga_cpu::insn::Insn;
use brolga_cpu::vcpu::{RIP, Seg, ZERO};
use brolga_mmu::Width;
use iced_x86::Code;

/// A value: the number of its text.
#[derive(Clone, Copy, Debug)]
pub struct Value(usize);

/// A location checked for writing: the text of its address.
#[derive(Clone, Copy, Debug)]
pub struct Location(Value);

/// Effects in the order in which an instruction has them.
#[derive(Default)]
pub struct Recorder {
    texts: Vec<String>,
    effects: Vec<String>,
    /// Loads so far: each is a new unknown.
    loads: usize,
}

/// The effects of the instructions in `code`, decoded for `mode`; `None` if they are cut short.
pub fn record(code: &[u8], mode: Mode, model: &CpuModel) -> Option<Vec<String>> {
    let Decoded::Block(block) = decode::<Recorder>(code, mode, model, usize::MAX) else {
        return None;
    };
    let mut recorder = Recorder::default();
    for op in &block.ops {
        let Ok(()) = (op.handler)(&mut recorder, &op.insn);
    }
    Some(recorder.effects)
}

const GENERAL: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const HIGH: [&str; 4] = ["ah", "ch", "dh", "bh"];
const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];

fn register(w: Width, r: u8) -> String {
    match (w, r) {
        (Width::W8, 16..20) => HIGH[usize::from(r) - 16].to_owned(),
        (_, RIP) => "rip".to_owned(),
        (Width::W64, _) => GENERAL[usize::from(r & 15)].to_owned(),
        _ => format!("{}.{}", GENERAL[usize::from(r & 15)], w.bits()),
    }
}

fn segment(seg: Seg) -> String {
    let name = SEGMENTS[seg.index()];
    if seg.is_flat() { String::new() } else { format!("{name}:") }
}

impl Recorder {
    fn value(&mut self, text: impl Into<String>) -> Value {
        self.texts.push(text.into());
        Value(self.texts.len() - 1)
    }

    fn text(&self, v: Value) -> &str {
        &self.texts[v.0]
    }

    fn effect(&mut self, text: String) {
        self.effects.push(text);
    }

    fn place(&self, size: u64, seg: Seg, ea: Value) -> String {
        format!("{}[{}]:{}", segment(seg), self.text(ea), 8 * size)
    }

    /// The unknown that a load gives.
    fn loaded(&mut self, how: &str, place: &str) -> Value {
        let name = format!("m{}", self.loads);
        self.loads += 1;
        self.effect(format!("{how} {name} = {place}"));
        self.value(name)
    }
}

impl Backend for Recorder {
    type V = Value;
    type C = Value;
    type L = Location;
    type E = Infallible;

    fn imm(&mut self, v: u64) -> Value {
        self.value(if v < 10 { format!("{v}") } else { format!("{v:#x}") })
    }

    fn reg(&mut self, w: Width, r: u8) -> Value {
        if r == ZERO && w != Width::W8 {
            return self.imm(0);
        }
        self.value(register(w, r))
    }

    fn set_reg(&mut self, w: Width, r: u8, v: Value) {
        self.effect(format!("{} = {}", register(w, r), self.text(v)));
    }

    fn bin(&mut self, op: Bin, w: Width, a: Value, b: Value) -> Value {
        let (left, right) = (self.text(a), self.text(b));
        let neutral = match op {
            Bin::Add | Bin::Sub | Bin::Shl | Bin::Shr | Bin::Or | Bin::Xor => right == "0",
            Bin::And => right == "0xffffffffffffffff",
            _ => false,
        };
        if neutral {
            return a;
        }
        if left == "0" && op == Bin::Add {
            return b;
        }
        if left == "0" && matches!(op, Bin::Shl | Bin::Shr) {
            return a;
        }
        let text = format!("{op:?}.{}({left}, {right})", w.bits());
        self.value(text)
    }

    fn un(&mut self, op: Un, w: Width, a: Value) -> Value {
        self.value(format!("{op:?}.{}({})", w.bits(), self.text(a)))
    }

    fn mul_high(&mut self, signed: bool, w: Width, a: Value, b: Value) -> Value {
        let sign = if signed { "signed" } else { "unsigned" };
        let (a, b) = (self.text(a), self.text(b));
        self.value(format!("MulHigh.{}({sign}, {a}, {b})", w.bits()))
    }

    fn divide(
        &mut self,
        signed: bool,
        w: Width,
        high: Value,
        low: Value,
        by: Value,
    ) -> Result<(Value, Value), Infallible> {
        let sign = if signed { "signed" } else { "unsigned" };
        let (high, low, by) = (self.text(high), self.text(low), self.text(by));
        let operands = format!("{}({sign}, {high}:{low}, {by})", w.bits());
        Ok((self.value(format!("Div.{operands}")), self.value(format!("Rem.{operands}"))))
    }

    fn sext(&mut self, from: Width, to: Width, v: Value) -> Value {
        self.value(format!("Sext.{}.{}({})", from.bits(), to.bits(), self.text(v)))
    }

    fn trunc(&mut self, w: Width, v: Value) -> Value {
        if w == Width::W64 {
            v
        } else {
            self.value(format!("Trunc.{}({})", w.bits(), self.text(v)))
        }
    }

    fn cmp(&mut self, op: Cmp, w: Width, a: Value, b: Value) -> Value {
        self.value(format!("{op:?}.{}({}, {})", w.bits(), self.text(a), self.text(b)))
    }

    fn select(&mut self, c: Value, a: Value, b: Value) -> Value {
        self.value(format!("({} ? {} : {})", self.text(c), self.text(a), self.text(b)))
    }

    fn cond_value(&mut self, c: Value) -> Value {
        c
    }

    fn flags(&mut self, op: FlagOp, w: Width, r: Value, a: Value, b: Value) {
        let (r, a, b) = (self.text(r), self.text(a), self.text(b));
        let text = match op {
            FlagOp::Bits => format!("flags = {r}"),
            _ => format!("flags = {op:?}.{}({r}; {a}, {b})", w.bits()),
        };
        self.effect(text);
    }

    fn flags_if(&mut self, c: Value, op: FlagOp, w: Width, r: Value, a: Value, b: Value) {
        self.flags(op, w, r, a, b);
        if let Some(flags) = self.effects.pop() {
            self.effect(format!("if {}: {flags}", self.text(c)));
        }
    }

    fn replace_flags(&mut self, mask: u64, new: Value) {
        let text = format!("flags & {mask:#x} = {}", self.text(new));
        self.effect(text);
    }

    fn replace_flags_if(&mut self, c: Value, mask: u64, new: Value) {
        let text = format!("if {}: flags & {mask:#x} = {}", self.text(c), self.text(new));
        self.effect(text);
    }

    fn cond(&mut self, cc: Cond) -> Value {
        self.value(format!("cc.{cc:?}"))
    }

    fn status(&mut self) -> Value {
        self.value("flags")
    }

    fn load(&mut self, w: Width, seg: Seg, ea: Value) -> Result<Value, Infallible> {
        let place = self.place(w.bytes(), seg, ea);
        Ok(self.loaded("load", &place))
    }

    fn store(&mut self, w: Width, seg: Seg, ea: Value, v: Value) -> Result<(), Infallible> {
        self.effect(format!("store {} = {}", self.place(w.bytes(), seg, ea), self.text(v)));
        Ok(())
    }

    fn modify(&mut self, w: Width, seg: Seg, ea: Value) -> Result<(Location, Value), Infallible> {
        let place = self.place(w.bytes(), seg, ea);
        let v = self.loaded("modify", &place);
        Ok((Location(self.value(place)), v))
    }

    fn commit(&mut self, at: Location, _: Width, v: Value) {
        self.effect(format!("commit {} = {}", self.text(at.0), self.text(v)));
    }

    fn atomic(
        &mut self,
        op: AtomicOp,
        w: Width,
        seg: Seg,
        ea: Value,
        v: Value,
    ) -> Result<Value, Infallible> {
        let place = format!("{} {op:?} {}", self.place(w.bytes(), seg, ea), self.text(v));
        Ok(self.loaded("atomic", &place))
    }

    fn compare_exchange(
        &mut self,
        w: Width,
        seg: Seg,
        ea: Value,
        expected: Value,
        new: Value,
    ) -> Result<Value, Infallible> {
        let place = self.place(w.bytes(), seg, ea);
        let place = format!("{place} if {} to {}", self.text(expected), self.text(new));
        Ok(self.loaded("exchange", &place))
    }

    fn string_step(&mut self, element: Width) -> Value {
        self.value(format!("step({})", element.bits()))
    }

    fn check_target(&mut self, _: &Insn, target: Value) -> Result<(), Infallible> {
        self.effect(format!("check {}", self.text(target)));
        Ok(())
    }

    fn jump(&mut self, _: &Insn, target: Value) {
        self.effect(format!("jump {}", self.text(target)));
    }

    fn branch_if(&mut self, insn: &Insn, c: Value) -> Result<(), Infallible> {
        let (taken, next) = (self.direct_target(insn), self.next_ip(insn));
        let [c, taken, next] = [c, taken, next].map(|v| self.text(v));
        self.effect(format!("jump ({c} ? {taken} : {next})"));
        Ok(())
    }

    fn complex(&mut self, insn: &Insn, _: Complex) -> Result<(), Infallible> {
        let code = Code::try_from(usize::from(insn.code));
        self.effect(code.map_or("complex".to_owned(), |code| format!("complex {code:?}")));
        Ok(())
    }
}
