"""Where the service listens, whom it answers and how much it takes; the defaults are the safe ones."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OptionError
from .names import check_name

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MIB = 2**20


def _threads() -> int:
    return min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Settings:
    """host, port: where to listen; port 0: any free one.

    token: what a request has to bear, None: nothing. hosts: names by which it may be asked for, "*": any; left out,
    those of this machine when it listens on loopback only, else any. origins: of other sites whose pages may ask.
    max_body: bytes of a request; max_images: of a request; max_pixels: of an image. queue: images that wait at most;
    max_batch: images of a forward pass at most; threads: forward passes at once. max_requests: under way at once.
    timeout: seconds for the body to arrive, and again for the answer. drain: seconds from SIGTERM on in which requests
    are still taken, so that clients and load balancers leave by themselves. reload: seconds between two looks at the
    files, 0: never. examples: image files that the page offers to try.
    streams: (name, state file of `knownot watch`) of each stream that is shown.
    keep: where images are kept for the review desk, a file for SQLite or a database's URL; None: none is kept.
    keep_days, keep_most: images that are older, or beyond so many, go. audit_share: of all images, drawn at random to
    measure the rate of false alarms.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body: int = 32 * MIB
    max_images: int = 64
    max_pixels: int = 50_000_000
    queue: int = 256
    max_batch: int = 32
    threads: int = field(default_factory=_threads)
    max_requests: int = 512
    timeout: float = 30.0
    drain: float = 1.0
    reload: float = 2.0
    examples: tuple[Path, ...] = ()
    streams: tuple[tuple[str, Path], ...] = ()
    keep: str | None = field(default=None, repr=False)
    keep_days: float = 30.0
    keep_most: int = 20_000
    audit_share: float = 0.01

    def __post_init__(self) -> None:
        for name in ("max_body", "max_images", "max_pixels", "queue", "max_batch", "threads", "max_requests"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}={getattr(self, name)}: expected at least 1.")
        if self.max_images > self.queue:
            raise OptionError(
                f"A request of {self.max_images} images (max_images) could never enter a queue of {self.queue}: give "
                "a longer queue, or fewer images per request."
            )
        if self.timeout <= 0 or self.drain < 0 or self.reload < 0:
            raise OptionError("timeout has to be above 0 seconds; drain and reload may not be below.")
        for name, _ in self.streams:
            check_name(name)
        if not 0 <= self.audit_share <= 1 or self.keep_days <= 0 or self.keep_most < 1:
            raise OptionError("audit_share is from 0 to 1; keep_days and keep_most are above 0.")
        if self.keep is not None and self.token is None:
            raise OptionError(
                "Kept images are shown to who has the token only: openssl rand -hex 32 > token; knownot serve … --keep "
                "DB --token-file token"
            )
        if not 0 <= self.port <= 65_535:
            raise OptionError(f"port={self.port}: expected 0 to 65535.")
        if self.token is not None and (len(self.token) < 16 or not self.token.isascii() or " " in self.token):
            raise OptionError("A token has at least 16 characters, of ASCII and without spaces: openssl rand -hex 32")

    @property
    def local(self) -> bool:
        """Whether it listens on this machine only."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def allowed_hosts(self) -> frozenset[str] | None:
        """Names that a request may ask for, lower case; None: any."""
        if "*" in self.hosts or (not self.hosts and not self.local):
            return None
        return frozenset(name.lower() for name in (*self.hosts, *(LOOPBACK if self.local else ()), self.host))


def read_token(file: str | Path | None) -> str | None:
    """The token of a file, or else of KNOWNOT_TOKEN in the environment; None without either. Raises OptionError."""
    if file is None:
        return os.environ.get("KNOWNOT_TOKEN") or None
    try:
        text = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"The token's file {str(file)!r} cannot be read: {error}.") from error
    if not text:
        raise OptionError(f"The token's file {str(file)!r} is empty: openssl rand -hex 32 > {file}")
    return text
