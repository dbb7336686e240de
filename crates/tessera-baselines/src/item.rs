//! What is coded: pictures and sounds, as whole numbers, so that all codecs get the same.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::error::BaselineError;

/// A picture of eight bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
    /// 1, grey, or 3, RGB.
    pub channels: u32,
    /// Its values, `[height, width, channels]`.
    pub bytes: Vec<u8>,
}

/// A sound of sixteen bits a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// Instants a second.
    pub rate: u32,
    /// Number of channels.
    pub channels: u16,
    /// Its values, `[instants, channels]`.
    pub samples: Vec<i16>,
}

impl Picture {
    /// Number of pixels.
    pub fn num_pixels(&self) -> usize {
        self.height as usize * self.width as usize
    }

    /// SHA-256 of its sizes and bytes, in hexadecimal.
    pub fn hash(&self) -> String {
        let head = format!("picture {}x{}x{}\n", self.height, self.width, self.channels);
        hex(&[head.as_bytes(), &self.bytes])
    }

    /// Rejects a picture that is not of its sizes.
    ///
    /// # Errors
    ///
    /// [`BaselineError::Item`].
    pub fn check(&self) -> Result<(), BaselineError> {
        let expected = self.num_pixels() * self.channels as usize;
        let whole = matches!(self.channels, 1 | 3) && expected > 0 && self.bytes.len() == expected;
        if whole {
            return Ok(());
        }
        let (height, width, channels) = (self.height, self.width, self.channels);
        Err(BaselineError::Item {
            what: "a picture",
            expected: "height x width x (1 or 3) bytes and no side of 0".to_owned(),
            found: format!("{height} x {width} x {channels} and {} bytes", self.bytes.len()),
        })
    }
}

impl Sound {
    /// Number of instants: samples of one channel.
    pub fn num_instants(&self) -> usize {
        self.samples.len() / usize::from(self.channels).max(1)
    }

    /// How long it is.
    pub fn seconds(&self) -> f64 {
        self.num_instants() as f64 / f64::from(self.rate)
    }

    /// One channel, from -1 to 1.
    pub fn channel(&self, channel: usize) -> Vec<f64> {
        let one = self.samples.iter().skip(channel).step_by(usize::from(self.channels).max(1));
        one.map(|sample| f64::from(*sample) / 32768.0).collect()
    }

    /// SHA-256 of its rate, channels and samples (little-endian), in hexadecimal.
    pub fn hash(&self) -> String {
        let head = format!("sound {} Hz, {} channels\n", self.rate, self.channels);
        hex(&[head.as_bytes(), &self.bytes()])
    }

    /// Its samples as bytes, little-endian.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
    }

    /// Rejects a sound without samples, channels or rate.
    ///
    /// # Errors
    ///
    /// [`BaselineError::Item`].
    pub fn check(&self) -> Result<(), BaselineError> {
        let channels = usize::from(self.channels);
        let whole = channels > 0 && self.rate > 0 && !self.samples.is_empty();
        if whole && self.samples.len().is_multiple_of(channels) {
            return Ok(());
        }
        Err(BaselineError::Item {
            what: "a sound",
            expected: "a rate, channels, and as many samples of each channel".to_owned(),
            found: format!("{} Hz, {channels} channels, {} samples", self.rate, self.samples.len()),
        })
    }
}

/// SHA-256 of parts one after the other, in hexadecimal.
pub(crate) fn hex(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        write!(text, "{byte:02x}").expect("memory");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_are_not_of_their_sizes_are_refused() {
        let picture =
            |channels, len| Picture { height: 2, width: 3, channels, bytes: vec![0; len] };
        assert!(picture(3, 18).check().is_ok() && picture(1, 6).check().is_ok());
        assert!(picture(3, 17).check().is_err() && picture(2, 12).check().is_err());
        let sound = |channels, len| Sound { rate: 8000, channels, samples: vec![0; len] };
        assert!(sound(2, 4).check().is_ok());
        assert!(sound(2, 3).check().is_err() && sound(0, 4).check().is_err());
    }

    /// `printf 'picture 1x1x1\n\000' | sha256sum`.
    #[test]
    fn a_hash_is_that_of_sizes_and_bytes() {
        let picture = Picture { height: 1, width: 1, channels: 1, bytes: vec![0] };
        assert_eq!(picture.hash(), hex(&[b"picture 1x1x1\n\0"]));
        assert_eq!(
            hex(&[b"ab", b"c"]),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_channel_of_a_sound_is_every_other_sample() {
        let sound = Sound { rate: 2, channels: 2, samples: vec![16384, 1, -32768, 2] };
        assert_eq!(sound.channel(0), [0.5, -1.0]);
        assert_eq!(sound.seconds(), 1.0);
    }
}
