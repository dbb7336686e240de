#!/usr/bin/env python3
"""Film: a network of film beside the same one of single frames, by frame and by what changes between frames.

    python3 launch/bench/film.py --film-run runs/film_64 --frame-run runs/film_64_frames --out docs/results/film

Both runs are trained already, on data/film_clips as configs/film_64.toml cuts them: one on clips, one on clips of one frame. The
held-out clips go through the encoder and decoder of both, and both are measured alike: PSNR by the frame's place in its clip, PSNR of
the differences of neighbouring frames, flicker (their mean size against that of the film's own), and a sheet by time.

Needs a Python with numpy, matplotlib and pillow; ffmpeg.
"""
import argparse, datetime, json, os, pathlib, platform, subprocess, sys, tempfile

import numpy as np

import sides

SIDE, FRAMES = 64, 17


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", sides.ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=pathlib.Path, default=sides.ROOT / "data" / "film_clips")
    parser.add_argument("--film-run", type=pathlib.Path, required=True)
    parser.add_argument("--frame-run", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--tessera", type=pathlib.Path, default=target / "release" / "tessera")
    args = parser.parse_args()
    compare(args)


def compare(args):
    args.out.mkdir(parents=True, exist_ok=True)
    clips = held_out(args)
    rows, outputs = [], {}
    for name, run, frames in [("film", args.film_run, FRAMES), ("single frames", args.frame_run, 1)]:
        decoded = reconstructed(args, run, clips, frames)
        outputs[name] = decoded
        rows.append((name, run, figures(clips, decoded)))
        print(told(args, rows[-1]), file=sys.stderr, flush=True)
    # What costs nothing: each frame is the first one of its clip.
    still = np.repeat(clips[:, :1], FRAMES, axis=1)
    rows.append(("the first frame, standing still", None, figures(clips, still)))
    draw(rows, args.out / "by_frame.svg")
    sheet(clips, outputs, args.out / "sheet.png")
    print("\n".join([
        f"- date: {datetime.date.today()}",
        f"- command: `python3 launch/bench/film.py {' '.join(sys.argv[1:])}`",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, shared, 2 workers",
        f"- commit: {sides.output('git', 'rev-parse', '--short', 'HEAD')}", "",
        "| network of | parameters | steps of | minutes alone | bits a clip | PSNR, dB | of differences, dB | flicker | its own evaluation |",
        "|---" * 9 + "|", *(told(args, row) for row in rows), "",
        "PSNR by the frame's place in its clip:", "",
        "| | " + " | ".join(map(str, range(FRAMES))) + " |", "|---" * (FRAMES + 1) + "|",
        *(f"| {name} | " + " | ".join(f"{value:.1f}" for value in found["by_frame"]) + " |" for name, _, found in rows)]))


def told(args, row):
    name, run, found = row
    figures = f"{found['psnr']:.2f} | {found['difference_psnr']:.2f} | {found['flicker']:.3f}"
    if run is None:
        return f"| {name} | | | | | {figures} | |"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluation = json.loads((run / "eval.jsonl").read_text().splitlines()[-1])
    config = json.loads(sides.tessera(args, "inspect", "--json", run))
    numbers = sum(number for part, number in config["model"]["parameters"].items() if part != "critic")
    last = steps[-1]
    # As the machine has it to itself: other work ran beside most steps.
    alone = sorted(step["step_ms"] for step in steps)[len(steps) // 10]
    minutes = alone * last["step"] / 60e3
    return (f"| {name} | {numbers:,} | {last['step']} of {last['samples_seen'] // last['step']} | {minutes:.1f} | "
            f"{bits(args, run):.0f} | {figures} | PSNR {evaluation['psnr']:.2f} |")


def bits(args, run):
    """Of the codes of a clip."""
    config = json.loads((run / "model" / "config.json").read_text())
    total = sum(np.prod(level["axes"]) * sum(np.log2(level["num_codes"])) for level in config["levels"])
    return total * FRAMES / max(1, config["shape"].get("frames", 1))


def held_out(args):
    """The clips of the split `test`, `[N, T, H, W, C]` bytes, as a packed set has them: whole clips of each film in turn."""
    clips = []
    for film in sorted((args.clips / "test").glob("*.mkv")):
        raw = subprocess.run(["ffmpeg", "-v", "error", "-i", film, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], check=True,
                             stdout=subprocess.PIPE).stdout
        frames = np.frombuffer(raw, np.uint8).reshape(-1, SIDE, SIDE, 3)
        whole = len(frames) // FRAMES
        clips.append(frames[:whole * FRAMES].reshape(whole, FRAMES, SIDE, SIDE, 3))
    return np.concatenate(clips)


def reconstructed(args, run, clips, frames):
    """All clips through a run's encoder and decoder, in films of so many frames."""
    from PIL import Image
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        # A film is a folder of pictures; names keep their order.
        for number, film in enumerate(clips.reshape(-1, frames, SIDE, SIDE, 3)):
            (folder / "in" / f"{number:05}").mkdir(parents=True)
            for at, frame in enumerate(film):
                Image.fromarray(frame).save(folder / "in" / f"{number:05}" / f"{at:03}.png", compress_level=1)
        data = ["data.kind=folder", f"data.path={folder / 'in'}", "data.holdout=0", 'data.split.train=["*"]']
        sets = [part for setting in data for part in ("--set", setting)]
        sides.tessera(args, "encode", "--run", run, "--split", "train", "--out", folder / "tokens", *sets)
        sides.tessera(args, "decode", "--run", run, "--tokens", folder / "tokens", "--split", "train", "--format", "npy", "--out",
                folder / "out")
        return np.load(folder / "out" / "samples.npy").reshape(clips.shape)


def figures(clips, outputs):
    x, y = clips.astype(np.float64) / 255, outputs.astype(np.float64) / 255
    errors = np.square(x - y).mean(axis=(0, 2, 3, 4))
    dx, dy = np.diff(x, axis=1), np.diff(y, axis=1)
    return {"psnr": -10 * np.log10(errors.mean()), "by_frame": -10 * np.log10(errors),
            "difference_psnr": -10 * np.log10(np.square(dx - dy).mean()), "flicker": np.abs(dy).mean() / np.abs(dx).mean()}


def draw(rows, path):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tessera"
    import matplotlib.pyplot as plt
    figure, axis = plt.subplots(figsize=(7, 3.6))
    for name, _, found in rows:
        axis.plot(found["by_frame"], marker="o", label=name)
    axis.set(xlabel="frame of the clip", ylabel="PSNR, dB")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def sheet(clips, outputs, path, films=4, moments=9):
    """Films from all over the split; of each a row of the film itself and one of each network, at moments of its time."""
    from PIL import Image
    rows = []
    for film in range(films):
        number = len(clips) * (2 * film + 1) // (2 * films)
        for source in [clips, *outputs.values()]:
            frames = [source[number, at * (FRAMES - 1) // (moments - 1)] for at in range(moments)]
            rows.append(np.concatenate([np.pad(frame, ((1, 1), (1, 1), (0, 0))) for frame in frames], axis=1))
        rows.append(np.full((6, rows[-1].shape[1], 3), 255, np.uint8))
    Image.fromarray(np.concatenate(rows[:-1])).save(path, optimize=True)


if __name__ == "__main__":
    main()
