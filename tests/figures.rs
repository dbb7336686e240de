//! Figures of an evaluation against a second implementation.

use std::sync::Arc;
use std::time::Duration;

use tch::{Device, Kind, Tensor};
use tessera_comm::{CommError, Threads};
use tessera_control::Activity;
use tessera_nn::features::{FeatureNetwork, Stages};
use tessera_nn::metrics::{Manifold, add_moments, frechet, manifold, moments_len};
use tessera_nn::{Signal, loss};
use tessera_train::task::Asked;
use tessera_train::{
    Autoencoder, Row, Samples, Split, TrainConfig, Training, Value, evaluate, reconstruct, resolve,
};

use crate::root;

/// The images of `tests/python/ssim.py`, `[2, 1, side, side]` each.
fn ssim_images(side: i64) -> (Tensor, Tensor) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for phase in [0, 5] {
        for row in 0..side {
            for column in 0..side {
                let x = ((7 * row + 13 * column + 3 * row * column + phase) % 31) as f64 / 30.0;
                let noise = ((5 * row + 11 * column + 2 * phase) % 17) as f64 / 16.0;
                first.push(x);
                second.push(0.75 * x + 0.25 * noise);
            }
        }
    }
    let images = |pixels: &[f64]| Tensor::from_slice(pixels).view([2, 1, side, side]);
    (images(&first), images(&second))
}

#[test]
fn ssim_and_mse_are_those_of_a_second_implementation() {
    // Printed by tests/python/ssim.py: for both images (SSIM, mean squared error). The window is
    // 11 x 11, and 7 x 7 for the images of 8 x 8.
    let printed = [
        (16, [0.9015391351001826, 0.9019441442043372], [0.0114970948961046, 0.010592384338378908]),
        (28, [0.9125353929530222, 0.926282199384143], [0.011324157022835178, 0.010508784080038266]),
        (8, [0.9345749110839, 0.9288201666160181], [0.00955842759874132, 0.011659528944227433]),
    ];
    for (side, ssim, mse) in printed {
        let (x, y) = ssim_images(side);
        let found = loss::ssim_sum(&y, &x).double_value(&[]);
        // E[x^2] - E[x]^2 loses a few of 16 digits against variances about the mean.
        assert!((found - (ssim[0] + ssim[1])).abs() < 1e-11, "{side}: {found}");
        let found = loss::squared_error(&y, &x).double_value(&[]) / (side * side) as f64;
        assert!((found - (mse[0] + mse[1])).abs() < 1e-13, "{side}: {found}");
    }
}

/// The smoke configuration with features of the first 40 of its 64 test samples.
fn with_features() -> TrainConfig {
    let sets =
        ["eval.features.network=random", "eval.features.num_samples=40", "train.precision=fp64"];
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    resolve(Some(&root().join("configs/smoke.toml")), [], &sets, None).unwrap().config
}

/// The test split measured by a world, with batches of so many samples.
fn measured(config: &TrainConfig, world_size: usize, batch: u64) -> Row {
    tch::set_num_threads(1);
    let ranks = Threads::run(world_size, Duration::from_secs(100), |comm| {
        let source = tessera_data::source::open(&config.data, "test").unwrap();
        let samples = Samples::of(config.task, &*source).unwrap();
        let training = Training::new(config, samples, Device::Cpu).unwrap();
        let (name, load) = ("test".to_owned(), config.data.load_options());
        let split = Split { name, source: Arc::clone(&source), batch, load };
        let (task, asked) = (&*training.task, Asked::default());
        Ok::<_, CommError>(evaluate(&comm, task, &split, 7, asked, &Activity::default()).unwrap())
    });
    let mut rows: Vec<Row> = ranks.into_iter().map(|rank| rank.expect("joins")).collect();
    rows.iter().for_each(|row| assert_eq!(format!("{row:?}"), format!("{:?}", rows[0])));
    rows.swap_remove(0)
}

/// Ranks with unequal and with empty parts of a batch; the sums are of float64.
#[test]
fn figures_of_an_evaluation_do_not_hang_on_ranks_and_batches() {
    let config = with_features();
    let one = measured(&config, 1, 64);
    for (world_size, batch) in [(3, 10), (4, 3)] {
        let other = measured(&config, world_size, batch);
        for (ours, theirs) in one.figures.iter().zip(&other.figures) {
            let what = format!("{}, {world_size} ranks", ours.name);
            match (&ours.value, &theirs.value) {
                (Value::Number(one), Value::Number(other)) => {
                    // The root of a matrix without full rank, which 64 samples of 384 features give, loses digits.
                    let tolerance = if ours.name == "frechet" { 1e-5 } else { 1e-9 };
                    assert!((one - other).abs() < tolerance, "{what}: {one} {other}");
                }
                (one, other) => assert_eq!(format!("{one:?}"), format!("{other:?}"), "{what}"),
            }
        }
    }
}

/// What an evaluation sums is what the whole split has at once.
#[test]
fn figures_of_features_are_those_of_the_whole_split() {
    let config = with_features();
    let row = measured(&config, 3, 10);
    let source = tessera_data::source::open(&config.data, "test").unwrap();
    let samples = Samples::of(config.task, &*source).unwrap();
    let training = Training::new(&config, samples, Device::Cpu).unwrap();
    let model = &training.task.of::<Autoencoder>().unwrap().model;
    let (num, mut bytes) = (source.num_samples(), Vec::new());
    let mut sample = vec![0u8; source.shape().num_bytes()];
    for id in 0..num {
        source.read(id, tessera_data::Draw::NONE, &mut sample).unwrap();
        bytes.extend_from_slice(&sample);
    }
    let Signal::Image { channels, height, width } = model.signal else { panic!("pictures") };
    let raw = Tensor::from_slice(&bytes).view([num as i64, height, width, channels]);
    let inputs = model.signal.from_raw(&raw, Kind::Double);
    let (outputs, _) = tch::no_grad(|| reconstruct(model, &inputs, None));

    let network = FeatureNetwork::Stages(Stages::random(channels, Device::Cpu));
    let sets = [&inputs, &outputs].map(|pictures| network.vector(pictures));
    let moments = sets.each_ref().map(|set| {
        let len = moments_len(set.size()[1]);
        let mut sums = Tensor::zeros([len], (Kind::Double, Device::Cpu));
        add_moments(set, &mut sums);
        sums
    });
    let Manifold { precision, recall, density, coverage } =
        manifold(&sets[0].narrow(0, 0, 40), &sets[1].narrow(0, 0, 40), 5);
    let errors_n = (&outputs - &inputs).square().flatten(1, -1);
    let errors_n = errors_n.mean_dim([1i64].as_slice(), false, Kind::Double);
    let psnr = (errors_n.log10() * -10.0).mean(Kind::Double).double_value(&[]);
    let distance = network.original_distance_sum(&outputs, &inputs).double_value(&[]) / num as f64;
    for (name, expected) in [
        ("frechet", frechet(&moments[0], &moments[1])),
        ("feature_samples", 40.0),
        ("precision", precision),
        ("recall", recall),
        ("density", density),
        ("coverage", coverage),
        ("feature_distance", distance),
        ("psnr_of_samples", psnr),
    ] {
        let found = row.number(name);
        // As above.
        let tolerance = if name == "frechet" { 1e-5 } else { 1e-9 };
        assert!((found - expected).abs() < tolerance, "{name}: {found} {expected}");
    }
}
