#!/usr/bin/env python3
"""What launch/gpu-check.sh runs: one table and one JSON file of everything that needs a GPU.

Each section stands for itself: one that fails, or for which no time is left, says so in its rows
and the others go on. Nothing is estimated: what was not measured is called that.
"""
import argparse, csv, datetime, json, os, pathlib, platform, random, signal, struct, subprocess, sys, time

import machine
from machine import Failed, Machine, rows

OK, BAD, NONE = "ok", "FAILED", "not measured"


class Table:
    """The rows. Of a dry run, what was done is kept and figures are not: they are a CPU's."""

    def __init__(self, args):
        self.rows, self.dry, self.out = [], args.dry_run, str(args.out.resolve())

    def add(self, check: str, result: str, status: str = OK, **figures):
        if self.dry and status == NONE:
            result, figures = "dry run", {}
        result = result.replace(self.out, "OUT")  # a path of one machine means nothing elsewhere
        self.rows.append({"check": check, "status": status, "result": result, **figures})
        print(f"{status:12} {check}: {result}", file=sys.stderr, flush=True)


def versions(m: Machine, table: Table):
    """What is here, and which NCCL a communicator of one rank comes up with."""
    if m.dry:
        table.add("GPU", "dry run", NONE)
    else:
        query = "--query-gpu=name,driver_version,memory.total"
        table.add("GPU", output("nvidia-smi", query, "--format=csv,noheader") or "no nvidia-smi")
    figures = m.json(1, "bench", "all-reduce", "--floats", 1 << 20, "--device", m.device,
                     "--backend", "nccl", seconds=90)
    table.add("NCCL, 1 rank", f"{figures['carrier']} on {figures['device']}; sum right", figures=figures)


def all_reduce(m: Machine, table: Table):
    """Two ranks on one GPU: right against arithmetic. Their speed says nothing: they share it."""
    figures = m.json(2, "bench", "all-reduce", "--floats", 1 << 20, "--device", m.device,
                     "--backend", "nccl", "--share-gpu", seconds=120)
    table.add("NCCL, 2 ranks on one GPU", "sum of 2^20 floats equals that by arithmetic",
              figures=figures)


def worst(one: list, other: list, key="recon_mse") -> float:
    """Largest relative difference of two runs' rows."""
    if len(one) != len(other) or not one:
        raise Failed(f"{len(one)} rows against {len(other)}")
    return max(abs(a[key] - b[key]) / abs(b[key]) for a, b in zip(one, other))


def losses(m: Machine, table: Table):
    """The same run on the CPU, on a GPU, in two ranks, in bfloat16."""
    short = {"train__steps": 20, "metrics__every": 1, "eval__every": 0, "checkpoint__every": 0}
    cpu = rows(m.train("cpu", 1, device="cpu", **short))
    one = rows(m.train("one", 1, **short))
    two = rows(m.train("two", 2, **short))
    half = rows(m.train("bf16", 1, train__precision="bf16", **short))
    parts = rows(m.train("parts-of-5", 2, train__micro_batch=5, **short))
    # TF32 rounds what goes into a convolution to 10 bits: emulated on a CPU, that moved this loss by 8e-7 to
    # 1.2e-6 of itself, and the order of sums by 1e-7.
    off = worst(one[:1], cpu[:1])
    table.add("fp32 without TF32", f"loss of the first step is off by {off:.1e} of the CPU's (limit 5e-7)",
              NONE if m.dry else OK if off <= 5e-7 else BAD, worst=off)
    # Rounding flips an assignment now and then.
    for name, found, against, limit in [
            ("training, device against CPU", one, cpu, 0.02), ("2 ranks against 1", two, one, 0.02),
            ("micro-batches of 5 against whole parts", parts, two, 0.02), ("bf16 against fp32", half, one, 0.05)]:
        off = worst(found, against)
        table.add(name, f"losses of 20 steps differ by at most {off:.2e} (limit {limit})",
                  OK if off <= limit else BAD, worst=off)


def trainings(m: Machine, table: Table):
    """What can be trained beside the network of the other sections, on the device against the CPU or against itself."""
    short = {"train__steps": 20, "metrics__every": 1, "eval__every": 0, "checkpoint__every": 0}
    groups = {"optimizer__groups__encoder__frozen": "true", "optimizer__groups__quantizer__frozen": "true"}
    plain = rows(m.train("plain", 1, **short))
    again = rows(m.train("computed-again", 1, train__recompute="true", **short))
    off = worst(again, plain)
    table.add("activations computed again", f"losses of 20 steps {'bit for bit' if off == 0 else f'within {off:.1e}'}",
              OK if off <= 0.02 else BAD, worst=off)
    dense = {"model__backbone__kind": "dense", "model__backbone__hidden": 64}
    cpu = rows(m.train("dense-cpu", 1, device="cpu", **dense, **short))
    off = worst(rows(m.train("dense", 2, **dense, **short)), cpu)
    table.add("dense network, 2 ranks against one of the CPU", f"losses of 20 steps differ by at most {off:.2e} (limit 0.02)",
              OK if off <= 0.02 else BAD, worst=off)
    begun = m.train("decoder-alone", 2, **groups, model__init_from=m.work / "plain", train__ema_decay=0.9, **short)
    first, last = rows(begun)[0]["recon_mse"], plain[-1]["recon_mse"]
    off = abs(first - last) / last
    table.add("a decoder alone, begun from another run", f"its first loss is off by {off:.2e} of that run's last (limit 0.2)",
              OK if off <= 0.2 else BAD, worst=off)
    halves(m.work / "halves")
    data = {"task": "probe", "data__kind": "idx", "data__path": m.work / "halves", "optimizer__learning_rate": 0.02,
            "probe__head": "conv", "probe__channels": 4, "probe__stages": 2}
    probe = m.train("probe", 2, **data, **(short | {"eval__every": 20}))
    found = json.loads((probe / "eval.jsonl").read_text().splitlines()[-1])
    table.add("a probe on two classes", f"accuracy {found['accuracy']:.3f} (at least 0.95)",
              OK if found["accuracy"] >= 0.95 else BAD, accuracy=found["accuracy"])


def networks(m: Machine, table: Table):
    """Each network with every loss and a critic: two ranks on the device against one of the CPU; in bfloat16; and how fast."""
    short = {"train__steps": 20, "metrics__every": 1, "eval__every": 20, "checkpoint__every": 0,
             "eval__features__network": "random", "loss__absolute": 0.5, "loss__ssim": 0.1, "loss__ms_ssim": 0.1,
             "loss__perceptual": 0.05, "loss__adversarial": 0.1, "adversarial__adaptive": "true", "adversarial__lecam": 0.01,
             "adversarial__start": 5, "optimizer__clip_grad_norm": 1.0,
             # At the rate of the smoke test rounding alone takes 20 steps of unet2d 0.2 apart.
             "optimizer__learning_rate": 1e-4}
    unet2d = '{kind = "unet2d", channels = 16, multipliers = [1, 2], groups = 4, attention_resolutions = [8]}'
    vit = '{{kind = "vit", patch = 4, width = 32, layers = 2, heads = 2, latent_tokens = {}}}'
    hierarchy = '{kind = "hierarchy", channels = 16, residual_layers = 1, residual_channels = 8}'
    for name, backbone in [("unet2d", unet2d), ("vit", vit.format(0)), ("latent tokens", vit.format(8)), ("hierarchy", hierarchy)]:
        given = short | {"model__backbone": backbone}
        cpu = rows(m.train(f"{name}-cpu", 1, device="cpu", **given))
        run = m.train(name, 2, **given)
        half = rows(m.train(f"{name}-bf16", 1, train__precision="bf16", **given))
        for what, found, limit in [("2 ranks against one of the CPU", rows(run), 0.05), ("bf16 against the CPU", half, 0.1)]:
            off = worst(found, cpu)
            table.add(f"{name} with all losses and a critic, {what}",
                      f"losses of 20 steps differ by at most {off:.2e} (limit {limit})", OK if off <= limit else BAD, worst=off)
        judged = json.loads((run / "eval.jsonl").read_text().splitlines()[-1])
        table.add(f"{name}, features of an evaluation", f"Frechet distance {judged['frechet']:.3f}, a number",
                  OK if judged["frechet"] == judged["frechet"] else BAD)
    for config in ["photos_64", "photos_hierarchy", "titok_64"]:
        for precision in ["fp32", "bf16"]:
            drawn = {"data__kind": "synthetic", "data__synthetic__height": 64, "data__synthetic__width": 64,
                     "data__synthetic__channels": 3, "train__steps": 4 if m.dry else 40, "train__precision": precision,
                     "train__global_batch": 4 if m.dry else 64, "metrics__every": 2, "eval__every": 0, "checkpoint__every": 0,
                     "schedule__warmup_steps": 0}
            found = rows(m.train(f"{config}-{precision}", 1, config=f"configs/{config}.toml", **drawn))
            fastest = max(row["samples_per_second"] for row in found[1:])
            table.add(f"configs/{config}.toml, {precision}", f"{fastest:.0f} images/s", NONE if m.dry else OK, speed=fastest)


def priors(m: Machine, table: Table):
    """From codes to samples: encoded on the device, a prior of each kind on it against the CPU, drawn by one rank and by two."""
    short = {"train__steps": 20, "metrics__every": 1, "eval__every": 0, "checkpoint__every": 0}
    halves(m.work / "two-classes")
    data = {"data__kind": "idx", "data__path": m.work / "two-classes"}
    model = m.train("tokenizer", 1, **data, **short)
    tokens = m.work / "tokens"
    m.run(2, ["encode", "--run", model, "--out", tokens, "--device", m.device])
    network = "{width = 32, layers = 2, heads = 2}"
    for kind in ["autoregressive", "masked"]:
        given = short | {"task": "prior", "data__kind": "tokens", "data__path": tokens, "prior__kind": kind,
                         "prior__network": network}
        cpu = rows(m.train(f"{kind}-cpu", 1, device="cpu", **given))
        run = m.train(kind, 2, **given)
        half = rows(m.train(f"{kind}-bf16", 1, train__precision="bf16", **given))
        for what, found, limit in [("2 ranks against one of the CPU", rows(run), 0.01),
                                   ("bf16 against the CPU", half, 0.05)]:
            off = worst(found, cpu, "nats_per_token")
            table.add(f"{kind} prior, {what}", f"nats of 20 steps differ by at most {off:.2e} (limit {limit})",
                      OK if off <= limit else BAD, worst=off)
        drawn = []
        for ranks in [1, 2]:
            out = m.work / f"{kind}-samples-{ranks}"
            m.run(ranks, ["sample", "--run", run, "--num", 40, "--steps", 4, "--out", out, "--device", m.device])
            drawn.append((out / "tokens.safetensors").read_bytes())
        same = drawn[0] == drawn[1]
        table.add(f"{kind} prior, 40 samples", f"{'the same' if same else 'other'} codes from one rank and from two",
                  OK if same else BAD)


def halves(folder: pathlib.Path):
    """IDX files of two classes: pictures whose upper or lower half is bright."""
    folder.mkdir()
    for name, count in [("train", 512), ("t10k", 64)]:
        bright = lambda image, row: 200 if image % 2 == row // 8 else 20
        pixels = bytes(bright(image, at // 16) + image % 16 for image in range(count) for at in range(256))
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 16, 16) + pixels)
        labels = bytes(image % 2 for image in range(count))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels)


def resume(m: Machine, table: Table):
    long = {"train__steps": 20, "metrics__every": 1, "eval__every": 0, "checkpoint__every": 0}
    whole = rows(m.train("whole", 1, **long))
    folder = m.work / "parts"
    code, said = m.finish(m.start(1, m.training(folder, 1, train__stop_at=10, **long)), 90)
    if code != 75:
        raise Failed(f"a stop at step 10 ended with {code}: {machine.last_words(said)}")
    m.train("parts", 1, resume="auto", **long)
    parts = rows(folder)
    off = worst(parts, whole)
    same = all(a["recon_mse"] == b["recon_mse"] for a, b in zip(parts, whole))
    table.add("resume", f"losses {'bit for bit' if same else f'within {off:.1e}'}",
              OK if off <= 0.02 else BAD, worst=off)


def wait_for_steps(run_dir: pathlib.Path, process, seconds=60):
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if process.poll() is not None:
            return
        path = run_dir / "metrics.jsonl"
        if path.exists() and path.read_text().count("\n") >= 3:
            return
        time.sleep(0.05)


def worker_of(run_dir: pathlib.Path, rank: int):
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        marks = {f"OMPI_COMM_WORLD_RANK={rank}".encode(), f"PMIX_RANK={rank}".encode()}
        if str(run_dir).encode() in command and marks & set(variables):
            if b"mpirun" not in command.split(b"\0")[0]:
                return int(folder.name)
    raise Failed(f"there is no rank {rank}")


def faults(m: Machine, table: Table):
    """A killed and a stopped peer, under the launcher: the other rank leaves, the culprit is named."""
    endless = {"train__steps": 10**6, "metrics__every": 1, "eval__every": 0,
               "checkpoint__every": 0, "comm__timeout_seconds": 8 if m.dry else 20}
    for name, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
        try:
            fault(m, table, name, number, endless)
        except Failed as failure:
            table.add(f"a {name} peer", str(failure), BAD)


def fault(m: Machine, table: Table, name: str, number: int, endless: dict):
    run_dir = m.work / name
    process = m.start_command([m.tessera, "launch", "--nproc", 2, "--silence", 60, "--",
                               *m.training(run_dir, 2, **endless)])
    wait_for_steps(run_dir, process)
    time.sleep(2)  # for a heartbeat of each, which tells where it is
    victim, survivor = worker_of(run_dir, 1), worker_of(run_dir, 0)
    os.kill(victim, number)
    start = time.monotonic()
    while pathlib.Path(f"/proc/{survivor}").exists() and time.monotonic() - start < 60:
        time.sleep(0.05)
    seconds = time.monotonic() - start
    code, said = m.finish(process, 60)
    told = [line for line in said.splitlines() if line.startswith("error")]
    words = machine.last_words("\n".join(told) or said)
    named = any("rank 1" in line for line in told)
    log = run_dir / "logs" / "rank-0.jsonl"
    aborted = log.exists() and "communicator aborted" in log.read_text()
    table.add(f"a {name} peer", f"the other left after {seconds:.1f} s, code {code}, "
              f"{'after' if aborted else 'without'} an abort of NCCL's that returned: {words}",
              OK if named and code in (3, 4) else BAD, seconds=seconds, code=code, aborted=aborted)
    if name == "stopped":
        asked_nccl(log, table)


def asked_nccl(log: pathlib.Path, table: Table):
    """What NCCL's own RAS (2.24 and later) said of the hang, in the log of the rank that waited."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    answers = [line["answer"] for line in lines if "answer" in line]
    words = " / ".join(line.strip() for line in "".join(answers).splitlines() if line.strip())
    table.add("NCCL RAS on a stopped peer", words[-300:] or "no answer in the log of rank 0",
              OK if answers else BAD, answers=answers)


def make_images(m: Machine) -> pathlib.Path:
    """IDX files of random images, for both sides: throughput does not depend on what they show."""
    idx = m.work / "idx"
    if idx.exists():
        return idx
    idx.mkdir()
    for stem, count in (("train", 60000), ("t10k", 2000)):
        pixels = random.Random(0).randbytes(count * 28 * 28)
        head = struct.pack(">IIII", 2051, count, 28, 28)
        (idx / f"{stem}-images-idx3-ubyte").write_bytes(head + pixels)
        (idx / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + bytes(count))
    m.run(1, ["data", "pack", "--format", "idx", "--input", idx, "--out", m.work / "packed"])
    return idx


def our_rate(m: Machine, name: str, codes: int, batch: int, steps: int, precision: str) -> float:
    """Median images/s of the second half of the run's rows."""
    run_dir = m.train(name, 1, config="configs/fashion_mnist.toml", seconds=120, train__steps=steps,
                      train__global_batch=batch, train__precision=precision,
                      data__path=m.work / "packed", model__quantizer__num_codes=codes,
                      eval__every=0, checkpoint__every=0, metrics__every=max(1, steps // 20))
    found = sorted(row["samples_per_second"] for row in rows(run_dir)[len(rows(run_dir)) // 2:])
    return found[len(found) // 2]


def throughput(m: Machine, table: Table):
    """Training on one GPU, in turn with the peer's variants."""
    batch, steps = (32, 4) if m.dry else (1024, 200)
    idx = make_images(m)
    script = machine.ROOT / "launch/bench/peer_ddp.py"
    eager, compiled = {"eager": []}, {"compiled": ["--compile"]}
    half = {"eager bf16": ["--bf16"], "compiled bf16": ["--compile", "--bf16"]}
    for name, options in (("fp32", []), ("bf16", ["--bf16"])):
        title = f"bare autoencoder {name} (no quantiser, no data)"
        if m.dry:
            table.add(title, "dry run", NONE)
            continue
        bare = m.script(machine.ROOT / "launch/bench/bare_autoencoder.py", "--steps", steps,
                        "--warmup", 20, "--batch", batch, "--device", "cuda", *options)
        table.add(title, f"{bare['images_per_s']:,.0f} images/s", rate=bare["images_per_s"])
    # What matters most first: the time may run out.
    for codes, variants in ((16384, eager | compiled | half), (512, eager | compiled)):
        ours = {}
        for precision in ("fp32", "bf16"):
            rates = [our_rate(m, f"rate-{codes}-{precision}-{turn}", codes, batch, steps, precision)
                     for turn in range(1 if m.dry else 2)]
            ours[precision] = max(rates)
            table.add(f"Tessera {precision}, K = {codes}", f"{ours[precision]:,.0f} images/s",
                      NONE if m.dry else OK, rates=rates)
        for name, options in variants.items():
            title = f"peer {name}, K = {codes}"
            if m.dry:
                table.add(title, "dry run", NONE)
                continue
            if m.left() < 90:
                table.add(title, "no time left", NONE)
                continue
            try:
                peer = m.script(script, "--data", idx, "--steps", steps, "--batch", batch, "--codes",
                                codes, "--channels-last", "--device", "cuda", *options,
                                seconds=100, ranks=1)["images_per_s"]
            except Failed as failure:
                table.add(title, str(failure), BAD)
                continue
            ours_best = ours["bf16" if "bf16" in name else "fp32"]
            table.add(title, f"{peer:,.0f} images/s; Tessera is {ours_best / peer:.2f}x", rate=peer)


def quantizer(m: Machine, table: Table):
    """The quantiser alone, beside the plain product of matrices, and that it fits."""
    sizes = [(2048, 512), (2048, 2048)] if m.dry else [(65536, 8192), (131072, 16384), (131072, 262144)]
    script = machine.ROOT / "launch/bench/peer_quantizer.py"
    for n, codes in sizes:
        title = f"quantiser, N = {n}, K = {codes}"
        ours = m.json(1, "bench", "quantizer", "--n", n, "--codes", codes, "--device", m.device)
        peak = ours["peak_bytes"]
        table.add(title, f"{1e3 * ours['median_s']:.2f} ms (nearest {1e3 * ours['nearest_s']:.2f}, "
                  f"plain GEMM {1e3 * ours['gemm_s']:.2f}), "
                  + (f"{peak / 2**20:.0f} MiB" if peak is not None else "memory not measured"),
                  NONE if m.dry else OK, figures=ours)
        compiled = {"compiled": ["--compile"]} if codes == sizes[1][1] else {}
        for name, options in ({"eager": []} | compiled).items():
            title = f"peer's quantiser {name}, N = {n}, K = {codes}"
            if m.dry or m.left() < 60:
                table.add(title, "dry run" if m.dry else "no time left", NONE)
                continue
            try:
                peer = m.script(script, "--n", n, "--codes", codes, "--device", "cuda", *options)
            except Failed as failure:
                table.add(title, str(failure), NONE)
                continue
            ratio = peer["median_s"] / ours["median_s"]
            table.add(title, f"{1e3 * peer['median_s']:.2f} ms; Tessera is {ratio:.2f}x",
                      figures=peer)


def kernel_ms(m: Machine, name: str, steps: int) -> float:
    """Milliseconds of all kernels of a run, from the profiler's trace."""
    arguments = m.training(m.work / name, 1, config="configs/fashion_mnist.toml",
                           train__steps=steps, train__global_batch=1024, eval__every=0,
                           checkpoint__every=0, data__path=m.work / "packed")
    worker = m.tessera.with_name("tessera-worker")
    command = ["ncu", "--csv", "--metrics", "gpu__time_duration.sum", "--clock-control", "none",
               worker, *arguments]
    done = subprocess.run(list(map(str, command)), cwd=machine.ROOT, text=True, capture_output=True,
                          env=m.environment, timeout=max(1.0, min(120, m.left())))
    table = [line for line in done.stdout.splitlines() if line.startswith('"')]
    if done.returncode != 0 or len(table) < 2:
        raise Failed(f"ncu: {machine.last_words(done.stdout + done.stderr)}")
    found = list(csv.DictReader(table))
    scale = {"ns": 1e-6, "nsecond": 1e-6, "us": 1e-3, "usecond": 1e-3, "ms": 1.0, "msecond": 1.0}
    return sum(float(row["Metric Value"].replace(",", "")) * scale[row["Metric Unit"]]
               for row in found if row["Metric Unit"] in scale)


def trace(m: Machine, table: Table):
    """Where a step's time goes: phases waited for one by one, and the gaps between kernels."""
    steps = 4 if m.dry else 40
    make_images(m)
    settings = {"config": "configs/fashion_mnist.toml", "train__steps": steps, "eval__every": 0,
                "checkpoint__every": 0, "train__global_batch": 32 if m.dry else 1024,
                "data__path": m.work / "packed"}
    for ranks in (1, 2):
        printed = m.run(ranks, m.training(m.work / f"profile-{ranks}", ranks, "--profile", **settings))
        shares = {line.rsplit(None, 2)[0]: line.rsplit(None, 1)[1] for line in printed.splitlines()
                  if line.endswith("%")}
        text = ", ".join(f"{phase} {share}" for phase, share in shares.items())
        table.add(f"phases of a step, {ranks} rank(s)", text, NONE if m.dry else OK, shares=shares)
    if m.dry:
        table.add("gaps between kernels", "dry run", NONE)
        return
    step_ms = rows(m.train("gaps", 1, metrics__every=10, **settings))[-1]["step_ms"]
    busy = (kernel_ms(m, "trace-long", 12) - kernel_ms(m, "trace-short", 4)) / 8
    table.add("gaps between kernels", f"kernels take {busy:.2f} of a step's {step_ms:.2f} ms: "
              f"{max(0, 1 - busy / step_ms):.0%} gaps", busy_ms=busy, step_ms=step_ms)


SECTIONS = {"versions": versions, "all-reduce": all_reduce, "losses": losses, "trainings": trainings, "networks": networks,
            "priors": priors, "resume": resume, "faults": faults, "trace": trace, "throughput": throughput,
            "quantizer": quantizer}


def output(*command) -> str:
    """What a command prints; nothing if it is not there."""
    try:
        done = subprocess.run(command, text=True, capture_output=True, cwd=machine.ROOT)
    except OSError:
        return ""
    return done.stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, required=True,
                        help="folder of the release binaries tessera and tessera-worker")
    parser.add_argument("--python", default=sys.executable, help="a Python with PyTorch 2.11")
    parser.add_argument("--mpi", type=pathlib.Path, help="prefix of an Open MPI")
    parser.add_argument("--out", type=pathlib.Path, default=machine.ROOT / "target/gpu-check")
    parser.add_argument("--commit", default=output("git", "rev-parse", "--short", "HEAD"),
                        help="what the binaries were built from")
    parser.add_argument("--minutes", type=float, default=9.0, help="most minutes for everything")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--dry-run", action="store_true",
                        help="everything but the device: the CPU, and a stand-in for NCCL")
    args = parser.parse_args()
    for program in ("tessera", "tessera-worker"):
        if not (args.bin / program).is_file():
            parser.error(f"{args.bin} has no {program}: cargo build --release -p tessera-cli "
                         "-p tessera-worker")
    args.out.mkdir(parents=True, exist_ok=True)

    m, table, start = Machine(args), Table(args), time.monotonic()
    for name in args.only:
        try:
            if m.left() < 20:
                table.add(name, "no time left", NONE)
            else:
                SECTIONS[name](m, table)
        except Exception as failure:  # whatever it is: the other sections are worth having
            table.add(name, f"{type(failure).__name__}: {failure}", BAD)
    minutes = (time.monotonic() - start) / 60

    today = datetime.date.today().isoformat()
    kind = "dry run" if args.dry_run else "measured"
    about = {"date": today, "kind": kind, "commit": args.commit or "-", "minutes": round(minutes, 1),
             "machine": f"{platform.machine()}, {os.cpu_count()} cores",
             "python": platform.python_version()}
    figures = json.dumps(about | {"rows": table.rows}, indent=1).replace(table.out, "OUT")
    (args.out / f"gpu-{today}.json").write_text(figures + "\n")
    lines = [f"# GPU check, {today} ({kind})", ""]
    if args.dry_run:
        lines += ["No GPU: everything but the device was done, on the CPU with a stand-in for NCCL. "
                  "Rows that say ok show that the script and the program work; no figure of a GPU "
                  "was measured.", ""]
    lines += [f"- {key}: {value}" for key, value in about.items()]
    lines += ["", "| check | status | result |", "|---|---|---|"]
    lines += [f"| {row['check']} | {row['status']} | {row['result']} |" for row in table.rows]
    page = "\n".join(lines) + "\n"
    (args.out / f"gpu-{today}.md").write_text(page)
    print(page)
    sys.exit(1 if any(row["status"] == BAD for row in table.rows) else 0)


if __name__ == "__main__":
    main()
