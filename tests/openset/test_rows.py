"""Choosing rows of verdicts as NumPy does, and texts on their way into tables."""

import contextlib
import csv
import io
import json
import os

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from knownot import Verdicts
from knownot.errors import KnownotError, OptionError, RowError
from knownot.images.names import printable
from knownot.openset.cells import csv_cell, from_csv_cell, lossless

N = 7


def verdicts(ids=None, n=N):
    numbers = np.arange(n)
    return Verdicts(
        ids=tuple(ids or (f"{i}.png" for i in range(n))),
        label=numbers - 1,
        p_value=numbers / 10,
        score=numbers.astype(np.float32),
        closed_label=numbers,
        confidence=np.ones(n, np.float32),
        error=(None,) * n,
        member_p_values=numbers[:, None] / 10,
        members=("msp",),
    )


INDEX = st.one_of(
    st.slices(N),
    st.lists(st.integers(-N, N - 1), max_size=9),
    st.lists(st.booleans(), min_size=N, max_size=N),
    st.lists(st.integers(-N, N - 1), max_size=9).map(lambda x: np.array(x, dtype=np.int8)),
    st.lists(st.booleans(), min_size=N, max_size=N).map(np.array),
)


@hypothesis.given(INDEX)
def test_rows_are_those_that_numpy_chooses(index):
    empty = isinstance(index, list) and not index  # for NumPy an array of floats
    wanted = [] if empty else np.arange(N)[index].tolist()
    for chosen in (verdicts().take(index), verdicts()[index]):
        assert list(chosen.ids) == [f"{i}.png" for i in wanted]
        assert chosen.score.tolist() == wanted
        assert chosen.member_p_values.shape == (len(wanted), 1)


def test_one_row():
    assert verdicts()[-1] == verdicts()[np.int64(6)] == list(verdicts())[6]
    assert [v.id for v in verdicts()[verdicts().unknown]] == ["0.png"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([7], "no row 7"),
        ([-8], "no row -8"),
        ([True, False], "mask of 2 bools does not fit 7"),
        ([0.7], "float64"),
        ([[1]], r"shape \(1, 1\)"),
        (["1"], "<U1"),
        ("1", "str"),
        (None, "NoneType"),
        (1.0, "float"),
        ([1, [2]], "list"),
        (slice("a", None), "no slice"),
    ],
)
def test_what_names_no_rows(rows, says):
    for choose in (verdicts().take, verdicts().__getitem__):
        with pytest.raises(RowError, match=says):
            choose(rows)
    assert issubclass(RowError, IndexError)
    assert issubclass(RowError, OptionError)


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.one_of(st.none(), st.text(), st.floats(), st.binary(), st.lists(st.text()), st.complex_numbers()))
def test_rows_of_any_kind_raise_nothing_else(rows):
    with contextlib.suppress(KnownotError):
        verdicts().take(rows)


ODD = [
    "=1+1",
    "+1",
    "-1",
    "@A1",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "＝1",
    "'=1",
    "''=1",
    "'x",
    "./x",
    "./=1",
    "././=1",
    "./'=1",
    "x=1",
    "",
    "a,b",
    'a"b',
    "é",
]


@pytest.mark.parametrize("text", ODD)
def test_no_cell_begins_a_formula_and_the_original_comes_back(text):
    for path in (True, False):
        cell = csv_cell(text, path=path)
        assert cell.lstrip(" ")[:1] not in "=+-@＝＋－＠\t\r\n" or cell == ""
        assert from_csv_cell(cell) == text
    assert cell.lstrip(" ")[:1] not in "=+-@＝＋－＠\t\r\n" or cell == ""
    assert from_csv_cell(cell) == text
    assert csv_cell(text, raw=True) == text
    bare = text.replace("./", "")
    assert (cell != text) == (bare.lstrip("' \t\r\n")[:1] in tuple("=+-@＝") or text[:1] in ("\t", "\r", "\n"))


@hypothesis.given(st.text(), st.booleans())
def test_every_text_comes_back(text, path):
    assert from_csv_cell(csv_cell(text, path=path)) == lossless(text)


def test_numbers_stay_numbers():
    assert [csv_cell(x) for x in (-1, -0.5, None, float("nan"), True)] == [-1, -0.5, "", "", True]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("caf\udce9.png", r"caf\xe9.png"), ("\ud800", r"\ud800"), ("é", "é"), ("a\udcff\udcfe", r"a\xff\xfe")],
)
def test_names_that_are_no_utf8(text, shown):
    assert printable(text) == shown
    shown.encode()


def test_files_of_verdicts_take_any_name(tmp_path):
    ids = ["caf\udce9.png", "=1+1", "-x", "@x", "\tx", "'=", "plain"]
    made = verdicts(ids)
    made.to_csv(tmp_path / "v.csv")
    made.to_csv(tmp_path / "raw.csv", raw=True)
    made.to_jsonl(tmp_path / "v.jsonl")
    made.to_parquet(tmp_path / "v.parquet")
    clean = [r"caf\xe9.png", *ids[1:]]

    def read(name):
        return list(csv.DictReader(io.StringIO((tmp_path / name).read_text("utf-8", "surrogateescape"), newline="")))

    assert [r["id"] for r in read("v.csv")] == [ids[0], "./=1+1", "./-x", "./@x", "./\tx", "''=", "plain"]
    assert [from_csv_cell(r["id"]) for r in read("v.csv")] == ids
    assert b"caf\xe9.png" in (tmp_path / "v.csv").read_bytes()
    assert read("v.csv")[0]["label"] == "-1"
    assert [r["id"] for r in read("raw.csv")] == ids
    assert [json.loads(line)["id"] for line in (tmp_path / "v.jsonl").read_text("ascii").splitlines()] == ids
    import pyarrow.parquet as pq

    assert [os.fsdecode(name) for name in pq.read_table(tmp_path / "v.parquet")["id"].to_pylist()] == ids
    made.take([1, 6]).to_parquet(tmp_path / "texts.parquet")
    assert pq.read_table(tmp_path / "texts.parquet")["id"].to_pylist() == ["=1+1", "plain"]
    assert made.to_pandas()["id"].tolist() == clean
