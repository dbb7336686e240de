"""How fast a GPU is: where a step's time goes, training, the quantiser, networks and priors, in turn with their peers. One at a
time, with the machine to itself."""
import csv, functools, pathlib, random, struct, subprocess, time

import machine
from machine import Failed, Machine, rows
from table import BAD, NONE, OK, Table


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


# What a variant of the peer is started with, its environment, and which of our rates it is compared with. Our float32 uses no
# TF32, so the peer's has none there; "TF32" is what libtorch allows by itself: in convolutions.
FP32, TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}, {"NVIDIA_TF32_OVERRIDE": "1"}
VARIANTS = {
    "eager fp32": ([], FP32, "fp32"), "compiled fp32": (["--compile"], FP32, "fp32"),
    "eager bf16": (["--bf16"], TF32, "bf16"), "compiled bf16": (["--compile", "--bf16"], TF32, "bf16"),
    "eager TF32": ([], TF32, "TF32"), "compiled TF32": (["--compile"], TF32, "TF32"),
}


def bare(m: Machine, table: Table):
    """The autoencoder of the reference alone: what no quantiser can be faster than."""
    batch, steps = (32, 4) if m.dry else (1024, 200)
    for name, options, variables in [("fp32", [], FP32), ("bf16", ["--bf16"], TF32)]:
        title = f"bare autoencoder {name} (no quantiser, no data)"
        if m.dry:
            table.add(title, "dry run", NONE)
            continue
        rate = m.using(**variables).script(machine.ROOT / "launch/bench/bare_autoencoder.py", "--steps", steps, "--warmup", 20,
                                           "--batch", batch, "--device", "cuda", *options)["images_per_s"]
        table.add(title, f"{rate:,.0f} images/s", rate=rate)


def throughput(codes: int, m: Machine, table: Table):
    """Training with this many codes on one GPU, in turn with the peer's variants."""
    batch, steps = (32, 4) if m.dry else (1024, 200)
    idx = make_images(m)
    ours = {}
    for precision, variables in [("fp32", FP32), ("bf16", {}), ("TF32", TF32)]:
        kind = "bf16" if precision == "bf16" else "fp32"
        rates = [our_rate(m.using(**variables), f"rate-{codes}-{precision}-{turn}", codes, batch, steps, kind)
                 for turn in range(1 if m.dry else 2)]
        ours[precision] = max(rates)
        table.add(f"Tessera {precision}, K = {codes}", f"{ours[precision]:,.0f} images/s",
                  NONE if m.dry else OK, rates=rates)
    for name, (options, variables, precision) in VARIANTS.items():
        title = f"peer {name}, K = {codes}"
        compare(m.using(**variables), table, title, ours[precision], "images/s", "images_per_s", "peer_ddp.py", "--data", idx,
                "--steps", steps, "--batch", batch, "--codes", codes, "--channels-last", *options, seconds=100)


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
               "--cache-control", "none", worker, *arguments]
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


PICTURES = {"data__kind": "synthetic", "data__synthetic__height": 64, "data__synthetic__width": 64, "data__synthetic__channels": 3}


def networks(m: Machine, table: Table):
    """Training steps of the networks for pictures of 64 x 64, in turn with the same networks in PyTorch DDP."""
    batch, steps = (4, 4) if m.dry else (64, 60)
    for config, peer in [("titok_64", "titok"), ("photos_hierarchy", "hierarchy"), ("photos_64", "unet2d-f4")]:
        for precision in ["fp32", "bf16"]:
            found = rows(m.train(
                f"{config}-{precision}", 1, config=f"configs/{config}.toml", train__steps=steps, train__precision=precision,
                train__global_batch=batch, metrics__every=2, eval__every=0, checkpoint__every=0, schedule__warmup_steps=0,
                model__quantizer__replace_every=0, **PICTURES))
            ours = median(row["samples_per_second"] for row in found[len(found) // 2:])
            versus(m, table, f"configs/{config}.toml, {precision}", ours, "images/s", "images_per_s", "peer_networks.py",
                   "--net", peer, "--steps", steps, "--batch", batch, *(["--bf16"] if precision == "bf16" else []))


def priors(m: Machine, table: Table):
    """Encoding, a prior's training steps and its samples, in turn with the same transformer in PyTorch."""
    batch, steps, number = (4, 4, 4) if m.dry else (512, 60, 2000)
    make_images(m)
    tokenizer = m.train("speed-tokenizer", 1, config="configs/fashion_mnist_tokenizer.toml", data__path=m.work / "packed",
                        train__steps=4, eval__every=0, checkpoint__every=0, schedule__warmup_steps=0)
    tokens = m.work / "speed-tokens"
    split = ["--split", "test"] if m.dry else []
    begun = time.monotonic()
    m.run(1, ["encode", "--run", tokenizer, "--out", tokens, "--device", m.device, *split])
    seconds = time.monotonic() - begun
    table.add("encode 62,000 images, start included", f"{seconds:.1f} s", NONE if m.dry else OK, seconds=seconds)
    if m.dry:
        return
    for precision in ["fp32", "bf16"]:
        run = m.train(f"speed-prior-{precision}", 1, config="configs/fashion_mnist_prior.toml", data__path=tokens,
                      train__steps=steps, train__precision=precision, train__global_batch=batch, metrics__every=2,
                      eval__every=0, checkpoint__every=0, schedule__warmup_steps=0)
        found = rows(run)
        ours = 1e3 * batch / median(row["step_ms"] for row in found[len(found) // 2:])
        options = ["--bf16"] if precision == "bf16" else []
        versus(m, table, f"a prior's training, {precision}", ours, "sequences/s", "sequences_per_s", "peer_prior.py", "train",
               "--tokens", tokens, "--steps", steps, "--batch", batch, "--out", m.work / "peer-prior.pt", *options)
    printed = m.run(1, ["sample", "--run", m.work / "speed-prior-fp32", "--num", number, "--guidance", 1, "--out",
                        m.work / "speed-samples", "--device", m.device])
    ours = float(printed.rsplit(" tokens a second", 1)[0].split()[-1])
    versus(m, table, f"{number} samples", ours, "tokens/s", "tokens_per_second", "peer_prior.py", "sample", "--model",
           m.work / "peer-prior.pt", "--num", number, "--batch", 64, ranks=0)


def median(values) -> float:
    found = sorted(values)
    return found[len(found) // 2]


def versus(m: Machine, table: Table, title: str, ours: float, unit: str, key: str, script: str, *options, ranks=1):
    """A row of ours and one of the peer's."""
    table.add(title, f"{ours:,.0f} {unit}", NONE if m.dry else OK, rate=ours)
    compare(m, table, f"peer: {title}", ours, unit, key, script, *options, ranks=ranks)


def compare(m: Machine, table: Table, title: str, ours: float, unit: str, key: str, script: str, *options, ranks=1, seconds=60):
    """A row of the peer's, whose script of launch/bench tells its rate under `key`."""
    if m.dry or m.left() < 40:
        table.add(title, "dry run" if m.dry else "no time left", NONE)
        return
    try:
        theirs = m.script(machine.ROOT / "launch/bench" / script, *options, "--device", "cuda", seconds=seconds, ranks=ranks)[key]
    except Failed as failure:
        table.add(title, str(failure), BAD)
        return
    table.add(title, f"{theirs:,.0f} {unit}; Tessera is {ours / theirs:.2f}x", rate=theirs)


# What matters most first: the time may run out.
SECTIONS = {
    "trace": trace, "bare": bare, "throughput-512": functools.partial(throughput, 512), "prior-speed": priors, "quantizer": quantizer,
    "network-speed": networks, "throughput-16384": functools.partial(throughput, 16384),
}
