#!/usr/bin/env python3
"""Lets clones that share a target folder share what was built there.

Cargo goes by the times of files. A file that is the same in the clone that built last gets the time that it had there, so that what was made
of it counts here too; every other file gets the present time.

  launch/times.py LAST HERE LIST     sets the times of the files of the clone HERE; LAST is the clone that built last. Where LAST is gone, LIST
                                     says what it was, if it is of LAST
  launch/times.py --note HERE LIST   writes LIST of the clone HERE, for when it is gone; only where all of it is committed
"""
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

FOLDERS = ("crates", "tests", "launch", "configs", "docs")


def files(root: pathlib.Path):
    for folder in FOLDERS:
        for path in (root / folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(root), path


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def note(here: pathlib.Path, into: pathlib.Path):
    changed = subprocess.run(["git", "-C", here, "status", "--porcelain"], capture_output=True, check=True).stdout
    if changed:
        into.unlink(missing_ok=True)
        return
    known = {str(name): [digest(path), path.stat().st_mtime_ns] for name, path in files(here)}
    partial = into.with_name(f"{into.name}.{os.getpid()}")
    partial.write_text(json.dumps({"clone": str(here), "files": known}))
    partial.rename(into)


def listed(last: pathlib.Path, from_list: pathlib.Path) -> dict:
    try:
        known = json.loads(from_list.read_text())
    except (OSError, ValueError):
        return {}
    return known["files"] if known["clone"] == str(last) else {}


def share(last: pathlib.Path, here: pathlib.Path, from_list: pathlib.Path):
    now = time.time_ns()
    known = {} if last.is_dir() else listed(last, from_list)
    for name, path in files(here):
        theirs, built = last / name, None
        if theirs.is_file() and theirs.read_bytes() == path.read_bytes():
            built = theirs.stat().st_mtime_ns
        elif str(name) in known and known[str(name)][0] == digest(path):
            built = known[str(name)][1]
        os.utime(path, ns=(now, now if built is None else built))
    from_list.unlink(missing_ok=True)


if __name__ == "__main__":
    if sys.argv[1] == "--note":
        note(*map(pathlib.Path, sys.argv[2:4]))
    else:
        share(*map(pathlib.Path, sys.argv[1:4]))
