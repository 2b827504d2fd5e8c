//! x87 instructions as programs in real-address mode.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use brolga_mmu::{GuestPhys, PhysMap, Ram, Width};

use crate::bus::{Bus, NoDevices};
use crate::core::{Core, Interpreter, Stop};
use crate::cpuid::CpuModel;
use crate::vcpu::{Activity, RIP, SegReg, Segment, cr0, cr4, gpr, rflags};
use crate::x87::X87;

/// Where programs start.
const START: u64 = 0x1000;
/// Where #GP and #MF lead: a HLT each.
const GP_HANDLER: u64 = 0x0800;
const MF_HANDLER: u64 = 0x0810;
const HLT: u8 = 0xF4;

/// Runs a program until it halts; memory below 64 KiB holds nothing else.
fn run(program: &[u8]) -> Core {
    let mut interpreter = machine(program, Box::new(NoDevices));
    assert_eq!(interpreter.run(1000), Stop::Halted);
    interpreter.core
}

/// A machine with a program; CR0.NE is set.
fn machine(program: &[u8], bus: Box<dyn Bus>) -> Interpreter {
    let mut map = PhysMap::new(Ram::new(0x10000).expect("a RAM"));
    map.add_ram(GuestPhys(0), 0x10000).expect("a free place");
    let load = |at, bytes: &[u8]| map.load_slice(GuestPhys(at), bytes).expect("RAM");
    load(START, program);
    load(START + program.len() as u64, &[HLT]);
    for (vector, handler) in [(13, GP_HANDLER), (16, MF_HANDLER)] {
        load(vector * 4, &(handler as u32).to_le_bytes());
        load(handler, &[HLT]);
    }
    let model = CpuModel::by_name(CpuModel::names()[0]).expect("a model");
    let mut core = Core::new(Arc::new(model), Arc::new(map), bus);
    for segment in &mut core.vcpu.segs {
        *segment = Segment { selector: 0, base: 0, ..*segment };
    }
    core.vcpu.regs[RIP as usize] = START;
    core.vcpu.regs[gpr::RSP as usize] = 0x8000;
    core.vcpu.sys.cr0 |= cr0::NE;
    core.mode_changed();
    Interpreter::new(core)
}

/// The offset of the HLT that a program ended at.
fn halted_at(core: &Core) -> u64 {
    core.vcpu.regs[RIP as usize] - 1
}

fn memory(core: &Core, at: u64, w: Width) -> u64 {
    core.mem.map.read_phys(GuestPhys(at), w).expect("RAM")
}

#[test]
fn arithmetic_and_store() {
    let core = run(&[
        0xD9, 0xE8, // fld1
        0xD9, 0xEB, // fldpi
        0xDE, 0xC1, // faddp
        0xD8, 0xC0, // fadd st, st
        0xDD, 0x1E, 0x00, 0x20, // fstp qword [2000h]
    ]);
    let sum = f64::from_bits(memory(&core, 0x2000, Width::W64));
    assert_eq!(sum, 2.0 * (1.0 + std::f64::consts::PI));
    assert_eq!(core.vcpu.x87.tag_word(), 0xFFFF);
}

#[test]
fn integers_and_bcd() {
    let core = run(&[
        0xC7, 0x06, 0x00, 0x20, 0x85, 0xFF, // mov word [2000h], -123
        0xDF, 0x06, 0x00, 0x20, // fild word [2000h]
        0xDF, 0x36, 0x10, 0x20, // fbstp [2010h]
        0xDF, 0x26, 0x10, 0x20, // fbld [2010h]
        0xDB, 0x1E, 0x20, 0x20, // fistp dword [2020h]
    ]);
    assert_eq!(memory(&core, 0x2010, Width::W64), 0x0123);
    assert_eq!(memory(&core, 0x2018, Width::W16), 0x8000);
    assert_eq!(memory(&core, 0x2020, Width::W32) as i32, -123);
}

#[test]
fn comparison_sets_eflags_for_a_conditional_move() {
    let core = run(&[
        0xD9, 0xEB, // fldpi
        0xD9, 0xE8, // fld1
        0xDB, 0xF1, // fcomi st, st(1): below
        0xDA, 0xC1, // fcmovb st, st(1)
        0xDB, 0xF1, // fcomi st, st(1): equal
    ]);
    assert_eq!(core.vcpu.x87.st(0), core.vcpu.x87.st(1));
    assert!(core.vcpu.flags.zf() && !core.vcpu.flags.cf());
}

#[test]
fn unmasked_exception_is_reported_by_the_next_waiting_instruction() {
    let core = run(&[
        0xC7, 0x06, 0x00, 0x20, 0x7B, 0x03, // mov word [2000h], 037Bh
        0xD9, 0x2E, 0x00, 0x20, // fldcw [2000h]: division by zero unmasked
        0xD9, 0xE8, // fld1
        0xD9, 0xEE, // fldz
        0xDE, 0xF9, // fdivp
        0xDF, 0xE0, // fnstsw ax: does not wait
        0xD9, 0xD0, // fnop: waits
    ]);
    assert_eq!(halted_at(&core), MF_HANDLER);
    let pushed_ip = memory(&core, 0x8000 - 6, Width::W16);
    assert_eq!(pushed_ip, START + 18, "#MF is a fault of the FNOP");
    assert_eq!(core.vcpu.regs[gpr::RAX as usize] & 0xFF, 0x84, "ZE and ES");
    let last = core.vcpu.x87.last;
    assert_eq!((last.ip, last.opcode), (START + 14, 0x6F9), "the division");
}

/// The pins through which a PC hears of x87 errors.
#[derive(Clone, Default)]
struct Pins {
    ferr: Arc<AtomicBool>,
    ignne: Arc<AtomicBool>,
}

impl Bus for Pins {
    fn set_ferr(&mut self, _: u64, active: bool) {
        self.ferr.store(active, Relaxed);
    }
    fn ignne(&mut self) -> bool {
        self.ignne.load(Relaxed)
    }
    fn acknowledge(&mut self, _: u64) -> Option<u8> {
        Some(13)
    }
}

/// Divides by zero, unmasked, and goes on with `waiting`, with CR0.NE clear. The instruction that
/// waits is at [`WAITING`].
fn divide_in_compatibility_mode(waiting: &[u8], pins: &Pins) -> Interpreter {
    let division = [
        0xC7, 0x06, 0x00, 0x20, 0x7B, 0x03, // mov word [2000h], 037Bh
        0xD9, 0x2E, 0x00, 0x20, // fldcw [2000h]: division by zero unmasked
        0xD9, 0xE8, // fld1
        0xD9, 0xEE, // fldz
        0xDE, 0xF9, // fdivp
    ];
    let mut m = machine(&[&division, waiting].concat(), Box::new(pins.clone()));
    m.core.vcpu.sys.cr0 &= !cr0::NE;
    m.core.mode_changed();
    m
}

const WAITING: u64 = START + 16;

#[test]
fn without_ne_a_waiting_instruction_asks_the_board_and_stops() {
    const MOVQ_MM0_MM1: [u8; 3] = [0x0F, 0x6F, 0xC1];
    for waiting in [&[0x9B][..], &[0xD9, 0xD0], &MOVQ_MM0_MM1] {
        let pins = Pins::default();
        let mut m = divide_in_compatibility_mode(waiting, &pins);
        assert_eq!(m.run(5), Stop::Budget);
        assert!(!pins.ferr.load(Relaxed), "reported only when an instruction waits");
        assert_eq!(m.run(1000), Stop::Halted, "{waiting:02x?}");
        assert!(pins.ferr.load(Relaxed));
        assert_eq!(m.core.vcpu.regs[RIP as usize], WAITING);
        // IRQ 13 interrupts before the instruction.
        m.core.vcpu.eflags |= rflags::IF;
        m.core.lines.intr = true;
        assert_eq!(m.run(1), Stop::Replan);
        assert_eq!(m.core.vcpu.regs[RIP as usize], GP_HANDLER, "vector 13");
        assert_eq!(memory(&m.core, 0x8000 - 6, Width::W16), WAITING);
    }
}

#[test]
fn with_ignne_x87_instructions_go_on_until_the_error_is_cleared() {
    let pins = Pins::default();
    pins.ignne.store(true, Relaxed);
    let fld1_fnclex = [0xD9, 0xE8, 0xDB, 0xE2];
    let mut m = divide_in_compatibility_mode(&fld1_fnclex, &pins);
    m.run(6);
    assert_eq!(m.core.vcpu.regs[RIP as usize], WAITING + 2);
    assert!(pins.ferr.load(Relaxed));
    m.run(1);
    assert!(!pins.ferr.load(Relaxed), "FNCLEX");
}

#[test]
fn loads_of_another_state_release_ferr() {
    let frstor = [0xDD, 0x26, 0x00, 0x30];
    let fxrstor = [0x0F, 0xAE, 0x0E, 0x00, 0x30];
    for load in [&frstor[..], &fxrstor] {
        let pins = Pins::default();
        let mut m = divide_in_compatibility_mode(&[&[0x9B][..], load].concat(), &pins);
        m.core.vcpu.sys.cr4 |= cr4::OSFXSR;
        m.core.mode_changed();
        // A control word that masks all, and a status without exceptions.
        let control = m.core.mem.map.write_phys(GuestPhys(0x3000), Width::W16, 0x37f);
        control.expect("RAM");
        assert_eq!(m.run(1000), Stop::Halted);
        assert!(pins.ferr.load(Relaxed));
        pins.ignne.store(true, Relaxed);
        m.core.vcpu.activity = Activity::Running;
        m.run(2);
        assert!(!m.core.vcpu.x87.pending());
        assert!(!pins.ferr.load(Relaxed), "{load:02x?}");
    }
}

#[test]
fn store_that_faults_changes_nothing() {
    let core = run(&[
        0xD9, 0xEB, // fldpi
        0xD9, 0x1E, 0xFE, 0xFF, // fstp dword [FFFEh]: beyond the limit
    ]);
    assert_eq!(halted_at(&core), GP_HANDLER);
    let mut expected = X87::default();
    expected.load_constant(crate::x87::Constant::Pi);
    expected.last = core.vcpu.x87.last;
    assert_eq!(core.vcpu.x87, expected, "neither popped nor PE set");
}

#[test]
fn store_that_an_exception_keeps_back_faults_all_the_same() {
    let core = run(&[
        0xC7, 0x06, 0x00, 0x20, 0x7E, 0x03, // mov word [2000h], 037Eh: #IA unmasked
        0xD9, 0x2E, 0x00, 0x20, // fldcw [2000h]
        0xD9, 0x1E, 0xFE, 0xFF, // fstp dword [FFFEh], of nothing, and beyond the limit
    ]);
    assert_eq!(halted_at(&core), GP_HANDLER);
    assert!(!core.vcpu.x87.pending());
}

#[test]
fn environment_and_state_images() {
    let core = run(&[
        0xD9, 0x06, 0x34, 0x12, // fld dword [1234h]
        0xD9, 0x36, 0x00, 0x20, // fnstenv [2000h], 16-bit
        0x66, 0xDD, 0x36, 0x00, 0x30, // fnsave [3000h], 32-bit
        0x66, 0xDD, 0x26, 0x00, 0x30, // frstor [3000h]
    ]);
    assert_eq!(memory(&core, 0x2006, Width::W16), START, "instruction pointer");
    assert_eq!(memory(&core, 0x200A, Width::W16), 0x1234, "operand pointer");
    assert_eq!(memory(&core, 0x3008, Width::W16), 0x7FFF, "only R7 is in use, a zero");
    assert_eq!(core.vcpu.x87.top(), 7);
    assert!(!core.vcpu.x87.is_empty(0));
    assert_eq!(core.vcpu.seg(SegReg::Cs).selector, 0);
}
