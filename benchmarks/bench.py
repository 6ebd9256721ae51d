"""Measure this project against the textbook version of the same computations.

    python benchmarks/bench.py | tee table.md

Both run in one process and in turn, on the same batches and the same seeded weights of stories42M's
shape; a ratio is the median over rounds of a textbook time divided by the time that follows it.
Before that both train for a few steps, and have to arrive at the same losses and predictions. It
needs Linux, which knows the processor and the peak memory of a process.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

import workloads
from config import LlamaConfig
from run_llama import PROMPT
from tokenizer import Tokenizer
from utils import pick_device, positive_int
from workloads import BFLOAT16, JOBS, NEW_TOKENS, OURS, TEXTBOOK, TRAINING, Batch, Work

SAME = 1e-4  # relative; float32 sums in another order differ by less after a few steps
STEPS, ROWS = 3, 8  # optimizer steps of the comparison, and rows in each of its batches
Result = dict[str, Any]  # times or memory by variant, and what goes with them


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Measure seconds."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - started


def matmul_peak(device: torch.device, variant: str) -> float:
    """Measure the most FLOP/s of ten products of two 2048 x 2048 matrices."""
    a = torch.randn(2048, 2048, device=device)
    a = a.bfloat16() if variant == BFLOAT16 else a
    with workloads.products(variant, device):
        return 2 * 2048**3 / min(timed(lambda: a @ a, device) for _ in range(10))


def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Compute the largest difference, relative to the largest of theirs."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def differences(works: dict[str, Work], batches: list[Batch]) -> dict[str, float]:
    """Compute how far the losses and scores of each variant are from the textbook's.

    Raises:
        ValueError: float32 differs by more than rounding, or predicts something else.
    """
    results = {}
    for variant, work in works.items():
        results[variant] = [work(ids[:ROWS], labels[:ROWS]) for ids, labels in batches]
        if work.kind in TRAINING:
            results[variant].append(work.scores(batches[0][0][:ROWS]))
    apart = {variant: max(map(largest_difference, results[variant], results[TEXTBOOK]))
             for variant in works if variant != TEXTBOOK}
    same = all(torch.equal(ours.argmax(-1), theirs.argmax(-1))
               for ours, theirs in zip(results[OURS], results[TEXTBOOK]))
    if not (same and apart[OURS] <= SAME):
        raise ValueError(f"{OURS} and the textbook version do not agree: relative difference "
                         f"{apart[OURS]:.1e}, predictions {'equal' if same else 'differ'}")
    return apart


def measure(job: str, run: SimpleNamespace) -> Result:
    """Time all variants in turn, after one round to warm up."""
    kind, data = JOBS[job]
    batches = workloads.make_batches(kind, data, max(run.rounds + 1, STEPS), run)
    works = {variant: Work(kind, data, variant, run) for variant in run.variants}
    if kind in TRAINING:
        for work in works.values():  # the same head, and LoRA matrices
            work.model.load_state_dict(works[OURS].model.state_dict())
    if run.device.type == "cuda":
        torch.set_float32_matmul_precision("highest")  # TF32 would hide a difference
    apart = differences(works, batches[:1 if kind == "generate" else STEPS])
    pick_device(run.device.type == "cuda")  # TF32 again, for both
    rounds = [{variant: timed(partial(work, *batch), run.device) for variant, work in works.items()}
              for batch in tqdm(batches[:run.rounds + 1], job, leave=False, disable=None)][1:]
    sizes = [ids.shape for ids, _ in batches[1:run.rounds + 1]]
    return {"rounds": rounds, "apart": apart,
            "tokens": [NEW_TOKENS if kind == "generate" else size.numel() for size in sizes],
            "flops": [workloads.needed_flops(run.shape, kind, *size) for size in sizes]}


def measure_process(job: str, run: SimpleNamespace) -> Result:
    """Time the whole command, from start to end, in turn."""
    files = [run.checkpoint, run.tokenizer.model_path]
    commands = {
        TEXTBOOK: [ROOT / "benchmarks" / "textbook.py", *files, PROMPT],
        OURS: [ROOT / "run_llama.py", "--option", "generate",
               "--pretrained-model-path", files[0], "--tokenizer", files[1]]}
    call = partial(subprocess.run, cwd=Path(run.checkpoint).parent, check=True, capture_output=True)
    return {"rounds": [
        {variant: timed(partial(call, [sys.executable, *command]), torch.device("cpu"))
         for variant, command in commands.items()}
        for _ in tqdm(range(run.rounds), job, leave=False, disable=None)]}


def measure_memory(job: str, run: SimpleNamespace) -> Result:
    """Measure the peak memory of training, each variant in a process of its own."""
    command = [sys.executable, __file__, "--jobs", job] + ["--quick"] * run.quick
    if run.tokenizer.model_path:
        command += ["--tokenizer", run.tokenizer.model_path]
    command += ["--peak-memory", run.device.type, run.checkpoint]
    call = partial(subprocess.run, check=True, stdout=subprocess.PIPE, text=True)
    return {"memory": {variant: float(call([*command, variant]).stdout)
                       for variant in tqdm(run.variants, job, leave=False, disable=None)}}


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
    # Not ru_maxrss, which counts what the parent had, too.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def row(job: str, variant: str, result: Result, peaks: dict[str, float]) -> str:
    """Write one line of the table: what one variant did in one job."""
    if "memory" in result:
        used = result["memory"]
        return (f"| {job} | {variant} | | {used[variant] / used[TEXTBOOK]:.2f}× | | "
                f"{used[variant]:.2f} GB |")
    seconds = [times[variant] for times in result["rounds"]]
    ratio = statistics.median(times[TEXTBOOK] / times[variant] for times in result["rounds"])
    if "tokens" not in result:
        return f"| {job} | {variant} | {statistics.median(seconds):.1f} s | {ratio:.2f}× | | |"
    speed = statistics.median(n / s for n, s in zip(result["tokens"], seconds))
    peak = peaks[OURS if variant == TEXTBOOK else variant]
    share = statistics.median(n / s for n, s in zip(result["flops"], seconds)) / peak
    apart = f"{result['apart'][variant]:.0e}" if variant != TEXTBOOK else ""
    return f"| {job} | {variant} | {speed:,.0f} /s | {ratio:.2f}× | {share:.0%} | {apart} |"


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
    peaks = {variant: matmul_peak(run.device, variant) for variant in run.variants[1:]}
    print(f"{time.strftime('%Y-%m-%d')}, {machine(run.device)}.")
    print("Matrix-multiply peak, GFLOP/s: " + ", ".join(
        f"{name} {peak / 1e9:,.0f}" for name, peak in peaks.items()) + ".\n")
    if run.device.type == "cpu" and BFLOAT16 not in run.variants:
        print("bfloat16 is left out: this processor multiplies it more slowly than float32.\n")
    print("| job | variant | padded tokens | ratio | of peak | apart, or peak memory |")
    print("|---|---|---|---|---|---|", flush=True)
    for job in jobs:
        kind = JOBS[job][0]
        if kind == "process" and not (run.tokenizer.model_path and run.device.type == "cpu"):
            continue  # needs the tokenizer of the shape; the command is measured on the CPU
        take = {"process": measure_process, "memory": measure_memory}.get(kind, measure)
        result = take(job, run)
        for variant in result["rounds"][0] if "rounds" in result else result["memory"]:
            print(row(job, variant, result, peaks), flush=True)


def get_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB",
                        help=f"any of: {', '.join(JOBS)} (default: all)")
    parser.add_argument("--rounds", type=positive_int, default=5, metavar="N",
                        help="measured, after one that warms up (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a tiny model and short sentences")
    parser.add_argument("--tokenizer", metavar="FILE", help="(default: the official one)",
                        default=workloads.official("tokenizer.model"))
    parser.add_argument("--peak-memory", nargs=3, help=argparse.SUPPRESS)  # see measure_memory
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure on the CPU, and on the GPU if there is one."""
    args = get_args(argv)
    tokenizer = workloads.STAND_IN
    if args.tokenizer:
        tokenizer = Tokenizer(tokenizer_model=str(args.tokenizer))
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2} if args.quick else {}
    run = SimpleNamespace(tokenizer=tokenizer, quick=args.quick, rounds=args.rounds,
                          shape=LlamaConfig(vocab_size=tokenizer.n_words, **sizes))
    if args.peak_memory:
        device, run.checkpoint, variant = args.peak_memory
        run.device = torch.device(device)
        print(peak_memory(args.jobs[0], variant, run))
        return
    with tempfile.TemporaryDirectory() as folder:
        run.checkpoint = os.path.join(folder, "seeded.pt")
        workloads.save_seeded(run.checkpoint, run.shape)
        for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
            run.device = torch.device(device)
            run.variants = workloads.variants_for(run.device)
            report(run, args.jobs)
            print()


if __name__ == "__main__":
    main()
