//! x87 instructions as programs in real-address mode.

use std::sync::Arc;

use brolga_mmu::{GuestPhys, PhysMap, Ram, Width};

use crate::bus::NoDevices;
use crate::core::{Core, Interpreter, Stop};
use crate::cpuid::CpuModel;
use crate::vcpu::{RIP, SegReg, Segment, cr0, gpr};
use crate::x87::X87;

/// Where programs start.
const START: u64 = 0x1000;
/// Where #GP and #MF lead: a HLT each.
const GP_HANDLER: u64 = 0x0800;
const MF_HANDLER: u64 = 0x0810;
const HLT: u8 = 0xF4;

/// Runs a program until it halts; memory below 64 KiB holds nothing else.
fn run(program: &[u8]) -> Core {
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
    let mut core = Core::new(Arc::new(model), Arc::new(map), Box::new(NoDevices));
    for segment in &mut core.vcpu.segs {
        *segment = Segment { selector: 0, base: 0, ..*segment };
    }
    core.vcpu.regs[RIP as usize] = START;
    core.vcpu.regs[gpr::RSP as usize] = 0x8000;
    core.vcpu.sys.cr0 |= cr0::NE;
    core.mode_changed();
    let mut interpreter = Interpreter::new(core);
    assert_eq!(interpreter.run(1000), Stop::Halted);
    interpreter.core
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
