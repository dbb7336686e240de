//! Forms that any runtime computes: two programs, samples to indices of codes and back, of any batch and size.

use serde_json::json;
use tch::{CModule, Tensor};
use tessera_data::Modality;
use tessera_nn::graph::{self, Graph};

use super::onnx::{self, Axis, End};
use super::{Source, Written};
use crate::tile;

/// Samples to indices, and back.
struct Pair {
    encoder: Graph,
    decoder: Graph,
}

/// `encoder.onnx` and `decoder.onnx`.
pub(super) fn onnx(source: &Source<'_>) -> Result<Vec<Written>, String> {
    let Pair { encoder, decoder } = Pair::of(source)?;
    let (samples, indices) = (samples(source), indices(source));
    let said = [("tessera_hash", source.model.file.hash.clone())];
    let encoder = onnx::to_bytes(&encoder, [&samples, &indices], &said)?;
    let decoder = onnx::to_bytes(&decoder, [&indices, &samples], &said)?;
    Ok(vec![
        config(source, "onnx"),
        Written { name: "encoder.onnx", bytes: encoder },
        Written { name: "decoder.onnx", bytes: decoder },
    ])
}

/// `encoder.ts` and `decoder.ts`.
pub(super) fn torch_script(source: &Source<'_>) -> Result<Vec<Written>, String> {
    let Pair { encoder, decoder } = Pair::of(source)?;
    let signal = source.model.signal();
    let num = tile::LEAST as i64;
    let zeros = Tensor::zeros(signal.shape(num), tch::kind::FLOAT_CPU);
    let codes = encoder.run(&zeros);
    Ok(vec![
        config(source, "torchscript"),
        Written { name: "encoder.ts", bytes: trace(&encoder, &zeros)? },
        Written { name: "decoder.ts", bytes: trace(&decoder, &codes)? },
    ])
}

impl Pair {
    fn of(source: &Source<'_>) -> Result<Self, String> {
        let _no_grad = tch::no_grad_guard();
        let model = &source.model.vqvae;
        Ok(Self { encoder: graph::encoder(model)?, decoder: graph::decoder(model)? })
    }
}

/// A program of libtorch that computes the graph.
fn trace(graph: &Graph, example: &Tensor) -> Result<Vec<u8>, String> {
    let _no_grad = tch::no_grad_guard();
    let failed = |error: tch::TchError| {
        let problem = error.to_string();
        format!("libtorch cannot trace it: {}", problem.lines().next().unwrap_or_default())
    };
    let mut run = |inputs: &[Tensor]| vec![graph.run(&inputs[0])];
    let module =
        CModule::create_by_tracing("tessera", "forward", &[example.shallow_clone()], &mut run)
            .map_err(failed)?;
    // The archive is called as its file is, whose name may not begin with a dot.
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = folder.path().join("graph.ts");
    module.save(&path).map_err(failed)?;
    std::fs::read(&path).map_err(|error| error.to_string())
}

/// What the two programs take and give.
fn config(source: &Source<'_>, format: &str) -> Written {
    let file = &source.model.file;
    let autoencoder = file.autoencoder();
    let range = source.model.signal().range().expect("no autoencoder is trained on tokens");
    let end = if format == "onnx" { "onnx" } else { "ts" };
    let config = json!({
        "format": format!("tessera-{format}"),
        "version": 1,
        "tessera": file.tessera,
        "hash": file.hash,
        "modality": autoencoder.shape.modality,
        "encoder": format!("encoder.{end}"),
        "decoder": format!("decoder.{end}"),
        "samples": {
            "dtype": "float32",
            "range": [range.start(), range.end()],
            "shape": source.model.signal().shape(-1),
            "sample_rate": autoencoder.shape.sample_rate,
            "multiple_of": strides(source),
        },
        "indices": {
            "dtype": "int64",
            "axes": autoencoder.levels[0].axes,
            "num_codes": autoencoder.levels[0].num_codes,
        },
    });
    Written::json("config.json", &config)
}

/// What sizes of samples have to be multiples of, axis by axis.
fn strides(source: &Source<'_>) -> Vec<i64> {
    let axes = source.model.signal().axes();
    let of_codes = &source.model.file.autoencoder().levels[0].axes;
    axes.iter().zip(of_codes).map(|(size, codes)| size / codes).collect()
}

fn samples(source: &Source<'_>) -> End {
    let channels = Axis::Size(source.model.signal().channels());
    let sizes: &[&'static str] = match source.model.file.autoencoder().shape.modality {
        Modality::Image => &["height", "width"],
        Modality::Video => &["frames", "height", "width"],
        Modality::Audio | Modality::Tokens => &["time"],
    };
    let sizes = sizes.iter().map(|&name| Axis::Any(name));
    let axes = [Axis::Any("batch"), channels].into_iter().chain(sizes).collect();
    End { name: "samples", is_whole: false, axes }
}

fn indices(source: &Source<'_>) -> End {
    let level = &source.model.file.autoencoder().levels[0];
    let mut axes = vec![Axis::Any("batch")];
    if level.num_codes.len() > 1 {
        axes.push(Axis::Size(level.num_codes.len() as i64));
    }
    let sizes: &[&'static str] = match level.axes.len() {
        1 => &["positions"],
        2 => &["rows", "columns"],
        _ => &["times", "rows", "columns"],
    };
    axes.extend(sizes.iter().map(|&name| Axis::Any(name)));
    End { name: "indices", is_whole: true, axes }
}
