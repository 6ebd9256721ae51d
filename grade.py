"""Judge hand-ins: their structure, each part of their code, and their outputs.

    python grade.py HAND_IN [HAND_IN ...] [--timeout SECONDS] [--json FILE]

A hand-in is a zip or a folder; `.` is your own work. The five files that students write are tested
among our own support files, part by part, in the order in which they build on each other.

THIS RUNS THE CODE THAT IT JUDGES: on copies, in a process of its own with limits of time and
memory, but not in a sandbox. Exit status: 0 all right, 1 something is wrong, 2 bad usage.
"""

import argparse
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

import prepare_submit
import utils
from prepare_submit import CONTENT, MODULES, OUTPUTS, STORIES, part_problems
from reproduce import FIRST_SEED, OFFICIAL_PLAN, SPLITS, Run, compare
from utils import KIND, PROMPT, InputError

HERE = Path(__file__).resolve().parent
WRITTEN = ("rope.py", "llama.py", "optimizer.py", "lora.py", "classifier.py")  # by students
SUPPORT = tuple(name for name in MODULES if name not in WRITTEN)
MODEL = OFFICIAL_PLAN.model.name
RUNS = 4  # at most: where a hand-in hangs or crashes, the tests start again behind that part
# Python's stack, as pytest prints it where code hangs or crashes.
IMPORTING = re.compile(rf'[/\\]({"|".join(WRITTEN)})", line (\d+) in <module>')


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
            copy(hand_in, CONTENT, folder)
        else:
            problems = prepare_submit.extract(hand_in.read_bytes(), folder)
    except (OSError, InputError) as error:
        return [str(error)], list(CONTENT)
    missing = [part for part in CONTENT if not (folder / part).exists()]
    problems += [f"{part}{problem}" for part in CONTENT if part not in missing
                 for problem in part_problems(folder / part, HERE)]
    if missing and not hand_in.is_dir():
        problems.append(f"missing: {', '.join(missing)}")
    return problems, missing


def copy(source: Path, names: Iterable[str], target: Path) -> None:
    """Copy the files that are there."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


# ------------------------------------------------------------------------------------------ parts

def judge_parts(hand_in: Path, timeout: float) -> dict[str, str]:
    """Test the five files; return the verdict on each part, in order of dependence."""
    verdicts = {}
    for _ in range(RUNS):
        status, errors, (first, *lines) = run_tests(hand_in, verdicts, timeout)
        *_, last = lines or [first]
        if is_unfinished := last.get("outcome") == "started":
            last |= {"outcome": "failed", "message": how_it_ended(status, timeout)}
            print(f"{last['part']} {last['message']}; the tests go on with the others",
                  file=sys.stderr)
            if importing := IMPORTING.search(errors):  # from now on, that fails at once
                name, number = importing.groups()
                (hand_in / name).write_text(
                    "\n" * (int(number) - 1) + f"raise ImportError({last['message']!r})",
                    encoding="utf-8")
                lines = [line for line in lines if line["part"] != last["part"]]
        for line in lines:
            if line["outcome"] == "failed":
                verdicts.setdefault(line["part"], f"wrong: {utils.one_line(line['message']):.300}")
        verdicts |= {line["part"]: "right" for line in lines if line["part"] not in verdicts}
        if not is_unfinished:
            break
    return {part: verdicts.get(part, "not judged: the tests ended before it")
            for part in first["parts"]}


def how_it_ended(status: int | None, timeout: float) -> str:
    """Describe the end of a process in the middle of a test."""
    if status is None:
        return f"takes more than {timeout:g} seconds"
    reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"ended the process ({reason})"


def run_tests(
    hand_in: Path, judged: Iterable[str], timeout: float
) -> tuple[int | None, str, list[dict[str, Any]]]:
    """Test the other parts; return exit status, standard error and the report's lines."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder, report = Path(temporary, "code"), Path(temporary, "report")
        shutil.copytree(HERE / "tests" / "assignment", folder / "assignment")
        copy(HERE, SUPPORT, folder)
        copy(hand_in, WRITTEN, folder)
        status, errors = prepare_submit.run_limited(
            [sys.executable, "-m", "pytest", "-q", "--tb=no", "--show-capture=no", "--rootdir", ".",
             "-p", "no:cacheprovider", "-c", os.devnull, f"-ofaulthandler_timeout={timeout / 2}",
             "assignment", "--report", str(report), *(f"--without={part}" for part in judged)],
            folder, timeout, PYTEST_ADDOPTS="", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
        if not report.exists():
            raise InputError("the tests do not start; `bash setup.sh --tests python grade.py …` "
                             f"installs what they need ({errors.strip()[-200:]})")
        lines = [json.loads(line) for line in report.read_text(encoding="utf-8").split("\n")[:-1]]
        if not folder.exists():
            lines = [line | {"message": "the code deletes its folder"} for line in lines]
    return status, errors, lines


# ---------------------------------------------------------------------------------------- outputs

def judge_outputs(folder: Path, parts: dict[str, str]) -> tuple[dict[str, float], list[str]]:
    """Print what is known of the outputs; return accuracies, and problems."""
    predictions = {name: labels for name in OUTPUTS if (labels := read_labels(folder / name))}
    accuracy, lines = {}, prepare_submit.data_note(HERE) if predictions else []
    problems = [*story_problems(folder), *origin_problems(predictions, parts)]
    for name, labels in predictions.items():
        dataset, split, kind, _ = name.split("-")
        is_far = False
        if len(expected := read_labels(HERE / f"data/{dataset}-{split}.txt")) == len(labels):
            accuracy[name] = sum(map(eq, labels, expected)) / len(labels)
            option = next(option for option in KIND if KIND[option] == kind)
            published, apart, judgement = compare(
                f"{dataset}-{option}", SPLITS.index(split), [accuracy[name]])
            placeholders = ": placeholder labels" * (len(set(expected)) == 1)
            lines.append(f"{name:34} {accuracy[name]:.4f}  {published:14} {apart:>5}  "
                         f"{judgement}{placeholders}")
            is_far = judgement == "differs" if apart == "–" else abs(float(apart)) >= 4
        problems += [f"{name}: {sign}" for sign in signs(name, predictions, is_far)]
    if lines or problems:
        print("outputs: accuracy, published mean (standard deviation), standard deviations apart",
              *lines, *problems, sep="\n  ")
    return accuracy, problems


def read_labels(path: Path) -> list[int]:
    """The labels of a file; none where it is missing or damaged, a problem of the structure."""
    with suppress(OSError, InputError):
        return [example.label for example in utils.read_examples(str(path))]
    return []


def signs(name: str, predictions: dict[str, list[int]], is_far: bool) -> Iterator[str]:
    """Yield signs that predictions were not made by a right run of their kind."""
    dataset, split, kind, _ = name.split("-")
    labels = predictions[name]
    if len(set(labels)) == 1:
        yield f"constant, {labels[0]} on every line"
    twin = next(other for other in predictions
                if other.startswith(f"{dataset}-{split}-") and predictions[other] == labels)
    if twin != name:
        yield f"the same predictions as in {twin}"
    if kind == KIND["prompt"] and (ours := zero_shot(dataset).get(name)):
        if differ := sum(map(ne, labels, ours)):
            yield f"{differ:,} of {len(ours):,} lines differ from our predictions"
    elif is_far:
        yield "too far from the published accuracy"


@cache
def zero_shot(dataset: str) -> dict[str, list[int]]:
    """Our own predictions by file name, or none without the official model and data."""
    with tempfile.TemporaryDirectory() as folder:
        plan = OFFICIAL_PLAN._replace(home=HERE, work=Path(folder), model=HERE / MODEL)
        run = Run(plan, "prompt", dataset, FIRST_SEED)
        if not all(path.is_file() for path in run.files().values()):
            return {}
        print(f"computing our zero-shot predictions for {dataset}, once", file=sys.stderr)
        run.folder.mkdir()
        subprocess.run(run.command(use_gpu=False), cwd=run.folder, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL)  # on standard error, it says why it fails
        return {name: read_labels(run.folder / name) for name in run.outputs.values()}


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
    stories = {name: (folder / name).read_text(encoding="utf-8-sig", errors="replace")
               for name in STORIES if (folder / name).is_file()}
    for name, story in stories.items():
        if 0 < len((added := story.removeprefix(PROMPT).strip()).split()) < 5:
            yield f"{name}: only {added!r:.80} after the prompt"
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
