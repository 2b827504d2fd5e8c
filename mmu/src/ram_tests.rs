use super::*;

const WIDTHS: [Width; 4] = [Width::W8, Width::W16, Width::W32, Width::W64];
const PATTERN: u64 = 0x8899_aabb_ccdd_eeff;

#[test]
fn accesses_stay_inside() {
    let ram = Ram::new(5000).unwrap();
    assert_eq!(ram.len(), 8192);
    assert!(ram.write_bytes(8190, &[1, 2]).is_ok());
    assert!(ram.write_bytes(8191, &[1, 2]).is_err());
    assert!(ram.read_bytes(u64::MAX, &mut [0; 2]).is_err());
    assert_eq!(ram.read(8190, Width::W16), 0x0201);
    assert_eq!(ram.read(8191, Width::W16), 0xffff);
    ram.write(8191, Width::W16, 0);
    assert_eq!(ram.read(8190, Width::W16), 0x0201, "a write beyond the end does nothing");
    assert!(ram.host(8192).is_null() && !ram.host(8191).is_null());
    assert!(Ram::new(0).is_err() && Ram::new(u64::MAX).is_err());
}

#[test]
fn integers_are_little_endian_at_any_alignment() {
    let ram = Ram::new(4096).unwrap();
    for offset in 0..24 {
        for width in WIDTHS {
            ram.write_bytes(0, &[0x55; 48]).unwrap();
            ram.write(offset, width, PATTERN);
            assert_eq!(ram.read(offset, width), PATTERN & width.mask());
            let mut bytes = [0; 48];
            ram.read_bytes(0, &mut bytes).unwrap();
            let mut expected = [0x55; 48];
            let (at, len) = (offset as usize, width.bytes() as usize);
            expected[at..at + len].copy_from_slice(&PATTERN.to_le_bytes()[..len]);
            assert_eq!(bytes, expected, "{width:?} at {offset}");
        }
    }
}

#[test]
fn atomics_return_the_old_value_and_touch_only_their_bytes() {
    let ram = Ram::new(4096).unwrap();
    let operand = 0x0123_4567_89ab_cdef;
    type Model = fn(u64, u64) -> u64;
    let ops: [(AtomicOp, Model); 5] = [
        (AtomicOp::Add, u64::wrapping_add),
        (AtomicOp::And, |a, b| a & b),
        (AtomicOp::Or, |a, b| a | b),
        (AtomicOp::Xor, |a, b| a ^ b),
        (AtomicOp::Xchg, |_, b| b),
    ];
    for (op, model) in ops {
        // Offsets around 64 cross a cache line of the host.
        for (offset, width) in (48..72).flat_map(|o| WIDTHS.map(|w| (o, w))) {
            ram.write_bytes(0, &[0x55; 128]).unwrap();
            ram.write(offset, width, PATTERN);
            // SAFETY: the bytes are inside `ram`.
            let old = unsafe { ram.host(offset).fetch_op(width, op, operand) };
            assert_eq!(old, PATTERN & width.mask(), "{op:?} {width:?} at {offset}");
            let new = model(PATTERN, operand) & width.mask();
            assert_eq!(ram.read(offset, width), new, "{op:?} {width:?} at {offset}");
            let beside = [offset - 1, offset + width.bytes()];
            assert_eq!(beside.map(|at| ram.read(at, Width::W8)), [0x55; 2]);
        }
    }
}

#[test]
fn compare_exchange_stores_only_on_equality() {
    let ram = Ram::new(4096).unwrap();
    for (offset, width) in (56..72).flat_map(|o| WIDTHS.map(|w| (o, w))) {
        ram.write(offset, width, PATTERN);
        let seen = PATTERN & width.mask();
        assert_eq!(ram.compare_exchange(offset, width, seen ^ 1, 7), seen);
        assert_eq!(ram.read(offset, width), seen, "{width:?} at {offset}: unequal, stored");
        assert_eq!(ram.compare_exchange(offset, width, PATTERN, 7), seen);
        assert_eq!(ram.read(offset, width), 7, "{width:?} at {offset}: equal, not stored");
    }
}

#[test]
fn sixteen_bytes() {
    let ram = Ram::new(4096).unwrap();
    let (a, b) = (u128::from(PATTERN) << 64 | 5, 1 << 127 | 9);
    // SAFETY: the bytes are inside `ram`, and aligned for the exchange.
    unsafe {
        ram.host(3).write128(a);
        assert_eq!(ram.host(3).read128(), a);
        ram.host(32).write128(a);
        assert_eq!(ram.host(32).compare_exchange128(a + 1, b), a);
        assert_eq!(ram.host(32).read128(), a);
        assert_eq!(ram.host(32).compare_exchange128(a, b), a);
        assert_eq!(ram.host(32).read128(), b);
    }
}

#[test]
fn concurrent_increments_are_not_lost() {
    const ROUNDS: u64 = 20_000;
    let ram = Ram::new(4096).unwrap();
    // Aligned, unaligned inside a cache line, and across two.
    for offset in [8, 17, 61] {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        // SAFETY: the bytes are inside `ram`.
                        unsafe { ram.host(offset).fetch_op(Width::W64, AtomicOp::Add, 1) };
                    }
                });
            }
        });
        assert_eq!(ram.read(offset, Width::W64), 3 * ROUNDS, "at {offset}");
    }
}
