"""Plots: what is drawn is what was given, text is text, colours are the page's, and nothing hostile gets in."""

from __future__ import annotations

import io
import re
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from knownot import plots
from knownot.errors import InputError, MissingExtraError
from knownot.plots import PALETTE, Measured, bars, confusion, dots, gallery, number, percent, reliability, scatter
from knownot.plots.drawing import INK
from knownot.plots.plane import principal, tsne

RNG = np.random.default_rng(0)
HOSTILE = "<script>alert(1)</script>\"'>$\\frac{1}{0}$&amp;"


def near(value: float) -> Measured:
    return Measured(value, max(0.0, value - 0.05), min(1.0, value + 0.05))


ROWS = {"uniform": near(0.25), "gaussian": near(0.75), HOSTILE: near(1.0), "nothing": Measured(0.0, 0.0, 0.1)}
POINTS = {"known images": ("known", RNG.normal(0, 1, (60, 2))), HOSTILE: ("unknown", RNG.normal(3, 1, (30, 2)))}
CHARTS = {
    "bars": lambda name: bars(ROWS, name=name, title="t", label="share"),
    "bars behind": lambda name: bars(ROWS, name=name, title="t", label="a", behind={"b": [1, 1, 1, 0.5]}),
    "bars wide": lambda name: bars(ROWS, name=name, title="t", wide=True, roles={"uniform": "known"}),
    "reliability": lambda name: reliability([(0.5, 0.6, 40, 0.55, near(0.5))], name=name, title="t"),
    "confusion": lambda name: confusion(np.array([[9, 1], [0, 0]]), ["cat", HOSTILE], name=name, title="t"),
    "scatter": lambda name: scatter(POINTS, name=name, title="t"),
    "dots": lambda name: dots({"knn": ROWS, HOSTILE: ROWS}, name=name, title="t"),
    "dots perfect": lambda name: dots({"knn": {"uniform": Measured(1.0, 1.0, 1.0)}}, name=name, title="t"),
    "dots mean": lambda name: dots({"knn": ROWS}, name=name, title="t", mean={"knn": near(0.5)}, low=0.0),
}


def parsed(svg: object) -> ET.Element:
    return ET.fromstring(str(svg))


@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_is_a_sound_element_of_a_page(chart):
    svg = str(CHARTS[chart]("here"))
    root = parsed(svg)
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == root.find("title").get("id") == "here-title"
    assert root.find("title").text == "t"
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert all(i.startswith("here-") for i in ids)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:href=\"|url\()#([^\")]+)", svg)) <= set(ids)
    assert not re.search(r"https?:|<style|<script|<image|<metadata|xmlns", svg)


@pytest.mark.parametrize("chart", CHARTS)
def test_colours_are_variables_of_the_palette(chart):
    svg = str(CHARTS[chart]("here"))
    used = set(re.findall(r"var\(--([a-z-]+)\)", svg))
    assert used
    assert used <= set(PALETTE)
    left = set(re.findall(r"#[0-9a-fA-F]{6}\b", svg))
    assert not left, left  # a colour that dark pages could not change


@pytest.mark.parametrize("chart", CHARTS)
def test_the_same_numbers_give_the_same_drawing(chart):
    assert CHARTS[chart]("here") == CHARTS[chart]("here")


def test_names_are_text():
    words = "".join(e.text or "" for e in parsed(CHARTS["bars wide"]("x")).iter())
    assert "<script>alert(1)</script>" in words
    assert "\\frac" in words  # not taken for mathematics


def paths(root: ET.Element, role: str) -> list[np.ndarray]:
    """Corners of the filled shapes of a colour."""
    found = []
    for e in root.iter():
        if f"fill: var(--{role})" in (e.get("style") or "") and e.tag.endswith("path") and e.get("d"):
            found.append(np.array(re.findall(r"-?[\d.]+", e.get("d")), float).reshape(-1, 2))
    return found


def test_bars_are_as_long_as_the_numbers_say():
    root = parsed(bars({"a": near(0.25), "b": near(0.75), "c": near(0.5)}, name="x", title="t", role="known"))
    lengths = [np.ptp(p[:, 0]) for p in paths(root, "known")]
    np.testing.assert_allclose(np.array(lengths) / lengths[0], [1, 3, 2], rtol=1e-3)


def test_whiskers_end_where_the_interval_does():
    root = parsed(bars({"a": Measured(0.5, 0.25, 1.0)}, name="x", title="t", role="known"))
    (bar,) = paths(root, "known")
    zero, half = bar[:, 0].min(), bar[:, 0].max()
    lines = [
        np.array(re.findall(r"-?[\d.]+", e.get("d")), float).reshape(-1, 2)
        for e in root.iter()
        if e.tag.endswith("path") and "stroke: var(--ink)" in (e.get("style") or "") and len(e.get("d").split()) == 6
    ]
    flat = [x for x in lines if np.ptp(x[:, 1]) < 1e-6 and np.ptp(x[:, 0]) > 1]
    assert len(flat) == 1
    np.testing.assert_allclose((flat[0][:, 0] - zero) / (half - zero), [0.5, 2.0], rtol=1e-3)


def test_the_confusion_matrix_says_the_shares_of_rows():
    root = parsed(confusion(np.array([[90, 10], [40, 60]]), ["cat", "dog"], name="x", title="t"))
    words = [e.text for e in root.iter() if e.tag.endswith("text") and e.text]
    assert [w for w in words if w.isdigit()] == ["90", "10", "40", "60"]


def test_points_far_out_stay_on_the_map():
    points = np.concatenate([RNG.normal(0, 1, (300, 2)), [[1e6, 1e6]]])
    root = parsed(scatter({"known images": ("known", points)}, name="x", title="t"))
    places = np.array(
        [(float(e.get("x")), float(e.get("y"))) for e in root.iter() if e.tag.endswith("use") and e.get("y")]
    )
    assert len(places) >= 301
    spread = np.quantile(places[:, 0], [0.1, 0.9])
    assert np.ptp(spread) > 100  # not pressed together into a point
    assert (places >= 0).all()
    assert (places <= 440).all()


def test_groups_of_unknown_images_differ_in_shape():
    groups = {name: ("unknown", RNG.normal(0, 1, (5, 2))) for name in ("one", "two")}
    root = parsed(scatter(groups, name="x", title="t"))
    shapes = {p.get("d") for g in root.iter("g") if "PathCollection" in g.get("id", "") for p in g.iter("path")}
    assert len(shapes) == 4  # and each larger in the legend


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"knownot\[audit\]"):
        CHARTS["bars"]("x")
    svg = plots.histogram(np.arange(9.0), np.arange(9.0), 3.0)  # needs nothing
    assert svg.startswith("<svg")


# ---- colours ----


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", ["light", "dark"])
def test_words_can_be_read_and_shapes_be_seen(page):
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what has a meaning in a picture (2 for incoming images, on white)."""
    colour = {role: getattr(tone, page) for role, tone in PALETTE.items()}
    for role in ("ink", "soft", "known-ink", "unknown-ink", "ok", "warning", "problem"):
        for ground in ("paper", "panel"):
            assert contrast(colour[role], colour[ground]) >= 4.5, (role, ground)
    for role, least in (("known", 3), ("unknown", 3), ("fooling", 3), ("threshold", 3), ("incoming", 2)):
        assert contrast(colour[role], colour["paper"]) >= least, role


# Machado, Oliveira & Fernandes 2009, severity 1: what colour-blind eyes see, of linear RGB.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("page", ["light", "dark"])
@pytest.mark.parametrize("eyes", [None, *BLIND])
def test_colour_blind_eyes_tell_known_from_all_others(page, eyes):
    def seen(role: str) -> np.ndarray:
        colour = getattr(PALETTE[role], page)
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        linear = np.clip(np.array(BLIND[eyes]) @ linear, 0, 1) if eyes else linear
        back = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        return 255 * back

    for role in ("incoming", "unknown"):
        assert np.linalg.norm(seen("known") - seen(role)) > 80, role


def test_every_role_has_a_colour_of_its_own_while_drawing():
    assert len(set(INK.values())) == len(INK) == len(PALETTE)
    sheet = plots.stylesheet()
    for role in set(re.findall(r"var\(--([a-z-]+)\)", sheet)):
        assert role in PALETTE, role
    assert sheet.count("prefers-color-scheme: dark") == 1


# ---- pictures and words ----


def test_a_gallery_of_arrays_files_and_addresses():
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), (10, 200, 30)).save(buffer, "WEBP", lossless=True)
    uri = plots.data_uri(np.zeros((4, 4, 3), np.uint8))
    page = str(gallery([(np.zeros((4, 4, 3), np.uint8), HOSTILE, "b"), (buffer.getvalue(), "c", "d"), (uri, "e", "f")]))
    root = parsed(re.sub("(<img [^>]*)>", r"\1/>", page))
    images = [e.get("src") for e in root.iter("img")]
    assert [s.split(";")[0] for s in images] == ["data:image/png", "data:image/webp", "data:image/png"]
    assert root.find("li/bdi").text == HOSTILE
    with pytest.raises(InputError, match="data URI"):
        gallery([("javascript:alert(1)", "a", "b")])


def test_numbers_in_words():
    assert percent(0.5).replace("\u00a0", " ") == "50 %"
    assert (number(1234567), number(0.123456), number(12345.6)) == ("1,234,567", "0.1235", "12,346")


# ---- planes ----


def test_principal_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    rows, others = RNG.normal(0, [5, 3, 1, 0.5], (200, 4)), RNG.normal(2, 1, (30, 4))
    flat, explained = principal(rows, {"a": rows, "b": others})
    reference = PCA(2).fit(rows)
    np.testing.assert_allclose(explained, reference.explained_variance_ratio_, rtol=1e-9)
    for name, x in (("a", rows), ("b", others)):
        np.testing.assert_allclose(np.abs(flat[name]), np.abs(reference.transform(x)), rtol=1e-6, atol=1e-9)
    turned, _ = principal(-rows, {"a": -rows})
    np.testing.assert_allclose(np.abs(turned["a"]), np.abs(flat["a"]), atol=1e-9)


def test_tsne_parts_what_is_apart_and_repeats_itself():
    groups = {"a": RNG.normal(0, 1, (40, 8)), "b": RNG.normal(12, 1, (30, 8))}
    first, again = tsne(groups, 3), tsne(groups, 3)
    assert {name: len(x) for name, x in first.items()} == {"a": 40, "b": 30}
    for name in groups:
        np.testing.assert_array_equal(first[name], again[name])
    apart = np.linalg.norm(first["a"].mean(axis=0) - first["b"].mean(axis=0))
    assert apart > 2 * max(first["a"].std(), first["b"].std())


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(MissingExtraError, match=r"knownot\[audit\]"):
        tsne({"a": np.zeros((4, 3))}, 0)


def test_names_in_wide_tables_are_not_broken_into_letters():
    """Cells may break anywhere, so that on a narrow screen the first column would shrink to one letter."""
    rule = re.search(
        r"\.scroll th:first-child, \.scroll td:first-child \{ min-width: ([\d.]+)em; \}", plots.stylesheet()
    )
    assert rule is not None
    assert float(rule[1]) >= 6
