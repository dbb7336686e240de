#!/usr/bin/env python3
"""Test error and codebook of bfloat16 training beside those of float32, over several seeds.

    python3 launch/bench/precision.py --peer-python PYTHON --idx DIR

Passes (exit code 0) if the mean test error in bfloat16 is no worse than that in float32 by more
than 2 % or by the spread of float32 over seeds, whichever is larger.
"""
import sys

import sides

PRECISIONS = ("fp32", "bf16")


def figures(args, precision: str, seed: int) -> dict:
    return sides.evaluate_tessera(args, f"seed={seed}", f"train.precision={precision}")


def main():
    parser = sides.parser(__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of each precision")
    args = parser.parse_args()

    found = {precision: [] for precision in PRECISIONS}
    for seed in range(args.seeds):
        for precision in PRECISIONS:
            found[precision].append(figures(args, precision, seed))
            print(f"seed {seed}: {precision} {found[precision][-1]}", file=sys.stderr, flush=True)

    errors = {precision: [one["mse"] for one in all] for precision, all in found.items()}
    passed, verdict = sides.no_worse("the mean error in bf16", errors["bf16"],
                                     "fp32", errors["fp32"])
    lines = [f"Figures on the test split after {args.steps} steps of global batch "
             f"{args.batch * args.ranks}, K = {args.codes}.", "",
             "| precision | seed | MSE | SSIM | perplexity | codes used |", "|---" * 6 + "|"]
    for precision, all in found.items():
        lines += [f"| {precision} | {seed} | {one['mse']:.6f} | {one['ssim']:.4f} | "
                  f"{one['perplexity']:.1f} | {one['codes_used']} |" for seed, one in enumerate(all)]
    lines += ["", f"{verdict} (2 % or the spread of fp32 over seeds)."]
    sides.write_report(args, "bf16", "Training in bfloat16 against float32",
                       "\n".join(lines) + "\n")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
