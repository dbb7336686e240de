"""HTTP/1.1 over asyncio's streams: it tells a request that was sent and not answered from a connection that was refused."""

import asyncio
import io
import json
import urllib.parse
import urllib.request
import wave

import numpy as np
from PIL import Image


class Lost(Exception):
    """A request was sent whole and its connection ended without an answer."""


class Connection:
    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self.reader = self.writer = None

    async def ask(self, method, path, body=b"", headers=None):
        """Returns status, headers and body."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        try:
            self.writer.write(head.encode() + b"\r\n" + body)
            await self.writer.drain()
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            told = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            answer = await self.reader.readexactly(int(told.get("content-length", 0)))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Lost(f"{method} {path}: {error!r}") from error
        if told.get("connection") == "close":
            await self.close()
        return int(lines[0].split()[1]), told, answer

    async def close(self):
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def model(url):
    return json.loads(get(url + "/model"))


def samples(told, number, seed=0):
    """Samples of the model's shape, different for each seed."""
    random, shape = np.random.default_rng(seed), [number, *told["sample_shape"]]
    if told["modality"] == "sound":
        return random.integers(-20000, 20000, shape).astype("<i2")
    return random.integers(0, 256, shape).astype("u1")


def file(told, sample):
    """A sample as PNG, APNG or WAV."""
    out = io.BytesIO()
    if told["modality"] == "sound":
        with wave.open(out, "wb") as writer:
            writer.setnchannels(sample.shape[1])
            writer.setsampwidth(2)
            writer.setframerate(told["sample_rate"])
            writer.writeframes(sample.tobytes())
    elif told["modality"] == "film":
        frames = [Image.fromarray(frame.squeeze()) for frame in sample]
        frames[0].save(out, "PNG", save_all=True, append_images=frames[1:], duration=40)
    else:
        Image.fromarray(sample.squeeze()).save(out, "PNG")
    return out.getvalue()


def binary(name, datatype, values):
    """Body and headers of an inference request with a binary tensor in and out."""
    raw = values.tobytes()
    head = json.dumps({
        "parameters": {"binary_data_output": True},
        "inputs": [{
            "name": name, "datatype": datatype, "shape": list(values.shape),
            "parameters": {"binary_data_size": len(raw)},
        }],
    }).encode()
    return head + raw, {"Inference-Header-Content-Length": str(len(head))}


def tensor(headers, body):
    """The binary tensor of an answer."""
    return body[int(headers["inference-header-content-length"]):]


def figures(url):
    """All figures of /metrics, by name with labels."""
    lines = [line for line in get(url + "/metrics").decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
