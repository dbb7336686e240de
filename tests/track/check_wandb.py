"""`tessera track --to wandb` with kills, then an unmodified `wandb sync` to a stand-in: every row once.

    python tests/track/check_wandb.py TESSERA [RUN]      (needs wandb==0.31.*)

Without RUN, a run made by arithmetic. RUN is changed in its `track` folder alone.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import kills
import make_run
from wandb_server import StandIn

KEY = "0" * 40


def sync(folder, server):
    environment = dict(os.environ, WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY, WANDB_ERROR_REPORTING="false")
    home = tempfile.mkdtemp()
    environment |= {"HOME": home, "WANDB_SILENT": "false"}
    wandb = pathlib.Path(sys.executable).with_name("wandb")
    begun = time.time()
    done = subprocess.run([wandb, "sync", "--yes", folder.resolve()], cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.time() - begun, done.stdout + done.stderr


def expected(run):
    merged = {}
    for name, part in [("metrics.jsonl", "train"), ("eval.jsonl", "eval")]:
        path = run / name
        for line in path.read_text().splitlines() if path.exists() else []:
            row = json.loads(line)
            merged.setdefault(row["step"], {})[part] = row
    return merged


def check(run, server, steps_sent=None):
    (folder,) = (run / "track" / "wandb").glob("offline-run-*")
    seconds, said = sync(folder, server)
    run_id = folder.name.rsplit("-", 1)[1]
    key = ("tests", run_id)
    rows = server.rows(key)
    wanted = expected(run)
    steps = [row["_step"] for row in rows]
    assert steps == sorted(set(steps)), "a step came twice, or too late"
    pictures = [int(p.stem.split("-")[1]) for shown in ("reconstructions", "samples") for p in (run / shown).glob("*.*")]
    assert steps == sorted(set(wanted) | set(pictures)), (len(steps), len(wanted), said)
    for row in rows:
        for part, source in wanted.get(row["_step"], {}).items():
            for name, value in source.items():
                for prefix in {"train": ("train", "speed", "memory"), "eval": ("eval",)}[part]:
                    if name != "step" and not isinstance(value, list) and f"{prefix}/{name}" in row:
                        found = row[f"{prefix}/{name}"]
                        assert found == ("NaN" if value is None else value), (row["_step"], name, found, value)
                        break
                else:
                    assert name == "step" or isinstance(value, list), (row["_step"], name)
    media = [v for row in rows for v in row.values() if isinstance(v, dict) and "_type" in v]
    for value in media:
        assert len(server.files[f"{run_id}/{value['path']}"]) == value["size"], value
    assert len(media) == len(pictures), (len(media), len(pictures))
    done = json.loads((run / "status.json").read_text())["state"] == "done"
    for path in (run / "model").iterdir() if done and (run / "model").is_dir() else []:
        assert path.is_dir() or len(server.files[f"{run_id}/model/{path.name}"]) == path.stat().st_size, path
    return len(rows), len(media), seconds, key


def main():
    tessera = sys.argv[1]
    server = StandIn()
    work = pathlib.Path(tempfile.mkdtemp())
    command = [tessera, "track", "--to", "wandb", "--project", "tests"]
    quiet = dict(os.environ, RUST_LOG="warn")
    if len(sys.argv) > 2:
        run = pathlib.Path(sys.argv[2])
        shutil.rmtree(run / "track", ignore_errors=True)
        number, _ = kills.until_done([*command, run], quiet, 1, 0.0, 0.05)
        rows, media, seconds, key = check(run, server)
        print(f"{run.name}: {number} kills, {rows} rows and {media} pictures or sounds once, sync {seconds:.1f} s")
        return
    # A run that goes on while it is followed, and resumes from its checkpoint once.
    run = work / "small"
    make_run.write(run, 1000, "running", 700)
    number, _ = kills.until_done([*command, run], quiet, 2, 0.0, 0.05)
    make_run.write(run, 2000, "done", 2000)
    more, _ = kills.until_done([*command, run], quiet, 3, 0.0, 0.05)
    rows, media, seconds, key = check(run, server)
    assert server.configs[key]["train"]["value"]["steps"] == 1000000, server.configs[key]
    assert server.exits[key] == 0 and server.summaries[key]["train/codes_used"] == 2000 % 512
    print(f"small: {number + more} kills, {rows} rows and {media} pictures once, sync {seconds:.1f} s")
    # It was synced, and goes on after its end: the same rows at the same places, and the new ones.
    make_run.write(run, 3000, "done", 3000)
    kills.until_done([*command, run], quiet, 4, 0.0, 0.05)
    for mark in run.glob("track/wandb/*/*.synced"):
        mark.unlink()
    rows, media, seconds, _ = check(run, server)
    print(f"small, once more: {rows} rows and {media} pictures once, sync {seconds:.1f} s")
    run = work / "large"
    make_run.write(run, 1_000_000, "done", 1_000_000)
    begun = time.time()
    number, _ = kills.until_done([*command, run], quiet, 5, 0.02, 0.12)
    tracked = time.time() - begun
    rows, media, seconds, _ = check(run, server)
    print(f"large: {number} kills in {tracked:.1f} s, {rows} rows and {media} pictures once, sync {seconds:.1f} s")
    shutil.rmtree(work)


main()
