#!/usr/bin/env python3
"""The peer of networks.py: the same networks in PyTorch DDP with vector-quantize-pytorch, on drawn pictures in memory.

    torchrun --standalone --nproc-per-node 2 peer_networks.py --net unet2d --steps 40 --batch 16

Blocks are those of their sources: taming-transformers' ResnetBlock and AttnBlock, torch's TransformerEncoderLayer, rosinality's
VQ-VAE-2. Channels last in memory, as is fastest; --bf16 is autocast, and the optimiser is fused on a GPU. Prints one JSON object.
"""
import argparse, json, os, time

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel as DDP
from vector_quantize_pytorch import VectorQuantize

SIDE = 64


class Residual(nn.Module):
    def __init__(self, ch, hidden, bias=False):
        super().__init__()
        self.net = nn.Sequential(nn.ReLU(), nn.Conv2d(ch, hidden, 3, padding=1, bias=bias), nn.ReLU(),
                                 nn.Conv2d(hidden, ch, 1, bias=bias))

    def forward(self, x):
        return x + self.net(x)


def residuals(ch, hidden=32, bias=False):
    return [Residual(ch, hidden, bias) for _ in range(2)] + [nn.ReLU()]


def quantizer(dim, codes=512):
    return VectorQuantize(dim=dim, codebook_size=codes, decay=0.95, commitment_weight=0.25, kmeans_init=False,
                          threshold_ema_dead_code=0)


def quantize_map(vq, z):
    """Over a map `[N, D, H, W]`."""
    n, d, h, w = z.shape
    q, _, loss = vq(z.permute(0, 2, 3, 1).reshape(n, h * w, d))
    return q.view(n, h, w, d).permute(0, 3, 1, 2), loss.sum()


class Conv2d(nn.Module):
    def __init__(self, ch=64, dim=64):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, ch // 2, 4, 2, 1), nn.ReLU(), nn.Conv2d(ch // 2, ch, 4, 2, 1), nn.ReLU(),
                                     nn.Conv2d(ch, ch, 3, padding=1), *residuals(ch), nn.Conv2d(ch, dim, 1))
        self.vq = quantizer(dim)
        self.decoder = nn.Sequential(nn.Conv2d(dim, ch, 3, padding=1), *residuals(ch), nn.ConvTranspose2d(ch, ch // 2, 4, 2, 1),
                                     nn.ReLU(), nn.ConvTranspose2d(ch // 2, 3, 4, 2, 1))

    def forward(self, x):
        q, loss = quantize_map(self.vq, self.encoder(x))
        return self.decoder(q), loss


class ResBlock(nn.Module):
    def __init__(self, a, b, groups):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, a, 1e-6), nn.Conv2d(a, b, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, b, 1e-6), nn.Conv2d(b, b, 3, padding=1)
        self.shortcut = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    def __init__(self, ch, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, ch, 1e-6)
        self.q, self.k, self.v, self.out = (nn.Conv2d(ch, ch, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2).unsqueeze(1) for layer in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(seen.squeeze(1).transpose(1, 2).reshape_as(x))


class Down(nn.Module):
    def __init__(self, ch):
        super().__init__()
        self.conv = nn.Conv2d(ch, ch, 3, 2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class UNet2d(nn.Module):
    def __init__(self, multipliers, attention, ch=16, groups=4, z=64, dim=64):
        super().__init__()
        widths = [ch * m for m in multipliers]
        middle = lambda: [ResBlock(widths[-1], widths[-1], groups), *([Attention(widths[-1], groups)] if attention else []),
                          ResBlock(widths[-1], widths[-1], groups)]
        end = lambda a, b: [nn.GroupNorm(groups, a, 1e-6), nn.SiLU(), nn.Conv2d(a, b, 3, padding=1)]
        layers, a = [nn.Conv2d(3, ch, 3, padding=1)], ch
        for i, b in enumerate(widths):
            layers += [ResBlock(a, b, groups)] + ([Down(b)] if i + 1 < len(widths) else [])
            a = b
        self.encoder = nn.Sequential(*layers, *middle(), *end(a, z), nn.Conv2d(z, dim, 1))
        self.vq = quantizer(dim)
        layers = [nn.Conv2d(dim, z, 1), nn.Conv2d(z, a, 3, padding=1), *middle()]
        for i, b in reversed(list(enumerate(widths))):
            layers += [ResBlock(a, b, groups), ResBlock(b, b, groups)]
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(b, b, 3, padding=1)] if i else []
            a = b
        self.decoder = nn.Sequential(*layers, *end(a, 3))

    def forward(self, x):
        q, loss = quantize_map(self.vq, self.encoder(x))
        return self.decoder(q), loss


class Hierarchy(nn.Module):
    def __init__(self, ch=64, dim=64):
        super().__init__()
        res = lambda: residuals(ch, bias=True)
        self.enc_b = nn.Sequential(nn.Conv2d(3, ch // 2, 4, 2, 1), nn.ReLU(), nn.Conv2d(ch // 2, ch, 4, 2, 1), nn.ReLU(),
                                   nn.Conv2d(ch, ch, 3, padding=1), *res())
        self.enc_t = nn.Sequential(nn.Conv2d(ch, ch // 2, 4, 2, 1), nn.ReLU(), nn.Conv2d(ch // 2, ch, 3, padding=1), *res(),
                                   nn.Conv2d(ch, dim, 1))
        self.vq_t, self.vq_b = quantizer(dim, 256), quantizer(dim)
        self.dec_t = nn.Sequential(nn.Conv2d(dim, ch, 3, padding=1), *res(), nn.ConvTranspose2d(ch, dim, 4, 2, 1))
        self.merge, self.up = nn.Conv2d(dim + ch, dim, 1), nn.ConvTranspose2d(dim, dim, 4, 2, 1)
        self.dec = nn.Sequential(nn.Conv2d(2 * dim, ch, 3, padding=1), *res(), nn.ConvTranspose2d(ch, ch // 2, 4, 2, 1), nn.ReLU(),
                                 nn.ConvTranspose2d(ch // 2, 3, 4, 2, 1))

    def forward(self, x):
        b = self.enc_b(x)
        q_t, loss_t = quantize_map(self.vq_t, self.enc_t(b))
        q_b, loss_b = quantize_map(self.vq_b, self.merge(torch.cat([self.dec_t(q_t), b], 1)))
        return self.dec(torch.cat([self.up(q_t), q_b], 1)), loss_t + loss_b


class Vit(nn.Module):
    """With latent tokens, or with one latent a patch."""

    def __init__(self, patch, width, layers, heads, tokens, dim):
        super().__init__()
        self.patch, self.tokens, num = patch, tokens, (SIDE // patch) ** 2
        blocks = lambda: nn.Sequential(*(nn.TransformerEncoderLayer(width, heads, 4 * width, 0, "gelu", batch_first=True,
                                                                     norm_first=True) for _ in range(layers)))
        vector = lambda *shape: nn.Parameter(torch.randn(*shape) / width**0.5)
        extra = 1 if tokens else 0
        self.embed, self.enc, self.dec = nn.Conv2d(3, width, patch, patch), blocks(), blocks()
        self.enc_pos, self.dec_pos = vector(num + extra, width), vector(num + extra, width)
        self.pre, self.post, self.dec_pre, self.dec_post = (nn.LayerNorm(width) for _ in range(4))
        self.to_code, self.from_code = nn.Linear(width, dim), nn.Linear(dim, width)
        if tokens:
            self.cls, self.dec_cls, self.mask = vector(1, 1, width), vector(1, 1, width), vector(1, 1, width)
            self.latents, self.latent_pos, self.dec_latent_pos = (vector(tokens, width) for _ in range(3))
        self.vq = quantizer(dim)
        self.ffn, self.out = nn.Linear(width, patch * patch * 3), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        n, p, g = len(x), self.patch, SIDE // self.patch
        h = self.embed(x).flatten(2).transpose(1, 2)
        if self.tokens:
            h = torch.cat([self.cls.expand(n, -1, -1), h], 1) + self.enc_pos
            h = torch.cat([h, (self.latents + self.latent_pos).expand(n, -1, -1)], 1)
            z = self.post(self.enc(self.pre(h))[:, -self.tokens:])
        else:
            z = self.post(self.enc(self.pre(h + self.enc_pos)))
        q, _, loss = self.vq(self.to_code(z))
        h = self.from_code(q)
        if self.tokens:
            pictures = torch.cat([self.dec_cls.expand(n, -1, -1), self.mask.expand(n, g * g, -1)], 1) + self.dec_pos
            h = self.dec(self.dec_pre(torch.cat([pictures, h + self.dec_latent_pos], 1)))[:, 1:1 + g * g]
        else:
            h = self.dec(self.dec_pre(h + self.dec_pos))
        y = self.ffn(self.dec_post(h)).view(n, g, g, p, p, 3).permute(0, 5, 1, 3, 2, 4).reshape(n, 3, SIDE, SIDE)
        return self.out(y), loss.sum()


NETS = {
    "conv2d": Conv2d,
    "unet2d-f4": lambda: UNet2d([1, 2, 2], True),
    "unet2d-f4-plain": lambda: UNet2d([1, 2, 2], False),
    "unet2d-f8": lambda: UNet2d([1, 2, 2, 4], True),
    "hierarchy": Hierarchy,
    "vit": lambda: Vit(4, 96, 3, 3, 0, 64),
    "titok": lambda: Vit(8, 192, 4, 3, 32, 12),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=NETS, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16, help="pictures a step and rank")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--profile", action="store_true", help="print shares of a rank's time by operation instead")
    args = parser.parse_args()
    if args.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            train(args)
        print_shares(profile)
    else:
        train(args)


def print_shares(profile):
    """Shares of a process's time, the largest first."""
    rows = sorted(((row.self_cpu_time_total, row.key) for row in profile.key_averages()), reverse=True)
    whole = sum(time for time, _ in rows)
    for time, key in rows[:20]:
        print(f"{100 * time / whole:5.1f} %  {key}")


def train(args):
    on_gpu = args.device == "cuda"
    dist.init_process_group("nccl" if on_gpu else "gloo")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    model = NETS[args.net]().to(args.device, memory_format=torch.channels_last)
    net = DDP(model)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.99), weight_decay=0, fused=on_gpu)
    bytes_nchw = torch.randint(0, 256, (8 * args.batch, 3, SIDE, SIDE), dtype=torch.uint8)
    recon = torch.zeros([])
    begun = 0.0
    for step in range(args.steps):
        if on_gpu and step == args.steps // 2:
            torch.cuda.synchronize()
            begun = time.perf_counter()
        part = bytes_nchw[step % 8 * args.batch:][:args.batch]
        x = part.to(args.device).float().div_(255).to(memory_format=torch.channels_last)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
            y, commitment = net(x)
            recon = F.mse_loss(y.float(), x)
        optimizer.zero_grad(set_to_none=True)
        (recon + commitment).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    told = {"net": args.net, "parameters": sum(p.numel() for p in model.parameters()), "mse": recon.item()}
    if on_gpu:
        torch.cuda.synchronize()
        told["images_per_s"] = (args.steps - args.steps // 2) * args.batch / (time.perf_counter() - begun)
    dist.barrier()
    if dist.get_rank() == 0:
        print(json.dumps(told), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
