#!/usr/bin/env python3
"""Test error and codebook of bfloat16 training beside those of float32, over several seeds.

    python3 launch/bench/precision.py --peer-python PYTHON --idx DIR

Passes (exit code 0) if the mean test error in bfloat16 is no worse than that in float32 by more
than 2 % or by the spread of float32 over seeds, whichever is larger.
"""
import json, os, statistics, sys, tempfile

import sides

PRECISIONS = ("fp32", "bf16")


def figures(args, precision: str, seed: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        run_dir = os.path.join(folder, "run")
        sides.train_tessera(args, args.steps, run_dir, f"seed={seed}",
                            f"train.precision={precision}", f"checkpoint.every={args.steps}")
        printed, = sides.run(args, [args.tessera, "eval", "--run", run_dir, "--json"])
    return json.loads(printed)


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
    means = {precision: statistics.mean(values) for precision, values in errors.items()}
    spread = max(errors["fp32"]) - min(errors["fp32"])
    allowed = max(0.02 * means["fp32"], spread)
    passed = means["bf16"] <= means["fp32"] + allowed
    lines = [f"Figures on the test split after {args.steps} steps of global batch "
             f"{args.batch * args.ranks}, K = {args.codes}.", "",
             "| precision | seed | MSE | SSIM | perplexity | codes used |", "|---" * 6 + "|"]
    for precision, all in found.items():
        lines += [f"| {precision} | {seed} | {one['mse']:.6f} | {one['ssim']:.4f} | "
                  f"{one['perplexity']:.1f} | {one['codes_used']} |" for seed, one in enumerate(all)]
    lines += ["", f"**{'Passed' if passed else 'Failed'}: the mean error in bf16 is "
              f"{means['bf16'] / means['fp32'] - 1:+.1%} against fp32, allowed are "
              f"+{allowed / means['fp32']:.1%}** (2 % or the spread of fp32 over seeds)."]
    sides.write_report(args, "bf16", "Training in bfloat16 against float32",
                       "\n".join(lines) + "\n")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
