//! The outside end of the serial line.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// What comes from outside while a machine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes for the guest.
    Bytes(Vec<u8>),
    /// The user wants to leave.
    Quit,
    /// Nothing for the guest, but the machine must look around.
    Attention,
}

/// The outside end of the serial line: where output goes and where input comes from.
pub struct Serial {
    output: Box<dyn Write + Send>,
    input: Option<Receiver<Input>>,
    waiting: VecDeque<u8>,
    answers: VecDeque<Answer>,
    quit: bool,
}

/// What is typed when the guest has written a text.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The text.
    pub after: TextMatch,
    /// The bytes to type.
    pub typed: Vec<u8>,
}

impl Serial {
    /// A line with nobody at its other end.
    pub fn nowhere() -> Self {
        Self::to(io::sink())
    }

    /// A line that can only be written.
    pub fn to(output: impl Write + Send + 'static) -> Self {
        Self {
            output: Box::new(output),
            input: None,
            waiting: VecDeque::new(),
            answers: VecDeque::new(),
            quit: false,
        }
    }

    /// This line, with input; it ends when the sender is dropped.
    #[must_use]
    pub fn with_input(self, input: Receiver<Input>) -> Self {
        Self { input: Some(input), ..self }
    }

    /// This line, with all of its input there from the beginning: a run with it is as
    /// deterministic as one without any.
    #[must_use]
    pub fn with_script(self, script: Vec<u8>) -> Self {
        Self { waiting: script.into(), ..self }
    }

    /// This line, with somebody at its other end who gives these answers in turn, each once.
    #[must_use]
    pub fn with_answers(self, answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: answers.into_iter().collect(), ..self }
    }

    /// Sends what the guest has written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for &byte in bytes {
            if self.answers.front_mut().is_some_and(|answer| answer.after.feed(byte))
                && let Some(answer) = self.answers.pop_front()
            {
                self.waiting.extend(answer.typed);
            }
        }
        self.output.write_all(bytes)?;
        self.output.flush()
    }

    /// The next byte for the guest.
    pub fn next_byte(&mut self) -> Option<u8> {
        if self.waiting.is_empty() {
            self.poll();
        }
        self.waiting.pop_front()
    }

    /// Whether the user wants to leave.
    pub fn wants_to_quit(&mut self) -> bool {
        self.poll();
        self.quit
    }

    /// Whether input may come that is not there yet.
    pub fn may_speak(&self) -> bool {
        self.input.is_some()
    }

    /// Waits until input comes, at most for `limit`.
    pub fn wait(&mut self, limit: Duration) {
        let Some(input) = &self.input else {
            std::thread::sleep(limit);
            return;
        };
        match input.recv_timeout(limit) {
            Ok(input) => self.take(input),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.input = None,
        }
    }

    fn poll(&mut self) {
        while let Some(input) = &self.input {
            match input.try_recv() {
                Ok(input) => self.take(input),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.input = None,
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Bytes(bytes) => self.waiting.extend(bytes),
            Input::Quit => self.quit = true,
            Input::Attention => {}
        }
    }
}

/// Finds a text in a stream of bytes (Knuth, Morris and Pratt: a mismatch falls back to the
/// longest beginning of the text that has just been seen).
#[derive(Clone, Debug)]
pub struct TextMatch {
    text: Vec<u8>,
    /// For each length of a match, the length of its longest border.
    fallback: Vec<usize>,
    matched: usize,
}

impl TextMatch {
    /// A search for `text`; an empty text is never found.
    pub fn new(text: impl Into<Vec<u8>>) -> Self {
        let text = text.into();
        let mut fallback = vec![0; text.len() + 1];
        let mut border = 0;
        for length in 1..text.len() {
            while border > 0 && text[border] != text[length] {
                border = fallback[border];
            }
            border += usize::from(text[border] == text[length]);
            fallback[length + 1] = border;
        }
        Self { text, fallback, matched: 0 }
    }

    /// The next byte of the stream: whether the text ends here.
    pub fn feed(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.text.get(self.matched) != Some(&byte) {
            self.matched = self.fallback[self.matched];
        }
        self.matched += usize::from(self.text.get(self.matched) == Some(&byte));
        !self.text.is_empty() && self.matched == self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn ends(text: &str, stream: &str) -> Vec<usize> {
        let mut search = TextMatch::new(text);
        (1..).zip(stream.bytes()).filter(|&(_, byte)| search.feed(byte)).map(|(at, _)| at).collect()
    }

    #[test]
    fn texts_are_found_where_they_end() {
        assert_eq!(ends("# ", "~ # ls\n~ # "), [4, 11]);
        assert_eq!(ends("aab", "aaab"), [4]);
        assert_eq!(ends("abab", "abababab"), [4, 6, 8]);
        assert_eq!(ends("", "anything"), [0; 0]);
    }

    #[test]
    fn input_comes_in_order_and_ends_with_its_sender() {
        let (sender, receiver) = mpsc::channel();
        let mut serial = Serial::nowhere().with_input(receiver);
        assert_eq!(serial.next_byte(), None);
        sender.send(Input::Bytes(b"hi".to_vec())).expect("the line is open");
        sender.send(Input::Quit).expect("the line is open");
        drop(sender);
        serial.wait(Duration::from_secs(10));
        assert_eq!((serial.next_byte(), serial.next_byte()), (Some(b'h'), Some(b'i')));
        assert!(serial.may_speak());
        assert_eq!(serial.next_byte(), None);
        assert!(serial.wants_to_quit() && !serial.may_speak());
    }

    #[test]
    fn answers_are_typed_in_turn() {
        let answer = |typed: &str| Answer { after: TextMatch::new("$ "), typed: typed.into() };
        let mut serial = Serial::nowhere().with_answers([answer("a"), answer("b")]);
        let mut typed = |written: &str| {
            serial.write(written.as_bytes()).expect("nowhere takes everything");
            std::iter::from_fn(|| serial.next_byte()).collect::<Vec<u8>>()
        };
        assert_eq!(typed("~ $"), b"");
        assert_eq!(typed(" "), b"a");
        assert_eq!(typed("~ $ ~ $ "), b"b");
    }

    #[test]
    fn a_script_is_there_from_the_beginning() {
        let mut serial = Serial::nowhere().with_script(b"x".to_vec());
        assert_eq!((serial.next_byte(), serial.next_byte()), (Some(b'x'), None));
        assert!(!serial.may_speak());
    }
}
