//! The run loop and the block cache: self-modifying code, and slices of any length.

use crate::core::Stop;
use crate::core::translated::Translated;
use crate::exception::vector;
use crate::system::testing::{Bench, CODE, TABLES};
use crate::vcpu::{RIP, gpr};

/// `mov byte [at], v`
fn store_byte(at: u64, v: u8) -> Vec<u8> {
    let mut code = vec![0xc6, 0x05];
    code.extend((at as u32).to_le_bytes());
    code.push(v);
    code
}

#[test]
fn a_store_to_the_next_instruction_counts_at_once() {
    let mut b = Bench::protected();
    let mut code = store_byte(CODE + 8, 0x42);
    code.extend([0xb0, 0x00]); // mov al, 0
    for _ in 0..2 {
        b.set(RIP, CODE);
        b.run(&code, 2);
        assert_eq!(b.reg(gpr::RAX) as u8, 0x42);
    }
}

#[test]
fn code_that_crosses_a_page_is_dropped_when_its_second_page_is_written() {
    let mut b = Bench::protected();
    let at = 0xaffe;
    b.set(RIP, at);
    b.run(&[0xb8, 1, 2, 3, 4], 1); // mov eax, 0x04030201
    assert_eq!(b.reg(gpr::RAX), 0x0403_0201);
    b.set(RIP, CODE);
    b.run(&store_byte(at + 3, 0x55), 1);
    b.set(RIP, at);
    b.go(1);
    assert_eq!(b.reg(gpr::RAX), 0x0455_0201);
}

#[test]
fn code_that_crosses_into_another_page_than_before_is_another_instruction() {
    const LINEAR: u64 = 0x40_0000;
    const FIRST: u64 = 0x4000;
    const SECONDS: [u64; 2] = [0x5000, 0x6000];
    const TABLE: u64 = TABLES + 0x3000;
    let mut b = Bench::long();
    b.put(TABLES + 0x2010, 8, TABLE | 7);
    b.put(TABLE, 8, FIRST | 7);
    b.put(FIRST + 0xffe, 2, 0x11b8); // mov eax, ...
    for second in SECONDS {
        b.put(second, 3, second << 8 | 0x22);
    }
    for round in 0..3 {
        for second in SECONDS {
            b.put(TABLE + 8, 8, second | 7);
            b.core().mem.tlb.flush_all();
            b.set(RIP, LINEAR + 0xffe);
            b.go(1);
            assert!(b.quiet());
            assert_eq!(b.reg(gpr::RAX), second << 16 | 0x2211, "round {round}");
        }
    }
}

#[test]
fn data_beside_code_in_its_page_drops_nothing_that_runs() {
    let mut b = Bench::protected();
    let mut code = store_byte(CODE + 0x800, 7);
    code.extend([0x40, 0xeb, 0xf6]); // inc eax; jmp to the store
    b.run(&code, 300);
    assert_eq!(b.reg(gpr::RAX), 100);
    assert_eq!(b.get(CODE + 0x800, 1), 7);
}

#[test]
fn a_jump_finds_what_its_target_has_become() {
    let mut b = Bench::protected();
    // jmp over two; nop; nop; mov al, 1; jmp to the start
    b.run(&[0xeb, 2, 0x90, 0x90, 0xb0, 1, 0xeb, 0xf8], 30);
    for v in 2..5 {
        b.set(RIP, CODE + 0x1000);
        b.run(&store_byte(CODE + 5, v), 1);
        b.set(RIP, CODE);
        b.go(31);
        assert_eq!(b.reg(gpr::RAX) as u8, v);
    }
}

#[test]
fn each_iteration_of_a_repetition_has_its_own_time() {
    const DEVICE: u64 = 0x50_0000;
    for slice in [1, 2, 4] {
        let mut b = Bench::protected();
        b.set(gpr::RCX, 4);
        b.set(gpr::RSI, DEVICE);
        b.set(gpr::RDI, 0x5000);
        b.load(&[0xf3, 0xa4]); // rep movsb
        for _ in 0..4 / slice {
            assert_eq!(b.go(slice), Stop::Budget);
        }
        assert_eq!((b.get(0x5000, 4), b.core().now()), (0x0302_0100, 4), "in slices of {slice}");
    }
}

/// Loops, the stack, and a REP that slices divide at every iteration.
const PROGRAM: [u8; 28] = [
    0xb9, 5, 0, 0, 0, // mov ecx, 5
    0x01, 0xc8, // add eax, ecx
    0x50, // push eax
    0x5b, // pop ebx
    0x49, // dec ecx
    0x75, 0xf9, // jnz to the add
    0xb9, 3, 0, 0, 0, // mov ecx, 3
    0xbf, 0, 0x50, 0, 0, // mov edi, 0x5000
    0xf3, 0xaa, // rep stosb
    0x90, // nop
    0xeb, 0xe4, // jmp to the start
    0x90,
];

fn state(b: &mut Bench) -> ([u64; 9], u64, u64) {
    let regs = std::array::from_fn(|r| b.reg(if r == 8 { RIP } else { r as u8 }));
    let now = b.core().now();
    (regs, b.core().vcpu.rflags(), now)
}

#[test]
fn slices_of_any_length_come_to_the_same_state() {
    let reference = {
        let mut b = Bench::protected();
        assert_eq!(b.run(&PROGRAM, 1000), Stop::Budget);
        state(&mut b)
    };
    assert_eq!(reference.2, 1000, "a slice ends after exactly its budget");
    for slice in [1, 2, 3, 7, 64] {
        let mut b = Bench::protected();
        b.load(&PROGRAM);
        let mut left = 1000;
        while left > 0 {
            let n = slice.min(left);
            b.go(n);
            left -= n;
        }
        assert_eq!(state(&mut b), reference, "slices of {slice}");
    }
}

/// What the slow path of translated code finds for an access, and the bytes there if it is a read
/// that crosses a page's end.
fn translated_access(b: &mut Bench, at: u64, access: u64, site: Option<u64>) -> (u64, u64) {
    let core = b.core();
    core.translated.address = at;
    core.translated.access = access | site.map_or(0, |site| (site + 1) << Translated::SITE_SHIFT);
    core.translated_access();
    let gathered = core.translated.gathered.first_chunk().copied().unwrap_or_default();
    (core.translated.host, u64::from_le_bytes(gathered))
}

#[test]
fn translated_code_reads_across_pages_but_does_not_write() {
    const AT: u64 = 0x4ffd;
    let mut b = Bench::protected();
    b.put(AT, 8, 0x8877_6655_4433_2211);
    let (host, value) = translated_access(&mut b, AT, 8, None);
    assert_eq!(host, b.core().translated.gathered.as_ptr().addr() as u64);
    assert_eq!(value, 0x8877_6655_4433_2211);
    assert_eq!(translated_access(&mut b, AT, 8 | Translated::WRITE, None).0, 0);
    assert_eq!(translated_access(&mut b, AT, 8 | Translated::ALIGNED, None).0, 0);
    assert_eq!(translated_access(&mut b, 0xffff_fffd, 8, None).0, 0, "it wraps");
    let inside = translated_access(&mut b, AT - 5, 8, None).0;
    assert_ne!(inside, b.core().translated.gathered.as_ptr().addr() as u64);
}

#[test]
fn a_read_across_pages_whose_second_page_is_missing_is_left_to_the_interpreter() {
    const TABLE: u64 = TABLES + 0x3000;
    let mut b = Bench::long();
    b.put(TABLES + 0x2010, 8, TABLE | 7);
    b.put(TABLE, 8, 0x4000 | 7);
    b.put(TABLE + 8, 8, 0);
    assert_eq!(translated_access(&mut b, 0x40_0ffe, 4, None).0, 0);
    assert!(b.quiet(), "no exception is left behind");
}

#[test]
fn a_read_across_pages_that_the_tlb_knows_does_not_walk_again() {
    const TABLE: u64 = TABLES + 0x3000;
    let mut b = Bench::long();
    b.put(TABLES + 0x2010, 8, TABLE | 7);
    b.put(TABLE, 8, 0x4000 | 7);
    b.put(TABLE + 8, 8, 0x5000 | 7);
    b.put(0x4ffe, 4, 0x4433_2211);
    let found = translated_access(&mut b, 0x40_0ffe, 4, None);
    assert_eq!((found.0 != 0, found.1), (true, 0x4433_2211));
    // The guest has not invalidated this page, and the interpreter too finds it where it was.
    b.put(TABLE + 8, 8, 0);
    assert_eq!(translated_access(&mut b, 0x40_0ffe, 4, None), found);
}

#[test]
fn a_site_finds_its_page_by_the_slow_path_and_misses_soon_when_it_changes() {
    let mut b = Bench::protected();
    b.core().mem.tlb.empty_site(3);
    for n in 0..40 {
        let at = 0x5000 + (n & 1) * 0x1000;
        let (host, _) = translated_access(&mut b, at, 4, Some(3));
        assert_eq!(host, translated_access(&mut b, at, 4, None).0);
    }
    assert_eq!(b.core().translated.sites.take_restless(), [3]);
}

#[test]
fn code_is_kept_wherever_it_lies_in_a_segment_of_64_kib() {
    for ip in [0x100, 0x8000, 0xfff0] {
        let mut b = Bench::real();
        b.set(RIP, ip);
        // NOP, JMP to it.
        b.run(&[0x90, 0xeb, 0xfd], 10);
        let pages: Vec<u64> = b.core().mem.code.pages().collect();
        assert_eq!(pages, [ip >> 12]);
    }
}

#[test]
fn a_block_ends_where_its_segment_does() {
    let mut b = Bench::real();
    b.set(RIP, 0xfffe);
    // Two NOPs up to the last byte, and what lies behind the segment.
    b.run(&[0x90, 0x90, 0x90, 0x90], 2);
    assert_eq!((b.ip(), b.quiet()), (0x1_0000, true));
    b.go(1);
    assert_eq!(b.fault(), (vector::GP, Some(0)));
}
