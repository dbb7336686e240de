//! What a model asks for before there is memory: names, shapes, roles and initial values.

use tch::{Device, Tensor};

use super::{ALIGNMENT, Kinds, Layout, ParameterId, Parameters, Stage};
use crate::random::{Purpose, draws};
use crate::signal::channels_first;

/// What a parameter is to its layer: what weight decay goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// What a layer multiplies with.
    Weight,
    /// What it adds.
    Bias,
    /// Scale or length of a normalisation.
    Norm,
    /// What is learned for a position.
    Position,
    /// Codes, or what makes them.
    Codebook,
}

/// Initial values of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Uniform in [-bound, bound).
    Uniform(f64),
    /// All the same.
    Constant(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// The length of each slice along axis 0 of a parameter declared earlier, as weight
    /// normalisation starts.
    LengthsOf(ParameterId),
}

impl Init {
    /// How weight and bias of a layer start that sums over `fan_in` values: normal with this
    /// deviation and zero, as transformers do; without one, both as PyTorch does, uniform within
    /// 1 / sqrt(fan-in).
    pub fn of_layer(fan_in: i64, deviation: Option<f64>) -> (Self, Self) {
        let uniform = Self::Uniform(1.0 / (fan_in as f64).sqrt());
        deviation
            .map_or((uniform, uniform), |deviation| (Self::Normal(deviation), Self::Constant(0.0)))
    }
}

/// What a layer asks for.
#[derive(Debug, Clone)]
pub(super) struct Declaration {
    pub(super) name: String,
    pub(super) shape: Vec<i64>,
    pub(super) stage: Stage,
    pub(super) role: Role,
    init: Init,
    /// Its first element in the flat buffer.
    pub(super) offset: i64,
}

impl Declaration {
    pub(super) fn len(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Its place in a flat buffer from this element on, in its logical shape.
    pub(super) fn view(&self, flat: &Tensor, offset: i64) -> Tensor {
        let part = flat.narrow(0, offset, self.len());
        match self.shape.as_slice() {
            [outer, inner, axes @ ..] if !axes.is_empty() => {
                channels_first(&part.view([&[*outer], axes, &[*inner]].concat().as_slice()))
            }
            shape => part.view(shape),
        }
    }
}

/// Collects the parameters of a model before there is memory for them.
#[derive(Debug, Default)]
pub struct Declarations {
    entries: Vec<Declaration>,
    len: i64,
}

impl Declarations {
    /// Declares a tensor.
    ///
    /// # Panics
    ///
    /// If the name is taken, or the parameter of an earlier stage follows that of a later one.
    pub fn declare(
        &mut self,
        name: String,
        shape: &[i64],
        stage: Stage,
        role: Role,
        init: Init,
    ) -> ParameterId {
        assert!(self.entries.iter().all(|entry| entry.name != name), "{name} is declared twice");
        let in_order = self.entries.last().is_none_or(|last| last.stage <= stage);
        assert!(in_order, "{name}: parameters of {stage:?} come earlier");
        let entry =
            Declaration { name, shape: shape.to_vec(), stage, role, init, offset: self.len };
        self.len += (entry.len() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        self.entries.push(entry);
        ParameterId(self.entries.len() - 1)
    }

    /// Elements declared so far, padding included: where the next parameter starts.
    pub(crate) fn len(&self) -> i64 {
        self.len
    }

    /// Allocates the buffer and fills it with the initial values that `seed` stands for.
    pub fn allocate(self, seed: u64, kinds: Kinds, device: Device) -> Parameters {
        let flat = Tensor::zeros([self.len], (kinds.master, device));
        let working = (kinds.compute != kinds.master).then(|| flat.to_kind(kinds.compute));
        let seen = |entry: &Declaration| match (entry.stage, &working) {
            (Stage::Quantizer | Stage::Critic, _) | (_, None) => entry.view(&flat, entry.offset),
            (_, Some(working)) => entry.view(working, entry.offset),
        };
        let leaf = |entry| seen(entry).detach().set_requires_grad(true);
        let leaves = self.entries.iter().map(leaf).collect();
        for (id, entry) in self.entries.iter().enumerate() {
            let (len, mut draws) =
                (entry.len() as usize, draws(seed, Purpose::Parameters, 0, id as u64));
            let values = match entry.init {
                Init::Uniform(bound) => Tensor::from_slice(&draws.uniform(bound, len)),
                Init::Normal(deviation) => Tensor::from_slice(&draws.normal(deviation, len)),
                Init::Constant(value) => Tensor::from_slice(&vec![value; len]),
                Init::LengthsOf(id) => {
                    let of = &self.entries[id.0];
                    lengths(&of.view(&flat, of.offset))
                }
            };
            entry.view(&flat, entry.offset).copy_(&values.view(entry.shape.as_slice()));
        }
        let trained = Layout::without(&[], &self.entries, self.len);
        let parameters = Parameters { flat, working, leaves, entries: self.entries, trained };
        parameters.refresh();
        parameters
    }
}

/// The length of each slice along axis 0, `[axis 0]`.
fn lengths(tensor: &Tensor) -> Tensor {
    let slices = tensor.reshape([tensor.size()[0], -1]);
    slices.square().sum_dim_intlist([1i64].as_slice(), false, slices.kind()).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    /// By hand: the lengths of (3, 4) and (0, 2).
    #[test]
    fn lengths_are_those_of_slices_along_the_first_axis() {
        let tensor = Tensor::from_slice(&[3.0, 4.0, 0.0, 2.0]).view([2, 2, 1]);
        assert_eq!(lengths(&tensor), Tensor::from_slice(&[5.0, 2.0]));
    }

    #[test]
    fn parameters_start_as_they_are_declared_to() {
        let mut to = Declarations::default();
        let stage = Stage::Head;
        let one = to.declare("one".into(), &[3], stage, Role::Norm, Init::Constant(1.0));
        let drawn = to.declare("v".into(), &[2, 3], stage, Role::Weight, Init::Normal(0.02));
        let length = to.declare("g".into(), &[2, 1], stage, Role::Norm, Init::LengthsOf(drawn));
        let parameters = to.allocate(7, Kinds::same(Kind::Double), Device::Cpu);
        assert_eq!(parameters.get(one), &Tensor::from_slice(&[1.0, 1.0, 1.0]));
        let by_draws = draws(7, Purpose::Parameters, 0, 1).normal(0.02, 6);
        assert_eq!(parameters.get(drawn).flatten(0, 1), Tensor::from_slice(&by_draws));
        assert_eq!(parameters.get(length).flatten(0, 1), lengths(parameters.get(drawn)));
    }

    /// By hand: 1 / sqrt(16).
    #[test]
    fn layers_start_uniform_by_their_fan_in_or_normal_without_a_bias() {
        assert_eq!(Init::of_layer(16, None), (Init::Uniform(0.25), Init::Uniform(0.25)));
        assert_eq!(Init::of_layer(16, Some(0.02)), (Init::Normal(0.02), Init::Constant(0.0)));
    }
}
