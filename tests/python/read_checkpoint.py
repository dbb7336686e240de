"""Prints what Python's safetensors reads from a checkpoint, as one JSON object: the SHA-256 of
each file, and shape, type and sum of each tensor.

usage: read_checkpoint.py CHECKPOINT_DIR
"""

import hashlib
import json
import pathlib
import sys

from safetensors.numpy import load_file

folder = pathlib.Path(sys.argv[1])
manifest = json.loads((folder / "manifest.json").read_text())
report = {"files": {}, "tensors": {}}
for entry in manifest["files"]:
    path = folder / entry["name"]
    report["files"][entry["name"]] = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "promised": entry["sha256"],
        "bytes": path.stat().st_size,
        "promised_bytes": entry["bytes"],
    }
    tensors = load_file(path)
    assert sorted(tensors) == sorted(entry["tensors"]), (sorted(tensors), entry["tensors"])
    for name, tensor in tensors.items():
        assert name not in report["tensors"], f"{name} is in two files"
        report["tensors"][name] = {
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype),
            "sum": float(tensor.astype("float64").sum()),
        }
print(json.dumps(report))
