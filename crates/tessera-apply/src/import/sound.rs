//! transformers' `EncodecModel` and `DacModel`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tch::Tensor;
use tessera_data::SampleShape;
use tessera_nn::backbone::Conv1dConfig;
use tessera_nn::backbone::conv1d::names::Source as From;

use super::{Described, Given, ImportOptions};

pub(super) fn encodec(given: &Given, options: &ImportOptions) -> Result<Described, String> {
    given.wants("norm_type", &[json!("weight_norm")])?;
    given.wants("normalize", &[json!(false)])?;
    given.wants("chunk_length_s", &[])?;
    let has_shortcut =
        given.config.as_ref().is_none_or(|config| config["use_conv_shortcut"] != false);
    let is_causal = given.config.as_ref().is_none_or(|config| config["use_causal_conv"] != false);
    let word = |key: &str| given.config.as_ref().and_then(|config| config[key].as_str());
    let padding = match word("pad_mode").unwrap_or("reflect") {
        "reflect" => "reflect",
        "constant" => "zeros",
        "replicate" => "replicate",
        other => return Err(format!("pad_mode is {other}")),
    };
    let kernel = given.number("last_kernel_size", 7)?;
    let backbone = json!({
        "kind": "conv1d",
        "channels": given.number("num_filters", 32)?,
        "ratios": given.numbers("upsampling_ratios")?,
        "residual_layers": given.number("num_residual_layers", 1)?,
        "dilation_base": given.number("dilation_growth_rate", 2)?,
        "compress": given.number("compress", 2)?,
        "first_kernel": given.number("kernel_size", 7)?,
        "residual_kernel": given.number("residual_kernel_size", 3)?,
        "latent_kernel": kernel,
        "output_kernel": kernel,
        "causal": is_causal,
        "padding": padding,
        "trim_right_ratio": match is_causal {
            true => given.config.as_ref().and_then(|config| config["trim_right_ratio"].as_f64()).unwrap_or(1.0),
            false => 1.0,
        },
        "shortcut": if has_shortcut { "conv" } else { "identity" },
        "activation": "elu",
        "weight_norm": true,
        "lstm_layers": given.number("num_lstm_layers", 2)?,
        "output_activation": "none",
    });
    let (mut networks, mut codebooks) = (BTreeMap::new(), BTreeMap::new());
    for (name, tensor) in &given.tensors {
        match name.strip_prefix("quantizer.layers.") {
            Some(rest) => drop(codebooks.insert(rest.to_owned(), tensor)),
            // As files of older versions have it.
            None => drop(
                networks.insert(
                    name.replace(".weight_g", ".parametrizations.weight.original0")
                        .replace(".weight_v", ".parametrizations.weight.original1"),
                    tensor,
                ),
            ),
        }
    }
    let mut tensors = named(&networks, From::TransformersEncodec, &backbone)?;
    let num_levels = codebooks.keys().filter(|name| name.ends_with(".codebook.embed")).count();
    let first = given.tensor("quantizer.layers.0.codebook.embed")?.size();
    for (rest, tensor) in codebooks {
        let (level, end) = rest.split_once(".codebook.").ok_or_else(|| no_place(&rest))?;
        let ours = match end {
            "embed" => "codebook",
            "embed_avg" => "ema_sums",
            "cluster_size" => "ema_counts",
            "inited" => continue,
            _ => return Err(no_place(&rest)),
        };
        tensors.insert(format!("quantizer.layers.{level}.{ours}"), tensor.shallow_clone());
    }
    let quantizer = json!({ "kind": "vector", "num_codes": first[0], "code_dim": first[1] });
    let channels = given.number("audio_channels", 1)?;
    finish(
        given,
        options,
        "transformers' EncodecModel",
        Parts { backbone, quantizer, num_levels, channels, tensors },
    )
}

pub(super) fn dac(given: &Given, options: &ImportOptions) -> Result<Described, String> {
    let mut ratios = given.numbers("downsampling_ratios")?;
    ratios.reverse();
    let backbone = json!({
        "kind": "conv1d",
        "channels": given.number("encoder_hidden_size", 64)?,
        "decoder_channels": given.number("decoder_hidden_size", 1536)? >> ratios.len(),
        "ratios": ratios,
        "residual_layers": 3,
        "dilation_base": 3,
        "compress": 1,
        "first_kernel": 7,
        "residual_kernel": 7,
        "latent_kernel": 3,
        "output_kernel": 7,
        "causal": false,
        "padding": "zeros",
        "shortcut": "identity",
        "activation": "snake",
        "weight_norm": false,
        "lstm_layers": 0,
        "output_activation": "tanh",
    });
    if let Some(odd) = ratios.iter().find(|ratio| *ratio % 2 != 0) {
        return Err(format!(
            "one of its downsampling_ratios is odd, {odd}: DacModel loses samples there, and this network does not"
        ));
    }
    let (mut networks, mut codebooks) = (BTreeMap::new(), BTreeMap::new());
    for (name, tensor) in &given.tensors {
        match name.strip_prefix("quantizer.quantizers.") {
            Some(rest) => drop(codebooks.insert(rest.to_owned(), tensor)),
            None => drop(networks.insert(name.clone(), tensor)),
        }
    }
    let mut tensors = named(&networks, From::TransformersDac, &backbone)?;
    let num_levels = codebooks.keys().filter(|name| name.ends_with(".codebook.weight")).count();
    let first = given.tensor("quantizer.quantizers.0.codebook.weight")?.size();
    let latent_dim = given.tensor("quantizer.quantizers.0.in_proj.weight")?.size()[1];
    for (rest, tensor) in codebooks {
        let (level, end) = rest.split_once('.').ok_or_else(|| no_place(&rest))?;
        let (ours, tensor) = match end {
            "codebook.weight" => ("codebook", tensor.shallow_clone()),
            "in_proj.weight" => ("project_in.weight", tensor.squeeze_dim(-1)),
            "in_proj.bias" => ("project_in.bias", tensor.shallow_clone()),
            "out_proj.weight" => ("project_out.weight", tensor.squeeze_dim(-1)),
            "out_proj.bias" => ("project_out.bias", tensor.shallow_clone()),
            _ => return Err(no_place(&rest)),
        };
        tensors.insert(format!("quantizer.layers.{level}.{ours}"), tensor);
        let counts = Tensor::ones([first[0]], tch::kind::FLOAT_CPU);
        tensors.insert(format!("quantizer.layers.{level}.ema_counts"), counts);
    }
    let quantizer = json!({
        "kind": "vector",
        "num_codes": first[0],
        "code_dim": first[1],
        "latent_dim": latent_dim,
        "codebook": "gradient",
        "distance": "cosine_search",
    });
    finish(
        given,
        options,
        "transformers' DacModel",
        Parts { backbone, quantizer, num_levels, channels: 1, tensors },
    )
}

/// What both have.
struct Parts {
    backbone: Value,
    /// That of each level.
    quantizer: Value,
    num_levels: usize,
    channels: i64,
    tensors: BTreeMap<String, Tensor>,
}

fn finish(
    given: &Given,
    options: &ImportOptions,
    of: &'static str,
    parts: Parts,
) -> Result<Described, String> {
    let Parts { backbone, quantizer, num_levels, channels, tensors } = parts;
    let number = |value: i64| u32::try_from(value).map_err(|_| format!("{value} is out of range"));
    let rate = number(given.number("sampling_rate", 0)?)?;
    if rate == 0 {
        return Err("config.json has no sampling_rate".to_owned());
    }
    let hop: i64 = given
        .numbers(match of.ends_with("DacModel") {
            true => "downsampling_ratios",
            false => "upsampling_ratios",
        })?
        .into_iter()
        .product();
    let hop = number(hop)?.max(1);
    // A second, in whole codes.
    let length = options.length.unwrap_or(rate.div_ceil(hop) * hop);
    let shape = SampleShape::audio(number(channels)?, length, rate);
    let table = json!({
        "backbone": backbone,
        "quantizer": { "kind": "residual", "num_quantizers": num_levels, "quantizer": quantizer },
    });
    Ok(Described { of, table, shape, range: [-1.0, 1.0], tensors })
}

/// Tensors of encoder and decoder by our names.
fn named(
    networks: &BTreeMap<String, &Tensor>,
    from: From,
    backbone: &Value,
) -> Result<BTreeMap<String, Tensor>, String> {
    let mut plain = backbone.clone();
    if let Some(table) = plain.as_object_mut() {
        table.remove("kind");
    }
    let config: Conv1dConfig = serde_json::from_value(plain)
        .map_err(|error| format!("its network is none that is known: {error}"))?;
    let ours = |(theirs, tensor): (&String, &&Tensor)| {
        let ours = from.ours(theirs, &config).ok_or_else(|| no_place(theirs))?;
        Ok((ours, tensor.shallow_clone()))
    };
    networks.iter().map(ours).collect()
}

fn no_place(name: &str) -> String {
    format!("its tensor {name} has no place in this network")
}
