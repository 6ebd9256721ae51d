"""Atomic writes, progress, and code that runs on every platform."""

import ast
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

PROGRAMS = ("run_llama", "base_llama", "llama", "rope", "lora", "classifier", "optimizer", "config",
            "tokenizer", "utils", "sanity_check", "prepare_submit", "reproduce")
UNIX_ONLY = {name: words.split() for name, words in {
    "import": "crypt curses fcntl grp posix pty pwd readline resource syslog termios tty",
    "os": """chown fchmod fchown fdatasync fork forkpty getegid geteuid getgid getloadavg getpgid
        getpgrp getpriority getsid getuid killpg lockf mkfifo mknod nice openpty pread pwrite
        register_at_fork sched_getaffinity sendfile setgid setpgid setpriority setsid setuid statvfs
        sync sysconf uname wait wait3 wait4 waitid WIFEXITED WNOHANG O_DIRECTORY O_NOFOLLOW
        O_CLOEXEC O_TMPFILE""",
    "signal": """SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1
        SIGUSR2 alarm pause pthread_kill pthread_sigmask setitimer sigwait"""}.items()}
UNPORTABLE = re.compile(
    rf"\b(?:(?:import|from) (?:{'|'.join(UNIX_ONLY['import'])})|os\.(?:{'|'.join(UNIX_ONLY['os'])})"
    rf"|signal\.(?:{'|'.join(UNIX_ONLY['signal'])})|from (?:os|signal) import)\b"
    "|preexec_fn=|pass_fds=")


def opened_as_text(call: ast.Call) -> bool:
    """Whether a call opens text without naming its encoding; `**text` counts as naming it."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(
        call.func, "id", "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords or None in keywords:
        return False
    if function in ("open", "NamedTemporaryFile", "TemporaryFile", "fdopen"):
        values = [ast.unparse(value) for value in (*call.args, *keywords.values())]
        return not {"'rb'", "'wb'", "'ab'", "'xb'", "'r+b'"}.intersection(values)
    return function in ("read_text", "write_text") or not {
        "text", "universal_newlines"}.isdisjoint(keywords)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_use_nothing_that_only_unix_has_and_name_the_encoding_of_text(name):
    source = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    found = UNPORTABLE.findall(source)
    found += [f"line {node.lineno}: text without encoding" for node in ast.walk(ast.parse(source))
              if isinstance(node, ast.Call) and opened_as_text(node)]
    assert not found
