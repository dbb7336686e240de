//! Precision, recall, density and coverage: which of two sets of features lies within the other.
//!
//! Kynkäänniemi et al. 2019 (<https://arxiv.org/abs/1904.06991>) and Naeem et al. 2020
//! (<https://arxiv.org/abs/2002.09797>), as package `prdc` computes them. Each vector has a ball as
//! large as the distance to its k-th neighbour in its own set, itself not counted; what is at exactly
//! that distance is outside.

use tch::{Kind, Tensor};

/// Distances that are in memory at once: 32 MiB of float64.
const TILE: i64 = 1 << 22;

/// Shares of two sets; not numbers where one of them has no k neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Manifold {
    /// Share of fake vectors in the ball of any real one.
    pub precision: f64,
    /// Share of real vectors in the ball of any fake one.
    pub recall: f64,
    /// Balls of real vectors that a fake one is in, on average, over k: above 1 where fakes crowd.
    pub density: f64,
    /// Share of real vectors with a fake one in their ball.
    pub coverage: f64,
}

/// The figures of two sets of features `[N, F]`, computed in float64 on the device that they are on;
/// 5 is the usual `neighbors`.
///
/// Time grows with N^2 F: it never holds more than 4 million distances. Distances come of products of
/// matrices, so of vectors at exactly equal distances one may count as nearer than the other.
///
/// # Panics
///
/// If the two sets have different numbers of features.
pub fn manifold(real_nf: &Tensor, fake_nf: &Tensor, neighbors: i64) -> Manifold {
    let _no_grad = tch::no_grad_guard();
    let (num_real, num_fake) = (real_nf.size()[0], fake_nf.size()[0]);
    if num_real.min(num_fake) <= neighbors {
        let none = f64::NAN;
        return Manifold { precision: none, recall: none, density: none, coverage: none };
    }
    let [real, fake] = [real_nf, fake_nf].map(|features| features.to_kind(Kind::Double));
    // Products of vectors far from 0 would hide small distances.
    let center = real.mean_dim([0i64].as_slice(), true, Kind::Double);
    let [real, fake] = [real, fake].map(|features| Rows::of(features - &center));
    let real_radii = real.radii(neighbors);
    let fake_radii = fake.radii(neighbors);

    let options = (Kind::Int64, real.rows.device());
    let mut balls_of_fake = Tensor::zeros([num_fake], options);
    let mut recalled = Tensor::zeros([], options);
    let mut covered = Tensor::zeros([], options);
    for (from, len) in tiles(num_real, num_fake) {
        // `[len, N']`: rows are real, columns fake.
        let distances = real.to(from, len, &fake);
        let radii = real_radii.narrow(0, from, len).unsqueeze(1);
        let in_real = distances.lt_tensor(&radii);
        balls_of_fake += in_real.sum_dim_intlist([0i64].as_slice(), false, Kind::Int64);
        covered += in_real.any_dim(1, false).sum(Kind::Int64);
        recalled += distances.lt_tensor(&fake_radii).any_dim(1, false).sum(Kind::Int64);
    }
    let share = |count: &Tensor, of: i64| count.int64_value(&[]) as f64 / of as f64;
    Manifold {
        precision: share(&balls_of_fake.gt(0).sum(Kind::Int64), num_fake),
        recall: share(&recalled, num_real),
        density: share(&balls_of_fake.sum(Kind::Int64), num_fake * neighbors),
        coverage: share(&covered, num_real),
    }
}

/// Vectors, with the squares of their lengths.
struct Rows {
    rows: Tensor,
    squares: Tensor,
}

impl Rows {
    fn of(rows: Tensor) -> Self {
        let squares = rows.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        Self { rows, squares }
    }

    /// Squared distances `[len, N']` of `len` vectors from `from` on to those of another set.
    fn to(&self, from: i64, len: i64, other: &Self) -> Tensor {
        let products = self.rows.narrow(0, from, len).matmul(&other.rows.tr());
        let squares = self.squares.narrow(0, from, len).unsqueeze(1) + &other.squares;
        (squares - products * 2.0).clamp_min(0.0)
    }

    /// Squared distance of each vector to its k-th neighbour in its own set, `[N]`.
    fn radii(&self, neighbors: i64) -> Tensor {
        let num = self.rows.size()[0];
        let of_tile = |(from, len): (i64, i64)| {
            let distances = self.to(from, len, self);
            // A vector is its own nearest, whatever rounding makes of that.
            let _ = distances.narrow(1, from, len).fill_diagonal_(0.0, false);
            let (nearest, _) = distances.topk(neighbors + 1, 1, false, true);
            nearest.select(1, neighbors)
        };
        Tensor::cat(&tiles(num, num).map(of_tile).collect::<Vec<_>>(), 0)
    }
}

/// Runs of rows whose distances to so many columns fit into a tile: first and length.
fn tiles(rows: i64, columns: i64) -> impl Iterator<Item = (i64, i64)> {
    let most = (TILE / columns.max(1)).max(1);
    (0..rows).step_by(most as usize).map(move |from| (from, most.min(rows - from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, k = 1, one feature: the radii of real 0, 1, 3 are 1, 1, 2 and those of fake 0.5, 1.2, 10
    /// are 0.7, 0.7, 8.8. Fake 0.5 is in the balls of 0 and 1, 1.2 in those of 1 and 3, 10 in none; real
    /// 0 and 1 are in the ball of 0.5, 3 in that of 10 (7 away).
    #[test]
    fn three_vectors_are_by_hand() {
        let of = |values: &[f64]| Tensor::from_slice(values).view([-1, 1]);
        let found = manifold(&of(&[0.0, 1.0, 3.0]), &of(&[0.5, 1.2, 10.0]), 1);
        let expected = [2.0 / 3.0, 1.0, 4.0 / 3.0, 1.0];
        let found = [found.precision, found.recall, found.density, found.coverage];
        let near = |(found, expected): (&f64, &f64)| (found - expected).abs() < 1e-15;
        assert!(found.iter().zip(&expected).all(near), "{found:?}");
    }

    #[test]
    fn a_set_far_away_shares_nothing_and_a_small_one_has_no_figures() {
        let real = Tensor::arange(40, (Kind::Float, tch::Device::Cpu)).sin().view([20, 2]);
        let found = manifold(&real, &(&real + 100.0), 5);
        assert_eq!(
            (found.precision, found.recall, found.density, found.coverage),
            (0.0, 0.0, 0.0, 0.0)
        );
        let same = manifold(&real, &real, 5);
        assert_eq!((same.precision, same.recall, same.coverage), (1.0, 1.0, 1.0));
        assert!(manifold(&real, &real.narrow(0, 0, 5), 5).density.is_nan());
    }

    #[test]
    fn tiles_cover_all_rows_once() {
        assert_eq!(tiles(5, TILE / 2).collect::<Vec<_>>(), [(0, 2), (2, 2), (4, 1)]);
        assert_eq!(tiles(2, 2 * TILE).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
        assert_eq!(tiles(0, 0).count(), 0);
    }
}
