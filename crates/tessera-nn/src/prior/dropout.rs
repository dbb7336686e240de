//! What is dropped of activations in training, keyed by sample.
//!
//! Each number has a random byte and stays where that is not below n = round(256 p), over 1 - n / 256. The bytes of a
//! sample are one sequence of draws, keyed by (seed, step, id), whose order is site, position, channel: they are the
//! same for any number of ranks and any split of a batch. They are drawn on the host, which for small models takes about
//! a hundredth of a step, and uploaded where the model is on another device.

use tch::{Device, Kind, Tensor};

use super::TrainingDraws;
use super::config::dropped;
use crate::random::{Purpose, draws};
use crate::vqvae::to_device;

/// What to drop at a number of sites of a network.
#[derive(Debug)]
pub(super) struct Masks {
    /// Random bytes, `[N, sites, L, W]`.
    bytes: Tensor,
    dropped: i64,
    kind: Kind,
}

/// The sites of one network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sites {
    pub(super) num: i64,
    /// Positions of a sample.
    pub(super) len: i64,
    pub(super) width: i64,
}

impl Sites {
    fn num_bytes(self) -> usize {
        (self.num * self.len * self.width) as usize
    }
}

impl Masks {
    /// Draws what to drop at each of some networks' sites; none where nothing is dropped.
    pub(super) fn draw(
        dropout: f64,
        by: TrainingDraws,
        ids: &[u64],
        networks: &[Sites],
        (kind, device): (Kind, Device),
    ) -> Vec<Option<Self>> {
        let dropped = dropped(dropout);
        if dropped == 0 {
            return networks.iter().map(|_| None).collect();
        }
        let mut bytes: Vec<Vec<u8>> =
            networks.iter().map(|sites| vec![0; ids.len() * sites.num_bytes()]).collect();
        for (row, &id) in ids.iter().enumerate() {
            let mut drawn = draws(by.seed, Purpose::Activations, by.step, id);
            for (bytes, sites) in bytes.iter_mut().zip(networks) {
                let len = sites.num_bytes();
                drawn.bytes(&mut bytes[row * len..(row + 1) * len]);
            }
        }
        let masks = |(bytes, sites): (Vec<u8>, &Sites)| {
            let shape = [ids.len() as i64, sites.num, sites.len, sites.width];
            let bytes = to_device(Tensor::from_slice(&bytes).view(shape), device);
            Some(Self { bytes, dropped, kind })
        };
        bytes.into_iter().zip(networks).map(masks).collect()
    }

    /// What to multiply by at a site, `[N, L, W]`.
    pub(super) fn at(&self, site: usize) -> Tensor {
        let kept = self.bytes.select(1, site as i64).ge(self.dropped).to_kind(self.kind);
        kept * (256.0 / (256 - self.dropped) as f64)
    }

    /// The same for a network over `num` groups of a sample's positions, each on its own.
    pub(super) fn within(&self, num: i64) -> Self {
        // [N, sites, num * S, W] to [N * num, sites, S, W]
        let groups = self.bytes.unflatten(2, [num, -1]).transpose(1, 2).flatten(0, 1);
        Self { bytes: groups, ..*self }
    }
}
