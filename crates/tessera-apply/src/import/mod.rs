//! Weights of other programs as a model folder.
//!
//! | what is there | how it is known |
//! |---|---|
//! | a folder of diffusers' `VQModel` | `config.json` names the class |
//! | weights of taming-transformers' `VQModel` | tensors called `encoder.down.*` |
//! | weights of LlamaGen's `VQModel` | tensors called `encoder.conv_blocks.*` |
//! | a folder of transformers' `EncodecModel` or `DacModel` | `model_type` in `config.json` |
//!
//! Files are safetensors: a pickle is a program, and is never opened here (`launch/interop/unpickle.py` turns one into
//! safetensors). Every tensor must have its place and every place its tensor, so nothing starts from random numbers
//! without a word.

mod sound;
mod vqgan;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tessera_data::{DataConfig, DataKind, SampleShape};
use tessera_model::{
    AutoencoderFile, FORMAT, ModelFile, ModelKind, OpenModel, Precision, Preprocessing, VERSION,
    Weights,
};

use tessera_nn::ModelConfig;

use crate::error::ApplyError;

/// What is taken where the source does not say it.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Height and width of pictures.
    pub size: Option<(u32, u32)>,
    /// Instants of a window of sound.
    pub length: Option<u32>,
}

/// A model that was made of another program's weights.
#[derive(Debug)]
pub struct Imported {
    /// The model.
    pub model: OpenModel,
    /// Which program they are of.
    pub of: &'static str,
    /// The `[model]` table of a configuration that trains it on; keys that are not there have their defaults.
    pub table: Value,
}

/// A model, as an importer describes it.
struct Described {
    of: &'static str,
    /// The `[model]` table, without what has its default.
    table: Value,
    shape: SampleShape,
    range: [f64; 2],
    /// By our names.
    tensors: BTreeMap<String, Tensor>,
}

/// Tensors of a file by its names, and what lies beside it.
struct Given {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    config: Option<Value>,
}

/// Makes a model of the weights at `path`: a folder, or a file of safetensors. On the CPU, in float32.
///
/// # Errors
///
/// [`ApplyError::BadInput`] where they are of no program that is known, or have something that has no place here, with
/// its name.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Imported, ApplyError> {
    let given = Given::read(path)?;
    let refuse = |problem: String| {
        ApplyError::BadInput(format!("{} cannot be imported: {problem}", given.path.display()))
    };
    let described = describe(&given, options).map_err(refuse)?;
    let Described { of, table, shape, range, tensors } = described;
    let config: ModelConfig = serde_json::from_value(table.clone())
        .map_err(|error| refuse(format!("its network is none that is known: {error}")))?;
    // With all keys, so that it stays what it is where a default changes.
    let mut whole = serde_json::to_value(config).expect("a configuration is plain data");
    if let Some(whole) = whole.as_object_mut() {
        whole.retain(|key, _| key != "init_from" && key != "init_parts");
    }
    let data =
        DataConfig { kind: DataKind::Folder, modality: shape.modality, ..DataConfig::default() };
    let file = ModelFile {
        format: FORMAT.to_owned(),
        version: VERSION,
        tessera: env!("CARGO_PKG_VERSION").to_owned(),
        hash: String::new(),
        step: 0,
        weights: Weights::Trained,
        precision: Precision::Fp32,
        kind: ModelKind::Autoencoder(AutoencoderFile {
            model: whole,
            shape,
            preprocessing: Preprocessing { range, decoding: None },
            classes: Vec::new(),
            levels: Vec::new(),
        }),
        trained_on: serde_json::to_value(data).expect("a configuration is plain data"),
    };
    let model = tessera_model::assemble(file, tensors, path)?;
    Ok(Imported { model, of, table })
}

fn describe(given: &Given, options: &ImportOptions) -> Result<Described, String> {
    let config = given.config.as_ref();
    let word = |key: &str| config.and_then(|config| config[key].as_str());
    let has = |start: &str| given.tensors.keys().any(|name| name.starts_with(start));
    match (word("_class_name"), word("model_type")) {
        (Some("VQModel"), _) => vqgan::diffusers(given, options),
        (Some(class), _) => Err(format!("it is a {class} of diffusers, and VQModel is what is known")),
        (_, Some("encodec")) => sound::encodec(given, options),
        (_, Some("dac")) => sound::dac(given, options),
        (_, Some(kind)) => {
            Err(format!("it is a {kind} of transformers, and encodec and dac are what is known"))
        }
        _ if has("encoder.conv_blocks.") => vqgan::llama_gen(given, options),
        _ if has("encoder.down.") => vqgan::taming(given, options),
        _ => Err("its tensors are those of no program that is known: diffusers' VQModel, taming-transformers, \
                  LlamaGen, transformers' EncodecModel and DacModel"
            .to_owned()),
    }
}

/// Weights of the folders of those programs, by name.
const FILES: [&str; 2] = ["model.safetensors", "diffusion_pytorch_model.safetensors"];
/// Ends of names of pickles.
const PICKLES: [&str; 5] = ["ckpt", "pt", "pth", "th", "bin"];

impl Given {
    fn read(path: &Path) -> Result<Self, ApplyError> {
        let bad = |problem: String| Err(ApplyError::BadInput(problem));
        let is_pickle = |path: &Path| {
            let end = path.extension().and_then(|end| end.to_str());
            end.is_some_and(|end| PICKLES.contains(&end))
        };
        let pickled = |path: &Path| {
            format!(
                "{} is a pickle, which is a program and is not opened: turn it into safetensors with \
                 launch/interop/unpickle.py",
                path.display()
            )
        };
        let file = if path.is_dir() {
            let Some(name) = FILES.into_iter().find(|name| path.join(name).is_file()) else {
                let mut entries = fs::read_dir(path).map_err(ApplyError::file("read", path))?;
                let pickle =
                    entries.find_map(|entry| entry.ok().filter(|entry| is_pickle(&entry.path())));
                return bad(match pickle {
                    Some(entry) => pickled(&entry.path()),
                    None => format!("{} has no {}", path.display(), FILES.join(" and no ")),
                });
            };
            path.join(name)
        } else if is_pickle(path) {
            return bad(pickled(path));
        } else if !path.exists() {
            return bad(format!(
                "{} does not exist: name a folder or a file of safetensors",
                path.display()
            ));
        } else {
            path.to_owned()
        };
        let tensors = Tensor::read_safetensors(&file).map_err(|error| {
            let problem = error.to_string();
            let line = problem.lines().next().unwrap_or_default().to_owned();
            ApplyError::BadInput(format!("{} is no file of safetensors: {line}", file.display()))
        })?;
        let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::Float)));
        let beside = file.parent().unwrap_or(Path::new("")).join("config.json");
        let config = match fs::read(&beside) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| {
                ApplyError::BadInput(format!("{} is no JSON: {error}", beside.display()))
            })?),
            Err(_) => None,
        };
        Ok(Self { path: path.to_owned(), tensors: tensors.collect(), config })
    }

    /// A number of `config.json`, or what its program takes where it is not there.
    fn number(&self, key: &str, usual: i64) -> Result<i64, String> {
        match self.config.as_ref().map(|config| &config[key]) {
            None | Some(Value::Null) => Ok(usual),
            Some(value) => {
                value.as_i64().ok_or_else(|| format!("{key} should be a number, found {value}"))
            }
        }
    }

    fn numbers(&self, key: &str) -> Result<Vec<i64>, String> {
        let value = self.config.as_ref().map_or(&Value::Null, |config| &config[key]);
        let numbers: Option<Vec<i64>> =
            value.as_array().and_then(|all| all.iter().map(Value::as_i64).collect());
        numbers.ok_or_else(|| format!("{key} should be a list of numbers, found {value}"))
    }

    /// Refuses another value than the one that our network has.
    fn wants(&self, key: &str, wanted: &[Value]) -> Result<(), String> {
        let value = self.config.as_ref().map_or(&Value::Null, |config| &config[key]);
        match value.is_null() || wanted.contains(value) {
            true => Ok(()),
            false => Err(format!("{key} is {value}, and {} is what is known", json!(wanted))),
        }
    }

    /// A tensor that there must be.
    fn tensor(&self, name: &str) -> Result<&Tensor, String> {
        self.tensors.get(name).ok_or_else(|| format!("it has no tensor {name}"))
    }
}
