//! What is read of sweep files and of the command line.

use serde_json::json;

use super::*;

const FILE: &str = r#"
    base = "../smoke.toml"
    [set]
    "train.steps" = 90
    data.holdout = 0.1
    [[parameters]]
    key = "model.quantizer.gradient"
    values = ["straight_through", "rotation"]
    [[parameters]]
    key = "optimizer.learning_rate"
    log_range = [1e-4, 1e-2]
    when = { "model.quantizer.gradient" = "rotation" }
    [[forbidden]]
    "model.quantizer.gradient" = "rotation"
    "optimizer.learning_rate" = [0.01]
    [search]
    strategy = "asha"
    trials = 9
    min_steps = 10
"#;

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn a_shipped_configuration_is_a_base_by_its_name_alone() {
    let sets = ["seed=1,2".to_owned()];
    assert_eq!(Sweep::read(Path::new("@smoke"), &sets).unwrap().base, Path::new("@smoke"));
    let (_folder, path) = written("base = \"@smoke\"");
    assert_eq!(Sweep::read(&path, &sets).unwrap().base, Path::new("@smoke"));
}

#[test]
fn a_file_says_what_is_varied_and_how() {
    let (folder, path) = written(FILE);
    let sweep = Sweep::read(&path, &[]).unwrap();
    assert_eq!(sweep.base, folder.path().join("../smoke.toml"));
    assert_eq!(sweep.set["train.steps"], json!(90));
    assert_eq!(sweep.set["data.holdout"], json!(0.1));
    assert_eq!(sweep.search.strategy, Strategy::Asha);
    let rate = &sweep.space.parameters[1];
    assert_eq!(rate.when["model.quantizer.gradient"], [json!("rotation")]);
    let domain = Domain::Range { low: 1e-4, high: 1e-2, log: true, integer: false, points: 5 };
    assert_eq!(rate.domain, domain);
    assert_eq!(sweep.space.forbidden[0]["optimizer.learning_rate"], [json!(0.01)]);
    sweep.validate(90).unwrap();
    // It comes back from the state file as it went in.
    let text = serde_json::to_string(&sweep).unwrap();
    assert_eq!(serde_json::from_str::<Sweep>(&text).unwrap(), sweep);
}

#[test]
fn words_of_the_command_line_vary_a_plain_configuration() {
    let (_folder, path) = written("[train]\nsteps = 10\n");
    let words = [
        "model.quantizer.num_codes=256,512,1024",
        "optimizer.learning_rate=log(1e-4,1e-2,5)",
        "model.quantizer.decay=range(0.9, 0.99)",
        "model.backbone.channels=int(1,3)",
        "data.path=data/a(b",
        "x.list=[1,2],[3]",
        "x.word=a,'b,c'",
    ];
    let sweep = Sweep::read(&path, &words.map(str::to_owned)).unwrap();
    let grid = |at: usize| sweep.space.parameters[at].domain.grid();
    assert_eq!(grid(0), [256, 512, 1024].map(Value::from));
    assert_eq!(grid(1).len(), 5);
    assert_eq!(grid(2)[4], json!(0.99));
    assert_eq!(grid(3), [1, 2, 3].map(Value::from));
    assert_eq!(sweep.set["data.path"], json!("data/a(b"));
    assert_eq!(grid(4), [json!([1, 2]), json!([3])]);
    assert_eq!(grid(5), [json!("a"), json!("b,c")]);
    // The command line goes before the file, whether it fixes or varies.
    let (_folder, path) = written(FILE);
    let words = ["train.steps=100", "model.quantizer.gradient=rotation"].map(str::to_owned);
    let sweep = Sweep::read(&path, &words).unwrap();
    assert_eq!(sweep.set["train.steps"], json!(100));
    assert_eq!(sweep.space.parameters.len(), 1);
}

#[test]
fn every_strategy_has_a_name() {
    assert!(Strategy::NAMES.iter().all(|name| Strategy::named(name).is_some()));
    assert_eq!(Strategy::named("asha"), Some(Strategy::Asha));
    assert_eq!(Strategy::named("best"), None);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let told = |text: &str, set: &[&str]| {
        let (_folder, path) = written(text);
        let sets: Vec<String> = set.iter().map(|&set| set.to_owned()).collect();
        let read = Sweep::read(&path, &sets).and_then(|sweep| sweep.validate(90));
        read.unwrap_err().to_string()
    };
    let file = |from: &str, to: &str| told(&FILE.replace(from, to), &[]);
    for (problem, words) in [
        (told("base = 1", &[]), "sweep.toml: line 1: "),
        (told("[[parameters]]\nkey = \"a\"", &[]), "should name its base"),
        (told("", &["a"]), "--set a: expected key=value"),
        (told("", &["a=log(1,2"]), "--set a=log(1,2: a bracket is open"),
        (told("", &["a=log(1)"]), "--set a=log(1): expected log(low,high)"),
        (told("", &["a=1"]), "nothing is varied"),
        (told("", &["train.stop_at=1,2"]), "train.stop_at is the sweep's own"),
        (told("", &["train.steps=1,2"]), "train.steps cannot be varied"),
        (file("trials = 9", ""), "search.trials should say"),
        (file("min_steps = 10", "min_steps = 91"), "from 1 to train.steps, 90, found 91"),
        (
            file("[search]", "[metric]\nname = \"error\"\n[search]"),
            "metric.name: an evaluation has no figure \"error\": there are mse, psnr, ssim, ",
        ),
        (
            file("[search]", "[report]\nsize = \"bits\"\n[search]"),
            "report.size: an evaluation has no figure \"bits\": there are mse, psnr, ssim, ",
        ),
        (
            file("[search]", "[budget]\nsteps = 19\n[trials]\nfolds = 2\n[search]"),
            "budget.steps should be 20, what one trial takes, or more, found 19",
        ),
        (file("strategy = \"asha\"", "strategy = \"best\""), "unknown variant `best`"),
        (file("log_range = [1e-4, 1e-2]", ""), "optimizer.learning_rate should have one of values"),
        (file("trials = 9", "trails = 9"), "unknown field `trails`"),
    ] {
        assert!(problem.contains(words), "{words:?} is not in {problem:?}");
        assert!(!problem.contains('\n'), "{problem}");
    }
}
