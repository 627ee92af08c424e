"""The review desk in Chromium: cluster, key, undo, another person, export."""

import numpy as np
import pytest

from helpers import toy
from helpers.browser import listening
from knownot.service import Settings, create_app
from knownot.service.review.store import Mark

TOKEN = "0123456789abcdef-token"
READY = "document.documentElement?.dataset.ready"
TILES = "document.querySelectorAll('.tile').length"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_a_cluster_is_marked_by_a_key_and_undone(to_serve, browser, tmp_path, width, dark):
    rng = np.random.default_rng(3)
    green = np.clip(rng.normal((60, 200, 60), 12, (14, 16, 16, 3)), 0, 255).astype(np.uint8)
    toy.written(tmp_path / "u", np.concatenate([green, rng.integers(0, 256, (14, 16, 16, 3), dtype=np.uint8)]))
    settings = Settings(reload=0, token=TOKEN, keep=str(tmp_path / "a.db"), audit_share=0)
    app = create_app({"toy": to_serve.folder}, settings)
    keeper, engine = app.state.keep, app.state.registry.get(None)
    from knownot.service.uploads import Upload

    files = [path.read_bytes() for path in sorted((tmp_path / "u").iterdir())]
    keeper.keep(engine, [Upload("", x) for x in files], engine.run(files, [True] * len(files)))
    with listening(app) as address:
        page = browser.page(f"{address}/assets/icon.svg", width, dark=dark)
        page.until("location.pathname === '/assets/icon.svg' && document.readyState === 'complete'")
        page(f"sessionStorage.setItem('token', '{TOKEN}'); localStorage.setItem('who', 'ann')")
        page.send("Page.navigate", url=f"{address}/review")
        page.until(READY)
        count = page(TILES)
        assert count == keeper.store.shown("toy")[1]
        page("document.querySelector('.tile').focus()")
        page.press("a", "KeyA", 65, "a")
        chosen = page("document.querySelectorAll('.tile[aria-selected=true]').length")
        assert 5 <= chosen < count
        assert page("document.getElementById('count').textContent") == f"{chosen} images"
        page.press("0", "Digit0", 48, "0")
        page.until(f"{TILES} === {count - chosen}")
        assert keeper.store.shown("toy", show="marked")[1] == chosen
        assert page("document.activeElement.className") == "tile"  # the next comes by itself
        page.press("z", "KeyZ", 90, "z")
        page.until(f"{TILES} === {count}")
        assert keeper.store.shown("toy", show="marked")[1] == 0
        page.until("document.activeElement.className === 'tile' && document.getElementById('undo').disabled")
        own = int(page("document.activeElement.dataset.id"))
        version = {row["id"]: row["version"] for row in keeper.store.shown("toy")[0]}[own]
        keeper.store.mark(Mark("new", "mug"), {own: version}, "bob")
        page.press("u", "KeyU", 85, "u")
        page.until("!document.getElementById('notice').hidden")
        assert "by bob" in page("document.getElementById('notice').textContent")
        assert [row["name"] for row in keeper.store.shown("toy", show="marked")[0]] == ["mug"]
        page(
            "window.got = []; const c = URL.createObjectURL.bind(URL);"  # the focused image comes this way too
            "URL.createObjectURL = (b) => { window.got.push(b.type); return c(b); };"
            "document.getElementById('zip').click()"
        )
        page.until("window.got.includes('application/zip')")
        assert page("document.documentElement.scrollWidth <= innerWidth")
        assert page.troubles == []
