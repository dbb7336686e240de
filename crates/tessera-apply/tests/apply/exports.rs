//! Models that go to other programs and come from them: what comes out is what goes in.

mod networks;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tch::{CModule, Device, Kind, Tensor};
use tempfile::TempDir;
use tessera_apply::{ApplyError, ExportForm, ImportOptions, export, import};
use tessera_model::{ModelKind, OpenModel, assemble};
use tessera_nn::Signal;

/// Farthest that an output may be away: float32 through a deep network, by other kernels.
const FAR: f64 = 1e-5;

/// Samples, and what another program makes of them.
struct Reference {
    /// In [0, 1], sound in [-1, 1]: as a model takes them.
    samples: Tensor,
    /// `[N, T]`, the level outermost.
    codes: Tensor,
    /// As they come out of a model.
    decoded: Tensor,
}

/// `reference.safetensors` beside an original: values are in the range of its network.
fn reference(folder: &Path) -> Reference {
    let read = Tensor::read_safetensors(folder.join("reference.safetensors")).unwrap();
    let take = |wanted: &str| {
        let found = read.iter().find(|(name, _)| name == wanted);
        found.map(|(_, tensor)| tensor.shallow_clone()).unwrap()
    };
    let (samples, decoded) = (take("inputs_float"), take("decoded_float"));
    let to_unit = |values: Tensor| match values.dim() {
        4 => (values + 1.0) / 2.0,
        _ => values,
    };
    Reference { samples: to_unit(samples), codes: take("codes"), decoded: to_unit(decoded) }
}

fn imported(path: &Path, samples: &Tensor) -> OpenModel {
    let size = samples.size();
    let options = match size.len() {
        4 => ImportOptions { size: Some((size[2] as u32, size[3] as u32)), length: None },
        _ => ImportOptions { size: None, length: Some(size[2] as u32) },
    };
    import(path, &options).unwrap().model
}

/// Codes `[N, T]` of samples, the level outermost.
fn codes_of(model: &OpenModel, samples: &Tensor) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let codes_nl = model.vqvae.tokenize(samples).remove(0);
    let levels = codes_nl.size()[1];
    codes_nl.view([samples.size()[0], -1, levels]).transpose(1, 2).flatten(1, 2)
}

fn decoded(model: &OpenModel, codes_nt: &Tensor) -> Tensor {
    let levels = model.vqvae.quantizers[0].num_codes().len() as i64;
    let _no_grad = tch::no_grad_guard();
    let codes_nlp = codes_nt.view([codes_nt.size()[0], levels, -1]);
    model.vqvae.decode_indices(&[codes_nlp.transpose(1, 2).contiguous()])
}

fn farthest(found: &Tensor, expected: &Tensor) -> f64 {
    (found - expected).abs().max().double_value(&[])
}

/// What an imported model makes of the samples is what the original made of them.
fn compare(path: &Path) -> OpenModel {
    let Reference { samples, codes, decoded: expected } = reference(path);
    let model = imported(path, &samples);
    let found = codes_of(&model, &samples);
    let different = found.ne_tensor(&codes).sum(Kind::Int64).int64_value(&[]);
    assert_eq!(different, 0, "{}: codes of {}", path.display(), codes.numel());
    let range = model.signal().range().unwrap();
    let off = farthest(&decoded(&model, &codes), &expected.clamp(*range.start(), *range.end()));
    assert!(off < FAR, "{}: {off:e}", path.display());
    model
}

fn fixtures() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/fixtures/interop")
}

#[test]
fn weights_of_other_programs_give_their_outputs() {
    for name in ["diffusers-tiny", "encodec", "dac"] {
        drop(compare(&fixtures().join(name)));
    }
}

#[test]
fn programs_of_libtorch_compute_what_the_model_does_of_any_batch_and_size() {
    for (name, other) in [("diffusers-tiny", vec![1, 3, 24, 8]), ("encodec", vec![1, 1, 480])] {
        let folder = TempDir::new().unwrap();
        let Reference { samples, .. } = reference(&fixtures().join(name));
        let model = imported(&fixtures().join(name), &samples);
        export(&model, ExportForm::TorchScript, folder.path(), false).unwrap();
        let load = |name: &str| CModule::load(folder.path().join(name)).unwrap();
        let (encoder, decoder) = (load("encoder.ts"), load("decoder.ts"));
        let samples = samples.narrow(0, 0, 3);
        let indices = encoder.forward_ts(&[&samples]).unwrap();
        let codes = codes_of(&model, &samples);
        assert_eq!(indices.flatten(1, -1), codes, "{name}");
        let outputs = decoder.forward_ts(&[&indices]).unwrap();
        assert!(farthest(&outputs, &decoded(&model, &codes)) < FAR, "{name}");
        let larger = Tensor::rand(other.as_slice(), (Kind::Float, Device::Cpu));
        let there = decoder.forward_ts(&[encoder.forward_ts(&[&larger]).unwrap()]).unwrap();
        assert_eq!(there.size(), other, "{name}");
    }
}

/// What goes out in the form of the program that it came from has every tensor that came in, bit for bit.
#[test]
fn what_goes_back_is_what_came() {
    for (name, form, file) in [
        ("diffusers-tiny", ExportForm::Diffusers, "diffusion_pytorch_model.safetensors"),
        ("encodec", ExportForm::Transformers, "model.safetensors"),
        ("dac", ExportForm::Transformers, "model.safetensors"),
    ] {
        let folder = TempDir::new().unwrap();
        let from = fixtures().join(name);
        let model = imported(&from, &reference(&from).samples);
        let told = export(&model, form, folder.path(), false).unwrap();
        assert!(told.files.iter().any(|(name, _)| name == "README.md"));
        let [came, gone] = [&from, folder.path()].map(|folder| {
            let mut all = Tensor::read_safetensors(folder.join(file)).unwrap();
            all.sort_by(|one, other| one.0.cmp(&other.0));
            all
        });
        // EnCodec's counts are of a training, and not of the model.
        let counts = |name: &str| name.ends_with("cluster_size") || name.ends_with("embed_avg");
        assert_eq!(came.len(), gone.len(), "{name}");
        for ((came_as, came), (gone_as, gone)) in came.iter().zip(&gone) {
            assert_eq!(came_as, gone_as);
            assert!(counts(came_as) || came == gone, "{name}: {came_as}");
        }
        assert!(matches!(
            export(&model, form, folder.path(), false),
            Err(ApplyError::BadInput(problem)) if problem.contains("--force")
        ));
        export(&model, form, folder.path(), true).unwrap();
    }
}

/// EnCodec's file has an LSTM and normalised weights. A network that has neither goes out with an LSTM of zeros, which adds nothing to
/// its input, and with each weight as a length and a direction.
#[test]
fn a_network_without_an_lstm_goes_out_with_one_that_does_nothing() {
    let from = fixtures().join("encodec");
    let Reference { samples, .. } = reference(&from);
    let whole = imported(&from, &samples);
    let mut file = whole.file.clone();
    let ModelKind::Autoencoder(about) = &mut file.kind else { panic!("it is one") };
    about.model["backbone"]["lstm_layers"] = json!(0);
    about.model["backbone"]["weight_norm"] = json!(false);
    let all = whole.named();
    let plain =
        all.iter().filter(|(name, _)| !name.contains(".lstm.") && !name.ends_with("weight_g"));
    let plain = plain.map(|(name, tensor)| match name.strip_suffix("weight_v") {
        None => (name.clone(), tensor.shallow_clone()),
        Some(layer) => {
            let others: Vec<i64> = (1..tensor.dim() as i64).collect();
            let length = tensor.norm_scalaropt_dim(2, others.as_slice(), true);
            (format!("{layer}weight"), tensor * (&all[&format!("{layer}weight_g")] / length))
        }
    });
    let plain = assemble(file, plain.collect(), &from).unwrap();
    let folder = TempDir::new().unwrap();
    export(&plain, ExportForm::Transformers, folder.path(), false).unwrap();
    let back = imported(folder.path(), &samples);
    let codes = codes_of(&plain, &samples);
    assert_eq!(codes_of(&back, &samples), codes);
    assert!(farthest(&decoded(&back, &codes), &decoded(&plain, &codes)) < FAR);
    assert_ne!(codes, codes_of(&whole, &samples), "the LSTM did something");
}

/// DAC's file has plain weights: normalised ones are multiplied out.
#[test]
fn normalised_weights_go_out_multiplied_where_the_file_has_plain_ones() {
    let from = fixtures().join("dac");
    let Reference { samples, .. } = reference(&from);
    let whole = imported(&from, &samples);
    let mut file = whole.file.clone();
    let ModelKind::Autoencoder(about) = &mut file.kind else { panic!("it is one") };
    about.model["backbone"]["weight_norm"] = json!(true);
    let mut normed = BTreeMap::new();
    for (name, tensor) in whole.named() {
        match name.strip_suffix("weight") {
            Some(layer) if tensor.dim() == 3 => {
                let length = tensor.norm_scalaropt_dim(2, [1i64, 2].as_slice(), true);
                normed.insert(format!("{layer}weight_g"), length);
                normed.insert(format!("{layer}weight_v"), tensor);
            }
            _ => drop(normed.insert(name, tensor)),
        }
    }
    let normed = assemble(file, normed, &from).unwrap();
    let folder = TempDir::new().unwrap();
    export(&normed, ExportForm::Transformers, folder.path(), false).unwrap();
    let back = imported(folder.path(), &samples);
    let codes = codes_of(&whole, &samples);
    assert_eq!(codes_of(&back, &samples), codes);
    assert!(farthest(&decoded(&back, &codes), &decoded(&whole, &codes)) < FAR);
}

#[test]
fn an_onnx_file_is_as_its_reader_wants_it() {
    let folder = TempDir::new().unwrap();
    let from = fixtures().join("encodec");
    let model = imported(&from, &reference(&from).samples);
    export(&model, ExportForm::Onnx, folder.path(), false).unwrap();
    let bytes = fs::read(folder.path().join("encoder.onnx")).unwrap();
    // By hand, of onnx.proto3: ir_version is field 1, a varint; the name of the producer is field 2.
    assert_eq!(bytes[..4], [0x08, 8, 0x12, 7]);
    assert_eq!(&bytes[4..11], b"tessera");
    let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["samples"]["range"], serde_json::json!([-1.0, 1.0]));
    let Signal::Audio { samples, .. } = model.signal() else { panic!("sound") };
    let positions = config["indices"]["axes"][0].as_i64().unwrap();
    assert_eq!(config["samples"]["multiple_of"][0].as_i64().unwrap() * positions, samples);
}

#[test]
fn what_cannot_be_said_is_refused_with_the_reason() {
    let from = fixtures().join("encodec");
    let sound = imported(&from, &reference(&from).samples);
    let from = fixtures().join("diffusers-tiny");
    let picture = imported(&from, &reference(&from).samples);
    for (model, form, reason) in [
        (
            &sound,
            ExportForm::Diffusers,
            "this model has no diffusers form: it is for pictures, this model for sound",
        ),
        (
            &picture,
            ExportForm::Transformers,
            "this model has no transformers form: it is for sound, this model for pictures",
        ),
        (
            &picture,
            ExportForm::Taming,
            "this model has no taming form: its norms have 4 groups, and there they have 32 (model.backbone.groups)",
        ),
    ] {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("out");
        let problem = export(model, form, &out, false).unwrap_err().to_string();
        assert_eq!(problem, reason);
        assert!(!out.exists(), "nothing is left");
    }
}

#[test]
fn what_is_no_known_model_is_refused_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let unwritable = Path::new("/proc/nowhere/out");
    let from = fixtures().join("dac");
    let model = imported(&from, &reference(&from).samples);
    let error = export(&model, ExportForm::Onnx, unwritable, false).unwrap_err();
    assert_eq!(error.code(), tessera_control::ExitCode::BadInput, "{error}");
    let path = |name: &str| folder.path().join(name);
    let refused = |at: &Path| match import(at, &ImportOptions::default()) {
        Err(ApplyError::BadInput(problem)) => problem,
        other => panic!("{other:?}"),
    };
    assert!(
        refused(&path("nowhere"))
            .ends_with("does not exist: name a folder or a file of safetensors")
    );
    fs::write(path("model.ckpt"), b"PK").unwrap();
    assert!(refused(&path("model.ckpt")).contains("launch/interop/unpickle.py"));
    assert!(refused(folder.path()).contains("launch/interop/unpickle.py"));
    fs::write(path("a.safetensors"), b"12345678 no header").unwrap();
    assert!(refused(&path("a.safetensors")).contains("is no file of safetensors"));
    // A tensor too many, one too few.
    let from = fixtures().join("diffusers-tiny");
    let name = "diffusion_pytorch_model.safetensors";
    let whole = Tensor::read_safetensors(from.join(name)).unwrap();
    let copy = |tensors: &[(String, Tensor)]| {
        let to = TempDir::new_in(folder.path()).unwrap();
        fs::copy(from.join("config.json"), to.path().join("config.json")).unwrap();
        Tensor::write_safetensors(tensors, to.path().join(name)).unwrap();
        to
    };
    let mut more = copy_of(&whole);
    more.push(("encoder.strange.weight".to_owned(), Tensor::zeros([1], tch::kind::FLOAT_CPU)));
    assert!(
        refused(copy(&more).path())
            .ends_with("its tensor encoder.strange.weight has no place in this network")
    );
    let mut less = copy_of(&whole);
    less.retain(|(name, _)| name != "post_quant_conv.bias");
    assert!(
        refused_model(copy(&less).path()).contains("it has no tensor decoder.post_quant_conv.bias")
    );
}

fn copy_of(tensors: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// What is wrong with the tensors of a model.
fn refused_model(at: &Path) -> String {
    import(at, &ImportOptions::default()).unwrap_err().to_string()
}

mod full {
    use std::process::Command;

    use super::*;

    pub(super) fn script(name: &str) -> PathBuf {
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../../tests/interop")
            .join(name)
    }

    pub(super) fn python(words: &[&Path]) -> (bool, String) {
        let python = std::env::var_os("TESSERA_INTEROP")
            .expect("TESSERA_INTEROP names the Python of launch/interop.sh");
        let done = Command::new(python).args(words).output().unwrap();
        let told =
            [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (done.status.success(), told.concat())
    }

    /// Samples as the other programs read them, and what this model makes of them: in the range of its network and as it is, or
    /// as graphs have it, whose range is ours and which clamp it.
    fn write_reference(model: &OpenModel, samples: &Tensor, folder: &Path, of_graphs: bool) {
        fs::create_dir_all(folder).unwrap();
        let signal = model.signal();
        let raw = signal.to_raw(samples);
        let samples = signal.from_raw(&raw, Kind::Float);
        let codes = codes_of(model, &samples);
        let clamped = decoded(model, &codes);
        let own = |values: &Tensor| match model.vqvae.pixels {
            tessera_nn::Pixels::Signed if !of_graphs => values * 2.0 - 1.0,
            _ => values.shallow_clone(),
        };
        let outputs = match of_graphs {
            true => clamped.shallow_clone(),
            false => as_it_is(model, &samples),
        };
        let all = [
            ("samples", raw),
            ("codes", codes),
            ("decoded", signal.to_raw(&clamped)),
            ("inputs_float", own(&samples).contiguous()),
            ("decoded_float", own(&outputs).contiguous()),
        ];
        Tensor::write_safetensors(&all, folder.join("reference.safetensors")).unwrap();
    }

    /// What the decoder makes of the codes of samples, beyond their range too.
    fn as_it_is(model: &OpenModel, samples: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let codes =
            model.vqvae.descend(samples, |level, latents| model.vqvae.quantize(level, latents).0);
        model.vqvae.decode(&codes)
    }

    /// Every form of every original, over a hundred samples: opened by the library that it is for.
    #[test]
    fn every_form_gives_the_same_in_the_library_that_it_is_for() {
        let folder = TempDir::new().unwrap();
        let originals = folder.path().join("originals");
        let (is_done, told) = python(&[&script("originals.py"), &originals]);
        assert!(is_done, "{told}");
        let any: &[&str] = &["torchscript", "onnx"];
        for (name, forms) in [
            ("diffusers", &["diffusers", "taming"][..]),
            ("diffusers-groups", &["diffusers"]),
            ("taming", &["diffusers", "taming"]),
            ("llamagen", &["llamagen", "diffusers", "taming"]),
            ("llamagen-plain-codes", &["llamagen"]),
            ("encodec", &["transformers"]),
            ("encodec-centered", &["transformers"]),
            ("dac", &["transformers"]),
        ] {
            let from = originals.join(name);
            unpickle(&from);
            let model = compare(&from);
            let size = model.signal().shape(100);
            let samples = Tensor::rand(size.as_slice(), (Kind::Float, Device::Cpu));
            let given = [false, true].map(|of_graphs| {
                let given = folder.path().join(format!("reference-{of_graphs}"));
                write_reference(&model, &samples, &given, of_graphs);
                given
            });
            for form in forms.iter().chain(any) {
                let given = &given[usize::from(any.contains(form))];
                let out = folder.path().join(format!("{name}.{form}"));
                export(&model, form_of(form), &out, false).unwrap();
                let (is_done, told) = python(&[&script("check.py"), Path::new(form), &out, given]);
                println!("{name} as {form}: {told}");
                assert!(is_done, "{name} as {form}: {told}");
            }
        }
    }

    fn form_of(word: &str) -> ExportForm {
        match word {
            "diffusers" => ExportForm::Diffusers,
            "taming" => ExportForm::Taming,
            "llamagen" => ExportForm::LlamaGen,
            "transformers" => ExportForm::Transformers,
            "torchscript" => ExportForm::TorchScript,
            _ => ExportForm::Onnx,
        }
    }

    /// Lays the weights of a pickle beside it, where there is one.
    fn unpickle(folder: &Path) {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let is_pickle =
            |path: &PathBuf| path.extension().is_some_and(|end| end == "ckpt" || end == "pt");
        let Some(pickle) = entries.into_iter().find(is_pickle) else { return };
        let script = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../../launch/interop/unpickle.py");
        let (is_done, told) = python(&[&script, &pickle, &folder.join("model.safetensors")]);
        assert!(is_done, "{}: {told}", pickle.display());
    }
}
