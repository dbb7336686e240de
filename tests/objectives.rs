//! What outputs are trained on, with every backbone: exact over ranks and micro-batches, resumed bit for bit, as threads.

use tessera_nn::backbone::{HierarchyConfig, UNet2dConfig, VitConfig};
use tessera_nn::critic::{CriticConfig, PatchConfig};
use tessera_nn::quantize::VectorConfig;
use tessera_nn::{BackboneConfig, Output};
use tessera_train::TrainConfig;

use crate::quantizers::{config, each_vector, exact_in_parts};

/// A critic with all that is of the whole batch: an adaptive weight and LeCAM's means. It is trained before it counts.
pub(crate) fn with_the_critic(config: &mut TrainConfig, critic: CriticConfig) {
    config.loss.adversarial = 0.2;
    let adversarial = &mut config.adversarial;
    (adversarial.critic_start, adversarial.start, adversarial.warmup_steps) = (2, 4, 5);
    (adversarial.adaptive, adversarial.lecam, adversarial.lecam_decay) = (true, 0.1, 0.9);
    config.critic = critic;
    config.optimizer.clip_grad_norm = 0.5;
    config.train.ema_decay = 0.9;
    // Five samples and twice four on three ranks, in parts of three and less.
    config.train.global_batch = 13;
}

/// Such a critic of pictures.
fn with_critic(config: &mut TrainConfig) {
    let patch = PatchConfig { channels: 8, groups: 4, ..PatchConfig::default() };
    with_the_critic(config, CriticConfig::Patch(patch));
}

/// Every loss of a picture's values.
fn with_all_losses(config: &mut TrainConfig) {
    let loss = &mut config.loss;
    (loss.squared, loss.absolute, loss.variance_scaled) = (0.5, 0.3, 0.05);
    (loss.gradient_difference, loss.ssim, loss.ms_ssim) = (0.2, 0.1, 0.1);
    loss.perceptual = 0.05;
}

/// Each backbone, small, for pictures of 16 x 16; with attention where it has some.
fn backbones() -> [(&'static str, BackboneConfig); 5] {
    let unet2d = UNet2dConfig {
        channels: 8,
        multipliers: vec![1, 2, 2],
        attention_resolutions: vec![8],
        groups: 2,
        latent_channels: 8,
        ..UNet2dConfig::default()
    };
    let vit = |latent_tokens| {
        let size = VitConfig { patch: 4, width: 16, layers: 2, heads: 2, latent_tokens };
        BackboneConfig::Vit(size)
    };
    let (channels, residual_layers, residual_channels) = (16, 1, 8);
    let hierarchy = HierarchyConfig { levels: 3, channels, residual_layers, residual_channels };
    [
        ("conv2d", config("ema").model.backbone),
        ("unet2d", BackboneConfig::Unet2d(unet2d)),
        ("vit", vit(0)),
        ("latent tokens", vit(8)),
        ("hierarchy", BackboneConfig::Hierarchy(hierarchy)),
    ]
}

/// A backbone with an entropy loss, dead codes that are replaced, critic and moving average; the coarser levels of a hierarchy
/// have other quantisers.
fn with_backbone(name: &str, backbone: BackboneConfig) -> TrainConfig {
    let mut config = config("ema_entropy");
    each_vector(&mut config.model.quantizer, &|vector: &mut VectorConfig| vector.num_codes = 64);
    config.model.backbone = backbone;
    if name == "hierarchy" {
        config.model.coarser_quantizers =
            ["residual", "gradient"].map(|name| self::config(name).model.quantizer).to_vec();
    }
    with_critic(&mut config);
    config
}

#[test]
fn every_backbone_is_exact_over_ranks_with_a_critic() {
    for (name, backbone) in backbones() {
        exact_in_parts(name, with_backbone(name, backbone));
    }
}

#[test]
fn all_losses_together_are_exact_over_ranks() {
    let mut config = config("ema");
    with_all_losses(&mut config);
    with_critic(&mut config);
    exact_in_parts("all losses", config);
}

/// A decoder goes on alone, with a critic.
#[test]
fn a_decoder_that_is_trained_alone_is_exact_over_ranks() {
    let mut config = config("ema");
    with_critic(&mut config);
    let groups = &mut config.optimizer.groups;
    (groups.encoder.frozen, groups.quantizer.frozen) = (true, true);
    exact_in_parts("the decoder alone", config);
}

#[test]
fn a_distribution_of_values_is_exact_over_ranks() {
    let mut config = config("ema");
    config.model.output = Output::LogitLaplace;
    (config.loss.squared, config.loss.logit_laplace) = (0.0, 0.1);
    with_critic(&mut config);
    exact_in_parts("logit_laplace", config);
}

mod full {
    use super::*;
    use crate::quantizers::{ALL_STEPS, exact_over_ranks};

    #[test]
    fn every_backbone_is_exact_over_one_to_four_ranks_with_all_losses() {
        for (name, backbone) in backbones() {
            let mut config = with_backbone(name, backbone);
            with_all_losses(&mut config);
            config.train.global_batch = 25;
            exact_over_ranks(name, config, &[2, 3, 4], &[1, 5, 7], ALL_STEPS);
        }
    }
}
