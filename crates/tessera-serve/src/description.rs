//! What the server tells of its model, and how samples make up a file.

use serde::{Deserialize, Serialize};

use crate::ServeError;

/// Bytes of one value of a sound.
const BYTES_OF_A_FRAME: usize = 2;

/// What a sample of the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// `[H, W, C]`, unsigned bytes.
    Picture,
    /// `[T, C]`, signed 16-bit integers.
    Sound,
    /// `[F, H, W, C]`, unsigned bytes.
    Film,
}

impl Modality {
    /// Media type of the files that the server answers with.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Picture => "image/png",
            Self::Sound => "audio/wav",
            Self::Film => "image/apng",
        }
    }

    /// Name of its values' type in the KServe protocol.
    pub const fn datatype(self) -> &'static str {
        match self {
            Self::Picture | Self::Film => "UINT8",
            Self::Sound => "INT16",
        }
    }

    /// Bytes of one value.
    pub const fn value_bytes(self) -> usize {
        match self {
            Self::Picture | Self::Film => 1,
            Self::Sound => BYTES_OF_A_FRAME,
        }
    }

    const fn num_axes(self) -> usize {
        match self {
            Self::Picture => 3,
            Self::Sound => 2,
            Self::Film => 4,
        }
    }
}

/// A level of the model's codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Positions along each axis; their product is the level's number of tokens.
    pub axes: Vec<usize>,
    /// Number of codes, K; tokens are below it.
    pub num_codes: u32,
}

impl Level {
    /// Tokens of a sample that belong to this level.
    pub fn num_tokens(&self) -> usize {
        self.axes.iter().product()
    }
}

/// What the server tells of its model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Name of the model, such as `fashion_mnist`.
    pub name: String,
    /// SHA-256 of the model, in hexadecimal.
    pub hash: String,
    /// Version of the program that serves it.
    pub tessera: String,
    /// What a sample is.
    pub modality: Modality,
    /// Shape of one sample: `[H, W, C]`, `[T, C]` or `[F, H, W, C]`.
    pub sample_shape: Vec<usize>,
    /// Frames a second of a sound.
    pub sample_rate: Option<u32>,
    /// Tokens of a sample, over all levels.
    pub num_tokens: usize,
    /// Levels in the order of a sample's tokens.
    pub levels: Vec<Level>,
    /// Names of the classes that the prior knows; empty where it has numbers alone.
    pub classes: Vec<String>,
    /// Number of classes of the prior; 0: it knows none.
    pub num_classes: u32,
    /// Samples of a full batch.
    pub tile: usize,
    /// Whether new samples can be drawn.
    pub has_prior: bool,
}

impl Description {
    /// Bytes of one sample.
    pub fn sample_bytes(&self) -> usize {
        self.sample_shape.iter().product::<usize>() * self.modality.value_bytes()
    }

    /// How loose samples make up one file: pictures in the squarest grid that they fill, sounds and films one after another.
    pub fn sheet(&self, num_samples: usize) -> Layout {
        let mut size: Vec<u64> = self.sample_shape.iter().map(|&axis| axis as u64).collect();
        let num_samples = num_samples as u64;
        if self.modality == Modality::Picture {
            let mut num_rows = num_samples.isqrt().max(1);
            while !num_samples.is_multiple_of(num_rows) {
                num_rows -= 1;
            }
            size[0] *= num_rows;
            size[1] *= num_samples / num_rows;
        } else {
            size[0] *= num_samples;
        }
        Layout { size, rate: self.sample_rate }
    }

    /// Says what cannot be of what the caller described.
    ///
    /// # Errors
    ///
    /// [`ServeError::Description`].
    pub(crate) fn validate(&self) -> Result<(), ServeError> {
        let wrong = |problem: String| Err(ServeError::Description(problem));
        if self.sample_shape.len() != self.modality.num_axes() || self.sample_bytes() == 0 {
            return wrong(format!("{:?} is no shape of a {:?}", self.sample_shape, self.modality));
        }
        let of_levels: usize = self.levels.iter().map(Level::num_tokens).sum();
        if of_levels != self.num_tokens || self.num_tokens == 0 {
            return wrong(format!("levels have {of_levels} tokens, not {}", self.num_tokens));
        }
        if self.levels.iter().any(|level| level.num_codes == 0) || self.tile == 0 {
            return wrong("a level has no codes, or a batch has no samples".to_owned());
        }
        Ok(())
    }

    /// Says which token of a sample is none of the model's, if one is.
    pub(crate) fn check_tokens(&self, tokens: &[u32]) -> Result<(), String> {
        if tokens.len() != self.num_tokens {
            let (came, expected) = (tokens.len(), self.num_tokens);
            return Err(format!("expected {expected} tokens a sample, got {came}"));
        }
        let mut at = 0;
        for level in &self.levels {
            let end = at + level.num_tokens();
            if let Some(&token) = tokens[at..end].iter().find(|&&token| token >= level.num_codes) {
                return Err(format!("expected tokens below {}, got {token}", level.num_codes));
            }
            at = end;
        }
        Ok(())
    }
}

/// Size of what samples make up together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Picture `[H, W, C]`, sound `[T, C]`, film `[F, H, W, C]`, of the whole file.
    pub size: Vec<u64>,
    /// Sound: frames a second. Film: frames in a thousand seconds. `None` for pictures, and where a film does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Description {
        Description {
            name: "m".to_owned(),
            hash: "00".to_owned(),
            tessera: "0".to_owned(),
            modality: Modality::Picture,
            sample_shape: vec![8, 8, 3],
            sample_rate: None,
            num_tokens: 5,
            levels: vec![
                Level { axes: vec![2, 2], num_codes: 16 },
                Level { axes: vec![1], num_codes: 4 },
            ],
            classes: Vec::new(),
            num_classes: 0,
            tile: 4,
            has_prior: false,
        }
    }

    #[test]
    fn a_sheet_is_the_squarest_grid_that_samples_fill() {
        // 12 = 3 x 4, 7 = 1 x 7.
        assert_eq!(picture().sheet(12).size, [24, 32, 3]);
        assert_eq!(picture().sheet(7).size, [8, 56, 3]);
    }

    #[test]
    fn a_token_is_held_against_the_codes_of_its_own_level() {
        let description = picture();
        assert!(description.validate().is_ok());
        assert!(description.check_tokens(&[15, 0, 0, 0, 3]).is_ok());
        let error = description.check_tokens(&[3, 0, 0, 0, 4]).unwrap_err();
        assert_eq!(error, "expected tokens below 4, got 4");
        assert!(description.check_tokens(&[0; 4]).is_err());
    }
}
