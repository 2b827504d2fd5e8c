//! A vCPU with a little flat RAM, for tests of system instructions: they run real code bytes
//! through the interpreter.

use std::sync::{Arc, Mutex, MutexGuard};

use brolga_mmu::{GuestPhys, PhysMap, Ram, Width};

use crate::bus::Bus;
use crate::core::{Core, Interpreter, Stop};
use crate::cpuid::CpuModel;
use crate::vcpu::{RIP, SegReg, Segment, TableReg, attr, cr0, cr4, efer, gpr};

pub(crate) const GDT: u64 = 0x1000;
pub(crate) const IDT: u64 = 0x2000;
pub(crate) const TSS: u64 = 0x3000;
pub(crate) const TSS2: u64 = 0x3800;
pub(crate) const CODE: u64 = 0x8000;
pub(crate) const STACK: u64 = 0x7000;
pub(crate) const STACK3: u64 = 0x6000;
/// Where gates and tasks of the tests lead: an endless loop, like every handler.
pub(crate) const ENTRY: u64 = 0x9000;
/// Where the handler of vector 0 lies; each has 16 bytes.
pub(crate) const HANDLERS: u64 = 0x1_0000;
/// The page tables of [`Bench::long`].
pub(crate) const TABLES: u64 = 0x10_0000;

pub(crate) const CODE0: u16 = 0x08;
pub(crate) const DATA0: u16 = 0x10;
pub(crate) const CODE3: u16 = 0x1b;
pub(crate) const DATA3: u16 = 0x23;
pub(crate) const TASK: u16 = 0x28;
/// The first free GDT slot (TR takes two in IA-32e mode).
pub(crate) const FREE: u16 = 0x38;

const DATA_RIGHTS: u32 = attr::P | attr::S | attr::RW | attr::ACCESSED | attr::DB | attr::G;
const CODE_RIGHTS: u32 = DATA_RIGHTS | attr::CODE;

/// What has reached a [`TestBus`].
#[derive(Default)]
pub(crate) struct Seen {
    /// What was written to ports: the time and the value.
    pub(crate) outputs: Vec<(u64, u64)>,
    /// IA32_TSC_DEADLINE, and when it is due.
    pub(crate) deadline: (u64, u64),
}

const TSC_DEADLINE: u32 = 0x6e0;

/// A bus whose ports read as their own number, whose memory-mapped registers read as the time,
/// and whose time is the instruction count.
#[derive(Default)]
struct TestBus {
    cr8: u64,
    seen: Arc<Mutex<Seen>>,
}

impl Bus for TestBus {
    fn port_read(&mut self, _: u64, port: u16, _: Width) -> u64 {
        port.into()
    }
    fn port_write(&mut self, at: u64, _: u16, _: Width, value: u64) {
        self.seen().outputs.push((at, value));
    }
    fn mmio_read(&mut self, at: u64, _: GuestPhys, w: Width) -> u64 {
        at & w.mask()
    }
    fn msr_read(&mut self, _: u64, msr: u32) -> Option<u64> {
        (msr == TSC_DEADLINE).then(|| self.seen().deadline.0)
    }
    fn set_tsc_deadline(&mut self, _: u64, value: u64, due: u64) {
        self.seen().deadline = (value, due);
    }
    fn cr8(&mut self) -> u64 {
        self.cr8
    }
    fn set_cr8(&mut self, _: u64, value: u64) {
        self.cr8 = value;
    }
    fn acknowledge(&mut self, _: u64) -> Option<u8> {
        Some(0x40)
    }
}

impl TestBus {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panics with the lock")
    }
}

/// A descriptor with the fields of a [`Segment`]; `limit` in units of its granularity.
pub(crate) fn descriptor(base: u64, limit: u64, rights: u32) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | u64::from(rights) << 40
        | (limit >> 16 & 15) << 48
        | (base >> 24 & 0xff) << 56
}

/// A gate of type `kind`.
pub(crate) fn gate(selector: u16, offset: u64, kind: u32, dpl: u32, count: u64) -> u64 {
    let rights = u64::from(attr::P | dpl << 5 | kind);
    offset & 0xffff | u64::from(selector) << 16 | count << 32 | rights << 40 | (offset >> 16) << 48
}

/// The vCPU under test.
pub(crate) struct Bench {
    engine: Interpreter,
    seen: Arc<Mutex<Seen>>,
}

impl Bench {
    /// Real-address mode, code at [`CODE`], stack below [`STACK`].
    pub(crate) fn real() -> Bench {
        Bench::with_model("max")
    }

    pub(crate) fn with_model(model: &str) -> Bench {
        Bench::with_cpu(CpuModel::by_name(model).expect("a known model"))
    }

    pub(crate) fn with_cpu(model: CpuModel) -> Bench {
        let mut map = PhysMap::new(Ram::new(4 << 20).expect("RAM"));
        map.add_ram(GuestPhys(0), 4 << 20).expect("RAM fits");
        map.set_a20(true);
        let bus = TestBus::default();
        let seen = bus.seen.clone();
        let core = Core::new(Arc::new(model), Arc::new(map), Box::new(bus));
        let mut bench = Bench { engine: Interpreter::new(core), seen };
        // A fault does not count as an instruction: what is left of a budget is spent looping.
        const JUMP_TO_SELF: u64 = 0xfeeb;
        bench.put(ENTRY, 2, JUMP_TO_SELF);
        for vector in 0..=255 {
            let at = bench.handler(vector);
            bench.put(at, 2, JUMP_TO_SELF);
        }
        let v = &mut bench.core().vcpu;
        let rights = v.seg(SegReg::Cs).attr;
        v.segs[SegReg::Cs as usize] = Segment::real(0, rights, 0xffff);
        v.regs[usize::from(RIP)] = CODE;
        v.regs[usize::from(gpr::RSP)] = STACK;
        bench.core().mode_changed();
        bench
    }

    /// Flat 32-bit protected mode at CPL 0, with a GDT, a 32-bit TSS and an IDT whose handlers
    /// are interrupt gates to [`Bench::handler`].
    pub(crate) fn protected() -> Bench {
        Bench::real().enter_protected()
    }

    /// See [`Bench::protected`].
    pub(crate) fn enter_protected(self) -> Bench {
        let mut bench = self;
        bench.segments(0);
        for vector in 0..=255 {
            let to = bench.handler(vector);
            bench.put(IDT + u64::from(vector) * 8, 8, gate(CODE0, to, 14, 0, 0));
        }
        let v = &mut bench.core().vcpu;
        v.sys.cr0 |= cr0::PE;
        v.segs[SegReg::Cs as usize] = flat(CODE0, CODE_RIGHTS);
        bench.put(TSS + 4, 4, STACK);
        bench.put(TSS + 8, 4, DATA0.into());
        bench.put(TSS + 0x66, 2, 0x68);
        bench.core().mode_changed();
        bench
    }

    /// 64-bit mode at CPL 0, identity-mapped, as [`Bench::protected`] otherwise.
    pub(crate) fn long() -> Bench {
        Bench::real().enter_long()
    }

    /// See [`Bench::long`].
    pub(crate) fn enter_long(self) -> Bench {
        let mut bench = self;
        bench.segments(attr::L);
        for vector in 0..=255 {
            let to = bench.handler(vector);
            let at = IDT + u64::from(vector) * 16;
            bench.put(at, 8, gate(CODE0, to, 14, 0, 0));
        }
        bench.put(TABLES, 8, (TABLES + 0x1000) | 7);
        bench.put(TABLES + 0x1000, 8, (TABLES + 0x2000) | 7);
        bench.put(TABLES + 0x2000, 8, 0x87);
        bench.put(TABLES + 0x2008, 8, 0x20_0087);
        bench.put(TSS + 4, 8, STACK);
        let v = &mut bench.core().vcpu;
        v.sys.cr0 |= cr0::PE | cr0::PG | cr0::WP;
        v.sys.cr3 = TABLES;
        v.sys.cr4 = cr4::PAE;
        v.sys.efer = efer::LME | efer::LMA | efer::SCE | efer::NXE;
        v.segs[SegReg::Cs as usize] = flat(CODE0, CODE_RIGHTS & !attr::DB | attr::L);
        bench.core().mode_changed();
        bench
    }

    fn segments(&mut self, long: u32) {
        let code = CODE_RIGHTS & !(if long != 0 { attr::DB } else { 0 }) | long;
        let tss = attr::P | 11;
        for (selector, d) in [
            (CODE0, descriptor(0, 0xf_ffff, code)),
            (DATA0, descriptor(0, 0xf_ffff, DATA_RIGHTS)),
            (CODE3, descriptor(0, 0xf_ffff, code | 3 << 5)),
            (DATA3, descriptor(0, 0xf_ffff, DATA_RIGHTS | 3 << 5)),
            (TASK, descriptor(TSS, 0x7ff, tss)),
        ] {
            self.set_descriptor(selector, d);
        }
        let v = &mut self.core().vcpu;
        v.gdtr = TableReg { base: GDT, limit: 0xff };
        v.idtr = TableReg { base: IDT, limit: 0xfff };
        v.tr = Segment { selector: TASK, attr: tss, limit: 0x7ff, base: TSS };
        for reg in [SegReg::Es, SegReg::Ss, SegReg::Ds] {
            v.segs[reg as usize] = flat(DATA0, DATA_RIGHTS);
        }
    }

    /// Continues at CPL 3 with the stack at [`STACK3`].
    pub(crate) fn user(mut self) -> Bench {
        let v = &mut self.core().vcpu;
        v.cpl = 3;
        v.segs[SegReg::Cs as usize].selector = CODE3;
        v.segs[SegReg::Cs as usize].attr |= 3 << 5;
        for reg in [SegReg::Es, SegReg::Ss, SegReg::Ds] {
            v.segs[reg as usize] = flat(DATA3, DATA_RIGHTS | 3 << 5);
        }
        v.regs[usize::from(gpr::RSP)] = STACK3;
        self.core().mode_changed();
        self
    }

    /// What has reached the bus.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panics with the lock")
    }

    pub(crate) fn core(&mut self) -> &mut Core {
        &mut self.engine.core
    }

    pub(crate) fn set_descriptor(&mut self, selector: u16, d: u64) {
        self.put(GDT + u64::from(selector & !7), 8, d);
    }

    /// The address of the handler of `vector`.
    pub(crate) fn handler(&self, vector: u8) -> u64 {
        HANDLERS + u64::from(vector) * 16
    }

    /// Writes `len` bytes of `v` at physical address `at`.
    pub(crate) fn put(&mut self, at: u64, len: usize, v: u64) {
        let bytes = &v.to_le_bytes()[..len];
        self.core().mem.map.write_slice(GuestPhys(at), bytes).expect("address in RAM");
    }

    /// Reads `len` bytes at physical address `at`.
    pub(crate) fn get(&mut self, at: u64, len: usize) -> u64 {
        let mut bytes = [0; 8];
        let map = &self.core().mem.map;
        map.read_slice(GuestPhys(at), &mut bytes[..len]).expect("address in RAM");
        u64::from_le_bytes(bytes)
    }

    /// Puts `code` where execution stands.
    pub(crate) fn load(&mut self, code: &[u8]) {
        self.try_load(code).expect("execution stands in RAM");
    }

    /// As [`Bench::load`]; `None` if execution has left RAM.
    pub(crate) fn try_load(&mut self, code: &[u8]) -> Option<()> {
        let base = self.core().vcpu.seg(SegReg::Cs).base;
        let at = GuestPhys(base.wrapping_add(self.ip()));
        self.engine.core.mem.map.write_slice(at, code).ok()?;
        self.engine.invalidate_code(at, code.len() as u64);
        Some(())
    }

    /// Executes `n` instructions of `code`.
    pub(crate) fn run(&mut self, code: &[u8], n: u64) -> Stop {
        self.load(code);
        self.engine.run(n)
    }

    /// Executes `n` more instructions.
    pub(crate) fn go(&mut self, n: u64) -> Stop {
        self.engine.run(n)
    }

    /// Executes the one instruction `code`.
    pub(crate) fn step(&mut self, code: &[u8]) {
        self.run(code, 1);
    }

    pub(crate) fn ip(&mut self) -> u64 {
        self.core().vcpu.regs[usize::from(RIP)]
    }

    pub(crate) fn reg(&mut self, r: u8) -> u64 {
        self.core().vcpu.regs[usize::from(r)]
    }

    pub(crate) fn set(&mut self, r: u8, v: u64) {
        self.core().vcpu.regs[usize::from(r)] = v;
    }

    pub(crate) fn selector(&mut self, s: SegReg) -> u16 {
        self.core().vcpu.seg(s).selector
    }

    /// Vector and error code of the exception delivered last. Panics if there was none.
    pub(crate) fn fault(&mut self) -> (u8, Option<u32>) {
        let link = self.core().delivery.chain.last().expect("an exception was delivered");
        (link.vector, link.error)
    }

    /// Whether no exception has been delivered.
    pub(crate) fn quiet(&mut self) -> bool {
        self.core().delivery.chain.is_empty()
    }
}

/// A flat segment register.
pub(crate) fn flat(selector: u16, rights: u32) -> Segment {
    let dpl = u32::from(selector & 3) << 5;
    Segment { selector, attr: rights | dpl, limit: u32::MAX, base: 0 }
}
