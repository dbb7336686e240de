//! Sound and its network with critics of it, feature matching and balanced losses: exact over ranks and micro-batches, resumed
//! bit for bit, as threads.

use std::path::Path;

use tempfile::TempDir;
use tessera_nn::BackboneConfig;
use tessera_nn::backbone::Conv1dConfig;
use tessera_nn::critic::{
    CriticConfig, PeriodConfig, PeriodPadding, SeveralConfig, SpectralConfig,
};
use tessera_nn::loss::{AdversarialLoss, OverCritics};
use tessera_train::TrainConfig;

use crate::media::write_wav;
use crate::objectives::with_the_critic;
use crate::quantizers::{each_vector, exact_in_parts, of_files};

/// Instants of a sample, which are 16 latents.
const LENGTH: u32 = 96;

/// A tone that swells, and noise of a linear congruence.
fn write(path: &Path, number: u32) {
    let (instants, mut noise) = (40 * LENGTH, number);
    write_wav(path, instants, |at| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let phase = f64::from(at * (number + 1)) * 0.05;
        let swell = 0.2 + 0.8 * f64::from(at) / f64::from(instants);
        (9000.0 * swell * phase.sin() + f64::from(noise >> 16) / 4.0 - 8192.0) as i16
    });
}

/// A training on such sounds, by a causal network with an LSTM and normalised weights, with dead codes that are replaced.
fn config(folder: &TempDir) -> TrainConfig {
    for split in ["train", "test"] {
        let path = folder.path().join(split);
        std::fs::create_dir_all(&path).unwrap();
        (0..4).for_each(|number| write(&path.join(format!("{number}.wav")), number));
    }
    let length = format!("data.audio.length={LENGTH}");
    let sets = [
        "data.audio.sample_rate=8000",
        "model.backbone.kind=conv1d",
        "model.backbone.ratios=[3,2]",
        &length,
    ];
    let mut config = of_files(folder.path(), "audio", &sets);
    config.model.backbone = BackboneConfig::Conv1d(Conv1dConfig {
        channels: 4,
        ratios: vec![3, 2],
        lstm_layers: 1,
        ..Conv1dConfig::default()
    });
    // Five samples and twice four on three ranks, in parts of three and less.
    config.train.global_batch = 13;
    config.train.ema_decay = 0.9;
    config
}

/// Critics of both kinds, trained before they count, and features matched.
fn with_critics(config: &mut TrainConfig) {
    let (channels, windows) = (2, vec![64, 32]);
    let spectral = SpectralConfig { channels, windows, ..SpectralConfig::default() };
    let (periods, most_channels) = (vec![2, 3], 8);
    let period = PeriodConfig { periods, channels: 1, most_channels, ..PeriodConfig::default() };
    let critics = vec![CriticConfig::Spectral(spectral), CriticConfig::Period(period)];
    with_the_critic(config, CriticConfig::Several(SeveralConfig { critics }));
    config.adversarial.adaptive = false;
    let loss = &mut config.loss;
    (loss.squared, loss.absolute) = (1.0, 0.1);
    (loss.adversarial, loss.feature_matching) = (0.4, 0.4);
}

/// With balanced losses; a decay that forgets within the test.
fn balanced(folder: &TempDir) -> TrainConfig {
    let mut config = config(folder);
    with_critics(&mut config);
    config.loss.balanced = true;
    config.balancer.decay = 0.9;
    config
}

/// As the Descript codec adds losses up, with an adaptive weight in the place of a balance.
fn adaptive(folder: &TempDir) -> TrainConfig {
    let mut config = config(folder);
    with_critics(&mut config);
    let adversarial = &mut config.adversarial;
    (adversarial.loss, adversarial.over_critics) =
        (AdversarialLoss::LeastSquares, OverCritics::Sum);
    adversarial.adaptive = true;
    let padding = PeriodPadding::Always;
    let period = PeriodConfig {
        periods: vec![2, 5],
        channels: 1,
        most_channels: 8,
        padding,
        ..PeriodConfig::default()
    };
    config.critic = CriticConfig::Period(period);
    config
}

#[test]
fn balanced_losses_with_critics_of_sound_are_exact_over_ranks() {
    let folder = TempDir::new().unwrap();
    exact_in_parts("balanced, with critics", balanced(&folder));
}

#[test]
fn summed_losses_of_critics_of_sound_with_an_adaptive_weight_are_exact_over_ranks() {
    let folder = TempDir::new().unwrap();
    exact_in_parts("adaptive, with a critic", adaptive(&folder));
}

/// The distribution over codes goes in the same sum as the norms.
#[test]
fn balanced_losses_without_a_critic_are_exact_over_ranks() {
    let folder = TempDir::new().unwrap();
    let mut config = config(&folder);
    (config.loss.absolute, config.loss.gradient_difference) = (0.5, 0.5);
    config.loss.balanced = true;
    each_vector(&mut config.model.quantizer, &|vector| {
        (vector.entropy, vector.entropy_temperature) = (0.1, 1.0);
    });
    exact_in_parts("balanced, without a critic", config);
}

mod full {
    use super::*;
    use crate::quantizers::{ALL_STEPS, exact_over_ranks};

    #[test]
    fn critics_of_sound_are_exact_over_one_to_four_ranks() {
        let folder = TempDir::new().unwrap();
        for (name, mut config) in [("balanced", balanced(&folder)), ("adaptive", adaptive(&folder))]
        {
            config.train.global_batch = 25;
            exact_over_ranks(name, config, &[2, 3, 4], &[1, 5, 7], ALL_STEPS);
        }
    }
}
