//! Which codes of a picture are damaged: those that all others lead one not to expect.
//!
//! In a first look each code is hidden with some that are far from it, and all others are seen, in as many passes as there
//! are groups; what is compared is -ln p of the code that is there. Where damage is seen it misleads, so good codes may
//! look damaged. In a second look all that were found are hidden at once: what the rest expects is not damaged after all.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use tessera_comm::Communicator;
use tessera_model::OpenPrior;
use tessera_nn::prior::TokenBatch;
use tessera_nn::to_device;

use super::places::Places;
use crate::error::ApplyError;
use crate::prompt::known;
use crate::sample::{Drawn, gather};
use crate::tile::LEAST;
use crate::watch::Watch;

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// -ln p above which a code is damaged.
    pub(super) nats: f64,
    /// Passes of the first look.
    pub(super) passes: usize,
    /// The class of all pictures, -1: none.
    pub(super) class: i64,
}

/// Nats of each code of each picture, in the order of a token set: those of the second look where a code was found in the
/// first. Ranks share the tiles. Collective.
///
/// # Panics
///
/// If the prior is not masked.
pub(super) fn nats(
    comm: &dyn Communicator,
    prior: &OpenPrior,
    (places, look): (&Places, Look),
    pictures: &[Vec<u32>],
    watch: &Watch<'_>,
) -> Result<Vec<Vec<f32>>, ApplyError> {
    let (codes, device) = (prior.codes(), prior.prior.device());
    let (order, in_set) = (codes.order(), places.groups(look.passes));
    let groups: Vec<i64> = order.iter().map(|&place| in_set[place as usize] as i64).collect();
    let groups_t = to_device(Tensor::from_slice(&groups), device);
    let classes_n = to_device(Tensor::from_slice(&[look.class; LEAST]), device);
    let mut mine = BTreeMap::new();
    let tiles = pictures.chunks(LEAST).enumerate();
    for (tile, of_tile) in tiles.skip(comm.rank()).step_by(comm.world_size()) {
        let mut tokens = Vec::new();
        for slot in 0..LEAST {
            // What is beyond the last is a picture too, and left out.
            let picture = of_tile.get(slot).unwrap_or(&of_tile[0]);
            tokens.extend(known(codes, picture, &vec![true; picture.len()]));
        }
        let tokens_nt = to_device(Tensor::from_slice(&tokens).view([LEAST as i64, -1]), device);
        let (classes_n, ids) = (Some(&classes_n), &[0; LEAST]);
        let batch = TokenBatch { tokens_nt: &tokens_nt, classes_n, ids };
        let nats_nt = of_batch(prior, &batch, &groups_t, look.nats).to_device(Device::Cpu);
        for slot in 0..of_tile.len() {
            let nats = Vec::<f32>::try_from(nats_nt.get(slot as i64))?;
            let mut placed = vec![0; nats.len()];
            for (&place, nats) in order.iter().zip(nats) {
                placed[place as usize] = nats.to_bits();
            }
            mine.insert((tile * LEAST + slot) as u64, Drawn { tokens: placed, nats: 0.0 });
        }
        watch.activity.part_done();
    }
    let all = gather(comm, &mine, places.num_codes())?;
    let of_bits = |drawn: Drawn| drawn.tokens.into_iter().map(f32::from_bits).collect();
    Ok(all.into_values().map(of_bits).collect())
}

/// Both looks at a tile, `[16, T]` float32.
fn of_batch(
    prior: &OpenPrior,
    batch: &TokenBatch<'_>,
    groups_t: &Tensor,
    threshold: f64,
) -> Tensor {
    let nats_of = |is_hidden_nt: &Tensor| {
        let nats_nt = prior.prior.nats_of_hidden(batch, is_hidden_nt);
        nats_nt.expect("who asks has a masked prior").to_kind(Kind::Float)
    };
    let mut first_nt = batch.tokens_nt.zeros_like().to_kind(Kind::Float);
    for group in 0..=groups_t.max().int64_value(&[]) {
        first_nt += nats_of(&groups_t.eq(group).expand_as(batch.tokens_nt));
    }
    let is_found_nt = first_nt.to_kind(Kind::Double).gt(threshold);
    nats_of(&is_found_nt).where_self(&is_found_nt, &first_nt)
}
