//! Whole networks against their sources in float64, with weights that are loaded by the names
//! there; `fixtures/networks.py` and `fixtures/film.py` have the cases, the sources and what differs from them.

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tessera_nn::backbone::unet2d::names::Source;
use tessera_nn::backbone::{BackboneConfig, Ends, conv3d, vit};
use tessera_nn::chain::{Block, Chain};
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::{Kinds, Parameters, Signal};

use crate::rule::{Summary, assert_near, assert_sum, assert_summary, uniform, upstream, weight};

#[derive(Deserialize)]
struct Case {
    name: String,
    source: Names,
    backbone: BackboneConfig,
    dim: i64,
    outputs: i64,
    encoder: Side,
    decoder: Side,
    gradients: Vec<Gradient>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Names {
    Taming,
    LlamaGen,
    Diffusers,
    Titok,
    Torch,
    Cosmos,
}

#[derive(Deserialize)]
struct Side {
    output: Summary,
    gradient: Summary,
}

#[derive(Deserialize)]
struct Gradient {
    name: String,
    shape: Vec<i64>,
    sum: f64,
    /// None: the sum says enough.
    whole: Vec<f64>,
}

impl Case {
    /// Our name and shape for a tensor of the source.
    fn place(&self, theirs: &Gradient, ours: &BTreeMap<String, Tensor>) -> String {
        let source = match self.source {
            Names::Taming => Source::Taming,
            Names::LlamaGen => Source::LlamaGen,
            Names::Diffusers => Source::Diffusers,
            Names::Titok => return vit::names::ours(&theirs.name),
            Names::Torch => return of_torch(&theirs.name),
            Names::Cosmos => {
                return conv3d::names::ours(&theirs.name)
                    .unwrap_or_else(|| of_video_gpt(&theirs.name));
            }
        };
        let BackboneConfig::Unet2d(config) = &self.backbone else { panic!("{}", self.name) };
        let name = source.ours(&theirs.name, config.multipliers.len()).unwrap();
        assert_eq!(source.shape(&name, &ours[&name].size()), theirs.shape, "{}", theirs.name);
        name
    }
}

/// Our names of what torch's transformer has.
fn of_torch(theirs: &str) -> String {
    let pairs = [
        (".self_attn.", ".attn."),
        (".in_proj_", ".in_proj."),
        (".norm1.", ".ln_1."),
        (".norm2.", ".ln_2."),
        (".linear1.", ".mlp.c_fc."),
        (".linear2.", ".mlp.c_proj."),
    ];
    pairs.iter().fold(theirs.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// Our names of the axial attention that stands in the middle of a Cosmos net in the script.
fn of_video_gpt(theirs: &str) -> String {
    let pairs = [
        (".attn_w.", ".width."),
        (".attn_h.", ".height."),
        (".attn_t.", ".time."),
        (".norm.norm.", ".norm."),
        (".fc.", ".out_proj."),
    ];
    pairs.iter().fold(theirs.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// Output and gradients of one side; those at the parameters of its stage are stored.
fn check_side(
    case: &Case,
    parameters: &Parameters,
    (chain, stage, key): (&Chain, Stage, &str),
    expected: &Side,
    buffer: &Tensor,
) {
    let what = |end: &str| format!("{}, {stage:?}: {end}", case.name);
    let input = uniform(key, &expected.gradient.shape);
    // Channels last in memory, as samples and latents lie.
    let last = input.dim() as i64 - 1;
    let input = input.movedim_int(1, last).contiguous().movedim_int(last, 1);
    let input = input.set_requires_grad(true);
    let output = chain.forward(parameters, &input);
    assert_summary(&what("output"), &output, &expected.output);
    let root = (&output * upstream(&output.size())).sum(Kind::Double);
    let leaves = parameters.leaves_of(stage);
    let inputs: Vec<&Tensor> = [&input].into_iter().chain(leaves).collect();
    let gradients = Tensor::run_backward(&[root], &inputs, false, false);
    assert_summary(&what("gradient"), &gradients[0], &expected.gradient);
    parameters.store_gradients(stage, &gradients[1..], buffer);
}

fn check(case: &Case) {
    let signal = match case.encoder.gradient.shape[..] {
        [_, channels, height, width] => Signal::Image { channels, height, width },
        [_, channels, frames, height, width] => Signal::Video { channels, frames, height, width },
        _ => panic!("{}: pictures or film", case.name),
    };
    case.backbone.validate(&signal).unwrap();
    let mut to = Declarations::default();
    let ends = Ends { signal, outputs: case.outputs, dims: &[case.dim] };
    let net = case.backbone.build(&ends, &mut to);
    assert_eq!(net.latent_axes(&signal), case.decoder.gradient.shape[2..]);
    let parameters = to.allocate(0, Kinds::same(Kind::Double), Device::Cpu);

    let mut places: BTreeMap<String, Tensor> =
        parameters.named_views().map(|(name, view)| (name.to_owned(), view)).collect();
    let names: BTreeMap<String, &Gradient> =
        case.gradients.iter().map(|theirs| (case.place(theirs, &places), theirs)).collect();
    assert!(names.keys().eq(places.keys()), "{}: each tensor has one there", case.name);
    for (name, place) in &mut places {
        let Gradient { name, shape, .. } = names[name];
        place.copy_(&weight(name, shape).view_as(place));
    }

    let buffer = parameters.flat().zeros_like();
    let sides = [
        (net.encoder(), Stage::Encoder, "pictures", &case.encoder),
        (net.decoder(), Stage::Decoder, "latents", &case.decoder),
    ];
    for (chain, stage, key, expected) in sides {
        check_side(case, &parameters, (chain, stage, key), expected, &buffer);
    }
    for (name, found) in parameters.trained_views(&buffer) {
        let Gradient { sum, whole, .. } = names[name];
        let what = format!("{}: gradient of {name}", case.name);
        assert_sum(&what, &found, *sum);
        if !whole.is_empty() {
            assert_near(&what, &found, whole);
        }
    }
}

fn check_named(start: &str, num: usize) {
    let files = [include_str!("../fixtures/networks.json"), include_str!("../fixtures/film.json")];
    let cases = files.map(|file| serde_json::from_str::<Vec<Case>>(file).unwrap());
    let named: Vec<&Case> =
        cases.iter().flatten().filter(|case| case.name.starts_with(start)).collect();
    assert_eq!(named.len(), num);
    for case in named {
        check(case);
    }
}

#[test]
fn the_weights_of_a_random_vqgan_of_taming_loaded_by_name_give_its_outputs() {
    check_named("taming", 1);
}

#[test]
fn the_weights_of_a_random_llama_gen_tokenizer_loaded_by_name_give_its_outputs() {
    check_named("LlamaGen", 1);
}

#[test]
fn the_weights_of_a_random_diffusers_vq_model_loaded_by_name_give_its_outputs() {
    check_named("diffusers", 2);
}

#[test]
fn the_weights_of_a_random_titok_loaded_by_name_give_its_outputs() {
    check_named("TiTok", 1);
}

#[test]
fn a_vit_with_a_grid_of_latents_is_torchs_transformer_between_patches() {
    check_named("a grid", 1);
}

#[test]
fn the_weights_of_a_random_cosmos_tokenizer_loaded_by_name_give_its_outputs() {
    check_named("Cosmos", 3);
}
