"""A folder with all that run_llama.py needs, tiny; command lines for it; runs, and their ends."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import reference
import run_llama
from assignment.judge import SMALL
from utils import KIND, read_examples, run_program

ROOT = Path(run_llama.__file__).parent
SHAPE = SMALL | {"vocab_size": 290, "multiple_of": 8}
WEIGHTS = reference.seeded_weights(SHAPE, seed=0)
# Larger logits: labels differ among sentences, and some tokens are likely enough to be drawn.
WEIGHTS["tok_embeddings.weight"] *= 5
TRAINING = ("finetune", "lora")
STORIES = ["generated-sentence-temp-0.txt", "generated-sentence-temp-1.txt"]
NAMES = ["one", "day"]
WORDS = "one day a cat sat on mat and saw big red ball in the park with little girl".split()
SIZES = {"train": 10, "dev": 7, "test": 5}
STEPS = 3  # of an epoch of `command`: ten sentences in batches of four


def lines(labels: list[int], seed: int) -> str:
    """A data file with these labels and sentences of different lengths."""
    rng = np.random.default_rng(seed)
    return "".join(f"{label} ||| {' '.join(rng.choice(WORDS, rng.integers(1, 9)))}\n"
                   for label in labels)


def fill(folder: Path, tokenizer: Path) -> None:
    """Lay out a model, its tokenizer, data and label names under the names of `command`."""
    reference.save_checkpoint(folder / "model.pt", WEIGHTS, SHAPE)
    (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    for seed, (split, count) in enumerate(SIZES.items()):
        labels = [i % 2 for i in range(count)]
        (folder / f"{split}.txt").write_text(lines(labels, seed), encoding="utf-8")
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


def python(*argv: str | Path) -> str:
    """What Python prints, started in the current folder without another one to import from."""
    done = subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": "", "PYTEST_ADDOPTS": "", "OMP_NUM_THREADS": "1",
                          "PYTHONWARNINGS": "ignore"})  # PyTorch 2.1 warns about its own code
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def refused(argv: list[str], capsys, may_load: bool = False) -> str:
    """The one line with which a command line is refused before a model is loaded or trained."""
    before = contents()
    status, printed, (said,) = run(argv, capsys)
    assert (status, contents()) == (2, before), said
    assert said.startswith("run_llama.py: ") and "epoch 0" not in printed
    assert may_load or "load model" not in printed
    return said
