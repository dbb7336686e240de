//! What an autoencoder's outputs are trained on: the `[loss]`, `[perceptual]` and `[adversarial]` tables; how `[critic]`
//! and `[balancer]` hang together with them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tessera_nn::loss::{AdversarialLoss, OverCritics};

use super::{Output, TrainConfig};

/// The `[loss]` table: what each loss of an autoencoder's output counts, 0 or more; 0: nothing. Formulas are in
/// docs/losses.md. The quantiser's losses have weights of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Mean squared error.
    pub squared: f64,
    /// Mean absolute error.
    pub absolute: f64,
    /// Mean squared error over the variance of all values of the first global batch.
    pub variance_scaled: f64,
    /// Negative logarithm of the logit-Laplace density, a mean over values. Takes `model.output = "logit_laplace"`.
    pub logit_laplace: f64,
    /// Mean absolute error of the differences between neighbours, along each axis.
    pub gradient_difference: f64,
    /// Mean squared error of the differences of frames to the next ones, for film.
    pub frame_difference: f64,
    /// 1 less the structural similarity, for pictures, and for film as the mean over frames.
    pub ssim: f64,
    /// 1 less the structural similarity at several scales, as `ssim`.
    pub ms_ssim: f64,
    /// Distance of mel spectrograms at several scales, as `[spectral]` says, for sound.
    pub mel: f64,
    /// Distance of spectrograms at several resolutions, as `[spectral]` says, for sound.
    pub stft: f64,
    /// Distance between features of the network that `[perceptual]` names, for pictures, and for film as the mean over frames.
    pub perceptual: f64,
    /// What a critic finds wrong, for pictures, film and sound: `[critic]` is its network, `[adversarial]` how it is trained.
    pub adversarial: f64,
    /// Distance between what the critic's layers see of outputs and of inputs; counts from `adversarial.start` on, as
    /// `loss.adversarial` does, which it needs.
    pub feature_matching: f64,
    /// Whether the weights above are shares of the gradient at the decoder's output: gradients of the losses are divided by moving
    /// averages of their norms, as `[balancer]` says. The quantiser's losses take no part. It costs a sum over ranks in
    /// the middle of each step.
    pub balanced: bool,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            squared: 1.0,
            absolute: 0.0,
            variance_scaled: 0.0,
            logit_laplace: 0.0,
            gradient_difference: 0.0,
            frame_difference: 0.0,
            ssim: 0.0,
            ms_ssim: 0.0,
            mel: 0.0,
            stft: 0.0,
            perceptual: 0.0,
            adversarial: 0.0,
            feature_matching: 0.0,
            balanced: false,
        }
    }
}

/// The `[perceptual]` table: the network whose features `loss.perceptual` compares.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PerceptualConfig {
    /// Which network.
    pub network: PerceptualNetwork,
    /// What its weights are read from: for `"vgg"` a safetensors file, for `"probe"` a run folder or a checkpoint's.
    pub path: PathBuf,
}

/// A network whose features are compared layer by layer, a value of `perceptual.network`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PerceptualNetwork {
    /// A small convolutional network with orthogonal weights from a fixed seed: it needs no file.
    #[default]
    Random,
    /// VGG16 with the heads of LPIPS, from a file.
    Vgg,
    /// The convolutional head of a probe on pixels that was trained here.
    Probe,
}

/// The `[adversarial]` table: how a critic and an autoencoder are trained against one another, where
/// `loss.adversarial` is above 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdversarialConfig {
    /// How logits become losses.
    pub loss: AdversarialLoss,
    /// How losses of several networks of a critic, and of several maps in `loss.feature_matching`, become one.
    pub over_critics: OverCritics,
    /// Steps before the critic is trained.
    pub critic_start: u64,
    /// Steps before it counts for the autoencoder; at least `critic_start`, below `train.steps`. A critic that has not
    /// learned yet says nothing.
    pub start: u64,
    /// Steps from there over which it comes to count in full; 0: at once.
    pub warmup_steps: u64,
    /// Whether it counts `loss.adversarial` times |gradient of the other losses| / |gradient of the adversarial one|, both
    /// at the weight of the decoder's last layer and of the global batch, as in VQGAN. It costs a sum over ranks in the
    /// middle of each step.
    pub adaptive: bool,
    /// Most that this quotient may be, above 0. VQGAN has 10,000; a critic that says nothing makes it large.
    pub adaptive_most: f64,
    /// Weight of LeCAM's regularisation of the critic, 0 or more; 0: none.
    pub lecam: f64,
    /// Decay of the moving averages of mean logits that LeCAM needs, in [0, 1).
    pub lecam_decay: f64,
}

impl Default for AdversarialConfig {
    fn default() -> Self {
        Self {
            loss: AdversarialLoss::Hinge,
            over_critics: OverCritics::Mean,
            critic_start: 0,
            start: 0,
            warmup_steps: 0,
            adaptive: false,
            adaptive_most: 1e4,
            lecam: 0.0,
            lecam_decay: 0.99,
        }
    }
}

impl LossConfig {
    /// Each key with its weight.
    fn weights(&self) -> [(&'static str, f64); 13] {
        [
            ("squared", self.squared),
            ("absolute", self.absolute),
            ("variance_scaled", self.variance_scaled),
            ("logit_laplace", self.logit_laplace),
            ("gradient_difference", self.gradient_difference),
            ("frame_difference", self.frame_difference),
            ("ssim", self.ssim),
            ("ms_ssim", self.ms_ssim),
            ("mel", self.mel),
            ("stft", self.stft),
            ("perceptual", self.perceptual),
            ("adversarial", self.adversarial),
            ("feature_matching", self.feature_matching),
        ]
    }

    /// Whether there is a critic.
    pub fn has_critic(&self) -> bool {
        self.adversarial > 0.0
    }
}

/// What is wrong with the tables of this file in a configuration, whatever its data, if anything.
pub(super) fn validate(config: &TrainConfig) -> Result<(), String> {
    let TrainConfig { loss, perceptual, adversarial, balancer, .. } = config;
    for (key, weight) in loss.weights() {
        if !(weight >= 0.0 && weight.is_finite()) {
            return Err(format!("loss.{key} should be 0 or more, found {weight}"));
        }
    }
    let is_of_critic = |key: &str| matches!(key, "adversarial" | "feature_matching");
    if loss.weights().iter().all(|(key, weight)| is_of_critic(key) || *weight == 0.0) {
        return Err("an autoencoder learns to give its input back from a loss that compares the two, and the weights of \
                    all those in [loss] are 0: set loss.squared = 1"
            .to_owned());
    }
    let is_laplace = config.model.output == Output::LogitLaplace;
    if loss.logit_laplace > 0.0 && !is_laplace {
        return Err("loss.logit_laplace needs an output that is a distribution: set model.output = \"logit_laplace\", \
                    or loss.logit_laplace = 0"
            .to_owned());
    }
    if loss.logit_laplace == 0.0 && is_laplace {
        return Err("model.output = \"logit_laplace\" is a distribution that loss.logit_laplace alone trains the width \
                    of: set loss.logit_laplace = 1, or model.output = \"values\""
            .to_owned());
    }
    let (reads_file, has_path) =
        (perceptual.network != PerceptualNetwork::Random, perceptual.path != PathBuf::new());
    if loss.perceptual > 0.0 && reads_file && !has_path {
        return Err("perceptual.network is read from perceptual.path, which is empty: set it, or \
                    perceptual.network = \"random\""
            .to_owned());
    }
    if loss.balanced {
        balancer.validate()?;
    }
    if !loss.has_critic() {
        return match loss.feature_matching > 0.0 {
            true => Err("loss.feature_matching compares what the critic of loss.adversarial sees, and loss.adversarial is 0: \
                         set it above 0, or loss.feature_matching = 0"
                .to_owned()),
            false => Ok(()),
        };
    }
    if loss.balanced && adversarial.adaptive {
        return Err("loss.balanced and adversarial.adaptive both say what the adversarial loss counts: set one of them to \
                    false"
            .to_owned());
    }
    if !(adversarial.adaptive_most > 0.0 && adversarial.adaptive_most.is_finite()) {
        return Err(format!(
            "adversarial.adaptive_most should be above 0, found {}",
            adversarial.adaptive_most
        ));
    }
    if !(adversarial.lecam >= 0.0 && adversarial.lecam.is_finite()) {
        return Err(format!("adversarial.lecam should be 0 or more, found {}", adversarial.lecam));
    }
    if !(0.0..1.0).contains(&adversarial.lecam_decay) {
        return Err(format!(
            "adversarial.lecam_decay should be at least 0 and below 1, found {}",
            adversarial.lecam_decay
        ));
    }
    let (start, critic_start, steps) =
        (adversarial.start, adversarial.critic_start, config.train.steps);
    if start >= steps {
        return Err(format!(
            "adversarial.start is {start}, but the run ends after {steps} steps and the critic would never count: lower \
             it, or set loss.adversarial = 0"
        ));
    }
    if critic_start > start {
        return Err(format!(
            "adversarial.critic_start is {critic_start}, after adversarial.start, {start}: a critic that is not \
             trained has nothing to say; lower it"
        ));
    }
    let groups = &config.optimizer.groups;
    for (name, group, why) in [
        ("decoder", &groups.decoder, "there is nothing for the critic to teach"),
        ("critic", &groups.critic, "a critic that does not learn teaches nothing"),
    ] {
        if group.frozen {
            return Err(format!(
                "optimizer.groups.{name} is frozen, and {why}: set frozen = false there, or loss.adversarial = 0"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut TrainConfig)) -> String {
        let mut config = TrainConfig::default();
        config.loss.adversarial = 0.1;
        (config.adversarial.critic_start, config.adversarial.start) = (100, 200);
        assert_eq!(validate(&config), Ok(()));
        change(&mut config);
        validate(&config).unwrap_err()
    }

    #[test]
    fn what_outputs_cannot_be_trained_on_is_refused_with_its_key() {
        let negative = refusal(|config| config.loss.ssim = -1.0);
        assert_eq!(negative, "loss.ssim should be 0 or more, found -1");
        let critic_alone = refusal(|config| config.loss.squared = 0.0);
        assert!(critic_alone.contains("set loss.squared = 1"), "{critic_alone}");
        let no_distribution = refusal(|config| config.loss.logit_laplace = 1.0);
        assert!(
            no_distribution.contains("set model.output = \"logit_laplace\""),
            "{no_distribution}"
        );
        let no_loss_of_it = refusal(|config| config.model.output = Output::LogitLaplace);
        assert!(no_loss_of_it.contains("set loss.logit_laplace = 1"), "{no_loss_of_it}");
        let no_file = refusal(|config| {
            config.loss.perceptual = 1.0;
            config.perceptual.network = PerceptualNetwork::Probe;
        });
        assert!(
            no_file.starts_with("perceptual.network is read from perceptual.path"),
            "{no_file}"
        );
    }

    #[test]
    fn what_a_critic_and_a_balancer_need_is_refused_with_its_key() {
        let no_critic = refusal(|config| {
            (config.loss.adversarial, config.loss.feature_matching) = (0.0, 1.0);
        });
        assert!(no_critic.starts_with("loss.feature_matching compares"), "{no_critic}");
        let twice = refusal(|config| {
            (config.loss.balanced, config.adversarial.adaptive) = (true, true);
        });
        assert!(twice.starts_with("loss.balanced and adversarial.adaptive both"), "{twice}");
        let decay = refusal(|config| {
            (config.loss.balanced, config.balancer.decay) = (true, 1.0);
        });
        assert!(decay.starts_with("balancer.decay should be"), "{decay}");
    }

    #[test]
    fn a_critic_that_would_never_count_is_refused() {
        let late = refusal(|config| config.adversarial.start = config.train.steps);
        assert!(
            late.starts_with("adversarial.start is 2000, but the run ends after 2000"),
            "{late}"
        );
        let untrained = refusal(|config| config.adversarial.critic_start = 201);
        assert!(untrained.starts_with("adversarial.critic_start is 201, after"), "{untrained}");
        let frozen = refusal(|config| config.optimizer.groups.decoder.frozen = true);
        assert!(frozen.starts_with("optimizer.groups.decoder is frozen"), "{frozen}");
        let at_rest = refusal(|config| config.optimizer.groups.critic.frozen = true);
        assert!(at_rest.starts_with("optimizer.groups.critic is frozen"), "{at_rest}");
        let decay = refusal(|config| config.adversarial.lecam_decay = 1.0);
        assert!(decay.starts_with("adversarial.lecam_decay should be"), "{decay}");
        let most = refusal(|config| config.adversarial.adaptive_most = 0.0);
        assert!(most.starts_with("adversarial.adaptive_most should be above 0"), "{most}");
    }
}
