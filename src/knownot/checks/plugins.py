"""What a package that adds detectors promises, as a function to run in its own tests."""

from __future__ import annotations

from ..detectors.plugged import GROUP, plugged
from ..images import GROUP as READERS
from ..plugins import loaded
from .detectors import check_detector

__all__ = ["check_plugin"]


def check_plugin(package: str) -> None:
    """Assert that each entry point of an installed package can be used, and that each of its detectors keeps every
    promise of `check_detector`. Readers are only imported: run `check_images` on a source of theirs.

    package: the name under which it is installed. AssertionError says what is wrong.
    """
    found, readers = plugged(package), loaded(READERS, package)
    assert found or readers, (
        f"no package {package!r} is installed that has entry points of the groups {GROUP!r} or {READERS!r}"
    )
    entries = [(one.name, one.trouble) for one in found] + [(one.name, one.trouble) for one in readers]
    troubles = [f"{name}: {trouble}" for name, trouble in entries if trouble]
    assert not troubles, f"of the package {package!r} cannot be used: {'; '.join(troubles)}"
    for reader in readers:
        assert callable(getattr(reader.thing, "opened", reader.thing)), f"{reader.name}: it cannot be called"
    for one in found:
        check_detector(one.recipe)
