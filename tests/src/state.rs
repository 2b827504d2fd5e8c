//! The line that `brolga --state-hash` prints at the end: `brolga: state N insns HASH`.

use anyhow::{Context, Result, ensure};

/// The state of a machine, to compare.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    /// Guest instructions retired since the machine was made.
    pub instructions: u64,
    /// A hash over registers, RAM and devices.
    pub hash: String,
}

impl State {
    /// Finds the line in what Brolga printed to stderr.
    pub fn find(stderr: &str) -> Result<Self> {
        let line = stderr.lines().find_map(|line| line.strip_prefix("brolga: state "));
        let line = line.with_context(|| format!("no line with the state in stderr:\n{stderr}"))?;
        let parts = line.split_once(" insns ");
        let (instructions, hash) = parts.with_context(|| format!("not a state: {line:?}"))?;
        let is_hash = hash.len() >= 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
        ensure!(is_hash, "not a hash: {hash:?}");
        Ok(Self { instructions: instructions.parse()?, hash: hash.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn the_line_is_found_and_checked() {
        let state = State::find("x\nbrolga: state 12 insns 0123456789abcdef\n").unwrap();
        assert_eq!((state.instructions, state.hash.as_str()), (12, "0123456789abcdef"));
        for bad in ["", "brolga: state 12", "brolga: state 12 insns ?", "brolga: state insns 00"] {
            assert!(State::find(bad).is_err(), "{bad:?} passed");
        }
    }
}
