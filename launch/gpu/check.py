#!/usr/bin/env python3
"""What launch/gpu-check.sh runs: one table and one JSON file of everything that needs a GPU.

Each section stands for itself: one that fails, or for which no time is left, says so in its rows
and the others go on. Nothing is estimated: what was not measured is called that. Sections that measure
nothing (right.py) run side by side, since the device's time is dear; then those that do (speed.py), one by one.
"""
import argparse, concurrent.futures, datetime, json, os, pathlib, platform, sys, time

import machine, right, speed
from machine import Machine, output
from table import BAD, NONE, Table


def wanted(args, name: str) -> bool:
    return not args.only or name in args.only


def checked(m: Machine, args, name: str, check) -> list:
    """The rows of one check."""
    table = Table(args.dry_run, args.out)
    try:
        if m.left() < 20:
            table.add(name, "no time left", NONE)
        else:
            check(m, table)
    except Exception as failure:  # whatever it is: the other sections are worth having
        what = " ".join(getattr(check, "args", ()) and [str(check.args[0])])
        table.add(f"{name} {what}".strip(), f"{type(failure).__name__}: {failure}", BAD)
    return table.rows


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
    parser.add_argument("--only", nargs="+", choices=[*right.SECTIONS, *speed.SECTIONS])
    parser.add_argument("--jobs", type=int, help="what may run side by side, of what is no measurement (default: cores / 2)")
    parser.add_argument("--dry-run", action="store_true",
                        help="everything but the device: the CPU, and a stand-in for NCCL")
    args = parser.parse_args()
    for program in ("tessera", "tessera-worker"):
        if not (args.bin / program).is_file():
            parser.error(f"{args.bin} has no {program}: cargo build --release -p tessera-cli "
                         "-p tessera-worker")
    args.out.mkdir(parents=True, exist_ok=True)

    m, start = Machine(args), time.monotonic()
    jobs = [(name, check) for name, checks in right.SECTIONS.items() if wanted(args, name) for check in checks]
    side_by_side = args.jobs or (1 if args.dry_run else max(1, os.cpu_count() // 2))
    with concurrent.futures.ThreadPoolExecutor(side_by_side) as pool:
        begun = [pool.submit(checked, m.job(number), args, name, check) for number, (name, check) in enumerate(jobs)]
    found = [row for job in begun for row in job.result()]
    for name, check in speed.SECTIONS.items():
        if wanted(args, name):
            found += checked(m, args, name, check)
    minutes = (time.monotonic() - start) / 60

    today = datetime.date.today().isoformat()
    kind = "dry run" if args.dry_run else "measured"
    about = {"date": today, "kind": kind, "commit": args.commit or "-", "minutes": round(minutes, 1),
             "machine": f"{platform.machine()}, {os.cpu_count()} cores",
             "python": platform.python_version()}
    figures = json.dumps(about | {"rows": found}, indent=1).replace(str(args.out.resolve()), "OUT")
    (args.out / f"gpu-{today}.json").write_text(figures + "\n")
    lines = [f"# GPU check, {today} ({kind})", ""]
    if args.dry_run:
        lines += ["No GPU: everything but the device was done, on the CPU with a stand-in for NCCL. "
                  "Rows that say ok show that the script and the program work; no figure of a GPU "
                  "was measured.", ""]
    lines += [f"- {key}: {value}" for key, value in about.items()]
    lines += ["", "| check | status | result |", "|---|---|---|"]
    lines += [f"| {row['check']} | {row['status']} | {row['result']} |" for row in found]
    page = "\n".join(lines) + "\n"
    (args.out / f"gpu-{today}.md").write_text(page)
    print(page)
    sys.exit(1 if any(row["status"] == BAD for row in found) else 0)


if __name__ == "__main__":
    main()
