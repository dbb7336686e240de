#!/usr/bin/env python3
"""The peer of encode.py: codes of IDX images by the same encoder in PyTorch, read by a DataLoader, written as one array a rank.

    torchrun --standalone --nproc-per-node 2 peer_encode.py --data DIR --out DIR [--limit 6000]
    python peer_encode.py --network

Channels last, evaluation mode, no gradients, distances by one product of matrices. `--network` times encoder and codes alone on
one thread, over the same batch again and again. Weights are random: they change no time.
"""
import argparse, json, os, pathlib, time

import numpy
import torch
import torch.nn as nn
from peer_ddp import Residual, find, read_idx


class Encoder(nn.Module):
    """The network of configs/fashion_mnist_tokenizer.toml, up to its codes."""

    def __init__(self, ch=64, dim=16, codes=256):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, ch // 2, 4, 2, 1), nn.ReLU(), nn.Conv2d(ch // 2, ch, 4, 2, 1), nn.ReLU(),
                                 nn.Conv2d(ch, ch, 3, padding=1), Residual(ch, 32), Residual(ch, 32), nn.ReLU(), nn.Conv2d(ch, dim, 1))
        self.register_buffer("codebook", torch.randn(codes, dim))

    def forward(self, x):
        z = self.net(x).permute(0, 2, 3, 1).reshape(-1, self.codebook.shape[1])
        return torch.addmm(self.codebook.square().sum(1), z, self.codebook.t(), alpha=-2).argmin(1).view(len(x), -1)


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, at):
        return self.images[at].float().div(255)


@torch.inference_mode()
def encode(args):
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    torch.set_num_threads(1)
    model = Encoder().eval().to(memory_format=torch.channels_last)
    images = read_idx(find(args.data, "train-images-idx3-ubyte"))[:args.limit][rank::world]
    loader = torch.utils.data.DataLoader(Images(images), args.batch, num_workers=args.workers)
    codes = [model(x.to(memory_format=torch.channels_last)).to(torch.uint8) for x in loader]
    args.out.mkdir(parents=True, exist_ok=True)
    numpy.save(args.out / f"codes-{rank}.npy", torch.cat(codes).numpy())


@torch.inference_mode()
def network(args):
    torch.set_num_threads(1)
    model = Encoder().eval().to(memory_format=torch.channels_last)
    x = torch.rand(args.batch, 1, 28, 28).to(memory_format=torch.channels_last)
    times = []
    for call in range(args.calls + 2):
        begun = time.perf_counter()
        for _ in range(1024 // args.batch):
            model(x).to(torch.int32)
        times.append(time.perf_counter() - begun)
    print(json.dumps({"batch": args.batch, "samples_per_second": 1024 / sorted(times[2:])[args.calls // 2]}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--limit", type=int, default=60000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--calls", type=int, default=9)
    args = parser.parse_args()
    network(args) if args.network else encode(args)


if __name__ == "__main__":
    main()
