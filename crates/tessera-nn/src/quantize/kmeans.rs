//! k-means++ and Lloyd's iterations, for first codes.
//!
//! Arthur and Vassilvitskii 2007, <https://dl.acm.org/doi/10.5555/1283383.1283494>: each further
//! centre is a point drawn with probability proportional to its squared distance to the nearest
//! centre so far. Runs on points that every rank has, and gives every rank the same centres: which
//! points those are is drawn by numbers of tokens in the *global* batch.

use tch::{Kind, Tensor};

use super::nearest::nearest_code;
use crate::random::Draws;

/// Centres and how many points each has.
#[derive(Debug)]
pub struct Clusters {
    /// `[K, D]`.
    pub centers_kd: Tensor,
    /// `[K]`, of the kind of the points.
    pub counts_k: Tensor,
}

/// `num_clusters` centres of the points `[C, D]`, after `iterations` of Lloyd; a centre without
/// points stays where it is. `finish` is applied to centres that have moved: bringing them to
/// length one makes it spherical k-means.
///
/// Copies an index to the host for each centre.
///
/// # Panics
///
/// If there are no points.
pub fn k_means(
    points_cd: &Tensor,
    num_clusters: i64,
    iterations: u64,
    finish: impl Fn(&Tensor) -> Tensor,
    draws: &mut Draws,
) -> Clusters {
    let mut centers_kd = plus_plus(points_cd, num_clusters, draws);
    for _ in 0..iterations {
        let (counts_k, sums_kd) = assign(points_cd, &centers_kd);
        let moved_kd = finish(&(sums_kd / counts_k.clamp_min(1.0).unsqueeze(1)));
        centers_kd = moved_kd.where_self(&counts_k.gt(0.0).unsqueeze(1), &centers_kd);
    }
    let (counts_k, _) = assign(points_cd, &centers_kd);
    Clusters { centers_kd, counts_k }
}

/// Points of each centre: their number and their sum.
fn assign(points_cd: &Tensor, centers_kd: &Tensor) -> (Tensor, Tensor) {
    let indices_c = nearest_code(points_cd, centers_kd);
    let mut sums_kd = centers_kd.zeros_like();
    let _ = sums_kd.index_add_(0, &indices_c, points_cd);
    let counts_k = indices_c.bincount(None::<Tensor>, centers_kd.size()[0]);
    (counts_k.to_kind(points_cd.kind()), sums_kd)
}

/// Centres drawn from the points.
fn plus_plus(points_cd: &Tensor, num_clusters: i64, draws: &mut Draws) -> Tensor {
    let (num_points, dim) = points_cd.size2().expect("points are [C, D]");
    let kind = points_cd.kind();
    let norms_c = points_cd.square().sum_dim_intlist([1i64].as_slice(), false, kind);
    let centers_kd = Tensor::zeros([num_clusters, dim], (kind, points_cd.device()));
    let mut nearest_c = norms_c.full_like(f64::INFINITY).to_kind(Kind::Double);
    for center in 0..num_clusters {
        let chosen = match center {
            0 => None,
            _ => drawn(&nearest_c, draws.unit()),
        };
        let chosen = chosen.unwrap_or_else(|| draws.below(num_points as u64) as i64);
        let point_d = points_cd.get(chosen);
        centers_kd.get(center).copy_(&point_d);
        let squared_c = &norms_c - points_cd.mv(&point_d) * 2.0 + norms_c.get(chosen);
        // Of itself a point is away by rounding; it shall not be drawn again for that.
        let squared_c =
            squared_c.where_self(&squared_c.gt_tensor(&(&norms_c * 1e-6)), &norms_c.zeros_like());
        nearest_c = nearest_c.minimum(&squared_c.to_kind(Kind::Double));
    }
    centers_kd
}

/// The first place where the cumulative sum of the weights is above `unit` of the whole; none if
/// all weights are zero.
fn drawn(weights_c: &Tensor, unit: f64) -> Option<i64> {
    let up_to_c = weights_c.cumsum(0, Kind::Double);
    let total = up_to_c.double_value(&[-1]);
    let at = up_to_c.le(unit * total).sum(Kind::Int64).int64_value(&[]);
    (total > 0.0).then(|| at.min(weights_c.size()[0] - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, draws};

    fn column(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([-1, 1])
    }

    fn clusters(points: &Tensor, num: i64, iterations: u64, seed: u64) -> (Vec<f64>, Vec<f64>) {
        let mut draws = draws(seed, Purpose::Codebook, 1, 0);
        let found = k_means(points, num, iterations, Tensor::shallow_clone, &mut draws);
        let mut pairs: Vec<(f64, f64)> = Vec::<f64>::try_from(found.centers_kd.flatten(0, 1))
            .unwrap()
            .into_iter()
            .zip(Vec::<f64>::try_from(found.counts_k).unwrap())
            .collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        pairs.into_iter().unzip()
    }

    /// Three heaps far apart: k-means++ takes a point of each (the chance of another outcome is
    /// about 1e-8), and Lloyd moves the centres to the means.
    #[test]
    fn heaps_far_apart_are_found_with_their_means() {
        let points = column(&[0.0, 0.1, 0.2, 1e4, 1e4 + 1.0, 2e4]);
        for seed in 0..5 {
            let (centers, counts) = clusters(&points, 3, 3, seed);
            for (found, expected) in centers.iter().zip([0.1, 1e4 + 0.5, 2e4]) {
                assert!((found - expected).abs() < 1e-9, "{centers:?}");
            }
            assert_eq!(counts, [3.0, 2.0, 1.0]);
        }
    }

    /// Without iterations centres are points, all different while there are such.
    #[test]
    fn k_means_plus_plus_draws_no_point_twice() {
        let values: Vec<f64> = (0..40).map(|at| f64::from(at) * 0.37).collect();
        let (centers, counts) = clusters(&column(&values), 40, 0, 7);
        assert_eq!(centers, values);
        assert_eq!(counts, [1.0; 40]);
    }

    /// Five centres for two points: the others repeat a point and have none of their own.
    #[test]
    fn more_centres_than_points_repeat_points() {
        let (centers, counts) = clusters(&column(&[1.0, 3.0]), 5, 2, 0);
        assert!(centers.iter().all(|center| [1.0, 3.0].contains(center)), "{centers:?}");
        assert_eq!(counts.iter().sum::<f64>(), 2.0);
    }

    /// The chance of a point is its squared distance over the sum: from 0, the points 1 and 3 have
    /// 1 and 9 of 10.
    #[test]
    fn points_are_drawn_by_squared_distance() {
        let weights = Tensor::from_slice(&[0.0f64, 1.0, 9.0]);
        for (unit, expected) in [(0.0, 1), (0.0999, 1), (0.1001, 2), (0.9999, 2)] {
            assert_eq!(drawn(&weights, unit), Some(expected));
        }
        assert_eq!(drawn(&weights.zeros_like(), 0.5), None);
    }
}
