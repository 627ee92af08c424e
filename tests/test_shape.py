"""The ladder of imports, the light import and the public names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import knownot

ROOT = Path(knownot.__file__).parent

# Each module may import from lower rungs only; those of one rung not from each other, unless listed as chained.
RUNGS = [
    ["arrays", "engines", "errors", "arguments", "plugins", "progress", "renamed", "version"],
    ["stats", "images", "models", "plots"],
    ["detectors", "calibration", "measure", "outliers"],
    ["fitting", "saving"],
    ["selection", "monitoring", "shifts"],
    ["openset", "benchmark"],
    ["report", "fooling", "export"],
    ["audit", "remedies", "service"],
    ["cli", "checks"],
]
RUNG = {name: i for i, names in enumerate(RUNGS) for name in names}
CHAINED = {
    ("arrays", "errors"),
    ("arguments", "errors"),
    ("arrays", "arguments"),
    ("arrays", "renamed"),
    ("engines", "errors"),
    ("engines", "progress"),
    ("engines", "version"),
}

FRAMEWORKS = {
    # keras may compute with torch; checks move arrays; fooling differentiates detectors
    "torch": {"models/torch", "models/keras", "remedies", "checks", "fooling/slopes"},
    "keras": {"models/keras", "remedies"},
    "tensorflow": {"models/keras"},
    "jax": {"models/keras", "fooling/slopes", "checks"},
    "onnxruntime": {"models/onnx", "checks", "export"},
    "onnx": {"models/onnx", "export"},
    "spox": {"export"},
    "ray": {"engines"},
    "matplotlib": {"plots"},
    "sklearn": {"plots", "openset/discovery"},
    "cma": {"fooling"},
    **{name: {"service"} for name in ("fastapi", "starlette", "uvicorn", "pydantic", "python_multipart")},
    **{name: {"service"} for name in ("prometheus_client", "sqlalchemy")},
    "PIL": {
        "images",
        "fooling/record",
        "outliers/jpeg",
        "outliers/files",
        "outliers/changes",
        "plots",
        "demo_assets",
        "cli",
        "report/found",
    },
    "rich": {"progress", "cli"},
    "click": {"cli"},
}


def imports(file: Path):
    """(top-level knownot module or None, foreign top-level package or None) of each import in a file."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = parts[: len(parts) - node.level]
                full = (*base, *(node.module or "").split(".")) if node.module else base
                names = [full] if full else [(alias.name,) for alias in node.names]
                yield from ((n[0], None) for n in names)
            else:
                top = node.module.split(".")
                yield (top[1] if top[0] == "knownot" and len(top) > 1 else None), top[0]
        elif isinstance(node, ast.Import):
            yield from ((None, alias.name.split(".")[0]) for alias in node.names)


FILES = [f for f in ROOT.rglob("*.py") if f.parent != ROOT or f.name not in ("__init__.py", "__main__.py")]


def violations(file: Path) -> list[str]:
    where = file.relative_to(ROOT).with_suffix("").as_posix()
    here = where.split("/")[0]
    found = []
    for ours, foreign in imports(file):
        if ours and ours != here and (here, ours) not in CHAINED and RUNG[ours] >= RUNG[here]:
            found.append(f"{where} imports {ours}, which is not below it")
        if foreign in FRAMEWORKS and not any(where.startswith(home) for home in FRAMEWORKS[foreign]):
            found.append(f"{where} imports {foreign}, which belongs to {sorted(FRAMEWORKS[foreign])}")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_imports_only_go_down_the_ladder(file):
    assert violations(file) == []


def test_the_ladder_test_can_fail(tmp_path, monkeypatch):
    (tmp_path / "stats").mkdir()
    bad = tmp_path / "stats" / "bad.py"
    bad.write_text("from ..openset import fit\nimport torch\nfrom ..images import open_images\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert len(violations(bad)) == 3


def imported(file: Path) -> set[str]:
    """The files of the package, as "models/base", that one imports, also inside functions."""
    where = file.relative_to(ROOT).with_suffix("").parts
    nodes, found = [ast.parse(file.read_text(encoding="utf-8"))], set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "knownot"):
            own = (node.module or "").split(".") if node.module else []
            base = (*where[: len(where) - node.level], *own) if node.level else tuple(own[1:])
            found |= {there for alias in node.names if (there := module((*base, alias.name)) or module(base))}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {there for name in names if name[0] == "knownot" and (there := module(tuple(name[1:])))}
    return found - {"/".join(where)}


def module(parts: tuple[str, ...]) -> str | None:
    """The file of a module, as `imported` names it."""
    for path in (ROOT.joinpath(*parts).with_suffix(".py") if parts else None, ROOT.joinpath(*parts, "__init__.py")):
        if path is not None and path.is_file():
            return path.relative_to(ROOT).with_suffix("").as_posix()
    return None


def circle() -> list[str]:
    """Files each of which imports the next, and the last the first; none if there are no such."""
    graph = {f.relative_to(ROOT).with_suffix("").as_posix(): imported(f) for f in ROOT.rglob("*.py")}
    while leaves := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in leaves:
            del graph[name]
    way = [next(iter(sorted(graph)))] if graph else []
    while way and way[-1] not in way[:-1]:
        way.append(min(graph[way[-1]] & graph.keys()))
    return way[way.index(way[-1]) :] if way else []


def test_no_modules_import_each_other_in_a_circle():
    assert circle() == []


def test_the_test_of_circles_can_fail(tmp_path, monkeypatch):
    for name, text in {
        "a": "def f():\n    from .b import c",
        "b": "from .sub import d",
        "sub/d": "from .. import a",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).with_suffix(".py").write_text(text, encoding="utf-8")
    (tmp_path / "c.py").write_text("from . import a", encoding="utf-8")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert circle() == ["a", "b", "sub/d", "a"]


ASKS = {"forward", "submit", "activations"}  # of a model: what it computes of a batch


def loops_over_batches(text: str) -> list[str]:
    """Calls inside loops that ask a model for what it computes."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.For | ast.While):
            body = node.body
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.SetComp):
            body = [node.elt]
        else:
            continue
        calls = [call for part in body for call in ast.walk(part) if isinstance(call, ast.Call) and call.args]
        asked = [c for c in calls if getattr(c.func, "attr", "") in ASKS]
        found += [ast.unparse(call) for call in asked]
    return found


def test_one_place_loops_over_the_batches_of_a_model():
    """The pass over images; the search for the preprocessing; a model made of several, or written and compared."""
    assert loops_over_batches("for b in x:\n    y += model.activations(b.x).logits")  # it can fail
    assert loops_over_batches("z = [model.forward(b) for b in x]")
    homes = ("images/", "fitting/extraction", "fitting/race", "models/", "checks/", "export/parity", "export/reading")
    homes += ("remedies/training/data",)  # of images in memory, by `extraction.forward`
    found = {f.relative_to(ROOT).as_posix(): loops_over_batches(f.read_text(encoding="utf-8")) for f in FILES}
    found = {name: calls for name, calls in found.items() if calls and not name.startswith(homes)}
    found.pop("remedies/training/activations.py", None)  # `Pool.activations`, which is that
    found.pop("engines.py")  # `submit` of a pool of processes
    assert {k: v for k, v in found.items() if not all("pool.activations" in call for call in v)} == {}


def asks_for_the_framework(text: str) -> list[str]:
    """Lines that compare `.framework` with names: what is to be known of it is a field of `Model`, or a table's."""
    sides = [(node.left, *node.comparators) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Compare)]
    asked = [
        any("framework" in ast.unparse(side) for side in pair)
        and any(isinstance(part, ast.Constant) and isinstance(part.value, str) for s in pair for part in ast.walk(s))
        for pair in sides
    ]
    return [" ".join(map(ast.unparse, pair)) for pair, bad in zip(sides, asked, strict=True) if bad]


def test_nobody_asks_for_the_framework_by_name():
    assert asks_for_the_framework('x = m.framework in ("torch", "keras")')  # it can fail
    assert asks_for_the_framework('if framework == "keras": pass')
    found = {f.relative_to(ROOT).as_posix(): asks_for_the_framework(f.read_text(encoding="utf-8")) for f in FILES}
    assert {name: lines for name, lines in found.items() if lines} == {}


MOST_LINES, MOST_PARAMETERS, MOST_POSITIONAL = 60, 8, 4
DOORS = {  # what people call with their own choice of many options, by keyword; a command's are its own options
    *("openset/fit.fit", "audit/run.audit", "fooling/attack.fool", "benchmark/run.benchmark"),
    *("benchmark/compare.compare", "remedies/retraining.retrain", "remedies/comparison/compare.compare"),
    "models/function.opened",  # `open_model` of a function: the options of that
}


def too_large(file: str, text: str) -> list[str]:
    """Functions over 60 lines without their docstring, or of more than 8 parameters; records built by position."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = len((ast.get_docstring(node, clean=False) or "").splitlines())
            given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            wide = len(given) - (given[:1] in (["self"], ["cls"])) > MOST_PARAMETERS
            door = f"{file}.{node.name}" in DOORS or (file.startswith("cli/") and node.name in ("command", "_run"))
            if node.end_lineno - node.lineno + 1 - said > MOST_LINES or (wide and not door):
                found.append(f"{file}: {node.name}")
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2].lstrip("_")
            plain = [a for a in node.args if not isinstance(a, ast.Starred)]
            if name[:1].isupper() and len(plain) > MOST_POSITIONAL and name != "Table":  # SQLAlchemy's, of columns
                found.append(f"{file}: {name}(…) by position")
    return found


def test_functions_are_short_and_records_are_built_by_keyword():
    assert too_large("a", "def f(a, b, c, d, e, f, g, h, i): ...") == ["a: f"]  # it can fail
    assert too_large("a", "def f():\n" + "    x = 1\n" * 60) == ["a: f"]
    assert too_large("a", "x = Record(1, 2, 3, 4, 5)") == ["a: Record(…) by position"]
    names = {f: f.relative_to(ROOT).with_suffix("").as_posix() for f in FILES}
    assert [line for f, name in names.items() for line in too_large(name, f.read_text(encoding="utf-8"))] == []


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


HEAVY = [
    "numpy",
    "torch",
    "keras",
    "onnxruntime",
    "onnx",
    "PIL",
    "rich",
    "scipy",
    "pandas",
    "pyarrow",
    "jinja2",
    "faiss",
]


def test_importing_knownot_imports_nothing_heavy():
    code = f"import sys, knownot; print([m for m in {HEAVY} if m in sys.modules])"
    assert run(code) == "[]"


def test_the_light_import_test_can_fail():
    assert "numpy" in run(f"import sys, knownot; knownot.fit; print([m for m in {HEAVY} if m in sys.modules])")


def test_fit_and_detectors_import_no_framework():
    frameworks = ["torch", "keras", "tensorflow", "jax", "onnxruntime", "faiss", "pandas", "pyarrow"]
    code = (
        f"import sys, knownot; knownot.fit, knownot.detectors(); print([m for m in {frameworks} if m in sys.modules])"
    )
    assert run(code) == "[]"


def test_import_and_help_are_quick():
    """By what they load, which does not depend on how busy the machine is (0.2 s and 0.5 s are promised): knownot's own
    lightest modules, and click for the command line."""
    new = "sorted({m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    assert run(f"import sys; before = set(sys.modules); import knownot; print({new})") == "['knownot']"
    code = f"""
import contextlib, io, sys
before = set(sys.modules)
from knownot.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
print({new}, len([m for m in sys.modules if m.startswith("knownot")]) < 12)
"""
    assert run(code) == "['click', 'knownot'] True"


def test_public_names_are_what_is_there():
    assert knownot.__all__ == sorted(knownot.__all__)
    for name in knownot.__all__:
        assert getattr(knownot, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'fitt'"):
        _ = knownot.fitt


@pytest.mark.parametrize(
    "module", ["stats", "calibration", "measure", "detectors", "images", "models", "plots", "report", "checks"]
)
def test_each_package_lists_names_that_exist(module):
    package = __import__(f"knownot.{module}", fromlist=["*"])
    for name in package.__all__:
        assert hasattr(package, name), f"knownot.{module}.__all__ names {name}, which is not there"


def test_no_test_file_imports_another_and_their_names_are_unique():
    files = list(Path(__file__).parent.rglob("*.py"))
    tests = {path.stem for path in files if path.name.startswith("test_")}
    assert len(tests) == sum(path.name.startswith("test_") for path in files)
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & tests, path


def test_tests_lie_in_folders_named_as_those_of_the_package():
    folders = {path.parent.name for path in Path(__file__).parent.glob("*/test_*.py")}
    assert folders - {"attacks"} <= {path.name for path in ROOT.iterdir() if path.is_dir()}
