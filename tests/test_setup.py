"""setup.sh: the official files, fetched from a server of this machine into a copy of the folder."""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from conftest import ROOT

TEXT = b"good ||| a small set of data, longer than one chunk\n" * 20_000
OTHER = b"tokens"
CHECKPOINT = b"weights" * 3_000
# Stand in for the real ones, which need the real checkpoint.
LLAMA = """
from pathlib import Path
def load_pretrained(path):
    weights = Path(path).read_bytes()
    if len(weights) % 7:
        raise ValueError(f"{path}: damaged")
    return weights
"""
SANITY_CHECK = """
from pathlib import Path
from llama import load_pretrained
size = len(load_pretrained("stories42M.pt"))
if Path("sanity_check.data").read_text() != str(size):
    raise SystemExit(f"size is {size}")
"""


@dataclass
class Server:
    """What the server serves, how it misbehaves, and what it was asked for."""

    url: str
    files: dict[str, bytes]
    cut_after: int | None = None  # bytes of each answer before the connection is cut
    cuts_left: int = 0
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        state, path, asked = self.server.state, unquote(self.path)[1:], self.headers["Range"]
        state.asked.append((path, asked))
        if path not in state.files:
            return self.send_error(404)
        body = state.files[path]
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and state.ranges else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(self.cut(body[start:]))

    def cut(self, body: bytes) -> bytes:
        state = self.server.state
        if state.cuts_left == 0:
            return body
        state.cuts_left -= 1
        return body[:state.cut_after]

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{http.server_port}/"
    http.state = Server(url, {"data/set.txt": TEXT, "tokens.model": OTHER})
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield http.state
    http.shutdown()
    http.server_close()


@pytest.fixture
def closed_port() -> str:
    """The URL of a port where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a space in its name and only setup.sh in it, as in a submission."""
    folder = tmp_path / "fresh folder"
    folder.mkdir()
    shutil.copy(ROOT / "setup.sh", folder)
    return folder


def official(folder: Path, rows: list[tuple]) -> None:
    """Replace the table of official files in the copy of setup.sh."""
    script = (folder / "setup.sh").read_text(encoding="utf-8")
    table = f"OFFICIAL = {rows!r}\n"
    script, count = re.subn(r"^OFFICIAL = .*?\]\n(?=LARGEST)", lambda _: table, script,
                            flags=re.DOTALL | re.MULTILINE)
    assert count == 1
    (folder / "setup.sh").write_text(script, encoding="utf-8")


def row(path: str, body: bytes, *sources: str) -> tuple:
    return path, len(body), hashlib.sha256(body).hexdigest(), list(sources)


def two_files(folder: Path, *sources: str) -> None:
    official(folder, [row("data/set.txt", TEXT, *sources), row("tokens.model", OTHER, *sources)])


@pytest.fixture(autouse=True)
def empty_packages(tmp_path, monkeypatch) -> None:
    """Empty modules under the packages' names, since importing PyTorch takes seconds."""
    folder = tmp_path / "empty packages"
    folder.mkdir()
    for package in ("torch", "numpy", "sentencepiece", "sklearn"):
        (folder / f"{package}.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(folder))


def set_up(folder: Path, *arguments: str, mirror: str = "",
           path: str | None = None) -> subprocess.CompletedProcess:
    """Run setup.sh from elsewhere, with the Python of these tests as the active one."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("VIRTUAL_ENV", "MINI_LLAMA_MIRROR")
                   and not name.lower().endswith("_proxy")}
    environment["PATH"] = path or f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if mirror:
        environment["MINI_LLAMA_MIRROR"] = mirror
    return subprocess.run(["bash", str(folder / "setup.sh"), *arguments], cwd=folder.parent,
                          env=environment, capture_output=True, text=True, timeout=120, check=False)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in folder.rglob("*") if path.is_file()}


def part_name(server: Server, path: str) -> str:
    """Where setup.sh keeps what has arrived of a file."""
    return f"{path}.{server.url.split('/')[2].replace(':', '-')}.part"


def names(folder: Path) -> set[str]:
    return set(snapshot(folder)) - {"setup.sh"}


def test_fetches_every_file_and_says_which_command_is_next(server, folder):
    two_files(folder, server.url)
    run = set_up(folder)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (folder / "data" / "set.txt").read_bytes() == TEXT
    assert (folder / "tokens.model").read_bytes() == OTHER
    assert names(folder) == {"data/set.txt", "tokens.model"}
    assert "0 here, 2 fetched, 0 missing" in run.stdout
    assert run.stdout.splitlines()[-1].endswith("run_llama.py --option generate")
    assert run.stderr == ""


def test_second_run_downloads_nothing_and_changes_nothing(server, folder):
    two_files(folder, server.url)
    set_up(folder)
    before = snapshot(folder)
    server.asked.clear()
    run = set_up(folder)
    assert "2 here, 0 fetched, 0 missing" in run.stdout
    assert server.asked == []
    assert snapshot(folder) == before


def test_goes_on_with_a_range_where_the_connection_was_cut(server, folder):
    two_files(folder, server.url)
    server.cut_after, server.cuts_left = 300_000, 2
    run = set_up(folder)
    assert (folder / "data" / "set.txt").read_bytes() == TEXT, run.stdout
    assert server.asked[:3] == [("data/set.txt", None), ("data/set.txt", "bytes=300000-"),
                                ("data/set.txt", "bytes=600000-")]


def test_next_run_goes_on_where_one_was_cut_too_often(server, folder):
    two_files(folder, server.url)
    server.cut_after, server.cuts_left = 100_000, 4
    run = set_up(folder)
    assert "cut 4 times" in run.stdout
    assert not (folder / "data" / "set.txt").exists()
    server.asked.clear()
    run = set_up(folder)
    assert server.asked == [("data/set.txt", "bytes=400000-")]
    assert (folder / "data" / "set.txt").read_bytes() == TEXT


def test_server_that_ignores_ranges_sends_all_of_it_again(server, folder):
    two_files(folder, server.url)
    server.cut_after, server.cuts_left, server.ranges = 300_000, 1, False
    run = set_up(folder)
    assert server.asked == [("data/set.txt", None), ("data/set.txt", "bytes=300000-"),
                            ("tokens.model", None)]
    assert (folder / "data" / "set.txt").read_bytes() == TEXT, run.stdout


@pytest.mark.parametrize("left", [b"something else", b"x" * len(TEXT), b"x" * (len(TEXT) + 1)],
                         ids=["shorter", "as long", "longer"])
def test_part_of_something_else_is_replaced_by_a_fresh_download(server, folder, left):
    two_files(folder, server.url)
    (folder / "data").mkdir()
    (folder / part_name(server, "data/set.txt")).write_bytes(left)
    run = set_up(folder)
    assert (folder / "data" / "set.txt").read_bytes() == TEXT, run.stdout
    assert names(folder) == {"data/set.txt", "tokens.model"}


@pytest.mark.parametrize("served", [b"x" * len(TEXT), TEXT[:-1], TEXT + b"x"],
                         ids=["other bytes", "too short", "too long"])
def test_wrong_bytes_are_never_put_in_place(server, folder, served):
    two_files(folder, server.url)
    server.files["data/set.txt"] = served
    run = set_up(folder)
    assert run.returncode == 0
    assert names(folder) == {"tokens.model"}
    assert "data/set.txt: 127.0.0.1" in run.stdout and "it serves something else" in run.stdout
    assert set_up(folder, "--require-official").returncode == 1


def test_wrong_bytes_of_one_source_are_made_good_by_the_next(server, folder):
    two_files(folder, server.url + "old/", server.url)
    server.files["old/data/set.txt"] = TEXT.replace(b"good", b"evil")
    set_up(folder)
    assert (folder / "data" / "set.txt").read_bytes() == TEXT


def test_without_network_gives_up_in_seconds_and_says_what_goes_where(folder, closed_port):
    two_files(folder, closed_port)
    began = time.monotonic()
    run = set_up(folder)
    assert time.monotonic() - began < 15
    assert run.returncode == 0
    assert "0 here, 0 fetched, 2 missing" in run.stdout
    assert run.stdout.count("cannot be reached") == 1
    assert f"  from {closed_port}\n      data/set.txt, tokens.model\n" in run.stdout
    assert f"in {folder}\n" in run.stdout
    assert "Traceback" not in run.stdout + run.stderr
    assert "embedded default" not in run.stdout


def test_server_that_never_answers_is_given_up_and_asked_only_once(folder):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        two_files(folder, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        began = time.monotonic()
        run = set_up(folder)
    assert time.monotonic() - began < 25
    assert run.stdout.count("no answer in 5 seconds") == 1


def test_embedded_default_is_named_where_there_is_one(folder, closed_port):
    two_files(folder, closed_port)
    (folder / "demo").mkdir()
    (folder / "demo" / "stories.pt").touch()
    assert "embedded default in demo/ is in use" in set_up(folder).stdout


def test_missing_files_are_an_error_where_they_are_required(folder, closed_port):
    two_files(folder, closed_port)
    assert set_up(folder, "--require-official", "python", "-c", "print('ran')").returncode == 1


def test_mirror_folder_comes_first_and_the_source_fills_its_gaps(server, folder):
    two_files(folder, server.url)
    mirror = folder.parent / "my mirror"
    (mirror / "data").mkdir(parents=True)
    (mirror / "data" / "set.txt").write_bytes(TEXT)
    run = set_up(folder, mirror="my mirror")
    assert "0 here, 2 fetched, 0 missing" in run.stdout
    assert server.asked == [("tokens.model", None)]
    assert "cannot" not in run.stdout and "mirror: " not in run.stdout


def test_mirror_url_comes_first(server, folder, closed_port):
    two_files(folder, closed_port)
    server.files = {f"copy/{path}": body for path, body in server.files.items()}
    assert "2 fetched, 0 missing" in set_up(folder, mirror=f"{server.url}copy").stdout


def test_mirror_that_is_not_there_is_reported(server, folder):
    two_files(folder, server.url)
    run = set_up(folder, mirror="/no/such folder")
    assert "no folder /no/such folder" in run.stdout and "2 fetched" in run.stdout


def test_wrong_file_in_place_is_reported_and_left_alone(server, folder):
    two_files(folder, server.url)
    (folder / "tokens.model").write_bytes(b"token!")
    run = set_up(folder)
    assert run.returncode == 0
    assert "tokens.model: another SHA-256 sum" in run.stdout
    assert (folder / "tokens.model").read_bytes() == b"token!"
    assert "tokens.model" not in [path for path, _ in server.asked]
    assert set_up(folder, "--require-official").returncode == 1


def test_two_at_once_fetch_each_file_once(server, folder):
    two_files(folder, server.url)
    server.cut_after, server.cuts_left = 300_000, 1
    runs: list[subprocess.CompletedProcess] = []
    threads = [threading.Thread(target=lambda: runs.append(set_up(folder))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.returncode for run in runs] == [0, 0]
    assert [path for path, _ in server.asked] == ["data/set.txt", "data/set.txt", "tokens.model"]
    assert names(folder) == {"data/set.txt", "tokens.model"}


@pytest.fixture
def model(server, folder) -> Server:
    """The server with a checkpoint; in the folder what verifies it."""
    (folder / "llama.py").write_text(LLAMA, encoding="utf-8")
    (folder / "sanity_check.py").write_text(SANITY_CHECK, encoding="utf-8")
    (folder / "sanity_check.data").write_text(str(len(CHECKPOINT)), encoding="utf-8")
    server.files["stories42M.pt"] = CHECKPOINT
    official(folder, [("stories42M.pt", None, None, [f"{server.url}stories42M.pt"])])
    return server


def test_checkpoint_is_in_place_after_the_sanity_check_and_verified_once(model, folder):
    model.cut_after, model.cuts_left = 5_000, 1
    run = set_up(folder)
    assert (folder / "stories42M.pt").read_bytes() == CHECKPOINT, run.stdout
    assert "verifying" in run.stdout
    assert model.asked == [("stories42M.pt", None), ("stories42M.pt", "bytes=5000-")]
    before = snapshot(folder)
    run = set_up(folder)
    assert "verifying" not in run.stdout and "1 here" in run.stdout
    assert snapshot(folder) == before


def test_checkpoint_changed_after_it_was_verified_is_reported(model, folder):
    set_up(folder)
    (folder / "stories42M.pt").write_bytes(CHECKPOINT + b"weights")
    assert f"fails the sanity check: size is {len(CHECKPOINT) + 7}" in set_up(folder).stdout


def test_checkpoint_that_fails_the_sanity_check_is_kept_out_of_place(model, folder):
    (folder / "sanity_check.data").write_text("25", encoding="utf-8")
    run = set_up(folder)
    assert run.returncode == 0
    assert f"fails the sanity check: size is {len(CHECKPOINT)}" in run.stdout
    assert not (folder / "stories42M.pt").exists()
    assert (folder / "stories42M.pt.rejected").read_bytes() == CHECKPOINT
    assert set_up(folder, "--require-official").returncode == 1


def test_second_source_of_the_checkpoint_follows_one_that_does_not_load(model, folder):
    model.files["page"] = b"<html>moved</html>"
    sources = [f"{model.url}page", f"{model.url}stories42M.pt"]
    official(folder, [("stories42M.pt", None, None, sources)])
    run = set_up(folder)
    assert "does not load: ValueError: stories42M.pt: damaged" in run.stdout
    assert (folder / "stories42M.pt").read_bytes() == CHECKPOINT


def test_checkpoint_that_arrived_whole_before_is_not_downloaded_again(model, folder):
    (folder / part_name(model, "stories42M.pt")).write_bytes(CHECKPOINT)
    run = set_up(folder)
    assert model.asked == [("stories42M.pt", f"bytes={len(CHECKPOINT)}-")]
    assert (folder / "stories42M.pt").read_bytes() == CHECKPOINT, run.stdout


def test_wrong_checkpoint_in_place_is_reported_and_left_alone(model, folder):
    (folder / "stories42M.pt").write_bytes(CHECKPOINT[:-1])
    run = set_up(folder)
    assert "stories42M.pt: does not load" in run.stdout
    assert (folder / "stories42M.pt").read_bytes() == CHECKPOINT[:-1]
    assert model.asked == []


def test_real_checkpoint_loads_with_the_real_modules(server, folder, stories260k, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    for module in ROOT.glob("*.py"):
        shutil.copy(module, folder)
    whole = stories260k.read_bytes()
    server.files |= {"whole.pt": whole, "damaged.pt": whole[:-1000]}
    official(folder, [("stories42M.pt", None, None,
                       [f"{server.url}damaged.pt", f"{server.url}whole.pt"])])
    run = set_up(folder)
    assert run.stdout.count("does not load") == 1
    assert (folder / "stories42M.pt").read_bytes() == whole, run.stdout


def test_command_runs_in_the_folder_with_the_environments_python(folder):
    official(folder, [])
    run = set_up(folder, "python", "-c", "import os, sys; print(sys.prefix, os.getcwd(), sys.argv)",
                 "two words", "--tests")
    assert run.stdout.splitlines()[-1] == (
        f"{sys.prefix} {folder.resolve()} ['-c', 'two words', '--tests']")
    assert set_up(folder, "sh", "-c", "command -v python; exit 7").returncode == 7


def test_python_is_found_where_path_only_has_a_python3(folder, tmp_path, monkeypatch):
    official(folder, [])
    bare = Path(bare_path(tmp_path))
    (bare / "python3").unlink()
    (bare / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(
        [os.environ["PYTHONPATH"], sysconfig.get_path("purelib")]))
    run = set_up(folder, "python", "-c", "print('it ran')", path=str(bare))
    assert run.stdout.splitlines()[-1] == "it ran", run.stderr


def test_half_made_environment_is_not_trusted(folder, tmp_path):
    """The mark of an interrupted run outweighs packages that can be imported.

    No Python on this PATH can make another environment: that it stops shows that it tried to.
    """
    official(folder, [])
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    bare = bare_path(tmp_path)
    assert set_up(folder, path=bare).stdout.startswith("environment: .venv/bin/python")
    (folder / ".venv" / "setup-unfinished").touch()
    run = set_up(folder, path=bare)
    assert run.returncode == 1
    assert "apt install python3-venv" in run.stderr and len(run.stderr.splitlines()) == 1


def bare_path(tmp_path: Path) -> str:
    """A PATH whose only Python has no third-party packages and cannot make environments."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "basename", "uname", "mkdir", "rm", "cat", "sh"):
        (tools / tool).symlink_to(shutil.which(tool))
    (tools / "ensurepip.py").write_text("raise ImportError\n", encoding="utf-8")
    python = tools / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tools}" exec "{sys._base_executable}" -S "$@"\n',
                      encoding="utf-8")
    python.chmod(0o755)
    return str(tools)


def test_old_python_is_one_clear_line(folder, tmp_path):
    bare = Path(bare_path(tmp_path))
    (bare / "python3").write_text('#!/bin/sh\necho Python 3.9.1\n[ "$1" = --version ]\n')
    run = set_up(folder, path=str(bare))
    assert run.returncode == 1
    assert run.stderr == "setup.sh: needs Python 3.10 or newer on PATH; found Python 3.9.1\n"


def test_unknown_option_is_one_clear_line(folder):
    run = set_up(folder, "--gpu")
    assert run.returncode == 2
    assert "unknown option --gpu" in run.stderr and len(run.stderr.splitlines()) == 1
    assert set_up(folder, "--help").stdout.startswith("usage: bash setup.sh")


def test_table_in_the_script_is_that_of_the_official_files(assets):
    script = (ROOT / "setup.sh").read_text(encoding="utf-8")
    rows = re.findall(r'\("(\S+)", (\d+),\n +"(\w{64})"', script)
    assert len(rows) == 10
    assert rows == [(path, str(len(body)), hashlib.sha256(body).hexdigest()) for path, body in
                    ((path, (assets / path).read_bytes()) for path, _, _ in rows)]


def test_pins_in_the_script_are_those_of_the_requirements():
    script = (ROOT / "setup.sh").read_text(encoding="utf-8")
    pins = re.search(r"PINS=\(\n(.*?)\n\)", script, re.DOTALL)[1]
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert re.findall(r'"(.*)"', pins) == required.splitlines()


def test_shell_scripts_are_well_formed():
    for script in (ROOT / "setup.sh", ROOT / ".ci" / "run"):
        subprocess.run(["bash", "-n", str(script)], check=True)
        if shutil.which("shellcheck"):
            subprocess.run(["shellcheck", str(script)], check=True)


def test_program_in_the_script_is_clean(tmp_path):
    script = (ROOT / "setup.sh").read_text(encoding="utf-8")
    program = tmp_path / "fetch.py"
    program.write_text(re.search(r"<<'PYTHON'\n(.*?)^PYTHON$", script, re.DOTALL | re.MULTILINE)[1],
                       encoding="utf-8")
    check = [sys.executable, "-m", "ruff", "check", "--line-length", "100", "--target-version",
             "py310", "--no-cache", str(program)]
    assert subprocess.run(check, check=False).returncode == 0
