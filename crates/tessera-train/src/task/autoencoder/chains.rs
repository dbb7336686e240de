//! Chains of a model in training: forward with a graph, or with the inputs of blocks kept and the rest computed again
//! (`train.recompute`), and backward through either.

use tch::Tensor;
use tessera_nn::Parameters;
use tessera_nn::chain::{Block, Chain};
use tessera_nn::parameters::Stage;
use tessera_nn::recompute::{self, Kept, add};

use crate::error::TrainError;

/// How chains are computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chains<'a> {
    pub(super) parameters: &'a Parameters,
    /// Whether what blocks compute within is computed again for the backward pass.
    pub(super) recompute: bool,
}

/// What came out of a chain.
#[derive(Debug)]
pub(super) struct Passed {
    /// `[N, ..]`; where it was computed without a graph, a leaf.
    pub(super) output: Tensor,
    /// What the graph is made of again.
    kept: Option<Kept>,
}

impl Passed {
    /// The output as a leaf, which gathers the gradients of all that reads it; `has_graph` says whether it has any.
    pub(super) fn leaf(&self, has_graph: bool) -> Tensor {
        self.output.detach().set_requires_grad(has_graph)
    }

    /// What makes the gradient at the output `at_output`.
    pub(super) fn root(&self, at_output: &Tensor) -> Tensor {
        // The engine is fed ones; one times a number is that number.
        (&self.output * at_output).sum(self.output.kind())
    }
}

impl Chains<'_> {
    /// A chain's output in the master kind; `has_graph`: a gradient goes back through it.
    pub(super) fn forward(&self, chain: &Chain, input: &Tensor, has_graph: bool) -> Passed {
        let (parameters, kind) = (self.parameters, self.parameters.flat().kind());
        let input = input.to_kind(parameters.compute_kind());
        if !(self.recompute && has_graph) {
            let output = chain.forward(parameters, &input);
            return Passed { output: output.to_kind(kind), kept: None };
        }
        let (output, kept) = recompute::forward(chain, parameters, &input);
        Passed { output: output.to_kind(kind).set_requires_grad(true), kept: Some(kept) }
    }

    /// The gradients of `root` at leaves before the chain or beside it, at leaves of the chain, and at its input where that
    /// is given, in this order.
    pub(super) fn backward(
        &self,
        chain: &Chain,
        passed: Passed,
        root: &Tensor,
        [beside, inside]: [&[&Tensor]; 2],
        input: Option<&Tensor>,
    ) -> Result<Vec<Tensor>, TrainError> {
        let Passed { output, kept } = passed;
        let Some(kept) = kept else {
            let targets: Vec<&Tensor> = beside.iter().chain(inside).copied().chain(input).collect();
            return Ok(Tensor::f_run_backward(&[root], &targets, false, false)?);
        };
        let targets: Vec<&Tensor> = beside.iter().copied().chain([&output]).collect();
        let mut gradients = Tensor::f_run_backward(&[root], &targets, false, false)?;
        let parameters = self.parameters;
        let at_output = gradients.pop().expect("the output's is the last");
        let at_output = at_output.to_kind(parameters.compute_kind());
        match input {
            None => gradients.extend(kept.backward(chain, parameters, inside, &at_output)),
            Some(input) => {
                let (at_leaves, at_input) =
                    kept.backward_to_input(chain, parameters, inside, &at_output);
                gradients.extend(at_leaves);
                gradients.push(at_input.to_kind(input.kind()));
            }
        }
        Ok(gradients)
    }

    /// The gradient at a weight of the chain's last block, from that at the output; the graph stays.
    pub(super) fn at_last_layer(
        &self,
        chain: &Chain,
        passed: &Passed,
        at_output: &Tensor,
        weight: &Tensor,
    ) -> Result<Tensor, TrainError> {
        let output = match &passed.kept {
            None => passed.output.shallow_clone(),
            Some(kept) => kept.last_output(chain, self.parameters).to_kind(at_output.kind()),
        };
        let root = (output * at_output).sum(at_output.kind());
        let mut gradients = Tensor::f_run_backward(&[root], &[weight], true, false)?;
        Ok(gradients.remove(0).to_kind(at_output.kind()))
    }

    /// A chain's output in the master kind, with the graph of its last block alone.
    pub(super) fn with_last_graph(&self, chain: &Chain, input: &Tensor) -> Passed {
        let (last, before) = chain.blocks.split_last().expect("a network has blocks");
        let mut hidden = input.to_kind(self.parameters.compute_kind());
        tch::no_grad(|| {
            for block in before {
                hidden = block.forward(self.parameters, &hidden);
            }
        });
        let output = tch::with_grad(|| last.forward(self.parameters, &hidden.detach()));
        Passed {
            output: tch::with_grad(|| output.to_kind(self.parameters.flat().kind())),
            kept: None,
        }
    }
}

/// The leaves of a stage that have a gradient.
pub(super) fn trained_leaves(parameters: &Parameters, stage: Stage) -> Vec<&Tensor> {
    match parameters.trains(stage) {
        true => parameters.leaves_of(stage),
        false => Vec::new(),
    }
}

/// Gradients at leaves, gathered from several backward passes; an undefined one is nothing.
#[derive(Debug, Default)]
pub(super) struct Gathered(pub(super) Vec<Tensor>);

impl Gathered {
    /// Adds gradients at the same leaves, in the same order.
    pub(super) fn add(&mut self, gradients: &[Tensor]) {
        if self.0.is_empty() {
            self.0 = gradients.iter().map(Tensor::shallow_clone).collect();
            return;
        }
        for (sum, gradient) in self.0.iter_mut().zip(gradients) {
            add(sum, gradient);
        }
    }
}
