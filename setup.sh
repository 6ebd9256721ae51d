#!/usr/bin/env bash
# usage: bash setup.sh [--cpu] [--tests] [--require-official] [COMMAND [ARG ...]]
#
# Use the active Python if it has the packages, else make .venv and install them there. Then fetch
# the official files (tokenizer, checkpoint, data) that are missing, first from MINI_LLAMA_MIRROR,
# a folder or URL laid out like this folder. Files that are here are checked and never changed.
#
#   --cpu               install the CPU build of PyTorch, on Linux a much smaller download
#   --tests             require the test tools as well
#   --require-official  exit with status 1 if an official file is missing or wrong
#   COMMAND [ARG ...]   then run this in the environment, for example
#                       bash setup.sh python run_llama.py --option generate

[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail

PINS=("torch==2.13.0" "sentencepiece==0.2.3" "tqdm==4.67.1" "scikit-learn==1.7.2"
    "numpy==2.2.6; python_version < '3.11'" "numpy==2.3.5; python_version >= '3.11'")
UNFINISHED=.setup/unfinished # exists while .venv is being worked on

die() {
    printf 'setup.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

# Set `python` to the first of the commands $2... that is Python 3.10 or newer with the modules $1.
find_python() {
    for python in "${@:2}"; do
        if "$python" -c 'import sys; from importlib.util import find_spec
sys.exit(sys.version_info < (3, 10) or not all(map(find_spec, sys.argv[1].split())))' \
            "$1" >/dev/null 2>&1; then return; fi
    done
    return 1
}

choose_environment() {
    local modules="torch numpy sentencepiece tqdm sklearn"
    if $tests; then modules="$modules pytest xdist hypothesis scipy ruff"; fi
    if [ -e "$UNFINISHED" ]; then rm -rf .venv; rm "$UNFINISHED"; fi
    find_python "$modules" python python3 "${VENV[@]}" || make_environment
}

make_environment() {
    local new=false
    : >"$UNFINISHED"
    find_python "" "${VENV[@]}" || { new=true && create_venv; }
    printf 'installing PyTorch and what goes with it into .venv: this takes a few minutes\n'
    if ! install_packages; then
        $new || rm "$UNFINISHED" # what was there before still works
        die "pip could not install the packages, see above; they exist for Python 3.10 to 3.14"
    fi
    rm "$UNFINISHED"
}

create_venv() {
    local log
    find_python "" python3 python py python3.{13,12,11,10,14} ||
        die "no Python 3.10 or newer on PATH; python3 is $(python3 -V 2>/dev/null || echo missing)"
    log=$("$python" -m venv --clear .venv 2>&1) || die "$python cannot make .venv; on Debian and \
Ubuntu, apt install python3-venv (${log##*$'\n'})"
    find_python "" "${VENV[@]}" || die "the Python in .venv does not start"
}

install_packages() {
    local pip=("$python" -m pip install --quiet --no-input --no-user --disable-pip-version-check)
    # An environment made by uv has no pip.
    "$python" -m pip -V >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null 2>&1 || true
    if $cpu; then
        "${pip[@]}" --retries 1 --no-deps --index-url https://download.pytorch.org/whl/cpu \
            "${PINS[0]}" 2>/dev/null || printf 'no CPU build to be had: installing the usual one\n'
    fi
    if $tests; then PINS+=(-r tests/requirements.txt); fi
    "${pip[@]}" "${PINS[@]}"
}

fetch_official_files() {
    rm -rf .setup/downloads # what an interrupted download has left
    mkdir .setup/downloads
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

RAW = "https://raw.githubusercontent.com/"
COURSE = RAW + "cmu-l3/anlp-fall2025-hw1/36578d4c79d791b06ccd0fc6d0ade3d937d5f450/"
LLAMA2C = RAW + "karpathy/llama2.c/350e04fe35433e6d2941dce5a1f53308f87058eb/"
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
SOURCES = {path: [COURSE + path] for path in SHA256}
SOURCES["tokenizer.model"].append(LLAMA2C + "tokenizer.model")
SOURCES["stories42M.pt"] = [  # its SHA-256 is not known; sanity_check.py judges it
    "https://www.cs.cmu.edu/~vijayv/stories42M.pt",
    "https://huggingface.co/karpathy/tinyllamas/resolve/main/stories42M.pt"]
MIRROR = os.environ.get("MINI_LLAMA_MIRROR", "").rstrip("/")
given_up = set()  # hosts that are not asked again


def main(require_official: bool) -> bool:
    """Check the official files that are here and fetch the others; return whether that failed."""
    here = [path for path in SOURCES if os.path.lexists(path)]
    wrong = [path for path in here if not is_official(path, path)]
    missing = [path for path in SOURCES if path not in here and not fetch(path)]
    print(f"official files: {len(SOURCES) - len(wrong + missing)} of {len(SOURCES)} are here")
    if wrong:
        print(f"left as they are; move them away and run setup.sh again: {' '.join(wrong)}")
    if missing:
        print("missing: download them to these places in this folder, or set MINI_LLAMA_MIRROR")
        for url in dict.fromkeys(SOURCES[path][0].removesuffix(path) for path in missing):
            names = [path for path in missing if SOURCES[path][0] == url + path]
            print(f"  from {url}", *names, sep="\n    ")
        if os.path.isfile("demo/stories.pt"):
            print("until then, the small model and data in demo/ take their place")
    return require_official and bool(wrong or missing)


def fetch(path: str) -> bool:
    """Put a file in its place if one of its sources has it."""
    from torch.hub import download_url_to_file  # here, since it takes seconds to import
    part = f".setup/downloads/{os.path.basename(path)}"
    for source in [f"{MIRROR}/{path}"] * bool(MIRROR) + SOURCES[path]:
        host = urlsplit(source).netloc.rpartition("@")[2]
        if host in given_up or not (host or os.path.isfile(source)):
            continue
        print(f"fetching {path} from {host or MIRROR}")
        try:
            if host:
                download_url_to_file(source, part, progress=sys.stderr.isatty())
            else:
                shutil.copyfile(source, part)
        except HTTPError as error:
            print(f"  {error}")
        except (OSError, HTTPException) as error:
            given_up.add(host)
            print(f"  {getattr(error, 'reason', error)}; {host or MIRROR} is not asked again")
        else:
            if is_official(path, part):
                os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
                os.replace(part, path)
                return True
            os.remove(part)
    return False


def is_official(path: str, file: str) -> bool:
    """Check that `file` is the official file for `path`."""
    if path in SHA256:
        found = os.path.isfile(file) and sha256(Path(file).read_bytes()).hexdigest()
        official = found == SHA256[path]
    else:
        check = [sys.executable, "sanity_check.py", file]
        official = subprocess.run(check, stdin=subprocess.DEVNULL).returncode == 0
    if not official:
        print(f"  {path} is not the official file")
    return official


signal.signal(signal.SIGINT, signal.SIG_DFL)
socket.setdefaulttimeout(5)  # seconds
sys.stdout.reconfigure(errors="backslashreplace")  # for folders with names in other encodings
sys.exit(main(sys.argv[1] == "true"))
PYTHON
}

# Run a command in the environment, whose Python may be installed as python3 alone.
run_command() {
    local name
    mkdir -p .setup/bin
    for name in python python3; do
        printf '#!/usr/bin/env bash\nexec %q "$@"\n' "$python" >.setup/bin/new
        chmod +x .setup/bin/new
        mv -f .setup/bin/new ".setup/bin/$name" # in one step: another command may be using it
    done
    PATH="$PWD/.setup/bin:$(dirname "$python"):$PATH"
    exec "$@"
}

cpu=false tests=false require_official=false
while [[ ${1:-} == -* ]]; do
    case $1 in
        --cpu) cpu=true ;;
        --tests) tests=true ;;
        --require-official) require_official=true ;;
        --help | -h) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit ;;
        *) die "unknown option $1; bash setup.sh --help lists them" 2 ;;
    esac
    shift
done
unset CDPATH
mirror=${MINI_LLAMA_MIRROR:-}
if [ -n "${mirror##*://*}" ]; then # a folder, perhaps a relative path
    MINI_LLAMA_MIRROR=$(cd "$mirror" 2>/dev/null && pwd) ||
        die "MINI_LLAMA_MIRROR: no folder $mirror" 2
fi
cd -P "$(dirname "$0")"
PATH=${PATH//"$PWD/.setup/bin:"/} # of a set-up that this one runs in
VENV=("$PWD/.venv/bin/python" "$PWD/.venv/Scripts/python.exe") # the latter on Windows
mkdir -p .setup 2>/dev/null || die "cannot write in $PWD: make it writable, or use a copy of it"
trap 'exit 130' INT # pip ends an interrupted installation like a failed one

choose_environment
python=$(command -v "$python")
printf 'environment: %s (%s)\n' "$python" "$("$python" -V)"
fetch_official_files
if [ $# -gt 0 ]; then run_command "$@"; fi
printf 'next: bash %q python run_llama.py --option generate\n' "$0"
