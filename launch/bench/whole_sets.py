#!/usr/bin/env python3
"""Whole test sets through a compressed file: what comes out is what the model reconstructs, by one rank and by several.

python3 whole_sets.py --run RUN --input FOLDER --tessera PATH [--data DIR] [--ranks 2] [--levels N]

Compresses the folder by one process and by several ranks (the files have to be equal, byte for byte), decompresses, reconstructs, and
compares every file that came out. With --data, a data set whose split `test` are the same pictures in the same order, also the samples
that `tessera encode` and `tessera decode` make. Tells bytes, the part of the time that coding took, and the peak of memory, for a tenth
of the files too. Needs numpy and pillow where there is --data.
"""
import argparse, json, pathlib, shutil, subprocess, tempfile


def run(*words) -> tuple[dict, int]:
    """The last line that it printed, as JSON, and its peak of memory in MiB."""
    words = ["/usr/bin/time", "-f", "%M", *map(str, words)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}, int(done.stderr.split()[-1]) // 1024


def contents(folder: pathlib.Path) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


parser = argparse.ArgumentParser()
for name in ("run", "input", "tessera"):
    parser.add_argument(f"--{name}", required=True, type=pathlib.Path)
parser.add_argument("--data", type=pathlib.Path)
parser.add_argument("--ranks", type=int, default=2)
args = parser.parse_args()
model = ["--run", args.run]
with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    files = sorted(path for path in args.input.rglob("*") if path.is_file())
    few = folder / "few"
    few.mkdir()
    for path in files[: max(1, len(files) // 10)]:
        shutil.copy(path, few / path.name)
    _, least = run(args.tessera, "compress", few, folder / "few.tsc", *model, "--json")
    one, peak = run(args.tessera, "compress", args.input, folder / "one.tsc", *model, "--json")
    print(f"{one['num_files']} files, {one['num_samples']} samples: {one['bytes']} bytes, {one['bytes'] - one['payload']} of them beside the codes")
    print(f"coding took {100 * one['coding_seconds'] / one['seconds']:.2f} % of {one['seconds']:.1f} s; peak {peak} MiB, for a tenth of the files {least}")
    launched = [args.tessera, "launch", "--nproc", args.ranks, "--", "compress", args.input, folder / "several.tsc", *model]
    run(*launched)
    same = (folder / "one.tsc").read_bytes() == (folder / "several.tsc").read_bytes()
    print(f"by {args.ranks} ranks: {'the same bytes' if same else 'OTHER BYTES'}")
    back, peak = run(args.tessera, "decompress", folder / "one.tsc", folder / "back", *model, "--json")
    print(f"decompressed: coding took {100 * back['coding_seconds'] / back['seconds']:.2f} % of {back['seconds']:.1f} s; peak {peak} MiB")
    run(args.tessera, "reconstruct", args.input, folder / "whole", *model, "--json")
    came, wanted = contents(folder / "back"), contents(folder / "whole")
    wrong = sum(came.get(name) != value for name, value in wanted.items()) + abs(len(came) - len(wanted))
    print(f"beside tessera reconstruct: {len(wanted)} files, {wrong} differ")
    if args.data:
        import numpy as np
        from PIL import Image

        run(args.tessera, "encode", *model, "--out", folder / "tokens", "--set", f"data.path={args.data}")
        run(args.tessera, "decode", *model, "--tokens", folder / "tokens", "--out", folder / "npy", "--format", "npy")
        samples = np.load(folder / "npy/samples.npy")
        shown = np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "back").iterdir())]).reshape(samples.shape)
        print(f"beside tessera encode and decode: {len(samples)} samples, {(shown != samples).reshape(len(samples), -1).any(1).sum()} differ")
