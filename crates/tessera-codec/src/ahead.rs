//! Bytes that come, some of them read ahead.

use std::io::{ErrorKind, Read};

use crate::CodecError;

/// A stream with some of its bytes read ahead.
#[derive(Debug)]
pub(crate) struct Ahead<R> {
    from: R,
    bytes: Vec<u8>,
    start: usize,
}

impl<R: Read> Ahead<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, bytes: Vec::new(), start: 0 }
    }

    /// Reads until so many bytes are there, or no more come; how many are there. Memory grows with what comes, whatever was
    /// asked for.
    pub(crate) fn fill(&mut self, wanted: usize) -> Result<usize, CodecError> {
        const PIECE: usize = 1 << 16;
        while self.bytes.len() - self.start < wanted {
            if self.start > PIECE {
                self.bytes.drain(..self.start);
                self.start = 0;
            }
            let before = self.bytes.len();
            self.bytes.resize(before + PIECE, 0);
            let read = match self.from.read(&mut self.bytes[before..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    self.bytes.truncate(before);
                    continue;
                }
                result => result,
            };
            self.bytes.truncate(before + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                break;
            }
        }
        Ok(self.bytes.len() - self.start)
    }

    pub(crate) fn see(&self, length: usize) -> &[u8] {
        &self.bytes[self.start..self.start + length]
    }

    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        let taken = self.see(length).to_vec();
        self.start += length;
        taken
    }

    /// Gives back what was taken last.
    pub(crate) fn back(&mut self, bytes: &[u8]) {
        self.start -= bytes.len();
        debug_assert_eq!(self.see(bytes.len()), bytes);
    }

    /// Leaves one byte out, and those behind it that are another.
    pub(crate) fn skip_to(&mut self, byte: u8) {
        let rest = &self.bytes[self.start + 1..];
        let next = rest.iter().position(|found| *found == byte).unwrap_or(rest.len());
        self.start += 1 + next;
    }
}
