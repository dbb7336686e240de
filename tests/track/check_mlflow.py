"""`tessera track --to mlflow` with kills of it and of a real server: every metric once.

    python tests/track/check_mlflow.py TESSERA [RUN]      (needs mlflow)
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import kills
import make_run


class Server:
    def __init__(self, work):
        self.work = work
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        mlflow = pathlib.Path(sys.executable).with_name("mlflow")
        command = [mlflow, "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.work}/mlflow.db"]
        command += ["--artifacts-destination", self.work / "artifacts"]
        path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = dict(os.environ, MLFLOW_DISABLE_TELEMETRY="true", PATH=path)
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # a dozen processes that nothing here needs
        log = open(self.work / "server.log", "a")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        for _ in range(3000):
            try:
                urllib.request.urlopen(f"{self.url}/health").read()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.work / "server.log").read_text())

    def kill(self):
        os.killpg(self.process.pid, 9)
        self.process.wait()


def metrics(work, run_id):
    import sqlite3

    base = sqlite3.connect(work / "mlflow.db")
    query = "select key, step, value, is_nan from metrics where run_uuid = ?"
    return sorted((key, step, "NaN" if nan else value) for key, step, value, nan in base.execute(query, [run_id]))


def expected(run):
    wanted = []
    for name, part in [("metrics.jsonl", "train"), ("eval.jsonl", "eval")]:
        for line in (run / name).read_text().splitlines():
            row = json.loads(line)
            for key, value in row.items():
                speed = key in ("samples_per_second", "step_ms", "comm_ms", "data_wait_ms") and part == "train"
                group = "speed" if speed else "memory" if key in ("memory_mib", "gpu_memory_mib") else part
                key = f"{group}/{key}"
                values = value if isinstance(value, list) else None
                if key.endswith("/step") or isinstance(value, str):
                    continue
                if values is None:
                    wanted.append((key, row["step"], "NaN" if value is None else float(value)))
                else:
                    for place, number in enumerate(values):
                        if not isinstance(number, list):
                            wanted.append((f"{key}/{place}", row["step"], "NaN" if number is None else float(number)))
    return sorted(wanted)


def the_run(server, run):
    body = {"experiment_ids": [experiment(server)], "max_results": 100}
    runs = call(server, "runs/search", body)["runs"]
    runs = [found for found in runs if found["info"]["run_name"] == run.name]
    assert len(runs) == 1, [found["info"] for found in runs]
    return runs[0]


def experiment(server):
    url = f"{server.url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=tests"
    return json.load(urllib.request.urlopen(url))["experiment"]["experiment_id"]


def call(server, name, body):
    request = urllib.request.Request(f"{server.url}/api/2.0/mlflow/{name}", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    return json.load(urllib.request.urlopen(request))


def check(server, run):
    found = the_run(server, run)
    run_id = found["info"]["run_id"]
    # As text: a NaN is equal to nothing.
    has, wanted = metrics(server.work, run_id), expected(run)
    assert len(has) == len(wanted), (len(has), len(wanted))
    for one, other in zip(has, wanted):
        assert one == other, (one, other)
    params = {param["key"]: param["value"] for param in found["data"]["params"]}
    url = f"{server.url}/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=reconstructions"
    pictures = json.load(urllib.request.urlopen(url)).get("files", [])
    if (run / "model").is_dir() and found["info"]["status"] == "FINISHED":
        url = f"{server.url}/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=model"
        sent = {file["path"]: file["file_size"] for file in json.load(urllib.request.urlopen(url))["files"] if not file["is_dir"]}
        assert sent == {f"model/{path.name}": path.stat().st_size for path in (run / "model").iterdir() if path.is_file()}, sent
    assert len(pictures) == len(list((run / "reconstructions").glob("*.*"))), pictures
    for picture in pictures:
        size = (run / picture["path"]).stat().st_size
        assert picture["file_size"] == size, picture
    return found["info"]["status"], params, len(has), len(pictures)


def main():
    tessera = sys.argv[1]
    work = pathlib.Path(tempfile.mkdtemp())
    server = Server(work)
    command = [tessera, "track", "--to", "mlflow", "--project", "tests", "--uri", server.url]
    quiet = dict(os.environ, RUST_LOG="warn")
    try:
        if len(sys.argv) > 2:
            run = pathlib.Path(sys.argv[2])
            shutil.rmtree(run / "track", ignore_errors=True)
            number, _ = kills.until_done([*command, run], quiet, 1, 0.0, 0.4)
            status, params, num, pictures = check(server, run)
            print(f"{run.name}: {number} kills, {num} metrics and {pictures} pictures once, {len(params)} parameters, {status}")
            return
        run = work / "small"
        make_run.write(run, 1000, "running", 700)
        number, _ = kills.until_done([*command, run], quiet, 2, 0.0, 0.3)
        make_run.write(run, 2000, "done", 2000)
        more, _ = kills.until_done([*command, run], quiet, 3, 0.0, 0.3)
        status, params, num, pictures = check(server, run)
        assert status == "FINISHED" and params["train.steps"] == "1000000" and params["seed"] == "7", params
        print(f"small: {number + more} kills, {num} metrics and {pictures} pictures once, {status}")
        # The server is killed and started again while rows are sent, and the sender too.
        run = work / "large"
        rows = int(os.environ.get("ROWS", 100_000))
        make_run.write(run, rows * 10, "done", rows * 10)
        follow = [*command, "--follow", "--timeout", "20", run]
        begun, server_kills, sender_kills = time.time(), 0, 0
        sender = subprocess.Popen(follow, env=quiet)
        while sender.poll() is None:
            try:
                sender.wait(timeout=4)
            except subprocess.TimeoutExpired:
                if server_kills <= sender_kills and server_kills < 6:
                    server.kill()
                    server_kills += 1
                    time.sleep(1)
                    server.start()
                elif sender_kills < 6:
                    sender.kill()
                    sender.wait()
                    sender_kills += 1
                    sender = subprocess.Popen(follow, env=quiet)
        assert sender.returncode == 0
        seconds = time.time() - begun
        status, _, num, pictures = check(server, run)
        print(
            f"large: {rows} rows, {server_kills} kills of the server and {sender_kills} of the sender in {seconds:.0f} s:"
            f" {num} metrics and {pictures} pictures once, {status}"
        )
    finally:
        server.kill()
        shutil.rmtree(work)


main()
