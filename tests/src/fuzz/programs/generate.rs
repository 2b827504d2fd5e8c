//! Random programs.

use brolga_cpu::vcpu::{cr0, cr4, rflags, xcr0};
use fastrand::Rng;

use crate::operands::value;

use super::environment::entry;
use super::layout::*;
use super::place::{Block, place};
use super::templates::Writer;

/// The mode that a program begins in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Real-address mode.
    Real,
    /// Protected mode without paging.
    Flat,
    /// Protected mode with tables of 32-bit entries.
    Legacy,
    /// Protected mode with PAE.
    Pae,
    /// IA-32e mode.
    Long,
}

/// Something from outside, between two instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The interrupt line rises.
    Interrupt,
    /// A non-maskable interrupt.
    Nmi,
    /// A device writes a byte to memory.
    Dma(u64, u8),
    /// Nothing: the states are compared.
    Look,
}

/// A program, with everything that it starts from and that happens to it.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) seed: u64,
    pub(super) kind: Kind,
    pub(super) blocks: Vec<Block>,
    /// It begins at level 3.
    pub(super) user: bool,
    pub(super) regs: [u64; 16],
    /// XMM0-15, and the upper halves of YMM0-15.
    pub(super) vectors: [[u128; 16]; 2],
    pub(super) mxcsr: u32,
    pub(super) rflags: u64,
    /// Bits of CR0 besides PE and PG.
    pub(super) cr0: u64,
    /// Bits of CR4 besides PAE.
    pub(super) cr4: u64,
    /// The enabled state components.
    pub(super) xcr0: u64,
    /// Where SYSCALL leads.
    pub(super) syscall: u64,
    /// The last-level entries of both sets of tables.
    pub(super) pages: [Vec<u64>; 2],
    /// What happens after so many instructions, in order.
    pub(super) events: Vec<(u64, Event)>,
    /// Instructions to execute.
    pub(super) budget: u64,
}

const EVERYTHING: u64 = xcr0::X87 | xcr0::SSE | xcr0::AVX;

/// Pages that the tables map.
const PAGES: u64 = 512;
/// The longest program, in instructions.
const LONGEST: u64 = 4000;

impl Kind {
    /// The code size of the handlers.
    pub(super) fn handler_bits(self) -> u32 {
        match self {
            Kind::Real => 16,
            Kind::Flat | Kind::Legacy | Kind::Pae => 32,
            Kind::Long => 64,
        }
    }

    /// Whether there are page tables.
    pub(super) fn paged(self) -> bool {
        matches!(self, Kind::Legacy | Kind::Pae | Kind::Long)
    }

    fn random(rng: &mut Rng) -> Self {
        match rng.u8(..16) {
            0..2 => Kind::Real,
            2..4 => Kind::Flat,
            4..6 => Kind::Legacy,
            6..8 => Kind::Pae,
            _ => Kind::Long,
        }
    }

    /// The code size of a block.
    fn bits(self, rng: &mut Rng) -> u32 {
        let odd = rng.u8(..8) == 0;
        match self {
            Kind::Real => 16,
            Kind::Long if !odd => 64,
            Kind::Long if rng.bool() => 32,
            Kind::Flat | Kind::Legacy | Kind::Pae if !odd => 32,
            _ => 16,
        }
    }
}

impl Program {
    /// The program of a seed.
    pub(super) fn generate(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let kind = Kind::random(rng);
        let user = kind != Kind::Real && rng.bool();
        let sizes: Vec<u32> = (0..rng.usize(3..10)).map(|_| kind.bits(rng)).collect();
        let (cr0, cr4) = control(rng, kind);
        // With translations kept over a load of CR3, nothing may be taken from a table that is
        // not in use: that would be seen or not, as translations happen to be evicted.
        let keeps = cr4 & cr4::PCIDE != 0 && rng.bool();
        let mut blocks = Writer::new(rng, kind, user, keeps, &sizes).write();
        while !place(&mut blocks, |at| gap(rng, at)) {}
        let budget = rng.u64(LONGEST / 8..LONGEST);
        let syscall = blocks.iter().find(|block| block.bits == 64).map_or(CODE, |block| block.at);
        Self {
            seed,
            kind,
            user,
            regs: std::array::from_fn(|_| value(rng) >> if kind == Kind::Long { 0 } else { 32 }),
            vectors: [(); 2].map(|()| {
                std::array::from_fn(|_| u128::from(value(rng)) << 64 | u128::from(value(rng)))
            }),
            mxcsr: 0x1f80 ^ if rng.u8(..4) == 0 { rng.u32(..512) << 7 } else { 0 },
            rflags: first_flags(rng),
            cr0,
            cr4,
            xcr0: if rng.u8(..8) == 0 { xcr0::X87 | xcr0::SSE } else { EVERYTHING },
            syscall,
            pages: pages(rng, kind),
            events: events(rng, budget, &blocks),
            budget,
            blocks,
        }
    }

    /// How many items there are.
    pub(super) fn items(&self) -> usize {
        self.blocks.iter().map(|block| block.items.len()).sum()
    }
}

/// Most blocks follow the one before at once; some begin shortly before the end of a page.
fn gap(rng: &mut Rng, at: u64) -> u64 {
    match rng.u8(..4) {
        0 => (0xfff - (at & 0xfff)).saturating_sub(rng.u64(..48)),
        1 => rng.u64(..64),
        _ => 0,
    }
}

fn first_flags(rng: &mut Rng) -> u64 {
    let enabled = if rng.u8(..4) == 0 { 0 } else { rflags::IF };
    let iopl = if rng.u8(..4) == 0 { rflags::IOPL } else { 0 };
    let rare = if rng.u8(..32) == 0 { rflags::TF } else { 0 };
    rflags::FIXED | rng.u64(..) & rflags::STATUS | enabled | iopl | rare
}

/// Bits of CR0 and CR4 that the kind leaves open.
fn control(rng: &mut Rng, kind: Kind) -> (u64, u64) {
    let mut some = |bits: &[(u64, u8)]| {
        bits.iter().filter(|(_, of)| rng.u8(..16) < *of).fold(0, |sum, (bit, _)| sum | bit)
    };
    let cr0 = cr0::ET | some(&[(cr0::WP, 12), (cr0::NE, 14), (cr0::AM, 2), (cr0::MP, 8)]);
    let mut cr4 = some(&[
        (cr4::OSFXSR, 15),
        (cr4::OSXMMEXCPT, 12),
        (cr4::OSXSAVE, 14),
        (cr4::TSD, 2),
        (cr4::DE, 4),
    ]);
    if kind.paged() {
        cr4 |= some(&[(cr4::PGE, 8), (cr4::PSE, 8)]);
    }
    if kind == Kind::Long {
        cr4 |= some(&[(cr4::PCIDE, 8), (cr4::FSGSBASE, 8), (cr4::UMIP, 4)]);
    }
    (cr0, cr4)
}

/// The last-level entries of both sets.
fn pages(rng: &mut Rng, kind: Kind) -> [Vec<u64>; 2] {
    if !kind.paged() {
        return Default::default();
    }
    let wide = kind != Kind::Legacy;
    let mut first = vec![0; PAGES as usize];
    let user = entry::P | entry::U;
    for page in 0..STACK_END >> 12 {
        let at = page << 12;
        let (rights, of) = match at {
            0..CODE => (entry::P | entry::W, 0),
            CODE..CODE_END => (user | if rng.u8(..4) == 0 { 0 } else { entry::W }, 2),
            _ => (user | entry::W, 3),
        };
        first[page as usize] = at | rights;
        let mut alias = |base: u64, rights: u64| {
            let nx = if wide && rng.u8(..8) < of { entry::NX } else { 0 };
            first[(base >> 12 | page) as usize] = at | rights | nx;
        };
        alias(ALIAS, rights | entry::W);
        alias(READ_ONLY, rights & !entry::W);
    }
    for (n, tables) in TABLES.into_iter().enumerate() {
        first[(WINDOW >> 12) as usize + n] = (tables + 0x3000) | entry::P | entry::W;
    }
    let mut second = first.clone();
    let (from, to) = ((DATA >> 12) as usize, (DATA_END >> 12) as usize);
    for page in &mut second[from..to] {
        if rng.u8(..4) == 0 {
            *page = first[rng.usize(from..to)];
        }
    }
    [first, second]
}

/// What happens from outside.
fn events(rng: &mut Rng, budget: u64, blocks: &[Block]) -> Vec<(u64, Event)> {
    let mut events: Vec<(u64, Event)> = (0..rng.u8(..8))
        .map(|_| {
            let event = match rng.u8(..8) {
                0..4 => Event::Interrupt,
                4 => Event::Nmi,
                5 => {
                    let block = &blocks[rng.usize(..blocks.len())];
                    Event::Dma(block.at + rng.u64(..block.len()), rng.u8(..))
                }
                _ => Event::Look,
            };
            (rng.u64(..budget), event)
        })
        .collect();
    events.sort_by_key(|(at, _)| *at);
    events
}
