//! What fields of rows are called on the page, with their units and the group that they are shown in.

/// Where a curve is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    Loss,
    Codes,
    Critic,
    Optimizer,
    Speed,
}

impl Group {
    pub(crate) const ALL: [Self; 5] =
        [Self::Loss, Self::Codes, Self::Critic, Self::Optimizer, Self::Speed];

    /// Its heading.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::Loss => "Losses",
            Self::Codes => "Codes",
            Self::Critic => "Critic",
            Self::Optimizer => "Optimizer",
            Self::Speed => "Speed",
        }
    }
}

/// Name, label, unit.
const NAMES: [(&str, &str, &str); 76] = [
    ("loss", "Loss", ""),
    ("recon_mse", "Mean squared error", ""),
    ("recon_absolute", "Mean absolute error", ""),
    ("quantizer_loss", "Quantizer loss", ""),
    ("token_loss", "Token loss", "nats"),
    ("cross_entropy", "Cross-entropy", "nats"),
    ("mel_loss", "Mel loss", ""),
    ("stft_loss", "STFT loss", ""),
    ("perceptual_loss", "Perceptual loss", ""),
    ("generator_loss", "Generator loss", ""),
    ("critic_loss", "Critic loss", ""),
    ("feature_matching", "Feature matching", ""),
    ("critic_accuracy", "Critic's accuracy", ""),
    ("critic_logit_real", "Logit of samples", ""),
    ("critic_logit_fake", "Logit of outputs", ""),
    ("adversarial_weight", "Adversarial weight", ""),
    ("perplexity", "Perplexity", "codes"),
    ("codes_used", "Codes used", ""),
    ("bits_per_token", "Bits per token", ""),
    ("codes_replaced", "Dead codes replaced", ""),
    ("level_perplexity", "Perplexity by level", "codes"),
    ("level_codes_used", "Codes used by level", ""),
    ("nats_per_token", "Nats per token", ""),
    ("level_nats_per_token", "Nats per token by level", ""),
    ("learning_rate", "Learning rate", ""),
    ("grad_norm", "Gradient norm", ""),
    ("samples_per_second", "Throughput", "samples/s"),
    ("step_ms", "Time of a step", "ms"),
    ("comm_ms", "In sums over ranks", "ms"),
    ("data_wait_ms", "Waiting for data", "ms"),
    ("memory_mib", "Memory of rank 0, the peak", "MiB"),
    ("gpu_memory_mib", "Memory in use on rank 0's GPU", "MiB"),
    ("world_size", "Ranks", ""),
    ("samples_skipped", "Samples skipped", ""),
    ("epoch", "Epoch", ""),
    ("samples_seen", "Samples seen", ""),
    ("accuracy", "Accuracy", ""),
    ("mse", "Mean squared error", ""),
    ("psnr", "PSNR", "dB"),
    ("ssim", "SSIM", ""),
    ("ms_ssim", "MS-SSIM", ""),
    ("ms_ssim_2", "MS-SSIM, 2 scales", ""),
    ("ms_ssim_3", "MS-SSIM, 3 scales", ""),
    ("ms_ssim_4", "MS-SSIM, 4 scales", ""),
    ("psnr_of_samples", "PSNR, mean of samples", "dB"),
    ("difference_psnr", "PSNR of differences", "dB"),
    ("flicker", "Flicker", ""),
    ("si_sdr", "SI-SDR", "dB"),
    ("si_sdr_median", "SI-SDR, median", "dB"),
    ("snr", "Signal-to-noise ratio", "dB"),
    ("mel_distance", "Mel distance", ""),
    ("stft_distance", "STFT distance", ""),
    ("spectral_convergence", "Spectral convergence", ""),
    ("silent_samples", "Silent samples", ""),
    ("mel_windows", "Mel windows", ""),
    ("stft_windows", "STFT windows", ""),
    ("frechet", "Fréchet distance", ""),
    ("lpips", "LPIPS", ""),
    ("feature_distance", "Feature distance", ""),
    ("precision", "Precision", ""),
    ("recall", "Recall", ""),
    ("density", "Density", ""),
    ("coverage", "Coverage", ""),
    ("diversity", "Diversity", ""),
    ("calibration_error", "Calibration error", ""),
    ("bits_per_dim", "Bits per dimension", ""),
    ("nats_first_token", "Nats of the first token", ""),
    ("nats_uniform", "Uniform codes", "nats"),
    ("nats_unigram", "Frequencies of codes", "nats"),
    ("nats_position", "Frequencies by position", "nats"),
    ("nats_position_and_class", "Frequencies by position and class", "nats"),
    ("psnr_by_frame", "PSNR by frame", "dB"),
    ("ssim_by_frame", "SSIM by frame", ""),
    ("difference_psnr_by_frame", "PSNR of differences by frame", "dB"),
    ("token_nats", "Nats by position in a sample", ""),
    ("samples", "Samples", ""),
];

/// The label of a field: a known one, or its name in words.
pub(crate) fn label(name: &str) -> String {
    match NAMES.iter().find(|(known, ..)| *known == name) {
        Some((_, label, _)) => (*label).to_owned(),
        None => {
            let words = name.replace('_', " ");
            let mut letters = words.chars();
            let first = letters.next().map(|letter| letter.to_uppercase().to_string());
            format!("{}{}", first.unwrap_or_default(), letters.as_str())
        }
    }
}

/// The unit of a field; empty where it has none.
pub(crate) fn unit(name: &str) -> &'static str {
    NAMES.iter().find(|(known, ..)| *known == name).map_or("", |(.., unit)| unit)
}

/// A label with its unit.
pub(crate) fn with_unit(name: &str) -> String {
    match unit(name) {
        "" => label(name),
        unit => format!("{}, {unit}", label(name)),
    }
}

/// The group of a field of `metrics.jsonl`; none where it is no curve of its own.
pub(crate) fn group(name: &str) -> Option<Group> {
    match name {
        "epoch" | "samples_seen" | "world_size" | "comm_ms" | "data_wait_ms" => None,
        "samples_per_second" | "step_ms" | "samples_skipped" | "memory_mib" | "gpu_memory_mib" => {
            Some(Group::Speed)
        }
        "perplexity" | "codes_used" | "bits_per_token" | "codes_replaced" => Some(Group::Codes),
        name if name.starts_with("level_") => Some(Group::Codes),
        name if name.starts_with("learning_rate") || name == "grad_norm" => Some(Group::Optimizer),
        name if name.ends_with("_weight") => Some(Group::Optimizer),
        name if name.starts_with("critic_") || name == "generator_loss" => Some(Group::Critic),
        _ => Some(Group::Loss),
    }
}

/// Figures of an evaluation that a person looks at first, in this order.
pub(crate) const FIRST: [&str; 15] = [
    "psnr",
    "ssim",
    "lpips",
    "frechet",
    "si_sdr",
    "mel_distance",
    "flicker",
    "accuracy",
    "cross_entropy",
    "nats_per_token",
    "bits_per_dim",
    "mse",
    "perplexity",
    "codes_used",
    "bits_per_token",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_known_is_called_by_its_name() {
        assert_eq!((label("psnr").as_str(), with_unit("psnr").as_str()), ("PSNR", "PSNR, dB"));
        assert_eq!(label("my_own_loss"), "My own loss");
        assert_eq!(group("my_own_loss"), Some(Group::Loss));
        assert_eq!(group("learning_rate_critic"), Some(Group::Optimizer));
    }
}
