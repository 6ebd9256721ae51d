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

die() {
    printf 'setup.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

# Set `python` to the first of the commands $2... that is Python 3.10 or newer with the modules $1.
find_python() {
    for python in "${@:2}"; do
        "$python" -c 'import sys; from importlib.util import find_spec
sys.exit(sys.version_info < (3, 10) or not all(map(find_spec, sys.argv[1].split())))' \
            "$1" >/dev/null 2>&1 && return
    done
    return 1
}

make_environment() {
    if ! find_python "" "${VENV[@]}"; then
        find_python "" python3 python py python3.{14..10} || die "no Python 3.10 or newer on PATH"
        "$python" -m venv --clear .venv || die "$python cannot make .venv, see above"
        : >.venv/unfinished
        find_python "" "${VENV[@]}"
    fi
    printf 'installing PyTorch and the other packages into .venv: this takes a few minutes\n'
    # An environment made by uv has no pip.
    "$python" -m pip -V >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null 2>&1 || true
    local install=("$python" -m pip install --quiet --no-user --disable-pip-version-check)
    if $cpu; then
        "${install[@]}" --retries 1 --no-deps "${PACKAGES[0]}" \
            --index-url https://download.pytorch.org/whl/cpu 2>/dev/null ||
            printf 'no CPU build available: installing the default one\n'
    fi
    "${install[@]}" "${PACKAGES[@]}" ||
        die "pip could not install the packages, see above; they exist for Python 3.10 to 3.14"
    rm -f .venv/unfinished
}

cpu=false require_official=false
while [[ ${1:-} == -* ]]; do
    case $1 in
        --cpu) cpu=true ;;
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
for folder in "$(dirname "$0")" .; do
    [ -f "$folder/sanity_check.py" ] && break
done || die "this is not the project's folder; cd to the folder of setup.sh, then start it" 2
cd -P "$folder"
VENV=("$PWD/.venv/bin/python" "$PWD/.venv/Scripts/python.exe") # the latter on Windows
mkdir -p .setup/bin data
trap 'exit 130' INT # pip ends an interrupted installation like a failed one

if [ -e .venv/unfinished ]; then rm -rf .venv; fi
find_python "$MODULES" python python3 "${VENV[@]}" || make_environment
python=$(command -v "$python")
printf 'environment: %s (%s)\n' "$python" "$("$python" -V)"

# Where packets are dropped, the resolver by default waits half a minute for each name.
RES_OPTIONS="timeout:2 attempts:1" "$python" -u - "$require_official" <<'PYTHON'
import os
import shutil
import signal
import socket
import subprocess
import sys
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
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
RAW = "https://raw.githubusercontent.com"
COURSE = f"{RAW}/cmu-l3/anlp-fall2025-hw1/36578d4c79d791b06ccd0fc6d0ade3d937d5f450"
LLAMA2C = f"{RAW}/karpathy/llama2.c/350e04fe35433e6d2941dce5a1f53308f87058eb"
AUTHOR = "https://www.cs.cmu.edu/~vijayv"
SOURCES = [(COURSE, [*SHA256]), (LLAMA2C, ["tokenizer.model"]), (AUTHOR, [CHECKPOINT]),
           ("https://huggingface.co/karpathy/tinyllamas/resolve/main", [CHECKPOINT])]
FILES = [*SHA256, CHECKPOINT]
if mirror := os.environ.get("MINI_LLAMA_MIRROR", "").rstrip("/"):
    SOURCES.insert(0, (mirror, FILES))


def check(path: str, file: str) -> str:
    """What is wrong with `file` as the official file `path`, or nothing."""
    if path in SHA256:
        if sha256(Path(file).read_bytes()).hexdigest() != SHA256[path]:
            return "not the official file"
    elif not is_zipfile(file):  # a zip's table of contents is at its end
        return (f"incomplete, probably an interrupted download: {os.path.getsize(file) / 1e6:.1f} "
                "MB instead of 232 (or llama2.c's 167)")
    elif not os.path.exists("sanity_check.data"):
        print(f"{path} was not checked, because sanity_check.data is missing")
    elif subprocess.run([sys.executable, "sanity_check.py", file]).returncode:
        return "sanity_check.py refuses it, see above"
    return ""


def fetch(source: str, path: str) -> None:
    """Put a file in its place, if the source has the official one."""
    from torch.hub import download_url_to_file  # here, since it takes seconds to import
    part = f".setup/{os.path.basename(path)}"
    if "://" in source:
        download_url_to_file(f"{source}/{path}", part, progress=sys.stderr.isatty())
    else:
        shutil.copyfile(f"{source}/{path}", part)
    if problem := check(path, part):
        print(f"  {problem}")
        os.remove(part)
    else:
        os.replace(part, path)


signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
socket.setdefaulttimeout(5)  # seconds
sys.stdout.reconfigure(errors="backslashreplace")  # for folders with names in other encodings
wrong = {path: problem for path in FILES if os.path.isfile(path) and (problem := check(path, path))}
unreachable = set()
for source, path in ((source, path) for source, paths in SOURCES for path in paths):
    host = urlsplit(source).hostname or source
    if host not in unreachable and not os.path.isfile(path):
        print(f"fetching {path} from {host}")
        try:
            fetch(source, path)
        except (HTTPError, FileNotFoundError) as error:
            print(f"  {error}")
        except (OSError, HTTPException, ValueError) as error:  # the last: no URL
            print(f"  {getattr(error, 'reason', error)}; {host} is not asked again")
            unreachable.add(host)
missing = [path for path in FILES if not os.path.isfile(path)]
print(f"official files: {len(FILES) - len(wrong) - len(missing)} of {len(FILES)} are here")
for path, problem in wrong.items():
    print(f"wrong, but left as it is: {path}: {problem}; move it away and run setup.sh again")
if missing:
    print("missing: download them to these places in this folder, or set MINI_LLAMA_MIRROR")
    for path in missing:
        print(f"  {path} from {COURSE if path in SHA256 else AUTHOR}/{path}")
    if os.path.isfile("demo/stories.pt"):
        print("where the checkpoint or all data are missing, small ones in demo/ take their place")
sys.exit(bool(wrong or missing) and sys.argv[1] == "true")
PYTHON

if [ $# -gt 0 ]; then
    PATH="$(dirname "$python"):$PATH"
    if [ "$(command -v python)" != "$python" ]; then # where it is installed as python3 alone
        printf '#!/usr/bin/env bash\nexec %q "$@"\n' "$python" >.setup/new
        chmod +x .setup/new
        mv -f .setup/new .setup/bin/python # in one step: another command may be starting it
        PATH="$PWD/.setup/bin:$PATH"
    fi
    exec "$@"
fi
printf 'next: bash %q python run_llama.py --option generate\n' "$folder/setup.sh"
