"""Telling somebody of an alarm: a command, an address, a file of metrics."""

from __future__ import annotations

import json
import math
import os
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from ..errors import OptionError
from .events import KINDS, Alarm

if TYPE_CHECKING:
    from .monitor import Monitor

SECONDS = 30  # that a command or an address may take


def run_command(command: str, alarm: Alarm, stream: str = "") -> str | None:
    """Run a shell command with the alarm as JSON on its standard input, and its kind, image and sentence in the
    environment (KNOWNOT_KIND, KNOWNOT_IMAGE, KNOWNOT_SENTENCE, KNOWNOT_STREAM). Why it failed, or None."""
    said = {"KIND": alarm.kind, "IMAGE": alarm.id, "SENTENCE": alarm.sentence, "STREAM": stream}
    environment = os.environ | {f"KNOWNOT_{k}": v.encode("utf-8", "replace").decode() for k, v in said.items()}
    try:
        done = subprocess.run(
            command, shell=True, input=_body(alarm, stream), env=environment, capture_output=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"the command took longer than {SECONDS} s and was stopped"
    except OSError as error:
        return f"the command could not be run: {error}"
    if done.returncode:
        return f"the command ended with {done.returncode}: {done.stderr.decode('utf-8', 'replace').strip()[-300:]}"
    return None


def post(url: str, alarm: Alarm, stream: str = "") -> str | None:
    """POST the alarm as JSON. Why it failed, or None."""
    request = urllib.request.Request(
        checked_url(url), _body(alarm, stream), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return None
    except (urllib.error.URLError, OSError, ValueError) as error:
        return f"the address could not be told: {error}"


def checked_url(url: str) -> str:
    """The address if it is one of HTTP, else OptionError."""
    if not url.startswith(("http://", "https://")):
        raise OptionError(f"webhook {url!r}: expected an address that begins with http:// or https://.")
    return url


def prometheus(monitor: Monitor) -> str:
    """Metrics in Prometheus' text format, for a textfile collector or an endpoint."""
    share = monitor.recent_share()
    label = f'stream="{_escape(monitor.name)}"'
    lines: list[str] = []

    def metric(name: str, kind: str, says: str, values: dict[str, float]) -> None:
        lines.append(f"# HELP knownot_{name} {says}")
        lines.append(f"# TYPE knownot_{name} {kind}")
        lines.extend(f"knownot_{name}{{{label}{more}}} {value:g}" for more, value in values.items())

    by_kind = {kind: f',kind="{kind.replace(" ", "_")}"' for kind in KINDS}
    metric("images_total", "counter", "Readable images seen.", {"": monitor.images})
    metric("unknown_total", "counter", "Images called unknown.", {"": monitor.unknown})
    metric("unreadable_total", "counter", "Images that could not be read.", {"": monitor.unreadable})
    counts = {kind: sum(a.kind == kind for a in monitor.alarms) for kind in KINDS}
    metric("alarms_total", "counter", "Alarms raised.", {by_kind[k]: n for k, n in counts.items()})
    evidence = {by_kind[k]: monitor.log_evidence(k) / math.log(10) for k in KINDS}
    metric("evidence_log10", "gauge", "Evidence for a change since the last alarm.", evidence)
    limits = {by_kind[k]: monitor.log_threshold(k) / math.log(10) for k in KINDS}
    metric("alarm_threshold_log10", "gauge", "Evidence at which the next alarm is raised.", limits)
    if share.images:
        metric("unknown_share", "gauge", "Share of unknown among recent images, estimated.", {"": share.estimate})
        metric("unknown_share_low", "gauge", "Lower limit of the share, 95 % interval.", {"": share.low})
        metric("unknown_share_high", "gauge", "Upper limit of the share, 95 % interval.", {"": share.high})
    return "\n".join(lines) + "\n"


def _body(alarm: Alarm, stream: str) -> bytes:
    return json.dumps({"stream": stream, **alarm.facts()}).encode()


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").encode("utf-8", "replace").decode()
