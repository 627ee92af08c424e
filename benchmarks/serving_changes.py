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
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
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
    reviewers(store, place)
    killed(store, place)
    store.delete([r["id"] for r in store.shown("m", show="all", limit=100_000)[0]])
    store.close()


Told = Callable[[list[tuple[int, int]], int], None]


def marking(place: str, who: str, ids: list[int], marks: int, told: Told) -> None:
    """Random marks of one to four images each, by a connection of its own. told: gets what was acknowledged, and how
    many conflicts there were."""
    store, rng = Store(place), random.Random(who)
    versions = {r["id"]: r["version"] for r in store.shown("m", show="all", limit=100_000)[0]}
    for n in range(marks):
        some = rng.sample(ids, rng.randint(1, 4))
        made = store.mark(Mark("new", f"{who} {n}"), {i: versions[i] for i in some}, who)
        versions |= made.versions | {row["id"]: row["version"] for row in made.conflicts}
        told(list(made.versions.items()), len(made.conflicts))
    store.close()


def logged(store: Store, who: tuple[str, ...]) -> list[tuple[int, int]]:
    import sqlalchemy as sa

    from knownot.service.review.store import LOG

    with store.engine.connect() as c:
        return [tuple(row) for row in c.execute(sa.select(LOG.c.image, LOG.c.version).where(LOG.c.who.in_(who)))]


def reviewers(store: Store, place: str, marks: int = 1000) -> None:
    """Two at once on 200 images: each mark is in the log once, or was told as a conflict."""
    ids = [r["id"] for r in store.shown("m", show="all", limit=200)[0]]
    kept, conflicts = list[tuple[int, int]](), [0]

    def told(made: list[tuple[int, int]], missed: int) -> None:
        kept.extend(made)
        conflicts[0] += missed

    begin = time.perf_counter()
    threads = [threading.Thread(target=marking, args=(place, who, ids, marks, told)) for who in ("rita", "sam")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, log = time.perf_counter() - begin, logged(store, ("rita", "sam"))
    lost, twice = len(set(kept) - set(log)), len(log) - len(set(log))
    print(
        f"{store.engine.dialect.name}: two reviewers, {marks} marks each in {took:.1f} s: {len(kept)} images marked, "
        f"{conflicts[0]} conflicts told; lost {lost}, not acknowledged {len(set(log) - set(kept))}, twice {twice}"
    )


def killed(store: Store, place: str, times: int = 20) -> None:
    """A reviewer's process killed (SIGKILL) in the middle: what was acknowledged is there."""
    ids, told, lost = [r["id"] for r in store.shown("m", show="all", limit=200)[0]], 0, 0
    for turn in range(times):
        code = f"import serving_changes as s; s.speaking({place!r}, 'k{turn}', {ids!r})"
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
        lines = [process.stdout.readline()]  # type: ignore[union-attr]
        time.sleep(random.Random(turn).uniform(0, 0.3))
        process.kill()
        lines += process.stdout.readlines()  # type: ignore[union-attr]
        process.wait()
        whole = [line for line in lines if line.endswith("\n")]
        acknowledged = {tuple(pair) for line in whole for pair in json.loads(line)}
        told += len(acknowledged)
        lost += len(acknowledged - set(logged(store, (f"k{turn}",))))
    print(f"{store.engine.dialect.name}: killed {times} times while marking: {told} marks acknowledged, lost {lost}")


def speaking(place: str, who: str, ids: list[int]) -> None:
    marking(place, who, ids, 100_000, lambda made, _: print(json.dumps(made), flush=True))


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
