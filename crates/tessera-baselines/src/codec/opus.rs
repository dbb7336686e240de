//! Opus in Ogg: raw samples in, and out.

use super::align::aligned;
use super::codec2::samples;
use super::programs::{Pair, pair};
use crate::baseline::Coded;
use crate::error::BaselineError;
use crate::item::Sound;
use crate::payload::ogg_payload;
use crate::tool::Bench;

const PROGRAMS: Pair = pair("opus-tools", "opusenc", "opusdec");
/// Rates that its decoder gives back.
const RATES: std::ops::RangeInclusive<u32> = 8000..=192_000;
/// Channels that are coded together; more are several streams.
const MOST_CHANNELS: u16 = 2;

/// The part of a second within which a sound is moved after the delay that the encoder says.
const NEAR: u32 = 1000;

pub(super) fn obstacle(sound: &Sound) -> Option<String> {
    let Sound { rate, channels, .. } = sound;
    if !RATES.contains(rate) || *channels > MOST_CHANNELS {
        return Some(format!(
            "its programs are for 8000 to 192000 Hz and up to {MOST_CHANNELS} channels, not for \
             {channels} channels at {rate} Hz"
        ));
    }
    PROGRAMS.missing()
}

pub(super) fn code(sound: &Sound, kilobits: &str) -> Result<Coded<Sound>, BaselineError> {
    let bench = Bench::new()?;
    bench.write("in.raw", &sound.bytes())?;
    let kilobits: u32 = kilobits.parse().expect("bit rates are numbers");
    let bitrate = (kilobits * u32::from(sound.channels)).to_string();
    let (rate, channels) = (sound.rate.to_string(), sound.channels.to_string());
    let raw = ["--quiet", "--raw", "--raw-rate", &rate, "--raw-chan", &channels];
    let words = ["--bitrate", &bitrate, "--padding", "0", "--discard-comments"];
    let words = [&raw[..], &words, &["in.raw", "coded.opus"]].concat();
    PROGRAMS.encoder.run(&words, bench.path())?;
    let file = bench.read("coded.opus")?;
    let payload_bytes = ogg_payload(&file)?;
    let words = ["--quiet", "--no-dither", "--rate", &rate, "coded.opus", "out.raw"];
    PROGRAMS.decoder.run(&words, bench.path())?;
    let near = (sound.rate / NEAR) as isize;
    let samples = aligned(sound, &samples(&bench.read("out.raw")?), -near..=near);
    Ok(Coded { file_bytes: file.len() as u64, payload_bytes, decoded: Sound { samples, ..*sound } })
}
