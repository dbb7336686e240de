"""The values that the tests of `src/figures` compare with. Needs NumPy and scikit-image 0.26.

python3 figures.py
"""
import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def pictures(height, width, channels):
    i = np.arange(height * width * channels, dtype=np.int64)
    x = ((i * 7 + i * i // 11) % 256).astype(np.uint8)
    y = np.clip(x.astype(np.int64) + i * 5 % 23 - 11, 0, 255).astype(np.uint8)
    return [values.reshape(height, width, channels) for values in (x, y)]


def sounds(length):
    i = np.arange(length, dtype=np.int64)
    x = (i * i * 37 + i * 911) % 20_001 - 10_000
    # Rust divides towards zero.
    y = np.trunc(x * 3 / 4).astype(np.int64) + i * 731 % 4001 - 2000
    return x / 32768, y / 32768


def si_sdr(x, y):
    x, y = x - x.mean(), y - y.mean()
    heard = (x @ y) / (x @ x) * x
    return 10 * np.log10((heard @ heard) / ((y - heard) @ (y - heard)))


def mels(hertz):
    return np.where(hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1) / 1000) / np.log(6.4))


def hertz(mels):
    return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))


def log_mels(sound, window, number, rate):
    padded = np.pad(sound, window // 2, mode="reflect")
    starts = np.arange(0, len(sound) + 1, window // 4)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    spectrum = np.abs(np.fft.rfft(np.stack([padded[at : at + window] * hann for at in starts]), axis=1))
    corners = hertz(np.linspace(0, mels(np.array(rate / 2)), number + 2))
    bins = np.arange(window // 2 + 1) * rate / window
    filters = []
    for left, middle, right in zip(corners, corners[1:], corners[2:]):
        triangle = np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle))
        filters.append(np.maximum(triangle, 0) * 2 / (right - left))
    return np.log10(np.maximum(spectrum @ np.stack(filters).T, 1e-5))


def log_mel_distance(x, y, rate=8000):
    scales = [(32 << at, 5 << at) for at in range(7) if 16 << at < len(x)]
    return sum(np.abs(log_mels(x, *scale, rate) - log_mels(y, *scale, rate)).mean() for scale in scales)


def main():
    x, y = pictures(20, 17, 3)
    print("PSNR_20_17_3", peak_signal_noise_ratio(x, y, data_range=255))
    for size in [(20, 17, 3), (11, 28, 1)]:
        x, y = pictures(*size)
        found = structural_similarity(
            x, y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2
        )
        print("SSIM_" + "_".join(map(str, size)), found)
    print("SI_SDR_2500", si_sdr(*sounds(2500)))
    for length in [2500, 300]:
        print(f"LOG_MEL_{length}", log_mel_distance(*sounds(length)))


if __name__ == "__main__":
    main()
