"""The Open Inference Protocol: health, metadata, inference with image files and with pixels, as JSON and as bytes."""

import base64
import json
import struct

import numpy as np
import pytest

from helpers import toy
from helpers.asgi import served
from knownot.service import Settings, create_app

URL = "/v2/models/toy/infer"


def app_of(to_serve, **settings):
    return create_app({"toy": to_serve.folder}, Settings(reload=0, **settings))


def tensors(answer):
    """{output: values} of an answer, whichever way they are written."""
    length = answer.headers.get("inference-header-content-length")
    at = len(answer.body) if length is None else int(length)
    head, rest = json.loads(answer.body[:at]), answer.body[at:]
    found = {}
    for tensor in head["outputs"]:
        if tensor.get("data") is not None:
            found[tensor["name"]] = tensor["data"]
            continue
        size = tensor["parameters"]["binary_data_size"]
        raw, rest = rest[:size], rest[size:]
        if tensor["datatype"] == "BYTES":
            values = []
            while raw:
                (n,) = struct.unpack_from("<I", raw)
                values.append(raw[4 : 4 + n].decode())
                raw = raw[4 + n :]
            found[tensor["name"]] = values
        else:
            kind = {"INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}[tensor["datatype"]]
            found[tensor["name"]] = np.frombuffer(raw, kind).tolist()
        assert len(found[tensor["name"]]) == tensor["shape"][0]
    assert rest == b""
    return head, found


def binary(images, **parameters):
    raw = b"".join(struct.pack("<I", len(x)) + x for x in images)
    size = {"binary_data_size": len(raw)}
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(images)], "parameters": size}
    head = json.dumps({"id": "7", "inputs": [tensor], "parameters": parameters}).encode()
    return head + raw, {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}


def plain(kind, shape, data, **more):
    return json.dumps({"inputs": [{"name": "images", "datatype": kind, "shape": shape, "data": data}], **more}).encode()


def test_health_and_metadata(to_serve):
    async def story(client):
        urls = ("", "/health/live", "/health/ready", "/models/toy/ready", "/models/toy", "/models/other")
        return [await client("GET", "/v2" + url) for url in urls]

    server, live, ready, model_ready, model, other = served(app_of(to_serve), story)
    assert server.json["name"] == "knownot"
    assert (live.json, ready.json) == ({"live": True}, {"ready": True})
    assert model_ready.json == {"name": "toy", "ready": True}
    assert model.json["inputs"] == [{"name": "images", "datatype": "BYTES", "shape": [-1]}]
    assert {out["name"] for out in model.json["outputs"]} >= {"label", "p_value", "score", "status", "class_name"}
    assert other.status == 404


@pytest.mark.parametrize("form", ["base64", "bytes", "bytes both ways", "pixels", "nested pixels"])
def test_answers_are_those_of_predict(to_serve, form):
    x = np.concatenate([toy.known(5, 31)[0], toy.unknown(4, 32)])
    files = [*to_serve.images[8:16], b"no image"]
    if "pixels" in form:
        data = x.tolist() if form.startswith("nested") else x.ravel().tolist()
        body, headers, given = plain("UINT8", list(x.shape), data), {}, x
    elif form == "base64":
        body, headers, given = plain("BYTES", [9], [base64.b64encode(f).decode() for f in files]), {}, files
    else:
        (body, headers), given = binary(files, binary_data_output="both" in form), files
    head, found = tensors(served(app_of(to_serve), lambda client: client("POST", URL, body, headers)))
    verdicts = to_serve.osc.predict(given)
    assert found["label"] == verdicts.label.tolist()
    assert found["status"] == verdicts.status
    assert found["class_name"] == verdicts.class_name
    assert found["error"] == [e or "" for e in verdicts.error]
    p = [np.nan if value is None else value for value in found["p_value"]]
    np.testing.assert_allclose(p, verdicts.p_value)
    assert head["model_name"] == "toy"
    assert head.get("id") == ("7" if form.startswith("bytes") else None)


def test_only_the_outputs_that_are_asked_for(to_serve):
    body = plain("BYTES", [1], [base64.b64encode(to_serve.images[0]).decode()], outputs=[{"name": "p_value"}])
    _, found = tensors(served(app_of(to_serve), lambda client: client("POST", URL, body)))
    assert list(found) == ["p_value"]


ONE = base64.b64encode(b"x").decode()
BAD = {
    "no JSON": (b"{", {}),
    "no inputs": (b'{"inputs": []}', {}),
    "another name": (plain("BYTES", [1], [ONE]).replace(b"images", b"other"), {}),
    "another type": (plain("FP32", [1, 1, 1, 3], [0.5] * 3), {}),
    "another shape": (plain("BYTES", [2], [ONE]), {}),
    "a huge shape": (plain("UINT8", [1, 10**9, 10**9, 3], [1]), {}),
    "a negative shape": (plain("BYTES", [-1], [ONE]), {}),
    "no base64": (plain("BYTES", [1], ["@"]), {}),
    "numbers as files": (plain("BYTES", [1], [1]), {}),
    "a fraction": (plain("UINT8", [1, 1, 1, 3], [0.5, 1, 2]), {}),
    "ragged": (plain("UINT8", [1, 1, 1, 3], [[1, 2], [3]]), {}),
    "256": (plain("UINT8", [1, 1, 1, 3], [0, 1, 256]), {}),
    "another output": (plain("BYTES", [1], [ONE], outputs=[{"name": "other"}]), {}),
    "a wrong length": (binary([b"x"])[0], {"inference-header-content-length": "99999"}),
    "cut off": (binary([b"xyz"])[0][:-1], binary([b"xyz"])[1]),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_requests_are_problems(to_serve, what):
    body, headers = BAD[what]
    answer = served(app_of(to_serve), lambda client: client("POST", URL, body, headers))
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")


def test_too_many_images_are_413(to_serve):
    body = plain("BYTES", [3], [ONE] * 3)
    assert served(app_of(to_serve, max_images=2), lambda client: client("POST", URL, body)).status == 413
