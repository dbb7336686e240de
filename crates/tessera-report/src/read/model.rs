//! A run's model folder, as far as files say it without libtorch: codebooks, and how often each code is taken.
//!
//! Of `model.safetensors` only the codebooks and their counts are read, wherever they lie in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::json;
use crate::error::ReportError;

/// Bytes of a header that is read at most.
const MOST_HEADER: u64 = 1 << 26;
/// Bytes of a tensor that is read at most.
const MOST_TENSOR: u64 = 1 << 29;

/// Where counts of codes are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Tokens of a split that were counted for an atlas.
    Atlas,
    /// Tokens that `tessera tables` counted.
    Tables,
    /// The moving averages of the training's end.
    Averages,
}

impl Counted {
    /// For a person.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Atlas => "counted over data for the atlas",
            Self::Tables => "counted over data by tessera tables",
            Self::Averages => "the moving averages at the end of the training",
        }
    }
}

/// A codebook and its use.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Level {
    /// Number of codes, K.
    pub(crate) num_codes: usize,
    /// Channels per code, D; 0 where there is no codebook.
    pub(crate) dim: usize,
    /// The codes `[K, D]`.
    pub(crate) codes_kd: Vec<f32>,
    /// How often each code was taken `[K]`, or a share of that; empty where nobody knows.
    pub(crate) counts_k: Vec<f64>,
    /// Where they are from.
    pub(crate) counted: Counted,
}

/// A model folder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Model {
    pub(crate) hash: String,
    pub(crate) tessera: String,
    pub(crate) step: u64,
    pub(crate) modality: Option<String>,
    /// The size of a sample for a person.
    pub(crate) shape: String,
    pub(crate) levels: Vec<Level>,
    /// Axes of each level's codes.
    pub(crate) axes: Vec<Vec<u64>>,
}

/// Tensors of a file by their names.
type Tensors = BTreeMap<String, Tensor>;

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Model {
    /// Reads the model folder at `folder`; none where there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, ReportError> {
        let Some(about) = json::<Value>(&folder.join("config.json"))? else { return Ok(None) };
        let text = |name: &str| about[name].as_str().unwrap_or_default().to_owned();
        let mut levels = levels(&folder.join("model.safetensors"))?;
        count(&folder.join("tables.safetensors"), &mut levels)?;
        let shape = &about["shape"];
        let axes = about["levels"].as_array().into_iter().flatten();
        let axes = axes.map(|level| level["axes"].as_array().into_iter().flatten());
        Ok(Some(Self {
            hash: text("hash"),
            tessera: text("tessera"),
            step: about["step"].as_u64().unwrap_or(0),
            modality: shape["modality"].as_str().map(str::to_owned),
            shape: size(shape),
            levels,
            axes: axes.map(|axes| axes.filter_map(Value::as_u64).collect()).collect(),
        }))
    }
}

/// The size of a sample for a person.
fn size(shape: &Value) -> String {
    let names = ["frames", "channels", "height", "width", "length"];
    let sizes = names.iter().filter_map(|name| Some(format!("{name} {}", shape[*name].as_u64()?)));
    sizes.collect::<Vec<_>>().join(", ")
}

/// The codebooks of a file, in the order of their names.
fn levels(path: &Path) -> Result<Vec<Level>, ReportError> {
    let Some((mut file, tensors)) = header(path)? else { return Ok(Vec::new()) };
    let mut levels = Vec::new();
    for (name, tensor) in &tensors {
        let Some(quantizer) = name.strip_suffix("codebook").filter(|rest| rest.ends_with('.'))
        else {
            continue;
        };
        let [num_codes, dim] = tensor.shape[..] else { continue };
        let Some(codes) = numbers(path, &mut file, tensor)? else { continue };
        let counts = match tensors.get(&format!("{quantizer}ema_counts")) {
            Some(counts) if counts.shape == [num_codes] => numbers(path, &mut file, counts)?,
            _ => None,
        };
        levels.push(Level {
            num_codes,
            dim,
            codes_kd: codes.into_iter().map(|value| value as f32).collect(),
            counts_k: counts.unwrap_or_default(),
            counted: Counted::Averages,
        });
    }
    Ok(levels)
}

/// Counts of `tessera tables` in the place of moving averages: a table has 1 for a code that was never taken.
fn count(path: &Path, levels: &mut Vec<Level>) -> Result<(), ReportError> {
    let Some((mut file, tensors)) = header(path)? else { return Ok(()) };
    for number in 0.. {
        let Some(table) = tensors.get(&format!("level.{number}")) else { break };
        let [positions, num_codes] = table.shape[..] else { break };
        let Some(shares) = numbers(path, &mut file, table)? else { break };
        let mut counts_k = vec![0.0; num_codes];
        for at in 0..positions * num_codes {
            counts_k[at % num_codes] += (shares[at] - 1.0).max(0.0);
        }
        if counts_k.iter().all(|count| *count == 0.0) {
            continue;
        }
        let known = levels.len();
        match levels.get_mut(number) {
            Some(level) if level.num_codes == num_codes => {
                level.counts_k = counts_k;
                level.counted = Counted::Tables;
            }
            // Quantisers without a codebook: their codes have no place, and are taken all the same.
            None if known == number => levels.push(Level {
                num_codes,
                dim: 0,
                codes_kd: Vec::new(),
                counts_k,
                counted: Counted::Tables,
            }),
            _ => {}
        }
    }
    Ok(())
}

fn header(path: &Path) -> Result<Option<(File, Tensors)>, ReportError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(ReportError::read(path))?,
    };
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(ReportError::read(path))?;
    let length = u64::from_le_bytes(length);
    if length > MOST_HEADER {
        return Err(ReportError::content(
            path,
            "it is no safetensors file: its header is too long",
        ));
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(ReportError::read(path))?;
    let mut all: BTreeMap<String, Value> =
        serde_json::from_slice(&text).map_err(ReportError::json(path))?;
    all.remove("__metadata__");
    let mut tensors = BTreeMap::new();
    for (name, tensor) in all {
        let mut tensor: Tensor = serde_json::from_value(tensor).map_err(ReportError::json(path))?;
        tensor.data_offsets.0 += 8 + length;
        tensor.data_offsets.1 += 8 + length;
        tensors.insert(name, tensor);
    }
    Ok(Some((file, tensors)))
}

/// The values of a tensor; none where it is of a kind, or of a size, that is not read.
fn numbers(path: &Path, file: &mut File, tensor: &Tensor) -> Result<Option<Vec<f64>>, ReportError> {
    let (from, to) = tensor.data_offsets;
    let size = if tensor.dtype == "F64" { 8 } else { 4 };
    let length = to.saturating_sub(from);
    let wanted =
        tensor.shape.iter().try_fold(size, |product: usize, side| product.checked_mul(*side));
    if !matches!(tensor.dtype.as_str(), "F32" | "F64" | "U32") || length > MOST_TENSOR {
        return Ok(None);
    }
    if wanted.map(|wanted| wanted as u64) != Some(length) {
        return Err(ReportError::content(path, "a tensor has other bytes than its shape says"));
    }
    let mut bytes = vec![0; length as usize];
    file.seek(SeekFrom::Start(from))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(ReportError::read(path))?;
    let four = |part: &[u8]| -> [u8; 4] { part.try_into().expect("parts of four") };
    let numbers = match tensor.dtype.as_str() {
        "F32" => bytes.chunks_exact(4).map(|part| f32::from_le_bytes(four(part)).into()).collect(),
        "U32" => bytes.chunks_exact(4).map(|part| u32::from_le_bytes(four(part)).into()).collect(),
        _ => bytes
            .chunks_exact(8)
            .map(|part| f64::from_le_bytes(part.try_into().expect("parts of eight")))
            .collect(),
    };
    Ok(Some(numbers))
}
