#!/usr/bin/env python3
"""Whether ASHA finds what the grid finds, for less; and whether kills change anything.

    python3 launch/bench/sweeps.py [--tessera PROGRAM] [--kills 5] [--seeds 5] [--results DIR] [--work DIR]

Sweeps of `configs/sweeps/search.toml`: the grid; ASHA over the same points, which come in another order with each
seed; and the grid and the first ASHA once more, killed at random (SIGKILL of the sweep) so many times on the way.
About 50 minutes on two cores; with --work, stopped and started again, it goes on with the sweeps in that folder.
"""
import argparse, contextlib, csv, datetime, io, os, pathlib, random, shlex, subprocess, sys, tempfile, time

import sides

CONFIG = "configs/sweeps/search.toml"
# One trial at a time in both: what a trial's last digits are hangs on its number of threads, and with the largest
# learning rate the digits become per cents.
GRID = ["--strategy", "grid", "--parallel", "1"]
ASHA = ["--strategy", "asha", "--trials", "27", "--min-steps", "60", "--parallel", "1"]

LONGEST_DELAY = 15.0  # seconds from a job's begin to a kill: about what a trial takes


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", sides.ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tessera", type=pathlib.Path, default=target / "release" / "tessera")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5, help="so many runs of ASHA")
    parser.add_argument("--seed", type=int, default=0, help="of the kills")
    parser.add_argument("--results", type=pathlib.Path, default=sides.ROOT / "docs" / "results")
    parser.add_argument("--work", type=pathlib.Path, help="keep the sweeps here")
    args = parser.parse_args()
    rows = []
    with contextlib.ExitStack() as stack:
        folder = (args.work or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        sweeps = [("grid", GRID, True)]
        sweeps += [(f"asha, seed {seed}", [*ASHA, "--seed", str(seed)], seed == 0) for seed in range(args.seeds)]
        for name, options, with_kills in sweeps:
            undisturbed = folder / name.replace(", seed ", "-")
            sweep(args, undisturbed, options)
            same = "not killed"
            if with_kills:
                again = folder / f"{undisturbed.name}-killed"
                killed(args, again, undisturbed, options)
                same = "yes" if table(undisturbed) == table(again) else "NO"
            rows.append((name, *outcome(undisturbed), same))
            print(rows[-1], file=sys.stderr, flush=True)
    write(args, rows)


def command(args, folder, options):
    # ASHA takes the grid's points in an order of its own.
    words = [args.tessera, "sweep", "--config", CONFIG, "--dir", folder, *options]
    if folder.exists():
        words.append("--resume")
    return [str(word) for word in words]


def sweep(args, folder, options):
    subprocess.run(command(args, folder, options), cwd=sides.ROOT, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def killed(args, folder, undisturbed, options):
    """The same sweep, killed at random: each time a while after another part of its jobs has begun."""
    draw = random.Random(f"{args.seed} {folder.name}")
    jobs = len(begun(undisturbed))
    parts = sorted(draw.uniform(0.05, 0.95) for _ in range(args.kills))
    delays = [draw.uniform(0.0, LONGEST_DELAY) for _ in range(args.kills)]
    count = folder.with_suffix(".kills")
    done = int(count.read_text()) if count.exists() else 0
    for kill in range(done, args.kills):
        process = subprocess.Popen(command(args, folder, options), cwd=sides.ROOT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(begun(folder)) < parts[kill] * jobs:
            time.sleep(0.1)
        time.sleep(delays[kill])
        if process.poll() is not None:
            sys.exit(f"{folder.name} ended by itself before kill {kill + 1}, with {process.returncode}")
        process.kill()
        process.wait()
        count.write_text(str(kill + 1))
    sweep(args, folder, options)


def begun(folder):
    """One log for each time that a launcher was started."""
    return list((folder / "logs").glob("*.log"))


def table(folder):
    return (folder / "table.csv").read_text()


def outcome(folder):
    """Trials, optimiser steps of all of them, best error at the end."""
    rows = list(csv.DictReader(io.StringIO(table(folder))))
    best = min(float(row["mse"]) for row in rows if row["state"] == "done")
    return len(rows), sum(int(row["steps"]) for row in rows), best


def write(args, rows):
    (_, _, all_steps, lowest, _), *searches = rows
    commit = sides.output("git", "describe", "--always", "--dirty")
    cores = len(os.sched_getaffinity(0))
    words = shlex.join(["python3", "launch/bench/sweeps.py", "--kills", str(args.kills), "--seeds", str(args.seeds)])
    lines = [
        "# Sweeps: ASHA against the grid, and kills", "",
        f"- date: {datetime.date.today()}",
        f"- command: `{words}`",
        f"- machine: {sides.processor()}, {cores} cores",
        f"- commit: {commit}", "",
        f"`{CONFIG}`: a small form of the reference workload, 27 points. A killed sweep was ended by SIGKILL "
        f"{args.kills} times at random and started again with `--resume`.", "",
        "| strategy | trials | optimiser steps | of the grid's | best test MSE | from the grid's "
        "| same table when killed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, trials, steps, best, same in rows:
        lines.append(f"| {name} | {trials} | {steps} | {100 * steps / all_steps:.1f} % | {best:.6f} | "
                     f"{100 * (best / lowest - 1):+.2f} % | {same} |")
    worst = 100 * (max(row[3] for row in searches) / lowest - 1)
    longest = 100 * max(row[2] for row in searches) / all_steps
    lines += ["", f"ASHA's worst of {len(searches)} is {worst:+.2f} % from the grid's best; its longest took "
              f"{longest:.1f} % of the grid's steps."]
    path = args.results / f"{datetime.date.today()}-sweeps.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
