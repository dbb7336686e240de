#!/usr/bin/env python3
"""What a step takes with two ranks of Open MPI that wait for one another spinning, and with ranks that yield their core:
alone, beside a program that keeps one core busy, and beside five such runs.

    python3 launch/bench/ranks.py --tessera target/release/tessera

The ways are taken in turn, so that a machine that others use meanwhile slows both alike; what is told are medians over the
rounds, and ratios. Open MPI spins where there are no more ranks than cores, unless mpi_yield_when_idle says otherwise.
"""
import argparse, contextlib, datetime, json, os, pathlib, platform, statistics, subprocess, sys, tempfile

import sides
from threads import BUSY, CONFIG

YIELDS = "OMPI_MCA_mpi_yield_when_idle"
WAYS = [("spinning", {YIELDS: "0"}), ("yielding", {YIELDS: "1"})]
PLACES = ["alone", "beside a busy program", "beside five such runs"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tessera", default="target/release/tessera")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    times = {(name, place): [] for name, _ in WAYS for place in PLACES}
    for number in range(args.rounds):
        for place in PLACES:
            for name, variables in WAYS[::(-1) ** number]:
                times[name, place].append(step_ms(args, variables, place))
        told = "; ".join(f"{place}: " + ", ".join(f"{times[name, place][-1]:.1f}" for name, _ in WAYS) for place in PLACES)
        print(f"round {number + 1}, ms a step spinning and yielding, {told}", file=sys.stderr, flush=True)

    table = ["| two ranks | ms spinning | ms yielding | yielding / spinning |", "|---" * 4 + "|"]
    for place in PLACES:
        spinning, yielding = (times[name, place] for name, _ in WAYS)
        each = [b / a for a, b in zip(spinning, yielding)]
        table.append(f"| {place} | {statistics.median(spinning):.1f} | {statistics.median(yielding):.1f} "
                     f"| {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f}) |")
    print("\n".join([
        "# Two ranks that wait for one another", "",
        f"- date: {datetime.date.today()}",
        f"- command: `python3 launch/bench/ranks.py --steps {args.steps} --batch {args.batch} --rounds {args.rounds}`",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, shared; load "
        f"{os.getloadavg()[2]:.1f} over the last 15 minutes, of which this is a part",
        f"- commit: {sides.output('git', 'rev-parse', '--short', 'HEAD')}", "",
        f"Two ranks with a thread each, 32 channels, the default quantiser, 28 x 28 synthetic pictures, batch {args.batch}; "
        f"the median step of {args.steps}, {args.rounds} rounds in turn. The busy program is `sh -c '{BUSY}'`. Ratios are "
        "medians over the rounds, with the smallest and the largest.", "", *table]))


def step_ms(args, variables, place):
    """The median time of a step, the first ten left out."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("OMP_", "GOMP_", "KMP_", "TESSERA_", "OMPI_MCA_"))} | variables
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = folder / "ranks.toml"
        config.write_text(CONFIG.format(steps=args.steps, batch=args.batch))

        def start(name):
            return subprocess.Popen([args.tessera, "launch", "--nproc", "2", "--", "train", "--config", config,
                                     "--run-dir", folder / name, "--set", "train.threads=1"], env=environment,
                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        if place == PLACES[1]:
            neighbor = subprocess.Popen(["sh", "-c", BUSY])
            stack.callback(neighbor.wait)
            stack.callback(neighbor.kill)
        runs = [start(f"run-{number}") for number in range(6 if place == PLACES[2] else 1)]
        if any([run.wait() for run in runs]):
            sys.exit("a run has failed")
        rows = [json.loads(line) for path in folder.glob("run-*/metrics.jsonl") for line in path.read_text().splitlines()]
        return statistics.median(row["step_ms"] for row in rows if row["step"] > 10)


if __name__ == "__main__":
    main()
