#!/usr/bin/env python3
"""Images a second into memory, against torch.utils.data.DataLoader and the webdataset package.

    python3 launch/bench/data.py --peer-python PYTHON --photos DIR

Cuts patches of 64 x 64 from the photographs in DIR and writes them as a NumPy array, a folder of
JPEG files and tar archives (peer_loader.py), then reads each with both sides in turn, on the same
processors and with as many workers as threads. Passes (exit code 0) if the median ratios are at
least 3 from packed shards against the array, 1.5 from the folder and 2 from the archives.
"""
import argparse, json, os, pathlib, statistics, sys, tempfile

import sides

PEER = sides.ROOT / "launch" / "bench" / "peer_loader.py"
# What the peer reads, what we read of it, and the least ratio.
KINDS = [("npy", "packed", 3.0), ("folder", "folder", 1.5), ("tar", "webdataset", 2.0)]


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", sides.ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True,
                        help="a Python with torch, numpy, pillow and webdataset")
    parser.add_argument("--photos", type=pathlib.Path, required=True,
                        help="folder of photographs, jpg or png")
    parser.add_argument("--tessera", type=pathlib.Path, default=target / "release" / "tessera")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)),
                        help="worker processes of the peer, threads of ours")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--patches", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=pathlib.Path, default=sides.ROOT / "docs" / "results")
    args = parser.parse_args()
    args.ranks = 1

    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder)
        sides.run(args, [args.peer_python, PEER, "make", "--photos", args.photos, "--out", data,
                         "--patches", args.patches])
        sides.run(args, [args.tessera, "data", "pack", "--format", "npy", "--input",
                         data / "images.npy", "--out", data / "packed", "--set", "holdout=0"])
        archives = data / "archives"
        archives.mkdir()
        for archive in data.glob("*.tar"):
            (archives / archive.name).symlink_to(archive)
        paths = {"packed": data / "packed", "folder": data / "folder", "webdataset": archives}
        sides.run(args, [args.tessera, "data", "index", archives])
        rounds = {theirs: [] for theirs, _, _ in KINDS}
        for _ in range(args.rounds):
            for theirs, ours, _ in KINDS:
                rounds[theirs].append((tessera(args, ours, paths[ours]), peer(args, theirs, data)))
    passed, lines = True, [
        "| source | ours, images/s | peer, images/s | ratio of medians (each round) | at least "
        "| first batch, ours | peer |", "|---" * 7 + "|"]
    for theirs, ours, least in KINDS:
        pairs = rounds[theirs]
        own, other = ([side["rate"] for side in sides_] for sides_ in zip(*pairs))
        ratio = statistics.median(own) / statistics.median(other)
        passed &= ratio >= least
        each = ", ".join(f"{a / b:.2f}" for a, b in zip(own, other))
        first = [statistics.median(side["first"] for side in one) for one in zip(*pairs)]
        lines.append(f"| {ours} / {theirs} | {statistics.median(own):.0f} | "
                     f"{statistics.median(other):.0f} | {ratio:.2f} ({each}) | {least} | "
                     f"{first[0] * 1e3:.0f} ms | {first[1] * 1e3:.0f} ms |")
    body = [f"{args.patches} patches of 64 x 64 x 3, batches of {args.batch}, {args.workers} "
            f"workers and as many threads, {args.epochs} epochs after the first batch, "
            f"{args.rounds} rounds in turn; everything is in the page cache. The peer is "
            "`torch.utils.data.DataLoader` on an array and a folder, and `webdataset` on archives; "
            "ours checks a checksum of each sample but in the folder. JPEG of quality 90.", "",
            *lines, "", f"**{'Passed' if passed else 'Failed'}**"]
    sides.write_report(args, "data", "Data into memory", "\n".join(body) + "\n")
    sys.exit(0 if passed else 1)


def tessera(args, kind: str, path: pathlib.Path) -> dict:
    batches = args.patches * args.epochs // args.batch
    settings = [f"data.kind={kind}", f"data.path={path}", "data.holdout=0", "data.image.height=64",
                "data.image.width=64", f"data.threads={args.workers}",
                f"train.global_batch={args.batch}"]
    printed, = sides.run(args, [args.tessera, "bench", "data", "--device", "cpu", "--batches",
                                batches, *(part for one in settings for part in ("--set", one))])
    figures = json.loads(printed)
    return {"rate": figures["samples_per_second"], "first": figures["first_batch_s"]}


def peer(args, kind: str, data: pathlib.Path) -> dict:
    printed, = sides.run(args, [args.peer_python, PEER, "bench", "--data", data, "--kind", kind,
                                "--workers", args.workers, "--batch", args.batch, "--epochs",
                                args.epochs])
    figures = json.loads(printed.splitlines()[-1])
    return {"rate": figures["images_per_s"], "first": figures["first_batch_s"]}


if __name__ == "__main__":
    main()
