#!/usr/bin/env python3
"""What a classifier finds in pixels, and a linear probe in pixels, latents and codes, with few labels and with all.

    python3 launch/bench/probes.py --tessera target/release/tessera

Trains configs/fashion_mnist_classifier.toml as it is, then configs/fashion_mnist.toml for some steps, and on it a linear head for
each kind of features and each part of the labels.
"""
import argparse, datetime, json, os, pathlib, platform, subprocess, sys, tempfile, time

import sides


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tessera", default="target/release/tessera")
    parser.add_argument("--model-steps", type=int, default=600)
    parser.add_argument("--probe-steps", type=int, default=300)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.01, 0.1, 1.0])
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        begun = time.monotonic()
        best = max(train(args, "fashion_mnist_classifier", work / "classifier"), key=lambda row: row["accuracy"])
        minutes = (time.monotonic() - begun) / 60
        model = train(args, "fashion_mnist", work / "model", f"train.steps={args.model_steps}",
                      f"eval.every={args.model_steps}", "checkpoint.every=0", "metrics.images_every=0")[-1]
        table = ["| features | " + " | ".join(f"{fraction:.0%} of the labels" for fraction in args.fractions) + " |",
                 "|---" * (1 + len(args.fractions)) + "|"]
        for features in ("pixels", "latents", "codes"):
            cells = []
            for fraction in args.fractions:
                found = train(args, "fashion_mnist_probe", work / f"{features}-{fraction}", f"probe.features={features}",
                              f"model.init_from={'' if features == 'pixels' else work / 'model'}", f"data.fraction={fraction}",
                              f"train.steps={args.probe_steps}", f"eval.every={args.probe_steps}")[-1]
                cells.append(f"{found['accuracy']:.4f} ({found['calibration_error']:.3f})")
                print(features, fraction, cells[-1], file=sys.stderr, flush=True)
            table.append(f"| {features} | " + " | ".join(cells) + " |")
    print("\n".join([
        "# Classes from pixels, latents and codes", "",
        f"- date: {datetime.date.today()}",
        f"- command: `python3 launch/bench/probes.py --model-steps {args.model_steps} --probe-steps {args.probe_steps}`",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, shared; two workers",
        f"- commit: {sides.output('git', 'rev-parse', '--short', 'HEAD')}", "",
        f"`configs/fashion_mnist_classifier.toml`, from pixels: accuracy {best['accuracy']:.4f} on the 10,000 test pictures after "
        f"{best['step']} steps, calibration error {best['calibration_error']:.3f}; all of it took {minutes:.1f} minutes, start and "
        "evaluations included.", "",
        f"Linear heads, {args.probe_steps} steps of 256 samples, one seed: accuracy, and in brackets the calibration error. The model is "
        f"`configs/fashion_mnist.toml` after {args.model_steps} steps (test error {model['mse']:.5f}, {model['codes_used']} codes used); its "
        "latents are 49 vectors of 64 channels, codes are what its quantiser makes of them.", "", *table]))


def train(args, name, folder, *settings):
    """Trains to the end; the rows of its evaluations."""
    command = [args.tessera, "launch", "--nproc", "2", "--", "train", "--config", f"configs/{name}.toml", "--run-dir", folder]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, cwd=sides.ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    main()
