#!/usr/bin/env bash
# From a fresh clone to a trained VQ-VAE and to pictures that nobody has taken: sets up, builds, fetches
# and packs Fashion-MNIST, trains the reference network on two workers for about three minutes, evaluates
# it, encodes all images, trains a prior over their codes for five minutes, and draws samples of it. Stop
# it when you like and run it again: it goes on where it was.
#
#   launch/demo.sh
#
# TESSERA_DEMO_STEPS is the length of the first training, 600 unless set; the prior takes half as many again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./launch/setup.sh
# shellcheck source=launch/env.sh
. launch/env.sh

steps=${TESSERA_DEMO_STEPS:-600}
[[ $steps =~ ^[1-9][0-9]*$ ]] || die "TESSERA_DEMO_STEPS is $steps; it must be a positive number"
every=$(((steps + 2) / 3))
data=data/fashion_mnist
run=runs/demo
tessera=$CARGO_TARGET_DIR/release/tessera

say "build: the first one takes some minutes"
cargo build --release --locked -p tessera-cli -p tessera-worker

if [[ -e $data ]]; then
  "$tessera" data verify "$data" >&2 || die "remove $data and run this again"
else
  input=$(./launch/fetch-fashion-mnist.sh)
  "$tessera" data pack --format idx --input "$input" --out "$data" >&2
fi

# Trains, and ends this script where the training was stopped.
train() {
  local code=0
  "$tessera" launch --nproc 2 -- train "$@" || code=$?
  if ((code == 75)); then
    say "stopped; run launch/demo.sh again to go on from the last checkpoint"
  fi
  ((code == 0)) || exit "$code"
}

train --config configs/fashion_mnist.toml --run-dir "$run" --set "train.steps=$steps" \
  --set "checkpoint.every=$every" --set "eval.every=$every" --set "metrics.images_every=$every"

say "evaluation on the 10,000 test images:"
"$tessera" eval --run "$run"

# Of another length of training these are other codes, and another prior.
tokens=$run/tokens-$steps
prior=$run/prior-$steps
prior_steps=$((steps * 3 / 2))
every=$(((prior_steps + 1) / 2))
# A few steps show that this script works; a part of the images does, too.
part=1.0
((steps >= 100)) || part=0.05
[[ -e $tokens ]] || "$tessera" launch --nproc 2 -- encode --run "$run" --out "$tokens" --set "data.fraction=$part"
train --config configs/fashion_mnist_prior.toml --run-dir "$prior" --set "data.path=$tokens" \
  --set "train.steps=$prior_steps" --set "schedule.warmup_steps=$((prior_steps / 15))" \
  --set "checkpoint.every=$every" --set "eval.every=$prior_steps" --set "metrics.images_every=$every"

say "how likely the codes of test images are, in nats a token, beside what needs no prior:"
"$tessera" eval --run "$prior"
rm -rf "$prior/drawn"
"$tessera" launch --nproc 2 -- sample --run "$prior" --num 100 --guidance 2 --out "$prior/drawn"

cat >&2 <<TEXT

The run folder is $PWD/$run:
  config.toml          every setting, and where each came from
  metrics.jsonl        loss, perplexity, images a second, one row every few steps
  tensorboard/         the same for TensorBoard: tensorboard --logdir $run
  reconstructions/     input images, each with its reconstruction below it
  checkpoints/         safetensors; tessera inspect $run/checkpoints/...
  logs/                what each worker logged, as JSON lines
  model/               the network for use: tessera encode, decode, eval
  tokens-$steps/          codes of all images
  prior-$steps/           the prior's run folder, with the same files

New clothes, a column for each kind: $PWD/$prior/drawn/grid.png
TEXT
