//! What another training has saved, made to fit this one: codebooks with another number of codes.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};
use tessera_nn::quantize::{Codes, resize};

use super::Autoencoder;

/// What a codebook's name ends with.
pub(crate) const CODEBOOK: &str = ".codebook";

impl Autoencoder {
    /// Gives each saved codebook as many codes as there are here, with what belongs to it; a line for each.
    pub(super) fn fit_codebooks(&self, saved: &mut BTreeMap<String, Tensor>) -> Vec<String> {
        let mut lines = Vec::new();
        let parameters = &self.model.parameters;
        let here = parameters.named_views().map(|(name, tensor)| (name.to_owned(), tensor));
        for (name, codes_kd) in
            here.chain(self.model.quantizers.iter().flat_map(|quantizer| quantizer.state()))
        {
            let Some(owner) = name.strip_suffix(CODEBOOK) else { continue };
            let Some(found_kd) = saved.get(&name) else { continue };
            let (there, wanted) = (found_kd.size(), codes_kd.size());
            if there.len() != 2 || there[1] != wanted[1] || there[0] == wanted[0] {
                continue; // as it is, or nothing that fits
            }
            let of_owner = |what: &str| format!("{owner}.{what}");
            let counts_k = saved.get(&of_owner("ema_counts")).map(Tensor::shallow_clone);
            let ones_k = || Tensor::ones([there[0]], (Kind::Double, found_kd.device()));
            let codes = Codes {
                codes_kd: found_kd.shallow_clone(),
                counts_k: counts_k.unwrap_or_else(ones_k),
            };
            let Codes { codes_kd, counts_k } = resize(&codes, wanted[0], self.seed);
            // All that is kept of a code is made from it and its count; its use begins anew.
            let sums_kd = &codes_kd * counts_k.unsqueeze(1);
            let (use_k, counts) = (counts_k.zeros_like(), counts_k);
            for (what, tensor) in
                [("ema_counts", counts), ("ema_sums", sums_kd), ("ema_use", use_k)]
            {
                if let Some(place) = saved.get_mut(&of_owner(what)) {
                    *place = tensor;
                }
            }
            saved.insert(name.clone(), codes_kd);
            let how = match there[0] < wanted[0] {
                true => "those used most are split",
                false => "those used most are kept",
            };
            lines.push(format!("{name}: {} codes there, {} here: {how}", there[0], wanted[0]));
        }
        lines
    }
}
