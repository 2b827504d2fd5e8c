//! What the loaders' tests share.

use brolga_mmu::{GuestPhys, PhysMap, Ram};

use super::space::GuestSpace;
use super::{BootState, KernelImage, LoadError, load};
use crate::firmware::{self, FirmwareInfo, MemoryLayout};

/// RAM with firmware tables, and nothing else.
pub(super) struct Pc {
    map: PhysMap,
    layout: MemoryLayout,
    tables: FirmwareInfo,
}

impl Pc {
    pub(super) fn new(ram: u64) -> Self {
        let layout = MemoryLayout::new(ram).expect("a legal size");
        let mut map = PhysMap::new(Ram::new(layout.backed_bytes()).expect("host memory"));
        for (at, len) in layout.ram_regions() {
            map.add_ram(at, len).expect("the regions are what the RAM was made for");
        }
        let tables = firmware::install(&map, &layout, 1).expect("the tables fit");
        Self { map, layout, tables }
    }

    pub(super) fn space(&self) -> GuestSpace<'_> {
        GuestSpace::new(&self.map, &self.layout)
    }

    pub(super) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.map.read_slice(GuestPhys(at), &mut bytes).expect("RAM");
        bytes
    }

    pub(super) fn u32_at(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.read(at, 4).try_into().expect("4 bytes"))
    }

    pub(super) fn u64_at(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.read(at, 8).try_into().expect("8 bytes"))
    }

    pub(super) fn rsdp(&self) -> GuestPhys {
        self.tables.rsdp
    }

    pub(super) fn map_mut(&mut self) -> &mut PhysMap {
        &mut self.map
    }

    pub(super) fn load(
        &self,
        bytes: &[u8],
        initrd: Option<&[u8]>,
        cmdline: &str,
    ) -> Result<BootState, LoadError> {
        load(&self.map, &KernelImage { bytes, initrd, cmdline }, &self.layout, &self.tables)
    }

    /// The error of an image that must not load, as its message.
    pub(super) fn refusal(&self, bytes: &[u8]) -> String {
        let message = self.load(bytes, None, "").expect_err("this image must not load").to_string();
        assert!(!message.contains('\n'), "more than a line: {message}");
        message
    }

    /// Loads every truncation of the head of `image` and many damaged copies of it. They may
    /// load or not; what counts is that nothing panics, and that refusals are one line.
    pub(super) fn survives_damage(&self, image: &[u8], head: usize) {
        const COPIES: u32 = 3_000;
        for len in 0..head.min(image.len()) {
            self.refusal_is_one_line(&image[..len], "truncated", len as u64);
        }
        let mut random = SplitMix(image.len() as u64);
        for _ in 0..COPIES {
            let seed = random.0;
            let mut copy = image.to_vec();
            for _ in 0..1 + random.below(4) {
                let at = random.below(head.min(copy.len()) as u64) as usize;
                match random.below(3) {
                    0 => copy[at] ^= 1 << random.below(8),
                    1 => copy[at] = random.next() as u8,
                    _ => copy[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
                }
            }
            self.refusal_is_one_line(&copy, "seed", seed);
        }
    }

    fn refusal_is_one_line(&self, image: &[u8], how: &str, which: u64) {
        if let Err(error) = self.load(image, Some(&[7; 5000]), "console=ttyS0") {
            let message = error.to_string();
            assert!(!message.contains('\n') && !message.is_empty(), "{how} {which}: {message}");
        }
    }
}

/// Sebastiano Vigna's splitmix64: a sequence that depends on the seed alone.
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Writes `bytes` into `image` at `at`.
pub(super) fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}
