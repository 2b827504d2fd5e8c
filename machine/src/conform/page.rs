//! The page docs/conformance.md: what all engines make of everything.

use brolga_jit::JitConfig;

use crate::accel::{AccelKind, EngineSpec};

/// What stands above the figures.
pub const HEAD: &str = "# Conformance

What `brolga conform` says of Brolga's processor, on all engines: `interp`, `jit:threshold=1`, which translates everything at once, and the translator as users have it. One command writes this page:

```sh
brolga conform --page vectors/80286 test386.bin > docs/conformance.md
```

It runs what is named, and the ROMs that are built in; what is not named is not on the page.

- **Built-in ROMs** (`test-roms/src/conformance`, `brolga conform --list`): each check's value is worked out from the manual's rules, by code that shares nothing with the emulator: permissions and faults by the manual's paragraphs, results of instructions by integers of 128 bits, single bits and exact fractions (`compute/integer.rs`, `compute/lanes.rs`, `compute/exact.rs`), times by ratios of the chips' rates. Under QEMU's TCG the same ROMs pass but for the checks in `tests/src/qemu_roms/known.rs`, each with its number and reason; `timing` is left out there, as QEMU's clocks are the host's.
- **Vectors**: SingleStepTests/80286, captured from a Harris 80C286, the first 100 cases of each real-mode opcode file. Skipped are cases in which a 386 or later differs, each class with its reason; what the files' own metadata call undefined is not compared.
- **test386.asm** (repository barotto/test386.asm, GPL, not part of this one): assembled as its README says, with 0xe9 for its output port, as a ROM of 64 or of 128 KiB. A file `test386.bin.conform` with the line `reference = test386-EE-reference.txt` has its arithmetic compared with the reference in that repository: 44 926 lines, besides all POST codes up to FF.

";

/// The engines whose figures are on the page.
pub fn engines() -> Vec<EngineSpec> {
    let everything = JitConfig { threshold: 1, ..JitConfig::default() };
    let mut engines = vec![EngineSpec::from(AccelKind::Interp)];
    if AccelKind::of_this_host() == AccelKind::Jit {
        let jit = EngineSpec::from(AccelKind::Jit);
        engines.push(EngineSpec { jit: everything, ..jit.clone() });
        engines.push(jit);
    }
    engines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_always_there_and_engines_differ() {
        let names: Vec<String> = engines().iter().map(ToString::to_string).collect();
        assert_eq!(names[0], "interp");
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
