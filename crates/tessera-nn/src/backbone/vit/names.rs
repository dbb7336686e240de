//! What TiTok's code, 1d-tokenizer, calls our tensors, where there are latent tokens. Shapes are
//! the same.
//!
//! Only names: files are read and written elsewhere. The codes, `quantize.embedding.weight`, are
//! the quantiser's.

/// Ends of names that differ, ours and theirs: PyTorch's `MultiheadAttention` has no layer there.
const IN_PROJECTION: [(&str, &str); 2] = [
    (".attn.in_proj.weight", ".attn.in_proj_weight"),
    (".attn.in_proj.bias", ".attn.in_proj_bias"),
];

/// Their name of a tensor of ours.
pub fn theirs(ours: &str) -> String {
    renamed(ours, |pair| pair)
}

/// Our name of a tensor of theirs.
pub fn ours(theirs: &str) -> String {
    renamed(theirs, |(ours, theirs)| (theirs, ours))
}

fn renamed<'a>(name: &str, order: impl Fn((&'a str, &'a str)) -> (&'a str, &'a str)) -> String {
    for (from, to) in IN_PROJECTION.map(order) {
        if let Some(front) = name.strip_suffix(from) {
            return [front, to].concat();
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_projections_have_another_name_there_and_the_rest_the_same() {
        let pairs = [
            (
                "encoder.transformer.3.attn.in_proj.weight",
                "encoder.transformer.3.attn.in_proj_weight",
            ),
            ("decoder.transformer.0.attn.in_proj.bias", "decoder.transformer.0.attn.in_proj_bias"),
            (
                "decoder.transformer.0.attn.out_proj.bias",
                "decoder.transformer.0.attn.out_proj.bias",
            ),
            ("latent_tokens", "latent_tokens"),
        ];
        for (here, there) in pairs {
            assert_eq!((theirs(here).as_str(), ours(there).as_str()), (there, here));
        }
    }
}
