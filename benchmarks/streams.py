"""Decisions over many images, simulated from real scores: false discoveries, shares, false alarms and delays.

    python benchmarks/streams.py [batches] [clean] [delays] [since] [long] [--draws N] [--sizes N …] [--cache FILE.npz]

Scores of `stream_scores.py`. Every calibration set and every stream is drawn with replacement from them, with a jitter
of 1e-4 that breaks ties. river, when it is installed, gives ADWIN.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from stream_scores import CACHE, load

from knownot.calibration import known_bound, p_values, select, unknown_share
from knownot.calibration.martingale import REACTS, FlagBets, RankBets, Ranks, TailBets, beta_mixture, pac_levels

SPENT = {"flags": 0.1, "tail": 0.4, "shift": 0.4}  # of the error, as in `Monitor`; the rest is the calibration set's
UNKNOWN = ("mnist", "notmnist", "textures", "tiny-imagenet")
Rng = np.random.Generator


def drawn(rng: Rng, scores: np.ndarray, shape) -> np.ndarray:
    return rng.choice(scores, shape) + rng.normal(size=shape) * 1e-4


def batches(scores: dict[str, np.ndarray], draws: int) -> None:
    """m = 1,000 images, q = 0.1, 95 %."""
    m, q = 1000, 0.1
    print("| calibration | unknown | share | FDP, BH | found | FDP, Storey | found | nothing selected "
          "| bound violated | at_least <= share | low <= seen <= high | width |\n" + "|---" * 12 + "|")  # fmt: skip
    for n in (200, 1000, 5000):
        for name, share in [("none", 0.0), *((u, s) for u in UNKNOWN for s in (0.01, 0.05, 0.2, 0.5))]:
            rng = np.random.default_rng([n, int(1000 * share), len(name)])
            rows = [one_batch(rng, scores, n, m, name, int(share * m), q) for _ in range(draws)]
            x = np.array(rows)
            fdp = [f"{x[:, i].mean():.3f} ± {x[:, i].std() / np.sqrt(draws):.3f}" for i in (0, 2)]
            found = [f"{x[:, i].mean():.0%}" if share else "" for i in (1, 3)]
            rest = [f"{x[:, i].mean():.1%}" for i in (4, 5, 6, 7)]
            cells = [str(n), name, f"{share:.0%}", fdp[0], found[0], fdp[1], found[1], *rest, f"{x[:, 8].mean():.3f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def one_batch(rng: Rng, scores, n: int, m: int, name: str, unknown: int, q: float) -> list[float]:
    batch = drawn(rng, scores["known"], m)
    if unknown:
        batch[:unknown] = drawn(rng, scores[name], unknown)
    p = p_values(drawn(rng, scores["known"], n), batch)
    row: list[float] = []
    for method in ("bh", "storey"):
        rows = select(p, n, fdr=q, method=method).rows
        row += [float((rows >= unknown).mean()) if len(rows) else 0.0, float((rows < unknown).sum() / max(1, unknown))]
    bound, share = known_bound(p, n), unknown_share(p, n)
    known = np.cumsum(np.argsort(p, kind="stable") >= unknown)
    seen = max(0.0, (unknown - 2 * int((p[:unknown] > 0.5).sum())) / m)  # the share that looks unknown
    return [*row, not len(rows), bool((known > bound.curve()).any()), share.at_least <= unknown / m,
            share.low <= unknown / m and seen <= share.high, share.high - share.low]  # fmt: skip


class Streams:
    """s streams side by side, each with a calibration set of its own of n images."""

    def __init__(self, rng: Rng, known: np.ndarray, streams: int, n: int, false_alarms: float) -> None:
        self.rng, self.known, self.streams, self.n = rng, known, streams, n
        self.calibration = np.sort(drawn(rng, known, (streams, n)), axis=1)
        self.thresholds, self.rates = pac_levels(n, false_alarms * 0.1)
        ranks = np.floor(self.thresholds * (n + 1)).astype(int)
        self._edges = self.calibration[:, n - ranks]  # flagged above these, [s, l]
        self.cut = self.calibration[:, n // 2]

    def levels(self, score: np.ndarray) -> np.ndarray:
        """A p-value [s] that is flagged at the same levels as that of the score [s]."""
        flagged = score[:, None] > self._edges
        return np.where(flagged, self.thresholds, 1.0).min(axis=1)


def flag_alarms(streams: Streams, length: int, score: Callable[[int], np.ndarray]) -> np.ndarray:
    """The largest log capital of the first bet until each image, [s, t]; the Beta mixture is looked at where it can be
    above 1 (elsewhere it adds less than 1/10)."""
    bets = FlagBets.start(streams.thresholds, streams.rates, (streams.streams,))
    capital = np.empty((streams.streams, length), np.float32)
    real, quick = type(bets).log_capital, type(bets)
    try:
        quick.log_capital = property(lambda self: None)  # step() without it
        for t in range(length):
            bets.step(streams.levels(score(t)))
            logs = bets.log_jumper + np.log(REACTS)
            hot = bets.flags > bets.images[:, None] * streams.rates
            if hot.any():
                row, level = np.nonzero(hot)
                mixture = beta_mixture(bets.flags[row, level], bets.images[row], streams.rates[level])
                logs[row, level] = np.logaddexp(logs[row, level], mixture + np.log(1 - REACTS))
            capital[:, t] = np.logaddexp.reduce(logs, axis=1) - np.log(logs.shape[1])
    finally:
        quick.log_capital = real
    return np.maximum.accumulate(capital, axis=1)


def rank_alarms(streams: Streams, scores: np.ndarray) -> np.ndarray:
    """The same of the second bet, from scores [s, t]."""
    s, length = scores.shape
    keep = scores < streams.cut[:, None]
    p = np.full((s, length), np.nan)
    for i in range(s):
        own = streams.calibration[i]
        p[i, keep[i]] = Ranks.start(own[own < streams.cut[i]], seed=i).add(scores[i, keep[i]])
    order = np.argsort(~keep, axis=1, kind="stable")  # those that count first
    most = int(keep.sum(axis=1).max())
    packed = np.take_along_axis(p, order, 1)[:, :most]
    bets, capital = RankBets.start((s,)), np.full((s, length), -np.inf, np.float32)
    logs = np.empty((s, most), np.float32)
    for t in range(most):
        logs[:, t] = bets.step(np.nan_to_num(packed[:, t], nan=0.5))
    for i in range(s):
        capital[i, keep[i]] = logs[i, : keep[i].sum()]
    return np.maximum.accumulate(capital, axis=1)


def tail_alarms(streams: Streams, scores: np.ndarray) -> np.ndarray:
    """The same of the bet on small ranks among all images so far."""
    s, length = scores.shape
    p = np.empty((s, length), np.float32)
    for i in range(s):
        p[i] = Ranks.start(streams.calibration[i], seed=i, one_of=4).add(scores[i])
    bets, capital = TailBets.start((s,)), np.empty((s, length), np.float32)
    for t in range(length):
        capital[:, t] = bets.step(p[:, t])
    return np.maximum.accumulate(capital, axis=1)


def limit(bet: str, budget: float = 0.05) -> float:
    """log of the capital at which the first alarm of a bet is raised."""
    return -float(np.log(budget * SPENT[bet] / 2))


def more_unknown(streams: Streams, scores: np.ndarray) -> np.ndarray:
    """The first alarm of either bet on more unknown images, -1 where there is none."""
    flags = first(flag_alarms(streams, scores.shape[1], lambda t: scores[:, t]), limit("flags"))
    tail = first(tail_alarms(streams, scores), limit("tail"))
    never = scores.shape[1]
    found = np.minimum(np.where(flags < 0, never, flags), np.where(tail < 0, never, tail))
    return np.where(found == never, -1, found)


def first(capital: np.ndarray, threshold: float) -> np.ndarray:
    """The image at which each stream's maximum reaches the threshold, -1 where never."""
    hit = capital >= threshold
    return np.where(hit.any(axis=1), hit.argmax(axis=1), -1)


def clean(scores: dict[str, np.ndarray], draws: int, sizes: list[int], length: int = 50_000) -> None:
    """No unknown image in 50,000: false alarms ever."""
    print(f"| calibration | streams of {length:,} | more unknown (promised 3 %) | known shifted (2 %) "
          "| either (5 %) |\n|---|---|---|---|---|")  # fmt: skip
    for n in sizes:
        rng = np.random.default_rng(n)
        more, shifted = np.empty(0, bool), np.empty(0, bool)
        for _ in range(0, draws, 250):
            streams = Streams(rng, scores["known"], 250, n, 0.05)
            x = drawn(rng, scores["known"], (250, length)).astype(np.float32)
            more = np.append(more, more_unknown(streams, x) >= 0)
            shifted = np.append(shifted, first(rank_alarms(streams, x), limit("shift")) >= 0)
        rates = [f"{rate.mean():.2%}" for rate in (more, shifted, more | shifted)]
        print(f"| {n} | {len(more)} | {' | '.join(rates)} |", flush=True)


def delays(scores: dict[str, np.ndarray], draws: int, n: int = 1000, start: int = 2000, length: int = 12_000) -> None:
    """Unknown or shifted images from image 2,001 on; others are tuned on clean streams to 1 % false alarms."""
    draws = min(draws, 200)
    others = {"EWMA of -log p": ewma, "KS, window 200": windows, "ADWIN (river)": adwin}
    settings: dict[str, object] = {}
    rng = np.random.default_rng(1)
    quiet = Streams(rng, scores["known"], 500, n, 0.05)
    x = drawn(rng, scores["known"], (500, length)).astype(np.float32)
    tuned = float(np.quantile(tail_alarms(quiet, x)[:, -1], 0.99))
    for name, method in list(others.items()):
        try:
            settings[name] = method(quiet, x, None)
        except ImportError:
            del others[name]
    rates = [(hit >= 0).mean() for hit in (more_unknown(quiet, x), first(rank_alarms(quiet, x), limit("shift")))]
    print(f"n = {n}; {draws} streams each; in 500 clean streams of {length:,}: knownot's promise realises "
          f"{rates[0]:.1%} and {rates[1]:.1%}\n")  # fmt: skip
    print("| what comes | method | median delay | 90 % | missed | before it came |\n|---|---|---|---|---|---|")
    cases = [(u, s) for u in UNKNOWN for s in (0.01, 0.05, 0.1, 0.2)]
    for name, share in [*cases, ("jpeg", 1.0), ("blur", 1.0)]:
        rng = np.random.default_rng([2, int(100 * share), len(name)])
        streams = Streams(rng, scores["known"], draws, n, 0.05)
        x = drawn(rng, scores["known"], (draws, length))
        late = (rng.random(x.shape) < share) & (np.arange(length) >= start)
        x[late] = drawn(rng, scores[name], int(late.sum()))
        rows = {
            "knownot: more unknown": more_unknown(streams, x),
            "knownot: known shifted": first(rank_alarms(streams, x), limit("shift")),
            "the bet on ranks, tuned to 1 %": first(tail_alarms(streams, x), tuned),
        }
        rows |= {other: method(streams, x, settings[other]) for other, method in others.items()}
        for method_name, hit in rows.items():
            delay = np.where(hit >= start, hit - start, np.where(hit < 0, np.inf, np.nan))
            delay = delay[~np.isnan(delay)]
            said = [f"{v:,.0f}" if np.isfinite(v) else "never" for v in np.quantile(delay, (0.5, 0.9), method="higher")]
            print(f"| {name}, {share:.0%} | {method_name} | {said[0]} | {said[1]} | {(hit < 0).mean():.0%} | "
                  f"{((hit >= 0) & (hit < start)).mean():.1%} |", flush=True)  # fmt: skip


def p_of(streams: Streams, x: np.ndarray) -> np.ndarray:
    return np.stack([p_values(c, row.astype(np.float64)) for c, row in zip(streams.calibration, x, strict=True)])


def tuned_first(found: np.ndarray, threshold: object) -> object:
    """On clean streams (threshold None) the threshold at which 1 % alarm, else the alarms."""
    running = np.maximum.accumulate(found, axis=1)
    return np.quantile(running[:, -1], 0.99) if threshold is None else first(running, float(threshold))  # type: ignore[arg-type]


def ewma(streams: Streams, x: np.ndarray, threshold: object, weight: float = 0.01) -> object:
    """Exponentially weighted mean of -log p against its mean in the calibration set (Roberts 1959)."""
    surprise = -np.log(p_of(streams, x)).astype(np.float32)
    state, out = np.full(len(x), 1.0), np.empty_like(surprise)
    for t in range(x.shape[1]):
        state = (1 - weight) * state + weight * surprise[:, t]
        out[:, t] = state
    return tuned_first(out, threshold)


def windows(streams: Streams, x: np.ndarray, threshold: object, size: int = 200, every: int = 25) -> object:
    """Kolmogorov–Smirnov statistic of the last 200 p-values against the uniform law, every 25 images."""
    p, grid = p_of(streams, x), np.arange(1, size + 1) / size
    out = np.zeros(x.shape, np.float32)
    for t in range(size, x.shape[1] + 1, every):
        ordered = np.sort(p[:, t - size : t], axis=1)
        out[:, t - 1] = np.maximum(np.abs(ordered - grid), np.abs(ordered - grid + 1 / size)).max(axis=1)
    return tuned_first(out, threshold)


def adwin(streams: Streams, x: np.ndarray, delta: object) -> object:
    """river's ADWIN on p-values; tuned: the largest delta of a grid with at most 1 % alarms in 200 clean streams."""
    from river.drift import ADWIN

    def run(p: np.ndarray, delta: float) -> int:
        detector = ADWIN(delta=delta)
        for t, value in enumerate(p.tolist()):
            detector.update(value)
            if detector.drift_detected:
                return t
        return -1

    p = p_of(streams, x[:200] if delta is None else x) if delta is not None else p_of(streams, x)[:200]
    if delta is not None:
        return np.array([run(row, float(delta)) for row in p])  # type: ignore[arg-type]
    for trial in (2e-3, 3e-4, 3e-5, 3e-6, 3e-7):
        if np.mean([run(row, trial) >= 0 for row in p]) <= 0.01:
            return trial
    return 3e-8


def since(scores: dict[str, np.ndarray], draws: int, n: int = 1000, start: int = 2000) -> None:
    """The interval of the change in the first alarm, and what a monitor costs."""
    from knownot.monitoring import Monitor
    from knownot.openset.verdicts import Verdicts

    draws = min(draws, 200)
    print("| what comes | first alarm | told as | interval holds image 2,001 | its median width | µs / image |\n"
          "|---|---|---|---|---|---|")  # fmt: skip
    for name, share in (("textures", 0.1), ("textures", 0.3), ("tiny-imagenet", 0.2), ("jpeg", 1.0), ("blur", 1.0)):
        rng = np.random.default_rng([3, int(100 * share), len(name)])
        kinds, inside, width, took, images, looks = [], [], [], 0.0, 0, []
        for _ in range(draws):
            calibration = drawn(rng, scores["known"], n)
            x = drawn(rng, scores["known"], start + 4000)
            late = (rng.random(len(x)) < share) & (np.arange(len(x)) >= start)
            x[late] = drawn(rng, scores[name], int(late.sum()))
            p = p_values(calibration, x.astype(np.float32))
            m, zero = len(x), np.zeros(len(x), np.int64)
            verdicts = Verdicts(tuple(map(str, range(m))), np.where(p <= 0.03, -1, 0), p, x.astype(np.float32), zero,
                                np.ones(m, np.float32), (None,) * m, p[:, None], ("all",), ("one",))  # fmt: skip
            monitor, begin = Monitor(calibration, class_names=("one",), members=("all",)), time.process_time()
            alarms = [a for a in monitor.update(verdicts) if a.image > start]
            took, images = took + time.process_time() - begin, images + m
            kinds.append({a.kind for a in alarms})
            if alarms:
                looks.append(alarms[0].looks)
                inside.append(alarms[0].since_low <= start + 1 <= alarms[0].since_high)
                width.append(alarms[0].since_high - alarms[0].since_low)
        told = ", ".join(f"{k} {np.mean([k in x for x in kinds]):.0%}" for k in ("more unknown", "known shifted"))
        said = ", ".join(f"{k} {np.mean([k == x for x in looks]):.0%}" for k in ("steady", "shifted", "unclear"))
        print(f"| {name}, {share:.0%} | {told} | {said} | {np.mean(inside):.0%} | {np.median(width):,.0f} | "
              f"{took / images * 1e6:.0f} |", flush=True)  # fmt: skip


def long(scores: dict[str, np.ndarray], draws: int, n: int = 1000) -> None:
    """One monitor over 1,000,000 known images: memory, time, and the file of its state."""
    import resource
    import tempfile

    from knownot.monitoring import Monitor
    from knownot.openset.verdicts import Verdicts

    rng = np.random.default_rng(4)
    calibration = drawn(rng, scores["known"], n)
    monitor = Monitor(calibration, class_names=("one",), members=("all",))
    print("| images | µs / image | largest memory of the process, MB | state, kB |\n|---|---|---|---|")
    took, size = 0.0, 1000
    with tempfile.TemporaryDirectory() as folder:
        for done in range(size, 1_000_001, size):
            x = drawn(rng, scores["known"], size).astype(np.float32)
            p, zero = p_values(calibration, x), np.zeros(size, np.int64)
            verdicts = Verdicts(tuple(map(str, range(size))), np.where(p <= 0.03, -1, 0), p, x, zero,
                                np.ones(size, np.float32), (None,) * size, p[:, None], ("all",), ("one",))  # fmt: skip
            begin = time.process_time()
            monitor.update(verdicts)
            took += time.process_time() - begin
            if done in (10_000, 100_000, 300_000, 1_000_000):
                monitor.save(Path(folder, "state.json"))
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
                kilobytes = Path(folder, "state.json").stat().st_size / 1000
                print(f"| {done:,} | {took / done * 1e6:.0f} | {memory:.1f} | {kilobytes:.0f} |", flush=True)
    print(f"\n{len(monitor.alarms)} alarms")


PARTS = {"batches": batches, "clean": clean, "delays": delays, "since": since, "long": long}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 1000, 5000], help="calibration images of `clean`")
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    scores = {key.removesuffix("/score"): x for key, x in load(options.cache).items() if key.endswith("/score")}
    for part in options.parts or PARTS:
        begin = time.process_time()
        print(f"\n{part}: {PARTS[part].__doc__}\n")
        PARTS[part](scores, options.draws, *([options.sizes] if part == "clean" else []))
        print(f"\n({time.process_time() - begin:.0f} s of processor time)", flush=True)


if __name__ == "__main__":
    main()
