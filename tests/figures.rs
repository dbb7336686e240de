//! Figures of an evaluation against a second implementation.

use tch::Tensor;
use tessera_nn::loss;

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
