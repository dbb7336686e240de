//! The network for sound as transformers' `EncodecModel` or `DacModel`.
//!
//! EnCodec's has ELU, weight norm, an LSTM and codes of all channels of its latents; the Descript codec's has Snakes, three
//! residual blocks of dilations 1, 3 and 9, and codes of few channels behind layers of their own. What a network lacks of
//! one of them is made up where that changes nothing: an LSTM of zeros, whose input is added to its output, and plain
//! weights as a direction and its length.

use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tessera_data::Modality;
use tessera_nn::BackboneConfig;
use tessera_nn::backbone::conv1d::names::Source as To;
use tessera_nn::backbone::conv1d::{Conv1dConfig, Nonlinearity, OutputActivation, Shortcut};
use tessera_nn::graph::Rule;
use tessera_nn::layers::Fill;

use super::weights::{Named, to_bytes};
use super::{Source, Written};

/// A folder for `AutoModel.from_pretrained`.
pub(super) fn transformers(source: &Source<'_>) -> Result<Vec<Written>, String> {
    source.check_modality(Modality::Audio, "sound")?;
    let BackboneConfig::Conv1d(backbone) = &source.config.backbone else {
        return Err("its backbone is not conv1d, which is the network there".to_owned());
    };
    if backbone.attention_layers > 0 {
        return Err(
            "it has transformer layers in the middle (model.backbone.attention_layers)".to_owned()
        );
    }
    let model = &source.model.vqvae;
    let rule = model.quantizers[0].rule(&model.parameters)?;
    match backbone.activation {
        Nonlinearity::Elu => encodec(source, backbone, &rule),
        Nonlinearity::Snake => dac(source, backbone, &rule),
    }
}

fn encodec(
    source: &Source<'_>,
    backbone: &Conv1dConfig,
    rule: &Rule,
) -> Result<Vec<Written>, String> {
    let model = "EncodecModel";
    let decoder_channels = decoder_channels(backbone);
    wants(model, "decoder_channels", decoder_channels, backbone.channels)?;
    wants(model, "output_kernel", backbone.output_kernel, backbone.latent_kernel)?;
    if backbone.output_activation != OutputActivation::None {
        return Err(format!("{model} has no tanh behind it (model.backbone.output_activation)"));
    }
    let codebooks = codebooks(rule).ok_or_else(|| {
        format!("{model} has codebooks in a row, compared by distance, without layers around them")
    })?;
    let num_codes = one_power_of_two(model, &codebooks)?;
    let mut named = Named::new();
    for (ours, tensor) in source.networks() {
        let theirs = To::TransformersEncodec.theirs(&ours, backbone);
        let theirs = theirs.expect("it is a tensor of this network");
        match theirs.strip_suffix(".weight") {
            Some(layer) if !backbone.weight_norm => {
                let [length, direction] = normed(&tensor, &ours)?;
                let end = |end| format!("{layer}.parametrizations.weight.{end}");
                named.insert(end("original0"), length);
                named.insert(end("original1"), direction);
            }
            _ => drop(named.insert(theirs, tensor)),
        }
    }
    let num_lstm_layers = backbone.lstm_layers.max(1);
    if backbone.lstm_layers == 0 {
        // The numbers of layers are those of a network that has it.
        named = with_idle_lstm(source, backbone, named);
    }
    for (level, codes_kd) in codebooks.iter().enumerate() {
        let name = |end: &str| format!("quantizer.layers.{level}.codebook.{end}");
        let ones_k = Tensor::ones([num_codes], tch::kind::FLOAT_CPU);
        named.insert(name("cluster_size"), ones_k);
        named.insert(name("embed"), codes_kd.shallow_clone());
        named.insert(name("embed_avg"), codes_kd.shallow_clone());
        named.insert(name("inited"), Tensor::ones([1], tch::kind::FLOAT_CPU));
    }
    let shape = source.model.file.autoencoder().shape;
    let config = json!({
        "architectures": [model],
        "audio_channels": shape.channels,
        "chunk_length_s": null,
        "codebook_dim": codebooks[0].size()[1],
        "codebook_size": num_codes,
        "compress": backbone.compress,
        "dilation_growth_rate": backbone.dilation_base,
        "hidden_size": codebooks[0].size()[1],
        "kernel_size": backbone.first_kernel,
        "last_kernel_size": backbone.latent_kernel,
        "model_type": "encodec",
        "norm_type": "weight_norm",
        "normalize": false,
        "num_filters": backbone.channels,
        "num_lstm_layers": num_lstm_layers,
        "num_residual_layers": backbone.residual_layers,
        "overlap": null,
        "pad_mode": match backbone.padding {
            Fill::Zeros => "constant",
            Fill::Reflect => "reflect",
            Fill::Replicate => "replicate",
        },
        "residual_kernel_size": backbone.residual_kernel,
        "sampling_rate": shape.sample_rate,
        "target_bandwidths": [bandwidth(shape.sample_rate, backbone, codebooks.len(), num_codes)?],
        "trim_right_ratio": backbone.trim_right_ratio,
        "upsampling_ratios": backbone.ratios,
        "use_causal_conv": backbone.causal,
        "use_conv_shortcut": backbone.shortcut == Shortcut::Conv,
    });
    let extra = json!({ "chunk_length_s": null, "overlap": null });
    Ok(folder(source, "EncodecFeatureExtractor", &config, extra, &named))
}

fn dac(source: &Source<'_>, backbone: &Conv1dConfig, rule: &Rule) -> Result<Vec<Written>, String> {
    let model = "DacModel";
    for (key, found, wanted) in [
        ("residual_layers", backbone.residual_layers, 3),
        ("dilation_base", backbone.dilation_base, 3),
        ("compress", backbone.compress, 1),
        ("first_kernel", backbone.first_kernel, 7),
        ("residual_kernel", backbone.residual_kernel, 7),
        ("latent_kernel", backbone.latent_kernel, 3),
        ("output_kernel", backbone.output_kernel, 7),
        ("lstm_layers", backbone.lstm_layers, 0),
    ] {
        wants(model, key, found, wanted)?;
    }
    let shape = source.model.file.autoencoder().shape;
    wants(model, "shape.channels", i64::from(shape.channels), 1)?;
    if backbone.causal || backbone.padding != Fill::Zeros || backbone.shortcut == Shortcut::Conv {
        return Err(format!(
            "{model} is not causal, pads with zeros, and adds blocks to their inputs"
        ));
    }
    if let Some(odd) = backbone.ratios.iter().find(|ratio| *ratio % 2 != 0) {
        return Err(format!(
            "{model} loses samples at odd ratios, and one of model.backbone.ratios is {odd}"
        ));
    }
    if backbone.output_activation != OutputActivation::Tanh {
        return Err(format!("{model} has a tanh behind it (model.backbone.output_activation)"));
    }
    let hidden = backbone.channels << backbone.ratios.len();
    wants(model, "quantizer.quantizer.latent_dim", source.model.vqvae.quantizers[0].dim(), hidden)?;
    let levels = projected(rule).ok_or_else(|| {
        format!(
            "{model} has codebooks in a row, each behind layers of its own and compared by angle \
             (residual, of vector with latent_dim and cosine_search)"
        )
    })?;
    let codebooks: Vec<Tensor> =
        levels.iter().map(|level| level.codes_kd.shallow_clone()).collect();
    let num_codes = one_power_of_two(model, &codebooks)?;
    let mut named = Named::new();
    for (ours, tensor) in plain_weights(source.networks()) {
        let theirs = To::TransformersDac.theirs(&ours, backbone);
        named.insert(theirs.expect("it is a tensor of this network"), tensor);
    }
    for (number, level) in levels.iter().enumerate() {
        let name = |end: &str| format!("quantizer.quantizers.{number}.{end}");
        for (side, (weight, bias)) in [("in_proj", level.into), ("out_proj", level.out)] {
            named.insert(name(&format!("{side}.weight")), weight.unsqueeze(-1));
            let bias = bias.as_ref().expect("layers around codes have a bias");
            named.insert(name(&format!("{side}.bias")), bias.shallow_clone());
        }
        named.insert(name("codebook.weight"), level.codes_kd.shallow_clone());
    }
    let mut down = backbone.ratios.clone();
    down.reverse();
    let config = json!({
        "architectures": [model],
        "codebook_dim": codebooks[0].size()[1],
        "codebook_size": num_codes,
        "decoder_hidden_size": decoder_channels(backbone) << backbone.ratios.len(),
        "downsampling_ratios": down,
        "encoder_hidden_size": backbone.channels,
        "hidden_size": hidden,
        "hop_length": backbone.hop(),
        "model_type": "dac",
        "n_codebooks": levels.len(),
        "sampling_rate": shape.sample_rate,
        "upsampling_ratios": backbone.ratios,
    });
    let extra = json!({ "hop_length": backbone.hop() });
    Ok(folder(source, "DacFeatureExtractor", &config, extra, &named))
}

/// The files of a folder.
fn folder(
    source: &Source<'_>,
    extractor: &str,
    config: &Value,
    extra: Value,
    named: &Named,
) -> Vec<Written> {
    let shape = source.model.file.autoencoder().shape;
    let mut reads = extra;
    for (key, value) in [
        ("feature_extractor_type", json!(extractor)),
        ("feature_size", json!(shape.channels)),
        ("padding_side", json!("right")),
        ("padding_value", json!(0.0)),
        ("return_attention_mask", json!(true)),
        ("sampling_rate", json!(shape.sample_rate)),
    ] {
        reads[key] = value;
    }
    vec![
        Written::json("config.json", config),
        Written::json("preprocessor_config.json", &reads),
        Written { name: "model.safetensors", bytes: to_bytes(named) },
    ]
}

/// Refuses another value than the one that a model has.
fn wants(model: &str, key: &str, found: i64, wanted: i64) -> Result<(), String> {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{model} has {wanted} for model.backbone.{key}, this model {found}")),
    }
}

fn decoder_channels(backbone: &Conv1dConfig) -> i64 {
    match backbone.decoder_channels {
        0 => backbone.channels,
        channels => channels,
    }
}

/// Kilobits a second at which `EncodecModel` takes all levels: it derives their number from this.
fn bandwidth(rate: u32, backbone: &Conv1dConfig, levels: usize, codes: i64) -> Result<f64, String> {
    let frames = (f64::from(rate) / backbone.hop() as f64).ceil();
    let bits = (codes as f64).log2();
    let derived = |kilobits: f64| (1000.0 * kilobits / (frames * bits)).floor() as usize;
    let kilobits = levels as f64 * frames * bits / 1000.0;
    let near = [kilobits, kilobits.next_up(), kilobits.next_up().next_up()];
    near.into_iter()
        .find(|&kilobits| derived(kilobits) == levels)
        .ok_or_else(|| format!("no rate stands for its {levels} levels"))
}

/// Codebooks in a row that are compared by distance.
fn codebooks(rule: &Rule) -> Option<Vec<Tensor>> {
    match rule {
        Rule::Nearest { codes_kd, is_unit: false, .. } => Some(vec![codes_kd.shallow_clone()]),
        Rule::Residual { levels, clamp_d: None } => {
            let each: Option<Vec<_>> = levels.iter().map(codebooks).collect();
            Some(each?.into_iter().flatten().collect())
        }
        _ => None,
    }
}

/// A codebook behind layers of its own.
struct Level<'a> {
    into: &'a (Tensor, Option<Tensor>),
    out: &'a (Tensor, Option<Tensor>),
    codes_kd: &'a Tensor,
}

/// Such codebooks in a row, compared by angle.
fn projected(rule: &Rule) -> Option<Vec<Level<'_>>> {
    match rule {
        Rule::Projected { into, out, inner } => match &**inner {
            Rule::Nearest { codes_kd, is_unit: true, .. } => {
                Some(vec![Level { into, out, codes_kd }])
            }
            _ => None,
        },
        Rule::Residual { levels, clamp_d: None } => {
            let each: Option<Vec<_>> = levels.iter().map(projected).collect();
            Some(each?.into_iter().flatten().collect())
        }
        _ => None,
    }
}

/// K of all codebooks, which has to be one power of two.
fn one_power_of_two(model: &str, codebooks: &[Tensor]) -> Result<i64, String> {
    let num_codes = codebooks[0].size()[0];
    let are_alike = codebooks.iter().all(|codes_kd| codes_kd.size()[0] == num_codes);
    match are_alike && num_codes.count_ones() == 1 {
        true => Ok(num_codes),
        false => Err(format!("{model} has codebooks of one size, a power of two")),
    }
}

/// A weight as its lengths along axis 0 and its direction.
fn normed(weight: &Tensor, name: &str) -> Result<[Tensor; 2], String> {
    let others: Vec<i64> = (1..weight.dim() as i64).collect();
    let lengths = weight.norm_scalaropt_dim(2, others.as_slice(), true);
    match lengths.min().double_value(&[]) > 0.0 {
        true => Ok([lengths, weight.shallow_clone()]),
        false => Err(format!("{name} has a filter of zeros, which has no direction")),
    }
}

/// Weights of convolutions that are normalised, multiplied out.
fn plain_weights(networks: Named) -> Named {
    let mut plain = Named::new();
    for (name, tensor) in &networks {
        match name.strip_suffix("weight_v") {
            Some(layer) => {
                let lengths = &networks[&format!("{layer}weight_g")];
                let others: Vec<i64> = (1..tensor.dim() as i64).collect();
                let weight =
                    tensor * (lengths / tensor.norm_scalaropt_dim(2, others.as_slice(), true));
                plain.insert(format!("{layer}weight"), weight);
            }
            None if name.ends_with("weight_g") => {}
            None => drop(plain.insert(name.clone(), tensor.shallow_clone())),
        }
    }
    plain
}

/// The same with an LSTM of zeros on each side, and the layers behind it one number on.
fn with_idle_lstm(source: &Source<'_>, backbone: &Conv1dConfig, named: Named) -> Named {
    let with = Conv1dConfig { lstm_layers: 1, ..backbone.clone() };
    let place = |name: &str| -> Option<(String, String)> {
        let (layer, tensor) = name.split_once(".parametrizations.").map_or_else(
            || name.rsplit_once('.').map(|(layer, end)| (layer.to_owned(), format!(".{end}"))),
            |(layer, end)| Some((layer.to_owned(), format!(".parametrizations.{end}"))),
        )?;
        Some((layer, tensor))
    };
    // Layers by their names without an LSTM, and with one.
    let mut moved: Vec<(String, String)> = Vec::new();
    for ours in source.networks().keys() {
        let both = [backbone, &with].map(|config| To::TransformersEncodec.theirs(ours, config));
        let [Some(from), Some(to)] = both else { continue };
        if let (Some((from, _)), Some((to, _))) = (place(&from), place(&to)) {
            moved.push((from, to));
        }
    }
    let rename = |name: String| {
        let (layer, tensor) = place(&name).expect("a tensor has a name within its layer");
        let (_, to) =
            moved.iter().find(|(from, _)| *from == layer).expect("every layer is one of ours");
        format!("{to}{tensor}")
    };
    let mut all: Named = named.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect();
    for (side, channels) in
        [("encoder", backbone.channels), ("decoder", decoder_channels(backbone))]
    {
        let channels = channels << backbone.ratios.len();
        for (end, shape) in [
            ("weight_ih_l0", vec![4 * channels, channels]),
            ("weight_hh_l0", vec![4 * channels, channels]),
            ("bias_ih_l0", vec![4 * channels]),
            ("bias_hh_l0", vec![4 * channels]),
        ] {
            let ours = format!("{side}.lstm.{end}");
            let theirs = To::TransformersEncodec.theirs(&ours, &with).expect("it has one");
            let zeros = Tensor::zeros(shape.as_slice(), (Kind::Float, tch::Device::Cpu));
            all.insert(theirs, zeros);
        }
    }
    all
}
