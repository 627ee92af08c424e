"""The folder in which the code blocks of the documentation are run, and the running of them.

Everything in it is real and small: made pictures of four classes in `data/train` and `data/val`, a mixed folder
`incoming`, and one trained classifier in each form that the pages speak of.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helpers import toy
from knownot import fit
from knownot.cli import main
from knownot.cli.demo import unpack

ROOT = Path(__file__).resolve().parents[2]
TESTS = str(ROOT / "tests")
NAMES = tuple(sorted(toy.CLASSES))  # the classifier's outputs are in the order of the folders
ORDER = [toy.CLASSES.index(name) for name in NAMES]

NETWORK = '''
"""A small classifier of 16x16 pictures, as its owner would have it."""

import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.conv2 = torch.nn.Conv2d(12, 24, 3, stride=2, padding=1)
        self.last = torch.nn.Linear(24, 4)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        return self.last(x.mean(dim=(2, 3)))


def trained():
    net = Net()
    net.load_state_dict(torch.load("weights.pt", weights_only=True))
    return net.eval()
'''


def weights() -> dict[str, np.ndarray]:
    w = toy.weights()
    return w | {"w": w["w"][ORDER], "b": w["b"][ORDER]}


def prepare(home: Path, pages: Pages) -> Path:
    """Fill `home` with what the pages' code blocks use. pages: its process has imported the frameworks already."""
    import onnx
    from onnx import numpy_helper

    unpack(home / "clothes")
    clothes = home / "clothes"
    osc = fit(clothes / "fashion.onnx", clothes / "known", calibration=clothes / "calibration", progress=False)
    osc.save(clothes / "osc")
    for name, n, seed in (("train", 400, 2), ("val", 600, 3)):
        toy.written(home / "data" / name, *toy.known(n, seed))
    pictures = np.concatenate([toy.known(60, 4)[0], toy.unknown(40)])
    toy.written(home / "incoming", pictures)
    (home / "incoming" / "00007.png").write_bytes(b"")
    (home / "classes.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    model = toy.graph()
    for initializer in model.graph.initializer:
        if initializer.name in ("w", "b"):
            initializer.CopyFrom(numpy_helper.from_array(weights()[initializer.name], initializer.name))
    onnx.save(model, home / "model.onnx")
    (home / "network.py").write_text(NETWORK, encoding="utf-8")
    code, said = pages.ask("frameworks", [Block("python", 1, "from helpers import docs\n\ndocs.frameworks()\n")], home)
    assert code == 0, said
    return home


def frameworks() -> None:
    """The same weights as PyTorch and Keras models, in the working directory (in the process that runs pages)."""
    import keras
    import torch

    w = weights()
    names = {"conv1": ("w1", "b1"), "conv2": ("w2", "b2"), "last": ("w", "b")}
    state = {f"{layer}.weight": torch.tensor(w[a]) for layer, (a, _) in names.items()}
    state |= {f"{layer}.bias": torch.tensor(w[b]) for layer, (_, b) in names.items()}
    torch.save(state, "weights.pt")
    sys.path.insert(0, os.getcwd())
    from network import trained

    images = torch.zeros(2, 3, toy.SIDE, toy.SIDE)
    batch = {0: torch.export.Dim("n", min=1, max=4096)}
    torch.export.save(torch.export.export(trained(), (images,), dynamic_shapes=(batch,)), "model.pt2")
    torch.save(trained(), "pickled.pt")
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((toy.SIDE, toy.SIDE, 3)),
            layers.Rescaling(1 / 255),
            layers.ZeroPadding2D(1),
            layers.Conv2D(12, 3, strides=2, activation="relu"),
            layers.ZeroPadding2D(1),
            layers.Conv2D(24, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    kernels = [w["w1"].transpose(2, 3, 1, 0), w["b1"], w["w2"].transpose(2, 3, 1, 0), w["b2"], w["w"].T, w["b"]]
    model.set_weights(kernels)
    model.save("model.keras")


def environment() -> dict[str, str]:
    """With the `knownot` of this environment first, and no terminal width but 80."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return os.environ | {"PATH": path, "KERAS_BACKEND": "torch", "COLUMNS": "80"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str  # the fence's language
    line: int  # of its first line of code
    code: str


FENCE = re.compile(r"^( *)(```+|~~~+)[ ]*([\w+-]*)[^\n`]*\n(.*?)^\1\2[ ]*$", re.MULTILINE | re.DOTALL)
RUN = ("python", "pycon", "bash", "console")
NOT_RUN = ("text", "diff", "json", "html", "toml", "yaml")


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        indent, code = match[1], match[4]
        lines = [line.removeprefix(indent) for line in code.splitlines()]
        found.append(Block(match[3], text[: match.start(4)].count("\n") + 1, "\n".join(lines) + "\n"))
    return found


class Pages:
    """A process that has imported the frameworks once, and runs each page in a fork of itself."""

    def __init__(self) -> None:
        code = f"import sys; sys.path.insert(0, {TESTS!r}); from helpers import docs as h; h.serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip

    def run(self, page: Path, home: Path) -> tuple[int, str]:
        """(exit code, what went to standard error) of the blocks of a page, run from top to bottom in one Python
        namespace, in `home`."""
        return self.ask(page.name, [block for block in blocks(page) if block.kind in RUN], home)

    def ask(self, name: str, todo: list[Block], home: Path) -> tuple[int, str]:
        """The same, of some blocks."""
        said = home / ".stderr"
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        order = {"page": name, "blocks": [asdict(x) for x in todo], "home": str(home), "stderr": str(said)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        code = self.process.stdout.readline()
        assert code, "the process that runs pages has died"
        return int(code), said.read_text(encoding="utf-8")

    def close(self) -> None:
        self.process.communicate()


def serve() -> None:
    """In that process: a page on each line of standard input, its exit code on a line of standard output."""
    import keras  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import onnxruntime  # noqa: F401
    import pandas  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.manifold  # noqa: F401
    import torch._dynamo
    import torch.export  # noqa: F401

    import knownot.audit
    import knownot.remedies
    import knownot.report  # noqa: F401

    for line in sys.stdin:
        given = json.loads(line)
        child = os.fork()
        if not child:
            sys.stdin = io.StringIO()
            sys.stdout.flush()
            file = os.open(given["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.chdir(given["home"])
            code = execute(given)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def execute(given: dict[str, Any]) -> int:
    """In the process of a page: its exit code."""
    import doctest
    import traceback

    sys.path.insert(0, os.getcwd())
    names: dict[str, object] = {"__name__": "__page__"}
    for block in (Block(**b) for b in given["blocks"]):
        where = f"{given['page']}:{block.line}"
        try:
            if block.kind == "python":
                code = compile("\n" * (block.line - 1) + block.code, given["page"], "exec", dont_inherit=True)
                exec(code, names)
            elif block.kind == "pycon":
                test = doctest.DocTestParser().get_doctest(block.code, names, where, given["page"], block.line - 1)
                test.globs = names
                said: list[str] = []
                flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
                runner = doctest.DocTestRunner(nearly(), optionflags=flags, verbose=False)
                runner.run(test, out=said.append, clear_globs=False)
                assert test.examples, "no >>> in a pycon block"
                assert not runner.failures, "".join(said)
            else:
                shell(block)
        except BaseException:
            print(f"{where} failed:\n{block.code}\n{traceback.format_exc()}", file=sys.stderr)
            return 1
    return 0


def nearly() -> Any:
    """What compares a `>>>` with what it printed: as doctest does, but percentages may differ by 2 points."""
    import doctest

    class Checker(doctest.OutputChecker):
        def check_output(self, want: str, got: str, optionflags: int) -> bool:
            found = [[float(x) for x in PERCENT.findall(text)] for text in (want, got)]
            if len(found[0]) == len(found[1]) and all(abs(a - b) <= 2 for a, b in zip(*found, strict=True)):
                want, got = PERCENT.sub("%", want), PERCENT.sub("%", got)
            return super().check_output(want, got, optionflags)

    return Checker()


PERCENT = re.compile(r"\b(\d+(?:\.\d+)?) ?%")


def shell(block: Block) -> None:
    """Run the commands; in a console block each `$ ` command's output is compared with the lines below it."""
    if block.kind == "bash":
        called(block.code)
        return
    commands = re.split(r"^\$ ", block.code, flags=re.MULTILINE)
    assert not commands[0].strip(), "a console block begins with '$ '"
    for part in commands[1:]:
        lines = part.splitlines()
        end = next(i for i, line in enumerate(lines) if not line.endswith("\\"))
        printed = called("\n".join(lines[: end + 1]))
        expected = [line for line in lines[end + 1 :] if line.strip()]
        if expected:
            compare(expected, [line for line in printed.splitlines() if line.strip()])


def called(command: str) -> str:
    """What the commands print. Those of `knownot` alone, without anything that a shell makes of them, run here: a
    process for each would import the frameworks again and again. (A model in a module of the working directory is found
    here in any case, and so asked for in a process.)"""
    lines = command.replace("\\\n", " ").splitlines()
    plain = [line.startswith("knownot ") and not re.search(r"[|<>&;$`*?~#(){}]", line) for line in lines]
    if all(plain) and len(lines) > 1:
        return "".join(called(line) for line in lines)
    if all(plain) and "network:" not in command:
        return commanded(shlex.split(lines[0])[1:])
    done = subprocess.run(
        ["bash", "-ec", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, f"exit code {done.returncode} of {command!r}:\n{done.stdout}"
    return done.stdout


def commanded(args: list[str]) -> str:

    printed, code = io.StringIO(), None
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main(args)
        except SystemExit as done:
            code = done.code
    assert code == 0, f"exit code {code} of knownot {shlex.join(args)}:\n{printed.getvalue()}"
    return printed.getvalue()


NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def compare(expected: list[str], printed: list[str]) -> None:
    """Lines are equal, numbers nearly so (processors round differently); a line of '…' stands for any lines, and
    '…' within a line for any text."""
    at = 0
    skip = False
    for line in expected:
        if line.strip() == "…":
            skip = True
            continue
        rest = range(at, len(printed)) if skip else range(at, min(at + 1, len(printed)))
        hit = next((i for i in rest if same_values(line, printed[i])), None)
        assert hit is not None, f"not printed: {line!r}; what was printed from there on: {printed[at : at + 6]}"
        at, skip = hit + 1, False
    assert skip or at == len(printed), f"also printed, but not shown: {printed[at:]}"


def same_values(expected: str, printed: str) -> bool:
    pattern = r"([\d,.]+)".join(
        ".*".join(re.escape(x) for x in part.split("…")) for part in NUMBER.split(" ".join(expected.split()))
    )
    match = re.fullmatch(pattern, " ".join(printed.split()))
    if match is None:
        return False
    wanted = [float(x.replace(",", "")) for x in NUMBER.findall(expected)]
    got = [float(x.rstrip(".,").replace(",", "") or "nan") for x in match.groups()]
    return all(abs(a - b) <= max(3.0, 0.03 * abs(a)) for a, b in zip(wanted, got, strict=True))


def hook():
    spec = importlib.util.spec_from_file_location("docs_hook", ROOT / "scripts" / "docs_hook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(name: str) -> str:
    """A page as the site shows it."""
    return hook().on_page_markdown((ROOT / "docs" / name).read_text(encoding="utf-8"))
