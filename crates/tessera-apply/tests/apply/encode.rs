//! Tokens of a data set are the same bytes for every number of ranks and every batch, and decode to what an evaluation
//! makes.

#[path = "../../../../tests/media.rs"]
mod media;
pub(crate) mod networks;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use tessera_apply::{
    ApplyError, Augment, DecodeOptions, EncodeOptions, Encoded, Form, Watch, decode, encode, tile,
};
use tessera_checkpoint::Storage;
use tessera_comm::{CommError, Communicator, Threads};
use tessera_control::{Activity, ExitCode, Message};
use tessera_data::{DataConfig, DataKind, Draw, Source};
use tessera_model::{
    AutoencoderFile, FORMAT, Level, ModelFile, ModelKind, OpenModel, Precision, Preprocessing,
    VERSION, Weights, open, raw_samples, write,
};
use tessera_nn::{Kinds, ModelConfig, Signal, VqVae};

use self::networks::{
    NUM_TEST, NUM_TRAIN, SIDE, all_networks, as_array, data, files, networks, tokens,
};

pub(crate) const DEADLINE: Duration = Duration::from_secs(100);
/// Samples of a tile, as they are small.
pub(crate) const TILE: u64 = 64;

/// Writes a model folder with initial values whose codes lie where latents do.
pub(crate) fn write_model(folder: &Path, model: &Value, seed: u64) {
    write_model_for(folder, model, seed, &data());
}

pub(crate) fn write_model_for(folder: &Path, model: &Value, seed: u64, data: &DataConfig) {
    let shape = tessera_data::source::open(data, "train").unwrap().shape();
    let signal = tessera_model::signal_of(shape);
    let config: ModelConfig = serde_json::from_value(model.clone()).unwrap();
    let vqvae = VqVae::new(&config, &signal, seed, Kinds::same(Kind::Float), Device::Cpu);
    spread_codes(&vqvae, data);
    let preprocessing = Preprocessing { range: [0.0, 1.0], decoding: None };
    let levels = Level::of(&vqvae);
    let autoencoder =
        AutoencoderFile { model: model.clone(), shape, preprocessing, classes: Vec::new(), levels };
    let file = ModelFile {
        format: FORMAT.to_owned(),
        version: VERSION,
        tessera: "0".to_owned(),
        hash: String::new(),
        step: 1,
        weights: Weights::Trained,
        precision: Precision::Fp32,
        kind: ModelKind::Autoencoder(autoencoder),
        trained_on: serde_json::to_value(data).unwrap(),
    };
    let model = OpenModel { file, vqvae }.hashed();
    write(&Storage::new(), folder, &model).unwrap();
}

/// First codes are zeros before a training begins; latents of some samples are better ones.
fn spread_codes(vqvae: &VqVae, data: &DataConfig) {
    let _no_grad = tch::no_grad_guard();
    let source = tessera_data::source::open(data, "train").unwrap();
    let samples = samples(&*source, 0..64);
    let latents = vqvae.latents(&samples);
    for (level, quantizer) in vqvae.quantizers.iter().enumerate() {
        let latents_nd = tessera_nn::to_vectors(&latents[level]);
        for (name, mut tensor) in quantizer.state() {
            if name.ends_with("codebook") {
                let rows = tensor.size()[0];
                let step = (latents_nd.size()[0] / rows).max(1);
                let chosen = latents_nd.slice(0, 0, rows * step, step).narrow(0, 0, rows);
                let scale = if name.contains("residual") { 0.3 } else { 1.0 };
                tensor.copy_(&(chosen * scale));
            }
        }
    }
}

/// Samples `[N, C, H, W]` in float32.
pub(crate) fn samples(source: &dyn Source, ids: std::ops::Range<u64>) -> Tensor {
    let mut bytes = Vec::new();
    let mut sample = vec![0; source.shape().num_bytes()];
    for id in ids {
        source.read(id, Draw::NONE, &mut sample).unwrap();
        bytes.extend_from_slice(&sample);
    }
    let signal = tessera_model::signal_of(source.shape());
    signal.from_raw(&raw_samples(&bytes, source.shape()), Kind::Float)
}

/// A tile `[TILE, C, H, W]` with samples from a place in it on, zeros around.
pub(crate) fn tile_of(source: &dyn Source, slot: usize, ids: std::ops::Range<u64>) -> Tensor {
    let sample_bytes = source.shape().num_bytes();
    let mut bytes = vec![0; TILE as usize * sample_bytes];
    for (id, sample) in ids.zip(bytes.chunks_exact_mut(sample_bytes).skip(slot)) {
        source.read(id, Draw::NONE, sample).unwrap();
    }
    let signal = tessera_model::signal_of(source.shape());
    signal.from_raw(&raw_samples(&bytes, source.shape()), Kind::Float)
}

pub(crate) fn options(out: &Path) -> EncodeOptions {
    EncodeOptions {
        out: out.to_owned(),
        splits: Vec::new(),
        augment: Augment::None,
        shard_samples: 2 * TILE,
        batch: 64,
    }
}

/// Encodes on so many ranks; what rank 0 says of it.
pub(crate) fn encoded(
    model: &Path,
    world_size: usize,
    data: &DataConfig,
    options: &EncodeOptions,
    stops: bool,
) -> Result<Encoded, ApplyError> {
    tch::set_num_threads(1);
    let ranks = Threads::run(world_size, DEADLINE, |comm| {
        let model = open(model, Device::Cpu).unwrap();
        let (activity, stop) = (Activity::default(), Arc::new(AtomicBool::new(stops)));
        let watch = Watch { activity: &activity, stop, say: &|_| () };
        Ok::<_, CommError>(encode(&comm, &model, data, options, &watch))
    });
    let mut all: Vec<_> = ranks.into_iter().map(|rank| rank.expect("joins")).collect();
    all.swap_remove(0)
}

#[test]
fn bytes_of_a_token_set_hang_neither_on_ranks_nor_on_batches() {
    let files = tempfile::tempdir().unwrap();
    for (name, model, data) in all_networks(files.path()) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_model_for(&path("model"), &model, 5, &data);
        let one = encoded(&path("model"), 1, &data, &options(&path("one")), false).unwrap();
        assert_eq!(one.splits["train"].num_samples, NUM_TRAIN);
        assert_eq!(one.splits["test"].num_samples, NUM_TEST);
        let expected = self::files(&path("one"));
        for (world_size, batch) in [(1, 1), (1, 16), (2, 64), (3, 5)] {
            let out = path(&format!("{world_size}-{batch}"));
            let options = EncodeOptions { batch, ..options(&out) };
            encoded(&path("model"), world_size, &data, &options, false).unwrap();
            assert!(
                expected == self::files(&out),
                "{name}, {world_size} ranks, batches of {batch}"
            );
        }
        let manifest: Value =
            serde_json::from_slice(&expected[Path::new("manifest.json")]).unwrap();
        let hash = open(&path("model"), Device::Cpu).unwrap().file.hash;
        assert_eq!(manifest["tokenizer"], hash);
        let used = codes_used(&path("one"));
        assert!(used > 8, "{name}: {used} codes are no test");
    }
}

/// How many codes of the finest level come at all.
fn codes_used(set: &Path) -> usize {
    let source = tokens(set, "train");
    let histograms = source.histograms().unwrap().unwrap();
    histograms.levels[0].iter().filter(|&&count| count > 0).count()
}

#[test]
fn every_sample_is_there_once_and_its_codes_are_those_of_the_model() {
    let (_, model) = networks().swap_remove(0);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model(&path("model"), &model, 5);
    encoded(&path("model"), 3, &data(), &options(&path("set")), false).unwrap();
    let (source, set) =
        (tessera_data::source::open(&data(), "train").unwrap(), tokens(&path("set"), "train"));
    assert_eq!(set.num_samples(), NUM_TRAIN);
    let model = open(&path("model"), Device::Cpu).unwrap();
    for id in 0..NUM_TRAIN {
        assert_eq!(set.name(id), id.to_string());
        let mut bytes = vec![0; set.shape().num_bytes()];
        set.read(id, Draw::NONE, &mut bytes).unwrap();
        let (quads, _) = bytes.as_chunks::<4>();
        let found: Vec<i64> =
            quads.iter().map(|quad| i64::from(u32::from_le_bytes(*quad))).collect();
        // A tile of its own, at the place that the sample has in any tile.
        let slot = id % TILE;
        let codes =
            tile::encode(&model.vqvae, &tile_of(&*source, slot as usize, id..id + 1)).unwrap();
        let expected = Vec::<i64>::try_from(&codes[0].get(slot as i64).view([-1])).unwrap();
        assert_eq!(found, expected, "sample {id}");
    }
}

#[test]
fn an_encoding_that_was_stopped_goes_on_and_ends_as_one_that_was_not() {
    let (_, model) = networks().swap_remove(1);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model(&path("model"), &model, 5);
    encoded(&path("model"), 1, &data(), &options(&path("whole")), false).unwrap();
    let stopped = encoded(&path("model"), 2, &data(), &options(&path("set")), true).unwrap();
    assert!(stopped.is_stopped && !path("set").exists());
    let gone_on = encoded(&path("model"), 1, &data(), &options(&path("set")), false).unwrap();
    assert!(!gone_on.is_stopped);
    assert!(files(&path("whole")) == files(&path("set")));
    // Other options are another set.
    encoded(&path("model"), 1, &data(), &options(&path("other")), true).unwrap();
    let augmented = EncodeOptions { augment: Augment::Flip, ..options(&path("other")) };
    let refused = encoded(&path("model"), 1, &data(), &augmented, false).unwrap_err();
    assert_eq!(refused.code(), ExitCode::BadInput, "{refused}");
}

/// By hand: the first variant is the sample, the second its mirror image, and crops are cut from 18 x 18 (16 times 1.1,
/// rounded), so the corner at the bottom on the right begins at 2.
#[test]
fn variants_are_encoded_from_changed_samples() {
    assert_eq!(Augment::None.names(1), ["plain"]);
    assert_eq!(Augment::Flip.names(1), ["plain", "flip"]);
    let names = Augment::Crops.names(1);
    assert_eq!(
        (names.len(), &*names[1], &*names[10]),
        (11, "crop-1.1-top-left", "crop-1.1-center-flip")
    );
    let source = tessera_data::source::open(&data(), "train").unwrap();
    let samples = samples(&*source, 0..TILE);
    let flipped = Augment::Flip.apply(&samples, 1);
    assert_eq!(flipped[1].select(3, 0), samples.select(3, i64::from(SIDE) - 1));
    let crops = Augment::Crops.apply(&samples, 1);
    assert!(crops.iter().all(|crop| crop.size() == samples.size()));
    assert_eq!(crops[1].narrow(2, 2, 14), crops[3].narrow(2, 0, 14), "two rows further down");
    assert_eq!(crops[6], crops[1].flip([-1]));
    let range = |tensor: &Tensor| (tensor.min().double_value(&[]), tensor.max().double_value(&[]));
    assert!(crops.iter().map(range).all(|(least, most)| least >= 0.0 && most <= 1.0));

    // Of 16 instants a code a delay of an eighth is two.
    let names = Augment::Shifts.names(16);
    assert_eq!((names.len(), &*names[1], &*names[7]), (8, "shift-2", "shift-14"));
    let sound = Tensor::arange(32, (Kind::Float, Device::Cpu)).view([1, 1, 32]);
    let shifted = Vec::<f32>::try_from(Augment::Shifts.apply(&sound, 16)[1].view([-1])).unwrap();
    assert_eq!((&shifted[..5], shifted[31]), ([2., 1., 0., 1., 2.].as_slice(), 29.));
    let signal = Signal::Audio { channels: 1, samples: 32 };
    assert!(Augment::Shifts.validate(&signal, 8).is_ok());
    assert!(Augment::Shifts.validate(&signal, 4).unwrap_err().contains("the 4 instants"));
    assert!(Augment::Flip.validate(&signal, 8).is_err());

    let (_, model) = networks().swap_remove(0);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model(&path("model"), &model, 5);
    let with_flips = EncodeOptions { augment: Augment::Flip, ..options(&path("flips")) };
    encoded(&path("model"), 1, &data(), &with_flips, false).unwrap();
    encoded(&path("model"), 1, &data(), &options(&path("plain")), false).unwrap();
    let (plain, flips) = (tokens(&path("plain"), "test"), tokens(&path("flips"), "test"));
    assert_eq!(flips.tokens().unwrap().variants, ["plain", "flip"]);
    let mut both = [vec![0; plain.shape().num_bytes()], vec![0; plain.shape().num_bytes()]];
    plain.read(3, Draw::NONE, &mut both[0]).unwrap();
    flips.read(3, Draw::NONE, &mut both[1]).unwrap();
    assert_eq!(both[0], both[1]);
}

/// Samples that are read at once can take longer than a launcher waits for the next sign: each tile is one, in each variant.
#[test]
fn every_tile_is_a_sign_of_progress() {
    let (_, model) = networks().swap_remove(0);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model(&path("model"), &model, 5);
    let all = EncodeOptions { augment: Augment::Flip, batch: 1000, ..options(&path("set")) };
    let model = open(&path("model"), Device::Cpu).unwrap();
    let activity = Activity::default();
    let watch = Watch { activity: &activity, stop: Arc::default(), say: &|_| () };
    encode(&tessera_comm::Solo::default(), &model, &data(), &all, &watch).unwrap();
    let Message::Heartbeat { part, .. } = activity.heartbeat() else { panic!("a heartbeat") };
    let tiles = NUM_TRAIN.div_ceil(TILE) + NUM_TEST.div_ceil(TILE);
    assert!(part >= 2 * tiles, "{part} signs of {tiles} tiles, twice");
}

/// The array of `samples.npy` behind its header of 128 bytes.
pub(crate) fn decoded(
    model: &Path,
    set: &Path,
    out: &Path,
    world_size: usize,
    ids: &[u64],
) -> Vec<u8> {
    let options = DecodeOptions { ids: ids.to_vec(), ..as_array(set, out) };
    decoded_as(model, &options, out, world_size)
}

pub(crate) fn decoded_as(
    model: &Path,
    options: &DecodeOptions,
    out: &Path,
    world_size: usize,
) -> Vec<u8> {
    tch::set_num_threads(1);
    let ranks = Threads::run(world_size, DEADLINE, |comm| {
        let model = open(model, Device::Cpu).unwrap();
        let activity = Activity::default();
        let watch = Watch { activity: &activity, stop: Arc::default(), say: &|_| () };
        let decoded = decode(&comm, &model, options, &watch).unwrap();
        assert_eq!(comm.world_size(), world_size);
        Ok::<_, CommError>(decoded.num_samples)
    });
    assert!(ranks.into_iter().all(|rank| rank.is_ok()));
    fs::read(out.join("samples.npy")).unwrap().split_off(128)
}

#[test]
fn what_is_decoded_is_bit_for_bit_what_the_model_makes_of_the_samples() {
    let files = tempfile::tempdir().unwrap();
    for (name, model, data) in all_networks(files.path()) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_model_for(&path("model"), &model, 5, &data);
        encoded(&path("model"), 2, &data, &options(&path("set")), false).unwrap();
        let all = decoded(&path("model"), &path("set"), &path("all"), 2, &[]);

        let model = open(&path("model"), Device::Cpu).unwrap();
        let source = tessera_data::source::open(&data, "test").unwrap();
        let mut expected = Vec::new();
        for start in (0..NUM_TEST).step_by(TILE as usize) {
            let ids = start..NUM_TEST.min(start + TILE);
            let num = (ids.end - ids.start) as i64;
            let codes = tile::encode(&model.vqvae, &tile_of(&*source, 0, ids)).unwrap();
            let outputs = tile::decode(&model.vqvae, &codes).narrow(0, 0, num);
            let raw = model.signal().to_raw(&outputs).view([-1]);
            if raw.kind() == Kind::Int16 {
                let numbers = Vec::<i16>::try_from(&raw).unwrap();
                expected.extend(numbers.into_iter().flat_map(i16::to_le_bytes));
            } else {
                expected.extend(Vec::<u8>::try_from(&raw).unwrap());
            }
        }
        assert!(all == expected, "{name}");
        let sample = expected.len() / NUM_TEST as usize;
        let two = decoded(&path("model"), &path("set"), &path("two"), 1, &[19, 3]);
        let [third, nineteenth] = [3, 19].map(|id| &expected[id * sample..][..sample]);
        assert!(two == [third, nineteenth].concat(), "{name}");
    }
}

/// Of three levels two: the third is left out of the sum of codes.
#[test]
fn so_many_levels_are_decoded_as_are_asked_for() {
    let (_, model) = networks().swap_remove(1);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model(&path("model"), &model, 5);
    encoded(&path("model"), 1, &data(), &options(&path("set")), false).unwrap();
    let with = |levels: usize| {
        let out = path(&levels.to_string());
        let options = DecodeOptions { levels: Some(levels), ..as_array(&path("set"), &out) };
        decoded_as(&path("model"), &options, &out, 1)
    };
    let all = decoded(&path("model"), &path("set"), &path("all"), 1, &[]);
    assert!(with(3) == all && with(2) != all && with(1) != with(2));

    let model = open(&path("model"), Device::Cpu).unwrap();
    let source = tessera_data::source::open(&data(), "test").unwrap();
    let codes = tile::encode(&model.vqvae, &tile_of(&*source, 0, 0..TILE)).unwrap();
    let without_third = codes[0].copy();
    let _ = without_third.narrow(2, 2, 1).fill_(-1);
    let raw = model.signal().to_raw(&tile::decode(&model.vqvae, &[without_third])).view([-1]);
    let expected = Vec::<u8>::try_from(&raw).unwrap();
    assert!(with(2)[..expected.len()] == expected);

    let activity = Activity::default();
    let watch = Watch { activity: &activity, stop: Arc::default(), say: &|_| () };
    let options = DecodeOptions { levels: Some(4), ..as_array(&path("set"), &path("none")) };
    let comm = tessera_comm::Solo::default();
    let refused = decode(&comm, &model, &options, &watch).unwrap_err();
    assert!(refused.to_string().contains("--levels should be from 1 to 3"), "{refused}");
}

#[test]
fn what_does_not_fit_the_model_is_refused() {
    let (_, model) = networks().swap_remove(0);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model(&path("model"), &model, 5);
    write_model(&path("other"), &model, 6);
    encoded(&path("model"), 1, &data(), &options(&path("set")), false).unwrap();
    let refused = |tokens: &Path, ids: &[u64]| {
        let model = open(&path("other"), Device::Cpu).unwrap();
        let form = Form::Files(path("out"));
        let (tokens, split, ids) = (tokens.to_owned(), "test".to_owned(), ids.to_vec());
        let options = DecodeOptions { tokens, split, ids, limit: None, levels: None, form };
        let activity = Activity::default();
        let watch = Watch { activity: &activity, stop: Arc::default(), say: &|_| () };
        let comm = tessera_comm::Solo::default();
        let error = decode(&comm, &model, &options, &watch).unwrap_err();
        assert_eq!(error.code(), ExitCode::BadInput, "{error}");
        assert!(!path("out").exists() && !error.to_string().contains('\n'));
        error.to_string()
    };
    let [ours, theirs] = ["other", "model"]
        .map(|name| open(&path(name), Device::Cpu).unwrap().file.hash[..12].to_owned());
    let words = refused(&path("set"), &[]);
    assert!(words.contains(&ours) && words.contains(&theirs), "{words}");
    let shard = refused(&path("set").join("test-00000.safetensors"), &[]);
    assert!(shard.contains("does not say which model made its codes"), "{shard}");

    let mut small = data();
    small.synthetic.height = 8;
    let error = encoded(&path("model"), 2, &small, &options(&path("small")), false).unwrap_err();
    assert_eq!(error.code(), ExitCode::BadInput);
    assert!(error.to_string().contains("the model takes samples of 16 x 16 x 3"), "{error}");
    let odd = EncodeOptions { shard_samples: 2 * TILE + 16, ..options(&path("odd")) };
    let error = encoded(&path("model"), 1, &data(), &odd, false).unwrap_err();
    assert!(error.to_string().contains("should be a multiple of 64, found 144"), "{error}");
}

fn write_picture(path: &Path, number: u8) {
    let bytes: Vec<u8> = (0..SIDE * SIDE * 3).map(|at| (at as u8).wrapping_mul(number)).collect();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), SIDE, SIDE);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
}

/// The codes of each sample of a split, by its name.
fn codes_by_name(set: &Path) -> BTreeMap<String, Vec<u8>> {
    let source = tokens(set, "train");
    let codes = |id| {
        let mut bytes = vec![0; source.shape().num_bytes()];
        source.read(id, Draw::NONE, &mut bytes).unwrap();
        (source.name(id), bytes)
    };
    (0..source.num_samples()).map(codes).collect()
}

#[test]
fn a_damaged_sample_ends_an_encoding_or_is_left_out_and_changes_no_other() {
    let (_, model) = networks().swap_remove(0);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model(&path("model"), &model, 5);
    fs::create_dir(path("photos")).unwrap();
    for number in 1..=40 {
        write_picture(&path(&format!("photos/{number:02}.png")), number);
    }
    let mut photos = DataConfig { kind: DataKind::Folder, holdout: 0.0, ..DataConfig::default() };
    photos.path = path("photos");
    let whole = encoded(&path("model"), 2, &photos, &options(&path("whole")), false).unwrap();
    assert_eq!(whole.splits.keys().collect::<Vec<_>>(), ["train"], "nothing is held out");

    let broken = fs::read(path("photos/07.png")).unwrap();
    fs::write(path("photos/07.png"), &broken[..broken.len() / 2]).unwrap();
    let error = encoded(&path("model"), 2, &photos, &options(&path("set")), false).unwrap_err();
    assert_eq!(error.code(), ExitCode::DataCorrupt, "{error}");
    photos.on_corrupt = tessera_data::OnCorrupt::Skip;
    let set = encoded(&path("model"), 3, &photos, &options(&path("skipped")), false).unwrap();
    let train = &set.splits["train"];
    assert_eq!((train.num_samples, train.num_skipped), (39, 1));
    let mut expected = codes_by_name(&path("whole"));
    assert!(expected.remove("6").is_some(), "numbers are from 0");
    assert!(expected == codes_by_name(&path("skipped")));
}

/// A file of another program: codes of int64, and whose they are.
#[test]
fn codes_in_a_plain_file_are_decoded_where_it_names_the_model() {
    use safetensors::tensor::{Dtype, TensorView};
    let (_, model) = networks().swap_remove(1);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model(&path("model"), &model, 5);
    let opened = open(&path("model"), Device::Cpu).unwrap();
    let codes: Vec<u8> = (0..2 * 16i64).flat_map(|code| code.to_le_bytes()).collect();
    let names = ["codes.0", "codes.1", "codes.2"];
    let views = names.map(|name| (name, TensorView::new(Dtype::I64, vec![2, 16], &codes).unwrap()));
    let words = std::collections::HashMap::from([("tokenizer".into(), opened.file.hash.clone())]);
    let file = path("codes.safetensors");
    fs::write(&file, safetensors::serialize(views, Some(words)).unwrap()).unwrap();
    let raw = decoded(&path("model"), &file, &path("out"), 1, &[]);
    let codes_npl =
        Tensor::arange(32, (Kind::Int64, Device::Cpu)).view([2, 16, 1]).expand([2, 16, 3], false);
    let codes_npl = tile::padded(&codes_npl, TILE as usize);
    let outputs = tile::decode(&opened.vqvae, &[codes_npl]).narrow(0, 0, 2);
    let expected = Vec::<u8>::try_from(&opened.signal().to_raw(&outputs).view([-1])).unwrap();
    assert!(raw == expected);
}
