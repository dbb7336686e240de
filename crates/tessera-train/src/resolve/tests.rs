//! What a configuration is made of, from all sources.

use super::*;
use tessera_nn::QuantizerConfig;

fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn refusal(text: &str, sets: &[&str]) -> String {
    let (_folder, path) = write(text);
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    resolve(Some(&path), [], &sets, None).unwrap_err().to_string()
}

#[test]
fn later_sources_go_before_earlier_ones_and_origins_are_kept() {
    let (_folder, path) = write("seed = 3\n[train]\nsteps = 7\nglobal_batch = 8\n");
    let environment = [
        ("TESSERA__TRAIN__GLOBAL_BATCH", "16"),
        ("TESSERA__TRAIN__STEPS", "9"),
        ("TESSERA_WORLD_SIZE", "2"),
    ]
    .map(|(name, value)| (name.into(), value.into()));
    let sets = ["train.steps=11".to_owned(), "data.path=some/where".to_owned()];
    let resolved = resolve(Some(&path), environment, &sets, None).unwrap();
    let TrainConfig { seed, train, data, .. } = &resolved.config;
    assert_eq!((*seed, train.steps, train.global_batch), (3, 11, 16));
    assert_eq!(data.path, Path::new("some/where"));
    assert_eq!(resolved.origins["seed"], format!("{}:1", path.display()));
    assert_eq!(resolved.origins["train.global_batch"], "TESSERA__TRAIN__GLOBAL_BATCH");
    assert_eq!(resolved.origins["train.steps"], "--set");
    assert_eq!(resolved.run_dir, Path::new("runs/run"));
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest() {
    let message = refusal("[train]\nsteps = 7\n\n[model.quantizer]\nnum_code = 5\n", &[]);
    assert!(message.contains("run.toml:5: unknown key 'model.quantizer.num_code'"), "{message}");
    assert!(message.contains("'model.quantizer.num_codes'"), "{message}");
    let message = refusal("", &["train.learning_rate=0.1"]);
    assert!(message.contains("'optimizer.learning_rate'"), "{message}");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_what_is_wanted() {
    let message = refusal("[train]\nsteps = 2.5\n", &[]);
    assert!(message.contains("run.toml:2: train.steps should be a whole number"), "{message}");
    assert!(refusal("train = 5", &[]).contains("keys below it"));
    assert!(refusal("", &["train.steps=many"]).contains("--set: train.steps should be a whole"));
    assert!(refusal("", &["train.steps"]).contains("KEY=VALUE"));
    assert!(refusal("a = [", &[]).contains("run.toml:1: not TOML"));
}

#[test]
fn values_out_of_range_and_unknown_kinds_are_refused() {
    let none = ["data.kind=synthetic", "train.global_batch=0"];
    assert!(refusal("", &none).contains("train.global_batch should be"));
    let none = ["data.kind=synthetic", "model.quantizer.decay=1.0"];
    assert!(refusal("", &none).contains("model.quantizer.decay should be"));
    let message = refusal("", &["model.backbone.kind=conv9d"]);
    assert!(message.contains("conv9d") && !message.contains('\n'), "{message}");
    let file = "[model.quantizer]\nkind = 'fsk'\nlevels = [8, 5]\n";
    let message = refusal(file, &[]);
    assert!(
        message.contains("run.toml:2: model.quantizer.kind should be one of \"vector\""),
        "{message}"
    );
    assert!(message.contains("\"fsq\""), "{message}");
}

#[test]
fn the_kind_of_a_table_says_which_keys_it_has() {
    let file = "data.kind = 'synthetic'\n[model.quantizer]\nkind = 'fsq'\nlevels = [8, 5, 5]\n";
    let (_folder, path) = write(file);
    let config = resolve(Some(&path), [], &[], None).unwrap().config;
    let QuantizerConfig::FiniteScalar(fsq) = &config.model.quantizer else {
        panic!("{:?}", config.model.quantizer)
    };
    assert_eq!(fsq.levels, [8, 5, 5]);
    let message = refusal(&format!("{file}decay = 0.9\n"), &[]);
    assert!(message.contains("unknown key 'model.quantizer.decay' of kind \"fsq\""), "{message}");
    let message = refusal(file, &["model.quantizer.levels=[8, 1.5]"]);
    assert!(message.contains("a list of whole numbers"), "{message}");
    let message = refusal(file, &["model.quantizer.levels=[8, 1]"]);
    assert!(message.contains("model.quantizer.levels should be one or more"), "{message}");
}

#[test]
fn tables_may_hold_tables_with_kinds_of_their_own() {
    let file = "data.kind = 'synthetic'\n[model.quantizer]\nkind = 'residual'\n\
                num_codes = [64, 32, 16, 8]\n[model.quantizer.quantizer]\nkind = 'simvq'\n\
                code_dim = 4\n";
    let (folder, path) = write(file);
    let resolved = resolve(Some(&path), [], &[], Some(folder.path().to_owned())).unwrap();
    let QuantizerConfig::Residual(residual) = &resolved.config.model.quantizer else {
        panic!("{:?}", resolved.config.model.quantizer)
    };
    assert_eq!(residual.num_codes, [64, 32, 16, 8]);
    assert!(matches!(&*residual.quantizer, QuantizerConfig::SimVq(part) if part.code_dim == 4));
    std::fs::write(folder.path().join("config.toml"), resolved.to_toml()).unwrap();
    assert_eq!(Resolved::of_run(folder.path()).unwrap().config, resolved.config);
    let message = refusal(file, &["model.quantizer.num_codes=[1]"]);
    assert!(message.contains("model.quantizer.num_codes should be empty, or 4"), "{message}");
}

#[test]
fn what_is_written_to_the_run_folder_reads_back_the_same() {
    let (folder, path) = write("data.kind = 'synthetic'\noptimizer.learning_rate = 1\n");
    let resolved = resolve(Some(&path), [], &[], Some(folder.path().to_owned())).unwrap();
    let text = resolved.to_toml();
    let origin = format!("learning_rate = 1.0 # {}:2", path.display());
    assert!(text.contains(&origin), "{text}");
    assert!(text.contains("num_codes = 512 # default"), "{text}");
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    assert_eq!(Resolved::of_run(folder.path()).unwrap().config, resolved.config);
}

#[test]
fn a_word_that_is_none_of_a_few_is_told_with_those_few() {
    let told = refusal("", &["comm.backend=foo"]);
    assert!(
        told.contains("comm.backend should be one of \"auto\", \"nccl\", \"mpi\", found \"foo\""),
        "{told}"
    );
    let told = refusal("", &["train.precision=fp16"]);
    assert!(told.contains("train.precision should be one of \"fp32\""), "{told}");
    let told = refusal("[model.quantizer]\ndistance = 'l2'\n", &[]);
    let place = "run.toml:2: model.quantizer.distance should be one of \"euclidean\"";
    assert!(told.contains(place), "{told}");
}

/// What these settings make, from `--set` alone.
fn config_of(file: &str, sets: &[&str]) -> TrainConfig {
    let (_folder, path) = write(file);
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    read(Some(&path), [], &sets, None).unwrap().config
}

const MIXTURE: &str = "\
[data]
kind = 'mixture'
[[data.mixture]]
weight = 1
[data.mixture.data]
kind = 'synthetic'
synthetic = { height = 16, width = 16 }
[[data.mixture]]
weight = 2.5
data = { kind = 'synthetic', synthetic.height = 16, synthetic.width = 16, synthetic.seed = 1 }
";

#[test]
fn a_mixture_is_read_from_every_source_and_from_a_run_folder() {
    let (folder, path) = write(MIXTURE);
    let root = folder.path().to_owned();
    let from_file = resolve(Some(&path), [], &[], Some(root)).unwrap();
    let parts = &from_file.config.data.mixture;
    assert_eq!(parts.iter().map(|part| part.weight).collect::<Vec<_>>(), [1.0, 2.5]);
    assert_eq!(parts[1].data.synthetic.seed, 1);
    assert_eq!(from_file.origins["data.mixture.1.weight"], format!("{}:9", path.display()));
    let text = from_file.to_toml();
    let origin = format!("[[data.mixture]]\nweight = 2.5 # {}:9\n", path.display());
    assert!(text.contains(&origin), "{text}");
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    assert_eq!(Resolved::of_run(folder.path()).unwrap().config, from_file.config);

    let synthetic = "{kind = \"synthetic\", synthetic = {height = 16, width = 16";
    let list = format!(
        "[{{weight = 1, data = {synthetic}}}}}}}, {{weight = 2.5, data = {synthetic}, seed = 1}}}}}}]"
    );
    let json = serde_json::to_string(&from_file.config.data.mixture).unwrap();
    for list in [list, json] {
        let variable = ("TESSERA__DATA__MIXTURE".into(), list.clone());
        let sets = ["data.kind=mixture".to_owned(), format!("data.mixture={list}")];
        assert_eq!(resolve(None, [], &sets, None).unwrap().config.data, from_file.config.data);
        let resolved = resolve(None, [variable], &sets[..1], None).unwrap();
        assert_eq!(resolved.config.data, from_file.config.data);
        assert_eq!(resolved.origins["data.mixture.1.weight"], "TESSERA__DATA__MIXTURE");
    }
}

#[test]
fn a_part_of_a_mixture_is_a_key_of_its_own_and_a_list_replaces_the_one_below() {
    let sets = ["data.mixture.1.weight=7", "data.mixture.0.data.synthetic.num_train=9"];
    let parts = config_of(MIXTURE, &sets).data.mixture;
    assert_eq!((parts[0].weight, parts[1].weight), (1.0, 7.0));
    assert_eq!((parts[0].data.synthetic.num_train, parts[0].data.synthetic.height), (9, 16));
    let sets = ["data.mixture.2.data.kind=idx", "data.mixture.2.weight=4"];
    assert_eq!(config_of(MIXTURE, &sets).data.mixture.len(), 3);
    let one = "data.mixture=[{weight = 3, data = {kind = 'idx', path = 'a'}}]";
    let parts = config_of(MIXTURE, &["data.mixture.0.weight=5", one]).data.mixture;
    assert_eq!((parts.len(), parts[0].weight), (1, 3.0));
    assert_eq!(parts[0].data.synthetic, Default::default());
    let parts = config_of(MIXTURE, &[one, "data.mixture.0.weight=5"]).data.mixture;
    assert_eq!((parts.len(), parts[0].weight), (1, 5.0));
    assert!(config_of(MIXTURE, &["data.mixture=[]"]).data.mixture.is_empty());
}

#[test]
fn mistakes_in_a_mixture_are_told_with_their_place() {
    let told = |text: &str, set: &str| refusal(text, &[set]);
    for (problem, words) in [
        (told(MIXTURE, "data.mixture.3.weight=1"), "no data.mixture.2: parts are numbered from 0"),
        (told(MIXTURE, "data.mixture.2.weight=1"), "--set: data.mixture.2 lacks data"),
        (told(MIXTURE, "data.mixture.1.wieght=1"), "did you mean 'data.mixture.1.weight'?"),
        (told(MIXTURE, "data.mixture.weight=1"), "unknown key 'data.mixture.weight'"),
        (told(MIXTURE, "data.mixture.0.data.paht=a"), "did you mean 'data.mixture.0.data.path'?"),
        (told(MIXTURE, "data.mixture.0.weight=-"), "data.mixture.0.weight should be a number"),
        (told(MIXTURE, "data.mixture=7"), "data.mixture should be a list of tables"),
        (told(MIXTURE, "data.mixture=[1]"), "data.mixture should be a list of tables"),
        (told("data.mixture = [1]", "seed=1"), "run.toml:1: data.mixture should be a list of"),
        (told("[[data.mixture]]\nweight = 'a'", "seed=1"), "run.toml:2: data.mixture.0.weight"),
        (told("[[data.mixture]]\nweight = 1", "seed=1"), "run.toml:2: data.mixture.0 lacks data"),
        (told("[[data.mixture]]\n", "seed=1"), "run.toml:1: data.mixture.0 lacks "),
        (told("[data.mixture]\nweight = 1", "seed=1"), "unknown key 'data.mixture.weight'"),
        (told(MIXTURE, "data.mixture.0.weight=-1"), "weights are above 0"),
        (told(MIXTURE, "data.mixture.1.data.kind=idx"), "data.mixture.1"),
    ] {
        assert!(problem.contains(words), "{words:?} is not in {problem:?}");
        assert!(!problem.contains('\n'), "{problem}");
    }
}

#[test]
fn a_kind_that_a_higher_source_changes_leaves_out_what_only_the_old_one_has() {
    let file = "data.kind = 'synthetic'\n[model.quantizer]\nkind = 'vector'\nnum_codes = 64\n\
                code_dim = 8\ndecay = 0.5\n";
    let kind = |sets: &[&str]| config_of(file, sets).model.quantizer;
    let QuantizerConfig::SimVq(simvq) = kind(&["model.quantizer.kind=simvq"]) else { panic!() };
    assert_eq!((simvq.num_codes, simvq.code_dim), (64, 8));
    let sets = ["model.quantizer.levels=[7, 5]", "model.quantizer.kind=fsq"];
    let QuantizerConfig::FiniteScalar(fsq) = kind(&sets) else { panic!() };
    assert_eq!(fsq.levels, [7, 5]);
    // A name that both have for other things: a list there, a number here.
    let QuantizerConfig::Residual(residual) = kind(&["model.quantizer.kind=residual"]) else {
        panic!()
    };
    assert_eq!(residual.num_codes, Vec::<i64>::new());
    // There and back again nothing is lost.
    let (_folder, path) = write(file);
    let fsq = ("TESSERA__MODEL__QUANTIZER__KIND".into(), "fsq".into());
    let sets = ["model.quantizer.kind=vector".to_owned()];
    let config = read(Some(&path), [fsq.clone()], &sets, None).unwrap().config;
    assert_eq!(config.model.quantizer.vector().unwrap().decay, 0.5);
    // A key beside the kind that lacks it is a mistake, and so is one that no kind below has.
    let told = refusal(file, &["model.quantizer.kind=fsq", "model.quantizer.decay=0.5"]);
    let words = "--set: unknown key 'model.quantizer.decay' of kind \"fsq\"";
    assert!(told.contains(words), "{told}");
    let told = refusal(&file.replace("decay", "deacy"), &["model.quantizer.kind=fsq"]);
    assert!(told.contains("run.toml:6: unknown key 'model.quantizer.deacy'"), "{told}");
    let told = refusal("model.quantizer.kind = 'fsq'\nmodel.quantizer.decay = 0.5", &[]);
    assert!(told.contains("run.toml:2: unknown key"), "{told}");
    // What is left out has no place in the run folder.
    let resolved = read(Some(&path), [fsq], &[], None).unwrap();
    assert!(!resolved.origins.contains_key("model.quantizer.decay"));
    assert!(!resolved.to_toml().contains("decay = 0.5"));
}

#[test]
fn the_kind_of_a_table_in_a_table_is_changed_alike() {
    let file = "data.kind = 'synthetic'\n[model.quantizer]\nkind = 'residual'\nnum_quantizers = 3\n\
                [model.quantizer.quantizer]\nkind = 'simvq'\ncode_dim = 4\n";
    let QuantizerConfig::Residual(residual) =
        config_of(file, &["model.quantizer.quantizer.kind=fsq"]).model.quantizer
    else {
        panic!()
    };
    assert!(matches!(*residual.quantizer, QuantizerConfig::FiniteScalar(_)));
    assert_eq!(residual.num_quantizers, 3);
    let QuantizerConfig::Grouped(grouped) =
        config_of(file, &["model.quantizer.kind=grouped"]).model.quantizer
    else {
        panic!()
    };
    assert!(matches!(&*grouped.quantizer, QuantizerConfig::SimVq(part) if part.code_dim == 4));
    let sets = ["model.quantizer={kind = \"fsq\", levels = [3, 3]}"];
    let QuantizerConfig::FiniteScalar(fsq) = config_of(file, &sets).model.quantizer else {
        panic!()
    };
    assert_eq!(fsq.levels, [3, 3]);
    let told = refusal(file, &["model.backbone.kind=conv9d"]);
    assert!(
        told.contains(
            "model.backbone.kind should be one of \"conv1d\", \"conv2d\", \"conv3d\", \"dense\", \"hierarchy\", \
             \"unet2d\", \"vit\", found \"conv9d\""
        ),
        "{told}"
    );
}

#[test]
fn the_type_of_the_key_decides_what_a_text_means() {
    for name in ["2026-11-26", "7", "true", "a=b", "[x]", "it's", "日本", "1e5", "{a = 1}"] {
        let set = format!("data.path={name}");
        assert_eq!(config_of("", &[&set]).data.path, Path::new(name));
        let variable = ("TESSERA__DATA__PATH".into(), name.into());
        assert_eq!(read(None, [variable], &[], None).unwrap().config.data.path, Path::new(name));
        let (folder, _) = write("");
        let resolved = read(None, [], &[set], None).unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, resolved.to_toml()).unwrap();
        assert_eq!(read(Some(&path), [], &[], None).unwrap().config, resolved.config);
    }
    assert_eq!(config_of("", &["data.path = a b "]).data.path, Path::new("a b"));
}

#[test]
fn numbers_that_a_key_cannot_have_are_told_alike() {
    for (set, words) in [
        ("train.steps=-1", "--set: train.steps should be a whole number, 0 or more, found -1"),
        ("train.steps = -1", "train.steps should be a whole number, 0 or more, found -1"),
        ("data.synthetic.height=-5", "data.synthetic.height should be a whole number, 0 or more"),
        ("data.synthetic.height=4294967296", "should be a whole number, at most 4294967295, found"),
        ("seed=9223372036854775808", "seed should be a whole number, at most 9223372036854775807"),
        ("train.steps=1.5", "train.steps should be a whole number, 0 or more, found 1.5"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate should be a number, found nan"),
        ("model.quantizer.num_codes=-1", "model.quantizer.num_codes should be"),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate should be"),
        ("comm.share_gpu=-1", "comm.share_gpu should be true or false, found -1"),
        ("comm.backend=-1", "comm.backend should be one of \"auto\", \"nccl\", \"mpi\", found -1"),
        ("data.holdout=-1", "data.holdout must be in [0, 1), not -1"),
    ] {
        let told = refusal("data.kind = 'synthetic'", &[set]);
        assert!(told.contains(words), "{set}: {told}");
        let (key, value) = set.split_once('=').unwrap();
        let value = if key.starts_with("comm.backend") { "'-1'" } else { value };
        let file = format!("data.kind = 'synthetic'\n{key} = {value}");
        let told = refusal(&file, &[]);
        let words = words.trim_start_matches("--set: ").replace("found -1", "found");
        assert!(told.contains(words.trim()), "{file}: {told}");
    }
}

/// A list of tables with kinds: each part has the keys of its own.
#[test]
fn parts_of_a_list_have_kinds_of_their_own() {
    let file = "data.kind = 'synthetic'\n[model.backbone]\nkind = 'hierarchy'\nlevels = 3\n\
                [[model.coarser_quantizers]]\ncode_dim = 5\nkind = 'vector'\n\
                [[model.coarser_quantizers]]\nkind = 'fsq'\nlevels = [3, 3]\n";
    let coarser = config_of(file, &[]).model.coarser_quantizers;
    assert!(matches!(&coarser[0], QuantizerConfig::Vector(part) if part.code_dim == 5));
    assert!(matches!(&coarser[1], QuantizerConfig::FiniteScalar(part) if part.levels == [3, 3]));
    let sets = ["model.coarser_quantizers.1.kind=simvq", "model.coarser_quantizers.1.code_dim=7"];
    let coarser = config_of(file, &sets).model.coarser_quantizers;
    assert!(matches!(&coarser[1], QuantizerConfig::SimVq(part) if part.code_dim == 7));
    let told = refusal(file, &["model.coarser_quantizers.1.decay=0.5"]);
    assert!(
        told.contains("unknown key 'model.coarser_quantizers.1.decay' of kind \"fsq\""),
        "{told}"
    );
    let without = file.replace("kind = 'fsq'\n", "");
    let told = refusal(&without, &[]);
    let words = "model.coarser_quantizers.1 lacks kind, which its other keys hang on";
    assert!(told.contains(words), "{told}");
}
