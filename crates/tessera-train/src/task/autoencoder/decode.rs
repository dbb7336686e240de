//! The decoder in training: from the codes of all levels to samples, and back to the cuts.

use tch::Tensor;
use tessera_nn::parameters::Stage;

use super::Autoencoder;
use super::chains::{Gathered, Passed, trained_leaves};
use super::levels::Levels;
use crate::error::TrainError;

/// Samples that were made of codes, with the graph back to those.
pub(super) struct Decoded {
    passed: Passed,
    /// What the decoder has read; a leaf.
    input: Tensor,
    /// Of each level but the finest, from fine to coarse: its codes at the finest level's size.
    raised: Vec<Passed>,
}

impl Decoded {
    /// The output `[N, C, ..]`.
    pub(super) fn output(&self) -> &Tensor {
        &self.passed.output
    }

    /// What makes the gradient at the output `at_output`.
    pub(super) fn root(&self, at_output: &Tensor) -> Tensor {
        self.passed.root(at_output)
    }
}

impl Autoencoder {
    /// The decoder on the codes of all levels, the coarsest on the first channels.
    pub(super) fn decode(&self, levels: &Levels<'_>) -> Decoded {
        let (input, raised) = self.decoder_input(levels);
        let passed = self.chains().forward(self.model.backbone.decoder(), &input, true);
        Decoded { passed, input, raised }
    }

    /// The same with the graph of the last layer alone.
    pub(super) fn decode_for_last(&self, levels: &Levels<'_>) -> Decoded {
        let (input, raised) = self.decoder_input(levels);
        let passed = self.chains().with_last_graph(self.model.backbone.decoder(), &input);
        Decoded { passed, input, raised }
    }

    /// Gradients at the weight of the last layer, from each of these at the output, one behind the other, flat.
    pub(super) fn at_last_layer(
        &self,
        decoded: &Decoded,
        at_output: [&Tensor; 2],
    ) -> Result<Tensor, TrainError> {
        let backbone = &self.model.backbone;
        let weight = self.model.parameters.get(backbone.output_weight());
        let mut both = Vec::new();
        for at_output in at_output {
            let passed = &decoded.passed;
            let gradient =
                self.chains().at_last_layer(backbone.decoder(), passed, at_output, weight)?;
            both.push(gradient.flatten(0, -1));
        }
        Ok(Tensor::cat(&both, 0))
    }

    /// What the decoder reads, and of each level but the finest its codes at the finest one's size.
    fn decoder_input(&self, levels: &Levels<'_>) -> (Tensor, Vec<Passed>) {
        let (chains, backbone) = (self.chains(), &self.model.backbone);
        let cuts = levels.cuts();
        let raise = |(above, cut): (&tessera_nn::backbone::Above, &Tensor)| {
            chains.forward(&above.up, cut, true)
        };
        let raised: Vec<Passed> = backbone.above().iter().zip(&cuts[1..]).map(raise).collect();
        let input = match raised.is_empty() {
            true => cuts[0].shallow_clone(),
            false => {
                let mut all = vec![&cuts[0]];
                all.extend(raised.iter().map(|passed| &passed.output));
                all.reverse();
                Tensor::cat(&all, 1).detach().set_requires_grad(true)
            }
        };
        (input, raised)
    }

    /// From a loss of the output back: gradients at the leaves of the decoder, none where it is frozen, and at the cut of
    /// each level, the finest first, none where none goes back.
    pub(super) fn decoder_backward(
        &self,
        decoded: Decoded,
        root: &Tensor,
        levels: &Levels<'_>,
    ) -> Result<(Vec<Tensor>, Vec<Tensor>), TrainError> {
        let Decoded { passed, input, raised } = decoded;
        let (chains, backbone) = (self.chains(), &self.model.backbone);
        let leaves = trained_leaves(&self.model.parameters, Stage::Decoder);
        let at = input.requires_grad().then_some(&input);
        let mut gradients =
            chains.backward(backbone.decoder(), passed, root, [&[], &leaves], at)?;
        let Some(at_input) = at.map(|_| gradients.pop().expect("the input's is the last")) else {
            return Ok((gradients, Vec::new()));
        };
        if raised.is_empty() {
            return Ok((gradients, vec![at_input]));
        }
        let mut at_leaves = Gathered::default();
        at_leaves.add(&gradients);
        let cuts = levels.cuts();
        let num_finest = cuts[0].size()[1];
        let mut end = at_input.size()[1] - num_finest;
        let mut at_cuts = vec![at_input.narrow(1, end, num_finest)];
        for (number, passed) in raised.into_iter().enumerate() {
            let cut = Some(&cuts[number + 1]).filter(|cut| cut.requires_grad());
            let channels = passed.output.size()[1];
            end -= channels;
            let root = passed.root(&at_input.narrow(1, end, channels));
            let chain = &backbone.above()[number].up;
            let mut gradients = chains.backward(chain, passed, &root, [&[], &leaves], cut)?;
            if cut.is_some() {
                at_cuts.push(gradients.pop().expect("the input's is the last"));
            }
            at_leaves.add(&gradients);
        }
        if !levels.flows() {
            at_cuts.clear();
        }
        Ok((at_leaves.0, at_cuts))
    }
}
