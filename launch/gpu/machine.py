"""Starting Tessera and its peer on the machine under check: libraries, ranks, what they print."""
import contextlib, copy, json, os, pathlib, shutil, signal, socketserver, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Failed(Exception):
    """A command that did not do what it should; the text is for the table."""


class Machine:
    """Paths and environment of one check."""

    def __init__(self, args):
        self.dry = args.dry_run
        self.out = args.out.resolve()
        self.tessera = (args.bin / "tessera").resolve()
        self.python = args.python
        self.deadline = time.monotonic() + 60 * args.minutes
        self.work = self.out / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.device = "cpu" if self.dry else "cuda"
        self.environment = os.environ | {"OMP_NUM_THREADS": "1"}
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT"):
            self.environment |= {name: "1", f"{name}_CONFIRM": "1"}
        # One host needs no ssh, but Open MPI 5 looks for one unless told otherwise.
        self.environment |= {"PRTE_MCA_plm_ssh_agent": "false", "OMPI_MCA_plm_ssh_agent": "false"}
        libraries = [] if self.dry else torch_libraries(self.python)
        if args.mpi:
            prefix = args.mpi.resolve()
            libraries.insert(0, str(prefix / "lib"))
            self.environment |= {"OPAL_PREFIX": str(prefix), "PRTE_PREFIX": str(prefix)}
            self.environment["PATH"] = f"{prefix / 'bin'}:{self.environment['PATH']}"
            for program in (prefix / "bin").iterdir():
                program.chmod(0o755)  # wheels are unzipped without
        if libraries:
            given = self.environment.get("LD_LIBRARY_PATH")
            self.environment["LD_LIBRARY_PATH"] = ":".join([*libraries, *([given] if given else [])])
        if self.dry:
            stand_in = self.work / "libnccl-stand-in.so"
            source = ROOT / "crates/nccl-rs/tests/stand_in/nccl.c"
            subprocess.run(["cc", "-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", "-o",
                            stand_in, source], check=True)
            self.environment |= {"TESSERA_NCCL_ON_HOST": "1", "NCCL_RS_LIBRARY": str(stand_in),
                                 "NCCL_RAS_ADDR": ras_stand_in()}

    def using(self, **variables) -> "Machine":
        """The same machine with these environment variables."""
        other = copy.copy(self)
        other.environment = self.environment | variables
        return other

    def job(self, number: int) -> "Machine":
        """The same machine for one of several jobs side by side: NCCL's RAS of each listens on a port of its own."""
        return self if self.dry else self.using(NCCL_RAS_ADDR=f"localhost:{28100 + number}")

    def left(self) -> float:
        """Seconds until the whole check has to be over."""
        return self.deadline - time.monotonic()

    def command(self, ranks: int, arguments: list) -> list:
        """`tessera ARGUMENTS` in this number of ranks on the one GPU."""
        words = [str(self.tessera), *map(str, arguments)]
        if ranks == 1:
            return words
        return ["mpirun", "--bind-to", "none", "--oversubscribe", "-np", str(ranks), *words]

    def start(self, ranks: int, arguments: list, **variables) -> subprocess.Popen:
        return self.start_command(self.command(ranks, arguments), **variables)

    def start_command(self, command: list, **variables) -> subprocess.Popen:
        log = tempfile.TemporaryFile("w+", dir=self.work)
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, text=True, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True,
                                   env=self.environment | variables)
        process.log = log
        return process

    def finish(self, process: subprocess.Popen, seconds: float) -> tuple[int, str]:
        """The exit code and what was printed; ends the process after `seconds`."""
        try:
            code = process.wait(min(seconds, max(1.0, self.left())))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = -9
        process.log.seek(0)
        return code, process.log.read()

    def run(self, ranks: int, arguments: list, seconds: float = 120, **variables) -> str:
        """What it printed; Failed unless it ended with 0."""
        code, printed = self.finish(self.start(ranks, arguments, **variables), seconds)
        if code != 0:
            raise Failed(f"ended with {code}: {last_words(printed)}")
        return printed

    def settings(self, **values) -> list:
        """`--set` options; a double underscore stands for the dot."""
        named = [f"{key.replace('__', '.')}={value}" for key, value in values.items()]
        return [part for value in named for part in ("--set", value)]

    def train(self, name: str, ranks: int, *more, config="configs/smoke.toml", device=None,
              seconds=120, resume="never", **settings) -> pathlib.Path:
        """Trains to the end; the run folder."""
        run_dir = self.work / name
        self.run(ranks, self.training(run_dir, ranks, *more, config=config, device=device,
                                      resume=resume, **settings), seconds)
        return run_dir

    def training(self, run_dir, ranks, *more, config="configs/smoke.toml", device=None,
                 resume="never", **settings) -> list:
        values = {"train__device": device or self.device, "metrics__images_every": 0}
        if ranks > 1:
            values |= {"comm__share_gpu": "true", "comm__backend": "nccl"}
        return ["train", "--config", config, "--run-dir", run_dir, "--resume", resume, *more,
                *self.settings(**(values | settings))]

    def json(self, ranks: int, *arguments, seconds: float = 120) -> dict:
        """The JSON object that a command prints last."""
        printed = self.run(ranks, list(arguments), seconds)
        lines = [line for line in printed.splitlines() if line.startswith("{")]
        if not lines:
            raise Failed(f"printed no JSON: {last_words(printed)}")
        return json.loads(lines[-1])

    def script(self, path: pathlib.Path, *arguments, seconds: float = 120, ranks: int = 0) -> dict:
        """The JSON object that a Python script of the peer's prints last."""
        runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks]
        command = [self.python, *(runner if ranks else []), path, *arguments]
        log = open(self.work / "peer.log", "w+")
        process = subprocess.Popen(list(map(str, command)), cwd=ROOT, text=True, stderr=log,
                                   stdout=subprocess.PIPE, start_new_session=True,
                                   env=self.environment)
        # After its last line it has been seen to wait for ever: it is ended there.
        late = threading.Timer(min(seconds, max(1.0, self.left())), end_group, [process])
        late.start()
        found = next((line for line in process.stdout if line.startswith("{")), None)
        late.cancel()
        process.terminate()  # torchrun passes it on to its ranks and waits for them
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            end_group(process)
        if found is None:
            log.seek(0)
            raise Failed(last_words(log.read()) or f"nothing within {seconds:.0f} s")
        return json.loads(found)


def ras_stand_in() -> str:
    """Answers as NCCL's RAS does, as long as this process lives; where."""
    class Answer(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                word = line.split()[0]
                said = {b"CLIENT": b"SERVER PROTOCOL 2\n", b"TIMEOUT": b"OK\n"}.get(word)
                self.wfile.write(said or b"NCCL's stand-in\n\nErrors\n======\n\nWarnings\n========\n\n")
                if not said:
                    return

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_address[1]}"


def output(*command) -> str:
    """What a command prints; nothing if it is not there."""
    try:
        done = subprocess.run(command, text=True, capture_output=True, cwd=ROOT)
    except OSError:
        return ""
    return done.stdout.strip()


def end_group(process: subprocess.Popen):
    """Ends a process and all that it has started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def rows(run_dir: pathlib.Path) -> list:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def last_words(printed: str) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error")] or lines
    words = " / ".join(told[-2:])
    return words if len(words) <= 400 else f"{words[:250]} .. {words[-150:]}"


def torch_libraries(python: str) -> list:
    """Folders of libtorch and of the CUDA libraries that came with it."""
    code = ("import torch, pathlib; at = pathlib.Path(torch.__file__).parent; "
            "print(at / 'lib', *sorted(at.parent.glob('nvidia/*/lib')), sep='\\n')")
    done = subprocess.run([python, "-c", code], text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"error: {python} has no torch: {last_words(done.stderr)}")
    return done.stdout.split()
