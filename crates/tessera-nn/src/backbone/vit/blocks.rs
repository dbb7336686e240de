//! The blocks of the transformer. Tokens are rows `[N, L, W]`: with latent tokens the class token,
//! the patches row by row and the latents, else the patches alone.

use tch::Tensor;

use super::DEVIATION;
use crate::chain::Block;
use crate::graph::{Each, Graph, Op, Sight, Value, constant};
use crate::layers::{
    Activation, Attention, AttentionConfig, Conv, ConvConfig, LayerNorm, Linear, LinearConfig,
    Mask, Pointwise, Scope,
};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};
use crate::signal::{channels_first, rows};

/// PyTorch's default.
const EPS: f64 = 1e-5;

/// What the tokens of one picture are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens {
    /// Patches along height and width.
    pub(super) grid: [i64; 2],
    /// Latent tokens; 0: the patches are the latents.
    pub(super) num_latents: i64,
    /// Channels of a token.
    pub(super) width: i64,
}

impl Tokens {
    fn num_patches(self) -> i64 {
        self.grid[0] * self.grid[1]
    }

    /// Class tokens, which lie before the patches.
    fn num_classes(self) -> i64 {
        i64::from(self.num_latents > 0)
    }

    /// First and number of the latent tokens.
    pub(super) fn latents(self) -> Option<(i64, i64)> {
        (self.num_latents > 0).then(|| (1 + self.num_patches(), self.num_latents))
    }

    /// First and number of the patches, where there are other tokens too.
    pub(super) fn patches(self) -> Option<(i64, i64)> {
        (self.num_latents > 0).then(|| (1, self.num_patches()))
    }

    /// Declares a token, or positions, of this shape before the width.
    fn declare(
        self,
        to: &mut Declarations,
        scope: &Scope,
        name: &str,
        shape: &[i64],
    ) -> ParameterId {
        let shape = [shape, &[self.width]].concat();
        scope.declare(to, name, &shape, Role::Position, self.init())
    }

    /// How tokens and positions start.
    fn init(self) -> Init {
        Init::Normal(1.0 / (self.width as f64).sqrt())
    }
}

/// What both sides begin with: positions, the class token where there are latent tokens, and the
/// norm before the transformer.
#[derive(Debug)]
struct Start {
    /// `[classes + patches, W]`.
    positions: ParameterId,
    with_latents: Option<WithLatents>,
    ln_pre: LayerNorm,
}

/// What a side has besides where there are latent tokens.
#[derive(Debug)]
struct WithLatents {
    /// `[1, W]`.
    class: ParameterId,
    /// `[n, W]`.
    positions: ParameterId,
}

impl Start {
    fn new(to: &mut Declarations, scope: &Scope, tokens: Tokens) -> Self {
        let with_latents = (tokens.num_latents > 0).then(|| WithLatents {
            class: tokens.declare(to, scope, "class_embedding", &[1]),
            positions: tokens.declare(
                to,
                scope,
                "latent_token_positional_embedding",
                &[tokens.num_latents],
            ),
        });
        let num_positions = tokens.num_classes() + tokens.num_patches();
        let positions = tokens.declare(to, scope, "positional_embedding", &[num_positions]);
        let ln_pre = LayerNorm::new(to, &scope.child("ln_pre"), tokens.width, EPS);
        Self { positions, with_latents, ln_pre }
    }

    /// Tokens of `num` samples, from patches and latents `[N or 1, .., W]` without their positions;
    /// one of the two may be one token for all places.
    fn forward(
        &self,
        parameters: &Parameters,
        num: i64,
        patches: &Tensor,
        latents: Option<&Tensor>,
    ) -> Tensor {
        let positions = parameters.get(self.positions);
        let tokens = match (&self.with_latents, latents) {
            (Some(with), Some(latents)) => {
                let [class, of_patches] = with.class_and_patches(parameters, positions);
                let patches = patches + of_patches;
                let latents = latents + parameters.get(with.positions);
                let parts = [class.unsqueeze(0), patches, latents];
                Tensor::cat(&parts.map(|part| part.expand([num, -1, -1], false)), 1)
            }
            _ => patches + positions,
        };
        self.ln_pre.forward(parameters, &tokens)
    }
}

impl Start {
    /// Adds the normed tokens to `graph`, of patches `[N, W, rows, columns]` that are all there are.
    fn describe_grid(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        patches: Value,
        grid: [i64; 2],
    ) -> Result<Value, String> {
        let positions = columns(parameters.get(self.positions)).unflatten(2, grid);
        let placed = graph.add_constant(patches, &positions);
        self.ln_pre.describe(parameters, graph, placed)
    }

    /// The same of tokens `[N, W, L]` at the positions `[L, W]`, between constant ones.
    fn describe_among(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        tokens: Value,
        positions_lw: &Tensor,
        [before, behind]: [Option<Tensor>; 2],
    ) -> Result<Value, String> {
        let placed = graph.add_constant(tokens, &columns(positions_lw));
        let [before, behind] =
            [before, behind].map(|rows| rows.map(|rows| constant(&columns(&rows))));
        let all = graph.push(Op::Surround { before, behind }, &[placed]);
        self.ln_pre.describe(parameters, graph, all)
    }
}

impl WithLatents {
    /// The class token at its position `[1, W]`, and the positions of patches `[patches, W]`, where `positions_lw` are those of
    /// both.
    fn class_and_patches(&self, parameters: &Parameters, positions_lw: &Tensor) -> [Tensor; 2] {
        let class = parameters.get(self.class) + positions_lw.narrow(0, 0, 1);
        [class, positions_lw.narrow(0, 1, positions_lw.size()[0] - 1)]
    }
}

/// Rows `[L, W]` as columns of one sample, `[1, W, L]`.
fn columns(rows_lw: &Tensor) -> Tensor {
    rows_lw.tr().unsqueeze(0)
}

/// Pictures `[N, C, H, W]` to the encoder's tokens.
#[derive(Debug)]
pub(super) struct Patches {
    patch_embed: Conv,
    start: Start,
    tokens: Tokens,
    /// `[n, W]`.
    latent_tokens: Option<ParameterId>,
}

impl Patches {
    pub(super) fn new(
        to: &mut Declarations,
        scope: &Scope,
        patch: i64,
        channels: i64,
        tokens: Tokens,
    ) -> Self {
        let config = ConvConfig {
            stride: vec![patch; 2],
            deviation: Some(DEVIATION),
            ..ConvConfig::new(channels, tokens.width, &[patch, patch])
        };
        let patch_embed = Conv::new(to, &scope.child("patch_embed"), config);
        let start = Start::new(to, scope, tokens);
        let shape = [tokens.num_latents, tokens.width];
        // TiTok's name, which has no scope.
        let latent_tokens = (tokens.num_latents > 0).then(|| {
            let name = "latent_tokens".to_owned();
            to.declare(name, &shape, scope.stage, Role::Position, tokens.init())
        });
        Self { patch_embed, start, tokens, latent_tokens }
    }
}

impl Block for Patches {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let patches = rows(&self.patch_embed.forward(parameters, input));
        let latents = self.latent_tokens.map(|latents| parameters.get(latents).unsqueeze(0));
        self.start.forward(parameters, input.size()[0], &patches, latents.as_ref())
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let patches = self.patch_embed.describe(parameters, graph, input)?;
        let (start, tokens) = (&self.start, self.tokens);
        let (Some(with), Some(latents)) = (&start.with_latents, self.latent_tokens) else {
            return start.describe_grid(parameters, graph, patches, tokens.grid);
        };
        let positions = parameters.get(start.positions);
        let [class, of_patches] = with.class_and_patches(parameters, positions);
        let latents = parameters.get(latents) + parameters.get(with.positions);
        let shape = vec![tokens.width, tokens.num_patches()];
        let patches = graph.push(Op::Reshape(shape), &[patches]);
        let others = [Some(class), Some(latents)];
        start.describe_among(parameters, graph, patches, &of_patches, others)
    }
}

/// Latents `[N, D, ..]` to the decoder's tokens.
#[derive(Debug)]
pub(super) struct FromLatents {
    decoder_embed: Linear,
    start: Start,
    grid: [i64; 2],
    /// `[1, 1, W]`.
    mask_token: Option<ParameterId>,
}

impl FromLatents {
    pub(super) fn new(to: &mut Declarations, scope: &Scope, dim: i64, tokens: Tokens) -> Self {
        let decoder_embed =
            Linear::new(to, &scope.child("decoder_embed"), linear(dim, tokens.width));
        let start = Start::new(to, scope, tokens);
        let mask_token =
            (tokens.num_latents > 0).then(|| tokens.declare(to, scope, "mask_token", &[1, 1]));
        Self { decoder_embed, start, grid: tokens.grid, mask_token }
    }
}

impl Block for FromLatents {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let latents = self.decoder_embed.forward(parameters, &rows(input));
        let num = input.size()[0];
        match self.mask_token {
            Some(mask) => self.start.forward(parameters, num, parameters.get(mask), Some(&latents)),
            None => self.start.forward(parameters, num, &latents, None),
        }
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let latents = self.decoder_embed.describe(parameters, graph, input)?;
        let start = &self.start;
        let (Some(with), Some(mask)) = (&start.with_latents, self.mask_token) else {
            return start.describe_grid(parameters, graph, latents, self.grid);
        };
        let positions = parameters.get(start.positions);
        let [class, of_patches] = with.class_and_patches(parameters, positions);
        let masks = parameters.get(mask).squeeze_dim(0) + of_patches;
        let others = [Some(Tensor::cat(&[class, masks], 0)), None];
        start.describe_among(parameters, graph, latents, parameters.get(with.positions), others)
    }
}

/// x + attention(norm(x)), then x + MLP(norm(x)), where the MLP is four times as wide within, with
/// an exact GELU.
#[derive(Debug)]
pub(super) struct Layer {
    ln_1: LayerNorm,
    attention: Attention,
    ln_2: LayerNorm,
    widen: Linear,
    narrow: Linear,
    kept: Option<(i64, i64)>,
}

impl Layer {
    /// Declares the parameters. Where `kept` gives the first token that is asked for and their
    /// number, only those leave the block, and its MLP computes no others.
    pub(super) fn new(
        to: &mut Declarations,
        scope: &Scope,
        width: i64,
        heads: i64,
        kept: Option<(i64, i64)>,
    ) -> Self {
        let ln_1 = LayerNorm::new(to, &scope.child("ln_1"), width, EPS);
        let config = AttentionConfig { width, heads, has_bias: true, deviation: Some(DEVIATION) };
        let attention = Attention::new(to, &scope.child("attn"), config);
        let ln_2 = LayerNorm::new(to, &scope.child("ln_2"), width, EPS);
        let widen = Linear::new(to, &scope.child("mlp.c_fc"), linear(width, 4 * width));
        let narrow = Linear::new(to, &scope.child("mlp.c_proj"), linear(4 * width, width));
        Self { ln_1, attention, ln_2, widen, narrow, kept }
    }
}

impl Block for Layer {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let hidden = self.ln_1.forward(parameters, input);
        let mut tokens = self.attention.forward(parameters, &hidden, Mask::All, None) + input;
        if let Some((first, num)) = self.kept {
            tokens = tokens.narrow(1, first, num).contiguous();
        }
        let hidden = self.widen.forward(parameters, &self.ln_2.forward(parameters, &tokens));
        self.narrow.forward(parameters, &Activation::Gelu.of(&hidden)) + tokens
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let hidden = self.ln_1.describe(parameters, graph, input)?;
        let hidden = self.attention.describe(parameters, graph, hidden, Sight::ALL, None)?;
        let mut tokens = graph.push(Op::Add, &[hidden, input]);
        if let Some((first, num)) = self.kept {
            let kept = Op::Slice { axis: 2, start: first, end: Some(first + num) };
            tokens = graph.push(kept, &[tokens]);
        }
        let hidden = self.ln_2.describe(parameters, graph, tokens)?;
        let hidden = self.widen.describe(parameters, graph, hidden)?;
        let hidden = graph.each(Each::Gelu, hidden);
        let hidden = self.narrow.describe(parameters, graph, hidden)?;
        Ok(graph.push(Op::Add, &[hidden, tokens]))
    }
}

/// The encoder's tokens that are kept, `[N, n or patches, W]`, to latents `[N, D, ..]`.
#[derive(Debug)]
pub(super) struct ToLatents {
    ln_post: LayerNorm,
    conv_out: Pointwise,
    /// Height and width, where the latents are a grid.
    grid: Option<[i64; 2]>,
}

impl ToLatents {
    pub(super) fn new(to: &mut Declarations, scope: &Scope, dim: i64, tokens: Tokens) -> Self {
        let ln_post = LayerNorm::new(to, &scope.child("ln_post"), tokens.width, EPS);
        let config = linear(tokens.width, dim);
        let conv_out = Pointwise::new(to, &scope.child("conv_out"), config);
        Self { ln_post, conv_out, grid: (tokens.num_latents == 0).then_some(tokens.grid) }
    }
}

impl Block for ToLatents {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let tokens = self.ln_post.forward(parameters, input);
        let latents_nld = self.conv_out.forward(parameters, &tokens);
        channels_first(&match self.grid {
            Some(grid) => latents_nld.unflatten(1, grid),
            None => latents_nld,
        })
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let tokens = self.ln_post.describe(parameters, graph, input)?;
        self.conv_out.describe(parameters, graph, tokens)
    }
}

/// The decoder's patches `[N, patches, W]` to pictures `[N, C, H, W]`.
#[derive(Debug)]
pub(super) struct ToPixels {
    ln_post: LayerNorm,
    /// To the rows, columns and channels of a patch, in this order.
    ffn: Pointwise,
    grid: [i64; 2],
    patch: i64,
    channels: i64,
}

impl ToPixels {
    pub(super) fn new(
        to: &mut Declarations,
        scope: &Scope,
        patch: i64,
        channels: i64,
        tokens: Tokens,
    ) -> Self {
        let ln_post = LayerNorm::new(to, &scope.child("ln_post"), tokens.width, EPS);
        let config = linear(tokens.width, patch * patch * channels);
        let ffn = Pointwise::new(to, &scope.child("ffn.0"), config);
        Self { ln_post, ffn, grid: tokens.grid, patch, channels }
    }
}

impl Block for ToPixels {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let tokens = self.ln_post.forward(parameters, input);
        let ([rows, columns], patch) = (self.grid, self.patch);
        let patches = self.ffn.forward(parameters, &tokens);
        let patches = patches.unflatten(-1, [patch, patch, self.channels]);
        let pixels = patches.unflatten(1, [rows, columns]).permute([0, 1, 3, 2, 4, 5]);
        let num = input.size()[0];
        channels_first(&pixels.reshape([num, rows * patch, columns * patch, self.channels]))
    }

    /// The layer makes pixel after pixel; its rows are put in the order of channels.
    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let mut tokens = self.ln_post.describe(parameters, graph, input)?;
        let (weight, bias) = self.ffn.tensors(parameters);
        if graph.num_axes(tokens) == 1 {
            let [rows, columns] = self.grid;
            let shape = vec![weight.size()[1], rows, columns];
            tokens = graph.push(Op::Reshape(shape), &[tokens]);
        }
        let by_channel =
            |rows: &Tensor| rows.unflatten(0, [-1, self.channels]).transpose(0, 1).flatten(0, 1);
        let bias = bias.map(|bias| by_channel(&bias));
        let patches = graph.linear(tokens, &by_channel(&weight), bias.as_ref());
        Ok(graph.push(Op::PixelShuffle(self.patch), &[patches]))
    }
}

/// A linear layer as it starts here.
fn linear(inputs: i64, outputs: i64) -> LinearConfig {
    LinearConfig { deviation: Some(DEVIATION), ..LinearConfig::new(inputs, outputs) }
}
