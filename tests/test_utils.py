"""Atomic writes, progress, and code that runs on every platform."""

import errno
import os
import re
import stat
import sys
import threading
from io import StringIO
from pathlib import Path

import pytest
import torch

import utils
from runs import ROOT
from utils import atomic_write, progress, save_file


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
@pytest.mark.parametrize("mask,mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(path, mask, mode):
    before = os.umask(mask)
    try:
        with atomic_write("new"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("new").st_mode) == mode


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_full_disk_is_an_oserror_also_in_the_middle_of_a_checkpoint(path, size):
    with pytest.raises(OSError) as caught:
        save_file("/dev/full", {"weight": torch.zeros(size)})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")


# ---------------------------------------------------------------------------------------- progress

@pytest.mark.parametrize("seconds,expected", [
    (0, "title: 1 of 3 batches\ntitle: 2 of 3 batches\ntitle: 3 of 3 batches\n"), (10**9, "")])
def test_into_a_log_progress_is_a_line_now_and_then(capsys, monkeypatch, seconds, expected):
    monkeypatch.setattr(utils, "LOG_SECONDS", seconds)
    assert list(progress([1, 2, 3], "title")) == [1, 2, 3]
    assert capsys.readouterr() == (expected, "")


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


def test_programs_use_nothing_that_only_unix_has():
    programs = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("*.py")}
    assert len(programs) == 13
    for name, text in programs.items():
        assert not UNIX_ONLY.findall(text), name
