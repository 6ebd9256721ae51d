#!/usr/bin/env bash
# usage: bash setup.sh [--cpu] [--tests] [--require-official] [COMMAND [ARG ...]]
#
# Use the active Python if it has the packages, else make .venv and install them there. Then fetch
# the official files (tokenizer, checkpoint, data) that are missing, first from MINI_LLAMA_MIRROR,
# a folder or URL laid out like this folder. Existing files are checked and never changed.
#
#   --cpu               install the CPU build of PyTorch, on Linux a much smaller download
#   --tests             require the test tools as well
#   --require-official  exit with status 1 if an official file is missing or wrong
#   COMMAND [ARG ...]   then run this in the environment, for example
#                       bash setup.sh python run_llama.py --option generate

[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail

MODULES="torch numpy sentencepiece tqdm sklearn"
PACKAGES=("torch==2.13.0" "sentencepiece==0.2.3" "tqdm==4.67.1" "scikit-learn==1.7.2"
    "numpy==2.2.6; python_version < '3.11'" "numpy==2.3.5; python_version >= '3.11'")

die() { printf 'setup.sh: %s\n' "$1" >&2; exit "${2:-1}"; }

# Set `python` to the first of the commands $2... that is Python 3.10 or newer with the modules $1.
find_python() {
    for python in "${@:2}"; do
        "$python" -c 'from importlib.util import find_spec; from sys import argv, exit, version_info
exit(version_info < (3, 10) or not all(map(find_spec, argv[1].split())))' "$1" && return
    done >/dev/null 2>&1
    return 1
}

cpu_index="" require_official=false
while [[ ${1:-} == -* ]]; do
    case $1 in
        --cpu) cpu_index=https://download.pytorch.org/whl/cpu ;;
        --tests) PACKAGES+=(-r tests/requirements.txt) MODULES+=" pytest xdist scipy ruff" ;;
        --require-official) require_official=true ;;
        --help | -h) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit ;;
        *) die "unknown option $1; bash setup.sh --help lists them" 2 ;;
    esac
    shift
done
unset CDPATH # else cd may print
if [ -d "${MINI_LLAMA_MIRROR:-}" ]; then MINI_LLAMA_MIRROR=$(cd "$MINI_LLAMA_MIRROR" && pwd); fi
# Batch systems run a copy of this file from a folder of their own.
if [ -f "$(dirname "$0")/sanity_check.py" ]; then cd -P "$(dirname "$0")"; fi
[ -f sanity_check.py ] || die "this is not the project's folder; cd there, then start setup.sh" 2
VENV=("$PWD/.venv/bin/python" "$PWD/.venv/Scripts/python.exe") # the latter on Windows
mkdir -p .setup/bin data
trap 'exit 130' INT # pip ends an interrupted installation like a failed one

if [ -e .venv/unfinished ]; then rm -rf .venv; fi
if ! find_python "$MODULES" python python3 "${VENV[@]}"; then
    if ! find_python "" "${VENV[@]}"; then
        find_python "" python3 python py python3.{14..10} || die "no Python 3.10 or newer on PATH"
        "$python" -m venv --clear .venv || die "$python cannot make .venv, see above"
        : >.venv/unfinished
        find_python "" "${VENV[@]}"
    fi
    printf 'installing PyTorch and the other packages into .venv: this takes a few minutes\n'
    "$python" -m ensurepip >/dev/null 2>&1 || true # an environment made by uv has no pip
    pip=("$python" -m pip install --quiet --no-user --disable-pip-version-check)
    if [ "$cpu_index" ]; then
        "${pip[@]}" --retries 1 --no-deps --index-url "$cpu_index" "${PACKAGES[0]}" 2>/dev/null ||
            printf 'no CPU build available: installing the default one\n'
    fi
    "${pip[@]}" "${PACKAGES[@]}" ||
        die "pip could not install the packages, see above; they exist for Python 3.10 to 3.14"
    rm -f .venv/unfinished
fi
python=$(command -v "$python")
printf 'environment: %s (%s)\n' "$python" "$("$python" -V)"

# Where packets are dropped, the resolver by default waits half a minute for each name.
RES_OPTIONS="timeout:2 attempts:1" PYTHONIOENCODING=:backslashreplace \
    "$python" -u - "$require_official" <<'PYTHON'
import os
import signal
import socket
import subprocess
import sys
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from zipfile import is_zipfile

SHA256 = {path: digest for digest, path in map(str.split, """
9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347  tokenizer.model
7aeac81f2a387f2ce7fab98ed8f40ef85cc9c8ad11bcbb63b122e95665cb1f35  data/sst-train.txt
11963c76cd073e68006da0390620aadf5a4b8f775e2f900e92a50b3002e39b9b  data/sst-dev.txt
bdcc8352d37bdc82113e4a4dd887b824144201539d5a1e49be566232d306a4ba  data/sst-test.txt
831e6914e25d9b9eb56ff9095b3f035bdaf1b9568d385a70ef481c82af0382b3  data/sst-label-mapping.json
278e200499d1d68a1a9d80e3947a2203cc97130632d8a53f2b9c11de9cb6c699  data/cfimdb-train.txt
b38f0c095c4624e85927116728140e96d0221969b34146f65eae5b5bb24752b8  data/cfimdb-dev.txt
8ad2f6da7bfb0e8fc36cf89eda47c574cc9c35d6347e665f31bc904d9ecfe0a7  data/cfimdb-test.txt
afeac43f5a5fe8758469078418519df4c8503c2e30e2fcf6c61464fce3d44a36  data/cfimdb-label-mapping.json
""".strip().splitlines())}
CHECKPOINT = "stories42M.pt"  # its SHA-256 is not known; sanity_check.py judges it
FILES = [*SHA256, CHECKPOINT]
RAW = "https://raw.githubusercontent.com"
COURSE = f"{RAW}/cmu-l3/anlp-fall2025-hw1/36578d4c79d791b06ccd0fc6d0ade3d937d5f450"
LLAMA2C = f"{RAW}/karpathy/llama2.c/350e04fe35433e6d2941dce5a1f53308f87058eb"
AUTHOR = "https://www.cs.cmu.edu/~vijayv"
SOURCES = [(COURSE, [*SHA256]), (LLAMA2C, ["tokenizer.model"]), (AUTHOR, [CHECKPOINT]),
           ("https://huggingface.co/karpathy/tinyllamas/resolve/main", [CHECKPOINT])]
if mirror := os.environ.get("MINI_LLAMA_MIRROR", "").rstrip("/"):
    SOURCES.insert(0, (mirror if "://" in mirror else Path(mirror).absolute().as_uri(), FILES))


def check(file: str) -> str:
    """Describe what is wrong with an official file or a checkpoint; "" if nothing is."""
    if file in SHA256:
        right = sha256(Path(file).read_bytes()).hexdigest() == SHA256[file]
        return "" if right else "not the official file"
    # A zip's table of contents is at its end. PyTorch's older format is no zip.
    if not is_zipfile(file) and os.path.getsize(file) < 160e6:
        return "incomplete, probably an interrupted download: its full size is 232 MB (or 167)"
    if not os.path.exists("sanity_check.data"):
        print(f"{file} is not verified: sanity_check.data is missing")
    elif subprocess.run([sys.executable, "sanity_check.py", file]).returncode:
        return "sanity_check.py refuses it, see above"
    return ""


signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
socket.setdefaulttimeout(5)  # seconds
wrong = {path: problem for path in FILES if os.path.isfile(path) and (problem := check(path))}
unreachable = set()
for source, path in ((source, path) for source, paths in SOURCES for path in paths):
    host = source.split("/")[2].partition(":")[0]  # "" for a folder
    if os.path.isfile(path) or host in unreachable:
        continue
    from torch.hub import download_url_to_file  # here, since it takes seconds to import
    print(f"fetching {path} from {host or source}")
    part = f".setup/{os.path.basename(path)}"
    try:
        download_url_to_file(f"{source}/{path}", part, hash_prefix=SHA256.get(path),
                             progress=sys.stderr.isatty())
        if path == CHECKPOINT and (problem := check(part)):
            raise RuntimeError(problem)
        os.replace(part, path)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        print(f"  {error}")
        if not isinstance(error, (HTTPError, RuntimeError)):  # those are about this file alone
            unreachable |= {host} - {""}
missing = [path for path in FILES if not os.path.isfile(path)]
print(f"official files: {len(FILES) - len(wrong) - len(missing)} of {len(FILES)} are here")
for path, problem in wrong.items():
    print(f"wrong, but left as it is: {path}: {problem}; move it away and run setup.sh again")
if missing:
    print(f"missing: {' '.join(missing)}")
    print("download them to these places, or set MINI_LLAMA_MIRROR; "
          f"{CHECKPOINT} is at {AUTHOR}/, all others at {COURSE}/")
    if os.path.isfile("demo/stories.pt"):
        print("where the checkpoint or all data are missing, small ones in demo/ take their place")
sys.exit(bool(wrong or missing) and sys.argv[1] == "true")
PYTHON

if [ $# -gt 0 ]; then
    PATH="$(dirname "$python"):$PATH"
    if [ "$(command -v python)" != "$python" ]; then # where it is installed as python3 alone
        ln -sf "$python" .setup/bin/python
        PATH="$PWD/.setup/bin:$PATH"
    fi
    exec "$@"
fi
printf 'next: bash %q python run_llama.py --option generate\n' "$0"
