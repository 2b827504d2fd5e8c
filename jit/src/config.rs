//! The translator's settings.

use crate::dump::DumpConfig;

/// With a thread of its own, translation costs the vCPU little: this early it pays.
const THRESHOLD_IN_BACKGROUND: u32 = 300;

/// How the translator works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JitConfig {
    /// Executions after which a block is translated; 1 translates everything at once.
    pub threshold: u32,
    /// Threads that translate beside the vCPU; 0 makes it wait, and so does a threshold of 1.
    pub threads: usize,
    /// Bytes of machine code that are kept.
    pub cache_bytes: usize,
    /// What is written about the code.
    pub dump: DumpConfig,
    /// [`report`](brolga_cpu::core::tier::Tier::report) names the instructions that code is left for.
    pub stats: bool,
}

impl Default for JitConfig {
    fn default() -> Self {
        JitConfig {
            threshold: 2000,
            threads: 0,
            cache_bytes: 64 << 20,
            dump: DumpConfig::default(),
            stats: false,
        }
    }
}

impl JitConfig {
    /// What suits this host: where it has several processors, one translates beside the vCPU.
    pub fn of_this_host() -> JitConfig {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        JitConfig::default().with_threads(processors.saturating_sub(1).min(1))
    }

    /// With so many threads, and the threshold that suits them.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> JitConfig {
        let threshold = match threads {
            0 => JitConfig::default().threshold,
            _ => THRESHOLD_IN_BACKGROUND,
        };
        JitConfig { threads, threshold, ..self }
    }
}
