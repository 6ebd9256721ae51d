"""setup.sh, run in copies of the folder, with local stand-ins for everything on the network."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import ROOT

# The two official files that are short enough to stand here.
SST, CFIMDB = "data/sst-label-mapping.json", "data/cfimdb-label-mapping.json"
LABELS = {SST: b'["awful", "bad", "average", "good", "excellent"]\n', CFIMDB: b'["bad", "good"]\n'}
# Stands in for the real one, which takes seconds and needs the real checkpoint.
SANITY_CHECK = """
import sys
if open(sys.argv[1], "rb").read() != b"weights":
    sys.exit("FAILED: not these weights")
"""


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a space in its name, and nothing in it but what set-up needs."""
    return write(tmp_path / "fresh folder", {"setup.sh": (ROOT / "setup.sh").read_bytes(),
                                             "sanity_check.py": SANITY_CHECK.encode()})


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return write(tmp_path / "mirror", {**LABELS, "stories42M.pt": b"weights"})


@pytest.fixture
def set_up(folder: Path) -> Iterator[Callable]:
    """Run setup.sh from elsewhere in the environment of these tests, without official hosts."""
    inherited = {name: value for name, value in os.environ.items()
                 if name not in ("VIRTUAL_ENV", "MINI_LLAMA_MIRROR", "PYTHONPATH")
                 and not name.lower().endswith("_proxy")}
    inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(*arguments: str, where: Path = folder, **variables: object):
        environment = inherited | {name: str(value) for name, value in variables.items()}
        return subprocess.run(["bash", where / "setup.sh", *arguments], cwd=folder.parent,
                              env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", check=False)

    with socket.socket() as bound:  # to a port on which nobody listens
        bound.bind(("127.0.0.1", 0))
        inherited["https_proxy"] = f"http://127.0.0.1:{bound.getsockname()[1]}"
        yield run


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Modification time and content of every file."""
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in folder.rglob("*") if path.is_file()}


# ----------------------------------------------------------------------------------- official files

def test_the_sums_are_those_of_the_official_files(set_up, folder, assets):
    run = set_up(MINI_LLAMA_MIRROR=os.path.relpath(assets, folder.parent))
    assert "9 of 10 are here" in run.stdout or "10 of 10 are here" in run.stdout
    for path in ("tokenizer.model", SST, CFIMDB, *(
            f"data/{name}-{split}.txt" for name in ("sst", "cfimdb")
            for split in ("train", "dev", "test"))):
        assert (folder / path).read_bytes() == (assets / path).read_bytes()


def test_files_come_from_a_web_server_and_only_once(set_up, folder, mirror):
    handler = partial(SimpleHTTPRequestHandler, directory=mirror)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        first, before = set_up(MINI_LLAMA_MIRROR=url), snapshot(folder)
        second = set_up(MINI_LLAMA_MIRROR=url)
        server.shutdown()
    assert (first.returncode, first.stderr) == (0, "") and "3 of 10 are here" in first.stdout
    for path, content in (LABELS | {"stories42M.pt": b"weights"}).items():
        assert f"fetching {path} from" in first.stdout and before[path][1] == content
        assert f"fetching {path} from" not in second.stdout
    assert snapshot(folder) == before


def test_without_network_it_says_what_is_missing_and_goes_on_where_it_may(set_up, folder):
    command = ("python", "-c", "print('the command')")
    run = set_up(*command)
    assert run.returncode == 0 and run.stderr == ""
    for host in ("raw.githubusercontent.com", "www.cs.cmu.edu", "huggingface.co"):
        assert run.stdout.count(f"refused; {host} is not asked again") == 1
    assert "0 of 10 are here" in run.stdout
    assert "  from https://www.cs.cmu.edu/~vijayv/\n    stories42M.pt\n" in run.stdout
    assert "demo/" not in run.stdout and run.stdout.endswith("the command\n")
    write(folder, {"demo/stories.pt": b""})
    run = set_up("--require-official", *command)
    assert "data in demo/ take their place" in run.stdout
    assert run.returncode == 1 and "the command" not in run.stdout


def test_a_host_that_never_answers_is_asked_once(set_up):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        run = set_up(MINI_LLAMA_MIRROR=f"http://{host}")
    assert run.stdout.count(f"from {host}\n  timed out; {host} is not asked again\n") == 1
    assert run.stdout.count(host) == 2 and run.returncode == 0


def test_a_wrong_download_is_never_put_in_place_and_a_wrong_file_left_alone(
        set_up, folder, mirror):
    wrong = {SST: b"<html>moved</html>", CFIMDB: LABELS[CFIMDB][:-1], "stories42M.pt": b"weight"}
    write(mirror, wrong)
    run = set_up(MINI_LLAMA_MIRROR=mirror)
    assert all(f"  {path} is not the official file\n" in run.stdout for path in wrong)
    assert "0 of 10 are here" in run.stdout
    assert not set(wrong.values()) & {content for _, content in snapshot(folder).values()}

    write(folder, {SST: b"mine", "stories42M.pt": b"mine"})
    run = set_up(MINI_LLAMA_MIRROR=mirror)
    assert f"move them away and run setup.sh again: {SST} stories42M.pt\n" in run.stdout
    assert run.returncode == 0 and (folder / "stories42M.pt").read_bytes() == b"mine"
    write(mirror, LABELS)
    assert set_up("--require-official", MINI_LLAMA_MIRROR=mirror).returncode == 1


def test_the_checkpoint_is_judged_by_the_real_sanity_check(set_up, folder, mirror):
    """With the embedded model in place of stories42M."""
    for path in (*ROOT.glob("*.py"), ROOT / "demo/sanity_check.data"):
        shutil.copy(path, folder)
    whole = (ROOT / "demo/stories.pt").read_bytes()
    write(mirror, {"stories42M.pt": whole[:-1000]})
    run = set_up(MINI_LLAMA_MIRROR=mirror)
    assert "stories42M.pt is not the official file\n" in run.stdout
    assert "sanity_check.py: nothing was compared" in run.stderr
    assert not (folder / "stories42M.pt").exists()
    write(mirror, {"stories42M.pt": whole})
    set_up(MINI_LLAMA_MIRROR=mirror)
    assert (folder / "stories42M.pt").read_bytes() == whole


@pytest.mark.parametrize("name,locale", [(b"caf\xe9", "C.UTF-8"), ("caf\xe9".encode(), "C")])
def test_names_in_another_encoding_are_no_obstacle(set_up, folder, mirror, name, locale):
    try:
        odd = folder.rename(folder.with_name(os.fsdecode(name)))
    except OSError:
        pytest.skip("this file system refuses such names")
    run = set_up(where=odd, LC_ALL=locale, PYTHONIOENCODING="ascii",
                 MINI_LLAMA_MIRROR=shutil.move(mirror, odd / "mirror"))
    assert run.returncode == 0 and run.stderr == "" and "3 of 10 are here" in run.stdout


# -------------------------------------------------------------------------------------- environment

def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


BARE_PYTHON = f'exec "{sys._base_executable}" -S "$@"'  # has only the standard library
HUB = "def download_url_to_file(*_, **__):\n    raise OSError('no network')\n"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH: what set-up needs, and a bare Python as python3."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "cat", "chmod", "dirname", "env", "mkdir", "mv", "rm", "sh"):
        (tools / tool).symlink_to(shutil.which(tool))
    script(tools / "python3", BARE_PYTHON)
    return tools


@pytest.mark.parametrize("before", [[], ["bash", "setup.sh"]])
def test_a_command_gets_its_arguments_the_folder_and_the_environment(
        set_up, folder, tools, before):
    """Also where Python is installed as python3 alone, and in a set-up that another one runs."""
    script(tools / "python3", f'exec "{sys.executable}" "$@"')
    script(folder / "job.sh", "python -c 'import os, sys; print(sys.prefix, os.getcwd(), "
                              "sys.argv[1:])' \"$@\"; exit 7")
    # A PyTorch that is imported at once and downloads nothing.
    stub = write(folder.parent / "stub", {"torch/__init__.py": b"", "torch/hub.py": HUB.encode()})
    run = set_up(*before, "sh", "job.sh", "two words", "--tests", PATH=tools, PYTHONPATH=stub)
    assert run.stdout.endswith(f"\n{sys.prefix} {folder} ['two words', '--tests']\n"), run.stderr
    assert run.returncode == 7


# Stands in for pip: installs stand-ins for the packages, or fails, or has set-up killed on the way.
PIP = """
import os, signal, sys, sysconfig
from pathlib import Path
does, packages = os.environ["PIP_DOES"], Path(sysconfig.get_path("purelib"))
if does == "fail" or "install" not in sys.argv:
    sys.exit(does == "fail")
for name in ("numpy", "sentencepiece", "tqdm", "sklearn", "torch"):
    (packages / name).mkdir()
    (packages / name / "__init__.py").touch()
(packages / "torch" / "hub.py").write_text(HUB)
if does == "die":
    os.kill(os.getppid(), signal.SIGKILL)
"""


def test_an_unfinished_environment_is_made_again_and_a_finished_one_kept(set_up, folder, tools):
    stub = f"HUB = {HUB!r}\n{PIP}"
    path = write(folder.parent / "stub", {"pip/__main__.py": stub.encode(), "pip/__init__.py": b""})
    run = partial(set_up, PATH=tools, PYTHONPATH=path)
    left = folder / ".venv/left"

    assert run(PIP_DOES="die").returncode == -signal.SIGKILL
    left.touch()
    made = run("python", "-c", "import sys, sklearn; print(sys.prefix)", PIP_DOES="install")
    assert made.stdout.endswith(f"\n{folder}/.venv\n"), made.stderr
    assert not left.exists()

    left.touch()
    failed = run("--tests", PIP_DOES="fail")
    assert failed.returncode == 1
    assert failed.stderr.startswith("setup.sh: pip could not install the packages")
    kept = run()
    assert kept.returncode == 0 and "installing" not in kept.stdout and left.exists()


@pytest.mark.parametrize("python3,said", [
    ('echo Python 3.9; [ "$1" = -V ]', "no Python 3.10 or newer on PATH; python3 is Python 3.9"),
    (f'[ "$2" != venv ] || {{ echo No ensurepip.; exit 1; }}; {BARE_PYTHON}',
     "python3 cannot make .venv; on Debian and Ubuntu, apt install python3-venv (No ensurepip.)"),
])
def test_a_python_that_will_not_do_is_named_in_one_line(set_up, tools, python3, said):
    script(tools / "python3", python3)
    run = set_up(PATH=tools)
    assert (run.returncode, run.stderr) == (1, f"setup.sh: {said}\n")


@pytest.mark.parametrize("arguments,environment,said", [
    (["--gpu"], {}, "unknown option --gpu; bash setup.sh --help lists them"),
    ([], {"MINI_LLAMA_MIRROR": "/no/such"}, "MINI_LLAMA_MIRROR: no folder /no/such"),
])
def test_a_mistaken_call_is_refused_in_one_line(set_up, arguments, environment, said):
    run = set_up(*arguments, **environment)
    assert (run.returncode, run.stderr) == (2, f"setup.sh: {said}\n")
    assert set_up("--help").stdout.startswith("usage: bash setup.sh")


def test_a_windows_check_out_has_the_same_bytes(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    subprocess.run(["git", "clone", "--quiet", "--depth=1", "--config=core.autocrlf=true",
                    ROOT.as_uri(), tmp_path / "clone"], check=True)
    for path in ("setup.sh", ".ci/run", "demo/reviews2-dev.txt", "README.md"):
        assert b"\r" not in (tmp_path / "clone" / path).read_bytes()
