"""Names of the classes in a file beside the model, in the forms that tools and people leave them."""

import pytest

from knownot.models.names_beside import names_beside

NAMES = ("bars", "checker", "disc", "rows")
PBTXT = "".join(f"item {{\n  id: {i}\n  name: '{name}'\n}}\n" for i, name in reversed([*enumerate(NAMES, 1)]))
FORMS = {
    "plain": ("labels.txt", "bars\nchecker\ndisc\nrows\n"),
    "windows, with gaps": ("labels.txt", "\ufeffbars\r\n\r\nchecker\r\ndisc\r\nrows\r\n"),
    "remarks": ("classes.txt", "# made by hand\nbars\nchecker\ndisc\nrows"),
    "from 0": ("labels.txt", "0 bars\n1 checker\n2 disc\n3 rows"),
    "from 1": ("labels.txt", "1: bars\n2: checker\n3: disc\n4: rows"),
    "dots": ("labels.txt", "0. bars\n1. checker\n2. disc\n3. rows"),
    "tabs": ("labels.txt", "0\tbars\n1\tchecker\n2\tdisc\n3\trows"),
    "another order": ("labels.txt", "3 rows\n1 checker\n0 bars\n2 disc"),
    "numbers behind": ("labels.txt", "rows 3\nbars 0\nchecker 1\ndisc 2"),
    "csv": ("labels.csv", "0,bars\n1,checker\n2,disc\n3,rows\n"),
    "label map": ("labelmap.pbtxt", PBTXT),
    "yaml, numbered": ("data.yaml", "nc: 4\nnames:\n  0: bars\n  1: checker\n  2: disc\n  3: rows\npath: x\n"),
    "yaml, a row": ("data.yaml", "names: ['bars', \"checker\", disc, rows]\nnc: 4\n"),
    "yaml, dashes": ("data.yaml", "names:\n- bars\n- checker\n- disc\n- rows\nnc: 4\n"),
    "json": ("class_indices.json", '{"rows": 3, "bars": 0, "checker": 1, "disc": 2}'),
}


@pytest.mark.parametrize("form", FORMS)
def test_names_are_read_in_the_order_of_the_outputs(tmp_path, form):
    name, text = FORMS[form]
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    names, note = names_beside(tmp_path / "model.onnx", 4)
    assert names == NAMES
    assert note == f"Class names read from {name}, beside the model."


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_names_are_read_whatever_editor_wrote_them(tmp_path, encoding):
    (tmp_path / "labels.txt").write_text("café\nübel\n", encoding=encoding)
    assert names_beside(tmp_path / "model.onnx", 2)[0] == ("café", "übel")


@pytest.mark.parametrize(
    "names",
    [
        ("1 euro", "2 euro", "5 euro"),
        ("route 66", "route 61", "route 7"),
        ("0 bars", "0 rows", "1 disc"),
        ("12", "7", "3"),
    ],
)
def test_numbers_that_belong_to_the_names_stay(tmp_path, names):
    (tmp_path / "labels.txt").write_text("\n".join(names))
    assert names_beside(tmp_path / "model.onnx", 3)[0] == names


def test_names_that_do_not_fit_are_told(tmp_path):
    (tmp_path / "labels.txt").write_text("background\nbars\nrows\n")
    names, note = names_beside(tmp_path / "model.onnx", 2)
    assert names is None
    assert note == "labels.txt, beside the model, has 3 names for 2 outputs: it was not used."
