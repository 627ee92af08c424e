"""The report: every number is the given one, hostile names stay text, nothing is fetched, odd scores can be drawn."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from helpers.browser import Browser
from knownot.errors import InputError
from knownot.plots import data_uri, p_value, percent, visible
from knownot.plots.histogram import BINS, bins_of, histogram, ticks
from knownot.report import Card, ClassCount, Counts, Group, ModelDescription, Neighbour, ReportData, write_report
from knownot.report.html import surprise
from knownot.report.plane import places

RNG = np.random.default_rng(0)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}.png"


APART = {"td", "th", "dt", "dd", "li", "p", "h1", "h2", "title", "br", "text"}  # a reader sees a gap here


class Page(HTMLParser):
    """A page as its tags, with attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.pieces: list[str] = []
        self.inside: list[str] = []
        self.feed(html)
        self.close()
        self.text = re.sub(r"\s+", " ", "".join(self.pieces))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.inside.append(tag)
        self.pieces += [" "] * (tag in APART)

    def handle_endtag(self, tag: str) -> None:
        self.inside.append("/" + tag)

    def handle_data(self, data: str) -> None:
        if not self.inside or self.inside[-1] != "style":
            self.pieces.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def png(side: int = 28, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def gif() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "GIF")
    return buffer.getvalue()


def card(**changes: object) -> Card:
    given = {
        "id": "in/a.png",
        "unknown": True,
        "closed_class": "Bag",
        "confidence": 0.8314,
        "p_value": 0.00372,
        "thumb": png(),
        "member_p_values": {"KNN": 0.0271, "GEN": 0.419},
        "neighbours": (
            Neighbour("Coat", png(seed=1)),
            Neighbour("Shirt", png(seed=2)),
            Neighbour("Dress", png(seed=3)),
        ),
    }
    return Card(**(given | changes))


def data(**changes: object) -> ReportData:
    given = {
        "title": "Incoming photos",
        "when": "1 June 2025, 12:00",
        "model": ModelDescription("net.onnx", 17, "GEN + KNN", "grey, 28×28", 0.9137),
        "guarantee": "At most 7 % of known images are rejected.",
        "alpha": 0.073,
        "counts": Counts(known=1041, unknown=160, unreadable=2),
        "calibration_scores": np.random.default_rng(0).normal(0, 1, 613),
        "incoming_scores": np.random.default_rng(1).normal(1, 2, 1201),
        "threshold": 1.6449,
        "most_unknown": (card(),),
        "borderline": (card(id="in/b.png", unknown=False, closed_class="Boot", confidence=0.617, p_value=0.0831),),
        "unreadable": (("in/c.png", "the file is empty"), ("in/d.png", "cut off")),
        "class_counts": (ClassCount("Bag", 841, 149), ClassCount("Boot", 200, 11)),
        "notes": ("Few calibration images.",),
        "seconds": 12.25,
        "images_per_second": 98.2,
        "version": "9.8.7",
        "command": "knownot predict osc in",
    }
    return ReportData(**(given | changes))


@pytest.fixture
def page(tmp_path):
    def written(report: ReportData) -> Page:
        path = tmp_path / "new folder" / "report.html"
        write_report(path, report)
        return Page(path.read_text(encoding="utf-8"))

    return written


# ---- what stands in it ----


def test_every_number_is_the_given_one(page):
    text = page(data()).text
    for stands in (
        "1,203 images: 1,041 known, 160 unknown, 2 unreadable.",
        "known: 86.5 % unknown: 13.3 % unreadable: 0.2 %",
        "At most 7 % of known images are rejected.",
        "613 known images",
        "1,201 images that came in",
        "threshold 1.645",
        "1 of 160, the least likely",
        "in/a.png unknown The classifier says Bag, 83.1 % sure. p-value 0.0037 KNN 0.027 GEN 0.42",
        "Nearest known images Coat Shirt Dress",
        "in/b.png Boot The classifier is 61.7 % sure. p-value 0.083",
        "class known unknown share Bag 841 149 Boot 200 11",
        "in/c.png the file is empty in/d.png cut off",
        "net.onnx, 17 classes Accuracy 91.4 % on the calibration images",
        "alpha 0.073",
        "Threshold 1.645",
        "Calibration images 613",
        "12.25 s, 98.2 images per second",
        "knownot predict osc in",
        "knownot 9.8.7",
        "Incoming photos 1 June 2025, 12:00",
        "Few calibration images.",
        "grey, 28×28",
        "GEN + KNN",
    ):
        assert stands.replace(" %", "\u00a0%") in text.replace(" %", "\u00a0%").replace("\u00a0\u00a0", "\u00a0"), (
            stands
        )


def test_bars_are_as_long_as_the_numbers_say(page):
    report = page(data())
    widths = [float(w) for a in report.all("i") for w in re.findall(r"width: ([\d.]+)%", a.get("style", ""))]
    expected = [100 * math.log(1 / p) / math.log(614) for p in (0.00372, 0.0271, 0.419, 0.0831, 0.0271, 0.419)]
    assert widths == pytest.approx(expected, abs=0.06)
    shares = [float(w) for a in report.all("span") for w in re.findall(r"width: ([\d.]+)%", a.get("style", ""))]
    assert shares == pytest.approx([100 * n / 990 for n in (841, 149, 200, 11)], abs=0.01)
    grow = [int(n) for a in report.all("span") for n in re.findall(r"flex-grow: (\d+)", a.get("style", ""))]
    assert grow == [1041, 160, 2]


def test_galleries_tables_and_lists_are_cut_and_say_so(page):
    names = [f"file-{i:03d}.png" for i in range(230)]
    classes = tuple(ClassCount(f"class-{i:03d}", 1000 - i, i % 2) for i in range(100))
    known, unknown = sum(c.known for c in classes), sum(c.unknown for c in classes)
    many = tuple(card(id=name, neighbours=card().neighbours * 2) for name in names)
    report = page(
        data(
            counts=Counts(known, unknown, 5230),
            incoming_scores=np.zeros(known + unknown),
            most_unknown=many,
            borderline=many[:3],
            unreadable=tuple((name, f"reason {name}") for name in names),
            class_counts=classes[::-1],
        )
    )
    assert sum("card" in a.get("class", "").split() for a in report.all("li")) == 24 + 3
    assert len(report.all("img")) == (24 + 3) * 4
    assert "reason file-199.png" in report.text
    assert "reason file-200.png" not in report.text
    assert "And 5,030 more." in report.text
    assert "class-000 1,000 0" in report.text
    assert "class-059" in report.text
    assert "class-060" not in report.text
    rest = classes[60:]
    assert f"And 40 classes more with {sum(c.known for c in rest):,} known and 20 unknown images" in report.text


def test_nothing_unknown_and_nothing_unreadable(page):
    report = page(
        data(counts=Counts(5, 0, 0), incoming_scores=np.arange(5.0), most_unknown=(), unreadable=(), class_counts=())
    )
    assert "5 images: 5 known, 0 unknown." in report.text
    assert "unreadable" not in report.text
    assert "No image was called unknown." in report.text
    assert not {"unreadable", "classes"} & set(report.ids())


def test_one_image(page):
    report = page(
        data(counts=Counts(0, 1, 0), incoming_scores=np.array([3.0]), borderline=(), unreadable=(), class_counts=())
    )
    assert "1 image: 0 known, 1 unknown." in report.text
    assert "1 image that came in" in report.text


def test_nothing_at_all(page):
    report = page(
        data(
            counts=Counts(0, 0, 0),
            calibration_scores=np.empty(0),
            incoming_scores=np.empty(0),
            most_unknown=(),
            borderline=(),
            unreadable=(),
            class_counts=(),
            notes=(),
            threshold=None,
            images_per_second=None,
            model=ModelDescription("net", 2, "d", "p"),
        )
    )
    assert "0 images: 0 known, 0 unknown." in report.text
    assert "Accuracy" not in report.text
    assert "Threshold" not in report.text
    assert "per second" not in report.text
    assert "Each class has a threshold of its own." in report.text


def test_a_class_named_unknown_is_not_taken_for_a_verdict(page):
    report = page(data(most_unknown=(), borderline=(card(unknown=False, closed_class="unknown"),)))
    assert [a["class"] for a in report.all("li") if "card" in a.get("class", "").split()] == ["card known"]


def test_unknown_images_are_a_grid_grouped_and_linked(page):
    groups = (
        Group("Alike 1: most taken for Bag", (card(id="g1.png"), card(id="g2.png", p_value=0.01))),
        Group("Taken for Boot", (card(id="g3.png", closed_class="Boot", thumb=None),)),
    )
    report = page(data(groups=groups, p_threshold=0.03, steps=((0.002, 40, 3), (0.03, 160, 50), (0.06, 190, 70))))
    tiles = [a for a in report.all("details") if a["class"] == "tile"]
    assert [a["data-name"] for a in tiles] == ["g1.png", "g2.png", "g3.png"]
    assert [float(a["data-p"]) for a in tiles] == [0.00372, 0.01, 0.00372]
    assert "The 3 most unknown of 160" in report.text
    assert "Alike 1: most taken for Bag 2" in report.text
    assert "in/a.png" not in report.text  # the gallery of the most unknown: they are in the grid
    lines = {float(re.search(r"left: ([\d.]+)%", a["style"])[1]) for a in report.all("b") if a.get("class") == "line"}
    assert lines == {round(100 * math.log(1 / 0.03) / math.log(614), 1)}
    (slider,) = [a for a in report.all("input") if a["type"] == "range"]
    assert (json.loads(slider["data-steps"]), slider["value"]) == (
        [[0.002, 40, 3], [0.03, 160, 50], [0.06, 190, 70]],
        "1",
    )
    links = {a["data-class"]: a["href"] for a in report.all("a") if "data-class" in a}
    assert links == {"Bag": "#unknown-images", "Boot": "#unknown-images"}
    tools = next(a for a in report.all("div") if a.get("id") == "tools")
    assert "hidden" in tools  # until the script shows it


def test_the_map_links_each_unknown_image_to_its_card(page):
    """The place that is given is where the mark stands; classes beyond the fifth share a mark."""
    names = [f"class {i % 7}" for i in range(21)]
    cards = [card(id=f"{i}.png", closed_class=c, at=(i / 20, 1 - i / 20)) for i, c in enumerate(names)]
    cards.append(card(id="nowhere.png"))
    report = page(data(groups=(Group("one", tuple(cards[:9])), Group("two", tuple(cards[9:]))), p_threshold=0.03))
    marks = [a for a in report.all("a") if "data-tile" in a]
    assert [a["href"] for a in marks] == [f"#card-{i}" for i in range(21)]
    assert {a["href"][1:] for a in marks} < set(report.ids())
    shapes = [a for a in report.all("path") if "transform" in a]
    numbers = [tuple(map(float, re.findall(r"[\d.]+", a["transform"]))) for a in shapes]
    assert numbers[0] == (12, 288)
    assert numbers[20] == (468, 12)
    assert numbers[10] == (240, 150)
    looks = {c: {(a["d"], a["fill"]) for a, name in zip(shapes, names, strict=True) if name == c} for c in set(names)}
    assert all(len(look) == 1 for look in looks.values())
    assert len(set().union(*looks.values())) == 6  # five classes, and the others
    assert "other classes (6)" in report.text.replace("  ", " ")
    assert [a for a in page(data()).all("svg") if a.get("id") == "map"] == []


def test_places_on_the_map_are_principal_components():
    eyes = np.random.default_rng(0).normal(size=(50, 6)) * [9, 4, 1, 1, 1, 1]
    found = np.array(places(eyes))
    assert found.min() == 0
    assert found.max() == 1
    assert abs(np.corrcoef(found[:, 0], eyes[:, 0])[0, 1]) > 0.95
    assert abs(np.corrcoef(found[:, 1], eyes[:, 1])[0, 1]) > 0.9
    assert places(eyes[:2]) == [] == places(eyes[:, :1]) == places(np.full((5, 5), np.nan))
    assert np.isfinite(places(np.ones((9, 4)))).all()


def test_only_the_script_of_the_package_may_run(page, tmp_path):
    bad = Group(HOSTILE, (card(id=HOSTILE, closed_class=HOSTILE),))
    report = page(data(groups=(bad,), p_threshold=0.03, steps=((0.03, 160, 50),)))
    html = (tmp_path / "new folder" / "report.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script.startswith("(() => {")
    policy = next(a for a in report.all("meta") if a.get("http-equiv") == "Content-Security-Policy")["content"]
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{own}'"
    assert len(report.all("script")) == 1
    assert not [name for _, attributes in report.tags for name in attributes if name.startswith("on")]
    assert not re.search(r"innerHTML|eval|fetch|https?:|//", script)


@pytest.mark.chromium
def test_search_filter_order_slider_and_links_work_in_a_browser(tmp_path):
    groups = (
        Group("one", (card(id="b.png", p_value=0.004, at=(0, 0)), card(id="c.png", p_value=0.02, at=(0.5, 1)))),
        Group("two", (card(id="a.png", closed_class="Boot", p_value=0.01, thumb=None, at=(1, 1)),)),
    )
    steps = ((0.005, 40, 3), (0.015, 100, 9), (0.03, 160, 50))
    write_report(tmp_path / "r.html", data(groups=groups, p_threshold=0.03, steps=steps))
    browser = Browser(tmp_path / "home")
    try:
        look = browser.page((tmp_path / "r.html").as_uri(), width=390)
        look.until("document.readyState === 'complete'")
        names = "[...document.querySelectorAll('.tile')].filter(t => t.offsetParent).map(t => t.dataset.name).join()"
        change = (
            "(() => {{ const x = document.getElementById('{}'); x.value = '{}'; x.dispatchEvent(new Event('{}')); }})()"
        )
        assert look(names) == "b.png,c.png,a.png"
        assert (
            look("document.getElementById('limit').textContent")
            == "p ≤ 0.030: 160 of 1,201 unknown, at most 50 of them known"
        )
        look(change.format("by", "name", "change"))
        assert look(names) == "a.png,b.png,c.png"
        look(change.format("search", "C.P", "input"))
        assert look(names) == "c.png"
        look(change.format("search", "", "input"))
        look(change.format("by", "group", "change"))
        look("document.querySelector('a[data-class=Boot]').click()")
        assert look(names) == "a.png"
        away = "[...document.querySelectorAll('#map .away')].length"
        assert look(away) == 2
        look(change.format("only", "", "change"))
        assert look(away) == 0
        second = "document.querySelector('#map a[data-tile=\"1\"]')"
        look(f"{second}.dispatchEvent(new MouseEvent('click', {{cancelable: true}}))")
        assert look("[...document.querySelectorAll('.tile[open]')].map(t => t.dataset.name).join()") == "c.png"
        look(change.format("slider", "1", "input"))
        assert look("document.getElementById('limit').textContent").endswith(
            "100 of 1,201 unknown, at most 9 of them known"
        )
        assert look("[...document.querySelectorAll('.beyond')].map(t => t.dataset.name).join()") == "c.png"
        assert look("document.documentElement.scrollWidth") <= 390
        assert look.troubles == []
    finally:
        browser.close()


# ---- hostile names ----


def test_hostile_names_stay_text(page):
    bad = card(
        id=HOSTILE,
        unknown=False,
        closed_class=HOSTILE,
        member_p_values={HOSTILE: 0.5},
        neighbours=(Neighbour(HOSTILE, png()),),
    )
    clean, report = (
        page(data()),
        page(
            data(
                title=HOSTILE,
                when=HOSTILE,
                guarantee=HOSTILE,
                notes=(HOSTILE,),
                command=HOSTILE,
                version=HOSTILE,
                most_unknown=(replace(bad, unknown=True),),
                borderline=(bad,),
                unreadable=((HOSTILE, HOSTILE),) * 2,
                class_counts=(ClassCount(HOSTILE, 1041, 160),),
                model=ModelDescription(HOSTILE, 17, HOSTILE, HOSTILE),
            )
        ),
    )
    assert not report.all("script")
    assert all(a["src"].startswith("data:image/") for a in report.all("img"))
    assert not [name for _, attributes in report.tags for name in attributes if name.startswith("on")]
    assert {tag for tag, _ in report.tags} <= {tag for tag, _ in clean.tags}
    assert report.text.count(HOSTILE) == 7 + 3 + 4 + 1 + 2 * 4  # page, model, unreadable, class, cards
    assert "49" not in report.text.replace("149", "")


def test_names_that_hide_what_they_are_are_spelled_out(page, tmp_path):
    name = "photo\u202egnp.exe\n\x00\x1b[31m.png"
    assert visible(name) == "photo\\u202egnp.exe\\n\\x00\\x1b[31m.png"
    assert visible("fotö 照片 🙂.png") == "fotö 照片 🙂.png"
    report = page(data(most_unknown=(card(id=name),), unreadable=(("bad-\udcff.png", "no UTF-8 name"),)))
    assert visible(name) in report.text
    assert "bad-\\udcff.png" in report.text
    write_report(tmp_path / "r.html", data(guarantee="\udcff"))
    assert b"\\udcff" in (tmp_path / "r.html").read_bytes()


# ---- self-contained ----


def test_nothing_is_fetched_and_nothing_runs(page, tmp_path):
    report = page(data())
    html = (tmp_path / "new folder" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//|@import|url\(|javascript:", re.sub(r"base64,[A-Za-z0-9+/=]+", "", html))
    for _, attributes in report.tags:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert not {tag for tag, _ in report.tags} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    policy = next(a for a in report.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")
    ids = report.ids()
    assert len(set(ids)) == len(ids)
    assert {a["href"][1:] for a in report.all("a")} <= set(ids)


def test_opening_tags_are_closed(page):
    void = {"meta", "img", "br", "line", "rect", "path"}
    open_tags: list[str] = []
    for tag in page(data()).inside:
        if tag.startswith("/"):
            assert tag[1:] in void or open_tags.pop() == tag[1:]
        elif tag not in void:
            open_tags.append(tag)
    assert open_tags == []


def test_a_full_report_is_small(page, tmp_path):
    photo = lambda: RNG.integers(0, 256, (224, 224, 3), np.uint8)  # noqa: E731  noise: the worst case for JPEG
    cards = tuple(card(thumb=photo(), neighbours=tuple(Neighbour("x", photo()) for _ in range(3))) for _ in range(24))
    page(data(most_unknown=cards, borderline=cards))
    assert (tmp_path / "new folder" / "report.html").stat().st_size < 2_000_000


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written to"):
        write_report(tmp_path / "file" / "report.html", data())


# ---- thumbnails ----


def decoded(uri: str) -> tuple[str, bytes]:
    head, _, body = uri.partition(";base64,")
    return head, base64.b64decode(body, validate=True)


def test_a_small_file_is_embedded_as_it_is():
    assert decoded(data_uri(png())) == ("data:image/png", png())


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (9, 30, 3)])
def test_a_tiny_array_keeps_its_pixels(shape):
    pixels = RNG.integers(0, 256, shape, np.uint8)
    head, file = decoded(data_uri(pixels))
    assert head == "data:image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), pixels.squeeze())


def test_a_large_thumbnail_is_made_small():
    big = np.full((300, 200, 3), (200, 100, 50), np.uint8)
    head, file = decoded(data_uri(big))
    image = Image.open(io.BytesIO(file))
    assert (head, image.size) == ("data:image/jpeg", (75, 112))
    assert np.abs(np.asarray(image).astype(int) - (200, 100, 50)).max() <= 4
    assert Image.open(io.BytesIO(decoded(data_uri(png(400)))[1])).size == (112, 112)


@pytest.mark.parametrize(
    "thumb", [b"", b"<svg onload=alert(1)>", gif(), np.zeros((4, 4)), np.zeros((2, 2, 7), np.uint8)]
)
def test_what_is_no_thumbnail(thumb):
    with pytest.raises(InputError, match="A thumbnail must be"):
        data_uri(thumb)


def test_tiny_images_are_drawn_as_pixels(page):
    report = page(data(most_unknown=(card(thumb=png(28)),), borderline=(card(thumb=png(90)),)))
    first, second = (a for a in report.all("img") if "thumb" in a["class"])
    assert "tiny" in first["class"]
    assert "tiny" not in second["class"]


# ---- numbers in words ----


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (1.0, "100 %"),
        (0.99999, "> 99.9 %"),
        (0.9994, "99.9 %"),
        (0.5, "50 %"),
        (1e-5, "< 0.1 %"),
        (0.0, "0 %"),
        (math.nan, "–"),
    ],
)
def test_percent(share, words):
    assert percent(share).replace("\u00a0", " ") == words


@pytest.mark.parametrize(("p", "words"), [(1.0, "1"), (0.0123, "0.012"), (1 / 601, "0.0017"), (1.23e-6, "1.2e-06")])
def test_p_value(p, words):
    assert p_value(p) == words


def test_surprise_is_full_at_the_smallest_p_value_there_can_be():
    assert surprise(1 / 100, 99) == 100
    assert surprise(1.0, 99) == 0
    assert surprise(0.1, 99) == 50
    assert surprise(0.0, 99) == 100
    assert surprise(0.5, 0) == 0
    assert surprise(math.nan, 99) == 0


# ---- the histogram ----


def drawn(*args: object, **options: object) -> ET.Element:
    svg = str(histogram(*args, **options))
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"<title.*</title>", "", svg)), svg
    return ET.fromstring(svg)


def test_bins_agree_with_a_plain_count():
    known, new = RNG.normal(0, 1, 500), RNG.normal(2, 1, 300)
    b = bins_of(known, new, 1.7)
    width = (b.hi - b.lo) / BINS
    for scores, shares in ((known, b.known), (new, b.incoming)):
        for i in range(BINS):
            count = sum(b.lo + i * width <= s < b.lo + (i + 1) * width for s in scores)
            assert shares[i + 1] * len(scores) == pytest.approx(count, abs=1e-6)
        assert shares.sum() == pytest.approx(1)


def test_bars_are_as_high_as_their_shares():
    known, new = RNG.normal(0, 1, 500), RNG.normal(2, 1, 300)
    b, svg = bins_of(known, new, 1.7), drawn(known, new, 1.7)
    path = next(p for p in svg.iter("path") if p.get("class") == "known").get("d")
    base = float(re.match(r"M[\d.]+,([\d.]+)", path)[1])
    heights = base - np.array([float(v) for v in re.findall(r"V([\d.]+)H", path)])
    assert len(heights) == BINS
    scale = heights.max() / b.known[1:-1].max()
    np.testing.assert_allclose(heights, b.known[1:-1] * scale, atol=0.11)
    labels = {t.text: float(t.get("y")) - 4 for t in svg.iter("text") if t.text.endswith(" %")}
    for text, y in labels.items():  # the axis says the same as the bars
        assert base - y == pytest.approx(float(text.removesuffix(" %")) / 100 * scale, abs=0.3)


def test_the_threshold_stands_where_the_axis_says():
    svg = drawn(RNG.normal(0, 1, 500), RNG.normal(2, 1, 300), 1.25)
    at = next(float(line.get("x1")) for line in svg.iter("line") if line.get("class") == "threshold")
    marks = [
        (float(t.text.replace("−", "-")), float(t.get("x")))
        for t in svg.iter("text")
        if t.get("text-anchor") == "middle" and re.fullmatch(r"[−\d.]+", t.text)
    ]
    values, places = np.array(marks).T
    slope, offset = np.polyfit(values, places, 1)
    assert slope * 1.25 + offset == pytest.approx(at, abs=0.3)
    assert any("1.25" in t.text for t in svg.iter("text"))


ODD = {
    "constant": (np.full(50, 3.0), np.full(50, 3.0), 3.0),
    "constant and far apart": (np.zeros(50), np.full(50, 1e9), 0.0),
    "constant and large": (np.full(50, 1e12), np.full(9, 1e12), 1e12),
    "one each": (np.array([1.0]), np.array([2.0]), 1.5),
    "none known": (np.empty(0), np.array([1.0, 2.0]), 1.5),
    "none": (np.empty(0), np.empty(0), None),
    "infinite": (np.array([0.0, 1.0, 2.0]), np.array([-np.inf, np.inf, 1.0, np.nan]), 1.5),
    "only infinite": (np.array([np.inf]), np.array([-np.inf]), np.inf),
    "huge": (np.array([-1e308, 1e308]), np.array([1e308, -1e308]), 0.0),
    "tiny": (np.array([0.0, 1e-300]), np.array([5e-324]), 1e-300),
    "float32": (np.float32([0, 1]), np.float32([0, 1]), np.float32(0.5)),
    "threshold far out": (np.arange(50.0), np.arange(50.0), 1e6),
}


@pytest.mark.parametrize("width", [960, 360])
@pytest.mark.parametrize("name", ODD)
def test_odd_scores_are_drawn_inside_the_picture(name, width):
    svg = drawn(*ODD[name], width=width, height=300)
    for line in svg.iter("line"):
        assert 0 <= float(line.get("x1")) <= float(line.get("x2")) + 0.01 <= width + 0.02
    for d in (path.get("d") for path in svg.iter("path")):
        assert all(-0.01 <= float(x) <= width for x in re.findall(r"H([-\d.e+]+)", d))
        assert all(0 <= float(y) <= 300 for y in re.findall(r"V([-\d.e+]+)", d))
    b = bins_of(*ODD[name])
    assert b.lo < b.hi
    known, new = (np.count_nonzero(~np.isnan(s)) for s in ODD[name][:2])
    assert b.known.sum() == pytest.approx(min(known, 1))
    assert b.incoming.sum() == pytest.approx(min(new, 1))
    if ODD[name][2] is not None and math.isfinite(ODD[name][2]):
        assert b.lo <= ODD[name][2] <= b.hi


def test_a_long_tail_is_cut_and_counted(page):
    known = np.linspace(0, 1, 613)
    new = np.concatenate([np.linspace(0, 1, 1001), np.full(190, 50.0), np.full(10, -1e5)])
    b = bins_of(known, new, 0.95)
    assert b.hi - b.lo < 10
    assert b.above == (0, 190)
    assert b.below == (0, 10)
    assert b.incoming[-1] == pytest.approx(190 / 1201)
    text = page(data(calibration_scores=known, incoming_scores=new, threshold=0.95)).text
    assert "in the bar at the edge: 0 known and 190 incoming images." in text
    assert "in the bar at the edge: 0 known and 10 incoming images." in text


def test_a_lone_image_far_out_does_not_press_the_others_together():
    known = RNG.normal(0, 1, 1000)
    b = bins_of(known, np.append(RNG.normal(0, 1, 1000), 1000.0), 1.6)
    assert b.hi - b.lo < 2 * (known.max() - known.min())
    assert b.above[1] == 1


def test_the_drawing_is_told_in_words():
    svg = drawn(np.arange(7.0), np.arange(1203.0), 3.0, name="x")
    title = svg.find("title")
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == title.get("id") == "x-title"
    assert "7 known calibration images and 1,203 incoming images" in title.text
    assert "threshold 3" in title.text


def test_ticks_are_round_numbers_inside_the_range():
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    np.testing.assert_allclose(ticks(-0.31, 0.42, 8), [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3, 0.4], atol=1e-12)
    for lo, hi in RNG.normal(0, 100, (100, 2)):
        lo, hi = sorted((lo, hi))
        marks = ticks(lo, hi, 6)
        assert 2 <= len(marks) <= 7
        assert all(lo - 1e-6 <= m <= hi + 1e-6 for m in marks)


# ---- data that contradicts itself ----


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": Counts(1041, 160, 1)},  # two files are listed
        {"counts": Counts(1040, 161, 2)},  # not what the classes add up to
        {"counts": Counts(1202, -1, 2)},
        {"incoming_scores": np.zeros(1200)},
        {"incoming_scores": np.zeros((1201, 1))},
        {"incoming_scores": np.append(np.zeros(1200), np.nan)},
    ],
)
def test_data_that_contradicts_itself_is_refused(changes):
    with pytest.raises(InputError):
        data(**changes)


def test_unreadable_images_have_no_score():
    assert data(incoming_scores=np.append(np.zeros(1201), [np.nan, np.nan])).counts.total == 1203
