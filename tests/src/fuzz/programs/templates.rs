//! Blocks of items: single instructions, and templates for what takes several that fit together.

use brolga_cpu::vcpu::{cr0, cr4};
use fastrand::Rng;

use crate::operands::value;

use super::environment::{cr3, entry};
use super::generate::Kind;
use super::instructions::{instruction, pick, string, target};
use super::layout::*;
use super::place::{Block, Item, Label};

/// Items of a block besides its end.
const ITEMS: std::ops::Range<usize> = 2..14;

/// Writes the blocks of a program.
pub(super) struct Writer<'a> {
    rng: &'a mut Rng,
    kind: Kind,
    user: bool,
    /// Loads of CR3 keep translations, so mappings are only added.
    keeps: bool,
    sizes: &'a [u32],
    blocks: Vec<Block>,
    items: Vec<Item>,
}

impl<'a> Writer<'a> {
    /// A writer of blocks with these code sizes.
    pub(super) fn new(
        rng: &'a mut Rng,
        kind: Kind,
        user: bool,
        keeps: bool,
        sizes: &'a [u32],
    ) -> Self {
        Self { rng, kind, user, keeps, sizes, blocks: Vec::new(), items: Vec::new() }
    }

    pub(super) fn write(mut self) -> Vec<Block> {
        for &bits in self.sizes {
            let count = self.rng.usize(ITEMS);
            while self.items.len() < count {
                self.item(bits);
            }
            let end = self.anywhere();
            self.leave(bits, end);
            let items = std::mem::take(&mut self.items);
            self.blocks.push(Block { bits, at: 0, items });
        }
        self.blocks
    }

    fn item(&mut self, bits: u32) {
        // In the order of the arms.
        const WEIGHTS: [u32; 14] = [60, 5, 4, 4, 4, 5, 5, 3, 2, 3, 3, 2, 4, 3];
        match pick(self.rng, &WEIGHTS) {
            0 => self.plain(bits),
            1 => self.items.push(string(self.rng, self.kind, bits)),
            2 => self.repeat(bits),
            3 => self.condition(bits),
            4 => self.call(bits),
            5 => self.modify_code(bits),
            6 => self.change_page(bits),
            7 => self.load_cr3(bits),
            8 => self.change_control(bits),
            9 => self.change_level(bits),
            10 => self.flags(bits),
            11 => self.segment(bits),
            12 => self.neighbours(bits),
            _ => self.odd(bits),
        }
    }

    fn plain(&mut self, bits: u32) {
        let item = instruction(self.rng, self.kind, bits);
        self.items.push(item);
    }

    fn push(&mut self, bytes: impl Into<Vec<u8>>) {
        self.items.push(Item::new(bytes));
    }

    /// The beginning of any block.
    fn anywhere(&mut self) -> Label {
        Label { block: self.rng.usize(..self.sizes.len()), item: 0 }
    }

    /// The next item.
    fn next(&self) -> Label {
        Label { block: self.blocks.len(), item: self.items.len() }
    }

    /// A prefix for operands of 32 bits.
    fn wide(bits: u32) -> &'static [u8] {
        if bits == 16 { &[0x66] } else { &[] }
    }

    /// Bytes of an offset in code of this size.
    fn width(bits: u32) -> usize {
        if bits == 16 { 2 } else { 4 }
    }

    /// Everything of an instruction up to an absolute address, and the bytes of that: `opcode`
    /// with `extension` in the register field of its ModRM. In real mode the address is in CS.
    fn absolute(&self, bits: u32, opcode: &[u8], extension: u8) -> (Vec<u8>, usize) {
        let field = extension << 3;
        match (bits, self.kind) {
            (64, _) => ([opcode, &[field | 4, 0x25]].concat(), 4),
            (32, _) => ([opcode, &[field | 5]].concat(), 4),
            (_, Kind::Real) => ([&[0x2e], opcode, &[field | 6]].concat(), 2),
            _ => ([&[0x67], opcode, &[field | 5]].concat(), 4),
        }
    }

    /// The end of a block: a way to `to`.
    fn leave(&mut self, bits: u32, to: Label) {
        let size = self.sizes[to.block];
        if size != bits {
            return self.far(bits, to);
        }
        let width = Self::width(bits);
        let item = match self.rng.u8(..6) {
            // Push of the offset, RET.
            0 => Item::new([0x68]).field(width, 0, to, false).then([0xc3]),
            // MOV (E)AX, offset; JMP (E)AX.
            1 => Item::new([0xb8]).field(width, 0, to, false).then([0xff, 0xe0]),
            // JMP through memory behind the instruction.
            2 if self.kind != Kind::Real || bits == 16 => self.through_memory(bits, 4, to),
            _ => Item::new([0xe9]).to(width, to),
        };
        self.items.push(item);
    }

    /// JMP or CALL (by the `extension` of FF) through a pointer behind the instruction.
    fn through_memory(&self, bits: u32, extension: u8, to: Label) -> Item {
        let width = if bits == 64 { 8 } else { Self::width(bits) };
        let (bytes, address) = self.absolute(bits, &[0xff], extension);
        let end = (bytes.len() + address) as u64;
        Item::new(bytes).field(address, end, self.next(), false).field(width, 0, to, false)
    }

    /// A far jump to a block of another code size.
    fn far(&mut self, bits: u32, to: Label) {
        let selector = self.selector(to.block).to_le_bytes();
        let item = if bits == 64 {
            // JMP FAR [RIP]
            Item::new([0xff, 0x2d, 0, 0, 0, 0]).field(4, 0, to, false).then(selector)
        } else {
            Item::new([0xea]).field(Self::width(bits), 0, to, false).then(selector)
        };
        self.items.push(item);
    }

    /// The code segment of a block at the level that the program begins at, mostly.
    fn selector(&mut self, block: usize) -> u16 {
        let level = usize::from(self.user != (self.rng.u8(..8) == 0));
        match self.sizes[block] {
            64 => CODE64[level],
            32 => CODE32[level],
            _ if self.kind == Kind::Real => 0,
            _ => CODE16[level],
        }
    }

    /// A loop over a few items: MOV ECX, count; ...; DEC ECX; JNZ.
    fn repeat(&mut self, bits: u32) {
        let count = self.rng.u32(1..40).to_le_bytes();
        self.push([Self::wide(bits), &[0xb9], &count].concat());
        let top = self.next();
        for _ in 0..self.rng.u8(1..6) {
            match self.rng.u8(..10) {
                0 => self.modify_code(bits),
                1 => self.call(bits),
                2 => self.condition(bits),
                _ => self.plain(bits),
            }
        }
        if self.rng.bool() {
            let decrement = if bits == 64 { &[0xff, 0xc9][..] } else { &[0x49] };
            let item = Item::new([Self::wide(bits), decrement, &[0x0f, 0x85]].concat());
            self.items.push(item.to(Self::width(bits), top));
        } else {
            // LOOP over the JMP that leaves.
            let jump = if bits == 16 { 3 } else { 5 };
            let item = Item::new([0xe2, 2, 0xeb, jump, 0xe9]);
            self.items.push(item.to(Self::width(bits), top));
        }
    }

    /// A conditional jump, mostly to the near future.
    fn condition(&mut self, bits: u32) {
        let to = self.same_size(bits);
        let condition = 0x80 | self.rng.u8(..16);
        let item = match self.rng.u8(..4) {
            // J(E)CXZ over a short jump over the way there.
            0 => Item::new([0xe3, 2, 0xeb, if bits == 16 { 3 } else { 5 }, 0xe9]),
            // A condition over the next bytes, into the middle of nothing else.
            1 => Item::new([condition & 0x7f, 2, 0x90, 0x90, 0x0f, condition]),
            _ => Item::new([0x0f, condition]),
        };
        let item = item.to(Self::width(bits), to);
        self.items.push(item);
    }

    /// The beginning of a block with this code size.
    fn same_size(&mut self, bits: u32) -> Label {
        let here = Label { block: self.blocks.len(), item: 0 };
        let to = self.anywhere();
        if self.sizes[to.block] == bits { to } else { here }
    }

    fn call(&mut self, bits: u32) {
        let to = self.same_size(bits);
        let item = match self.rng.u8(..4) {
            // RET, with and without an operand.
            0 => Item::new([0xc3]),
            1 => Item::new([0xc2, self.rng.u8(..32), 0]),
            2 => self.through_memory(bits, 2, to),
            _ => Item::new([0xe8]).to(Self::width(bits), to),
        };
        self.items.push(item);
    }

    /// A store into code: the next item, this block, another one; directly or by the alias.
    fn modify_code(&mut self, bits: u32) {
        let mut label = match self.rng.u8(..4) {
            0 => Label { item: self.items.len() + 1, ..self.next() },
            1 => Label { item: self.rng.usize(..=self.items.len()), ..self.next() },
            _ => self.anywhere(),
        };
        if let Some(block) = self.blocks.get(label.block) {
            label.item = self.rng.usize(..block.items.len());
        }
        let aliased = self.kind.paged() && self.rng.u8(..3) == 0;
        let addend = self.rng.u64(..6) + if aliased { ALIAS } else { 0 };
        let byte = match self.rng.u8(..4) {
            0 => 0x90,
            1 => 0x40 | self.rng.u8(..16),
            _ => self.rng.u8(..),
        };
        let (opcode, extension, wide): (&[u8], u8, bool) = match self.rng.u8(..8) {
            0..4 => (&[0xc6], 0, false),    // MOV m8, imm8
            4 => (&[0x80], 6, false),       // XOR m8, imm8
            5 => (&[0xf0, 0x80], 0, false), // LOCK ADD m8, imm8
            _ => (&[0xc7], 0, true),        // MOV m32, imm32
        };
        let prefixed = if wide { [Self::wide(bits), opcode].concat() } else { opcode.to_vec() };
        let (bytes, width) = self.absolute(bits, &prefixed, extension);
        let immediate = if wide { vec![byte, 0x90, 0x90, 0x90] } else { vec![byte] };
        self.items.push(Item::new(bytes).field(width, addend, label, false).then(immediate));
    }

    /// A store to an entry of a page table, and what architecture demands after it: INVLPG or a
    /// load of CR3 where something was taken away; nothing where it was added.
    fn change_page(&mut self, bits: u32) {
        if !self.kind.paged() {
            return self.plain(bits);
        }
        let added = self.keeps || self.rng.u8(..3) == 0;
        let page = match self.rng.u8(..8) {
            0 if !added => (CODE >> 12) + self.rng.u64(..4),
            1 if !added => ((ALIAS + CODE) >> 12) + self.rng.u64(..4),
            2..5 if !added => (DATA >> 12) + self.rng.u64(..8),
            5..7 if !added => ((ALIAS + DATA) >> 12) + self.rng.u64(..8),
            _ => (UNMAPPED >> 12) + self.rng.u64(..16),
        };
        let frame = match self.rng.u8(..4) {
            0 => CODE + (self.rng.u64(..4) << 12),
            _ => DATA + (self.rng.u64(..8) << 12),
        };
        let rights = match self.rng.u8(..8) {
            // Accessed and dirty: a store that changes nothing is no change.
            _ if added => entry::P | entry::U | entry::W | entry::A | entry::D,
            0 => 0,
            1 => entry::P | entry::U,
            2 => entry::P | entry::W,
            _ => entry::P | entry::U | entry::W,
        };
        // What has been mapped before is mapped alike, or it would have to be dropped.
        let frame = if added { DATA + ((page & 7) << 12) } else { frame };
        let size = if self.kind == Kind::Legacy { 4 } else { 8 };
        let set = if self.rng.u8(..4) == 0 { 0x1000 } else { 0 };
        let at = (WINDOW + set + page * size) as u32;
        let opcode = [Self::wide(bits), &[0xc7]].concat();
        let (bytes, _) = self.absolute(bits, &opcode, 0);
        let store = [&bytes[..], &at.to_le_bytes(), &((frame | rights) as u32).to_le_bytes()];
        let mut bytes = store.concat();
        if !added {
            if self.rng.bool() {
                let (invlpg, _) = self.absolute(bits, &[0x0f, 0x01], 7);
                bytes.extend(invlpg);
                bytes.extend(((page << 12) as u32).to_le_bytes());
            } else {
                // MOV RAX, CR3; MOV CR3, RAX
                bytes.extend([0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]);
            }
        }
        self.push(bytes);
    }

    /// MOV to CR3 of one of the sets of tables, with PCIDs where they may be.
    fn load_cr3(&mut self, bits: u32) {
        if !self.kind.paged() {
            return self.plain(bits);
        }
        let set = self.rng.usize(..2);
        let tables = cr3(self.kind, set);
        if bits == 64 {
            // A PCID belongs to one set: translations of one would serve the other.
            let pcid = 2 * self.rng.u64(..8) + set as u64;
            let keep = if self.keeps { self.rng.u64(..2) << 63 } else { 0 };
            let pcid = if self.keeps || self.rng.u8(..4) == 0 { pcid } else { 0 };
            let value = tables | pcid | keep;
            self.push([&[0x48, 0xb8][..], &value.to_le_bytes(), &[0x0f, 0x22, 0xd8]].concat());
        } else {
            let value = (tables as u32).to_le_bytes();
            self.push([Self::wide(bits), &[0xb8], &value, &[0x0f, 0x22, 0xd8]].concat());
        }
    }

    /// Flips a bit of CR0 or CR4 that leaves the mode as it is.
    fn change_control(&mut self, bits: u32) {
        let choices = [
            (0, cr0::WP),
            (0, cr0::TS),
            (0, cr0::AM),
            (0, cr0::NE),
            (0, cr0::MP),
            (4, cr4::OSFXSR),
            (4, cr4::TSD),
            (4, cr4::PGE),
            (4, cr4::SMAP),
            (4, cr4::FSGSBASE),
            (4, cr4::OSXMMEXCPT),
            (4, cr4::DE),
        ];
        let (register, bit) = choices[self.rng.usize(..choices.len())];
        let modrm = 0xc0 | register << 3;
        let bit = (bit as u32).to_le_bytes();
        // MOV EAX, CRn; XOR EAX, bit; MOV CRn, EAX
        let flip = [Self::wide(bits), &[0x35], &bit].concat();
        self.push([&[0x0f, 0x20, modrm], &flip[..], &[0x0f, 0x22, modrm]].concat());
    }

    /// Ways between levels 0 and 3.
    fn change_level(&mut self, bits: u32) {
        let to = self.anywhere();
        let size = self.sizes[to.block];
        let code = match size {
            64 => CODE64[1],
            32 => CODE32[1],
            _ => CODE16[1],
        };
        match self.rng.u8(..6) {
            0 => self.push([0xcd, SERVICE]),
            1 => self.push([0x0f, 0x05]), // SYSCALL
            2 if bits == 64 => {
                // MOV ECX, offset; MOV R11D, flags; SYSRET, to 64-bit code or not.
                let wide: &[u8] = if size == 64 { &[0x48] } else { &[] };
                let flags = [0x41, 0xbb, 0x46, 2, 0, 0];
                let item = Item::new([0xb9]).field(4, 0, to, false).then(flags);
                self.items.push(item.then([wide, &[0x0f, 0x07]].concat()));
            }
            _ if self.kind == Kind::Real => self.push([0xcd, 0x21]),
            3 if bits == 64 => self.push([0x0f, 0x01, 0xf8]), // SWAPGS
            _ => {
                // PUSH SS, ESP, flags, CS, EIP; IRET.
                let stack = if bits != 64 && self.rng.u8(..4) == 0 { DATA16 } else { DATA32 }[1];
                let wide: &[u8] = Self::wide(bits);
                let push = [wide, &[0x68]].concat();
                let number = |value: u32| [&push[..], &value.to_le_bytes()].concat();
                let flags = 0x202 | self.rng.u32(..) & 0xcd5;
                let before = [
                    number(stack.into()),
                    number((STACK_TOP - self.rng.u64(..64)) as u32),
                    number(flags),
                    number(code.into()),
                    push.clone(),
                ];
                let iret = if bits == 64 { &[0x48, 0xcf][..] } else { &[0xcf] };
                let item = Item::new(before.concat()).field(4, 0, to, false);
                self.items.push(item.then([wide, iret].concat()));
            }
        }
    }

    /// Reads and writes of flags.
    fn flags(&mut self, bits: u32) {
        let set = self.rng.u16(..0x1000) & if self.rng.u8(..32) == 0 { 0x1fff } else { 0xed5 };
        let [low, high] = (set | 0x202).to_le_bytes();
        let prefix: &[u8] = Self::wide(bits);
        let any = self.rng.u8(..64);
        match self.rng.u8(..5) {
            0 => self.push([0x9f, 0x9c, 0x58]), // LAHF; PUSHF; POP AX
            1 => self.push([prefix, &[0x68, low, high, 0, 0], prefix, &[0x9d]].concat()),
            2 => self.push([0x0f, 0x90 | any & 15, 0xc2]), // SETcc DL
            3 => self.push([0xd1, 0xd0 | any & 15]),       // RCL or RCR by 1
            _ => self.push([0x9e, 0x11, 0xc0 | any & 0x1b]), // SAHF; ADC
        }
    }

    /// Loads of segment registers.
    fn segment(&mut self, bits: u32) {
        let selectors = [DATA32, DATA16, CODE32, CODE64, [0, 0], [TASK, 0x73]];
        let selector = match self.kind {
            Kind::Real => ((DATA >> 4) as u16).wrapping_add(self.rng.u16(..0x400)),
            _ => selectors[pick(self.rng, &[24, 2, 2, 1, 1, 1])][usize::from(self.user)],
        };
        let [low, high] = selector.to_le_bytes();
        // ES, SS, DS, FS, GS: SS is the stack's.
        let register = [0, 0, 3, 3, 4, 5, 4, 5, 2][self.rng.usize(..9)];
        if register == 2 && self.kind == Kind::Real {
            // MOV AX, SS; MOV SS, AX and what it shadows.
            return self.push([0x8c, 0xd0, 0x8e, 0xd0]);
        }
        let high_half: &[u8] = if bits == 16 { &[] } else { &[0, 0] };
        let load = [&[0xb8, low, high], high_half, &[0x8e, 0xc0 | register << 3]].concat();
        self.push(load);
    }

    /// Accesses at constant distances from one address, often on both sides of a page's end.
    fn neighbours(&mut self, bits: u32) {
        let mut base = target(self.rng, self.kind, bits) as u32;
        if self.rng.bool() {
            base = base & !0xfff | self.rng.u32(0xfd0..0xfff);
        }
        // MOV EBX, base
        self.push([Self::wide(bits), &[0xbb], &base.to_le_bytes()].concat());
        let address: &[u8] = if bits == 16 { &[0x67] } else { &[] };
        for _ in 0..self.rng.usize(2..7) {
            let distance = self.rng.u8(..48).wrapping_sub(8);
            // MOV m8, AL; MOV AL, m8; MOV m, EAX; MOV EAX, m; ADD m, EAX; CMP EAX, m of [EBX + distance]
            let opcode = [0x88, 0x8a, 0x89, 0x8b, 0x01, 0x3b, 0x50, 0x58][self.rng.usize(..8)];
            match opcode {
                // PUSH, POP
                0x50 | 0x58 => self.push([opcode]),
                _ if bits == 64 && self.rng.bool() => self.push([0x48, opcode, 0x43, distance]),
                _ => self.push([address, &[opcode, 0x43, distance]].concat()),
            }
        }
    }

    /// Instructions that trap, wait, or leave for rare paths.
    fn odd(&mut self, bits: u32) {
        let port = self.rng.u8(..);
        let choices: [&[u8]; 24] = [
            &[0x0f, 0x0b],             // UD2
            &[0xcc],                   // INT3
            &[0xcd, 0x10],             // INT 10h
            &[0xf4],                   // HLT
            &[0xfa],                   // CLI
            &[0xfb, 0x90],             // STI; NOP
            &[0xe4, port],             // IN AL, imm8
            &[0xe6, port],             // OUT imm8, AL
            &[0x31, 0xc0, 0x0f, 0xa2], // XOR EAX, EAX; CPUID
            &[0x0f, 0x31],             // RDTSC
            &[0x31, 0xd2, 0xf7, 0xf2], // XOR EDX, EDX; DIV EDX
            &[0x0f, 0x06],             // CLTS
            &[0x9b],                   // WAIT
            &[0x0f, 0xae, 0xf0],       // MFENCE
            &[0x0f, 0x01, 0xd0],       // XGETBV
            &[0xd7],                   // XLAT
            &[0xc8, 0x10, 0, 0, 0xc9], // ENTER 16, 0; LEAVE
            &[0xce],                   // INTO
            &[0x37],                   // AAA
            &[0x27],                   // DAA
            &[0xd4, 7],                // AAM
            &[0xd5, 9],                // AAD
            &[0x60, 0x61],             // PUSHA; POPA
            &[0x0f, 0x09],             // WBINVD
        ];
        let chosen = self.rng.usize(..choices.len() + 2);
        match choices.get(chosen) {
            Some(bytes) => self.push(*bytes),
            None if bits == 64 || self.kind == Kind::Real => {
                let value = value(self.rng) as u32;
                // MOV EAX, value; PUSH; POP.
                let load = [Self::wide(bits), &[0xb8], &value.to_le_bytes(), &[0x50]].concat();
                self.push([load, vec![0x58]].concat());
            }
            None => {
                // BOUND EAX, [address]
                let at = (target(self.rng, self.kind, 32) as u32).to_le_bytes();
                let (bound, _) = self.absolute(bits, &[0x62], 0);
                self.push([&bound[..], &at].concat());
            }
        }
    }
}
