//! Features are what the model computes of each sample, by number, whoever shares the work and in whatever form.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{ListAccessor, RowAccessor};
use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};
use tessera_apply::{
    ApplyError, FeatureForm, FeatureKind, FeaturesOptions, FeaturesWritten, Watch, write_features,
};
use tessera_comm::{CommError, Threads};
use tessera_control::{Activity, ExitCode};
use tessera_data::{DataConfig, Draw};
use tessera_model::{Level, open};

use crate::encode::networks::{NUM_TEST, NUM_TRAIN, all_networks, data, networks, tokens};
use crate::encode::{
    DEADLINE, TILE, encoded, options as to_tokens, tile_of, write_model, write_model_for,
};

fn options(out: &Path, of: FeatureKind) -> FeaturesOptions {
    let (splits, form) = (Vec::new(), FeatureForm::Safetensors);
    FeaturesOptions { out: out.to_owned(), of, pooled: false, splits, form, force: false }
}

fn written(
    world_size: usize,
    model: &Path,
    data: &DataConfig,
    options: &FeaturesOptions,
) -> Result<FeaturesWritten, ApplyError> {
    tch::set_num_threads(1);
    let ranks = Threads::run(world_size, DEADLINE, |comm| {
        let model = open(model, Device::Cpu).unwrap();
        let activity = Activity::default();
        let watch = Watch { activity: &activity, stop: Arc::default(), say: &|_| () };
        Ok::<_, CommError>(write_features(&comm, &model, data, options, &watch))
    });
    let mut all: Vec<_> = ranks.into_iter().map(|rank| rank.expect("joins")).collect();
    all.swap_remove(0)
}

/// The bytes of a tensor of a safetensors file, and its shape.
fn tensor(path: &Path, name: &str) -> (Vec<u8>, Vec<usize>) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    (view.data().to_vec(), view.shape().to_vec())
}

fn numbers(bytes: &[u8]) -> Tensor {
    let (quads, _) = bytes.as_chunks::<4>();
    Tensor::from_slice(&quads.iter().map(|quad| f32::from_le_bytes(*quad)).collect::<Vec<_>>())
}

#[test]
fn features_are_those_of_the_model_from_any_number_of_ranks() {
    let files = tempfile::tempdir().unwrap();
    for (name, model, data) in all_networks(files.path()) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_model_for(&path("model"), &model, 5, &data);
        for of in [FeatureKind::Latents, FeatureKind::Quantized, FeatureKind::Codes] {
            let [one, three] = ["one", "three"].map(|name| path(&format!("{name}-{of:?}")));
            let done = written(1, &path("model"), &data, &options(&one, of)).unwrap();
            written(3, &path("model"), &data, &options(&three, of)).unwrap();
            for (split, num) in [("train", NUM_TRAIN), ("test", NUM_TEST)] {
                assert_eq!(done.splits[split].shape[0], num as i64, "{name}");
                let file = format!("{split}.safetensors");
                let [ours, theirs] = [&one, &three].map(|dir| fs::read(dir.join(&file)).unwrap());
                assert!(ours == theirs, "{name}, {of:?}, {split}");
            }
        }
        // Codes are those of a token set, and vectors those that codes stand for.
        encoded(&path("model"), 1, &data, &to_tokens(&path("set")), false).unwrap();
        let set = tokens(&path("set"), "test");
        let mut expected = Vec::new();
        for id in 0..NUM_TEST {
            let mut bytes = vec![0; set.shape().num_bytes()];
            set.read(id, Draw::NONE, &mut bytes).unwrap();
            expected.extend(bytes);
        }
        let (codes, shape) = tensor(&path("one-Codes/test.safetensors"), "features");
        assert!(codes == expected && shape[0] as u64 == NUM_TEST, "{name}");
        let [latents, quantized] = ["Latents", "Quantized"].map(|of| {
            let (bytes, shape) = tensor(&path(&format!("one-{of}/test.safetensors")), "features");
            let axes: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
            numbers(&bytes).view(axes.as_slice())
        });
        assert_eq!(latents.size(), quantized.size());
        assert!(latents != quantized, "{name}");
        let opened = open(&path("model"), Device::Cpu).unwrap();
        let (quads, _) = codes.as_chunks::<4>();
        let codes: Vec<i64> =
            quads.iter().map(|quad| i64::from(u32::from_le_bytes(*quad))).collect();
        let codes_nt = Tensor::from_slice(&codes).view([NUM_TEST as i64, -1]);
        let finest = &Level::split(&opened.file.autoencoder().levels, &codes_nt)[0];
        let (vqvae, indices_nl) = (&opened.vqvae, finest.flatten(0, 1));
        let vectors = vqvae.quantizers[0].look_up(&vqvae.parameters, &indices_nl);
        assert_eq!(vectors.view([-1]), quantized.view([-1]), "{name}");
    }
}

#[test]
fn numbers_labels_means_and_arrays_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (_, model) = networks().swap_remove(0);
    write_model(&path("model"), &model, 5);
    let source = tessera_data::source::open(&data(), "test").unwrap();
    let opened = open(&path("model"), Device::Cpu).unwrap();
    let all = options(&path("all"), FeatureKind::Latents);
    written(1, &path("model"), &data(), &all).unwrap();
    let (bytes, shape) = tensor(&path("all/test.safetensors"), "features");
    assert_eq!(shape, [NUM_TEST as usize, 4, 4, 8]);
    let latents = numbers(&bytes).view([NUM_TEST as i64, 16, 8]);
    // As the encoder gives them, channels last.
    let expected = tch::no_grad(|| opened.vqvae.latents(&tile_of(&*source, 0, 0..TILE)));
    let expected = expected[0].permute([0, 2, 3, 1]).reshape([-1, 16, 8]);
    assert_eq!(latents.narrow(0, 0, TILE as i64), expected);

    let means = FeaturesOptions { pooled: true, ..options(&path("means"), FeatureKind::Latents) };
    written(2, &path("model"), &data(), &means).unwrap();
    let (bytes, shape) = tensor(&path("means/test.safetensors"), "features");
    assert_eq!(shape, [NUM_TEST as usize, 8]);
    let mean = latents.mean_dim([1i64].as_slice(), false, Kind::Float).view([-1]);
    assert!((numbers(&bytes) - mean).abs().max().double_value(&[]) < 1e-6);

    let (ids, shape) = tensor(&path("all/test.safetensors"), "ids");
    assert_eq!(shape, [NUM_TEST as usize]);
    let expected: Vec<u8> = (0..NUM_TEST).flat_map(|id| (id as i64).to_le_bytes()).collect();
    assert_eq!(ids, expected);
    let (labels, _) = tensor(&path("all/test.safetensors"), "labels");
    let label = |id| source.label(id).unwrap().unwrap_or(-1).to_le_bytes();
    assert_eq!(labels, (0..NUM_TEST).flat_map(label).collect::<Vec<u8>>());

    let arrays = FeaturesOptions {
        form: FeatureForm::Npy,
        splits: vec!["test".to_owned()],
        ..options(&path("arrays"), FeatureKind::Latents)
    };
    let done = written(1, &path("model"), &data(), &arrays).unwrap();
    assert_eq!(done.splits.len(), 1);
    let array = fs::read(path("arrays/test.features.npy")).unwrap();
    assert!(String::from_utf8_lossy(&array[..128]).contains("'<f4'"));
    assert!(String::from_utf8_lossy(&array[..128]).contains("(85, 4, 4, 8)"));
    assert_eq!(numbers(&array[128..]), latents.view([-1]));
    let labels_of_arrays = fs::read(path("arrays/test.labels.npy")).unwrap();
    assert!(String::from_utf8_lossy(&labels_of_arrays[..128]).contains("(85,)"));
    assert_eq!(labels_of_arrays[128..], labels);
    let left = fs::read_dir(path("arrays")).unwrap().count();
    assert_eq!(left, 3, "nothing half-written");

    let table = FeaturesOptions {
        form: FeatureForm::Parquet,
        splits: vec!["test".to_owned()],
        ..all.clone()
    };
    written(2, &path("model"), &data(), &table).unwrap();
    let file =
        SerializedFileReader::new(fs::File::open(path("all/test.parquet")).unwrap()).unwrap();
    let said = file.metadata().file_metadata().key_value_metadata().unwrap();
    assert!(
        said.iter()
            .any(|entry| entry.key == "tessera.axes" && entry.value.as_deref() == Some("[4,4,8]"))
    );
    let rows: Vec<_> = file.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), NUM_TEST as usize);
    let mut of_rows = Vec::new();
    for (row, id) in rows.iter().zip(0..) {
        assert_eq!(row.get_long(0).unwrap(), id);
        assert_eq!(row.get_long(1).unwrap(), source.label(id as u64).unwrap().unwrap_or(-1));
        let list = row.get_list(2).unwrap();
        of_rows.extend((0..list.len()).map(|place| list.get_float(place).unwrap()));
    }
    assert_eq!(Tensor::from_slice(&of_rows), latents.view([-1]));

    for (options, word) in [
        (arrays, "--force"),
        (FeaturesOptions { pooled: true, ..options(&path("x"), FeatureKind::Codes) }, "--pool"),
        (FeaturesOptions { splits: vec!["other".to_owned()], ..all }, "other"),
    ] {
        let error = written(1, &path("model"), &data(), &options).unwrap_err();
        assert_eq!(error.code(), ExitCode::BadInput, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}
