"""New classes among unknown images: clusters that are there, none where there is only noise, and folders that last."""

import csv

import numpy as np
import pytest
from click.testing import CliRunner

import knownot
from helpers import toy
from knownot.cli import group
from knownot.errors import OptionError, SavedError
from knownot.openset.discovery import assign_clusters, embedding, find_clusters, make_cluster


def blobs(seed, sizes, d=8, spread=0.08):
    """(rows of unit length, which blob) with blobs in random directions, and as many rows of noise as blob 0 has."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), d))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = [c + spread * rng.normal(size=(n, d)) for c, n in zip(centres, sizes, strict=True)]
    rows.append(rng.normal(size=(sizes[0], d)))
    x = np.concatenate(rows)
    truth = np.repeat([*range(len(sizes)), -1], [*sizes, sizes[0]])
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), truth


def test_blobs_are_found_and_noise_is_left_alone():
    x, truth = blobs(0, (40, 60, 30))
    clusters, _ = find_clusters(x, ["a"] * 60 + ["b"] * (len(x) - 60))
    assert [len(c) for c in clusters] == sorted((len(c) for c in clusters), reverse=True)
    assert len(clusters) == 3
    for cluster in clusters:
        assert (truth[cluster.rows] == truth[cluster.rows[0]]).mean() > 0.9
        assert len(cluster) >= 0.7 * (truth == truth[cluster.rows[0]]).sum()
        assert cluster.stability > 0.6
        cosine = x[cluster.rows] @ cluster.centre
        assert (np.diff(cosine) <= 1e-6).all()  # the most typical first
        assert cluster.cohesion == pytest.approx(cosine.mean(), abs=1e-5)
    by_truth = {int(truth[c.rows[0]]): c for c in clusters}
    assert (by_truth[0].like, by_truth[0].like_share) == ("a", 1.0)
    assert by_truth[2].like == "b"


def test_noise_alone_is_no_class():
    found = []
    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=(150, 8))
        found.append(len(find_clusters(x / np.linalg.norm(x, axis=1, keepdims=True), ["a"] * 150)[0]))
    assert sum(found) <= 1


def test_few_or_equal_images_are_no_error():
    assert find_clusters(np.zeros((0, 4), np.float32), []) == ((), 0)
    assert find_clusters(np.ones((19, 4), np.float32), ["a"] * 19) == ((), 0)
    same, _ = find_clusters(np.full((40, 4), 0.5, np.float32), ["a"] * 40)
    assert [len(c) for c in same] == [40]
    with pytest.raises(OptionError, match="at least 3"):
        find_clusters(np.zeros((9, 2)), ["a"] * 9, smallest=2)


def test_new_images_go_to_the_nearest_centre_within_reach():
    x, truth = blobs(1, (40, 40))
    clusters = [make_cluster(x, ["a"] * len(x), np.flatnonzero(truth == k), 1.0) for k in (0, 1)]
    got = assign_clusters(np.stack([clusters[0].centre, clusters[1].centre, -clusters[0].centre]), clusters)
    assert got.tolist() == [0, 1, -1]
    assert (assign_clusters(x[truth == 1], clusters) == 1).mean() == pytest.approx(0.95, abs=0.03)


def test_each_block_counts_the_same():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 3)), 1000 * rng.normal(size=(50, 5)) + 7
    x = embedding(np.concatenate([a, b], axis=1), (3, 5))
    np.testing.assert_allclose((x[:, :3] ** 2).sum(axis=1), 0.5, rtol=1e-4)
    np.testing.assert_allclose((x[:, 3:] ** 2).sum(axis=1), 0.5, rtol=1e-4)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    home = tmp_path_factory.mktemp("discover")
    osc = knownot.fit(
        toy.graph(), *toy.known(300, 2), progress=False, thumbnails=0, preprocess=knownot.Preprocess(scale=1 / 255),
        calibration=toy.known(800, 3)[0], class_names=toy.CLASSES,
    )  # fmt: skip
    osc.save(home / "osc")
    strange = toy.unknown(80)  # every second is green, the others are noise
    toy.written(home / "first", np.concatenate([toy.known(40, 4)[0], strange[:60]]))
    toy.written(home / "second", strange[60:])
    return home


def found(place, output, folder="first", *options):
    arguments = ["discover", str(place / "osc"), str(place / folder), "-o", str(output), "-q", *options]
    return CliRunner().invoke(group, arguments, catch_exceptions=False).output


def table(output):
    with (output / "images.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_folders_can_be_renamed_and_are_added_to(place, tmp_path):
    out = tmp_path / "found"
    said = found(place, out)
    assert "unknown images: 2 clusters" in said
    folders = sorted(p for p in out.iterdir() if p.is_dir())
    assert len(folders) == 2
    names = {}
    for folder in folders:  # green ones and noise ones apart: odd and even files
        numbers = {int(p.stem) % 2 for p in folder.glob("*.png")}
        assert len(numbers) == 1
        names[numbers.pop()] = folder
        assert (folder / next(folder.glob("*.png")).name).read_bytes() in {
            p.read_bytes() for p in (place / "first").iterdir()
        }  # the file itself
    names[0].rename(out / "green")
    html = (out / "index.html").read_text()
    assert html.count("<img") >= 40
    before = {p.name for p in (out / "green").glob("*.png")}
    said = found(place, out, "second")
    assert "2 clusters" in said
    assert len({r["id"] for r in table(out)}) == len(table(out)) >= 76
    assert {r["cluster"] for r in table(out)} >= {"green", names[1].name}
    assert before < {p.name for p in (out / "green").glob("*.png")}
    again = found(place, out, "second")
    assert again == said  # the same images are not taken twice


def test_another_folder_is_left_alone(place, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OptionError, match="left alone"):
        found(place, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_in_python(place):
    osc = knownot.load(place / "osc")
    got = osc.discover(place / "first")
    assert len(got.verdicts) == (got.label >= 0).sum() + len(got.alone)
    assert got.verdicts.unknown.all()
    assert got.summary.startswith(f"{len(got.verdicts)} unknown images: 2 clusters")
    nothing = osc.discover(toy.known(10, 9)[0], smallest=3)
    assert nothing.clusters == ()


def test_parts_find_what_all_together_show(place, tmp_path):
    """Whoever looks at them; knownot's own process is one of several engines with the same function of a part."""
    found(place, tmp_path / "whole")
    found(place, tmp_path / "parts", "first", "--parts", "3")
    mine, theirs = table(tmp_path / "parts"), table(tmp_path / "whole")
    assert [(row["id"], row["cluster"]) for row in mine] == [(row["id"], row["cluster"]) for row in theirs]


def test_an_exported_file_shows_no_features(place, tmp_path):
    knownot.load(place / "osc").export(tmp_path / "osc.onnx")
    with pytest.raises(SavedError, match="shows no features"):
        CliRunner().invoke(
            group, ["discover", str(tmp_path / "osc.onnx"), str(place / "first")], catch_exceptions=False
        )
