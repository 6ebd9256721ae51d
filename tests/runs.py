"""A folder with all that run_llama.py needs, tiny; command lines for it; runs, and their ends."""

import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import reference
import run_llama
from utils import KIND, read_examples, run_program

ROOT = Path(run_llama.__file__).parent
SHAPE = {"vocab_size": 290, "dim": 24, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
         "max_seq_len": 16, "multiple_of": 8}
WEIGHTS = reference.seeded_weights(SHAPE, seed=0)
TRAINING = ("finetune", "lora")
STORIES = ["generated-sentence-temp-0.txt", "generated-sentence-temp-1.txt"]
NAMES = ["red", "so big"]
WORDS = "one day a cat sat on mat and saw big red ball in the park with little girl".split()
SIZES = {"train": 10, "dev": 7, "test": 5}
STEPS = 3  # of an epoch of `command`: ten sentences in batches of four


def lines(count: int, seed: int, labels: list[int] | None = None) -> str:
    """Sentences of different lengths; labels 0 and 1 in turn unless given."""
    rng = np.random.default_rng(seed)
    return "".join(
        f"{labels[i] if labels else i % 2} ||| {' '.join(rng.choice(WORDS, rng.integers(1, 9)))}\n"
        for i in range(count))


def fill(folder: Path, tokenizer: Path) -> None:
    """Lay out a model, its tokenizer, data and label names under the names of `command`."""
    reference.save_checkpoint(folder / "model.pt", WEIGHTS, SHAPE)
    (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    for seed, (split, count) in enumerate(SIZES.items()):
        (folder / f"{split}.txt").write_text(lines(count, seed), encoding="utf-8")
    (folder / "names.json").write_text(json.dumps(NAMES), encoding="utf-8")


def command(option: str, **changed: object) -> list[str]:
    """A command line that works; True is an option without a value, None leaves one out."""
    options = {"option": option, "pretrained-model-path": "model.pt"}
    if option in KIND:
        options |= {split: f"{split}.txt" for split in SIZES}
        options |= {f"{s}_out": f"my-{s}-{KIND[option]}-output.txt" for s in ("dev", "test")}
        options |= {"label-names": "names.json", "epochs": 1, "lr": 0.01, "batch_size": 4}
    options |= changed
    return [text for name, value in options.items() if value is not None
            for text in ([f"--{name}"] if value is True else [f"--{name}", str(value)])]


def contents(folder: str | Path = ".") -> dict[str, bytes]:
    """Every file, hidden ones included."""
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def reset(files: dict[str, bytes]) -> None:
    """Make the current folder hold these files, as `contents` gives them, and no others."""
    for path in contents().keys() - files.keys():
        os.unlink(path)
    for path, content in files.items():
        Path(path).write_bytes(content)


def labels_in(path: str) -> list[int]:
    return [example.label for example in read_examples(path)]


def run(argv: list[str], capsys, main=run_llama.main) -> tuple[int, str, list[str]]:
    """The exit status of a command line, what it prints, and its lines on standard error."""
    capsys.readouterr()
    try:
        status = run_program(main, argv)
    except SystemExit as end:  # argparse's way
        status = end.code
    printed = capsys.readouterr()
    return status, printed.out, [line for line in re.split("[\n\r]", printed.err) if line]


def refused(argv: list[str], capsys, may_load: bool = False) -> str:
    """The one line with which a command line is refused before a model is loaded or trained."""
    before = contents()
    status, printed, (said,) = run(argv, capsys)
    assert (status, contents()) == (2, before), said
    assert said.startswith("run_llama.py: ") and "epoch 0" not in printed
    assert may_load or "load model" not in printed
    return said


# ----------------------------------------------------------------------------- runs that get killed

def at_file_operation(number: int, action: Callable[[], None], patch: Callable) -> None:
    """Call `action` right before this process's number-th fsync, rename or removal of a file."""
    count = itertools.count(1)

    def counted(function):
        def operation(*args, **kwargs):
            if next(count) == number:
                action()
            return function(*args, **kwargs)
        return operation

    for name in ("fsync", "replace", "unlink"):
        patch(os, name, counted(getattr(os, name)))


def kill_before(number: int, argv: list[str], log: Path) -> int:
    """Run in a process that is killed at a file operation; -SIGKILL, or else its exit status."""
    path = os.environ.get("PYTHONPATH", "")  # the server of forks is started with it, once
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests"), path])
    context = multiprocessing.get_context("forkserver")
    # The last of these is imported by the first optimizer, and takes longer than a run.
    context.set_forkserver_preload(["runs", "sklearn.metrics", "torch._dynamo"])
    process = context.Process(target=doomed, args=(number, argv, os.getcwd(), log))
    process.start()
    process.join()
    os.environ["PYTHONPATH"] = path
    return process.exitcode


def doomed(number: int, argv: list[str], folder: str, log: Path) -> None:
    """What the process does, with standard output in a file."""
    os.chdir(folder)
    torch.set_num_threads(1)
    at_file_operation(number, lambda: os.kill(os.getpid(), signal.SIGKILL), setattr)
    with open(log, "w", encoding="utf-8") as sys.stdout:
        status = run_program(run_llama.main, argv)
    sys.stdout = sys.__stdout__
    sys.exit(status)
