"""A run folder by arithmetic: `make_run.py DIR STEPS [--upto N]`, a row each 10 steps, an evaluation each 100.

The loss of step s is 1 / s, null in each 7th row; the PSNR of an evaluation is s / 100.
"""

import json
import os
import pathlib
import struct
import sys
import zlib


def loss(step):
    return None if step // 10 % 7 == 0 else 1 / step


def rows(steps):
    return [{"step": s, "loss": loss(s), "codes_used": s % 512, "step_ms": 20.0} for s in range(10, steps + 1, 10)]


def evaluations(steps):
    return [{"step": s, "split": "test", "psnr": s / 100} for s in range(100, steps + 1, 100)]


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + bytes(range(width)) for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def write(folder, steps, state, saved):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in [("metrics.jsonl", rows(steps)), ("eval.jsonl", evaluations(steps))]:
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        (folder / f".{name}").write_text(text)
        os.replace(folder / f".{name}", folder / name)
    (folder / "config.toml").write_text('seed = 7\ntask = "autoencoder"\n[train]\nsteps = 1000000\nempty = ""\n')
    pictures = folder / "reconstructions"
    pictures.mkdir(exist_ok=True)
    for step in (500, 1000):
        if step <= steps:
            (pictures / f"step-{step}.png").write_bytes(png(12, 8))
    if saved:
        (folder / "checkpoints" / f"step-{saved:08}").mkdir(parents=True, exist_ok=True)
    status = {"state": state, "exit_code": None, "step": saved, "world_size": 1, "message": "", "process": None}
    (folder / ".status.json").write_text(json.dumps(status))
    os.replace(folder / ".status.json", folder / "status.json")


if __name__ == "__main__":
    steps = int(sys.argv[2])
    write(sys.argv[1], steps, "done", steps)
