"""Clients that are slow, too large, garbled, or gone. The server has to answer others all the while."""

import os
import random
import socket
import sys
import time
import urllib.parse

from http1 import figures, file, get, model, samples

url = sys.argv[1]
parts = urllib.parse.urlsplit(url)
told = model(url)
picture = file(told, samples(told, 1)[0])
random.seed(1)


def connect():
    stream = socket.create_connection((parts.hostname, parts.port), timeout=60)
    return stream


def status(head, body=b""):
    """The status of an answer; None: the connection was cut."""
    with connect() as stream:
        try:
            stream.sendall(head + b"\r\n\r\n" + body)
        except OSError:
            pass
        try:
            line = stream.recv(4096)
        except OSError:
            return None
        return int(line.split()[1]) if line else None


def post(path, size, more=b""):
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}".encode() + more


before = figures(url)
slow = [connect() for _ in range(50)]
for stream in slow:
    stream.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
bodies = [connect() for _ in range(20)]
for stream in bodies:
    stream.sendall(post("/encode", 1000) + b"\r\n\r\nabc")
assert get(url + "/healthz"), "slow clients keep others out"
print("with 50 slow headers and 20 slow bodies, others are answered")
print("too large by its length:", status(post("/encode", 1 << 40)))
assert status(post("/encode", 1 << 40)) == 413
flood = connect()
flood.sendall(b"POST /encode HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
sent = 0
try:
    while sent < 1 << 30:
        flood.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
        sent += 1 << 20
except OSError:
    pass
assert sent < 1 << 30, "a body without an end is read for ever"
print("a body without an end was cut after MiB:", sent >> 20)
statuses = {}
for number in range(300):
    bad = bytearray(picture)
    for _ in range(1 + number % 8):
        bad[random.randrange(len(bad))] = random.randrange(256)
    bad = bytes(bad[: random.randrange(1, len(bad))] if number % 3 == 0 else bad)
    came = status(post("/reconstruct", len(bad), b"\r\nConnection: close"), bad)
    statuses[came] = statuses.get(came, 0) + 1
print("damaged files:", statuses)
assert set(statuses) <= {200, 400, 413, 415}, statuses
for _ in range(100):
    stream = connect()
    stream.sendall(os.urandom(200) + b"\r\n\r\n")
    stream.close()
for _ in range(200):
    stream = connect()
    stream.sendall(post("/reconstruct", len(picture)) + b"\r\n\r\n" + picture)
    stream.close()
assert get(url + "/healthz")
for stream in slow + bodies:
    stream.close()
deadline = time.monotonic() + 30
while figures(url)["tessera_in_flight"] > 1 or figures(url)["tessera_queue_samples"] > 0:
    assert time.monotonic() < deadline, "requests of clients that left are still there"
    time.sleep(0.05)
after = figures(url)
print("clients that left:", after["tessera_clients_left_total"] - before["tessera_clients_left_total"])
name = "process_resident_memory_bytes"
print("resident MiB:", round(before[name] / 2**20, 1), round(after[name] / 2**20, 1))
print("open files:", before["process_open_fds"], after["process_open_fds"])
