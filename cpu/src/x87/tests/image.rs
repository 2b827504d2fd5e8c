//! The memory images: round trips, the host's own images, and the real-mode layouts.

use super::super::*;
use super::random_fpu;
use crate::softfloat::tests::Random;

const FORMATS: [ImageFormat; 4] =
    [ImageFormat::Real16, ImageFormat::Protected16, ImageFormat::Real32, ImageFormat::Protected32];

fn with_pointers(random: &mut Random) -> X87 {
    let mut fpu = random_fpu(random);
    fpu.last = LastInstruction {
        opcode: random.next() as u16 & 0x7FF,
        ip: random.next() & 0xFFFF_FFFF,
        cs: random.next() as u16,
        dp: random.next() & 0xFFFF_FFFF,
        ds: random.next() as u16,
    };
    fpu
}

#[test]
fn save_and_restore_every_format() {
    let mut random = Random(1);
    for format in FORMATS {
        for _ in 0..200 {
            let mut fpu = random_fpu(&mut random);
            // What every format can hold.
            fpu.last.ip = random.next() & 0xFFFF;
            fpu.last.dp = random.next() & 0xFFFF;
            let image = fpu.saved_state(format);
            assert_eq!(image.as_bytes().len(), format.state_len());
            let mut restored = X87::default();
            restored.restore_state(format, image.as_bytes());
            assert_eq!(restored, fpu, "{format:?}");
        }
    }
}

#[test]
fn real_mode_layouts_hold_linear_addresses() {
    let last = LastInstruction { opcode: 0x1D8, ip: 0x5678, cs: 0x1234, dp: 0x10, ds: 0xF000 };
    let fpu = X87 { last, ..X87::default() };
    // Linear 0x179B8 and 0xF0010.
    let image = fpu.environment(ImageFormat::Real16);
    assert_eq!(image.as_bytes()[6..], [0xB8, 0x79, 0xD8, 0x11, 0x10, 0x00, 0x00, 0xF0]);
    let image = fpu.environment(ImageFormat::Real32);
    assert_eq!(
        image.as_bytes()[12..],
        [
            0xB8, 0x79, 0xFF, 0xFF, 0xD8, 0x11, 0x00, 0x00, //
            0x10, 0x00, 0xFF, 0xFF, 0x00, 0xF0, 0x00, 0x00,
        ]
    );
    let mut loaded = X87::default();
    loaded.load_environment(ImageFormat::Real32, image.as_bytes());
    assert_eq!((loaded.last.ip, loaded.last.dp), (0x179B8, 0xF0010));
    assert_eq!(loaded.last.opcode, 0x1D8);
}

#[test]
fn tag_word_tells_zero_and_special() {
    let mut fpu = X87::default();
    fpu.load_constant(Constant::Zero);
    fpu.load_constant(Constant::Pi);
    fpu.load(FloatMem::F32(f32::INFINITY.to_bits()));
    assert_eq!(fpu.tag_word(), 0b01_00_10_11_11_11_11_11);
}

#[test]
fn storing_the_environment_masks_exceptions() {
    let mut fpu = X87::default();
    fpu.set_control(0x0340);
    fpu.sqrt();
    assert!(fpu.pending());
    fpu.commit_store_environment();
    assert!(!fpu.pending());
    assert_eq!(fpu.control(), 0x037F);
    fpu.set_control(0x0340);
    assert!(fpu.pending(), "unmasking makes a raised exception pending again");
}

#[test]
fn short_images_do_not_panic() {
    for format in FORMATS {
        for len in 0..format.state_len() {
            let mut fpu = X87::default();
            fpu.restore_state(format, &vec![0xA5; len]);
            fpu.load_environment(format, &vec![0x5A; len]);
        }
    }
}

#[test]
fn fxsave_round_trip() {
    let mut random = Random(2);
    for _ in 0..200 {
        let fpu = with_pointers(&mut random);
        let mut area = [0xEE; 512];
        fpu.fxsave(false, &mut area);
        assert!(area[24..32].iter().chain(&area[160..]).all(|&b| b == 0xEE), "not the x87's");
        let mut restored = X87::default();
        restored.fxrstor(false, &area);
        assert_eq!(restored, fpu);

        let mut wide = fpu.clone();
        wide.last = LastInstruction { ip: !0 << 40, dp: !0 << 48, cs: 0, ds: 0, ..fpu.last };
        wide.fxsave(true, &mut area);
        restored.fxrstor(true, &area);
        assert_eq!(restored, wide);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn host_writes_the_same_images() {
    use super::host;
    let mut random = Random(3);
    for _ in 0..2000 {
        let fpu = with_pointers(&mut random);
        for (format, pointers, round_trip) in [
            (ImageFormat::Protected32, 12..26, host::round_trip_32 as fn(&mut [u8; 108])),
            (ImageFormat::Protected16, 6..14, host::round_trip_16),
        ] {
            let image = fpu.saved_state(format);
            let mut expected = image.as_bytes().to_vec();
            let mut bytes = [0; 108];
            bytes[..expected.len()].copy_from_slice(&expected);
            round_trip(&mut bytes);
            // An AMD host loses the pointers if its kernel switches tasks in between: FXSAVE keeps
            // them only while an exception is pending.
            bytes[pointers.clone()].fill(0);
            expected[pointers].fill(0);
            assert_eq!(bytes[..expected.len()], expected, "{format:?} {fpu:x?}");
        }
    }
}
