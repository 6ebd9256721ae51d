"""Measure the two thresholds at which the project changes kernels.

    python benchmarks/kernels.py

First, at stories42M's 8 heads of width 64, the time of the written-out attention over that of the
fused kernel; then, for models of two layers and batches of ever new lengths, the time of a training
step with MKL over that with oneDNN. All are medians of pairs that are timed in turn.
"""

import random
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from timeit import timeit
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import llama
from config import LlamaConfig
from utils import prefer_onednn

LENGTHS = {80: (32, 64, 96), 10: (64, 128, 192, 256, 288, 320, 352, 384, 512)}  # by batch size
WIDTHS = (128, 192, 256, 320, 384, 512, 768)
ROWS = {"16 short rows": (16, 15, 55), "8 long rows": (8, 120, 240)}  # shortest and longest
PAIRS, WARM_UP = 15, 3


def ratio(first: Callable[[], Any], second: Callable[[], Any]) -> float:
    """Measure the time of the first over that of the second."""
    ratios = [timeit(first, number=1) / timeit(second, number=1) for _ in range(WARM_UP + PAIRS)]
    return statistics.median(ratios[WARM_UP:])


def attend(attention: llama.Attention, bs: int, seqlen: int, fused: bool, train: bool) -> None:
    """Call it on fresh random tensors, which have the strides that they have in the model."""
    llama.FUSED_FROM = 0 if fused else seqlen + 1
    inputs = [torch.randn(bs, seqlen, 8, 64).transpose(1, 2).requires_grad_(train)
              for _ in range(3)]
    with torch.set_grad_enabled(train):
        mixed = attention.compute_query_key_value_scores(*inputs)
    if train:
        mixed.sum().backward()


def step(model: llama.Llama, bs: int, bounds: list[int], rng: random.Random, onednn: bool) -> None:
    """Run one forward and backward pass; "ieee" multiplies with MKL."""
    torch.backends.mkldnn.matmul.fp32_precision = "bf16" if onednn else "ieee"
    ids = torch.randint(64, (bs, rng.randint(*bounds)))
    model(ids, last_only=True)[1].sum().backward()


def main() -> None:
    """Measure both."""
    prefer_onednn(dim=512)
    exact = torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    attention = llama.Attention(LlamaConfig())
    for train in (True, False):
        for bs, seqlen in [(bs, seqlen) for bs, lengths in LENGTHS.items() for seqlen in lengths]:
            call = partial(attend, attention, bs, seqlen, train=train)
            found = ratio(partial(call, fused=False), partial(call, fused=True))
            print(f"{'train' if train else 'infer'}, batch {bs}, {seqlen} keys: {found:.2f}",
                  flush=True)
    if not exact:
        sys.exit("here oneDNN does not multiply in float32")
    for dim in WIDTHS:
        model = llama.Llama(LlamaConfig(vocab_size=64, dim=dim, n_layers=2, n_heads=dim // 64,
                                        n_kv_heads=None))
        for rows, (bs, *bounds) in ROWS.items():
            mkl, onednn = (partial(step, model, bs, bounds, random.Random(0), onednn=onednn)
                           for onednn in (False, True))  # both see the same lengths
            found = ratio(mkl, onednn)
            print(f"width {dim}, {rows}: {found:.2f}", flush=True)


if __name__ == "__main__":
    main()
