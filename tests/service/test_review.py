"""The review desk: what is kept, marks of several people, the measured rate, what leaves and what is deleted."""

import asyncio
import importlib.util
import io
import json
import random
import shutil
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import knownot
from helpers import toy
from helpers.asgi import multipart, served
from knownot.errors import OptionError, StorageError
from knownot.service import Settings, create_app
from knownot.service.review.export import file_of, folder_name
from knownot.service.review.rate import measure
from knownot.service.review.store import Mark, Store

TOKEN = "0123456789abcdef-token"
AUTH = {"authorization": f"Bearer {TOKEN}"}
JSON = {**AUTH, "content-type": "application/json"}
POSTGRES = "/usr/lib/postgresql"


def desk(to_serve, place, **settings):
    given = {"reload": 0, "token": TOKEN, "keep": str(place), "audit_share": 0.0, **settings}
    return create_app({"toy": to_serve.folder}, Settings(**given))


async def send(client, images):
    body, headers = multipart([(f"{i}.png", x) for i, x in enumerate(images)])
    return (await client("POST", "/v1/predict", body, {**headers, **AUTH})).json["verdicts"]


async def get(client, url):
    answer = await client("GET", f"/v1/review/{url}", headers=AUTH)
    assert answer.status == 200, answer.body
    return answer.json


async def post(client, url, **body):
    return await client("POST", f"/v1/review/{url}", json.dumps(body).encode(), JSON)


async def mark(client, rows, kind, name=None, who="ann"):
    images = [{"id": row["id"], "version": row["version"]} for row in rows]
    return (await post(client, "marks", who=who, mark={"kind": kind, "name": name}, images=images)).json


def test_nothing_is_kept_without_being_asked_and_the_desk_needs_a_token(to_serve, tmp_path):
    with pytest.raises(OptionError, match="to who has the token only"):
        Settings(keep="x.db")

    async def story(client):
        return [(await client("GET", url)).status for url in ("/review", "/v1/review/images")]

    assert served(create_app([to_serve.folder], Settings(reload=0)), story) == [404, 404]
    assert served(desk(to_serve, tmp_path / "a.db"), story) == [200, 401]


def test_rejected_and_borderline_images_are_kept_as_they_came(to_serve, tmp_path):
    async def story(client):
        verdicts = await send(client, [*to_serve.images, b"no image"])
        kept = await get(client, "images")
        files = [
            (await client("GET", f"/v1/review/images/{row['id']}/file", headers=AUTH)).body for row in kept["images"]
        ]
        return verdicts, kept, files

    verdicts, kept, files = served(desk(to_serve, tmp_path / "a.db"), story)
    border = 2 * to_serve.osc.calibration.p_threshold
    wanted = [i for i, v in enumerate(verdicts) if v["status"] == "unknown" or (v["p_value"] or 1) <= border]
    assert 6 <= len(wanted) < 20
    assert files == [to_serve.images[i] for i in wanted]
    assert kept["count"] == len(wanted)
    assert [row["p_value"] for row in kept["images"]] == pytest.approx([verdicts[i]["p_value"] for i in wanted])
    assert all(row["thumb"].startswith("data:image/") and row["kind"] is None for row in kept["images"])
    assert b"0.png" not in (tmp_path / "a.db").read_bytes()  # no file names


def test_marks_undo_and_two_people_at_one_image(to_serve, tmp_path):
    async def story(client):
        await send(client, to_serve.images)
        rows = (await get(client, "images"))["images"]
        first = await mark(client, rows[:3], "new", "mug")
        late = await mark(client, rows[:4], "none", who="bob")  # who looked before ann's mark
        seen = {row["id"]: row for row in (await get(client, "images?show=all"))["images"]}
        undone = (await post(client, "undo", who="ann", batch=first["batch"])).json
        again = (await post(client, "undo", who="ann", batch=undone["batch"])).json
        taken = (await post(client, "undo", who="bob", batch=first["batch"])).json  # its versions have gone by
        after = {row["id"]: row for row in (await get(client, "images?show=all"))["images"]}
        return rows, first, late, seen, undone, again, taken, after

    rows, first, late, seen, undone, again, taken, after = served(desk(to_serve, tmp_path / "a.db"), story)
    ids = [row["id"] for row in rows]
    assert first["changed"] == [{"id": i, "version": 1} for i in ids[:3]]
    assert late["changed"] == [{"id": ids[3], "version": 1}]
    assert [(c["id"], c["name"], c["who"]) for c in late["conflicts"]] == [(i, "mug", "ann") for i in ids[:3]]
    assert [(seen[i]["kind"], seen[i]["who"]) for i in ids[:4]] == [("new", "ann")] * 3 + [("none", "bob")]
    assert [c["id"] for c in undone["changed"]] == ids[:3]
    assert [c["version"] for c in again["changed"]] == [3] * 3  # an undo can be undone
    assert (taken["changed"], len(taken["conflicts"])) == ([], 3)
    assert [after[i]["kind"] for i in ids[:5]] == ["new"] * 3 + ["none", None]


@pytest.mark.parametrize(
    "body",
    [
        {"who": "", "mark": {"kind": "none"}, "images": [{"id": 1, "version": 0}]},
        {"who": "a", "mark": {"kind": "other"}, "images": [{"id": 1, "version": 0}]},
        {"who": "a", "mark": {"kind": "class"}, "images": [{"id": 1, "version": 0}]},
        {"who": "a", "mark": {"kind": "none"}, "images": [{"id": True, "version": 0}]},
        {"who": "a", "mark": {"kind": "none", "name": "x"}, "images": [{"id": 1, "version": 0}]},
        {"who": "a", "mark": {"kind": "none"}, "images": []},
        {"who": "a", "mark": {"kind": "none"}, "images": [{"id": 2**40, "version": 0}]},
    ],
)
def test_wrong_marks_are_refused(to_serve, tmp_path, body):
    answer = served(desk(to_serve, tmp_path / "a.db"), lambda client: post(client, "marks", **body))
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")


def test_a_class_that_the_classifier_does_not_have_is_404(to_serve, tmp_path):
    body = {"who": "a", "mark": {"kind": "class", "name": "no such"}, "images": [{"id": 1, "version": 0}]}
    assert served(desk(to_serve, tmp_path / "a.db"), lambda client: post(client, "marks", **body)).status == 404


def test_the_rate_of_false_alarms_is_that_of_the_random_share(to_serve, tmp_path):
    pictures, truth = toy.known(60, 51)
    toy.written(tmp_path / "k", pictures)
    files = [path.read_bytes() for path in sorted((tmp_path / "k").iterdir())] + to_serve.images[12:]

    async def story(client):
        before = await get(client, "rate")
        verdicts = [v for i in range(0, 68, 34) for v in await send(client, files[i : i + 34])]
        rows = (await get(client, "images"))["images"]
        half = await get(client, "rate")
        for row in rows:
            i = row["id"] - 1
            await mark(client, [row], *(("class", toy.CLASSES[truth[i]]) if i < 60 else ("none",)))
        return before, verdicts, rows, half, await get(client, "rate")

    before, verdicts, rows, half, rate = served(desk(to_serve, tmp_path / "a.db", audit_share=1.0), story)
    assert before["known"] == 0
    assert "Nothing is measured yet" in before["sentence"]
    assert len(rows) == 68
    assert half["waiting"] == 68
    false = sum(v["status"] == "unknown" for v in verdicts[:60])
    assert (rate["known"], rate["rejected"], rate["unknown"], rate["waiting"]) == (60, false, 8, 0)
    assert f"{false} of 60 known images" in rate["sentence"]


def test_the_interval_is_the_exact_one():
    """Clopper & Pearson by its definition: the rates under which so many or so few have a probability of 2.5 %."""
    from scipy.stats import binom

    found = measure(0.05, [("unknown", "class")] * 3 + [("known", "class")] * 97 + [("unknown", "none")] * 9)
    assert (found.known, found.rejected) == (100, 3)
    assert binom.sf(2, 100, found.low) == pytest.approx(0.025)
    assert binom.cdf(3, 100, found.high) == pytest.approx(0.025)
    assert "neither confirms nor refutes" in found.sentence
    none = measure(0.05, [("known", "class")] * found.needed)
    assert none.high <= 0.05
    assert measure(0.05, [("known", "class")] * (found.needed - 2)).high > 0.05
    assert "confirmed" in none.sentence
    assert "More than the guarantee allows" in measure(0.05, [("unknown", "class")] * 20).sentence


def test_the_random_share_is_random_and_about_as_large_as_said(to_serve, tmp_path):
    app = desk(to_serve, tmp_path / "a.db", audit_share=0.5)
    app.state.keep._rng = random.Random(1)

    async def story(client):
        for _ in range(8):
            await send(client, to_serve.images)
        return await get(client, "images?limit=1000")

    rows = served(app, story)["images"]
    audited = sum(row["audited"] for row in rows)
    assert 0.35 * 160 < audited < 0.65 * 160  # 5 standard deviations are 0.2
    assert {row["status"] for row in rows if row["audited"]} == {"known", "unknown"}


def test_clusters_map_and_likeness(to_serve, tmp_path):
    rng = np.random.default_rng(3)
    green = np.clip(rng.normal((60, 200, 60), 12, (14, 16, 16, 3)), 0, 255).astype(np.uint8)
    noise = rng.integers(0, 256, (14, 16, 16, 3), dtype=np.uint8)
    toy.written(tmp_path / "u", np.concatenate([green, noise]))
    files = [path.read_bytes() for path in sorted((tmp_path / "u").iterdir())]

    async def story(client):
        await send(client, files)
        rows = (await get(client, "images"))["images"]
        near = await get(client, f"images/{rows[0]['id']}/alike")
        return rows, await get(client, "clusters"), near["ids"]

    rows, found, near = served(desk(to_serve, tmp_path / "a.db"), story)
    ids = [row["id"] for row in rows]
    assert len(ids) > 20
    assert sorted(image for image, _, _ in found["map"]) == ids
    assert all(0 <= x <= 1 and 0 <= y <= 1 for _, x, y in found["map"])
    greens = {i for i in ids if i <= 14}
    assert len(found["clusters"]) >= 2
    for cluster in found["clusters"]:
        assert set(cluster["ids"]) <= greens or not set(cluster["ids"]) & greens
    assert near[0] == ids[0]
    assert set(near[: len(greens)]) == greens


def test_marks_leave_as_folders_and_parquet(to_serve, tmp_path):
    images = [*to_serve.images]

    async def story(client):
        await send(client, images)
        rows = (await get(client, "images"))["images"]
        await mark(client, rows[:2], "class", "red")
        await mark(client, rows[2:4], "new", "a/b")
        await mark(client, rows[4:5], "none")
        await mark(client, rows[5:6], "unusable", who="=bob")
        made = [await client("GET", f"/v1/review/export?form={form}", headers=AUTH) for form in ("zip", "parquet")]
        return rows, [m.body for m in made]

    rows, (archive, table) = served(desk(to_serve, tmp_path / "a.db", audit_share=1.0), story)
    ids = [row["id"] for row in rows]
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == [
            f"known/red/{ids[0]:08d}.png", f"known/red/{ids[1]:08d}.png", f"new/a_b/{ids[2]:08d}.png",
            f"new/a_b/{ids[3]:08d}.png", f"none/{ids[4]:08d}.png", "marks.csv",
        ]  # fmt: skip
        assert opened.read(f"new/a_b/{ids[2]:08d}.png") == images[ids[2] - 1]
        lines = opened.read("marks.csv").decode().splitlines()
        assert len(lines) == 7
        assert "'=bob" in lines[6]  # no formula for a spreadsheet
        opened.extractall(tmp_path / "out")
    (tmp_path / "marked.parquet").write_bytes(table)
    assert knownot.open_images(tmp_path / "out" / "known").count == 2
    assert to_serve.osc.predict(tmp_path / "out" / "none").status == [
        to_serve.osc.predict([images[ids[4] - 1]])[0].status
    ]
    assert len(to_serve.osc.predict(tmp_path / "marked.parquet")) == 5


def test_what_is_marked_is_recognised_from_then_on(tmp_path):
    """Marks, export, `retrain none-class`, fit, a new class, reload: the same images are now recognised."""
    import torch

    from helpers.remedies import TRAIN, VALIDATION, WAY, torch_net
    from knownot import remedies

    fits = {"calibration": toy.known(300, 5)[0], "thumbnails": 0, "progress": False}
    osc = knownot.fit(torch_net(), *TRAIN, preprocess=WAY, detector="msp", class_names=toy.CLASSES, **fits)
    osc.save(tmp_path / "osc")
    x, y = toy.known(400, 8)
    dark = (x[y == 2][:20] * 0.4).astype(np.uint8)  # none of the classes, and yet taken for one
    purple = (x[y == 2][:20] // 2 + x[y == 3][:20] // 2).astype(np.uint8)
    images = [f.read_bytes() for f in sorted(toy.written(tmp_path / "in", np.concatenate([dark, purple])).iterdir())]
    app = create_app([tmp_path / "osc"], Settings(reload=0, token=TOKEN, keep=str(tmp_path / "a.db"), audit_share=1.0))

    async def story(client):
        before = await send(client, images)
        rows = {row["id"]: row for row in (await get(client, "images?show=all"))["images"]}
        await mark(client, [rows[i] for i in range(1, 21)], "none")
        await mark(client, [rows[i] for i in range(21, 41)], "new", "purple")
        made = await client("GET", "/v1/review/export?form=zip", headers=AUTH)
        with zipfile.ZipFile(io.BytesIO(made.body)) as opened:
            opened.extractall(tmp_path / "out")
        given = {"preprocess": WAY, "class_names": toy.CLASSES, "batch_size": 64, "epochs": 2, "progress": False}
        torch.manual_seed(0)
        new = remedies.retrain(
            "none-class", torch_net(), *TRAIN, outliers=tmp_path / "out" / "none", validation=VALIDATION, **given
        )
        better = new.fit(*TRAIN, **fits).with_class("purple", tmp_path / "out" / "new" / "purple")
        better.save(tmp_path / "osc")
        await app.state.registry.look()
        return before, await send(client, images)

    before, after = served(app, story)
    assert [v["status"] for v in before[:20]].count("known") > 15
    assert "purple" not in {v["class_name"] for v in before}
    assert [v["status"] for v in after[:20]].count("unknown") > 17
    assert [v["class_name"] for v in after[20:]].count("purple") > 15


def test_names_of_folders_are_taken_by_every_system():
    assert [folder_name(x) for x in ("mug", "a/b", "..", "C:\\x", "a. ")] == ["mug", "a_b", "_", "C__x", "a"]
    assert file_of({"kind": "unusable", "name": None, "id": 1, "data": b""}) == ""


def row(i, arrived=0.0):
    return {
        "model": "toy", "digest": "d", "arrived": arrived, "status": "unknown", "audited": False, "closed_class": "red",
        "p_value": 0.001, "score": 1.0, "confidence": 0.5, "features": None, "thumb": "data:", "data": b"secret-%d" % i,
    }  # fmt: skip


def test_retention_and_deletion_delete(tmp_path):
    store = Store(tmp_path / "a.db", days=1, most=5)
    now = time.time()
    store.add([row(i, now - 100_000 * (i < 2)) for i in range(10)])
    store.mark(Mark("none"), {1: 0, 4: 0}, "ann")
    assert store.retain(now) == 5
    assert [r["id"] for r in store.shown("toy", show="all")[0]] == [6, 7, 8, 9, 10]
    assert store.delete([6, 7]) == 2
    assert store.retain(now) == 0
    store.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert [b"secret-%d" % i in written for i in range(10)] == [False] * 7 + [True] * 3


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """The URL of a PostgreSQL of its own."""
    home, bin_ = tmp_path_factory.mktemp("postgres"), sorted(Path(POSTGRES).glob("*/bin"))[-1]
    home.chmod(0o755)
    as_user = ["runuser", "-u", "postgres", "--"]
    data = Path(f"/tmp/{home.parent.name}-{home.name}")
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    shutil.chown(data, "postgres")
    run = {"check": True, "capture_output": True, "cwd": "/"}
    subprocess.run([*as_user, f"{bin_}/initdb", "-D", f"{data}/db", "-A", "trust", "-N"], **run)
    options = f"-c listen_addresses= -k {data} -c fsync=off"
    subprocess.run(
        [*as_user, f"{bin_}/pg_ctl", "-D", f"{data}/db", "-w", "-l", f"{data}/log", "-o", options, "start"], **run
    )
    yield f"postgresql+psycopg://postgres@/postgres?host={data}"
    subprocess.run([*as_user, f"{bin_}/pg_ctl", "-D", f"{data}/db", "-m", "immediate", "stop"], **run)
    shutil.rmtree(data)


# A server is no Python package, so no step of ours installs one: with it (apt-get install postgresql) it is tested too.
DATABASES = ["sqlite"]
if sorted(Path(POSTGRES).glob("*/bin")) and importlib.util.find_spec("psycopg"):
    DATABASES.append("postgres")


@pytest.mark.parametrize("kind", DATABASES)
def test_two_people_at_once_lose_nothing(kind, tmp_path, request):
    """Each mark is in the log or was told as a conflict, and the last one in the log is what the image has."""
    store = Store(tmp_path / "a.db" if kind == "sqlite" else request.getfixturevalue("postgres"))
    store.add([row(i) for i in range(40)])
    told = {"ann": [0, 0], "bob": [0, 0]}

    def marks(who, seed):
        rng = random.Random(seed)
        for n in range(25):
            rows = {r["id"]: r["version"] for r in store.shown("toy", show="all")[0]}
            some = {i: rows[i] for i in rng.sample(sorted(rows), 4)}
            made = store.mark(Mark("new", f"{who} {n}"), some, who)
            told[who][0] += len(made.versions)
            told[who][1] += len(made.conflicts)
            assert len(made.versions) + len(made.conflicts) == 4

    threads = [threading.Thread(target=marks, args=(who, seed)) for seed, who in enumerate(told)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    import sqlalchemy as sa

    from knownot.service.review.store import LOG

    with store.engine.connect() as c:
        log = c.execute(sa.select(LOG).order_by(LOG.c.image, LOG.c.version)).mappings().all()
    assert sum(made for made, _ in told.values()) == len(log)
    assert sum(map(sum, told.values())) == 200
    assert len({(entry["image"], entry["version"]) for entry in log}) == len(log)
    last = {entry["image"]: entry for entry in log}
    for r in store.shown("toy", show="all")[0]:
        if r["id"] in last:
            assert (r["version"], r["name"], r["who"]) == tuple(last[r["id"]][k] for k in ("version", "name", "who"))
    store.close()


def test_a_database_that_fails_costs_no_answer(to_serve, tmp_path, caplog):
    app = desk(to_serve, tmp_path / "a.db")

    async def story(client):
        await asyncio.to_thread(app.state.keep.store.engine.dispose)
        (tmp_path / "a.db").write_bytes(b"no database at all, but long enough to be looked at" * 200)
        return await send(client, to_serve.images[12:14])

    assert len(served(app, story)) == 2
    assert "not kept" in caplog.text
    for bad, error in (("nonsense://x", OptionError), (tmp_path, StorageError)):
        with pytest.raises(error):
            Store(bad)


def test_the_document_says_which_numbers_are_taken(to_serve, tmp_path):
    app = create_app({"toy": to_serve.folder}, Settings(token=TOKEN, keep=str(tmp_path / "kept.db")))
    kinds = app.openapi()["components"]["schemas"]
    number = kinds["DeleteIn"]["properties"]["images"]["items"]
    assert (number["minimum"], number["exclusiveMaximum"]) == (0, 2**31)
    assert kinds["Looked"]["properties"]["version"]["minimum"] == 0
