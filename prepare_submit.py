"""Build a submission, or check one.

    python prepare_submit.py SURNAME1_SURNAME2 [--from DIR]
    python prepare_submit.py FILE.zip [--from DIR]

Stories and predictions are taken from DIR (default: the current folder); code, documents and data
from DIR where it has them, else from the folder of this program. Sentences are compared with those
in data/. Checking a zip runs its code: check only what you would run.
"""

import argparse
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import utils
from utils import KIND, PROMPT, InputError, read_examples

HERE = Path(__file__).resolve().parent
MODULES = ("base_llama.py", "classifier.py", "config.py", "llama.py", "lora.py", "optimizer.py",
           "rope.py", "run_llama.py", "sanity_check.py", "tokenizer.py", "utils.py")
DOCUMENTS = ("README.md", "structure.md", "checklist.md", "sanity_check.data", "setup.sh")
STORIES = ("generated-sentence-temp-0.txt", "generated-sentence-temp-1.txt")
CLASSES = {"sst": 5, "cfimdb": 2}  # of each data set
OUTPUTS = tuple(f"{dataset}-{split}-{kind}-output.txt"
                for dataset in CLASSES for kind in KIND.values() for split in ("dev", "test"))
CONTENT = (*MODULES, *DOCUMENTS, *STORIES, *OUTPUTS)
SIZE_LIMIT = 10_000_000  # bytes of the zip, and of each file in it
TIME_LIMIT = 120  # seconds for the code in a zip to start
MEMORY_LIMIT = 4 << 30  # bytes of foreign code's data segment, without libraries
FILE_LIMIT = 64 << 20  # bytes of any file that it writes
QUESTION = r" Is this movie [^?]+\? This movie is"


def pack(name: str, source: Path) -> bytes:
    """Return a zip of all parts that are there, in a folder `name`."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as zipped:
        for part in CONTENT:
            if (path := find(part, source)).is_file():
                zipped.write(path, f"{name}/{part}")
    return archive.getvalue()


def find(part: str, source: Path) -> Path:
    """Where a file is taken from; outputs never come from the folder of this program."""
    path = source / part
    return path if path.exists() or part in STORIES + OUTPUTS else HERE / part


def check(archive: bytes, folder: Path, source: Path) -> list[str]:
    """Unpack a zip into `folder`; return what is wrong with it, compared with the data."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
            members = {member.orig_filename.replace("\\", "/"): member
                       for member in zipped.infolist()}
            tops = [os.path.dirname(name) for name in members if os.path.basename(name) in CONTENT]
            top = max(tops, key=tops.count, default="")
            for part in CONTENT:
                if member := members.get(f"{top}/{part}".removeprefix("/")):
                    (folder / part).write_bytes(zipped.open(member).read(SIZE_LIMIT + 1))
    except Exception as error:  # damage provokes anything in zipfile
        if isinstance(error, OSError) and error.errno:
            raise
        return [f"cannot be read as a zip ({str(error) or type(error).__name__}); make it again"]
    names = {name.removeprefix(f"{top}/").split("/")[0] for name in members}
    extra = ", ".join(map(repr, sorted(names - {"", *CONTENT})))
    is_macos = names & {"__MACOSX", ".DS_Store"}
    hint = "; `zip -d FILE.zip '__MACOSX/*' '*.DS_Store'` removes what macOS adds"
    findings = [
        (len(archive) > SIZE_LIMIT, f"the zip has more than {SIZE_LIMIT:,} bytes"),
        (any("\\" in member.orig_filename for member in members.values()),
         "names use \\ for /, as some Windows programs do; zip it with another one"),
        (not is_surnames(top), f"the files are in {top or '.'!r}; put them into one folder named "
                               "SURNAME1_SURNAME2 (letters and _)"),
        (extra, f"not part of a submission: {extra}{hint if is_macos else ''}")]
    problems = [problem for is_found, problem in findings if is_found]
    for part in CONTENT:
        problems += part_problems(folder / part, source)
    return problems


def is_surnames(text: str) -> bool:
    """Whether a text is surnames, such as O'Neil or Müller-Lüdenscheidt, joined by _.

    macOS does not mark names in a zip as UTF-8, so that some letters come out as other characters.
    """
    surname = r"(?:[^\W\d_]|[^\x00-\x7f])[^\s_./\\:*?<>|]*"
    return bool(re.fullmatch(f"{surname}(?:_{surname})*", text))


def part_problems(path: Path, source: Path) -> Iterator[str]:
    """Yield what is wrong with a part of a submission, beginning with its name."""
    part = path.name
    if not path.exists():
        yield f"{part}: missing{' (`python reproduce.py` makes it)' * (part in STORIES + OUTPUTS)}"
    elif not (size := path.stat().st_size):
        yield f"{part}: empty"
    elif size > SIZE_LIMIT:
        yield f"{part}: more than {SIZE_LIMIT:,} bytes"
    elif path.suffix == ".sh" and b"\r\n" in path.read_bytes():
        yield f"{part}: bash cannot run it with Windows line endings (CRLF); save it with LF"
    elif part in STORIES:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        if not text.startswith(PROMPT) or len(text[len(PROMPT):].split()) < 5:
            yield f"{part}: not the prompt ({PROMPT:.19}…) followed by at least five words"
    elif part in OUTPUTS:
        yield from output_problems(path, source)


def output_problems(path: Path, source: Path) -> Iterator[str]:
    """Yield what is wrong with predictions; without data, only labels are checked."""
    dataset, split, kind, _ = path.name.split("-")
    data = find(f"data/{dataset}-{split}.txt", source)
    examples = read_examples(str(data)) if data.exists() else []
    try:
        predictions = read_examples(str(path))
    except InputError as error:
        yield str(error).replace(str(path), path.name, 1)
        return
    question, then = (QUESTION, ", then the question") if kind == KIND["prompt"] else ("", "")
    expected = ([re.escape(example.sentence) + question for example in examples]
                or [".*"] * len(predictions))
    if len(predictions) != len(expected):
        yield f"{path.name}: {len(predictions):,} lines, but {len(expected):,} in the data"
    last = CLASSES[dataset] - 1
    wrong = [number for number, (found, pattern) in enumerate(zip(predictions, expected), start=1)
             if not (0 <= found.label <= last and re.fullmatch(pattern, found.sentence))]
    if wrong:
        yield (f"{path.name}, line {wrong[0]}{' and others' * (len(wrong) > 1)}: expected a label "
               f"from 0 to {last}, and the sentence in the data{then}")


def data_note(source: Path) -> list[str]:
    """Say that data are missing, if they are."""
    names = [f"data/{dataset}-{split}.txt" for dataset in CLASSES for split in ("dev", "test")]
    missing = ", ".join(name for name in names if not find(name, source).exists())
    note = f"note: predictions were not compared with {missing}, which `bash setup.sh` fetches"
    return [note] if missing else []


def start_problems(folder: Path) -> list[str]:
    """Start the program with only the submission on Python's path."""
    end, errors = run_limited([sys.executable, "run_llama.py", "--help"], folder, TIME_LIMIT)
    _, _, last_line = errors.strip().rpartition("\n")
    return [] if end == "exit status 0" else [f"run_llama.py --help: {end}, {last_line:.200}"]


def run_limited(
    command: list[str], folder: Path, seconds: float, **environment: str
) -> tuple[str, str]:
    """Run foreign code in `folder`, with limits and without standard input.

    Returns:
        How it ends, such as "exit status 0", and the text on standard error.
    """
    is_posix = os.name == "posix"
    environment |= {"PYTHONPATH": "", "TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": "",
                    "OMP_NUM_THREADS": "1"}  # each thread needs memory of its own
    with tempfile.TemporaryFile() as errors, subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            env=os.environ | environment, start_new_session=True,
            preexec_fn=limit_resources if is_posix else None) as child:
        try:
            status = child.wait(seconds)
            end = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
        except subprocess.TimeoutExpired:
            end = f"still running after {seconds:g} seconds"
        finally:  # what it has started ends with it
            with suppress(OSError):  # nothing is left
                if is_posix:
                    os.killpg(child.pid, signal.SIGKILL)
                else:
                    child.kill()
        errors.seek(0)
        return end, errors.read().decode(errors="replace")


def limit_resources() -> None:
    """Limit this process's memory and files as far as the system can."""
    import resource

    for name, limit in ((resource.RLIMIT_DATA, MEMORY_LIMIT), (resource.RLIMIT_FSIZE, FILE_LIMIT)):
        with suppress(ValueError, OSError):
            resource.setrlimit(name, (limit, limit))


def main(argv: list[str] | None = None) -> int:
    """Build or check; return 0: nothing wrong, 1: problems, one a line, 2: bad usage or input."""
    parser = utils.Parser(prog="prepare_submit.py", description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", metavar="SURNAME1_SURNAME2|FILE.zip",
                        help="the submission to build, or the zip to check")
    parser.add_argument("--from", dest="source", type=Path, default=Path(), metavar="DIR",
                        help="folder of the outputs (default: the current one)")
    args = parser.parse_args(argv)
    name = unicodedata.normalize("NFC", args.what)
    is_zip = name.lower().endswith(".zip")
    if not is_zip and not is_surnames(name):
        parser.error(f"{name!r} is neither a zip nor SURNAME1_SURNAME2 (letters and _)")
    if not args.source.is_dir():
        parser.error(f"--from {args.source}: there is no such folder")
    archive = Path(args.what).read_bytes() if is_zip else pack(name, args.source)
    with tempfile.TemporaryDirectory() as folder, utils.naming(folder):
        problems = check(archive, Path(folder), args.source)
        if all(Path(folder, name).exists() for name in MODULES):
            problems += start_problems(Path(folder))
    for line in data_note(args.source) + problems:
        print(line)
    if problems:
        print(f"{name}: problems: {len(problems)}{'' if is_zip else '; no zip was written'}",
              file=sys.stderr)
        return 1
    if not is_zip:
        with utils.atomic_write(f"{name}.zip") as file:
            file.write(archive)
    print(f"{name if is_zip else f'wrote {name}.zip'}: all {len(CONTENT)} files are right")
    return 0


if __name__ == "__main__":
    sys.exit(utils.run_program(main))
