//! Codec 2: raw samples in, bits without a container out.

use super::align::aligned;
use super::programs::{Pair, pair};
use crate::baseline::Coded;
use crate::error::BaselineError;
use crate::item::Sound;
use crate::tool::Bench;

const PROGRAMS: Pair = pair("codec2", "c2enc", "c2dec");
const RATE: u32 = 8000;
/// Samples that are whole frames of all modes: 40 ms.
const FRAME: usize = 320;
/// 100 ms.
const MOST_DELAY: isize = 800;

pub(super) fn obstacle(sound: &Sound) -> Option<String> {
    let Sound { rate, channels, .. } = sound;
    if *rate != RATE || *channels != 1 {
        return Some(format!(
            "it is for speech of one channel at {RATE} Hz, not for {channels} channels at {rate} Hz"
        ));
    }
    PROGRAMS.missing()
}

pub(super) fn code(sound: &Sound, mode: &str) -> Result<Coded<Sound>, BaselineError> {
    let bench = Bench::new()?;
    let mut bytes = sound.bytes();
    // The program leaves out what is no whole frame.
    bytes.resize(bytes.len().next_multiple_of(2 * FRAME), 0);
    bench.write("in.raw", &bytes)?;
    PROGRAMS.encoder.run(&[mode, "in.raw", "coded.bin"], bench.path())?;
    let file_bytes = bench.read("coded.bin")?.len() as u64;
    PROGRAMS.decoder.run(&[mode, "coded.bin", "out.raw"], bench.path())?;
    let decoded = samples(&bench.read("out.raw")?);
    let samples = aligned(sound, &decoded, 0..=MOST_DELAY);
    let decoded = Sound { samples, ..*sound };
    Ok(Coded { file_bytes, payload_bytes: file_bytes, decoded })
}

/// Samples of little-endian bytes.
pub(super) fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}
