#!/usr/bin/env python3
"""A training step of each network for pictures of 64 x 64 against the same network in PyTorch DDP, in turn.

    python3 launch/bench/networks.py --peer-python PYTHON

PYTHON has torch 2.11 and vector-quantize-pytorch 1.32. Two ranks with a thread each, 16 pictures a rank, the squared error, AdamW,
channels last. A sample is the wall time of a long run less that of a short one, as separate processes, so that starts fall out.
"""
import argparse, datetime, os, pathlib, platform, statistics, subprocess, sys, tempfile, time

import sides

PHOTOS, HIERARCHY, TITOK = (f"configs/{name}.toml" for name in ("photos_64", "photos_hierarchy", "titok_64"))
NETS = {
    "conv2d": (PHOTOS, ['model.backbone={kind="conv2d",channels=64,residual_layers=2,residual_channels=32}']),
    "unet2d-f4": (PHOTOS, []),
    "unet2d-f4-plain": (PHOTOS, ["model.backbone.middle_attention=false"]),
    "unet2d-f8": (PHOTOS, ["model.backbone.multipliers=[1,2,2,4]"]),
    "hierarchy": (HIERARCHY, []),
    "vit": (PHOTOS, ['model.backbone={kind="vit",patch=4,width=96,layers=3,heads=3}']),
    "titok": (TITOK, []),
}
RANKS, BATCH = 2, 16


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--tessera", default="target/release/tessera")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", type=int, default=5)
    parser.add_argument("--long", type=int, default=25)
    args = parser.parse_args()
    rows = []
    for net in args.nets:
        for precision in args.precisions:
            rows.append(row(args, net, precision))
            print(rows[-1], file=sys.stderr, flush=True)
    print("\n".join([
        f"- date: {datetime.date.today()}",
        f"- command: `python3 launch/bench/networks.py {' '.join(sys.argv[1:])}`",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, shared, {RANKS} ranks of one thread, {BATCH} pictures each",
        f"- commit: {sides.output('git', 'rev-parse', '--short', 'HEAD')}", "",
        "| network | precision | Tessera, ms a step | PyTorch DDP, ms a step | PyTorch / Tessera, median of rounds | least, most |",
        "|---|---|---|---|---|---|", *rows]))


def row(args, net, precision):
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(step_ms(args, lambda steps: tessera(args, net, precision, steps)))
        theirs.append(step_ms(args, lambda steps: peer(args, net, precision, steps)))
    ratios = sorted(there / here for here, there in zip(ours, theirs))
    return (f"| {net} | {precision} | {statistics.median(ours):.0f} | {statistics.median(theirs):.0f} | "
            f"**{statistics.median(ratios):.2f}** | {ratios[0]:.2f}, {ratios[-1]:.2f} |")


def step_ms(args, run):
    return (run(args.long) - run(args.short)) * 1e3 / (args.long - args.short)


def tessera(args, net, precision, steps):
    config, settings = NETS[net]
    with tempfile.TemporaryDirectory() as folder:
        command = [args.tessera, "launch", "--nproc", RANKS, "--", "train", "--config", config, "--run-dir", f"{folder}/run"]
        for setting in [*settings, "data.kind=synthetic", "data.synthetic.height=64", "data.synthetic.width=64",
                        "data.synthetic.channels=3", f"train.steps={steps}", f"train.global_batch={RANKS * BATCH}",
                        f"train.precision={precision}", "train.threads=1", "eval.every=0", "checkpoint.every=0",
                        "metrics.images_every=0", "schedule.warmup_steps=0", "model.quantizer.replace_every=0"]:
            command += ["--set", setting]
        return timed(command, {})


def peer(args, net, precision, steps):
    command = [args.peer_python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", RANKS,
               sides.HERE / "peer_networks.py", "--net", net, "--steps", steps, "--batch", BATCH]
    return timed(command + (["--bf16"] if precision == "bf16" else []), {"OMP_NUM_THREADS": "1"})


def timed(command, variables):
    begun = time.perf_counter()
    done = subprocess.run([str(part) for part in command], cwd=sides.ROOT, env=os.environ | variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} has ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
