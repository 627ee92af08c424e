"""`knownot serve` and `knownot demo --serve`: what they hand to the service."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import knownot.service
from knownot.cli import demo, group
from knownot.errors import OptionError
from knownot.service.settings import MIB


@pytest.fixture
def started(monkeypatch):
    """(models, settings, other options) of what would have been served."""
    calls = []
    monkeypatch.setattr(
        "knownot.service.serve", lambda models, settings, **more: calls.append((models, settings, more))
    )
    monkeypatch.setattr("knownot.service.logs.set_up", lambda level: None)
    monkeypatch.delenv("KNOWNOT_TOKEN", raising=False)
    return calls


def run(*args):
    return CliRunner().invoke(group, ["serve", *map(str, args)])


def test_options_become_settings(started, tmp_path):
    (tmp_path / "osc").mkdir()
    (tmp_path / "token").write_text("0123456789abcdef-token\n")
    options = "--port 9 --max-body 2 --max-pixels 3 --max-images 4 --queue 5 --max-batch 6 --threads 7 --timeout 8"
    done = run(
        tmp_path / "osc", "--name", f"other={tmp_path / 'b.onnx'}", *options.split(), "--drain", "0", "--reload", "0",
        "--token-file", tmp_path / "token", "--allow-host", "a.example", "--cors", "https://b.example",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    ((models, settings, more),) = started
    assert models == {"osc": tmp_path / "osc", "other": tmp_path / "b.onnx"}
    assert more["model"] is None
    assert (settings.port, settings.max_body, settings.max_pixels) == (9, 2 * MIB, 3_000_000)
    assert (settings.max_images, settings.queue, settings.max_batch, settings.threads) == (4, 5, 6, 7)
    assert (settings.timeout, settings.drain, settings.reload) == (8, 0, 0)
    assert (settings.hosts, settings.origins) == (("a.example",), ("https://b.example",))
    assert settings.token == "0123456789abcdef-token"
    assert "0123456789" not in repr(settings)


def test_defaults_are_the_safe_ones(started, tmp_path):
    assert run(tmp_path / "osc.onnx").exit_code == 0
    ((_, settings, _),) = started
    assert settings == knownot.service.Settings()
    assert (settings.host, settings.token, settings.origins) == ("127.0.0.1", None, ())
    assert "evil.example" not in settings.allowed_hosts


def test_wrong_names_are_errors(started, tmp_path):
    assert "Missing argument" in run().output
    for name, words in (("x", "expected NAME=PATH"), ("a=", "expected NAME=PATH"), ("osc=b", "is the name of")):
        done = run(tmp_path / "osc.onnx", "--name", name)
        assert isinstance(done.exception, OptionError)
        assert words in str(done.exception)
    assert started == []


def test_the_demo_goes_on_with_the_page_and_some_images_of_each_kind(started, monkeypatch, tmp_path):
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    for name in ("a-1.png", "a-2.png", "b-1.png", "a-3.png"):
        (incoming / name).touch()
    assert [path.name for path in demo.examples_of(incoming, 2)] == ["a-1.png", "b-1.png", "a-2.png"]
    monkeypatch.setattr(demo, "run", lambda output, say, quiet: {})
    done = CliRunner().invoke(group, ["demo", "-o", str(tmp_path), "--serve", "--port", "7"])
    assert done.exit_code == 0, done.output
    ((models, settings, _),) = started
    assert models == {"clothes": Path(tmp_path) / "osc"}
    assert (settings.port, len(settings.examples)) == (7, 4)


def test_the_address_for_machines(monkeypatch, started, tmp_path):
    def listening(models, settings, *, model, ready):
        ready("http://0.0.0.0:9")

    monkeypatch.setattr("knownot.service.serve", listening)
    assert json.loads(run(tmp_path / "osc.onnx", "--json").output) == {
        "address": "http://127.0.0.1:9",
        "models": ["osc"],
    }
    assert "osc at http://127.0.0.1:9\n" in run(tmp_path / "osc.onnx").output
