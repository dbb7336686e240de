#!/usr/bin/env python3
# The peer that Tessera is measured against by speed.py and quality.py. It is kept as it was when
# the comparison was agreed on: a change here changes what all earlier figures mean.
"""The peer: PyTorch DDP + vector-quantize-pytorch on the reference workload.

What a user would reach for instead of this project. The network, optimiser,
batch and step counts are those of the reference workload, so throughput and
reconstruction error can be compared side by side on one machine:

    torchrun --standalone --nproc-per-node 2 train_ddp.py --data DIR --steps 400

DIR holds the four Fashion-MNIST IDX files (gzip or plain). The last line
printed is one JSON object with the figures.
"""
import argparse, gzip, json, os, pathlib, struct, time

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel as DDP
from vector_quantize_pytorch import VectorQuantize


def read_idx(path: pathlib.Path) -> torch.Tensor:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as f:
        _, n, h, w = struct.unpack(">IIII", f.read(16))
        return torch.frombuffer(bytearray(f.read()), dtype=torch.uint8).view(n, 1, h, w)


def find(data: pathlib.Path, stem: str) -> pathlib.Path:
    for p in sorted(data.rglob(stem + "*")):
        return p
    raise SystemExit(f"{stem} not found under {data}")


class Residual(nn.Module):
    def __init__(self, ch: int, hidden: int):
        super().__init__()
        self.net = nn.Sequential(nn.ReLU(), nn.Conv2d(ch, hidden, 3, padding=1, bias=False),
                                 nn.ReLU(), nn.Conv2d(hidden, ch, 1, bias=False))

    def forward(self, x):
        return x + self.net(x)


class VqVae(nn.Module):
    def __init__(self, ch_in: int, ch: int, res_layers: int, res_hidden: int, dim: int, codes: int,
                 decay: float, beta: float):
        super().__init__()
        res = lambda: [Residual(ch, res_hidden) for _ in range(res_layers)]
        self.encoder = nn.Sequential(
            nn.Conv2d(ch_in, ch // 2, 4, 2, 1), nn.ReLU(), nn.Conv2d(ch // 2, ch, 4, 2, 1), nn.ReLU(),
            nn.Conv2d(ch, ch, 3, padding=1), *res(), nn.ReLU(), nn.Conv2d(ch, dim, 1))
        self.vq = VectorQuantize(dim=dim, codebook_size=codes, decay=decay, commitment_weight=beta,
                                 accept_image_fmap=True, kmeans_init=False, threshold_ema_dead_code=0)
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, ch, 3, padding=1), *res(), nn.ReLU(),
            nn.ConvTranspose2d(ch, ch // 2, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(ch // 2, ch_in, 4, 2, 1))

    def forward(self, x):
        zq, idx, commit = self.vq(self.encoder(x))
        return self.decoder(zq), idx, commit.sum()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--data", type=pathlib.Path, required=True)
    ap.add_argument("--steps", type=int, default=400)
    ap.add_argument("--warmup", type=int, default=20, help="steps left out of the throughput figure")
    ap.add_argument("--batch", type=int, default=128, help="images per rank and step")
    ap.add_argument("--codes", type=int, default=512)
    ap.add_argument("--dim", type=int, default=64)
    ap.add_argument("--channels", type=int, default=128)
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--decay", type=float, default=0.99)
    ap.add_argument("--beta", type=float, default=0.25)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--channels-last", action="store_true")
    ap.add_argument("--compile", action="store_true")
    ap.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    ap.add_argument("--bf16", action="store_true")
    a = ap.parse_args()

    dist.init_process_group("nccl" if a.device == "cuda" else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(a.seed)
    dev = torch.device(a.device, int(os.environ.get("LOCAL_RANK", 0))) if a.device == "cuda" else torch.device("cpu")
    if a.device == "cuda":
        torch.cuda.set_device(dev)
    fmt = torch.channels_last if a.channels_last else torch.contiguous_format
    model = VqVae(1, a.channels, 2, 32, a.dim, a.codes, a.decay, a.beta).to(dev, memory_format=fmt)
    params = sum(p.numel() for p in model.parameters())
    net = DDP(model, device_ids=[dev.index] if dev.type == "cuda" else None)
    if a.compile:
        net = torch.compile(net)
    opt = torch.optim.Adam(model.parameters(), lr=a.lr, fused=dev.type == "cuda" or None)

    train = read_idx(find(a.data, "train-images-idx3-ubyte"))
    test = read_idx(find(a.data, "t10k-images-idx3-ubyte"))
    load = lambda u8: u8.to(dev, non_blocking=True).float().div_(255).to(memory_format=fmt)

    g = torch.Generator().manual_seed(a.seed)
    order, pos, t0, seen = torch.randperm(len(train), generator=g), 0, None, 0
    recon = torch.zeros(())
    amp = torch.autocast(dev.type, torch.bfloat16, enabled=a.bf16)
    for step in range(a.steps):
        if step == a.warmup:
            if dev.type == "cuda":
                torch.cuda.synchronize()
            dist.barrier()
            t0, seen = time.perf_counter(), 0
        if pos + a.batch * world > len(order):
            order, pos = torch.randperm(len(train), generator=g), 0
        mine = order[pos + rank * a.batch: pos + (rank + 1) * a.batch]
        pos += a.batch * world
        x = load(train[mine])
        with amp:
            y, _, commit = net(x)
            recon = F.mse_loss(y.float(), x)
        opt.zero_grad(set_to_none=True)
        (recon + commit).backward()
        opt.step()
        seen += a.batch * world
    if dev.type == "cuda":
        torch.cuda.synchronize()
    dist.barrier()
    rate = seen / (time.perf_counter() - t0)

    model.eval()
    se, count, hist = 0.0, 0, torch.zeros(a.codes)
    with torch.no_grad():
        for i in range(rank * 500, len(test), world * 500):
            x = load(test[i:i + 500])
            y, idx, _ = model(x)
            se += F.mse_loss(y, x, reduction="sum").item()
            count += x.numel()
            hist += torch.bincount(idx.flatten().cpu(), minlength=a.codes).float()
    tot = torch.cat([torch.tensor([se, float(count)]), hist]).to(dev)
    dist.all_reduce(tot)
    p = tot[2:] / tot[2:].sum()
    if rank == 0:
        print(json.dumps({
            "peer": "pytorch-ddp+vector-quantize-pytorch", "torch": torch.__version__, "device": a.device,
            "world": world, "steps": a.steps, "global_batch": a.batch * world, "params": params,
            "codes": a.codes, "dim": a.dim, "channels_last": a.channels_last, "compile": a.compile,
            "bf16": a.bf16, "images_per_s": round(rate, 1), "last_train_mse": recon.item(),
            "test_mse": (tot[0] / tot[1]).item(),
            "test_perplexity": torch.exp(-(p * (p + 1e-10).log()).sum()).item(),
            "codes_used": int((tot[2:] > 0).sum())}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
