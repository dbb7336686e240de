//! Layers over [`Parameters`](crate::Parameters): what networks are built of.
//!
//! A layer declares its tensors under a [`Scope`] and keeps their handles; its forward pass takes
//! the parameters that came of it. Shapes are `[N, C, ..]` with one, two or three positional axes,
//! or rows with their channels last where a layer says so. Input and parameters are of one kind
//! and on one device. Initial values are PyTorch's defaults unless a layer says otherwise: uniform
//! within 1 / sqrt(fan-in) for weights and biases.
//!
//! Memory order is never visible in a shape or a name. Every layer takes a batch of no samples,
//! which a rank may have.

pub mod activation;
pub mod attention;
pub mod conv;
pub mod conv_transpose;
pub mod haar;
pub mod linear;
pub mod lstm;
pub mod norm;
pub mod padding;
pub mod pointwise;
pub mod resample;
pub mod rotary;
mod steps;
pub mod stream;
mod weight;

pub use self::activation::{Activation, Snake};
pub use self::attention::{Attention, AttentionConfig, Mask};
pub use self::conv::{Conv, ConvConfig};
pub use self::conv_transpose::{ConvTranspose, ConvTransposeConfig, Trim};
pub use self::linear::{Linear, LinearConfig};
pub use self::lstm::{Lstm, LstmState};
pub use self::norm::{FrameNorm, GroupNorm, LayerNorm, RmsNorm};
pub use self::padding::{Amount, Fill, Pad};
pub use self::pointwise::Pointwise;
pub use self::rotary::Rotary;
pub use self::stream::{ConvStream, ConvTransposeStream};
use crate::parameters::{Declarations, Init, ParameterId, Role, Stage};

/// Where a layer sits: its stage, and the dotted name in front of its tensors.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The part of the model.
    pub stage: Stage,
    /// The name, without a dot at its end.
    pub name: String,
}

impl Scope {
    /// The outermost scope of a stage.
    pub fn new(stage: Stage, name: &str) -> Self {
        Self { stage, name: name.to_owned() }
    }

    /// A scope within this one.
    pub fn child(&self, name: &str) -> Self {
        Self { stage: self.stage, name: format!("{}.{name}", self.name) }
    }

    /// Declares a tensor of this scope.
    ///
    /// # Panics
    ///
    /// Those of [`Declarations::declare`].
    pub fn declare(
        &self,
        to: &mut Declarations,
        name: &str,
        shape: &[i64],
        role: Role,
        init: Init,
    ) -> ParameterId {
        to.declare(format!("{}.{name}", self.name), shape, self.stage, role, init)
    }
}
