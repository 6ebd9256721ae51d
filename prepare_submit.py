"""Build a submission, or check one.

    python prepare_submit.py SURNAME1_SURNAME2 [--from DIR]
    python prepare_submit.py FILE.zip [--from DIR]

Stories and predictions are taken from DIR (default: this folder); code, documents and data from
DIR where it has them, else from beside this program. Sentences are compared with those in data/.
The check starts the code in the zip: check only what you would run.
"""

import argparse
import io
import re
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from run_llama import KIND, PROMPT
from utils import Example, InputError, Parser, atomic_write, configure_stdout, fail, read_examples

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
SIZE_LIMIT = 10_000_000  # bytes of the zip
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
        with atomic_write(f"{name}.zip") as file:
            file.write(archive.getvalue())
    return problems


def find(part: str, source: Path) -> Path:
    """Where a file is taken from; outputs never come from beside this program."""
    path = source / part
    return path if path.exists() or part in STORIES + OUTPUTS else HERE / part


def check(archive: bytes, source: Path) -> list[str]:
    """Return everything that is wrong with a zip; `source` comes first in the search for data."""
    problems = []
    if len(archive) > SIZE_LIMIT:
        problems.append(f"the zip has {len(archive):,} bytes; the limit is {SIZE_LIMIT:,}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            problems += unpack(archive, folder)
        except (zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # the last: encrypted
            return [*problems, f"cannot be read as a zip ({error}); make it again"]
        for part in CONTENT:
            problems += [f"{part}{problem}" for problem in part_problems(folder / part, source)]
        if all((folder / part).exists() for part in MODULES):
            problems += start_problems(folder)
    return problems


def unpack(archive: bytes, folder: Path) -> Iterator[str]:
    """Write the parts of a submission, and nothing else, into `folder`; yield wrong names."""
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        members = {name_of(member): member for member in zipped.infolist()}
        if any("\\" in member.orig_filename for member in members.values()):
            yield "names use \\ for /, as some Windows programs do; zip it with another one"
        parents = [parent for parent, _, part in (name.rpartition("/") for name in members)
                   if part in CONTENT]
        top = max(parents, key=parents.count, default="")
        if not is_surnames(top):
            yield (f"the files are in {top or '.'!r}; they have to be in one folder named "
                   "SURNAME1_SURNAME2 (letters and _)")
        prefix = f"{top}/" if top else ""
        for part in CONTENT:
            if member := members.pop(prefix + part, None):
                (folder / part).write_bytes(zipped.read(member))
    for extra in dict.fromkeys(name.removeprefix(prefix).split("/")[0] for name in members):
        if extra:  # the submission's own folder leaves an empty name
            hint = f"; macOS's Finder added it, `zip -d FILE.zip '*{extra}*'` removes it"
            yield f"{extra!r}: does not belong in it{hint * (extra in FINDER)}"


def name_of(member: zipfile.ZipInfo) -> str:
    """The name of a member in Unicode's composed form, with slashes."""
    name = member.orig_filename
    if not member.flag_bits & 0x800:  # not marked as UTF-8; macOS writes UTF-8 without the mark
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def is_surnames(text: str) -> bool:
    """Whether a text is surnames, such as O'Neil or Müller-Lüdenscheidt, joined by _."""
    # Combining marks and the joiners of some scripts are parts of letters.
    letters = "".join(
        c for c in text if unicodedata.category(c)[0] != "M" and c not in "\u200c\u200d")
    surname = r"[^\W\d_][^\W_]*(?:['’.-][^\W_]+)*"
    return bool(re.fullmatch(f"{surname}(?:_{surname})*", letters))


def part_problems(path: Path, source: Path) -> Iterator[str]:
    """Yield what is wrong with a part of a submission."""
    part = path.name
    content = path.read_bytes() if path.exists() else None
    if content is None:
        yield f": missing{' (`python reproduce.py` makes it)' * (part in STORIES + OUTPUTS)}"
    elif not content:
        yield ": empty"
    elif path.suffix == ".sh" and b"\r\n" in content:
        yield ": its lines end in CRLF, with which bash fails; save it with LF"
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
    """Yield what is wrong with predictions for `examples`, which may be empty: not known."""
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


def start_problems(folder: Path) -> Iterator[str]:
    """Start the program where nothing but the submission is on Python's path."""
    run = subprocess.run([sys.executable, "-E", "run_llama.py", "--help"], cwd=folder,
                         capture_output=True)
    if run.returncode:
        last = run.stderr.decode(errors="replace").strip().split("\n")[-1]
        yield f"run_llama.py --help: exit status {run.returncode}, {last:.200}"


def main(argv: list[str] | None = None) -> int:
    """Build or check; return 0: nothing wrong, 1: problems, one a line, 2: bad usage or input."""
    configure_stdout()
    parser = Parser(prog="prepare_submit.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", metavar="SURNAME1_SURNAME2|FILE.zip",
                        help="the submission to build, or the zip to check")
    parser.add_argument("--from", dest="source", type=Path, default=Path(), metavar="DIR",
                        help="folder of the outputs (default: this folder)")
    args = parser.parse_args(argv)
    is_zip = args.what.lower().endswith(".zip")
    if not is_zip and not is_surnames(args.what):
        parser.error(f"{args.what!r} is neither FILE.zip nor SURNAME1_SURNAME2 (letters and _)")
    if is_zip and not Path(args.what).is_file():
        parser.error(f"{args.what}: there is no such file")
    if not args.source.is_dir():
        parser.error(f"--from {args.source}: there is no such folder")
    name = unicodedata.normalize("NFC", args.what)
    try:
        if is_zip:
            problems = check(Path(args.what).read_bytes(), args.source)
        else:
            problems = build(name, args.source)
    except KeyboardInterrupt:
        return fail("prepare_submit.py", "interrupted", 130)
    except (OSError, InputError) as error:
        return fail("prepare_submit.py", error)
    if missing := [part for part in DATA if not find(part, args.source).exists()]:
        print(f"note: without {', '.join(missing)} (`bash setup.sh` fetches them), numbers of "
              "lines and sentences were not compared")
    for problem in problems:
        print(problem)
    if problems:
        print(f"{name}: problems: {len(problems)}{'' if is_zip else '; no zip was written'}",
              file=sys.stderr)
        return 1
    print(f"{name if is_zip else f'wrote {name}.zip'}: all {len(CONTENT)} files are right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
