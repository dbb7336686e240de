//! What a trial can be measured by.

/// The numbers of an evaluation, and how many numbers make the model. Which of them a trial has hangs on its task, on the size of
/// its pictures (`ms_ssim`) and on `eval.features`.
pub const FIGURES: [&str; 30] = [
    "mse",
    "psnr",
    "ssim",
    "perplexity",
    "codes_used",
    "bits_per_token",
    "parameters",
    "psnr_of_samples",
    "ms_ssim",
    "ms_ssim_2",
    "ms_ssim_3",
    "ms_ssim_4",
    "frechet",
    "precision",
    "recall",
    "density",
    "coverage",
    "feature_distance",
    "lpips",
    // Of sound.
    "si_sdr",
    "si_sdr_median",
    "snr",
    "mel_distance",
    "stft_distance",
    "spectral_convergence",
    // Of film.
    "difference_psnr",
    "flicker",
    // Of a probe.
    "accuracy",
    "cross_entropy",
    "calibration_error",
];
