//! Sound that comes piece by piece: to latents, and latents to sound, of a causal network.
//!
//! Layers keep what [`crate::layers::stream`] says, an LSTM h and c, attention the keys and values of its window. Pieces
//! are whole hops and the results those of the whole sound, but for the order of sums. Padding by reflection needs the
//! first samples together, so the first piece of such a stream has [`Stream::first_len`] of them at least. A network that
//! is not causal, or whose decoder's outputs see later codes, has no stream.

use tch::Tensor;

use super::attention::{Layer, Seen};
use super::blocks::{Act, Output, Part, Unit};
use super::{Conv1d, Side};
use crate::chain::Block;
use crate::layers::{ConvStream, ConvTransposeStream, Lstm, LstmState};
use crate::parameters::Parameters;
use crate::vqvae::VqVae;

/// One side of a network, and what it remembers of the pieces so far.
#[derive(Debug)]
pub struct Stream<'a> {
    parameters: &'a Parameters,
    steps: Vec<Step<'a>>,
    /// Positions that a piece is a multiple of.
    multiple: i64,
    first_len: i64,
    has_begun: bool,
}

/// A layer, and what it remembers.
#[derive(Debug)]
enum Step<'a> {
    Conv(ConvStream<'a>),
    Act(&'a Act),
    Unit(Box<UnitStream<'a>>),
    Up(ConvTransposeStream<'a>),
    Lstm(&'a Lstm, Option<LstmState>),
    Attention(&'a Layer, Seen),
    Output(ConvStream<'a>, &'a Output),
}

/// A residual block, and what its convolutions remember.
#[derive(Debug)]
struct UnitStream<'a> {
    unit: &'a Unit,
    conv1: ConvStream<'a>,
    conv2: ConvStream<'a>,
    shortcut: Option<ConvStream<'a>>,
}

impl<'a> Stream<'a> {
    /// Samples `[N, C, T]` to latents `[N, D, T / hop]`, from silence on. `N` is that of the first piece.
    ///
    /// # Errors
    ///
    /// One line, where the model's network cannot be streamed.
    pub fn encoder(model: &'a VqVae) -> Result<Self, String> {
        let network = network(model)?;
        Self::new(network, &network.encoder, &model.parameters, true)
    }

    /// Codes `[N, D, T]` to samples `[N, C, T hop]`, likewise. What the samples stand for is said by
    /// [`VqVae::values`](crate::VqVae::values).
    ///
    /// # Errors
    ///
    /// As [`Self::encoder`].
    pub fn decoder(model: &'a VqVae) -> Result<Self, String> {
        let network = network(model)?;
        Self::new(network, &network.decoder, &model.parameters, false)
    }

    fn new(
        network: &'a Conv1d,
        side: &'a Side,
        parameters: &'a Parameters,
        is_encoder: bool,
    ) -> Result<Self, String> {
        let config = &network.config;
        if !config.causal {
            return Err(
                "a network with model.backbone.causal = false sees later sound and cannot \
                        be streamed: compute it on the whole sound"
                    .to_owned(),
            );
        }
        let steps: Option<Vec<Step<'a>>> =
            side.parts.iter().map(|part| Step::new(part, parameters)).collect();
        let steps = steps.ok_or_else(|| {
            format!(
                "a decoder with model.backbone.trim_right_ratio = {} sees later codes and cannot be \
                 streamed: compute it on the whole sound",
                config.trim_right_ratio
            )
        })?;
        let multiple = if is_encoder { config.hop() } else { 1 };
        let first_len = first_len(&steps, multiple);
        Ok(Self { parameters, steps, multiple, first_len, has_begun: false })
    }

    /// Positions that the first piece has at least: samples of an encoder, codes of a decoder.
    pub fn first_len(&self) -> i64 {
        self.first_len
    }

    /// The next piece, of whole hops, in the master kind: what has become known by it.
    ///
    /// # Errors
    ///
    /// One line, where the piece is not of whole hops, or is the first and shorter than [`Self::first_len`]. Nothing is
    /// remembered of it.
    pub fn push(&mut self, piece: &Tensor) -> Result<Tensor, String> {
        let len = piece.size()[2];
        if len == 0 || len % self.multiple != 0 {
            return Err(format!(
                "a piece of a stream should have a multiple of {} positions, found {len}",
                self.multiple
            ));
        }
        if !self.has_begun && len < self.first_len {
            return Err(format!(
                "the first piece of a stream should have at least {} positions, found {len}",
                self.first_len
            ));
        }
        self.has_begun = true;
        let _no_grad = tch::no_grad_guard();
        let parameters = self.parameters;
        let mut hidden = piece.to_kind(parameters.compute_kind());
        for step in &mut self.steps {
            hidden = step.push(parameters, &hidden);
        }
        Ok(hidden.to_kind(parameters.flat().kind()))
    }
}

fn network(model: &VqVae) -> Result<&Conv1d, String> {
    model.backbone.as_conv1d().ok_or_else(|| {
        "this network cannot be streamed, model.backbone.kind = \"conv1d\" can".to_owned()
    })
}

/// Positions of the first piece, a multiple of `multiple`, with which each convolution has the inputs that it mirrors.
fn first_len(steps: &[Step<'_>], multiple: i64) -> i64 {
    // A position of the layer is so many of the piece's: a fraction.
    let (mut over, mut under) = (1, 1);
    let mut most = multiple;
    for step in steps {
        let wanted = match step {
            Step::Conv(conv) | Step::Output(conv, _) => conv.first_len(),
            Step::Unit(unit) => unit.conv1.first_len().max(unit.conv2.first_len()),
            Step::Act(_) | Step::Up(_) | Step::Lstm(..) | Step::Attention(..) => 1,
        };
        most = most.max((wanted * over + under - 1) / under);
        match step {
            Step::Conv(conv) => over *= conv.stride(),
            Step::Up(conv) => under *= conv.stride(),
            _ => {}
        }
    }
    (most + multiple - 1) / multiple * multiple
}

impl<'a> Step<'a> {
    /// Before the first piece; none where the layer sees what comes later.
    fn new(part: &'a Part, parameters: &Parameters) -> Option<Self> {
        Some(match part {
            Part::Conv(conv) => Self::Conv(ConvStream::new(conv, parameters)?),
            Part::Act(act) => Self::Act(act),
            Part::Unit(unit) => Self::Unit(Box::new(UnitStream {
                unit,
                conv1: ConvStream::new(&unit.conv1, parameters)?,
                conv2: ConvStream::new(&unit.conv2, parameters)?,
                shortcut: match &unit.shortcut {
                    Some(shortcut) => Some(ConvStream::new(shortcut, parameters)?),
                    None => None,
                },
            })),
            Part::Up(conv) => Self::Up(ConvTransposeStream::new(conv, parameters)?),
            Part::Lstm(lstm) => Self::Lstm(lstm, None),
            Part::Attention(layer) => Self::Attention(layer, Seen::default()),
            Part::Output(output) => {
                Self::Output(ConvStream::new(&output.conv, parameters)?, output)
            }
        })
    }

    fn push(&mut self, parameters: &Parameters, piece: &Tensor) -> Tensor {
        match self {
            Self::Conv(conv) => conv.push(piece),
            Self::Act(act) => act.forward(parameters, piece),
            Self::Unit(stream) => stream.push(parameters, piece),
            Self::Up(conv) => conv.push(piece),
            Self::Lstm(lstm, state) => {
                let (output, next) = lstm.forward_from(parameters, piece, state.as_ref());
                *state = Some(next);
                output + piece
            }
            Self::Attention(layer, seen) => layer.push(parameters, piece, seen),
            Self::Output(conv, output) => output.of(conv.push(piece)),
        }
    }
}

impl UnitStream<'_> {
    fn push(&mut self, parameters: &Parameters, piece: &Tensor) -> Tensor {
        let hidden = self.conv1.push(&self.unit.act1.forward(parameters, piece));
        let hidden = self.conv2.push(&self.unit.act2.forward(parameters, &hidden));
        match &mut self.shortcut {
            Some(shortcut) => hidden + shortcut.push(piece),
            None => hidden + piece,
        }
    }
}
