//! From a [`Plan`] to Cranelift's IR: the semantics of `brolga-cpu`, instantiated with a function
//! builder.
//!
//! A region is a function of Cranelift's tail-call convention, whose arguments are the core, the
//! TLB's table, the instructions left in the slice, and the guest registers that most regions use
//! ([`PASSED`]). While it runs, the RIP slot holds the IP at which it was entered. It knows no
//! address, guest's or host's: guest addresses come from that IP, host addresses through the core.
//! It ends in a tail call of another region, or, with the state stored, of [`crate::enter`]'s way
//! out.

mod backend;
mod crossing;
mod divide;
mod flags;
mod group;
mod interpret;
mod lazy;
mod leave;
mod meeting;
mod memory;
mod node;
pub(crate) mod vector;
mod x87;

use brolga_cpu::block::Mode;
use brolga_cpu::core::translated::offset;
use brolga_cpu::cpuid::CpuModel;
use brolga_cpu::decode::{Decoded, decode};
use brolga_cpu::insn::Insn;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block, Function, InstBuilder, MemFlagsData, SigRef, Signature, SourceLoc, Type,
    Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use iced_x86::Code;

use crate::plan::{Next, Plan, PlanBlock};
use crate::sites::{self, Restless, Used};
use crate::survey::RegSet;
use flags::{FlagsId, State};
use group::Groups;
pub(crate) use interpret::GO_ON;
pub(crate) use leave::Reason;
use leave::{Leave, Snapshot};
use node::{Node, Nodes};
use vector::{Home, VECTORS, Vector};

/// Where the links of a region lead: offsets from its entry, in the same page. The code refers to
/// them by their number plus [`Request::first_cell`].
pub(crate) type Links = Vec<i32>;

/// An instruction that the interpreter executes for a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForInterpreter {
    /// Its offset in the page.
    pub(crate) at: u16,
    /// Instructions that the slice must allow afterwards, for the region to go on.
    pub(crate) needs: u64,
}

/// What to translate.
pub(crate) struct Request<'a> {
    pub(crate) plan: &'a Plan,
    /// The bytes of the physical page.
    pub(crate) page: &'a [u8],
    pub(crate) mode: Mode,
    pub(crate) model: &'a CpuModel,
    /// The number of the first link cell that the region may use.
    pub(crate) first_cell: u32,
    /// Sites that the region may use, and instructions (by their offsets in the page) not to have any.
    pub(crate) sites: &'a [u32],
    /// Accesses outside loops are to have some too.
    pub(crate) sites_for_all: bool,
    pub(crate) restless: &'a Restless,
    /// The numbers under which the interpreter executes instructions of the region, one for each.
    pub(crate) numbers: &'a [u32],
    /// The IR is to be returned as text.
    pub(crate) wants_text: bool,
}

/// The signature of regions.
pub(crate) fn region_signature() -> Signature {
    let mut signature = Signature::new(CallConv::Tail);
    signature.params.extend([AbiParam::new(types::I64); 3 + PASSED.len()]);
    signature
}

/// The general registers that regions pass to each other as arguments, from the fourth on, and so
/// need not store: RSP, RAX and RDI. With them, all arguments are in host registers.
pub(crate) const PASSED: [usize; 3] = [4, 0, 7];

/// [`PASSED`] as a set.
pub(crate) const PASSED_SET: RegSet = 1 << PASSED[0] | 1 << PASSED[1] | 1 << PASSED[2];

struct Signatures {
    region: SigRef,
    leave: SigRef,
    slow_path: SigRef,
    status: SigRef,
    /// Of the functions of [`crate::operations`]: on two or three vectors, on integers, and from a vector to an
    /// integer.
    vectors: SigRef,
    three_vectors: SigRef,
    integers: SigRef,
    to_integer: SigRef,
    /// Of the functions of [`crate::x87`] that work on registers; those with an operand are called as
    /// those on integers.
    x87: SigRef,
    interpret: SigRef,
}

/// How a block of guest code ends, as its last instruction says.
#[derive(Clone, Copy)]
enum End {
    Jump(Node),
    Branch {
        c: Node,
        target: Node,
        next: Node,
    },
    /// The interpreter knows.
    Elsewhere,
}

/// Where a branch leads.
#[derive(Clone, Copy)]
struct Edge {
    block: Block,
    /// It is a block in between, which is still to be filled.
    between: bool,
}

/// The state in which a block's only predecessor leaves it.
#[derive(Clone)]
struct Inherited {
    flags: FlagsId,
    pending: u64,
    vectors: [Option<Vector>; VECTORS],
    x87: x87::Known,
    groups: Vec<usize>,
}

/// The backend that builds IR.
pub(crate) struct Translator<'a> {
    f: FunctionBuilder<'a>,
    signatures: Signatures,
    request: &'a Request<'a>,
    core: Value,
    tlb: Value,
    code64: bool,
    code16: bool,
    cs_flat: bool,
    nodes: Nodes,
    flag_states: Vec<State>,
    gprs: [Variable; 16],
    xmms: [Home; VECTORS],
    /// Instructions left in the slice, less `pending`.
    budget: Variable,
    /// Whether the flags follow the recipe where paths meet that differ in this.
    by_recipe: Variable,
    /// The IR block of each block of the plan, and the state in which single predecessors leave it.
    blocks: Vec<Block>,
    inherited: Vec<Option<Inherited>>,

    // The current position.
    /// The current block; `None` before the first.
    index: Option<usize>,
    /// Distance of the current block from the region's entry.
    block_at: i64,
    /// Distance of the current instruction.
    insn_at: i64,
    /// Instructions retired that `budget` does not know of yet, without the current one.
    pending: u64,
    flags: FlagsId,
    dirty: u32,
    vector_dirty: u32,
    /// Vector registers that the current block has read or written.
    vectors: [Option<Vector>; VECTORS],
    x87: x87::Known,
    end: Option<End>,
    /// The state at the start of the current instruction, and the block that leaves with it.
    leave: Option<Leave>,
    links: Links,
    /// The sites used so far, and whether the current instruction is to have any.
    sites: Vec<Used>,
    wants_sites: bool,
    groups: Groups,
    /// Whether the current instruction's accesses are likely to stay in a page, and whether they
    /// have been found not to.
    stays: bool,
    restless: bool,
    /// What has been computed by operations that may set sticky flags of MXCSR.
    float_results: Vec<Value>,
    interpreted: Vec<ForInterpreter>,
    /// Where a region goes on as the interpreter says.
    resume: Option<Block>,
    #[cfg(debug_assertions)]
    changed: bool,
}

/// Accesses to the core's own fields.
fn trusted() -> MemFlagsData {
    MemFlagsData::trusted()
}

/// A field's offset as Cranelift wants it.
fn at(offset: usize) -> i32 {
    i32::try_from(offset).unwrap_or(i32::MAX)
}

/// CALL writes to memory before it transfers.
fn is_call(insn: &Insn) -> bool {
    Code::try_from(usize::from(insn.code))
        .is_ok_and(|code| code.flow_control() == iced_x86::FlowControl::IndirectCall)
}

/// What a region comes with, beside its code.
pub(crate) struct Products {
    pub(crate) links: Links,
    pub(crate) interpreted: Vec<ForInterpreter>,
    pub(crate) sites: Vec<Used>,
}

/// Builds the function for a region.
pub(crate) fn translate(
    request: &Request<'_>,
    func: &mut Function,
    context: &mut FunctionBuilderContext,
    frontend: TargetFrontendConfig,
) -> Products {
    func.signature = region_signature();
    let mut t = Translator::new(request, FunctionBuilder::new(func, context));
    t.entry();
    for index in 0..request.plan.blocks.len() {
        t.block(index);
    }
    t.fill_resume_block();
    t.f.seal_all_blocks();
    t.keep_float_results();
    t.complete_groups();
    let Translator { f, links, interpreted, sites, .. } = t;
    f.finalize(frontend);
    Products { links, interpreted, sites }
}

impl<'a> Translator<'a> {
    fn new(request: &'a Request<'a>, mut f: FunctionBuilder<'a>) -> Self {
        let region = f.import_signature(region_signature());
        let mut preserving = |params: &[Type]| {
            let mut signature = Signature::new(CallConv::PreserveAll);
            signature.params.extend(params.iter().map(|ty| AbiParam::new(*ty)));
            f.import_signature(signature)
        };
        let slow_path = preserving(&[types::I64]);
        let status = preserving(&[types::I64; 5]);
        let vectors = preserving(&[types::I64, types::I8X16, types::I8X16]);
        let three_vectors = preserving(&[types::I64, types::I8X16, types::I8X16, types::I8X16]);
        let integers = preserving(&[types::I64; 3]);
        let to_integer =
            preserving(&[types::I64, types::I64, types::I64, types::I8X16, types::I8X16]);
        let x87 = preserving(&[]);
        let leave = f.import_signature(Signature::new(CallConv::Tail));
        let mut interpret = Signature::new(CallConv::SystemV);
        interpret.params.extend([AbiParam::new(types::I64); 2]);
        interpret.returns.push(AbiParam::new(types::I64));
        let interpret = f.import_signature(interpret);

        let entry = f.create_block();
        f.append_block_params_for_function_params(entry);
        f.switch_to_block(entry);
        f.seal_block(entry);
        let [core, tlb, left, ref passed @ ..] = f.block_params(entry).to_vec()[..] else {
            unreachable!("a region has these parameters")
        };
        let gprs = std::array::from_fn(|_| f.declare_var(types::I64));
        let xmms = vector::homes(&mut f, request.plan);
        let budget = f.declare_var(types::I64);
        let by_recipe = f.declare_var(types::I8);
        f.def_var(budget, left);
        for (r, v) in PASSED.into_iter().zip(passed) {
            f.def_var(gprs[r], *v);
        }
        let blocks: Vec<Block> = request.plan.blocks.iter().map(|_| f.create_block()).collect();
        let mode = request.mode;
        Self {
            f,
            signatures: Signatures {
                region,
                leave,
                slow_path,
                status,
                vectors,
                three_vectors,
                integers,
                to_integer,
                x87,
                interpret,
            },
            core,
            tlb,
            code64: mode.has(Mode::CODE64),
            code16: mode.bitness() == 16,
            cs_flat: mode.has(Mode::CS_FLAT),
            nodes: Nodes::default(),
            flag_states: vec![State::InVcpu],
            gprs,
            xmms,
            budget,
            by_recipe,
            inherited: vec![None; blocks.len()],
            blocks,
            index: None,
            block_at: 0,
            insn_at: 0,
            pending: 0,
            flags: FlagsId::IN_VCPU,
            dirty: PASSED_SET,
            vector_dirty: 0,
            vectors: [None; VECTORS],
            x87: x87::Known::default(),
            end: None,
            leave: None,
            links: Links::new(),
            sites: Vec::new(),
            wants_sites: false,
            groups: Groups::default(),
            stays: false,
            restless: false,
            float_results: Vec::new(),
            interpreted: Vec::new(),
            resume: None,
            request,
            #[cfg(debug_assertions)]
            changed: false,
        }
    }

    /// Loads what the region needs, and goes to its first block.
    fn entry(&mut self) {
        let plan = self.request.plan;
        self.load_registers(plan.live_in & !PASSED_SET, plan.vector_live_in);
        if !self.cs_flat && !self.code64 {
            self.check_extent();
        }
        self.go_to(0);
    }

    /// Loads registers from the vCPU.
    fn load_registers(&mut self, regs: RegSet, vectors: RegSet) {
        for r in 0..16 {
            if regs >> r & 1 != 0 {
                let field = at(offset::REGS + 8 * r);
                let v = self.f.ins().load(types::I64, trusted(), self.core, field);
                self.f.def_var(self.gprs[r], v);
            }
        }
        for r in (0..VECTORS).filter(|r| vectors >> r & 1 != 0) {
            self.load_vector_register(r);
        }
    }

    /// Leaves if part of the region lies beyond CS's limit, or IP would wrap inside it.
    fn check_extent(&mut self) {
        let plan = self.request.plan;
        let entry = i64::from(plan.entry());
        let first = plan.extents().map(|(start, _)| i64::from(start)).min().unwrap_or(entry);
        let last = plan.extents().map(|(_, end)| i64::from(end)).max().unwrap_or(entry);
        let limit = self.segment_limit(brolga_cpu::vcpu::SegReg::Cs as usize);
        let ip = self.load_field(leave::RIP_FIELD);
        let end = self.f.ins().iadd_imm_u(ip, last - entry - 1);
        let beyond = self.f.ins().icmp(IntCC::UnsignedGreaterThan, end, limit);
        let top = if self.code16 { 0xffff } else { 0xffff_ffff };
        let wraps = self.f.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, end, top);
        let below = self.f.ins().icmp_imm_u(IntCC::UnsignedLessThan, ip, entry - first);
        let bad = self.f.ins().bor(beyond, wraps);
        let bad = self.f.ins().bor(bad, below);
        self.leave_if(bad);
        self.leave = None;
    }

    /// Translates one block of the plan.
    fn block(&mut self, index: usize) {
        let plan = self.request.plan;
        let block = &plan.blocks[index];
        let ir = self.blocks[index];
        // A loop's head waits for the edges from its end.
        if block.predecessors == 1 || !block.polls {
            self.f.seal_block(ir);
        }
        self.f.switch_to_block(ir);
        self.enter(index, block);
        self.index = Some(index);
        if block.polls {
            self.poll(block.longest, index == 0 && block.predecessors == 1);
        }
        let mark = self.mark();
        let request = self.request;
        let code = &request.page[usize::from(block.start)..usize::from(block.end)];
        let Decoded::Block(decoded) =
            decode::<Translator<'a>>(code, request.mode, request.model, block.insns.len())
        else {
            unreachable!("the survey has decoded it");
        };
        let mut reloads = block.reloads.iter();
        for (n, (op, effects)) in decoded.ops.iter().zip(&block.insns).enumerate() {
            self.insn_at = self.block_at + i64::from(op.insn.at);
            self.f.set_srcloc(SourceLoc::new(u32::from(block.start + op.insn.at)));
            self.stays = sites::stays(&op.insn);
            self.restless = request.restless.contains(&(block.start + op.insn.at));
            self.wants_sites =
                (block.in_loop || request.sites_for_all && self.stays) && !self.restless;
            let in_page = usize::from(brolga_mmu::PAGE_SIZE as u16 - block.start);
            if usize::from(op.insn.next) > in_page {
                self.check_tail(&code[in_page..]);
            }
            if effects.interpreted {
                let needs = block.longest - 1 - n as u64;
                self.interpreted.push(ForInterpreter { at: block.start + op.insn.at, needs });
                let next = self.block_at + i64::from(op.insn.next);
                self.interpret(next, reloads.next().filter(|_| effects.transfer.is_none()));
            } else {
                let Ok(()) = (op.handler)(self, &op.insn);
                self.finish_insn();
            }
        }
        self.insn_at = self.block_at + i64::from(block.end - block.start);
        self.close(block);
        self.forget_since(mark);
    }

    /// Takes over the state in which the predecessors left.
    fn enter(&mut self, index: usize, block: &PlanBlock) {
        self.block_at = i64::from(block.start) - i64::from(self.request.plan.entry());
        self.insn_at = self.block_at;
        self.dirty = block.dirty;
        self.vector_dirty = block.vector_dirty;
        self.end = None;
        self.leave = None;
        let Inherited { flags, pending, vectors, x87, groups } = match self.inherited[index].take()
        {
            Some(state) => state,
            None => Inherited {
                flags: self.meet(block),
                pending: 0,
                vectors: [None; VECTORS],
                x87: x87::Known::default(),
                groups: Vec::new(),
            },
        };
        self.groups.set_here(groups);
        (self.flags, self.pending, self.vectors, self.x87) = (flags, pending, vectors, x87);
    }

    /// Leaves if the slice may end before the next poll.
    fn poll(&mut self, longest: u64, at_entry: bool) {
        let left = self.f.use_var(self.budget);
        let needed = (longest + self.pending) as i64;
        let short = self.f.ins().icmp_imm_s(IntCC::SignedLessThan, left, needed);
        self.leave_if_used_up(short, at_entry);
        self.leave = None;
    }

    /// Counts an instruction that does not end its block.
    fn finish_insn(&mut self) {
        self.pending += 1;
        self.finish_leave();
        #[cfg(debug_assertions)]
        {
            self.changed = false;
        }
    }

    /// The current instruction changes something: it must not leave any more.
    fn changes(&mut self) {
        #[cfg(debug_assertions)]
        {
            self.changed = true;
        }
    }

    /// Ends a block: the last instruction's transfer, or the next instruction.
    fn close(&mut self, block: &PlanBlock) {
        match self.end.take() {
            Some(End::Elsewhere) => {}
            None => {
                let next = self.node(brolga_mmu::Width::W64, node::Kind::Ip(self.insn_at));
                self.continue_at(block.falls, next);
            }
            Some(End::Jump(target)) => self.continue_at(block.taken, target),
            Some(End::Branch { c, target, next }) => {
                let c = self.condition(c);
                self.leave = None;
                let [taken, falls] = [block.taken, block.falls].map(|next| self.edge(next));
                self.f.ins().brif(c, taken.block, &[], falls.block, &[]);
                self.fill(falls, block.falls, next);
                self.fill(taken, block.taken, target);
            }
        }
        self.leave = None;
    }

    /// Where a branch to `next` leads: to its block, if nothing else does, or to one in between.
    fn edge(&mut self, next: Next) -> Edge {
        match self.heir(next) {
            Some(block) => Edge { block, between: false },
            None => Edge { block: self.f.create_block(), between: true },
        }
    }

    /// Continues at `next`, whose address is `ip`, from the block in between, if there is one.
    fn fill(&mut self, edge: Edge, next: Next, ip: Node) {
        if !edge.between {
            return;
        }
        self.f.seal_block(edge.block);
        self.f.switch_to_block(edge.block);
        let mark = self.mark();
        self.continue_at(next, ip);
        self.forget_since(mark);
    }

    fn continue_at(&mut self, next: Next, ip: Node) {
        self.f.set_srcloc(SourceLoc::default());
        match next {
            Next::Block(index) => self.go_to(index),
            Next::Outside => self.go_outside(ip),
        }
    }

    /// The block behind an edge that is the only one to it: it takes over the state as it is now.
    fn heir(&mut self, next: Next) -> Option<Block> {
        let Next::Block(index) = next else { return None };
        if self.request.plan.blocks[index].predecessors != 1 {
            return None;
        }
        let (flags, pending) = (self.flags, self.pending);
        let (vectors, x87) = (self.vectors, self.x87);
        let groups = self.groups.here();
        self.inherited[index] = Some(Inherited { flags, pending, vectors, x87, groups });
        Some(self.blocks[index])
    }

    /// Jumps to a block of the region, with the state in the form in which it expects it.
    fn go_to(&mut self, index: usize) {
        let block = &self.request.plan.blocks[index];
        if self.heir(Next::Block(index)).is_none() {
            if self.pending != 0 {
                let left = self.f.use_var(self.budget);
                let left = self.f.ins().iadd_imm_s(left, -(self.pending as i64));
                self.f.def_var(self.budget, left);
            }
            if block.flags_dirty && block.flags_live {
                self.go_to_meeting(&block.meeting);
            }
            self.settle_vectors();
        }
        self.f.ins().jump(self.blocks[index], &[]);
    }

    /// A block for what is rarely executed.
    fn cold_block(&mut self) -> Block {
        let block = self.f.create_block();
        self.f.set_cold_block(block);
        block
    }

    /// What the vCPU has to be brought up to, at the current instruction.
    fn snapshot(&mut self) -> Snapshot {
        let (mut regs, mut vectors) = (Vec::new(), Vec::new());
        for r in 0..16 {
            if self.dirty >> r & 1 != 0 {
                regs.push((at(offset::REGS + 8 * r), self.f.use_var(self.gprs[r])));
            }
        }
        let dirty = self.vector_dirty;
        for r in (0..VECTORS).filter(|r| dirty >> r & 1 != 0) {
            vectors.push((r, self.vector_register(r)));
        }
        let budget = self.f.use_var(self.budget);
        Snapshot {
            regs,
            vectors,
            budget,
            flags: self.flags,
            pending: self.pending,
            ip: self.insn_at,
        }
    }
}
