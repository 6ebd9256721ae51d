"""Measure this project against `textbook/`, a plain solution of the same assignment.

    python benchmarks/bench.py | tee table.md

Both take turns in one process, on the same batches and the same seeded weights of stories42M's
shape. Before that, both train for a few steps and have to arrive at the same losses and
predictions. It needs Linux, to read the processor's name and the peak memory of a process.
"""

import math
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from config import LlamaConfig
from run_llama import pick_device, prefer_onednn
from tokenizer import Tokenizer
from utils import Parser, positive_int, progress, run_program

FIVE = ("rope", "llama", "lora", "classifier", "optimizer")
NEW_TOKENS = 75
TRAINING = ("finetune", "lora")
SAME = 1e-4  # relative; float32 sums in another order differ by less after a few steps
STEPS, ROWS = 3, 8  # optimizer steps of the comparison, and rows in each of its batches
Batch = tuple[torch.Tensor, torch.Tensor]  # (bs, seqlen) token ids and (bs,) labels
# The batch size of the published results, and the lengths of the sentences in tokens
Reviews = namedtuple("Reviews", "names batch_size mean longest")
SETS = {"SST": Reviews(["awful", "bad", "average", "good", "excellent"], 80, 27, 93),
        "CFIMDB": Reviews(["bad", "good"], 10, 236, 585)}


def load_textbook() -> SimpleNamespace:
    """Import the five files in textbook/, which import each other under the names of ours."""
    ours = {name: sys.modules.pop(name) for name in FIVE}
    sys.path.insert(0, str(ROOT / "benchmarks" / "textbook"))
    theirs = SimpleNamespace(**{name: import_module(name) for name in FIVE})
    sys.path.pop(0)
    sys.modules.update(ours)
    return theirs


TEXTBOOK, OURS = VARIANTS = ("textbook", "project")
CODE = {OURS: SimpleNamespace(**{name: import_module(name) for name in FIVE}),
        TEXTBOOK: load_textbook()}


# --------------------------------------------------------------------------- what is measured

@torch.no_grad()
def prepare(folder: str, device: str, rounds: int, quick: bool) -> SimpleNamespace:
    """Save a seeded checkpoint of stories42M's shape, or a tiny one; collect what all jobs need."""
    sizes = {"dim": 32, "hidden_dim": 96, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}
    shape = LlamaConfig(**sizes if quick else {"hidden_dim": 1376})
    torch.manual_seed(0)
    model = CODE[OURS].llama.Llama(shape)
    for name, weight in model.named_parameters():  # scaled so that every part affects the output
        noise = torch.randn(weight.shape) / math.sqrt(weight.shape[-1])
        weight.copy_(noise + name.endswith("norm.weight"))
    torch.save({"model": model.state_dict(), "model_args": vars(shape)}, f"{folder}/seeded.pt")
    tokenizer = Tokenizer(None, str(ROOT / "demo" / "tokenizer.model"))
    return SimpleNamespace(checkpoint=f"{folder}/seeded.pt", shape=shape, tokenizer=tokenizer,
                           device=torch.device(device), rounds=rounds, quick=quick)


def make_batches(kind: str, data: str | None, count: int, run: SimpleNamespace) -> list[Batch]:
    """Draw rows of random tokens with the lengths of a data set, or a prompt to continue."""
    torch.manual_seed(0)
    if kind == "generate":
        return [(torch.randint(4, 200, (1, 33), device=run.device), torch.zeros(1))] * count
    names, batch_size, mean, longest = SETS[data]
    batch_size = 10 if kind == "prompt" else batch_size
    # A gamma distribution of shape 5 has the spread of both data sets.
    sentences = np.random.default_rng(0).gamma(5, mean / 5, (count, batch_size)).clip(3, longest)
    around = 1 + 20 * (kind == "prompt")  # <s>, and the tokens of the question
    batches = []
    for lengths in sentences / (8 if run.quick else 1) + around:
        rows = [torch.randint(4, 200, (int(length),)) for length in lengths]
        ids = pad_sequence(rows, batch_first=True, padding_value=run.tokenizer.pad_id)
        labels = torch.randint(len(names), (batch_size,))
        batches.append((ids.to(run.device), labels.to(run.device)))
    return batches


@contextmanager
def products(variant: str, device: torch.device, dim: int = 512) -> Iterator[None]:
    """Multiply matrices with oneDNN in the project, and as PyTorch does by default elsewhere."""
    if variant == OURS and device.type == "cpu":
        prefer_onednn(dim)
    try:
        yield
    finally:
        if matmul := getattr(torch.backends.mkldnn, "matmul", None):  # PyTorch 2.9
            matmul.fp32_precision = "ieee"


def make_model(kind: str, data: str | None, variant: str, run: SimpleNamespace) -> nn.Module:
    """Make the model for a kind of work."""
    code = CODE[variant]
    if kind == "generate":
        return code.llama.load_pretrained(run.checkpoint)
    names = SETS[data].names
    config = SimpleNamespace(num_labels=len(names), pretrained_model_path=run.checkpoint,
                             hidden_dropout_prob=0.3, option="finetune")
    if kind == "prompt":
        return code.classifier.LlamaZeroShotClassifier(config, run.tokenizer, names)
    model = code.classifier.LlamaEmbeddingClassifier(config)
    if kind == "lora":  # a plain training loop does not freeze what it does not train
        code.lora.apply_lora(model.llama.requires_grad_(variant == TEXTBOOK))
    return model


class Work:
    """A model and its job, called with a batch."""

    def __init__(self, kind: str, data: str | None, variant: str, run: SimpleNamespace) -> None:
        torch.manual_seed(0)
        self.kind, self.products = kind, partial(products, variant, run.device, run.shape.dim)
        self.model = make_model(kind, data, variant, run).to(run.device).eval()
        if kind in TRAINING:
            trained = [p for name, p in self.model.named_parameters()
                       if kind == "finetune" or "lora_" in name or "classifier_head" in name]
            # With so small an epsilon, both usual forms of AdamW's bias correction agree.
            self.optimizer = CODE[variant].optimizer.AdamW(trained, lr=2e-5, eps=1e-12)

    def __call__(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss before an optimizer step, the scores of the labels, or the tokens."""
        if self.kind == "prompt":
            return self.scores(ids)
        with self.products():
            if self.kind == "generate":
                return self.model.generate(ids, NEW_TOKENS, temperature=0.0)
            return self.train(ids, labels)

    def train(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Take an optimizer step; return the loss before it."""
        torch.manual_seed(0)  # the same dropout in both versions
        loss = F.nll_loss(self.model.train()(ids), labels, reduction="sum") / len(labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    @torch.inference_mode()
    def scores(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the present scores of the labels, (bs, num_labels)."""
        with self.products():
            return self.model.eval()(ids)


def needed_flops(shape: LlamaConfig, kind: str, bs: int, seqlen: int) -> int:
    """Count the floating-point operations of the matrix products that determine the result.

    Two for each multiplication; in the last layer only the last position, except for keys and
    values; vocabulary logits where they are read. A backward pass costs as much again for the
    gradients of activations, and in fine-tuning once more for those of weights.
    """
    if kind == "generate":
        return sum(needed_flops(shape, "prompt", bs, seqlen + i) for i in range(NEW_TOKENS))
    keys_values = 4 * shape.dim**2 * shape.n_kv_heads // shape.n_heads
    rest = 4 * shape.dim**2 + 6 * shape.dim * shape.hidden_dim + 4 * seqlen * shape.dim
    lower = (shape.n_layers - 1) * seqlen * (keys_values + rest)
    logits = 2 * shape.dim * shape.vocab_size if kind == "prompt" else 0
    passes = {"prompt": 1, "lora": 2, "finetune": 3}[kind]
    return passes * bs * (lower + seqlen * keys_values + rest + logits)


# --------------------------------------------------------------------------- how it is measured

# Pairs (textbook, project) of seconds or GB; with unit "/s", seconds and flops are per token.
Result = namedtuple("Result", "pairs unit flops apart", defaults=(None, None))


def timed(work: Callable[[], Any]) -> float:
    """Measure seconds."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - started


def matmul_peak(device: torch.device) -> float:
    """Measure the most FLOP/s of ten products of two 2048 x 2048 matrices."""
    a = torch.randn(2048, 2048, device=device)
    with products(OURS, device):
        return 2 * 2048**3 / min(timed(lambda: a @ a) for _ in range(10))


def difference(theirs: Work, ours: Work, batches: list[Batch]) -> float:
    """Largest relative difference of losses and scores; ValueError if it is not just rounding."""
    def results(work: Work) -> list[torch.Tensor]:
        found = [work(ids[:ROWS], labels[:ROWS]) for ids, labels in batches]
        return found + [work.scores(batches[0][0][:ROWS])] * (work.kind in TRAINING)

    pairs = [*zip(results(theirs), results(ours))]
    apart = max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)
    same = all(torch.equal(a.argmax(-1), b.argmax(-1)) for a, b in pairs)
    if not (same and apart <= SAME):
        raise ValueError(f"project and textbook do not agree: relative difference {apart:.1e}, "
                         f"predictions {'equal' if same else 'differ'}")
    return apart


def measure_speed(kind: str, data: str | None, run: SimpleNamespace) -> Result:
    """Time both versions in turn, after one round to warm up."""
    batches = make_batches(kind, data, max(run.rounds + 1, STEPS), run)
    works = theirs, ours = [Work(kind, data, variant, run) for variant in VARIANTS]
    if kind in TRAINING:  # the same head, and LoRA matrices
        theirs.model.load_state_dict(ours.model.state_dict())
    if run.device.type == "cuda":
        torch.set_float32_matmul_precision("highest")  # TF32 would hide a difference
    apart = difference(theirs, ours, batches[:1 if kind == "generate" else STEPS])
    pick_device(run.device.type == "cuda")  # TF32 again, for both
    pairs, flops = [], []
    for ids, labels in progress(batches[:run.rounds + 1], f"{kind} {data or ''}"):
        tokens = NEW_TOKENS if kind == "generate" else ids.numel()
        pairs.append(tuple(timed(partial(work, ids, labels)) / tokens for work in works))
        flops.append(needed_flops(run.shape, kind, *ids.shape) / tokens)
    return Result(pairs[1:], "/s", median(flops[1:]), apart)


def measure_command(option: str, _: None, run: SimpleNamespace) -> Result:
    """Time our `run_llama.py` from start to end, with the textbook's files and with ours."""
    folder = Path(run.checkpoint).parent
    for file in [*ROOT.glob("*.py"), *ROOT.glob("benchmarks/textbook/*.py")]:
        shutil.copy(file, folder)  # the textbook's in place of ours
    options = ["--option", option, "--pretrained-model-path", run.checkpoint, "--tokenizer",
               run.tokenizer.model_path] + ["--use_gpu"] * (run.device.type == "cuda")
    call = partial(subprocess.run, cwd=folder, check=True, capture_output=True)
    commands = [[sys.executable, place / "run_llama.py", *options] for place in (folder, ROOT)]
    return Result([tuple(timed(partial(call, command)) for command in commands)
                   for _ in progress(range(run.rounds), f"--option {option}")], "s")


def measure_memory(kind: str, data: str, run: SimpleNamespace) -> Result:
    """Measure the peak memory of training, each version in a process of its own."""
    def peak(variant: str) -> float:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(peak_memory, kind, data, variant, run).result()

    return Result([tuple(map(peak, progress(VARIANTS, f"memory {kind} {data}")))], "GB")


def peak_memory(kind: str, data: str, variant: str, run: SimpleNamespace) -> float:
    """Measure the peak memory of this process, or of its GPU, in GB after two training steps.

    They are on the longest of 100 batches, since that one decides how much a run needs.
    """
    longest = max(make_batches(kind, data, 100, run), key=lambda batch: batch[0].shape[1])
    work = Work(kind, data, variant, run)
    for _ in range(2):
        work(*longest)
    if run.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    # ru_maxrss would include the parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


KINDS = {"fine-tuning": "finetune", "LoRA": "lora", "zero-shot": "prompt"}
JOBS = {f"{name} {data}": (measure_speed, kind, data)
        for name, kind in KINDS.items() for data in SETS}
JOBS |= {"generation": (measure_speed, "generate", None),
         "--option generate": (measure_command, "generate", None),
         "memory fine-tuning CFIMDB": (measure_memory, "finetune", "CFIMDB"),
         "memory LoRA CFIMDB": (measure_memory, "lora", "CFIMDB")}


def row(job: str, result: Result, peak: float) -> str:
    """Format one line of the table."""
    ratio = median(theirs / ours for theirs, ours in result.pairs)
    both = [median(column) for column in zip(*result.pairs)]
    if result.flops is None:
        needs = " | ".join(f"{need:.2f} {result.unit}" for need in both)
        return f"| {job} | {needs} | {ratio:.2f}× | | |"
    speeds = " | ".join(f"{1 / seconds:,.0f} {result.unit}" for seconds in both)
    shares = " / ".join(f"{result.flops / seconds / peak:.0%}" for seconds in both)
    return f"| {job} | {speeds} | {ratio:.2f}× | {shares} | {result.apart:.0e} |"


def report(run: SimpleNamespace, jobs: list[str]) -> None:
    """Measure the jobs on one device, and print the table."""
    models = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    gpu = f", {torch.cuda.get_device_name()}" if run.device.type == "cuda" else ""
    print(f"{time.strftime('%Y-%m-%d')}, {[*models, platform.machine()][0]}, "
          f"{torch.get_num_threads()} threads{gpu}; Python {platform.python_version()}, "
          f"PyTorch {torch.__version__}.")
    peak = matmul_peak(run.device)
    print(f"Matrix-multiply peak: {peak / 1e9:,.0f} GFLOP/s.\n")
    print(f"| job | {TEXTBOOK} | {OURS} | ratio | of peak | apart |\n|---|---|---|---|---|---|")
    for job in jobs:
        measure, kind, data = JOBS[job]
        print(row(job, measure(kind, data, run), peak), flush=True)
    print()


def main(argv: list[str] | None = None) -> int:
    """Measure on the CPU, and on the GPU if there is one."""
    parser = Parser(prog="bench.py", description="Measure the project against a plain solution.")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB",
                        help=f"any of: {', '.join(JOBS)} (default: all)")
    parser.add_argument("--rounds", type=positive_int, default=5, metavar="N",
                        help="measured, after one that warms up (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a tiny model and short sentences")
    args = parser.parse_args(argv)
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        with tempfile.TemporaryDirectory() as folder:
            report(prepare(folder, device, args.rounds, args.quick), args.jobs)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
