#!/usr/bin/env python3
"""A prior over Fashion-MNIST's codes against the same transformer in plain PyTorch: nats a token, and speed.

    python3 launch/bench/prior.py quality --peer-python PYTHON
    python3 launch/bench/prior.py speed --peer-python PYTHON
    python3 launch/bench/prior.py sampling --peer-python PYTHON

PYTHON has torch 2.11 and numpy. Both sides read the token set of configs/fashion_mnist_prior.toml, with two ranks of one thread and
the same steps, batch, rates and dropout. `quality` trains both for each seed and measures them on the whole test split. `speed`
times steps as a long run less a short one, as separate processes, so that starts fall out; `sampling` draws 2,000 samples on one
thread of what `quality` has trained, ours 64 at once, the peer's in batches of 16 and 64. Both sides in turn.
"""
import argparse, datetime, json, os, pathlib, platform, shutil, statistics, subprocess, sys, tempfile, time

import sides

CONFIG = "configs/fashion_mnist_prior.toml"
RANKS, BATCH = 2, 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["quality", "speed", "sampling"])
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--tessera", default="target/release/tessera")
    parser.add_argument("--tokens", type=pathlib.Path, default=sides.ROOT / "data" / "fashion_mnist_tokens")
    parser.add_argument("--steps", type=int, default=900, help="of each training of `quality`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--runs", type=pathlib.Path, default=sides.ROOT / "runs" / "bench_prior", help="folder of what `quality` trains")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", type=int, default=20)
    parser.add_argument("--long", type=int, default=140)
    args = parser.parse_args()
    rows = {"quality": quality, "speed": speed, "sampling": sampling}[args.what](args)
    print("\n".join([
        f"- date: {datetime.date.today()}",
        f"- command: `python3 launch/bench/prior.py {args.what} --peer-python PYTHON`",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, shared, {RANKS} ranks of one thread",
        f"- commit: {sides.output('git', 'rev-parse', '--short', 'HEAD')}", "", *rows]))


def quality(args):
    """Nats a token on the test split, of both sides for each seed."""
    rows, ours, theirs = [], [], []
    for seed in args.seeds:
        run = args.runs / f"seed-{seed}"
        shutil.rmtree(run, ignore_errors=True)
        tessera(args, run, args.steps, [f"seed={seed}", f"eval.every={args.steps}", f"checkpoint.every={args.steps}"])
        figures = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()][-1]
        ours.append(figures["nats_per_token"])
        options = ["--seed", seed, "--evaluate", "--out", args.runs / f"peer-{seed}.pt"]
        theirs.append(peer(args, args.steps, options)["nats"])
        rows.append(f"| {seed} | {ours[-1]:.4f} | {theirs[-1]:.4f} | {figures['nats_position_and_class']:.4f} |")
        print(rows[-1], file=sys.stderr, flush=True)
    rows.append(f"| mean | {statistics.mean(ours):.4f} | {statistics.mean(theirs):.4f} | |")
    return ["| seed | Tessera | PyTorch | by position and class |", "|---|---|---|---|", *rows]


def speed(args):
    """Milliseconds a training step, of both sides in turn."""
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(step_ms(args, lambda steps: tessera_alone(args, steps)))
        theirs.append(step_ms(args, lambda steps: peer(args, steps, [])))
        print(f"{ours[-1]:.1f} {theirs[-1]:.1f}", file=sys.stderr, flush=True)
    ratios = sorted(there / here for here, there in zip(ours, theirs))
    return ["| Tessera, ms a step | PyTorch DDP, ms a step | PyTorch / Tessera, median of rounds | least, most |", "|---|---|---|---|",
            f"| {statistics.median(ours):.1f} | {statistics.median(theirs):.1f} | **{statistics.median(ratios):.2f}** | "
            f"{ratios[0]:.2f}, {ratios[-1]:.2f} |"]


def sampling(args):
    """Tokens a second on one thread, of both sides in turn."""
    ours, theirs = [], {16: [], 64: []}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            command = [args.tessera, "sample", "--run", args.runs / "seed-0", "--num", 2000, "--tokens-only", "--json", "--out",
                       f"{folder}/samples"]
            ours.append(json.loads(output(command))["tokens_per_second"])
        for batch, rates in theirs.items():
            command = [args.peer_python, sides.HERE / "peer_prior.py", "sample", "--model", args.runs / "peer-0.pt", "--num", 2000,
                       "--batch", batch]
            rates.append(json.loads(output(command).strip().splitlines()[-1])["tokens_per_second"])
    rows = []
    for batch, rates in theirs.items():
        ratios = sorted(here / there for here, there in zip(ours, rates))
        rows.append(f"| {batch} | {statistics.median(ours):,.0f} | {statistics.median(rates):,.0f} | "
                    f"**{statistics.median(ratios):.2f}** | {ratios[0]:.2f}, {ratios[-1]:.2f} |")
    return ["| PyTorch's batch | Tessera, tokens/s | PyTorch, tokens/s | Tessera / PyTorch, median of rounds | least, most |",
            "|---|---|---|---|---|", *rows]


def output(command):
    done = subprocess.run([str(part) for part in command], cwd=sides.ROOT, check=True, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    return done.stdout


def step_ms(args, run):
    def seconds(steps):
        begun = time.perf_counter()
        run(steps)
        return time.perf_counter() - begun
    return (seconds(args.long) - seconds(args.short)) * 1e3 / (args.long - args.short)


def tessera_alone(args, steps):
    with tempfile.TemporaryDirectory() as folder:
        tessera(args, pathlib.Path(folder) / "run", steps, ["eval.every=0", "checkpoint.every=0", "schedule.warmup_steps=0"])


def tessera(args, run, steps, settings):
    command = [args.tessera, "launch", "--nproc", RANKS, "--", "train", "--config", CONFIG, "--run-dir", run]
    for setting in [f"data.path={args.tokens}", f"train.steps={steps}", f"train.global_batch={BATCH}", "train.threads=1",
                    "metrics.images_every=0", *settings]:
        command += ["--set", setting]
    subprocess.run([str(part) for part in command], cwd=sides.ROOT, check=True, capture_output=True)


def peer(args, steps, options):
    command = [args.peer_python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", RANKS,
               sides.HERE / "peer_prior.py", "train", "--tokens", args.tokens, "--steps", steps, "--batch", BATCH, *options]
    printed = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True,
                             env=os.environ | {"OMP_NUM_THREADS": "1"}).stdout
    return json.loads(printed.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
