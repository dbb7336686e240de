//! Forms that any runtime computes: two programs, samples to indices of codes and back, of any batch, and of any size where
//! the network is.

use serde_json::json;
use tch::{CModule, Tensor};
use tessera_data::Modality;
use tessera_model::Level;
use tessera_nn::BackboneConfig;
use tessera_nn::backbone::Conv3dConfig;
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
    let (samples, indices) = ([samples(source)], indices(source));
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
    if encoder.outputs.len() > 1 {
        return Err("a traced program gives one tensor, and this model has codes of several sizes: use --format onnx"
            .to_owned());
    }
    let shape = source.model.signal().shape(tile::LEAST as i64);
    let zeros = [Tensor::zeros(shape, tch::kind::FLOAT_CPU)];
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
fn trace(graph: &Graph, example: &[Tensor]) -> Result<Vec<u8>, String> {
    let _no_grad = tch::no_grad_guard();
    let failed = |error: tch::TchError| {
        let problem = error.to_string();
        format!("libtorch cannot trace it: {}", problem.lines().next().unwrap_or_default())
    };
    let mut run = |inputs: &[Tensor]| graph.run(inputs);
    let module =
        CModule::create_by_tracing("tessera", "forward", example, &mut run).map_err(failed)?;
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
    let Sizes { multiples, offsets } = sizes(source);
    let level = |(level, name): (&Level, String)| {
        let Level { axes, num_codes } = level;
        json!({ "name": name, "dtype": "int64", "axes": axes, "num_codes": num_codes })
    };
    let levels: Vec<_> = autoencoder.levels.iter().zip(names(source)).map(level).collect();
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
            "multiple_of": multiples,
            "offset": offsets,
            "fixed": source.config.backbone.has_fixed_size(),
        },
        "indices": levels[0],
        "levels": levels,
    });
    Written::json("config.json", &config)
}

/// Which sizes samples may have, axis by axis: an offset and a multiple of a number.
pub(super) struct Sizes {
    pub(super) multiples: Vec<i64>,
    pub(super) offsets: Vec<i64>,
}

/// Those of a model; of one size alone, that size.
pub(super) fn sizes(source: &Source<'_>) -> Sizes {
    let axes = source.model.signal().axes();
    let mut offsets = vec![0; axes.len()];
    let multiples = match &source.config.backbone {
        backbone if backbone.has_fixed_size() => axes,
        BackboneConfig::Conv3d(Conv3dConfig { temporal, spatial, .. }) => {
            offsets[0] = 1;
            vec![*temporal, *spatial, *spatial]
        }
        _ => {
            // The coarsest level of a hierarchy is a whole number of positions too.
            let levels = &source.model.file.autoencoder().levels;
            let coarsest = &levels[levels.len() - 1].axes;
            axes.iter().zip(coarsest).map(|(size, codes)| size / codes).collect()
        }
    };
    Sizes { multiples, offsets }
}

fn samples(source: &Source<'_>) -> End {
    let signal = source.model.signal();
    let names: &[&'static str] = match source.model.file.autoencoder().shape.modality {
        Modality::Image => &["height", "width"],
        Modality::Video => &["frames", "height", "width"],
        Modality::Audio | Modality::Tokens => &["time"],
    };
    let mut axes = vec![Axis::Any("batch".to_owned()), Axis::Size(signal.channels())];
    axes.extend(of_sizes(source, &signal.axes(), names, ""));
    End { name: "samples".to_owned(), is_whole: false, axes }
}

/// Indices of each quantised level, the finest first.
fn indices(source: &Source<'_>) -> Vec<End> {
    let levels = &source.model.file.autoencoder().levels;
    let of_level = |(number, (level, name)): (usize, (&Level, String))| {
        let mut axes = vec![Axis::Any("batch".to_owned())];
        if level.num_codes.len() > 1 {
            axes.push(Axis::Size(level.num_codes.len() as i64));
        }
        let names: &[&'static str] = match level.axes.len() {
            1 => &["positions"],
            2 => &["rows", "columns"],
            _ => &["times", "rows", "columns"],
        };
        let behind = if levels.len() > 1 { format!("_{number}") } else { String::new() };
        axes.extend(of_sizes(source, &level.axes, names, &behind));
        End { name, is_whole: true, axes }
    };
    levels.iter().zip(names(source)).enumerate().map(of_level).collect()
}

/// What the indices of each quantised level are called.
fn names(source: &Source<'_>) -> Vec<String> {
    match source.model.file.autoencoder().levels.len() {
        1 => vec!["indices".to_owned()],
        several => (0..several).map(|level| format!("indices_{level}")).collect(),
    }
}

/// Positional axes: these sizes where they are fixed, otherwise any, by these names.
fn of_sizes(source: &Source<'_>, sizes: &[i64], names: &[&str], behind: &str) -> Vec<Axis> {
    let is_fixed = source.config.backbone.has_fixed_size();
    let axis = |(&size, name): (&i64, &&str)| match is_fixed {
        true => Axis::Size(size),
        false => Axis::Any(format!("{name}{behind}")),
    };
    sizes.iter().zip(names).map(axis).collect()
}
