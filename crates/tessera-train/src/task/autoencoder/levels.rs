//! The levels of a model in training: down from samples to codes, and back with the gradients that gather at them.
//!
//! The graph is cut at every quantiser, and, where there are several levels, wherever two chains read the same tensor.
//! What lies before a cut goes on from a leaf; gradients gather there until all that reads it has been gone through, and
//! go back from there. Levels are quantised from the coarsest to the finest, and gone through the other way round.

use tch::Tensor;
use tessera_nn::backbone::Backbone;
use tessera_nn::chain::Chain;
use tessera_nn::parameters::Stage;
use tessera_nn::quantize::{self, LateLoss, Lens, Path, Quantized};
use tessera_nn::recompute::add;
use tessera_nn::{from_vectors, loss, to_vectors};

use super::Autoencoder;
use super::chains::{Chains, Gathered, Passed, trained_leaves};
use super::pass::{COUNTS, DISTRIBUTION, STATISTICS};
use crate::engine::step::Sums;
use crate::error::TrainError;
use crate::task::Part;

/// A level's tokens after its quantiser.
pub(super) struct Level<'a> {
    /// The latents, with what they were made of.
    passed: Passed,
    /// Where the chain that made them begins: its input as a leaf; none where that is the samples.
    input: Option<Tensor>,
    /// Codes `[N, D, ..]`, a leaf.
    pub(super) cut: Tensor,
    /// None where nothing before the decoder is trained.
    path: Option<Path>,
    loss: Tensor,
    late: Vec<LateLoss<'a>>,
    /// Gradient at the cut; not defined before there is any.
    at_cut: Tensor,
}

/// Features of a level that is not the coarsest, on their way to it and to the next coarser one.
struct Features {
    passed: Passed,
    /// Where their chain begins; none where that is the samples.
    input: Option<Tensor>,
    leaf: Tensor,
    at_leaf: Tensor,
}

/// What a finer level is told of a coarser one's codes.
struct Told {
    passed: Passed,
    /// Channels of it.
    channels: i64,
}

/// All levels of a part, gone down.
pub(super) struct Levels<'a> {
    /// Of all levels but the coarsest, from fine to coarse.
    features: Vec<Features>,
    /// Of all levels but the finest, from fine to coarse.
    told: Vec<Told>,
    /// From fine to coarse.
    pub(super) all: Vec<Level<'a>>,
}

impl Autoencoder {
    pub(super) fn chains(&self) -> Chains<'_> {
        Chains { parameters: &self.model.parameters, recompute: self.recompute }
    }

    fn backbone(&self) -> &dyn Backbone {
        &*self.model.backbone
    }

    /// The chain that makes the latents of a level, the coarsest being `coarsest`.
    fn to_latents(&self, level: usize, coarsest: usize) -> &Chain {
        let backbone = self.backbone();
        match level == coarsest {
            true => self.to_features(level),
            false => &backbone.above()[level].merge,
        }
    }

    /// The chain that makes the features of a level.
    fn to_features(&self, level: usize) -> &Chain {
        match level {
            0 => self.backbone().encoder(),
            _ => &self.backbone().above()[level - 1].down,
        }
    }

    /// Buffers of the quantiser of a level.
    fn buffers(&self, level: usize, sums: &Sums<'_>) -> quantize::Sums {
        let statistics = match self.has_frozen_quantizer {
            true => {
                let (kind, device) = (self.model.kind(), self.model.device());
                let lens =
                    self.model.quantizers.iter().map(|quantizer| quantizer.lens().statistics);
                Tensor::zeros([lens.sum::<i64>()], (kind, device))
            }
            false => sums.piece(STATISTICS),
        };
        let (counts, distribution) = (sums.piece(COUNTS), sums.piece(DISTRIBUTION));
        let all = quantize::Sums { counts, statistics, distribution };
        all.part(self.start_of(level), self.model.quantizers[level].lens())
    }

    /// Where a level's sums begin in those of all.
    pub(super) fn start_of(&self, level: usize) -> Lens {
        let before = self.model.quantizers[..level].iter();
        before.fold(Lens::default(), |start, quantizer| start.plus(quantizer.lens()))
    }

    /// A level after its quantiser; where that and the encoder are frozen, by the rule of an evaluation.
    fn quantize(
        &self,
        level: usize,
        (passed, input): (Passed, Option<Tensor>),
        part: &Part,
        sums: &Sums<'_>,
    ) -> Level<'_> {
        let (quantizer, parameters) = (&self.model.quantizers[level], &self.model.parameters);
        let latents_nd = to_vectors(&passed.output);
        let (output_nd, path, mut loss, late) = if self.trains_decoder_alone() {
            let indices_nl = quantizer.tokenize(parameters, &latents_nd);
            let output_nd = quantizer.look_up(parameters, &indices_nl);
            let counts = sums.piece(COUNTS);
            let lens = quantizer.lens();
            let counts = counts.narrow(0, self.start_of(level).counts, lens.counts);
            super::pass::count(&indices_nl, &quantizer.num_codes(), &counts);
            let loss = Tensor::zeros([], (latents_nd.kind(), latents_nd.device()));
            (output_nd, None, loss, Vec::new())
        } else {
            let (place, buffers) = (self.place(level, part), self.buffers(level, sums));
            let quantized = quantizer.forward(parameters, &latents_nd, &place, &buffers);
            let Quantized { output_nd, path, loss, late, indices_nl: _ } = quantized;
            (output_nd, Some(path), loss, late)
        };
        // A quantiser may make a plain code of a latent that is not finite.
        loss += loss::zero_if_finite(&latents_nd);
        let cut = from_vectors(&output_nd, &passed.output).set_requires_grad(path.is_some());
        Level { passed, input, cut, path, loss, late, at_cut: Tensor::new() }
    }

    /// Down from samples to the codes of all levels.
    pub(super) fn go_down(
        &self,
        samples_nc: &Tensor,
        part: &Part,
        sums: &mut Sums<'_>,
    ) -> Levels<'_> {
        let (chains, above) = (self.chains(), self.backbone().above());
        let coarsest = above.len();
        let trains_encoder = self.model.parameters.trains(Stage::Encoder);
        let flows = !self.trains_decoder_alone();
        let samples_nc = &self.model.seen(samples_nc);
        let mut features: Vec<Features> = Vec::new();
        let mut next = None;
        for level in 0..=coarsest {
            let input: Option<Tensor> = features.last().map(|finer| finer.leaf.shallow_clone());
            let of = input.as_ref().unwrap_or(samples_nc);
            let passed = chains.forward(self.to_features(level), of, trains_encoder);
            if level == coarsest {
                next = Some((passed, input));
            } else {
                let leaf = passed.leaf(trains_encoder);
                features.push(Features { passed, input, leaf, at_leaf: Tensor::new() });
            }
        }
        sums.lap(super::pass::ENCODE);
        let (mut all, mut told) = (Vec::new(), Vec::new());
        for level in (0..=coarsest).rev() {
            let latents = next.take().expect("each level leaves the next one its latents");
            let of_level = self.quantize(level, latents, part, sums);
            if level > 0 {
                let context = chains.forward(&above[level - 1].context, &of_level.cut, flows);
                let features = &features[level - 1].leaf;
                let both = Tensor::cat(&[&context.output, features], 1);
                let input = both.detach().set_requires_grad(flows);
                let passed = chains.forward(&above[level - 1].merge, &input, flows);
                told.push(Told { channels: context.output.size()[1], passed: context });
                next = Some((passed, Some(input)));
            }
            all.push(of_level);
        }
        all.reverse();
        told.reverse();
        Levels { features, told, all }
    }
}

impl Levels<'_> {
    /// Codes of each level as the decoder's side reads them, the finest first.
    pub(super) fn cuts(&self) -> Vec<Tensor> {
        self.all.iter().map(|level| level.cut.shallow_clone()).collect()
    }

    /// Whether gradients go back through the cuts.
    pub(super) fn flows(&self) -> bool {
        self.all.iter().all(|level| level.path.is_some())
    }

    /// Adds gradients at the cuts, the finest level's first.
    pub(super) fn add_to_cuts(&mut self, gradients: &[Tensor]) {
        for (level, gradient) in self.all.iter_mut().zip(gradients) {
            add(&mut level.at_cut, gradient);
        }
    }

    /// Adds to each level's losses those that hang on the whole batch's distribution.
    pub(super) fn complete_losses(&mut self, model: &Autoencoder, sums: &Sums<'_>) {
        for (number, level) in self.all.iter_mut().enumerate() {
            if level.late.is_empty() {
                continue;
            }
            let (start, lens) = (model.start_of(number), model.model.quantizers[number].lens());
            let distribution = sums.whole(DISTRIBUTION);
            let distribution = distribution.narrow(0, start.distribution, lens.distribution);
            for loss in std::mem::take(&mut level.late) {
                level.loss += loss(&distribution);
            }
        }
    }

    /// Whether any loss hangs on the whole batch's distribution.
    pub(super) fn has_late_losses(&self) -> bool {
        self.all.iter().any(|level| !level.late.is_empty())
    }

    /// The sum of the quantisers' losses.
    pub(super) fn loss(&self) -> Tensor {
        let mut losses = self.all.iter().map(|level| level.loss.detach());
        let first = losses.next().expect("there is a level");
        losses.fold(first, |sum, loss| sum + loss)
    }

    /// Back up from the cuts, where all gradients have gathered: those of quantisers and encoder.
    pub(super) fn go_back(self, model: &Autoencoder) -> Result<[Gathered; 2], TrainError> {
        let Self { mut features, mut told, mut all } = self;
        let (chains, parameters) = (model.chains(), &model.model.parameters);
        let quantizers = trained_leaves(parameters, Stage::Quantizer);
        let encoders = trained_leaves(parameters, Stage::Encoder);
        let [mut at_quantizers, mut at_encoders] = [Gathered::default(), Gathered::default()];
        if quantizers.is_empty() && encoders.is_empty() {
            return Ok([at_quantizers, at_encoders]);
        }
        let coarsest = all.len() - 1;
        told.reverse();
        all.reverse();
        for number in 0..=coarsest {
            let level = all.pop().expect("one for each number");
            let Some(path) = level.path else { continue };
            let root = path.root(&to_vectors(&level.at_cut)) + &level.loss;
            let chain = model.to_latents(number, coarsest);
            let leaves = [&quantizers[..], &encoders];
            let input = level.input.as_ref().filter(|input| input.requires_grad());
            let mut gradients = chains.backward(chain, level.passed, &root, leaves, input)?;
            let at_input = input.map(|_| gradients.pop().expect("the input's is the last"));
            at_encoders.add(&gradients.split_off(quantizers.len()));
            at_quantizers.add(&gradients);
            let Some(at_input) = at_input else { continue };
            if number == coarsest {
                add(&mut features[number - 1].at_leaf, &at_input);
                continue;
            }
            let Told { passed, channels } = told.pop().expect("one for each finer level");
            let behind = at_input.size()[1] - channels;
            add(&mut features[number].at_leaf, &at_input.narrow(1, channels, behind));
            let coarser = all.last_mut().expect("a coarser level");
            let root = passed.root(&at_input.narrow(1, 0, channels));
            let chain = &model.backbone().above()[number].context;
            let mut gradients =
                chains.backward(chain, passed, &root, [&[], &encoders], Some(&coarser.cut))?;
            add(&mut coarser.at_cut, &gradients.pop().expect("the input's is the last"));
            at_encoders.add(&gradients);
        }
        while let Some(Features { passed, input, at_leaf, .. }) = features.pop() {
            if encoders.is_empty() {
                break;
            }
            let root = passed.root(&at_leaf);
            let chain = model.to_features(features.len());
            let mut gradients =
                chains.backward(chain, passed, &root, [&[], &encoders], input.as_ref())?;
            if let Some(finer) = features.last_mut() {
                add(&mut finer.at_leaf, &gradients.pop().expect("the input's is the last"));
            }
            at_encoders.add(&gradients);
        }
        Ok([at_quantizers, at_encoders])
    }
}
