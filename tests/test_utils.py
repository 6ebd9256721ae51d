"""Atomic writes, progress, and code that runs on every platform."""

import ast
import errno
import os
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

needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")


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


def test_a_device_is_written_to_and_stays_one(path):
    Path("link").symlink_to(os.devnull)
    for name in (os.devnull, "link"):
        with atomic_write(name) as file:
            file.write(b"gone")
    assert not Path(os.devnull).is_file() and sorted(os.listdir()) == ["file", "link"]


@needs_fifo
def test_a_named_pipe_is_written_to_and_stays_one(path):
    os.mkfifo("pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append(Path("pipe").read_bytes()))
    reader.start()
    with atomic_write("pipe", "w") as file:
        file.write("through")
    reader.join()
    assert received == [b"through"] and stat.S_ISFIFO(os.stat("pipe").st_mode)


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


@needs_full
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
UNIX_ONLY = {
    *"crypt curses fcntl grp posix pty pwd readline resource syslog termios tty".split(),
    *(f"os.{name}" for name in """chown fchmod fchown fdatasync fork forkpty getegid geteuid getgid
        getloadavg getpgid getpgrp getpriority getsid getuid killpg lockf mkfifo mknod nice openpty
        pread pwrite register_at_fork sched_getaffinity sendfile setgid setpgid setpriority setsid
        setuid statvfs sync sysconf uname wait wait3 wait4 waitid WIFEXITED WNOHANG O_DIRECTORY
        O_NOFOLLOW O_CLOEXEC O_TMPFILE""".split()),
    *(f"signal.{name}" for name in """SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP
        SIGTSTP SIGUSR1 SIGUSR2 alarm pause pthread_kill pthread_sigmask setitimer sigwait
        """.split()),
    "preexec_fn=", "pass_fds="}


def used_names(tree: ast.AST):
    """Modules, `module.attribute`s and `keyword=`s that a program mentions, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0], node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}", node.lineno
        elif isinstance(node, ast.Call):
            yield from ((f"{keyword.arg}=", node.lineno) for keyword in node.keywords)


def opened_as_text(call: ast.Call) -> bool:
    """Whether a call opens text without naming its encoding; `**text` counts as naming it."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(
        call.func, "id", "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    is_named = "encoding" in keywords or None in keywords
    if function in ("read_text", "write_text"):
        return not is_named
    if function in ("open", "NamedTemporaryFile", "TemporaryFile", "fdopen"):
        values = [ast.unparse(value) for value in (*call.args, *keywords.values())]
        is_binary = any(mode in values for mode in ("'rb'", "'wb'", "'ab'", "'xb'", "'r+b'"))
        return not is_named and not is_binary
    return not is_named and not {"text", "universal_newlines"}.isdisjoint(keywords)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_use_nothing_that_only_unix_has_and_name_the_encoding_of_text(name):
    tree = ast.parse((ROOT / f"{name}.py").read_bytes())
    found = [f"line {line}: {used}" for used, line in used_names(tree) if used in UNIX_ONLY]
    found += [f"line {node.lineno}: text without encoding" for node in ast.walk(tree)
              if isinstance(node, ast.Call) and opened_as_text(node)]
    assert not found
