"""The service under load: throughput, latency, CPU per request, memory, and whether every answer is that of `predict`.

    python benchmarks/serving.py                      # the demo's classifier, JPEG files of 368 x 256
    python benchmarks/serving.py --osc osc/ --images incoming/ --requests 10000 --malformed 10000

The service runs in a process of its own; the clients, in this one, take part of the same processor. CPU time is the
service's own (its /metrics). The base is `osc.predict` on the same bytes: decoding, forward pass and verdict, in one
process. Malformed requests go in between the valid ones of the second half.
"""

from __future__ import annotations

import argparse
import http.client
import io
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

import knownot

FORM = {"Content-Type": "application/octet-stream"}


def demo_classifier(folder: Path) -> tuple[Path, list[bytes]]:
    """The demo's classifier, fitted, and its incoming images as JPEG files of the size of small photographs."""
    from knownot.cli.demo import unpack

    unpack(folder)
    osc = knownot.fit(folder / "fashion.onnx", folder / "known", calibration=folder / "calibration", progress=False)
    osc.save(folder / "osc")
    files = []
    for path in sorted(p for p in (folder / "incoming").rglob("*") if p.is_file()):
        try:
            image = Image.open(path).convert("RGB").resize((368, 256))
        except OSError:
            continue
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        files.append(buffer.getvalue())
    return folder / "osc", files


def malformed(port: int, good: bytes, kind: int) -> int | None:
    """One request that is wrong in one of many ways; the status of its answer, None where there can be none."""
    rng = random.Random(kind)
    cut = good[: rng.randrange(len(good))]
    junk = rng.randbytes(rng.randrange(1, 2000))
    flipped = bytearray(good)
    for _ in range(20):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    bodies = [
        (cut, FORM), (junk, FORM), (bytes(flipped), FORM), (b"", FORM), (good, {"Content-Type": "text/plain"}),
        (junk, {"Content-Type": "application/json"}), (b'{"images": ["@"]}', {"Content-Type": "application/json"}),
        (junk, {"Content-Type": "multipart/form-data; boundary=x"}), (good, {"Content-Type": "multipart/form-data"}),
        (b"x" * 300, {**FORM, "Content-Encoding": "gzip"}),
    ]  # fmt: skip
    if kind % 12 < 10:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/predict", *bodies[kind % 12])
        status = connection.getresponse().status
        connection.close()
        return status
    with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:  # hangs up in the middle, or is no HTTP
        head = (
            b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 9999\r\n\r\n"
        )
        raw.sendall(head + cut[:500] if kind % 12 == 10 else junk + b"\r\n\r\n")
        raw.shutdown(socket.SHUT_WR)
        first = raw.recv(64)
        return int(first.split()[1]) if first.startswith(b"HTTP/") else None


class Clients:
    """So many threads, each with one connection that stays open."""

    def __init__(self, port: int, files: list[bytes], clients: int) -> None:
        self.port, self.files, self.clients = port, files, clients
        self.lock, self.next = threading.Lock(), 0
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.bad: Counter[int | None] = Counter()
        self.answers: dict[int, set[tuple[str, int, float]]] = {}

    def run(self, requests: int, wrong: int) -> float:
        """Seconds that it took."""
        begin = time.perf_counter()
        threads = [threading.Thread(target=self._one, args=(requests, wrong / requests)) for _ in range(self.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begin

    def _one(self, requests: int, wrong: float) -> None:
        import json

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        while True:
            with self.lock:
                number, self.next = self.next, self.next + 1
            if number >= requests:
                return
            which = number % len(self.files)
            for i in range(int((number + 1) * wrong) - int(number * wrong)):
                status = malformed(self.port, self.files[which], number * 31 + i)
                with self.lock:
                    self.bad[status] += 1
            begin = time.perf_counter()
            connection.request("POST", "/v1/predict", self.files[which], FORM)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            took = time.perf_counter() - begin
            with self.lock:
                self.seconds.append(took)
                self.statuses[answer.status] += 1
                if answer.status == 200:
                    row = said["verdicts"][0]
                    self.answers.setdefault(which, set()).add((row["status"], row["closed_label"], row["p_value"]))


def measured(port: int) -> tuple[float, float]:
    """(CPU seconds, MB of memory) of the service."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    cpu, memory = (
        float(re.search(rf"^{name} (\S+)$", text, re.M)[1])  # type: ignore[index]
        for name in ("process_cpu_seconds_total", "process_resident_memory_bytes")
    )
    return cpu, memory / 1e6


def compare(osc, files: list[bytes], answers) -> str:
    """The answers against `predict` on the same bytes."""
    expected = osc.predict(files)
    step = 1 / (len(osc.calibration.scores) + 1)
    differ, far = 0, 0.0
    for which, said in answers.items():
        v = expected[which]
        for status, label, p in said:
            differ += (status, label) != (v.status, v.closed_label)
            far = max(far, abs(p - v.p_value) / step)
    return f"{sum(map(len, answers.values()))} different answers to {len(answers)} images; otherwise than predict: " + (
        f"{differ}; largest distance of p-values: {far:.0f} ranks of {len(osc.calibration.scores)}"
    )


def phase(clients: Clients, title: str, requests: int, wrong: int) -> float:
    """CPU milliseconds of a request."""
    clients.next, clients.seconds = 0, []
    before, _ = measured(clients.port)
    took = clients.run(requests, wrong)
    after, memory = measured(clients.port)
    p50, p99 = np.quantile(clients.seconds, (0.5, 0.99))
    each = 1000 * (after - before) / (requests + wrong)
    print(f"{title:<34}{requests / took:>9.0f}{1000 * p50:>9.1f}{1000 * p99:>9.1f}{each:>9.2f}{memory:>9.0f}")
    return each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--osc", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--malformed", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        if options.osc is None:
            saved, files = demo_classifier(Path(home))
        else:
            saved, files = options.osc, [p.read_bytes() for p in sorted(options.images.rglob("*")) if p.is_file()]
        osc = knownot.load(saved)
        osc.predict(files[:64])
        begin = time.process_time()
        osc.predict(files)
        base = 1000 * (time.process_time() - begin) / len(files)
        print(
            f"{len(files)} files of {sum(map(len, files)) / len(files) / 1000:.1f} kB; predict: {base:.2f} ms CPU each"
        )
        report(options, saved, osc, files, base)


def report(options: argparse.Namespace, saved: Path, osc, files: list[bytes], base: float) -> None:
    command = [sys.executable, "-m", "knownot", "serve", str(saved), "--port", "0", "--log-level", "warning"]
    begin = time.perf_counter()
    process = subprocess.Popen([*command, "--threads", str(options.threads)], stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1])  # type: ignore[union-attr]
        clients = Clients(port, files, options.clients)
        clients.run(1, 0)
        print(f"start to first verdict: {time.perf_counter() - begin:.1f} s")
        print(f"{'':<34}{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'RSS MB':>9}")
        phase(clients, "the first 1000 valid", 1000, 0)
        each = phase(clients, f"{options.requests} valid", options.requests, 0)
        phase(clients, f"{options.requests} valid, {options.malformed} malformed", options.requests, options.malformed)
        phase(clients, f"{options.requests} valid", options.requests, 0)
        print(f"CPU of a request / of predict: {each / base:.2f}")
        print(f"statuses of valid requests: {dict(clients.statuses)}; of malformed ones: {dict(clients.bad)}")
        print(compare(osc, files, clients.answers))
    finally:
        process.terminate()
        print(f"exit code after SIGTERM: {process.wait(60)}")


if __name__ == "__main__":
    main()
