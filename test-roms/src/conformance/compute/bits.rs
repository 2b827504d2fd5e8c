//! Single bits, counts of bits, conditions, and the bit manipulation of BMI and its like.

use iced_x86::code_asm::*;

use super::integer::{AF, CF, OF, PF, SF, STATUS, Size, ZF, add, flag, of_result, sub};
use super::rules::{EDGES, Input, Output, Reports, compute, pairs};
use crate::conformance::Rom;
use crate::conformance::features::{ADX, BMI1, BMI2, CMOV, Feature, LZCNT, MOVBE, POPCNT, SSE4_2};
use crate::conformance::long::kit::{self, About, Kit};
use crate::rom::{Emit, emit};

type Code = fn(&mut Kit<'_, '_>) -> Emit;
type Rule = fn(&Input) -> Output;
const NONE: &[Feature] = &[];
const B32: Size = Size(32);
const B64: Size = Size(64);

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    let about = About {
        name: "bits",
        about: "bit tests, scans and counts, conditions, BMI1, BMI2, ADX, MOVBE, CRC32",
        needs: &[],
        five_levels: false,
    };
    kit::rom(about, |a| {
        let inputs = pairs();
        for (name, needs, code, rule) in instructions() {
            a.need(needs);
            let source = "SDM vol. 2";
            compute(a, (name, source), &inputs, Reports::default(), code, rule)?;
        }
        conditions(a)
    })
}

/// A result that is written to RAX.
fn result(value: u64, flags: u64, defined: u64) -> Output {
    Output { rax: Some(value), flags: [flags, defined], ..Output::default() }
}

/// A result with the flags as they were.
fn quiet(i: &Input, value: u64) -> Output {
    result(value, i.flags, STATUS)
}

/// BT and its like: CF is the bit, ZF stays, the others are undefined.
fn bit(i: &Input, change: fn(u64, u64) -> u64) -> Output {
    let mask = 1 << (i.rcx % 64);
    result(change(i.rax, mask), flag(i.rax & mask != 0, CF) | i.flags & ZF, CF | ZF)
}

/// A scan: ZF says that there is no bit, and the result is undefined then.
fn scan(source: u64, at: u32) -> Output {
    let value = if source == 0 { None } else { Some(at.into()) };
    Output { rax: value, flags: [flag(source == 0, ZF), ZF], ..Output::default() }
}

/// LZCNT and TZCNT: CF where the source is 0, ZF where the count is.
fn count(source: u64, n: u32) -> Output {
    result(n.into(), flag(source == 0, CF) | flag(n == 0, ZF), CF | ZF)
}

/// BLSI and its like: SF and ZF of the result, OF clear.
fn lowest(value: u64, carry: bool) -> Output {
    let flags = of_result(B64, value) & (SF | ZF) | flag(carry, CF);
    result(value, flags, SF | ZF | OF | CF)
}

fn deposit(v: u64, mask: u64) -> u64 {
    let places = (0..64).filter(|place| mask >> place & 1 != 0);
    places.enumerate().fold(0, |sum, (n, place)| sum | (v >> n & 1) << place)
}

fn extract(v: u64, mask: u64) -> u64 {
    let places = (0..64).filter(|place| mask >> place & 1 != 0);
    places.enumerate().fold(0, |sum, (n, place)| sum | (v >> place & 1) << n)
}

/// CRC-32C with the register `crc`: the polynomial 11EDC6F41h, reflected (SDM vol. 2, CRC32).
fn crc32(crc: u64, data: u64) -> u64 {
    let mut crc = crc & 0xffff_ffff ^ (data & 0xffff_ffff);
    let step = |crc: u64| (crc >> 1) ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
    (0..32).for_each(|_| crc = step(crc));
    crc ^= data >> 32;
    (0..32).for_each(|_| crc = step(crc));
    crc
}

fn instructions() -> Vec<(&'static str, &'static [Feature], Code, Rule)> {
    let mut list: Vec<(&str, &[Feature], Code, Rule)> = vec![
        ("BT RAX, RCX", NONE, |a| a.bt(rax, rcx), |i| bit(i, |v, _| v)),
        ("BTS RAX, RCX", NONE, |a| a.bts(rax, rcx), |i| bit(i, |v, m| v | m)),
        ("BTR RAX, RCX", NONE, |a| a.btr(rax, rcx), |i| bit(i, |v, m| v & !m)),
        ("BTC RAX, RCX", NONE, |a| a.btc(rax, rcx), |i| bit(i, |v, m| v ^ m)),
        ("BSF RAX, RCX", NONE, |a| a.bsf(rax, rcx), |i| scan(i.rcx, i.rcx.trailing_zeros())),
        ("BSR RAX, RCX", NONE, |a| a.bsr(rax, rcx), |i| scan(i.rcx, 63 ^ i.rcx.leading_zeros())),
        ("BSWAP RAX", NONE, |a| a.bswap(rax), |i| quiet(i, i.rax.swap_bytes())),
        ("BSWAP EAX", NONE, |a| a.bswap(eax), |i| quiet(i, u64::from((i.rax as u32).swap_bytes()))),
        ("XCHG RAX, RCX", NONE, |a| a.xchg(rax, rcx), |i| quiet(i, i.rcx)),
        (
            "LEA RAX, [RAX+RCX*4-5]",
            NONE,
            |a| a.lea(rax, ptr(rax + rcx * 4 - 5)),
            |i| quiet(i, i.rax.wrapping_add(i.rcx.wrapping_mul(4)).wrapping_sub(5)),
        ),
        (
            "CMPXCHG RCX, RDX",
            NONE,
            |a| a.cmpxchg(rcx, rdx),
            |i| {
                let flags = sub(B64, i.rax, i.rcx, 0).1;
                // Equal or not, RAX is what RCX was.
                result(i.rcx, flags, STATUS)
            },
        ),
    ];
    list.extend(counts());
    list.extend(manipulation());
    list
}

fn counts() -> [(&'static str, &'static [Feature], Code, Rule); 9] {
    [
        (
            "POPCNT RAX, RCX",
            &[POPCNT],
            |a| a.popcnt(rax, rcx),
            |i| {
                let ones = (0..64).filter(|n| i.rcx >> n & 1 != 0).count() as u64;
                result(ones, flag(ones == 0, ZF), STATUS)
            },
        ),
        (
            "LZCNT RAX, RCX",
            &[LZCNT],
            |a| a.lzcnt(rax, rcx),
            |i| count(i.rcx, (0..64).find(|n| i.rcx >> (63 - n) & 1 != 0).unwrap_or(64)),
        ),
        (
            "LZCNT EAX, ECX",
            &[LZCNT],
            |a| a.lzcnt(eax, ecx),
            |i| {
                let v = i.rcx & 0xffff_ffff;
                count(v, (0..32).find(|n| v >> (31 - n) & 1 != 0).unwrap_or(32))
            },
        ),
        (
            "TZCNT RAX, RCX",
            &[BMI1],
            |a| a.tzcnt(rax, rcx),
            |i| count(i.rcx, (0..64).find(|n| i.rcx >> n & 1 != 0).unwrap_or(64)),
        ),
        (
            "TZCNT EAX, ECX",
            &[BMI1],
            |a| a.tzcnt(eax, ecx),
            |i| {
                let v = i.rcx & 0xffff_ffff;
                count(v, (0..32).find(|n| v >> n & 1 != 0).unwrap_or(32))
            },
        ),
        ("CRC32 EAX, RCX", &[SSE4_2], |a| a.crc32(rax, rcx), |i| quiet(i, crc32(i.rax, i.rcx))),
        (
            "MOVBE RAX, memory",
            &[MOVBE],
            |a| {
                emit!(a; mov(qword_ptr(rsp - 8), rcx); movbe(rax, qword_ptr(rsp - 8)););
                Ok(())
            },
            |i| quiet(i, i.rcx.swap_bytes()),
        ),
        (
            "ADCX RAX, RCX",
            &[ADX],
            |a| a.adcx(rax, rcx),
            |i| {
                let (sum, flags) = add(B64, i.rax, i.rcx, i.flags & CF);
                result(sum, flags & CF | i.flags & !CF, STATUS)
            },
        ),
        (
            "ADOX RAX, RCX",
            &[ADX],
            |a| a.adox(rax, rcx),
            |i| {
                let (sum, flags) = add(B64, i.rax, i.rcx, flag(i.flags & OF != 0, 1));
                result(sum, flag(flags & CF != 0, OF) | i.flags & !OF, STATUS)
            },
        ),
    ]
}

fn manipulation() -> [(&'static str, &'static [Feature], Code, Rule); 12] {
    [
        (
            "ANDN RAX, RAX, RCX",
            &[BMI1],
            |a| a.andn(rax, rax, rcx),
            |i| lowest(!i.rax & i.rcx, false),
        ),
        (
            "BLSI RAX, RCX",
            &[BMI1],
            |a| a.blsi(rax, rcx),
            |i| lowest(i.rcx & i.rcx.wrapping_neg(), i.rcx != 0),
        ),
        (
            "BLSMSK RAX, RCX",
            &[BMI1],
            |a| a.blsmsk(rax, rcx),
            |i| {
                let value = i.rcx ^ i.rcx.wrapping_sub(1);
                let flags = flag(value >> 63 != 0, SF) | flag(i.rcx == 0, CF);
                result(value, flags, SF | ZF | OF | CF)
            },
        ),
        (
            "BLSR RAX, RCX",
            &[BMI1],
            |a| a.blsr(rax, rcx),
            |i| lowest(i.rcx & i.rcx.wrapping_sub(1), i.rcx == 0),
        ),
        (
            "BEXTR RAX, RDX, RCX",
            &[BMI1],
            |a| a.bextr(rax, rdx, rcx),
            |i| {
                let (start, length) = (i.rcx & 0xff, i.rcx >> 8 & 0xff);
                let bits = (0..length.min(64)).filter(|n| start + n < 64);
                let value = bits.fold(0, |sum, n| sum | (i.rdx >> (start + n) & 1) << n);
                result(value, flag(value == 0, ZF), ZF | CF | OF)
            },
        ),
        (
            "BZHI RAX, RDX, RCX",
            &[BMI2],
            |a| a.bzhi(rax, rdx, rcx),
            |i| {
                let n = i.rcx & 0xff;
                let value = if n < 64 { i.rdx & ((1 << n) - 1) } else { i.rdx };
                lowest(value, n > 63)
            },
        ),
        (
            "PDEP RAX, RDX, RCX",
            &[BMI2],
            |a| a.pdep(rax, rdx, rcx),
            |i| quiet(i, deposit(i.rdx, i.rcx)),
        ),
        (
            "PEXT RAX, RDX, RCX",
            &[BMI2],
            |a| a.pext(rax, rdx, rcx),
            |i| quiet(i, extract(i.rdx, i.rcx)),
        ),
        (
            "RORX RAX, RCX, 13",
            &[BMI2],
            |a| a.rorx(rax, rcx, 13),
            |i| quiet(i, i.rcx.rotate_right(13)),
        ),
        (
            "SHLX RAX, RDX, RCX",
            &[BMI2],
            |a| a.shlx(rax, rdx, rcx),
            |i| quiet(i, i.rdx << (i.rcx % 64)),
        ),
        (
            "SHRX EAX, EDX, ECX",
            &[BMI2],
            |a| a.shrx(eax, edx, ecx),
            |i| quiet(i, B32.cut(i.rdx) >> (i.rcx % 32)),
        ),
        (
            "SARX RAX, RDX, RCX",
            &[BMI2],
            |a| a.sarx(rax, rdx, rcx),
            |i| quiet(i, (B64.signed(i.rdx) >> (i.rcx % 64)) as u64),
        ),
    ]
}

/// The 16 conditions, of all flags that they look at (SDM vol. 1, appendix B).
fn conditions(a: &mut Kit<'_, '_>) -> Emit {
    const LOOKED_AT: [u64; 5] = [CF, PF, ZF, SF, OF];
    const SOURCE: &str = "SDM vol. 1 B, vol. 2 SETcc, CMOVcc";
    let inputs: Vec<Input> = (0_usize..32)
        .map(|set| {
            let chosen = LOOKED_AT.iter().enumerate().filter(|(n, _)| set >> n & 1 != 0);
            let flags = chosen.fold(AF, |flags, (_, flag)| flags | flag);
            Input { rax: EDGES[set % 12], rcx: !EDGES[set % 12], rdx: 0, flags }
        })
        .collect();
    for condition in 0..16_u8 {
        let holds = move |i: &Input| {
            let set = |flag: u64| i.flags & flag != 0;
            let less = set(SF) != set(OF);
            let base = match condition >> 1 {
                0 => set(OF),
                1 => set(CF),
                2 => set(ZF),
                3 => set(CF) || set(ZF),
                4 => set(SF),
                5 => set(PF),
                6 => less,
                _ => less || set(ZF),
            };
            base != (condition & 1 != 0)
        };
        a.need(&[]);
        let code = [0x0f, 0x90 | condition, 0xc0];
        let rule = |i: &Input| quiet(i, i.rax & !0xff | u64::from(holds(i)));
        let name = format!("SETcc AL of condition {condition:x}");
        compute(a, (&name, SOURCE), &inputs, Reports::default(), |a| a.db(&code), rule)?;
        a.need(&[CMOV]);
        let code = [0x48, 0x0f, 0x40 | condition, 0xc1];
        let rule = |i: &Input| quiet(i, if holds(i) { i.rcx } else { i.rax });
        let name = format!("CMOVcc RAX, RCX of condition {condition:x}");
        compute(a, (&name, SOURCE), &inputs, Reports::default(), |a| a.db(&code), rule)?;
    }
    Ok(())
}
