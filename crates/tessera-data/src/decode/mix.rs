//! Channels of a file to the one or two of a sample, as ITU-R BS.775 says.
//!
//! BS.775-3, table 2, for three channels in front and two behind: `L' = L + c C + c Ls`,
//! `R' = R + c C + c Rs` and `M = c L + c R + C + Ls / 2 + Rs / 2` with `c = sqrt(1/2)`; what is
//! mono is the sum of what is stereo times `c`. The channel for low frequencies is left out. Each
//! row is divided by the largest sum of a row, so that nothing that fits its file is clipped.

use std::f32::consts::FRAC_1_SQRT_2;

/// Left, right, middle, and low frequencies in front; left, right behind; left, right of the
/// middle; middle behind; left, right at the sides; then those above: bits of
/// WAVEFORMATEXTENSIBLE, and of symphonia's positions.
const FRONT_LEFT: u64 = 1;
const FRONT_RIGHT: u64 = 1 << 1;
const FRONT_CENTER: u64 = 1 << 2;
const LOW: u64 = 1 << 3;
const BACK_LEFT: u64 = 1 << 4;
const BACK_RIGHT: u64 = 1 << 5;
const LEFT_OF_CENTER: u64 = 1 << 6;
const RIGHT_OF_CENTER: u64 = 1 << 7;
const BACK_CENTER: u64 = 1 << 8;
const SIDE_LEFT: u64 = 1 << 9;
const SIDE_RIGHT: u64 = 1 << 10;
const TOP_FRONT_LEFT: u64 = 1 << 12;
const TOP_FRONT_RIGHT: u64 = 1 << 14;
const TOP_BACK_LEFT: u64 = 1 << 15;
const TOP_BACK_RIGHT: u64 = 1 << 17;
const LOW_2: u64 = 1 << 18;

/// The channels of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// How many there are.
    pub(crate) channels: usize,
    /// Where each is, in the order of the bits; 0 if that is not known.
    pub(crate) positions: u64,
}

impl Layout {
    /// Where the channels are: as the file says, or where files have this number of channels that
    /// do not say it. Nothing is known of more than eight.
    fn known(self) -> Option<u64> {
        if self.positions.count_ones() as usize == self.channels {
            return Some(self.positions);
        }
        let front = FRONT_LEFT | FRONT_RIGHT;
        let back = BACK_LEFT | BACK_RIGHT;
        let side = SIDE_LEFT | SIDE_RIGHT;
        Some(match self.channels {
            3 => front | FRONT_CENTER,
            4 => front | back,
            5 => front | FRONT_CENTER | back,
            6 => front | FRONT_CENTER | LOW | back,
            7 => front | FRONT_CENTER | LOW | BACK_CENTER | side,
            8 => front | FRONT_CENTER | LOW | back | side,
            _ => return None,
        })
    }
}

/// Turns frames of one layout into frames of one or two channels.
#[derive(Debug)]
pub(crate) struct Mix {
    layout: Layout,
    /// For each channel of a sample, the share of each channel of the file; none if the channels
    /// stay as they are.
    rows: Vec<Vec<f32>>,
}

impl Mix {
    /// From `layout` to `channels`, 1 or 2; the error completes "sample ...".
    pub(crate) fn new(layout: Layout, channels: usize) -> Result<Self, String> {
        let count = layout.channels;
        let rows = match (count, channels) {
            (from, to) if from == to => Vec::new(),
            (1, _) => vec![vec![1.0]; channels],
            (2, _) => vec![vec![0.5, 0.5]],
            _ => match (layout.known(), channels) {
                (Some(positions), _) => rows(positions, channels),
                (None, 1) => vec![vec![1.0 / count as f32; count]],
                (None, _) => {
                    return Err(format!(
                        "has {count} channels and does not say where they are, so that they \
                         cannot become two: set data.audio.channels to 1, or make it stereo"
                    ));
                }
            },
        };
        Ok(Self { layout, rows })
    }

    /// The layout that it is made for.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Appends frames to `samples`.
    pub(crate) fn append(&self, block: &[f32], samples: &mut Vec<f32>) {
        if self.rows.is_empty() {
            return samples.extend_from_slice(block);
        }
        for frame in block.chunks_exact(self.layout.channels) {
            for row in &self.rows {
                samples.push(frame.iter().zip(row).map(|(sample, share)| sample * share).sum());
            }
        }
    }
}

/// Shares of channels at these positions in one or two channels.
fn rows(positions: u64, channels: usize) -> Vec<Vec<f32>> {
    let bits = (0..u64::BITS).map(|bit| 1u64 << bit).filter(|bit| positions & bit != 0);
    let pairs: Vec<(f32, f32)> = bits.map(left_and_right).collect();
    let mut rows: Vec<Vec<f32>> = match channels {
        1 => vec![pairs.iter().map(|(left, right)| FRAC_1_SQRT_2 * (left + right)).collect()],
        _ => vec![
            pairs.iter().map(|(left, _)| *left).collect(),
            pairs.iter().map(|(_, right)| *right).collect(),
        ],
    };
    let largest = rows.iter().map(|row| row.iter().sum::<f32>()).fold(0.0, f32::max);
    for share in rows.iter_mut().flatten() {
        *share /= largest.max(f32::MIN_POSITIVE);
    }
    rows
}

/// Shares of a channel in stereo.
fn left_and_right(position: u64) -> (f32, f32) {
    const SHARE: f32 = FRAC_1_SQRT_2;
    match position {
        FRONT_LEFT | LEFT_OF_CENTER => (1.0, 0.0),
        FRONT_RIGHT | RIGHT_OF_CENTER => (0.0, 1.0),
        FRONT_CENTER => (SHARE, SHARE),
        LOW | LOW_2 => (0.0, 0.0),
        BACK_LEFT | SIDE_LEFT | TOP_FRONT_LEFT | TOP_BACK_LEFT => (SHARE, 0.0),
        BACK_RIGHT | SIDE_RIGHT | TOP_FRONT_RIGHT | TOP_BACK_RIGHT => (0.0, SHARE),
        // The one behind is half of a pair on each side, and so is what is above the middle.
        _ => (0.5, 0.5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(channels: usize, positions: u64, to: usize, frame: &[f32]) -> Vec<f32> {
        let mut samples = Vec::new();
        let mix = Mix::new(Layout { channels, positions }, to).unwrap();
        mix.append(frame, &mut samples);
        samples
    }

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{found:?} and {expected:?}");
        }
    }

    /// By hand: a row is 1 + c + c = 2.41421 in stereo, 2 c + 1 + 1/2 + 1/2 = 3.41421 in mono.
    #[test]
    fn five_and_one_channels_become_two_and_one() {
        let (c, frame) = (0.707_106_77, [0.1, 0.2, 0.8, 1.0, 0.4, 0.6]);
        let left = (0.1 + c * 0.8 + c * 0.4) / 2.414_213_5;
        let right = (0.2 + c * 0.8 + c * 0.6) / 2.414_213_5;
        let mono = (c * 0.1 + c * 0.2 + 0.8 + 0.2 + 0.3) / 3.414_213_5;
        // Behind, at the sides, or not said: the same.
        for positions in [0x3F, 0x60F, 0] {
            close(&mixed(6, positions, 2, &frame), &[left, right]);
            close(&mixed(6, positions, 1, &frame), &[mono]);
        }
        // Full scale everywhere stays full scale.
        close(&mixed(6, 0, 2, &[1.0; 6]), &[1.0, 1.0]);
    }

    /// By hand: 7.1 has 1 + 3 c = 3.12132 in a row, four channels have 1 + c.
    #[test]
    fn seven_and_four_channels_become_two() {
        let c = 0.707_106_77;
        let frame = [0.1, 0.0, 0.2, 1.0, 0.3, 0.0, 0.4, 0.0];
        let left = (0.1 + c * (0.2 + 0.3 + 0.4)) / 3.121_320_3;
        close(&mixed(8, 0, 2, &frame), &[left, c * 0.2 / 3.121_320_3]);
        close(
            &mixed(4, 0, 2, &[0.1, 0.2, 0.3, 0.4]),
            &[(0.1 + c * 0.3) / (1.0 + c), (0.2 + c * 0.4) / (1.0 + c)],
        );
    }

    #[test]
    fn two_channels_are_left_and_right_whatever_they_are_called() {
        close(&mixed(2, 0b101, 2, &[0.5, -0.25]), &[0.5, -0.25]);
        close(&mixed(2, 0b101, 1, &[0.5, -0.25]), &[0.125]);
        close(&mixed(1, 8, 2, &[0.5]), &[0.5, 0.5]);
    }

    #[test]
    fn many_channels_without_places_are_averaged_and_never_become_two() {
        let mut frame = [0.0; 16];
        frame[15] = 1.0;
        close(&mixed(16, 0, 1, &frame), &[1.0 / 16.0]);
        let error = Mix::new(Layout { channels: 16, positions: 0 }, 2).unwrap_err();
        assert!(error.contains("16 channels") && error.contains("data.audio.channels"), "{error}");
    }
}
