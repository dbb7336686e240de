//! First codes from latents of the first global batch.
//!
//! The latents come in a drawn order, and are the same rows on every rank, so what is made of them
//! is too.

use tch::{Kind, Tensor};

use super::kmeans::{Clusters, k_means};
use super::vector::on_sphere;
use super::{CodebookInit, Slot, VectorConfig};
use crate::random::{Purpose, draws};

/// Most latents that k-means looks at, for each centre.
const POINTS_A_CENTER: usize = 64;

/// Keys of a level's draws for several ends; those of level 0 are 0, 1, 2.
pub(super) fn id(level: u64, end: u64) -> u64 {
    level * 8 + end
}

/// Latents that first codes are made of, at most.
pub(super) fn num_candidates(config: &VectorConfig, slot: &Slot) -> usize {
    let num_codes = config.num_codes as usize;
    match config.codebook_init {
        CodebookInit::Uniform => 0,
        CodebookInit::Data => num_codes * (slot.level as usize + 1),
        CodebookInit::Kmeans => num_codes * POINTS_A_CENTER,
    }
}

/// Codes `[K, D]` and how often each is to count, `[K]`, from latents `[C, D]` of the `num_tokens`
/// of the first batch; `None` where codes stay as they are.
pub(super) fn first_codes(
    config: &VectorConfig,
    slot: &Slot,
    candidates_cd: &Tensor,
    num_tokens: usize,
) -> Option<(Tensor, Tensor)> {
    let (num_codes, num_candidates) = (config.num_codes, candidates_cd.size()[0]);
    let (codes_kd, counts_k) = match config.codebook_init {
        _ if num_candidates == 0 => return None,
        CodebookInit::Uniform => return None,
        CodebookInit::Data => {
            // A level takes other tokens than those before it, whose residuals are zero.
            let first = slot.level as i64 * num_codes;
            let options = (Kind::Int64, candidates_cd.device());
            let rows_k = (Tensor::arange(num_codes, options) + first).remainder(num_candidates);
            let ones_k = Tensor::ones([num_codes], (candidates_cd.kind(), candidates_cd.device()));
            (candidates_cd.index_select(0, &rows_k), ones_k)
        }
        CodebookInit::Kmeans => {
            let mut generator = draws(slot.seed, Purpose::Codebook, 1, id(slot.level, 0));
            let finish = |centers_kd: &Tensor| on_sphere(config, centers_kd);
            let iterations = config.kmeans_iterations;
            let Clusters { centers_kd, counts_k } =
                k_means(candidates_cd, num_codes, iterations, finish, &mut generator);
            let tokens_a_candidate = num_tokens as f64 / num_candidates as f64;
            (centers_kd, counts_k.clamp_min(1.0) * tokens_a_candidate)
        }
    };
    let codes_kd = jitter_repeats(slot, &codes_kd, num_candidates);
    Some((on_sphere(config, &codes_kd), counts_k))
}

/// Makes repeated codes distinct: adds uniform noise of 1 % of the codes' root mean square to
/// every code from `first_repeated` on. The same on every rank.
fn jitter_repeats(slot: &Slot, codes_kd: &Tensor, first_repeated: i64) -> Tensor {
    let (num_codes, dim) = codes_kd.size2().expect("codes are [K, D]");
    if first_repeated >= num_codes {
        return codes_kd.shallow_clone();
    }
    let mut generator = draws(slot.seed, Purpose::Codebook, 0, id(slot.level, 2));
    let noise = generator.uniform(1.0, (num_codes * dim) as usize);
    let noise_kd = Tensor::from_slice(&noise)
        .view([num_codes, dim])
        .to_kind(codes_kd.kind())
        .to(codes_kd.device());
    let _ = noise_kd.narrow(0, 0, first_repeated).zero_();
    let scale = codes_kd.square().mean(codes_kd.kind()).sqrt() * 0.01;
    codes_kd + noise_kd * scale
}
