//! Sounds to codes, each as one stream. Ranks share the sounds.

use tessera_codec::{LevelShape, coder};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_model::OpenModel;

use super::{Pieces, SoundEncoder};
use crate::agreement::agree_on;
use crate::compress::given::{Given, unreadable};
use crate::compress::numbers;
use crate::compress::writer::BlockWriter;
use crate::error::ApplyError;
use crate::watch::Watch;

/// Pieces between two signs of life.
const SIGN: u64 = 64;

/// Codes all sounds, as many at a time as there are ranks; one process alone hands codes on as they come. Gives the frames of a
/// sound whose length nobody knew before. Collective.
pub(in crate::compress) fn streams(
    comm: &dyn Communicator,
    (model, pieces, levels): (&OpenModel, Pieces, &[LevelShape]),
    given: &mut Given,
    mut writer: Option<&mut BlockWriter<'_>>,
    watch: &Watch<'_>,
) -> Result<Option<u64>, ApplyError> {
    let (rank, world_size) = (comm.rank(), comm.world_size());
    let positions: Vec<u32> = levels.iter().map(|level| level.positions).collect();
    let mut frames = None;
    for first in (0..given.files.len()).step_by(world_size) {
        let mut mine = Vec::new();
        let of_sound = match first + rank {
            file if file < given.files.len() => {
                let mut add = |codes: Vec<u32>| match (&mut writer, world_size) {
                    (Some(writer), 1) => writer.add(&codes),
                    _ => {
                        mine.extend(codes.into_iter().flat_map(u32::to_le_bytes));
                        Ok(())
                    }
                };
                stream((model, pieces), &positions, (given, file), &mut add, watch)
            }
            _ => Ok(0),
        };
        frames = Some(agree_on(comm, of_sound)?);
        let all = all_gather_bytes(comm, &mine)?;
        let added = match &mut writer {
            Some(writer) if world_size > 1 => {
                all.iter().try_for_each(|codes| writer.add(&numbers(codes)))
            }
            _ => Ok(()),
        };
        agree_on(comm, added)?;
    }
    Ok(frames.filter(|_| given.is_live()))
}

/// Codes one sound, and gives its frames.
fn stream(
    (model, pieces): (&OpenModel, Pieces),
    positions: &[u32],
    (given, file): (&mut Given, usize),
    add: &mut dyn FnMut(Vec<u32>) -> Result<(), ApplyError>,
    watch: &Watch<'_>,
) -> Result<u64, ApplyError> {
    let mut encoder = SoundEncoder::new(model, pieces);
    let kept = positions.iter().sum::<u32>() as usize;
    let frame_bytes = pieces.shape(model).num_bytes() / pieces.frames as usize;
    let (mut at, mut number) = (0, 0u64);
    loop {
        watch.check()?;
        let bytes = given.next_frames(file, at, pieces.frames)?;
        let frames = (bytes.len() / frame_bytes) as u64;
        if frames > 0 {
            let codes = encoder.push(&bytes)?;
            add(coder::interleaved(&codes[..kept], positions))?;
        }
        at += frames;
        number += 1;
        if number.is_multiple_of(SIGN) {
            watch.activity.part_done();
        }
        if frames < u64::from(pieces.frames) {
            watch.activity.part_done();
            return if at > 0 { Ok(at) } else { Err(unreadable("has no sound")) };
        }
    }
}
