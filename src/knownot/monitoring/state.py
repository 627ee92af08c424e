"""A monitor as one small file of JSON, written at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..calibration.martingale import FlagBets, RankBets, TailBets
from ..errors import OptionError
from .events import Alarm
from .history import History

if TYPE_CHECKING:
    from .monitor import Monitor

VERSION = 2


def write_state(path: Path, monitor: Monitor) -> None:
    """Raises OptionError when the file cannot be written."""
    flags, shift, ranks = monitor._flags, monitor._shift, monitor._ranks
    state = {
        "version": VERSION,
        "fingerprint": monitor.fingerprint,
        "false_alarms": monitor.false_alarms,
        "seed": monitor.seed,
        "images": monitor.images,
        "unknown": monitor.unknown,
        "unreadable": monitor.unreadable,
        "flags": {name: getattr(flags, name).tolist() for name in ("shares", "log_jumper", "flags", "images")},
        "tail": {name: getattr(monitor._tail, name).tolist() for name in ("shares", "log_capital", "images")},
        "all": {"counts": monitor._all.counts.tolist(), "drawn": monitor._all.drawn},
        "shift": {name: getattr(shift, name).tolist() for name in ("shares", "log_capital", "images")},
        "ranks": {"counts": ranks.counts.tolist(), "drawn": ranks.drawn},
        "begun": monitor._begun,
        "history": monitor._history.levels,
        "recent": list(monitor._recent),
        "alarms": [alarm.facts() for alarm in monitor.alarms],
        "source": monitor.source,
    }
    write_whole(path, json.dumps(state, allow_nan=False).encode("utf-8", "surrogatepass"))


def read_state(path: Path, monitor: Monitor) -> None:
    """Raises OptionError when the file is damaged, or of another classifier or other options."""
    try:
        state: dict[str, Any] = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
        for name in ("fingerprint", "false_alarms", "seed"):
            if state["version"] == VERSION and state[name] != getattr(monitor, name):
                raise OptionError(
                    f"{path} is the state of a stream with another {name} ({state[name]!r}, now "
                    f"{getattr(monitor, name)!r}). Use that classifier and those options, or another file "
                    "for a new start."
                )
        if state["version"] != VERSION:
            raise ValueError(f"version {state['version']}, expected {VERSION}")
        bets = {name: np.array(x) for name, x in state["flags"].items()}
        flags = FlagBets(*monitor._levels, **bets)
        if flags.shares.shape != monitor._flags.shares.shape:
            raise ValueError("the bets have another shape")
        for name, ranks in (("all", monitor._all), ("ranks", monitor._ranks)):
            counts = np.array(state[name]["counts"], dtype=np.int64)
            if counts.shape != ranks.counts.shape:
                raise ValueError("the counts have another shape")
            ranks.counts, ranks.drawn = counts, int(state[name]["drawn"])
        monitor._flags = flags
        monitor._tail = TailBets(**{name: np.array(x) for name, x in state["tail"].items()})
        monitor._shift = RankBets(**{name: np.array(x) for name, x in state["shift"].items()})
        monitor.images, monitor.unknown, monitor.unreadable = state["images"], state["unknown"], state["unreadable"]
        monitor._begun = dict(state["begun"])
        monitor._history = History(state["history"])
        monitor._recent.clear()
        monitor._recent.extend(state["recent"])
        monitor.alarms = [Alarm.of(facts) for facts in state["alarms"]]
        monitor.source = dict(state["source"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{path} is no state of a monitor that can be read: {error}. Start with another file."
        ) from error


def options_of(path: Path) -> dict[str, Any]:
    """The options of the monitor that a state was saved by: false_alarms and seed. Raises OptionError."""
    try:
        state = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
        return {"false_alarms": float(state["false_alarms"]), "seed": int(state["seed"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(f"{path} is no state of a monitor that can be read: {error}.") from error


def write_whole(path: Path, data: bytes) -> None:
    """The whole file or nothing: a draft beside it takes its place."""
    draft = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror or error}.") from error
