//! x87 instructions: their operands and their effects outside the x87; the rest is the host's
//! ([`crate::x87`]).

use brolga_cpu::backend::{Backend, Bin};
use brolga_cpu::core::translated::offset;
use brolga_cpu::flags::FlagOp;
use brolga_cpu::insn::Insn;
use brolga_cpu::vcpu::rflags::{CF, PF, ZF};
use brolga_cpu::vcpu::{SegReg, gpr};
use brolga_cpu::x87::{CONTROL_ONES, CONTROL_WRITABLE};
use brolga_mmu::Width;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

use super::node::{Kind, Node};
use super::{Translator, at, trusted};
use crate::x87::{Form, Opcode, move_index};

/// The exception masks in the control word.
const MASKS: i64 = 0x3f;

/// What is known at a point of a block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The guest's state is in the host's x87, or in the vCPU.
    loaded: bool,
    at_home: bool,
    /// It is as MMX instructions leave it: TOP is 0, all registers are valid.
    pub(super) in_mmx: bool,
    /// The last instruction's code segment, and the register of its operand's segment, are recorded.
    code_segment: bool,
    data_segment: Option<usize>,
}

impl Translator<'_> {
    pub(super) fn x87_instruction(&mut self, insn: &Insn, form: Form) {
        match form {
            Form::Nothing => {}
            Form::Registers(opcode) => {
                self.record_x87(insn, None);
                self.load_x87();
                self.call_x87(opcode.index());
            }
            Form::ClearExceptions => {
                self.changes();
                self.load_x87();
                self.call_x87(Opcode::CLEAR_EXCEPTIONS.index());
            }
            Form::CompareFlags(opcode) => {
                self.record_x87(insn, None);
                self.compare_x87(opcode);
            }
            Form::MoveIf(cc, i) => {
                let c = self.cond(cc);
                let c = self.condition(c);
                let c = self.f.ins().uextend(types::I64, c);
                self.record_x87(insn, None);
                self.load_x87();
                self.call_x87_with(move_index(i), c);
            }
            Form::Load(opcode, size) => self.x87_on_memory(insn, opcode, size, false),
            Form::Store(opcode, size) => self.x87_on_memory(insn, opcode, size, true),
            Form::StatusToAx => {
                let result = self.f.ins().iadd_imm_s(self.core, offset::RESULT as i64);
                self.load_x87();
                self.call_x87_with(Opcode::STORE_STATUS.index(), result);
                let field = at(offset::RESULT);
                let status = self.f.ins().load(types::I16, trusted(), self.core, field);
                let status = self.given_narrow(Width::W16, status);
                self.set_reg(Width::W16, gpr::RAX, status);
            }
            Form::StoreStatus => {
                let ea = self.ea(insn);
                let host = self.access(2, insn.seg, ea, true);
                self.load_x87();
                self.call_x87_with(Opcode::STORE_STATUS.index(), host);
            }
            Form::StoreControl => {
                let ea = self.ea(insn);
                let host = self.access(2, insn.seg, ea, true);
                let field = at(offset::X87_CONTROL);
                let control = self.f.ins().load(types::I16, trusted(), self.core, field);
                self.store_host(control, host);
            }
            Form::LoadControl => self.load_x87_control(insn),
        }
    }

    fn x87_on_memory(&mut self, insn: &Insn, opcode: Opcode, size: u64, write: bool) {
        let ea = self.ea(insn);
        let host = self.access(size, insn.seg, ea, write);
        self.record_x87(insn, Some(ea));
        self.load_x87();
        self.call_x87_with(opcode.index(), host);
    }

    /// FLDCW; one that unmasks exceptions leaves.
    fn load_x87_control(&mut self, insn: &Insn) {
        let ea = self.ea(insn);
        let host = self.access(2, insn.seg, ea, false);
        let control = self.load_host(types::I16, host);
        let masks = self.f.ins().band_imm_u(control, MASKS);
        let unmasks = self.f.ins().icmp_imm_u(IntCC::NotEqual, masks, MASKS);
        self.leave_if(unmasks);
        self.changes();
        let control = self.f.ins().band_imm_u(control, i64::from(CONTROL_WRITABLE));
        let control = self.f.ins().bor_imm_u(control, i64::from(CONTROL_ONES));
        // Before the store: it takes what the vCPU has.
        self.load_x87();
        self.f.ins().store(trusted(), control, self.core, at(offset::X87_CONTROL));
        let field = self.f.ins().iadd_imm_s(self.core, offset::X87_CONTROL as i64);
        self.call_x87_with(Opcode::LOAD_CONTROL.index(), field);
    }

    fn compare_x87(&mut self, opcode: Opcode) {
        self.load_x87();
        let function = self.x87_function(opcode.flags_index());
        self.f.ins().call_indirect(self.signatures.slow_path, function, &[self.core]);
        let field = at(offset::RESULT_FLAGS + 1);
        let flags = self.f.ins().uload8(types::I64, trusted(), self.core, field);
        let flags = self.given(Width::W8, flags);
        let mask = self.constant(ZF | PF | CF);
        let flags = self.bin(Bin::And, Width::W64, flags, mask);
        let zero = self.constant(0);
        self.flags(FlagOp::Bits, Width::W64, flags, zero, zero);
    }

    /// Sees to it that the guest's state is in the host's x87.
    fn load_x87(&mut self) {
        (self.x87.at_home, self.x87.in_mmx) = (false, false);
        if !std::mem::replace(&mut self.x87.loaded, true) {
            self.move_x87(true, offset::LOAD_X87);
        }
    }

    /// Sees to it that the guest's x87 state is in the vCPU.
    pub(super) fn x87_at_home(&mut self) {
        self.x87.loaded = false;
        if !std::mem::replace(&mut self.x87.at_home, true) {
            self.move_x87(false, offset::TAKE_X87);
        }
    }

    /// Has the function at `field` of the core move the state, unless it is where it should be:
    /// in the host's x87 if `loaded`.
    fn move_x87(&mut self, loaded: bool, field: usize) {
        let now = at(offset::X87_LOADED);
        let now = self.f.ins().load(types::I64, trusted(), self.core, now);
        let wrong = if loaded { IntCC::Equal } else { IntCC::NotEqual };
        let wrong = self.f.ins().icmp_imm_u(wrong, now, 0);
        let (cold, on) = (self.cold_block(), self.f.create_block());
        self.f.ins().brif(wrong, cold, &[], on, &[]);
        self.f.seal_block(cold);
        self.f.switch_to_block(cold);
        let function = self.f.ins().load(types::I64, trusted(), self.core, at(field));
        self.f.ins().call_indirect(self.signatures.slow_path, function, &[self.core]);
        self.f.ins().jump(on, &[]);
        self.f.seal_block(on);
        self.f.switch_to_block(on);
    }

    fn call_x87(&mut self, index: usize) {
        let function = self.x87_function(index);
        self.f.ins().call_indirect(self.signatures.x87, function, &[]);
    }

    fn call_x87_with(&mut self, index: usize, operand: Value) {
        let function = self.x87_function(index);
        let arguments = [self.core, self.tlb, operand];
        self.f.ins().call_indirect(self.signatures.integers, function, &arguments);
    }

    fn x87_function(&mut self, index: usize) -> Value {
        let table = at(offset::X87_FUNCTIONS);
        let table = self.f.ins().load(types::I64, trusted(), self.core, table);
        self.f.ins().load(types::I64, trusted(), table, at(size_of::<u64>() * index))
    }

    /// Notes where the instruction and its operand are. It does not leave any more.
    fn record_x87(&mut self, insn: &Insn, ea: Option<Node>) {
        self.changes();
        let ip = self.node(Width::W64, Kind::Ip(self.insn_at));
        let ip = self.wide(ip);
        self.f.ins().store(trusted(), ip, self.core, at(offset::X87_LAST_IP));
        if !std::mem::replace(&mut self.x87.code_segment, true) {
            self.record_selector(SegReg::Cs as usize, offset::X87_LAST_CS);
        }
        let Some(ea) = ea else { return };
        let ea = self.wide(ea);
        self.f.ins().store(trusted(), ea, self.core, at(offset::X87_LAST_DP));
        let segment = insn.seg.index();
        if self.x87.data_segment.replace(segment) != Some(segment) {
            self.record_selector(segment, offset::X87_LAST_DS);
        }
    }

    fn record_selector(&mut self, segment: usize, field: usize) {
        let selector = at(offset::segment_selector(segment));
        let selector = self.f.ins().load(types::I16, trusted(), self.core, selector);
        self.f.ins().store(trusted(), selector, self.core, at(field));
    }
}
