//! From logits to nats.

use tch::{Kind, Reduction, Tensor};

/// Losses of a part of a batch.
#[derive(Debug)]
pub struct TokenLosses {
    /// The weighted sum over tokens that the prior is trained by, a scalar of the master kind with a graph; to be
    /// divided by [`Prior::weight`](super::Prior::weight) of the global batch.
    pub sum: Tensor,
    /// Of each level the sum over its tokens that carry a loss, in nats, unweighted and without label smoothing: `[levels]`
    /// float64 on the prior's device, without a graph.
    pub nats_l: Tensor,
    /// Of each level the number of these tokens.
    pub num_l: Vec<u64>,
}

/// No label is left out.
const NONE: i64 = -100;

/// Losses of tokens with a graph and their nats without, both `[M]` of kind `kind`, of logits `[M, K]` of any kind and
/// codes `[M]`. The two differ by label smoothing: that part of a target is spread over all codes.
pub(super) fn cross_entropy(
    logits_mk: &Tensor,
    codes_m: &Tensor,
    smoothing: f64,
    kind: Kind,
) -> (Tensor, Tensor) {
    let likely_mk = logits_mk.to_kind(kind).log_softmax(-1, kind);
    let nats_m = likely_mk.g_nll_loss(codes_m, None::<Tensor>, Reduction::None, NONE);
    if smoothing == 0.0 {
        return (nats_m.shallow_clone(), nats_m.detach());
    }
    let of_all_m = likely_mk.mean_dim([-1i64].as_slice(), false, kind);
    (&nats_m * (1.0 - smoothing) - of_all_m * smoothing, nats_m.detach())
}
