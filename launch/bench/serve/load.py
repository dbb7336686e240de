"""Many clients at once. Every answer is held against the one that a lone request got before.

With --stop PID, SIGTERM goes to the server in the middle, and no request that was sent may stay without an answer.
"""

import argparse
import asyncio
import os
import signal
import time

import numpy as np
from http1 import Connection, Lost, binary, figures, file, model, samples, tensor

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--requests", type=int, default=10000)
parser.add_argument("--clients", type=int, default=64)
parser.add_argument("--rounds", type=int, default=3, help="the memory is looked at after each")
parser.add_argument("--stop", type=int, metavar="PID")
options = parser.parse_args()
told = model(options.url)
datatype = "INT16" if told["modality"] == "sound" else "UINT8"


async def prepared():
    """Requests and their right answers: (path, body, headers, read, answer)."""
    connection, cases = Connection(options.url), []
    for seed in range(20):
        values = samples(told, 1 + seed % 3, seed)
        body, headers = binary("samples", datatype, values)
        for name in ("encode", "reconstruct"):
            cases.append((f"/v2/models/{name}/infer", body, headers, tensor))
        status, answered, answer = await connection.ask("POST", "/v2/models/encode/infer", body, headers)
        assert status == 200, answer
        tokens = np.frombuffer(tensor(answered, answer), "<i4").reshape(len(values), -1)
        cases.append(("/v2/models/decode/infer", *binary("tokens", "INT32", tokens), tensor))
        picture = file(told, values[0])
        for path in ("/encode", "/reconstruct"):
            cases.append((path, picture, {"Content-Type": "application/octet-stream"}, lambda headers, body: body))
    known = []
    for path, body, headers, read in cases:
        status, answered, answer = await connection.ask("POST", path, body, headers)
        assert status == 200, (path, answer)
        known.append((path, body, headers, read, read(answered, answer)))
    return known


async def client(number, known, state):
    connection = Connection(options.url)
    while state["left"] > 0:
        state["left"] -= 1
        path, body, headers, read, expected = known[(state["left"] * 31 + number) % len(known)]
        began = time.perf_counter()
        try:
            status, answered, answer = await connection.ask("POST", path, body, headers)
        except ConnectionRefusedError:
            state["refused"] += 1
            return
        except Lost as lost:
            state["lost"].append(str(lost))
            return
        state["seconds"].append(time.perf_counter() - began)
        state["statuses"][status] = state["statuses"].get(status, 0) + 1
        if status == 200 and read(answered, answer) != expected:
            state["wrong"] += 1
        if options.stop and len(state["seconds"]) == 2000:
            os.kill(options.stop, signal.SIGTERM)
    await connection.close()


async def round_of(known):
    state = {"left": options.requests, "seconds": [], "statuses": {}, "wrong": 0, "lost": [], "refused": 0}
    began = time.perf_counter()
    await asyncio.gather(*(client(number, known, state) for number in range(options.clients)))
    seconds = sorted(state["seconds"])
    at = {name: round(1000 * seconds[int(len(seconds) * share)], 1) for name, share in
          (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))}
    print(f"{len(seconds)} answers in {time.perf_counter() - began:.1f} s, ms {at}, statuses {state['statuses']}, "
          f"wrong {state['wrong']}, lost {len(state['lost'])}, refused {state['refused']}")
    assert state["wrong"] == 0 and not state["lost"], state["lost"][:3]
    return state


def resident():
    return figures(options.url)["process_resident_memory_bytes"] / 2**20


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


known = asyncio.run(prepared())
if options.stop:
    asyncio.run(round_of(known))
    deadline = time.monotonic() + 60
    while not gone(options.stop):
        assert time.monotonic() < deadline, "the server does not end"
        time.sleep(0.05)
    print("the server has ended")
else:
    before = figures(options.url)
    memory = [resident()]
    for _ in range(options.rounds):
        asyncio.run(round_of(known))
        memory.append(resident())
    after = figures(options.url)
    for kind in ("encode", "decode"):
        def grown(what, kind=kind):
            name = f'tessera_batch_size_{what}{{kind="{kind}"'
            rest = "}"
            return after[name + rest] - before.get(name + rest, 0)
        print(f"{kind}: {grown('count'):.0f} batches, {grown('sum') / grown('count'):.2f} samples each on average")
    print("resident MiB before and after each round:", [round(value, 1) for value in memory])
