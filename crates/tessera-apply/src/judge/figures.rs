//! The figures of a set of samples against those that no training saw.

use std::collections::BTreeMap;

use serde::Serialize;
use tch::{Device, Kind, Tensor};
use tessera_nn::metrics::{Manifold, add_moments, frechet, manifold, moments_len};

use super::look::Set;

/// Most samples of a set that precision, recall, density and coverage are computed of: their time grows with the square.
const MOST_IN_MANIFOLD: i64 = 2000;

/// A set against held-out samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SetFigures {
    /// What the set is.
    pub name: String,
    /// Frechet distance of features (Heusel et al. 2017, <https://arxiv.org/abs/1706.08500>), over the whole set.
    pub frechet: f64,
    /// Share of samples in which the classifier finds the class that they should have; none without classifier or classes.
    pub accuracy: Option<f64>,
    /// Share of the set within some held-out sample's ball.
    pub precision: f64,
    /// Share of held-out samples within some ball of the set.
    pub recall: f64,
    /// Balls of held-out samples that one of the set is in, over their expected number.
    pub density: f64,
    /// Share of held-out samples with one of the set in their ball.
    pub coverage: f64,
    /// Mean square distance of two of the set that have one class, by that of two held-out samples: 1 is as varied.
    pub diversity: f64,
}

impl SetFigures {
    pub(super) fn of(name: &str, set: &Set, held_out: &Set, neighbors: i64) -> Self {
        let most = num_manifold(set) as i64;
        let some = |set: &Set| set.vectors_nf.narrow(0, 0, most);
        // Samples of a source can lie class by class; a part of them should not be of a few classes.
        let [set_some, held_some] = [set, held_out].map(|set| some(&set.every(most as u64)));
        let Manifold { precision, recall, density, coverage } =
            manifold(&held_some, &set_some, neighbors);
        Self {
            name: name.to_owned(),
            frechet: frechet(&moments(held_out), &moments(set)),
            accuracy: accuracy(set),
            precision,
            recall,
            density,
            coverage,
            diversity: spread(set) / spread(held_out),
        }
    }
}

/// Samples of a set that precision, recall, density and coverage are of.
pub(super) fn num_manifold(set: &Set) -> usize {
    set.len().min(MOST_IN_MANIFOLD as usize)
}

fn moments(set: &Set) -> Tensor {
    let vectors = set.vectors_nf.to_kind(Kind::Double);
    let mut sums = Tensor::zeros([moments_len(vectors.size()[1])], (Kind::Double, Device::Cpu));
    add_moments(&vectors, &mut sums);
    sums
}

/// Share of samples whose class was found, of those that have one.
fn accuracy(set: &Set) -> Option<f64> {
    let pairs =
        set.classes.iter().zip(&set.found).filter(|(class, found)| **class >= 0 && **found >= 0);
    let (mut hits, mut all) = (0u64, 0u64);
    for (class, found) in pairs {
        all += 1;
        hits += u64::from(class == found);
    }
    (all > 0).then(|| hits as f64 / all as f64)
}

/// Mean square distance of two samples of one class; the mean over classes with two samples.
fn spread(set: &Set) -> f64 {
    let mut rows: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (row, &class) in set.classes.iter().enumerate() {
        rows.entry(class).or_default().push(row as i64);
    }
    let of_class = |rows: &Vec<i64>| {
        let vectors =
            set.vectors_nf.index_select(0, &Tensor::from_slice(rows)).to_kind(Kind::Double);
        // Over pairs of different ones the mean is twice the variance with n - 1.
        2.0 * vectors.var_dim([0i64].as_slice(), true, false).sum(Kind::Double).double_value(&[])
    };
    let spreads: Vec<f64> = rows.values().filter(|rows| rows.len() > 1).map(of_class).collect();
    spreads.iter().sum::<f64>() / spreads.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(vectors: &[f32], classes: &[i64], found: &[i64]) -> Set {
        let num = classes.len();
        Set {
            ids: (0..num as u64).collect(),
            vectors_nf: Tensor::from_slice(vectors).view([num as i64, -1]),
            classes: classes.to_vec(),
            found: found.to_vec(),
            codes: vec![Vec::new(); num],
        }
    }

    #[test]
    fn spread_is_the_mean_square_distance_of_pairs_of_a_class() {
        // Class 0: (0, 0), (3, 4), (0, 1): squares 25, 1, 18, mean 44/3. Class 1: one pair, 4.
        let set = set(&[0., 0., 3., 4., 7., 7., 0., 1., 7., 9.], &[0, 0, 1, 0, 1], &[-1; 5]);
        assert!((spread(&set) - (44.0 / 3.0 + 4.0) / 2.0).abs() < 1e-9);
    }

    #[test]
    fn accuracy_is_of_samples_that_have_a_class() {
        let numbers = [0.; 4];
        assert_eq!(accuracy(&set(&numbers, &[0, 1, -1, 2], &[0, 2, 2, 2])), Some(2.0 / 3.0));
        assert_eq!(accuracy(&set(&numbers, &[0, 1, -1, 2], &[-1; 4])), None);
        assert_eq!(accuracy(&set(&numbers, &[-1; 4], &[0; 4])), None);
    }

    #[test]
    fn a_set_is_no_distance_from_itself_and_a_shift_is_its_square() {
        let numbers: Vec<f32> = (0..40).map(|at| ((at * 7) % 11) as f32).collect();
        let shifted: Vec<f32> = numbers.iter().map(|number| number + 2.0).collect();
        let (set_, shifted) =
            (set(&numbers, &[0; 20], &[0; 20]), set(&shifted, &[0; 20], &[1; 20]));
        let [same, other] = [&set_, &shifted].map(|other| SetFigures::of("it", other, &set_, 3));
        assert!(same.frechet.abs() < 1e-9 && (other.frechet - 8.0).abs() < 1e-9);
        assert_eq!([same.coverage, same.precision, same.recall, same.diversity], [1.0; 4]);
        assert_eq!([same.accuracy, other.accuracy], [Some(1.0), Some(0.0)]);
    }
}
