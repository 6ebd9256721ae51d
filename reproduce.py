"""Run the commands of the assignment and compare their results with the published ones.

    python reproduce.py [--seeds N] [--tasks TASK ...] [--use_gpu] [--demo]

Every run has its own folder in reproduction/. Finished runs are kept and interrupted ones resumed,
so the program can be stopped at any time and started again. The outputs of seed 1337 are copied to
where prepare_submit.py takes them from, and results.md is written anew after every run.
"""

import argparse
import hashlib
import json
import re
import shutil
import statistics
import subprocess
import sys
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from prepare_submit import CLASSES, STORIES, output_problems
from run_llama import KIND
from tokenizer import TOKENIZER_MODEL
from utils import (
    InputError,
    Parser,
    atomic_write,
    configure_stdout,
    fail,
    pick_device,
    positive_int,
    read_examples,
)

HERE = Path(__file__).resolve().parent
FIRST_SEED = 1337
SPLITS = ("dev", "test")
JOBS = {"prompt": "zero-shot", "finetune": "fine-tuning", "lora": "LoRA"}
TRAINED = ("finetune", "lora")
TASKS = [("generate", ""), *((option, dataset) for option in JOBS for dataset in CLASSES)]
WORDS = ("generate", *JOBS, *CLASSES, *(f"{dataset}-{option}" for option, dataset in TASKS[1:]))
DEMO_DATA = {"sst": "reviews5", "cfimdb": "reviews2"}  # what takes the place of the official sets

# Mean and standard deviation of the accuracy over ten seeds, on dev and on test.
PUBLISHED = {
    "sst-prompt": ((0.2371, 0.0), (0.2498, 0.0)),
    "cfimdb-prompt": ((0.4898, 0.0), (0.1086, 0.0)),
    "sst-finetune": ((0.411, 0.025), (0.399, 0.023)),
    "cfimdb-finetune": ((0.833, 0.060), (0.473, 0.198)),
    "sst-lora": ((0.275, 0.024), (0.269, 0.020)),
    "cfimdb-lora": ((0.510, 0.051), (0.506, 0.239)),
}


class RunFailed(Exception):
    """A run ended with an error, or its predictions do not fit the data."""


class Plan(NamedTuple):
    """What to reproduce, and where."""

    home: Path  # holds data/; outputs of the first seed are copied here
    work: Path  # holds a folder for each run
    model: Path
    epochs: int
    batch_sizes: dict[str, int]  # in training
    settings: dict[str, str]
    is_demo: bool = False


OFFICIAL_PLAN = Plan(
    Path(), Path("reproduction"), Path("stories42M.pt"), 5, {"sst": 80, "cfimdb": 10},
    {"generate": "", "prompt": "--batch_size 10", "finetune": "--lr 2e-5",
     "lora": "--lr 2e-5 --lora_rank 4 --lora_alpha 1.0"})
DEMO_PLAN = Plan(
    Path("reproduction/demo"), Path("reproduction/demo"), HERE / "demo/stories.pt", 5,
    {"sst": 8, "cfimdb": 8},
    {"generate": "", "prompt": "--batch_size 8", "finetune": "--lr 5e-4",
     "lora": "--lr 2e-3 --lora_rank 8 --lora_alpha 8"}, is_demo=True)


class Run(NamedTuple):
    """One command of the assignment with one seed, in a folder of its own."""

    plan: Plan
    option: str
    dataset: str  # empty for generate
    seed: int

    @property
    def folder(self) -> Path:
        """Where it works and keeps its notes."""
        return self.plan.work / f"{self.dataset}-{self.option}-{self.seed}".lstrip("-")

    @property
    def outputs(self) -> dict[str, str]:
        """The files that it makes for the submission, by the options that name them."""
        if self.option == "generate":
            return {f"generated_sentence_{kind}_temp_out": story
                    for kind, story in zip(("low", "high"), STORIES)}
        return {f"{split}_out": f"{self.dataset}-{split}-{KIND[self.option]}-output.txt"
                for split in SPLITS}

    def files(self) -> dict[str, Path]:
        """The files that it reads, by the options that name them."""
        files = {"pretrained-model-path": self.plan.model,
                 "tokenizer": self.plan.model.with_name(TOKENIZER_MODEL)}
        if self.dataset:
            stem = self.plan.home / "data" / self.dataset
            files |= {split: Path(f"{stem}-{split}.txt") for split in ("train", *SPLITS)}
            files["label-names"] = Path(f"{stem}-label-mapping.json")
        return files

    def recipe(self) -> dict[str, Any]:
        """All that the result depends on, except for the device."""
        options = f"--option {self.option} --seed {self.seed} {self.plan.settings[self.option]}"
        if self.option in TRAINED:
            options += (f" --batch_size {self.plan.batch_sizes[self.dataset]}"
                        f" --epochs {self.plan.epochs} --resume")
        return {"options": options.split(), "files": {
            name: sha256(path, path.stat().st_mtime_ns)
            for name, path in self.files().items() if path.is_file()}}

    def command(self) -> list[str]:
        """The command line."""
        options = {name: path.resolve() for name, path in self.files().items()} | self.outputs
        return [sys.executable, str(HERE / "run_llama.py"), *self.recipe()["options"],
                *(f"--{name}={path}" for name, path in options.items())]

    def notes(self) -> dict[str, Any]:
        """What was noted of a run of this recipe; `accuracy` is there if it was finished."""
        path = self.folder / "run.json"
        notes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return notes if notes.get("recipe") == self.recipe() else {}

    def write_notes(self, **notes: Any) -> None:
        """Write what `notes` reads."""
        with atomic_write(str(self.folder / "run.json"), "w") as file:
            json.dump({"recipe": self.recipe(), **notes}, file, indent=1)


@cache
def sha256(path: Path, changed: int) -> str:
    """The checksum of a file, computed again only where the time of its last change differs."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Progress:
    """Prints epochs and how long the rest takes, as if all training data took equally long."""

    def __init__(self, runs: list[Run]) -> None:
        self.runs = [run for run in runs if run.option in TRAINED]
        self.seconds, self.bytes = 0, 0  # measured so far

    def show(self, this: Run, line: str) -> None:
        """Print a line of a run's output, if it is that of an epoch."""
        if match := re.match(r"epoch (\d+): train.*, (\d+) s", line):
            size, *sizes = [run.files()["train"].stat().st_size for run in [this, *self.runs]
                            if "accuracy" not in run.notes()]
            self.seconds, self.bytes = self.seconds + int(match[2]), self.bytes + size
            left = sum(sizes) * this.plan.epochs - size * (int(match[1]) + 1)
            time_left = timedelta(seconds=round(left * self.seconds / self.bytes))
            print(f"    {line.rstrip()}; all runs: about {time_left} left")


def reproduce(runs: list[Run], use_gpu: bool) -> None:
    """Do the runs that are not done, and put outputs and results in place."""
    progress = Progress(runs)
    for number, run in enumerate(runs, start=1):
        is_done = "accuracy" in run.notes()
        print(f"run {number} of {len(runs)}: {run.folder.name}{', done before' * is_done}")
        if not is_done:
            perform(run, use_gpu, progress)
        for split, share in zip(SPLITS, run.notes()["accuracy"]):
            print(f"    {split} accuracy {share:.4f}")
        if run.seed == FIRST_SEED:
            for name in run.outputs.values():
                shutil.copyfile(run.folder / name, run.plan.home / name)
        write_results(run.plan)


def perform(run: Run, use_gpu: bool, progress: Progress) -> None:
    """Do a run, or resume it if it was interrupted, and note its result."""
    if run.notes().get("use_gpu") != use_gpu:  # also if there are none of this recipe
        shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True, exist_ok=True)
    run.write_notes(use_gpu=use_gpu)
    execute(run, [*run.command(), *["--use_gpu"] * use_gpu], progress)
    run.write_notes(use_gpu=use_gpu, accuracy=accuracy(run))
    if run.seed != FIRST_SEED:
        for model in run.folder.glob("*.pt"):  # 167 MB each
            model.unlink()


def execute(run: Run, command: list[str], progress: Progress) -> None:
    """Run a command; its output goes into log.txt, and epochs onto the screen."""
    line, log_path = "", run.folder / "log.txt"
    with open(log_path, "a", encoding="utf-8", buffering=1) as log, subprocess.Popen(
            command, cwd=run.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            encoding="utf-8", errors="replace") as child:
        try:
            for line in child.stdout:
                log.write(line)
                progress.show(run, line)
        except KeyboardInterrupt:  # of which the child may not know
            child.kill()
            raise
    if child.returncode:
        raise RunFailed(f"{run.folder.name} failed with exit status {child.returncode}: "
                        f"{line.strip() or 'no message'} (all of it in {log_path})")


def accuracy(run: Run) -> list[float]:
    """Compare the written predictions for dev and test with the data; nothing for stories."""
    shares = []
    for split in SPLITS if run.dataset else ():
        examples = read_examples(str(run.files()[split]))
        path = run.folder / run.outputs[f"{split}_out"]
        for problem in output_problems(path, examples):
            raise RunFailed(f"{path}{problem}")
        hits = sum(predicted.label == example.label
                   for predicted, example in zip(read_examples(str(path)), examples))
        shares.append(hits / len(examples))
    return shares


VERDICTS = """
- *apart*: mean measured minus mean published, in published standard deviations.
- *equal*: the same to all published digits. Zero-shot prompting draws nothing at random.
- *agrees*: at most 2 standard deviations apart; *differs*: more, as may happen with few seeds.
- *not comparable*: the labels of CFIMDB test are placeholders, 0 on every line, so that a trained
  model's figure is only the share of zeros predicted.
"""
NO_VERDICTS = """
**The published figures do not apply here:** this is the small embedded model on the embedded
reviews. reviews5 takes the place of SST and reviews2 that of CFIMDB, also in the outputs' names.
"""


def write_results(plan: Plan) -> None:
    """Write results.md from all results that are there, those of earlier calls included."""
    command = f"python reproduce.py{' --demo' * plan.is_demo}"
    lines = ["# Results\n\nAccuracy, mean (standard deviation) over the seeds; one seed has no "
             f"standard deviation. Computed from the written outputs. Made by `{command}`.\n",
             "| job | sentences | seeds | measured | published | apart | verdict |",
             "|---|---|---|---|---|---|---|"]
    seeds = {int(path.parent.name.rpartition("-")[2]) for path in plan.work.glob("*/run.json")}
    for option, dataset in TASKS[1:]:
        notes = [Run(plan, option, dataset, seed).notes() for seed in seeds]
        results = [note["accuracy"] for note in notes if "accuracy" in note]
        name = DEMO_DATA[dataset] if plan.is_demo else dataset.upper()
        for index, split in enumerate(SPLITS):
            shares = [result[index] for result in results]
            verdict = ["–"] * 3 if plan.is_demo else compare(f"{dataset}-{option}", index, shares)
            cells = (JOBS[option], f"{name} {split}", len(shares), measured(shares), *verdict)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    with atomic_write(str(plan.home / "results.md"), "w") as file:
        file.write("\n".join([*lines, NO_VERDICTS if plan.is_demo else VERDICTS]))


def measured(shares: list[float]) -> str:
    """Mean and standard deviation."""
    spread = f" ({statistics.stdev(shares):.4f})" if len(shares) > 1 else ""
    return f"{statistics.mean(shares):.4f}{spread}" if shares else "not run"


def compare(task: str, index: int, shares: list[float]) -> tuple[str, str, str]:
    """The published figure, how many standard deviations apart, and the verdict."""
    mean, deviation = PUBLISHED[task][index]
    published = f"{mean:.3f} ({deviation:.3f})" if deviation else f"{mean:.4f} (0.000)"
    if not shares:
        return published, "–", "–"
    apart = statistics.mean(shares) - mean
    if not deviation:
        return published, "–", "equal" if abs(apart) < 0.00005 else "differs"
    verdict = "agrees" if abs(apart) <= 2 * deviation else "differs"
    if task.startswith("cfimdb") and SPLITS[index] == "test":
        verdict = "not comparable"
    return published, f"{apart / deviation:+.1f}", verdict


def lay_out_demo(plan: Plan) -> None:
    """Copy the embedded files to where a submission's check looks, under the official names."""
    (plan.home / "data").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(HERE / "demo/sanity_check.data", plan.home / "sanity_check.data")
    for dataset, stem in DEMO_DATA.items():
        for path in (HERE / "demo").glob(f"{stem}-*"):
            shutil.copyfile(path, plan.home / "data" / path.name.replace(stem, dataset))


def check_inputs(runs: list[Run]) -> None:
    """Raise InputError, naming all files that the runs need and that are not there."""
    needed = {path for run in runs for path in run.files().values()}
    if missing := sorted(str(path) for path in needed if not path.is_file()):
        raise InputError(f"missing: {', '.join(missing)}; `bash setup.sh` fetches the official "
                         "files, and --demo does without them")


def main(argv: list[str] | None = None) -> int:
    """Reproduce; return 0: done, 1: a run failed, 2: bad usage or input, 130: interrupted."""
    configure_stdout()
    parser = Parser(prog="reproduce.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=positive_int, default=1, metavar="N",
                        help="for fine-tuning and LoRA: 1337, 1338, … (default: 1; the published "
                             "figures are of 10). The other jobs run with 1337 alone")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", choices=WORDS, default=WORDS,
                        help="generate, prompt, finetune, lora on both data sets; or sst, cfimdb; "
                             "or one of each, as sst-lora (default: all)")
    parser.add_argument("--use_gpu", action="store_true", help="run on CUDA, not on the CPU")
    parser.add_argument("--demo", action="store_true",
                        help="the embedded model and data, in minutes, into reproduction/demo/")
    args = parser.parse_args(argv)
    plan = DEMO_PLAN if args.demo else OFFICIAL_PLAN
    runs = [Run(plan, option, dataset, seed)
            for seed in range(FIRST_SEED, FIRST_SEED + args.seeds) for option, dataset in TASKS
            if {option, dataset, f"{dataset}-{option}"} & set(args.tasks)
            and (option in TRAINED or seed == FIRST_SEED)]
    try:
        if args.demo:
            lay_out_demo(plan)
        check_inputs(runs)
        pick_device(args.use_gpu)
        reproduce(runs, args.use_gpu)
    except KeyboardInterrupt:
        return fail("reproduce.py", "interrupted; the same command goes on from here", 130)
    except RunFailed as error:
        return fail("reproduce.py", error, 1)
    except (OSError, InputError) as error:
        return fail("reproduce.py", error)
    print(f"the results are in {plan.home / 'results.md'}; to hand in:\n"
          f"python prepare_submit.py SURNAME1_SURNAME2 --from {plan.home}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
