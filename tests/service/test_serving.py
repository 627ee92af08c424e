"""Requests and answers of the service, in this process."""

import asyncio
import base64
import json
import logging
import threading

import pytest

import knownot
from helpers.asgi import multipart, served
from knownot.errors import OptionError, SavedError
from knownot.service import Settings, create_app
from knownot.service.logs import JsonLines
from knownot.service.settings import read_token

QUIET = Settings(reload=0)


def app_of(to_serve, **settings):
    return create_app({"toy": to_serve.folder}, Settings(**{"reload": 0, **settings}))


def as_predicted(verdicts, rows):
    """Answers are what `predict` says of the same bytes."""
    assert len(verdicts) == len(rows)
    for v, row in zip(verdicts, rows, strict=True):
        assert (row["status"], row["label"], row["class_name"]) == (v.status, v.label, v.class_name)
        assert (row["closed_label"], row["closed_class"], row["error"]) == (v.closed_label, v.closed_class, v.error)
        if v.status == "unreadable":
            assert [row["p_value"], row["score"], row["confidence"]] == [None] * 3
        else:
            assert row["p_value"] == pytest.approx(v.p_value, abs=1e-6)
            assert row["score"] == pytest.approx(v.score, rel=1e-4)
            assert row["confidence"] == pytest.approx(v.confidence, rel=1e-4)


@pytest.mark.parametrize("form", ["multipart", "json", "raw"])
@pytest.mark.parametrize("model", ["toy", "file"])
def test_the_three_forms_answer_as_predict_does(to_serve, form, model):
    app = create_app({"toy": to_serve.folder, "file": to_serve.file}, QUIET)
    given = [*to_serve.images[6:16], b"no image", b""]
    url = f"/v1/predict?model={model}"

    async def story(client):
        if form == "multipart":
            answers = [await client("POST", url, *multipart([(f"{i}.png", x) for i, x in enumerate(given)]))]
        elif form == "json":
            body = {"images": [base64.b64encode(x).decode() for x in given]}
            answers = [await client("POST", url, json.dumps(body).encode(), {"content-type": "application/json"})]
        else:
            headers = {"content-type": "image/png"}
            answers = await asyncio.gather(*(client("POST", url, x, headers) for x in given))
        assert {a.status for a in answers} == {200}
        return [row for a in answers for row in a.json["verdicts"]]

    rows = served(app, story)
    osc = to_serve.osc if model == "toy" else knownot.load(to_serve.file)
    as_predicted(osc.predict(given), rows)
    statuses = {row["status"] for row in rows}
    assert statuses == {"known", "unknown", "unreadable"}
    assert [row["id"] for row in rows][:2] == {
        "multipart": ["0.png", "1.png"],
        "json": ["#0", "#1"],
        "raw": ["#0"] * 2,
    }[form]


def test_explanations_name_classes_members_and_known_images(to_serve):
    app = create_app({"toy": to_serve.folder, "file": to_serve.file}, QUIET)
    form = multipart([("a", to_serve.images[0]), ("b", b"no image")])

    async def story(client):
        return [(await client("POST", f"/v1/predict?explain=1&model={m}", *form)).json for m in ("toy", "file")]

    folder, file = served(app, story)
    first, second = folder["verdicts"]
    verdict = to_serve.osc.predict([to_serve.images[0]])
    assert second["explanation"] is None
    why = first["explanation"]
    assert why["top"][0]["class_name"] == first["closed_class"]
    assert why["top"][0]["probability"] == pytest.approx(first["confidence"], rel=1e-5)
    assert sum(c["probability"] for c in why["top"]) == pytest.approx(1, abs=1e-5)  # four classes, all of them
    assert why["members"] == pytest.approx(dict(zip(verdict.members, verdict.member_p_values[0], strict=True)))
    assert [n["class_name"] for n in why["nearest"]] == [first["closed_class"]] * 3
    assert all(n["image"].startswith("data:image/") and 0.9 < n["likeness"] <= 1.0001 for n in why["nearest"])
    of_file = file["verdicts"][0]["explanation"]
    assert (of_file["members"], of_file["nearest"]) == ({}, [])
    assert [c["class_name"] for c in of_file["top"]] == [c["class_name"] for c in why["top"]]


def test_what_is_in_service(to_serve):
    async def story(client):
        return [(await client("GET", url)).json for url in ("/v1/models", "/v1/models/toy", "/healthz", "/readyz")]

    models, toy, health, ready = served(app_of(to_serve), story)
    osc = to_serve.osc
    limits = {"max_body": 32 * 2**20, "max_images": 64, "max_pixels": 50_000_000}
    assert models == {"default": "toy", "models": [toy], "limits": limits, "examples": 0, "streams": 0}
    assert (toy["alpha"], toy["promise"], toy["classes"]) == (osc.alpha, osc.promise, list(osc.class_names))
    assert toy["p_threshold"] == osc.calibration.p_threshold
    for rule in toy["rules"]:
        other = osc.with_alpha(rule["alpha"])
        assert (rule["p_threshold"], rule["promise"]) == (other.calibration.p_threshold, other.promise)
    assert len(toy["rules"]) > 4
    assert (health["status"], ready["status"]) == ("ok", "ready")


BAD = {
    "no body": (422, b"", {"content-type": "application/json"}),
    "no JSON": (422, b"{", {"content-type": "application/json"}),
    "deep JSON": (422, b"[" * 100_000, {"content-type": "application/json"}),
    "no images": (422, b'{"images": []}', {"content-type": "application/json"}),
    "numbers": (422, b'{"images": [1]}', {"content-type": "application/json"}),
    "a form of curl": (415, b"x", {"content-type": "application/x-www-form-urlencoded"}),
    "text": (415, b"x", {"content-type": "text/plain"}),
    "no type": (415, b"x", {}),
    "compressed": (415, b"x", {"content-type": "image/png", "content-encoding": "gzip"}),
    "no boundary": (422, b"x", {"content-type": "multipart/form-data"}),
    "another boundary": (422, multipart([("a", b"x")])[0], {"content-type": "multipart/form-data; boundary=other"}),
    "cut off": (422, multipart([("a", b"x")])[0][:-8], {"content-type": "multipart/form-data; boundary=knot"}),
    "a field": (
        422,
        b'--knot\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--knot--\r\n',
        {"content-type": "multipart/form-data; boundary=knot"},
    ),
    "no file chosen": (422, *multipart([("", b"")])),
    "too many": (413, *multipart([("a", b"x")] * 4)),
    "too large": (413, b"x" * 3000, {"content-type": "image/png"}),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_requests_are_problems_that_the_document_declares(to_serve, what):
    status, body, headers = BAD[what]
    app = app_of(to_serve, max_images=3, max_body=2000 if what == "too large" else 500_000)
    answer = served(app, lambda client: client("POST", "/v1/predict", body, headers))
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json) == {"type", "title", "status", "detail"}
    assert answer.json["status"] == status
    declared = app.openapi()["paths"]["/v1/predict"]["post"]["responses"]
    assert "application/problem+json" in declared[str(status)]["content"]
    assert {"413", "415", "422", "429", "503"} <= set(declared)


def test_other_addresses_are_problems_too(to_serve):
    async def story(client):
        return [
            await client("GET", "/v1/predict"), await client("GET", "/nothing"), await client("GET", "/v1/models/x"),
            await client("GET", "/assets/nothing.js"), await client("GET", "/assets/..%2fapp.py"),
            await client("POST", "/v1/predict?model=x"), await client("POST", "/v1/predict?explain=perhaps"),
        ]  # fmt: skip

    answers = served(app_of(to_serve), story)
    assert [a.status for a in answers] == [405, 404, 404, 404, 404, 404, 422]
    assert {a.headers["content-type"] for a in answers} == {"application/problem+json"}


def test_bodies_without_a_length_are_limited_and_slow_ones_end(to_serve):
    headers = {"content-type": "image/png", "transfer-encoding": "chunked"}

    async def story(client):
        long = await client("POST", "/v1/predict", headers=headers, chunks=[b"x" * 900] * 3)
        slow = await client("POST", "/v1/predict", headers=headers, chunks=[b"x", 5.0, b"y"])
        gone = await client("POST", "/v1/predict", headers=headers, chunks=[b"x", None])
        fine = await client("POST", "/v1/predict", to_serve.images[0], headers)
        return [a.status for a in (long, slow, gone, fine)]

    assert served(app_of(to_serve, max_body=2000, timeout=0.5), story) == [413, 408, 400, 200]


def test_an_image_of_too_many_pixels_is_a_row(to_serve):
    app = app_of(to_serve, max_pixels=255)  # the images have 256
    answer = served(
        app, lambda client: client("POST", "/v1/predict", to_serve.images[0], {"content-type": "image/png"})
    )
    assert answer.json["verdicts"][0]["error"] == "too large: 16 x 16 pixels (limit 255)"


class Gate:
    """A classifier that computes when it is let."""

    def __init__(self, classifier):
        self.classifier, self.open, self.batches = classifier, threading.Event(), []

    def __getattr__(self, name):
        return getattr(self.classifier, name)

    def stream(self, images, **options):
        self.batches.append(len(images))
        assert self.open.wait(30)
        return self.classifier.stream(images, **options)


def gated(app):
    engine = app.state.registry.get(None)
    engine.classifier = gate = Gate(engine.classifier)
    return gate


async def until(holds):
    while not holds():
        await asyncio.sleep(0.001)


def test_a_batch_is_what_waits_and_a_full_queue_says_when_to_ask_again(to_serve):
    app = app_of(to_serve, threads=1, queue=10, max_batch=8, max_images=10)
    gate = gated(app)
    engine = app.state.registry.get(None)
    headers = {"content-type": "image/png"}

    async def story(client):
        first = asyncio.create_task(client("POST", "/v1/predict", to_serve.images[0], headers))
        await until(lambda: gate.batches)  # it is being computed; whatever comes now waits
        rest = [asyncio.create_task(client("POST", "/v1/predict", x, headers)) for x in to_serve.images[1:8]]
        await until(lambda: engine.waiting == 7)
        more = asyncio.create_task(client("POST", "/v1/predict", *multipart([("a", x) for x in to_serve.images[8:11]])))
        await until(lambda: engine.waiting == 10)
        refused = await client("POST", "/v1/predict", to_serve.images[0], headers)
        metrics = (await client("GET", "/metrics")).body.decode()
        gate.open.set()
        return refused, metrics, await asyncio.gather(first, *rest, more)

    refused, metrics, answers = served(app, story)
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert 'knownot_queue_images{model="toy"} 10.0' in metrics
    assert gate.batches == [1, 8, 2]  # not more than 8, and a request's images need not share one
    as_predicted(to_serve.osc.predict(to_serve.images[:11]), [row for a in answers for row in a.json["verdicts"]])


def test_a_late_answer_is_503_and_its_images_are_not_computed(to_serve):
    app = app_of(to_serve, threads=1, timeout=0.2)
    gate = gated(app)
    headers = {"content-type": "image/png"}

    async def story(client):
        late = [asyncio.create_task(client("POST", "/v1/predict", to_serve.images[0], headers))]
        await until(lambda: gate.batches)
        late += [asyncio.create_task(client("POST", "/v1/predict", to_serve.images[0], headers)) for _ in range(4)]
        late = await asyncio.gather(*late)
        gate.open.set()
        return late, await client("POST", "/v1/predict", to_serve.images[0], headers)

    late, after = served(app, story)
    assert {(a.status, a.headers["retry-after"]) for a in late} == {(503, "1")}
    assert after.status == 200
    assert gate.batches == [1, 1]  # the one that was under way, and the one after


def test_an_image_that_the_classifier_fails_on_fails_alone(to_serve, caplog):
    app = app_of(to_serve, threads=1)
    engine, bad = app.state.registry.get(None), to_serve.images[1]
    inner = engine.classifier

    class Failing(Gate):
        def stream(self, images, **options):
            if bad in images:
                raise RuntimeError("secret.png")
            return inner.stream(images, **options)

    engine.classifier = Failing(inner)
    form = multipart([("a", to_serve.images[0]), ("b", bad), ("c", to_serve.images[2])])
    answer = served(app, lambda client: client("POST", "/v1/predict", *form))
    assert [row["status"] == "unreadable" for row in answer.json["verdicts"]] == [False, True, False]
    assert answer.json["verdicts"][1]["error"] == "the classifier failed on this image"
    assert "secret" not in caplog.text


def test_a_token_is_asked_for_everywhere_but_for_health_and_the_page(to_serve):
    token = "0123456789abcdef-token"
    app = app_of(to_serve, token=token)
    open_ = ["/healthz", "/readyz", "/", "/assets/palette.css", "/openapi.json"]
    closed = ["/v1/models", "/v1/models/toy", "/metrics", "/nothing"]

    async def story(client):
        without = [(await client("GET", url)).status for url in open_ + closed]
        wrong = await client("GET", "/v1/models", headers={"authorization": "Bearer " + token[:-1] + "x"})
        right = await client("GET", "/v1/models", headers={"authorization": "Bearer " + token})
        return without, wrong, right

    without, wrong, right = served(app, story)
    assert without == [200] * len(open_) + [401] * len(closed)
    assert (wrong.status, wrong.headers["www-authenticate"], right.status) == (401, "Bearer", 200)
    document = app.openapi()
    assert document["security"] == [{"token": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert "security" not in document["paths"]["/v1/predict"]["post"]


def test_other_names_and_other_sites_are_not_let_in(to_serve):
    async def story(client, **headers):
        return (await client("GET", "/v1/models", headers=headers)).status

    local, named = app_of(to_serve), app_of(to_serve, host="0.0.0.0", origins=("https://site.example",))
    assert served(local, story) == 200
    assert served(local, story, host="localhost:8000") == 200
    assert served(local, story, host="[::1]:8000") == 200
    assert served(local, story, host="evil.example") == 421  # DNS rebinding
    assert served(local, lambda c: story(c, origin="https://evil.example")) == 403
    assert served(local, lambda c: story(c, origin="http://127.0.0.1")) == 200
    assert served(named, story, host="anything.example") == 200
    assert served(named, lambda c: story(c, origin="https://site.example")) == 200
    assert served(named, lambda c: story(c, origin="https://other.example")) == 403


def test_every_answer_has_the_headers_of_safety(to_serve):
    async def story(client):
        return [await client("GET", "/"), await client("GET", "/nothing"), await client("POST", "/v1/predict")]

    for answer in served(app_of(to_serve), story):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


def test_logs_have_no_names_and_metrics_count(to_serve, caplog):
    caplog.set_level(logging.INFO, "knownot")
    app = app_of(to_serve)

    async def story(client):
        form = multipart([("secret-name.png", to_serve.images[0]), ("secret-two.png", b"secret-content")])
        await client("POST", "/v1/predict?explain=0", *form)
        await client("GET", "/v1/models/secret-model")
        await client("GET", "/secret-address")
        return (await client("GET", "/metrics")).body.decode()

    metrics = served(app, story)
    lines = [json.loads(JsonLines().format(r)) for r in caplog.records if r.name.startswith("knownot")]
    assert "secret" not in json.dumps(lines) + metrics
    requests = [line for line in lines if line["message"] == "request"]
    assert [(r["route"], r["status"]) for r in requests][:3] == [
        ("/v1/predict", 200), ("/v1/models/{name}", 404), ("-", 404),
    ]  # fmt: skip
    assert (requests[0]["images"], requests[0]["model"]) == (2, "toy")
    row = to_serve.osc.predict([to_serve.images[0]])[0]
    assert 'knownot_requests_total{method="POST",route="/v1/predict",status="200"} 1.0' in metrics
    assert f'knownot_verdicts_total{{class="{row.closed_class}",model="toy",status="known"}} 1.0' in metrics
    assert 'knownot_verdicts_total{class="",model="toy",status="unreadable"} 1.0' in metrics
    assert 'knownot_p_value_count{model="toy"} 1.0' in metrics
    assert 'knownot_batch_images_count{model="toy"}' in metrics


def test_what_cannot_be_served_is_an_error_at_once(to_serve, tmp_path):
    with pytest.raises(OptionError, match="There is nothing to serve"):
        create_app([])
    with pytest.raises(SavedError):
        create_app([tmp_path / "none"])
    with pytest.raises(OptionError, match="cannot be part of an address"):
        create_app({"a b": to_serve.folder})
    with pytest.raises(OptionError, match="are both called 'osc'"):
        create_app([to_serve.folder, to_serve.file])
    with pytest.raises(OptionError, match="could never enter a queue of 5"):
        Settings(queue=5)
    with pytest.raises(OptionError, match="at least 16 characters"):
        Settings(token="short")


def test_a_classifier_of_float_arrays_cannot_be_served(to_serve, tmp_path):
    from helpers import toy

    images, labels = toy.known(300, 2)
    ready = (images / 255).astype("float32").transpose(0, 3, 1, 2)
    osc = knownot.fit(toy.saved(tmp_path), ready, labels, detector="energy", alpha=0.1, progress=False)
    osc.save(tmp_path / "floats")
    with pytest.raises(OptionError, match="was fitted on float arrays"):
        create_app([tmp_path / "floats"])


def test_tokens_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("KNOWNOT_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("KNOWNOT_TOKEN", "from the environment")
    assert read_token(None) == "from the environment"
    (tmp_path / "token").write_text("from-a-file\n")
    assert read_token(tmp_path / "token") == "from-a-file"
    (tmp_path / "empty").touch()
    for bad in ("empty", "absent"):
        with pytest.raises(OptionError, match="token's file"):
            read_token(tmp_path / bad)
