//! Every layer against PyTorch in float64, or the formula of its paper; `fixtures/layers.py` has
//! the cases and the reasons. `parity.rs` makes them anew where it has a Python.

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tessera_nn::chain::Block;
use tessera_nn::layers::resample::{average_pool, max_pool, pick, upsample_nearest};
use tessera_nn::layers::{
    Activation, Amount, Attention, AttentionConfig, Conv, ConvConfig, ConvTranspose,
    ConvTransposeConfig, Fill, GroupNorm, LayerNorm, Linear, LinearConfig, Mask, Pad, RmsNorm,
    Rotary, Scope, Snake, Trim,
};
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::{Kinds, Parameters};

#[derive(Deserialize)]
struct Case {
    name: String,
    layer: Subject,
    shape: Vec<i64>,
    output_shape: Vec<i64>,
    output: Vec<f64>,
    gradient: Vec<f64>,
    parameters: Vec<Parameter>,
}

#[derive(Deserialize)]
struct Parameter {
    name: String,
    shape: Vec<i64>,
    gradient: Vec<f64>,
}

#[derive(Deserialize)]
struct Ends {
    amount: String,
    ends: [i64; 2],
    #[serde(default)]
    fill: String,
    #[serde(default)]
    ratio: f64,
}

impl Ends {
    fn pad(&self) -> Pad {
        let amount = match self.amount.as_str() {
            "fixed" => Amount::Fixed(self.ends[0], self.ends[1]),
            "causal" => Amount::Causal,
            "centered" => Amount::Centered,
            other => panic!("{other}"),
        };
        let fill = match self.fill.as_str() {
            "zeros" => Fill::Zeros,
            "reflect" => Fill::Reflect,
            "replicate" => Fill::Replicate,
            other => panic!("{other}"),
        };
        Pad { amount, fill }
    }

    fn trim(&self) -> Trim {
        match self.amount.as_str() {
            "fixed" => Trim::Fixed(self.ends[0], self.ends[1]),
            "causal" => Trim::Causal { right_ratio: self.ratio },
            "centered" => Trim::Centered,
            other => panic!("{other}"),
        }
    }
}

#[derive(Deserialize)]
struct Convolution {
    inputs: i64,
    outputs: i64,
    kernel: Vec<i64>,
    stride: Vec<i64>,
    dilation: Vec<i64>,
    groups: i64,
    bias: bool,
    weight_norm: bool,
    #[serde(default)]
    padding: Vec<Ends>,
    #[serde(default)]
    trim: Vec<Ends>,
    #[serde(default)]
    output_padding: Vec<i64>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Subject {
    Conv(Convolution),
    ConvTranspose(Convolution),
    GroupNorm { channels: i64, groups: i64, eps: f64, silu: bool },
    LayerNorm { channels: i64, eps: f64 },
    RmsNorm { channels: i64, eps: f64 },
    Activation { activation: Activation },
    Snake { channels: i64, axes: usize },
    Linear { inputs: i64, outputs: i64, bias: bool },
    Attention { width: i64, heads: i64, mask: String, axes: Vec<i64>, bias: bool },
    Rotary { axes: Vec<i64>, dim: i64 },
    Upsample { factors: Vec<i64> },
    AveragePool { factors: Vec<i64> },
    MaxPool { factors: Vec<i64> },
    Pick { factors: Vec<i64> },
}

type Forward<'a> = Box<dyn Fn(&Parameters, &Tensor) -> Tensor + 'a>;

fn block<'a>(block: impl Block + 'a) -> Forward<'a> {
    Box::new(move |parameters, input| block.forward(parameters, input))
}

impl Convolution {
    fn conv(&self) -> ConvConfig {
        let Self { inputs, outputs, groups, bias, weight_norm, .. } = *self;
        ConvConfig {
            inputs,
            outputs,
            kernel: self.kernel.clone(),
            stride: self.stride.clone(),
            dilation: self.dilation.clone(),
            groups,
            padding: self.padding.iter().map(Ends::pad).collect(),
            has_bias: bias,
            has_weight_norm: weight_norm,
            deviation: None,
        }
    }

    fn conv_transpose(&self) -> ConvTransposeConfig {
        let Self { inputs, outputs, groups, bias, weight_norm, .. } = *self;
        ConvTransposeConfig {
            inputs,
            outputs,
            kernel: self.kernel.clone(),
            stride: self.stride.clone(),
            dilation: self.dilation.clone(),
            groups,
            trim: self.trim.iter().map(Ends::trim).collect(),
            output_padding: self.output_padding.clone(),
            has_bias: bias,
            has_weight_norm: weight_norm,
        }
    }
}

impl Subject {
    fn build(&self, kind: Kind, to: &mut Declarations) -> Forward<'_> {
        let scope = Scope::new(Stage::Head, "layer");
        match self {
            Self::Conv(size) => block(Conv::new(to, &scope, size.conv())),
            Self::ConvTranspose(size) => {
                block(ConvTranspose::new(to, &scope, size.conv_transpose()))
            }
            Self::GroupNorm { channels, groups, eps, silu } => {
                let layer = GroupNorm::new(to, &scope, *channels, *groups, *eps);
                if !silu {
                    return block(layer);
                }
                Box::new(move |parameters, input| layer.forward_silu(parameters, input))
            }
            Self::LayerNorm { channels, eps } => block(LayerNorm::new(to, &scope, *channels, *eps)),
            Self::RmsNorm { channels, eps } => block(RmsNorm::new(to, &scope, *channels, *eps)),
            Self::Activation { activation } => block(*activation),
            Self::Snake { channels, axes } => block(Snake::new(to, &scope, *channels, *axes)),
            Self::Linear { inputs, outputs, bias } => {
                let config = LinearConfig::new(*inputs, *outputs);
                block(Linear::new(to, &scope, LinearConfig { has_bias: *bias, ..config }))
            }
            Self::Attention { width, heads, mask, axes, bias } => {
                let (width, heads) = (*width, *heads);
                let config = AttentionConfig { width, heads, has_bias: *bias, deviation: None };
                let layer = Attention::new(to, &scope, config);
                let turn = |axes| Rotary::new(axes, width / heads, kind, Device::Cpu);
                let rotary = (!axes.is_empty()).then(|| turn(axes));
                Box::new(move |parameters, input| {
                    let allowed = every_third(input.size()[1]);
                    let mask = match mask.as_str() {
                        "all" => Mask::All,
                        "causal" => Mask::Causal,
                        "allowed" => Mask::Allowed(&allowed),
                        other => panic!("{other}"),
                    };
                    layer.forward(parameters, input, mask, rotary.as_ref())
                })
            }
            Self::Rotary { axes, dim } => {
                let rotary = Rotary::new(axes, *dim, kind, Device::Cpu);
                Box::new(move |_, input| rotary.turn(input))
            }
            Self::Upsample { factors } => Box::new(|_, input| upsample_nearest(input, factors)),
            Self::AveragePool { factors } => Box::new(|_, input| average_pool(input, factors)),
            Self::MaxPool { factors } => Box::new(|_, input| max_pool(input, factors)),
            Self::Pick { factors } => Box::new(|_, input| pick(input, factors)),
        }
    }
}

/// The mask of the script: (row + 2 column) mod 3 is not 0, or both are equal.
fn every_third(len: i64) -> Tensor {
    let count = Tensor::arange(len, (Kind::Int64, Device::Cpu));
    let (row, column) = (count.unsqueeze(1), &count);
    (&row + column * 2).remainder(3).not_equal(0).logical_or(&row.eq_tensor(column))
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/layers.json")).unwrap();
    assert_eq!(cases.len(), 71);
    cases
}

fn values(shape: &[i64], value: impl Fn(f64) -> f64) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|at: i64| value(at as f64)).collect();
    Tensor::from_slice(&values).view(shape)
}

/// The same values with channels last in memory.
fn channels_last(tensor: &Tensor) -> Tensor {
    let last = tensor.dim() as i64 - 1;
    tensor.movedim_int(1, last).contiguous().movedim_int(last, 1)
}

#[track_caller]
fn assert_near(what: &str, found: &Tensor, expected: &[f64], tolerance: f64) {
    let found = found.detach().to_kind(Kind::Double).contiguous().flatten(0, -1);
    assert_eq!(found.size()[0] as usize, expected.len(), "{what}");
    let off = (found - Tensor::from_slice(expected)).abs().max().double_value(&[]);
    assert!(off < tolerance, "{what} is off by {off:e}");
}

/// Output and gradients of a case in a kind, from an input that lies in memory as `lay_out` says.
fn check(case: &Case, kind: Kind, tolerance: f64, lay_out: &dyn Fn(&Tensor) -> Tensor) {
    let mut to = Declarations::default();
    let layer = case.layer.build(kind, &mut to);
    let parameters = to.allocate(0, Kinds::same(kind), Device::Cpu);
    let mut places: BTreeMap<String, Tensor> =
        parameters.named_views().map(|(name, view)| (name.to_owned(), view)).collect();
    assert_eq!(places.len(), case.parameters.len(), "{}", case.name);
    for (k, Parameter { name, shape, .. }) in case.parameters.iter().enumerate() {
        let place = places.get_mut(&format!("layer.{name}")).unwrap();
        place.copy_(&values(shape, |at| 0.6 * (0.9 * at + 0.7 * k as f64 + 0.4).sin()));
    }
    let input = values(&case.shape, |at| 1.5 * (1.3 * at + 0.2).sin()).to_kind(kind);
    let input = lay_out(&input).set_requires_grad(true);
    let output = layer(&parameters, &input);
    assert_eq!(output.size(), case.output_shape, "{}", case.name);
    let what = |end: &str| format!("{}, {kind:?}: {end}", case.name);
    assert_near(&what("output"), &output, &case.output, tolerance);

    let upstream = values(&case.output_shape, |at| (0.7 * at - 0.3).cos()).to_kind(kind);
    let leaves = parameters.leaves_of(Stage::Head);
    let inputs: Vec<&Tensor> = [&input].into_iter().chain(leaves).collect();
    let root = (output * upstream).sum(kind);
    let gradients = Tensor::run_backward(&[root], &inputs, false, false);
    assert_near(&what("gradient"), &gradients[0], &case.gradient, tolerance);
    let flat = parameters.flat().zeros_like();
    parameters.store_gradients(Stage::Head, &gradients[1..], &flat);
    let found: BTreeMap<&str, Tensor> = parameters.trained_views(&flat).collect();
    for Parameter { name, gradient, .. } in &case.parameters {
        let found = &found[format!("layer.{name}").as_str()];
        assert_near(&what(&format!("gradient of {name}")), found, gradient, tolerance);
    }
}

/// Numbers are below 20 and sums have below 200 terms: 1e-12 and 1e-5 leave room for their order.
#[test]
fn outputs_and_gradients_are_those_of_pytorch() {
    for case in &cases() {
        check(case, Kind::Double, 1e-12, &Tensor::shallow_clone);
        check(case, Kind::Float, 1e-5, &Tensor::shallow_clone);
    }
}

#[test]
fn memory_order_of_the_input_does_not_matter() {
    for case in &cases() {
        check(case, Kind::Double, 1e-12, &channels_last);
        check(case, Kind::Float, 1e-5, &channels_last);
    }
}

/// A rank may have no sample of a batch.
#[test]
fn a_batch_of_no_samples_goes_through_and_its_gradients_are_zero() {
    for case in &cases() {
        let mut to = Declarations::default();
        let layer = case.layer.build(Kind::Float, &mut to);
        let parameters = to.allocate(0, Kinds::same(Kind::Float), Device::Cpu);
        let [mut shape, mut expected] = [case.shape.clone(), case.output_shape.clone()];
        (shape[0], expected[0]) = (0, 0);
        let input = Tensor::zeros(shape.as_slice(), (Kind::Float, Device::Cpu));
        let input = input.set_requires_grad(true);
        let output = layer(&parameters, &input);
        assert_eq!(output.size(), expected, "{}", case.name);
        let leaves = parameters.leaves_of(Stage::Head);
        let inputs: Vec<&Tensor> = [&input].into_iter().chain(leaves).collect();
        let root = output.sum(Kind::Float);
        let gradients = Tensor::run_backward(&[root], &inputs, false, false);
        let flat = parameters.flat().ones_like();
        parameters.store_gradients(Stage::Head, &gradients[1..], &flat);
        for (name, gradient) in parameters.trained_views(&flat) {
            let most = gradient.abs().max().double_value(&[]);
            assert_eq!(most, 0.0, "{}: {name}", case.name);
        }
    }
}

/// g starts at |v|, so the first weight is v up to rounding.
#[test]
fn weight_normalisation_starts_as_if_there_were_none() {
    let weight = |has_weight_norm| {
        let mut to = Declarations::default();
        let scope = Scope::new(Stage::Head, "layer");
        let config = ConvConfig { has_weight_norm, has_bias: false, ..ConvConfig::new(2, 3, &[4]) };
        let layer = Conv::new(&mut to, &scope, config);
        let parameters = to.allocate(5, Kinds::same(Kind::Double), Device::Cpu);
        let input = values(&[2, 2, 6], |at| (0.7 * at).sin());
        layer.forward(&parameters, &input)
    };
    assert!((weight(true) - weight(false)).abs().max().double_value(&[]) < 1e-14);
}
