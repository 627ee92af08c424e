"""Bets over a stream: their promise, what they notice, and a state that goes on as if nothing had happened."""

import dataclasses
import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import integrate, stats

from knownot.calibration import p_values, two_sample_test
from knownot.calibration.martingale import FlagBets, RankBets, Ranks, TailBets, beta_mixture, jump, pac_levels
from knownot.errors import CalibrationError, OptionError
from knownot.monitoring import Alarm, Monitor, merged_evidence
from knownot.monitoring.history import History, change_point
from knownot.monitoring.notify import checked_url, post, prometheus, run_command
from knownot.monitoring.page import page
from knownot.openset.verdicts import Verdicts

CALIBRATION = np.random.default_rng(0).normal(size=400)
NAMES, MEMBERS = ("ant", "bee"), ("knn", "gen")


def verdicts(scores, closed=None, bad=(), names=None):
    """Verdicts of these scores against CALIBRATION."""
    scores = np.asarray(scores, dtype=np.float32)
    n = len(scores)
    p = p_values(CALIBRATION, scores)
    closed = np.arange(n) % 2 if closed is None else closed
    bad = np.isin(np.arange(n), bad)
    return Verdicts(
        tuple(names or (f"#{i}" for i in range(n))), np.where((p <= 0.03) | bad, -1, closed), np.where(bad, np.nan, p),
        np.where(bad, np.nan, scores).astype(np.float32), closed, np.ones(n, np.float32),
        tuple("why" if b else None for b in bad), np.stack([p, np.full(n, 0.5)], axis=1), MEMBERS, NAMES,
    )  # fmt: skip


def monitor(**options):
    return Monitor(CALIBRATION, class_names=NAMES, members=MEMBERS, **options)


def stream(seed, n=1500, unknown=0.0, start=500, shift=0.0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=n)
    scores[start:] += shift
    late = (np.arange(n) >= start) & (rng.random(n) < unknown)
    return np.where(late, rng.normal(4, 1, n), scores)


@pytest.mark.parametrize("n", [40, 400, 5000])
def test_levels_hold_together_given_the_calibration_set(n):
    thresholds, rates = pac_levels(n, 0.01)
    ranks = np.floor(thresholds * (n + 1)).astype(int)
    for k, rate in zip(ranks, rates, strict=True):
        assert stats.beta.sf(rate, k, n + 1 - k) == pytest.approx(0.01 / len(ranks), rel=1e-6)
    with pytest.raises(CalibrationError, match="39 calibration images are too few"):
        pac_levels(39, 0.01)


def test_a_bet_that_nothing_has_changed_is_fair():
    """The capital expected after one image is at most the capital before, whatever was bet; exactly it at the rate."""
    thresholds, rates = pac_levels(400, 0.01)
    for flags in itertools.product([0.0, 1.0], repeat=3):
        bets = FlagBets.start(thresholds, rates)
        for p in flags:
            bets.step(p)
        before = np.exp(bets.log_levels)
        after = []
        for p in (0.0, 1.0):
            other = FlagBets(thresholds, rates, bets.shares.copy(), bets.log_jumper.copy(), bets.flags.copy(),
                             bets.images.copy())  # fmt: skip
            other.step(p)
            after.append(np.exp(other.log_levels))
        np.testing.assert_allclose(rates * after[0] + (1 - rates) * after[1], before, rtol=1e-9)
        lower = rates / 2
        assert (lower * after[0] + (1 - lower) * after[1] <= before * (1 + 1e-12)).all()


@pytest.mark.parametrize("kind", [RankBets, TailBets])
def test_rank_bets_are_fair_too(kind):
    bets = kind.start()
    for p in (0.1, 0.9, 0.003):
        bets.step(np.float64(p))

    def after(p):
        return math.exp(kind(bets.shares.copy(), bets.log_capital.copy(), bets.images.copy()).step(p))

    whole = integrate.quad(after, 0, 1, points=[1 / 256, 1 / 64, 1 / 16, 1 / 4])[0]
    assert whole == pytest.approx(math.exp(bets.log_capital), rel=1e-6)


def test_a_bet_on_ranks_pays_nothing_for_a_small_calibration_set():
    """It tells a change long before the bet that knows the calibration set only, also after a quiet time."""
    heard = []
    for seed in range(5):
        m = monitor()
        m.update(verdicts(stream(seed, 2500, unknown=0.1, start=1500)))
        assert m.alarms[0].kind == "more unknown"
        heard.append(m.alarms[0].image - 1500)
        bets = FlagBets.start(*pac_levels(400, 0.005))
        p = p_values(CALIBRATION, stream(seed, 2500, unknown=0.1, start=1500))
        alone = next(i for i, x in enumerate(p) if bets.step(x) > math.log(400)) - 1500
        assert 0 < heard[-1] < alone
    assert np.median(heard) < 120


def test_a_long_quiet_time_does_not_make_it_deaf():
    """Capital falls as the root of the number of images: a change after 10,000 is told nearly as soon as after 200."""
    thresholds, rates = pac_levels(400, 0.01)
    heard = []
    for quiet in (200, 10_000):
        rng, bets = np.random.default_rng(0), FlagBets.start(thresholds, rates)
        for p in rng.random(quiet):
            bets.step(p)
        late = np.where(rng.random(2000) < 0.3, 1e-9, rng.random(2000))
        heard.append(next(i for i, p in enumerate(late) if bets.step(p) > math.log(160)))
    assert heard[1] < heard[0] + 60 < 160


def test_the_beta_mixture_is_the_integral():
    rate, s, t = 0.05, 7, 60
    whole = integrate.quad(lambda x: (x / rate) ** s * ((1 - x) / (1 - rate)) ** (t - s) / (1 - rate), rate, 1)[0]
    assert beta_mixture(np.array(s), np.array(t), rate) == pytest.approx(math.log(whole), rel=1e-6)


@pytest.mark.parametrize(("s", "t"), [(1_600, 100_000), (200, 60_000), (0, 200_000), (16_000, 1_000_000)])
def test_the_beta_mixture_of_a_long_quiet_stream_is_the_integral(s, t):
    """Where P(theta > rate) is smaller than floating point holds: the capital is not."""
    rate = 0.0127 * 2

    def integrand(x):
        return math.exp(s * math.log(x / rate) + (t - s) * math.log((1 - x) / (1 - rate))) / (1 - rate)

    whole = integrate.quad(integrand, rate, rate + 60 / ((t - s) / (1 - rate) - s / rate), epsabs=0)[0]
    assert beta_mixture(np.array(s), np.array(t), rate) == pytest.approx(math.log(whole), abs=1e-4)


def test_the_jumper_is_the_recursion_of_the_paper():
    shares, log = np.full(3, 1 / 3), np.zeros(())
    capital = np.full(3, 1 / 3)
    for factors in ([2.0, 1.0, 0.5], [0.5, 1.0, 2.0], [2.0, 1.0, 0.5]):
        capital = (0.9 * capital + 0.1 * capital.sum() / 3) * factors
        jump(shares, log, np.array(factors), 0.1)
    assert math.exp(log) == pytest.approx(capital.sum())


@pytest.mark.parametrize("cuts", [[1] * 60, [7, 23, 30], [60]])
def test_ranks_are_those_of_a_growing_list_whatever_the_batches(cuts):
    rng = np.random.default_rng(3)
    ranks = Ranks.start(rng.normal(size=100), seed=5)
    plain_counts = [b for b, c in enumerate(ranks.counts) for _ in range(c)]
    scores = rng.normal(size=60)
    got = np.concatenate([ranks.add(part) for part in np.split(scores, np.cumsum(cuts)[:-1])])
    u = np.random.default_rng(np.random.PCG64(5)).random(60)
    for i, s in enumerate(scores):
        b = int((ranks.edges < s).sum())
        plain_counts.append(b)
        above, equal = sum(x > b for x in plain_counts), sum(x == b for x in plain_counts)
        assert got[i] == pytest.approx((above + u[i] * equal) / len(plain_counts))


def test_ranks_are_uniform_when_nothing_changes():
    p = np.concatenate([Ranks.start(x[:50], seed=i).add(x[50:]) for i, x in enumerate(
        np.random.default_rng(1).normal(size=(60, 80)))])  # fmt: skip
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_false_alarms_are_rarer_than_promised():
    raised = sum(bool(monitor(false_alarms=0.2, seed=i).update(verdicts(stream(i, 400)))) for i in range(30))
    assert raised <= stats.binom.ppf(0.999, 30, 0.2)


def test_more_unknown_is_told_with_its_place_and_its_classes():
    scores = stream(1, unknown=0.3)
    m = monitor()
    alarm = m.update(verdicts(scores, closed=(scores > 2).astype(np.int64)))[0]
    assert alarm.kind == "more unknown"
    assert 500 < alarm.image < 700
    assert alarm.since_low - 40 <= 501 <= alarm.since_high + 40
    assert alarm.unknown_after > 4 * alarm.unknown_before
    assert alarm.classes[0][0] == "bee"
    assert alarm.members[0][0] == "knn"
    assert set(alarm.examples) <= {f"#{i}" for i in range(500, alarm.image)}
    assert alarm.examples
    assert alarm.looks in ("steady", "unclear")
    assert Alarm.of(json.loads(json.dumps(alarm.facts()))) == alarm
    assert "more images look unknown" in alarm.sentence


def test_a_shift_of_known_images_is_told_from_unknown_ones():
    kinds = [a.kind for a in monitor().update(verdicts(stream(2, 3000, shift=0.6)))]
    assert "known shifted" in kinds
    kinds = {a.kind for a in monitor().update(verdicts(stream(2, 3000, unknown=0.3)))}
    assert kinds == {"more unknown"}


def test_a_shift_towards_looking_more_known_is_told():
    alarms = monitor().update(verdicts(stream(4, 3000, shift=-0.8)))
    assert {a.kind for a in alarms} == {"known shifted"}


def test_restarts_spend_the_error_once():
    m = monitor()
    alarms = m.update(verdicts(stream(5, 8000, unknown=0.5)))
    more = [a for a in alarms if a.kind == "more unknown"]
    assert len(more) >= 4
    assert [a.number for a in more] == list(range(1, len(more) + 1))
    assert sum(a.error for a in more) < 0.05 / 2
    assert all(b.image - a.image > 1000 for a, b in itertools.pairwise(more))  # a pause between
    assert all(a.log_evidence >= -math.log(a.error) for a in more)
    assert more[1].still
    assert more[1].since == more[0].since
    assert "still" in more[1].sentence


def test_the_state_goes_on_as_if_nothing_had_happened(tmp_path):
    scores = stream(6, 3000, unknown=0.2, shift=0.5)
    whole = monitor()
    expected = whole.update(verdicts(scores))
    assert {a.kind for a in expected} == {"more unknown", "known shifted"}
    everything, found, at = verdicts(scores), [], 0
    rng = np.random.default_rng(0)
    while at < len(scores):
        step = int(rng.integers(1, 400))
        m = monitor()
        if at:
            m.restore(tmp_path / "state.json")
        found += m.update(everything.take(np.arange(at, min(at + step, len(scores)))))
        at += step
        m.save(tmp_path / "state.json")
    assert found == expected == m.alarms
    assert m.log_evidence("known shifted") == whole.log_evidence("known shifted")
    np.testing.assert_array_equal(m.blocks(), whole.blocks())
    whole.save(tmp_path / "whole.json")
    assert (tmp_path / "whole.json").read_bytes() == (tmp_path / "state.json").read_bytes()
    assert (tmp_path / "state.json").stat().st_size < 100_000


def test_memory_does_not_grow(tmp_path):
    history = History()
    for _ in range(20_000):
        history.add([1.0, 0.0])
    assert history.rows()[:, 0].sum() == 20_000
    assert len(history.rows()) < 400


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s | {"fingerprint": "x"}, "another fingerprint"),
        (lambda s: s | {"false_alarms": 0.1}, "another false_alarms"),
        (lambda s: s | {"version": 0}, "no state of a monitor"),
        (lambda s: {k: v for k, v in s.items() if k != "ranks"}, "no state of a monitor"),
        (lambda s: s | {"ranks": {"counts": [1], "drawn": 0}}, "no state of a monitor"),
    ],
)
def test_a_state_of_something_else_is_refused(tmp_path, change, says):
    path = tmp_path / "state.json"
    monitor().save(path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(OptionError, match=says):
        monitor().restore(path)
    path.write_text("{")
    with pytest.raises(OptionError, match="no state of a monitor"):
        monitor().restore(path)


def test_streams_merge_exactly():
    scores = stream(7, 900, unknown=0.1)
    whole, parts = monitor(), [monitor(), monitor(), monitor()]
    whole.update(verdicts(scores))
    for i, part in enumerate(parts):
        part.update(verdicts(scores[i::3]))
    if not whole.alarms:  # an alarm begins the counts anew
        assert merged_evidence(parts) == pytest.approx(merged_evidence([whole]), rel=1e-12)
    quiet = [monitor(), monitor()]
    for i, part in enumerate(quiet):
        part.update(verdicts(stream(8, 300)[i::2]))
    one = monitor()
    one.update(verdicts(stream(8, 300)))
    assert merged_evidence(quiet) == merged_evidence([one])
    with pytest.raises(OptionError, match="merge"):
        merged_evidence([whole, monitor(false_alarms=0.1)])


def test_the_change_point_is_where_the_rate_changed():
    rng = np.random.default_rng(9)
    hits = 0
    for _ in range(60):
        flags = rng.random(400) < np.where(np.arange(400) < 250, 0.03, 0.25)
        at, low, high = change_point(np.append(500, np.ones(400)), np.append(15, flags), True)
        hits += low <= 251 <= high
        assert abs(at - 251) < 60
    assert hits >= stats.binom.ppf(0.001, 60, 0.95)


def test_unreadable_images_are_counted_and_verdicts_of_others_refused():
    m = monitor()
    m.update(verdicts(np.zeros(5), bad=[1, 2]))
    assert (m.images, m.unreadable) == (3, 2)
    other = dataclasses.replace(verdicts(np.zeros(2)), members=("x", "y"))
    with pytest.raises(OptionError, match="another open-set classifier"):
        m.update(other)


def test_metrics_and_page_say_what_is_known():
    m = monitor(name='cam "1"\n')
    m.update(verdicts(stream(1, unknown=0.3), names=["<b>"] * 1500))
    text = prometheus(m)
    assert 'knownot_images_total{stream="cam \\"1\\"\\n"} 1500' in text
    assert f'kind="more_unknown"}} {len([a for a in m.alarms if a.kind == "more unknown"])}' in text
    assert 0.1 < float(text.split("knownot_unknown_share{")[1].split("} ")[1].split("\n")[0]) < 0.6
    html = page(m, 0.05)
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    assert html.count("<svg") == 2
    assert "<script" not in html
    assert "nan" not in html.split("</style>")[1]
    assert "0 images" in page(monitor(), 0.05)


def test_hooks_get_the_alarm(tmp_path):
    alarm = monitor().update(verdicts(stream(1, unknown=0.3)))[0]
    reads = (
        f"import sys, os; open({str(tmp_path / 'told')!r}, 'w').write(sys.stdin.read() + os.environ['KNOWNOT_KIND'])"
    )
    (tmp_path / "hook.py").write_text(reads)
    assert run_command(f"{sys.executable} {tmp_path / 'hook.py'}", alarm, "cam") is None
    told = (tmp_path / "told").read_text()
    assert told.endswith("more unknown")
    assert json.loads(told[: -len("more unknown")])["stream"] == "cam"
    assert "ended with 3: no" in run_command("echo no >&2; exit 3", alarm)
    assert "could not be told" in post("http://127.0.0.1:9/", alarm)
    with pytest.raises(OptionError, match="http"):
        checked_url("ftp://x")


def test_windows_of_one_law_do_not_differ_and_others_do():
    rng = np.random.default_rng(0)
    ps = [two_sample_test(*rng.normal(size=(2, 40, 3)), permutations=39, seed=i).p_value for i in range(100)]
    assert np.mean(np.array(ps) <= 0.1) <= stats.binom.ppf(0.999, 100, 0.1) / 100
    shifted = two_sample_test(rng.normal(size=(60, 3)), rng.normal(size=(50, 3)) + 0.8)
    assert shifted.p_value == 0.001
    assert shifted.images == (60, 50)
    assert "differ" in shifted.sentence
    with pytest.raises(OptionError, match="two images"):
        two_sample_test(np.zeros((1, 3)), np.zeros((5, 3)))


def test_the_discrepancy_is_the_plain_double_sum():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(7, 2)), rng.normal(size=(5, 2)) + 1
    both = np.concatenate([a, b])
    d = ((both[:, None] - both[None]) ** 2).sum(-1)
    middle = np.median(d[np.triu_indices(12, 1)])
    k = np.mean([np.exp(-d / (middle * w)) for w in (0.25, 1, 4)], axis=0)
    expected = sum(k[i, j] for i in range(7) for j in range(7) if i != j) / 42
    expected += sum(k[i, j] for i in range(7, 12) for j in range(7, 12) if i != j) / 20
    expected -= 2 * sum(k[i, j] for i in range(7) for j in range(7, 12)) / 35
    assert two_sample_test(a, b, permutations=19).distance == pytest.approx(expected)


def test_importing_monitoring_is_light():
    heavy = ("scipy.stats", "sklearn", "onnxruntime")
    code = f"import sys, knownot.monitoring; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
