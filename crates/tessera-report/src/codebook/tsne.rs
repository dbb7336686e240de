//! t-SNE (van der Maaten and Hinton 2008, <https://www.jmlr.org/papers/v9/vandermaaten08a.html>), exact: all pairs.
//!
//! Begins at the principal components, so no seed is drawn and the same vectors always give the same map. Each
//! point's sums are made by itself in the order of points, so threads change nothing.

use super::pca::project;

/// Vectors that are embedded at most: the cost goes with their square.
pub(crate) const MOST: usize = 4096;
/// Steps of the descent, for few vectors and for many.
const STEPS: (usize, usize) = (500, 200);
/// Vectors that are many.
const MANY: usize = 1024;
/// Of the steps, those in which neighbors attract more strongly.
const EARLY: f64 = 0.25;
const EXAGGERATION: f32 = 12.0;
/// How many neighbors count.
const PERPLEXITY: f32 = 30.0;

/// `[N, D]` vectors as points of a plane in which near ones stay near; none for fewer than 4 or more than [`MOST`].
pub(crate) fn embed(vectors_nd: &[f32], dim: usize) -> Option<Vec<[f64; 2]>> {
    let num = vectors_nd.len() / dim.max(1);
    if !(4..=MOST).contains(&num) {
        return None;
    }
    let joint = joint(&distances(vectors_nd, dim, num), num);
    let (start, _) = project(vectors_nd, dim);
    let spread = (start.iter().map(|point| point[0] * point[0]).sum::<f64>() / num as f64).sqrt();
    let scale = if spread > 0.0 { 1e-2 / spread } else { 0.0 };
    // Points that lie on one another would stay so.
    let apart = |at: usize| 1e-4 * (at as f64 * 2.399).sin();
    let mut points: Vec<[f32; 2]> = start
        .iter()
        .enumerate()
        .map(|(at, point)| [0, 1].map(|axis| (point[axis] * scale + apart(at + axis * num)) as f32))
        .collect();
    let mut speed = vec![[0.0f32; 2]; num];
    let mut gain = vec![[1.0f32; 2]; num];
    let steps = if num > MANY { STEPS.1 } else { STEPS.0 };
    let early = (steps as f64 * EARLY) as usize;
    let rate = (num as f32 / EXAGGERATION / 4.0).max(50.0);
    for step in 0..steps {
        let (pull, momentum) = if step < early { (EXAGGERATION, 0.5) } else { (1.0, 0.8) };
        let forces = forces(&joint, &points, pull);
        for at in 0..num {
            for axis in 0..2 {
                let same = (forces[at][axis] > 0.0) == (speed[at][axis] > 0.0);
                let changed = if same { gain[at][axis] * 0.8 } else { gain[at][axis] + 0.2 };
                gain[at][axis] = changed.max(0.01);
                speed[at][axis] =
                    momentum * speed[at][axis] - rate * gain[at][axis] * forces[at][axis];
                points[at][axis] += speed[at][axis];
            }
        }
    }
    Some(points.into_iter().map(|point| point.map(f64::from)).collect())
}

/// Squared distances of all pairs.
fn distances(vectors_nd: &[f32], dim: usize, num: usize) -> Vec<f32> {
    let row = |at: usize| {
        let one = &vectors_nd[at * dim..][..dim];
        vectors_nd
            .chunks_exact(dim)
            .map(|other| one.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum())
            .collect::<Vec<f32>>()
    };
    rows(num, row).concat()
}

/// How near each pair is, in both directions, as shares of all.
fn joint(distances_nn: &[f32], num: usize) -> Vec<f32> {
    let perplexity = PERPLEXITY.min((num as f32 - 1.0) / 3.0);
    let of_row = |at: usize| {
        let distances = &distances_nn[at * num..][..num];
        let nearest = (0..num).filter(|other| *other != at).map(|other| distances[other]);
        let nearest = nearest.fold(f32::INFINITY, f32::min);
        let (mut low, mut high, mut beta) = (0.0f32, f32::INFINITY, 1.0f32);
        let mut shares = vec![0.0f32; num];
        for _ in 0..64 {
            for (other, share) in shares.iter_mut().enumerate() {
                *share =
                    if other == at { 0.0 } else { (-(distances[other] - nearest) * beta).exp() };
            }
            let sum: f32 = shares.iter().sum();
            shares.iter_mut().for_each(|share| *share /= sum);
            let entropy: f32 =
                shares.iter().filter(|share| **share > 0.0).map(|share| -share * share.ln()).sum();
            if (entropy - perplexity.ln()).abs() < 1e-4 {
                break;
            } else if entropy > perplexity.ln() {
                low = beta;
                beta = if high.is_finite() { f32::midpoint(beta, high) } else { beta * 2.0 };
            } else {
                high = beta;
                beta = f32::midpoint(beta, low);
            }
        }
        shares
    };
    let one_way = rows(num, of_row);
    let both = |at: usize| {
        (0..num)
            .map(|other| {
                ((one_way[at][other] + one_way[other][at]) / (2.0 * num as f32)).max(1e-12)
            })
            .collect::<Vec<f32>>()
    };
    rows(num, both).concat()
}

/// The gradient at each point.
fn forces(joint_nn: &[f32], points: &[[f32; 2]], pull: f32) -> Vec<[f32; 2]> {
    let num = points.len();
    let of_point = |at: usize| {
        let [x, y] = points[at];
        let (mut sum, mut attract, mut repel) = (0.0f32, [0.0f32; 2], [0.0f32; 2]);
        for (other, share) in points.iter().zip(&joint_nn[at * num..][..num]) {
            let (dx, dy) = (x - other[0], y - other[1]);
            let near = 1.0 / (1.0 + dx * dx + dy * dy);
            sum += near;
            let (pulled, pushed) = (share * near, near * near);
            attract[0] += pulled * dx;
            attract[1] += pulled * dy;
            repel[0] += pushed * dx;
            repel[1] += pushed * dy;
        }
        (sum - 1.0, attract, repel)
    };
    let parts = rows(num, of_point);
    let total: f32 = parts.iter().map(|(sum, ..)| sum).sum::<f32>().max(1e-12);
    let force = |(_, attract, repel): &(f32, [f32; 2], [f32; 2])| {
        [0, 1].map(|axis| 4.0 * (pull * attract[axis] - repel[axis] / total))
    };
    parts.iter().map(force).collect()
}

/// A value for each row, made by as many threads as there are cores; in the order of rows.
fn rows<T: Send>(num: usize, of_row: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(num.div_ceil(128));
    if threads < 2 {
        return (0..num).map(of_row).collect();
    }
    let each = num.div_ceil(threads);
    let part = |at: usize| (at * each..((at + 1) * each).min(num)).map(&of_row).collect::<Vec<T>>();
    let part = &part;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|at| scope.spawn(move || part(at))).collect();
        let done =
            running.into_iter().map(|thread| thread.join().expect("arithmetic does not fail"));
        done.flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two clouds far apart stay two clouds, the same each time.
    #[test]
    fn near_vectors_stay_near_and_far_ones_far() {
        let vectors: Vec<f32> = (0..24u32)
            .flat_map(|at| {
                let far = if at % 2 == 0 { 0.0 } else { 50.0 };
                [far + (at as f32 * 1.7).sin(), (at as f32 * 2.3).cos(), (at as f32 * 0.9).sin()]
            })
            .collect();
        let points = embed(&vectors, 3).unwrap();
        assert_eq!(points, embed(&vectors, 3).unwrap());
        let apart =
            |a: usize, b: usize| (points[a][0] - points[b][0]).hypot(points[a][1] - points[b][1]);
        let (mut within, mut between) = (0.0f64, f64::INFINITY);
        for a in 0..24 {
            for b in 0..a {
                if a % 2 == b % 2 {
                    within = within.max(apart(a, b));
                } else {
                    between = between.min(apart(a, b));
                }
            }
        }
        assert!(between > within, "{between} {within}");
        assert_eq!(embed(&vectors[..9], 3), None, "too few");
    }
}
