"""What Tessera writes, read in Python with numpy alone: token sets, model folders, compressed files. Copy this file where you need it.

    import tessera_tokens as tt

    for ids, labels, codes in tt.TokenSet("data/fashion_mnist_tokens").shards("train"):
        plain = codes[0][:, 0]                    # level 0, the variant that is as it was: [samples, positions]

    model = tt.ModelFolder("models/fashion_mnist")
    model.config["levels"], model.tensors["decoder.conv_in.weight"].shape

    with open("photo.tsc", "rb") as file:
        header, blocks = tt.read_compressed(file, tt.tables_of_counts([counts]))
        for first, codes in blocks:               # codes is None where the file is damaged
            ...

The formats are in docs/formats.md. What does not fit raises ValueError with a line that says what is wrong.
"""
import hashlib, json, pathlib, struct, zlib

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4",
          "U16": "<u2", "U8": "u1", "BOOL": "?"}


def read_safetensors(path) -> tuple[dict, dict]:
    """The tensors of a safetensors file by name, and its metadata. BF16, which numpy has not, comes as float32."""
    data = pathlib.Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError(f"{path} is no safetensors file, or is cut off")
    header = json.loads(data[8:8 + length])
    metadata = header.pop("__metadata__", {})
    tensors, start = {}, 8 + length
    for name, about in header.items():
        first, last = about["data_offsets"]
        raw = data[start + first:start + last]
        if about["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(raw, DTYPES[about["dtype"]])
        tensors[name] = values.reshape(about["shape"])
    return tensors, metadata


class TokenSet:
    """A folder that `tessera encode` wrote."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.manifest = json.loads((self.folder / "manifest.json").read_text())
        if (self.manifest.get("format"), self.manifest.get("version")) != ("tessera-tokens", 1):
            raise ValueError(f"{folder} is no token set of version 1")
        self.levels = self.manifest["levels"]

    def shards(self, split: str, check: bool = True):
        """For each shard of a split: ids `[n]`, labels `[n]` (-1: none), and of each level the codes `[n, variants, positions]`."""
        for shard in self.manifest["splits"][split]["shards"]:
            path = self.folder / shard["file"]
            tensors, _ = read_safetensors(path)
            codes = [tensors[f"codes.{level}"] for level in range(len(self.levels))]
            if check:
                rows = range(len(tensors["id"])), range(len(self.manifest["variants"]))
                for row in rows[0]:
                    for variant in rows[1]:
                        if zlib.crc32(b"".join(level[row, variant].tobytes() for level in codes)) != tensors["crc32"][row, variant]:
                            raise ValueError(f"{path}: the codes of sample {tensors['id'][row]} are damaged: encode the set again")
            yield tensors["id"], tensors["label"], codes

    def codes(self, split: str) -> list:
        """All codes of a split, of each level `[samples, variants, positions]`."""
        shards = [codes for _, _, codes in self.shards(split)]
        return [np.concatenate(level) for level in zip(*shards)]

    def counts(self, split: str) -> list:
        """How often each code of each level is in the split, in the variant that is as it was: `[K]` each."""
        about = self.manifest["splits"][split]["histograms"]
        tensors, _ = read_safetensors(self.folder / about["file"])
        return [tensors[f"level.{level}"] for level in range(len(self.levels))]


class ModelFolder:
    """A model folder: `config`, and `tensors` by name."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.config = json.loads((self.folder / "config.json").read_text(), parse_float=Number)
        if (self.config.get("format"), self.config.get("version")) != ("tessera-model", 1):
            raise ValueError(f"{folder} is no model folder of version 1")
        self.tensors, _ = read_safetensors(self.folder / "model.safetensors")

    def tables(self) -> "Tables":
        """The probabilities of its codes that `tessera tables` has counted."""
        tensors, words = read_safetensors(self.folder / "tables.safetensors")
        if (words.get("format"), words.get("model")) != ("tessera-tables-1", self.config["hash"]):
            raise ValueError(f"{self.folder} has no tables of its own codes")
        tables = Tables([tensors[f"level.{number}"] for number in range(len(tensors))])
        if tables.id != words["id"]:
            raise ValueError(f"the tables of {self.folder} are damaged")
        return tables

    def check(self):
        """Raises ValueError unless the hash of all that decides outputs is the one that the folder is named by."""
        of_prior = self.config["kind"] == "prior"
        names = ["codes", "kind", "precision", "prior"] if of_prior else ["kind", "model", "precision", "preprocessing", "shape"]
        hashed = {name: self.config[name] for name in names}
        dtypes = {np.dtype("<f4"): "F32", np.dtype("<f8"): "F64"}
        hashed["tensors"] = {
            name: {"dtype": dtypes[tensor.dtype], "shape": list(tensor.shape), "sha256": hashlib.sha256(tensor.tobytes()).hexdigest()}
            for name, tensor in self.tensors.items()
        }
        if hashlib.sha256(canonical(hashed).encode()).hexdigest() != self.config["hash"]:
            raise ValueError(f"{self.folder} is damaged: its hash is another")


class Number(float):
    """A float that knows how the file writes it."""

    def __new__(cls, text):
        number = super().__new__(cls, text)
        number.text = text
        return number


def canonical(value) -> str:
    """JSON with sorted keys and no spaces; floats as the file writes them."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return value.text if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


# --- compressed files ---

WHOLE = 1 << 24
MAGIC, MARK = b"\x89TSC\r\n\x1a\n", b"\xb1TS\x0b"


class Tables:
    """Probabilities of codes in parts of 2^24: of each level an array `[1 or positions, K]`."""

    def __init__(self, levels: list):
        self.levels = [np.asarray(level, dtype=np.int64) for level in levels]
        self.sums = [np.concatenate([np.zeros((len(level), 1), np.int64), level.cumsum(1)], 1) for level in self.levels]
        parts = [struct.pack("<Q", len(self.levels))]
        for level in self.levels:
            parts += [struct.pack("<QQ", *level.shape), level.astype("<u4").tobytes()]
        self.id = hashlib.sha256(b"".join(parts)).hexdigest()

    def of(self, level: int, position: int):
        """The probabilities `[K]` of a position, and their sums from 0 on, `[K + 1]`."""
        row = position if len(self.levels[level]) > 1 else 0
        return self.levels[level][row], self.sums[level][row]


def tables_of_counts(levels: list) -> Tables:
    """Tables by counts of each level, `[K]` for all positions or `[positions, K]`."""
    def shares(counts):
        counts = [int(count) for count in counts]
        rest, total = WHOLE - len(counts), sum(counts)
        shares = [1 + (count * rest // total if total else rest // len(counts)) for count in counts]
        shares[counts.index(max(counts))] += WHOLE - sum(shares)
        return shares

    return Tables([[shares(row) for row in np.atleast_2d(np.asarray(level, dtype=object))] for level in levels])


def order(positions: list) -> list:
    """Level and position of each code of a sample: levels of as many positions take turns."""
    found, first = [], 0
    while first < len(positions):
        alike = 1
        while first + alike < len(positions) and positions[first + alike] == positions[first]:
            alike += 1
        found += [(level, position) for position in range(positions[first]) for level in range(first, first + alike)]
        first += alike
    return found


def decode_block(data: bytes, samples: int, positions: list, tables: Tables) -> np.ndarray:
    """The codes `[samples, codes of a sample]` of a block's bytes: constriction's range decoder."""
    words = np.frombuffer(data, "<u4").tolist()
    word = lambda at: words[at] if at < len(words) else 0
    point, at = word(0) << 32 | word(1), 2
    lower, width, mask = 0, (1 << 64) - 1, (1 << 64) - 1
    codes = []
    for _ in range(samples):
        for level, position in order(positions):
            probabilities, sums = tables.of(level, position)
            scale = width >> 24
            quantile = ((point - lower) & mask) // scale
            if quantile >= WHOLE:
                raise ValueError("the bytes are no stream of codes")
            code = int(np.searchsorted(sums, quantile, side="right")) - 1
            codes.append(code)
            lower = (lower + scale * int(sums[code])) & mask
            width = scale * int(probabilities[code])
            if width < 1 << 32:
                lower, width = lower << 32 & mask, width << 32
                point, at = (point << 32 & mask) | word(at), at + 1
    return np.array(codes, dtype=np.uint32).reshape(samples, -1)


def read_compressed(file, tables: Tables):
    """The header of a compressed file, and its blocks: number of the first sample, and codes `[samples, codes of a sample]` in the
    order of [`order`], or None where they are damaged. A place that is lost is found again at the next block."""
    data = file.read()
    if data[:8] != MAGIC:
        raise ValueError("this is no compressed file of Tessera")
    version, length = struct.unpack_from("<HI", data, 8)
    if version not in (1, 2):
        raise ValueError(f"this compressed file has version {version}, this reader knows 1 and 2")
    if len(data) < 18 + length or zlib.crc32(data[:14 + length]) != struct.unpack_from("<I", data, 14 + length)[0]:
        raise ValueError("the header of this compressed file is damaged")
    header = json.loads(zlib.decompressobj(wbits=-15).decompress(data[14:14 + length], 1 << 26))
    if header["tables"] != tables.id:
        raise ValueError("the codes were coded with other tables")
    positions = [level["positions"] for level in header["levels"]]

    def blocks():
        at = 18 + length
        while True:
            at = data.find(MARK, at)
            if at < 0 or at + 32 > len(data):
                raise ValueError("this compressed file is cut off")
            first, samples, size, of_codes, of_bytes, own = struct.unpack_from("<QIIIII", data, at + 4)
            if zlib.crc32(data[at:at + 28]) != own:
                at += 1
                continue
            if samples == 0:
                return
            payload = data[at + 32:at + 32 + size]
            at += 32 + size
            codes = None
            if zlib.crc32(payload) == of_bytes:
                codes = decode_block(payload, samples, positions, tables)
                codes = codes if zlib.crc32(codes.astype("<u4").tobytes()) == of_codes else None
            yield first, codes

    return header, blocks()
