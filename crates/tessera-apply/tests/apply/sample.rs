//! Samples are the same bytes for every number of ranks and however many are asked for.
//! `sample/prompt.rs` is about samples that go on from a beginning, `sample/inpaint.rs` about holes in pictures.

mod inpaint;
mod prompt;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tessera_apply::{ApplyError, SampleOptions, Sampled, Watch, sample, tile};
use tessera_comm::{CommError, Threads};
use tessera_control::{Activity, ExitCode};
use tessera_data::SampleShape;
use tessera_data::tokens::TokenLevel;
use tessera_model::{
    AutoencoderFile, CodesFile, FORMAT, Level, ModelFile, ModelKind, OpenModel, OpenPrior,
    Precision, Preprocessing, PriorFile, VERSION, Weights,
};
use tessera_nn::parameters::Stage;
use tessera_nn::prior::Prior;
use tessera_nn::prior::sample::{Guidance, Sampling};
use tessera_nn::{Kinds, ModelConfig, VqVae};

const DEADLINE: Duration = Duration::from_secs(100);
const SIDE: u32 = 16;

fn file(kind: ModelKind) -> ModelFile {
    ModelFile {
        format: FORMAT.to_owned(),
        version: VERSION,
        tessera: "0".to_owned(),
        hash: "f".repeat(64),
        step: 1,
        weights: Weights::Trained,
        precision: Precision::Fp32,
        kind,
        trained_on: json!({}),
    }
}

/// A small autoencoder with 4 x 4 codes of two residual levels.
pub(crate) fn tokenizer() -> OpenModel {
    let vector = json!({ "kind": "vector", "num_codes": 32, "code_dim": 8 });
    let model = json!({
        "backbone": { "kind": "conv2d", "channels": 8, "residual_layers": 1 },
        "quantizer": { "kind": "residual", "num_quantizers": 2, "quantizer": vector },
    });
    let shape = SampleShape::image(3, SIDE, SIDE);
    let config: ModelConfig = serde_json::from_value(model.clone()).unwrap();
    let signal = tessera_model::signal_of(shape);
    let mut vqvae = VqVae::new(&config, &signal, 1, Kinds::same(Kind::Float), Device::Cpu);
    vqvae.parameters.freeze(&[Stage::Quantizer, Stage::Encoder, Stage::Decoder]);
    let _no_grad = tch::no_grad_guard();
    for (number, (name, mut tensor)) in vqvae.quantizers[0]
        .state()
        .into_iter()
        .enumerate()
        .filter(|(_, (name, _))| name.ends_with("codebook"))
    {
        let spread = Tensor::arange(tensor.numel() as i64, (Kind::Float, Device::Cpu)) * 0.7;
        tensor.copy_(&(spread + number as f64).sin().view(tensor.size().as_slice()));
        assert!(!name.is_empty());
    }
    let preprocessing = Preprocessing { range: [0.0, 1.0], decoding: None };
    let levels = Level::of(&vqvae);
    let classes = Vec::new();
    let autoencoder = AutoencoderFile { model, shape, preprocessing, classes, levels };
    OpenModel { file: file(ModelKind::Autoencoder(autoencoder)), vqvae }.hashed()
}

/// A prior over its codes that likes some of them, as drawn.
pub(crate) fn prior(kind: &str, tokenizer: &OpenModel) -> OpenPrior {
    prior_of(kind, &tokenizer.file.hash, &[&[4, 4], &[4, 4]])
}

/// The same over codes of these levels, of an autoencoder of this hash.
fn prior_of(kind: &str, tokenizer: &str, levels: &[&[u32]]) -> OpenPrior {
    let network = json!({ "width": 16, "layers": 2, "heads": 2 });
    let table: Value = json!({ "kind": kind, "network": network });
    let level = |axes: &&[u32]| TokenLevel { num_codes: 32, axes: axes.to_vec() };
    let codes = CodesFile {
        tokenizer: tokenizer.to_owned(),
        shape: SampleShape::image(3, SIDE, SIDE),
        levels: levels.iter().map(level).collect(),
        num_classes: 3,
        classes: ["cup", "hat", "shoe"].map(str::to_owned).to_vec(),
    };
    let of_prior = PriorFile { prior: table, codes };
    let config = of_prior.config().unwrap();
    let kinds = Kinds::same(Kind::Float);
    let mut prior = Prior::new(&config, &of_prior.codes.of_prior(), 5, kinds, Device::Cpu);
    prior.parameters.freeze(&[Stage::Prior]);
    let _no_grad = tch::no_grad_guard();
    let mut flat = prior.parameters.flat().shallow_clone();
    let drawn = (Tensor::arange(flat.numel() as i64, (Kind::Double, Device::Cpu)) * 12.9898).sin()
        * 43758.5453;
    flat += (drawn.frac() * 0.3).to_kind(Kind::Float);
    prior.parameters.refresh();
    OpenPrior { file: file(ModelKind::Prior(of_prior)), prior }
}

fn options(out: &Path, num: u64) -> SampleOptions {
    let guidance = Guidance { scale: 1.5, ..Guidance::default() };
    SampleOptions {
        num,
        classes: Vec::new(),
        without_class: false,
        seed: 7,
        sampling: Sampling { guidance, steps: 5, ..Sampling::default() },
        out: out.to_owned(),
        tokens_only: false,
        prompt: None,
        reject_below: None,
    }
}

/// Draws on so many ranks; what rank 0 says of it.
fn sampled(kind: &str, world_size: usize, options: &SampleOptions) -> Result<Sampled, ApplyError> {
    tch::set_num_threads(1);
    let mut ranks = Threads::run(world_size, DEADLINE, |comm| {
        let tokenizer = tokenizer();
        let prior = prior(kind, &tokenizer);
        let (activity, say) = (Activity::default(), |_| {});
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Watch { activity: &activity, stop, say: &say };
        Ok::<_, CommError>(sample(&comm, &prior, Some(&tokenizer), None, options, &watch))
    });
    ranks.remove(0).unwrap()
}

fn bytes(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = ["", "pictures", "means", "raw"]
        .iter()
        .filter_map(|within| fs::read_dir(folder.join(within)).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// The codes in a folder of samples: of each those of all levels, one after another.
fn tokens(folder: &Path) -> Vec<Vec<u32>> {
    let bytes = fs::read(folder.join("tokens.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut samples = BTreeMap::new();
    for level in 0..2 {
        let view = file.tensor(&format!("codes.{level}")).unwrap();
        let (quads, _) = view.data().as_chunks::<4>();
        for (at, row) in quads.chunks(view.shape()[1]).enumerate() {
            let codes = row.iter().map(|quad| u32::from_le_bytes(*quad));
            samples.entry(at).or_insert_with(Vec::new).extend(codes);
        }
    }
    samples.into_values().collect()
}

/// The same of a picture `[H, W, C]` as the autoencoder sees it.
fn codes_of(picture: &[u8]) -> Vec<u32> {
    let tokenizer = tokenizer();
    let raw = Tensor::from_slice(picture).view([1, i64::from(SIDE), i64::from(SIDE), 3]);
    let signal = tokenizer.signal();
    let samples = signal.from_raw(&tile::padded(&raw, tile::size(&signal)), Kind::Float);
    let codes = tile::encode(&tokenizer.vqvae, &samples).unwrap();
    let codes_pl = codes[0].get(0).transpose(0, 1).reshape([-1]);
    Vec::<i64>::try_from(codes_pl).unwrap().into_iter().map(|code| code as u32).collect()
}

/// Bytes of a picture that look drawn.
fn picture(number: u8) -> Vec<u8> {
    (0..SIDE * SIDE * 3).map(|at| (at as u8).wrapping_mul(number.wrapping_mul(37) | 1)).collect()
}

/// Writes a picture of 3 channels, or of 1, of so many columns.
fn write_picture(path: &Path, bytes: &[u8], width: u32, color: png::ColorType) {
    let height = bytes.len() as u32 / width / color.samples() as u32;
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
    encoder.set_color(color);
    encoder.write_header().unwrap().write_image_data(bytes).unwrap();
}

/// The pixels of a picture.
fn read_picture(path: &Path) -> Vec<u8> {
    let file = std::io::BufReader::new(fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut bytes).unwrap();
    bytes
}

#[test]
fn samples_are_the_same_bytes_for_every_number_of_ranks() {
    for kind in ["autoregressive", "masked"] {
        let folder = tempfile::tempdir().unwrap();
        let out = |ranks: usize| folder.path().join(ranks.to_string());
        sampled(kind, 1, &options(&out(1), 37)).unwrap();
        let one = bytes(&out(1));
        assert_eq!(one.len(), 37 + 3, "pictures, sheet, tokens and what they are");
        for ranks in [2, 3] {
            sampled(kind, ranks, &options(&out(ranks), 37)).unwrap();
            for ((name, found), (_, wanted)) in bytes(&out(ranks)).iter().zip(&one) {
                assert!(found == wanted, "{kind}, {ranks} ranks: {name}");
            }
        }
    }
}

/// From 1 to 64 samples: the first ones are the same pictures, and differ from one another.
#[test]
fn a_sample_does_not_hang_on_how_many_are_drawn() {
    for kind in ["autoregressive", "masked"] {
        let folder = tempfile::tempdir().unwrap();
        let pictures = |num: u64| {
            let out = folder.path().join(num.to_string());
            sampled(kind, 1, &options(&out, num)).unwrap();
            let files = bytes(&out);
            files.into_iter().filter(|(name, _)| name.starts_with("pictures")).collect::<Vec<_>>()
        };
        let all = pictures(64);
        assert_eq!(all.len(), 64);
        assert_ne!(all[0].1, all[3].1, "of one class, and yet two");
        for num in [1, 3, 16, 17] {
            assert!(pictures(num) == all[..num as usize], "{kind}, {num} samples");
        }
    }
}

#[test]
fn what_cannot_be_drawn_is_refused_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let refusal = |change: fn(&mut SampleOptions)| {
        let mut options = options(&out, 4);
        change(&mut options);
        let error = sampled("autoregressive", 1, &options).unwrap_err();
        assert_eq!(error.code(), ExitCode::BadInput);
        error.to_string()
    };
    let class = refusal(|options| options.classes = vec!["boat".to_owned()]);
    assert_eq!(
        class,
        "--class should be a class of the prior, found boat: there are cup, hat, shoe"
    );
    let top_p = refusal(|options| options.sampling.filter.top_p = 0.0);
    assert_eq!(top_p, "top_p should be above 0 and at most 1, found 0");
    assert_eq!(refusal(|options| options.num = 0), "--num should be 1 or more, found 0");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), "").unwrap();
    let taken = refusal(|_| {});
    assert!(taken.contains("is there already, and not empty"), "{taken}");
}

#[test]
fn a_prior_of_other_codes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder.path().join("out"), 4);
    tch::set_num_threads(1);
    let mut ranks = Threads::run(1, DEADLINE, |comm| {
        let tokenizer = tokenizer();
        let mut prior = prior("autoregressive", &tokenizer);
        if let ModelKind::Prior(file) = &mut prior.file.kind {
            file.codes.tokenizer = "0".repeat(64);
        }
        let (activity, say) = (Activity::default(), |_| {});
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Watch { activity: &activity, stop, say: &say };
        Ok::<_, CommError>(sample(&comm, &prior, Some(&tokenizer), None, &options, &watch))
    });
    let error = ranks.remove(0).unwrap().unwrap_err();
    assert_eq!(error.code(), ExitCode::BadInput);
    let wanted = "the prior is of the codes of the model 000000000000, the tokeniser is ";
    assert!(error.to_string().starts_with(wanted), "{error}");
}
