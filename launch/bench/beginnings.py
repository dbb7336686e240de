#!/usr/bin/env python3
"""How many steps a training saves that begins from another one whose codebook has another size.

    python3 launch/bench/beginnings.py --tessera target/release/tessera

For each seed: a model with 512 codes, and with 1,024 and with 256 codes a training from nothing and one that begins from that
model, with an evaluation every few steps. Told is after how many steps the latter reaches the error that the former ends with.
The last row freezes the encoder, and compares its bytes.
"""
import argparse, datetime, json, os, pathlib, platform, subprocess, sys, tempfile

import sides

CONFIG = sides.ROOT / "configs" / "quantizers" / "ema.toml"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tessera", default="target/release/tessera")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()

    table = ["| seed | codes | from nothing: error after all steps | begun from 512 codes: error after half of them | steps to the "
             "error from nothing |", "|---" * 5 + "|"]
    frozen = []
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for seed in range(args.seeds):
            base = work / f"base-{seed}"
            train(args, base, seed, 512)
            for codes in (1024, 256):
                nothing = train(args, work / f"nothing-{seed}-{codes}", seed, codes)
                begun = train(args, work / f"begun-{seed}-{codes}", seed, codes, f"model.init_from={base}",
                              f"train.steps={args.steps // 2}")
                aim = nothing[args.steps]
                reached = next((step for step, mse in begun.items() if mse <= aim), None)
                table.append(f"| {seed} | {codes} | {aim:.5f} | {begun[args.steps // 2]:.5f} | "
                             f"{reached if reached else 'not reached'} of {args.steps} |")
                print(table[-1], file=sys.stderr, flush=True)
            folder = work / f"frozen-{seed}"
            errors = train(args, folder, seed, 1024, f"model.init_from={base}", "optimizer.groups.encoder.frozen=true",
                           f"train.steps={args.steps // 2}")
            same = encoder(base, args.steps) == encoder(folder, args.steps // 2)
            frozen.append(f"| {seed} | {errors[args.steps // 2]:.5f} | {'yes' if same else 'NO'} |")
    print("\n".join([
        "# A training that begins from another, with another number of codes", "",
        f"- date: {datetime.date.today()}",
        f"- command: `python3 launch/bench/beginnings.py --steps {args.steps} --every {args.every} --seeds {args.seeds}`",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, shared",
        f"- commit: {sides.output('git', 'rev-parse', '--short', 'HEAD')}", "",
        f"`configs/quantizers/ema.toml`, two ranks, {args.steps} steps, an evaluation on the 10,000 test pictures every {args.every}; "
        "the error is the mean squared error. What is begun from is a model with 512 codes after as many steps.", "",
        *table, "", "With the encoder frozen, 1,024 codes, half of the steps:", "",
        "| seed | error | the encoder's bytes are those that it began with |", "|---|---|---|", *frozen]))


def train(args, folder, seed, codes, *settings):
    """Trains to the end; the test error after each evaluation."""
    command = [args.tessera, "launch", "--nproc", "2", "--", "train", "--config", CONFIG, "--run-dir", folder]
    for setting in [f"seed={seed}", f"model.quantizer.num_codes={codes}", f"train.steps={args.steps}", "checkpoint.every=0",
                    f"eval.every={args.every}", "metrics.images_every=0", *settings]:
        command += ["--set", setting]
    done = subprocess.run(command, cwd=sides.ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    rows = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    return {row["step"]: row["mse"] for row in rows}


def encoder(run, step):
    """The encoder's tensors in a checkpoint: names and bytes."""
    found = {}
    for path in sorted((run / f"checkpoints/step-{step:08}").glob("*.safetensors")):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8:start]).items():
            if name.startswith("encoder."):
                begin, end = entry["data_offsets"]
                found[name] = data[start + begin:start + end]
    return found


if __name__ == "__main__":
    main()
