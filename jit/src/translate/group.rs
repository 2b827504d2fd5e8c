//! Groups: accesses at constant distances from the same address, one after another, that one look-up
//! in the TLB serves. The first access of a group checks that the whole lies in one page; how far
//! it reaches is filled in as the others are met. Where it does not, execution leaves.
//!
//! Addresses modulo 2^32 are no different: what lies in one page does not wrap around.

use brolga_cpu::core::translated::Translated;
use brolga_mmu::PAGE_SIZE;
use cranelift_codegen::ir::immediates::Imm64;
use cranelift_codegen::ir::{InstBuilder, InstructionData, Value, types};

use super::Translator;
use super::memory::LookUp;

/// How far a group reaches at most, in bytes: on the stack and among variables, whose pages are few
/// and where a page's end is always in the same accesses' way or never; and elsewhere.
const FAR: i64 = 512;
const NEAR: i64 = 32;

/// What a linear address is a constant distance from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) value: Value,
    /// Sums with it are taken modulo 2^32.
    pub(super) wraps: bool,
}

/// The accesses of a group so far, and the look-up that its first one has made for them.
#[derive(Clone, Copy)]
struct Group {
    base: Base,
    /// From the lowest byte to behind the highest, as distances from the base.
    low: i64,
    high: i64,
    write: bool,
    /// The address that is looked up: that of the lowest byte. It is that of the first access
    /// (`linear`) or, once there are others, the base and a constant.
    looked_up: Value,
    distance: Value,
    linear: Value,
    is_alone: bool,
    look_up: LookUp,
}

/// All groups of a region.
#[derive(Default)]
pub(super) struct Groups {
    all: Vec<Group>,
    /// Those whose look-ups hold here.
    here: Vec<usize>,
}

impl Groups {
    /// The look-ups that hold here, for where else they do.
    pub(super) fn here(&self) -> Vec<usize> {
        self.here.clone()
    }

    /// Says which look-ups hold from here on.
    pub(super) fn set_here(&mut self, here: Vec<usize>) {
        self.here = here;
    }
}

impl Translator<'_> {
    /// The host address of `size` bytes at a linear address, by a look-up of their own or of those
    /// before; leaves where the interpreter must do the access.
    pub(super) fn grouped(&mut self, size: u64, linear: Value, write: bool) -> Value {
        let (base, low) = self.as_address(linear);
        let Some(high) = low.checked_add(size as i64) else {
            return self.host(size, linear, write, false);
        };
        let addend = match self.join(base, low, high, write) {
            Some(addend) => addend,
            None => self.found(base, low, size, linear, write),
        };
        // The host's addressing modes add them where the address is used.
        self.f.ins().iadd(linear, addend)
    }

    /// The addend of a group that takes this access in.
    fn join(&mut self, base: Base, low: i64, high: i64, write: bool) -> Option<Value> {
        let most = if self.stays { FAR } else { NEAR };
        let Groups { all, here } = &mut self.groups;
        let fits = |group: &Group| {
            group.base == base
                && (group.write || !write)
                && group.high.max(high).saturating_sub(group.low.min(low)) <= most
        };
        let mut candidates = here.iter().rev().copied().filter(|_| !self.restless);
        let index = candidates.find(|index| fits(&all[*index]))?;
        let group = &mut all[index];
        (group.low, group.high) = (group.low.min(low), group.high.max(high));
        group.is_alone = false;
        Some(group.look_up.addend)
    }

    /// Begins a group: the addend.
    fn found(&mut self, base: Base, low: i64, size: u64, linear: Value, write: bool) -> Value {
        if self.restless {
            return self.look_up(size, linear, write, false).addend;
        }
        let (distance, looked_up) = if base.wraps {
            let distance = self.f.ins().iconst(types::I32, i64::from(low as u32));
            let base = self.f.ins().ireduce(types::I32, base.value);
            let sum = self.f.ins().iadd(base, distance);
            (distance, self.f.ins().uextend(types::I64, sum))
        } else {
            let distance = self.f.ins().iconst(types::I64, low);
            (distance, self.f.ins().iadd(base.value, distance))
        };
        let look_up = self.look_up(size, looked_up, write, false);
        let high = low + size as i64;
        let is_alone = true;
        self.groups.here.push(self.groups.all.len());
        self.groups.all.push(Group {
            base,
            low,
            high,
            write,
            looked_up,
            distance,
            linear,
            is_alone,
            look_up,
        });
        look_up.addend
    }

    /// Fills in how far the groups reach.
    pub(super) fn complete_groups(&mut self) {
        for group in std::mem::take(&mut self.groups.all) {
            let Group { low, high, base, linear, looked_up, distance, look_up, .. } = group;
            if group.is_alone {
                self.is_alias(looked_up, linear);
                continue;
            }
            match (low, base.wraps) {
                (0, false) => self.is_alias(looked_up, base.value),
                (_, false) => self.fill_in(distance, low),
                (_, true) => self.fill_in(distance, i64::from(low as u32)),
            }
            let size = high - low;
            self.fill_in(look_up.last, PAGE_SIZE as i64 - size);
            let word = look_up.access & !Translated::SIZE | Translated::GROUP;
            self.fill_in(look_up.word, word as i64 | size);
        }
    }

    /// Gives a constant another value.
    fn fill_in(&mut self, constant: Value, v: i64) {
        let dfg = &mut self.f.func.dfg;
        let Some(inst) = dfg.value_def(constant).inst() else { return };
        if let InstructionData::UnaryImm { imm, .. } = &mut dfg.insts[inst] {
            *imm = Imm64::new(v);
        }
    }

    /// Replaces what computes a value by another value.
    fn is_alias(&mut self, of: Value, v: Value) {
        let Some(inst) = self.f.func.dfg.value_def(of).inst() else { return };
        self.f.func.layout.remove_inst(inst);
        self.f.func.dfg.clear_results(inst);
        self.f.func.dfg.change_to_alias(of, v);
    }
}
