"""The page: its files by themselves, and in Chromium."""

import re
from importlib.resources import files

import numpy as np
import pytest

from helpers import toy
from helpers.asgi import served
from helpers.browser import listening
from knownot.monitoring import Monitor
from knownot.service import Settings, create_app

PAGE = files("knownot.service") / "page"
TOKEN = "0123456789abcdef-token"


def test_the_page_asks_nobody_else_and_names_only_what_is_there(to_serve):
    texts = {entry.name: entry.read_text() for entry in PAGE.iterdir() if entry.name.endswith(("html", "js", "css"))}
    for name, text in texts.items():
        assert not re.search(r"(https?:)?//[\w-]+\.\w", text), name
        assert not re.search(r"\bon\w+=|style=|innerHTML|eval\(", text), name  # the policy forbids it
    needed = set()
    for page, first in (("index.html", "main.js"), ("review.html", "review.js"), ("streams.html", "streams.js")):
        ids = set(re.findall(r'id="([\w-]+)"', texts[page]))
        for name in {first, *re.findall(r'from "\./([\w.]+)"', texts[first])}:
            asked = set(re.findall(r'(?:\$|getElementById)\("([\w-]+)"\)', texts[name]))
            assert asked <= ids, (page, name)
        needed |= {f"/{path}" for path in re.findall(r'(?:href|src)="(assets/[\w.-]+)"', texts[page])}
    needed |= {f"/assets/{path}" for text in texts.values() for path in re.findall(r'from "\./([\w.]+)"', text)}

    async def story(client):
        first = {url: await client("GET", url) for url in ("/", *needed)}
        again = [await client("GET", url, headers={"if-none-match": a.headers["etag"]}) for url, a in first.items()]
        return first, again

    first, again = served(create_app([to_serve.folder], Settings(reload=0)), story)
    assert len(needed) >= 7
    assert {a.status for a in first.values()} == {200}
    assert {a.status for a in again} == {304}
    assert first["/assets/main.js"].headers["content-type"] == "text/javascript; charset=utf-8"


def test_examples_are_given_by_number(to_serve, tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.png").write_bytes(to_serve.images[i])
    examples = tuple(sorted(tmp_path.iterdir()))

    async def story(client):
        urls = ("/v1/examples", "/v1/examples/1", "/v1/examples/2", "/v1/examples/-1", "/v1/examples/x", "/v1/models")
        return [await client("GET", url) for url in urls]

    app = create_app([to_serve.folder], Settings(reload=0, examples=examples))
    names, one, *absent, no_number, models = served(app, story)
    assert names.json == {"examples": ["0.png", "1.png"]}
    assert one.body == to_serve.images[1]
    assert [a.status for a in (*absent, no_number)] == [404, 404, 422]
    assert models.json["examples"] == 2


@pytest.fixture(scope="module")
def watched(to_serve, tmp_path_factory):
    """A stream's state, with an alarm, and that of another classifier."""
    home = tmp_path_factory.mktemp("streams")
    images = np.concatenate([toy.known(40, 4)[0], toy.unknown(40)])
    monitor = to_serve.osc.monitor(name="cam", false_alarms=0.1)
    assert monitor.update(to_serve.osc.predict(images))
    monitor.save(home / "cam.json")
    Monitor(np.arange(50.0)).save(home / "other.json")
    return (("cam", home / "cam.json"), ("other", home / "other.json"), ("late", home / "late.json"))


def test_streams_are_shown_by_the_service(to_serve, watched):
    app = create_app(
        {"file": to_serve.file, "folder": to_serve.folder}, Settings(reload=0, streams=watched, token=TOKEN)
    )

    async def story(client):
        said = {"authorization": f"Bearer {TOKEN}"}
        urls = ("/v1/streams", *(f"/v1/streams/{name}" for name in ("cam", "other", "late", "none")))
        shells = [await client("GET", "/streams"), await client("GET", "/v1/streams/cam")]
        return [*shells, *[await client("GET", url, headers=said) for url in urls]]

    shell, refused, names, cam, other, late, none = served(app, story)
    assert (shell.status, refused.status) == (200, 401)
    assert names.json == {"streams": ["cam", "other", "late"]}
    assert cam.json["images"] == 80
    assert cam.json["alarms"][0]["kind"] == "more unknown"
    assert cam.json["model"] == "folder"  # a file knows no calibration scores
    assert cam.json["html"].count("<svg") == 2
    assert "style=" not in cam.json["html"]
    assert [a.status for a in (other, late, none)] == [404, 404, 404]
    assert "another fingerprint" in other.json["detail"]
    assert "its state file is no state of a monitor" in late.json["detail"]
    assert "There are: cam, other, late" in none.json["detail"]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_of_a_stream(to_serve, browser, watched, width, dark):
    with listening(create_app([to_serve.folder], Settings(reload=0, streams=watched))) as address:
        page = browser.page(f"{address}/", width, dark=dark)
        page.until(READY)
        assert page("!document.getElementById('streams').hidden")
        page = browser.page(f"{address}/streams", width, dark=dark)
        page.until(READY + " === 'cam'")
        assert page("document.querySelector('h1').textContent") == "Stream cam"
        assert "more unknown" in page("document.getElementById('stream').textContent")
        assert page("document.querySelectorAll('#stream svg').length") == 2
        assert page("document.querySelector('#stream svg').clientWidth") > 300
        assert page("document.documentElement.scrollWidth <= innerWidth")
        page("location.hash = 'late'")
        page.until(READY + " === 'late'")
        assert "cannot be shown" in page("document.getElementById('said').textContent")


READY = "document.documentElement.dataset.ready"
DONE = "document.querySelector('.card') && !document.querySelector('.card.waiting')"
STATUSES = "[...document.querySelectorAll('.card')].map((c) => c.className.split(' ')[1])"
SHOWN = "[...document.querySelectorAll('.card')].filter((c) => !c.hidden).length"


def slide(page, alpha):
    page(
        f"""(async () => {{ const m = await (await fetch('v1/models')).json();
        const a = document.getElementById('alpha'); a.value = m.models[0].rules.findIndex((r) => r.alpha === {alpha});
        a.dispatchEvent(new Event('input')); }})()"""
    )


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_dropped_images_get_verdicts_and_the_slider_changes_them(to_serve, browser, width, dark):
    osc = to_serve.osc
    given = [*to_serve.images, b"no image"]
    with listening(create_app([to_serve.folder], Settings(reload=0, max_images=6))) as address:
        page = browser.page(f"{address}/", width, dark=dark)
        page.until(READY)
        page.drop([(f"{i}.png", x) for i, x in enumerate(given)])
        page.until(DONE)
        assert page(STATUSES) == [v.status for v in osc.predict(given)]
        slide(page, 0.3)
        assert page(STATUSES) == [v.status for v in osc.with_alpha(0.3).predict(given)]
        assert osc.with_alpha(0.3).promise in page("document.getElementById('promise').textContent")
        page("document.querySelector('[data-show=unknown]').click()")
        assert page(SHOWN) == int(osc.with_alpha(0.3).predict(given).unknown.sum())
        page("document.getElementById('alpha-own').click()")
        assert page(SHOWN) == int(osc.predict(given).unknown.sum())
        page("document.querySelector('.card.unknown details').open = true")
        assert page.until("document.querySelectorAll('.card.unknown .near img').length") == 3
        assert page("document.documentElement.scrollWidth <= innerWidth")
        paper = page("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
        assert page.troubles == []
        assert all(url.startswith((address, "data:", "blob:")) for url in page.asked)


def test_everything_goes_by_keys_and_a_token_is_asked_for(to_serve, browser):
    with listening(create_app([to_serve.folder], Settings(reload=0, token=TOKEN))) as address:
        page = browser.page(f"{address}/")
        page.until("document.getElementById('token').open")
        page("document.getElementById('token-text').value = 'wrong-wrong-wrong'")
        page("document.querySelector('#token button').click()")
        page.until("document.getElementById('token').open")  # asked again
        page(f"document.getElementById('token-text').value = '{TOKEN}'")
        page("document.querySelector('#token button').click()")
        page.until(READY)
        page.drop([(f"{i}.png", x) for i, x in enumerate(to_serve.images[:4])], "body")
        page.until(DONE)
        page("document.activeElement.blur()")
        for key in ("ArrowRight", "ArrowRight"):
            page.press(key)
        assert page("document.activeElement.querySelector('.id').textContent") == "1.png"
        page.press("Enter")
        assert page("document.activeElement.querySelector('details').open")
        page.press("Delete")
        assert page(SHOWN) == 3
        assert page("document.activeElement.querySelector('.id').textContent") == "2.png"
        before = page("document.getElementById('alpha').value")
        page.press("-", "Minus", text="-")
        assert int(page("document.getElementById('alpha').value")) == int(before) - 1
        page.press("?", "Slash", text="?")
        assert page("document.getElementById('help').open")
