#!/usr/bin/env python3
"""What a step takes with two threads that wait for one another asleep, and with threads that spin: alone, and beside a
program that keeps one core busy.

    python3 launch/bench/threads.py --tessera target/release/tessera

One worker with two threads of synthetic pictures. The ways are taken in turn, so that a machine that others use meanwhile
slows all of them alike; what is told are medians over the rounds, and ratios. libgomp's own default spins 300000 times
(gcc's manual, GOMP_SPINCOUNT), which is set here to take the place of what `tessera` sets.
"""
import argparse, datetime, json, os, pathlib, platform, statistics, subprocess, sys, tempfile

import sides

CONFIG = """
[data]
kind = "synthetic"
[data.synthetic]
height = 28
width = 28
num_train = 4096
num_test = 64
[model.backbone]
kind = "conv2d"
channels = 32
residual_layers = 2
residual_channels = 16
[train]
steps = {steps}
global_batch = {batch}
[checkpoint]
every = 0
[eval]
every = 0
[metrics]
every = 1
images_every = 0
"""
BUSY = "while :; do :; done"
# Name, threads, environment: of two threads first what there was before, then what tessera sets, then between.
WAYS = [
    ("one thread", 1, {}),
    ("two, spinning (libgomp's default)", 2, {"GOMP_SPINCOUNT": "300000"}),
    ("two, 1000 spins", 2, {"GOMP_SPINCOUNT": "1000"}),
    ("two, asleep (`OMP_WAIT_POLICY=passive`)", 2, {"OMP_WAIT_POLICY": "passive"}),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tessera", default="target/release/tessera")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", help="folder for the report; printed without")
    args = parser.parse_args()

    times = {(name, busy): [] for name, _, _ in WAYS for busy in (False, True)}
    for number in range(args.rounds):
        for name, threads, variables in WAYS:
            for busy in (False, True):
                times[name, busy].append(step_ms(args, threads, variables, busy))
        told = "; ".join(f"{name}: {times[name, False][-1]:.1f}, {times[name, True][-1]:.1f}" for name, _, _ in WAYS)
        print(f"round {number + 1}, ms a step alone and beside a busy program: {told}", file=sys.stderr, flush=True)

    # Ratios within a round, whose runs followed one another; then their medians.
    def ratio(over, under):
        each = [a / b for a, b in zip(times[over], times[under])]
        return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"

    base = WAYS[1][0]
    table = ["| threads | ms alone | ms beside a busy program | busy / alone | alone, to spinning | busy, to spinning |",
             "|---" * 6 + "|"]
    for name, _, _ in WAYS:
        alone, busy = (statistics.median(times[name, busy]) for busy in (False, True))
        table.append(f"| {name} | {alone:.1f} | {busy:.1f} | {ratio((name, True), (name, False))} "
                     f"| {ratio((name, False), (base, False))} | {ratio((name, True), (base, True))} |")
    report = "\n".join([
        "# Two threads that wait for one another, beside a busy program", "",
        f"- date: {datetime.date.today()}",
        f"- command: `python3 launch/bench/threads.py --steps {args.steps} --batch {args.batch} --rounds {args.rounds}`",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, shared; load "
        f"{os.getloadavg()[2]:.1f} over the last 15 minutes, of which this is a part",
        f"- commit: {sides.output('git', 'rev-parse', '--short', 'HEAD')}", "",
        f"One worker, 32 channels, the default quantiser, 28 x 28 synthetic pictures, batch {args.batch}; the median step "
        f"of {args.steps}, {args.rounds} rounds in turn. The busy program is `sh -c '{BUSY}'`. Ratios are medians over the "
        "rounds, with the smallest and the largest.", "", *table, ""])
    if args.out:
        path = pathlib.Path(args.out) / f"{datetime.date.today()}-threads.md"
        path.write_text(report)
        print(path)
    else:
        print(report)


def step_ms(args, threads, variables, busy):
    """The median time of a step, the first ten left out."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("OMP_", "GOMP_", "KMP_", "TESSERA_"))}
    neighbor = subprocess.Popen(["sh", "-c", BUSY]) if busy else None
    try:
        with tempfile.TemporaryDirectory() as folder:
            config, run_dir = pathlib.Path(folder) / "threads.toml", pathlib.Path(folder) / "run"
            config.write_text(CONFIG.format(steps=args.steps, batch=args.batch))
            subprocess.run([args.tessera, "train", "--config", config, "--run-dir", run_dir,
                            "--set", f"train.threads={threads}"], env=environment | variables, check=True,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
            return statistics.median(row["step_ms"] for row in rows[10:])
    finally:
        if neighbor:
            neighbor.kill()
            neighbor.wait()


if __name__ == "__main__":
    main()
