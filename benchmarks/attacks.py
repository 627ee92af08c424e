"""Heavy trials of what the tests try a little of: mutated saved folders, mutated images, bombs.

    python benchmarks/attacks.py [folders] [images] [bombs] [--count-folders 1000] [--count-images 10000]

folders: a saved classifier with one to three changed bytes (the manifest in six of ten trials): an error, or verdicts
bit for bit as before; anything else is a silent difference. images: changed, cut or joined bytes of eight formats:
pixels, or a reason; anything else is a failure. bombs: each decoded in a process of its own; its peak memory above an
idle one, and processor time.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
SIDES = {"allowed": 7_000, "limit": 7_070, "refused": 13_000}  # 49, 50 and 169 million pixels


def folders(count: int) -> None:
    import knownot
    from helpers import toy
    from knownot.errors import KnownotError

    rng = np.random.default_rng(0)
    images = toy.known(24, 5)[0]
    with tempfile.TemporaryDirectory() as home:
        good, bad = Path(home) / "good", Path(home) / "bad"
        knownot.fit(toy.graph(), *toy.known(800, 2), thumbnails=4, progress=False).save(good)
        expected = knownot.load(good).predict(images)
        shutil.copytree(good, bad)
        seen: Counter[str] = Counter()
        for _ in range(count):
            name = rng.choice(["manifest.json", "state.safetensors", "model.onnx"], p=[0.6, 0.2, 0.2])
            data = bytearray((good / name).read_bytes())
            for _ in range(rng.integers(1, 4)):
                data[rng.integers(len(data))] = rng.integers(256)
            (bad / name).write_bytes(data)
            try:
                got = knownot.load(bad).predict(images)
                same = (got.score == expected.score).all() and (got.p_value == expected.p_value).all()
                same = same and got.class_name == expected.class_name and got.promise == expected.promise
                seen["same verdicts" if same else "SILENT DIFFERENCE"] += 1
            except KnownotError:
                seen["refused"] += 1
            except Exception as error:
                seen[f"RAW {type(error).__name__}"] += 1
            shutil.copyfile(good / name, bad / name)
    print(f"| saved folders, {count:,} mutations | {dict(seen)} |", flush=True)


def images(count: int) -> None:
    from PIL import Image

    from knownot.images.decode import Unreadable, decode

    rng = np.random.default_rng(1)
    photo = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((96, 72))
    files = {}
    for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000"):
        out = io.BytesIO()
        photo.save(out, form)
        files[form] = out.getvalue()
    seen: Counter[str] = Counter()
    for i in range(count):
        form = list(files)[i % len(files)]
        data = bytearray(files[form])
        how = rng.integers(3)
        if how == 0:
            for _ in range(rng.integers(1, 9)):
                data[rng.integers(len(data))] = rng.integers(256)
        elif how == 1:
            data = data[: rng.integers(len(data))]
        else:
            at = rng.integers(len(data))
            data[at:at] = rng.bytes(int(rng.integers(1, 64)))
        try:
            x = decode(bytes(data))
            seen["pixels" if x.dtype == np.uint8 and x.ndim == 3 else "ODD PIXELS"] += 1
        except Unreadable:
            seen["a reason"] += 1
        except BaseException as error:
            seen[f"RAW {type(error).__name__} ({form})"] += 1
    print(f"| images, {count:,} mutations | {dict(seen)} |", flush=True)


MAKE = """
import sys, io
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
form, mode, side, path = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
if form in ("SCANS", "SEPARATE"):
    sys.path.insert(0, sys.argv[5])
    from helpers.jpeg_bombs import many_scans, separate_scans
    data = many_scans(side, side, int(mode)) if form == "SCANS" else separate_scans(side, side)
    sys.exit(open(path, "wb").write(data) and None)
options = {"progressive": True} if form == "PROGRESSIVE" else {}
Image.new(mode, (side, side)).save(path, "JPEG" if options else form, **options)
"""
LOOK = """
import resource, sys, time
from knownot.images.decode import Unreadable, decode
import numpy, PIL.Image
idle, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    said = "x".join(map(str, decode(sys.argv[1]).shape[:2]))
except Unreadable as why:
    said = str(why)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"{(peak - idle) / 1024:.0f}|{time.process_time() - begin:.1f}|{said}")
"""
KINDS = [
    *((form, mode, side) for form, modes in {
        "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"), "TIFF": ("RGB", "CMYK"), "BMP": ("RGB",), "GIF": ("P",),
    }.items() for mode in modes for side in ("allowed", "refused")),
    *(("JPEG", mode, side) for mode in ("RGB", "L", "CMYK") for side in ("limit", "refused")),
    *(("JPEG2000", mode, side) for mode in ("RGB", "RGBA", "L") for side in ("limit", "refused")),
    ("PROGRESSIVE", "RGB", "limit"), ("PROGRESSIVE", "RGB", "refused"),
    ("WEBP", "RGB", "webp"), ("WEBP", "RGBA", "webp"),
    ("SCANS", "39", "allowed"), ("SCANS", "300", "allowed"), ("SCANS", "1500", "small"),  # JPEG, in so many scans
    ("SEPARATE", "YCbCr", "slow"), ("SEPARATE", "YCbCr", "refused"),  # JPEG, with a scan for each colour
]  # fmt: skip


def bombs() -> None:
    print("| bomb | file kB | peak MB | CPU s | gives |\n|---|---|---|---|---|")
    worst = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as home:
        for form, mode, side in KINDS:
            path, size = Path(home) / "bomb", {**SIDES, "webp": 4_990, "small": 1_000, "slow": 7_900}[side]
            asked = [form, mode, str(size), str(path), str(ROOT / "tests")]
            made = subprocess.run([sys.executable, "-c", MAKE, *asked], capture_output=True)
            if made.returncode:
                print(f"| {form} {mode} {size} | not made: {made.stderr.decode()[-60:]!r} | | | |", flush=True)
                continue
            looked = subprocess.run([sys.executable, "-c", LOOK, str(path)], capture_output=True, text=True)
            peak, cpu, said = (looked.stdout.strip() or f"0|0|FAILED {looked.stderr[-80:]!r}").split("|", 2)
            worst = [max(worst[0], float(peak)), max(worst[1], float(cpu))]
            kilobytes = path.stat().st_size / 1000
            print(f"| {form} {mode} {size} px square | {kilobytes:,.1f} | {peak} | {cpu} | {said} |", flush=True)
    print(f"| {len(KINDS)} kinds, the worst | | {worst[0]:.0f} | {worst[1]:.1f} | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["folders", "images", "bombs"])
    parser.add_argument("--count-folders", type=int, default=1_000)
    parser.add_argument("--count-images", type=int, default=10_000)
    options = parser.parse_args()
    if "bombs" in options.what:
        bombs()
    if "images" in options.what:
        images(options.count_images)
    if "folders" in options.what:
        folders(options.count_folders)


if __name__ == "__main__":
    main()
