//! What the sources of VQGAN's network call our tensors.
//!
//! Only names and shapes: files are read and written elsewhere. The tensors of
//! taming-transformers lie under `state_dict` in its files, those of LlamaGen under `model` or
//! `ema`. The codes, `quantize.embedding.weight` in all three, are the quantiser's.

/// A source of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// taming-transformers, and latent diffusion, which took it over. Its names are ours, but that `quant_conv` and
    /// `post_quant_conv` stand beside encoder and decoder there.
    Taming,
    /// LlamaGen's `tokenizer_image`.
    LlamaGen,
    /// diffusers' `VQModel`, whose first multiplier is 1 always.
    Diffusers,
}

impl Source {
    /// Their name of a tensor of ours, in a network of `num_levels`; none where it is not one of
    /// this network's.
    pub fn theirs(self, ours: &str, num_levels: usize) -> Option<String> {
        renamed(ours, num_levels, &self.places())
    }

    /// Our name of a tensor of theirs, in a network of `num_levels`; none where it is not one of
    /// this network's.
    pub fn ours(self, theirs: &str, num_levels: usize) -> Option<String> {
        let turned = |(ours, theirs)| (theirs, ours);
        let places: Vec<(String, String)> = self.places().into_iter().map(turned).collect();
        renamed(theirs, num_levels, &places)
    }

    /// Their shape of a tensor of ours, by our name. diffusers has the weights of attention as
    /// matrices `[C, C]` where we have convolutions, `[C, C, 1, 1]`; the numbers lie in one order.
    pub fn shape(self, ours: &str, shape: &[i64]) -> Vec<i64> {
        let is_attention = ours.split('.').any(|word| word == "attn" || word == "attn_1");
        match shape {
            [outputs, inputs, 1, 1] if self == Self::Diffusers && is_attention => {
                vec![*outputs, *inputs]
            }
            _ => shape.to_vec(),
        }
    }

    /// Every place of the network by our name and theirs.
    fn places(self) -> Vec<(String, String)> {
        let mut places = Vec::new();
        for (part, ours, llama_gen, diffusers) in PLACES {
            let within: &[(&str, &str)] = match part {
                Part::Layer => &[("", "")],
                Part::Residual => &RESIDUAL,
                Part::Attention => &ATTENTION,
            };
            for &(our_layer, diffusers_layer) in within {
                let theirs = match self {
                    Self::Taming if ours.ends_with("quant_conv") => [llama_gen, our_layer],
                    Self::Taming => [ours, our_layer],
                    Self::LlamaGen => [llama_gen, our_layer],
                    Self::Diffusers => [diffusers, diffusers_layer],
                };
                places.push(([ours, our_layer].concat(), theirs.concat()));
            }
        }
        places
    }
}

/// What stands at a place.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// A convolution or a norm.
    Layer,
    Residual,
    Attention,
}

/// Places by our name, LlamaGen's and diffusers'. `*` is `encoder` or `decoder`, `#` a number, and
/// `~` a number of a level that the others count from the other end.
#[rustfmt::skip]
const PLACES: [(Part, &str, &str, &str); 14] = [
    (Part::Layer, "encoder.quant_conv", "quant_conv", "quant_conv"),
    (Part::Layer, "decoder.post_quant_conv", "post_quant_conv", "post_quant_conv"),
    (Part::Layer, "*.conv_in", "*.conv_in", "*.conv_in"),
    (Part::Layer, "*.conv_out", "*.conv_out", "*.conv_out"),
    (Part::Layer, "*.norm_out", "*.norm_out", "*.conv_norm_out"),
    (Part::Residual, "*.mid.block_1", "*.mid.0", "*.mid_block.resnets.0"),
    (Part::Attention, "*.mid.attn_1", "*.mid.1", "*.mid_block.attentions.0"),
    (Part::Residual, "*.mid.block_2", "*.mid.2", "*.mid_block.resnets.1"),
    (Part::Residual, "encoder.down.#.block.#", "encoder.conv_blocks.#.res.#", "encoder.down_blocks.#.resnets.#"),
    (Part::Attention, "encoder.down.#.attn.#", "encoder.conv_blocks.#.attn.#", "encoder.down_blocks.#.attentions.#"),
    (Part::Layer, "encoder.down.#.downsample.conv", "encoder.conv_blocks.#.downsample.conv", "encoder.down_blocks.#.downsamplers.0.conv"),
    (Part::Residual, "decoder.up.~.block.#", "decoder.conv_blocks.#.res.#", "decoder.up_blocks.#.resnets.#"),
    (Part::Attention, "decoder.up.~.attn.#", "decoder.conv_blocks.#.attn.#", "decoder.up_blocks.#.attentions.#"),
    (Part::Layer, "decoder.up.~.upsample.conv", "decoder.conv_blocks.#.upsample.conv", "decoder.up_blocks.#.upsamplers.0.conv"),
];

/// Layers of a residual block by our name, which is LlamaGen's too, and diffusers'.
const RESIDUAL: [(&str, &str); 5] = [
    (".norm1", ".norm1"),
    (".conv1", ".conv1"),
    (".norm2", ".norm2"),
    (".conv2", ".conv2"),
    (".nin_shortcut", ".conv_shortcut"),
];

/// Layers of an attention, likewise.
const ATTENTION: [(&str, &str); 5] = [
    (".norm", ".group_norm"),
    (".q", ".to_q"),
    (".k", ".to_k"),
    (".v", ".to_v"),
    (".proj_out", ".to_out.0"),
];

/// A tensor's name with its place changed by the first pair that has it.
fn renamed(name: &str, num_levels: usize, places: &[(String, String)]) -> Option<String> {
    let (place, tensor) = name.rsplit_once('.')?;
    let mut moved = places.iter().filter_map(|(from, to)| moved(place, from, to, num_levels));
    moved.next().map(|place| format!("{place}.{tensor}"))
}

/// The place `to` with the words that `place` has at `from`; none where it is not there.
fn moved(place: &str, from: &str, to: &str, num_levels: usize) -> Option<String> {
    let from_other_end = |level: &str| {
        let level = num_levels.checked_sub(level.parse::<usize>().ok()? + 1)?;
        Some(level.to_string())
    };
    let (words, patterns) = (place.split('.'), from.split('.'));
    if words.clone().count() != patterns.clone().count() {
        return None;
    }
    let mut taken = Vec::new();
    for (word, pattern) in words.zip(patterns) {
        match pattern {
            "*" if word == "encoder" || word == "decoder" => taken.push(word.to_owned()),
            "#" if word.parse::<usize>().is_ok() => taken.push(word.to_owned()),
            "~" => taken.push(from_other_end(word)?),
            _ if word == pattern => {}
            _ => return None,
        }
    }
    let mut taken = taken.into_iter();
    let mut words = Vec::new();
    for pattern in to.split('.') {
        words.push(match pattern {
            "*" | "#" => taken.next()?,
            "~" => from_other_end(&taken.next()?)?,
            word => word.to_owned(),
        });
    }
    Some(words.join("."))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::backbone::{BackboneConfig, Ends, UNet2dConfig};
    use crate::parameters::{Declarations, Kinds};
    use crate::signal::Signal;
    use tch::{Device, Kind};

    fn names(config: UNet2dConfig) -> Vec<String> {
        let signal = Signal::Image { channels: 3, height: 16, width: 24 };
        let ends = Ends { signal, outputs: 3, dims: &[4] };
        let mut to = Declarations::default();
        let _ = BackboneConfig::Unet2d(config).build(&ends, &mut to);
        let parameters = to.allocate(0, Kinds::same(Kind::Float), Device::Cpu);
        parameters.named_views().map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn every_tensor_has_one_name_there_which_leads_back() {
        let small = UNet2dConfig { channels: 8, latent_channels: 4, ..UNet2dConfig::default() };
        let deep = UNet2dConfig {
            multipliers: vec![1, 1, 2, 4],
            residual_blocks: 2,
            attention_resolutions: vec![2, 8],
            ..small.clone()
        };
        let bare = UNet2dConfig { middle_attention: false, ..small };
        for config in [deep, bare] {
            let num_levels = config.multipliers.len();
            let ours = names(config);
            for source in [Source::Taming, Source::LlamaGen, Source::Diffusers] {
                let theirs: BTreeSet<String> = ours
                    .iter()
                    .map(|name| source.theirs(name, num_levels).expect("one of the network's"))
                    .collect();
                assert_eq!(theirs.len(), ours.len(), "{source:?}");
                for name in &ours {
                    let there = source.theirs(name, num_levels).expect("as above");
                    assert_eq!(source.ours(&there, num_levels).as_ref(), Some(name), "{source:?}");
                }
            }
            for name in &ours {
                let there = Source::Taming.theirs(name, num_levels).expect("as above");
                let is_beside = name.contains("quant_conv");
                assert_eq!(is_beside, there != *name, "{name}");
            }
        }
    }

    /// By hand, of three levels: the decoder's level 2 is the first one there.
    #[test]
    fn levels_of_the_decoder_are_counted_from_the_other_end() {
        for (source, ours, theirs) in [
            (
                Source::LlamaGen,
                "decoder.up.2.attn.1.proj_out.weight",
                "decoder.conv_blocks.0.attn.1.proj_out.weight",
            ),
            (
                Source::Diffusers,
                "decoder.up.0.block.1.nin_shortcut.bias",
                "decoder.up_blocks.2.resnets.1.conv_shortcut.bias",
            ),
            (
                Source::Diffusers,
                "encoder.down.1.attn.0.proj_out.weight",
                "encoder.down_blocks.1.attentions.0.to_out.0.weight",
            ),
        ] {
            assert_eq!(source.theirs(ours, 3).as_deref(), Some(theirs));
            assert_eq!(source.ours(theirs, 3).as_deref(), Some(ours));
        }
        for strange in ["decoder.up.3.block.0.norm1.weight", "quantize.embedding.weight", "a"] {
            assert_eq!(Source::Diffusers.theirs(strange, 3), None, "{strange}");
        }
    }

    #[test]
    fn weights_of_attention_are_matrices_in_diffusers_alone() {
        let attention = "encoder.mid.attn_1.q.weight";
        assert_eq!(Source::Diffusers.shape(attention, &[8, 8, 1, 1]), [8, 8]);
        assert_eq!(Source::LlamaGen.shape(attention, &[8, 8, 1, 1]), [8, 8, 1, 1]);
        let shortcut = "decoder.up.0.block.0.nin_shortcut.weight";
        assert_eq!(Source::Diffusers.shape(shortcut, &[8, 4, 1, 1]), [8, 4, 1, 1]);
        assert_eq!(Source::Diffusers.shape("encoder.mid.attn_1.q.bias", &[8]), [8]);
    }
}
