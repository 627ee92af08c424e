"""What `predict` keeps on disk: which rows are taken again, which are not, and who may write. In one process, with a
classifier that fits in milliseconds; kills of real processes are in test_cli.py and benchmarks/kills.py."""

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import knownot
from helpers import toy
from knownot.cli.journal import Journal
from knownot.cli.locking import Lock
from knownot.cli.predict import Wanted, predict_to
from knownot.errors import ImagesError, KnownotError, OptionError, StorageError

N = 24


@pytest.fixture(scope="module")
def osc(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("osc"), "msp")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Of the same network, threshold share and number of calibration images; only the detector differs."""
    return fitted(tmp_path_factory.mktemp("other"), "energy")


def fitted(home, detector):
    made = knownot.fit(
        str(toy.saved(home)), toy.known(80, 2), calibration=toy.known(120, 3), detector=detector, alpha=0.1,
        preprocess=knownot.Preprocess(scale=1 / 255), thumbnails=0, progress=False,
    )  # fmt: skip
    made.save(home / "osc")
    return knownot.load(home / "osc")


@pytest.fixture
def place(tmp_path, monkeypatch):
    toy.written(tmp_path / "in", np.concatenate([toy.known(N - 8, 4)[0], toy.unknown(8)]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Stopped(Exception):
    pass


def stopped(osc, output, after=3, images="in", **options):
    """A run that ends after `after` batches of four, as a kill would end it (the lock goes with the process)."""
    add, left = Journal.add, [after]

    def some(self, verdicts, numbers):
        if not left[0]:
            raise Stopped
        left[0] -= 1
        add(self, verdicts, numbers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "add", some)
        with pytest.raises(Stopped):
            run(osc, output, images, **options)


def run(osc, output, images="in", restart=False, **wanted):
    images = [images] if isinstance(images, str) else images
    return predict_to(osc, images, Path(output), Wanted(**wanted), batch_size=4, restart=restart, quiet=True)


def table(path):
    with Path(path).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def agrees(osc, path, images="in"):
    """Whether the output holds a row for each image, as this classifier judges it now."""
    verdicts = osc.predict(images, batch_size=4)
    rows = table(path)
    assert [r["id"] for r in rows] == list(verdicts.ids)
    np.testing.assert_array_equal([float(r["p_value"] or "nan") for r in rows], verdicts.p_value)
    np.testing.assert_array_equal([np.float32(r["score"] or "nan") for r in rows], verdicts.score)
    return True


def test_a_stopped_run_goes_on_and_is_the_same_as_one_in_one_go(osc, place, capsys):
    (place / "in" / "00002.png").write_bytes(b"")  # is tried again, in a batch of its own
    run(osc, "once.csv", report=Path("once.html"))
    assert capsys.readouterr().err == ""
    stopped(osc, "out.csv", report=Path("out.html"))
    assert not Path("out.csv").exists()
    done = run(osc, "out.csv", report=Path("out.html"))
    assert done.resumed == 11
    assert "Going on with an unfinished run: 11 rows of it are used." in capsys.readouterr().err
    assert Path("out.csv").read_bytes() == Path("once.csv").read_bytes()
    assert sorted(os.listdir()) == ["in", "once.csv", "once.html", "out.csv", "out.html"]


def test_rows_of_another_classifier_are_not_taken_over(osc, other, place, capsys):
    """Its network, number of images and threshold are the same: only the fitted state differs."""
    assert osc.model.fingerprint == other.model.fingerprint
    assert osc.digest != other.digest
    stopped(osc, "out.csv")
    run(other, "out.csv")
    assert agrees(other, "out.csv")
    assert "12 rows of an unfinished run of another open-set classifier are left out" in capsys.readouterr().err


def test_a_kill_while_a_finished_run_removes_its_journal_leaves_nothing_to_the_next(osc, other, place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "_clear", lambda self: None)
        run(osc, "out.csv")
    assert Path("out.csv.partial/rows.sqlite").exists()
    run(other, "out.csv")
    assert agrees(other, "out.csv")


def test_the_digest_is_of_everything_that_decides_and_survives_saving(osc, place):
    osc.save("again")
    assert knownot.load("again").digest == osc.digest
    calibration = replace(osc.calibration, scores=osc.calibration.scores + 1e-9)
    assert replace(osc, calibration=calibration).digest != osc.digest
    assert replace(osc, class_names=("a", "b", "c", "d")).digest != osc.digest
    assert replace(osc, preprocess=knownot.Preprocess(scale=1 / 254)).digest != osc.digest


@pytest.mark.parametrize("change", ["renamed", "removed", "added", "replaced", "replaced with its old time", "swapped"])
def test_images_that_changed_meanwhile(osc, place, change, capsys):
    stopped(osc, "out.csv")
    images = place / "in"
    one, two = images / "00000.png", images / "00001.png"
    if change == "renamed":
        one.rename(images / "zz.png")
    elif change == "removed":
        one.unlink()
    elif change == "added":
        shutil.copy(one, images / "00000a.png")
    elif change == "replaced":
        shutil.copy(images / "00020.png", one)
    elif change == "swapped":
        one.rename(images / "x.png")
        two.rename(one)
        (images / "x.png").rename(two)
    else:
        before = one.stat()
        one.write_bytes((images / "00020.png").read_bytes().ljust(before.st_size, b"\0")[: before.st_size])
        os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    run(osc, "out.csv")
    assert agrees(osc, "out.csv")
    left = {"added": 0, "swapped": 2}.get(change, 1)
    said = capsys.readouterr().err
    assert f"{12 - left} rows of it are used" in said
    assert (f"{left} row" in said and "left out" in said) == bool(left)


def test_the_same_folder_by_another_path_is_the_same(osc, place, monkeypatch):
    stopped(osc, "out.csv")
    assert run(osc, "out.csv", "../" + place.name + "/in").resumed == 12
    stopped(osc, "out.csv", images="in")
    (place / "sub").mkdir()
    monkeypatch.chdir(place / "sub")
    assert run(osc, "../out.csv", "../in").resumed == 12


def test_another_folder_with_the_same_names_is_not_the_same(osc, place):
    shutil.copytree("in", "copy", copy_function=shutil.copy2)
    stopped(osc, "out.csv")
    assert run(osc, "out.csv", "copy").resumed == 0


def test_an_image_that_could_not_be_read_is_tried_again(osc, place, monkeypatch):
    """The disk failed for a moment: nothing of the file changed."""
    from knownot.images import batching
    from knownot.images.decode import Unreadable

    decode = batching.decode

    def failing(image, *args, **options):
        if image.endswith("00001.png"):
            raise Unreadable("input/output error")
        return decode(image, *args, **options)

    monkeypatch.setattr(batching, "decode", failing)
    stopped(osc, "out.csv")
    monkeypatch.setattr(batching, "decode", decode)
    assert run(osc, "out.csv").resumed == 11
    assert agrees(osc, "out.csv")


def test_an_image_given_twice_has_two_rows(osc, place):
    images = ["in/00000.png", "in/00001.png", "in/00000.png"]
    run(osc, "out.csv", images)
    assert agrees(osc, "out.csv", images)


def test_parquet_rows_by_file_and_row(osc, place):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(order):
        files = [(place / "in" / f"{i:05d}.png").read_bytes() for i in order]
        rows = [{"bytes": data, "path": "same name.png"} for data in files]
        pq.write_table(pa.table({"image": rows}), "images.parquet")

    write(range(N))
    stopped(osc, "out.csv", images="images.parquet")
    done = run(osc, "out.csv", "images.parquet")
    assert done.resumed == 12
    assert agrees(osc, "out.csv", "images.parquet")
    stopped(osc, "out.csv", images="images.parquet")
    write(reversed(range(N)))  # written anew, with the same names and the same number of rows
    assert run(osc, "out.csv", "images.parquet").resumed == 0
    assert agrees(osc, "out.csv", "images.parquet")


def test_parquet_with_images_in_files_beside_it_is_looked_at_again(osc, place, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": None, "path": f"{i:05d}.png"} for i in range(N)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), "in/images.parquet")
    images = "in/images.parquet"
    stopped(osc, "out.csv", images=images)
    assert run(osc, "out.csv", images, report=Path("r.html")).resumed == 0
    assert agrees(osc, "out.csv", images)
    assert "another open-set classifier" not in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["no database", "cut off", "bytes changed", "rows changed"])
def test_a_damaged_journal_is_computed_again_and_said(osc, place, fault, capsys):
    stopped(osc, "out.csv")
    file = place / "out.csv.partial" / "rows.sqlite"
    data = bytearray(file.read_bytes())
    if fault == "no database":
        file.write_bytes(b"nothing of the kind" * 100)
    elif fault == "cut off":
        file.write_bytes(data[: len(data) // 2])
    elif fault == "bytes changed":
        data[4096 : 3 * 4096] = b"\xff" * (2 * 4096)
        file.write_bytes(data)
    else:
        with sqlite3.connect(file) as rows:
            rows.execute("UPDATE rows SET row = replace(row, '\"p_value\": 0.', '\"p_value\": 1.')")
        rows.close()
    run(osc, "out.csv")
    assert agrees(osc, "out.csv")
    said = capsys.readouterr().err
    assert "damaged" in said or "left out" in said


def test_restart_begins_anew(osc, place):
    stopped(osc, "out.csv")
    assert run(osc, "out.csv", restart=True).resumed == 0


def test_rows_are_the_images_of_the_source_or_nothing_is_written(osc, place, monkeypatch):
    Path("out.csv").write_text("old")
    add = Journal.add
    monkeypatch.setattr(Journal, "add", lambda self, v, k: add(self, v.take(slice(1, None)), k[1:]))
    with pytest.raises(StorageError, match="Nothing was written"):
        run(osc, "out.csv")
    assert Path("out.csv").read_text() == "old"


def test_a_source_that_gives_fewer_images_than_it_said(osc, place, monkeypatch):
    from knownot.images.stream import StreamImages

    class Short(StreamImages):
        count = property(lambda self: 5)

    source = Short([toy.known(4, 4)[0]], None, None, 5)
    monkeypatch.setattr("knownot.images.open_images", lambda _: source)
    with pytest.raises(ImagesError, match="has 5 images and gave 4"):
        run(osc, "out.csv")
    assert not Path("out.csv").exists()


def test_a_second_run_with_the_same_output_is_told_to_wait(osc, place):
    with Journal(Path("out.csv"), "one"):
        os.symlink(place, place / "link")
        for same in ("out.csv", "link/out.csv"):
            with pytest.raises(StorageError, match=rf"Another run \(process {os.getpid()} on .*\) is writing"):
                run(osc, same)
    run(osc, "out.csv")
    assert agrees(osc, "out.csv")


def test_a_dead_process_holds_no_lock(place):
    code = (
        "import os, sys; from pathlib import Path; from knownot.cli.locking import Lock;"
        "lock = Lock(Path('lock'), 'x'); print('held', flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-9, "held\n")
    assert Path("lock").exists()
    with Lock(Path("lock"), "x"), pytest.raises(StorageError):
        Lock(Path("lock"), "x")
    assert not Path("lock").exists()


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(place, monkeypatch):
    """The holder removes the file between the second one's opening and locking it: the second must not hold a file
    that a third one does not see."""
    first = Lock(Path("lock"), "x")
    opened = Lock._opened
    calls = []

    def slow(self):
        file = opened(self)
        if not calls:
            first.release()
        calls.append(1)
        return file

    monkeypatch.setattr(Lock, "_opened", slow)
    second = Lock(Path("lock"), "x")
    assert len(calls) == 2
    with pytest.raises(StorageError):
        Lock(Path("lock"), "x")
    second.release()
    second.release()  # once only: it may be another's by now


def test_strange_files_in_the_journal_are_left_alone(osc, place):
    (place / "out.csv.partial").mkdir()
    (place / "out.csv.partial" / "mine.txt").write_text("x")
    run(osc, "out.csv")
    assert os.listdir("out.csv.partial") == ["mine.txt"]


def test_outputs_that_cannot_be(osc, place):
    with pytest.raises(OptionError, match=r"\.csv, \.jsonl, \.parquet"):
        run(osc, "out.xlsx")
    (place / "dir.csv").mkdir()
    with pytest.raises(OptionError, match="is a folder"):
        run(osc, "dir.csv")
    with pytest.raises(OptionError, match="the same file"):
        run(osc, "a.csv", report=place / "a.csv")
    Path("out.csv.partial").write_text("x")
    with pytest.raises((StorageError, OSError)):
        run(osc, "out.csv")
    assert Path("out.csv.partial").read_text() == "x"


ODD = b"caf\xe9.png"  # Latin-1


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_name_that_is_no_utf8_costs_no_run(osc, place, ending):
    try:
        shutil.copy(b"in/00000.png", b"in/" + ODD)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    os.rename(b"in/00003.png", b"in/=1+1.png")
    stopped(osc, f"out.{ending}")
    run(osc, f"out.{ending}", report=Path("out.html"))
    if ending == "csv":
        ids = [r["id"] for r in table("out.csv")]
        assert "./=1+1.png" in ids
    elif ending == "jsonl":
        ids = [json.loads(line)["id"] for line in Path("out.jsonl").read_text().splitlines()]
    else:
        import pyarrow.parquet as pq

        ids = [os.fsdecode(name) for name in pq.read_table("out.parquet")["id"].to_pylist()]
    assert len(ids) == N + 1
    assert all(os.path.exists(os.path.join(b"in", os.fsencode(name))) for name in ids), "a name leads to no file"
    assert os.fsdecode(ODD) in ids
    run(osc, "raw.csv", raw=True)
    assert "=1+1.png" in [r["id"] for r in table("raw.csv")]


@pytest.mark.parametrize("limit", [3_000, 30_000, 60_000])
def test_a_disk_that_fills_up_is_said_and_the_run_goes_on_when_there_is_space(osc, place, limit):
    """Files may not grow beyond a limit: of the journal as it is made, of its rows, or of nothing at all."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(KnownotError, match=r"[Gg]ive the same command again|cannot be written"):
            run(osc, "out.csv", report=Path("r.html"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not Path("out.csv").exists()
    run(osc, "out.csv")
    assert agrees(osc, "out.csv")
    assert not Path("out.csv.partial").exists()
