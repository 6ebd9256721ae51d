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
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from operator import eq, ne
from pathlib import Path
from typing import Any

import prepare_submit
import utils
from prepare_submit import CONTENT, MODULES, OUTPUTS, STORIES
from reproduce import FIRST_SEED, OFFICIAL_PLAN, SPLITS, Run, compare, execute
from utils import KIND, InputError

HERE = Path(__file__).resolve().parent
WRITTEN = ("rope.py", "llama.py", "optimizer.py", "lora.py", "classifier.py")  # by students
MODEL = OFFICIAL_PLAN.model.name
RUNS = 4  # at most: where a hand-in hangs or crashes, the tests restart after that part
# Python's stack, as pytest prints it where code hangs or crashes.
IMPORTING = re.compile(rf'[/\\]({"|".join(WRITTEN)})", line (\d+) in <module>')
NEEDED = {"prompting": "classifier.*ZeroShot",  # besides the model, for predictions of this kind
          "finetuning": "classifier.*Embedding|optimizer",
          "lora": "classifier.*Embedding|optimizer|lora.*(LoRALayer|apply_lora)"}


def grade(hand_in: Path, timeout: float) -> dict[str, Any]:
    """Judge a hand-in, and print each section as soon as it is known; return the findings."""
    print(f"\n{hand_in}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        structure = take(hand_in, folder)
        print("structure", *(structure or ["right"]), sep="\n  ")
        missing = [part for part in CONTENT if not (folder / part).exists()]
        if missing and hand_in.is_dir():
            print("not here yet", ", ".join(missing), sep="\n  ")
        parts = {} if set(WRITTEN) <= set(missing) else judge_parts(folder, timeout)
        begin_with = next((part for part in parts if parts[part] != "right"), None)
        if parts:
            print("parts", *map(": ".join, parts.items()), sep="\n  ")
        if begin_with:
            print(f"begin with {begin_with}")
        accuracy, outputs = judge_outputs(folder, parts)
    right = bool(parts) and not (structure or begin_with or outputs)
    return {"hand_in": str(hand_in), "right": right, "structure": structure, "missing": missing,
            "parts": parts, "begin_with": begin_with, "accuracy": accuracy, "outputs": outputs}


def take(hand_in: Path, folder: Path) -> list[str]:
    """Copy the parts of a hand-in into `folder`; return problems. A folder need not be complete."""
    if not hand_in.is_dir():
        return prepare_submit.check(hand_in.read_bytes(), folder, HERE)
    copy(hand_in, CONTENT, folder)
    return [problem for part in CONTENT if (folder / part).exists()
            for problem in prepare_submit.part_problems(folder / part, HERE)]


def copy(source: Path, names: Iterable[str], target: Path) -> None:
    """Copy the files that are there."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def judge_parts(hand_in: Path, timeout: float) -> dict[str, str]:
    """Test the five files; return each part's verdict: right, wrong: … or not judged: …"""
    verdicts = {}
    for _ in range(RUNS):
        end, errors, (first, *lines) = run_tests(hand_in, verdicts, timeout)
        is_unfinished = lines and lines[-1]["outcome"] == "started"
        if is_unfinished:
            lines[-1] |= {"outcome": "failed", "message": end}
            if importing := IMPORTING.search(errors):  # from now on, that fails immediately
                name, number = importing.groups()
                (hand_in / name).write_text(
                    "\n" * (int(number) - 1) + f"raise ImportError({end!r})", encoding="utf-8")
        for line in reversed(lines):  # the first failure counts
            if line["outcome"] == "failed":
                verdicts[line["part"]] = f"wrong: {utils.one_line(line['message']):.300}"
            verdicts.setdefault(line["part"], "right")
        if not is_unfinished:
            break
    return {part: verdicts.get(part, "not judged: the tests ended before it")
            for part in first["parts"]}


def run_tests(
    hand_in: Path, judged: Iterable[str], timeout: float
) -> tuple[str, str, list[dict[str, Any]]]:
    """Test the other parts; return how that ends, standard error and the report's lines."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder, report = Path(temporary, "code"), Path(temporary, "report")
        shutil.copytree(HERE / "tests" / "assignment", folder / "assignment")
        copy(HERE, set(MODULES) - set(WRITTEN), folder)
        copy(hand_in, WRITTEN, folder)
        end, errors = prepare_submit.run_limited(
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
    return end, errors, lines


def judge_outputs(folder: Path, parts: dict[str, str]) -> tuple[dict[str, float], list[str]]:
    """Print what is known of the outputs; return accuracies, and problems."""
    predictions = {name: labels for name in OUTPUTS if (labels := read_labels(folder / name))}
    accuracy, lines, problems = {}, prepare_submit.data_note(HERE) if predictions else [], []
    stories = [(folder / name).read_bytes() for name in STORIES if (folder / name).exists()]
    if len(set(stories)) < len(stories):
        problems.append(f"{STORIES[1]}: the same story as in {STORIES[0]}")
    for name, labels in predictions.items():
        dataset, split, kind, _ = name.split("-")
        remarks, is_far = [], False
        if len(expected := read_labels(HERE / f"data/{dataset}-{split}.txt")) == len(labels):
            accuracy[name] = sum(map(eq, labels, expected)) / len(labels)
            option = next(option for option in KIND if KIND[option] == kind)
            published, apart, verdict = compare(
                f"{dataset}-{option}", SPLITS.index(split), [accuracy[name]])
            is_far = verdict == "differs" if apart == "–" else abs(float(apart)) >= 4
            remarks = [f"{accuracy[name]:.4f}  {published:14} {apart:>5}  {verdict}"]
            if len(set(expected)) == 1:
                remarks.append("placeholder labels")
        if len(set(labels)) == 1:
            remarks.append("constant")
        lines.append(f"{name:34} {', '.join(remarks)}")
        problems += [f"{name}: {sign}" for sign in signs(name, predictions, parts, is_far)]
    if lines or problems:
        print("outputs: accuracy, published mean (standard deviation), standard deviations apart",
              *lines, *problems, sep="\n  ")
    return accuracy, problems


def read_labels(path: Path) -> list[int]:
    """The labels of a file; none where it is missing or damaged, a problem of the structure."""
    with suppress(OSError, InputError):
        return [example.label for example in utils.read_examples(str(path))]
    return []


def signs(
    name: str, predictions: dict[str, list[int]], parts: dict[str, str], is_far: bool
) -> list[str]:
    """Return signs that no correct run of their kind made the predictions."""
    dataset, split, kind, _ = name.split("-")
    labels = predictions[name]
    twin = next(other for other in predictions
                if other.startswith(f"{dataset}-{split}-") and predictions[other] == labels)
    idle = next((part for part, verdict in parts.items()
                 if re.match(f"rope|llama(?!.*generate)|{NEEDED[kind]}", part)
                 and re.search("not implemented|cannot be imported", verdict)), None)
    ours = zero_shot(dataset).get(name, []) if kind == KIND["prompt"] else []
    differ = sum(map(ne, labels, ours))
    # LoRA's published accuracy is close to that of constant predictions.
    is_constant = len(set(labels)) == 1 and kind != KIND["lora"]
    findings = [(is_constant, f"constant, {labels[0]} on every line"),
                (twin != name, f"the same predictions as in {twin}"),
                (idle, f"not made by this code, whose {idle} does not run"),
                (differ, f"{differ:,} of {len(ours):,} lines differ from our predictions"),
                (is_far and not ours, "too far from the published accuracy")]
    return [message for is_found, message in findings if is_found]


@cache
def zero_shot(dataset: str) -> dict[str, list[int]]:
    """Our own predictions by file name, or none without the official model and data."""
    with tempfile.TemporaryDirectory() as folder:
        plan = OFFICIAL_PLAN._replace(home=HERE, work=Path(folder), model=HERE / MODEL)
        run = Run(plan, "prompt", dataset, FIRST_SEED)
        if not all(path.is_file() for path in run.files().values()):
            return {}
        print(f"computing our zero-shot predictions for {dataset}, once", file=sys.stderr)
        try:
            execute(run, run.command(use_gpu=False))
        except InputError as error:
            print(f"nothing to compare zero-shot predictions with: {error}", file=sys.stderr)
        return {name: read_labels(run.folder / name) for name in run.outputs.values()}


def summary(reports: list[dict[str, Any]]) -> str:
    """A table with a row for each hand-in."""
    rows = [("hand-in", "structure", "parts", "begin with", "outputs")]
    for report in reports:
        structure, outputs = (f"{len(report[key])} wrong" if report[key] else "right"
                              for key in ("structure", "outputs"))
        if set(STORIES + OUTPUTS) <= set(report["missing"]):
            outputs = "none"
        elif not report["accuracy"] and outputs == "right":
            outputs = "not compared"
        verdicts = list(report["parts"].values())
        parts = f"{verdicts.count('right')} of {len(verdicts)} right" if verdicts else "not judged"
        rows.append((report["hand_in"], structure, parts, report["begin_with"] or "–", outputs))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def main(argv: list[str] | None = None) -> int:
    """Judge; return the exit status."""
    parser = utils.Parser(prog="grade.py", description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hand_ins", nargs="+", type=Path, metavar="HAND_IN",
                        help="a zip or a folder")
    parser.add_argument("--timeout", type=utils.positive_number, default=120, metavar="SECONDS",
                        help="for one run of a hand-in's tests (default: 120); the part that hangs "
                             f"is wrong, and the others are run again, up to {RUNS} times in all")
    parser.add_argument("--json", metavar="FILE", help="write the findings for other programs")
    args = parser.parse_args(argv)
    if missing := [str(path) for path in args.hand_ins if not os.access(path, os.R_OK)]:
        parser.error(f"cannot read {', '.join(missing)}")
    if args.json:
        utils.check_writable(args.json)
    reports = [grade(hand_in, args.timeout) for hand_in in args.hand_ins]
    if len(reports) > 1:
        print(f"\n{summary(reports)}")
    if args.json:
        with utils.atomic_write(args.json, "w") as file:
            json.dump(reports, file, indent=1)
    return 0 if all(report["right"] for report in reports) else 1


if __name__ == "__main__":
    sys.exit(utils.run_program(main))
