//! The codes of a compressed file, sample by sample, and what is lost of them.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::time::Instant;

use tessera_codec::{FileReader, Next, Tables, coder};

use super::PriorCoder;
use crate::error::ApplyError;

/// Samples that lie ahead.
enum Ahead {
    Codes(Vec<u32>),
    /// So many are lost. A header can claim any number of them, so none has a place of its own.
    Lost(u64),
}

/// The codes of samples in order, as blocks give them.
pub(super) struct Codes<'a> {
    reader: FileReader<Box<dyn Read>>,
    tables: &'a Tables,
    prior: Option<&'a PriorCoder>,
    /// Number of the sample that comes next, and those that were read ahead.
    pub(super) next: u64,
    ahead: VecDeque<Ahead>,
    num_ahead: u64,
    pub(super) lost: Vec<Range<u64>>,
    positions: Vec<u32>,
    pub(super) seconds: f64,
}

impl<'a> Codes<'a> {
    pub(super) fn new(
        reader: FileReader<Box<dyn Read>>,
        tables: &'a Tables,
        prior: Option<&'a PriorCoder>,
    ) -> Self {
        let positions = reader.header().positions();
        let (ahead, lost) = (VecDeque::new(), Vec::new());
        Self { reader, tables, prior, next: 0, ahead, num_ahead: 0, lost, positions, seconds: 0.0 }
    }

    /// The codes of the next `num` samples, of each level after level; none of what is lost.
    pub(super) fn take(&mut self, num: usize) -> Result<Vec<Option<Vec<u32>>>, ApplyError> {
        let begun = Instant::now();
        while self.num_ahead < num as u64 {
            let missing = num as u64 - self.num_ahead;
            if !self.read(missing)? {
                self.lose(self.next + self.num_ahead, missing);
            }
        }
        let taken = (0..num).map(|_| self.pop()).collect();
        self.seconds += begun.elapsed().as_secs_f64();
        Ok(taken)
    }

    /// Those of the next sample, where there is one.
    pub(super) fn take_if_any(&mut self) -> Result<Option<Option<Vec<u32>>>, ApplyError> {
        let begun = Instant::now();
        while self.num_ahead == 0 {
            if !self.read(0)? {
                return Ok(None);
            }
        }
        let taken = self.pop();
        self.seconds += begun.elapsed().as_secs_f64();
        Ok(Some(taken))
    }

    /// Frames of a sound whose length its header did not know; known at the end.
    pub(super) fn frames(&self) -> Option<u64> {
        self.reader.frames()
    }

    /// Reads a block, or what is lost before it, `missing` samples where nobody knows how many; whether there was one.
    fn read(&mut self, missing: u64) -> Result<bool, ApplyError> {
        let wanted = self.next + self.num_ahead;
        match self.next()? {
            Next::Block { first, codes } => {
                debug_assert_eq!(first, wanted, "what is lost is told");
                let of_a_sample = self.positions.iter().sum::<u32>() as usize;
                for codes in codes.chunks_exact(of_a_sample) {
                    self.ahead.push_back(Ahead::Codes(coder::by_level(codes, &self.positions)));
                    self.num_ahead += 1;
                }
            }
            Next::Lost { first, num } => self.lose(first, num.unwrap_or(missing)),
            Next::End => return Ok(false),
        }
        Ok(true)
    }

    /// Takes note of what is lost; where it is less than a sample, that there is something.
    fn lose(&mut self, first: u64, num: u64) {
        self.lost.push(first..first + num);
        if num > 0 {
            self.ahead.push_back(Ahead::Lost(num));
            self.num_ahead += num;
        }
    }

    /// The next sample of those ahead, of which there is one.
    fn pop(&mut self) -> Option<Vec<u32>> {
        (self.next, self.num_ahead) = (self.next + 1, self.num_ahead - 1);
        match self.ahead.pop_front() {
            Some(Ahead::Codes(codes)) => Some(codes),
            Some(Ahead::Lost(num)) => {
                if num > 1 {
                    self.ahead.push_front(Ahead::Lost(num - 1));
                }
                None
            }
            None => unreachable!("it lies ahead"),
        }
    }

    fn next(&mut self) -> Result<Next, ApplyError> {
        let Some(prior) = self.prior else { return Ok(self.reader.next(self.tables)?) };
        let positions = &self.positions;
        let mut decode = |payload: &[u8], num: usize| {
            let samples = prior.decode(payload, num)?;
            let streams = samples.iter().flat_map(|codes| coder::interleaved(codes, positions));
            Some(streams.collect())
        };
        Ok(self.reader.next_by(&mut decode)?)
    }

    /// Whether the file ends where it should.
    pub(super) fn end(&mut self) -> Result<bool, ApplyError> {
        Ok(self.next()? == Next::End)
    }
}
