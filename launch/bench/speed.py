#!/usr/bin/env python3
"""Training speed of Tessera, of its peer and of a bare autoencoder, measured in turn.

A sample is the wall time of a long run less that of a short one, as separate processes: start-up,
loading and the evaluation at the end fall out, and nobody's own clock is trusted. Each round takes
one sample of every side, so that a machine that slows down slows all of them. Leave the machine
alone meanwhile.

    python3 launch/bench/speed.py --peer-python PYTHON --idx DIR
    python3 launch/bench/speed.py --peer-python PYTHON --idx DIR --codes 8192 --short 4 --long 16
    python3 launch/bench/speed.py --peer-python PYTHON --idx DIR --bf16
"""
import os, statistics, sys, tempfile, time

import sides


def tessera(args, steps: int, *settings: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sides.train_tessera(args, steps, os.path.join(folder, "run"), *settings)
        return time.perf_counter() - start


def tessera_bf16(args, steps: int) -> float:
    return tessera(args, steps, "train.precision=bf16")


def peer(args, steps: int) -> float:
    return sides.train_peer(args, steps)[1]


def peer_channels_last(args, steps: int) -> float:
    return sides.train_peer(args, steps, "--channels-last")[1]


def peer_bf16(args, steps: int) -> float:
    return sides.train_peer(args, steps, "--bf16")[1]


def peer_bf16_channels_last(args, steps: int) -> float:
    return sides.train_peer(args, steps, "--bf16", "--channels-last")[1]


def bare(args, steps: int) -> float:
    command = [args.peer_python, sides.HERE / "bare_autoencoder.py", "--steps", steps,
               "--batch", args.batch, "--threads", sides.environment(args)["OMP_NUM_THREADS"]]
    start = time.perf_counter()
    sides.run(args, *[command] * args.ranks)
    return time.perf_counter() - start


# Each trains for a number of steps and returns the wall time in seconds.
SIDES = {
    "tessera": tessera,
    "peer": peer,
    "peer --channels-last": peer_channels_last,
    "bare autoencoder": bare,
}
# In bfloat16: ours, and the peer under autocast.
BF16 = {
    "tessera bf16": tessera_bf16,
    "peer --bf16": peer_bf16,
    "peer --bf16 --channels-last": peer_bf16_channels_last,
}


def images_per_second(args, side) -> float:
    seconds = side(args, args.long) - side(args, args.short)
    return args.batch * args.ranks * (args.long - args.short) / seconds


def report(args, rates: dict) -> str:
    lines = [f"K = {args.codes}, global batch {args.batch * args.ranks}, {args.pairs} rounds; images/s "
             f"from the wall time of {args.long} less that of {args.short} steps.", "",
             "| side | median | lower quartile | upper quartile |", "|---|---|---|---|"]
    medians = {}
    for name, values in rates.items():
        lower, medians[name], upper = statistics.quantiles(values, n=4, method="inclusive")
        lines.append(f"| {name} | {medians[name]:.1f} | {lower:.1f} | {upper:.1f} |")
    lines.append("")
    half, half_peers = medians.pop("tessera bf16", None), {
        name: medians.pop(name) for name in list(medians) if name.startswith("peer --bf16")}
    ours = medians.pop("tessera", None)
    alone = medians.pop("bare autoencoder", None)
    if half and ours:
        lines.append(f"**Tessera in bfloat16 / in float32: {half / ours:.2f}x**")
    for word, peers in (("under bfloat16 autocast", half_peers), ("in float32", medians)):
        if half and peers:
            best = max(peers, key=peers.get)
            lines.append(f"**Tessera in bfloat16 / the peer {word} ({best}): "
                         f"{half / peers[best]:.2f}x**")
    if ours and medians:
        best = max(medians, key=medians.get)
        lines.append(f"**Tessera / the peer's best variant ({best}): {ours / medians[best]:.2f}x** "
                     "(ratio of medians)")
    if ours and alone:
        lines.append(f"**Share of {args.ranks} bare autoencoders side by side: {ours / alone:.0%}**")
    lines += ["", "| round | " + " | ".join(rates) + " |", "|---" * (len(rates) + 1) + "|"]
    for index, row in enumerate(zip(*rates.values()), 1):
        lines.append(f"| {index} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = sides.parser(__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8, help="samples of each side, at least 2")
    parser.add_argument("--short", type=int, default=20, help="steps of the short run")
    parser.add_argument("--long", type=int, default=60, help="steps of the long run")
    parser.add_argument("--bf16", action="store_true", help="also in bfloat16")
    parser.add_argument("--sides", nargs="+", choices=[*SIDES, *BF16])
    args = parser.parse_args()
    known = {**SIDES, **BF16} if args.bf16 or args.sides else SIDES
    args.sides = args.sides or list(known)
    if args.pairs < 2 or not 0 < args.short < args.long:
        parser.error("--pairs must be at least 2, and --long more than --short")
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: load {load:.1f}; other work here makes these figures worthless",
              file=sys.stderr)

    rates = {name: [] for name in args.sides}
    for name in args.sides:
        known[name](args, 2)  # so that no side pays for a cold file cache
    for pair in range(args.pairs):
        for name, values in rates.items():
            values.append(images_per_second(args, known[name]))
            print(f"round {pair + 1}/{args.pairs}: {name} {values[-1]:.1f} images/s",
                  file=sys.stderr, flush=True)
    name = f"speed-k{args.codes}" + ("-bf16" if args.bf16 else "")
    title = f"Training speed, K = {args.codes}" + (", in bfloat16 too" if args.bf16 else "")
    sides.write_report(args, name, title,
                       report(args, rates))


if __name__ == "__main__":
    main()
