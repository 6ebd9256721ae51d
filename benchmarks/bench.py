"""Measure this project against the textbook version of the same computations.

    python benchmarks/bench.py --output table.md

Both run in one process and in turn, on the same batches and the same seeded weights of stories42M's
shape; a ratio is the median over rounds of a textbook time divided by the time that follows it.
Before that both train for a few steps, and have to arrive at the same losses and predictions.
"""

import argparse
import os
import platform
import resource
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

from workloads import (
    BFLOAT16,
    JOBS,
    NEW_TOKENS,
    OURS,
    PROMPT,
    ROOT,
    TEXTBOOK,
    VARIANTS,
    Batch,
    LlamaConfig,
    Tokenizer,
    Training,
    make_batches,
    make_work,
    needed_flops,
    official,
    pick_device,
    products,
    save_seeded,
    variants_for,
)

SAME = 1e-4  # relative; float32 sums in another order differ by less after a few steps
STEPS = 3  # optimizer steps of the comparison


def matmul_peak(device: torch.device, variant: str) -> float:
    """The most FLOP/s of ten products of two 2048 x 2048 matrices."""
    a = torch.randn(2048, 2048, device=device)
    a = a.bfloat16() if variant == BFLOAT16 else a
    with products(variant, device):
        return 2 * 2048**3 / min(timed(lambda: a @ a, device) for _ in range(10))


# ------------------------------------------------------------------------------------ measurements

def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - started


def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative to the largest of theirs."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def differences(works: dict[str, Any], batches: list[Batch], rows: int) -> dict[str, float]:
    """How far each variant's losses and scores are from the textbook's, after the same steps.

    Raises:
        ValueError: float32 differs by more than rounding, or predicts something else.
    """
    results = {}
    for variant, work in works.items():
        results[variant] = [work(ids[:rows], labels[:rows]) for ids, labels in batches[:STEPS]]
        if isinstance(work, Training):
            results[variant].append(work.scores(batches[0][0][:rows]))
    apart = {variant: max(map(largest_difference, results[variant], results[TEXTBOOK]))
             for variant in works if variant != TEXTBOOK}
    same = all(torch.equal(ours.argmax(-1), theirs.argmax(-1))
               for ours, theirs in zip(results[OURS], results[TEXTBOOK]))
    if not (same and apart[OURS] <= SAME):
        raise ValueError(f"{OURS} and the textbook version do not agree: relative difference "
                         f"{apart[OURS]:.1e}, predictions {'equal' if same else 'differ'}")
    return apart


def measure(job: str, run: SimpleNamespace) -> dict[str, Any]:
    """Times of all variants in turn: seconds per round and variant, and what goes with them."""
    kind, data = JOBS[job]
    if kind == "generate":
        batches = [(torch.randint(4, 200, (1, 33)), torch.zeros(1))] * (run.rounds + 1)
    else:
        batches = make_batches(data, kind == "prompt", max(run.rounds + 1, STEPS), run.tokenizer,
                               run.quick)
    batches = [(ids.to(run.device), labels.to(run.device)) for ids, labels in batches]
    works = {variant: make_work(kind, data, variant, run) for variant in run.variants}
    if isinstance(works[OURS], Training):
        for work in works.values():  # the same head, and LoRA matrices
            work.model.load_state_dict(works[OURS].model.state_dict())
    if run.device.type == "cuda":
        torch.set_float32_matmul_precision("highest")  # TF32 would hide a difference
    apart = differences(works, batches if kind != "generate" else batches[:1], rows=8)
    pick_device(run.device.type == "cuda")  # TF32 again, for both
    seconds: dict[str, list[float]] = {variant: [] for variant in works}
    for i, batch in enumerate(tqdm(batches[:run.rounds + 1], job, leave=False, disable=None)):
        for variant, work in works.items():
            elapsed = timed(partial(work, *batch), run.device)
            if i > 0:  # the first round warms up
                seconds[variant].append(elapsed)
    counted = [ids.shape for ids, _ in batches[1:run.rounds + 1]]
    tokens = [NEW_TOKENS if kind == "generate" else bs * seqlen for bs, seqlen in counted]
    flops = [needed_flops(run.shape, kind, *size) for size in counted]
    return {"seconds": seconds, "apart": apart, "tokens": tokens, "flops": flops}


def measure_process(run: SimpleNamespace) -> dict[str, Any]:
    """Seconds of the whole command, from start to end, in turn."""
    python, here = sys.executable, Path(__file__).resolve().parent
    model = ["--pretrained-model-path", run.checkpoint, "--tokenizer",
             run.tokenizer.model_path]
    commands = {
        TEXTBOOK: [python, str(here / "textbook.py"), run.checkpoint, run.tokenizer.model_path,
                   PROMPT],
        OURS: [python, str(ROOT / "run_llama.py"), "--option", "generate", *model]}
    folder = os.path.dirname(run.checkpoint)
    seconds: dict[str, list[float]] = {variant: [] for variant in commands}
    for _ in tqdm(range(run.rounds), "--option generate", leave=False, disable=None):
        for variant, command in commands.items():
            call = partial(subprocess.run, command, cwd=folder, check=True, capture_output=True)
            seconds[variant].append(timed(call, torch.device("cpu")))
    return {"seconds": seconds, "apart": {}}


def measure_memory(job: str, run: SimpleNamespace) -> dict[str, Any]:
    """Peak memory in GB of two training steps, each variant in a process of its own."""
    command = [sys.executable, __file__, "--jobs", job, "--checkpoint", run.checkpoint]
    command += ["--quick"] * run.quick
    if run.tokenizer:
        command += ["--tokenizer", run.tokenizer.model_path]
    variants = tqdm(run.variants, job, leave=False, disable=None)
    return {"memory": {variant: float(subprocess.run(
        [*command, "--variant", variant], check=True, stdout=subprocess.PIPE, text=True).stdout)
        for variant in variants}}


def peak_memory(job: str, variant: str, run: SimpleNamespace) -> float:
    """Peak memory of this process in GB (of the GPU's, if there is one) after two steps.

    They are on the longest of 100 batches, since that one decides how much a run needs.
    """
    kind = "lora" if "LoRA" in job else "finetune"
    batches = make_batches("CFIMDB", False, 100, run.tokenizer, run.quick)
    batch = max(batches, key=lambda batch: batch[0].shape[1])
    work = make_work(kind, "CFIMDB", variant, run)
    for _ in range(2):
        work(*(tensor.to(run.device) for tensor in batch))
    if run.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts what the parent process had, too, in ru_maxrss
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS: bytes


def profile(job: str, run: SimpleNamespace) -> None:
    """Print where the time of one batch goes, in the textbook version and in this one."""
    kind, data = JOBS[job]
    ids, labels = make_batches(data, kind == "prompt", 1, run.tokenizer, run.quick)[0]
    for variant in (TEXTBOOK, OURS):
        work = make_work(kind, data, variant, run)
        work(ids, labels)  # warms up
        with torch.profiler.profile() as profiler:
            work(ids, labels)
        rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
        total = sum(row.self_cpu_time_total for row in rows)
        print(f"{job}, {variant}: {total / 1e6:.2f} s for {ids.numel():,} padded tokens")
        for row in rows[:10]:
            share = row.self_cpu_time_total / total
            print(f"{share:>7.1%} {row.count:>6} x {row.key.removeprefix('aten::')}")


# ---------------------------------------------------------------------------------------- the table

def row(job: str, variant: str, result: dict[str, Any], peaks: dict[str, float]) -> str:
    """One line of the table: what one variant did in one job."""
    if "memory" in result:
        used = result["memory"]
        return (f"| {job} | {variant} | | {used[variant] / used[TEXTBOOK]:.2f}× | | "
                f"{used[variant]:.2f} GB |")
    seconds = result["seconds"][variant]
    ratio = statistics.median(a / b for a, b in zip(result["seconds"][TEXTBOOK], seconds))
    if "tokens" not in result:
        return f"| {job} | {variant} | {statistics.median(seconds):.1f} s | {ratio:.2f}× | | |"
    speed = statistics.median(n / s for n, s in zip(result["tokens"], seconds))
    peak = peaks[OURS if variant == TEXTBOOK else variant]
    share = statistics.median(n / s for n, s in zip(result["flops"], seconds)) / peak
    apart = f"{result['apart'][variant]:.0e}" if variant != TEXTBOOK else ""
    return f"| {job} | {variant} | {speed:,.0f} /s | {ratio:.2f}× | {share:.0%} | {apart} |"


def machine(device: torch.device) -> str:
    """Kind of processor, cores, memory, GPU, and versions."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines()
              if line.startswith("model name")] if info.exists() else [platform.machine()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if device.type == "cuda" else ""
    return (f"{models[0]}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} "
            f"threads, {memory:.0f} GiB{gpu}; Python {platform.python_version()}, "
            f"PyTorch {torch.__version__}")


def report(run: SimpleNamespace, jobs: list[str]) -> list[str]:
    """Measure the jobs on one device; the lines of the table, which are also printed."""
    def say(line: str) -> None:
        lines.append(line)
        tqdm.write(line)

    lines: list[str] = []
    peaks = {variant: matmul_peak(run.device, variant) for variant in run.variants[1:]}
    say(f"{time.strftime('%Y-%m-%d')}, {machine(run.device)}.")
    say("Matrix-multiply peak, GFLOP/s: " + ", ".join(
        f"{name} {peak / 1e9:,.0f}" for name, peak in peaks.items()) + ".\n")
    if run.device.type == "cpu" and BFLOAT16 not in run.variants:
        say("bfloat16 is left out: this processor multiplies it more slowly than float32.\n")
    say("| job | variant | padded tokens | ratio | of peak | apart, or peak memory |")
    say("|---|---|---|---|---|---|")
    for job in jobs:
        kind = JOBS[job][0]
        if kind == "process":
            if run.tokenizer is None or run.device.type == "cuda":
                continue  # needs the tokenizer of the shape; the command is measured on the CPU
            result = measure_process(run)
        else:
            result = measure_memory(job, run) if kind == "memory" else measure(job, run)
        for variant in result.get("seconds") or result["memory"]:
            say(row(job, variant, result, peaks))
    return lines


def get_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB",
                        help=f"any of: {', '.join(JOBS)} (default: all)")
    parser.add_argument("--profile", choices=[job for job, (kind, _) in JOBS.items() if kind in (
        "finetune", "lora", "prompt")], metavar="JOB", help="only print where its time goes")
    parser.add_argument("--rounds", type=int, default=5, help="measured, after one that warms up")
    parser.add_argument("--quick", action="store_true", help="a tiny model and short sentences")
    parser.add_argument("--output", metavar="FILE", help="write the table there, too (Markdown)")
    parser.add_argument("--tokenizer", metavar="FILE", help="(default: the official one)")
    # What `measure_memory` adds when it starts this program for one variant.
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {args.rounds}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    args = get_args(argv)
    tokenizer_model = args.tokenizer or official("tokenizer.model")
    tokenizer = Tokenizer(tokenizer_model=str(tokenizer_model)) if tokenizer_model else None
    shape = LlamaConfig(vocab_size=tokenizer.n_words if tokenizer else 32000)
    if args.quick:
        shape = LlamaConfig(vocab_size=shape.vocab_size, dim=32, n_layers=2, n_heads=4,
                            n_kv_heads=2)
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    if args.profile:
        devices = ["cpu"]
    run = SimpleNamespace(tokenizer=tokenizer, shape=shape, quick=args.quick, rounds=args.rounds,
                          checkpoint=args.checkpoint, device=torch.device(devices[-1]),
                          variants=variants_for(torch.device(devices[-1])))
    if args.variant:
        print(peak_memory(args.jobs[0], args.variant, run))
        return 0
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        run.checkpoint = os.path.join(folder, "seeded.pt")
        save_seeded(run.checkpoint, shape)
        if args.profile:
            profile(args.profile, run)
            return 0
        for device in devices:
            run.device = torch.device(device)
            run.variants = variants_for(run.device)
            lines += [*report(run, args.jobs), ""]
    if args.output:
        Path(args.output).write_text("\n".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
