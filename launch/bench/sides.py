"""The sides that speed.py and quality.py compare: how each is started, and on what machine.

Every command is run with one thread for each core that its rank has, and waited for to the end.
"""
import argparse, datetime, json, os, pathlib, platform, shlex, statistics, subprocess, sys
import tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def parser(description: str) -> argparse.ArgumentParser:
    """The options that both scripts have."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--peer-python", required=True,
                      help="a Python with torch 2.11.0, numpy and vector-quantize-pytorch 1.32.0")
    made.add_argument("--idx", type=pathlib.Path, required=True,
                      help="folder of the four Fashion-MNIST IDX files, for the peer")
    made.add_argument("--packed", type=pathlib.Path, default=ROOT / "data" / "fashion_mnist",
                      help="the same packed by `tessera data pack`, for Tessera")
    made.add_argument("--tessera", type=pathlib.Path, default=target / "release" / "tessera")
    made.add_argument("--ranks", type=int, default=2)
    made.add_argument("--batch", type=int, default=128, help="images a step and rank")
    made.add_argument("--codes", type=int, default=512, help="K, codes in the codebook")
    made.add_argument("--results", type=pathlib.Path, default=ROOT / "docs" / "results")
    return made


def environment(args) -> dict:
    threads = max(1, len(os.sched_getaffinity(0)) // args.ranks)
    return os.environ | {"OMP_NUM_THREADS": str(threads)}


def run(args, *commands: list) -> list:
    """Runs the commands side by side; returns what each printed. Ends this script if one fails."""
    started = []
    for command in commands:
        out, log = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        process = subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=out,
                                   stderr=log, env=environment(args))
        started.append((process, out, log, command))
    codes = [process.wait() for process, *_ in started]
    for code, (_, _, log, command) in zip(codes, started):
        if code != 0:
            log.seek(0)
            fail(log, code, command)
    printed = []
    for _, out, _, _ in started:
        out.seek(0)
        printed.append(out.read())
    return printed


def tessera(args, *words) -> str:
    """What `tessera` prints, run with these words. Ends this script if it fails."""
    command = [str(args.tessera), *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} has ended with {done.returncode}: {done.stderr}")
    return done.stdout


def train_tessera(args, steps: int, run_dir: str, *settings: str):
    """Trains without pause for evaluation, checkpoints or pictures, unless `settings` say so."""
    launch_tessera(args, "configs/fashion_mnist.toml", run_dir, f"train.steps={steps}",
                   f"train.global_batch={args.batch * args.ranks}",
                   f"model.quantizer.num_codes={args.codes}", "eval.every=0", *settings)


def launch_tessera(args, config, run_dir: str, *settings: str):
    """Trains a configuration anew, without pictures, and with no checkpoint before the end unless
    `settings` say so."""
    values = [f"data.path={args.packed.resolve()}", "checkpoint.every=0",
              "metrics.images_every=0", *settings]
    overrides = [part for value in values for part in ("--set", value)]
    run(args, [args.tessera, "launch", "--nproc", args.ranks, "--", "train", "--config", config,
               "--run-dir", run_dir, "--resume", "never", *overrides])


def evaluate_tessera(args, *settings: str) -> dict:
    """Trains for `args.steps` and returns the figures on the test split."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = os.path.join(folder, "run")
        train_tessera(args, args.steps, run_dir, f"checkpoint.every={args.steps}", *settings)
        printed, = run(args, [args.tessera, "eval", "--run", run_dir, "--json"])
    return json.loads(printed)


def no_worse(name: str, errors: list, other: str, others: list) -> tuple[bool, str]:
    """Whether the mean error is no worse than the other's by more than 2 % or by the other's own
    spread over seeds, whichever is larger; and the sentence that says so."""
    mean, against = statistics.mean(errors), statistics.mean(others)
    allowed = max(0.02 * against, max(others) - min(others))
    passed = mean <= against + allowed
    return passed, (f"**{'Passed' if passed else 'Failed'}: {name} is {mean / against - 1:+.1%} "
                    f"against {other}, allowed are +{allowed / against:.1%}**")


def train_peer(args, steps: int, *options) -> tuple[dict, float]:
    """Trains and evaluates the peer; returns its figures and the seconds until it printed them.

    Its clock stops there and it is ended: after the last line, one of its ranks has been seen to
    wait for ever in the shutdown of gloo.
    """
    # Its own rate leaves out `warmup` steps and fails if there are no others.
    command = [args.peer_python, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node", args.ranks, HERE / "peer_ddp.py", "--data", args.idx,
               "--steps", steps, "--warmup", 1, "--batch", args.batch, "--codes", args.codes,
               *options]
    figures, start = None, time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([str(part) for part in command], cwd=ROOT, text=True,
                                   stdout=subprocess.PIPE, stderr=log, env=environment(args))
        for line in process.stdout:
            if line.startswith("{"):
                figures, seconds = json.loads(line), time.perf_counter() - start
                break
        process.terminate()  # torchrun passes it on to its ranks and waits for them
        code = process.wait()
        if figures is None:
            log.seek(0)
            fail(log, code, command)
    return figures, seconds


def fail(log, code: int, command: list):
    """Ends this script with the last lines of a command's log."""
    tail = "".join(log.readlines()[-20:])
    sys.exit(f"{tail}{shlex.join(map(str, command))}\nended with {code}")


def output(*command) -> str:
    """What a command prints, or a dash if it cannot be run."""
    try:
        done = subprocess.run([str(part) for part in command], cwd=ROOT, text=True,
                              capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "-"
    return done.stdout.strip() or "-"


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write_report(args, name: str, title: str, body: str):
    """Writes a dated page with `body` and all that is needed to repeat it."""
    versions = ("import torch, importlib.metadata as m; "
                "print(torch.__version__, m.version('vector-quantize-pytorch'))")
    torch, _, quantizer = output(args.peer_python, "-c", versions).partition(" ")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    # The paths of one machine mean nothing on another.
    places = {"--peer-python": "PYTHON", "--idx": "DIR", "--packed": "PACKED",
              "--tessera": "TESSERA", "--photos": "PHOTOS", "--results": "RESULTS", "--state": "STATE"}
    said = list(sys.argv[1:])
    for index, word in enumerate(said):
        option, equals, _ = word.partition("=")
        if option in places and equals:
            said[index] = f"{option}={places[option]}"
        elif option in places and index + 1 < len(said):
            said[index + 1] = places[option]
    changed = " with uncommitted changes" if output("git", "status", "--porcelain") != "-" else ""
    today = datetime.date.today().isoformat()
    page = f"""# {title}

- date: {today}
- command: `python3 launch/bench/{pathlib.Path(sys.argv[0]).name} {shlex.join(said)}`
- machine: {processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, \
{args.ranks} ranks of {environment(args)["OMP_NUM_THREADS"]} thread(s)
- commit: {output("git", "rev-parse", "--short", "HEAD")}{changed}
- versions: {output("rustc", "--version")}; {output("mpirun", "--version").splitlines()[0]}; \
the peer on torch {torch} with vector-quantize-pytorch {quantizer or "-"}

{body}"""
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / f"{today}-{name}.md"
    path.write_text(page)
    print(body)
    print(f"written to {path}", file=sys.stderr)
