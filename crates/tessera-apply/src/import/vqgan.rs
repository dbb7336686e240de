//! VQGAN's network as diffusers, taming-transformers and LlamaGen store it. What there is to know of it is in the shapes of
//! its tensors, but for the groups of norms, and for the size of pictures, which it does not hang on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use tch::Tensor;
use tessera_data::SampleShape;
use tessera_nn::backbone::unet2d::names::Source as From;

use super::{Described, Given, ImportOptions};

/// Groups of channels of norms in taming-transformers and LlamaGen.
const GROUPS: i64 = 32;
/// Sides of pictures where nobody says them.
const USUAL_SIDE: u32 = 256;
/// The codebook, in all three.
const CODES: &str = "quantize.embedding.weight";
/// Tensors that no forward pass reads: losses, and what a training counts.
const LEFT: [&str; 4] = [
    "loss.",
    "quantize.codebook_used",
    "quantize.embedding.cluster_size",
    "quantize.embedding.embed_avg",
];

pub(super) fn diffusers(given: &Given, options: &ImportOptions) -> Result<Described, String> {
    given.wants("act_fn", &[json!("silu"), json!("swish")])?;
    given.wants("norm_type", &[json!("group")])?;
    let groups = given.number("norm_num_groups", GROUPS)?;
    let side = given.number("sample_size", i64::from(USUAL_SIDE))?;
    let side = u32::try_from(side).map_err(|_| format!("sample_size is {side}"))?;
    let (distance, of) = ("euclidean", "diffusers' VQModel");
    described(given, From::Diffusers, &Known { groups, side, distance, of }, options)
}

pub(super) fn taming(given: &Given, options: &ImportOptions) -> Result<Described, String> {
    let (groups, side, distance) = (GROUPS, USUAL_SIDE, "euclidean");
    let of = "taming-transformers' VQModel";
    described(given, From::Taming, &Known { groups, side, distance, of }, options)
}

pub(super) fn llama_gen(given: &Given, options: &ImportOptions) -> Result<Described, String> {
    let is_on_sphere = match given.config.as_ref().map(|config| &config["codebook_l2_norm"]) {
        None | Some(serde_json::Value::Null) => true,
        Some(value) => value.as_bool().ok_or(format!("codebook_l2_norm is {value}"))?,
    };
    let distance = if is_on_sphere { "cosine" } else { "euclidean" };
    let groups = given.number("norm_num_groups", GROUPS)?;
    let (side, of) = (USUAL_SIDE, "LlamaGen's VQModel");
    described(given, From::LlamaGen, &Known { groups, side, distance, of }, options)
}

/// What shapes do not tell.
struct Known {
    groups: i64,
    side: u32,
    distance: &'static str,
    of: &'static str,
}

fn described(
    given: &Given,
    from: From,
    known: &Known,
    options: &ImportOptions,
) -> Result<Described, String> {
    let Some(codes_kd) = given.tensors.get(CODES) else {
        return Err(format!("it has no {CODES}: its quantiser is not that of VQGAN"));
    };
    let num_levels = num_levels(given, from);
    let mut tensors = BTreeMap::new();
    for (theirs, tensor) in &given.tensors {
        if theirs == CODES || LEFT.iter().any(|start| theirs.starts_with(start)) {
            continue;
        }
        let ours = from.ours(theirs, num_levels);
        let ours =
            ours.ok_or_else(|| format!("its tensor {theirs} has no place in this network"))?;
        tensors.insert(ours, tensor.shallow_clone());
    }
    // diffusers has the weights of attention as matrices.
    let is_attention = |name: &str| name.split('.').any(|word| word == "attn" || word == "attn_1");
    for (name, tensor) in &mut tensors {
        if tensor.dim() == 2 && is_attention(name) {
            *tensor = tensor.unsqueeze(-1).unsqueeze(-1);
        }
    }
    let sizes = codes_kd.size();
    let [num_codes, code_dim] =
        <[i64; 2]>::try_from(sizes).map_err(|_| format!("{CODES} is no table"))?;
    let network = Network::of(&tensors, num_levels)?;
    let (height, width) = options.size.unwrap_or((known.side, known.side));
    let sides = network.attends.iter().map(|level| i64::from(height.min(width)) >> level);
    let table = json!({
        "pixels": "signed",
        "backbone": {
            "kind": "unet2d",
            "channels": network.channels,
            "multipliers": network.multipliers,
            "residual_blocks": network.residual_blocks,
            "attention_resolutions": sides.collect::<Vec<_>>(),
            "groups": known.groups,
            "latent_channels": network.latent_channels,
            "middle_attention": network.has_middle_attention,
        },
        "quantizer": {
            "kind": "vector",
            "num_codes": num_codes,
            "code_dim": code_dim,
            "codebook": "gradient",
            "distance": known.distance,
        },
    });
    tensors.insert("quantizer.codebook".to_owned(), codes_kd.shallow_clone());
    let counts = Tensor::ones([num_codes], tch::kind::FLOAT_CPU);
    tensors.insert("quantizer.ema_counts".to_owned(), counts);
    let shape = SampleShape::image(network.colors, height, width);
    Ok(Described { of: known.of, table, shape, range: [0.0, 1.0], tensors })
}

fn num_levels(given: &Given, from: From) -> usize {
    let start = match from {
        From::Taming => "encoder.down.",
        From::LlamaGen => "encoder.conv_blocks.",
        From::Diffusers => "encoder.down_blocks.",
    };
    let number = |name: &String| name.strip_prefix(start)?.split('.').next()?.parse::<usize>().ok();
    given.tensors.keys().filter_map(number).collect::<BTreeSet<_>>().len()
}

/// What the shapes of tensors, by our names, tell.
struct Network {
    colors: u32,
    channels: i64,
    multipliers: Vec<i64>,
    residual_blocks: usize,
    /// Levels with attention.
    attends: Vec<usize>,
    has_middle_attention: bool,
    latent_channels: i64,
}

impl Network {
    fn of(tensors: &BTreeMap<String, Tensor>, num_levels: usize) -> Result<Self, String> {
        let size = |name: &str, axis: usize| -> Result<i64, String> {
            let tensor = tensors
                .get(name)
                .ok_or_else(|| format!("it has no {name}, as it is called here"))?;
            tensor.size().get(axis).copied().ok_or_else(|| format!("{name} is no convolution"))
        };
        let has = |start: &str| tensors.keys().any(|name| name.starts_with(start));
        let channels = size("encoder.conv_in.weight", 0)?;
        let mut multipliers = Vec::new();
        for level in 0..num_levels {
            let width = size(&format!("encoder.down.{level}.block.0.conv1.weight"), 0)?;
            if width % channels != 0 {
                return Err(format!(
                    "level {level} has {width} channels, no multiple of the first one's {channels}"
                ));
            }
            multipliers.push(width / channels);
        }
        let mut blocks = 0..;
        let residual_blocks = blocks
            .find(|block| !has(&format!("encoder.down.0.block.{block}.")))
            .expect("blocks come to an end");
        let attends = (0..num_levels).filter(|level| has(&format!("encoder.down.{level}.attn.")));
        Ok(Self {
            colors: u32::try_from(size("encoder.conv_in.weight", 1)?).unwrap_or(0),
            channels,
            multipliers,
            residual_blocks,
            attends: attends.collect(),
            has_middle_attention: has("encoder.mid.attn_1."),
            latent_channels: size("encoder.conv_out.weight", 0)?,
        })
    }
}
