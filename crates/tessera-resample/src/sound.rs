//! Sound at another rate: rubato's synchronous resampler, whose filter is as long as its blocks.
//!
//! The filter is a sinc under the square of a Blackman-Harris window, and passes nothing above half
//! of the lower rate. How much below that it passes hangs on its length alone, counted in frames of
//! the lower rate: 1024 of them pass 0.96 of the band within 0.1 dB, whatever the ratio.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

/// Frames of the filter at the lower of the two rates, at least.
const FILTER_FRAMES: usize = 1024;

/// `samples`, frame after frame, at `to` frames a second instead of `from`: as many frames as begin
/// in the same time. A frame keeps its time: the filter's delay is taken off. Beyond its ends the
/// sound is silence.
///
/// # Errors
///
/// What completes "sample ...": rates that no filter can be made for.
pub fn resample(
    samples: &[f32],
    channels: usize,
    from: usize,
    to: usize,
) -> Result<Vec<f32>, String> {
    let frames = samples.len() / channels;
    let failed = |error: &dyn std::fmt::Display| {
        format!("cannot be resampled from {from} to {to} frames a second ({error})")
    };
    let common = gcd(from, to);
    // Twice a whole number of periods of both rates: the middle of the filter then falls on a
    // frame, and the sound is not shifted by half of one.
    let blocks = 2 * (FILTER_FRAMES / 2).div_ceil(from.min(to) / common);
    let chunk = from / common * blocks;
    let window = WindowFunction::BlackmanHarris2;
    let mut resampler =
        Fft::<f32>::new_custom(from, to, chunk, 1, channels, window, FixedSync::Both)
            .map_err(|error| failed(&error))?;
    let input = InterleavedSlice::new(samples, channels, frames).map_err(|error| failed(&error))?;
    let output = resampler.process_all(&input, frames, None).map_err(|error| failed(&error))?;
    let mut output = output.take_data();
    // The crate rounds a product of floats up; the number that was listed is exact.
    output.truncate((frames * to).div_ceil(from) * channels);
    Ok(output)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
