//! WAV files of a run, cut into the sounds that they hold.

/// Silence behind each sound of a run's files, as part of a second.
const PAUSE: f64 = 0.25;

/// Sound of 16 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sound {
    pub(crate) channels: u16,
    pub(crate) sample_rate: u32,
    /// Bytes of its values, instant by instant.
    pub(crate) data: Vec<u8>,
}

impl Sound {
    /// Decodes a WAV file of 16 bits. Says why it cannot.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let number = |at: usize, length: usize| -> Option<u32> {
            let part = bytes.get(at..at + length)?;
            Some(part.iter().rev().fold(0, |sum, byte| (sum << 8) | u32::from(*byte)))
        };
        if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
            return Err("it is no WAV file".to_owned());
        }
        let (mut at, mut format) = (12, None);
        while let (Some(name), Some(length)) = (bytes.get(at..at + 4), number(at + 4, 4)) {
            let (from, length) = (at + 8, length as usize);
            if name == b"fmt " {
                format = Some((number(from + 2, 2), number(from + 4, 4), number(from + 14, 2)));
            } else if name == b"data" {
                let Some((Some(channels @ 1..=64), Some(sample_rate @ 1..), Some(16))) = format
                else {
                    return Err("it has other than 16 bits".to_owned());
                };
                let data = bytes.get(from..from + length).ok_or("it is cut off")?.to_vec();
                return Ok(Self { channels: channels as u16, sample_rate, data });
            }
            at = from + length + length % 2;
        }
        Err("it has no sound".to_owned())
    }

    /// As a WAV file.
    pub(crate) fn wav(&self) -> Vec<u8> {
        let size = self.data.len() as u32;
        let of_instant = self.channels * 2;
        let mut bytes = Vec::with_capacity(44 + self.data.len());
        bytes.extend(b"RIFF");
        bytes.extend((36 + size).to_le_bytes());
        bytes.extend(b"WAVEfmt ");
        bytes.extend(16u32.to_le_bytes());
        bytes.extend(1u16.to_le_bytes());
        bytes.extend(self.channels.to_le_bytes());
        bytes.extend(self.sample_rate.to_le_bytes());
        bytes.extend((self.sample_rate * u32::from(of_instant)).to_le_bytes());
        bytes.extend(of_instant.to_le_bytes());
        bytes.extend(16u16.to_le_bytes());
        bytes.extend(b"data");
        bytes.extend(size.to_le_bytes());
        bytes.extend(&self.data);
        bytes
    }

    /// Instants of it.
    pub(crate) fn len(&self) -> usize {
        self.data.len() / self.of_instant()
    }

    fn of_instant(&self) -> usize {
        usize::from(self.channels) * 2
    }

    /// Seconds of it.
    pub(crate) fn seconds(&self) -> f64 {
        self.len() as f64 / f64::from(self.sample_rate)
    }

    /// Some instants of it.
    ///
    /// # Panics
    ///
    /// If it has less.
    pub(crate) fn part(&self, from: usize, length: usize) -> Self {
        let data = self.data[from * self.of_instant()..][..length * self.of_instant()].to_vec();
        Self { channels: self.channels, sample_rate: self.sample_rate, data }
    }

    /// `num` sounds of equal length, without the silence behind each; none where it does not divide so.
    pub(crate) fn cut(&self, num: usize) -> Option<Vec<Self>> {
        let pause = (f64::from(self.sample_rate) * PAUSE) as usize;
        let each = self.len() / num.max(1);
        if num == 0 || !self.len().is_multiple_of(num) || each <= pause {
            return None;
        }
        Some((0..num).map(|at| self.part(at * each, each - pause)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: two sounds of 3 instants at 8 Hz, each with 2 instants of silence.
    #[test]
    fn sounds_are_cut_out_without_their_silence() {
        let instants: [i16; 10] = [1, 2, 3, 0, 0, 4, 5, 6, 0, 0];
        let data = instants.iter().flat_map(|value| value.to_le_bytes()).collect();
        let sound = Sound { channels: 1, sample_rate: 8, data };
        assert_eq!(Sound::decode(&sound.wav()).unwrap(), sound);
        let parts = sound.cut(2).unwrap();
        let wanted: Vec<u8> = [4i16, 5, 6].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(parts[1].data, wanted);
        assert_eq!((parts[0].seconds(), sound.cut(3), sound.cut(0)), (0.375, None, None));
        assert!(Sound::decode(&sound.wav()[..60]).is_err() && Sound::decode(b"RIFF").is_err());
    }
}
