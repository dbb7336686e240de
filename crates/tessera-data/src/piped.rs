//! Sound that comes through a pipe and is read a piece at a time, whoever still writes it.

use std::io::{ErrorKind, Read};

use crate::AudioConfig;
use crate::config::DataConfig;
use crate::decode::audio::Sound;
use crate::decode::pcm;
use crate::decode::wav::{self, Wav};
use crate::native::Native;
use crate::shape::{Modality, SampleShape};

/// Bytes in which the samples of a WAV file should begin.
const HEAD_BYTES: usize = 1 << 16;
/// Bytes of a sound whose header says that it goes on until its end: as good as none.
const ENDLESS: usize = usize::MAX >> 1;

/// What came through a pipe.
#[derive(Debug)]
pub enum Piped {
    /// A WAV file at the rate asked for, of which only the head was read.
    Sound(PipedSound),
    /// Anything else, all of which was read.
    Whole(Native),
}

/// Sound that is read as it comes.
pub struct PipedSound {
    from: Box<dyn Read>,
    /// Samples that came with the head.
    ahead: Vec<u8>,
    wav: Wav,
    config: AudioConfig,
    frame_bytes: usize,
    /// Frames that were read, and those that the head promises; none: until the end.
    num_read: u64,
    promised: Option<u64>,
}

impl std::fmt::Debug for PipedSound {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PipedSound").field("wav", &self.wav).finish_non_exhaustive()
    }
}

impl Piped {
    /// Reads as little as tells what comes.
    ///
    /// # Errors
    ///
    /// As [`Native::piped`].
    pub fn open(mut from: Box<dyn Read>, data: &DataConfig) -> Result<Self, String> {
        let mut head = Vec::new();
        while data.modality == Modality::Audio && head.len() < HEAD_BYTES {
            if let Ok(wav) =
                Wav::parse_head(&head, ENDLESS).map(|wav| wav.is_plain().then_some(wav))
            {
                let sound = wav.and_then(|wav| PipedSound::of(wav, &head, data));
                match sound {
                    Some(sound) => return Ok(Self::Sound(PipedSound { from, ..sound })),
                    None => break,
                }
            }
            if head.len() >= 12 && !wav::is_wav(&head) || !read_some(&mut *from, &mut head)? {
                break;
            }
        }
        Native::piped(&mut head.as_slice().chain(from), data).map(Self::Whole)
    }
}

/// Adds what is there, at least a byte; whether there was one.
fn read_some(from: &mut dyn Read, to: &mut Vec<u8>) -> Result<bool, String> {
    let mut piece = [0; 4096];
    loop {
        match from.read(&mut piece) {
            Ok(num) => {
                to.extend_from_slice(&piece[..num]);
                return Ok(num > 0);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("cannot be read ({error})")),
        }
    }
}

impl PipedSound {
    /// None where it has to be decoded as a whole.
    fn of(wav: Wav, head: &[u8], data: &DataConfig) -> Option<Self> {
        let asked = data.audio.sample_rate;
        if !pcm::RATES.contains(&wav.rate) || ![0, wav.rate].contains(&asked) {
            return None;
        }
        let config = AudioConfig { sample_rate: wav.rate, ..data.audio.clone() };
        let frame = wav.place(0..1)?;
        let start = frame.start as usize;
        let frame_bytes = (frame.end - frame.start) as usize;
        let num_frames = wav.num_frames()?;
        let is_endless = num_frames as usize >= (ENDLESS - start) / frame_bytes;
        let ahead = head.get(start..).unwrap_or_default().to_vec();
        let promised = (!is_endless).then_some(num_frames);
        let from = Box::new(std::io::empty());
        Some(Self { from, ahead, wav, config, frame_bytes, num_read: 0, promised })
    }

    /// Channels and rate; its frames are 1, since nobody knows how many come.
    pub fn shape(&self) -> SampleShape {
        SampleShape::audio(self.config.channels, 1, self.config.sample_rate)
    }

    /// The next frames, little endian: `num` of them, fewer at the end, none behind it.
    ///
    /// # Errors
    ///
    /// What is wrong, in words that complete "what comes through standard input ..".
    pub fn next(&mut self, num: usize) -> Result<Vec<u8>, String> {
        let left = self.promised.map_or(num as u64, |promised| promised - self.num_read);
        let num = num.min(usize::try_from(left).unwrap_or(usize::MAX));
        let wanted = num * self.frame_bytes;
        while self.ahead.len() < wanted && read_some(&mut *self.from, &mut self.ahead)? {}
        let found = self.ahead.len().min(wanted) / self.frame_bytes;
        self.num_read += found as u64;
        if let Some(promised) = self.promised.filter(|_| found < num) {
            return Err(format!(
                "is cut short: it promises {promised} frames and has {}",
                self.num_read
            ));
        }
        if found == 0 {
            return Ok(Vec::new());
        }
        let bytes: Vec<u8> = self.ahead.drain(..found * self.frame_bytes).collect();
        let sound: Sound = self.config.decode(&self.wav.plain_of(&bytes))?;
        let mut out = vec![0; found * 2 * self.config.channels as usize];
        sound.copy(0, &mut out);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mono of 16 bits at 8 kHz; a size of 0xFFFFFFFF is none.
    fn wav(size: u32, samples: &[i16]) -> Vec<u8> {
        let mut file = b"RIFF".to_vec();
        file.extend(size.saturating_add(36).to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
        file.extend(size.to_le_bytes());
        samples.iter().for_each(|sample| file.extend(sample.to_le_bytes()));
        file
    }

    /// Gives one byte at a time.
    struct Slow(std::io::Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let end = into.len().min(1);
            self.0.read(&mut into[..end])
        }
    }

    fn open(bytes: Vec<u8>, rate: u32) -> Result<Piped, String> {
        let mut data = DataConfig { modality: Modality::Audio, ..DataConfig::default() };
        data.audio.sample_rate = rate;
        Piped::open(Box::new(Slow(std::io::Cursor::new(bytes))), &data)
    }

    fn sound(bytes: Vec<u8>) -> PipedSound {
        match open(bytes, 8000).unwrap() {
            Piped::Sound(sound) => sound,
            Piped::Whole(_) => panic!("it can be read as it comes"),
        }
    }

    #[test]
    fn pieces_come_one_after_another_until_the_end() {
        for size in [10, u32::MAX] {
            let mut sound = sound(wav(size, &[1, -2, 3, 4, 5]));
            assert_eq!(sound.shape(), SampleShape::audio(1, 1, 8000));
            let pieces = [2, 2, 2, 2].map(|num| sound.next(num).unwrap());
            assert_eq!(pieces, [vec![1, 0, 0xfe, 0xff], vec![3, 0, 4, 0], vec![5, 0], vec![]]);
        }
        // What stands behind the samples is none of them.
        let mut longer = wav(2, &[7, 8]);
        longer.extend(b"LIST");
        let mut sound = sound(longer);
        assert_eq!((sound.next(9).unwrap(), sound.next(9).unwrap()), (vec![7, 0], vec![]));
    }

    #[test]
    fn a_sound_that_ends_early_is_told() {
        let mut sound = sound(wav(10, &[1, 2, 3]));
        assert_eq!(sound.next(2).unwrap().len(), 4);
        let error = sound.next(2).unwrap_err();
        assert_eq!(error, "is cut short: it promises 5 frames and has 3");
    }

    /// Another rate needs all of it; what is no sound is told as of any file.
    #[test]
    fn what_cannot_be_read_as_it_comes_is_read_whole() {
        let samples = [100; 160];
        match open(wav(320, &samples), 16_000).unwrap() {
            Piped::Whole(native) => assert_eq!(native.shape().shape.frames, 320),
            Piped::Sound(_) => panic!("it is resampled"),
        }
        assert!(open(b"no sound at all, but long enough".to_vec(), 8000).is_err());
        assert!(open(b"RIFF".to_vec(), 8000).is_err());
    }
}
