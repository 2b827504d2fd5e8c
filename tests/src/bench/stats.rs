//! The line that `brolga --stats` prints at the end.

const PREFIX: &str = "brolga: stats ";

/// Its figures.
#[derive(Debug, PartialEq)]
pub struct Stats {
    /// Guest instructions retired.
    pub instructions: u64,
    /// Millions of instructions a second.
    pub mips: f64,
}

impl Stats {
    /// Finds the line in what Brolga printed.
    pub fn find(output: &str) -> Option<Self> {
        let line = output.lines().find_map(|line| line.split_once(PREFIX))?.1;
        let field = |name: &str| {
            line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        Some(Self {
            instructions: field("insns")?.parse().ok()?,
            mips: field("mips")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Stats;

    #[test]
    fn the_line_is_found_among_others() {
        let output = "bye\nbrolga: stats insns=1800 seconds=1.5 mips=0.12 peak-rss=4096\nx";
        assert_eq!(Stats::find(output), Some(Stats { instructions: 1800, mips: 0.12 }));
        assert_eq!(Stats::find("brolga: state 1 insns 2"), None);
    }
}
