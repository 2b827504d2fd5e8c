//! The way into translated code, and out of it to its slow path. One of the crate's modules with
//! `unsafe`.

use std::arch::asm;
use std::sync::Arc;

use brolga_cpu::core::Core;
use brolga_cpu::core::translated::{offset, status_of};
use brolga_cpu::vcpu::RIP;
use brolga_cpu::vector::mxcsr;
use cranelift_codegen::ir::{AbiParam, InstBuilder, MemFlagsData, Signature, types};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module, ModuleError};

use crate::frame::{FRAME, SAVED};
use crate::interpreted::Interpreted;
use crate::jump::{JUMP_SLOTS, JumpEntry, places, set_key, slot};
use crate::operations;
use crate::preserve::preserving;
use crate::translate::{GO_ON, PASSED, Reason, region_signature};
use crate::x87;

/// Calls [`begin`]: the core, the TLB's table, instructions left, the address of [`begin`].
type Trampoline = unsafe extern "sysv64" fn(*mut Core, u64, u64, u64);

/// What all regions need of the host, made once.
pub(crate) struct Entrance {
    trampoline: Trampoline,
    /// Owns the trampoline's memory.
    _module: JITModule,
}

impl Entrance {
    pub(crate) fn new(isa: Arc<dyn TargetIsa>) -> Result<Entrance, Box<ModuleError>> {
        let builder = JITBuilder::with_isa(isa, cranelift_module::default_libcall_names());
        let mut module = JITModule::new(builder);
        let mut context = module.make_context();
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.extend([AbiParam::new(types::I64); 4]);
        context.func.signature = signature;
        let mut memory = FunctionBuilderContext::new();
        let mut f = FunctionBuilder::new(&mut context.func, &mut memory);
        let region = f.import_signature(region_signature());
        let block = f.create_block();
        f.append_block_params_for_function_params(block);
        f.switch_to_block(block);
        f.seal_block(block);
        let [core, tlb, left, begin] = f.block_params(block).to_vec()[..] else {
            unreachable!("the trampoline has these parameters")
        };
        let mut arguments = vec![core, tlb, left];
        for r in PASSED {
            let field = (offset::REGS + 8 * r) as i32;
            arguments.push(f.ins().load(types::I64, MemFlagsData::trusted(), core, field));
        }
        f.ins().call_indirect(region, begin, &arguments);
        f.ins().return_(&[]);
        f.finalize(module.target_config());
        let id = module.declare_anonymous_function(&context.func.signature).map_err(Box::new)?;
        module.define_function(id, &mut context).map_err(Box::new)?;
        module.clear_context(&mut context);
        module.finalize_definitions().map_err(Box::new)?;
        let code = module.get_finalized_function(id);
        debug_assert_eq!(module.declarations().get_function_decl(id).linkage, Linkage::Local);
        // SAFETY: the function was just built with this signature and calling convention, and
        // `_module` keeps its memory.
        let trampoline = unsafe { std::mem::transmute::<*const u8, Trampoline>(code) };
        Ok(Entrance { trampoline, _module: module })
    }

    /// Runs the region at `code`, which is that for RIP, with `left` instructions of the slice left.
    pub(crate) fn run(&self, core: &mut Core, code: u64, left: u64) {
        core.translated.slow_path = slow_path as *const () as u64;
        core.translated.code = code;
        core.translated.leave = leave as *const () as u64;
        core.translated.look_up = look_up as *const () as u64;
        core.translated.used_up = used_up as *const () as u64;
        core.translated.status = status as *const () as u64;
        core.translated.operations = operations::table_address();
        core.translated.interpret = interpret as *const () as u64;
        x87::prepare(core);
        let table = core.tlb_table();
        load_guest_mxcsr(core);
        // SAFETY: `code` is a live region of the arena: code of `region_signature`, which accesses
        // the core's own fields, the TLB's current table, the jump cache and the link cells that
        // the caller has put into `core.translated`, and guest RAM through hits in the TLB.
        // Nothing but the slow path touches the core meanwhile, through the same pointer.
        unsafe { (self.trampoline)(core, table, left, begin as *const () as u64) }
        restore_mxcsr(core);
        x87::take_back(core);
    }
}

/// Puts the guest's MXCSR into the host's, unless it would raise exceptions in this process: code
/// for such a mode does no floating-point arithmetic. Translated code then rounds and raises what
/// the guest's does. What it calls meanwhile must not compute with floating point, or goes between
/// [`restore_mxcsr`] and this: the slow path and [`status_of`] do not compute, the interpreter does
/// for some instructions, devices never.
fn load_guest_mxcsr(core: &Core) {
    let guest = core.vcpu.mxcsr;
    // Flags that Rust code has raised meanwhile are not the guest's.
    if guest & mxcsr::MASKS == mxcsr::MASKS && current_mxcsr() != guest {
        set_mxcsr(guest);
    }
}

/// Puts what Rust code expects into the host's MXCSR; the flags that were raised go to the guest's.
fn restore_mxcsr(core: &mut Core) {
    if core.vcpu.mxcsr & mxcsr::MASKS != mxcsr::MASKS {
        return;
    }
    core.vcpu.mxcsr = current_mxcsr();
    if core.vcpu.mxcsr != mxcsr::DEFAULT {
        set_mxcsr(mxcsr::DEFAULT);
    }
}

fn set_mxcsr(value: u32) {
    // SAFETY: the value masks all exceptions and has no reserved bits. Until the default is loaded
    // again, nothing is executed but translated code and what it calls.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, readonly, preserves_flags)) }
}

fn current_mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: stores to a place of that size.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack, preserves_flags)) }
    value
}

/// Executes instruction `number` of the table; the answer is as [`GO_ON`] says.
extern "sysv64" fn interpret(core: &mut Core, number: u64) -> u64 {
    let table = core.translated.interpreted as *const Option<Interpreted>;
    // SAFETY: code of a live region has the numbers of its own instructions in the table, whose
    // address the caller of the region has put into `core.translated`, and which changes only
    // while no region runs.
    let interpreted = unsafe { &*table.add(number as usize) }.as_ref();
    // Reading MXCSR takes longer than most instructions of the system kind.
    if interpreted.is_none_or(|interpreted| !interpreted.computes) {
        return execute(core, interpreted);
    }
    restore_mxcsr(core);
    x87::take_back(core);
    let answer = execute(core, interpreted);
    load_guest_mxcsr(core);
    answer
}

fn execute(core: &mut Core, interpreted: Option<&Interpreted>) -> u64 {
    if interpreted.is_some_and(|interpreted| interpreted.execute(core)) {
        return GO_ON;
    }
    if !core.nothing_due() {
        core.translated.exit = Reason::LookAround as u64;
        return 0;
    }
    find(core)
}

/// The code at RIP, if the jump cache knows it, entered from now on as what it says; or 0, to leave.
extern "sysv64" fn find(core: &mut Core) -> u64 {
    core.translated.exit = Reason::LookUp as u64;
    let cache = core.translated.jump_cache as *mut JumpEntry;
    let key = core.jump_key();
    let at = core.code_address(core.vcpu.regs[usize::from(RIP)]);
    // SAFETY: the address of the jump cache is there while a region runs, and nobody else looks into
    // it meanwhile.
    let cache = unsafe { std::slice::from_raw_parts_mut(cache, 2 * JUMP_SLOTS) };
    let places = places(slot(at, key));
    let found = |place: usize| Some((place, cache[place].leads(at, core)?));
    let Some((place, code)) = places.into_iter().find_map(found) else { return 0 };
    cache[place].key = key.number();
    cache.swap(places[0], place);
    set_key(core, key);
    core.translated.tlb = core.tlb_table();
    code
}

/// What the slow path's thunk calls. If it finds nothing, the thunk leaves the region, whose state
/// is in the core.
extern "sysv64" fn access(core: &mut Core) {
    core.translated_access();
}

preserving! {
    /// The slow path as regions call it.
    slow_path = access,
    then "cmp qword ptr [rdi + {host}], 0\n je {leave}", host = const offset::HOST, leave = sym leave
}

/// What the thunk for status flags calls.
extern "sysv64" fn compute_status(core: &mut Core, r: u64, a: u64, b: u64, op: u64) {
    core.translated.result[0] = status_of(r, a, b, op);
}

preserving! {
    /// The status flags as regions compute them where their operation is not known beforehand.
    status = compute_status
}

/// Makes the frame of [`crate::frame`] and enters the first region in it. All arguments stay
/// where they are.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn begin() {
    std::arch::naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, {below}",
        "jmp [rdi + {code}]",
        below = const FRAME - SAVED,
        code = const offset::CODE,
    )
}

/// Defines what regions jump to instead of another region, with the same arguments: it stores them,
/// and goes on with `$line`.
macro_rules! instead_of_region {
    ($(#[$doc:meta])* $name:ident: $($line:literal),+; $($operand:tt)*) => {
        $(#[$doc])*
        #[cfg(target_arch = "x86_64")]
        #[unsafe(naked)]
        pub(crate) extern "C" fn $name() {
            std::arch::naked_asm!(
                "mov [rdi + {budget}], rdx",
                "mov [rdi + {first}], rcx",
                "mov [rdi + {second}], r8",
                "mov [rdi + {third}], r9",
                $($line,)+
                budget = const offset::BUDGET,
                first = const offset::REGS + 8 * PASSED[0],
                second = const offset::REGS + 8 * PASSED[1],
                third = const offset::REGS + 8 * PASSED[2],
                $($operand)*
            )
        }
    };
}

instead_of_region! {
    /// What link cells lead to that are not linked.
    unlinked: "mov qword ptr [rdi + {exit}], {reason}", "jmp {leave}";
    exit = const offset::EXIT, reason = const Reason::Link as u64, leave = sym leave
}

instead_of_region! {
    /// Too little is left of the slice.
    used_up: "mov qword ptr [rdi + {exit}], {reason}", "jmp {leave}";
    exit = const offset::EXIT, reason = const Reason::Budget as u64, leave = sym leave
}

instead_of_region! {
    /// Looks RIP up: the mappings may have changed since its entry was made.
    look_up: "mov rbx, rdi", "call {find}", "test rax, rax", "jz {leave}", "mov rdi, rbx",
        "mov rsi, [rdi + {tlb}]", "mov rdx, [rdi + {budget}]", "mov rcx, [rdi + {first}]",
        "mov r8, [rdi + {second}]", "mov r9, [rdi + {third}]", "jmp rax";
    find = sym find, leave = sym leave, tlb = const offset::TLB
}

/// Where regions end: undoes what [`begin`] did.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn leave() {
    std::arch::naked_asm!(
        "lea rsp, [rbp - {saved}]",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        saved = const SAVED,
    )
}
