"""The figures that `tests/figures.rs` compares SSIM and MSE with.

Written from Wang et al. 2004, equation 13, window by window: weighted means, then weighted
variances about those means. It shares no formula with tessera_nn::loss, which uses convolutions
and E[x^2] - E[x]^2. Needs numpy only.

usage: ssim.py
"""

import numpy as np


def images(side, phase):
    """Two images in [0, 1]: whole numbers modulo primes, so that every language agrees."""
    row, column = np.mgrid[0:side, 0:side]
    first = (7 * row + 13 * column + 3 * row * column + phase) % 31 / 30
    noise = (5 * row + 11 * column + 2 * phase) % 17 / 16
    return first, 0.75 * first + 0.25 * noise


def ssim(x, y, largest_window=11, sigma=1.5):
    side = min(largest_window, (min(x.shape) - 1) // 2 * 2 + 1)
    offset = np.arange(side) - side // 2
    weights = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    c1, c2 = 0.01**2, 0.03**2
    values = []
    for top in range(x.shape[0] - side + 1):
        for left in range(x.shape[1] - side + 1):
            a = x[top : top + side, left : left + side]
            b = y[top : top + side, left : left + side]
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            variance_a = (weights * (a - mean_a) ** 2).sum()
            variance_b = (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
            structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
            values.append(luminance * structure)
    return float(np.mean(values))


if __name__ == "__main__":
    for side in (16, 28, 8):
        figures = []
        for phase in (0, 5):
            x, y = images(side, phase)
            figures.append((ssim(x, y), float(((x - y) ** 2).mean())))
        print(side, figures)
