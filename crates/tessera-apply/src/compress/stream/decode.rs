//! Codes to sounds, each as one stream. Ranks share the sounds.

use tessera_codec::Media;
use tessera_control::ExitCode;

use super::{Pieces, SoundDecoder};
use crate::compress::codes::Codes;
use crate::compress::expand::{OutFile, Work, damaged};
use crate::compress::out::OutEntry;
use crate::error::ApplyError;
use crate::watch::Watch;

/// Pieces between two signs of life.
const SIGN: u64 = 64;

/// Writes this rank's sounds: every so many'th. Behind codes that are lost a stream begins anew.
pub(in crate::compress) fn streams(
    work: &Work<'_>,
    pieces: Pieces,
    codes: &mut Codes<'_>,
    salvage: bool,
    watch: &Watch<'_>,
) -> Result<(), ApplyError> {
    let mut end = 0;
    for (number, file) in work.files.iter().enumerate() {
        let is_mine = number % work.share.1 == work.share.0;
        let mut sound = match is_mine {
            true => Some(Sound::begin(work, pieces, file)?),
            false => None,
        };
        let num = file.frames().map(|frames| pieces.num(frames));
        let mut at = 0u64;
        while num != Some(at) {
            watch.check()?;
            let next = match num {
                Some(_) => codes.take(1)?.pop(),
                None => codes.take_if_any()?,
            };
            if let (false, Some(lost)) = (salvage, codes.lost.first()) {
                return Err(damaged(lost, work.files));
            }
            let Some(next) = next else { break };
            at += 1;
            if let Some(sound) = &mut sound {
                sound.add(next)?;
            }
            if at.is_multiple_of(SIGN) {
                watch.activity.part_done();
            }
        }
        end = file.samples.start + at;
        if let Some(sound) = sound {
            sound.finish(file.frames().or(codes.frames()))?;
        }
        watch.activity.part_done();
    }
    match codes.end()? || salvage {
        true => Ok(()),
        false => Err(damaged(&(end..end), work.files)),
    }
}

/// A sound that is being put together.
struct Sound<'a> {
    work: &'a Work<'a>,
    pieces: Pieces,
    entry: OutEntry,
    /// None before the first piece, and behind what is lost.
    decoder: Option<SoundDecoder<'a>>,
    /// The piece that came last: how much of it is sound is known when the next one comes, or none.
    held: Option<Vec<u8>>,
    /// Bytes of a frame, and frames that were written.
    frame_bytes: usize,
    num_written: u64,
}

impl<'a> Sound<'a> {
    fn begin(work: &'a Work<'a>, pieces: Pieces, file: &OutFile) -> Result<Self, ApplyError> {
        let entry = OutEntry::live(work.out.path(&file.name).as_deref(), &file.media)?;
        let Media::Audio { channels, .. } = file.media else {
            unreachable!("streams are of sound")
        };
        let frame_bytes = 2 * channels as usize;
        Ok(Self { work, pieces, entry, decoder: None, held: None, frame_bytes, num_written: 0 })
    }

    fn add(&mut self, codes: Option<Vec<u32>>) -> Result<(), ApplyError> {
        let (model, pieces) = (self.work.model, self.pieces);
        let bytes = match codes {
            Some(codes) => {
                let decoder =
                    self.decoder.get_or_insert_with(|| SoundDecoder::new(model, pieces, None));
                decoder.push(&codes)?
            }
            None => {
                self.decoder = None;
                vec![0; pieces.frames as usize * self.frame_bytes]
            }
        };
        if let Some(held) = self.held.replace(bytes) {
            self.entry.add(&held)?;
            self.num_written += u64::from(pieces.frames);
        }
        Ok(())
    }

    /// Writes the end of a sound of so many frames; none where damage has cost their number.
    fn finish(mut self, frames: Option<u64>) -> Result<(), ApplyError> {
        let mut last = self.held.take().unwrap_or_default();
        if let Some(frames) = frames {
            let left = frames.saturating_sub(self.num_written);
            let wanted = left.saturating_mul(self.frame_bytes as u64);
            if frames < self.num_written || wanted > last.len() as u64 {
                return Err(ApplyError::Opened {
                    code: ExitCode::DataCorrupt,
                    message: format!(
                        "the end of this compressed file tells of {frames} frames, its codes are of others: take another \
                         copy of it"
                    ),
                });
            }
            last.truncate(wanted as usize);
        }
        self.entry.add(&last)?;
        self.entry.finish()
    }
}
