//! What a network costs: floating-point operations and numbers kept, for one sample.
//!
//! Layers tell a meter of their thread what they multiply and what they keep; where there is none, that is one look at
//! a thread-local a call. A network is measured by running it once, so whatever is built of our layers is counted.
//!
//! Operations are two for each multiplication with its addition, of convolutions, linear layers and attention (all L
//! times L pairs, masked or not). Norms, activations and resampling are not counted, as elsewhere. Kept for a backward
//! pass is the input of each layer, once where two layers share it, and of an attention its queries, keys and values.
//! What libtorch keeps besides is left out: statistics of norms, indices of poolings, and what formulas of several
//! operations, such as Snake, have between them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::Tensor;

use crate::chain::Chain;
use crate::parameters::Parameters;
use crate::recompute::segments;

/// Cost of a chain for what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Floating-point operations of the forward pass. The backward pass has about twice as many.
    pub flops: u64,
    /// Numbers kept for the backward pass.
    pub activations: u64,
    /// The same with recomputation ([`crate::recompute`]): the inputs of all segments, and what is kept within the one
    /// that keeps most.
    pub recomputed: u64,
}

impl Cost {
    /// Of one forward pass of `input`, by convention a sample of zeros, `[1, C, ..]`. No graph is made.
    ///
    /// # Panics
    ///
    /// If a block measures costs itself.
    pub fn of_chain(chain: &Chain, parameters: &Parameters, input: &Tensor) -> Self {
        let (mut cost, mut all) = (Self::default(), Kept::default());
        // Inputs stay until the end, so that nothing else comes to lie where one was.
        let (mut inputs, mut within) = (Vec::new(), Vec::new());
        each_block(chain, parameters, input, |input, mut meter| {
            cost.flops += 2 * meter.multiply_adds;
            for (place, tensor) in &meter.kept.0 {
                all.0.entry(*place).or_insert_with(|| tensor.shallow_clone());
            }
            meter.keep(&input);
            within.push(meter.kept.numel());
            inputs.push(input);
        });
        cost.activations = all.numel();
        let starts = segments(&within);
        let ends = starts.iter().skip(1).copied().chain([within.len()]);
        let input_of = |start: usize| inputs[start].numel() as u64;
        let most = starts
            .iter()
            .zip(ends)
            .map(|(&start, end)| within[start..end].iter().sum::<u64>() - input_of(start));
        cost.recomputed = most.max().unwrap_or(0);
        cost.recomputed += starts.iter().map(|&start| input_of(start)).sum::<u64>();
        cost
    }
}

impl Cost {
    /// Of one forward pass by `f`, of a network that is no chain and is not recomputed.
    pub(crate) fn of(f: impl FnOnce()) -> Self {
        let ((), meter) = measure(f);
        let activations = meter.kept.numel();
        Self { flops: 2 * meter.multiply_adds, activations, recomputed: activations }
    }
}

/// Numbers kept for the backward pass within each block of a chain, its input among them, for one forward pass of `input`.
pub(crate) fn kept_within(chain: &Chain, parameters: &Parameters, input: &Tensor) -> Vec<u64> {
    let mut within = Vec::with_capacity(chain.blocks.len());
    each_block(chain, parameters, input, |input, mut meter| {
        meter.keep(&input);
        within.push(meter.kept.numel());
    });
    within
}

/// Runs a chain without a graph, and shows the input of each block with what its layers have told.
fn each_block(
    chain: &Chain,
    parameters: &Parameters,
    input: &Tensor,
    mut see: impl FnMut(Tensor, Meter),
) {
    tch::no_grad(|| {
        let mut hidden = input.shallow_clone();
        for block in &chain.blocks {
            let (output, meter) = measure(|| block.forward(parameters, &hidden));
            see(std::mem::replace(&mut hidden, output), meter);
        }
    });
}

/// What layers tell.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    multiply_adds: u64,
    kept: Kept,
}

impl Meter {
    /// So many multiplications with an addition each.
    pub(crate) fn multiply_add(&mut self, count: i64) {
        self.multiply_adds += count as u64;
    }

    /// A tensor that is kept for the backward pass.
    pub(crate) fn keep(&mut self, tensor: &Tensor) {
        self.kept.0.entry(place(tensor)).or_insert_with(|| tensor.shallow_clone());
    }
}

/// Tensors by the place of their memory, which is theirs alone while they are here.
#[derive(Debug, Default)]
struct Kept(BTreeMap<usize, Tensor>);

impl Kept {
    fn numel(&self) -> u64 {
        self.0.values().map(|tensor| tensor.numel() as u64).sum()
    }
}

fn place(tensor: &Tensor) -> usize {
    tensor.data_ptr() as usize
}

thread_local! {
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// Lets a layer tell the meter of this thread, if there is one.
pub(crate) fn tell(what: impl FnOnce(&mut Meter)) {
    METER.with_borrow_mut(|meter| meter.as_mut().map(what));
}

/// What layers tell while `f` runs.
fn measure<T>(f: impl FnOnce() -> T) -> (T, Meter) {
    /// Takes the meter away also where `f` panics.
    struct Running;
    impl Drop for Running {
        fn drop(&mut self) {
            METER.take();
        }
    }
    assert!(METER.replace(Some(Meter::default())).is_none(), "a measurement within another");
    let running = Running;
    let output = f();
    let meter = METER.take().expect("it was put there above");
    drop(running);
    (output, meter)
}
