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
from utils import KIND, PROMPT, Example, InputError, read_examples

HERE = Path(__file__).resolve().parent
MODULES = ("base_llama.py", "classifier.py", "config.py", "llama.py", "lora.py", "optimizer.py",
           "rope.py", "run_llama.py", "sanity_check.py", "tokenizer.py", "utils.py")
DOCUMENTS = ("README.md", "structure.md", "checklist.md", "sanity_check.data", "setup.sh")
STORIES = ("generated-sentence-temp-0.txt", "generated-sentence-temp-1.txt")
CLASSES = {"sst": 5, "cfimdb": 2}  # of each data set
OUTPUTS = tuple(f"{dataset}-{split}-{kind}-output.txt"
                for dataset in CLASSES for kind in KIND.values() for split in ("dev", "test"))
CONTENT = (*MODULES, *DOCUMENTS, *STORIES, *OUTPUTS)
DATA = tuple(f"data/{dataset}-{split}.txt" for dataset in CLASSES for split in ("dev", "test"))
SIZE_LIMIT = 10_000_000  # bytes of the zip, and of each file in it
TIME_LIMIT = 120  # seconds until the code in a zip has to have started
MEMORY_LIMIT = 4 << 30  # bytes of foreign code's data; libraries do not count
FILE_LIMIT = 64 << 20  # bytes of any file that it writes
QUESTION = re.compile(r" Is this movie [^?]+\? This movie is\Z")
FINDER = ("__MACOSX", ".DS_Store")  # what macOS's Finder puts into a zip


def build(name: str, source: Path) -> list[str]:
    """Write `name`.zip, unless the check finds problems; return those."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as zipped:
        for part in CONTENT:
            if (path := find(part, source)).is_file():
                zipped.write(path, f"{name}/{part}")
    problems = check(archive.getvalue(), source)
    if not problems:
        with utils.atomic_write(f"{name}.zip") as file:
            file.write(archive.getvalue())
    return problems


def find(part: str, source: Path) -> Path:
    """Where a file is taken from; outputs never come from the folder of this program."""
    path = source / part
    return path if path.exists() or part in STORIES + OUTPUTS else HERE / part


def check(archive: bytes, source: Path) -> list[str]:
    """Return everything that is wrong with a zip; `source` comes first in the search for data."""
    with tempfile.TemporaryDirectory() as temporary, utils.naming(temporary):
        folder = Path(temporary)
        try:
            problems = extract(archive, folder)
        except InputError as error:
            return [str(error)]
        for part in CONTENT:
            problems += [f"{part}{problem}" for problem in part_problems(folder / part, source)]
        if all((folder / part).exists() for part in MODULES):
            problems += start_problems(folder)
    return problems


def extract(archive: bytes, folder: Path) -> list[str]:
    """Write the parts of a submission into `folder`; return what is wrong with the zip itself.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
            members = {name_of(member): member for member in zipped.infolist()}
            parents = [name.rpartition("/")[0] for name in members
                       if name.rpartition("/")[2] in CONTENT]
            top = max(parents, key=parents.count, default="")
            prefix = f"{top}/" if top else ""
            for part in CONTENT:
                if prefix + part in members:
                    with zipped.open(members[prefix + part]) as file:
                        (folder / part).write_bytes(file.read(SIZE_LIMIT + 1))
    except Exception as error:  # damage provokes anything in zipfile
        if isinstance(error, OSError) and error.errno:
            raise
        reason = str(error) or type(error).__name__
        raise InputError(f"cannot be read as a zip ({reason}); make it again") from error
    problems = []
    if len(archive) > SIZE_LIMIT:
        problems.append(f"the zip has {len(archive):,} bytes; the limit is {SIZE_LIMIT:,}")
    if any("\\" in member.orig_filename for member in members.values()):
        problems.append("names use \\ for /, as some Windows programs do; zip it with another one")
    if not is_surnames(top):
        problems.append(f"the files are in {top or '.'!r}; put them into one folder named "
                        "SURNAME1_SURNAME2 (letters and _)")
    names = [name.removeprefix(prefix) for name in members if name != prefix]
    for extra in dict.fromkeys(name.split("/")[0] for name in names if name not in CONTENT):
        hint = f"; macOS's Finder added it, `zip -d FILE.zip '*{extra}*'` removes it"
        problems.append(f"{extra!r}: does not belong in a submission{hint * (extra in FINDER)}")
    return problems


def name_of(member: zipfile.ZipInfo) -> str:
    """The name of a member in Unicode's composed form, with slashes."""
    name = member.orig_filename
    if not member.flag_bits & 0x800:  # not marked as UTF-8; macOS writes UTF-8 without the mark
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def is_surnames(text: str) -> bool:
    """Whether a text is surnames, such as O'Neil or Müller-Lüdenscheidt, joined by _."""
    surname = r"[^\W\d_][^\s_/\\:]*"
    return bool(re.fullmatch(f"{surname}(?:_{surname})*", text))


def part_problems(path: Path, source: Path) -> Iterator[str]:
    """Yield what is wrong with a part of a submission."""
    part = path.name
    if not path.exists():
        yield f": missing{' (`python reproduce.py` makes it)' * (part in STORIES + OUTPUTS)}"
        return
    with open(path, "rb") as file:
        content = file.read(SIZE_LIMIT + 1)
    if not content:
        yield ": empty"
    elif len(content) > SIZE_LIMIT:
        yield f": more than {SIZE_LIMIT:,} bytes"
    elif path.suffix == ".sh" and b"\r\n" in content:
        yield ": bash cannot run it with Windows line endings (CRLF); save it with LF"
    elif part in STORIES:
        text = content.decode("utf-8-sig", errors="replace")
        if not text.startswith(PROMPT):
            yield f": does not start with the prompt, {PROMPT:.19}…"
        elif not text[len(PROMPT):].strip():
            yield ": has nothing after the prompt"
    elif part in OUTPUTS:
        data = find(f"data/{'-'.join(part.split('-')[:2])}.txt", source)
        yield from output_problems(path, read_examples(str(data)) if data.exists() else [])


def output_problems(path: Path, examples: list[Example]) -> Iterator[str]:
    """Yield what is wrong with predictions for `examples`; an empty list if these are not known."""
    dataset, _, kind, _ = path.name.split("-")
    try:
        labels, sentences = zip(*read_examples(str(path)))
    except InputError as error:
        yield str(error).removeprefix(str(path))
        return
    if examples and len(sentences) != len(examples):
        yield f": {len(sentences):,} lines, but {len(examples):,} in the data"
    last = CLASSES[dataset] - 1
    yield from at_line(f"a label that is not one of 0 to {last}",
                       [not 0 <= label <= last for label in labels])
    if kind == KIND["prompt"]:
        asked, sentences = sentences, [QUESTION.sub("", sentence) for sentence in sentences]
        yield from at_line("no question at the end", [a == b for a, b in zip(asked, sentences)])
    yield from at_line("another sentence than in the data", [
        sentence != example.sentence for sentence, example in zip(sentences, examples)])


def at_line(problem: str, wrong: list[bool]) -> Iterator[str]:
    """Yield the problem with the number of the first line that has it, if any does."""
    if any(wrong):
        yield f", line {wrong.index(True) + 1}{' and others' * (sum(wrong) > 1)}: {problem}"


def data_note(source: Path) -> list[str]:
    """Say that data are missing, if they are."""
    missing = [part for part in DATA if not find(part, source).exists()]
    return [f"note: predictions were not compared with {', '.join(missing)}, which "
            "`bash setup.sh` fetches"] * bool(missing)


def start_problems(folder: Path) -> Iterator[str]:
    """Start the program with only the submission on Python's path."""
    command = [sys.executable, "run_llama.py", "--help"]
    status, errors = run_limited(command, folder, TIME_LIMIT)
    if status is None:
        yield f"run_llama.py --help: still running after {TIME_LIMIT} seconds"
    elif status:
        last = errors.strip().rpartition("\n")[2]
        yield f"run_llama.py --help: exit status {status}, {last:.200}"


def run_limited(
    command: list[str], folder: Path, seconds: float, **environment: str
) -> tuple[int | None, str]:
    """Run foreign code in `folder`, with limits and nobody at the keyboard.

    Returns:
        The exit status, or None if it takes longer, and the text on standard error.
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
        except subprocess.TimeoutExpired:
            status = None
        finally:  # what it has started ends with it
            with suppress(OSError):  # nothing is left
                os.killpg(child.pid, signal.SIGKILL) if is_posix else child.kill()
        errors.seek(0)
        return status, errors.read().decode(errors="replace")


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
    is_zip = args.what.lower().endswith(".zip")
    if not args.source.is_dir():
        parser.error(f"--from {args.source}: there is no such folder")
    name = unicodedata.normalize("NFC", args.what)
    if is_surnames(name) and not is_zip:
        problems = build(name, args.source)
    elif is_zip and Path(args.what).is_file():
        problems = check(Path(args.what).read_bytes(), args.source)
    else:
        parser.error(f"{args.what!r} is neither a zip here nor SURNAME1_SURNAME2 (letters and _)")
    for line in data_note(args.source) + problems:
        print(line)
    if problems:
        print(f"{name}: problems: {len(problems)}{'' if is_zip else '; no zip was written'}",
              file=sys.stderr)
        return 1
    print(f"{name if is_zip else f'wrote {name}.zip'}: all {len(CONTENT)} files are right")
    return 0


if __name__ == "__main__":
    sys.exit(utils.run_program(main))
