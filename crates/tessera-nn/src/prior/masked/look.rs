//! How much each hidden token is expected by those that are seen.

use tch::{Kind, Tensor};

use super::Masked;
use crate::chain::Block;
use crate::parameters::Parameters;
use crate::prior::{TokenBatch, class_rows};

impl Masked {
    /// As [`Prior::nats_of_hidden`](crate::Prior::nats_of_hidden). Logits are made of all tokens, so that their bits do not
    /// depend on how many are hidden.
    pub(super) fn look(
        &self,
        parameters: &Parameters,
        batch: &TokenBatch<'_>,
        is_hidden_nt: &Tensor,
    ) -> Tensor {
        let tokens_nt = batch.tokens_nt;
        let class_rows_n = class_rows(batch, self.body.no_class(), None, tokens_nt.device());
        let states_ntw = self.states(parameters, tokens_nt, is_hidden_nt, &class_rows_n, None);
        let starts = self.codes.starts();
        let of_level = |level: usize| {
            let (start, num) = (starts[level], self.codes.levels[level].num_positions());
            let head = &self.vocabulary.heads[level][0];
            let logits = head.forward(parameters, &states_ntw.narrow(1, start, num));
            let likelihoods_npk = logits.to_kind(Kind::Double).log_softmax(-1, Kind::Double);
            let codes = tokens_nt.narrow(1, start, num).unsqueeze(-1);
            -likelihoods_npk.gather(-1, &codes, false).squeeze_dim(-1)
        };
        let levels: Vec<Tensor> = (0..starts.len()).map(of_level).collect();
        Tensor::cat(&levels, 1).masked_fill(&is_hidden_nt.logical_not(), 0.0)
    }
}
