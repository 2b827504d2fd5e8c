//! How execution leaves a region: in the middle, for the interpreter to execute an instruction;
//! at its end, for another region.

use brolga_cpu::core::translated::{Translated, offset};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, InstBuilder, SourceLoc, Value, types};

use super::flags::FlagsId;
use super::node::{Kind, Node};
use super::vector::Vector;
use super::{PASSED, Translator, at, trusted};
use crate::jump::{JUMP_BITS, JUMP_SHIFT, JumpEntry};

/// Why translated code has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Reason {
    /// The code at RIP is not known to the jump cache.
    LookUp,
    /// The interpreter has to execute the instruction at RIP.
    Interpret,
    /// Too little of the slice is left.
    Budget,
    /// The code at RIP is not linked to [`brolga_cpu::core::translated::Translated::cell`] yet.
    Link,
    /// Something may be due before the instruction at RIP.
    LookAround,
}

impl Reason {
    /// All reasons, by number.
    pub(crate) const ALL: [Reason; 5] =
        [Reason::LookUp, Reason::Interpret, Reason::Budget, Reason::Link, Reason::LookAround];

    pub(crate) fn from_number(n: u64) -> Reason {
        Reason::ALL.get(n as usize).copied().unwrap_or(Reason::LookUp)
    }

    /// For people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Reason::LookUp => "the jump cache does not know the target",
            Reason::Interpret => "for the interpreter to execute an instruction",
            Reason::Budget => "the slice is over, or nearly",
            Reason::Link => "a jump is not linked yet",
            Reason::LookAround => "an event, or a change of code",
        }
    }
}

/// Where RIP lies in the core.
pub(super) const RIP_FIELD: usize = offset::REGS + 8 * brolga_cpu::vcpu::RIP as usize;

/// The state at an instruction's start, as far as the vCPU does not hold it yet.
#[derive(Clone)]
pub(super) struct Snapshot {
    /// Fields of the core, and their values.
    pub(super) regs: Vec<(i32, Value)>,
    /// Vector registers by their numbers.
    pub(super) vectors: Vec<(usize, Vector)>,
    pub(super) budget: Value,
    pub(super) flags: FlagsId,
    pub(super) pending: u64,
    /// Distance of the instruction from the region's entry.
    pub(super) ip: i64,
}

/// How execution leaves before the current instruction.
#[derive(Clone)]
pub(super) struct Leave {
    snapshot: Snapshot,
    /// The block that does, if something jumps to it.
    block: Option<Block>,
    filled: bool,
}

impl Translator<'_> {
    /// The state before the current instruction, whose values are read now: in a cold block they
    /// would become parameters.
    pub(super) fn before(&mut self) -> &mut Leave {
        #[cfg(debug_assertions)]
        assert!(!self.changed, "an instruction may not leave after it has changed something");
        let leave = self.leave.take();
        let leave = leave.unwrap_or_else(|| Leave {
            snapshot: self.snapshot(),
            block: None,
            filled: false,
        });
        self.leave.insert(leave)
    }

    /// The block that leaves before the current instruction; [`Translator::fill_leave_block`] puts
    /// code into it once something jumps to it.
    fn leave_block(&mut self) -> Block {
        if let Some(block) = self.before().block {
            return block;
        }
        let block = self.cold_block();
        self.before().block = Some(block);
        block
    }

    /// To be called when the current block has been ended, before the next one begins.
    fn fill_leave_block(&mut self) {
        let Some(leave) = self.leave.as_mut().filter(|leave| !leave.filled) else { return };
        let Some(block) = leave.block else { return };
        leave.filled = true;
        let snapshot = leave.snapshot.clone();
        self.f.switch_to_block(block);
        self.leave_now(&snapshot, Reason::Interpret);
    }

    /// Nothing jumps to the current instruction's leaving block any more.
    pub(super) fn finish_leave(&mut self) {
        if self.end.is_none() {
            self.leave = None;
        }
    }

    /// Leaves for the interpreter if `c`.
    pub(super) fn leave_if(&mut self, c: Value) {
        let leave = self.leave_block();
        let on = self.f.create_block();
        self.f.ins().brif(c, leave, &[], on, &[]);
        self.f.seal_block(on);
        self.fill_leave_block();
        self.f.switch_to_block(on);
    }

    /// Leaves before the current instruction, the first of a block, if too little is left of the slice.
    pub(super) fn leave_if_used_up(&mut self, short: Value, at_entry: bool) {
        let snapshot = self.snapshot();
        let (leave, on) = (self.cold_block(), self.f.create_block());
        self.f.ins().brif(short, leave, &[], on, &[]);
        self.f.seal_block(leave);
        self.f.seal_block(on);
        self.f.switch_to_block(leave);
        if at_entry {
            let way_out = self.load_field(offset::USED_UP);
            self.enter_region(way_out, snapshot.budget);
        } else {
            self.leave_now(&snapshot, Reason::Budget);
        }
        self.f.switch_to_block(on);
    }

    /// Stores a state and returns.
    fn leave_now(&mut self, snapshot: &Snapshot, reason: Reason) {
        self.prepare_to_leave(snapshot, reason);
        self.leave_regions();
    }

    /// Stores a state, and how execution is to go on if it leaves now. It may as well go on here:
    /// registers that have changed are not read from the core.
    fn prepare_to_leave(&mut self, snapshot: &Snapshot, reason: Reason) {
        let (mark, insn) = (self.mark(), self.f.srcloc());
        self.f.set_srcloc(SourceLoc::default());
        self.store_registers(snapshot);
        let flags = self.prepare_flags(snapshot.flags);
        self.store_exit(snapshot.ip, flags, snapshot, reason);
        self.forget_since(mark);
        self.f.set_srcloc(insn);
    }

    /// Stores what the slow path needs to leave before the current instruction.
    pub(super) fn prepare_to_interpret(&mut self) {
        let snapshot = self.before().snapshot.clone();
        self.prepare_to_leave(&snapshot, Reason::Interpret);
    }

    /// Stores registers and flags.
    pub(super) fn store_state(&mut self, snapshot: &Snapshot) {
        self.store_registers(snapshot);
        self.store_flags(snapshot.flags);
    }

    fn store_registers(&mut self, snapshot: &Snapshot) {
        for (field, v) in &snapshot.regs {
            self.f.ins().store(trusted(), *v, self.core, *field);
        }
        for (r, v) in &snapshot.vectors {
            self.store_vector_register(*r, *v);
        }
    }

    /// Stores where execution goes on, as a distance from RIP, and why the region is left: in few
    /// instructions, as nearly all of them are never executed. `flags` is what
    /// [`Translator::prepare_flags`] says. [`brolga_cpu::core::Core::take_exit`] does the rest.
    fn store_exit(
        &mut self,
        by: i64,
        (parts, c): (u64, Option<Value>),
        snapshot: &Snapshot,
        reason: Reason,
    ) {
        self.f.ins().store(trusted(), snapshot.budget, self.core, at(offset::BUDGET));
        let pending = (snapshot.pending << Translated::PENDING_SHIFT) as i64;
        let plain = by << Translated::IP_SHIFT | pending | reason as i64;
        let mut exit = self.f.ins().iconst(types::I64, plain | parts as i64);
        if let Some(c) = c {
            let plain = self.f.ins().iconst(types::I64, plain);
            exit = self.f.ins().select(c, exit, plain);
        }
        self.f.ins().store(trusted(), exit, self.core, at(offset::EXIT));
    }

    /// Ends translated code: all is stored.
    pub(super) fn leave_regions(&mut self) {
        let way_out = self.load_field(offset::LEAVE);
        self.f.ins().return_call_indirect(self.signatures.leave, way_out, &[]);
    }

    /// Stores RIP and the count.
    pub(super) fn store_position(&mut self, ip: Node, snapshot: &Snapshot) {
        self.store_ip(ip);
        let budget = self.budget_after(snapshot);
        self.f.ins().store(trusted(), budget, self.core, at(offset::BUDGET));
    }

    /// Stores RIP: the last thing that is done with IPs before the region is left.
    fn store_ip(&mut self, ip: Node) {
        if self.kind(ip) != Kind::Ip(0) {
            let ip = self.wide(ip);
            self.f.ins().store(trusted(), ip, self.core, at(RIP_FIELD));
        }
    }

    fn budget_after(&mut self, snapshot: &Snapshot) -> Value {
        match snapshot.pending {
            0 => snapshot.budget,
            n => self.f.ins().iadd_imm_s(snapshot.budget, -(n as i64)),
        }
    }

    /// Continues at `ip`, outside the region.
    pub(super) fn go_outside(&mut self, ip: Node) {
        let entry = i64::from(self.request.plan.entry());
        if let Kind::Ip(by) = self.kind(ip)
            && let Ok(by) = i32::try_from(by)
            && (0..brolga_mmu::PAGE_SIZE as i64).contains(&(entry + i64::from(by)))
        {
            return self.go_by_link(ip, by);
        }
        self.go_by_look_up(ip);
    }

    /// Continues in the same page, through a link cell: the mapping and the mode are the same.
    fn go_by_link(&mut self, ip: Node, by: i32) {
        let known = self.links.iter().position(|link| *link == by);
        let index = known.unwrap_or_else(|| {
            self.links.push(by);
            self.links.len() - 1
        });
        let cell = self.request.first_cell + index as u32;
        let cells = self.load_field(offset::CELLS);
        let code = self.f.ins().load(types::I64, trusted(), cells, 8 * cell as i32);
        let number = self.f.ins().iconst(types::I64, i64::from(cell));
        self.f.ins().store(trusted(), number, self.core, at(offset::CELL));
        let snapshot = self.snapshot();
        self.tail_call(code, ip, &snapshot);
    }

    /// Continues wherever the jump cache says.
    fn go_by_look_up(&mut self, ip: Node) {
        let target = self.wide(ip);
        let linear = self.code_address(target);
        let hash = self.load_field(offset::KEY_HASH);
        let index = self.f.ins().bxor(linear, hash);
        let entry_bits = i64::from(size_of::<JumpEntry>().trailing_zeros());
        let index = self.f.ins().ishl_imm_u(index, entry_bits - i64::from(JUMP_SHIFT));
        let mask = ((1i64 << JUMP_BITS) - 1) << entry_bits;
        let index = self.f.ins().band_imm_u(index, mask);
        let cache = self.load_field(offset::JUMP_CACHE);
        let entry = self.f.ins().iadd(cache, index);
        let snapshot = self.snapshot();
        let field =
            |t: &mut Self, offset: usize| t.f.ins().load(types::I64, trusted(), entry, at(offset));
        let there = field(self, std::mem::offset_of!(JumpEntry, linear));
        let its = field(self, std::mem::offset_of!(JumpEntry, key));
        let code = field(self, std::mem::offset_of!(JumpEntry, code));
        let key = self.load_field(offset::KEY);
        let address = self.f.ins().bxor(there, linear);
        let key = self.f.ins().bxor(its, key);
        let differ = self.f.ins().bor(address, key);
        let code = self.code_or_look_up(differ, code, target);
        self.tail_call(code, ip, &snapshot);
    }

    /// `code`, unless the entry's fields and those that are looked for `differ`: then what looks more
    /// closely. An instruction whose target is not canonical raises #GP itself: there is no entry for
    /// that, so it leaves only where there is none.
    fn code_or_look_up(&mut self, differ: Value, code: Value, target: Value) -> Value {
        if !self.code64 || self.leave.is_none() {
            let other = self.load_field(offset::LOOK_UP);
            let same = self.f.ins().icmp_imm_u(IntCC::Equal, differ, 0);
            return self.f.ins().select(same, code, other);
        }
        let (miss, go) = (self.cold_block(), self.f.create_block());
        let found = self.f.append_block_param(go, types::I64);
        self.f.ins().brif(differ, miss, &[], go, &[code.into()]);
        self.f.seal_block(miss);
        self.f.switch_to_block(miss);
        let bad = self.not_canonical(target);
        self.leave_if(bad);
        let other = self.load_field(offset::LOOK_UP);
        self.f.ins().jump(go, &[other.into()]);
        self.f.seal_block(go);
        self.f.switch_to_block(go);
        found
    }

    /// The linear address of an IP.
    pub(super) fn code_address(&mut self, ip: Value) -> Value {
        if self.code64 || self.cs_flat {
            return ip;
        }
        let base = offset::segment_base(brolga_cpu::vcpu::SegReg::Cs as usize);
        let base = self.f.ins().load(types::I64, trusted(), self.core, at(base));
        let sum = self.f.ins().iadd(ip, base);
        let low = self.f.ins().ireduce(types::I32, sum);
        self.f.ins().uextend(types::I64, low)
    }

    /// Whether an address is not canonical for 48 bits.
    pub(super) fn not_canonical(&mut self, v: Value) -> Value {
        let unused = i64::from(64 - self.request.mode.linear_bits());
        let up = self.f.ins().ishl_imm_u(v, unused);
        let back = self.f.ins().sshr_imm_u(up, unused);
        self.f.ins().icmp(IntCC::NotEqual, back, v)
    }

    /// Stores the state, but for what is passed on, and runs another region.
    fn tail_call(&mut self, code: Value, ip: Node, snapshot: &Snapshot) {
        let is_passed = |field: i32| PASSED.iter().any(|r| field == at(offset::REGS + 8 * r));
        let mut stored = snapshot.clone();
        stored.regs.retain(|(field, _)| !is_passed(*field));
        self.store_state(&stored);
        self.store_ip(ip);
        let budget = self.budget_after(snapshot);
        self.enter_region(code, budget);
    }

    /// Goes to the start of a region, or to what is there instead.
    fn enter_region(&mut self, code: Value, budget: Value) {
        let mut arguments = vec![self.core, self.tlb, budget];
        arguments.extend(PASSED.map(|r| self.f.use_var(self.gprs[r])));
        self.f.ins().return_call_indirect(self.signatures.region, code, &arguments);
    }
}
