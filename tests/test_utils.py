"""Atomic writes, errors in one line, interruption and progress."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import run_llama
from runs import ROOT, command, contents, python, refused, run
from utils import InputError, atomic_write, check_writable, progress, run_program, save_file


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """A file with old content, alone in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


# ----------------------------------------------------------------------------------- atomic writes

def test_two_writers_at_once_never_mix_and_an_interrupted_one_changes_nothing(path):
    with pytest.raises(KeyboardInterrupt), atomic_write("file") as first:
        first.write(b"fir")
        with atomic_write("file") as second:
            second.write(b"second")
        first.write(b"st")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"second" and os.listdir() == ["file"]


def test_a_symbolic_link_is_followed_and_its_target_replaced(path):
    Path("elsewhere").mkdir()
    Path("link").symlink_to(path.replace("elsewhere/target"))
    with atomic_write("link") as file:
        file.write(b"new")
    assert Path("link").is_symlink() and Path("elsewhere/target").read_bytes() == b"new"
    assert sorted(contents()) == ["elsewhere/target", "link"]


def test_permissions_are_those_of_any_new_file(path):
    Path("another").touch()
    with atomic_write("new"):
        pass
    assert os.stat("new").st_mode == os.stat("another").st_mode


def test_a_full_disk_in_the_middle_of_a_checkpoint_is_an_oserror(path):
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))  # fails as a full disk does
    try:
        with pytest.raises(OSError) as caught:
            save_file("file", {"weight": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, "file")
    assert path.read_bytes() == b"old" and os.listdir() == ["file"]


def test_a_file_that_cannot_be_replaced_is_written_in_place(path, monkeypatch):
    busy = OSError(errno.EBUSY, "Device or resource busy")  # as for a file that is mounted
    monkeypatch.setattr(os, "replace", Mock(side_effect=busy))
    with atomic_write("file") as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and os.listdir() == ["file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are those of Unix")
def test_a_pipe_or_device_is_written_to_in_any_folder_and_stays_one(path, monkeypatch):
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDWR | os.O_NONBLOCK)
    monkeypatch.setattr(os, "access", Mock(return_value=False))
    check_writable("pipe")
    with atomic_write("pipe") as file:
        file.write(b"new")
    assert os.read(reader, 9) == b"new"
    os.close(reader)


# ------------------------------------------------------------------------------ errors in one line

@pytest.mark.parametrize("error, status, expected", [
    (InputError("two\nlines and \x1b[31m colour"), 2, "two lines and ?[31m colour"),
    (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), 2, "a.txt: No such file; "),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
    (MemoryError(), 1, "out of memory; "),
    (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried\nMore"), 1, "out of memory; "),
    (None, 1, "out of memory; see Troubleshooting in README.md"),
], ids=repr)
def test_what_a_user_can_mend_is_one_line_and_a_status(capsys, error, status, expected):
    def main(argv):
        torch.empty(1 if error else 2**60)
        raise error

    found, _, (said,) = run([], capsys, main)
    assert found == status and said.startswith(f"test_utils.py: {expected}")


@pytest.mark.parametrize("error", [
    ValueError("a defect"), RuntimeError("CUDA error: an illegal memory access was encountered")])
def test_a_defect_keeps_its_traceback(error):
    with pytest.raises(type(error), match=str(error)):
        run_program(Mock(side_effect=error))


@pytest.mark.parametrize("stdout", [None, StringIO(), TextIOWrapper(BytesIO(), "ascii")],
                         ids=["closed", "a notebook's", "an ASCII terminal's"])
def test_any_standard_output_will_do_and_what_it_cannot_show_is_escaped(
        place, monkeypatch, stdout):
    monkeypatch.setattr(sys, "stdout", stdout)
    assert run_program(run_llama.main, command("generate", prompt="é 🎬")) == 0
    if isinstance(stdout, TextIOWrapper):
        assert rb"\xe9 \U0001f3ac" in stdout.buffer.getvalue()


def test_a_package_that_cannot_be_imported_is_reported_before_the_work(
        place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    assert "sklearn" in refused(command("lora"), capsys)


# --------------------------------------------------------------------------- programs in processes

@pytest.mark.skipif(os.name != "posix", reason="signals are those of Unix")
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_is_one_line_and_leaves_no_temporary_file(place, number, status):
    with subprocess.Popen(
            [sys.executable, ROOT / "run_llama.py", *command("finetune", epochs=10**6)], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        next(line for line in child.stdout if line.startswith("epoch 0: "))
        child.send_signal(number)
        _, said = child.communicate()
    assert child.returncode == status
    complaint = "(?s:Exception ignored in: <function tqdm.*)?"  # if it hits tqdm's constructor
    assert re.fullmatch(f"{complaint}run_llama.py: interrupted.*--resume.*\n", said)
    assert not [path for path in contents() if path.endswith(".part")]


def test_the_program_works_without_docstrings_and_assertions(place):
    for argv, expected in (["--help"], "usage: "), (command("generate"), "args: "):
        assert python("-OO", ROOT / "run_llama.py", *argv).startswith(expected)


def test_programs_without_tensors_do_not_wait_for_pytorch():
    folders = [str(ROOT), str(ROOT / "demo")]
    python("-c", f"import sys; sys.path += {folders}; import corpus, prepare_submit; "
                 "corpus.main(['--count', '1']); assert 'torch' not in sys.modules")


# ---------------------------------------------------------------------------------------- progress

def test_progress_is_a_bar_on_a_terminal_that_goes_away(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := StringIO())
    screen.isatty = lambda: True
    assert list(progress([1, 2, 3], "title")) == [1, 2, 3]
    assert "title: " in screen.getvalue() and screen.getvalue().split("\r")[-1] == ""
    assert capsys.readouterr().out == ""


def test_progress_in_a_log_file_is_a_line_every_three_minutes(capsys, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 60 * len(done))
    done = []
    for batch in progress(range(10), "title"):
        assert batch == len(done)
        done.append(1)
    assert capsys.readouterr() == ("", "title: 3 of 10\ntitle: 6 of 10\ntitle: 9 of 10\n")
