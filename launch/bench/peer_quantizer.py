#!/usr/bin/env python3
# The peer's quantiser that Tessera's is measured against by launch/gpu/check.py. It is kept as it
# was when the comparison was agreed on: a change here changes what all earlier figures mean.
"""The peer's quantiser alone: one training call of vector-quantize-pytorch (assign + EMA update).

    python peer_quantizer.py --n 65536 --codes 8192 --dim 64 [--device cuda] [--compile]

Prints one JSON object: median seconds a call, calls, peak memory where the device reports it.
"""
import argparse, json, statistics, time

import torch
from vector_quantize_pytorch import VectorQuantize

ap = argparse.ArgumentParser()
ap.add_argument("--n", type=int, default=16384, help="latent vectors a call")
ap.add_argument("--codes", type=int, default=8192)
ap.add_argument("--dim", type=int, default=64)
ap.add_argument("--calls", type=int, default=5)
ap.add_argument("--warmup", type=int, default=2)
ap.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
ap.add_argument("--compile", action="store_true")
ap.add_argument("--threads", type=int, default=1)
a = ap.parse_args()

torch.set_num_threads(a.threads)
torch.manual_seed(0)
vq = VectorQuantize(dim=a.dim, codebook_size=a.codes, decay=0.99, commitment_weight=0.25,
                    kmeans_init=False, threshold_ema_dead_code=0).to(a.device).train()
f = torch.compile(vq) if a.compile else vq
sync = torch.cuda.synchronize if a.device == "cuda" else (lambda: None)
times = []
for i in range(a.warmup + a.calls):
    z = torch.randn(1, a.n, a.dim, device=a.device, requires_grad=True)
    sync()
    t = time.perf_counter()
    q, _, loss = f(z)
    (q.sum() + loss.sum()).backward()
    sync()
    if i >= a.warmup:
        times.append(time.perf_counter() - t)
peak = torch.cuda.max_memory_allocated() if a.device == "cuda" else None
print(json.dumps({"peer": "vector-quantize-pytorch", "n": a.n, "codes": a.codes, "dim": a.dim, "device": a.device,
                  "compile": a.compile, "threads": a.threads, "median_s": round(statistics.median(times), 5),
                  "calls": a.calls, "peak_bytes": peak}))
