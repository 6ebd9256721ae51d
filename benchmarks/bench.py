"""Measure this project against the textbook version of the same computations.

    python benchmarks/bench.py | tee table.md

Both take turns in one process, on the same batches and the same seeded weights of stories42M's
shape. Before that, both train for a few steps and have to arrive at the same losses and
predictions. It needs Linux, to read the processor's name and the peak memory of a process.
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

import workloads
from config import LlamaConfig
from run_llama import pick_device
from tokenizer import Tokenizer
from utils import PROMPT, Parser, positive_int, progress, run_program
from workloads import JOBS, NEW_TOKENS, OURS, TEXTBOOK, TRAINING, VARIANTS, Batch, Work

SAME = 1e-4  # relative; float32 sums in another order differ by less after a few steps
STEPS, ROWS = 3, 8  # optimizer steps of the comparison, and rows in each of its batches


class Result(NamedTuple):
    """Pairs of the textbook's and the project's seconds, or GB, and what they were spent on."""

    pairs: list[tuple[float, float]]
    unit: str
    tokens: list[int] | None = None
    flops: list[int] | None = None
    apart: float | None = None


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Measure seconds."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - started


def matmul_peak(device: torch.device) -> float:
    """Measure the most FLOP/s of ten products of two 2048 x 2048 matrices."""
    a = torch.randn(2048, 2048, device=device)
    with workloads.products(OURS, device):
        return 2 * 2048**3 / min(timed(lambda: a @ a, device) for _ in range(10))


def difference(theirs: Work, ours: Work, batches: list[Batch]) -> float:
    """Compute the largest relative difference between losses and scores of the two versions.

    Raises:
        ValueError: they differ by more than rounding, or a prediction differs.
    """
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


def measure(job: str, run: SimpleNamespace) -> Result:
    """Time both versions in turn, after one round to warm up."""
    kind, data = JOBS[job]
    batches = workloads.make_batches(kind, data, max(run.rounds + 1, STEPS), run)
    works = theirs, ours = [Work(kind, data, variant, run) for variant in VARIANTS]
    if kind in TRAINING:  # the same head, and LoRA matrices
        theirs.model.load_state_dict(ours.model.state_dict())
    if run.device.type == "cuda":
        torch.set_float32_matmul_precision("highest")  # TF32 would hide a difference
    apart = difference(theirs, ours, batches[:1 if kind == "generate" else STEPS])
    pick_device(run.device.type == "cuda")  # TF32 again, for both
    pairs = [tuple(timed(partial(work, *batch), run.device) for work in works)
             for batch in progress(batches[:run.rounds + 1], job)][1:]
    sizes = [ids.shape for ids, _ in batches[1:run.rounds + 1]]
    tokens = [NEW_TOKENS if kind == "generate" else size.numel() for size in sizes]
    flops = [workloads.needed_flops(run.shape, kind, *size) for size in sizes]
    return Result(pairs, "/s", tokens, flops, apart)


def measure_process(job: str, run: SimpleNamespace) -> Result:
    """Time the whole command, from start to end, in turn."""
    files = [run.checkpoint, run.tokenizer.model_path]
    commands = [
        [ROOT / "benchmarks" / "textbook.py", *files, PROMPT],
        [ROOT / "run_llama.py", "--option", "generate",
         "--pretrained-model-path", files[0], "--tokenizer", files[1]]]
    call = partial(subprocess.run, cwd=Path(run.checkpoint).parent, check=True, capture_output=True)
    return Result([tuple(timed(partial(call, [sys.executable, *command]), torch.device("cpu"))
                         for command in commands)
                   for _ in progress(range(run.rounds), job)], "s")


def measure_memory(job: str, run: SimpleNamespace) -> Result:
    """Measure the peak memory of training, each version in a process of its own."""
    def peak(variant: str) -> float:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(peak_memory, job, variant, run).result()

    return Result([tuple(map(peak, progress(VARIANTS, job)))], "GB")


def peak_memory(job: str, variant: str, run: SimpleNamespace) -> float:
    """Measure the peak memory of this process, or of its GPU, in GB after two training steps.

    They are on the longest of 100 batches, since that one decides how much a run needs.
    """
    kind, data = "lora" if "LoRA" in job else "finetune", JOBS[job][1]
    batches = workloads.make_batches(kind, data, 100, run)
    longest = max(batches, key=lambda batch: batch[0].shape[1])
    work = Work(kind, data, variant, run)
    for _ in range(2):
        work(*longest)
    if run.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    # ru_maxrss would include the parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def row(job: str, result: Result, peak: float) -> str:
    """Format one line of the table."""
    ratio = median(theirs / ours for theirs, ours in result.pairs)
    columns = [*zip(*result.pairs)]
    if result.tokens is None:
        theirs, ours = (f"{median(column):.2f} {result.unit}" for column in columns)
        return f"| {job} | {theirs} | {ours} | {ratio:.2f}× | | |"

    def rates(amounts: list[int]) -> list[float]:
        return [median(n / s for n, s in zip(amounts, column)) for column in columns]

    speeds = " | ".join(f"{rate:,.0f} {result.unit}" for rate in rates(result.tokens))
    shares = " / ".join(f"{rate / peak:.0%}" for rate in rates(result.flops))
    return f"| {job} | {speeds} | {ratio:.2f}× | {shares} | {result.apart:.0e} |"


def machine(device: torch.device) -> str:
    """Describe the processor, cores, memory, GPU, and versions."""
    models = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if device.type == "cuda" else ""
    return (f"{[*models, platform.machine()][0]}, {len(os.sched_getaffinity(0))} cores, "
            f"{torch.get_num_threads()} threads, {memory:.0f} GiB{gpu}; "
            f"Python {platform.python_version()}, PyTorch {torch.__version__}")


def report(run: SimpleNamespace, jobs: list[str]) -> None:
    """Measure the jobs on one device, and print the table."""
    peak = matmul_peak(run.device)
    print(f"{time.strftime('%Y-%m-%d')}, {machine(run.device)}.")
    print(f"Matrix-multiply peak: {peak / 1e9:,.0f} GFLOP/s.\n")
    print(f"| job | {TEXTBOOK} | {OURS} | ratio | of peak | apart |\n|---|---|---|---|---|---|",
          flush=True)
    for job in jobs:
        kind = JOBS[job][0]
        if kind == "process" and not (run.tokenizer.model_path and run.device.type == "cpu"):
            continue  # needs the tokenizer of the shape; the command is measured on the CPU
        take = {"process": measure_process, "memory": measure_memory}.get(kind, measure)
        print(row(job, take(job, run), peak), flush=True)


def main(argv: list[str] | None = None) -> int:
    """Measure on the CPU, and on the GPU if there is one."""
    parser = Parser(prog="bench.py", description="Measure the project against a textbook version.")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB",
                        help=f"any of: {', '.join(JOBS)} (default: all)")
    parser.add_argument("--rounds", type=positive_int, default=5, metavar="N",
                        help="measured, after one that warms up (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a tiny model and short sentences")
    args = parser.parse_args(argv)
    model_path = workloads.official("tokenizer.model")
    tokenizer = Tokenizer(None, str(model_path)) if model_path else workloads.AnyTokens()
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2} if args.quick else {}
    run = SimpleNamespace(tokenizer=tokenizer, quick=args.quick, rounds=args.rounds,
                          shape=LlamaConfig(vocab_size=tokenizer.n_words, **sizes))
    with tempfile.TemporaryDirectory() as folder:
        run.checkpoint = os.path.join(folder, "seeded.pt")
        workloads.save_seeded(run.checkpoint, run.shape)
        for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
            run.device = torch.device(device)
            report(run, args.jobs)
            print()
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
