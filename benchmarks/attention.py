"""From how many keys on does the fused attention kernel pay? python benchmarks/attention.py

Prints the time of the written-out formula over that of the kernel, at stories42M's 8 heads of
width 64 and with products as `run_llama.py` has them: the median of pairs timed in turn, with
backward pass (train) and without (infer).
"""

import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import llama
from config import LlamaConfig
from utils import multiply_by_onednn

LENGTHS = {80: (32, 64, 96), 10: (64, 128, 192, 256, 288, 320, 352, 384, 512)}  # by batch size
PAIRS, WARM_UP = 11, 3


def seconds(attention: llama.Attention, bs: int, seqlen: int, fused: bool, train: bool) -> float:
    """One call on fresh random tensors."""
    llama.FUSED_FROM = 0 if fused else seqlen + 1
    inputs = [torch.randn(bs, seqlen, 8, 64).transpose(1, 2).requires_grad_(train)
              for _ in range(3)]  # strides as in the model
    started = time.perf_counter()
    mixed = attention.compute_query_key_value_scores(*inputs)
    if train:
        mixed.sum().backward()
    return time.perf_counter() - started


def main() -> None:
    multiply_by_onednn(dim=512)
    attention = llama.Attention(LlamaConfig())
    for train in (True, False):
        for bs, lengths in LENGTHS.items():
            for seqlen in lengths:
                with torch.set_grad_enabled(train):
                    ratios = [seconds(attention, bs, seqlen, False, train)
                              / seconds(attention, bs, seqlen, True, train)
                              for _ in range(WARM_UP + PAIRS)]
                print(f"{'train' if train else 'infer'}, batch {bs}, {seqlen} keys: "
                      f"{statistics.median(ratios[WARM_UP:]):.2f}", flush=True)


if __name__ == "__main__":
    main()
