//! What a model of codes has to beat: models that need no training, measured on held-out codes.
//!
//! Each is a table of probabilities from the counts of the training split, one added to each count
//! (Laplace's rule): a code that came c times of n has probability (c + 1) / (n + K). The cost of
//! held-out codes is the mean of -ln of their probabilities, in nats a token. Uniform codes cost
//! ln K; a table for each position and class is the best that goes without the codes around.

use serde::Serialize;

use crate::tokens::histograms::Histograms;

/// Nats a token of held-out codes under models that see no other code.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Baselines {
    /// All codes alike: ln K.
    pub uniform: f64,
    /// One table for all positions.
    pub unigram: f64,
    /// A table for each position; none where those were not counted.
    pub position: Option<f64>,
    /// A table for each position and class, over samples with a label; none where those were not
    /// counted, or no sample has one.
    pub position_and_class: Option<f64>,
}

/// The baselines of a token set.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenBaselines {
    /// Over the codes of all levels.
    pub all: Baselines,
    /// Over those of each level.
    pub levels: Vec<Baselines>,
}

/// A sum of costs, and how many codes they are of.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    nats: f64,
    num: u64,
}

impl Cost {
    fn mean(self) -> Option<f64> {
        (self.num > 0).then(|| self.nats / self.num as f64)
    }

    fn and(self, other: Self) -> Self {
        Self { nats: self.nats + other.nats, num: self.num + other.num }
    }
}

/// The costs of one level, in the order of [`Baselines`]; none of what was not counted.
type Costs = [Option<Cost>; 4];

/// What codes that were counted in `held_out` cost, with tables made of `train`. None if the two were
/// counted over other levels.
pub fn baselines(train: &Histograms, held_out: &Histograms) -> Option<TokenBaselines> {
    let sizes = |histograms: &Histograms| -> Vec<usize> {
        histograms.levels.iter().map(Vec::len).collect()
    };
    if sizes(train) != sizes(held_out) {
        return None;
    }
    let costs = (0..train.levels.len()).map(|level| costs_of(level, train, held_out));
    let costs: Vec<Costs> = costs.collect();
    let mut all = costs.first().copied()?;
    for level in &costs[1..] {
        for (sum, cost) in all.iter_mut().zip(level) {
            *sum = sum.zip(*cost).map(|(sum, cost)| sum.and(cost));
        }
    }
    Some(TokenBaselines {
        all: figures(&all)?,
        levels: costs.iter().map(figures).collect::<Option<_>>()?,
    })
}

fn costs_of(level: usize, train: &Histograms, held_out: &Histograms) -> Costs {
    let num_codes = train.levels[level].len();
    let num = held_out.levels[level].iter().sum();
    let uniform = Cost { nats: num as f64 * (num_codes as f64).ln(), num };
    let unigram = cost(&train.levels[level], &held_out.levels[level], num_codes);
    let table = |train: &Option<Vec<Vec<u32>>>, held_out: &Option<Vec<Vec<u32>>>| {
        let (train, held_out) = (&train.as_ref()?[level], &held_out.as_ref()?[level]);
        (train.len() == held_out.len()).then(|| cost(train, held_out, num_codes))
    };
    let position = table(&train.positions, &held_out.positions);
    let class = table(&train.classes, &held_out.classes);
    [Some(uniform), Some(unigram), position, class]
}

/// The cost of codes under tables of `num_codes` counts each.
fn cost<C: Copy + Into<u64>>(train: &[C], held_out: &[C], num_codes: usize) -> Cost {
    let mut cost = Cost::default();
    for (train, held_out) in train.chunks(num_codes).zip(held_out.chunks(num_codes)) {
        let total: u64 = train.iter().map(|&count| count.into()).sum();
        let total = (total + num_codes as u64) as f64;
        for (&known, &num) in train.iter().zip(held_out) {
            let (known, num): (u64, u64) = (known.into(), num.into());
            if num > 0 {
                let probability = (known + 1) as f64 / total;
                cost = cost.and(Cost { nats: -(num as f64) * probability.ln(), num });
            }
        }
    }
    cost
}

/// None if nothing is held out.
fn figures(costs: &Costs) -> Option<Baselines> {
    let [uniform, unigram, position, class] = costs.map(|cost| cost.and_then(Cost::mean));
    Some(Baselines { uniform: uniform?, unigram: unigram?, position, position_and_class: class })
}
