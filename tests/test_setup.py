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
CHECKPOINT = "stories42M.pt"
OFFICIAL = LABELS | {CHECKPOINT: b"PK\5\6" + bytes(18)}  # an empty zip
# Stands in for the real one, which takes seconds and needs the real checkpoint.
SANITY_CHECK = b"import os, sys; sys.exit(os.path.getsize(sys.argv[1]) != 22)"


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a space in its name, and nothing in it but what set-up needs."""
    return write(tmp_path / "fresh folder", {
        "setup.sh": (ROOT / "setup.sh").read_bytes(), "sanity_check.py": SANITY_CHECK,
        "sanity_check.data": b""})


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return write(tmp_path / "mirror", OFFICIAL)


@pytest.fixture
def set_up(folder: Path) -> Iterator[Callable]:
    """Run setup.sh from elsewhere in the environment of these tests, without official hosts."""
    inherited = {name: value for name, value in os.environ.items()
                 if name not in ("VIRTUAL_ENV", "MINI_LLAMA_MIRROR", "PYTHONPATH")
                 and not name.lower().endswith("_proxy")}
    inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(*arguments: str, script: Path = folder / "setup.sh", cwd: Path = folder.parent,
            **variables: object):
        environment = inherited | {name: str(value) for name, value in variables.items()}
        return subprocess.run(["bash", script, *arguments], cwd=cwd, env=environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", check=False)

    with socket.socket() as bound:  # to a port on which nobody listens
        bound.bind(("127.0.0.1", 0))
        inherited["https_proxy"] = f"http://127.0.0.1:{bound.getsockname()[1]}"
        yield run


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
        first, second = (set_up(MINI_LLAMA_MIRROR=f"http://127.0.0.1:{server.server_port}/")
                         for _ in range(2))
        server.shutdown()
    assert (first.returncode, first.stderr) == (0, "") and "3 of 10 are here" in first.stdout
    for path, content in OFFICIAL.items():
        assert f"fetching {path} from" in first.stdout and (folder / path).read_bytes() == content
        assert f"fetching {path} from" not in second.stdout


def test_without_network_it_says_what_is_missing_and_goes_on_where_it_may(set_up, folder):
    """The mirror never answers, and the official hosts refuse."""
    write(folder, {"demo/stories.pt": b""})
    command = ("python", "-c", "print('the command')")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        run = set_up(*command, MINI_LLAMA_MIRROR=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert run.stdout.count("timed out; 127.0.0.1 is not asked again\n") == 1
    for host in ("raw.githubusercontent.com", "www.cs.cmu.edu", "huggingface.co"):
        assert run.stdout.count(f"refused; {host} is not asked again\n") == 1
    assert "0 of 10 are here" in run.stdout and "demo/ take their place" in run.stdout
    assert "  stories42M.pt from https://www.cs.cmu.edu/~vijayv/stories42M.pt\n" in run.stdout
    assert run.returncode == 0 and run.stdout.endswith("the command\n")
    run = set_up("--require-official", *command)
    assert run.returncode == 1 and "the command" not in run.stdout


def test_a_wrong_download_is_never_put_in_place_and_a_wrong_file_left_alone(
        set_up, folder, mirror):
    """With the real sanity check, and the embedded model in place of stories42M."""
    for path in (*ROOT.glob("*.py"), ROOT / "demo/sanity_check.data"):
        shutil.copy(path, folder)
    model = (ROOT / "demo/stories.pt").read_bytes()
    flipped = model[:100_000] + bytes([model[100_000] ^ 1]) + model[100_001:]
    write(mirror, {SST: b"<html>moved</html>", CHECKPOINT: flipped})
    run = set_up(MINI_LLAMA_MIRROR=mirror)
    assert "  not the official file\n" in run.stdout and "1 of 10 are here" in run.stdout
    assert not [*folder.rglob("sst*"), *folder.rglob("stories*")]

    write(folder, {SST: b"mine"})
    write(mirror, {**LABELS, CHECKPOINT: model})
    # Where CDPATH is set, cd prints the folder.
    run = set_up("--require-official", MINI_LLAMA_MIRROR=mirror.name, CDPATH=mirror.parent)
    assert f"wrong, but left as it is: {SST}: not the official file" in run.stdout
    assert run.returncode == 1 and (folder / SST).read_bytes() == b"mine"
    assert (folder / CHECKPOINT).read_bytes() == model


def test_a_checkpoint_may_be_incomplete_or_have_nothing_to_be_compared_with(set_up, folder):
    (folder / "sanity_check.data").unlink()
    (folder / CHECKPOINT).write_bytes(OFFICIAL[CHECKPOINT])
    run = set_up()
    assert f"{CHECKPOINT} was not checked" in run.stdout and "1 of 10 are here" in run.stdout
    (folder / CHECKPOINT).write_bytes(b"PK\3\4" + bytes(300_000))
    run = set_up()
    assert "0 of 10 are here" in run.stdout
    assert f"{CHECKPOINT}: incomplete, probably an interrupted download: 0.3 MB" in run.stdout


def test_names_in_another_encoding_are_no_obstacle(set_up, folder, mirror):
    try:
        odd = folder.rename(folder.with_name(os.fsdecode(b"caf\xe9")))
    except OSError:
        pytest.skip("this file system refuses such names")
    run = set_up(script=odd / "setup.sh", LC_ALL="C.UTF-8", PYTHONIOENCODING="ascii",
                 MINI_LLAMA_MIRROR=shutil.move(mirror, odd / "mirror"))
    assert run.returncode == 0 and run.stderr == "" and "3 of 10 are here" in run.stdout


def test_a_copy_in_the_spool_folder_of_a_batch_system_sets_up_the_current_folder(
        set_up, folder, tmp_path):
    spool = write(tmp_path / "spool", {"slurm_script": (ROOT / "setup.sh").read_bytes()})
    job = partial(set_up, "bash", "-c", "pwd", script=spool / "slurm_script")
    assert job(cwd=folder).stdout.endswith(f"\n{folder}\n")
    run = job(cwd=tmp_path)
    assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 1)
    assert "not the project's folder" in run.stderr and os.listdir(spool) == ["slurm_script"]


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


HUB = "def download_url_to_file(*_, **__):\n    raise OSError('no network')\n"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH: what set-up needs, and as python3 one with the standard library alone."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "cat", "chmod", "dirname", "env", "mkdir", "mv", "rm", "sh"):
        (tools / tool).symlink_to(shutil.which(tool))
    script(tools / "python3", f'exec "{sys._base_executable}" -S "$@"')
    return tools


def test_a_command_gets_its_arguments_the_folder_and_the_environment(set_up, folder, tools):
    """Also where Python is installed as python3 alone, and in a set-up that another one runs."""
    script(tools / "python3", f'exec "{sys.executable}" "$@"')
    script(folder / "job.sh", "python -c 'import os, sys; print(sys.prefix, os.getcwd(), "
                              "sys.argv[1:])' \"$@\"; exit 7")
    # A PyTorch that is imported at once and downloads nothing.
    stub = write(folder.parent / "stub", {"torch/__init__.py": b"", "torch/hub.py": HUB.encode()})
    run = set_up("bash", "setup.sh", "sh", "job.sh", "two words", "--tests",
                 PATH=tools, PYTHONPATH=stub)
    assert run.stdout.endswith(f"\n{sys.prefix} {folder} ['two words', '--tests']\n"), run.stderr
    assert run.returncode == 7


# Stands in for pip: installs stand-ins for the packages, or fails, or has set-up killed on the way.
PIP = f"""
import os, signal, sys, sysconfig
from pathlib import Path
does, packages = os.environ["PIP_DOES"], Path(sysconfig.get_path("purelib"))
if does == "fail" or "install" not in sys.argv:
    sys.exit(does == "fail")
if "--no-user" not in sys.argv:
    sys.exit("ERROR: Can not perform a '--user' install")  # as pip with PIP_USER=1
for name in ("numpy", "sentencepiece", "tqdm", "sklearn", "torch"):
    (packages / name).mkdir()
    (packages / name / "__init__.py").touch()
(packages / "torch" / "hub.py").write_text({HUB!r})
if does == "die":
    os.kill(os.getppid(), signal.SIGKILL)
"""


def test_an_unfinished_environment_is_made_again_and_a_finished_one_kept(set_up, folder, tools):
    stub = write(folder.parent / "stub", {"pip/__main__.py": PIP.encode(), "pip/__init__.py": b""})
    run = partial(set_up, PATH=tools, PYTHONPATH=stub)
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


def test_where_there_is_no_python_and_for_a_wrong_option_the_error_is_one_line(set_up, tools):
    script(tools / "python3", "exit 1")
    run = set_up(PATH=tools)
    assert (run.returncode, run.stderr) == (1, "setup.sh: no Python 3.10 or newer on PATH\n")
    run = set_up("--gpu")
    assert (run.returncode, len(run.stderr.splitlines())) == (2, 1) and "--gpu" in run.stderr
    assert set_up("--help").stdout.startswith("usage: bash setup.sh")


def test_a_windows_check_out_has_the_same_bytes(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    subprocess.run(["git", "clone", "--quiet", "--depth=1", "--config=core.autocrlf=true",
                    ROOT.as_uri(), tmp_path / "clone"], check=True)
    for path in ("setup.sh", ".ci/run", "demo/reviews2-dev.txt", "README.md"):
        assert b"\r" not in (tmp_path / "clone" / path).read_bytes()
