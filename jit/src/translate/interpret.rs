//! Instructions that the interpreter executes while their region waits: the state goes to the core,
//! and what matters afterwards is loaded again.

use brolga_cpu::core::translated::offset;
use brolga_mmu::Width;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, InstBuilder, Value, types};

use super::flags::State;
use super::leave::RIP_FIELD;
use super::node::Kind;
use super::{End, PASSED, Translator, at, trusted};
use crate::plan::Live;

/// What the interpreter answers where the region is to go on; otherwise it is the address of the
/// code to go on at, or 0 to leave.
pub(crate) const GO_ON: u64 = 1;

impl Translator<'_> {
    /// Has the interpreter execute the current instruction, the last of
    /// [`Translator::interpreted`]. `next`: the next one's distance from the region's entry;
    /// `reload`: what matters afterwards; `None` if the region ends.
    pub(super) fn interpret(&mut self, next: i64, reload: Option<&Live>) {
        let number = self.request.numbers[self.interpreted.len() - 1];
        let snapshot = self.snapshot();
        self.store_state(&snapshot);
        let ip = self.node(Width::W64, Kind::Ip(self.insn_at));
        self.store_position(ip, &snapshot);
        let number = self.f.ins().iconst(types::I64, i64::from(number));
        let function = self.load_field(offset::INTERPRET);
        let arguments = [self.core, number];
        let call = self.f.ins().call_indirect(self.signatures.interpret, function, &arguments);
        let answer = self.f.inst_results(call)[0];
        self.leave = None;
        let resume = self.resume_block();
        let Some(reload) = reload else {
            self.f.ins().jump(resume, &[answer.into()]);
            self.end = Some(End::Elsewhere);
            return;
        };
        let go_on = self.f.ins().icmp_imm_u(IntCC::Equal, answer, GO_ON as i64);
        let on = self.f.create_block();
        self.f.ins().brif(go_on, on, &[], resume, &[answer.into()]);
        self.f.seal_block(on);
        self.f.switch_to_block(on);
        self.after_interpreted(next, reload);
    }

    /// The vCPU holds the whole state, and the RIP of the next instruction.
    fn after_interpreted(&mut self, next: i64, reload: &Live) {
        let entry = self.ip_plus(-next);
        self.f.ins().store(trusted(), entry, self.core, at(RIP_FIELD));
        self.vectors = [None; super::vector::VECTORS];
        self.groups.set_here(Vec::new());
        self.x87 = super::x87::Known::default();
        self.load_registers(reload.regs, reload.vectors);
        (self.dirty, self.vector_dirty) = (0, 0);
        self.flags = self.flag_state(State::InVcpu);
        let left = self.load_field(offset::BUDGET);
        self.f.def_var(self.budget, left);
        self.pending = 0;
    }

    pub(super) fn load_field(&mut self, field: usize) -> Value {
        self.f.ins().load(types::I64, trusted(), self.core, at(field))
    }

    fn resume_block(&mut self) -> Block {
        if let Some(block) = self.resume {
            return block;
        }
        let block = self.cold_block();
        self.f.append_block_param(block, types::I64);
        self.resume = Some(block);
        block
    }

    /// The code behind all that jumps to [`Translator::resume_block`].
    pub(super) fn fill_resume_block(&mut self) {
        let Some(block) = self.resume else { return };
        self.f.switch_to_block(block);
        let code = self.f.block_params(block)[0];
        let (go, leave) = (self.f.create_block(), self.cold_block());
        self.f.ins().brif(code, go, &[], leave, &[]);
        self.f.switch_to_block(leave);
        self.leave_regions();
        self.f.switch_to_block(go);
        let [tlb, left] = [offset::TLB, offset::BUDGET].map(|field| self.load_field(field));
        let mut arguments = vec![self.core, tlb, left];
        arguments.extend(PASSED.map(|r| self.load_field(offset::REGS + 8 * r)));
        self.f.ins().return_call_indirect(self.signatures.region, code, &arguments);
    }
}
