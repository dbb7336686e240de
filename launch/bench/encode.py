#!/usr/bin/env python3
"""`tessera encode` of 60,000 images against a DataLoader and the same encoder in PyTorch: the whole command, and the network alone.

    python3 launch/bench/encode.py --peer-python PYTHON --idx DIR

PYTHON has torch 2.11 and vector-quantize-pytorch 1.32; DIR holds the IDX files of Fashion-MNIST, of which data/fashion_mnist is
packed. Two ranks of one thread on both sides, in turn. The peer runs with batches of 64 and 256 and with a DataLoader that reads in
the process or beside it, whichever is faster. `less` is the time of 60,000 images less that of 6,000: starts fall out.
"""
import argparse, datetime, json, os, pathlib, platform, statistics, subprocess, tempfile, time

import sides

RANKS = 2
PEERS = [("batch 64", ["--batch", 64]), ("batch 256", ["--batch", 256]), ("batch 64, a reader beside", ["--batch", 64, "--workers", 1])]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--idx", required=True)
    parser.add_argument("--tessera", default="target/release/tessera")
    parser.add_argument("--model", type=pathlib.Path, default=sides.ROOT / "runs" / "fashion_mnist_tokenizer" / "model")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    sides_ = {"Tessera": tessera} | {f"PyTorch, {name}": (lambda options: lambda *a: peer(*a, options))(options) for name, options in PEERS}
    whole, short = {name: [] for name in sides_}, {name: [] for name in sides_}
    for _ in range(args.rounds):
        for name, run in sides_.items():
            whole[name].append(run(args, 60000))
            short[name].append(run(args, 6000))
    rows = []
    ours = statistics.median(whole["Tessera"]), statistics.median(a - b for a, b in zip(whole["Tessera"], short["Tessera"]))
    for name in sides_:
        seconds, less = statistics.median(whole[name]), statistics.median(a - b for a, b in zip(whole[name], short[name]))
        rows.append(f"| {name} | {seconds:.2f} | {seconds / ours[0]:.2f} | {less:.2f} | {less / ours[1]:.2f} |")
    alone = [(network(args), {b: peer_network(args, b) for b in (16, 64, 256)}) for _ in range(args.rounds)]
    ratios = sorted(our / max(their.values()) for our, their in alone)
    same = sorted(our / their[16] for our, their in alone)
    print("\n".join([
        f"- date: {datetime.date.today()}",
        "- command: `python3 launch/bench/encode.py --peer-python PYTHON --idx DIR`",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, shared, {RANKS} ranks of one thread, medians of {args.rounds} rounds in turn",
        f"- commit: {sides.output('git', 'rev-parse', '--short', 'HEAD')}", "",
        "| 60,000 images | seconds | of ours | less 6,000 | of ours |", "|---|---|---|---|---|", *rows, "",
        f"Encoder and codes alone, one thread, images a second: Tessera {statistics.median(o for o, _ in alone):.0f} in its tiles; PyTorch "
        + ", ".join(f"{statistics.median(t[b] for _, t in alone):.0f} in batches of {b}" for b in (16, 64, 256))
        + f". Tessera over PyTorch's fastest: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); over PyTorch in batches of 16: "
        f"{statistics.median(same):.2f} ({same[0]:.2f} to {same[-1]:.2f})."]))


def timed(command):
    begun = time.perf_counter()
    subprocess.run([str(part) for part in command], cwd=sides.ROOT, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return time.perf_counter() - begun


def tessera(args, num):
    with tempfile.TemporaryDirectory() as folder:
        return timed([args.tessera, "launch", "--nproc", RANKS, "--", "encode", "--model", args.model, "--out", f"{folder}/tokens", "--split",
                      "train", "--set", f"data.fraction={num / 60000}"])


def peer(args, num, options):
    with tempfile.TemporaryDirectory() as folder:
        return timed([args.peer_python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", RANKS, sides.HERE / "peer_encode.py",
                      "--data", args.idx, "--out", folder, "--limit", num, *options])


def figure(command):
    printed = subprocess.run([str(part) for part in command], cwd=sides.ROOT, check=True, capture_output=True, text=True,
                             env=os.environ | {"OMP_NUM_THREADS": "1"}).stdout
    return json.loads(printed.strip().splitlines()[-1])["samples_per_second"]


def network(args):
    return figure([args.tessera, "bench", "encode", "--model", args.model, "--calls", 9, "--device", "cpu"])


def peer_network(args, batch):
    return figure([args.peer_python, sides.HERE / "peer_encode.py", "--network", "--batch", batch])


if __name__ == "__main__":
    main()
