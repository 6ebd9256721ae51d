"""setup.sh, run in copies of the folder, with local stand-ins for everything on the network."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import ROOT

# Two official files that are short enough to stand here, and an empty zip.
SST, CHECKPOINT = "data/sst-label-mapping.json", "stories42M.pt"
OFFICIAL = {SST: b'["awful", "bad", "average", "good", "excellent"]\n',
            "data/cfimdb-label-mapping.json": b'["bad", "good"]\n',
            CHECKPOINT: b"PK\5\6" + bytes(18)}
SETUP = {"setup.sh": (ROOT / "setup.sh").read_bytes()}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Without sanity_check.data, so that any zip is a checkpoint."""
    return write(tmp_path / "fresh folder", SETUP | {"sanity_check.py": b"raise SystemExit(1)"})


def set_up(folder: Path, *arguments: str, cwd: Path | None = None, **variables: object):
    """Run setup.sh, from the folder's parent, in the environment of these tests."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "https_proxy": "http://127.0.0.1:1",  # where nobody listens, so that official hosts refuse
        "no_proxy": "127.0.0.1", "MINI_LLAMA_MIRROR": "", "PYTHONPATH": "",
    } | {name: str(value) for name, value in variables.items()}
    return subprocess.run(["bash", folder / "setup.sh", *arguments], cwd=cwd or folder.parent,
                          env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, errors="replace", check=False)


def test_the_sums_are_those_of_the_official_files(folder, assets):
    run = set_up(folder, MINI_LLAMA_MIRROR=os.path.relpath(assets, folder.parent))
    assert "9 of 10 are here" in run.stdout or "10 of 10 are here" in run.stdout
    for path in (folder / "tokenizer.model", *folder.glob("data/*")):
        assert path.read_bytes() == (assets / path.relative_to(folder)).read_bytes()


def test_files_come_from_a_web_server_and_only_once(folder, tmp_path):
    handler = partial(SimpleHTTPRequestHandler, directory=write(tmp_path / "site", OFFICIAL))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        first, second = (set_up(folder, MINI_LLAMA_MIRROR=f"http://127.0.0.1:{server.server_port}/")
                         for _ in range(2))
        server.shutdown()
    assert (first.returncode, first.stderr) == (0, "") and "3 of 10 are here" in first.stdout
    assert f"{CHECKPOINT} is not verified: sanity_check.data is missing" in second.stdout
    for path, content in OFFICIAL.items():
        assert f"fetching {path} from" in first.stdout and (folder / path).read_bytes() == content
        assert f"fetching {path} from" not in second.stdout
    (folder / SST).unlink()
    no_url = set_up(folder, MINI_LLAMA_MIRROR="https://[bad")
    assert (no_url.returncode, no_url.stderr) == (0, "") and "2 of 10 are here" in no_url.stdout


def test_without_network_it_says_what_is_missing_and_goes_on_where_it_may(folder):
    """The mirror never answers, and the official hosts refuse; each is asked once."""
    write(folder, {"demo/stories.pt": b""})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror = f"http://127.0.0.1:{silent.getsockname()[1]}"
        run = set_up(folder, "printf", "the command", MINI_LLAMA_MIRROR=mirror)
    for host in ("127.0.0.1", "raw.githubusercontent.com", "www.cs.cmu.edu", "huggingface.co"):
        assert run.stdout.count(f"from {host}\n") == 1
    assert "0 of 10 are here" in run.stdout and "demo/ take their place" in run.stdout
    assert f"{CHECKPOINT} is at https://www.cs.cmu.edu/~vijayv/" in run.stdout
    assert run.returncode == 0 and run.stdout.endswith("\nthe command")


def test_a_wrong_download_is_never_put_in_place_and_a_wrong_file_left_alone(folder, tmp_path):
    """With the real sanity check, and the embedded model in place of stories42M."""
    for path in (*ROOT.glob("*.py"), ROOT / "demo/sanity_check.data"):
        shutil.copy(path, folder)
    model = (ROOT / "demo/stories.pt").read_bytes()
    flipped = model[:100_000] + bytes([model[100_000] ^ 1]) + model[100_001:]
    mirror = write(tmp_path / "mirror", OFFICIAL | {SST: b"<html>", CHECKPOINT: flipped})
    run = set_up(folder, MINI_LLAMA_MIRROR=mirror)
    assert "invalid hash value" in run.stdout and "1 of 10 are here" in run.stdout
    assert not (folder / SST).exists() and not (folder / CHECKPOINT).exists()

    write(folder, {SST: b"mine"})
    write(mirror, {CHECKPOINT: model})
    # Where CDPATH is set, cd prints the folder.
    run = set_up(folder, "--require-official", "true", MINI_LLAMA_MIRROR="mirror", CDPATH=tmp_path)
    assert f"wrong, but left as it is: {SST}: not the official file" in run.stdout
    assert run.returncode == 1 and (folder / SST).read_bytes() == b"mine"
    assert (folder / CHECKPOINT).read_bytes() == model


def test_a_checkpoint_that_ends_early_is_said_to_be_incomplete(folder):
    write(folder, {CHECKPOINT: b"PK\3\4" + bytes(300_000)})
    assert f"{CHECKPOINT}: incomplete, probably an interrupted download" in set_up(folder).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may refuse such names")
def test_names_in_another_encoding_are_no_obstacle(folder):
    odd = folder.rename(folder.with_name(os.fsdecode(b"caf\xe9")))
    run = set_up(odd, MINI_LLAMA_MIRROR=odd, LC_ALL="C.UTF-8", PYTHONIOENCODING="ascii")
    assert (run.returncode, run.stderr) == (0, "") and "0 of 10 are here" in run.stdout


def test_a_copy_in_the_spool_folder_of_a_batch_system_sets_up_the_current_folder(folder, tmp_path):
    spool = write(tmp_path / "spool", SETUP)
    assert set_up(spool, "bash", "-c", "pwd", cwd=folder).stdout.endswith(f"\n{folder}\n")
    run = set_up(spool)
    assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 1)
    assert "not the project's folder" in run.stderr and os.listdir(spool) == ["setup.sh"]


def only_python3(tmp_path: Path, command: str) -> Path:
    """A folder for PATH: what set-up needs, and the command as python3."""
    tools = write(tmp_path / "tools", {"python3": f'#!/bin/sh\nexec {command} "$@"\n'.encode()})
    (tools / "python3").chmod(0o755)
    for tool in ("bash", "dirname", "ln", "mkdir", "rm"):
        (tools / tool).symlink_to(shutil.which(tool))
    return tools


def test_a_command_gets_its_arguments_the_folder_and_the_environment(folder, tmp_path):
    """Also where Python is installed as python3 alone, and in a set-up that another one runs."""
    code = "import os, sys; print(sys.prefix, os.getcwd(), sys.argv[1:]); sys.exit(7)"
    run = set_up(folder, "bash", "setup.sh", "python", "-c", code, "two words", "--tests",
                 PATH=only_python3(tmp_path, sys.executable))
    assert run.stdout.endswith(f"\n{sys.prefix} {folder} ['two words', '--tests']\n"), run.stderr
    assert run.returncode == 7


PIP = b"""
import os, sys, sysconfig
assert "--no-user" in sys.argv  # else pip with PIP_USER=1 refuses
if os.environ["PIP_FAILS"] == "True":
    sys.exit(1)
for name in ("numpy", "sentencepiece", "tqdm", "sklearn"):
    os.mkdir(os.path.join(sysconfig.get_path("purelib"), name))
"""
HUB = b"def download_url_to_file(*_, **__): raise OSError('no network')"


def test_an_unfinished_environment_is_made_again_and_a_finished_one_kept(folder, tmp_path):
    """With stand-ins for pip and the packages."""
    stub = write(tmp_path / "stub", {
        "pip/__main__.py": PIP, "pip/__init__.py": b"", "torch/hub.py": HUB})
    standard_library = only_python3(tmp_path, f"{sys._base_executable} -S")
    run = partial(set_up, folder, PATH=standard_library, PYTHONPATH=stub)
    left = folder / ".venv/left"

    failed = run(PIP_FAILS=True)
    assert failed.returncode == 1 and "pip could not install the packages" in failed.stderr
    left.touch()
    made = run("python", "-c", "import sys, sklearn; print(sys.prefix)", PIP_FAILS=False)
    assert made.stdout.endswith(f"\n{folder}/.venv\n"), made.stderr
    assert not left.exists()

    left.touch()
    assert run("--tests", PIP_FAILS=True).returncode == 1
    kept = run()
    assert kept.returncode == 0 and "installing" not in kept.stdout and left.exists()


def test_where_there_is_no_python_and_for_a_wrong_option_the_error_is_one_line(folder, tmp_path):
    run = set_up(folder, PATH=only_python3(tmp_path, "false"))
    assert (run.returncode, run.stderr) == (1, "setup.sh: no Python 3.10 or newer on PATH\n")
    run = set_up(folder, "--gpu")
    assert (run.returncode, len(run.stderr.splitlines())) == (2, 1) and "--gpu" in run.stderr


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git repository")
def test_a_windows_check_out_has_the_same_bytes(tmp_path):
    subprocess.run(["git", "clone", "--quiet", "--depth=1", "--config=core.autocrlf=true",
                    ROOT.as_uri(), tmp_path / "clone"], check=True)
    for path in ("setup.sh", ".ci/run", "demo/reviews2-dev.txt", "README.md"):
        assert b"\r" not in (tmp_path / "clone" / path).read_bytes()
