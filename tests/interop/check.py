#!/usr/bin/env python3
"""Opens what `tessera export` wrote with the library that it is for, and compares it with what Tessera computes.

    python tests/interop/check.py FORMAT EXPORT_DIR REFERENCE_DIR [--range LOW HIGH]

FORMAT is diffusers, taming, llamagen, transformers, torchscript or onnx. REFERENCE_DIR/reference.safetensors has
`samples` (uint8 [N, H, W, C] or [N, T, H, W, C], or int16 [N, T, C]), `codes` (int64 [N, tokens], the level outermost, rows
one after another), `decoded` (raw as the samples) and, where they are known, `inputs_float` and `decoded_float` (channels
first, in the model's own range), `latents` [N, D, positions...] and `table` [K, D], what they are compared with.

The library encodes the samples in batches of 5 and 1, and decodes Tessera's codes. Prints one line of JSON. Exit code 0:
indices are equal but for near-ties, decoded values within 1e-5 of the range; 1: they are not; 2: the export or the
reference cannot be read. No connection is made: opening one raises.

taming and llamagen run the original classes where TAMING_ROOT or LLAMAGEN_ROOT names a checkout of the sources, and
else tests/interop/plain_vqgan.py.
"""
import argparse, contextlib, io, json, os, pathlib, socket, sys, warnings

os.environ |= {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "critical"}
warnings.simplefilter("ignore")
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "interop"), str(ROOT / "launch" / "interop")]


def refuse(*arguments, **named):
    raise OSError("the checkers work offline; something tried to open a connection")


socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from plain_vqgan import Vqgan, taming_names

# Of the width of the range: float32 through a deep network, whose sums other kernels form in another order.
LIMIT = 1e-5
# A difference of indices counts as a near-tie if the other code is farther by at most this part of the distance, or of
# the squared lengths that the distance is computed from.
NEAR, ROUNDING = 1e-4, 1e-6
# Where a format does not show its latents, so many indices may differ; near-ties are rarer.
HIDDEN_TIES = 0.002


class BadExport(Exception):
    """The export or the reference is not what it should be."""


def read_json(path: pathlib.Path) -> dict:
    if not path.is_file():
        raise BadExport(f"there is no {path}")
    return json.loads(path.read_text())


class Pictures:
    """A VQGAN in whatever library, which gives `latents`, `nearest`, `decode_codes` and `table`, the codebook."""

    range = (-1.0, 1.0)

    def encode(self, inputs):
        latents = self.latents(inputs)
        self.grid = latents.shape[2:]
        return self.nearest(latents).flatten(1)

    def decode(self, codes, shape):
        return self.decode_codes(codes.reshape(-1, *self.grid))

    def distances(self, inputs, codes):
        """Squared distances of each token's latent to each code, and what rounding is relative to."""
        latents, table = self.latents(inputs).flatten(2).transpose(1, 2), self.table()
        if self.normalized:
            latents, table = F.normalize(latents, dim=-1), F.normalize(table, dim=-1)
        yield torch.cdist(latents.double(), table.double()[None]).square(), latents.double().square().sum(-1)


class Diffusers(Pictures):
    normalized = False

    def __init__(self, folder: pathlib.Path):
        from diffusers import VQModel

        self.model, loading = VQModel.from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)
        complain(loading)
        self.model.eval().register_to_config(lookup_from_codebook=True)

    def table(self):
        return self.model.quantize.embedding.weight

    def latents(self, inputs):
        return self.model.encode(inputs).latents

    def nearest(self, latents):
        return self.model.quantize(latents)[2][2].reshape(len(latents), -1)

    def decode_codes(self, codes):
        shape = (*codes.shape, self.table().shape[1])
        return self.model.decode(codes.flatten(), force_not_quantize=True, shape=shape).sample


class Original(Pictures):
    """taming's or LlamaGen's own class. `shape_of`: the shape that its look-up wants, of batch, height, width and channels."""

    def __init__(self, model, tensors: dict, normalized: bool, shape_of):
        missing, extra = model.load_state_dict(tensors, strict=False)
        complain({"missing": [name for name in missing if not name.startswith("loss.")], "unexpected": extra})
        self.model, self.normalized, self.shape_of = model.eval(), normalized, shape_of

    def table(self):
        return self.model.quantize.embedding.weight

    def latents(self, inputs):
        return self.model.quant_conv(self.model.encoder(inputs))

    def nearest(self, latents):
        return self.model.quantize(latents)[2][2].reshape(len(latents), -1)

    def decode_codes(self, codes):
        shape = self.shape_of(*codes.shape, self.table().shape[1])
        return self.model.decode(self.model.quantize.get_codebook_entry(codes.flatten(), shape))


class Plain(Pictures):
    def __init__(self, tensors: dict, groups: int, normalized: bool):
        self.model, self.normalized = Vqgan(taming_names(tensors), groups, normalized), normalized

    def table(self):
        return self.model.codes_kd

    def latents(self, inputs):
        return self.model.latents(inputs)

    def nearest(self, latents):
        return self.model.nearest(latents)

    def decode_codes(self, codes):
        pictures = self.model.decode(self.model.vectors(codes))
        if unused := self.model.unused():
            raise BadExport(f"tensors that a VQGAN does not have: {', '.join(unused[:4])}")
        return pictures


def vqgan_tensors(folder: pathlib.Path) -> dict:
    for name in ("model.safetensors", "model.ckpt", "model.pt"):
        path = folder / name
        if path.is_file() and path.suffix == ".safetensors":
            return {name: value for name, value in load_file(path).items() if not name.startswith("loss.")}
        if path.is_file():
            from unpickle import read, tensors_of

            return tensors_of(read(path), path)
    raise BadExport(f"there is no model.safetensors, model.ckpt or model.pt in {folder}")


def open_taming(folder: pathlib.Path):
    import yaml

    path = folder / "config.yaml"
    if not path.is_file():
        raise BadExport(f"there is no {path}")
    params = yaml.safe_load(path.read_text())["model"]["params"]
    tensors, groups = vqgan_tensors(folder), params["ddconfig"].get("norm_num_groups", 32)
    if not os.environ.get("TAMING_ROOT") or groups != 32:
        return Plain(tensors, groups, normalized=False)
    from originals import taming_class

    with contextlib.redirect_stdout(io.StringIO()):
        model = taming_class()(params["ddconfig"], {}, params["n_embed"], params["embed_dim"])
    return Original(model, tensors, normalized=False, shape_of=lambda n, h, w, d: (n, h, w, d))


def open_llamagen(folder: pathlib.Path):
    config, tensors = read_json(folder / "config.json"), vqgan_tensors(folder)
    groups, normalized = config.get("norm_num_groups", 32), config.get("codebook_l2_norm", True)
    if not os.environ.get("LLAMAGEN_ROOT") or groups != 32:
        return Plain(tensors, groups, normalized)
    from originals import llamagen_module

    blocks = 1 + max(int(name.split(".")[4]) for name in tensors if name.startswith("encoder.conv_blocks.0.res."))
    module = llamagen_module(tensors["encoder.conv_in.weight"].shape[0], blocks)
    known = module.ModelArgs.__dataclass_fields__
    model = module.VQModel(module.ModelArgs(**{key: value for key, value in config.items() if key in known}))
    return Original(model, tensors, normalized, shape_of=lambda n, h, w, d: (n, d, h, w))


def check_pickle(kind: str, folder: pathlib.Path) -> None:
    """The file that the program's own loader opens has the tensors of model.safetensors, bit for bit."""
    name, key = {"taming": ("last.ckpt", "state_dict"), "llamagen": ("model.pt", "model")}[kind]
    pickled = torch.load(folder / name, map_location="cpu", weights_only=True)[key]
    mapped = torch.load(folder / name, map_location="cpu", weights_only=True, mmap=True)[key]
    plain = load_file(folder / "model.safetensors")
    for other in (pickled, mapped):
        if other.keys() != plain.keys() or not all(torch.equal(other[name], value) for name, value in plain.items()):
            raise BadExport(f"{name} does not have the tensors of model.safetensors")


class Transformers:
    """EncodecModel or DacModel, by the config's `model_type`."""

    range = (-1.0, 1.0)

    def __init__(self, folder: pathlib.Path):
        from transformers import AutoFeatureExtractor, AutoModel

        with contextlib.redirect_stderr(io.StringIO()):
            self.model, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
        complain(loading)
        self.model.eval()
        self.config = self.model.config
        if self.config.model_type not in ("encodec", "dac"):
            raise BadExport(f"model_type is {self.config.model_type}; encodec or dac was expected")
        self.extractor = None
        if (folder / "preprocessor_config.json").is_file():
            self.extractor = AutoFeatureExtractor.from_pretrained(folder)

    def encode(self, inputs):
        if self.extractor is not None:
            # One sound through the library's own preparation, which is to leave it as it is.
            prepared = self.extractor(inputs[0, 0].numpy(), sampling_rate=self.config.sampling_rate, return_tensors="pt")["input_values"]
            if not torch.equal(prepared.reshape(-1)[: inputs.shape[-1]], inputs[0, 0]):
                raise BadExport("the feature extractor changes the samples")
        if self.config.model_type == "dac":
            return self.model.encode(inputs).audio_codes.flatten(1)
        # Without a bandwidth it would take the first, which may be that of fewer levels.
        encoded = self.model.encode(inputs, bandwidth=self.config.target_bandwidths[-1])
        if encoded.audio_codes.shape[0] != 1:
            raise BadExport("the model splits sounds into pieces (chunk_length_s)")
        return encoded.audio_codes[0].flatten(1)

    def levels(self) -> int:
        return self.config.n_codebooks if self.config.model_type == "dac" else self.model.quantizer.num_quantizers

    def default_levels(self) -> int:
        """How many levels `encode(samples)` gives to one who sets nothing."""
        if self.config.model_type == "dac":
            return self.levels()
        return self.model.quantizer.get_num_quantizers_for_bandwidth(self.config.target_bandwidths[0])

    def decode(self, codes, shape):
        codes, length = codes.reshape(len(codes), self.levels(), -1), shape[0]
        if self.config.model_type == "dac":
            return self.model.decode(audio_codes=codes).audio_values[:, None, :length]
        mask = torch.ones(len(codes), self.config.audio_channels, length, dtype=torch.bool)
        return self.model.decode(codes[None], [None], mask).audio_values

    def distances(self, inputs, codes):
        residual = self.model.encoder(inputs)
        codes = codes.reshape(len(codes), self.levels(), -1)
        for level in range(self.levels()):
            if self.config.model_type == "dac":
                part = self.model.quantizer.quantizers[level]
                latents, table = F.normalize(part.in_proj(residual)), F.normalize(part.codebook.weight)
                taken = part.out_proj(part.codebook(codes[:, level]).transpose(1, 2))
            else:
                part = self.model.quantizer.layers[level]
                latents, table = residual, part.codebook.embed
                taken = part.decode(codes[:, level])
            latents = latents.transpose(1, 2).double()
            yield torch.cdist(latents, table.double()[None]).square(), latents.square().sum(-1)
            residual = residual - taken


class Files:
    """An encoder and a decoder in a file each: TorchScript or ONNX. They show no latents; where the reference has `latents`
    and their `table` of codes, those tell near-ties. Several quantised levels have indices each."""

    given = None

    def __init__(self, folder: pathlib.Path):
        self.config = read_json(folder / "config.json")
        for part in ("encoder", "decoder"):
            if part not in self.config or not (folder / self.config[part]).is_file():
                raise BadExport(f"config.json names no file of the {part} that is there")
        self.range = tuple(self.config["samples"]["range"])
        self.encoder, self.decoder = (self.open(folder / self.config[part]) for part in ("encoder", "decoder"))

    def encode(self, inputs):
        levels = self.call(self.encoder, [inputs])
        for codes in levels:
            if codes.dtype != torch.int64 or codes.dim() < 2 or len(codes) != len(inputs):
                raise BadExport(f"the encoder gives {codes.dtype} {list(codes.shape)}; int64 [{len(inputs)}, ...] was expected")
        self.grids = [codes.shape[1:] for codes in levels]
        return torch.cat([codes.flatten(1) for codes in levels], 1)

    def distances(self, inputs, codes):
        latents, table = self.given["latents"].flatten(2).transpose(1, 2).double(), self.given["table"].double()
        yield torch.cdist(latents, table[None]).square(), latents.square().sum(-1)

    def decode(self, codes, shape):
        parts = codes.split([grid.numel() for grid in self.grids], 1)
        return self.call(self.decoder, [part.reshape(-1, *grid) for part, grid in zip(parts, self.grids)])[0]


class TorchScript(Files):
    def open(self, path: pathlib.Path):
        return torch.jit.load(path).eval()

    def call(self, network, tensors):
        return [network(*tensors)]


class Onnx(Files):
    def open(self, path: pathlib.Path):
        import onnx, onnxruntime

        onnx.checker.check_model(path, full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [[part.name for part in ends] for ends in (session.get_inputs(), session.get_outputs())]
        levels = [level["name"] for level in self.config.get("levels", [{"name": "indices"}])]
        if names not in ([["samples"], levels], [levels, ["samples"]]):
            raise BadExport(f"{path.name} leads from {names[0]} to {names[1]}; samples and {levels} were expected")
        return session

    def call(self, network, tensors):
        given = {part.name: tensor.contiguous().numpy() for part, tensor in zip(network.get_inputs(), tensors)}
        return [torch.from_numpy(values) for values in network.run(None, given)]


OPENERS = {"diffusers": Diffusers, "taming": open_taming, "llamagen": open_llamagen, "transformers": Transformers,
           "torchscript": TorchScript, "onnx": Onnx}


def complain(loading: dict) -> None:
    """The libraries initialise a missing tensor at random and only warn."""
    for kind, names in loading.items():
        if names:
            named = ", ".join(sorted(str(name) for name in list(names))[:4])
            raise BadExport(f"{len(names)} tensors: {kind.replace('_', ' ')}: {named}")


def batches(num: int):
    """Slices of 5 and 1 in turn: sizes that Tessera did not compute with."""
    start, size = 0, 5
    while start < num:
        yield slice(start, min(start + size, num))
        start, size = start + size, 6 - size


def near_ties(model, inputs, ours, theirs) -> int:
    """How many of the differing indices are near-ties, or follow one on an earlier level of their position."""
    excused_before, excused = None, 0
    for level, (distances, lengths) in enumerate(model.distances(inputs, ours)):
        positions = distances.shape[1]
        part = slice(level * positions, (level + 1) * positions)
        mine, other = ours[:, part], theirs[:, part]
        taken = [distances.gather(2, codes[..., None])[..., 0] for codes in (mine, other)]
        near = (taken[0] - taken[1]).abs() <= NEAR * taken[1] + ROUNDING * lengths
        here = (mine != other) & (near if excused_before is None else near | excused_before)
        excused_before = here if excused_before is None else excused_before | here
        excused += int(here.sum())
    return excused


def to_inputs(samples, low: float, high: float):
    if samples.dtype == torch.uint8:
        return (samples.movedim(-1, 1).float() / 255 * (high - low) + low).contiguous()
    return (samples.movedim(-1, 1).float() / 32768).contiguous()


def difference(values, reference: dict, low: float, high: float) -> tuple[float, float]:
    """The largest differences from the decoded floats and from the raw ones beyond rounding, in widths of the range."""
    raw = reference["decoded"].movedim(-1, 1).double()
    exact = values.double()
    if raw.shape != exact.shape:
        raise BadExport(f"decoding gives {list(exact.shape)}, Tessera {list(raw.shape)} (channels first)")
    if reference["decoded"].dtype == torch.uint8:
        steps, scaled = 255, ((exact - low) / (high - low)).clamp(0, 1) * 255
    else:
        steps, scaled = 65536, (exact * 32768).clamp(-32768, 32767)
    from_raw = float(((scaled - raw).abs() - 0.5).max().clamp(min=0)) / steps
    if "decoded_float" not in reference:
        return from_raw, from_raw
    return float((exact - reference["decoded_float"].double()).abs().max()) / (high - low), from_raw


def card_fits(folder: pathlib.Path) -> bool | None:
    """Whether README.md begins with YAML between `---` that names a library; None where there is no README.md."""
    import yaml

    path = folder / "README.md"
    if not path.is_file():
        return None
    parts = path.read_text().split("---\n")
    return len(parts) > 2 and parts[0] == "" and bool((yaml.safe_load(parts[1]) or {}).get("library_name"))


def check(kind: str, folder: pathlib.Path, reference: dict, value_range) -> dict:
    model = OPENERS[kind](folder)
    low, high = value_range or model.range
    samples, ours = reference["samples"], reference["codes"]
    inputs = reference.get("inputs_float")
    inputs = to_inputs(samples, low, high) if inputs is None else inputs
    theirs = torch.cat([model.encode(inputs[part]) for part in batches(len(inputs))])
    if theirs.shape != ours.shape:
        raise BadExport(f"encoding gives {list(theirs.shape)} indices, Tessera {list(ours.shape)}")
    different = int((theirs != ours).sum())
    ties = None
    if isinstance(model, Files):
        model.given = reference if "table" in reference else None
    if getattr(model, "given", True) and hasattr(model, "distances"):
        ties = near_ties(model, inputs, ours, theirs) if different else 0
    shape = reference["decoded"].shape[1:-1]
    values = torch.cat([model.decode(ours[part], shape) for part in batches(len(ours))])
    from_float, from_raw = difference(values, reference, low, high)
    card = card_fits(folder)
    if card is not None and kind in ("taming", "llamagen"):
        check_pickle(kind, folder)
    levels = {"default_levels": model.default_levels()} if hasattr(model, "default_levels") else {}
    same = different == ties if ties is not None else different <= HIDDEN_TIES * ours.numel()
    return {"format": kind, "samples": len(samples), "codes": ours.numel(), "different": different, "near_ties": ties, **levels,
            "max_difference": from_float, "beyond_rounding": from_raw, "card": card,
            "ok": bool(same and max(from_float, from_raw) <= LIMIT and card is not False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("format", choices=OPENERS)
    parser.add_argument("export", type=pathlib.Path)
    parser.add_argument("reference", type=pathlib.Path)
    parser.add_argument("--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of the model's values, where the format does not say it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    try:
        path = arguments.reference / "reference.safetensors"
        if not path.is_file():
            raise BadExport(f"there is no {path}")
        result = check(arguments.format, arguments.export, load_file(path), arguments.range)
    except Exception as error:  # Whatever a library raises on a bad file.
        if os.environ.get("TESSERA_TRACEBACK"):
            raise
        print(f"error: {arguments.export}: {(str(error).strip() or type(error).__name__).splitlines()[0]}", file=sys.stderr)
        sys.exit(2)
    print(json.dumps(result))
    sys.exit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
