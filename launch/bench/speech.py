#!/usr/bin/env python3
"""Speech at 8 kHz: rate and distortion of a trained codec, with and without a critic, beside Opus and Codec 2.

    python3 launch/bench/speech.py --without runs/speech_8k --with runs/speech_8k_gan --prompts speech/test --out docs/results/speech

Both runs are trained already (configs/speech_8k.toml, configs/speech_8k_gan.toml); `--prompts` is the folder of the prompts that
they have never seen, in folders by language. For each number of levels the model encodes and decodes these prompts, in windows
of two seconds as it was trained; opusenc (`--padding 0 --discard-comments`) and c2enc take each prompt whole. All are measured
alike: SI-SDR and DAC's mel distance in the same windows, by numpy; STOI and PESQ of whole prompts, by the packages pystoi and pesq.
What `tessera eval` says of the same model and data stands beside it, so that the two can be seen to agree.

Opus and Codec 2 delay what they decode, and Codec 2 keeps no phase: their sounds are shifted by up to 40 ms to where they fit
best. Rates are of all bits that a decoder needs: codes without entropy coding; of Opus the whole file, and what `opusinfo` says is
left without Ogg's overhead.

Needs a Python with numpy, scipy, matplotlib, pystoi and pesq; opus-tools and codec2.
"""
import argparse, datetime, json, multiprocessing, os, pathlib, platform, re, subprocess, sys, tempfile, wave

import numpy as np

import sides

RATE = 8000
WINDOW = 16000
# Codes a second of a level, and bits of a code.
BITS_OF_LEVEL = 125 * 8
SHOWN = 5


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", sides.ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--without", type=pathlib.Path, required=True, help="the run without a critic")
    parser.add_argument("--with", dest="with_", type=pathlib.Path, required=True, help="the run with one")
    parser.add_argument("--prompts", type=pathlib.Path, required=True, help="the prompts that neither has seen")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of sounds and pictures")
    parser.add_argument("--levels", type=lambda text: [int(word) for word in text.split(",")], default=list(range(1, 7)),
                        help="numbers of levels with a critic [default: 1,2,3,4,5,6]")
    parser.add_argument("--tessera", type=pathlib.Path, default=target / "release" / "tessera")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    files = sorted(args.prompts.glob("*/*.wav"))
    sounds = {file: read(file) for file in files}
    rows = Rows(args.out / "rows.json")
    models = {}
    for name, run in [("without a critic", args.without), ("with a critic", args.with_)]:
        if not (run / "model").is_dir():
            print(f"{run} is not trained yet: the rest is measured without it", file=sys.stderr)
            continue
        model = models[name] = Model(args, run, sounds)
        for levels in args.levels if name == "with a critic" else range(1, 7):
            decode = lambda: (model.decoded(levels), levels * BITS_OF_LEVEL, None)
            rows.add(f"{name}, {levels}", sounds, decode, lambda: evaluated(args, run, levels))
    rows.add("Opus, 6 kbit/s asked for", sounds, lambda: coded_by_opus(sounds, 6))
    rows.add("Codec 2, mode 3200", sounds, lambda: coded_by_codec2(sounds, "3200"))
    rows = list(rows.rows.values())
    shown = {name.split()[0]: model.decoded(6) for name, model in models.items()}
    shown |= {"opus-6": coded_by_opus(sounds, 6)[0], "codec2-3200": coded_by_codec2(sounds, "3200")[0]}
    draw(rows, args.out / "rate_distortion.svg")
    keep(sounds, shown, args.out)
    print("\n".join([
        f"- date: {datetime.date.today()}",
        f"- command: `python3 launch/bench/speech.py {' '.join(sys.argv[1:])}`",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, shared, 2 workers",
        f"- commit: {sides.output('git', 'rev-parse', '--short', 'HEAD')}", "",
        "| | bit/s | SI-SDR, dB: mean, median | mel distance | STOI | PESQ | `tessera eval`: SI-SDR, mel distance |",
        "|---|---|---|---|---|---|---|", *map(row, rows)]))


class Rows:
    """The rows of the table by name, in a file: what is there is not measured again."""

    def __init__(self, path):
        self.path = path
        self.rows = json.loads(path.read_text()) if path.exists() else {}

    def add(self, name, sounds, decode, evaluate=dict):
        if name not in self.rows:
            decoded, bits, file_bits = decode()
            self.rows[name] = (name, bits, file_bits, measure(sounds, decoded), evaluate())
            self.path.write_text(json.dumps(self.rows, indent=1))
        print(row(self.rows[name]), file=sys.stderr, flush=True)


def row(told):
    name, bits, file_bits, (si_sdr, median, mel, stoi, pesq), evaluation = told
    rate = f"{bits:.0f}" if file_bits is None else f"{bits:.0f} (files {file_bits:.0f})"
    beside = f"{evaluation['si_sdr']:.2f}, {evaluation['mel_distance']:.3f}" if evaluation else ""
    return f"| {name} | {rate} | {si_sdr:.2f}, {median:.2f} | {mel:.3f} | {stoi:.3f} | {pesq:.2f} | {beside} |"


# Sounds in and out.

def read(path):
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE), path
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def write(path, sound):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.clip(np.round(sound * 32768), -32768, 32767).astype("<i2").tobytes())


class Model:
    """A run's model with the codes of all prompts, each in windows, as `tessera encode` and `decode` see a folder of files."""

    def __init__(self, args, run, sounds):
        self.args, self.run, self.sounds, self.folder = args, run, sounds, tempfile.TemporaryDirectory()
        inputs = pathlib.Path(self.folder.name) / "in"
        inputs.mkdir()
        # Numbers keep the order of the files, and no folder is a class.
        for number, sound in enumerate(sounds.values()):
            write(inputs / f"{number:05}.wav", sound)
        data = ["data.kind=folder", f"data.path={inputs}", "data.holdout=0", 'data.split.train=["*"]']
        sets = [part for setting in data for part in ("--set", setting)]
        sides.tessera(args, "encode", "--run", run, "--split", "train", "--out", inputs.with_name("tokens"), *sets)

    def decoded(self, levels):
        outputs = pathlib.Path(self.folder.name) / f"out-{levels}"
        sides.tessera(self.args, "decode", "--run", self.run, "--tokens", outputs.with_name("tokens"), "--split", "train", "--out", outputs,
                "--levels", levels)
        windows = [read(path) for path in sorted(outputs.glob("*.wav"))]
        decoded, at = {}, 0
        for file, sound in self.sounds.items():
            num = max(1, -(-len(sound) // WINDOW))
            decoded[file] = np.concatenate(windows[at:at + num])[:len(sound)]
            at += num
        assert at == len(windows), (at, len(windows))
        return decoded


def evaluated(args, run, levels):
    told = json.loads(sides.tessera(args, "eval", "--run", run, "--levels", str(levels), "--json"))
    return {name: told[name] for name in ("si_sdr", "mel_distance")}


def coded_by_opus(sounds, kbit):
    decoded, file_bytes, payload_bits, seconds = {}, 0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        opus, wav = (os.path.join(folder, name) for name in ("x.opus", "x.wav"))
        for file, sound in sounds.items():
            quiet("opusenc", "--quiet", "--bitrate", str(kbit), "--padding", "0", "--discard-comments", file, opus)
            quiet("opusdec", "--quiet", "--rate", str(RATE), opus, wav)
            told = sides.output("opusinfo", opus)
            rate = float(re.search(r"w/o overhead: ([\d.]+) kbit/s", told).group(1))
            length = len(sound) / RATE
            size = os.path.getsize(opus)
            file_bytes += size
            payload_bits += 1000 * rate * length
            seconds += length
            decoded[file] = fitted(read(wav), sound)
    return decoded, payload_bits / seconds, 8 * file_bytes / seconds


def coded_by_codec2(sounds, mode):
    decoded, num_bytes, seconds = {}, 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        raw, coded, back = (os.path.join(folder, name) for name in ("x.raw", "x.c2", "y.raw"))
        for file, sound in sounds.items():
            np.round(np.concatenate([sound, np.zeros(640)]) * 32768).astype("<i2").tofile(raw)
            quiet("c2enc", mode, raw, coded)
            quiet("c2dec", mode, coded, back)
            num_bytes += os.path.getsize(coded)
            seconds += (len(sound) + 640) / RATE
            decoded[file] = fitted(np.fromfile(back, "<i2") / 32768, sound)
    return decoded, 8 * num_bytes / seconds, None


def quiet(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def fitted(decoded, sound, most=320):
    """The decoded sound moved by up to 40 ms to where it correlates best, at the length of what it should be."""
    padded = np.zeros(len(sound) + 2 * most)
    num = min(len(decoded), len(sound) + most)
    padded[most:most + num] = decoded[:num]
    scores = [abs(np.dot(padded[at:at + len(sound)], sound)) for at in range(2 * most + 1)]
    at = int(np.argmax(scores))
    return padded[at:at + len(sound)]


# Figures.

def measure(sounds, decoded):
    """SI-SDR (mean, median) and mel distance of windows, the last one of a prompt filled up with silence; STOI and PESQ of
    whole prompts."""
    with multiprocessing.Pool() as pool:
        of_prompts = pool.starmap(measure_prompt, [(sound, decoded[file]) for file, sound in sounds.items()])
    si_sdrs, mels, stois, pesqs = (sum(values, []) for values in zip(*of_prompts))
    return [float(value) for value in (np.mean(si_sdrs), np.median(si_sdrs), np.mean(mels), np.mean(stois), np.mean(pesqs))]


def measure_prompt(sound, output):
    """Its values of each figure; none where it has none."""
    from pesq import pesq
    from pystoi import stoi
    si_sdrs, mels, stois, pesqs = [], [], [], []
    for at in range(0, len(sound), WINDOW):
        x, y = (np.pad(whole[at:at + WINDOW], (0, max(0, at + WINDOW - len(sound)))) for whole in (sound, output))
        if np.square(x - x.mean()).sum() > 1e-20:
            si_sdrs.append(si_sdr(y, x))
        mels.append(mel_distance(y, x))
    if len(sound) >= RATE:
        stois.append(stoi(sound, output, RATE))
        try:
            pesqs.append(pesq(RATE, sound, output, "nb"))
        except Exception:  # It finds no utterance in some prompts that are beeps.
            pass
    return si_sdrs, mels, stois, pesqs


def si_sdr(y, x):
    x, y = x - x.mean(), y - y.mean()
    heard = (y @ x) / (x @ x) * x
    return float(np.clip(10 * np.log10(max(heard @ heard, 1e-30) / max((y - heard) @ (y - heard), 1e-30)), -100, 100))


def mel_distance(y, x):
    """DAC's: magnitudes in Slaney's filters, the mean absolute difference of log10 above 1e-5, summed over seven windows."""
    total = 0.0
    for at in range(7):
        window, mels = 32 << at, 5 << at
        a, b = (np.log10(np.maximum(filters(window, mels) @ spectrum(wave, window), 1e-5)) for wave in (y, x))
        total += np.abs(a - b).mean()
    return total


def spectrum(wave, window):
    padded = np.pad(wave, window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::window // 4]
    return np.abs(np.fft.rfft(frames * np.hanning(window + 1)[:-1])).T


def filters(window, mels, known={}):
    if (window, mels) not in known:
        to_mel = lambda f: np.where(f < 1000, f * 3 / 200, 15 + 27 * np.log(np.maximum(f, 1) / 1000) / np.log(6.4))
        to_hertz = lambda m: np.where(m < 15, m * 200 / 3, 1000 * np.exp((m - 15) * np.log(6.4) / 27))
        corners = to_hertz(np.linspace(0, float(to_mel(np.array(RATE / 2))), mels + 2))
        bins = np.arange(window // 2 + 1) * RATE / window
        rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
        falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
        known[window, mels] = np.maximum(np.minimum(rising, falling), 0) * (2 / (corners[2:] - corners[:-2]))[:, None]
    return known[window, mels]


# Pictures and sounds.

def draw(rows, path):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tessera"
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6))
    for axis, (at, name) in zip(axes, [(0, "SI-SDR, dB (more is better)"), (2, "mel distance (less is better)"),
                                       (4, "PESQ (more is better)")]):
        for of in ("without a critic", "with a critic"):
            own = [row for row in rows if row[0].startswith(of + ",")]
            if own:  # What is not trained has no rows.
                axis.plot([row[1] for row in own], [row[3][at] for row in own], marker="o", label=of)
        for of, marker in (("Opus", "s"), ("Codec 2", "^")):
            own = [row for row in rows if row[0].startswith(of)]
            axis.plot([row[1] for row in own], [row[3][at] for row in own], marker=marker, linestyle="none", label=of)
        axis.set(xlabel="bit/s", title=name)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def keep(sounds, shown, out):
    """Five prompts of one to three seconds, alternately of each language: in, out, and their spectrograms."""
    from PIL import Image
    by_language = {}
    for file, sound in sounds.items():
        if RATE <= len(sound) <= 3 * RATE:
            by_language.setdefault(file.parent.name, []).append(file)
    picked = [files[len(files) * at // SHOWN] for at in range(SHOWN) for files in
              [list(by_language.values())[at % len(by_language)]]]
    for number, file in enumerate(picked):
        columns = [("in", sounds[file]), *((name, decoded[file]) for name, decoded in shown.items())]
        pictures = []
        for name, sound in columns:
            write(out / f"{number}-{file.parent.name}-{name}.wav", sound)
            pictures.append(np.pad(picture(sound), ((0, 0), (0, 4)), constant_values=255))
        sheet = np.concatenate(pictures, axis=1)
        Image.fromarray(sheet).resize((sheet.shape[1], sheet.shape[0] * 2)).save(out / f"{number}.png", optimize=True)
        print(f"{number}: {file.parent.name}/{file.name}: {', '.join(name for name, _ in columns)}", file=sys.stderr)


def picture(sound):
    """Windows of 32 ms, 8 ms apart; 80 dB from a full sine down to black."""
    power = 20 * np.log10(np.maximum(spectrum(sound, 256) / 64, 1e-10))
    return np.flipud(np.clip((power + 80) / 80 * 255, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
