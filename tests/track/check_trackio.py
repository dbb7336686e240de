"""The table of `tessera track --to trackio` through the program beside it: every row once.

    python tests/track/check_trackio.py TESSERA      (needs trackio)
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import make_run


def main():
    work = pathlib.Path(tempfile.mkdtemp())
    run = work / "small"
    make_run.write(run, 2000, "done", 2000)
    environment = dict(os.environ, TRACKIO_DIR=str(work / "trackio"))
    command = [sys.argv[1], "track", "--to", "trackio", "--project", "tests", run]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    program = re.search(r"; `python (.*)` takes it", done.stdout).group(1)
    subprocess.run([sys.executable, program], env=environment, check=True)
    os.environ["TRACKIO_DIR"] = str(work / "trackio")
    from trackio.sqlite_storage import SQLiteStorage

    logs = SQLiteStorage.get_logs("tests", "small")
    by_step = {log["step"]: log for log in logs}
    assert len(logs) == len(by_step) == 200, len(logs)
    for row in make_run.rows(2000):
        found = by_step[row["step"]]
        assert found["train/codes_used"] == row["codes_used"], found
        assert row["loss"] is None or found["train/loss"] == row["loss"], found
    for row in make_run.evaluations(2000):
        assert by_step[row["step"]]["eval/psnr"] == row["psnr"]
    print(f"trackio: {len(logs)} rows once")


main()
