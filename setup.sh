#!/usr/bin/env bash
# Makes this folder ready to use: a Python environment, then the official files. See --help.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail

PINS=(
    "torch==2.13.0"
    "numpy==2.2.6; python_version < '3.11'"
    "numpy==2.3.5; python_version >= '3.11'"
    "sentencepiece==0.2.3"
    "tqdm==4.67.1"
    "scikit-learn==1.7.2"
)
CPU_INDEX="https://download.pytorch.org/whl/cpu"
UNFINISHED=".venv/setup-unfinished" # there while .venv is being made

usage() {
    cat <<'HELP'
usage: bash setup.sh [--cpu] [--tests] [--require-official] [COMMAND [ARG ...]]

Uses the Python at hand if it has the five packages, else makes .venv and installs them there.
Then fetches the official files (tokenizer, checkpoint, data) that are not here yet.
What is already right is left as it is, so running this again is quick and changes nothing.

  --cpu               install PyTorch's CPU build, where that is another one (Linux on x86-64)
  --tests             the environment must have the test tools too
  --require-official  exit with status 1 where an official file is missing or wrong
  COMMAND [ARG ...]   then run this in the environment, for example
                      bash setup.sh python run_llama.py --option generate

MINI_LLAMA_MIRROR, a folder or URL laid out as this folder, is asked for the files first.
HELP
}

die() {
    printf 'setup.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

parse_options() {
    cpu=false tests=false require_official=false
    while [ $# -gt 0 ]; do
        case "$1" in
            --cpu) cpu=true ;;
            --tests) tests=true ;;
            --require-official) require_official=true ;;
            --help | -h) usage; exit 0 ;;
            -*) die "unknown option $1; bash setup.sh --help lists them" 2 ;;
            *) break ;;
        esac
        shift
    done
    COMMAND=("$@")
}

enter_folder() {
    case "${MINI_LLAMA_MIRROR:-}" in
        '' | /* | *://*) ;;
        *) export MINI_LLAMA_MIRROR="$PWD/$MINI_LLAMA_MIRROR" ;;
    esac
    called_from=$PWD
    unset CDPATH
    cd "$(dirname "$0")"
    # An active .venv of this folder is judged as .venv, since it may be half-made.
    if [ -n "${VIRTUAL_ENV:-}" ] && [ "$VIRTUAL_ENV" -ef .venv ]; then
        PATH=${PATH//"$VIRTUAL_ENV/bin:"/}
        unset VIRTUAL_ENV
    fi
    [ -w . ] || die "cannot write in $PWD: make the folder writable or use a copy of it"
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

find_python() {
    for base in ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} \
        python3 python python3.13 python3.12 python3.11 python3.10 python3.14; do
        if is_new_enough "$base"; then return; fi
    done
    die "needs Python 3.10 or newer on PATH; found $(python3 --version 2>/dev/null || echo none)"
}

# Lets one set-up at a time work here. The lock belongs to the open file 9, which this shell shares
# with the Python that asks for it, so it lasts until the shell closes the file or ends.
lock_folder() {
    exec 9<"$(basename "$0")"
    "$base" -c '
import fcntl, signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("another set-up is at work in this folder: waiting for it", flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    pass  # a file system without locks
' || exit 1
}

# Looks for all of them first, which is quick, then imports them, since a package that an
# interrupted installation left can be found and does not work. The path without its first entry
# keeps the modules of this folder out.
has_packages() {
    local modules="torch numpy sentencepiece tqdm sklearn"
    if $tests; then modules="$modules pytest xdist hypothesis scipy ruff"; fi
    # shellcheck disable=SC2086 # the names are separate words
    "$1" -c '
import importlib.util, sys
sys.path = sys.path[1:]
missing = [name for name in sys.argv[1:] if not importlib.util.find_spec(name)]
if missing:
    sys.exit("not installed: " + ", ".join(missing))
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        sys.exit(f"{name} does not work: {error}")' $modules
}

choose_environment() {
    for python in ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} python3 python; do
        if is_new_enough "$python" && has_packages "$python" >/dev/null 2>&1; then return; fi
    done
    python=.venv/bin/python
    if [ ! -e "$UNFINISHED" ] && is_new_enough "$python" && has_packages "$python" >/dev/null 2>&1
    then return; fi
    make_environment
}

make_environment() {
    if $tests && [ ! -f tests/requirements.txt ]; then
        die "--tests: no tests/requirements.txt in $PWD; a submission folder has no tests"
    fi
    # What an interrupted run left, or an environment whose Python is gone, is worth nothing; to
    # any other the packages are added.
    if [ -e "$UNFINISHED" ] || ! is_new_enough "$python"; then start_environment; fi
    printf 'installing PyTorch and what goes with it into .venv: this takes a few minutes\n'
    install_packages
    has_packages "$python" || die "the packages in .venv do not work"
    rm -f "$UNFINISHED"
}

start_environment() {
    "$base" -c 'import ensurepip, venv' 2>/dev/null || die "this Python cannot make environments; \
install its venv package (Debian, Ubuntu: apt install python3-venv) and run setup.sh again"
    rm -rf .venv
    mkdir .venv
    : >"$UNFINISHED"
    "$base" -m venv .venv
}

install_packages() {
    local log wanted
    if [ -f requirements.txt ]; then wanted=(-r requirements.txt); else wanted=("${PINS[@]}"); fi
    if $tests; then wanted+=(-r tests/requirements.txt); fi
    if $cpu && [ "$(uname -sm)" = "Linux x86_64" ]; then
        pip_install --timeout 10 --retries 1 --no-deps --index-url "$CPU_INDEX" "${PINS[0]}" \
            >/dev/null 2>&1 ||
            printf "PyTorch's CPU index cannot be reached: installing the ordinary build\n"
    fi
    log=$(pip_install "${wanted[@]}" 2>&1) || die "pip could not install the packages \
(they have builds for Python 3.10 to 3.14; this is $("$python" --version)):
$log"
}

pip_install() {
    "$python" -m pip install --quiet --no-input --no-user --disable-pip-version-check "$@"
}

fetch_official_files() {
    "$python" - "$require_official" <<'PYTHON'
"""Fetch the official files that are not here, each whole or not at all; touch no other file."""

import http.client
import os
import queue
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from glob import glob
from hashlib import sha256
from pathlib import Path
from textwrap import fill
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

COURSE = ("https://raw.githubusercontent.com/cmu-l3/anlp-fall2025-hw1/"
          "36578d4c79d791b06ccd0fc6d0ade3d937d5f450/")
LLAMA2C = ("https://raw.githubusercontent.com/karpathy/llama2.c/"
           "350e04fe35433e6d2941dce5a1f53308f87058eb/")
MODEL = ["https://www.cs.cmu.edu/~vijayv/stories42M.pt",
         "https://huggingface.co/karpathy/tinyllamas/resolve/main/stories42M.pt"]

# Path, bytes, SHA-256, sources; to a source that ends in / the path is added.
OFFICIAL = [
    ("tokenizer.model", 499723,
     "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347", [COURSE, LLAMA2C]),
    ("sanity_check.data", 290294,
     "94f5f19530f4bdffe7502d44004f3ac6334cf0f97059c82e1705196fea027a44", [COURSE]),
    ("data/sst-train.txt", 936994,
     "7aeac81f2a387f2ce7fab98ed8f40ef85cc9c8ad11bcbb63b122e95665cb1f35", [COURSE]),
    ("data/sst-dev.txt", 121643,
     "11963c76cd073e68006da0390620aadf5a4b8f775e2f900e92a50b3002e39b9b", [COURSE]),
    ("data/sst-test.txt", 242474,
     "bdcc8352d37bdc82113e4a4dd887b824144201539d5a1e49be566232d306a4ba", [COURSE]),
    ("data/sst-label-mapping.json", 49,
     "831e6914e25d9b9eb56ff9095b3f035bdaf1b9568d385a70ef481c82af0382b3", [COURSE]),
    ("data/cfimdb-train.txt", 1629241,
     "278e200499d1d68a1a9d80e3947a2203cc97130632d8a53f2b9c11de9cb6c699", [COURSE]),
    ("data/cfimdb-dev.txt", 239671,
     "b38f0c095c4624e85927116728140e96d0221969b34146f65eae5b5bb24752b8", [COURSE]),
    ("data/cfimdb-test.txt", 465946,
     "8ad2f6da7bfb0e8fc36cf89eda47c574cc9c35d6347e665f31bc904d9ecfe0a7", [COURSE]),
    ("data/cfimdb-label-mapping.json", 16,
     "afeac43f5a5fe8758469078418519df4c8503c2e30e2fcf6c61464fce3d44a36", [COURSE]),
    ("stories42M.pt", None, None, MODEL),  # verified by use, see model_problem
]
LARGEST = 500_000_000  # bytes, for a file whose size is not known
CONNECT_SECONDS, READ_SECONDS = 5, 15
PAUSES = (0, 1, 2, 4)  # seconds before each request for one file from one source
CHUNK = 1 << 16
INDENT = " " * 6
VERIFIED = ".stories42M.pt.sha256"  # the sum of the checkpoint that passed the sanity check


class File(NamedTuple):
    path: str
    size: int | None
    sha256: str | None
    sources: list[str]


class NotFetched(Exception):
    """Why one source does not give a file."""


unreachable: dict[str, str] = {}  # host: why; it is not asked again


def main(require_official: bool) -> int:
    problems, missing, here = [], [], 0
    for file in (File(*row) for row in OFFICIAL):
        if os.path.lexists(file.path):
            here += 1
            if problem := what_is_wrong(file, file.path):
                problems.append(f"{file.path}: {problem}; it is not the official file but left "
                                "as it is: move it away and run setup.sh again")
        elif not fetched(file, problems):
            missing.append(file)
    print(f"official files: {here} here, {len(OFFICIAL) - here - len(missing)} fetched, "
          f"{len(missing)} missing")
    for line in problems + [f"{host}: {why}" for host, why in unreachable.items()]:
        print(f"  {line}")
    if missing:
        print_what_to_do(missing)
    return int(require_official and bool(missing or problems))


def print_what_to_do(missing: list[File]) -> None:
    print(f"To add them by hand, put each where this list says, in {os.getcwd()}\n"
          "(or set MINI_LLAMA_MIRROR to a folder or URL that has them so, and run setup.sh again):")
    for source in dict.fromkeys(file.sources[0] for file in missing):
        paths = ", ".join(file.path for file in missing if file.sources[0] == source)
        print(f"  from {source}",
              fill(paths, 100, initial_indent=INDENT, subsequent_indent=INDENT), sep="\n")
    if os.path.isfile("demo/stories.pt"):
        print("Until then the embedded default in demo/ is in use: all works, on small data.")


def fetched(file: File, problems: list[str]) -> bool:
    """Put `file` in its place from the first source that gives it whole, or say why none did."""
    for source in mirrors() + file.sources:
        url = url_of(file, source)
        host = host_of(url)
        if host in unreachable:
            continue
        try:
            fetch(file, url, host)
            return True
        except (NotFetched, OSError) as error:
            # That a host cannot be reached is said once; a mirror may lack a file.
            if host not in unreachable and not isinstance(error, FileNotFoundError):
                problems.append(f"{file.path}: {host}: {error}")
    return False


def mirrors() -> list[str]:
    """MINI_LLAMA_MIRROR as a URL to which paths can be added."""
    mirror = os.environ.get("MINI_LLAMA_MIRROR", "")
    if mirror and "://" not in mirror:
        if not os.path.isdir(mirror):
            unreachable["mirror"] = f"no folder {mirror}"
        mirror = Path(mirror).absolute().as_uri()
    return [mirror.rstrip("/") + "/"] if mirror else []


def url_of(file: File, source: str) -> str:
    return source + quote(file.path) if source.endswith("/") else source


def host_of(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2] or "mirror"


def fetch(file: File, url: str, host: str) -> None:
    """Download beside the place, verify, rename; afresh once if an earlier start was the fault.

    Each source has a file of its own for what has arrived: two sources of one file may serve
    different bytes, as those of the checkpoint do.
    """
    os.makedirs(os.path.dirname(file.path) or ".", exist_ok=True)
    part = f"{file.path}.{host.replace(':', '-')}.part"
    for _ in range(2):
        resumed = download(file, url, part)
        problem = what_is_wrong(file, part)
        if not problem:
            os.replace(part, file.path)
            for leftover in glob(f"{file.path}.*.part"):
                os.unlink(leftover)
            return
        reject(file, part)
        if not resumed:
            break
    raise NotFetched(f"it serves something else: {problem}")


def reject(file: File, part: str) -> None:
    """Remove what cannot be the file; keep a checkpoint, which may be worth a look."""
    if file.sha256:
        os.unlink(part)
    else:
        os.replace(part, f"{file.path}.rejected")


def download(file: File, url: str, part: str) -> bool:
    """Make `part` whole, in several requests where the connection is cut.

    Returns:
        whether a part of it was there before some request.
    Raises:
        NotFetched: the source cannot be reached, does not have it, or was cut too often.
    """
    resumed = False
    for pause in PAUSES:
        time.sleep(pause)
        start = os.path.getsize(part) if os.path.exists(part) else 0
        if file.size and start > file.size:
            os.unlink(part)
            start = 0
        resumed = resumed or start > 0
        if start == file.size or receive(file, url, part, start):
            return resumed
    raise NotFetched(f"the connection was cut {len(PAUSES)} times; what has arrived is kept: "
                     "run setup.sh again to go on from there")


def receive(file: File, url: str, part: str, start: int) -> bool:
    """Make one request for the bytes from `start` on; return whether `part` is whole now."""
    try:
        response = connect(url, start)
    except HTTPError as error:
        if error.code != 416:
            raise NotFetched(f"{error.code} {error.reason}") from None
        whole = error.headers.get("Content-Range") == f"bytes */{start}"
        if not whole:
            os.unlink(part)
        return whole
    with response, open(part, "ab") as out:
        if not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
            out.truncate(start := 0)  # the server sends all of it, asked for a range or not
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else file.size
        with tqdm(desc=file.path, total=total, initial=start, unit="B", unit_scale=True,
                  leave=False, disable=None) as bar:
            for chunk in chunks(response, (file.size or LARGEST) + 1 - start):
                bar.update(out.write(chunk))
    return total is None or os.path.getsize(part) >= min(total, file.size or LARGEST)


def chunks(response: http.client.HTTPResponse, most: int) -> Iterator[bytes]:
    """What arrives, up to `most` bytes; a cut connection is an early end."""
    while most > 0:
        try:
            chunk = response.read(min(CHUNK, most))
        except (OSError, http.client.HTTPException):
            return
        if not chunk:
            return
        most -= len(chunk)
        yield chunk


def connect(url: str, start: int) -> http.client.HTTPResponse:
    """Ask for the bytes of `url` from `start` on, in a thread: urlopen's own time-out covers
    neither the look-up of the name nor several addresses and redirections together.

    Raises:
        HTTPError: the server's answer is an error.
        FileNotFoundError: the mirror is a folder without this file.
        NotFetched: the server cannot be reached; it is not asked again for another file.
    """
    answer: queue.Queue = queue.Queue()
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})

    def ask() -> None:
        try:
            answer.put(urlopen(request, timeout=READ_SECONDS, context=certificates()))
        except (OSError, http.client.HTTPException, ValueError) as error:
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        result = answer.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        result = TimeoutError(f"no answer in {CONNECT_SECONDS} seconds")
    if not isinstance(result, Exception):
        return result
    if url.startswith("file:"):
        raise FileNotFoundError(f"{url}: no such file")
    if not isinstance(result, HTTPError):
        unreachable[host_of(url)] = f"cannot be reached ({getattr(result, 'reason', result)})"
        raise NotFetched("cannot be reached")
    raise result


def certificates() -> ssl.SSLContext:
    """The system's root certificates and pip's: python.org's Python for macOS comes without any."""
    context = ssl.create_default_context()
    try:
        from pip._vendor import certifi
        context.load_verify_locations(certifi.where())
    except (ImportError, OSError):
        pass
    return context


def what_is_wrong(file: File, path: str) -> str | None:
    """How the file at `path` differs from the official one; None if it does not."""
    if not os.path.isfile(path):
        return "not a file"
    if file.size is None:
        return model_problem(path)
    if (size := os.path.getsize(path)) != file.size:
        return f"{size if size < file.size else 'more'} bytes instead of {file.size}"
    return None if sum_of(path) == file.sha256 else "another SHA-256 sum"


def sum_of(path: str) -> str:
    digest = sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def model_problem(path: str) -> str | None:
    """Why `path` cannot be the official checkpoint: it does not load or fails the sanity check.

    The sum of a checkpoint that passed is kept, so that the next run need not do this again.
    """
    line = f"{sum_of(path)}  stories42M.pt\n"
    if os.path.isfile(VERIFIED) and Path(VERIFIED).read_text(encoding="utf-8") == line:
        return None
    print(f"verifying {path}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for module in glob("*.py"):
            shutil.copy(module, folder)
        os.symlink(os.path.abspath(path), f"{folder}/stories42M.pt")
        load = "from llama import load_pretrained; load_pretrained('stories42M.pt')"
        problem = failure(["-c", load], folder)
        if problem or not os.path.isfile("sanity_check.data"):
            return problem and f"does not load: {problem}"
        os.symlink(os.path.abspath("sanity_check.data"), f"{folder}/sanity_check.data")
        problem = failure(["sanity_check.py"], folder)
    if not problem:
        Path(VERIFIED).write_text(line, encoding="utf-8")
    return problem and f"fails the sanity check: {problem}"


def failure(arguments: list[str], folder: str) -> str | None:
    """Run Python in `folder`; the last line it wrote if it failed."""
    run = subprocess.run([sys.executable, *arguments], cwd=folder, check=False, text=True,
                         errors="replace", stdin=subprocess.DEVNULL, capture_output=True)
    lines = (run.stdout + run.stderr).strip().splitlines() or [f"exit status {run.returncode}"]
    return lines[-1] if run.returncode else None


try:
    sys.exit(main(sys.argv[1] == "true"))
except KeyboardInterrupt:
    sys.exit("\nstopped; what has arrived is kept: run setup.sh again to go on")
PYTHON
}

say_what_next() {
    local go=""
    if [ "$PWD" != "$called_from" ]; then go="cd $(printf '%q' "$PWD") && "; fi
    printf 'Next: %s%s run_llama.py --option generate\n' "$go" "$python"
    if $tests; then printf ' and: %s%s -m pytest\n' "$go" "$python"; fi
}

# Runs COMMAND in place of this shell. Its `python` is the environment's even where the folder on
# PATH only has a python3.
run_command() {
    local executable
    executable=$("$python" -c 'import sys; print(sys.executable)')
    PATH="$(dirname "$executable"):$PATH"
    export PATH
    exec 9<&-
    if [ "$1" = python ] || [ "$1" = python3 ]; then
        shift
        exec "$executable" "$@"
    fi
    exec "$@"
}

parse_options "$@"
enter_folder
find_python
lock_folder
choose_environment
printf 'environment: %s (%s)\n' "$python" "$("$python" --version)"
fetch_official_files
if [ ${#COMMAND[@]} -gt 0 ]; then run_command "${COMMAND[@]}"; fi
say_what_next
