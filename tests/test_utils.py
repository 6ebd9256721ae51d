"""Atomic writes, errors in one line, interruption, progress, and code for every platform."""

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import tqdm.std

import run_llama
from runs import ROOT, command, contents, refused, run
from utils import InputError, atomic_write, progress, run_program, save_file


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """A file with old content, alone in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


# ----------------------------------------------------------------------------------- atomic writes

def test_text_is_utf8_with_plain_newlines(path, monkeypatch):
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    with atomic_write("file", "w") as file:
        file.write("é\n")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == "é\n".encode() and os.listdir() == ["file"]


@pytest.mark.parametrize("clean_up_fails", [False, True])
@pytest.mark.parametrize("error", [ValueError("first"), KeyboardInterrupt("first"),
                                   OSError(errno.ENOSPC, "first")], ids=repr)
def test_the_first_error_survives_and_the_old_file_too(path, monkeypatch, error, clean_up_fails):
    if clean_up_fails:
        def unlink(path):
            raise PermissionError(errno.EACCES, "second", path)
        monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(type(error), match="first") as caught:
        with atomic_write("file") as file:
            file.write(b"new")
            raise error
    if isinstance(error, OSError):
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "file")
    assert path.read_bytes() == b"old"
    assert len(os.listdir()) == 1 + clean_up_fails  # nothing left, where it can be removed


def test_two_writers_at_once_never_mix(path):
    with atomic_write("file") as first:
        first.write(b"fir")
        first.flush()
        with atomic_write("file") as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
        first.write(b"st")
    assert path.read_bytes() == b"first" and os.listdir() == ["file"]


@pytest.mark.parametrize("target", ["elsewhere/target", "elsewhere/new"])
def test_a_symbolic_link_is_followed_and_its_target_replaced(path, target):
    Path("elsewhere").mkdir()
    path.replace("elsewhere/target")
    Path("link").symlink_to(target)
    with atomic_write("link") as file:
        file.write(b"new")
    assert Path("link").is_symlink() and Path(target).read_bytes() == b"new"
    assert sorted(os.listdir()) == ["elsewhere", "link"]
    assert len(os.listdir("elsewhere")) == 1 + target.endswith("new")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_devices_and_named_pipes_are_written_to_and_stay_what_they_are(path):
    Path("link").symlink_to(os.devnull)
    os.mkfifo("pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append(Path("pipe").read_bytes()))
    reader.start()
    for name in (os.devnull, "link", "pipe"):
        with atomic_write(name, "w") as file:
            file.write("through")
    reader.join()
    assert received == [b"through"] and stat.S_ISFIFO(os.stat("pipe").st_mode)
    assert not Path(os.devnull).is_file() and sorted(os.listdir()) == ["file", "link", "pipe"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of Unix")
def test_permissions_follow_the_umask(path):
    before = os.umask(0o027)
    try:
        with atomic_write("new"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("new").st_mode) == 0o640


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_full_disk_is_an_oserror_also_in_the_middle_of_a_checkpoint(path, size):
    with pytest.raises(OSError) as caught:
        save_file("/dev/full", {"weight": torch.zeros(size)})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")


def test_a_file_that_cannot_be_replaced_is_written_in_place(path, monkeypatch):
    def replace(source, target):
        raise OSError(errno.EBUSY, "Device or resource busy", target)

    monkeypatch.setattr(os, "replace", replace)  # as for a file that is mounted
    with atomic_write("file") as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and os.listdir() == ["file"]


# ------------------------------------------------------------------------------ errors in one line

class Failure(InputError):
    status = 1


@pytest.mark.parametrize("error, status, expected", [
    (InputError("two\nlines and \x1b[31m colour"), 2, "two lines and ?[31m colour"),
    (Failure("it went wrong"), 1, "it went wrong"),
    (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), 2, "a.txt: No such file; "),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
    (OSError("no number"), 2, "no number"),
    (MemoryError(), 1, "out of memory; "),
    (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried\nMore"), 1, "out of memory; "),
    (None, 1, "out of memory; see Troubleshooting in README.md"),
    (KeyboardInterrupt(), 130, "interrupted"),
], ids=repr)
def test_what_a_user_can_mend_is_one_line_and_a_status(capsys, error, status, expected):
    def main(argv):
        torch.empty(1 if error else 2**60)
        raise error

    found, _, (said,) = run([], capsys, main)
    assert found == status and said.startswith(f"test_utils.py: {expected}")


@pytest.mark.parametrize("error", [
    ValueError("a defect"), RuntimeError("CUDA error: an illegal memory access was encountered"),
    UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range")], ids=repr)
def test_a_defect_keeps_its_traceback(error):
    with pytest.raises(type(error)) as caught:
        run_program(Mock(side_effect=error))
    assert caught.value is error


@pytest.mark.parametrize("stdout", [None, StringIO(), TextIOWrapper(BytesIO(), "ascii")],
                         ids=["closed", "a notebook's", "an ASCII terminal's"])
def test_any_standard_output_will_do_and_what_it_cannot_show_is_escaped(
        place, monkeypatch, stdout):
    monkeypatch.setattr(sys, "stdout", stdout)
    assert run_program(run_llama.main, command("generate", prompt="é 🎬")) == 0
    if isinstance(stdout, TextIOWrapper):
        assert rb"\xe9 \U0001f3ac" in stdout.buffer.getvalue()


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="there is no /proc/self/mem")
def test_an_error_in_the_middle_of_a_file_names_it(place, capsys):
    status, _, (said,) = run(command("finetune", train="/proc/self/mem"), capsys)
    assert status == 2 and said.startswith("run_llama.py: /proc/self/mem: ")


def test_a_package_that_cannot_be_imported_is_reported_before_the_work(
        place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    assert "sklearn" in refused(command("lora"), capsys)


# ------------------------------------------------------------------------- programs in processes

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
    assert re.fullmatch("run_llama.py: interrupted.*--resume\n", said)
    assert not [path for path in contents() if path.endswith(".part")]


def test_the_program_works_without_docstrings_and_assertions(place):
    for argv, expected in ((["--help"], "usage: "), (command("generate"), "args: ")):
        done = subprocess.run([sys.executable, "-OO", ROOT / "run_llama.py", *argv], text=True,
                              capture_output=True)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(expected)


def test_programs_without_tensors_do_not_wait_for_pytorch():
    program = ("import sys, corpus, prepare_submit; corpus.main(['--count', '1']); "
               "assert 'torch' not in sys.modules")
    path = os.pathsep.join([str(ROOT), str(ROOT / "demo")])
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path},
                   check=True)


# ---------------------------------------------------------------------------------------- progress

@pytest.mark.parametrize("seconds, lines", [(1, 0), (60, 20)])
def test_into_a_log_progress_is_a_line_every_three_minutes(capsys, monkeypatch, seconds, lines):
    """Sixty batches, of a second or a minute each."""
    monkeypatch.setattr(tqdm.std, "time", clock := Mock(return_value=0))

    def batches():
        for batch in range(60):
            clock.return_value += seconds
            yield batch

    assert list(progress(batches(), "title")) == list(range(60))
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("title: ") == lines


def test_on_a_terminal_progress_is_a_bar_that_goes_away(capsys, monkeypatch):
    terminal = StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress([1, 2, 3], "title")) == [1, 2, 3]
    assert "title" in terminal.getvalue() and "3/3" not in terminal.getvalue().split("\r")[-1]
    assert capsys.readouterr().out == ""


# -------------------------------------------------------------------------------------- portability

UNIX_ONLY = re.compile(
    r"\b(?:(?:import|from) (?:curses|fcntl|grp|pty|pwd|resource|syslog|termios|tty)"
    r"|os\.(?:fork|killpg|mkfifo|nice|uname|sysconf|statvfs|sendfile|wait|sched_\w+|f?chown|lockf"
    r"|[gs]et(?:e?[ug]id|p?gid|pgrp|sid|priority)|register_at_fork|WNOHANG"
    r"|O_(?:DIRECTORY|NOFOLLOW|CLOEXEC|TMPFILE))"
    r"|signal\.(?:SIG(?!ABRT|BREAK|FPE|ILL|INT|SEGV|TERM|_DFL|_IGN)\w+|alarm|pause|pthread_\w+"
    r"|setitimer|sigwait)|from (?:os|signal) import)\b|preexec_fn=|pass_fds=")


# To limit foreign code, where the system is known to be Unix.
ALLOWED = {"prepare_submit.py": ["preexec_fn=", "os.killpg", "signal.SIGKILL", "import resource"]}


def test_programs_use_nothing_that_only_unix_has():
    programs = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("*.py")}
    assert "run_llama.py" in programs
    for name, text in programs.items():
        assert UNIX_ONLY.findall(text) == ALLOWED.get(name, []), name
