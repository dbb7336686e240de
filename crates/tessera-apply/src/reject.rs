//! Samples that a classifier does not take for what they should be, drawn again.
//!
//! A sample is kept where the classifier gives its class, or the likeliest one where it has none, a probability that is high
//! enough. Otherwise it is drawn again with an id of its own for each attempt, so that what is kept hangs neither on ranks
//! nor on how many samples are asked for.

use std::collections::BTreeMap;

use serde::Serialize;
use tessera_comm::Communicator;
use tessera_model::{OpenModel, OpenPrior};
use tessera_nn::to_device;

use crate::decode::shown_of;
use crate::error::ApplyError;
use crate::judge::Classifier;
use crate::sample::{Drawn, SampleOptions, draw_with, gather, num_at_once};
use crate::tile;
use crate::watch::Watch;

/// Attempts at a sample, at most.
const MOST_ATTEMPTS: u64 = 100;
/// Bits of an id below the attempt.
const ID_BITS: u32 = 40;

/// What `samples.json` says of rejection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct AboutRejection {
    /// Least probability.
    below: f64,
    /// What the classifier is.
    classifier: String,
    /// Samples that were drawn for those that were kept.
    num_drawn: u64,
}

/// Who draws again, and what is kept.
pub(crate) struct Rejecting<'a> {
    pub(crate) prior: &'a OpenPrior,
    pub(crate) tokenizer: &'a OpenModel,
    pub(crate) classifier: &'a Classifier<'a>,
    /// Least probability of a sample that is kept.
    pub(crate) below: f64,
    pub(crate) options: &'a SampleOptions,
    /// Of each sample; -1: none.
    pub(crate) classes: &'a [i64],
    /// What all samples begin with, if there is a prompt.
    pub(crate) known_t: Option<&'a [i64]>,
}

impl Rejecting<'_> {
    /// Samples by number that all pass, and how they came about. Collective.
    ///
    /// # Errors
    ///
    /// [`ApplyError::BadInput`] where some do not pass in 100 attempts.
    pub(crate) fn draw(
        &self,
        comm: &dyn Communicator,
        watch: &Watch<'_>,
    ) -> Result<(BTreeMap<u64, Drawn>, AboutRejection), ApplyError> {
        let num_tokens = self.prior.codes().order().len();
        let mut pending: Vec<u64> = (0..self.options.num).collect();
        let (mut kept, mut num_drawn) = (BTreeMap::new(), 0);
        for attempt in 0..MOST_ATTEMPTS {
            num_drawn += pending.len() as u64;
            let mine = self.attempt(comm, &pending, attempt, watch);
            kept.extend(gather(comm, &mine, num_tokens)?);
            pending.retain(|sample| !kept.contains_key(sample));
            if pending.is_empty() {
                let (below, classifier) = (self.below, self.classifier.name.to_owned());
                return Ok((kept, AboutRejection { below, classifier, num_drawn }));
            }
        }
        Err(ApplyError::BadInput(format!(
            "{} of {} samples have not reached --reject-below {} in {MOST_ATTEMPTS} attempts: lower it, or ask for more \
             --guidance",
            pending.len(),
            self.options.num,
            self.below
        )))
    }

    /// Draws this rank's part of the samples once; those that pass.
    fn attempt(
        &self,
        comm: &dyn Communicator,
        samples: &[u64],
        attempt: u64,
        watch: &Watch<'_>,
    ) -> BTreeMap<u64, Drawn> {
        let device = self.prior.prior.device();
        let at_once = num_at_once(device);
        let mut kept = BTreeMap::new();
        for part in samples.chunks(at_once).skip(comm.rank()).step_by(comm.world_size()) {
            // A device draws as many every time; what is beyond the last one is left out.
            let padded: Vec<u64> = (0..at_once).map(|at| part[at.min(part.len() - 1)]).collect();
            let ids: Vec<u64> = padded.iter().map(|sample| (attempt << ID_BITS) | sample).collect();
            let classes: Vec<i64> =
                padded.iter().map(|&sample| self.classes[sample as usize]).collect();
            let drawn = draw_with(self.prior, self.options, &ids, &classes, self.known_t);
            let scores = self.scores(&drawn[..part.len()], &classes);
            let all = part.iter().zip(drawn).zip(scores);
            kept.extend(
                all.filter(|(_, score)| *score >= self.below).map(|((id, one), _)| (*id, one)),
            );
            watch.activity.part_done();
        }
        kept
    }

    /// What the classifier gives the class of each sample.
    fn scores(&self, drawn: &[Drawn], classes: &[i64]) -> Vec<f64> {
        let vqvae = &self.tokenizer.vqvae;
        let mut scores = Vec::with_capacity(drawn.len());
        let size = tile::size(&vqvae.signal);
        for (tile, classes) in drawn.chunks(size).zip(classes.chunks(size)) {
            let codes: Vec<Vec<u32>> = tile.iter().map(|sample| sample.tokens.clone()).collect();
            let raw = to_device(shown_of(self.tokenizer, &codes), vqvae.device());
            let values = vqvae.signal.from_raw(&raw, vqvae.kind());
            let probabilities = (self.classifier.probabilities)(&values);
            for (row, &class) in classes.iter().enumerate().take(tile.len()) {
                let of_row = probabilities.get(row as i64);
                scores.push(match class {
                    0.. => of_row.double_value(&[class]),
                    _ => of_row.max().double_value(&[]),
                });
            }
        }
        scores
    }
}
