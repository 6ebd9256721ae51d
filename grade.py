"""Judge hand-ins: their structure, each part of their code, and their outputs.

    python grade.py HAND_IN [HAND_IN ...] [--timeout SECONDS] [--json FILE]

A hand-in is a zip or a folder; `.` is your own work. The five files that students write are tested
among our own support files, part by part, in the order in which they build on each other.

THIS RUNS THE CODE THAT IT JUDGES: on copies, in a process of its own with limits of time and
memory, but not in a sandbox. Exit status: 0 all right, 1 something is wrong, 2 bad usage.
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from operator import eq, ne
from pathlib import Path
from typing import Any, NamedTuple

import utils
from prepare_submit import CONTENT, MODULES, OUTPUTS, STORIES, extract, part_problems
from reproduce import PUBLISHED, SPLITS, compare
from utils import KIND, PROMPT, InputError

HERE = Path(__file__).resolve().parent
WRITTEN = ("rope.py", "llama.py", "optimizer.py", "lora.py", "classifier.py")  # by students
SUPPORT = tuple(name for name in MODULES if name not in WRITTEN)
MODEL = "stories42M.pt"
RUNS = 4  # at most: where a hand-in hangs or crashes, the tests start again behind that part
MEMORY = 4 << 30  # bytes of data; libraries do not count
FILE_SIZE = 64 << 20  # bytes of any file that the hand-in writes, captured output included


class Report(NamedTuple):
    """The findings about a hand-in."""

    hand_in: str
    structure: list[str]  # problems
    missing: list[str]  # files
    parts: dict[str, str]  # verdicts: "right", "wrong: …" or "not judged: …"
    accuracy: dict[str, float]  # of the predictions that can be compared
    outputs: list[str]  # problems

    @property
    def is_right(self) -> bool:
        """Whether the code was judged and no problem was found."""
        return bool(self.parts) and not (
            self.structure or first_wrong(self.parts) or self.outputs)


def first_wrong(parts: dict[str, str]) -> str | None:
    """The part to begin with, if any."""
    return next((part for part, verdict in parts.items() if verdict != "right"), None)


def grade(hand_in: Path, timeout: float) -> Report:
    """Judge a hand-in, and print each section as soon as it is known."""
    parts = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        structure, missing = take(hand_in, folder)
        print("structure", *(structure or ["right"]), sep="\n  ")
        if missing and hand_in.is_dir():
            print("not here yet", ", ".join(missing), sep="\n  ")
        if not set(WRITTEN) <= set(missing):
            print("parts")
            parts = judge_parts(folder, timeout)
            print(*(f"  {part}: {verdict}" for part, verdict in parts.items()), sep="\n")
            if first := first_wrong(parts):
                print(f"begin with {first}")
        return Report(str(hand_in), structure, missing, parts, *judge_outputs(folder, parts))


def take(hand_in: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Copy a hand-in's files into `folder`; return problems of the structure, and missing files."""
    problems = []
    try:
        if hand_in.is_dir():
            for part in CONTENT:
                if (hand_in / part).is_file():
                    shutil.copyfile(hand_in / part, folder / part)
        else:
            problems = extract(hand_in.read_bytes(), folder)
    except (OSError, InputError) as error:
        return [str(error)], list(CONTENT)
    missing = [part for part in CONTENT if not (folder / part).exists()]
    for path in (folder / part for part in CONTENT if part not in missing):
        problems += [f"{path.name}{problem}" for problem in part_problems(path, HERE)]
    if missing and not hand_in.is_dir():
        problems.append(f"missing: {', '.join(missing)}")
    return problems, missing


# ------------------------------------------------------------------------------------------ parts

def judge_parts(hand_in: Path, timeout: float) -> dict[str, str]:
    """Test the five files; return the verdict on each part, in order of dependence."""
    verdicts = {}
    for _ in range(RUNS):
        status, (first, *lines) = run_tests(hand_in, list(verdicts), timeout)
        tests = {line["test"]: line for line in lines}  # the end of a test replaces its start
        ended = status in (0, 1, 5) and all(test["outcome"] != "started" for test in tests.values())
        if tests and not ended:
            *_, last = tests.values()
            last |= {"outcome": "failed", "message": how_it_ended(status, timeout)}
            print(f"{last['part']} {last['message']}; the tests go on with the others",
                  file=sys.stderr)
        for test in tests.values():
            verdicts[test["part"]] = sum_up(
                [other for other in tests.values() if other["part"] == test["part"]])
        if ended or not tests:
            break
    return {part: verdicts.get(part, "not judged: the tests ended before it")
            for part in first["parts"]}


def how_it_ended(status: int | None, timeout: float) -> str:
    """Describe the end of a process in the middle of a test."""
    if status is None:
        return f"takes more than {timeout:g} seconds"
    if status == -9:
        return "ran out of memory"
    reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"ended the process ({reason})"


def sum_up(tests: list[dict[str, str]]) -> str:
    """The verdict on the part that these tests are of."""
    for outcome, word in (("failed", "wrong"), ("skipped", "not judged")):
        for test in tests:
            if test["outcome"] == outcome:
                return f"{word}: {utils.one_line(test['message']):.300}"
    return "right"


def run_tests(
    hand_in: Path, judged: list[str], timeout: float
) -> tuple[int | None, list[dict[str, Any]]]:
    """Test the parts that are not judged yet; return the exit status and the report's lines."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder, report, output = (Path(temporary, name) for name in ("code", "report", "output"))
        shutil.copytree(HERE / "tests" / "assignment", folder / "assignment")
        for source, names in ((HERE, SUPPORT), (hand_in, WRITTEN)):
            for name in names:
                if (source / name).is_file():
                    shutil.copyfile(source / name, folder / name)
        status = run_limited(
            [sys.executable, "-m", "pytest", "-q", "--tb=no", "--show-capture=no",
             "-p", "no:cacheprovider", "--rootdir", ".", "-c", os.devnull, "assignment",
             "--report", str(report), *(f"--without={part}" for part in judged)],
            folder, timeout, output)
        if not report.exists():
            said = output.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            raise InputError(f"the tests do not start ({said or f'in {timeout:g} seconds'})")
        lines = [json.loads(line) for line in report.read_text(encoding="utf-8").split("\n")[:-1]]
        if not folder.exists():
            lines = [line | {"message": "the code deletes its folder"} for line in lines]
    return status, lines


def run_limited(command: list[str], folder: Path, timeout: float, output: Path) -> int | None:
    """Run a command on a copy of a hand-in; return its exit status, or None if it takes longer."""
    environment = os.environ | {
        "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder),
        "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    is_posix = os.name == "posix"
    with open(output, "wb") as file, subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=is_posix,
            preexec_fn=limit_resources if is_posix else None) as child:
        try:
            return child.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:  # what it has started ends with it
            with suppress(ProcessLookupError, PermissionError):  # macOS: the latter for zombies
                os.killpg(child.pid, signal.SIGKILL) if is_posix else child.kill()


def limit_resources() -> None:
    """Limit this process's memory and files as far as the system can."""
    import resource

    for name, limit in (("RLIMIT_DATA", MEMORY), ("RLIMIT_FSIZE", FILE_SIZE), ("RLIMIT_CORE", 0)):
        with suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (limit, limit))


# ---------------------------------------------------------------------------------------- outputs

def judge_outputs(folder: Path, parts: dict[str, str]) -> tuple[dict[str, float], list[str]]:
    """Print what is known of the outputs; return accuracies, and problems."""
    predictions = {name: labels for name in OUTPUTS if (labels := read_labels(folder / name))}
    accuracy, lines, unknown = {}, [], {}
    for name, labels in predictions.items():
        dataset, split, *_ = name.split("-")
        data = HERE / "data" / f"{dataset}-{split}.txt"
        if len(expected := read_labels(data)) == len(labels):
            accuracy[name] = sum(map(eq, labels, expected)) / len(labels)
            placeholders = ": placeholder labels" * (len(set(expected)) == 1)
            published, apart, judgement = compare(
                task_of(name), SPLITS.index(split), [accuracy[name]])
            lines.append(f"{name:34} {accuracy[name]:.4f}  {published:14} {apart:>5}  "
                         f"{judgement}{placeholders}")
        elif not expected:
            unknown[f"data/{data.name}"] = None
    if unknown:
        lines.append(f"not compared, since {', '.join(unknown)} are not here (`bash setup.sh` "
                     "fetches them)")
    problems = [*prediction_problems(predictions, accuracy), *origin_problems(predictions, parts),
                *story_problems(folder)]
    if lines or problems:
        title = "outputs: accuracy, published mean (standard deviation), standard deviations apart"
        print(title if accuracy else "outputs", *lines, *problems, sep="\n  ")
    return accuracy, problems


def read_labels(path: Path) -> list[int]:
    """The labels of a file; none where it is missing or damaged, a problem of the structure."""
    with suppress(OSError, InputError):
        return [example.label for example in utils.read_examples(str(path))]
    return []


def prediction_problems(
    predictions: dict[str, list[int]], accuracy: dict[str, float]
) -> Iterator[str]:
    """Yield signs that predictions were not made by a right run of their kind."""
    seen = {}
    for name, labels in predictions.items():
        dataset, split, kind, _ = name.split("-")
        if len(set(labels)) == 1:
            yield f"{name}: constant, {labels[0]} on every line"
        twin = seen.setdefault((dataset, split, tuple(labels)), name)
        if twin != name:
            yield f"{name}: the same predictions as in {twin}"
        if kind == KIND["prompt"] and (ours := zero_shot(dataset).get(name)):
            if differ := sum(map(ne, labels, ours)):
                yield f"{name}: {differ:,} of {len(ours):,} lines differ from our predictions"
        elif name in accuracy:
            mean, deviation = PUBLISHED[task_of(name)][SPLITS.index(split)]
            if abs(accuracy[name] - mean) > 4 * deviation + 0.00005:  # zero-shot has no deviation
                yield f"{name}: too far from the published accuracy"


def task_of(name: str) -> str:
    """What `reproduce.py` calls the task that a file of this name belongs to."""
    dataset, _, kind, _ = name.split("-")
    return f"{dataset}-{next(option for option in KIND if KIND[option] == kind)}"


@cache
def zero_shot(dataset: str) -> dict[str, list[int]]:
    """Our own predictions by file name, or none without the official model and data."""
    files = {"pretrained-model-path": HERE / MODEL,
             "label-names": HERE / "data" / f"{dataset}-label-mapping.json"}
    files |= {split: HERE / "data" / f"{dataset}-{split}.txt" for split in ("train", *SPLITS)}
    if not all(path.is_file() for path in files.values()):
        return {}
    print(f"computing our zero-shot predictions for {dataset}, once", file=sys.stderr)
    outputs = {f"{split}_out": f"{dataset}-{split}-{KIND['prompt']}-output.txt" for split in SPLITS}
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [sys.executable, HERE / "run_llama.py", "--option=prompt", "--batch_size=10",
             *(f"--{option}={value}" for option, value in (files | outputs).items())],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if run.returncode:  # it has said why
            raise InputError(f"{MODEL}: no predictions to compare with")
        return {name: read_labels(Path(folder, name)) for name in outputs.values()}


def origin_problems(predictions: Iterable[str], parts: dict[str, str]) -> Iterator[str]:
    """Yield the first part without which the code cannot have made predictions of some kind."""
    for part, verdict in parts.items():
        made = {"optimizer.py": ("finetuning", "lora"), "lora.py": ("lora",)}.get(
            part.split()[0], KIND.values())
        names = [name for name in predictions if name.split("-")[2] in made]
        if names and part != "llama.py generate" and re.search(
                "not implemented|cannot be imported", verdict):
            yield f"{names[0]}: not made by this code, whose {part} does not run"
            return


def story_problems(folder: Path) -> Iterator[str]:
    """Yield stories that go on for a few words only, or are the same."""
    stories = {
        name: (folder / name).read_text(encoding="utf-8-sig", errors="replace").removeprefix(PROMPT)
        for name in STORIES if (folder / name).is_file()}
    for name, story in stories.items():
        if 0 < len(story.split()) < 5:
            yield f"{name}: only {story.strip()!r:.80} after the prompt"
    if len(set(stories.values())) < len(stories):
        yield f"{STORIES[1]}: the same story as in {STORIES[0]}"


# ------------------------------------------------------------------------------------------- main

def summary(reports: list[Report]) -> str:
    """A table with a row for each hand-in."""
    rows = [("hand-in", "structure", "parts", "begin with", "outputs")]
    for report in reports:
        structure, outputs = (f"{len(problems)} wrong" if problems else "right"
                              for problems in (report.structure, report.outputs))
        if set(STORIES + OUTPUTS) <= set(report.missing):
            outputs = "none"
        verdicts = list(report.parts.values())
        parts = f"{verdicts.count('right')} of {len(verdicts)} right" if verdicts else "not judged"
        rows.append((report.hand_in, structure, parts, first_wrong(report.parts) or "–", outputs))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def main(argv: list[str] | None = None) -> int:
    """Judge; return the exit status."""
    parser = utils.Parser(prog="grade.py", description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hand_ins", nargs="+", type=Path, metavar="HAND_IN",
                        help="a zip or a folder")
    parser.add_argument("--timeout", type=utils.positive_number, default=120, metavar="SECONDS",
                        help="for the tests of a hand-in (default: 120); the part that hangs is "
                             "wrong, and the tests go on with the others")
    parser.add_argument("--json", metavar="FILE", help="write the findings for other programs")
    args = parser.parse_args(argv)
    if missing := [str(path) for path in args.hand_ins if not path.exists()]:
        parser.error(f"there is no {', '.join(missing)}")
    if args.json:
        utils.check_writable(args.json)
    if not importlib.util.find_spec("pytest"):
        raise InputError("pytest is missing; `bash setup.sh --tests python grade.py …` installs it")
    reports = []
    for number, hand_in in enumerate(args.hand_ins, start=1):
        print(f"\n{hand_in} ({number} of {len(args.hand_ins)})")
        reports.append(grade(hand_in, args.timeout))
    if len(reports) > 1:
        print(f"\n{summary(reports)}")
    if args.json:
        with utils.atomic_write(args.json, "w") as file:
            json.dump([report._asdict() | {"right": report.is_right} for report in reports], file,
                      indent=1)
    return 0 if all(report.is_right for report in reports) else 1


if __name__ == "__main__":
    sys.exit(utils.run_program(main))
