"""Pack a submission into a zip and check it, or check one that is there.

    python prepare_submit.py SURNAME1_SURNAME2 [--from DIR]
    python prepare_submit.py FILE.zip [--from DIR]

The outputs are taken from DIR (default: this folder), code and documents from DIR where it has
them, else from beside this program. Sentences are compared with the data in DIR/data or ./data.
The check runs the code in the zip, in a temporary folder: check only what you would run.
"""

import argparse
import io
import os
import re
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from run_llama import KIND, PROMPT
from utils import SEPARATOR, Example, Parser, atomic_write, fail, read_examples

HERE = Path(__file__).resolve().parent
MODULES = ("base_llama.py", "classifier.py", "config.py", "llama.py", "lora.py", "optimizer.py",
           "rope.py", "run_llama.py", "sanity_check.py", "tokenizer.py", "utils.py")
DOCUMENTS = ("README.md", "structure.md", "checklist.md", "sanity_check.data", "setup.sh")
STORIES = ("generated-sentence-temp-0.txt", "generated-sentence-temp-1.txt")
CLASSES = {"sst": 5, "cfimdb": 2}  # of each data set


def output_name(dataset: str, split: str, option: str) -> str:
    """The name under which a submission holds the predictions of one job."""
    return f"{dataset}-{split}-{KIND[option]}-output.txt"


class Output(NamedTuple):
    """What a file of predictions answers."""

    dataset: str
    split: str
    option: str


OUTPUTS = {output_name(*output): output for output in (
    Output(dataset, split, option)
    for dataset in CLASSES for option in KIND for split in ("dev", "test"))}
CONTENT = (*MODULES, *DOCUMENTS, *STORIES, *OUTPUTS)

SIZE_LIMIT = 10_000_000  # bytes of the zip
UNPACKED_LIMIT = 50_000_000  # bytes; an honest submission has about 4 MB
SURNAME = r"[^\W\d_][^\W_]*(?:['’.-][^\W_]+)*"  # begins with a letter
SURNAMES = re.compile(f"{SURNAME}(?:_{SURNAME})*")
QUESTION = re.compile(r"(.+) Is this movie [^?]+\? This movie is")


class Report(NamedTuple):
    """What a check found: problems, and what could not be checked."""

    problems: list[str]
    notes: list[str]


# ------------------------------------------------------------------------------------------ build

def build(name: str, source: Path) -> Report:
    """Write `name`.zip into the current folder if the check finds nothing wrong with it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as zipped:
        for part in CONTENT:
            path = find(part, source)
            if path.is_file():
                zipped.write(path, f"{name}/{part}")
    report = check(content, [source, Path()])
    if not report.problems:
        with atomic_write(f"{name}.zip") as file:
            file.write(content.getvalue())
    return report


def find(part: str, source: Path) -> Path:
    """Where a part of the submission is taken from."""
    path = source / part
    return HERE / part if part in MODULES + DOCUMENTS and not path.exists() else path


# ------------------------------------------------------------------------------------------ check

def check(file: BinaryIO, data_parents: list[Path]) -> Report:
    """List everything that is wrong with a zip, whatever it may be made of.

    Args:
        file: the zip, open for reading.
        data_parents: the folders whose data/ is looked into, the first one first.
    """
    report = Report([], [])
    size = file.seek(0, os.SEEK_END)
    if size > SIZE_LIMIT:
        report.problems.append(f"the zip has {size:,} bytes; the limit is {SIZE_LIMIT:,}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "submission")
        folder.mkdir()
        try:
            with zipfile.ZipFile(file) as zipped:
                unpack(zipped, folder, report.problems)
        except Exception as error:  # whatever a damaged file provokes in zipfile
            report.problems.append(f"not a zip that can be read ({error!s:.80})")
            return report
        check_stories(folder, report.problems)
        check_outputs(folder, data_parents, report)
        check_code(folder, report.problems)
    return report


def unpack(zipped: zipfile.ZipFile, folder: Path, problems: list[str]) -> None:
    """Write the parts of a submission, and nothing else, into `folder`; list what is wrong."""
    members = zipped.infolist()
    firsts = (member.filename.split("/")[0] for member in members if "/" in member.filename)
    tops = Counter(first for first in firsts if first not in ("", ".", ".."))
    top = tops.most_common(1)[0][0] if tops else ""
    if len(tops) != 1:
        problems.append(f"{len(tops)} folders at the top; it has to be one, SURNAME1_SURNAME2/")
    elif not SURNAMES.fullmatch(top):
        problems.append(f"the folder {top!a:.80} is not named SURNAME1_SURNAME2 (letters, and _ "
                        "between names)")
    prefix = f"{top}/" if top else ""
    wanted, findings = {}, []
    for member in members:
        inside = member.filename.startswith(prefix)
        part = member.filename.removeprefix(prefix) if inside else ""
        problem = wrong_with(member, part, top, wanted)
        if problem:
            findings.append(f"{member.filename!a:.100}: {problem}")
        if part in CONTENT:
            wanted.setdefault(part, None if problem else member)
    problems += findings[:40] + [f"… and {len(findings) - 40} more such names"][:len(findings) > 40]
    problems += [f"{part}: missing{hint(part)}" for part in CONTENT if part not in wanted]
    good = {part: member for part, member in wanted.items() if member}
    if sum(member.file_size for member in good.values()) > UNPACKED_LIMIT:
        problems.append(f"unpacks to more than {UNPACKED_LIMIT:,} bytes, so nothing was unpacked")
        return
    for part, member in good.items():
        try:
            content = zipped.read(member)  # at most file_size bytes, whatever is compressed there
            Path(folder, part).write_bytes(content)
            problems += [] if content else [f"{part}: empty"]
        except Exception as error:  # encrypted, damaged, overlapping others …
            problems.append(f"{part}: cannot be unpacked ({error!s:.80})")


def wrong_with(member: zipfile.ZipInfo, part: str, top: str, before: dict) -> str | None:
    """What, if anything, is wrong with the name and kind of a member of a zip."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    if name.startswith("/") or re.search(r"\\|^\w:|(^|/)\.\.(/|$)", name):
        return "points out of the folder"
    if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
        return "a symbolic link or special file; it has to be a plain file"
    if part in before:
        return "there more than once"
    if part in CONTENT and member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed by a method that not every program can unpack"
    return None if part in CONTENT or (top and name == f"{top}/") else "does not belong in it"


def hint(part: str) -> str:
    """How to get a part that is missing."""
    if part in STORIES or part in OUTPUTS:
        return " (`python reproduce.py` makes it)"
    return " (`bash setup.sh` fetches it)" if part == "sanity_check.data" else ""


def check_stories(folder: Path, problems: list[str]) -> None:
    """Both stories have to begin with the prompt and to go on."""
    for name in STORIES:
        if not is_there(folder / name):
            continue
        text = folder.joinpath(name).read_text(encoding="utf-8", errors="replace")
        if not text.startswith(PROMPT):
            problems.append(f"{name}: does not start with the prompt {PROMPT[:30]!r}…")
        elif not text[len(PROMPT):].strip():
            problems.append(f"{name}: has nothing after the prompt")


def check_outputs(folder: Path, data_parents: list[Path], report: Report) -> None:
    """Compare all predictions with the data, as far as those are here."""
    data = {}
    for dataset, split in {(output.dataset, output.split): None for output in OUTPUTS.values()}:
        paths = [parent / "data" / f"{dataset}-{split}.txt" for parent in data_parents]
        path = next((path for path in paths if path.exists()), None)
        data[dataset, split] = read_examples(str(path)) if path else None
        if not path:
            report.notes.append(f"{paths[-1]} is not here: number of lines and sentences of "
                                f"{dataset}-{split}-*-output.txt were not checked")
    for name, output in OUTPUTS.items():
        if is_there(folder / name):
            report.problems.extend(f"{name}: {problem}" for problem in output_problems(
                folder / name, output, data[output.dataset, output.split]))


def is_there(path: Path) -> bool:
    """Whether a part came out of the zip and has something in it."""
    return path.exists() and path.stat().st_size > 0


def output_problems(path: Path, output: Output, examples: list[Example] | None) -> list[str]:
    """What is wrong with a file of predictions; without examples, with its form only."""
    try:
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        return [f"not UTF-8 at byte {error.start + 1}"]
    wrong = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        expected = examples[number - 1].sentence if number <= len(examples or ()) else None
        for problem in line_problems(line, output, expected):
            wrong[problem].append(number)
    problems = [f"{what} in line {first}{f' and {len(more):,} more' * bool(more)}"
                for what, (first, *more) in wrong.items()]
    if examples and len(lines) != len(examples):
        problems.append(f"{len(lines):,} lines, but {len(examples):,} in the data")
    return problems


def line_problems(line: str, output: Output, expected: str | None) -> Iterator[str]:
    """What is wrong with one prediction, whose sentence is to be `expected` where that is known."""
    label, separator, sentence = line.partition(SEPARATOR)
    if not separator:
        yield "no 'label ||| sentence'"
        return
    if label.strip() not in map(str, range(CLASSES[output.dataset])):
        yield f"a label that is not one of 0 to {CLASSES[output.dataset] - 1}"
    sentence = sentence.strip()
    if output.option == "prompt":
        match = QUESTION.fullmatch(sentence)
        if not match:
            yield "no question at the end"
            return
        sentence = match[1]
    if expected is not None and sentence != expected:
        yield "another sentence than in the data"


def check_code(folder: Path, problems: list[str]) -> None:
    """Start the program where nothing but the submission is on Python's path."""
    if not all(is_there(folder / name) for name in MODULES):
        return  # said already
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        run = subprocess.run([sys.executable, "run_llama.py", "--help"], cwd=folder, timeout=120,
                             env=environment, stdin=subprocess.DEVNULL, capture_output=True)
    except subprocess.TimeoutExpired:
        problems.append("run_llama.py --help: not done after 120 s")
        return
    if run.returncode:
        last = run.stderr.decode(errors="replace").strip().split("\n")[-1]
        problems.append(f"run_llama.py --help: exit status {run.returncode}, {last!a:.200}")


# ------------------------------------------------------------------------------------------- main

def main(argv: list[str] | None = None) -> int:
    """Build or check; returns 0: nothing wrong, 1: problems, listed a line each, 2: bad usage."""
    parser = Parser(prog="prepare_submit.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", metavar="SURNAME1_SURNAME2|FILE.zip",
                        help="the submission to build, or the zip to check")
    parser.add_argument("--from", dest="source", type=Path, default=Path(), metavar="DIR",
                        help="folder of the outputs (default: this folder)")
    args = parser.parse_args(argv)
    is_zip = args.what.lower().endswith(".zip")
    if not is_zip and not SURNAMES.fullmatch(args.what):
        parser.error(f"{args.what!a:.80} is neither FILE.zip nor SURNAME1_SURNAME2, letters with "
                     "_ between the names")
    if not args.source.is_dir():
        parser.error(f"--from {args.source}: there is no such folder")
    try:
        if is_zip:
            with open(args.what, "rb") as file:
                report = check(file, [args.source, Path()])
        else:
            report = build(args.what, args.source)
    except (OSError, ValueError) as error:
        return fail("prepare_submit.py", error)
    return show(report, args.what if is_zip else f"{args.what}.zip", built=not is_zip)


def show(report: Report, name: str, built: bool) -> int:
    """Print what was found; returns the exit status."""
    for line in [*report.problems, *(f"note: {note}" for note in report.notes)]:
        print(line)
    if report.problems:
        count = len(report.problems)
        print(f"{name}: {count} problem{'s' * (count > 1)}{', so it was not written' * built}",
              file=sys.stderr)
        return 1
    print(f"{name}: {'written and ' * built}checked, all {len(CONTENT)} files as they have to be"
          f"{', as far as could be checked' * bool(report.notes)}; {os.path.getsize(name):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
