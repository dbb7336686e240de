//! Networks as chains of blocks, one behind the other.
//!
//! A block is the smallest unit of recomputation ([`crate::recompute`]): what lies between two blocks may be
//! kept, what lies within one may be computed twice.

use std::cell::OnceCell;
use std::fmt::Debug;

use tch::Tensor;

use crate::graph::{Graph, Value};
use crate::parameters::Parameters;

/// A part of a network with one input and one output.
pub trait Block: Debug + Send {
    /// Output of the block. It never writes into `input`, which whoever calls may keep; writing
    /// into its own intermediate results is its own affair.
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor;

    /// Adds to `graph` what [`Self::forward`] computes of `input`, and says which value it is.
    ///
    /// # Errors
    ///
    /// That it has no form in a graph, by its name.
    fn describe(
        &self,
        _parameters: &Parameters,
        _graph: &mut Graph,
        _input: Value,
    ) -> Result<Value, String> {
        let name = std::any::type_name::<Self>();
        let name = name.split('<').next().unwrap_or(name).trim_start_matches("tessera_nn::");
        Err(format!("its layer {name} has no form in a graph of common operations"))
    }
}

/// Blocks in the order in which they are computed.
#[derive(Debug, Default)]
pub struct Chain {
    /// The blocks.
    pub blocks: Vec<Box<dyn Block>>,
    /// The first block of each segment that is computed again as one, once recomputation has asked.
    pub(crate) segments: OnceCell<Vec<usize>>,
}

impl Chain {
    /// Puts a block behind the others.
    pub fn push(&mut self, block: impl Block + 'static) {
        self.blocks.push(Box::new(block));
    }
}

impl Block for Chain {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let mut hidden = input.shallow_clone();
        for block in &self.blocks {
            hidden = block.forward(parameters, &hidden);
        }
        hidden
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let mut hidden = input;
        for block in &self.blocks {
            hidden = block.describe(parameters, graph, hidden)?;
        }
        Ok(hidden)
    }
}
