//! Nothing a guest does may panic: random system instructions on random tables.

use crate::system::testing::*;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// First bytes of the instructions in this module: segment loads, far transfers, interrupts,
/// flags, ports, and the 0Fh map's system part.
const OPENINGS: [&[u8]; 24] = [
    &[0x8e],
    &[0x8c],
    &[0x9a],
    &[0xea],
    &[0xcb],
    &[0xca],
    &[0xcf],
    &[0xcd],
    &[0xcc],
    &[0x9c],
    &[0x9d],
    &[0xfa],
    &[0xfb],
    &[0xff],
    &[0xc4],
    &[0x6c],
    &[0x6e],
    &[0x0f, 0x00],
    &[0x0f, 0x01],
    &[0x0f, 0x02],
    &[0x0f, 0x20],
    &[0x0f, 0x22],
    &[0x0f, 0x23],
    &[0x0f, 0x30],
];

#[test]
fn random_system_code_never_panics() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut b = match seed % 4 {
            0 => Bench::real(),
            1 => Bench::protected(),
            2 => Bench::long(),
            _ => Bench::protected().user(),
        };
        // Some descriptors, gates and TSS fields become random; the rest leads somewhere.
        for _ in 0..random.next() % 64 {
            let at = GDT + 8 + random.next() % (CODE - GDT - 16);
            let v = random.next();
            b.put(at, 8, v);
        }
        for _ in 0..200 {
            let opening = OPENINGS[(random.next() % OPENINGS.len() as u64) as usize];
            let mut code = opening.to_vec();
            code.extend(random.next().to_le_bytes());
            let register = (random.next() % 8) as u8;
            let small = random.next() % 0x140;
            b.set(register, if small & 1 == 0 { small } else { random.next() });
            if b.try_load(&code).is_none() {
                break;
            }
            b.go(4);
        }
    }
}
