//! A model in the forms of other programs.
//!
//! | form | what it is | which models |
//! |---|---|---|
//! | diffusers | a folder for `VQModel.from_pretrained` | `unet2d` with a codebook |
//! | taming, LlamaGen | weights under the names of those programs, as safetensors and as `torch.save` has them | `unet2d` as they have it |
//! | transformers | a folder for `EncodecModel` or `DacModel` | `conv1d` as they have it |
//! | TorchScript | two programs: samples to indices, and back | whatever has a [graph](tessera_nn::graph) with one output |
//! | ONNX | the same for other runtimes | whatever has a [graph](tessera_nn::graph) |
//!
//! Every form has a card, `README.md`, with what a reader of it has to know. A model that cannot be said in a form is
//! refused with the reason; nothing is folded into weights that would change what comes out.

mod card;
mod graphs;
mod onnx;
mod pickle;
mod sound;
mod vqgan;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tessera_checkpoint::Storage;
use tessera_data::Modality;
use tessera_model::{ModelError, OpenModel};
use tessera_nn::ModelConfig;

use crate::compress::unwritable;
use crate::error::ApplyError;

/// The form of another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportForm {
    /// diffusers' `VQModel`.
    Diffusers,
    /// taming-transformers' `VQModel`.
    Taming,
    /// LlamaGen's `VQModel`.
    LlamaGen,
    /// transformers' `EncodecModel` or `DacModel`.
    Transformers,
    /// Programs of libtorch.
    TorchScript,
    /// Graphs of ONNX.
    Onnx,
}

impl ExportForm {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Diffusers => "diffusers",
            Self::Taming => "taming",
            Self::LlamaGen => "LlamaGen",
            Self::Transformers => "transformers",
            Self::TorchScript => "TorchScript",
            Self::Onnx => "ONNX",
        }
    }
}

/// What was written.
#[derive(Debug, Serialize)]
pub struct Exported {
    /// The folder.
    pub path: PathBuf,
    /// The form.
    pub form: ExportForm,
    /// Hash of the model.
    pub hash: String,
    /// Names of the files, and their bytes.
    pub files: Vec<(String, usize)>,
}

/// A model on its way out.
struct Source<'a> {
    model: &'a OpenModel,
    config: ModelConfig,
}

/// A file of an export.
struct Written {
    name: &'static str,
    bytes: Vec<u8>,
}

impl Written {
    fn json(name: &'static str, value: &serde_json::Value) -> Self {
        let mut bytes = serde_json::to_vec_pretty(value).expect("a value is plain data");
        bytes.push(b'\n');
        Self { name, bytes }
    }
}

/// Writes `model` in the form of another program into the folder `out`: all files, or none. Files that are there are
/// replaced with `force` alone, and others stay.
///
/// # Errors
///
/// [`ApplyError::BadInput`] where the model cannot be said in this form, with the reason, or `out` is not free.
pub fn export(
    model: &OpenModel,
    form: ExportForm,
    out: &Path,
    force: bool,
) -> Result<Exported, ApplyError> {
    let refuse = |reason: String| {
        ApplyError::BadInput(format!("this model has no {} form: {reason}", form.name()))
    };
    let config = model.file.autoencoder().config().map_err(ApplyError::BadInput)?;
    let source = Source { model, config };
    let mut files = match form {
        ExportForm::Diffusers => vqgan::diffusers(&source),
        ExportForm::Taming => vqgan::taming(&source),
        ExportForm::LlamaGen => vqgan::llama_gen(&source),
        ExportForm::Transformers => sound::transformers(&source),
        ExportForm::TorchScript => graphs::torch_script(&source),
        ExportForm::Onnx => graphs::onnx(&source),
    }
    .map_err(refuse)?;
    files.push(Written { name: "README.md", bytes: card::of(&source, form).into_bytes() });
    check_free(out, &files, force)?;
    write(out, &files)?;
    let told = files.iter().map(|file| (file.name.to_owned(), file.bytes.len())).collect();
    Ok(Exported { path: out.to_owned(), form, hash: model.file.hash.clone(), files: told })
}

/// Refuses a folder that has files of these names, where they are not to be replaced.
fn check_free(out: &Path, files: &[Written], force: bool) -> Result<(), ApplyError> {
    if out.exists() && !out.is_dir() {
        return Err(ApplyError::BadInput(format!("{} is a file: name a folder", out.display())));
    }
    let there = files.iter().find(|file| out.join(file.name).exists());
    match there {
        Some(file) if !force => Err(ApplyError::BadInput(format!(
            "{} is there already: name another folder, or give --force to replace files of the same names",
            out.join(file.name).display()
        ))),
        _ => Ok(()),
    }
}

/// Writes all files beside their places, and then moves them there.
fn write(out: &Path, files: &[Written]) -> Result<(), ApplyError> {
    let was_there = out.is_dir();
    fs::create_dir_all(out).map_err(|error| unwritable(out, &error))?;
    let partial = |file: &Written| out.join(format!(".{}.partial", file.name));
    let storage = Storage::new();
    let written = files.iter().try_for_each(|file| {
        let path = partial(file);
        storage.write(&path, &file.bytes).map_err(|error| ApplyError::from(ModelError::from(error)))
    });
    if let Err(error) = written {
        // The error that led here is the one to report.
        for file in files {
            let _ = fs::remove_file(partial(file));
        }
        if !was_there {
            let _ = fs::remove_dir(out);
        }
        return Err(error);
    }
    for file in files {
        let (from, to) = (partial(file), out.join(file.name));
        fs::rename(&from, &to).map_err(ApplyError::file("rename", &from))?;
    }
    Ok(())
}

impl Source<'_> {
    /// Refuses what is no model of these.
    fn check_modality(&self, wanted: Modality, called: &str) -> Result<(), String> {
        match self.model.file.autoencoder().shape.modality == wanted {
            true => Ok(()),
            false => Err(format!("it is for {called}, this model for {}", self.model.signal())),
        }
    }
}
