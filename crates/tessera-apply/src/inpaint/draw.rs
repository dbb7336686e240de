//! Draws of codes: all of a picture before those of the next, in tiles.

use std::collections::BTreeMap;

use tch::Tensor;
use tessera_comm::Communicator;
use tessera_model::OpenPrior;
use tessera_nn::prior::sample::Request;
use tessera_nn::to_device;

use super::InpaintOptions;
use super::given::Given;
use super::holes::Holes;
use crate::prompt::known;
use crate::sample::{Drawn, draw_at_once, num_at_once};
use crate::watch::Watch;

/// What is drawn, of which pictures.
pub(super) struct Draw<'a> {
    pub(super) prior: &'a OpenPrior,
    pub(super) options: &'a InpaintOptions,
    /// The class of all pictures, -1: none.
    pub(super) class: i64,
    pub(super) given: &'a Given,
    /// Of each picture, in the order of a token set.
    pub(super) codes: &'a [Vec<u32>],
    pub(super) holes: &'a Holes<'a>,
}

impl Draw<'_> {
    /// Refuses holes that the prior cannot fill.
    pub(super) fn check(&self) -> Result<(), String> {
        let known_nt = Tensor::from_slice(&self.known(0)).view([1, -1]);
        let (seed, known_nt) = (self.options.seed, Some(&known_nt));
        let request = Request { seed, ids: &[0], classes_n: None, known_nt };
        self.prior.prior.check_request(&self.options.sampling, &request)
    }

    /// The codes of a picture as the prior is given them.
    fn known(&self, at: usize) -> Vec<i64> {
        let is_given: Vec<bool> = self.holes.drawn(at).iter().map(|is_drawn| !is_drawn).collect();
        known(self.prior.codes(), &self.codes[at], &is_given)
    }

    /// Draws this rank's tiles; each draw by its number among all.
    pub(super) fn own(&self, comm: &dyn Communicator, watch: &Watch<'_>) -> BTreeMap<u64, Drawn> {
        let (rank, world_size) = (comm.rank() as u64, comm.world_size() as u64);
        let (num, device) = (u64::from(self.options.num), self.prior.prior.device());
        let (total, at_once) = (self.given.num() * num, num_at_once(device));
        let classes_n = to_device(Tensor::from_slice(&vec![self.class; at_once]), device);
        let mut drawn = BTreeMap::new();
        for part in (rank..total.div_ceil(at_once as u64)).step_by(world_size as usize) {
            let (mut ids, mut known_tokens) = (Vec::new(), Vec::new());
            let first = part * at_once as u64;
            for draw in first..first + at_once as u64 {
                // What is beyond the last is drawn of the last picture, and left out.
                let at = (draw / num).min(self.given.num() - 1);
                ids.push((self.given.numbers[at as usize] << 32) | (draw - at * num));
                known_tokens.extend(self.known(at as usize));
            }
            let known_nt = Tensor::from_slice(&known_tokens).view([at_once as i64, -1]);
            let (classes_n, known_nt) = (Some(&classes_n), Some(&known_nt));
            let request = Request { seed: self.options.seed, ids: &ids, classes_n, known_nt };
            let samples = draw_at_once(self.prior, &self.options.sampling, &request);
            drawn.extend((first..total).zip(samples));
            watch.activity.part_done();
        }
        drawn
    }
}
