"""The service ended and its classifier replaced under load, and the review desk's marks: what is lost, what it takes.

    python benchmarks/serving_changes.py --endings 20 --reloads 20
    python benchmarks/serving_changes.py --endings 0 --reloads 0 --database postgresql+psycopg://postgres@/postgres

A request counts as accepted once it was sent on a connection that the service had taken. Clients leave, as HTTP wants
it, when an answer says that its connection ends.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from serving import FORM, demo_classifier

import knownot
from knownot.service.review.store import Mark, Store


class Client(threading.Thread):
    """Asks until an answer says that the connection ends, or until it is told to stop."""

    def __init__(self, port: int, files: list[bytes], which: int) -> None:
        super().__init__(daemon=True)
        self.port, self.files, self.which, self.stop = port, files, which, False
        self.answers: list[tuple[int, str, float]] = []  # (image, status, alpha)
        self.lost: list[str] = []

    def run(self) -> None:
        connection, sent = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60), False
        try:
            while not self.stop:
                sent, number = False, self.which % len(self.files)
                connection.request("POST", "/v1/predict", self.files[number], FORM)
                sent = True
                answer = connection.getresponse()
                said = json.loads(answer.read())
                if answer.status != 200:
                    self.lost.append(str(answer.status))
                else:
                    self.answers.append((number, said["verdicts"][0]["status"], said["alpha"]))
                if answer.getheader("Connection") == "close":
                    return
                self.which += 1
        except Exception as error:
            self.lost.append(f"{type(error).__name__}{' after it was sent' if sent else ''}")


class Service:
    def __init__(self, saved: Path, *more: str) -> None:
        command = [sys.executable, "-m", "knownot", "serve", str(saved), "--port", "0", "--log-level", "error", *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])  # type: ignore[union-attr]

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


def started(port: int, files: list[bytes], clients: int) -> list[Client]:
    made = [Client(port, files, 7 * i) for i in range(clients)]
    for client in made:
        client.start()
    while min(len(c.answers) for c in made) < 2 and not any(c.lost for c in made):
        time.sleep(0.01)
    return made


def endings(saved: Path, files: list[bytes], times: int, clients: int) -> None:
    answered, lost, codes = 0, Counter[str](), Counter[int]()
    for _ in range(times):
        service = Service(saved)
        asking = started(service.port, files, clients)
        codes[service.end()] += 1
        for client in asking:
            client.join(60)
            answered += len(client.answers)
            lost.update(client.lost)
    print(f"SIGTERM under load, {times} times: {answered} answered, lost: {dict(lost) or 0}; exit codes {dict(codes)}")


def reloads(saved: Path, files: list[bytes], times: int, clients: int) -> None:
    original = saved.with_name("original")  # a classifier cannot be saved once its own file was replaced
    shutil.copytree(saved, original)
    osc = knownot.load(original)
    rules = {alpha: osc.with_alpha(alpha) for alpha in (0.05, 0.2)}
    expected = {alpha: rule.predict(files).status for alpha, rule in rules.items()}
    service, taken = Service(saved, "--reload", "0.2"), 0
    try:
        asking = started(service.port, files, clients)
        taken = replaced(saved, rules, asking, times)
    finally:
        code = service.end()
    answers = [a for client in asking for a in client.answers]
    lost = Counter(x for client in asking for x in client.lost)
    wrong = sum(expected[alpha][number] != status for number, status, alpha in answers)
    print(
        f"Reload under load, {times} times ({taken} taken): {len(answers)} answered, lost: {dict(lost) or 0}, "
        f"otherwise than the classifier that they name: {wrong}; exit code {code}"
    )


def replaced(saved: Path, rules: dict[float, knownot.OpenSetClassifier], asking: list[Client], times: int) -> int:
    """How many of the new classifiers were taken; the clients have stopped."""
    taken = 0
    for i in range(times):
        alpha = (0.2, 0.05)[i % 2]
        rules[alpha].save(saved)
        end = time.monotonic() + 10
        while time.monotonic() < end and asking[0].answers[-1][2] != alpha:
            time.sleep(0.02)
        taken += asking[0].answers[-1][2] == alpha
    for client in asking:
        client.stop = True
    for client in asking:
        client.join(60)
    return taken


def desk(place: str, images: int = 2000, size: int = 10_000) -> None:
    store = Store(place)
    row = {
        "model": "m", "digest": "d", "arrived": time.time(), "status": "unknown", "audited": False, "kind": None,
        "closed_class": "c", "p_value": 0.001, "score": 1.0, "confidence": 0.5, "features": bytes(2048),
        "thumb": "data:", "data": bytes(size),
    }  # fmt: skip
    begin = time.perf_counter()
    for _ in range(images // 50):
        store.add([row] * 50)
    kept = time.perf_counter() - begin
    rows = store.shown("m", limit=100)[0]
    begin = time.perf_counter()
    made = store.mark(Mark("new", "mug"), {r["id"]: r["version"] for r in rows}, "ann")
    marked = time.perf_counter() - begin
    begin = time.perf_counter()
    store.undo(made.batch, "ann")
    undone = time.perf_counter() - begin
    print(
        f"{store.engine.dialect.name}: {images} images kept in {kept:.1f} s; 100 of them marked in {marked:.3f} s, "
        f"undone in {undone:.3f} s"
    )
    store.delete([r["id"] for r in store.shown("m", show="all", limit=100_000)[0]])
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--endings", type=int, default=20)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--database", help="Of the desk, beside SQLite.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        if options.endings or options.reloads:
            saved, files = demo_classifier(Path(home))
        if options.endings:
            endings(saved, files, options.endings, options.clients)
        if options.reloads:
            reloads(saved, files, options.reloads, options.clients)
        desk(f"{home}/desk.db")
        if options.database:
            desk(options.database)


if __name__ == "__main__":
    main()
