//! What tests each feature that CPUID shows: the model `max` has no bit without a row here.

use std::path::Path;

use brolga_cpu::cpuid::CpuModel;
use brolga_test_roms::conformance::{self, Feature, Register as Shown};

use crate::oracle::families;

/// A place in the CPUID leaves: leaf, subleaf and register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(u32, u32, Register);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}
use Register::{Eax, Ebx, Ecx, Edx};

/// The words that hold feature bits (SDM vol. 2, CPUID).
const WORDS: [Word; 11] = [
    Word(1, 0, Ecx),
    Word(1, 0, Edx),
    Word(6, 0, Eax),
    Word(7, 0, Ebx),
    Word(7, 0, Ecx),
    Word(7, 0, Edx),
    Word(0xd, 1, Eax),
    Word(0x8000_0001, 0, Ecx),
    Word(0x8000_0001, 0, Edx),
    Word(0x8000_0007, 0, Edx),
    Word(0x8000_0008, 0, Ebx),
];

/// What decides whether a feature is right.
#[derive(Clone, Copy, Debug)]
pub enum Judge {
    /// The host's processor: a family of [`crate::oracle`].
    Oracle(&'static str),
    /// A unit test alone: its file and function. What the feature does cannot be done in a process
    /// of the host.
    Unit(&'static str, &'static str),
}
use Judge::{Oracle, Unit};

/// What in a whole guest uses it, besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Our own ROMs: the embedded guest, and those of `brolga conform`.
    Rom,
    /// Debian's kernels and what they start (`tests/boot.rs`).
    Linux,
    /// None that is run regularly.
    Nothing,
}
use Guest::{Linux, Nothing, Rom};

/// A feature: its bit and name, what judges it, and what guest uses it.
type Row = (u32, &'static str, Judge, Guest);

const REGISTERS: &str = "cpu/src/system/tests/registers.rs";
const FEATURES: &str = "cpu/src/system/tests/features.rs";
const MODELS: &str = "cpu/src/system/tests/models.rs";
const EVENTS: &str = "cpu/src/system/tests/events.rs";
const TRANSFERS: &str = "cpu/src/system/tests/transfers.rs";
const SSE: &str = "cpu/src/semantics/sse/tests.rs";
const AVX: &str = "cpu/src/semantics/avx/tests.rs";
const WALK: &str = "mmu/src/walk_tests.rs";
const LAPIC: &str = "devices/src/lapic/tests.rs";

/// The rows, by word.
const TABLE: [(Word, &[Row]); 11] = [
    (
        Word(1, 0, Ecx),
        &[
            (0, "SSE3", Oracle("sse_float"), Rom),
            (1, "PCLMULQDQ", Oracle("crypto"), Rom),
            (9, "SSSE3", Oracle("sse_integer"), Rom),
            (12, "FMA", Oracle("fma"), Nothing),
            (13, "CMPXCHG16B", Oracle("exchange"), Linux),
            (
                17,
                "PCID",
                Unit("cpu/src/system/tests/pcid.rs", "invpcid_flushes_what_its_type_says"),
                Linux,
            ),
            (19, "SSE4.1", Oracle("sse_integer"), Rom),
            (20, "SSE4.2", Oracle("sse_integer"), Rom),
            (21, "X2APIC", Unit(LAPIC, "x2apic_registers"), Linux),
            (22, "MOVBE", Oracle("bits"), Rom),
            (23, "POPCNT", Oracle("bits"), Rom),
            (
                24,
                "TSC_DEADLINE",
                Unit(REGISTERS, "the_tsc_deadline_is_in_the_guests_own_time"),
                Linux,
            ),
            (25, "AESNI", Oracle("crypto"), Rom),
            (26, "XSAVE", Unit(SSE, "xsave_writes_and_xrstor_reads_what_is_requested"), Linux),
            (28, "AVX", Oracle("avx_float"), Linux),
            (29, "F16C", Oracle("avx_convert"), Nothing),
            (30, "RDRAND", Unit(REGISTERS, "rdrand_repeats_and_sets_carry"), Rom),
            (31, "HYPERVISOR", Unit(FEATURES, "the_hypervisor_has_a_name_where_it_shows"), Linux),
        ],
    ),
    (
        Word(1, 0, Edx),
        &[
            (0, "FPU", Oracle("x87"), Rom),
            (1, "VME", Unit(EVENTS, "vme_virtualizes_the_interrupt_flag"), Nothing),
            (2, "DE", Unit(FEATURES, "debugging_extensions_take_the_aliases_away"), Linux),
            (3, "PSE", Unit(WALK, "permissions"), Linux),
            (4, "TSC", Unit(REGISTERS, "writing_the_tsc_shows_in_tsc_adjust"), Rom),
            (5, "MSR", Unit(REGISTERS, "msrs_check_what_they_take"), Rom),
            (6, "PAE", Unit(WALK, "permissions"), Rom),
            (
                7,
                "MCE",
                Unit(REGISTERS, "machine_check_banks_take_control_and_report_nothing"),
                Linux,
            ),
            (8, "CMPXCHG8B", Oracle("exchange"), Linux),
            (9, "APIC", Unit(LAPIC, "interrupts_nest_by_class"), Rom),
            (11, "SYSENTER", Unit(TRANSFERS, "sysenter_and_sysexit"), Linux),
            (12, "MTRR", Unit(REGISTERS, "msrs_check_what_they_take"), Linux),
            (13, "PGE", Unit(WALK, "global_and_memory_type_come_from_the_leaf"), Linux),
            (
                14,
                "MCA",
                Unit(REGISTERS, "machine_check_banks_take_control_and_report_nothing"),
                Linux,
            ),
            (15, "CMOV", Oracle("conditions"), Linux),
            (16, "PAT", Unit(REGISTERS, "msrs_check_what_they_take"), Linux),
            (17, "PSE36", Unit(WALK, "pse36_extends_large_pages"), Nothing),
            (
                19,
                "CLFLUSH",
                Unit(FEATURES, "cache_lines_are_flushed_where_they_can_be_read"),
                Linux,
            ),
            (23, "MMX", Oracle("sse_integer"), Nothing),
            (24, "FXSR", Unit(SSE, "fxsave_and_fxrstor_are_inverse"), Linux),
            (25, "SSE", Oracle("sse_float"), Linux),
            (26, "SSE2", Oracle("sse_float"), Linux),
        ],
    ),
    (
        Word(6, 0, Eax),
        &[(2, "ARAT", Unit(LAPIC, "the_one_shot_timer_counts_divided_ticks"), Linux)],
    ),
    (
        Word(7, 0, Ebx),
        &[
            (0, "FSGSBASE", Unit(FEATURES, "segment_bases_are_read_and_written"), Linux),
            (1, "TSC_ADJUST", Unit(REGISTERS, "writing_the_tsc_shows_in_tsc_adjust"), Linux),
            (3, "BMI1", Oracle("bmi"), Rom),
            (5, "AVX2", Oracle("avx_integer"), Linux),
            (7, "SMEP", Unit(WALK, "permissions"), Linux),
            (8, "BMI2", Oracle("bmi"), Rom),
            (9, "ERMS", Oracle("strings"), Linux),
            (
                10,
                "INVPCID",
                Unit("cpu/src/system/tests/pcid.rs", "invpcid_checks_its_descriptor"),
                Linux,
            ),
            (18, "RDSEED", Unit(FEATURES, "seeds_are_drawn_as_random_numbers_are"), Rom),
            (19, "ADX", Oracle("adx"), Rom),
            (20, "SMAP", Unit(WALK, "permissions"), Linux),
            (
                23,
                "CLFLUSHOPT",
                Unit(FEATURES, "cache_lines_are_flushed_where_they_can_be_read"),
                Linux,
            ),
            (24, "CLWB", Unit(FEATURES, "cache_lines_are_flushed_where_they_can_be_read"), Nothing),
            (29, "SHA", Oracle("crypto"), Rom),
        ],
    ),
    (
        Word(7, 0, Ecx),
        &[
            (2, "UMIP", Unit(REGISTERS, "umip_hides_tables_from_user_mode"), Linux),
            (3, "PKU", Unit("cpu/src/system/tests/paging.rs", "pkru_takes_effect_at_once"), Linux),
            (8, "GFNI", Oracle("crypto"), Rom),
            (9, "VAES", Oracle("avx_crypto"), Nothing),
            (10, "VPCLMULQDQ", Oracle("avx_crypto"), Nothing),
            (
                16,
                "LA57",
                Unit("cpu/src/system/tests/paging.rs", "five_levels_translate_57_bits"),
                Linux,
            ),
            (22, "RDPID", Unit(FEATURES, "processors_tell_their_number"), Rom),
        ],
    ),
    (
        Word(7, 0, Edx),
        &[
            (
                14,
                "SERIALIZE",
                Unit(FEATURES, "caches_are_the_kernels_and_serializing_everybodys"),
                Linux,
            ),
            (
                26,
                "IBRS and IBPB",
                Unit(MODELS, "registers_that_a_model_lacks_are_a_general_protection_fault"),
                Linux,
            ),
            (
                29,
                "ARCH_CAPABILITIES",
                Unit(MODELS, "registers_that_a_model_lacks_are_a_general_protection_fault"),
                Linux,
            ),
        ],
    ),
    (
        Word(0xd, 1, Eax),
        &[
            (0, "XSAVEOPT", Unit(SSE, "xsave_writes_and_xrstor_reads_what_is_requested"), Linux),
            (1, "XSAVEC", Unit(AVX, "the_compacted_format_says_what_it_holds"), Linux),
            (2, "XGETBV of 1", Unit(AVX, "the_components_in_use_can_be_read"), Nothing),
            (3, "XSAVES", Unit(AVX, "the_supervisors_forms_are_its_own"), Linux),
        ],
    ),
    (
        Word(0x8000_0001, 0, Ecx),
        &[
            (0, "LAHF in 64-bit mode", Oracle("moves"), Nothing),
            (5, "LZCNT", Oracle("bmi"), Rom),
            (8, "PREFETCHW", Unit(MODELS, "hints_that_no_model_knows_do_nothing"), Linux),
        ],
    ),
    (
        Word(0x8000_0001, 0, Edx),
        &[
            (11, "SYSCALL", Unit(TRANSFERS, "syscall_and_sysret"), Linux),
            (20, "NX", Unit(WALK, "permissions"), Linux),
            (26, "1 GiB pages", Unit(WALK, "permissions"), Linux),
            (27, "RDTSCP", Unit(FEATURES, "processors_tell_their_number"), Linux),
            (29, "64-bit mode", Oracle("arithmetic"), Rom),
        ],
    ),
    (
        Word(0x8000_0007, 0, Edx),
        &[(
            8,
            "invariant TSC",
            Unit(REGISTERS, "the_tsc_deadline_is_in_the_guests_own_time"),
            Linux,
        )],
    ),
    (
        Word(0x8000_0008, 0, Ebx),
        &[(
            9,
            "WBNOINVD",
            Unit(FEATURES, "caches_are_the_kernels_and_serializing_everybodys"),
            Nothing,
        )],
    ),
];

fn rows(word: Word) -> &'static [Row] {
    TABLE.iter().find(|(at, _)| *at == word).map_or(&[], |(_, rows)| rows)
}

/// What `max` shows in a word, with all of CR4 clear.
fn shown(word: Word) -> u32 {
    let leaf = CpuModel::default().leaf(word.0, word.1, 0, 1);
    match word.2 {
        Eax => leaf.eax,
        Ebx => leaf.ebx,
        Ecx => leaf.ecx,
        Edx => leaf.edx,
    }
}

/// The ROMs of ours that check the feature of a bit: those that need it, as a whole or for a check.
pub fn roms_of(roms: &[conformance::Rom], word: Word, bit: u32) -> Vec<&'static str> {
    let is_it = |feature: &Feature| {
        let register = match feature.register {
            Shown::Eax => Eax,
            Shown::Ebx => Ebx,
            Shown::Ecx => Ecx,
            Shown::Edx => Edx,
        };
        Word(feature.leaf.0, feature.leaf.1, register) == word && feature.bit == bit
    };
    let checks = |rom: &&conformance::Rom| {
        let mut needs = rom.checks.iter().flat_map(|check| &check.needs);
        rom.needs.iter().any(is_it) || needs.any(is_it)
    };
    roms.iter().filter(checks).map(|rom| rom.name).collect()
}

/// What is wrong with the table: bits without a row, rows without a bit, tests that do not exist, and
/// features that no ROM of ours checks. `root` is the repository.
pub fn faults(root: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    let roms = conformance::all();
    for word in WORDS {
        let unchecked = rows(word).iter().filter(|row| roms_of(&roms, word, row.0).is_empty());
        faults.extend(unchecked.map(|row| format!("{}: no ROM checks it", row.1)));
        let listed = rows(word).iter().fold(0, |bits, (bit, ..)| bits | 1u32 << bit);
        let missing = shown(word) & !listed;
        let gone = listed & !shown(word);
        if missing != 0 || gone != 0 {
            faults.push(format!("{word:x?}: bits {missing:#x} have no row, {gone:#x} no bit"));
        }
        let untested = rows(word).iter().filter(|row| !exists(row.2, root));
        faults.extend(untested.map(|row| format!("{}: there is no {:?}", row.1, row.2)));
    }
    faults
}

fn exists(judge: Judge, root: &Path) -> bool {
    match judge {
        Oracle(family) => families::all().any(|f| f.name == family),
        Unit(file, test) => std::fs::read_to_string(root.join(file))
            .is_ok_and(|text| text.contains(&format!("#[test]\nfn {test}("))),
    }
}

/// Names of the features that the host's processor judges, and of those that unit tests alone do.
pub fn by_judge() -> [Vec<&'static str>; 2] {
    let all = || TABLE.iter().flat_map(|(_, rows)| rows.iter());
    let names = |oracle: bool| {
        let of = move |row: &&Row| matches!(row.2, Oracle(_)) == oracle;
        all().filter(of).map(|row| row.1).collect()
    };
    [names(true), names(false)]
}

/// Names of the features that no guest uses which is run regularly.
pub fn without_guest() -> Vec<&'static str> {
    let all = TABLE.iter().flat_map(|(_, rows)| rows.iter());
    all.filter(|row| row.3 == Nothing).map(|row| row.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roms_are_found_by_what_they_need() {
        let roms = conformance::all();
        assert_eq!(roms_of(&roms, Word(7, 0, Ecx), 3), ["protection-keys"]);
        assert!(roms_of(&roms, Word(1, 0, Ecx), 28).contains(&"sse-double"), "AVX");
        assert!(roms_of(&roms, Word(1, 0, Ecx), 2).is_empty(), "a bit that is not shown");
    }

    #[test]
    fn every_feature_of_max_has_its_tests() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let faults = faults(&root);
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        let [oracle, unit] = by_judge();
        println!("the host judges {}; unit tests alone: {}", oracle.len(), unit.join(", "));
        println!("no guest uses: {}", without_guest().join(", "));
    }
}
