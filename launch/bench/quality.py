#!/usr/bin/env python3
"""Test error of Tessera and of its peer after the same number of steps, over several seeds.

    python3 launch/bench/quality.py --peer-python PYTHON --idx DIR

Passes (exit code 0) if our mean is no worse than the peer's by more than 2 % or by the peer's own
spread over seeds, whichever is larger.
"""
import statistics, sys

import sides


def ours(args, seed: int) -> float:
    return sides.evaluate_tessera(args, f"seed={seed}")["mse"]


def peers(args, seed: int) -> float:
    figures, _ = sides.train_peer(args, args.steps, "--seed", seed, "--channels-last")
    return figures["test_mse"]


def main():
    parser = sides.parser(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of each side")
    args = parser.parse_args()

    errors = {"tessera": [], "peer": []}
    for seed in range(args.seeds):
        for name, side in (("tessera", ours), ("peer", peers)):
            errors[name].append(side(args, seed))
            print(f"seed {seed}: {name} test MSE {errors[name][-1]:.6f}", file=sys.stderr, flush=True)

    means = {name: statistics.mean(values) for name, values in errors.items()}
    spreads = {name: max(values) - min(values) for name, values in errors.items()}
    passed, verdict = sides.no_worse("our mean", errors["tessera"], "the peer's", errors["peer"])
    lines = [f"Test MSE after {args.steps} steps of global batch {args.batch * args.ranks}, "
             f"K = {args.codes}.", "",
             "| side | " + " | ".join(f"seed {seed}" for seed in range(args.seeds))
             + " | mean | spread |", "|---" * (args.seeds + 3) + "|"]
    for name, values in errors.items():
        row = [*values, means[name], spreads[name]]
        lines.append(f"| {name} | " + " | ".join(f"{value:.6f}" for value in row) + " |")
    lines += ["", f"{verdict} (2 % or the peer's spread over seeds)."]
    sides.write_report(args, "quality", "Reconstruction error against the peer",
                       "\n".join(lines) + "\n")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
