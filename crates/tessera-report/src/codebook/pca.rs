//! Principal components by orthogonal iteration from a fixed start.

/// Rounds of the iteration; two axes that differ by a hundredth are apart after them.
const ROUNDS: usize = 400;
/// Change of an axis below which it stands.
const STANDS: f64 = 1e-10;

/// `[N, D]` vectors on the two directions in which they differ most, and the share of the variance on each.
///
/// Each direction has the sign in which its largest component is positive, so the same vectors always look the same.
pub(crate) fn project(vectors_nd: &[f32], dim: usize) -> (Vec<[f64; 2]>, [f64; 2]) {
    let num = vectors_nd.len() / dim.max(1);
    if num == 0 {
        return (Vec::new(), [0.0; 2]);
    }
    let mut mean_d = vec![0.0; dim];
    for vector in vectors_nd.chunks_exact(dim) {
        mean_d
            .iter_mut()
            .zip(vector)
            .for_each(|(mean, value)| *mean += f64::from(*value) / num as f64);
    }
    let mut covariance_dd = vec![0.0; dim * dim];
    for vector in vectors_nd.chunks_exact(dim) {
        let apart: Vec<f64> =
            vector.iter().zip(&mean_d).map(|(value, mean)| f64::from(*value) - mean).collect();
        for (row, a) in apart.iter().enumerate() {
            for (column, b) in apart[..=row].iter().enumerate() {
                covariance_dd[row * dim + column] += a * b / num as f64;
            }
        }
    }
    for row in 0..dim {
        for column in row + 1..dim {
            covariance_dd[row * dim + column] = covariance_dd[column * dim + row];
        }
    }
    let total: f64 = (0..dim).map(|at| covariance_dd[at * dim + at]).sum();
    let axes = axes(&covariance_dd, dim);
    let at = |vector: &[f32], axis: &[f64]| -> f64 {
        let parts = vector.iter().zip(&mean_d).zip(axis);
        parts.map(|((value, mean), axis)| (f64::from(*value) - mean) * axis).sum()
    };
    let points: Vec<[f64; 2]> = vectors_nd
        .chunks_exact(dim)
        .map(|vector| [at(vector, &axes[0]), at(vector, &axes[1])])
        .collect();
    let share = |axis: usize| {
        let along: f64 = points.iter().map(|point| point[axis] * point[axis]).sum();
        if total > 0.0 { along / num as f64 / total } else { 0.0 }
    };
    let shares = [share(0), share(1)];
    (points, shares)
}

/// The two directions of the largest eigenvalues.
fn axes(matrix_dd: &[f64], dim: usize) -> [Vec<f64>; 2] {
    // Any start that has a part of every direction.
    let start = |phase: f64| (0..dim).map(|at| (1.0 + phase + at as f64 * 0.7).sin()).collect();
    let mut axes: [Vec<f64>; 2] = [start(0.0), start(1.3)];
    for _ in 0..ROUNDS {
        let mut next = axes.clone();
        for axis in &mut next {
            let old = axis.clone();
            for (row, value) in axis.iter_mut().enumerate() {
                let parts = matrix_dd[row * dim..][..dim].iter().zip(&old);
                *value = parts.map(|(a, b)| a * b).sum();
            }
        }
        normalize(&mut next[0]);
        let along = dot(&next[0], &next[1]);
        let [first, second] = &mut next;
        second.iter_mut().zip(first.iter()).for_each(|(value, first)| *value -= along * first);
        normalize(second);
        let change = next.iter().flatten().zip(axes.iter().flatten());
        let change = change.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        axes = next;
        if change < STANDS {
            break;
        }
    }
    for axis in &mut axes {
        let largest =
            axis.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        if largest < 0.0 {
            axis.iter_mut().for_each(|value| *value = -*value);
        }
    }
    axes
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// To length 1; what has none stays.
fn normalize(axis: &mut [f64]) {
    let length = dot(axis, axis).sqrt();
    if length > 1e-300 {
        axis.iter_mut().for_each(|value| *value /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: points on a line along (3, 4) / 5, with a little across it.
    #[test]
    fn the_first_axis_is_where_points_differ_most() {
        let along = [-2.0f32, -1.0, 0.0, 1.0, 2.0];
        let across = [0.1f32, -0.2, 0.2, -0.2, 0.1];
        let vectors: Vec<f32> = along
            .iter()
            .zip(across)
            .flat_map(|(a, b)| [7.0 + 0.6 * a - 0.8 * b, 0.8 * a + 0.6 * b])
            .collect();
        let (points, shares) = project(&vectors, 2);
        for ((point, a), b) in points.iter().zip(along).zip(across) {
            assert!((point[0] - f64::from(a)).abs() < 1e-5, "{points:?}");
            assert!((point[1].abs() - f64::from(b).abs()).abs() < 1e-5, "{points:?}");
        }
        assert!(shares[0] > 0.98 && (shares[0] + shares[1] - 1.0).abs() < 1e-6, "{shares:?}");
    }

    #[test]
    fn equal_vectors_and_single_numbers_lie_at_one_place() {
        assert_eq!(project(&[1.0; 6], 2).1, [0.0; 2]);
        let (points, _) = project(&[1.0, 3.0], 1);
        assert!((points[0][0] - points[1][0]).abs() > 1.9 && points[0][1].abs() < 1e-9);
    }
}
