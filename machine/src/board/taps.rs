//! Ports at which somebody listens: what the guest writes there is kept.

/// More is not kept: a guest may write for ever.
const LARGEST: usize = 64 << 20;

/// The ports, and what was written to each since power-on.
#[derive(Debug, Default)]
pub(super) struct Taps(Vec<(u16, Vec<u8>)>);

impl Taps {
    pub(super) fn new(ports: &[u16]) -> Self {
        Self(ports.iter().map(|&port| (port, Vec::new())).collect())
    }

    /// A byte is written.
    pub(super) fn record(&mut self, port: u16, value: u8) {
        for (at, bytes) in &mut self.0 {
            if *at == port && bytes.len() < LARGEST {
                bytes.push(value);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was written to `port`; empty if nobody listens there.
    pub(super) fn written(&self, port: u16) -> &[u8] {
        self.0.iter().find(|(at, _)| *at == port).map_or(&[], |(_, bytes)| bytes)
    }
}
