//! The codecs of sound and their settings.

use std::fmt;

use super::{codec2, opus};
use crate::baseline::{Baseline, Coded};
use crate::curve::Kind;
use crate::error::BaselineError;
use crate::item::Sound;

/// A codec of sound: programs of Debian's packages `opus-tools` and `codec2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SoundCodec {
    /// Opus, variable bit rate, in Ogg without padding or comments. The decoder takes off the delay
    /// that the encoder says; resampling leaves less than an instant or two, which are taken off by the greatest
    /// cross-correlation within 1 ms.
    Opus,
    /// Codec 2: speech of one channel at 8 kHz, nothing else. Its delay is taken off for each sound by the
    /// greatest cross-correlation within 100 ms, which is kind to it; the end that its delay pushes
    /// out of the last frame is silence. It keeps no waveform, so that figures of waveforms say little of it.
    Codec2,
}

/// How a codec of sound is asked for a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoundSetting {
    /// What the program is told: kilobits a second and channel, or a mode.
    pub(crate) value: &'static str,
    /// What follows it in tables.
    pub(crate) unit: &'static str,
}

impl fmt::Display for SoundSetting {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}{}", self.value, self.unit)
    }
}

const fn kilobits(value: &'static str) -> SoundSetting {
    SoundSetting { value, unit: " kbit/s a channel" }
}

const fn mode(value: &'static str) -> SoundSetting {
    SoundSetting { value, unit: " bit/s" }
}

/// From the least that Opus' program takes.
const OPUS: [SoundSetting; 8] = [
    kilobits("6"),
    kilobits("8"),
    kilobits("10"),
    kilobits("12"),
    kilobits("16"),
    kilobits("24"),
    kilobits("32"),
    kilobits("48"),
];
const CODEC2: [SoundSetting; 8] = [
    mode("450"),
    SoundSetting { value: "700C", unit: " (700 bit/s)" },
    mode("1200"),
    mode("1300"),
    mode("1400"),
    mode("1600"),
    mode("2400"),
    mode("3200"),
];

impl SoundCodec {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Opus, Self::Codec2];
}

impl Baseline for SoundCodec {
    type Item = Sound;
    type Setting = SoundSetting;

    fn name(&self) -> &'static str {
        match self {
            Self::Opus => "Opus",
            Self::Codec2 => "Codec 2",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::Opus => {
                "opusenc --padding 0 --discard-comments, variable bit rate, aligned within 1 ms"
            }
            Self::Codec2 => "c2enc, aligned by cross-correlation within 100 ms",
        }
    }

    fn kind(&self) -> Kind {
        Kind::Lossy
    }

    fn settings(&self) -> &'static [SoundSetting] {
        match self {
            Self::Opus => &OPUS,
            Self::Codec2 => &CODEC2,
        }
    }

    fn obstacle(&self, sound: &Sound) -> Option<String> {
        match self {
            Self::Opus => opus::obstacle(sound),
            Self::Codec2 => codec2::obstacle(sound),
        }
    }

    fn code(&self, sound: &Sound, setting: SoundSetting) -> Result<Coded<Sound>, BaselineError> {
        sound.check()?;
        match self {
            Self::Opus => opus::code(sound, setting.value),
            Self::Codec2 => codec2::code(sound, setting.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two seconds of a voice's harmonics whose loudness and pitch move, so that only one alignment fits.
    fn voice(rate: u32, channels: u16) -> Sound {
        let mut samples = Vec::new();
        let mut phase = 0.0f64;
        for at in 0..2 * rate {
            let seconds = f64::from(at) / f64::from(rate);
            phase += (130.0 + 25.0 * (2.3 * seconds).sin()) / f64::from(rate);
            let loud = 0.5 + 0.5 * (seconds * 9.0).sin();
            let turns = phase * std::f64::consts::TAU;
            let wave: f64 = (1..9).map(|n| (turns * f64::from(n)).sin() / f64::from(n)).sum();
            for channel in 0..channels {
                let share = 1.0 - 0.5 * f64::from(channel);
                samples.push((wave * loud * share * 8000.0) as i16);
            }
        }
        Sound { rate, channels, samples }
    }

    fn runs(codec: SoundCodec, sound: &Sound) -> bool {
        let obstacle = codec.obstacle(sound);
        if let Some(reason) = &obstacle {
            println!("not tested: {reason}");
        }
        obstacle.is_none()
    }

    #[test]
    fn decoded_sounds_are_as_long_as_they_were() {
        let kinds = [(8000, 1), (16_000, 1), (44_100, 2)];
        for (codec, (rate, channels)) in
            SoundCodec::ALL.into_iter().flat_map(|codec| kinds.map(|kind| (codec, kind)))
        {
            let mut sound = voice(rate, channels);
            // No whole number of frames.
            sound.samples.truncate((rate as usize * 3 / 2 + 7) * usize::from(channels));
            if !runs(codec, &sound) {
                continue;
            }
            for setting in [codec.settings()[0], codec.settings()[7]] {
                let coded = codec.code(&sound, setting).expect("it codes");
                let Sound { rate, channels, samples } = &coded.decoded;
                assert_eq!((*rate, *channels), (sound.rate, sound.channels), "{codec:?}");
                assert_eq!(samples.len(), sound.samples.len(), "{codec:?} {setting}");
                assert!(coded.payload_bytes <= coded.file_bytes);
            }
        }
    }

    /// Codec 2's rates are what its modes are called by: 2 seconds at 3,200 bits are 800 bytes.
    #[test]
    fn codec_2_takes_the_bits_of_its_mode() {
        let sound = voice(8000, 1);
        if runs(SoundCodec::Codec2, &sound) {
            let coded = SoundCodec::Codec2.code(&sound, CODEC2[7]).expect("it codes");
            assert_eq!((coded.file_bytes, coded.payload_bytes), (800, 800));
        }
    }

    /// A shift by half an instant of this voice would be more noise than that.
    #[test]
    fn opus_is_aligned() {
        for (rate, channels) in [(8000, 1), (16_000, 1), (22_050, 1), (48_000, 2)] {
            let sound = voice(rate, channels);
            if !runs(SoundCodec::Opus, &sound) {
                return;
            }
            let coded = SoundCodec::Opus.code(&sound, OPUS[6]).expect("it codes");
            let decibels = crate::si_sdr(&sound, &coded.decoded).expect("alike").expect("heard");
            assert!(decibels > 13.0, "{rate} Hz: {decibels} dB");
        }
    }

    #[test]
    fn codec_2_is_for_speech_of_8_khz() {
        let reason = SoundCodec::Codec2.obstacle(&voice(16_000, 1)).expect("another rate");
        assert!(reason.contains("8000 Hz") || reason.contains("package"), "{reason}");
    }
}
