#!/usr/bin/env python3
"""Sizes of compressed films and speech beside codecs of today at the quality that the model reaches.

python3 compressed.py film --run RUN --prior RUN --input FOLDER --tessera PATH
python3 compressed.py speech --run RUN --prior RUN --input FOLDER --tessera PATH

Needs numpy, and FFmpeg with libx264, libx265 and libsvtav1. Film: each film as a whole, at its own size, 8-bit RGB; PSNR of the mean squared
error over all values of all films, after rounding. A codec's coarsest setting is told where even that is better. Speech: bits of the file for
a second of sound; qualities of the same codes are in the page about speech.
"""
import argparse, json, pathlib, subprocess, tempfile

import numpy as np


def run(*words) -> bytes:
    done = subprocess.run([str(word) for word in words], capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr.decode()}")
    return done.stdout


def tessera(args, *words) -> dict:
    return json.loads(run(args.tessera, *words, "--run", args.run, "--json"))


def ours(args, folder: pathlib.Path):
    """Name, bytes of the file, bytes of codes, for what codes can be coded by."""
    tables = pathlib.Path(args.run) / "model/tables.safetensors"
    aside = tables.with_suffix(".aside")
    tables.rename(aside)
    try:
        done = tessera(args, "compress", args.input, folder / "plain.tsc")
    finally:
        aside.rename(tables)
    yield "codes as they are", done
    yield "tables", tessera(args, "compress", args.input, folder / "tables.tsc")
    if args.prior:
        begun = tessera(args, "compress", args.input, folder / "prior.tsc", "--prior", args.prior)
        yield "prior", begun


def frames(path, like=None) -> np.ndarray:
    """All bytes of all frames, at the size of another film's."""
    size = []
    if like:
        sides = run("ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height", "-of", "csv=p=0", like)
        size = ["-vf", "scale={}:{}:flags=bicubic".format(*sides.decode().strip().split(","))]
    words = ["ffmpeg", "-v", "error", "-i", path, *size, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    return np.frombuffer(run(*words), np.uint8)


def film(args):
    files = sorted(pathlib.Path(args.input).rglob("*.mkv"))
    originals = [frames(file) for file in files]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        quality = args.psnr or tessera(args, "reconstruct", args.input, folder / "out")["psnr"]
        print(f"{len(files)} films, {sum(map(len, originals))} bytes decoded, PSNR {quality:.2f} dB")
        for name, done in () if args.baselines else ours(args, folder):
            print(f"| {name} | {done['bytes']} | {done['payload']} | {done['bits_per_code']:.3f} | {quality:.2f} | {done['seconds']:.1f} |")
        # At the size that they have, and at half of it, which is less than the coarsest setting.
        x265 = ["-preset", "slower", "-x265-params", "log-level=none"]
        for codec, words, worst, size in [
            ("libx264", ["-preset", "veryslow"], 51, ""), ("libx264", ["-preset", "veryslow"], 51, "scale=iw/2:-2:flags=area"),
            ("libx265", x265, 51, ""), ("libx265", x265, 51, "scale=iw/2:-2:flags=area"), ("libsvtav1", ["-preset", "4"], 63, ""),
        ]:
            def coded(setting):
                total, squares, values = 0, 0.0, 0
                for file, original in zip(files, originals):
                    out = folder / "out.mkv"
                    smaller = ["-vf", size] if size else []
                    run("ffmpeg", "-v", "error", "-y", "-i", file, "-an", *smaller, "-c:v", codec, *words, "-pix_fmt", "yuv420p", "-crf", setting, out)
                    total += out.stat().st_size
                    error = frames(out, file if size else None).astype(np.float64) - original
                    squares, values = squares + float((error**2).sum()), values + error.size
                return total, 10 * np.log10(255**2 * values / squares)
            # The coarsest setting that is as good; PSNR falls with it.
            low, high = 0, worst
            best = coded(worst)
            if best[1] < quality:
                while high - low > 1:
                    middle = (low + high) // 2
                    found = coded(middle)
                    if found[1] >= quality:
                        low, best = middle, found
                    else:
                        high = middle
            print(f"| {codec}{', half the size' if size else ''} | {best[0]} | | | {best[1]:.2f} | |")


def speech(args):
    files = sorted(pathlib.Path(args.input).rglob("*.wav"))
    probe = lambda file: float(run("ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", file))
    seconds = sum(map(probe, files))
    print(f"{len(files)} files, {seconds:.1f} seconds")
    with tempfile.TemporaryDirectory() as folder:
        for name, done in ours(args, pathlib.Path(folder)):
            rate = lambda size: 8 * size / seconds
            print(f"| {name} | {done['bytes']} | {rate(done['bytes']):.0f} | {rate(done['payload']):.0f} | {done['bits_per_code']:.3f} | {done['seconds']:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["film", "speech"])
    parser.add_argument("--run", required=True)
    parser.add_argument("--prior")
    parser.add_argument("--input", required=True)
    parser.add_argument("--baselines", action="store_true", help="nothing but them, beside a quality that is given by --psnr")
    parser.add_argument("--psnr", type=float)
    parser.add_argument("--tessera", default="tessera")
    args = parser.parse_args()
    film(args) if args.what == "film" else speech(args)


if __name__ == "__main__":
    main()
