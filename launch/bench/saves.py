#!/usr/bin/env python3
"""What saves cost a step, and how long a killed run stands still.

    python3 launch/bench/saves.py --peer-python PYTHON --idx DIR

The reference workload with a save every 50 steps and with none, in turn. A save's stall is the time
that a step waits for it: the copy of the state to the host. Then one rank is killed in the middle, and
the launcher starts again.
"""
import json, pathlib, statistics, subprocess, sys, tempfile

import sides

EVERY = 50
KILLED = 40  # the step at which a worker is killed; it saves every EVERY // 2 then


def main():
    parser = sides.parser(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    stalls, with_saves, without = [], [], []
    for number in range(args.rounds):
        for every, times in ((EVERY, with_saves), (0, without)):
            with tempfile.TemporaryDirectory() as folder:
                run_dir = pathlib.Path(folder) / "run"
                sides.train_tessera(args, args.steps, str(run_dir), f"checkpoint.every={every}")
                rows = lines(run_dir / "metrics.jsonl")
                times.append(statistics.median(row["step_ms"] for row in rows[1:]))
                if every:
                    logs = [lines(path) for path in sorted((run_dir / "logs").iterdir())]
                    # The last save is waited for; it is no stall of a step.
                    stalls += [line["stall_ms"] for log in logs for line in log
                               if line.get("message") == "save begun" and line["step"] < args.steps]
        print(f"round {number + 1}: {with_saves[-1]:.1f} and {without[-1]:.1f} ms a step",
              file=sys.stderr, flush=True)
    restarts = [still(args) for _ in range(args.rounds)]

    step = statistics.median(without)
    lines_of_table = [
        f"Reference workload, K = {args.codes}, global batch {args.batch * args.ranks}, "
        f"{args.steps} steps, {args.rounds} rounds in turn.", "",
        "| | median | smallest | largest |", "|---" * 4 + "|",
        row("step without saves, ms", without, 1),
        row(f"step with a save every {EVERY}, ms", with_saves, 1),
        row("stall of a save, ms", stalls, 2),
        row("stall of a save, share of a step, %", [100 * stall / step for stall in stalls], 2),
        row("killed worker to the next step, s", restarts, 2),
    ]
    sides.write_report(args, "saves", "What saves cost, and how long a restart takes",
                       "\n".join(lines_of_table) + "\n")


def still(args) -> float:
    """Seconds from the death of a worker to the next step of the run."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder) / "run"
        command = [args.tessera, "launch", "--nproc", args.ranks, "--max-restarts", 1, "--", "train",
                   "--config", "configs/fashion_mnist.toml", "--run-dir", run_dir]
        for setting in (f"data.path={args.packed.resolve()}", "train.steps=60", "eval.every=0",
                        f"train.global_batch={args.batch * args.ranks}", "metrics.every=1",
                        f"checkpoint.every={EVERY // 2}", "metrics.images_every=0"):
            command += ["--set", setting]
        faults = {"TESSERA_FAULTS": f"rank=1,step={KILLED},at=forward,do=kill"}
        done = subprocess.run([str(part) for part in command], cwd=sides.ROOT, text=True, check=True,
                              capture_output=True, env=sides.environment(args) | faults)
        told = next(line for line in done.stderr.splitlines() if "fault on purpose at" in line)
        killed = float(told.split()[-1])
        log = lines(run_dir / "logs" / "rank-0.jsonl")
        # The step of the kill may have been told after it by the other rank; those after the restart
        # begin with the ones that are done again.
        return min(line["unix_seconds"] for line in log if line.get("message") == "step done"
                   and line["unix_seconds"] > killed and line["step"] < KILLED) - killed


def lines(path: pathlib.Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


def row(name: str, values: list, digits: int) -> str:
    shown = (statistics.median(values), min(values), max(values))
    return f"| {name} | " + " | ".join(f"{value:.{digits}f}" for value in shown) + " |"


if __name__ == "__main__":
    main()
