"""Run the commands of the assignment and put what comes out beside what is published.

    python reproduce.py [--seeds N] [--tasks TASK ...] [--use_gpu] [--demo]

Every run has its own folder in reproduction/. What is done is kept, so that the program can be
stopped at any time and goes on where it was when it is started again. The outputs of seed 1337
are copied to where prepare_submit.py takes them from, and results.md is written after every run.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from prepare_submit import OUTPUTS, STORIES, output_name, output_problems
from run_llama import CHECKPOINT, whole
from tokenizer import DEFAULT_TOKENIZER
from utils import Parser, atomic_write, beside, fail, pick_device, read_examples

HERE = Path(__file__).resolve().parent
FIRST_SEED = 1337


class Task(NamedTuple):
    """One command of the assignment, on one data set."""

    option: str
    dataset: str = ""
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What --tasks and the folders call it."""
        return f"{self.dataset}-{self.option}".lstrip("-")


def tasks(finetune: str, lora: str, batch_sizes: dict[str, int]) -> list[Task]:
    """All tasks, the quick ones first."""
    every = [Task("generate")]
    every += [Task("prompt", name, ("--batch_size", "10")) for name in batch_sizes]
    return every + [
        Task(option, name, (*settings.split(), "--batch_size", str(batch_size)))
        for option, settings in (("finetune", finetune), ("lora", lora))
        for name, batch_size in batch_sizes.items()]


OFFICIAL = tasks("--epochs 5 --lr 2e-5", "--epochs 5 --lr 2e-5 --lora_rank 4 --lora_alpha 1.0",
                 {"sst": 80, "cfimdb": 10})
DEMO = tasks("--epochs 6 --lr 5e-4", "--epochs 6 --lr 2e-3 --lora_rank 8 --lora_alpha 8",
             {"sst": 8, "cfimdb": 8})  # as demo/run.sh
DEMO_DATA = {"sst": "reviews5", "cfimdb": "reviews2"}  # what takes the place of the official sets
JOBS = {"prompt": "zero-shot", "finetune": "fine-tuning", "lora": "LoRA"}
SPLITS = ("dev", "test")

# Mean and standard deviation of the accuracy over ten seeds, on dev and on test.
PUBLISHED = {
    "sst-prompt": ((0.2371, 0.0), (0.2498, 0.0)),
    "cfimdb-prompt": ((0.4898, 0.0), (0.1086, 0.0)),
    "sst-finetune": ((0.411, 0.025), (0.399, 0.023)),
    "cfimdb-finetune": ((0.833, 0.060), (0.473, 0.198)),
    "sst-lora": ((0.275, 0.024), (0.269, 0.020)),
    "cfimdb-lora": ((0.510, 0.051), (0.506, 0.239)),
}


class Plan(NamedTuple):
    """What to reproduce, and where."""

    home: Path  # of data/, and for the outputs of the first seed
    work: Path  # holds a folder for each run
    model: Path
    tasks: list[Task]
    demo: bool

    def files(self, dataset: str) -> dict[str, Path]:
        """The files of a data set by the options that name them."""
        ends = {"train": "train.txt", "dev": "dev.txt", "test": "test.txt",
                "label-names": "label-mapping.json"}
        return {f"--{name}": self.home / "data" / f"{dataset}-{end}"
                for name, end in ends.items() if dataset}


OFFICIAL_PLAN = Plan(Path(), Path("reproduction"), Path(CHECKPOINT), OFFICIAL, demo=False)
DEMO_PLAN = Plan(Path("reproduction/demo"), Path("reproduction/demo"), HERE / "demo/stories.pt",
                 DEMO, demo=True)


def check_inputs(plan: Plan, chosen: list[Task]) -> None:
    """Raise FileNotFoundError, naming all that the tasks need and that is not there."""
    needed = [plan.model, Path(beside(str(plan.model), DEFAULT_TOKENIZER))]
    for dataset in {task.dataset: None for task in chosen}:
        needed += plan.files(dataset).values()
    missing = [str(path) for path in needed if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"missing: {', '.join(missing)}; " + (
            "the repository has them: get it again" if plan.demo else
            "`bash setup.sh` fetches them, and --demo does without"))


def lay_out_demo(plan: Plan) -> None:
    """Copy the embedded files to where a submission's check looks, under the official names."""
    copies = {HERE / "demo/sanity_check.data": plan.home / "sanity_check.data"}
    for dataset, stem in DEMO_DATA.items():
        for path in plan.files(dataset).values():
            copies[HERE / "demo" / path.name.replace(dataset, stem)] = path
    (plan.home / "data").mkdir(parents=True, exist_ok=True)
    for source, path in copies.items():
        if source.is_file():  # what is needed and missing is said by check_inputs
            copy(source, path)


def copy(source: Path, path: Path) -> None:
    """Copy a file, whole or not at all."""
    with open(source, "rb") as content, atomic_write(str(path)) as file:
        shutil.copyfileobj(content, file)


# ------------------------------------------------------------------------------------------- runs

@cache
def sha256(path: Path, changed: int) -> str:
    """The checksum of a file, computed again only when the file's time of change is another."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def recipe_of(plan: Plan, task: Task, seed: int) -> dict[str, Any]:
    """All that a result depends on: the command, with paths as seen from its folder, and files."""
    files = {"--pretrained-model-path": plan.model} | plan.files(task.dataset)
    folder = folder_of(plan, task, seed)
    command = ["--option", task.option, "--seed", str(seed), *task.settings]
    for option, path in files.items():
        command += [option, os.path.relpath(path, folder)]
    for split in SPLITS if task.dataset else ():
        command += [f"--{split}_out", output_name(task.dataset, split, task.option)]
    inputs = [*files.values(), Path(beside(str(plan.model), DEFAULT_TOKENIZER))]
    return {"command": command, "inputs": {
        path.name: sha256(path.resolve(), path.stat().st_mtime_ns)
        for path in inputs if path.is_file()}}


def folder_of(plan: Plan, task: Task, seed: int) -> Path:
    """Where a run works."""
    return plan.work / f"{task.name}-{seed}"


def outputs_of(task: Task) -> list[str]:
    """The files that a run makes for the submission."""
    return [output_name(task.dataset, split, task.option) for split in SPLITS] \
        if task.dataset else list(STORIES)


def result_of(plan: Plan, task: Task, seed: int) -> dict[str, Any] | None:
    """The result of a finished run of the same command on the same files, whatever the device."""
    folder = folder_of(plan, task, seed)
    result = read_json(folder / "result.json")
    same = all(result.get(key) == value for key, value in recipe_of(plan, task, seed).items()) \
        and all((folder / name).is_file() for name in outputs_of(task))
    return result if same else None


def read_json(path: Path) -> dict[str, Any]:
    """What a run has noted, or an empty dict."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Note something."""
    with atomic_write(str(path), "w") as file:
        json.dump(content, file, indent=1)


def perform(plan: Plan, task: Task, seed: int, use_gpu: bool) -> dict[str, Any]:
    """Do a run, or go on with an interrupted one; returns its result."""
    folder, recipe = folder_of(plan, task, seed), recipe_of(plan, task, seed)
    started = recipe | {"use_gpu": use_gpu}
    folder.mkdir(parents=True, exist_ok=True)
    resumed = any(folder.glob("*.resume.pt")) and read_json(folder / "started.json") == started
    (folder / "result.json").unlink(missing_ok=True)
    write_json(folder / "started.json", started)
    program = os.path.relpath(HERE / "run_llama.py", folder)
    begin = time.monotonic()
    execute([sys.executable, program, *recipe["command"], *["--use_gpu"] * use_gpu,
             *["--resume"] * resumed], folder)
    result = started | {"seconds": round(time.monotonic() - begin, 1), "resumed": resumed,
                        "accuracy": accuracies(plan, task, folder)}
    write_json(folder / "result.json", result)
    if seed != FIRST_SEED:
        for model in folder.glob("*.pt"):  # 167 MB each
            model.unlink()
    return result


def execute(command: list[str], folder: Path) -> None:
    """Run a command, its output in log.txt and its epochs shown.

    Raises:
        RuntimeError: it failed.
    """
    log_path = folder / "log.txt"
    with open(log_path, "a", encoding="utf-8") as log, subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            encoding="utf-8", env=os.environ | {"PYTHONIOENCODING": "utf-8"}) as child:
        line = ""
        try:
            for line in child.stdout:
                log.write(line)
                log.flush()
                if re.match(r"epoch \d+/\d+: \w", line):
                    print("    " + line, end="", flush=True)
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)  # where Ctrl-C did not reach it
            child.wait()
            raise
    if child.returncode == 130:
        raise KeyboardInterrupt
    if child.returncode:
        raise RuntimeError(f"{folder.name} failed with exit status {child.returncode}: "
                           f"{line.strip() or 'no message'} (all of it in {log_path})")


def accuracies(plan: Plan, task: Task, folder: Path) -> dict[str, float]:
    """Compare the written predictions with the data."""
    shares = {}
    for split in SPLITS if task.dataset else ():
        examples = read_examples(str(plan.files(task.dataset)[f"--{split}"]))
        path = folder / output_name(task.dataset, split, task.option)
        problems = output_problems(path, OUTPUTS[path.name], examples)
        if problems:
            raise RuntimeError(f"{path}: {problems[0]}")
        hits = sum(predicted.label == example.label
                   for predicted, example in zip(read_examples(str(path)), examples))
        shares[split] = hits / len(examples)
    return shares


def reproduce(plan: Plan, chosen: list[Task], seeds: int, use_gpu: bool) -> None:
    """Do all runs that are not done, all tasks of the first seed first."""
    runs = [(task, seed) for seed in range(FIRST_SEED, FIRST_SEED + seeds) for task in chosen
            if task.option in ("finetune", "lora") or seed == FIRST_SEED]
    titles = [f"{task.name}, seed {seed}" for task, seed in runs] + ["that was the last"]
    for number, (task, seed) in enumerate(runs, start=1):
        title = f"run {number} of {len(runs)}: {titles[number - 1]}"
        result = result_of(plan, task, seed)
        if result:
            print(f"{title}: done before, in {result['seconds']} s", flush=True)
        else:
            print(f"{title}{how_long(plan, task)}; next: {titles[number]}", flush=True)
            result = perform(plan, task, seed, use_gpu)
            shares = [f"{split} accuracy {share:.4f}, " for split, share
                      in result["accuracy"].items()]
            print(f"    {''.join(shares)}{result['seconds']} s", flush=True)
        if seed == FIRST_SEED:
            for name in outputs_of(task):
                copy(folder_of(plan, task, seed) / name, plan.home / name)
        write_results(plan)


def how_long(plan: Plan, task: Task) -> str:
    """What the last run of the task took, if there was one."""
    results = results_of(plan, task)
    return f", about {max(results.items())[1]['seconds']:,.0f} s" if results else ""


def results_of(plan: Plan, task: Task) -> dict[int, dict[str, Any]]:
    """The results that are there by their seeds, those of earlier calls included."""
    seeds = sorted(int(folder.name.rpartition("-")[2])
                   for folder in plan.work.glob(f"{task.name}-[0-9]*")
                   if folder.name.rpartition("-")[2].isdecimal())
    results = {seed: result_of(plan, task, seed) for seed in seeds}
    return {seed: result for seed, result in results.items() if result}


# ---------------------------------------------------------------------------------------- results

VERDICTS = """- *apart*: mean measured minus mean published, in published standard deviations.
- *equal*: the same to all published digits. Zero-shot prompting draws nothing at random.
- *agrees*: at most 2 published standard deviations apart. A mean over few seeds strays further
  than one over ten.
- *differs*: neither of these.
- *not comparable*: the labels of CFIMDB test are placeholders, 0 on every line, so that its figure
  is only the share of zeros predicted. Zero-shot it can be compared all the same.
"""
NO_VERDICTS = """**The published figures do not apply here:** this is the small embedded model on
the embedded reviews, so there is nothing to compare with. reviews5 takes the place of SST and
reviews2 that of CFIMDB, also in the names of the outputs.
"""


def write_results(plan: Plan) -> None:
    """Write results.md from the results that are there."""
    found = {task: results_of(plan, task) for task in plan.tasks}
    lines = ["# Results", "", "Accuracy, mean (standard deviation) over the seeds; one seed has no "
             "standard deviation. Computed from the written outputs. Made by `python reproduce.py"
             f"{' --demo' * plan.demo}`.", "",
             "| job | sentences | seeds | measured | published | apart | verdict |",
             "|---|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(row(plan, task, index, list(results.values()))) + " |"
              for task, results in found.items() if task.dataset for index in range(len(SPLITS))]
    lines += ["", NO_VERDICTS if plan.demo else VERDICTS, "## Runs", "",
              "| run | device | dev | test | seconds |", "|---|---|---|---|---|"]
    for task, results in found.items():
        lines += [f"| {task.name}-{seed} | {'GPU' if result['use_gpu'] else 'CPU'} | " + " | ".join(
            f"{result['accuracy'][split]:.4f}" if task.dataset else "–" for split in SPLITS)
            + f" | {result['seconds']}{' (since it was resumed)' * result['resumed']} |"
            for seed, result in results.items()]
    lines += stories(plan) if found[plan.tasks[0]] else []
    with atomic_write(str(plan.home / "results.md"), "w") as file:
        file.write("\n".join(lines) + "\n")


def row(plan: Plan, task: Task, index: int, results: list[dict[str, Any]]) -> list[str]:
    """The cells of one line of the table: a task on dev (index 0) or test (1)."""
    shares = [result["accuracy"][SPLITS[index]] for result in results]
    dataset = DEMO_DATA[task.dataset] if plan.demo else task.dataset.upper()
    spread = f" ({statistics.stdev(shares):.4f})" if len(shares) > 1 else ""
    measured = f"{statistics.mean(shares):.4f}{spread}" if shares else "not run"
    return [JOBS[task.option], f"{dataset} {SPLITS[index]}", str(len(shares)), measured,
            *(["–"] * 3 if plan.demo else compare(task, index, shares))]


def compare(task: Task, index: int, shares: list[float]) -> tuple[str, str, str]:
    """What is published, how many of its standard deviations apart, and what to make of it."""
    mean, deviation = PUBLISHED[task.name][index]
    published = f"{mean:.3f} ({deviation:.3f})" if deviation else f"{mean:.4f} (0.000)"
    if not shares:
        return published, "–", "–"
    measured = statistics.mean(shares)
    if not deviation:
        return published, "–", "equal" if f"{measured:.4f}" == f"{mean:.4f}" else "differs"
    apart = (measured - mean) / deviation
    verdict = "agrees" if abs(apart) <= 2 else "differs"
    if (task.dataset, SPLITS[index]) == ("cfimdb", "test"):
        verdict = "not comparable"
    return published, f"{apart:+.1f}", verdict


def stories(plan: Plan) -> list[str]:
    """Both continuations, as quotations."""
    lines = ["", "## Stories"]
    for name in STORIES:
        text = (folder_of(plan, plan.tasks[0], FIRST_SEED) / name).read_text(encoding="utf-8")
        lines += ["", f"{name}:", "", *(f"> {line}" for line in text.splitlines())]
    return lines


# ------------------------------------------------------------------------------------------- main

def main(argv: list[str] | None = None) -> int:
    """Reproduce; returns 0: done, 1: a run failed, 2: bad usage or input, 130: interrupted."""
    parser = Parser(prog="reproduce.py", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=whole(1), default=1, metavar="N",
                        help="for fine-tuning and LoRA: 1337, 1338, … (default: 1; the published "
                             "figures are of 10). The other jobs run with 1337 alone")
    parser.add_argument("--tasks", nargs="+", metavar="TASK",
                        help="generate, prompt, finetune, lora on both data sets; or sst, cfimdb; "
                             "or one of each, as sst-lora (default: all)")
    parser.add_argument("--use_gpu", action="store_true", help="run on CUDA, not on the CPU")
    parser.add_argument("--demo", action="store_true",
                        help="the embedded model and data, in minutes, into reproduction/demo/")
    args = parser.parse_args(argv)
    plan = DEMO_PLAN if args.demo else OFFICIAL_PLAN
    chosen = plan.tasks
    if args.tasks:
        known = {word for task in plan.tasks for word in words(task)}
        for unknown in set(args.tasks) - known:
            parser.error(f"--tasks {unknown}: known are {', '.join(sorted(known))}")
        chosen = [task for task in plan.tasks if words(task) & set(args.tasks)]
    try:
        if args.demo:
            lay_out_demo(plan)
        check_inputs(plan, chosen)
        pick_device(args.use_gpu)
        reproduce(plan, chosen, args.seeds, args.use_gpu)
        print(f"the results are in {plan.home / 'results.md'}")
        if all((plan.home / name).is_file() for name in (*STORIES, *OUTPUTS)):
            print("to hand in: python prepare_submit.py SURNAME1_SURNAME2"
                  f"{f' --from {plan.home}' * plan.demo}")
        return 0
    except KeyboardInterrupt:
        print("\nreproduce.py: interrupted; what is done is kept, and the same command goes on "
              "from there", file=sys.stderr)
        return 130
    except RuntimeError as error:
        return fail("reproduce.py", error, status=1)
    except (OSError, ValueError) as error:
        return fail("reproduce.py", error)


def words(task: Task) -> set[str]:
    """By what --tasks may name a task."""
    return {task.name, task.option, task.dataset} - {""}


if __name__ == "__main__":
    sys.exit(main())
