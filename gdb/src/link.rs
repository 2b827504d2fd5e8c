//! Packets of GDB's remote protocol out of and into a stream of bytes: framing, checksums,
//! acknowledgements and repetition. What comes out is well framed; what it says is for others.

use std::fmt::Write;

/// Most bytes of a packet's contents that are taken.
pub(crate) const PACKET_BYTES: usize = 0x4000;

/// The byte by which a debugger interrupts a running target.
const INTERRUPT: u8 = 0x03;

/// What a debugger has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A packet whose checksum is right: its contents, still escaped.
    Packet(Vec<u8>),
    /// A packet that is too long: its contents are lost.
    TooLong,
    /// The wish to stop the target.
    Interrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Between,
    Contents,
    Checksum { first: Option<u8> },
}

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    state: State,
    contents: Vec<u8>,
    too_long: bool,
    sum: u8,
    acknowledges: bool,
    /// The last packet sent, for repetition.
    last: Vec<u8>,
    /// What is to be sent.
    output: Vec<u8>,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            state: State::Between,
            contents: Vec::new(),
            too_long: false,
            sum: 0,
            acknowledges: true,
            last: Vec::new(),
            output: Vec::new(),
        }
    }
}

impl Link {
    /// The next byte from the debugger.
    pub(crate) fn feed(&mut self, byte: u8) -> Option<Received> {
        match self.state {
            State::Between => self.between(byte),
            State::Contents => {
                self.inside(byte);
                None
            }
            State::Checksum { first: None } => {
                self.state = State::Checksum { first: Some(byte) };
                None
            }
            State::Checksum { first: Some(first) } => {
                self.state = State::Between;
                self.complete(first, byte)
            }
        }
    }

    fn between(&mut self, byte: u8) -> Option<Received> {
        match byte {
            b'$' => self.begin(),
            b'-' if self.acknowledges => self.output.extend_from_slice(&self.last),
            INTERRUPT => return Some(Received::Interrupt),
            _ => {}
        }
        None
    }

    fn begin(&mut self) {
        self.state = State::Contents;
        self.contents.clear();
        self.too_long = false;
        self.sum = 0;
    }

    fn inside(&mut self, byte: u8) {
        match byte {
            b'#' => self.state = State::Checksum { first: None },
            // The rest of the last packet is lost: a new one begins.
            b'$' => self.begin(),
            _ => {
                self.sum = self.sum.wrapping_add(byte);
                if self.contents.len() < PACKET_BYTES {
                    self.contents.push(byte);
                } else {
                    self.too_long = true;
                }
            }
        }
    }

    fn complete(&mut self, first: u8, second: u8) -> Option<Received> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let sent = digit(first).zip(digit(second)).map(|(high, low)| (high << 4 | low) as u8);
        let right = sent == Some(self.sum);
        if self.acknowledges {
            self.output.push(if right { b'+' } else { b'-' });
        }
        match (right, self.too_long) {
            (false, _) => None,
            (true, true) => Some(Received::TooLong),
            (true, false) => Some(Received::Packet(std::mem::take(&mut self.contents))),
        }
    }

    /// Sends a packet; `contents` needs no escapes.
    pub(crate) fn send(&mut self, contents: &str) {
        self.send_framed(&framed(contents.as_bytes()));
    }

    /// Sends packets that are framed already.
    pub(crate) fn send_framed(&mut self, packets: &[u8]) {
        self.output.extend_from_slice(packets);
        self.last.clear();
        self.last.extend_from_slice(packets);
    }

    /// Shows a text on the debugger's console, while it waits for the target.
    pub(crate) fn print(&mut self, text: &str) {
        // In pieces that fit in any debugger's packets.
        for piece in text.as_bytes().chunks(PACKET_BYTES / 8) {
            self.send(&format!("O{}", hex(piece)));
        }
    }

    /// The debugger asks that neither side acknowledges packets from the next on.
    pub(crate) fn stop_acknowledging(&mut self) {
        self.send("OK");
        self.acknowledges = false;
    }

    /// Takes what is to be sent.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }
}

/// A packet around `contents`.
pub(crate) fn framed(contents: &[u8]) -> Vec<u8> {
    let sum = contents.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    let mut packet = Vec::with_capacity(contents.len() + 4);
    packet.push(b'$');
    packet.extend_from_slice(contents);
    packet.extend_from_slice(format!("#{sum:02x}").as_bytes());
    packet
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(link: &mut Link, bytes: &[u8]) -> Vec<Received> {
        bytes.iter().filter_map(|byte| link.feed(*byte)).collect()
    }

    fn packet(contents: &[u8]) -> Received {
        Received::Packet(contents.to_vec())
    }

    #[test]
    fn right_packets_are_acknowledged_and_wrong_ones_asked_for_again() {
        let mut link = Link::default();
        assert_eq!(feed(&mut link, b"+$?#3f"), [packet(b"?")]);
        assert_eq!(link.take_output(), b"+");
        assert_eq!(feed(&mut link, b"$?#00$g#67"), [packet(b"g")]);
        assert_eq!(link.take_output(), b"-+");
        assert_eq!(feed(&mut link, b"$?#xy"), []);
        assert_eq!(link.take_output(), b"-");
    }

    #[test]
    fn the_last_packet_is_repeated_when_it_did_not_arrive() {
        let mut link = Link::default();
        link.send("OK");
        assert_eq!(link.take_output(), b"$OK#9a");
        feed(&mut link, b"-");
        assert_eq!(link.take_output(), b"$OK#9a");
    }

    #[test]
    fn without_acknowledgements_there_are_neither() {
        let mut link = Link::default();
        link.stop_acknowledging();
        link.take_output();
        assert_eq!(feed(&mut link, b"-$?#3f$?#00\x03"), [packet(b"?"), Received::Interrupt]);
        assert_eq!(link.take_output(), b"");
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let mut link = Link::default();
        let long = framed(&vec![b'a'; PACKET_BYTES + 1]);
        assert_eq!(feed(&mut link, &long), [Received::TooLong]);
        assert!(link.contents.len() <= PACKET_BYTES);
        let fits = framed(&vec![b'a'; PACKET_BYTES]);
        assert_eq!(feed(&mut link, &fits).len(), 1);
    }

    #[test]
    fn a_new_packet_ends_one_that_was_broken_off() {
        let mut link = Link::default();
        assert_eq!(feed(&mut link, b"$m0,4$?#3f"), [packet(b"?")]);
    }
}
