#!/usr/bin/env python3
"""Whether TPE finds more than drawing evenly, with as many trials.

    python3 launch/bench/tpe.py [--seeds 100] [--results DIR]

Builds and runs crates/tessera-sweep/examples/tpe.rs: functions in place of trainings, so it takes seconds once it
is built. Writes docs/results/DATE-sweeps-tpe.md.
"""
import argparse, datetime, os, pathlib, shlex, subprocess, textwrap

import sides


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--results", type=pathlib.Path, default=sides.ROOT / "docs" / "results")
    args = parser.parse_args()
    example = ["cargo", "run", "--release", "--locked", "-p", "tessera-sweep", "--example", "tpe", "--",
               str(args.seeds)]
    table = subprocess.run(example, cwd=sides.ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout
    commit = sides.output("git", "describe", "--always", "--dirty")
    words = shlex.join(["python3", "launch/bench/tpe.py", "--seeds", str(args.seeds)])
    lines = [
        "# Sweeps: TPE against random", "",
        f"- date: {datetime.date.today()}",
        f"- command: `{words}`",
        f"- machine: {sides.processor()}, {len(os.sched_getaffinity(0))} cores, shared",
        f"- commit: {commit}", "",
        textwrap.fill(
            "Functions in place of trainings (`crates/tessera-sweep/examples/tpe.rs`); 0 is the best that there is. "
            "Each trial's cost has noise of up to 0.01. The best is the trial that looks best, at its cost without "
            f"noise: the median over {args.seeds} seeds. Both strategies begin with the same ten points, except in the "
            "finite space, where random goes through a shuffled list.", 119), "",
        table.rstrip(), "",
    ]
    path = args.results / f"{datetime.date.today()}-sweeps-tpe.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    print(path.read_text())


if __name__ == "__main__":
    main()
