//! Codes to bytes and back: a range coder, one stream a block.
//!
//! [`constriction`]'s range coder with words of 32 bits, a state of 64 and probabilities of 24 bits; words are in the file with their
//! low byte first. Codes come sample by sample, position by position, and of each position level by level, the order in which a
//! model that predicts them would see them. A stream has no checksum: the [container](crate::container) has.

use constriction::stream::queue::{DefaultRangeDecoder, DefaultRangeEncoder};
use constriction::stream::{Decode, Encode};

use crate::{CodecError, Tables, table};

/// Codes `[samples, positions, levels]` of a block to bytes, a multiple of 4.
///
/// # Errors
///
/// [`CodecError::BadInput`] if a code is none of its level's, or the codes are not whole samples.
pub fn encode(codes: &[u32], positions: &[u32], tables: &Tables) -> Result<Vec<u8>, CodecError> {
    let order = order(&positions[..positions.len().min(tables.levels().len())]);
    if order.is_empty() || !codes.len().is_multiple_of(order.len()) {
        let problem = format!("{} codes are not whole samples of {}", codes.len(), order.len());
        return Err(CodecError::BadInput(problem));
    }
    let mut encoder = DefaultRangeEncoder::new();
    for sample in codes.chunks_exact(order.len()) {
        for (&code, &(level, position)) in sample.iter().zip(&order) {
            let table = &tables.levels()[level];
            if code >= table.num_codes() {
                let most = table.num_codes() - 1;
                let problem =
                    format!("a code of level {level} should be at most {most}, found {code}");
                return Err(CodecError::BadInput(problem));
            }
            let coded = encoder.encode_symbol(code as usize, table.model(position));
            coded.expect("memory takes every word, and every code has a probability");
        }
    }
    let words = encoder.into_compressed().expect("memory takes every word");
    Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

/// The codes of so many samples back; `None` if the bytes cannot have come from [`encode`]. Bytes that someone changed
/// usually give other codes: compare a checksum of them.
pub fn decode(
    bytes: &[u8],
    num_samples: usize,
    positions: &[u32],
    tables: &Tables,
) -> Option<Vec<u32>> {
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let words: Vec<u32> = bytes
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    let order = order(&positions[..positions.len().min(tables.levels().len())]);
    let mut decoder = DefaultRangeDecoder::from_compressed(words).ok()?;
    let mut codes = Vec::with_capacity(num_samples * order.len());
    for _ in 0..num_samples {
        for &(level, position) in &order {
            let code = decoder.decode_symbol(tables.levels()[level].model(position)).ok()?;
            codes.push(code as u32);
        }
    }
    decoder.maybe_exhausted().then_some(codes)
}

/// A stream whose probabilities come one table at a time, as a model makes them.
#[derive(Debug, Default)]
pub struct StreamEncoder(DefaultRangeEncoder);

/// The way back of [`StreamEncoder`].
#[derive(Debug)]
pub struct StreamDecoder(DefaultRangeDecoder);

impl StreamEncoder {
    /// Writes a code by probabilities in parts of 2^24, none of them 0.
    ///
    /// # Errors
    ///
    /// [`CodecError::BadInput`] if the probabilities do not add up, or the code is none of theirs.
    pub fn write(&mut self, code: usize, probabilities: &[u32]) -> Result<(), CodecError> {
        let model = table::model_of(probabilities)?;
        self.0.encode_symbol(code, &model).map_err(|_| {
            let most = probabilities.len() - 1;
            CodecError::BadInput(format!("a code should be at most {most}, found {code}"))
        })
    }

    /// The bytes, a multiple of 4.
    pub fn finish(self) -> Vec<u8> {
        let words = self.0.into_compressed().expect("memory takes every word");
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

impl StreamDecoder {
    /// Begins to read; `None` if the bytes are no stream.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<4>();
        let words = words.iter().map(|word| u32::from_le_bytes(*word)).collect::<Vec<u32>>();
        let decoder = DefaultRangeDecoder::from_compressed(words).ok()?;
        rest.is_empty().then_some(Self(decoder))
    }

    /// The next code by the probabilities that it was written by; `None` if the bytes cannot have come from such.
    pub fn read(&mut self, probabilities: &[u32]) -> Option<usize> {
        self.0.decode_symbol(&table::model_of(probabilities).ok()?).ok()
    }

    /// Whether nothing is left that was written.
    pub fn is_at_end(&self) -> bool {
        self.0.maybe_exhausted()
    }
}

/// The codes of one sample, which lie level after level, in the order of a stream.
pub fn interleaved(by_level: &[u32], positions: &[u32]) -> Vec<u32> {
    places(positions).into_iter().map(|place| by_level[place]).collect()
}

/// The way back of [`interleaved`].
pub fn by_level(interleaved: &[u32], positions: &[u32]) -> Vec<u32> {
    let mut codes = vec![0; interleaved.len()];
    for (&code, place) in interleaved.iter().zip(places(positions)) {
        codes[place] = code;
    }
    codes
}

/// Where each code of a stream stands in a sample that has its levels one after another.
fn places(positions: &[u32]) -> Vec<usize> {
    let starts: Vec<usize> = positions
        .iter()
        .scan(0, |next, &num| Some(std::mem::replace(next, *next + num as usize)))
        .collect();
    order(positions).into_iter().map(|(level, position)| starts[level] + position).collect()
}

/// Level and position of each code of a sample. Levels may have fewer positions than others, as those of a hierarchy have: then each
/// level comes as a whole, and levels that stand at the same positions take turns.
fn order(positions: &[u32]) -> Vec<(usize, usize)> {
    positions
        .chunk_by(|a, b| a == b)
        .scan(0, |next, alike| {
            let first = *next;
            *next += alike.len();
            Some((first..*next, alike[0] as usize))
        })
        .flat_map(|(levels, num)| {
            (0..num).flat_map(move |position| levels.clone().map(move |level| (level, position)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: two levels of two positions take turns, one of one position comes as it is.
    #[test]
    fn levels_of_a_grid_take_turns() {
        let by_levels = [10, 11, 20, 21, 30];
        let stream = interleaved(&by_levels, &[2, 2, 1]);
        assert_eq!(stream, [10, 20, 11, 21, 30]);
        assert_eq!(by_level(&stream, &[2, 2, 1]), by_levels);
    }

    /// Each code by a table of its own, as a model makes them; damage may be seen, and never panics.
    #[test]
    fn a_stream_takes_a_table_for_each_code() {
        let logits = |at: usize| -> Vec<f64> {
            (0..9).map(|code| ((at * 31 + code * 17) % 23) as f64 / 4.0).collect()
        };
        let codes: Vec<usize> = (0..500).map(|at| at * at % 9).collect();
        let mut stream = StreamEncoder::default();
        for (at, &code) in codes.iter().enumerate() {
            stream.write(code, &table::of_logits(&logits(at))).unwrap();
        }
        assert!(stream.write(9, &table::of_logits(&logits(0))).is_err());
        let bytes = stream.finish();
        let read = |bytes: &[u8]| {
            let mut stream = StreamDecoder::new(bytes)?;
            let codes: Option<Vec<usize>> =
                (0..500).map(|at| stream.read(&table::of_logits(&logits(at)))).collect();
            codes.filter(|_| stream.is_at_end())
        };
        assert_eq!(read(&bytes).unwrap(), codes);
        for length in (0..bytes.len()).step_by(4) {
            assert!(read(&bytes[..length]).is_none_or(|found| found != codes), "{length}");
        }
        assert!(StreamDecoder::new(&bytes[..3]).is_none());
    }

    /// By hand: of two codes, e times as likely, 1 / (1 + e) of 2^24 - 2 is 4,512,087.6: that rounded down, and one.
    #[test]
    fn logits_become_whole_numbers_that_add_up() {
        assert_eq!(table::of_logits(&[0.0, 1.0]), [4_512_088, (1 << 24) - 4_512_088]);
        for logits in [vec![0.0; 7], vec![-1e9, 0.0, 3.0], vec![f64::NAN, 1.0], vec![700.0, -700.0]]
        {
            let parts = table::of_logits(&logits);
            assert_eq!(parts.iter().sum::<u32>(), table::WHOLE, "{logits:?}");
            assert!(!parts.contains(&0), "{logits:?}");
        }
    }
}
