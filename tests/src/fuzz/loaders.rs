//! Hostile kernel images: headers that a loader knows, with fields and sizes that are wrong.

use fastrand::Rng;

/// The largest image, a little above the 32 KiB of the largest setup code of a bzImage.
const LARGEST: usize = 64 * 1024;

/// The image of a seed.
pub(super) fn generate(seed: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed);
    let size = rng.usize(..LARGEST);
    let mut image: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(size).collect();
    match rng.u8(..5) {
        0 => {}
        1 => put(&mut image, 0, &elf(&mut rng, 2, 62)),
        2 => put(&mut image, 0, &elf(&mut rng, 1, 3)),
        3 => bzimage(&mut image, &mut rng),
        _ => multiboot(&mut image, &mut rng),
    }
    if rng.bool() {
        mutate(&mut image, &mut rng);
    }
    image
}

/// Writes what fits: truncated headers are cases too.
fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in image.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// A value that is often at an edge.
fn edge(rng: &mut Rng) -> u64 {
    let edges = [0, 1, 0x1000, 0x10_0000, 0x7fff_ffff, 0xffff_ffff, u64::MAX - 0xfff, u64::MAX];
    if rng.bool() { edges[rng.usize(..edges.len())] } else { rng.u64(..0x400_0000) }
}

/// An ELF executable header with program headers behind it (System V ABI, chapter 4 and 5).
fn elf(rng: &mut Rng, class: u8, machine: u16) -> Vec<u8> {
    let is_64 = class == 2;
    let count = rng.u16(..5);
    let mut header = vec![0x7f, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (header_size, entry_size): (u16, u16) = if is_64 { (64, 56) } else { (52, 32) };
    let word = |bytes: &mut Vec<u8>, value: u64| {
        let length = if is_64 { 8 } else { 4 };
        bytes.extend_from_slice(&value.to_le_bytes()[..length]);
    };
    header.extend(2_u16.to_le_bytes()); // ET_EXEC
    header.extend(machine.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    for value in [edge(rng), u64::from(header_size), 0] {
        word(&mut header, value); // entry, program headers, section headers
    }
    header.extend([0; 4]);
    for value in [header_size, entry_size, count, 0, 0, 0] {
        header.extend(value.to_le_bytes());
    }
    for _ in 0..count {
        let kind: u32 = if rng.u8(..4) == 0 { 4 } else { 1 }; // PT_NOTE or PT_LOAD
        header.extend(kind.to_le_bytes());
        // Offset, addresses, sizes, alignment; the flags lie at another place in each class.
        if is_64 {
            header.extend(7_u32.to_le_bytes());
        }
        for _ in 0..5 {
            word(&mut header, edge(rng));
        }
        if !is_64 {
            header.extend(7_u32.to_le_bytes());
        }
        word(&mut header, edge(rng));
    }
    header
}

/// The setup header (Linux `Documentation/arch/x86/boot.rst`).
fn bzimage(image: &mut [u8], rng: &mut Rng) {
    let byte = |rng: &mut Rng| [rng.u8(..)];
    put(image, 0x1f1, &byte(rng)); // setup_sects
    put(image, 0x1f4, &(edge(rng) as u32).to_le_bytes()); // syssize
    put(image, 0x1fe, &[0x55, 0xaa]);
    put(image, 0x202, b"HdrS");
    put(image, 0x206, &rng.u16(0x1ff..0x210).to_le_bytes()); // version
    put(image, 0x211, &byte(rng)); // loadflags
    put(image, 0x214, &(edge(rng) as u32).to_le_bytes()); // code32_start
    put(image, 0x230, &(edge(rng) as u32).to_le_bytes()); // kernel_alignment
    put(image, 0x238, &(edge(rng) as u32).to_le_bytes()); // cmdline_size
    put(image, 0x258, &edge(rng).to_le_bytes()); // pref_address
    put(image, 0x260, &(edge(rng) as u32).to_le_bytes()); // init_size
}

/// A multiboot header, version 1 or 2, with addresses of its own.
fn multiboot(image: &mut [u8], rng: &mut Rng) {
    let at = rng.usize(..2048) * 4;
    let mut fields = if rng.bool() {
        let flags = rng.u32(..) & 0x0001_0003;
        vec![0x1bad_b002, flags, 0_u32.wrapping_sub(0x1bad_b002_u32.wrapping_add(flags))]
    } else {
        let length = edge(rng) as u32;
        let sum = 0xe852_50d6_u32.wrapping_add(length);
        vec![0xe852_50d6, 0, length, 0_u32.wrapping_sub(sum)]
    };
    fields.extend((0..8).map(|_| edge(rng) as u32));
    let bytes: Vec<u8> = fields.into_iter().flat_map(u32::to_le_bytes).collect();
    put(image, at, &bytes);
}

fn mutate(image: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..rng.u8(1..16) {
        let at = rng.usize(..1024);
        put(image, at, &[rng.u8(..)]);
    }
    if rng.bool() {
        image.truncate(rng.usize(..=image.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::generate;

    #[test]
    fn a_seed_is_an_image_and_each_known_kind_comes() {
        let images: Vec<_> = (0..200).map(generate).collect();
        assert_eq!(images[7], generate(7));
        let count = |magic: &dyn Fn(&Vec<u8>) -> bool| images.iter().filter(|i| magic(i)).count();
        assert!(count(&|image| image.starts_with(b"\x7fELF\x02")) > 10);
        assert!(count(&|image| image.starts_with(b"\x7fELF\x01")) > 10);
        assert!(count(&|image| image.get(0x202..0x206) == Some(b"HdrS")) > 10);
    }
}
