"""What has to be right on a GPU: sums, losses, networks, priors, resume, faults. No figure of these sections is a time, so that
they run side by side."""
import concurrent.futures, contextlib, functools, json, os, pathlib, signal, struct, time, urllib.error, urllib.request, zlib

import machine
from machine import Failed, Machine, output, rows
from table import BAD, NONE, OK, Table


SHORT = {"train__steps": 20, "metrics__every": 1, "eval__every": 0, "checkpoint__every": 0}


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
    cpu = rows(m.train("cpu", 1, device="cpu", **SHORT))
    one = rows(m.train("one", 1, **SHORT))
    two = rows(m.train("two", 2, **SHORT))
    half = rows(m.train("bf16", 1, train__precision="bf16", **SHORT))
    parts = rows(m.train("parts-of-5", 2, train__micro_batch=5, **SHORT))
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
    groups = {"optimizer__groups__encoder__frozen": "true", "optimizer__groups__quantizer__frozen": "true"}
    plain = rows(m.train("plain", 1, **SHORT))
    again = rows(m.train("computed-again", 1, train__recompute="true", **SHORT))
    off = worst(again, plain)
    table.add("activations computed again", f"losses of 20 steps {'bit for bit' if off == 0 else f'within {off:.1e}'}",
              OK if off <= 0.02 else BAD, worst=off)
    dense = {"model__backbone__kind": "dense", "model__backbone__hidden": 64}
    cpu = rows(m.train("dense-cpu", 1, device="cpu", **dense, **SHORT))
    off = worst(rows(m.train("dense", 2, **dense, **SHORT)), cpu)
    table.add("dense network, 2 ranks against one of the CPU", f"losses of 20 steps differ by at most {off:.2e} (limit 0.02)",
              OK if off <= 0.02 else BAD, worst=off)
    begun = m.train("decoder-alone", 2, **groups, model__init_from=m.work / "plain", train__ema_decay=0.9, **SHORT)
    first, last = rows(begun)[0]["recon_mse"], plain[-1]["recon_mse"]
    off = abs(first - last) / last
    table.add("a decoder alone, begun from another run", f"its first loss is off by {off:.2e} of that run's last (limit 0.2)",
              OK if off <= 0.2 else BAD, worst=off)
    halves(m.work / "halves")
    data = {"task": "probe", "data__kind": "idx", "data__path": m.work / "halves", "optimizer__learning_rate": 0.02,
            "probe__head": "conv", "probe__channels": 4, "probe__stages": 2}
    probe = m.train("probe", 2, **data, **(SHORT | {"eval__every": 20}))
    found = json.loads((probe / "eval.jsonl").read_text().splitlines()[-1])
    table.add("a probe on two classes", f"accuracy {found['accuracy']:.3f} (at least 0.95)",
              OK if found["accuracy"] >= 0.95 else BAD, accuracy=found["accuracy"])


VIT = '{{kind = "vit", patch = 4, width = 32, layers = 2, heads = 2, latent_tokens = {}}}'
NETWORKS = {
    "unet2d": '{kind = "unet2d", channels = 16, multipliers = [1, 2], groups = 4, attention_resolutions = [8]}',
    "vit": VIT.format(0),
    "latent tokens": VIT.format(8),
    "hierarchy": '{kind = "hierarchy", channels = 16, residual_layers = 1, residual_channels = 8}',
}


def as_on_the_cpu(name: str, title: str, given: dict, m: Machine, table: Table) -> pathlib.Path:
    """Two ranks on the device against one of the CPU, and in bfloat16; the run of the two."""
    cpu = rows(m.train(f"{name}-cpu", 1, device="cpu", **given))
    run = m.train(name, 2, **given)
    half = rows(m.train(f"{name}-bf16", 1, train__precision="bf16", **given))
    for what, found, limit in [("2 ranks against one of the CPU", rows(run), 0.05), ("bf16 against the CPU", half, 0.1)]:
        off = worst(found, cpu)
        table.add(f"{title}, {what}", f"losses of 20 steps differ by at most {off:.2e} (limit {limit})",
                  OK if off <= limit else BAD, worst=off)
    return run


def network(name: str, m: Machine, table: Table):
    """A network with every loss and a critic: two ranks on the device against one of the CPU, and in bfloat16."""
    given = SHORT | {
        "model__backbone": NETWORKS[name], "eval__every": 20, "eval__features__network": "random", "loss__absolute": 0.5,
        "loss__ssim": 0.1, "loss__ms_ssim": 0.1, "loss__perceptual": 0.05, "loss__adversarial": 0.1,
        "adversarial__adaptive": "true", "adversarial__lecam": 0.01, "adversarial__start": 5,
        "optimizer__clip_grad_norm": 1.0,
        # At the rate of the smoke test rounding alone takes 20 steps of unet2d 0.2 apart.
        "optimizer__learning_rate": 1e-4}
    run = as_on_the_cpu(name, f"{name} with all losses and a critic", given, m, table)
    judged = json.loads((run / "eval.jsonl").read_text().splitlines()[-1])
    table.add(f"{name}, features of an evaluation", f"Frechet distance {judged['frechet']:.3f}, a number",
              OK if judged["frechet"] == judged["frechet"] else BAD)


SIGNALS = {
    "sound": {
        "data__modality": "audio", "data__audio__length": 512, "data__audio__sample_rate": 8000,
        "model__backbone": '{kind = "conv1d", channels = 4, ratios = [4, 4], lstm_layers = 1}',
        "loss__absolute": 0.5, "loss__mel": 1.0, "loss__balanced": "true", "loss__feature_matching": 1.0,
        "spectral__windows": "[64, 256]", "spectral__mels": "[10, 40]",
        "critic": '{kind = "several", critics = [{kind = "spectral", channels = 2, windows = [128, 64]}, '
                  '{kind = "period", channels = 1, periods = [2, 3], most_channels = 8}]}'},
    "film": {
        "data__modality": "video", "data__video__frames": 5, "data__video__height": 16, "data__video__width": 16,
        "model__backbone": '{kind = "conv3d", channels = 8, patch = 2, spatial = 4, temporal = 2, attention = "axial"}',
        "loss__frame_difference": 0.5, "loss__ssim": 0.1, "adversarial__adaptive": "true",
        "critic": '{kind = "patch", channels = 4, groups = 2}'},
}


def signals(kind: str, m: Machine, table: Table):
    """The network of sound or film with its losses and critics: two ranks on the device against one of the CPU, and in bfloat16."""
    folder = m.work / f"{kind}-files"
    {"sound": tones, "film": patterns}[kind](folder)
    given = SHORT | SIGNALS[kind] | {
        "data__kind": "folder", "data__path": folder, "loss__adversarial": 0.5, "adversarial__start": 5, "eval__every": 20,
        "optimizer__clip_grad_norm": 1.0, "optimizer__learning_rate": 1e-4}
    run = as_on_the_cpu(kind, f"{kind} with its losses and critics", given, m, table)
    figure = {"sound": "mel_distance", "film": "difference_psnr"}[kind]
    judged = json.loads((run / "eval.jsonl").read_text().splitlines()[-1])[figure]
    table.add(f"{kind}, an evaluation", f"{figure} {judged:.3f}, a number", OK if judged == judged else BAD)


def tones(folder: pathlib.Path):
    """Two sounds of each split, 8 kHz: square waves that swell."""
    for split in ["train", "test"]:
        (folder / split).mkdir(parents=True)
        for period in [20, 33]:
            value = lambda at: (1 if at % period < period / 2 else -1) * (2000 + at)
            body = struct.pack("<8192h", *(value(at) for at in range(8192)))
            head = struct.pack("<4sI8sI2H2I2H4sI", b"RIFF", 36 + len(body), b"WAVEfmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data",
                               len(body))
            (folder / split / f"{period}.wav").write_bytes(head + body)


def patterns(folder: pathlib.Path):
    """A film of each split, a folder of pictures of 16 x 16: stripes that drift."""
    for split, speed in [("train", 1), ("test", 2)]:
        (folder / split / "film").mkdir(parents=True)
        for frame in range(40):
            pixels = bytes((16 * ((row + column + speed * frame) % 16) + channel) % 256
                           for row in range(16) for column in range(16) for channel in range(3))
            (folder / split / "film" / f"{frame:03}.ppm").write_bytes(b"P6 16 16 255\n" + pixels)


def prior(kind: str, m: Machine, table: Table):
    """From codes to samples: encoded on the device, a prior on it against the CPU, drawn by one rank and by two."""
    halves(m.work / f"{kind}-pictures")
    model = m.train(f"{kind}-tokenizer", 1, data__kind="idx", data__path=m.work / f"{kind}-pictures", **SHORT)
    tokens = m.work / f"{kind}-tokens"
    m.run(2, ["encode", "--run", model, "--out", tokens, "--device", m.device, "--share-gpu"])
    given = SHORT | {"task": "prior", "data__kind": "tokens", "data__path": tokens, "prior__kind": kind,
                     "prior__network": "{width = 32, layers = 2, heads = 2}"}
    cpu = rows(m.train(f"{kind}-cpu", 1, device="cpu", **given))
    run = m.train(kind, 2, **given)
    half = rows(m.train(f"{kind}-bf16", 1, train__precision="bf16", **given))
    for what, found, limit in [("2 ranks against one of the CPU", rows(run), 0.01), ("bf16 against the CPU", half, 0.05)]:
        off = worst(found, cpu, "nats_per_token")
        table.add(f"{kind} prior, {what}", f"nats of 20 steps differ by at most {off:.2e} (limit {limit})",
                  OK if off <= limit else BAD, worst=off)
    drawn = []
    for ranks in [1, 2]:
        out = m.work / f"{kind}-samples-{ranks}"
        m.run(ranks, ["sample", "--run", run, "--num", 40, "--steps", 4, "--out", out, "--device", m.device, "--share-gpu"])
        drawn.append((out / "tokens.safetensors").read_bytes())
    same = drawn[0] == drawn[1]
    table.add(f"{kind} prior, 40 samples", f"{'the same' if same else 'other'} codes from one rank and from two",
              OK if same else BAD)
    used(kind, model, run, m, table)


def used(kind: str, model: pathlib.Path, prior: pathlib.Path, m: Machine, table: Table):
    """Samples judged, and a hole filled by a masked prior, on the device and on the CPU."""
    frechet, holes = [], []
    for number, device in enumerate(["cpu", m.device]):
        out = m.work / f"{kind}-used-{number}"
        m.run(1, ["judge", "--run", model, "--samples", m.work / f"{kind}-samples-1", "--out", out, "--device", device])
        judged = json.loads((out / "judge.json").read_text())
        frechet.append(judged["sets"][0]["frechet"])
        if kind == "masked":
            mask = m.work / "mask.png"
            mask.write_bytes(png([[255 if row > 7 and column > 7 else 0 for column in range(16)] for row in range(16)]))
            m.run(1, ["inpaint", "--run", prior, "--split", "test", "--ids", "0,3", "--mask", mask, "--out", out / "filled",
                      "--device", device])
            holes.append(json.loads((out / "filled" / "inpaint.json").read_text()))
    off = abs(frechet[1] - frechet[0]) / abs(frechet[0])
    table.add(f"{kind} prior, samples judged", f"Frechet distance is off by {off:.1e} of the CPU's (limit 1e-3)",
              OK if off <= 1e-3 else BAD, worst=off)
    if holes:
        given = [[picture["num_given"] for picture in about["pictures"]] for about in holes]
        table.add("a hole filled", f"codes given: {given[1]}, on the CPU {given[0]}", OK if given[0] == given[1] else BAD)
    else:
        compressed(model, prior, m, table)


def compressed(model: pathlib.Path, prior: pathlib.Path, m: Machine, table: Table):
    """Pictures compressed on the device, by tables and by a prior, and back: as the model reconstructs them there."""
    folder = m.work / "files"
    (folder / "in").mkdir(parents=True)
    for number in range(5):
        rows = [[(row * column + 40 * number) % 256 for column in range(37)] for row in range(20)]
        (folder / "in" / f"{number}.png").write_bytes(png(rows))
    place = ["--run", model, "--device", m.device]
    m.run(1, ["tables", *place])
    m.run(1, ["reconstruct", folder / "in", folder / "whole", *place])
    contents = lambda name: [path.read_bytes() for path in sorted((folder / name).iterdir())]
    for name, more in [("tables", []), ("prior", ["--prior", prior])]:
        m.run(1, ["compress", folder / "in", folder / f"{name}.tsc", *place, *more])
        m.run(1, ["decompress", folder / f"{name}.tsc", folder / name, *place, *more])
        same = contents(name) == contents("whole")
        table.add(f"files compressed by {name}", f"{(folder / f'{name}.tsc').stat().st_size} bytes; {'as' if same else 'not as'} reconstructed",
                  OK if same else BAD)
    atlas(model, m, table)
    served(place, folder, m, table)


def atlas(model: pathlib.Path, m: Machine, table: Table):
    """How often each code is taken, counted on the device and on the CPU, and all codes decoded."""
    counts = []
    for number, device in enumerate(["cpu", m.device]):
        out = m.work / f"atlas-{number}"
        m.run(1, ["atlas", "--run", model, "--out", out, "--device", device])
        counts.append([level["counts"] for level in json.loads((out / "atlas.json").read_text())["levels"]])
    moved = sum(abs(one - other) for cpu, gpu in zip(*counts) for one, other in zip(cpu, gpu)) // 2
    tokens = sum(sum(level) for level in counts[0])
    # A latent between two codes may go to either.
    table.add("atlas of the codes", f"{moved} of {tokens} codes other than on the CPU (limit 0.1 %)", OK if moved <= tokens / 1000 else BAD)


def served(place: list, folder: pathlib.Path, m: Machine, table: Table):
    """A server on the device: eight clients at once get what `reconstruct` wrote, and SIGTERM ends it in good order."""
    server = m.start(1, ["serve", *place, "--listen", "127.0.0.1:0"])
    address, until = None, time.monotonic() + 60
    while address is None and server.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
        server.log.seek(0)
        address = next((line.split()[0] for line in server.log.read().splitlines() if "http://" in line), None)
    if address is None:
        raise Failed(f"no server: {machine.last_words(m.finish(server, 1)[1])}")
    ask = lambda name, body: urllib.request.urlopen(urllib.request.Request(address.rstrip("/") + name, body, {"Content-Type": "image/png"}), timeout=60).read()
    while server.poll() is None:
        with contextlib.suppress(urllib.error.HTTPError):
            ask("/v2/health/ready", None)
            break
        time.sleep(0.05)
    pictures = sorted((folder / "in").iterdir())
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: ask("/reconstruct", path.read_bytes()), pictures * 8))
    whole = [(folder / "whole" / path.name).read_bytes() for path in pictures] * 8
    server.terminate()
    code = m.finish(server, 60)[0]
    same = sum(answer == wanted for answer, wanted in zip(answers, whole))
    right = same == len(whole) and code == 0
    table.add("served to 8 clients", f"{same} of {len(whole)} pictures as reconstructed; ended with {code}", OK if right else BAD)


def png(rows: list) -> bytes:
    """A gray picture of bytes."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">2I5B", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


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
    whole = rows(m.train("whole", 1, **SHORT))
    folder = m.work / "parts"
    code, said = m.finish(m.start(1, m.training(folder, 1, train__stop_at=10, **SHORT)), 90)
    if code != 75:
        raise Failed(f"a stop at step 10 ended with {code}: {machine.last_words(said)}")
    m.train("parts", 1, resume="auto", **SHORT)
    parts = rows(folder)
    off = worst(parts, whole)
    same = all(a["recon_mse"] == b["recon_mse"] for a, b in zip(parts, whole))
    table.add("resume", f"losses {'bit for bit' if same else f'within {off:.1e}'}",
              OK if off <= 0.02 else BAD, worst=off)
    key = "memory_mib" if m.dry else "gpu_memory_mib"
    mib = whole[-1].get(key, 0)
    table.add(f"memory in rows: {key}", f"{mib:.0f} MiB", OK if mib > 0 else BAD)


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


def fault(name: str, number: int, m: Machine, table: Table):
    """A killed or stopped peer, under the launcher: the other rank leaves, the culprit is named."""
    endless = {"train__steps": 10**6, "metrics__every": 1, "eval__every": 0,
               "checkpoint__every": 0, "comm__timeout_seconds": 8 if m.dry else 20}
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


SECTIONS = {
    "versions": [versions], "all-reduce": [all_reduce], "losses": [losses], "trainings": [trainings],
    "networks": [functools.partial(network, name) for name in NETWORKS],
    "signals": [functools.partial(signals, kind) for kind in SIGNALS],
    "priors": [functools.partial(prior, kind) for kind in ["autoregressive", "masked"]],
    "resume": [resume],
    "faults": [functools.partial(fault, *what) for what in [("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)]],
}
