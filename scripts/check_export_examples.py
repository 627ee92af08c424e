"""Run the take-home examples of examples/export on an exported file, and compare what they say with knownot.

    python scripts/check_export_examples.py --modules FOLDER/node_modules [--chromium /usr/bin/chromium]

--modules: where `npm install onnxruntime-node onnxruntime-web` put them. What is missing is said, and fails.
"""

from __future__ import annotations

import argparse
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "export"
sys.path.insert(0, str(ROOT / "tests"))
WEB = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def exported(folder: Path) -> tuple[np.ndarray, list[str]]:
    """osc.onnx in the folder, pictures, and what knownot says of each."""
    import knownot
    from helpers import toy

    known, new = toy.known(800, 2), toy.known(600, 3)
    way = knownot.Preprocess(16, 16, scale=1 / 255)
    osc = knownot.fit(
        toy.graph(), *known, calibration=new[0], calibration_labels=new[1], preprocess=way, progress=False
    )
    osc.export(folder / "osc.onnx")
    images = np.concatenate([toy.unknown(8), toy.known(8, 9)[0]])
    toy.written(folder / "images", images)
    images.tofile(folder / "pixels.rgb")
    facts = json.dumps(knownot.export.info(folder / "osc.onnx"))  # type: ignore[attr-defined]
    (folder / "facts.json").write_text(facts, encoding="utf-8")
    labels = knownot.load(folder / "osc.onnx").predict(images).label
    return images, ["unknown" if k < 0 else str(k) for k in labels]


def python(folder: Path) -> list[str]:
    files = sorted(map(str, (folder / "images").iterdir()))
    return said([sys.executable, str(EXAMPLES / "decide.py"), str(folder / "osc.onnx"), *files])


def node(folder: Path, modules: Path) -> list[str]:
    (folder / "node_modules").symlink_to(modules.resolve())
    shutil.copy(EXAMPLES / "decide.mjs", folder)
    command = ["node", "decide.mjs", "osc.onnx", "--raw", "16x16", "pixels.rgb"]
    return [word.removeprefix("class ") for word in said(command, folder)]


def said(command: list[str], folder: Path | None = None) -> list[str]:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return [line.split("\t")[1] for line in done.stdout.splitlines() if "\t" in line]


def browser(folder: Path, modules: Path, chromium: str) -> list[str]:
    """What the page says of two pictures; names of other servers are not resolved."""
    (folder / "ort").mkdir()
    for name in WEB:
        shutil.copy(modules / "onnxruntime-web" / "dist" / name, folder / "ort")
    shutil.copy(EXAMPLES / "index.html", folder)
    serve = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    words = []
    for name in ("00000.png", "00009.png"):
        page = f"http://127.0.0.1:{server.server_port}/index.html?image=images/{name}"
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000", "--dump-dom",
                   f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
                   page]  # fmt: skip
        for _ in range(5):  # the page may be printed before it is done
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            if "(p = " in text:
                break
        words.append(text.partition('aria-live="polite">')[2].partition(" (p = ")[0])
    server.shutdown()
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", type=Path, required=True)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, expected = exported(folder)
        for what, got in (("python", python(folder)), ("node", node(folder, options.modules))):
            assert got == expected, f"{what}: {got}, knownot: {expected}"
            print(f"{what}: {len(images)} verdicts as knownot's")
        words = browser(folder, options.modules, options.chromium)
        assert words == ["Unknown: none of the classes", expected[9]], words
        print("browser: both verdicts as knownot's, with no other server to be asked")


if __name__ == "__main__":
    main()
