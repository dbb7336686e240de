//! Sound: decoded, mixed to the channels asked for, resampled, cut into windows of 16-bit samples.
//!
//! Decoding is that of `pcm.rs`, mixing that of `mix.rs`, resampling that of `resample.rs`. A file of
//! 16 bits at the rate and the channels asked for comes out bit for bit; everything else is computed
//! in 32-bit floats and rounded once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decode::mix::Mix;
use crate::decode::pcm::{self, RATES};
use crate::draw::{Draw, Purpose};
use crate::shape::SampleShape;
use tessera_resample::resample;

/// How sound becomes samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AudioConfig {
    /// Frames a second of a sample, 1000 to 768,000; 0: that of the first file. Others are
    /// resampled.
    pub sample_rate: u32,
    /// 1: mono; 2: stereo, a single channel twice. More than two are mixed as ITU-R BS.775 says.
    pub channels: u32,
    /// Frames of a sample, at least 1.
    pub length: u32,
    /// Which windows of a file are samples.
    pub windows: Windows,
    /// Longer files are refused; in seconds.
    pub max_seconds: u32,
}

/// Which pieces of a file are samples, a value of [`AudioConfig::windows`] and of
/// [`crate::VideoConfig::clips`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Windows {
    /// One after another, from the beginning; the last one of a sound ends in silence, what is left
    /// of a film is not used.
    #[default]
    All,
    /// One of each file: anywhere in training, by (seed, epoch, sample); in its middle in an
    /// evaluation or when it is packed.
    Random,
}

impl Default for AudioConfig {
    fn default() -> Self {
        let (length, max_seconds) = (16384, 7200);
        Self { sample_rate: 0, channels: 1, length, windows: Windows::default(), max_seconds }
    }
}

/// A file of sound at the rate and with the channels asked for.
#[derive(Debug)]
pub(crate) struct Sound {
    /// Frame after frame, channel after channel.
    samples: Vec<i16>,
    channels: usize,
}

impl Sound {
    pub(crate) fn num_frames(&self) -> usize {
        self.samples.len() / self.channels
    }

    /// Writes what begins with frame `start` to `out`, little endian; silence where there is no more.
    pub(crate) fn copy(&self, start: usize, out: &mut [u8]) {
        let samples = self.samples.get(start * self.channels..).unwrap_or_default();
        let (pairs, _) = out.as_chunks_mut::<2>();
        for (at, pair) in pairs.iter_mut().enumerate() {
            *pair = samples.get(at).copied().unwrap_or(0).to_le_bytes();
        }
    }
}

impl AudioConfig {
    /// The error names a key and completes it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if ![1, 2].contains(&self.channels) {
            let problem = format!("must be 1 (mono) or 2 (stereo), not {}", self.channels);
            return Err(("audio.channels", problem));
        }
        if self.sample_rate != 0 && !RATES.contains(&self.sample_rate) {
            let (least, most) = (RATES.start(), RATES.end());
            let problem = format!("must be 0 or from {least} to {most}, not {}", self.sample_rate);
            return Err(("audio.sample_rate", problem));
        }
        if self.length == 0 {
            return Err(("audio.length", "must be at least 1 frame".to_owned()));
        }
        if let Err(problem) = self.shape().check() {
            return Err(("audio.length", format!("is too large: such a shape {problem}")));
        }
        Ok(())
    }

    pub(crate) fn shape(&self) -> SampleShape {
        SampleShape::audio(self.channels, self.length, self.sample_rate)
    }

    /// How many samples a file gives. Decodes it where its header does not say how long it is.
    pub(crate) fn num_windows(&self, bytes: &[u8]) -> Result<u64, String> {
        if self.windows == Windows::Random {
            return Ok(1);
        }
        Ok(self.num_frames(bytes)?.div_ceil(u64::from(self.length)))
    }

    /// Frames of a file at the rate asked for. Decodes it where its header does not say how long it is.
    pub(crate) fn num_frames(&self, bytes: &[u8]) -> Result<u64, String> {
        Ok(match pcm::exact_frames(bytes)? {
            Some((rate, frames)) => {
                (frames * u64::from(self.sample_rate)).div_ceil(u64::from(rate))
            }
            None => self.decode(bytes)?.num_frames() as u64,
        })
    }

    /// Decodes a file; the error completes "sample ...".
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Sound, String> {
        let channels = self.channels as usize;
        let mut sound = Sound { samples: Vec::new(), channels };
        let (mut seconds, mut mix) = (0.0, None::<Mix>);
        // Frames with the channels asked for, and their rate.
        let (mut mixed, mut mixed_rate) = (Vec::new(), 0);
        pcm::for_each_block(bytes, self.max_seconds, &mut |block| {
            if block.rate != mixed_rate {
                self.finish(&mut sound, &mut mixed, mixed_rate)?;
                mixed_rate = block.rate;
            }
            let known = mix.take().filter(|mix| mix.layout() == block.layout);
            let made = match known {
                Some(known) => known,
                None => Mix::new(block.layout, channels)?,
            };
            mix.insert(made).append(block.samples, &mut mixed);
            let frames = block.samples.len() / block.layout.channels;
            seconds += frames as f64 / f64::from(block.rate);
            match seconds > f64::from(self.max_seconds) {
                true => Err(format!(
                    "is longer than {} seconds: raise data.audio.max_seconds if that is right",
                    self.max_seconds
                )),
                false => Ok(()),
            }
        })?;
        self.finish(&mut sound, &mut mixed, mixed_rate)?;
        match sound.samples.is_empty() {
            true => Err("has no sound".to_owned()),
            false => Ok(sound),
        }
    }

    /// Moves frames at `rate` to the end of `sound`.
    fn finish(&self, sound: &mut Sound, mixed: &mut Vec<f32>, rate: u32) -> Result<(), String> {
        let mut frames = std::mem::take(mixed);
        if rate != self.sample_rate && !frames.is_empty() {
            frames = resample(&frames, sound.channels, rate as usize, self.sample_rate as usize)?;
        }
        let to_bits =
            |&sample: &f32| (sample * 32768.0).round_ties_even().clamp(-32768.0, 32767.0) as i16;
        sound.samples.extend(frames.iter().map(to_bits));
        Ok(())
    }

    /// Writes window `part` of a sound to `out`, little endian.
    pub(crate) fn place(
        &self,
        sound: &Sound,
        part: u64,
        draw: Draw,
        out: &mut [u8],
    ) -> Result<(), String> {
        let (length, frames) = (self.length as usize, sound.num_frames());
        let start = match self.windows {
            Windows::All => part as usize * length,
            Windows::Random => {
                draw.up_to(Purpose::Start, frames.saturating_sub(length) as u64) as usize
            }
        };
        if start >= frames {
            return Err("has another length than when it was listed".to_owned());
        }
        sound.copy(start, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wav file by hand: 16-bit samples, frame after frame.
    fn wav(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
        let bytes = 2 * samples.len() as u32;
        let mut wav = b"RIFF".to_vec();
        wav.extend((36 + bytes).to_le_bytes());
        wav.extend(b"WAVEfmt ");
        wav.extend(16u32.to_le_bytes());
        wav.extend(1u16.to_le_bytes());
        wav.extend(channels.to_le_bytes());
        wav.extend(rate.to_le_bytes());
        wav.extend((rate * 2 * u32::from(channels)).to_le_bytes());
        wav.extend((2 * channels).to_le_bytes());
        wav.extend(16u16.to_le_bytes());
        wav.extend(b"data");
        wav.extend(bytes.to_le_bytes());
        wav.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        wav
    }

    fn config(sample_rate: u32, channels: u32, length: u32) -> AudioConfig {
        AudioConfig { sample_rate, channels, length, ..AudioConfig::default() }
    }

    fn window(config: &AudioConfig, bytes: &[u8], part: u64) -> Vec<i16> {
        let mut out = vec![0; config.shape().num_bytes()];
        config.place(&config.decode(bytes).unwrap(), part, Draw::NONE, &mut out).unwrap();
        out.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
    }

    #[test]
    fn sixteen_bits_come_out_as_they_are_in_windows_that_end_in_silence() {
        let bytes = wav(8000, 1, &[-32768, -1, 0, 1, 32767, 100, -7]);
        let config = config(8000, 1, 4);
        assert_eq!(config.num_windows(&bytes), Ok(2));
        assert_eq!(window(&config, &bytes, 0), [-32768, -1, 0, 1]);
        assert_eq!(window(&config, &bytes, 1), [32767, 100, -7, 0]);
        assert_eq!(pcm::sample_rate(&bytes), Ok(8000));
    }

    #[test]
    fn channels_are_averaged_and_doubled() {
        let stereo = wav(8000, 2, &[100, 300, -50, 50]);
        assert_eq!(window(&config(8000, 1, 2), &stereo, 0), [200, 0]);
        let mono = wav(8000, 1, &[5, -5]);
        assert_eq!(window(&config(8000, 2, 2), &mono, 0), [5, 5, -5, -5]);
    }

    /// A tone of 100 Hz stays one of 100 Hz when it is resampled: away from the ends, where the
    /// filter reaches over them, to a thousandth of the scale.
    #[test]
    fn a_tone_keeps_its_pitch_at_another_rate() {
        let tone = |rate: u32| -> Vec<i16> {
            let phase = |at: u32| f64::from(at) / f64::from(rate) * 100.0 * std::f64::consts::TAU;
            (0..rate).map(|at| (phase(at).sin() * 16384.0).round() as i16).collect()
        };
        for (from, to) in [(8000, 16000), (44100, 16000), (16000, 22050)] {
            let config = config(to, 1, to);
            let found = window(&config, &wav(from, 1, &tone(from)), 0);
            assert_eq!(config.num_windows(&wav(from, 1, &tone(from))), Ok(1));
            let expected = tone(to);
            let middle = to as usize / 4..to as usize * 3 / 4;
            for (a, b) in found[middle.clone()].iter().zip(&expected[middle]) {
                assert!((a - b).abs() <= 33, "{from} to {to}: {a} and {b}");
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_no_sound_is_refused() {
        let bytes = wav(8000, 1, &[1; 100]);
        let config = config(8000, 1, 4);
        let error = config.decode(&bytes[..bytes.len() - 50]).unwrap_err();
        assert!(error.contains("cut short") || error.contains("cannot be decoded"), "{error}");
        assert!(config.decode(b"no sound at all").unwrap_err().starts_with("is no wav"));
        assert!(config.decode(&[]).is_err());
        let short = AudioConfig { max_seconds: 0, ..config };
        assert!(short.decode(&bytes).unwrap_err().contains("max_seconds"));
    }
}
