//! What the Cosmos tokenizer calls our tensors (`CausalDiscreteVideoTokenizer`, of type `FACTORIZED`).
//!
//! Only names: files are read and written elsewhere, and shapes are the same. Cosmos also declares
//! the convolutions of layers that halve or double nothing along an axis, and never uses them: they
//! have no name here. Axial attention has none there.

/// Their name of a tensor of ours; none where it is not one of this network's.
pub fn theirs(ours: &str) -> Option<String> {
    renamed(ours, places())
}

/// Our name of a tensor of theirs; none where it is not one of this network's.
pub fn ours(theirs: &str) -> Option<String> {
    renamed(theirs, places().map(|(ours, theirs)| (theirs, ours)))
}

/// What stands at a place.
#[derive(Debug, Clone, Copy)]
enum Part {
    Norm,
    Point,
    /// A convolution in two.
    Factorized,
    Residual,
    Attention,
    Down,
    Up,
}

/// Places by our name and theirs. `*` is `encoder` or `decoder`, `#` a number.
#[rustfmt::skip]
const PLACES: [(Part, &str, &str); 14] = [
    (Part::Point, "encoder.quant_conv", "quant_conv"),
    (Part::Point, "decoder.post_quant_conv", "post_quant_conv"),
    (Part::Factorized, "*.conv_in", "*.conv_in"),
    (Part::Factorized, "*.conv_out", "*.conv_out"),
    (Part::Norm, "*.norm_out", "*.norm_out"),
    (Part::Residual, "*.mid.block_1", "*.mid.block_1"),
    (Part::Attention, "*.mid.attn_1", "*.mid.attn_1"),
    (Part::Residual, "*.mid.block_2", "*.mid.block_2"),
    (Part::Residual, "encoder.down.#.block.#", "encoder.down.#.block.#"),
    (Part::Attention, "encoder.down.#.attn.#", "encoder.down.#.attn.#"),
    (Part::Down, "encoder.down.#.downsample", "encoder.down.#.downsample"),
    (Part::Residual, "decoder.up.#.block.#", "decoder.up.#.block.#"),
    (Part::Attention, "decoder.up.#.attn.#", "decoder.up.#.attn.#"),
    (Part::Up, "decoder.up.#.upsample", "decoder.up.#.upsample"),
];

impl Part {
    /// Its layers by our name and theirs.
    fn layers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Norm => &[("", ".norm")],
            Self::Point => &[("", ".conv3d")],
            Self::Factorized => &[(".space", ".0.conv3d"), (".time", ".1.conv3d")],
            Self::Residual => &[
                (".norm1", ".norm1.norm"),
                (".conv1.space", ".conv1.0.conv3d"),
                (".conv1.time", ".conv1.1.conv3d"),
                (".norm2", ".norm2.norm"),
                (".conv2.space", ".conv2.0.conv3d"),
                (".conv2.time", ".conv2.1.conv3d"),
                (".nin_shortcut", ".nin_shortcut.conv3d"),
            ],
            Self::Attention => &[
                (".space.norm", ".0.norm.norm"),
                (".space.q", ".0.q.conv3d"),
                (".space.k", ".0.k.conv3d"),
                (".space.v", ".0.v.conv3d"),
                (".space.proj_out", ".0.proj_out.conv3d"),
                (".time.norm", ".1.norm.norm"),
                (".time.q", ".1.q.conv3d"),
                (".time.k", ".1.k.conv3d"),
                (".time.v", ".1.v.conv3d"),
                (".time.proj_out", ".1.proj_out.conv3d"),
            ],
            Self::Down => &[
                (".space", ".conv1.conv3d"),
                (".time", ".conv2.conv3d"),
                (".out", ".conv3.conv3d"),
            ],
            Self::Up => &[
                (".time", ".conv1.conv3d"),
                (".space", ".conv2.conv3d"),
                (".out", ".conv3.conv3d"),
            ],
        }
    }
}

/// Every layer of the network by our name and theirs.
fn places() -> impl Iterator<Item = (String, String)> {
    PLACES.into_iter().flat_map(|(part, ours, theirs)| {
        let layers = part.layers().iter();
        layers.map(move |(our, their)| ([ours, our].concat(), [theirs, their].concat()))
    })
}

/// A tensor's name with its place changed by the first pair that has it.
fn renamed(name: &str, mut places: impl Iterator<Item = (String, String)>) -> Option<String> {
    let (place, tensor) = name.rsplit_once('.')?;
    let place = places.find_map(|(from, to)| moved(place, &from, &to))?;
    Some(format!("{place}.{tensor}"))
}

/// The place `to` with the words that `place` has at `from`; none where it is not there.
fn moved(place: &str, from: &str, to: &str) -> Option<String> {
    let (words, patterns) = (place.split('.'), from.split('.'));
    if words.clone().count() != patterns.clone().count() {
        return None;
    }
    let mut taken = Vec::new();
    for (word, pattern) in words.zip(patterns) {
        match pattern {
            "*" if word == "encoder" || word == "decoder" => taken.push(word),
            "#" if word.parse::<usize>().is_ok() => taken.push(word),
            _ if word == pattern => {}
            _ => return None,
        }
    }
    let mut taken = taken.into_iter();
    let word = |pattern| if matches!(pattern, "*" | "#") { taken.next() } else { Some(pattern) };
    let words: Option<Vec<&str>> = to.split('.').map(word).collect();
    words.map(|words| words.join("."))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::backbone::{BackboneConfig, Conv3dConfig, Ends};
    use crate::parameters::{Declarations, Kinds};
    use crate::signal::Signal;
    use tch::{Device, Kind};

    #[test]
    fn every_tensor_has_one_name_there_which_leads_back() {
        let config = Conv3dConfig {
            channels: 4,
            multipliers: vec![1, 2, 2],
            patch: 2,
            attention_resolutions: vec![8, 2],
            ..Conv3dConfig::default()
        };
        let signal = Signal::Video { channels: 3, frames: 5, height: 16, width: 16 };
        let mut to = Declarations::default();
        let ends = Ends { signal, outputs: 3, dims: &[4] };
        let _ = BackboneConfig::Conv3d(config).build(&ends, &mut to);
        let parameters = to.allocate(0, Kinds::same(Kind::Float), Device::Cpu);
        let names: Vec<&str> = parameters.named_views().map(|(name, _)| name).collect();
        let there: BTreeSet<String> =
            names.iter().map(|name| theirs(name).expect("one of the network's")).collect();
        assert_eq!(there.len(), names.len());
        for name in names {
            assert_eq!(ours(&theirs(name).expect("as above")).as_deref(), Some(name));
        }
    }

    #[test]
    fn layers_are_found_by_hand() {
        for (our, their) in [
            ("encoder.quant_conv.bias", "quant_conv.conv3d.bias"),
            (
                "encoder.down.0.downsample.time.weight",
                "encoder.down.0.downsample.conv2.conv3d.weight",
            ),
            ("decoder.up.1.upsample.time.weight", "decoder.up.1.upsample.conv1.conv3d.weight"),
            ("decoder.mid.attn_1.time.norm.weight", "decoder.mid.attn_1.1.norm.norm.weight"),
            ("decoder.conv_out.time.bias", "decoder.conv_out.1.conv3d.bias"),
        ] {
            assert_eq!(theirs(our).as_deref(), Some(their));
            assert_eq!(ours(their).as_deref(), Some(our));
        }
        for strange in ["encoder.mid.attn_1.width.in_proj.weight", "quantizer.indices", "a"] {
            assert_eq!((theirs(strange), ours(strange)), (None, None), "{strange}");
        }
    }
}
