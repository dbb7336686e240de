#!/usr/bin/env bash
# From a fresh clone to a trained VQ-VAE: sets up, builds, fetches and packs Fashion-MNIST, trains
# the reference network on two workers for about three minutes, and evaluates it. Stop it when
# you like and run it again: it goes on from the last checkpoint.
#
#   launch/demo.sh
#
# TESSERA_DEMO_STEPS is the length of the training, 600 unless set.
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

code=0
"$tessera" launch --nproc 2 -- train --config configs/fashion_mnist.toml --run-dir "$run" \
  --set "train.steps=$steps" --set "checkpoint.every=$every" --set "eval.every=$every" \
  --set "metrics.images_every=$every" || code=$?
if ((code == 75)); then
  say "stopped; run launch/demo.sh again to go on from the last checkpoint"
  exit "$code"
fi
((code == 0)) || exit "$code"

say "evaluation on the 10,000 test images:"
"$tessera" eval --run "$run"

cat >&2 <<TEXT

The run folder is $PWD/$run:
  config.toml          every setting, and where each came from
  metrics.jsonl        loss, perplexity, images a second, one row every few steps
  tensorboard/         the same for TensorBoard: tensorboard --logdir $run
  reconstructions/     input images, each with its reconstruction below it
  checkpoints/         safetensors; tessera inspect $run/checkpoints/...
  logs/                what each worker logged, as JSON lines
TEXT
