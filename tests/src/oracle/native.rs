//! Executes single instructions on this machine's processor, in this process: the crate's only
//! module with `unsafe`.
//!
//! A small program in a page of its own loads all registers, runs the instruction and stores them.
//! A signal handler notes an exception that strikes at the instruction, and goes on behind it.

use std::arch::asm;
use std::mem::{MaybeUninit, offset_of};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use iced_x86::code_asm::{
    AsmRegister64, AsmRegisterYmm, CodeAssembler, ax, ds, es, fword_ptr, qword_ptr, r8, r9, r10,
    r11, r12, r13, r14, r15, rax, rbp, rbx, rcx, rdi, rdx, rsi, rsp, xmmword_ptr, ymm0, ymm1, ymm2,
    ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15,
};
use libc::c_int;

use super::generate::Generated;
use super::layout::{CODE, FRAME, INSTRUCTION, REGION, REGION_LEN, SCRATCH, SCRATCH_LEN};
use super::state::{Ending, Mode, Raised};

/// The signals that exceptions become.
const SIGNALS: [c_int; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];
const PAGE_FAULT: u64 = 14;
const PAGE: usize = 0x1000;
/// Linux's selectors of user segments, an ABI: 64-bit code, 32-bit code and data
/// (`arch/x86/include/asm/segment.h`).
const CODE_64: u16 = 0x33;
const CODE_32: u16 = 0x23;
const DATA: u16 = 0x2b;
/// Where the program goes on after the instruction.
const AFTER: u64 = INSTRUCTION + 0x100;
/// The longest instruction, and the jump behind it.
const ROOM: usize = 0x40;
const SIGNAL_STACK: usize = 0x1_0000;

/// The page at [`FRAME`].
#[repr(C, align(16))]
struct Frame {
    regs: [u64; 16],
    rflags: u64,
    host_rsp: u64,
    /// 1 if an exception struck; then its vector, error code and address.
    trapped: u64,
    trap: [u64; 3],
    /// The far pointer to the instruction: an offset of 32 bits and a selector.
    entry: [u32; 2],
    reserved: u64,
    fx: [u8; 512],
    host_fx: [u8; 512],
    ymm_high: [u128; 16],
}

static IN_USE: AtomicBool = AtomicBool::new(false);

/// The host processor, ready to execute instructions. There is at most one.
pub(super) struct Native {
    old_actions: [libc::sigaction; SIGNALS.len()],
    old_stack: libc::stack_t,
    _signal_stack: Box<[u8]>,
}

impl Native {
    /// Maps the region and takes over the signals of exceptions. The calling thread is the one
    /// that may use it.
    pub(super) fn new() -> Result<Native> {
        ensure!(!IN_USE.swap(true, Ordering::AcqRel), "one at a time");
        let program = program().context("the program around the instruction")?;
        let mut signal_stack = vec![0; SIGNAL_STACK].into_boxed_slice();
        let mut old_stack = MaybeUninit::uninit();
        let stack = libc::stack_t {
            ss_sp: signal_stack.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: SIGNAL_STACK,
        };
        // SAFETY: the region is mapped where nothing was, and only then written to; the signal
        // stack lives as long as `Native`; the handler is a function of the right type.
        unsafe {
            map(REGION, REGION_LEN as usize, libc::PROT_NONE, libc::MAP_FIXED_NOREPLACE)?;
            let code = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            map(CODE, PAGE, code, libc::MAP_FIXED)?;
            let data = libc::PROT_READ | libc::PROT_WRITE;
            map(FRAME, PAGE, data, libc::MAP_FIXED)?;
            map(SCRATCH, SCRATCH_LEN, data, libc::MAP_FIXED)?;
            ptr::copy_nonoverlapping(program.0.as_ptr(), CODE as *mut u8, program.0.len());
            ptr::copy_nonoverlapping(program.1.as_ptr(), AFTER as *mut u8, program.1.len());
            ensure!(libc::sigaltstack(&stack, old_stack.as_mut_ptr()) == 0, "sigaltstack");
            Ok(Native {
                old_actions: SIGNALS.map(|signal| take_over(signal)),
                old_stack: old_stack.assume_init(),
                _signal_stack: signal_stack,
            })
        }
    }

    /// Whether the kernel has a segment of 32-bit code for processes.
    pub(super) fn can(&self, mode: Mode) -> bool {
        /// Present, DPL 3, code, accessed or not; a default size of 32 bits (SDM vol. 2, LAR).
        const MASK: u32 = 0x0060_f800;
        const CODE: u32 = 0x0040_f800;
        let rights: u32;
        // SAFETY: LAR changes nothing but its destination and ZF.
        unsafe {
            asm!("xor {0:e}, {0:e}", "lar {0:e}, {1:e}", out(reg) rights, in(reg) u32::from(CODE_32));
        }
        mode == Mode::Long || rights & MASK == CODE
    }

    /// Executes an instruction.
    ///
    /// It must not transfer control, change the privilege or reach memory of this process outside
    /// the region; what [`super::generate`] makes does not.
    pub(super) fn run(&mut self, case: &Generated) -> Result<Ending> {
        let (state, code) = (&case.state, &case.bytes);
        ensure!(code.len() <= 15, "an instruction of {} bytes", code.len());
        let mut bytes = [0; ROOM];
        bytes[..code.len()].copy_from_slice(code);
        let (tail, entry) = match case.mode {
            Mode::Long => (jump(INSTRUCTION + code.len() as u64), CODE_64),
            Mode::Compatibility => (far_jump(), CODE_32),
        };
        bytes[code.len()..][..tail.len()].copy_from_slice(&tail);
        let mut after = state.clone();
        // SAFETY: the region is mapped as `new` did it, and nobody else uses it. The program saves
        // and restores what the ABI demands; of the instruction see above.
        unsafe {
            // A write to code costs more than to look whether it is needed.
            if *(INSTRUCTION as *const [u8; ROOM]) != bytes {
                ptr::copy_nonoverlapping(bytes.as_ptr(), INSTRUCTION as *mut u8, ROOM);
            }
            ptr::copy_nonoverlapping(state.scratch.as_ptr(), SCRATCH as *mut u8, SCRATCH_LEN);
            let frame = FRAME as *mut Frame;
            (*frame).regs = state.regs;
            (*frame).rflags = state.rflags;
            (*frame).fx = state.fx;
            (*frame).ymm_high = state.ymm_high;
            (*frame).entry = [INSTRUCTION as u32, u32::from(entry)];
            (*frame).trapped = 0;
            let program: extern "sysv64" fn() = std::mem::transmute(CODE as *const u8);
            program();
            after.regs = ptr::read_volatile(&raw const (*frame).regs);
            after.rflags = ptr::read_volatile(&raw const (*frame).rflags);
            after.fx = ptr::read_volatile(&raw const (*frame).fx);
            after.ymm_high = ptr::read_volatile(&raw const (*frame).ymm_high);
            ptr::copy_nonoverlapping(SCRATCH as *const u8, after.scratch.as_mut_ptr(), SCRATCH_LEN);
            let trapped = ptr::read_volatile(&raw const (*frame).trapped) != 0;
            let [vector, error, cr2] = ptr::read_volatile(&raw const (*frame).trap);
            // CR2 keeps the address of the last page fault.
            let address = if vector == PAGE_FAULT { cr2 } else { 0 };
            let raised = Raised { vector: vector as u8, error, address };
            Ok(Ending { state: after, raised: trapped.then_some(raised) })
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: these are the actions and the stack that were in force before `new`.
        unsafe {
            for (signal, old) in SIGNALS.iter().zip(&self.old_actions) {
                libc::sigaction(*signal, old, ptr::null_mut());
            }
            libc::sigaltstack(&self.old_stack, ptr::null_mut());
            libc::munmap(REGION as *mut _, REGION_LEN as usize);
        }
        IN_USE.store(false, Ordering::Release);
    }
}

/// A near jump to [`AFTER`] from the address `at`.
fn jump(at: u64) -> Vec<u8> {
    const JMP_REL32: u8 = 0xe9;
    let distance = (AFTER - (at + 5)) as u32;
    [&[JMP_REL32][..], &distance.to_le_bytes()].concat()
}

/// A far jump from 32-bit code to [`AFTER`] in 64-bit code.
fn far_jump() -> Vec<u8> {
    const JMP_PTR16_32: u8 = 0xea;
    [&[JMP_PTR16_32][..], &(AFTER as u32).to_le_bytes(), &CODE_64.to_le_bytes()].concat()
}

/// Anonymous memory at a fixed place.
///
/// # Safety
/// With `MAP_FIXED` the place must be inside the region.
unsafe fn map(at: u64, len: usize, protection: c_int, how: c_int) -> Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | how;
    // SAFETY: `MAP_FIXED_NOREPLACE` replaces nothing; of `MAP_FIXED` see above.
    let mapped = unsafe { libc::mmap(at as *mut _, len, protection, flags, -1, 0) };
    if mapped as u64 != at {
        bail!("no memory at {at:#x}: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Installs the handler and returns the action before.
///
/// # Safety
/// The region must be mapped while the handler is installed.
unsafe fn take_over(signal: c_int) -> libc::sigaction {
    // SAFETY: all-zero is a valid `sigaction`, an empty mask among it.
    let (mut action, mut old) = unsafe { std::mem::zeroed::<(libc::sigaction, libc::sigaction)>() };
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: both point to valid structures; the handler is async-signal-safe.
    unsafe { libc::sigaction(signal, &action, &mut old) };
    old
}

/// Notes the exception and goes on at [`AFTER`]. A signal from elsewhere gets its default action.
extern "C" fn on_signal(signal: c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid context; the region is mapped while this is installed.
    unsafe {
        let gregs = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = gregs[libc::REG_RIP as usize] as u64;
        if !(INSTRUCTION..INSTRUCTION + ROOM as u64).contains(&at) {
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        let number = |register: c_int| gregs[register as usize] as u64;
        let trap = [number(libc::REG_TRAPNO), number(libc::REG_ERR), number(libc::REG_CR2)];
        let frame = FRAME as *mut Frame;
        ptr::write_volatile(&raw mut (*frame).trap, trap);
        ptr::write_volatile(&raw mut (*frame).trapped, 1);
        gregs[libc::REG_RIP as usize] = AFTER as i64;
        // CS is the lowest of four words.
        let segments = &mut gregs[libc::REG_CSGSFS as usize];
        *segments = *segments & !0xffff | i64::from(CODE_64);
    }
}

/// The registers in encoding order.
const REGISTERS: [AsmRegister64; 16] =
    [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
const YMM: [AsmRegisterYmm; 16] = [
    ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14,
    ymm15,
];
/// Those that a function must preserve, but for RSP.
const SAVED: [AsmRegister64; 6] = [rbx, rbp, r12, r13, r14, r15];

/// The code before the instruction, and the code after it.
fn program() -> Result<(Vec<u8>, Vec<u8>)> {
    let place = |offset: usize| qword_ptr(FRAME + offset as u64);
    let register = |n: usize| place(offset_of!(Frame, regs) + 8 * n);
    let fx = place(offset_of!(Frame, fx));
    let host_fx = place(offset_of!(Frame, host_fx));
    let host_rsp = place(offset_of!(Frame, host_rsp));
    let rflags = place(offset_of!(Frame, rflags));
    let rsp_last = |(_, r): &(usize, &AsmRegister64)| **r != rsp;

    let mut before = CodeAssembler::new(64)?;
    for r in SAVED {
        before.push(r)?;
    }
    before.mov(host_rsp, rsp)?;
    before.fxsave64(host_fx)?;
    before.fxrstor64(fx)?;
    let upper = |n: usize| xmmword_ptr(FRAME + (offset_of!(Frame, ymm_high) + 16 * n) as u64);
    // Without AVX the upper halves stay in the frame.
    let avx = std::arch::is_x86_feature_detected!("avx");
    for (n, r) in YMM.into_iter().enumerate().filter(|_| avx) {
        before.vinsertf128(r, r, upper(n), 1)?;
    }
    // 32-bit code needs them.
    before.mov(ax, i32::from(DATA))?;
    before.mov(ds, ax)?;
    before.mov(es, ax)?;
    before.push(rflags)?;
    before.popfq()?;
    for (n, r) in REGISTERS.iter().enumerate().filter(rsp_last) {
        before.mov(*r, register(n))?;
    }
    before.mov(rsp, register(4))?;
    before.jmp(fword_ptr(FRAME + offset_of!(Frame, entry) as u64))?;

    let mut after = CodeAssembler::new(64)?;
    for (n, r) in REGISTERS.iter().enumerate() {
        after.mov(register(n), *r)?;
    }
    after.mov(rsp, host_rsp)?;
    after.pushfq()?;
    after.pop(rflags)?;
    after.cld()?;
    for (n, r) in YMM.into_iter().enumerate().filter(|_| avx) {
        after.vextractf128(upper(n), r, 1)?;
    }
    after.fxsave64(fx)?;
    if avx {
        after.vzeroupper()?;
    }
    after.fxrstor64(host_fx)?;
    for r in SAVED.iter().rev() {
        after.pop(*r)?;
    }
    after.ret()?;
    Ok((before.assemble(CODE)?, after.assemble(AFTER)?))
}
