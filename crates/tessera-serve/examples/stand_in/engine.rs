//! A model without learning: a token is a value without its lowest bits, so that every answer can be checked by hand.
//!
//! Pictures are 8 x 8 in colour: the token of a byte is `byte / 4`, and stands for `4 * token + 2`. The three levels are
//! the colours. Sounds are 64 frames in mono: the token of a value is `(value + 32768) / 16`, the middle of what it
//! stands for is `16 * token + 8 - 32768`. Sample `n` of seed `s` has the token `s + n + class + position`, modulo K.

use tessera_serve::{Description, Drawing, Engine, Level, Modality, Wanted};

/// Height and width of a picture.
pub(crate) const SIDE: usize = 8;
/// Colours of a picture.
pub(crate) const COLORS: usize = 3;
/// Frames of a sound.
pub(crate) const FRAMES: usize = 64;
/// Frames a second.
pub(crate) const SAMPLE_RATE: u32 = 8000;
/// Samples of a full batch.
pub(crate) const TILE: usize = 16;
const PICTURE_CODES: u32 = 64;
const SOUND_CODES: u32 = 4096;

/// The stand-in.
pub(crate) struct StandIn {
    /// What its samples are.
    pub(crate) modality: Modality,
}

/// What the server tells of it.
pub(crate) fn describe(modality: Modality) -> Description {
    let (sample_shape, levels, sample_rate) = if modality == Modality::Sound {
        let level = Level { axes: vec![FRAMES], num_codes: SOUND_CODES };
        (vec![FRAMES, 1], vec![level], Some(SAMPLE_RATE))
    } else {
        let level = Level { axes: vec![SIDE, SIDE], num_codes: PICTURE_CODES };
        (vec![SIDE, SIDE, COLORS], vec![level; COLORS], None)
    };
    Description {
        name: "stand_in".to_owned(),
        hash: "00".repeat(32),
        tessera: env!("CARGO_PKG_VERSION").to_owned(),
        modality,
        sample_shape,
        sample_rate,
        num_tokens: levels.iter().map(Level::num_tokens).sum(),
        levels,
        classes: ["dark", "bright"].map(str::to_owned).to_vec(),
        num_classes: 2,
        tile: TILE,
        has_prior: true,
    }
}

impl StandIn {
    /// Tokens of one sample.
    pub(crate) fn tokens_of(modality: Modality, sample: &[u8]) -> Vec<u32> {
        if modality == Modality::Sound {
            let value = |bytes: &[u8]| i32::from(i16::from_le_bytes([bytes[0], bytes[1]]));
            return sample
                .chunks_exact(2)
                .map(|pair| ((value(pair) + 32768) / 16) as u32)
                .collect();
        }
        let of_color = |color| sample.iter().skip(color).step_by(COLORS);
        (0..COLORS).flat_map(of_color).map(|&byte| u32::from(byte) / 4).collect()
    }

    /// The sample that tokens stand for.
    pub(crate) fn sample_of(modality: Modality, tokens: &[u32]) -> Vec<u8> {
        if modality == Modality::Sound {
            let value = |&token: &u32| (16 * token as i32 + 8 - 32768) as i16;
            return tokens.iter().flat_map(|token| value(token).to_le_bytes()).collect();
        }
        let num_pixels = SIDE * SIDE;
        let byte = |at: usize| (4 * tokens[at % COLORS * num_pixels + at / COLORS] + 2) as u8;
        (0..tokens.len()).map(byte).collect()
    }

    /// Tokens of a new sample.
    pub(crate) fn drawn(modality: Modality, wanted: &Wanted) -> Vec<u32> {
        let description = describe(modality);
        let first = wanted.seed + wanted.number + u64::from(wanted.class.unwrap_or(0));
        let num_codes = u64::from(description.levels[0].num_codes);
        let token = |position: usize| ((first + position as u64) % num_codes) as u32;
        (0..description.num_tokens).map(token).collect()
    }
}

impl Engine for StandIn {
    fn encode(&mut self, samples: &[&[u8]]) -> Result<Vec<Vec<u32>>, String> {
        Ok(samples.iter().map(|sample| Self::tokens_of(self.modality, sample)).collect())
    }

    fn decode(&mut self, tokens: &[&[u32]]) -> Result<Vec<Vec<u8>>, String> {
        Ok(tokens.iter().map(|tokens| Self::sample_of(self.modality, tokens)).collect())
    }

    fn draw(&mut self, _: &Drawing, wanted: &[Wanted]) -> Result<Vec<Vec<u32>>, String> {
        Ok(wanted.iter().map(|one| Self::drawn(self.modality, one)).collect())
    }
}
