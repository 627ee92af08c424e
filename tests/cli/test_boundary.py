"""Whatever goes wrong in a command is one message with the cure, and an exit code."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from knownot.cli import boundary, group, main
from knownot.errors import KnownotError, OptionError, StorageError, storage_error


def ending(error, capsys, monkeypatch):
    """(exit code, standard error) of a command in which `error` is raised."""

    def fails(**_):
        raise error

    monkeypatch.setattr(group, "main", fails)
    with pytest.raises(SystemExit) as stop:
        main(["detectors"])
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.csv"), 1, "'a.csv': No space left on device. Free some"),
        (OSError(errno.EROFS, "Read-only file system", "a"), 1, "write elsewhere"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), 1, "Ask for the right"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a", None, "b"), 1, "'a' -> 'b'"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "ulimit -n"),
        (OSError(errno.EIO, "Input/output error"), 1, "the connection"),
        (OSError("odd"), 1, "odd. Look at that place"),
        (MemoryError(), 1, "not enough memory"),
        (ModuleNotFoundError("No module named 'scipy'"), 1, "A package cannot be imported: No module named 'scipy'"),
        (OptionError("said already."), 1, "OptionError: said already."),
        (ZeroDivisionError("x"), 70, "ZeroDivisionError: x\nThis is a defect"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (click.exceptions.Abort(), 130, "Interrupted."),
        (click.UsageError("no"), 2, "no"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, BaseException) else None,
)
def test_every_ending_is_one_message(error, code, says, capsys, monkeypatch):
    got, text = ending(error, capsys, monkeypatch)
    assert got == code
    assert says in text
    assert "Traceback" not in text
    if code == 1:
        assert len(text.strip().splitlines()) == 1


def test_the_traceback_can_be_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("KNOWNOT_TRACEBACK", "1")
    assert "Traceback" in ending(ZeroDivisionError("x"), capsys, monkeypatch)[1]


@pytest.mark.parametrize("name", sorted({name for names in errno.errorcode.values() for name in [names]}))
def test_every_error_of_the_system_is_a_sentence(name):
    number = getattr(errno, name)
    told = storage_error(OSError(number, os.strerror(number), "there"), "Writing 'there'")
    assert isinstance(told, StorageError)
    assert str(told).startswith("Writing 'there' failed: 'there': ")
    assert str(told).count(". ") == 1
    assert str(told).endswith(".")


def run(code, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60, **options
    )


INTERRUPTED = """
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            import os, signal
            {way}
sys.meta_path.insert(0, Interrupting())
sys.argv = ["knownot", "detectors"]
from knownot.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("click", "raise KeyboardInterrupt"),
        ("knownot.cli.detectors", "os.kill(os.getpid(), signal.SIGINT)"),
        # as modules in C do, whose imports were interrupted
        (
            "knownot.cli.detectors",
            "\n            try: os.kill(os.getpid(), signal.SIGINT)"
            "\n            except KeyboardInterrupt as e: raise ImportError('numpy') from e",
        ),
    ],
)
def test_an_interrupt_while_modules_are_imported(name, way):
    done = run(INTERRUPTED.format(name=name, way=way))
    assert (done.returncode, done.stderr.strip()) == (130, "Interrupted.")


def test_the_program_is_the_guarded_one():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert 'knownot = "knownot.__main__:main"' in text


def test_the_handler_of_the_caller_comes_back():
    before = signal.getsignal(signal.SIGINT)
    assert boundary.run(lambda: 3) == 3
    assert signal.getsignal(signal.SIGINT) is before


PRINTS = "import sys; from knownot.cli import boundary; sys.exit(boundary.run(lambda: print('x' * 200_000)))"


def test_nobody_reads_the_output():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", PRINTS], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_no_space_for_the_output():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTS], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("StorageError: Reading or writing failed: No space left on device. Free some space")
    assert len(done.stderr.splitlines()) == 1


def test_a_name_that_no_encoding_takes_is_printed():
    code = "import sys; from knownot.cli import boundary; sys.exit(boundary.run(lambda: print('caf\\udce9 é')))"
    done = run(code, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, "caf\\udce9 \\xe9\n")


def test_errors_in_the_users_own_code_are_theirs(tmp_path, monkeypatch):
    from knownot.cli.common import thing_of

    monkeypatch.chdir(tmp_path)
    Path("broken_net.py").write_text("1 / 0\n")
    Path("broken_make.py").write_text("def make():\n    raise ValueError('mine')\n")
    with pytest.raises(KnownotError, match=r"Your own code, .*broken_net.* raised ZeroDivisionError.*line 1 of"):
        thing_of("broken_net:model")
    with pytest.raises(KnownotError, match=r"Your own code, 'broken_make:make', raised ValueError: mine \(line 2 of"):
        thing_of("broken_make:make")
