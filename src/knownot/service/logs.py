"""Logs as lines of JSON on standard error: no image's content, no file's name, of addresses their pattern only."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """A record as one object; what is given as `extra={"facts": {...}}` stands beside time, level and message."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            last = record.exc_info[2]
            while last is not None and last.tb_next is not None:
                last = last.tb_next
            if last is not None:  # the place, not the message: that may hold what was sent
                line["where"] = f"{last.tb_frame.f_code.co_name}:{last.tb_lineno}"
        return json.dumps(line)


def set_up(level: str = "info") -> None:
    """For the program `knownot serve`: all loggers, uvicorn's included, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("knownot").setLevel(level.upper())
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("python_multipart", "multipart", "PIL"):  # which tell of bytes that were sent
        logging.getLogger(name).setLevel(logging.CRITICAL)
