#!/usr/bin/env python3
"""Compares `tessera data index` with Python's tarfile and with webdataset, member by member, on archives that GNU tar
makes in each of its formats: long names, names that are not UTF-8, hard and symbolic links, sparse files, several
archives in one, compressed ones. Needs GNU tar, and the packages webdataset and braceexpand (--no-deps).

    TESSERA=target/release/tessera python3 tar_reference.py

Prints what one reads and the other does not; docs/data.md names those differences.
"""
import gzip, io, json, os, pathlib, re, subprocess, sys, tarfile, tempfile, types, zlib

TESSERA = os.environ.get("TESSERA", "tessera")
FORMATS = {
    "v7": [], "oldgnu": [], "ustar": [], "gnu": [], "posix": [],
    "gnu-sparse": ["--sparse"],
    "posix-sparse00": ["--sparse", "--sparse-version=0.0"],
    "posix-sparse01": ["--sparse", "--sparse-version=0.1"],
    "posix-sparse10": ["--sparse", "--sparse-version=1.0"],
}


def webdataset_rules():
    """tariterators.py of webdataset without torch."""
    import importlib.util
    place = pathlib.Path(importlib.util.find_spec("webdataset").origin).parent / "tariterators.py"
    package = types.ModuleType("webdataset")
    package.__path__ = [str(place.parent)]
    for name in ["filters", "gopen"]:
        module = types.ModuleType(f"webdataset.{name}")
        module.pipelinefilter = lambda function: function
        sys.modules[f"webdataset.{name}"] = module
        setattr(package, name, module)
    sys.modules["webdataset"] = package
    spec = importlib.util.spec_from_file_location("webdataset.tariterators", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(name):
    return re.sub("[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xdc00:02x}", name)


def by_tarfile(path):
    found = {}
    with tarfile.open(path, ignore_zeros=True) as tar:
        for member in tar:
            try:
                content = tar.extractfile(member)
            except KeyError:
                continue
            if content is not None:
                found.setdefault(text_of(member.name).removeprefix("./"), []).append(zlib.crc32(content.read()))
    return found


def by_webdataset(rules, path):
    found = {}
    with open(path, "rb") as stream:
        for member in rules.tar_file_iterator(stream):
            if rules.base_plus_ext(member["fname"])[0] is not None:
                name = text_of(member["fname"]).removeprefix("./")
                found.setdefault(name, []).append(zlib.crc32(member["data"]))
    return found


def by_tessera(path, environment):
    run = subprocess.run([TESSERA, "data", "index", path], capture_output=True, text=True, env=environment)
    if run.returncode:
        return run.stderr.strip()
    found = {}
    for sample in json.loads(pathlib.Path(f"{path}.index").read_text())["samples"]:
        for member in sample["members"]:
            name = sample["key"] + ("." if member["extension"] else "") + member["extension"]
            found.setdefault(name, []).append(member["crc32"])
    return found


def difference(reference, found):
    lines = []
    for name in sorted(reference):
        here = found.get(name) or found.get(name.lower()) or []
        if not set(reference[name]) <= set(here):
            lines.append(f"{name[-60:]!r} is not read")
    return lines


def main():
    rules = webdataset_rules()
    work = tempfile.TemporaryDirectory()
    root = pathlib.Path(work.name)
    tree = root / "tree"
    long = tree / ("long" * 20) / ("name" * 20)
    long.mkdir(parents=True)
    (long / "0.png").write_bytes(b"long")
    (tree / "0.png").write_bytes(b"zero")
    (tree / "0.seg.PNG").write_bytes(b"segments")
    os.link(tree / "0.png", tree / "1.png")
    os.symlink("0.png", tree / "2.png")
    os.symlink("nowhere", tree / "3.png")
    os.mkfifo(tree / "4.png")
    (tree / "README").write_bytes(b"words")
    (tree / "._0.png").write_bytes(b"of macOS")
    (tree / ".DS_Store").write_bytes(b"of macOS")
    pathlib.Path(os.fsdecode(os.fsencode(tree) + b"/gr\xfcn.png")).write_bytes(b"latin")
    with open(tree / "holes.png", "wb") as file:
        for at in range(0, 2_000_000, 200_000):
            file.seek(at)
            file.write(b"x" * 700)
        file.truncate(2_100_000)
    environment = os.environ | {"XDG_CACHE_HOME": str(root / "cache")}
    archives = []
    for name, options in FORMATS.items():
        path = root / f"{name}.tar"
        subprocess.run(["tar", f"--format={name.split('-')[0]}", *options, "-cf", path, "-C", tree, "."],
                       stderr=subprocess.DEVNULL)
        archives.append(path)
    (root / "cat.tar").write_bytes((root / "gnu.tar").read_bytes() + (root / "posix.tar").read_bytes())
    (root / "gzip.tar.gz").write_bytes(gzip.compress((root / "gnu.tar").read_bytes()))
    (root / "junk.tar").write_bytes((root / "gnu.tar").read_bytes() + b"junk" * 1000)
    archives += [root / "cat.tar", root / "gzip.tar.gz", root / "junk.tar"]
    for path in archives:
        found = by_tessera(path, environment)
        if isinstance(found, str):
            print(f"{path.name}: {found}")
            continue
        try:
            reference = by_tarfile(path)
        except tarfile.ReadError as error:
            print(f"{path.name}: tarfile says {error}")
            reference = {}
        for reader, reference in [("tarfile", reference), ("webdataset", by_webdataset(rules, path))]:
            lines = difference(reference, found)
            number = sum(len(all) for all in reference.values())
            print(f"{path.name}: of {number} members that {reader} reads {len(lines)} differ {' '.join(lines)}")
        print(f"{path.name}: {sum(len(all) for all in found.values())} members are read")


main()
