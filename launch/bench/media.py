#!/usr/bin/env python3
"""Real sound and film: what we pack against what FFmpeg decodes, sample by sample.

    python3 launch/bench/media.py

Fetches speech (wav), sounds (FLAC) and a film (H.264), packs them with tessera, decodes the same
files with ffmpeg, and compares. Passes (exit code 0) if wav is equal bit for bit, FLAC and sound
mixed to mono within 1 of 32768, and every frame of the film that was packed equal bit for bit.
"""
import argparse, json, os, pathlib, subprocess, sys, tempfile, time

import numpy as np

import sides


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", sides.ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tessera", type=pathlib.Path, default=target / "release" / "tessera")
    parser.add_argument("--results", type=pathlib.Path, default=sides.ROOT / "docs" / "results")
    args = parser.parse_args()
    args.peer_python, args.ranks = "-", 1
    lines = ["| data | files | samples | packed in | largest difference to FFmpeg | allowed |",
             "|---" * 6 + "|"]
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        for name, compare, allowed in [("speech", sound, 0), ("sounds", sound, 1),
                                       ("film", film, 0)]:
            files, samples, seconds, largest = compare(args, name, pathlib.Path(folder))
            passed &= largest <= allowed
            lines.append(f"| {name} | {files} | {samples} | {seconds:.1f} s | {largest} | "
                         f"{allowed} |")
    body = ["Sound in windows of 8192 frames, mono, 8 kHz (speech, as it is) and 44.1 kHz (sounds, "
            "stereo mixed to its mean); film in clips of 16 frames of 128 x 72, every second frame.",
            "", *lines, "", f"**{'Passed' if passed else 'Failed'}**"]
    sides.write_report(args, "media", "Sound and film against FFmpeg", "\n".join(body) + "\n")
    sys.exit(0 if passed else 1)


def pack(args, name: str, folder: pathlib.Path, *settings: str) -> tuple:
    """Packs one of the sets; returns where its files are, its samples, and the seconds it took."""
    source = pathlib.Path(sides.output(sides.ROOT / "launch" / "fetch-media.sh", name).strip())
    out = folder / name
    start = time.perf_counter()
    sides.run(args, [args.tessera, "data", "pack", "--format", "folder", "--input", source, "--out",
                     out, "--set", "holdout=0",
                     *(part for one in settings for part in ("--set", one))])
    seconds = time.perf_counter() - start
    sides.run(args, [args.tessera, "data", "verify", out])
    manifest = json.loads((out / "manifest.json").read_text())
    samples = []
    for shard in manifest["splits"]["train"]["shards"]:
        bytes_ = (out / shard["file"]).read_bytes()
        length = int.from_bytes(bytes_[:8], "little")
        info = json.loads(bytes_[8:8 + length])["samples"]
        start, end = (8 + length + at for at in info["data_offsets"])
        kind = {"I16": np.int16, "U8": np.uint8}[info["dtype"]]
        samples.append(np.frombuffer(bytes_[start:end], kind).reshape(info["shape"]))
    return source, np.concatenate(samples), seconds


def ffmpeg(*arguments) -> bytes:
    return subprocess.run(["ffmpeg", "-v", "error", "-nostdin", *map(str, arguments), "-"],
                          check=True, capture_output=True).stdout


def sound(args, name: str, folder: pathlib.Path) -> tuple:
    length, rate = 8192, {"speech": 8000, "sounds": 44100}[name]
    source, samples, seconds = pack(args, name, folder, "modality=audio",
                                    f"audio.sample_rate={rate}", f"audio.length={length}")
    files = sorted((path for path in source.rglob("*") if path.suffix in (".wav", ".flac")),
                   key=lambda path: str(path.relative_to(source)).encode())
    at, largest = 0, 0
    for file in files:
        # As 32-bit floats, so that the mean of two channels is rounded once, as ours is.
        raw = np.frombuffer(ffmpeg("-i", file, "-f", "f32le", "-c:a", "pcm_f32le"), np.float32)
        channels = int(subprocess.run(
            ["ffprobe", "-v", "error", "-show_entries", "stream=channels", "-of", "csv=p=0", file],
            check=True, capture_output=True, text=True).stdout.split()[0])
        mono = raw.reshape(-1, channels).mean(1, dtype=np.float32)
        expected = np.clip(np.rint(mono * 32768), -32768, 32767).astype(int)
        windows = -(-len(expected) // length)
        found = samples[at:at + windows].reshape(-1).astype(int)
        at += windows
        largest = max(largest, np.abs(found[:len(expected)] - expected).max(),
                      np.abs(found[len(expected):]).max(initial=0))
    if at != len(samples):
        sys.exit(f"{name}: {len(samples)} windows were packed, the files have {at}")
    return len(files), len(samples), seconds, largest


def film(args, name: str, folder: pathlib.Path) -> tuple:
    source, samples, seconds = pack(
        args, name, folder, "modality=video", "video.frames=16", "video.stride=2",
        "video.height=72", "video.width=128")
    file = next(source.glob("*.mp4"))
    whole = ffmpeg("-i", file, "-vf", "scale=128:72:flags=area", "-f", "rawvideo", "-pix_fmt",
                   "rgb24")
    frames = np.frombuffer(whole, np.uint8).reshape(-1, 72, 128, 3)
    largest = 0
    for clip, found in enumerate(samples):
        expected = frames[32 * clip:32 * clip + 32:2]
        largest = max(largest, int(np.abs(found.astype(int) - expected).max()))
    return 1, len(samples), seconds, largest


if __name__ == "__main__":
    main()
