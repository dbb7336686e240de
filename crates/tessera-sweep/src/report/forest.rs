//! A random forest over the trials, and what it says of each parameter.
//!
//! The trees are grown as in Breiman 2001, with all features at each split: each from rows that are drawn
//! with replacement, to leaves of one row, or of rows that no feature tells apart. What they predict of
//! rows that they were not grown from says how much the forest knows ([`Forest::r_squared`]).
//!
//! A tree cuts the unit cube into boxes of one value each, so the variance of its predictions over the
//! whole cube splits exactly into shares of the features (functional ANOVA: Hutter et al. 2014, *An
//! efficient approach for assessing hyperparameter importance*, algorithms 1 and 2). Here are the shares
//! of single features alone.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::sampler::unit;

/// Trees of a forest.
const TREES: usize = 100;
/// Splits between a tree's root and a leaf at most.
const MAX_DEPTH: usize = 64;

/// Regression trees over features from 0 to 1.
#[derive(Debug)]
pub(crate) struct Forest {
    trees: Vec<Node>,
    num_features: usize,
    /// Share of the target's variance that trees explain which have not seen the row (R^2, out of bag); 0
    /// where they know no more than the mean, less where they know less.
    pub(crate) r_squared: f64,
}

#[derive(Debug)]
enum Node {
    Leaf(f64),
    Split { feature: usize, at: f64, sides: Box<[Node; 2]> },
}

/// What trees are grown from.
struct Rows<'a> {
    /// A column a feature.
    columns: &'a [Vec<f64>],
    target: &'a [f64],
}

impl Forest {
    /// Grows it; the same from the same rows.
    pub(crate) fn grow(columns: &[Vec<f64>], target: &[f64]) -> Self {
        let rows = Rows { columns, target };
        let num = target.len();
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let mut trees = Vec::new();
        // For each row, the sum of what trees predict that have not seen it, and how many these are.
        let mut unseen = vec![(0.0, 0_usize); num];
        for _ in 0..TREES {
            let drawn: Vec<usize> =
                (0..num).map(|_| (unit(&mut random) * num as f64) as usize).collect();
            let mut seen = vec![false; num];
            drawn.iter().for_each(|&row| seen[row] = true);
            let tree = rows.grow(drawn, 0, &mut random);
            for row in (0..num).filter(|&row| !seen[row]) {
                unseen[row].0 += tree.predict(|feature| columns[feature][row]);
                unseen[row].1 += 1;
            }
            trees.push(tree);
        }
        let predicted: Vec<(f64, f64)> = unseen
            .iter()
            .zip(target)
            .filter(|((_, trees), _)| *trees > 0)
            .map(|((sum, trees), target)| (sum / *trees as f64, *target))
            .collect();
        Self { trees, num_features: columns.len(), r_squared: r_squared(&predicted) }
    }

    /// The share of the variance of the predictions that each feature explains by itself, the mean over trees.
    pub(crate) fn shares(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.num_features];
        let mut num = 0;
        for tree in &self.trees {
            let Some(shares) = shares(tree, self.num_features) else { continue };
            sums.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
            num += 1;
        }
        sums.into_iter().map(|sum| sum / f64::from(num.max(1))).collect()
    }
}

/// Of pairs of a prediction and what it is of.
fn r_squared(predicted: &[(f64, f64)]) -> f64 {
    let mean = predicted.iter().map(|(_, of)| of).sum::<f64>() / predicted.len() as f64;
    let left: f64 = predicted.iter().map(|(told, of)| (told - of).powi(2)).sum();
    let all: f64 = predicted.iter().map(|(_, of)| (of - mean).powi(2)).sum();
    if all > 0.0 { 1.0 - left / all } else { 0.0 }
}

impl Rows<'_> {
    fn grow(&self, rows: Vec<usize>, depth: usize, random: &mut ChaCha8Rng) -> Node {
        let mean = rows.iter().map(|&row| self.target[row]).sum::<f64>() / rows.len() as f64;
        let is_one = rows.iter().all(|&row| self.target[row] == self.target[rows[0]]);
        let split =
            if is_one || depth == MAX_DEPTH { None } else { self.split(&rows, mean, random) };
        let Some((feature, at)) = split else { return Node::Leaf(mean) };
        let (low, high) = rows.into_iter().partition(|&row| self.columns[feature][row] < at);
        let sides = [low, high].map(|side: Vec<usize>| self.grow(side, depth + 1, random));
        Node::Split { feature, at, sides: Box::new(sides) }
    }

    /// The feature, and where to split it, that leaves the least squared error; none where all are alike.
    fn split(&self, rows: &[usize], mean: f64, random: &mut ChaCha8Rng) -> Option<(usize, f64)> {
        let mut best: Option<(f64, usize, f64)> = None;
        let num = self.columns.len();
        let first = (unit(random) * num as f64) as usize; // of equally good ones, not always the same
        for feature in (0..num).map(|at| (first + at) % num) {
            let column = &self.columns[feature];
            let mut sorted = rows.to_vec();
            sorted.sort_by(|&a, &b| column[a].total_cmp(&column[b]).then(a.cmp(&b)));
            let mut below = 0.0; // sum of the targets' distances to the mean; all of them together are 0
            for (num_below, pair) in (1..).zip(sorted.windows(2)) {
                below += self.target[pair[0]] - mean;
                let (from, to) = (column[pair[0]], column[pair[1]]);
                let at = from.midpoint(to);
                if from >= at {
                    continue;
                }
                let num_above = rows.len() - num_below;
                let gain = below * below * (1.0 / num_below as f64 + 1.0 / num_above as f64);
                if best.is_none_or(|(most, _, _)| gain > most) {
                    best = Some((gain, feature, at));
                }
            }
        }
        best.map(|(_, feature, at)| (feature, at))
    }
}

impl Node {
    fn predict(&self, value: impl Fn(usize) -> f64) -> f64 {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(mean) => return *mean,
                Self::Split { feature, at, sides } => {
                    node = &sides[usize::from(value(*feature) >= *at)];
                }
            }
        }
    }

    /// Appends each leaf with its box: from where to where, a pair a feature.
    fn leaves(&self, inside: &mut Vec<(f64, f64)>, found: &mut Vec<(f64, Vec<(f64, f64)>)>) {
        match self {
            Self::Leaf(mean) => found.push((*mean, inside.clone())),
            Self::Split { feature, at, sides } => {
                let (from, to) = inside[*feature];
                for (side, part) in sides.iter().zip([(from, *at), (*at, to)]) {
                    inside[*feature] = part;
                    side.leaves(inside, found);
                }
                inside[*feature] = (from, to);
            }
        }
    }
}

/// The share of a tree's variance that each feature explains by itself; none where it is one leaf.
fn shares(tree: &Node, num_features: usize) -> Option<Vec<f64>> {
    let mut leaves = Vec::new();
    tree.leaves(&mut vec![(0.0, 1.0); num_features], &mut leaves);
    let volume = |sides: &[(f64, f64)]| sides.iter().map(|(from, to)| to - from).product::<f64>();
    let mean: f64 = leaves.iter().map(|(value, sides)| value * volume(sides)).sum();
    let variance: f64 =
        leaves.iter().map(|(value, sides)| (value - mean).powi(2) * volume(sides)).sum();
    if variance <= 0.0 {
        return None;
    }
    let share = |feature: usize| {
        let mut edges: Vec<f64> =
            leaves.iter().flat_map(|(_, sides)| [sides[feature].0, sides[feature].1]).collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        // Between two edges the mean over all other features is one number; its changes at the edges are summed.
        let mut changes = vec![0.0; edges.len()];
        for (value, sides) in &leaves {
            let (from, to) = sides[feature];
            let weight = (value - mean) * volume(sides) / (to - from);
            for (edge, change) in [(from, weight), (to, -weight)] {
                let at = edges.binary_search_by(|known| known.total_cmp(&edge));
                changes[at.expect("it is one of them")] += change;
            }
        }
        let (mut away, mut sum) = (0.0_f64, 0.0);
        for (pair, change) in edges.windows(2).zip(changes) {
            away += change;
            sum += away * away * (pair[1] - pair[0]);
        }
        sum / variance
    };
    Some((0..num_features).map(share).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0 in the left half; in the right one 1 below and 3 above. The mean is 1/4 + 3/4 = 1, the variance
    /// 1/2 + 0 + 4/4 = 3/2. Across alone it is 0 or 2: variance 1, two thirds. Up alone 1/2 or 3/2: 1/4, a sixth.
    #[test]
    fn shares_of_a_tree_are_those_of_arithmetic() {
        let split = |feature, sides| Node::Split { feature, at: 0.5, sides: Box::new(sides) };
        let right = split(1, [Node::Leaf(1.0), Node::Leaf(3.0)]);
        let tree = split(0, [Node::Leaf(0.0), right]);
        let found = shares(&tree, 3).unwrap();
        let expected = [2.0 / 3.0, 1.0 / 6.0, 0.0];
        let same = found.iter().zip(expected).all(|(a, b): (&f64, f64)| (a - b).abs() < 1e-12);
        assert!(same, "{found:?}");
        assert_eq!(shares(&Node::Leaf(4.0), 3), None);
    }

    /// A grid of 8 by 8 places, each in the middle of its part.
    fn grid() -> Vec<Vec<f64>> {
        let part = |at: usize| (at as f64 + 0.5) / 8.0;
        vec![(0..64).map(|at| part(at / 8)).collect(), (0..64).map(|at| part(at % 8)).collect()]
    }

    /// 3 a + b: variances 9 to 1, nothing together.
    #[test]
    fn a_sum_has_the_shares_of_its_parts_and_the_forest_knows_it() {
        let columns = grid();
        let target: Vec<f64> = (0..64).map(|at| 3.0 * columns[0][at] + columns[1][at]).collect();
        let forest = Forest::grow(&columns, &target);
        let shares = forest.shares();
        // Of trees that have seen 63 % of the rows: within a few hundredths.
        assert!((shares[0] - 0.9).abs() < 0.04 && (shares[1] - 0.1).abs() < 0.04, "{shares:?}");
        assert!(forest.r_squared > 0.9, "{}", forest.r_squared);
    }

    /// Of numbers that hang on nothing, rows that were not seen are guessed worse than by the mean.
    #[test]
    fn of_noise_the_forest_knows_nothing_and_says_so() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let noise: Vec<f64> = (0..64).map(|_| unit(&mut random)).collect();
        let forest = Forest::grow(&grid(), &noise);
        assert!(forest.r_squared < 0.1, "{}", forest.r_squared);
        assert!(forest.shares().iter().sum::<f64>() > 0.1, "the shares alone do not show it");
    }

    /// Whichever of two settings differs: neither says anything by itself, both together all.
    #[test]
    fn what_two_features_explain_only_together_is_no_share_of_either() {
        let columns = grid();
        let target: Vec<f64> =
            (0..64).map(|at| f64::from((columns[0][at] < 0.5) ^ (columns[1][at] < 0.5))).collect();
        let forest = Forest::grow(&columns, &target);
        let shares = forest.shares();
        assert!(shares.iter().all(|share| *share < 0.15), "{shares:?}");
        assert!(forest.r_squared > 0.5, "{}", forest.r_squared);
    }
}
