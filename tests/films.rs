//! Film and its network with a critic in three dimensions and every loss of film: exact over ranks and micro-batches, resumed bit
//! for bit, as threads.

use tempfile::TempDir;
use tessera_nn::BackboneConfig;
use tessera_nn::backbone::Conv3dConfig;
use tessera_nn::critic::{CriticConfig, PatchConfig};
use tessera_train::TrainConfig;

use crate::media::write_film;
use crate::objectives::with_the_critic;
use crate::quantizers::{exact_in_parts, of_files};

/// Pixels of a side, and frames of a clip.
const SIDE: u32 = 16;
const FRAMES: u32 = 3;

/// A training on patterns that drift, each over noise of its own; 32 latents a clip.
fn config(folder: &TempDir) -> TrainConfig {
    for split in ["train", "test"] {
        for number in 0..4 {
            let film = folder.path().join(split).join(number.to_string());
            write_film(&film, 10 * FRAMES, SIDE, |frame, at| {
                let noise = (at * (number + 3) + frame).wrapping_mul(2_654_435_761) >> 26;
                let (row, column) = (at / (3 * SIDE), at / 3 % SIDE);
                let drifts = (row * (number + 1) + column + 2 * frame) % SIDE;
                (10 * drifts + noise) as u8
            });
        }
    }
    let sets = [
        "model.backbone.kind=conv3d",
        "model.backbone.patch=2",
        "model.backbone.spatial=4",
        "model.backbone.temporal=2",
    ];
    let (frames, [height, width]) = (
        format!("data.video.frames={FRAMES}"),
        ["height", "width"].map(|of| format!("data.video.{of}={SIDE}")),
    );
    let mut config =
        of_files(folder.path(), "video", &[&sets[..], &[&frames, &height, &width]].concat());
    config.model.backbone = BackboneConfig::Conv3d(Conv3dConfig {
        channels: 4,
        patch: 2,
        spatial: 4,
        temporal: 2,
        latent_channels: 8,
        ..Conv3dConfig::default()
    });
    let loss = &mut config.loss;
    (loss.squared, loss.absolute, loss.gradient_difference) = (0.5, 0.3, 0.2);
    (loss.ssim, loss.frame_difference) = (0.1, 0.5);
    let patch = PatchConfig { channels: 4, groups: 2, ..PatchConfig::default() };
    with_the_critic(&mut config, CriticConfig::Patch(patch));
    // So many norms one behind the other make 3e-9 of rounding in 20 steps at 1e-3.
    config.optimizer.learning_rate = 2e-4;
    config
}

#[test]
fn film_with_a_critic_is_exact_over_ranks() {
    let folder = TempDir::new().unwrap();
    exact_in_parts("film", config(&folder));
}

mod full {
    use super::*;
    use crate::quantizers::{ALL_STEPS, exact_over_ranks};

    #[test]
    fn film_is_exact_over_one_to_four_ranks() {
        let folder = TempDir::new().unwrap();
        let mut config = config(&folder);
        config.train.global_batch = 25;
        // So that 20 steps add less than 1e-9 to the rounding of a gradient's norm of 77.
        config.optimizer.learning_rate = 2e-5;
        exact_over_ranks("film", config, &[2, 3, 4], &[1, 5, 7], ALL_STEPS);
    }
}
