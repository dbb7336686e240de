#!/usr/bin/env python3
"""The same steps by PyTorch and vector-quantize-pytorch, from our checkpoint, on our samples.

    tessera train --config configs/fashion_mnist.toml --run-dir RUN --set train.stop_at=1 \
        --set metrics.every=1        # then again without stop_at, to train.steps=N
    python tests/python/peer_parity.py --run RUN --idx DIR [--steps 20]

Loads `step-00000001` of RUN into the peer's network (launch/bench/peer_ddp.py), its codebook and
its Adam, goes on with the samples of steps 2 to N in one process, and prints both losses a step.
Needs torch, numpy, safetensors, vector-quantize-pytorch 1.32.
"""
import argparse, json, pathlib, sys

import torch
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "launch" / "bench"), str(ROOT / "crates" / "tessera-data" / "tests")]
from peer_ddp import VqVae, find, read_idx  # noqa: E402
from sampler_reference import sample_at  # noqa: E402

NAMES = {"encoder.down1": "encoder.0", "encoder.down2": "encoder.2", "encoder.conv": "encoder.4",
         "encoder.residual.0.conv1": "encoder.5.net.1", "encoder.residual.0.conv2": "encoder.5.net.3",
         "encoder.residual.1.conv1": "encoder.6.net.1", "encoder.residual.1.conv2": "encoder.6.net.3",
         "encoder.to_code": "encoder.8", "decoder.conv": "decoder.0",
         "decoder.residual.0.conv1": "decoder.1.net.1", "decoder.residual.0.conv2": "decoder.1.net.3",
         "decoder.residual.1.conv1": "decoder.2.net.1", "decoder.residual.1.conv2": "decoder.2.net.3",
         "decoder.up1": "decoder.4", "decoder.up2": "decoder.6"}

ap = argparse.ArgumentParser()
ap.add_argument("--run", type=pathlib.Path, required=True)
ap.add_argument("--idx", type=pathlib.Path, required=True)
ap.add_argument("--steps", type=int, default=20)
a = ap.parse_args()

folder = a.run / "checkpoints" / "step-00000001"
manifest = json.loads((folder / "manifest.json").read_text())
config = manifest["config"]
state = {}
for entry in manifest["files"]:
    state.update(load_file(folder / entry["name"]))

net = VqVae(1, 128, 2, 32, 64, config["model"]["quantizer"]["num_codes"], 0.99, 0.25)
net.vq._codebook.embed.data.copy_(state["quantizer.codebook"][None])
net.vq._codebook.embed_avg.data.copy_(state["quantizer.ema_sums"][None])
net.vq._codebook.cluster_size.data.copy_(state["quantizer.ema_counts"][None])
if config["model"]["quantizer"]["gradient"] == "straight_through":
    net.vq.rotation_trick = False
optimizer = torch.optim.Adam(net.parameters(), lr=config["optimizer"]["learning_rate"])
peers = dict(net.named_parameters())
for ours, theirs in NAMES.items():
    for part in ("weight", "bias"):
        name = f"{ours}.{part}"
        if name in state:
            parameter = peers[f"{theirs}.{part}"]
            parameter.data.copy_(state[name])
            optimizer.state[parameter] = {
                "step": torch.tensor(1.0), "exp_avg": state[f"optimizer.exp_avg.{name}"].clone(),
                "exp_avg_sq": state[f"optimizer.exp_avg_sq.{name}"].clone()}

train = read_idx(find(a.idx, "train-images-idx3-ubyte"))
rows = {row["step"]: row for row in map(json.loads, (a.run / "metrics.jsonl").open())}
batch = config["train"]["global_batch"]
for step in range(1, a.steps):
    ids = [sample_at(config["seed"], len(train), index)
           for index in range(step * batch, (step + 1) * batch)]
    x = train[ids].float() / 255
    y, indices, commit = net(x)
    recon = torch.nn.functional.mse_loss(y, x)
    optimizer.zero_grad()
    (recon + commit).backward()
    optimizer.step()
    row = rows[step + 1]
    print(f"step {step + 1:3}  recon {recon.item():.7f} / {row['recon_mse']:.7f}  commitment "
          f"{commit.item():.7f} / {row['quantizer_loss']:.7f}  codes {indices.unique().numel()} / "
          f"{row['codes_used']}", flush=True)
