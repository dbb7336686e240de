#!/usr/bin/env python3
"""How much memory the activations of a rank take, with all of its samples at once and with fewer (train.micro_batch), and
with activations computed again (train.recompute).

    python3 launch/bench/memory.py --worker target/release/tessera-worker

Told is the most memory that a worker ever had (its peak resident set), less that of a worker with one sample at once: what
libtorch, parameters, moments and the sum take is in both. Each way in a process of its own, the smallest of some runs.
"""
import argparse, datetime, json, os, pathlib, platform, subprocess, sys, tempfile

import sides

STEPS = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", default="target/release/tessera-worker")
    parser.add_argument("--config", default="configs/fashion_mnist.toml")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--parts", type=int, nargs="+", default=[128, 64, 32])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", type=int, default=28, help="of the pictures")
    parser.add_argument("--channels", type=int, default=1, help="of the pictures")
    args = parser.parse_args()

    def least(*settings):
        peaks = [peak(args, settings) for _ in range(args.rounds)]
        return min(kib for kib, _ in peaks), min(ms for _, ms in peaks)

    one, _ = least("train.micro_batch=1")
    whole, whole_ms = least("train.micro_batch=0")
    all_kib = whole - one
    table = ["| samples at once | MiB of activations | of all | m / n | ratio of the two | ms a step |", "|---" * 6 + "|",
             f"| {args.batch} of {args.batch} | {all_kib / 1024:.0f} | 1.00 | 1.00 | 1.00 | {whole_ms:.0f} |"]
    for part in args.parts:
        kib, ms = least(f"train.micro_batch={part}")
        share, fair = (kib - one) / all_kib, part / args.batch
        table.append(f"| {part} of {args.batch} | {(kib - one) / 1024:.0f} | {share:.2f} | {fair:.2f} | {share / fair:.2f} | {ms:.0f} |")
    kib, ms = least("train.micro_batch=0", "train.recompute=true")
    table.append(f"| {args.batch} of {args.batch}, computed again | {(kib - one) / 1024:.0f} | {(kib - one) / all_kib:.2f} | | | {ms:.0f} |")
    print("\n".join([
        "# Memory of a rank", "",
        f"- date: {datetime.date.today()}",
        f"- command: `python3 launch/bench/memory.py {' '.join(sys.argv[1:])}`",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, shared",
        f"- commit: {sides.output('git', 'rev-parse', '--short', 'HEAD')}", "",
        f"One rank, the network of `{args.config}` on synthetic pictures of {args.side} x {args.side}, {STEPS} steps. The peak resident set of the "
        f"worker, less that with one sample at once ({one / 1024:.0f} MiB).", "", *table]))


def peak(args, settings):
    """The peak resident set in KiB, and the least time of a step."""
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        command = [args.worker, "train", "--config", args.config, "--run-dir", run]
        for setting in ["data.kind=synthetic", f"train.steps={STEPS}", f"train.global_batch={args.batch}", "eval.every=0",
                        "metrics.every=1", "metrics.images_every=0", "checkpoint.every=0", "train.threads=1",
                        "data.prefetch=1", "data.threads=1", "schedule.warmup_steps=0", f"data.synthetic.height={args.side}",
                        f"data.synthetic.width={args.side}", f"data.synthetic.channels={args.channels}", *settings]:
            command += ["--set", setting]
        # Freed memory goes back at once, so that a peak is one of what was in use.
        environment = dict(os.environ, MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="65536", MALLOC_ARENA_MAX="1")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"the worker has failed with {status}")
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return usage.ru_maxrss, min(row["step_ms"] for row in rows)


if __name__ == "__main__":
    main()
