//! Vectors by a TorchScript file, such as an Inception network that someone has exported.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{CModule, Device, Kind, Tensor};

use super::vgg::one_line;

/// How a file takes pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScriptInput {
    /// float32 in [0, 1].
    #[default]
    Float,
    /// uint8, 0 to 255.
    Bytes,
}

/// A module that takes `[N, C, H, W]` and gives `[N, F]`.
#[derive(Debug)]
pub struct Script {
    module: CModule,
    input: ScriptInput,
    shape: [i64; 3],
    device: Device,
}

impl Script {
    /// Opens a file and tries it on two black pictures of this size, which have to give two vectors.
    /// Whatever it needs besides (another size, three channels, a normalisation), it does itself. It is
    /// put into evaluation mode.
    ///
    /// # Errors
    ///
    /// One line that names the file and says what it did.
    pub fn open(
        path: &Path,
        input: ScriptInput,
        [channels, height, width]: [i64; 3],
        device: Device,
    ) -> Result<Self, String> {
        let of_file = |what: String| format!("{}: {what}", path.display());
        let mut module = CModule::load_on_device(path, device).map_err(|error| {
            of_file(format!("cannot be opened as TorchScript: {}", one_line(&error.to_string())))
        })?;
        module.set_eval();
        let script = Self { module, input, shape: [channels, height, width], device };
        let images = Tensor::zeros([2, channels, height, width], (Kind::Float, device));
        let output = tch::no_grad(|| script.forward(&images)).map_err(|error| {
            of_file(format!("does not take pictures of {channels} x {height} x {width}: {error}"))
        })?;
        if output.dim() != 2 || output.size()[0] != 2 || !output.is_floating_point() {
            return Err(of_file(format!(
                "should give float [2, F] for two pictures, gave {:?} {:?}",
                output.kind(),
                output.size()
            )));
        }
        Ok(script)
    }

    pub(super) fn validate(&self, channels: i64, height: i64, width: i64) -> Result<(), String> {
        if self.shape == [channels, height, width] {
            return Ok(());
        }
        let [wanted_channels, wanted_height, wanted_width] = self.shape;
        Err(format!(
            "the TorchScript file was opened for pictures of {wanted_channels} x {wanted_height} x \
             {wanted_width}, these are {channels} x {height} x {width}"
        ))
    }

    /// `[N, F]`.
    pub(super) fn vector(&self, images_nchw: &Tensor) -> Tensor {
        // Many modules cannot compute with no samples, which has a width all the same.
        let num = images_nchw.size()[0];
        let [channels, height, width] = self.shape;
        let images = if num > 0 {
            images_nchw.shallow_clone()
        } else {
            Tensor::zeros([1, channels, height, width], (Kind::Float, self.device))
        };
        let vectors = self.forward(&images).expect("it took such pictures when it was opened");
        vectors.narrow(0, 0, num)
    }

    fn forward(&self, images_nchw: &Tensor) -> Result<Tensor, String> {
        let images = match self.input {
            ScriptInput::Float => images_nchw.to_kind(Kind::Float),
            ScriptInput::Bytes => {
                (images_nchw.clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8)
            }
        };
        self.module.forward_ts(&[images]).map_err(|error| last_line(&error.to_string()).to_owned())
    }
}

/// What a traceback ends with is the reason.
fn last_line(message: &str) -> &str {
    message.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim()
}
