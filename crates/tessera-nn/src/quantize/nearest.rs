//! The nearest code of each latent, without an N x K matrix.

use tch::{Kind, Tensor};

use crate::fused;

/// Latents and codes in a tile of scores on a CPU: 256 x 2048 f32 are 2 MiB, the size of a
/// second-level cache.
const TILE_NK: (i64, i64) = (256, 2048);
/// The same on a GPU, which a small tile would leave idle: 128 MiB.
const TILE_NK_GPU: (i64, i64) = (8192, 4096);

/// Index of the nearest code for each latent, by squared Euclidean distance.
///
/// This is equation 1 of <https://arxiv.org/abs/1711.00937>. The term `|z|^2` is the same for
/// every code, so the largest `z.e - |e|^2 / 2` is looked for instead.
///
/// * `latents_nd`: `[N, D]`, float32 or float64; N is batch times positions, and may be 0.
/// * `codes_kd`: `[K, D]`, same kind and device as `latents_nd`.
///
/// Returns `[N]` int64 on the same device. Ties go to the lowest index. Never holds more than a
/// tile of scores (256 x 2048 on a CPU, 8192 x 4096 on a GPU); nothing is copied to the host.
///
/// # Panics
///
/// If the two disagree on D or kind: callers take both from one model.
pub fn nearest_code(latents_nd: &Tensor, codes_kd: &Tensor) -> Tensor {
    let (num_latents, dim) = latents_nd.size2().expect("latents are [N, D]");
    let (_, code_dim) = codes_kd.size2().expect("codes are [K, D]");
    assert_eq!(dim, code_dim, "latents and codes have the same channels");
    let kind = codes_kd.kind();
    let half_norms_k = codes_kd.square().sum_dim_intlist([1i64].as_slice(), false, kind) * 0.5;
    let codes_dk = codes_kd.tr().contiguous();

    let indices_n = Tensor::zeros([num_latents], (Kind::Int64, latents_nd.device()));
    let (tile_n, tile_k) = if latents_nd.device().is_cuda() { TILE_NK_GPU } else { TILE_NK };
    for start in (0..num_latents).step_by(tile_n as usize) {
        let len = tile_n.min(num_latents - start);
        let tile_nd = latents_nd.narrow(0, start, len);
        if fused::nearest::takes(&tile_nd) {
            let of_tile_n = indices_n.narrow(0, start, len);
            take_nearest(&tile_nd, &codes_dk, &half_norms_k, tile_k, &of_tile_n);
            continue;
        }
        let best_n = nearest_in_tile(&tile_nd, &codes_dk, &half_norms_k, tile_k);
        indices_n.narrow(0, start, len).copy_(&best_n);
    }
    indices_n
}

/// Runs over the codes in tiles, as [`nearest_in_tile`], and takes the scores in one pass.
fn take_nearest(
    tile_nd: &Tensor,
    codes_dk: &Tensor,
    half_norms_k: &Tensor,
    tile_k: i64,
    indices_n: &Tensor,
) {
    let options = (tile_nd.kind(), tile_nd.device());
    let best_n = Tensor::full([tile_nd.size()[0]], f64::NEG_INFINITY, options);
    let num_codes = half_norms_k.size()[0];
    for start in (0..num_codes).step_by(tile_k as usize) {
        let len = tile_k.min(num_codes - start);
        let scores_nk = tile_nd.matmul(&codes_dk.narrow(1, start, len));
        let halves_k = half_norms_k.narrow(0, start, len);
        fused::nearest::take_best(&scores_nk, &halves_k, start, &best_n, indices_n);
    }
}

/// Runs over the codes in tiles and keeps the best score so far. The comparison is strict, so an
/// earlier code wins a tie.
fn nearest_in_tile(
    tile_nd: &Tensor,
    codes_dk: &Tensor,
    half_norms_k: &Tensor,
    tile_k: i64,
) -> Tensor {
    let num_codes = half_norms_k.size()[0];
    let mut best: Option<(Tensor, Tensor)> = None;
    for start in (0..num_codes).step_by(tile_k as usize) {
        let len = tile_k.min(num_codes - start);
        let mut scores_nk = tile_nd.matmul(&codes_dk.narrow(1, start, len));
        scores_nk -= half_norms_k.narrow(0, start, len);
        let (score_n, index_n) = scores_nk.max_dim(1, false);
        let index_n = if start == 0 { index_n } else { index_n + start };
        best = Some(match best {
            None => (score_n, index_n),
            Some((best_score_n, best_index_n)) => {
                let better_n = score_n.gt_tensor(&best_score_n);
                (
                    score_n.where_self(&better_n, &best_score_n),
                    index_n.where_self(&better_n, &best_index_n),
                )
            }
        });
    }
    best.expect("a codebook has codes").1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, draws};
    use tch::Device;

    fn random(rows: i64, dim: i64, id: u64) -> Tensor {
        let values = draws(5, Purpose::Codebook, 0, id).uniform(1.0, (rows * dim) as usize);
        Tensor::from_slice(&values).view([rows, dim])
    }

    /// Against the definition, with distances whole; sizes are no multiples of the tiles.
    #[test]
    fn tiles_find_what_the_whole_matrix_finds() {
        let (latents_nd, codes_kd) = (random(700, 5, 1), random(4500, 5, 2));
        let distances_nk = (latents_nd.unsqueeze(1) - codes_kd.unsqueeze(0))
            .square()
            .sum_dim_intlist([2i64].as_slice(), false, Kind::Double);
        assert_eq!(nearest_code(&latents_nd, &codes_kd), distances_nk.argmin(1, false));
    }

    #[test]
    fn ties_go_to_the_lowest_index_within_and_across_tiles() {
        let codes_kd = Tensor::cat(&[random(10, 3, 1), random(10, 3, 1)], 0);
        let indices = nearest_code(&random(10, 3, 1), &codes_kd);
        assert_eq!(Vec::<i64>::try_from(&indices).unwrap(), (0..10).collect::<Vec<_>>());
        let far = Tensor::full([TILE_NK.1, 3], 9.0, (Kind::Double, Device::Cpu));
        let codes_kd = Tensor::cat(&[random(10, 3, 1), far, random(10, 3, 1)], 0);
        let indices = nearest_code(&random(10, 3, 1), &codes_kd);
        assert_eq!(Vec::<i64>::try_from(&indices).unwrap(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_part_of_a_batch_has_no_indices() {
        let none = Tensor::zeros([0, 3], (Kind::Double, Device::Cpu));
        assert_eq!(nearest_code(&none, &random(4, 3, 1)).size(), [0]);
    }
}
