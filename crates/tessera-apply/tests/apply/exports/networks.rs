//! Every kind of network in the forms that any runtime computes.

use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};
use tempfile::TempDir;
use tessera_apply::{ExportForm, export};
use tessera_data::{Modality, SampleShape};
use tessera_model::{
    AutoencoderFile, FORMAT, Level, ModelFile, ModelKind, OpenModel, Precision, Preprocessing,
    VERSION, Weights, signal_of,
};
use tessera_nn::{Kinds, ModelConfig, VqVae};

use super::{FAR, farthest};

const PICTURES: SampleShape = SampleShape {
    modality: Modality::Image,
    frames: 1,
    channels: 3,
    height: 32,
    width: 48,
    sample_rate: 0,
};
const FILM: SampleShape =
    SampleShape { modality: Modality::Video, frames: 9, height: 24, width: 16, ..PICTURES };
const SOUND: SampleShape = SampleShape {
    modality: Modality::Audio,
    frames: 480,
    channels: 1,
    height: 1,
    width: 1,
    sample_rate: 8000,
};

/// A network, the shape of its samples, and that of another batch; none: it takes samples of its own size alone.
struct Case {
    name: &'static str,
    model: Value,
    shape: SampleShape,
    other: Option<Vec<i64>>,
}

impl Case {
    fn model(&self) -> OpenModel {
        model_of(&self.model, self.shape)
    }
}

/// The networks whose graphs have more than convolutions in a row.
fn cases() -> Vec<Case> {
    let vector = json!({ "kind": "vector", "num_codes": 64, "code_dim": 4 });
    let residual = json!({ "kind": "residual", "num_quantizers": 2, "quantizer": vector });
    let vit = |latent_tokens| {
        json!({
            "kind": "vit", "patch": 8, "width": 48, "layers": 2, "heads": 3,
            "latent_tokens": latent_tokens,
        })
    };
    let conv3d = |attention| {
        json!({
            "kind": "conv3d", "channels": 8, "multipliers": [1, 2, 2], "patch": 2, "spatial": 4,
            "temporal": 4, "attention": attention, "attention_resolutions": [8],
        })
    };
    let conv1d = |causal| {
        json!({
            "kind": "conv1d", "channels": 8, "ratios": [4, 2], "causal": causal, "lstm_layers": 1,
            "attention_layers": 2, "attention_window": 16,
        })
    };
    let case = |name, backbone: Value, quantizer: &Value, shape, other: Option<&[i64]>| Case {
        name,
        model: json!({ "backbone": backbone, "quantizer": quantizer }),
        shape,
        other: other.map(<[i64]>::to_vec),
    };
    let dense = json!({ "kind": "dense", "hidden": 32, "positions": 12 });
    vec![
        case("vit", vit(0), &vector, PICTURES, None),
        case("titok", vit(12), &vector, PICTURES, None),
        case("conv3d", conv3d("factorized"), &vector, FILM, Some(&[2, 3, 13, 16, 32])),
        case("conv3d-axial", conv3d("axial"), &residual, FILM, Some(&[2, 3, 1, 32, 16])),
        case("conv1d", conv1d(true), &residual, SOUND, Some(&[2, 1, 960])),
        case("conv1d-centered", conv1d(false), &vector, SOUND, Some(&[2, 1, 240])),
        case("dense", dense, &residual, SOUND, None),
    ]
}

fn hierarchy() -> Case {
    let vector =
        |num_codes: i64| json!({ "kind": "vector", "num_codes": num_codes, "code_dim": 4 });
    let backbone =
        json!({ "kind": "hierarchy", "levels": 2, "channels": 16, "residual_layers": 1 });
    let model = json!({
        "backbone": backbone, "quantizer": vector(64), "coarser_quantizers": [vector(32)],
    });
    Case { name: "hierarchy", model, shape: PICTURES, other: Some(vec![2, 3, 16, 64]) }
}

/// A model at random weights, unsettled so that a mix-up shows, whose codes are latents.
fn model_of(model: &Value, shape: SampleShape) -> OpenModel {
    let signal = signal_of(shape);
    let config: ModelConfig = serde_json::from_value(model.clone()).unwrap();
    config.validate(&signal).unwrap();
    let vqvae = VqVae::new(&config, &signal, 7, Kinds::same(Kind::Float), Device::Cpu);
    let _no_grad = tch::no_grad_guard();
    for (name, mut tensor) in vqvae.parameters.named_views() {
        if tensor.dim() == 1 {
            tensor += (random(&tensor.size()) - 0.5) * 0.2;
        } else if ["transformer", "ffn", "conv_out.weight"].iter().any(|part| name.contains(part)) {
            let _ = tensor.g_mul_scalar_(5.0);
        }
    }
    vqvae.parameters.refresh();
    for (level, quantizer) in vqvae.quantizers.iter().enumerate() {
        let latents = &vqvae.latents(&random(&signal.shape(24)))[level];
        let latents_nd = tessera_nn::to_vectors(latents);
        for (name, mut tensor) in quantizer.state() {
            if name.ends_with("codebook") {
                let rows = tensor.size()[0];
                let step = latents_nd.size()[0] / rows;
                let chosen = latents_nd.slice(0, 0, rows * step, step);
                let mean = latents_nd.mean_dim([0i64].as_slice(), true, None);
                let is_first = !name.contains("residual") || name.contains("residual.0");
                tensor.copy_(&if is_first { chosen } else { (chosen - mean) * 0.5 });
            }
        }
    }
    let levels = Level::of(&vqvae);
    let autoencoder = AutoencoderFile {
        model: model.clone(),
        shape,
        preprocessing: Preprocessing { range: [0.0, 1.0], decoding: None },
        classes: Vec::new(),
        levels,
    };
    let file = ModelFile {
        format: FORMAT.to_owned(),
        version: VERSION,
        tessera: "0".to_owned(),
        hash: String::new(),
        step: 1,
        weights: Weights::Trained,
        precision: Precision::Fp32,
        kind: ModelKind::Autoencoder(autoencoder),
        trained_on: json!({ "kind": "synthetic" }),
    };
    OpenModel { file, vqvae }.hashed()
}

/// Waves under noise, in [0, 1], the same ones always: of others a few codes may be as near as the nearest.
fn random(shape: &[i64]) -> Tensor {
    let num = shape.iter().product::<i64>();
    let places = Tensor::arange(num, tch::kind::DOUBLE_CPU);
    let noise = ((&places * 12.9898).sin() * 43758.5453).frac().abs();
    let waves = (&places * 0.0917 + (&places * 0.00137).sin() * 40.0).sin() * 0.5 + 0.5;
    (noise * 0.4 + waves * 0.6).to_kind(Kind::Float).view(shape)
}

/// What a model makes of samples.
struct Expected {
    /// Latents `[N, D, positions]` of the finest level.
    latents: Tensor,
    /// `[N, T]` of each quantised level, the level of a position outermost.
    indices: Vec<Tensor>,
    /// `[N, C, ..]`.
    decoded: Tensor,
}

fn expected(model: &OpenModel, samples: &Tensor) -> Expected {
    let _no_grad = tch::no_grad_guard();
    let (vqvae, num) = (&model.vqvae, samples.size()[0]);
    let (mut latents, mut indices) = (None, Vec::new());
    let codes = vqvae.descend(samples, |level, latents_nd| {
        let (codes, codes_nl) = vqvae.quantize(level, latents_nd);
        let levels = codes_nl.size()[1];
        indices.push(codes_nl.view([num, -1, levels]).transpose(1, 2).flatten(1, 2));
        latents = Some(latents_nd.flatten(2, -1));
        codes
    });
    indices.reverse();
    let range = model.signal().range().unwrap();
    let decoded = vqvae.decode(&codes).clamp(*range.start(), *range.end());
    let deviation = decoded.std(false).double_value(&[]);
    assert!(deviation > 0.03, "all samples come out alike: {deviation}");
    Expected { latents: latents.unwrap(), indices, decoded }
}

/// The codebook `[K, D]`, where there is one alone.
fn codebook(model: &OpenModel) -> Option<Tensor> {
    let [quantizer] = model.vqvae.quantizers.as_slice() else { return None };
    let rule = quantizer.rule(&model.vqvae.parameters).unwrap();
    rule.codes().map(Tensor::shallow_clone)
}

#[test]
fn programs_of_libtorch_compute_what_every_network_does() {
    for case in cases() {
        let folder = TempDir::new().unwrap();
        let model = case.model();
        export(&model, ExportForm::TorchScript, folder.path(), false).unwrap();
        let load = |name: &str| CModule::load(folder.path().join(name)).unwrap();
        let (encoder, decoder) = (load("encoder.ts"), load("decoder.ts"));
        let own = model.signal().shape(3);
        for size in [&own].into_iter().chain(&case.other) {
            let samples = random(size);
            let Expected { indices: expected, decoded, .. } = expected(&model, &samples);
            let indices = encoder.forward_ts(&[&samples]).unwrap();
            let differ = indices.flatten(1, -1).ne_tensor(&expected[0]);
            let num_differ = differ.sum(Kind::Int64).int64_value(&[]);
            // Sums of float32 in another order: a latent may be as near to two codes as they can tell.
            assert!(
                num_differ * 500 <= differ.numel() as i64,
                "{} {size:?}: {num_differ}",
                case.name
            );
            let outputs = decoder.forward_ts(&[&expected[0].view_as(&indices)]).unwrap();
            let off = farthest(&outputs, &decoded);
            assert!(off < FAR, "{} {size:?}: {off:e}", case.name);
        }
    }
}

/// The files say which sizes they take, and are the same bytes each time.
#[test]
fn an_export_says_which_sizes_it_takes_and_is_the_same_each_time() {
    let one_size = "this size alone";
    let sizes = [
        (json!([32, 48]), json!([0, 0]), one_size),
        (json!([32, 48]), json!([0, 0]), one_size),
        (json!([4, 4, 4]), json!([1, 0, 0]), "1 + n x 4, n x 4, n x 4"),
        (json!([4, 4, 4]), json!([1, 0, 0]), "1 + n x 4, n x 4, n x 4"),
        (json!([8]), json!([0]), "n x 8"),
        (json!([8]), json!([0]), "n x 8"),
        (json!([480]), json!([0]), one_size),
    ];
    for (case, (multiple_of, offset, line)) in cases().into_iter().zip(sizes) {
        let model = case.model();
        for form in [ExportForm::Onnx, ExportForm::TorchScript] {
            let [one, other] = [(), ()].map(|()| TempDir::new().unwrap());
            let told = export(&model, form, one.path(), false).unwrap();
            export(&model, form, other.path(), false).unwrap();
            for (name, _) in told.files {
                let [one, other] =
                    [&one, &other].map(|folder| std::fs::read(folder.path().join(&name)).unwrap());
                assert!(one == other, "{} {name}", case.name);
            }
            let read = |name: &str| std::fs::read_to_string(one.path().join(name)).unwrap();
            let config: Value = serde_json::from_str(&read("config.json")).unwrap();
            assert_eq!(config["samples"]["multiple_of"], multiple_of, "{}", case.name);
            assert_eq!(config["samples"]["offset"], offset, "{}", case.name);
            assert_eq!(config["samples"]["fixed"], json!(case.other.is_none()), "{}", case.name);
            assert!(read("README.md").contains(line), "{}: {}", case.name, read("README.md"));
        }
    }
}

#[test]
fn a_hierarchy_goes_out_with_indices_of_each_level() {
    let folder = TempDir::new().unwrap();
    let model = hierarchy().model();
    export(&model, ExportForm::Onnx, folder.path(), false).unwrap();
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let levels = json!([
        { "name": "indices_0", "dtype": "int64", "axes": [8, 12], "num_codes": [64] },
        { "name": "indices_1", "dtype": "int64", "axes": [4, 6], "num_codes": [32] },
    ]);
    assert_eq!(config["levels"], levels);
    assert_eq!(config["samples"]["multiple_of"], json!([8, 8]));
    let problem = export(&model, ExportForm::TorchScript, &folder.path().join("ts"), false);
    assert!(problem.unwrap_err().to_string().contains("--format onnx"));
}

/// The files that the programs' own loaders open stand beside the safetensors.
#[test]
fn weights_for_taming_and_llamagen_come_as_they_save_them_too() {
    for (form, file) in [(ExportForm::Taming, "last.ckpt"), (ExportForm::LlamaGen, "model.pt")] {
        let folder = TempDir::new().unwrap();
        let told = export(&vqgan(), form, folder.path(), false).unwrap();
        let len = |wanted: &str| told.files.iter().find(|(name, _)| name == wanted).unwrap().1;
        assert!(len(file) > len("model.safetensors"), "as many values, each at a multiple of 64");
        assert!(std::fs::read(folder.path().join(file)).unwrap().starts_with(b"PK"));
    }
}

/// As both have it.
fn vqgan() -> OpenModel {
    let backbone = json!({
        "kind": "unet2d", "channels": 32, "multipliers": [1, 2], "residual_blocks": 2, "groups": 32,
        "attention_resolutions": [8], "latent_channels": 8,
    });
    let vector = json!({ "kind": "vector", "num_codes": 64, "code_dim": 4 });
    let shape = SampleShape { height: 16, width: 16, ..PICTURES };
    model_of(&json!({ "backbone": backbone, "quantizer": vector, "pixels": "signed" }), shape)
}

mod full {
    use super::super::full::{python, script};
    use super::*;

    /// Every network, over a hundred samples in batches of 5 and 1, and of another size where it takes one.
    #[test]
    fn every_network_gives_the_same_in_onnx_runtime_and_in_pytorch() {
        let folder = TempDir::new().unwrap();
        for case in cases().into_iter().chain([hierarchy()]) {
            let model = case.model();
            let own = model.signal().shape(100);
            for (number, size) in [&own].into_iter().chain(&case.other).enumerate() {
                let given = folder.path().join(format!("{}-{number}", case.name));
                std::fs::create_dir_all(&given).unwrap();
                write_reference(&model, &random(size), &given);
                for (word, form) in
                    [("onnx", ExportForm::Onnx), ("torchscript", ExportForm::TorchScript)]
                {
                    if case.name == "hierarchy" && form == ExportForm::TorchScript {
                        continue;
                    }
                    let out = folder.path().join(format!("{}.{word}", case.name));
                    export(&model, form, &out, true).unwrap();
                    let words = [&script("check.py"), std::path::Path::new(word), &out, &given];
                    let (is_done, told) = python(&words);
                    println!("{} {size:?} as {word}: {told}", case.name);
                    assert!(is_done, "{} as {word}: {told}", case.name);
                }
            }
        }
    }

    /// As `check.py` reads it.
    fn write_reference(model: &OpenModel, samples: &Tensor, folder: &std::path::Path) {
        let Expected { latents, indices, decoded } = expected(model, samples);
        let raw = |values: &Tensor| match model.file.autoencoder().shape.modality {
            Modality::Audio => (values.movedim_int(1, -1) * 32768.0)
                .round()
                .clamp(-32768.0, 32767.0)
                .to_kind(Kind::Int16),
            _ => (values.movedim_int(1, -1) * 255.0).round().to_kind(Kind::Uint8),
        };
        let mut all = vec![
            ("samples", raw(samples).contiguous()),
            ("codes", Tensor::cat(&indices, 1)),
            ("decoded", raw(&decoded).contiguous()),
            ("inputs_float", samples.contiguous()),
            ("decoded_float", decoded.contiguous()),
        ];
        if let Some(codes_kd) = codebook(model) {
            all.extend([("latents", latents.contiguous()), ("table", codes_kd.contiguous())]);
        }
        Tensor::write_safetensors(&all, folder.join("reference.safetensors")).unwrap();
    }
}
