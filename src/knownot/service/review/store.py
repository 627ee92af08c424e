"""Kept images and their marks in a database, SQLite or PostgreSQL, by the same statements.

An image's `version` grows with every change of its mark; a mark is given to a version, so of two people who mark one
image at once the second is told. The log of marks is only ever added to: what was undone stays in it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from ...errors import OptionError, StorageError

KINDS = ("class", "new", "none", "unusable")
SCHEMA = sa.MetaData()
IMAGES = sa.Table(
    "knownot_images", SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),  # of the classifier that decided
    sa.Column("arrived", sa.Float, nullable=False, index=True),  # seconds since 1970
    sa.Column("status", sa.String(16), nullable=False),  # known, unknown
    sa.Column("audited", sa.Boolean, nullable=False),  # drawn at random, whatever the verdict
    sa.Column("closed_class", sa.Text, nullable=False),
    sa.Column("p_value", sa.Float, nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("features", sa.LargeBinary),  # float32, of unit length
    sa.Column("thumb", sa.Text, nullable=False),  # a data: URI
    sa.Column("data", sa.LargeBinary, nullable=False),  # the file as it came
    sa.Column("kind", sa.String(16)),  # of the mark; None where there is none
    sa.Column("name", sa.Text),  # of the class, known or new
    sa.Column("who", sa.Text),
    sa.Column("marked", sa.Float),
    sa.Column("version", sa.Integer, nullable=False, default=0),
    sa.Index("knownot_images_by_model", "model", "id"),
)  # fmt: skip
LOG = sa.Table(
    "knownot_marks", SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("batch", sa.String(32), nullable=False, index=True),
    sa.Column("image", sa.Integer, nullable=False, index=True),
    sa.Column("version", sa.Integer, nullable=False),  # of the image, after this
    sa.Column("kind", sa.String(16)),
    sa.Column("name", sa.Text),
    sa.Column("kind_before", sa.String(16)),
    sa.Column("name_before", sa.Text),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)  # fmt: skip
SHOWN = [c for c in IMAGES.c if c.name not in ("data", "features")]


@dataclass(frozen=True)
class Mark:
    """kind: one of `KINDS`, None: no mark (any more). name: of the class, for "class" and "new"."""

    kind: str | None
    name: str | None = None


@dataclass(frozen=True)
class Marked:
    """What became of marks: the versions of the images that have them now, and the rows of those changed meanwhile."""

    batch: str
    versions: dict[int, int]
    conflicts: list[dict[str, Any]]


class Store:
    """place: a file for SQLite, or the URL of a database. days, most: images that are older, or beyond so many, go."""

    def __init__(self, place: str | Path, *, days: float = 30, most: int = 20_000) -> None:
        self.days, self.most = days, most
        url = str(place) if "://" in str(place) else f"sqlite:///{place}"
        try:
            if url.startswith("sqlite:///") and url != "sqlite:///:memory:":
                Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            self.engine = sa.create_engine(url, pool_pre_ping=True)
            if self.engine.dialect.name == "sqlite":
                sa.event.listen(self.engine, "connect", _sqlite)
            SCHEMA.create_all(self.engine)
        except ModuleNotFoundError as error:
            raise OptionError(
                f"The database's driver {error.name!r} is not installed: for PostgreSQL, pip install 'psycopg[binary]' "
                "and give postgresql+psycopg://user@host/name."
            ) from error
        except exc.ArgumentError as error:
            raise OptionError("That is no address of a database: sqlite:///file or postgresql+psycopg://…") from error
        except (exc.SQLAlchemyError, OSError) as error:
            kind = getattr(error, "orig", None) or error
            raise StorageError(f"The database of kept images cannot be opened: {kind}".rstrip(".") + ".") from error

    def close(self) -> None:
        self.engine.dispose()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep images; all or none of them."""
        if rows:
            with self.engine.begin() as c:
                c.execute(IMAGES.insert(), [dict(row) for row in rows])

    def shown(
        self, model: str, *, show: str = "unmarked", after: int = 0, limit: int = 500
    ) -> tuple[list[dict[str, Any]], int]:
        """(rows in the order of arrival, how many there are). show: "unmarked", "marked" or "all"."""
        wanted = [IMAGES.c.model == model]
        if show != "all":
            wanted.append(IMAGES.c.kind.is_(None) if show == "unmarked" else IMAGES.c.kind.is_not(None))
        query = sa.select(*SHOWN).where(*wanted, IMAGES.c.id > after).order_by(IMAGES.c.id).limit(limit)
        with self.engine.connect() as c:
            count = c.execute(sa.select(sa.func.count()).select_from(IMAGES).where(*wanted)).scalar_one()
            return [dict(row) for row in c.execute(query).mappings()], count

    def features(self, model: str, *, show: str = "unmarked", most: int = 5000) -> list[tuple[int, str, bytes]]:
        """(id, the classifier's class, features) of the newest images that have features."""
        query = sa.select(IMAGES.c.id, IMAGES.c.closed_class, IMAGES.c.features).where(
            IMAGES.c.model == model, IMAGES.c.features.is_not(None)
        )
        if show != "all":
            query = query.where(IMAGES.c.kind.is_(None) if show == "unmarked" else IMAGES.c.kind.is_not(None))
        with self.engine.connect() as c:
            return [tuple(row) for row in c.execute(query.order_by(IMAGES.c.id.desc()).limit(most))]

    def file(self, image: int) -> bytes | None:
        with self.engine.connect() as c:
            return c.execute(sa.select(IMAGES.c.data).where(IMAGES.c.id == image)).scalar_one_or_none()

    def marked(self, model: str) -> Iterable[dict[str, Any]]:
        """Every marked image with its file, one after the other."""
        last = 0
        while True:
            query = sa.select(IMAGES).where(IMAGES.c.model == model, IMAGES.c.kind.is_not(None), IMAGES.c.id > last)
            with self.engine.connect() as c:
                rows = c.execute(query.order_by(IMAGES.c.id).limit(100)).mappings().all()
            if not rows:
                return
            yield from map(dict, rows)
            last = rows[-1]["id"]

    def mark(self, mark: Mark, versions: Mapping[int, int], who: str) -> Marked:
        """Give images, {id: the version that was looked at}, a mark; one that was changed meanwhile keeps its own."""
        return self._change({image: (version, mark) for image, version in versions.items()}, who)

    def undo(self, batch: str, who: str) -> Marked:
        """Take back what was marked at once; an image that was marked again meanwhile keeps what it has."""
        with self.engine.connect() as c:
            rows = c.execute(sa.select(LOG).where(LOG.c.batch == batch)).mappings().all()
        return self._change({r["image"]: (r["version"], Mark(r["kind_before"], r["name_before"])) for r in rows}, who)

    def _change(self, wanted: Mapping[int, tuple[int, Mark]], who: str) -> Marked:
        batch, now = secrets.token_hex(12), time.time()
        now_versions: dict[int, int] = {}
        ids = sorted(wanted)  # in one order, so that two who mark the same images do not wait for each other
        with self.engine.connect() as c:
            before = {r.id: r for r in c.execute(sa.select(IMAGES.c.id, IMAGES.c.kind, IMAGES.c.name, IMAGES.c.version)
                                                 .where(IMAGES.c.id.in_(ids)))}  # fmt: skip
        log = []
        with self.engine.begin() as c:
            for image in ids:
                version, mark = wanted[image]
                # The version is compared in the statement that changes it, so nothing comes in between.
                done = c.execute(
                    IMAGES.update().where(IMAGES.c.id == image, IMAGES.c.version == version).values(
                        kind=mark.kind, name=mark.name, who=who, marked=now, version=version + 1,
                    )
                )  # fmt: skip
                if done.rowcount:
                    now_versions[image] = version + 1
                    old = {"kind_before": before[image].kind, "name_before": before[image].name}
                    new = {"kind": mark.kind, "name": mark.name, "version": version + 1}
                    log.append({"batch": batch, "image": image, "who": who, "at": now, **new, **old})
            if log:
                c.execute(LOG.insert(), log)
            missed = [image for image in ids if image not in now_versions]
            query = sa.select(IMAGES.c.id, IMAGES.c.version, IMAGES.c.kind, IMAGES.c.name, IMAGES.c.who)
            conflicts = [dict(r) for r in c.execute(query.where(IMAGES.c.id.in_(missed))).mappings()] if missed else []
        return Marked(batch, now_versions, conflicts)

    def audited(self, model: str, digest: str) -> list[tuple[str, str | None]]:
        """(verdict, kind of mark or None) of the images that were drawn at random, of one classifier."""
        query = sa.select(IMAGES.c.status, IMAGES.c.kind).where(
            IMAGES.c.model == model, IMAGES.c.digest == digest, IMAGES.c.audited
        )
        with self.engine.connect() as c:
            return [tuple(row) for row in c.execute(query)]

    def delete(self, images: Sequence[int]) -> int:
        """For good, with their marks; how many there were."""
        with self.engine.begin() as c:
            c.execute(LOG.delete().where(LOG.c.image.in_(images)))
            count = c.execute(IMAGES.delete().where(IMAGES.c.id.in_(images))).rowcount
        self._tidy()
        return count

    def retain(self, now: float | None = None) -> int:
        """Delete what is too old or too much; how many went."""
        query = sa.select(IMAGES.c.id)
        oldest = (time.time() if now is None else now) - 86_400 * self.days
        with self.engine.connect() as c:
            old = list(c.execute(query.where(IMAGES.c.arrived < oldest)).scalars())
            newest = query.order_by(IMAGES.c.id.desc()).offset(self.most)
            more = list(c.execute(newest).scalars())
        gone = sorted({*old, *more})
        for i in range(0, len(gone), 500):
            self.delete(gone[i : i + 500])
        return len(gone)

    def _tidy(self) -> None:
        if self.engine.dialect.name == "sqlite":  # what was deleted is not left in the log of changes
            with self.engine.connect() as c:
                c.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _sqlite(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
