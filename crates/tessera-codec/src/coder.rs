//! Codes to bytes and back: a range coder, one stream a block.
//!
//! [`constriction`]'s range coder with words of 32 bits, a state of 64 and probabilities of 24 bits; words are in the file with their
//! low byte first. Codes come sample by sample, position by position, and of each position level by level, the order in which a
//! model that predicts them would see them. A stream has no checksum: the [container](crate::container) has.

use constriction::stream::queue::{DefaultRangeDecoder, DefaultRangeEncoder};
use constriction::stream::{Decode, Encode};

use crate::{CodecError, Tables};

/// Codes `[samples, positions, levels]` of a block to bytes, a multiple of 4.
///
/// # Errors
///
/// [`CodecError::BadInput`] if a code is none of its level's, or the codes are not whole samples.
pub fn encode(codes: &[u32], positions: &[u32], tables: &Tables) -> Result<Vec<u8>, CodecError> {
    let order = order(positions, tables);
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
    let order = order(positions, tables);
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

/// Level and position of each code of a sample. Levels may have fewer positions than others, as those of a hierarchy have: then each
/// level comes as a whole, and levels that stand at the same positions take turns.
fn order(positions: &[u32], tables: &Tables) -> Vec<(usize, usize)> {
    let levels = positions.len().min(tables.levels().len());
    let mut order = Vec::new();
    let mut first = 0;
    while first < levels {
        let alike =
            positions[first..levels].iter().take_while(|num| **num == positions[first]).count();
        for position in 0..positions[first] as usize {
            order.extend((first..first + alike).map(|level| (level, position)));
        }
        first += alike;
    }
    order
}
