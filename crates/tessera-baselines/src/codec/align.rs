//! The delay of a codec that does not say it.

use std::ops::RangeInclusive;

use crate::item::Sound;

/// The number of instants by which `decoded` is later than `original`, of those allowed: where their
/// cross-correlation, summed over channels, is greatest. The one that is nearest to none of equal ones.
pub(super) fn delay(original: &Sound, decoded: &[i16], allowed: RangeInclusive<isize>) -> isize {
    let channels = isize::try_from(original.channels).expect("sixteen bits");
    let mut lags: Vec<isize> = allowed.collect();
    lags.sort_by_key(|lag| lag.unsigned_abs());
    let mut best = (f64::NEG_INFINITY, 0);
    for lag in lags {
        let found = correlation(&original.samples, decoded, lag * channels);
        if found > best.0 {
            best = (found, lag);
        }
    }
    best.1
}

/// Decoded samples, earlier by their delay and as many as those of the original: what lacks is silence.
pub(super) fn aligned(
    original: &Sound,
    decoded: &[i16],
    allowed: RangeInclusive<isize>,
) -> Vec<i16> {
    let lag = delay(original, decoded, allowed) * original.channels as isize;
    let mut samples = vec![0; lag.min(0).unsigned_abs()];
    samples.extend_from_slice(decoded.get(lag.max(0).unsigned_abs()..).unwrap_or_default());
    samples.resize(original.samples.len(), 0);
    samples
}

/// The sum of products of samples, `decoded` read so many samples later.
fn correlation(original: &[i16], decoded: &[i16], later: isize) -> f64 {
    let skip = later.unsigned_abs();
    let (original, decoded) = if later < 0 {
        (original.get(skip..).unwrap_or_default(), decoded)
    } else {
        (original, decoded.get(skip..).unwrap_or_default())
    };
    original.iter().zip(decoded).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sounds_are_moved_to_where_they_fit() {
        let samples: Vec<i16> = (0..200).map(|i| (i * i * 37 % 2001 - 1000) as i16).collect();
        let sound = Sound { rate: 8000, channels: 2, samples: samples.clone() };
        let late: Vec<i16> = [0; 14].into_iter().chain(samples.clone()).collect();
        assert_eq!(delay(&sound, &late, 0..=20), 7);
        assert_eq!(aligned(&sound, &late, 0..=20), samples);
        let early = &samples[6..];
        assert_eq!(delay(&sound, early, -20..=20), -3);
        let moved = aligned(&sound, early, -20..=20);
        assert_eq!((&moved[..6], &moved[6..]), (&[0i16; 6][..], early));
        assert_eq!(delay(&sound, &[0; 200], -20..=20), 0);
    }
}
