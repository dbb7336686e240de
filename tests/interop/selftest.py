#!/usr/bin/env python3
"""That check.py accepts the original models of originals.py, and no model that is not theirs.

    python tests/interop/selftest.py OUT [NAME ...]         OUT as originals.py left it

Each original is checked against its own reference; then with a codebook, a convolution or a tensor's name spoilt, and
against codes or decoded samples that are not its own. TorchScript and ONNX files are made of plain_vqgan.py. Most
run in this process, since the libraries take seconds to import.
"""
import json, os, pathlib, shutil, subprocess, sys, tempfile

import check
import torch
from plain_vqgan import Vqgan, taming_names
from safetensors.torch import load_file, save_file

FORMATS = {"diffusers": "diffusers", "diffusers-groups": "diffusers", "diffusers-tiny": "diffusers", "taming": "taming",
           "llamagen": "llamagen", "llamagen-plain-codes": "llamagen", "encodec": "transformers", "encodec-centered": "transformers", "dac": "transformers"}
CODEBOOKS = ("quantize.embedding.weight", "quantizer.layers.0.codebook.embed", "quantizer.quantizers.0.codebook.weight")
COUNTS = {"passed": 0, "failed": 0}


def expect(wanted: bool | str, name: str, folder: pathlib.Path, reference: dict, kind: str) -> None:
    """That the check is ok, is not, or refuses the export with a line that has `wanted` in it."""
    try:
        result = check.check(kind, folder, reference, None)
        found, told = result["ok"], json.dumps(result)
    except Exception as error:
        found = told = str(error).splitlines()[0]
    fits = found is wanted if isinstance(wanted, bool) else isinstance(found, str) and wanted in found
    count(fits, name, told)


def count(fits: bool, name: str, told: str) -> None:
    COUNTS["passed" if fits else "failed"] += 1
    print(f"{'ok' if fits else 'FAILED'}  {name}: {told}")


def weights(folder: pathlib.Path) -> pathlib.Path:
    return next(path for path in (folder / "diffusion_pytorch_model.safetensors", folder / "model.safetensors") if path.exists())


def export_of(original: pathlib.Path, target: pathlib.Path, change=lambda tensors: None) -> pathlib.Path:
    """A copy of the original with `change` made to its tensors, in a safetensors file where it was a pickle."""
    shutil.copytree(original, target, ignore=shutil.ignore_patterns("*.pt", "*.ckpt", "reference.safetensors"))
    pickles = [*original.glob("*.pt"), *original.glob("*.ckpt")]
    tensors = check.vqgan_tensors(original) if pickles else load_file(weights(original))
    change(tensors)
    path = target / "model.safetensors" if pickles else weights(target)
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, path, {"format": "pt"})
    return target


def swap_codes(tensors: dict) -> None:
    for name in CODEBOOKS:
        if name in tensors:
            tensors[name] = tensors[name].roll(1, 0)


def move_decoder(tensors: dict) -> None:
    """The last bias by 1e-4 of the range, ten times the limit."""
    name = max((name for name in tensors if name.startswith("decoder") and name.endswith("bias") and len(tensors[name]) in (1, 3)), key=len)
    tensors[name] = tensors[name] + 2e-4


def rename_one(tensors: dict) -> None:
    name = next(name for name in tensors if name.startswith("encoder") and name.endswith("bias"))
    tensors[f"{name}_"] = tensors.pop(name)


def twice(original: pathlib.Path, target: pathlib.Path, reference: dict) -> tuple[pathlib.Path, dict]:
    """An export where a code that nothing takes is made a copy of one in use, and a reference that takes the higher of
    the two, which the library does not: near-ties all of them."""
    codes = reference["codes"].clone()
    first_level = codes[:, : reference["latents"][0, 0].numel()]
    used = first_level.flatten().mode().values.item()
    unused = min(set(range(64)) - set(first_level.flatten().tolist()))

    def copy_code(tensors: dict) -> None:
        for name in CODEBOOKS:
            if name in tensors:
                tensors[name][unused] = tensors[name][used]

    first_level[first_level == used] = max(used, unused)
    return export_of(original, target, copy_code), reference | {"codes": codes}


class Encoder(torch.nn.Module):
    def __init__(self, network: Vqgan):
        super().__init__()
        self.network = network

    def forward(self, samples):
        return self.network.nearest(self.network.latents(samples)).flatten(1)


class Decoder(torch.nn.Module):
    def __init__(self, network: Vqgan, side: int):
        super().__init__()
        self.network, self.side = network, side

    def forward(self, indices):
        return self.network.decode(self.network.vectors(indices.reshape(-1, self.side, self.side)))


def write_files(original: pathlib.Path, target: pathlib.Path, kind: str) -> pathlib.Path:
    target.mkdir()
    network, reference = Vqgan(taming_names(check.vqgan_tensors(original))), load_file(original / "reference.safetensors")
    modules = {"encoder": (Encoder(network), reference["inputs_float"], "samples", "indices"),
               "decoder": (Decoder(network, reference["latents"].shape[-1]), reference["codes"], "indices", "samples")}
    suffix = {"torchscript": "ts", "onnx": "onnx"}[kind]
    for part, (module, sample, source, result) in modules.items():
        if kind == "torchscript":
            torch.jit.trace(module, sample[:2]).save(target / f"{part}.ts")
        else:
            torch.onnx.export(module, (sample[:2],), target / f"{part}.onnx", dynamo=False, opset_version=17, input_names=[source],
                              output_names=[result], dynamic_axes={source: {0: "n"}, result: {0: "n"}})
    config = {"encoder": f"encoder.{suffix}", "decoder": f"decoder.{suffix}", "samples": {"range": [-1.0, 1.0]}}
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_original(name: str, original: pathlib.Path, work: pathlib.Path) -> None:
    kind, reference = FORMATS[name], load_file(original / "reference.safetensors")
    expect(True, f"{name} as it is", original, reference, kind)
    for spoilt, change in {"codes in another order": swap_codes, "the last bias moved": move_decoder}.items():
        expect(False, f"{name}, {spoilt}", export_of(original, work / f"{name}-{change.__name__}", change), reference, kind)
    plain = kind in ("taming", "llamagen") and not os.environ.get({"taming": "TAMING_ROOT", "llamagen": "LLAMAGEN_ROOT"}[kind])
    renamed = export_of(original, work / f"{name}-renamed", rename_one)
    expect("bias" if plain else "tensors", f"{name}, a tensor renamed", renamed, reference, kind)
    codes = reference["codes"].clone()
    codes[3, 1] = (codes[3, 1] + 1) % 64
    expect(False, f"{name}, one other code", original, reference | {"codes": codes}, kind)
    without = {key: value for key, value in reference.items() if key not in ("inputs_float", "decoded_float")}
    expect(True, f"{name} by raw samples alone", original, without, kind)
    decoded = reference["decoded"].clone()
    # Of sound's 65,536 steps one is 1.5e-5 of the range, and half of it is rounding.
    decoded[2, 1] += 2
    expect(False, f"{name}, decoded samples two steps off", original, without | {"decoded": decoded}, kind)
    expect(True, f"{name}, a code that is there twice", *twice(original, work / f"{name}-twice", reference), kind)


class Harmful:
    """Pickled, it asks its reader to make a folder."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_unpickle(work: pathlib.Path) -> None:
    """That launch/interop/unpickle.py runs nothing, and writes the tensors alone."""
    program, target = check.ROOT / "launch" / "interop" / "unpickle.py", work / "out.safetensors"
    tensors = {"encoder.weight": torch.ones(2), "tied": torch.ones(2), "loss.weight": torch.ones(1)}
    tensors["tied"] = tensors["encoder.weight"]
    cases = {"plain": ({"state_dict": tensors}, 0), "harmful": ({"state_dict": tensors, "other": Harmful(work / "made")}, 1),
             "without tensors": ({"epoch": 1}, 1)}
    for name, (content, code) in cases.items():
        torch.save(content, work / "in.ckpt")
        target.unlink(missing_ok=True)
        run = subprocess.run([sys.executable, str(program), str(work / "in.ckpt"), str(target)], capture_output=True, text=True)
        written = sorted(load_file(target)) if target.exists() else []
        fits = run.returncode == code and not (work / "made").exists() and written == ([] if code else ["encoder.weight", "tied"])
        count(fits and (code == 0 or run.stderr.startswith("error: ") and run.stderr.count("\n") == 1),
              f"unpickle, {name}", f"exit code {run.returncode}, {written} {run.stderr.strip()}")


def main() -> None:
    out, names = pathlib.Path(sys.argv[1]), sys.argv[2:] or list(FORMATS)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for name in names:
            if not (out / name).is_dir():
                print(f"{name}: left out, since {out / name} is not there")
                continue
            test_original(name, out / name, work)
            variable = {"taming": "TAMING_ROOT", "llamagen": "LLAMAGEN_ROOT"}.get(FORMATS[name])
            if root := os.environ.pop(variable or "", None):
                test_original(name, out / name, pathlib.Path(tempfile.mkdtemp(dir=work)))
                os.environ[variable] = root
        if "taming" in names and (out / "taming").is_dir():
            reference = load_file(out / "taming" / "reference.safetensors")
            for kind in ("torchscript", "onnx"):
                folder = write_files(out / "taming", work / kind, kind)
                expect(True, kind, folder, reference, kind)
                codes = reference["codes"].roll(1, 0)
                expect(False, f"{kind}, other codes", folder, reference | {"codes": codes}, kind)
                (folder / "README.md").write_text("# no card\n")
                expect(False, f"{kind} with a README.md that is no card", folder, reference, kind)
                (folder / "decoder.onnx").write_bytes(b"\x08\x09")
                if kind == "onnx":
                    expect("", "onnx, a decoder without a graph", folder, reference, kind)
        program = [sys.executable, str(pathlib.Path(check.__file__)), "diffusers", str(work), str(work)]
        run = subprocess.run(program, capture_output=True, text=True)
        fits = run.returncode == 2 and run.stderr.startswith("error: ") and run.stderr.count("\n") == 1 and not run.stdout
        count(fits, "no reference", f"exit code {run.returncode}, {run.stderr.strip()}")
        test_unpickle(work)
    print(f"{COUNTS['passed']} passed, {COUNTS['failed']} failed")
    sys.exit(COUNTS["failed"] > 0)


if __name__ == "__main__":
    main()
