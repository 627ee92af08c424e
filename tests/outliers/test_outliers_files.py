"""Made images as files: what is asked for and nothing else, the same each time, never mixed with others unasked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import toy
from knownot.cli import main
from knownot.errors import ImagesError, KnownotError, OptionError, SavedError
from knownot.images import open_images
from knownot.outliers import OUTLIERS, files, kinds_named, make, write
from knownot.outliers.files import read_like

FREE = [name for name, kind in OUTLIERS.items() if not kind.altered]


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("known") / "images"
    toy.written(folder, *toy.known(80, 2))
    return folder


def test_files_are_what_make_gives(tmp_path, known):
    told = write(["blur", "uniform"], tmp_path / "a", like=known, count=5, seed=3)
    found = pictures(tmp_path / "a")
    assert list(found) == [f"{kind}-seed3-{i:05d}.png" for kind in ("blur", "uniform") for i in range(5)]
    like = read_like(known, 64, seed=3)
    assert like.images.shape == (64, 16, 16, 3)
    for kind in ("blur", "uniform"):
        expected = make(kind, 5, like=like.images, labels=like.labels, seed=3)
        for i in range(5):
            np.testing.assert_array_equal(found[f"{kind}-seed3-{i:05d}.png"], expected[i])
    assert json.loads((tmp_path / "a" / files.MANIFEST).read_text()) == told
    assert told["runs"] == [
        {"size": [16, 16], "like": {"source": str(known), "images": 64, "labelled": 64, "unreadable": 0}}
    ]
    assert told["kinds"]["blur"] == {
        "family": "blur",
        "summary": OUTLIERS["blur"].summary,
        "altered": True,
        "proper": True,
    }
    assert [row["file"] for row in told["files"]] == list(found)


def test_the_same_arguments_make_the_same_files_and_another_seed_others(tmp_path, known):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write("mixup", tmp_path / name, like=known, count=4, seed=seed)
    a, b, c = ([path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in "abc")
    assert a == b
    assert a[0] != c[0]


def test_mixtures_are_of_two_classes_where_folders_say_which(tmp_path):
    """One class is red, the other blue: half of each is neither."""
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / "known" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(tmp_path / "known" / name / f"{i}.png")
    write("cutmix", tmp_path / "a", like=tmp_path / "known", count=20)
    for image in pictures(tmp_path / "a").values():
        assert (image[..., 0] == 255).sum() == (image[..., 2] == 255).sum() == 32


def test_many_images_are_made_in_blocks_and_each_can_be_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 16 * 16 * 4)
    told = write("stripes", tmp_path / "a", count=10, size=16, seed=7)
    found = pictures(tmp_path / "a")
    assert len(found) == 10
    assert len({x.tobytes() for x in found.values()}) == 10
    assert [row["of"] for row in told["files"]] == [4] * 8 + [2] * 2
    assert len({row["seed"] for row in told["files"]}) == 3
    for row in told["files"]:
        again = make(row["kind"], row["of"], size=16, seed=row["seed"])[row["place"]]
        np.testing.assert_array_equal(found[row["file"]], again)


def test_a_folder_with_something_in_it_is_left_alone_unless_told(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("do not lose")
    with pytest.raises(SavedError, match=r"not empty.*--add"):
        write("solid", mine, size=8)
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]
    with pytest.raises(SavedError, match="is a file"):
        write("solid", mine / "thesis.txt", size=8)
    write("solid", mine, size=8, count=2, add=True)
    told = write(["solid", "uniform"], mine, size=9, count=1, add=True)
    assert (mine / "thesis.txt").read_text() == "do not lose"
    assert [(row["file"], row["run"]) for row in told["files"]] == [
        ("solid-seed0-00001.png", 0),
        ("solid-seed0-00000.png", 1),
        ("uniform-seed0-00000.png", 1),
    ]
    assert [run["size"] for run in told["runs"]] == [[8, 8], [9, 9]]
    assert pictures(mine)["solid-seed0-00000.png"].shape == (9, 9, 3)
    for text in ("{", '{"format": 9}', "[]"):
        (mine / files.MANIFEST).write_text(text)
        with pytest.raises(SavedError, match="another folder"):
            write("solid", mine, size=8, add=True)


def test_without_known_images_all_is_what_needs_none(tmp_path):
    told = write("all", tmp_path / "a", size=(8, 10), count=1)
    assert list(told["kinds"]) == FREE
    assert pictures(tmp_path / "a")["solid-seed0-00000.png"].shape == (8, 10, 3)
    for kinds in ("blur", ["all", "blur"], "mixture"):
        with pytest.raises(OptionError, match=r"Made from known images: .*--like"):
            write(kinds, tmp_path / "b", size=8)
    assert not (tmp_path / "b").exists()


def test_known_images_of_several_sizes_need_one(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for i, (h, w) in enumerate([(20, 30), (20, 30), (40, 25)]):
        Image.fromarray(np.full((h, w, 3), 40 * i, np.uint8)).save(source / f"{i}.png")
    (source / "broken.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(ImagesError, match="--size"):
        write("inversion", tmp_path / "a", like=source)
    told = write("inversion", tmp_path / "a", like=source, size=(12, 16), count=6, add=True)
    assert {x.shape for x in pictures(tmp_path / "a").values()} == {(12, 16, 3)}
    assert (told["runs"][0]["like"]["images"], told["runs"][0]["like"]["unreadable"]) == (3, 1)
    for path in list(source.glob("[0-9]*.png")):
        path.unlink()
    with pytest.raises(ImagesError, match="None of the 1 known images could be read"):
        write("inversion", tmp_path / "b", like=source, size=8)


def test_grey_images_and_arrays_can_be_made_from(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (9, 8, 8), dtype=np.uint8)
    told = write("inversion", tmp_path / "a", like=grey, count=2)
    assert told["runs"][0]["like"]["source"] == "ndarray"
    assert all((x[..., 0] == x[..., 1]).all() for x in pictures(tmp_path / "a").values())
    with pytest.raises(ImagesError, match="raw images"):
        write("inversion", tmp_path / "b", like=grey[..., None] / 255, count=2)


def test_made_images_are_read_as_images_of_no_class(tmp_path):
    write(["uniform", "solid"], tmp_path / "a", size=8, count=3)
    source = open_images(tmp_path / "a")
    assert source.count == 6
    assert not source.labelled


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("blur", ["blur"]),
        (["blur", "solid"], ["blur", "solid"]),
        ("solid,blur", ["solid", "blur"]),
        ("mixture", ["cutmix", "mixup", "collage"]),
        ("patch-shuffle", ["patch-shuffle-4", "patch-shuffle-8"]),
        ("all", list(OUTLIERS)),
        (["all", "-mixture", "-jpeg"], [k for k in OUTLIERS if k not in ("cutmix", "mixup", "collage", "jpeg")]),
    ],
)
def test_kinds_named(names, expected):
    assert list(kinds_named(names)) == expected


def test_a_slash_says_that_a_family_is_meant():
    family = {k for k, kind in OUTLIERS.items() if kind.family == "noise"}
    assert len(family) > 1
    assert set(kinds_named("all")) - set(kinds_named("all,-noise")) == {"noise"}
    assert set(kinds_named("all")) - set(kinds_named("all,-noise/")) == family
    assert set(kinds_named("noise/")) == family
    assert kinds_named("blur/", proper=True) == ("blur",)  # not the crops, which may be recognised
    assert kinds_named("compression/", proper=True) == ("jpeg",)
    with pytest.raises(OptionError, match="There is no kind of outlier 'uniform/'"):
        kinds_named("uniform/")


def test_kinds_named_that_are_surely_of_no_class():
    assert set(OUTLIERS) - set(kinds_named("all", proper=True)) == {"jpeg", "crop"}
    assert kinds_named(["all", "jpeg"], proper=True)[-1] == "jpeg"
    for names, said in (
        ("blurr", "Did you mean 'blur'"),
        (["blur", "-blur"], "leaves no kind"),
        ("", "leaves no kind"),
    ):
        with pytest.raises(OptionError, match=said):
            kinds_named(names)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": 0}, "count=0"),
        ({"count": 2.0}, "count"),
        ({"seed": -1}, "seed=-1"),
        ({"size": 0}, "size=0"),
        ({"size": None}, "--size"),
    ],
)
def test_options_out_of_range(tmp_path, options, said):
    with pytest.raises(OptionError, match=said):
        write("solid", tmp_path / "a", **{"size": 8, **options})
    assert not (tmp_path / "a").exists()


# The command line


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = 0
    try:
        main(["outliers", *arguments])
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capsys.readouterr()


def test_the_command(tmp_path, capsys, known):
    out = str(tmp_path / "a")
    code, said, _ = run(capsys, "all", "-o", out, "--like", str(known), "--count", "2", "--seed", "5", "-q")
    assert (code, len(pictures(tmp_path / "a"))) == (0, 2 * len(OUTLIERS))
    assert said == f"42 images of 21 kinds, 16 × 16, made like 64 known images, written to {out}.\n"
    code, _, error = run(capsys, "solid", "-o", out, "--size", "8", "-q")
    assert code == 1
    assert "--add" in error
    code, said, _ = run(capsys, "solid", "-o", out, "--size", "8x9", "--count", "3", "--add", "--json", "-q")
    told = json.loads(said)
    assert (told["images"], told["kinds"], told["size"], told["like"]) == (3, ["solid"], [8, 9], None)
    code, said, _ = run(capsys, "all", "-o", str(tmp_path / "b"), "--size", "8", "--count", "1", "-q")
    assert "Left out, as they are made from known images (give --like): patch-shuffle-4, " in said


def test_the_list(capsys):
    code, said, _ = run(capsys, "--list", "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(said)] == list(OUTLIERS)
    assert json.loads(run(capsys, "mixture", "--list", "--json")[1])[0]["summary"] == OUTLIERS["cutmix"].summary
    assert "dead-leaves" in run(capsys, "--list")[1]


def test_wrong_usage(tmp_path, capsys):
    for arguments in ((), ("solid",), ("-o", str(tmp_path / "a"))):
        code, _, error = run(capsys, *arguments)
        assert code == 2
        assert "--list" in error
    code, _, error = run(capsys, "stripe", "-o", str(tmp_path / "a"), "--size", "8")
    assert code == 1
    assert "Did you mean 'stripes'" in error
    assert issubclass(SavedError, KnownotError)
