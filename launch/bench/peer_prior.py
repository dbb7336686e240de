#!/usr/bin/env python3
"""The peer of prior.py: the same transformer over tokens in plain PyTorch, trained with DDP and sampled with a contiguous cache.

    torchrun --standalone --nproc-per-node 2 peer_prior.py train --tokens DIR --steps 900 --seed 0 --out model.pt
    python peer_prior.py sample --model model.pt --num 1000 --batch 64

Pre-norm blocks with RMS norm and SwiGLU without biases, learned positions, a class as first token, a head that begins at zero.
Prints one JSON object.
"""
import argparse, json, math, os, pathlib, time

import numpy
import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel as DDP

KINDS = {"U8": numpy.uint8, "U16": numpy.uint16, "U32": numpy.uint32, "I32": numpy.int32, "I64": numpy.int64, "U64": numpy.uint64}


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:8 + length])
    entries.pop("__metadata__", None)
    body = memoryview(data)[8 + length:]
    return {name: numpy.frombuffer(body[slice(*entry["data_offsets"])], KINDS[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in entries.items()}


def read_split(folder, split):
    """Tokens `[n, T]` of the first variant, all levels after one another, and labels `[n]`."""
    manifest = json.loads((folder / "manifest.json").read_text())
    tokens, labels = [], []
    for shard in manifest["splits"][split]["shards"]:
        tensors = read_safetensors(folder / shard["file"])
        levels = sorted(name for name in tensors if name.startswith("codes."))
        tokens.append(numpy.concatenate([tensors[name][:, 0].astype(numpy.int64) for name in levels], 1))
        labels.append(tensors["label"].astype(numpy.int64))
    return torch.from_numpy(numpy.concatenate(tokens)), torch.from_numpy(numpy.concatenate(labels))


class RmsNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-5)


class Layer(nn.Module):
    def __init__(self, width, heads, hidden, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gates = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def drop(self, x):
        return F.dropout(x, self.dropout, self.training)

    def forward(self, x, cache=None, at=0):
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if cache is not None:
            cache[0][:, :, at:at + length], cache[1][:, :, at:at + length] = k, v
            k, v = cache[0][:, :, :at + length], cache[1][:, :, :at + length]
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + self.drop(self.out(heads.transpose(1, 2).reshape(n, length, width)))
        gate, value = self.gates(self.norm2(x)).chunk(2, -1)
        return x + self.drop(self.down(F.silu(gate) * value))


class Prior(nn.Module):
    def __init__(self, args, codes, length, classes):
        super().__init__()
        self.args, self.codes, self.length, self.classes = args, codes, length, classes
        width = args.width
        hidden = math.ceil(8 * width / 3 / 64) * 64
        self.token = nn.Embedding(codes, width)
        self.of_class = nn.Embedding(classes + 1, width)
        self.position = nn.Parameter(torch.empty(length, width))
        self.layers = nn.ModuleList(Layer(width, args.heads, hidden, args.dropout) for _ in range(args.layers))
        self.norm = RmsNorm(width)
        self.head = nn.Linear(width, codes, bias=False)
        for name, tensor in self.named_parameters():
            if tensor.dim() == 2:
                is_last = name.endswith("out.weight") or name.endswith("down.weight")
                nn.init.normal_(tensor, 0, 0.02 / math.sqrt(2 * args.layers) if is_last else 0.02)
        nn.init.zeros_(self.head.weight)

    def embed(self, inputs):
        return F.dropout(inputs, self.args.dropout, self.training)

    def forward(self, tokens, classes):
        x = torch.cat([self.of_class(classes).unsqueeze(1), self.token(tokens[:, :-1])], 1) + self.position
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))

    def step(self, inputs, caches, at):
        x = inputs.unsqueeze(1) + self.position[at]
        for layer, cache in zip(self.layers, caches):
            x = layer(x, cache, at)
        return self.head(self.norm(x))[:, 0]

    @torch.no_grad()
    def sample(self, classes):
        n, width = len(classes), self.args.width
        shape = (n, self.args.heads, self.length, width // self.args.heads)
        caches = [(self.position.new_empty(shape), self.position.new_empty(shape)) for _ in self.layers]
        inputs, tokens = self.of_class(classes), []
        for at in range(self.length):
            drawn = torch.multinomial(self.step(inputs, caches, at).softmax(-1), 1)[:, 0]
            tokens.append(drawn)
            inputs = self.token(drawn)
        return torch.stack(tokens, 1)


def rate(args, step):
    if step < args.warmup:
        return args.rate * (step + 1) / args.warmup
    part = (step - args.warmup) / max(1, args.steps - args.warmup)
    return args.rate * (args.least + (1 - args.least) * 0.5 * (1 + math.cos(math.pi * part)))


def train(args):
    on_gpu = args.device == "cuda"
    dist.init_process_group("nccl" if on_gpu else "gloo")
    torch.backends.cuda.matmul.allow_tf32 = False
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    tokens, labels = read_split(args.tokens, "train")
    manifest = json.loads((args.tokens / "manifest.json").read_text())
    codes = max(level["num_codes"] for level in manifest["levels"])
    classes = int(labels.max()) + 1
    model = Prior(args, codes, tokens.shape[1], classes).to(args.device)
    torch.manual_seed(args.seed * world + rank + 1)
    decayed = [p for name, p in model.named_parameters() if p.dim() == 2 and name != "position"]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or name == "position"]
    groups = [{"params": decayed, "weight_decay": args.decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.95), fused=True)
    ddp = DDP(model, gradient_as_bucket_view=True)
    order = torch.Generator().manual_seed(args.seed)
    queue = torch.empty(0, dtype=torch.int64)
    part = args.batch // world
    ddp.train()
    times = []
    for step in range(args.steps):
        if on_gpu and step == args.steps // 2:
            torch.cuda.synchronize()
        begun = time.perf_counter()
        if len(queue) < args.batch:
            queue = torch.cat([queue, torch.randperm(len(tokens), generator=order)])
        mine = queue[rank * part:(rank + 1) * part]
        queue = queue[args.batch:]
        x, y = tokens[mine].to(args.device), labels[mine].to(args.device)
        y = torch.where(torch.rand(part, device=args.device) < args.null, classes, y)
        for group in optimizer.param_groups:
            group["lr"] = rate(args, step)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
            loss = F.cross_entropy(ddp(x, y).flatten(0, 1), x.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - begun)
    loss = loss.item()  # waits for a GPU
    times[-1] = time.perf_counter() - begun
    half = times[len(times) // 2:]
    told = {"loss": loss, "sequences_per_s": len(half) * args.batch / sum(half), "parameters": sum(p.numel() for p in model.parameters()),
            "step_ms": 1e3 * sorted(times)[len(times) // 2]}
    if rank == 0:
        if args.evaluate:
            told["nats"] = evaluate(model, args.tokens)
        if args.out:
            keys = ["width", "layers", "heads", "dropout"]
            torch.save({"state": model.state_dict(), "args": {key: getattr(args, key) for key in keys},
                        "codes": codes, "length": tokens.shape[1], "classes": classes}, args.out)
        print(json.dumps(told), flush=True)
    dist.barrier()
    dist.destroy_process_group()


@torch.no_grad()
def evaluate(model, folder):
    model.eval()
    tokens, labels = read_split(folder, "test")
    total = 0.0
    for at in range(0, len(tokens), 500):
        x, y = (part[at:at + 500].to(model.position.device) for part in (tokens, labels))
        total += F.cross_entropy(model(x, y).flatten(0, 1).double(), x.flatten(), reduction="sum").item()
    return total / tokens.numel()


def sample(args):
    torch.set_num_threads(args.threads)
    saved = torch.load(args.model, map_location=args.device)
    for key, value in saved["args"].items():
        setattr(args, key, value)
    model = Prior(args, saved["codes"], saved["length"], saved["classes"]).to(args.device)
    model.load_state_dict(saved["state"])
    model.eval()
    torch.manual_seed(args.seed)
    begun = time.perf_counter()
    made = [model.sample(torch.arange(at, min(at + args.batch, args.num), device=args.device) % saved["classes"]).cpu()
            for at in range(0, args.num, args.batch)]
    seconds = time.perf_counter() - begun
    print(json.dumps({"samples": sum(len(part) for part in made), "seconds": seconds,
                      "tokens_per_second": args.num * saved["length"] / seconds}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "sample"])
    parser.add_argument("--tokens", type=pathlib.Path)
    parser.add_argument("--model")
    parser.add_argument("--out")
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="autocast, of a training")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    for name, kind, default in [("steps", int, 900), ("batch", int, 128), ("seed", int, 0), ("width", int, 128), ("layers", int, 4),
                                ("heads", int, 4), ("dropout", float, 26 / 256), ("null", float, 0.1), ("rate", float, 2e-3),
                                ("least", float, 0.05), ("warmup", int, 60), ("decay", float, 0.05), ("num", int, 1000),
                                ("threads", int, 1)]:
        parser.add_argument(f"--{name}", type=kind, default=default)
    args = parser.parse_args()
    {"train": train, "sample": sample}[args.what](args)


if __name__ == "__main__":
    main()
