#!/usr/bin/env python3
"""Test error, use of codes and speed of every experiment in configs/quantizers/, in one table.

    python3 launch/bench/quantizers.py --state FILE [--only NAME,...]

Three seeds as the files are, one seed with 8,192 codes, and for each EMA codebook that replaces
dead codes the same without. Results go to FILE (JSON) one by one; the same command goes on where
it was stopped. Speed is measured last, in turns with the plain EMA codebook, over `--rounds` short
runs; leave the machine to it then. Passes (exit code 0) if every EMA codebook with replacement uses
95 % of its codes and is no worse than without replacement.
"""
import argparse, json, os, pathlib, statistics, sys, tempfile

import sides

FOLDER = sides.ROOT / "configs" / "quantizers"
PLAIN = "ema"
# The EMA codebooks that the rules are for: the codebook's own code, no further loss or draw.
FAMILY = ["ema", "ema_rotation", "ema_kmeans", "ema_split", "ema_anchors", "ema_projected",
          "cosine"]
SEEDS = 3
Q = "model.quantizer"
# What makes K 8,192 where that is not `num_codes` of the quantiser itself.
LARGE = {
    "residual": [f"{Q}.num_codes=[8192, 8192, 8192, 8192]"],
    **{name: [f"{Q}.quantizer.num_codes=8192"]
       for name in ("grouped", "heads", "residual_shared", "residual_projected")},
    "grouped_residual": [f"{Q}.quantizer.quantizer.num_codes=8192"],
    **{name: [f"{Q}.levels=[8, 8, 8, 16]"] for name in ("fsq", "fsq_symmetric")},
    "residual_fsq": [f"{Q}.quantizer.levels=[8, 8, 8, 16]"],
    **{name: [f"{Q}.num_bits=13", f"{Q}.group_bits=7"] for name in ("lfq", "bsq")},
    "residual_lfq": [f"{Q}.quantizer.num_bits=13", f"{Q}.quantizer.group_bits=7"],
}


def launch(args, name: str, run_dir: str, *settings: str):
    sides.launch_tessera(args, FOLDER / f"{name}.toml", run_dir, *settings)


def rows(run_dir: str, file: str) -> list:
    return [json.loads(line) for line in open(os.path.join(run_dir, file))]


def figures(args, name: str, *settings: str) -> dict:
    """Trains to the end and returns the figures on the test split."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = os.path.join(folder, "run")
        launch(args, name, run_dir, f"train.steps={args.steps}", f"eval.every={args.steps}",
               *settings)
        found = rows(run_dir, "eval.jsonl")[-1]
        found["codes"] = json.load(open(next(
            pathlib.Path(run_dir).glob("checkpoints/*/manifest.json"))))["config"]["model"]
        return found


def speed(args, name: str, *settings: str) -> float:
    """Images a second of a short run, the first rows left out."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = os.path.join(folder, "run")
        launch(args, name, run_dir, "train.steps=50", "eval.every=0", *settings)
        return statistics.median(row["samples_per_second"] for row in rows(run_dir,
                                                                          "metrics.jsonl")[2:])


class State:
    """Results so far, by key."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.results = json.loads(path.read_text()) if path.exists() else {}

    def get(self, key: str, measure) -> object:
        if key not in self.results:
            print(f"{len(self.results) + 1}: {key}", file=sys.stderr, flush=True)
            self.results[key] = measure()
            partial = self.path.with_suffix(".partial")
            partial.write_text(json.dumps(self.results, indent=1))
            partial.replace(self.path)
        return self.results[key]


def used(found: dict) -> str:
    return " + ".join(map(str, found["level_codes_used"]))


def capacity(found: dict) -> list:
    """Codes of each level, from the configuration that was run."""
    def of(config: dict) -> list:
        kind = config["kind"]
        if kind == "residual":
            part = of(config["quantizer"])
            return config["num_codes"] or part * config["num_quantizers"]
        if kind == "grouped":
            return of(config["quantizer"]) * config["num_groups"]
        if kind == "fsq":
            product = 1
            for level in config["levels"]:
                product *= level
            return [product]
        return [2 ** config["num_bits"]] if kind in ("lfq", "bsq") else [config["num_codes"]]
    return of(found["codes"]["quantizer"])


def table_512(names: list, seeds: dict, speeds: dict) -> list:
    lines = ["| experiment | test MSE, mean (spread) | PSNR | perplexity by level | codes used, "
             "least of the seeds | bits/token | images/s | step time against plain |",
             "|---" * 8 + "|"]
    for name in names:
        found = seeds[name]
        errors = [one["mse"] for one in found]
        mean = lambda key: statistics.mean(one[key] for one in found)
        levels = [statistics.mean(level) for level in zip(*(one["level_perplexity"]
                                                            for one in found))]
        least = min(found, key=lambda one: one["codes_used"])
        fast = speeds.get(name)
        lines.append(
            f"| `{name}` | {statistics.mean(errors):.5f} ({max(errors) - min(errors):.5f}) | "
            f"{mean('psnr'):.2f} dB | {' + '.join(f'{level:.0f}' for level in levels)} | "
            f"{used(least)} of {' + '.join(map(str, capacity(least)))} | "
            f"{mean('bits_per_token'):.2f} | "
            + (f"{fast[0]:.0f} | {fast[1]:.2f} |" if fast else "- | - |"))
    return lines


def table_8192(names: list, large: dict) -> list:
    lines = ["| experiment | test MSE | PSNR | perplexity by level | codes used | bits/token |",
             "|---" * 6 + "|"]
    for name in names:
        one = large[name]
        levels = " + ".join(f"{level:.0f}" for level in one["level_perplexity"])
        lines.append(f"| `{name}` | {one['mse']:.5f} | {one['psnr']:.2f} dB | {levels} | {used(one)} "
                     f"of {' + '.join(map(str, capacity(one)))} | {one['bits_per_token']:.2f} |")
    return lines


def rules(seeds: dict, without: dict) -> tuple[bool, list]:
    """The EMA family against its own replacement."""
    passed = True
    lines = ["| experiment | codes used, least of the seeds | test MSE | without replacement | |",
             "|---" * 5 + "|"]
    for name in (name for name in FAMILY if name in seeds):
        least = min(one["codes_used"] for one in seeds[name])
        share = least / sum(capacity(seeds[name][0]))
        ours, theirs = (statistics.mean(one["mse"] for one in found)
                        for found in (seeds[name], without[name]))
        good = share >= 0.95 and ours <= theirs
        passed &= good
        lines.append(f"| `{name}` | {share:.1%} | {ours:.5f} | {theirs:.5f} | "
                     f"{'passed' if good else 'failed'} |")
    return passed, lines


def main():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", sides.ROOT / "target"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=pathlib.Path, required=True, help="results so far, JSON")
    parser.add_argument("--only", help="names of experiments, with commas between")
    parser.add_argument("--packed", type=pathlib.Path, default=sides.ROOT / "data/fashion_mnist")
    parser.add_argument("--tessera", type=pathlib.Path, default=target / "release" / "tessera")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3, help="short runs for the speed of each")
    parser.add_argument("--results", type=pathlib.Path, default=sides.ROOT / "docs" / "results")
    args = parser.parse_args()
    args.peer_python = "-"  # no peer in this table
    state, names = State(args.state), sorted(path.stem for path in FOLDER.glob("*.toml"))
    if args.only:
        names = [name for name in names if name in args.only.split(",")]

    seeds = {name: [state.get(f"{name} seed {seed}", lambda: figures(args, name, f"seed={seed}"))
                    for seed in range(SEEDS)] for name in names}
    without = {name: [state.get(f"{name} without replacement seed {seed}",
                                lambda: figures(args, name, f"seed={seed}",
                                                f"{Q}.replace_every=0"))
                      for seed in range(SEEDS)] for name in names if name in FAMILY}
    large = {name: state.get(f"{name} large",
                             lambda: figures(args, name, *LARGE.get(name,
                                                                    [f"{Q}.num_codes=8192"])))
             for name in names}
    speeds = {}
    for name in names if args.rounds else []:
        pairs = [state.get(f"{name} speed {turn}", lambda: (speed(args, name), speed(args, PLAIN)))
                 for turn in range(args.rounds)]
        speeds[name] = (statistics.median(own for own, _ in pairs),
                        statistics.median(plain / own for own, plain in pairs))

    passed, verdicts = rules(seeds, without)
    lines = [f"Figures on the test split of Fashion-MNIST after {args.steps} steps of global batch "
             f"256, network of 32 channels, seeds 0 to {SEEDS - 1}. The experiments are the files "
             "of `configs/quantizers/`. Mind the bits a token: several levels or groups have more. "
             "The last column is the median over turns of the plain EMA codebook's speed, measured "
             "next to it, over its own.", "",
             *table_512(names, seeds, speeds), "", "With 8,192 codes a level or group, seed 0:", "",
             *table_8192(names, large), "", "EMA codebooks with replacement of dead codes and "
             "without, means over seeds:", "", *verdicts, "",
             f"**{'Passed' if passed else 'Failed'}: at least 95 % of the codes used, and no worse "
             "than without replacement**"]
    sides.write_report(args, "quantizers", "Every quantiser", "\n".join(lines) + "\n")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
