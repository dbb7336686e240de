//! How many samples are copies of what was trained on.
//!
//! Every sample has a nearest training sample. It is called near where it is nearer than that of all but a twentieth of the
//! held-out samples, which no training could copy: a twentieth of the samples is what chance gives, and more means that
//! training samples come back.

use std::collections::HashSet;

use serde::Serialize;
use tch::{Kind, Tensor};

use super::look::Set;
use crate::watch::Watch;

/// What part of the held-out samples counts as near.
const PART: f64 = 0.05;
/// Rows whose distances to all training samples are in memory at once.
const ROWS: i64 = 256;

/// How many samples are copies of training samples.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Copies {
    /// Training samples among which they were looked for.
    pub num_training: u64,
    /// Samples whose codes are those of a training sample, all of them.
    pub exact: u64,
    /// The same of held-out samples: what is alike without being copied.
    pub exact_held_out: u64,
    /// Share of samples that are nearer to a training sample than all but a twentieth of the held-out samples, in features.
    pub near_by_features: f64,
    /// The same by the number of codes that differ.
    pub near_by_codes: f64,
    /// Mean number of codes in which a sample differs from the training sample that is nearest by codes.
    pub codes_apart: f64,
    /// The same of held-out samples.
    pub codes_apart_held_out: f64,
}

impl Copies {
    /// Counts them; the training sample that is nearest to each sample in features.
    pub(super) fn count(
        samples: &Set,
        held_out: &Set,
        training: &Set,
        watch: &Watch<'_>,
    ) -> (Self, Vec<usize>) {
        let [(near, nearest), (held_near, _)] =
            [samples, held_out].map(|set| nearest(set, training, watch));
        let [apart, held_apart] = [samples, held_out].map(|set| codes_apart(set, training, watch));
        let known: HashSet<&[u32]> = training.codes.iter().map(Vec::as_slice).collect();
        let [exact, exact_held_out] = [samples, held_out].map(|set| {
            set.codes.iter().filter(|codes| known.contains(codes.as_slice())).count() as u64
        });
        let copies = Self {
            num_training: training.len() as u64,
            exact,
            exact_held_out,
            near_by_features: share_below(&near, &held_near),
            near_by_codes: share_below(&apart, &held_apart),
            codes_apart: mean(&apart),
            codes_apart_held_out: mean(&held_apart),
        };
        (copies, nearest)
    }
}

/// The distance of each sample's features to the nearest training sample's, and which that is.
fn nearest(set: &Set, training: &Set, watch: &Watch<'_>) -> (Vec<f64>, Vec<usize>) {
    let (mut distances, mut places) = (Vec::new(), Vec::new());
    let training = training.vectors_nf.to_kind(Kind::Double);
    for rows in set.vectors_nf.split(ROWS, 0) {
        let all = Tensor::cdist(&rows.to_kind(Kind::Double), &training, 2.0, None::<i64>);
        let (distance, place) = all.min_dim(1, false);
        distances.extend(Vec::<f64>::try_from(distance).expect("distances are on one axis"));
        places.extend(Vec::<i64>::try_from(place).expect("places are on one axis"));
        watch.activity.part_done();
    }
    (distances, places.into_iter().map(|place| place as usize).collect())
}

/// In how many codes each sample differs from the training sample that is nearest by codes.
fn codes_apart(set: &Set, training: &Set, watch: &Watch<'_>) -> Vec<f64> {
    let apart =
        |codes: &[u32], others: &[u32]| codes.iter().zip(others).filter(|(a, b)| a != b).count();
    let of_sample = |codes: &Vec<u32>| {
        watch.activity.part_done();
        training.codes.iter().map(|others| apart(codes, others)).min().unwrap_or(0) as f64
    };
    set.codes.iter().map(of_sample).collect()
}

/// Share of distances that are below all but [`PART`] of others.
fn share_below(distances: &[f64], others: &[f64]) -> f64 {
    let mut others = others.to_vec();
    others.sort_by(f64::total_cmp);
    let limit = others[(PART * others.len() as f64) as usize];
    distances.iter().filter(|distance| **distance < limit).count() as f64 / distances.len() as f64
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_what_is_nearer_than_all_but_a_twentieth() {
        let others: Vec<f64> = (0..40).rev().map(f64::from).collect();
        // All but two of forty: 0 and 1 are nearer than 2.
        assert_eq!(share_below(&[0.0, 1.9, 2.0, 50.0], &others), 0.5);
        assert!((share_below(&others, &others) - 0.05).abs() < 1e-12);
    }
}
