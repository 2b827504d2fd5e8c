//! From items to bytes: places and references.

use super::layout::{ASTRAY, CODE, CODE_END};

/// A piece of a program that stays or goes as a whole: an instruction with what sets up its
/// operands, for the most part.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    pub(super) bytes: Vec<u8>,
    pub(super) fixes: Vec<Fix>,
}

/// An item's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) block: usize,
    pub(super) item: usize,
}

/// A field that depends on places: what it holds, plus the label's address, less its own item's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fix {
    /// Its offset in the item.
    pub(super) at: usize,
    /// Its length in bytes.
    pub(super) width: usize,
    pub(super) label: Option<Label>,
    pub(super) relative: bool,
}

/// A straight run of items of one code size.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The code size: 16, 32 or 64.
    pub(super) bits: u32,
    /// The linear address.
    pub(super) at: u64,
    pub(super) items: Vec<Item>,
}

impl Item {
    pub(super) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), fixes: Vec::new() }
    }

    /// Appends a field of `width` bytes that depends on a place.
    pub(super) fn field(mut self, width: usize, value: u64, label: Label, relative: bool) -> Self {
        self.fixes.push(Fix { at: self.bytes.len(), width, label: Some(label), relative });
        self.bytes.extend(&value.to_le_bytes()[..width]);
        self
    }

    /// Appends a displacement to `label` that ends the instruction.
    pub(super) fn to(self, width: usize, label: Label) -> Self {
        let end = (self.bytes.len() + width) as u64;
        self.field(width, end.wrapping_neg(), label, true)
    }

    /// Appends bytes.
    pub(super) fn then(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.bytes.extend_from_slice(bytes.as_ref());
        self
    }

    /// The same number of bytes that do nothing.
    pub(super) fn nothing(&self) -> Self {
        const NOP: u8 = 0x90;
        Self::new(vec![NOP; self.bytes.len()])
    }
}

impl Block {
    /// Its bytes.
    pub(super) fn len(&self) -> u64 {
        self.items.iter().map(|item| item.bytes.len() as u64).sum()
    }

    /// The address of each item.
    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> {
        self.items.iter().scan(self.at, |at, item| {
            let here = *at;
            *at += item.bytes.len() as u64;
            Some(here)
        })
    }

    fn address(&self, item: usize) -> u64 {
        self.addresses().nth(item).unwrap_or(self.at)
    }
}

/// Gives each block a place behind the one before, as far from it as `gap` says for an address.
/// False if they do not fit.
pub(super) fn place(blocks: &mut [Block], mut gap: impl FnMut(u64) -> u64) -> bool {
    let mut next = CODE;
    for block in blocks {
        block.at = next + gap(next);
        next = block.at + block.len();
    }
    next <= CODE_END
}

/// The program's bytes, from [`CODE`] on.
pub(super) fn image(blocks: &[Block]) -> Vec<u8> {
    let mut image = vec![ASTRAY; (CODE_END - CODE) as usize];
    for block in blocks {
        for (item, at) in block.items.iter().zip(block.addresses()) {
            let mut bytes = item.bytes.clone();
            for fix in &item.fixes {
                resolve(&mut bytes, fix, at, blocks);
            }
            let start = (at - CODE) as usize;
            image[start..start + bytes.len()].copy_from_slice(&bytes);
        }
    }
    image
}

fn resolve(bytes: &mut [u8], fix: &Fix, at: u64, blocks: &[Block]) {
    let field = &mut bytes[fix.at..fix.at + fix.width];
    let mut value = [0; 8];
    value[..fix.width].copy_from_slice(field);
    let target = fix.label.map_or(0, |label| blocks[label.block].address(label.item));
    let own = if fix.relative { at } else { 0 };
    let value = u64::from_le_bytes(value).wrapping_add(target).wrapping_sub(own);
    field.copy_from_slice(&value.to_le_bytes()[..fix.width]);
}
