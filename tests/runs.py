"""Runs of run_llama.py in processes of their own, on data and a model made on the spot."""

import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import sentencepiece
import torch
from tqdm import tqdm

import reference
import run_llama

ROOT = Path(__file__).resolve().parent.parent
TIME_LIMIT = 60  # seconds, after which a run hangs; an ordinary one takes less than one
ENDINGS = {"prompt": "prompting", "finetune": "finetuning", "lora": "lora"}
WORDS = {0: "dull gray slow cold lost flat thin tired",
         1: "warm bright quick fine glad clear big red",
         None: "a the cat ball park day film story and with in one girl mat sat saw"}


def forkserver() -> multiprocessing.context.ForkServerContext:
    """Processes that start in a hundredth of a second: forks of one that has imported all."""
    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests"), path])
    os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no threads but its own
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["run_llama", "sklearn.metrics", "torch._dynamo", "pytest"])
    return context


def child(
    argv: list[str], folder: Path, streams: list[Connection], file_limit: int | None,
    deadly: bool, die_before: int | None,
) -> None:
    """The command line, in a process of its own: what `python run_llama.py` does."""
    os.chdir(folder)
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, errors="backslashreplace") for n in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Python ignores this signal, and a write beyond the limit fails; else it is the end.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    if die_before is not None:
        die_at_step(die_before)
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, resource.RLIM_INFINITY))
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore that a killed process leaks
    sys.exit(run_llama.main(argv))


def die_at_step(number: int) -> None:
    """Kill this process right before its number-th step on files: synced, renamed or removed."""
    steps = iter(range(1, number))

    def counted(function):
        def step(*args, **kwargs):
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return step

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


class Outcome(NamedTuple):
    """How a run ended. A negative status is the signal that ended it."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What stands on standard error."""
        return [line for line in re.split("[\n\r]", self.stderr) if line]


class Run:
    """A run that goes on beside this program.

    No file of it may grow beyond `file_limit` bytes; if `deadly`, trying to kills the run. It is
    also killed right before its `die_before`-th fsync, rename or removal of a file.
    """

    def __init__(
        self, context: multiprocessing.context.BaseContext, argv: list[str], folder: Path,
        file_limit: int | None = None, deadly: bool = False, die_before: int | None = None,
    ) -> None:
        pipes = [context.Pipe(duplex=False) for _ in range(2)]
        self.streams = [reader for reader, _ in pipes]
        self.started = time.monotonic()
        self.process = context.Process(target=child, args=(
            argv, folder, [writer for _, writer in pipes], file_limit, deadly, die_before))
        self.process.start()
        for _, writer in pipes:
            writer.close()

    def signal(self, number: int) -> None:
        """Send a signal, if the run has not ended."""
        if self.process.exitcode is None:
            os.kill(self.process.pid, number)

    def read_line(self) -> str:
        """The next line of its standard output; empty at the end."""
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self.streams[0].fileno(), 1)
            if not byte:
                break
            line += byte
        return line.decode()

    def wait(self) -> Outcome:
        """Wait for the end; whoever does not end is killed and counts as hanging."""
        self.process.join(TIME_LIMIT)
        seconds = time.monotonic() - self.started
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"hangs: not done after {TIME_LIMIT} s")
        texts = []
        for stream in self.streams:
            with open(stream.fileno(), "rb", closefd=False) as file:
                texts.append(file.read().decode())
            stream.close()
        status = self.process.exitcode
        self.process.close()
        return Outcome(status, *texts, seconds)


class Bench:
    """A folder with a tokenizer, a checkpoint and data, and runs on them."""

    def __init__(self, folder: Path, dim: int = 16) -> None:
        self.folder = folder
        self.context = forkserver()
        self.tokenizer = folder / "tokenizer.model"
        self.checkpoint = folder / "model.pt"
        self.names = folder / "names.json"
        self.names.write_text('["dull", "fine"]')
        text = " ".join(WORDS.values())
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([text] * 3), model_prefix=str(folder / "tokenizer"),
            vocab_size=300, model_type="bpe", byte_fallback=True, minloglevel=2)
        self.shape = {"vocab_size": 300, "dim": dim, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1,
                      "max_seq_len": 16, "multiple_of": 8}
        reference.save_checkpoint(
            self.checkpoint, reference.seeded_weights(self.shape, seed=0), self.shape)
        for seed, (split, count) in enumerate({"train": 24, "dev": 10, "test": 9}.items()):
            write_examples(folder / f"{split}.txt", count, seed)

    def argv(self, option: str, **changed: object) -> list[str]:
        """A command line that works; `changed` options take the place of its own."""
        ending = ENDINGS.get(option)
        options = {"option": option, "pretrained-model-path": self.checkpoint,
                   "tokenizer": self.tokenizer, "batch_size": 8, "epochs": 2, "lr": 0.01}
        if ending:
            options |= {"label-names": self.names}
            options |= {split: self.folder / f"{split}.txt" for split in ("train", "dev", "test")}
            options |= {f"{s}_out": f"my-{s}-{ending}-output.txt" for s in ("dev", "test")}
        options |= changed
        return [text for name, value in options.items()
                for text in ([f"--{name}"] if value is True else [f"--{name}", str(value)])]

    def place(self, name: str) -> Path:
        """A new, empty folder to run in."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def start(self, argv: list[str], place: Path, **limits: int | None) -> Run:
        """Start a run in a folder."""
        return Run(self.context, argv, place, **limits)

    def run(self, argv: list[str], place: Path, **limits: int | None) -> Outcome:
        """A run in a folder, to its end."""
        return self.start(argv, place, **limits).wait()


def write_examples(path: Path, count: int, seed: int) -> None:
    """A data file with two labels, which some of the words tell apart."""
    rng = random.Random(seed)
    lines = []
    for number in range(count):
        label = number % 2
        words = rng.sample(WORDS[None].split(), rng.randint(3, 9)) + rng.sample(
            WORDS[label].split(), 2)
        rng.shuffle(words)
        lines.append(f"{label} ||| {' '.join(words)}\n")
    path.write_text("".join(lines), encoding="utf-8")


def contents(place: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones included."""
    return {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}


def check_success(outcome: Outcome, option: str, before: dict[str, bytes], place: Path) -> None:
    """Status 0, and exactly the files that the option makes, each of them well-formed."""
    assert outcome.status == 0 and not outcome.lines, outcome
    made = contents(place).keys() - before.keys()
    endings = ["temp-0.txt", "temp-1.txt"]
    if option != "generate":
        endings = [f"{split}-{ENDINGS[option]}-output.txt" for split in ("dev", "test")]
    unknown = [name for name in made if not (
        name.endswith(tuple(endings)) or re.fullmatch(rf"{option}-\d+-.+\.pt", name))]
    assert not unknown, f"left behind: {unknown}"
    for name in made:
        if name.endswith("output.txt"):
            lines = (place / name).read_bytes().decode().split("\n")
            assert not lines.pop() and all(re.match(r"\d+ \|\|\| .", ln) for ln in lines), name


def check_refusal(
    outcome: Outcome, before: dict[str, bytes], place: Path, status: int = 2
) -> None:
    """This status, exactly one line, and a folder that is as it was."""
    assert outcome.status == status, outcome
    assert len(outcome.lines) == 1 and len(outcome.stderr) < 2000, outcome
    assert "Traceback" not in outcome.stderr, outcome
    assert contents(place) == before, f"left behind: {contents(place).keys() ^ before.keys()}"
