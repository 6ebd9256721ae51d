"""Run the commands of the assignment and compare their results with the published ones.

    python reproduce.py [--seeds N] [--tasks TASK ...] [--use_gpu] [--demo]

Every run has a folder in reproduction/. It is finished when its outputs are there; to repeat it,
rename the folder. Stop the program at any time: the same command keeps what is finished and resumes
the interrupted run. The outputs of seed 1337 are copied to where prepare_submit.py looks for them,
and results.md is updated after every run. Other seeds' trained models (167 MB each) are not kept.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import utils
from prepare_submit import CLASSES, STORIES, part_problems
from tokenizer import TOKENIZER_MODEL
from utils import KIND, InputError

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


class Plan(NamedTuple):
    """What to reproduce, and where."""

    home: Path  # contains data/; outputs of the first seed are copied here
    work: Path  # contains a folder for each run
    model: Path
    batch_sizes: dict[str, int]  # in training
    settings: dict[str, str]
    is_demo: bool = False


OFFICIAL_PLAN = Plan(
    Path(), Path("reproduction"), Path("stories42M.pt"), {"sst": 80, "cfimdb": 10},
    {"generate": "", "prompt": "--batch_size 10", "finetune": "--epochs 5 --lr 2e-5",
     "lora": "--epochs 5 --lr 2e-5 --lora_rank 4 --lora_alpha 1.0"})
DEMO_PLAN = Plan(
    Path("reproduction/demo"), Path("reproduction/demo"), HERE / "demo/stories.pt",
    {"sst": 8, "cfimdb": 8},
    {"generate": "", "prompt": "--batch_size 8", "finetune": "--epochs 5 --lr 5e-4",
     "lora": "--epochs 5 --lr 2e-3 --lora_rank 8 --lora_alpha 8"}, is_demo=True)


class Run(NamedTuple):
    """One command of the assignment with one seed, in a folder of its own."""

    plan: Plan
    option: str
    dataset: str  # empty for generate
    seed: int

    @property
    def folder(self) -> Path:
        """Where it works."""
        return self.plan.work / f"{self.dataset}-{self.option}-{self.seed}".lstrip("-")

    @property
    def outputs(self) -> dict[str, str]:
        """Its files for the submission, by option."""
        if self.option == "generate":
            return {f"generated_sentence_{kind}_temp_out": story
                    for kind, story in zip(("low", "high"), STORIES)}
        return {f"{split}_out": f"{self.dataset}-{split}-{KIND[self.option]}-output.txt"
                for split in SPLITS}

    def files(self) -> dict[str, Path]:
        """Its input files, by option."""
        files = {"pretrained-model-path": self.plan.model,
                 "tokenizer": self.plan.model.with_name(TOKENIZER_MODEL)}
        if self.dataset:
            stem = self.plan.home / "data" / self.dataset
            files |= {split: Path(f"{stem}-{split}.txt") for split in ("train", *SPLITS)}
            files["label-names"] = Path(f"{stem}-label-mapping.json")
        return files

    def command(self, use_gpu: bool) -> list[str]:
        """The command line."""
        options = f"--option {self.option} --seed {self.seed} {self.plan.settings[self.option]}"
        if self.option in TRAINED:
            options += f" --batch_size {self.plan.batch_sizes[self.dataset]} --resume"
        names = {name: path.resolve() for name, path in self.files().items()} | self.outputs
        return [sys.executable, str(HERE / "run_llama.py"), *options.split(),
                *["--use_gpu"] * use_gpu, *(f"--{name}={path}" for name, path in names.items())]

    def has_outputs(self) -> bool:
        """Whether all outputs are there."""
        return all((self.folder / name).is_file() for name in self.outputs.values())

    def problems(self) -> list[str]:
        """What is wrong with the outputs, missing ones included."""
        return [problem for name in self.outputs.values()
                for problem in part_problems(self.folder / name, self.plan.home)]

    def accuracy(self) -> list[float]:
        """Compare the predictions for dev and test with the data; nothing for stories."""
        shares = []
        for split in SPLITS if self.dataset else ():
            predicted = utils.read_examples(str(self.folder / self.outputs[f"{split}_out"]))
            expected = utils.read_examples(str(self.files()[split]))
            hits = sum(ours.label == data.label for ours, data in zip(predicted, expected))
            shares.append(hits / len(expected))
        return shares


def reproduce(runs: list[Run], use_gpu: bool) -> None:
    """Do the runs that are not finished, and put outputs and results in place."""
    for number, run in enumerate(runs, start=1):
        is_done = run.has_outputs()
        print(f"run {number} of {len(runs)}: {run.folder.name}{', done before' * is_done}")
        if not is_done:
            execute(run, run.command(use_gpu))
        if problems := run.problems():
            raise InputError(f"{run.folder}: {problems[0]}; rename this folder to repeat the run")
        for split, share in zip(SPLITS, run.accuracy()):
            print(f"    {split} accuracy {share:.4f}")
        if run.seed == FIRST_SEED:
            for name in run.outputs.values():
                shutil.copyfile(run.folder / name, run.plan.home / name)
        else:
            for model in run.folder.glob("*.pt"):
                model.unlink(missing_ok=True)  # another instance may have deleted it
        write_results(run.plan)


def execute(run: Run, command: list[str]) -> None:
    """Run a command, with its output in log.txt and epochs on the screen, too.

    Raises:
        InputError: with the last line of the output.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    log_path, line = run.folder / "log.txt", ""
    with open(log_path, "a", encoding="utf-8", buffering=1) as log, subprocess.Popen(
            command, cwd=run.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, encoding="utf-8", errors="replace") as child:
        try:
            for line in child.stdout:
                log.write(line)
                if re.match(r"(LoRA )?epoch \d", line):
                    print(f"    {line.rstrip()}")
        except BaseException:  # such as SIGTERM, which the child does not receive
            child.terminate()
            child.wait()
            raise
    if child.returncode:
        raise InputError(f"{run.folder.name}: exit status {child.returncode}: "
                         f"{line.strip() or 'no message'} (all of it in {log_path}; "
                         f"rename {run.folder} to start this run afresh)")


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
    """Write results.md from the results of all finished runs, those of earlier calls included."""
    command = f"python reproduce.py{' --demo' * plan.is_demo}"
    lines = ["# Results\n\nAccuracy, mean (standard deviation) over the seeds; one seed has no "
             f"standard deviation. Computed from the written outputs. Made by `{command}`.\n",
             "| job | sentences | seeds | measured | published | apart | verdict |",
             "|---|---|---|---|---|---|---|"]
    folders = (re.fullmatch(r"[a-z]+-[a-z]+-(\d+)", path.name) for path in plan.work.iterdir())
    seeds = sorted({int(match[1]) for match in folders if match})
    for option, dataset in TASKS[1:]:
        runs = [Run(plan, option, dataset, seed) for seed in seeds]
        results = [run.accuracy() for run in runs if not run.problems()]
        name = DEMO_DATA[dataset] if plan.is_demo else dataset.upper()
        for index, split in enumerate(SPLITS):
            shares = [result[index] for result in results]
            verdict = ["–"] * 3 if plan.is_demo else compare(f"{dataset}-{option}", index, shares)
            cells = (JOBS[option], f"{name} {split}", len(shares), measured(shares), *verdict)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    with utils.atomic_write(str(plan.home / "results.md"), "w") as file:
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
    """Raise InputError, naming all missing input files."""
    needed = {path for run in runs for path in run.files().values()}
    if missing := sorted(str(path) for path in needed if not path.is_file()):
        raise InputError(f"missing: {', '.join(missing)}; `bash setup.sh` fetches the official "
                         "files, --demo needs none of them")


def main(argv: list[str] | None = None) -> int:
    """Reproduce; return 0."""
    parser = utils.Parser(prog="reproduce.py", description=__doc__,
                          formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=utils.positive_int, default=1, metavar="N",
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
    if args.demo:
        lay_out_demo(plan)
    check_inputs(runs)
    reproduce(runs, args.use_gpu)
    print(f"the results are in {plan.home / 'results.md'}; to hand in:\n"
          f"python prepare_submit.py SURNAME1_SURNAME2 --from {plan.home}")
    return 0


if __name__ == "__main__":
    sys.exit(utils.run_program(
        main, interrupted="interrupted; the same command continues from here"))
