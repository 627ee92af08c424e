"""Is it ready to be released? `make release-check`.

It builds the wheel and the source archive, has twine check them, and checks what is inside. Then it makes a clean
environment with the wheel alone for each Python from 3.11 on that this machine has, and runs the demo there, from the
command line and in Python. At last it prints the licences of all packages of that environment.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMOKE = """
import knownot
osc = knownot.load("demo/osc")
verdicts = osc.predict("demo/incoming")
assert verdicts.unknown.sum() > 290 and verdicts.unreadable.sum() == 2, verdicts.summary
assert knownot.fit("demo/fashion.onnx", "demo/known", calibration="demo/calibration", progress=False).alpha == 0.05
print(knownot.__version__, verdicts.summary)
"""
LICENCES = """
import importlib.metadata as m
for d in sorted(m.distributions(), key=lambda d: d.name.lower()):
    named = d.metadata.get("License-Expression") or next(
        (c.rpartition(" :: ")[2] for c in d.metadata.get_all("Classifier", []) if c.startswith("License ::")),
        (d.metadata.get("License") or "not said").splitlines()[0][:60])
    print(f"  {d.name} {d.version}: {named}")
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def pythons() -> list[Path]:
    """One interpreter for each version from 3.11 on: on the path, or of pyenv."""
    found: dict[str, Path] = {}
    places = [*Path.home().glob(".pyenv/versions/*/bin/python"), Path(sys.executable)]
    places += [Path(p) for p in (shutil.which(f"python3.{minor}") for minor in range(11, 20)) if p and "shims" not in p]
    for python in places:
        done = subprocess.run(
            [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0 and tuple(map(int, done.stdout.split("."))) >= (3, 11):
            found.setdefault(done.stdout.strip(), python)
    return [found[version] for version in sorted(found, key=lambda v: tuple(map(int, v.split("."))))]


def inside(wheel: Path, archive: Path) -> None:
    """What has to ship ships, and nothing else does."""
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("knownot/py.typed", "knownot/demo_assets/NOTICE.md", "knownot/demo_assets/fashion.onnx"):
        assert needed in names, f"{wheel.name} lacks {needed}"
    assert any(name.endswith("licenses/LICENSE") for name in names), f"{wheel.name} lacks the licence"
    strange = [n for n in names if not n.startswith(("knownot/", "knownot-")) or "__pycache__" in n]
    assert not strange, strange
    with tarfile.open(archive) as file:
        sources = file.getnames()
    assert any(name.endswith("/CHANGELOG.md") for name in sources), "no changelog in the source archive"
    version = re.search(r'"(.+)"', (ROOT / "src/knownot/version.py").read_text())[1]
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1]
    assert version.partition(".dev")[0] == cited, f"CITATION.cff says {cited}, the package {version}"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        run(sys.executable, "-m", "build", "--outdir", home)
        (wheel,), (archive,) = home.glob("*.whl"), home.glob("*.tar.gz")
        print(run(sys.executable, "-m", "twine", "check", "--strict", wheel, archive).strip())
        inside(wheel, archive)
        print(f"{wheel.name} {wheel.stat().st_size / 1e6:.1f} MB, {archive.name} {archive.stat().st_size / 1e6:.1f} MB")
        for python in pythons():
            place = home / python.parent.parent.name
            run(python, "-m", "venv", place)
            run(place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
            run(place / "bin" / "knownot", "demo", "-o", place / "demo", "--quiet", cwd=place)
            said = run(place / "bin" / "python", "-c", SMOKE, cwd=place).strip()
            print(run(place / "bin" / "python", "--version").strip() + ": " + said)
        print("Licences of what a base install brings along:")
        print(run(place / "bin" / "python", "-c", LICENCES))


if __name__ == "__main__":
    main()
