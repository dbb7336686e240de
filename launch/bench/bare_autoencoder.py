#!/usr/bin/env python3
"""The reference network as a bare autoencoder: what the convolutions alone cost.

No quantiser, no ranks, no data (one random batch, again and again). speed.py starts one process
for each rank of the real run, side by side, so that they share the machine as ranks do.

    OMP_NUM_THREADS=1 python bare_autoencoder.py --steps 60
    python bare_autoencoder.py --steps 200 --device cuda --bf16

The last line printed is one JSON object with the rate over the steps after the warm-up.
"""
import argparse, contextlib, json, time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Residual(nn.Module):
    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False))

    def forward(self, x):
        return x + self.net(x)


def autoencoder(image_channels: int, channels: int, hidden: int, dim: int) -> nn.Sequential:
    """Encoder and decoder of peer_ddp.py with nothing in between."""
    return nn.Sequential(
        nn.Conv2d(image_channels, channels // 2, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(channels // 2, channels, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
        Residual(channels, hidden), Residual(channels, hidden), nn.ReLU(),
        nn.Conv2d(channels, dim, 1),
        nn.Conv2d(dim, channels, 3, padding=1),
        Residual(channels, hidden), Residual(channels, hidden), nn.ReLU(),
        nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(channels // 2, image_channels, 4, 2, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=0, help="steps left out of the rate")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--bf16", action="store_true", help="under autocast to bfloat16")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    place = {"device": args.device, "memory_format": torch.channels_last}
    model = autoencoder(1, args.channels, 32, args.dim).to(**place)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images = torch.rand(args.batch, 1, 28, 28).to(**place)
    half = torch.autocast(args.device, torch.bfloat16) if args.bf16 else contextlib.nullcontext()
    wait = torch.cuda.synchronize if args.device == "cuda" else (lambda: None)
    for step in range(args.steps):
        if step == args.warmup:
            wait()
            start = time.perf_counter()
        with half:
            loss = F.mse_loss(model(images).float(), images)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    wait()
    rate = args.batch * (args.steps - args.warmup) / (time.perf_counter() - start)
    print(json.dumps({"loss": loss.item(), "images_per_s": round(rate, 1)}))


if __name__ == "__main__":
    main()
