#!/usr/bin/env python3
"""Networks, losses and critics on photographs: minutes of training, figures on photographs never seen, and contact sheets.

    python3 launch/bench/photos.py networks --out docs/results/photos
    python3 launch/bench/photos.py losses --out docs/results/photos
    python3 launch/bench/photos.py longer --out docs/results/photos

`networks` trains each network on the squared error alone for as many minutes; `losses` goes on from one of them with its encoder
and codes frozen, once for each set of losses; `longer` trains one of them for longer. Steps are those that the minutes have
room for by the time of a few steps of each row, taken one after another before the first training, so that other work beside
the trainings changes no figure. Each training is stopped half way and resumed. Patches are packed as docs/data.md says; the
perceptual network is a small convolutional head that is trained here to tell from a patch which of the photographs it is of.
"""
import argparse, datetime, json, os, pathlib, platform, shutil, subprocess, sys, tempfile, typing

import sides

PHOTOS = "configs/photos_64.toml"
NETWORKS = [
    ("conv2d", PHOTOS, ["model.backbone={kind=\"conv2d\",channels=64,residual_layers=2,residual_channels=32}"]),
    ("unet2d, no attention", PHOTOS, ["model.backbone.middle_attention=false"]),
    ("unet2d, attention", PHOTOS, []),
    ("hierarchy", "configs/photos_hierarchy.toml", []),
    ("vit", PHOTOS, ["model.backbone={kind=\"vit\",patch=4,width=96,layers=3,heads=3}", "optimizer.learning_rate=5e-4"]),
]
# A fifth of the other losses' gradient at the last layer. It learns for an eighth of the steps before it counts (`row`).
CRITIC = ["loss.adversarial=0.2", "adversarial.adaptive=true", "critic.channels=32", "critic.layers=2", "adversarial.lecam=0.01",
          "optimizer.groups.critic.learning_rate=5e-4"]
# About as much as the squared error of what is begun from.
PERCEPTUAL = ["loss.perceptual=0.02", "perceptual.network=probe"]
LOSSES = [("squared error", [], 0), ("squared error", [], 1), ("+ perceptual", PERCEPTUAL, 0), ("+ critic", CRITIC, 0),
          ("+ critic", CRITIC, 1), ("+ both", PERCEPTUAL + CRITIC, 0)]
# The photographs that data.holdout = 0.2 keeps for the evaluation: no network here is trained on them.
HELD_OUT = {"ColorfulCups", "EveningGlow"}
FIGURES = [("PSNR", "psnr", "{:.2f}"), ("SSIM", "ssim", "{:.3f}"), ("MS-SSIM-3", "ms_ssim_3", "{:.3f}"),
           ("Frechet", "frechet", "{:.3f}"), ("precision", "precision", "{:.2f}"), ("coverage", "coverage", "{:.2f}"),
           ("codes", "codes_used", "{:.0f}")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["networks", "losses", "longer"])
    parser.add_argument("--tessera", default="target/release/tessera")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the contact sheets")
    parser.add_argument("--runs", type=pathlib.Path, default=sides.ROOT / "runs" / "photos")
    parser.add_argument("--minutes", type=float, help="of each training")
    parser.add_argument("--only", help="rows whose name holds this")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = {"networks": networks, "losses": losses, "longer": longer}[args.what](args)
    print("\n".join([
        f"- date: {datetime.date.today()}",
        f"- command: `python3 launch/bench/photos.py {' '.join(sys.argv[1:])}`",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, shared, 2 workers",
        f"- commit: {sides.output('git', 'rev-parse', '--short', 'HEAD')}", "",
        "| | seed | parameters | steps of | minutes | " + " | ".join(name for name, *_ in FIGURES) + " |",
        "|---" * (5 + len(FIGURES)) + "|", *rows]))


def networks(args):
    return trained(args, [Row(name, config, settings, 0) for name, config, settings in NETWORKS], 5)


def losses(args):
    base = args.runs / slug("unet2d, attention", 0)
    probe = train_probe(args)
    begun = [f"model.init_from={base}", "optimizer.groups.encoder.frozen=true", "optimizer.groups.quantizer.frozen=true",
             "optimizer.learning_rate=5e-4"]
    rows = []
    for name, settings, seed in LOSSES:
        own = [f"perceptual.path={probe}"] if "perceptual.network=probe" in settings else []
        rows.append(Row(name, PHOTOS, [*begun, *settings, *own], seed, "loss-"))
    return trained(args, rows, 3)


def longer(args):
    name, config, settings = NETWORKS[2]
    return trained(args, [Row(f"{name}, longer", config, settings, 0)], 15)


class Row(typing.NamedTuple):
    """What a row of the table is of."""
    name: str
    config: str
    settings: list
    seed: int
    prefix: str = ""

    def slug(self):
        return self.prefix + slug(self.name, self.seed)

    def set(self):
        return [*self.settings, f"seed={self.seed}"]


def slug(name, seed):
    words = "".join(letter if letter.isalnum() else " " for letter in name).split()
    return "-".join([*words, str(seed)])


def trained(args, rows, minutes):
    """The rows of the table, each trained for the minutes; first all are timed."""
    rows = [row for row in rows if not args.only or args.only in row.name]
    times = [step_ms(args, row) for row in rows]
    return [train_row(args, row, ms, args.minutes or minutes) for row, ms in zip(rows, times)]


def step_ms(args, row):
    with tempfile.TemporaryDirectory() as folder:
        tried = metrics(train(args, row.config, pathlib.Path(folder) / "run", [*row.set(), *ALONE, "train.steps=24"]))
        return min(step["step_ms"] for step in tried)


def train_row(args, row, ms, minutes):
    """Trains for the minutes, with a resume half way; the row of a table. The last picture goes to the folder."""
    settings = row.set()
    steps = max(20, int(minutes * 60e3 / ms) // 10 * 10)
    run = args.runs / row.slug()
    shutil.rmtree(run, ignore_errors=True)
    settings += [f"train.steps={steps}", f"eval.every={steps}", f"metrics.images_every={steps}", f"checkpoint.every={steps}",
                 f"schedule.warmup_steps={max(1, steps // 20)}"]
    if any(setting.startswith("loss.adversarial") for setting in settings):
        settings += [f"adversarial.start={steps // 8}", f"adversarial.warmup_steps={steps // 8}"]
    train(args, row.config, run, [*settings, f"train.stop_at={steps // 2}"], stopped=True)
    train(args, row.config, run, settings)
    figures = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()][-1]
    pictures = sorted((run / "reconstructions").glob("*.png"))
    shutil.copy(pictures[-1], args.out / f"{row.slug()}.png")
    batch = metrics(run)[-1]["samples_seen"] // steps
    cells = [row.name, str(row.seed), f"{count_parameters(args, run):,}", f"{steps} of {batch}", f"{steps * ms / 60e3:.1f}",
             *(form.format(figures[key]) for _, key, form in FIGURES)]
    told = "| " + " | ".join(cells) + " |"
    print(told, file=sys.stderr, flush=True)
    return told


# Nothing but steps.
ALONE = ["eval.every=0", "metrics.images_every=0", "checkpoint.every=0", "metrics.every=4"]


def train(args, config, run, settings, stopped=False):
    command = [args.tessera, "launch", "--nproc", "2", "--", "train", "--config", config, "--run-dir", run]
    for setting in settings:
        command += ["--set", setting]
    code = subprocess.run([str(part) for part in command], cwd=sides.ROOT, stdout=subprocess.DEVNULL).returncode
    if code != (75 if stopped else 0):
        sys.exit(f"{' '.join(map(str, command))} has ended with {code}")
    return run


def train_probe(args):
    """A head that tells which photograph a patch is of."""
    run = args.runs / "probe"
    if (run / "checkpoints").is_dir():
        return run
    photos = sides.output("bash", str(sides.ROOT / "launch" / "fetch-media.sh"), "photos")
    packed = args.runs / "photographs"
    with tempfile.TemporaryDirectory() as folder:
        for photo in sorted(pathlib.Path(photos).iterdir()):
            if photo.stem not in HELD_OUT:
                (pathlib.Path(folder) / photo.stem).mkdir()
                shutil.copy(photo, pathlib.Path(folder) / photo.stem)
        shutil.rmtree(packed, ignore_errors=True)
        pack = [args.tessera, "data", "pack", "--format", "folder", "--input", folder, "--out", packed, "--set", "image.height=64",
                "--set", "image.width=64", "--set", "image.tiles=true", "--set", "holdout=0"]
        subprocess.run([str(part) for part in pack], check=True, stdout=subprocess.DEVNULL)
    settings = ["task=probe", f"data.path={packed}", "data.holdout=0", "probe.features=pixels", "probe.head=conv", "probe.channels=32",
                "probe.stages=4", "train.steps=400", "train.global_batch=64", "eval.every=0", "optimizer.learning_rate=1e-3",
                "checkpoint.every=400", "checkpoint.keep_best=0"]
    return train(args, "configs/fashion_mnist_classifier.toml", run, settings)


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def count_parameters(args, run):
    """Trainable numbers without a critic, as the newest checkpoint tells them."""
    told = json.loads(sides.output(str(args.tessera), "inspect", "--json", str(run)))
    return sum(number for part, number in told["model"]["parameters"].items() if part != "critic")


if __name__ == "__main__":
    main()
