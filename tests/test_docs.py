"""The documentation is true: its code runs, its links resolve, its tables are those of the code."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import knownot
import knownot.checks
import knownot.openset.verdicts
from helpers import docs
from helpers.browser import Browser
from helpers.docs import hook, written
from knownot.cli import COMMANDS, main

ROOT = docs.ROOT
DOCS = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [*DOCS, *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
RUN = [ROOT / "README.md", *DOCS]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def pages():
    """The process that runs pages."""
    server = docs.Pages()
    yield server
    server.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, pages):
    return docs.prepare(tmp_path_factory.mktemp("docs"), pages)


@pytest.fixture
def home(prepared, tmp_path):
    """A copy for one page. Pages read the images of the demo and write none beside them, so these are not copied."""
    shutil.copytree(prepared, tmp_path / "home", ignore=shutil.ignore_patterns("clothes"))
    (tmp_path / "home" / "clothes").symlink_to(prepared / "clothes")
    return tmp_path / "home"


@pytest.mark.parametrize("page", [p for p in RUN if any(b.kind in docs.RUN for b in docs.blocks(p))], ids=named)
def test_code_blocks_run(page, home, pages):
    code, said = pages.run(page, home)
    assert code == 0, said


@pytest.mark.parametrize(
    "text",
    [
        "```python\nimport knownot\nknownot.fitt\n```",
        "```pycon\n>>> 1 + 1\n3\n```",
        "```python\nx = 1\n```\n\n```pycon\n>>> x\n2\n```",
        "```bash\nknownot fitt 2> /dev/null\n```",
        "```console\n$ echo one\ntwo\n```",
        "```console\n$ echo 100 images\n200 images\n```",
        "```console\n$ printf 'one\\ntwo\\n'\none\n```",
        "```console\n$ echo one\n…\ntwo\n```",
        "```pycon\n>>> '53% of 100'\n'50% of 100'\n```",
        "```pycon\n>>> '50% of 101'\n'50% of 100'\n```",
    ],
)
def test_a_block_that_is_wrong_fails(text, tmp_path, pages):
    (tmp_path / "page.md").write_text(text + "\n", encoding="utf-8")
    code, said = pages.run(tmp_path / "page.md", tmp_path)
    assert code == 1
    assert "page.md:" in said


def test_a_block_that_is_right_passes(tmp_path, pages):
    text = (
        "```python\nx = 2\n```\n\n```pycon\n>>> x\n2\n>>> '51% of 100'\n'50% of 100'\n```\n\n"
        "```console\n$ printf 'a 101 b\\nskipped\\nlast\\n'\na 100 b\n…\nlast\n$ echo done\n```\n"
    )
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    code, said = pages.run(tmp_path / "page.md", tmp_path)
    assert code == 0, said


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_every_fence_is_of_a_kind_that_is_run_or_deliberately_not(page):
    kinds = {block.kind for block in docs.blocks(page)}
    assert kinds <= {*docs.RUN, *docs.NOT_RUN}, kinds
    text = page.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(docs.blocks(page)), "a fence that is not closed, or not seen"


# Links


LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def slugs(page: Path) -> set[str]:
    """Anchors of a page: its headings as GitHub and mkdocs both write them, and named ones."""
    text = docs.FENCE.sub("", page.read_text(encoding="utf-8"))
    found = set(re.findall(r'<a id="([^"]+)"', text))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip()
        found.add(plain.replace(" ", "-"))
    return found


def dead_links(page: Path) -> list[str]:
    text = docs.FENCE.sub("", page.read_text(encoding="utf-8"))
    dead = []
    for link in LINK.findall(text):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in slugs(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_links_resolve(page):
    assert dead_links(page) == []


PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_pictures_are_there_and_described(page):
    """And those of a page that draws are drawn by its own code (scripts/docs_pictures.py)."""
    shown = PICTURE.findall(docs.FENCE.sub("", page.read_text(encoding="utf-8")))
    assert [file for words, file in shown if not (page.parent / file).exists() or len(words) < 10] == []
    drawn = re.findall(r'savefig\("([^"]+)"', page.read_text(encoding="utf-8"))
    assert set(drawn) <= {file for _, file in shown}, "drawn, and not shown"


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One two\n\n[a](#one-two) [b](#three) [c](gone.md) [d](page.md#one-two) [e](https://x.org)\n")
    assert dead_links(page) == ["#three", "gone.md"]


# Form

ODD, LONG = 4, 25  # phrases with a better word, and sentences over 30 words, that may stand


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_a_page_says_first_whom_it_is_for(page):
    title, first = page.read_text(encoding="utf-8").split("\n\n")[:2]
    assert title.startswith("# ")
    assert first.startswith("This page is for ")


def test_the_gallery_is_ten_short_scripts():
    page = (ROOT / "docs" / "gallery" / "index.md").read_text(encoding="utf-8")
    scripts = sorted((ROOT / "docs" / "gallery").glob("*.py"))
    assert sorted(re.findall(r"<!-- example: (\w+) -->", page)) == [script.stem for script in scripts]
    assert len(scripts) == 10
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert text.count("\n") < 30, script.name
        assert f'savefig("{script.stem}.png"' in text


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_the_tutorial(monkeypatch):
    """So its code has been run: that of the page has."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    notebook = script("docs_notebook")
    text = notebook.notebook(notebook.PAGE.read_text(encoding="utf-8"))
    assert notebook.PAGE.with_suffix(".ipynb").read_text(encoding="utf-8") == text, "give: make docs"
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert len(code) == len(docs.blocks(notebook.PAGE))
    for cell in code:
        source = "".join(cell["source"])
        assert source.startswith("!knownot demo") or compile(source, "cell", "exec"), source
    told = [out for cell in code for out in cell["outputs"] if out["output_type"] == "stream"]
    assert "602 images: 289 known" in "".join("".join(out["text"]) for out in told)


def test_pictures_of_results_are_of_the_tables_that_stand_there(monkeypatch, tmp_path):
    results = script("docs_results")
    for picture in results.PICTURES:
        drawn = (ROOT / "docs" / picture.file).read_text(encoding="utf-8")
        assert picture.digest() in drawn, f"give: make docs ({picture.file})"
    # Read by hand from the pages.
    assert results.caught()["groceries"]["msp"] == (8.6, 46.6)
    assert results.shifts()["ResNet-8"]["siblings (10)"] == (11.8, 6.2)
    assert results.guarantee()["pac"] == [3.48, 1.49, 6.43]
    assert results.delays()["textures, 10 %"] == [125, 130, 4249, 1775]
    (tmp_path / "page.md").write_text("## One\n\n| a | a | b |\n|---|---|---|\n| `x` | −1.5 ± 0.2 | 1,000 |\n")
    monkeypatch.setattr(results, "DOCS", tmp_path)
    assert results.table("page.md", "## One") == {"x": {"a": "x", "a a": "−1.5 ± 0.2", "b": "1,000"}}
    assert (results.number("−1.5 ± 0.2"), results.spread("−1.5 ± 0.2"), results.number("1,000 of")) == (-1.5, 0.2, 1000)
    with pytest.raises(LookupError, match="has no '## Two'"):
        results.table("page.md", "## Two")


def test_the_diagrams_are_those_of_their_script(tmp_path, monkeypatch):
    diagrams = script("docs_diagrams")
    names = [*diagrams.DECISIONS, "way.svg"]
    monkeypatch.setattr(diagrams, "DOCS", tmp_path)
    (tmp_path / "how-to").mkdir()
    diagrams.main()
    for name in names:
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text(), (
            "give: python scripts/docs_diagrams.py"
        )


def test_one_word_for_one_thing():
    """CONTRIBUTING lists phrases that have a better word. Some stand where they are right; more may not come, nor
    sentences over 30 words."""
    words = script("words")
    listed = words.listed()
    assert ("in earnest", "in practice") in listed
    assert len(listed) > 20
    texts = {named(page): words.prose(page) for page in (ROOT / "README.md", *DOCS)}
    texts |= {"messages": words.messages(ROOT), "HTML pages": words.templates(ROOT)}
    assert len(texts["messages"]) > 1500
    assert len(texts["HTML pages"]) > 200
    found = {name: words.odd(sentences, listed) for name, sentences in texts.items()}
    assert sum(map(len, found.values())) <= ODD, found
    long = {name: words.long(sentences) for name, sentences in texts.items()}
    assert sum(map(len, long.values())) <= LONG, {name: some for name, some in long.items() if some}


def test_every_public_name_has_an_example():
    assert script("words").without_example(ROOT) == []


def test_an_odd_phrase_and_a_long_sentence_are_counted(tmp_path):
    words = script("words")
    page = tmp_path / "page.md"
    page.write_text(f"# One\n\nIn earnest another one. {'word ' * 30}end.\n\n```text\nin earnest\n```\n\n| a | b c |\n")
    sentences = words.prose(page)
    assert sentences == ["One", "In earnest another one.", "word " * 30 + "end.", "a", "b c"]
    assert [phrase for phrase, _, _ in words.odd(sentences, words.listed())] == ["in earnest"]
    assert [len(s.split()) for s in words.long(sentences)] == [31]


# What the code says of itself


def test_the_table_of_detectors_is_that_of_the_code():
    page = written("reference/detectors.md")
    lines = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    shown = {cells[0].strip("|` "): cells for cells in lines}
    assert list(shown) == [row.name for row in knownot.detectors()]
    for row in knownot.detectors():
        assert shown[row.name][1:] == [", ".join(sorted(row.needs)), row.summary, f"{row.paper} |"]
        assert f"### {row.kind.__name__}\n" in page
    assert "score(x) = -max_k logit_k(x)" in page


def test_the_table_of_made_images_is_that_of_the_code():
    from knownot.outliers import OUTLIERS

    lines = [line.split(" | ") for line in written("reference/outliers.md").splitlines() if line.startswith("| `")]
    shown = {cells[0].strip("|` "): cells[1:] for cells in lines}
    assert list(shown) == list(OUTLIERS)
    for name, kind in OUTLIERS.items():
        family, source, what = shown[name]
        assert (family, source == "known images") == (kind.family, kind.altered)
        assert what.startswith(kind.summary)
        assert ("recognised" in what) is not kind.proper


def test_no_text_counts_the_detectors():
    """A count would have to be changed with each new one; what the README says holds as it grows."""
    assert "- over fifty detectors" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(knownot.detectors()) > 50
    counted = re.compile(rf"\b{len(knownot.detectors())} (detectors|scoring methods|methods|scores)\b")
    assert [named(page) for page in TEXTS if counted.search(page.read_text(encoding="utf-8"))] == []


def helped(command: str, capsys) -> str:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_options_are_those_of_the_help(command, capsys):
    shown = hook().on_page_markdown(f"<!-- options: {command} -->")
    documented = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(re.findall(r"`([^`]+)`", shown))))
    lines = [line for line in helped(command, capsys).splitlines() if re.match(r"  -", line)]
    first = [line.strip().split("  ")[0] for line in lines]
    real = {o for line in first for o in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)}
    assert {"-h", "--help", *(["--json"] if command != "serve" else [])} <= real  # a server has no result
    assert real == documented, real ^ documented
    assert f"<!-- options: {command} -->" in (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")


def test_defaults_in_the_options_table():
    shown = hook().on_page_markdown("<!-- options: fit -->")
    for line in ("| `--alpha` SHARE | 0.05 |", "| `--delta` SHARE | 0.01 |", "PATH | required |", "| pac | With"):
        assert line in shown


def options(command: str) -> set[str]:
    shown = hook().on_page_markdown(f"<!-- options: {command} -->")
    return set(re.findall(r"`(--[a-z-]+)`", shown))


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_every_option_in_the_text_exists(page):
    """Also in commands that are shown and not run."""
    known = set().union(*(options(c) for c in COMMANDS)) | {"--version", "--help"}
    text = page.read_text(encoding="utf-8")
    in_text = set(re.findall(r"`(--[a-z-]+)", docs.FENCE.sub("", text)))
    commands = [line for b in docs.blocks(page) for line in b.code.splitlines() if "knownot " in line]
    in_code = {o for line in commands if "pip" not in line for o in re.findall(r"(?<=\s)--[a-z][a-z-]+", line)}
    assert (in_text | in_code) <= known, (in_text | in_code) - known


def test_the_api_page_has_every_public_name():
    """In its file as text, and on the site as what mkdocstrings makes a signature and tables of."""
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    for name in knownot.__all__:
        if name != "__version__":
            assert re.search(rf"^### knownot\.{name}\n\n<!-- signature: \S+ -->\n\n```text\n", page, re.MULTILINE), name
    shown = written("reference/api.md")
    assert "::: knownot.openset.fit.fit\n    options:\n      heading: knownot.fit\n" in shown
    assert shown.count("\n::: ") == page.count("<!-- signature: ") - 1  # of the errors there is no signature
    assert "<!--" not in shown


def test_signatures_on_the_api_page_are_those_of_inspect():
    """Every parameter with its default, counted by hand for two of them."""
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    fit = page.split("### knownot.fit\n")[1].split("###")[0]
    lines = ("    *,", "    detector: DetectorLike = None,", "    alpha: float | str = 0.05,", ") -> OpenSetClassifier")
    for line in lines:
        assert f"\n{line}\n" in fit
    assert fit.split("```")[1].count(",\n") == 24  # 23 parameters and the star
    assert "p_values(calibration: np.ndarray, scores: np.ndarray) -> np.ndarray" in page
    assert "MissingExtraError" in page
    assert " at 0x" not in page


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_what_is_written_of_the_code_is_current(page):
    text = page.read_text(encoding="utf-8")
    assert hook().kept(text) == text, "give: make docs"
    filled = [match[0].split("\n")[0] for match in hook().MARKER.finditer(text)]
    assert re.findall(r"(?m)^<!-- [^/\n]*: \S+ -->$", text) == filled


def test_an_old_table_is_replaced_and_nothing_else():
    old = "<!-- outliers: table -->\n\n| old |\n\n<!-- /outliers -->\n\ntext\n\n<!-- options: info -->\n"
    new = hook().kept(old)
    assert "| old |" not in new
    assert new.count("\n\ntext\n\n") == 1
    assert new.count("<!-- /") == 2
    assert hook().kept(new) == new
    assert "<!--" not in hook().on_page_markdown(new)


def test_a_marker_that_names_nothing_stops_the_build():
    for marker in ("signature: knownot.fitt", "options: fitt", "detectors: tabel"):
        with pytest.raises((AttributeError, ImportError, KeyError)):
            hook().on_page_markdown(f"<!-- {marker} -->")


def test_columns_of_verdicts_are_all_explained():
    page = (ROOT / "docs" / "start" / "quickstart.md").read_text(encoding="utf-8")
    text = page.split("## How to read a verdict")[1].split("\n## ")[0]
    shown = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `")))
    assert shown == list(knownot.openset.verdicts.COLUMNS)


def test_fields_of_preprocess_are_all_explained():
    text = (ROOT / "docs" / "how-to" / "images.md").read_text(encoding="utf-8")
    missing = [name for name in knownot.Preprocess.__dataclass_fields__ if f"`{name}`" not in text]
    assert missing == ["name"]


def test_every_kind_of_file_that_is_refused_is_in_the_docs():
    """By its ending or its maker's name, with the way in the message."""
    from knownot.models.refused import KINDS

    text = (
        (ROOT / "docs" / "how-to" / "models.md")
        .read_text(encoding="utf-8")
        .split("## What is refused")[1]
        .split("\n## ")[0]
    )
    words = {"TensorRT": (".engine", ".trt", ".plan"), "Core ML": (".mlmodel", ".mlpackage"), "NeMo": (".nemo",),
             "OpenVINO": (".xml",), "TFLite": (".tflite",), "MXNet": (".params",), "Caffe": (".caffemodel",),
             "Darknet": (".weights",), "PaddlePaddle": (".pdmodel", ".pdiparams"), "checkpoint": (".meta",),
             ".zip": (".rar", ".7z")}  # fmt: skip
    named = {ending: word for word, endings in words.items() for ending in endings}
    assert [e for e in KINDS if f"`{e}`" not in text and named.get(e, e) not in text] == []


def test_extras_and_dependencies_are_all_explained():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "docs" / "reference" / "dependencies.md").read_text(encoding="utf-8")
    for needed in project["dependencies"]:
        name = re.match(r"[\w-]+", needed)[0]
        assert f"`{name}`" in text, name
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for extra in project["optional-dependencies"]:
        assert f"`[{extra}]`" in text or f"`{extra}`" in text, extra
        assert f"`[{extra}]`" in readme or f"`{extra}`" in readme or extra == "docs", extra


def test_exit_codes_are_all_explained():
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    said = re.findall(r"^\| (\d+) \| (\w+)", text, re.MULTILINE)
    assert said == [("0", "done"), ("1", "an"), ("2", "wrong"), ("3", "done"), ("70", "a"), ("130", "interrupted")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """(the folder of the site, what mkdocs said). Not with --quiet, under which --strict does not see warnings."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place, done.stderr


def test_the_site_builds_without_a_warning(site):
    place, said = site
    assert "WARNING" not in said
    page = (place / "reference" / "detectors" / "index.html").read_text(encoding="utf-8")
    assert "<td><code>mahalanobis++</code></td>" in page
    assert "fonts.googleapis" not in page


def test_the_api_page_of_the_site_has_signatures_and_tables(site):
    page = (site[0] / "reference" / "api" / "index.html").read_text(encoding="utf-8")
    fit = page.split('id="knownot.openset.fit.fit"')[1].split("<h3")[0]
    assert "<code>calibration</code>" in fit  # a row of the table of parameters
    assert '<span class="gp">&gt;&gt;&gt; </span>' in fit
    assert page.count('class="doc doc-object') > 100
    assert "Parameters\n---" not in page


WIDE = """(() => {
  const whole = document.documentElement, names = [...document.querySelectorAll("td:first-child code")];
  const cut = [...document.querySelectorAll(".md-content pre > code")].filter((x) => x.scrollWidth > x.clientWidth + 1);
  const broken = names.filter((x) => x.getClientRects().length > 1);
  return [whole.scrollWidth - whole.clientWidth, cut.length, broken.length];
})()"""


@pytest.mark.chromium
def test_no_page_scrolls_sideways_and_no_name_is_broken(site, tmp_path):
    browser = Browser(tmp_path / "chromium")
    try:
        for name in ("reference/api", "reference/detectors", "how-to/which-detector", "gallery"):
            for width in (390, 1280):
                page = browser.page((site[0] / name / "index.html").as_uri(), width=width, dark=width == 390)
                page.until("document.readyState === 'complete'")
                assert page(WIDE) == [0, 0, 0], (name, width)
        dark = browser.page((site[0] / "index.html").as_uri(), dark=True)
        assert dark.until("document.body.dataset.mdColorScheme === 'slate'")
    finally:
        browser.close()


def test_the_documents_stay_short():
    for name, lines in (("ARCHITECTURE.md", 80), ("README.md", 180)):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= lines, name


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "results" / "measured.md"], ids=named)
def test_there_is_a_place_for_the_measurements(page):
    text = page.read_text(encoding="utf-8")
    assert text.index("<!-- measured -->") < text.index("<!-- /measured -->")


def test_the_changelog_has_one_unreleased_section():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.count("## [Unreleased]") == 1
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


DOCUMENTED = (
    "knownot.fit", "knownot.load", "knownot.open_model", "knownot.open_images",
    *(f"knownot.OpenSetClassifier.{name}" for name in ("predict", "with_alpha", "recalibrated", "evaluate")),
    "knownot.checks.check_detector", "knownot.fool", "knownot.merge",
)  # fmt: skip
LISTED = (  # in an order of their own, where several are as of another function
    "knownot.fit_part", "knownot.audit.audit", "knownot.benchmark.benchmark", "knownot.benchmark.compare",
    "knownot.remedies.retrain", "knownot.remedies.compare",
)  # fmt: skip


def documented(path: str):
    thing = knownot
    for name in path.split(".")[1:]:
        thing = getattr(thing, name)
    return thing


@pytest.mark.parametrize("path", DOCUMENTED)
def test_docstrings_name_every_parameter(path):
    assert ">>> " in inspect.getdoc(documented(path)).split("Examples\n--------\n")[1]
    assert parameters(path) == [name for name in inspect.signature(documented(path)).parameters if name != "self"]


@pytest.mark.parametrize("path", LISTED)
def test_docstrings_list_every_parameter(path):
    assert sorted(parameters(path)) == sorted(inspect.signature(documented(path)).parameters)


def parameters(path: str) -> list[str]:
    """What the docstring has a description of, in its order."""
    said = inspect.getdoc(documented(path)).split("Parameters\n----------\n")[1].split("\n\n")[0]
    heads = [line.partition(" :")[0] for line in said.splitlines() if line.strip() and not line.startswith(" ")]
    return [name.strip("* ") for head in heads for name in head.split(",")]


def test_the_examples_of_docstrings_run(home, pages):
    named = dict(script("words").public_names(knownot)) | {path: documented(path) for path in DOCUMENTED}
    parts = [(inspect.getdoc(thing) or "").split("Examples\n--------\n")[1:] for thing in named.values()]
    shown = [part[0].partition("\n\n")[0] for part in parts if part]
    assert len(shown) > 25
    fitted = "knownot.fit('model.onnx', 'data/train', calibration='data/val', progress=False)"
    begin = f">>> import knownot\n>>> _ = {fitted}.save('osc')\n"
    examples = [begin, *shown]
    (home / "docstrings.md").write_text("".join(f"```pycon\n{x.strip()}\n```\n\n" for x in examples), encoding="utf-8")
    code, said = pages.run(home / "docstrings.md", home)
    assert code == 0, said
