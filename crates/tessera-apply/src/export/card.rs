//! The card of an export: what whoever gets the folder has to know, with the fields that model hubs read.

use std::fmt::Write;

use tessera_data::{Modality, SampleShape};
use tessera_nn::Pixels;

use super::graphs::{self, Sizes};
use super::{ExportForm, Source};

/// `README.md`.
pub(super) fn of(source: &Source<'_>, form: ExportForm) -> String {
    let file = &source.model.file;
    let autoencoder = file.autoencoder();
    let shape = autoencoder.shape;
    let bits = autoencoder.levels.iter().map(|level| {
        let num_positions: i64 = level.axes.iter().product();
        num_positions as f64 * level.num_codes.iter().map(|&num| (num as f64).log2()).sum::<f64>()
    });
    let codes = autoencoder
        .levels
        .iter()
        .map(|level| format!("{} of {}", list(&level.axes, " x "), list(&level.num_codes, ", ")));
    let codes: Vec<String> = codes.collect();
    let mut text = front_matter(form, shape.modality);
    let mut line = |text_of_line: &str| {
        let _ = writeln!(text, "{text_of_line}");
    };
    line(&format!("# A VQ-VAE for {}\n", source.model.signal()));
    line(&format!(
        "Trained with Tessera {}, step {}, {} weights; hash of the model `{}`.\n",
        file.tessera,
        file.step,
        word(&file.weights),
        file.hash
    ));
    line("| | |\n|---|---|");
    line(&format!("| samples | {} |", size(shape)));
    if matches!(form, ExportForm::Onnx | ExportForm::TorchScript) {
        line(&format!("| sizes | {} |", sizes(source)));
    }
    line(&format!("| values go in and come out as | {} |", range(source, form)));
    line(&format!("| codes of a sample | {} |", codes.join("; ")));
    line(
        "| order | row by row; of several codes of a position the first refines nothing, each further one those before |",
    );
    line(&format!("| rate without entropy coding | {} |", rate(shape, bits.sum())));
    line(&format!("| trained on | `{}` |", trained_on(&file.trained_on)));
    line(&format!("\n## Use\n\n```python\n{}```\n", example(source, form)));
    line(
        "How good it is: `tessera eval --model DIR` on the model folder that this was made of. Its licence is that of",
    );
    line("whoever trained it.");
    text
}

fn front_matter(form: ExportForm, modality: Modality) -> String {
    let library = match form {
        ExportForm::Diffusers => "diffusers",
        ExportForm::Transformers => "transformers",
        ExportForm::Onnx => "onnx",
        ExportForm::Taming | ExportForm::LlamaGen | ExportForm::TorchScript => "pytorch",
    };
    let task = match modality {
        Modality::Image => "image-to-image",
        Modality::Audio => "audio-to-audio",
        Modality::Video | Modality::Tokens => "feature-extraction",
    };
    format!(
        "---\nlicense: other\nlibrary_name: {library}\npipeline_tag: {task}\ntags:\n- vq-vae\n- tessera\n---\n\n"
    )
}

fn size(shape: SampleShape) -> String {
    let SampleShape { frames, channels, height, width, sample_rate, .. } = shape;
    let colors = if channels == 1 { "gray" } else { "RGB" };
    match shape.modality {
        Modality::Image => format!("pictures, {height} x {width} in training, {colors}"),
        Modality::Video => format!("film, {frames} frames of {height} x {width}, {colors}"),
        Modality::Audio | Modality::Tokens => {
            format!("sound, {sample_rate} Hz, {frames} instants in training, channels: {channels}")
        }
    }
}

/// Which batches and sizes a graph takes.
fn sizes(source: &Source<'_>) -> String {
    if source.config.backbone.has_fixed_size() {
        return "any batch; this size alone, since the network has a parameter for each position"
            .to_owned();
    }
    let Sizes { multiples, offsets } = graphs::sizes(source);
    let of_axis = |(multiple, offset): (&i64, &i64)| match offset {
        0 => format!("n x {multiple}"),
        offset => format!("{offset} + n x {multiple}"),
    };
    let axes: Vec<String> = multiples.iter().zip(&offsets).map(of_axis).collect();
    format!("any batch; {}", axes.join(", "))
}

fn range(source: &Source<'_>, form: ExportForm) -> &'static str {
    let has_own = matches!(form, ExportForm::Diffusers | ExportForm::Taming | ExportForm::LlamaGen);
    match (source.model.file.autoencoder().shape.modality, source.model.vqvae.pixels) {
        (Modality::Audio, _) => "[-1, 1]",
        (_, Pixels::Signed) if has_own => "[-1, 1]: byte / 127.5 - 1",
        _ if has_own => "[0, 1]: byte / 255, and not [-1, 1], which is usual there",
        _ => "[0, 1]: byte / 255",
    }
}

fn rate(shape: SampleShape, bits: f64) -> String {
    match shape.modality {
        Modality::Audio => {
            let seconds = f64::from(shape.frames) / f64::from(shape.sample_rate);
            format!("{:.0} bits a second", bits / seconds)
        }
        _ => {
            let pixels = f64::from(shape.frames) * f64::from(shape.height) * f64::from(shape.width);
            format!("{:.4} bits a pixel", bits / pixels)
        }
    }
}

fn trained_on(data: &serde_json::Value) -> String {
    let word = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
    format!("{} {}", word("kind"), word("path")).trim().to_owned()
}

fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).expect("it is plain data");
    value.as_str().unwrap_or_default().to_owned()
}

fn list(numbers: &[i64], between: &str) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// How the form is read.
fn example(source: &Source<'_>, form: ExportForm) -> String {
    let is_dac = matches!(
        &source.config.backbone,
        tessera_nn::BackboneConfig::Conv1d(config)
            if config.activation == tessera_nn::backbone::conv1d::Nonlinearity::Snake
    );
    match form {
        ExportForm::Diffusers => "from diffusers import VQModel\n\
             model = VQModel.from_pretrained(\"DIR\").eval()\n\
             indices = model.quantize(model.encode(x).latents)[2][2]  # int64, all positions of all pictures\n\
             shape = (len(x), x.shape[2] // STRIDE, x.shape[3] // STRIDE, model.config.vq_embed_dim)\n\
             y = model.decode(indices, force_not_quantize=True, shape=shape).sample\n"
            .replace("STRIDE", &stride(source)),
        ExportForm::Taming => "from omegaconf import OmegaConf\nfrom safetensors.torch import load_file\n\
             from taming.models.vqgan import VQModel\n\
             model = VQModel(**OmegaConf.load(\"DIR/config.yaml\").model.params).eval()\n\
             model.load_state_dict(load_file(\"DIR/model.safetensors\"), strict=False)\n\
             # the same weights: torch.load(\"DIR/last.ckpt\", weights_only=True)[\"state_dict\"]\n\
             quantized, _, (_, _, indices) = model.encode(x)\n\
             y = model.decode(quantized)\n"
            .to_owned(),
        ExportForm::LlamaGen => "import json\nfrom safetensors.torch import load_file\n\
             from tokenizer.tokenizer_image.vq_model import ModelArgs, VQModel\n\
             config = json.load(open(\"DIR/config.json\"))  # its Encoder and Decoder take ch as they are called\n\
             config.pop(\"ch\")\n\
             model = VQModel(ModelArgs(**config)).eval()\n\
             model.load_state_dict(load_file(\"DIR/model.safetensors\"))\n\
             # the same weights: torch.load(\"DIR/model.pt\", weights_only=True)[\"model\"]\n\
             quantized, _, (_, _, indices) = model.encode(x)\n\
             y = model.decode(quantized)\n"
            .to_owned(),
        ExportForm::Transformers if is_dac => "from transformers import DacModel\n\
             model = DacModel.from_pretrained(\"DIR\").eval()\n\
             codes = model.encode(x).audio_codes  # [N, levels, positions]\n\
             y = model.decode(audio_codes=codes).audio_values\n"
            .to_owned(),
        ExportForm::Transformers => "from transformers import EncodecModel\n\
             model = EncodecModel.from_pretrained(\"DIR\").eval()\n\
             codes = model.encode(x).audio_codes  # [1, N, levels, positions]\n\
             y = model.decode(codes, [None]).audio_values\n"
            .to_owned(),
        ExportForm::TorchScript => "import torch\n\
             encoder, decoder = torch.jit.load(\"DIR/encoder.ts\"), torch.jit.load(\"DIR/decoder.ts\")\n\
             indices = encoder(x)  # int64\ny = decoder(indices)\n"
            .to_owned(),
        ExportForm::Onnx if source.model.file.autoencoder().levels.len() > 1 => "import onnxruntime\n\
             encoder = onnxruntime.InferenceSession(\"DIR/encoder.onnx\")\n\
             decoder = onnxruntime.InferenceSession(\"DIR/decoder.onnx\")\n\
             indices = encoder.run(None, {\"samples\": x})  # int64, of each level, the finest first\n\
             names = [level.name for level in decoder.get_inputs()]\n\
             y, = decoder.run(None, dict(zip(names, indices)))\n"
            .to_owned(),
        ExportForm::Onnx => "import onnxruntime\n\
             encoder = onnxruntime.InferenceSession(\"DIR/encoder.onnx\")\n\
             decoder = onnxruntime.InferenceSession(\"DIR/decoder.onnx\")\n\
             indices, = encoder.run(None, {\"samples\": x})  # int64\n\
             y, = decoder.run(None, {\"indices\": indices})\n"
            .to_owned(),
    }
}

fn stride(source: &Source<'_>) -> String {
    let autoencoder = source.model.file.autoencoder();
    let rows = autoencoder.levels[0].axes[0];
    (i64::from(autoencoder.shape.height) / rows).to_string()
}
