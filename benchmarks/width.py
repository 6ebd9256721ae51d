"""From what width of a model on does oneDNN pay? python benchmarks/width.py

Prints the time of a training step by MKL over that by oneDNN, for models of two layers and batches
whose lengths keep changing, so that oneDNN has kernels to compile: the total of steps in turn.
"""

import random
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from config import LlamaConfig
from llama import Llama
from utils import multiply_by_onednn

WIDTHS = (128, 192, 256, 320, 384, 512, 768)
ROWS = {"16 short rows": (16, 15, 55), "8 long rows": (8, 120, 240)}  # shortest and longest
STEPS, WARM_UP = 20, 2


def seconds(model: Llama, ids: torch.Tensor, precision: str) -> float:
    """One forward and backward pass; "ieee" multiplies by MKL, "bf16" by oneDNN."""
    torch.backends.mkldnn.matmul.fp32_precision = precision
    started = time.perf_counter()
    model.hidden_states(ids, last_only=True).sum().backward()
    return time.perf_counter() - started


def main() -> None:
    if not multiply_by_onednn(dim=512):
        sys.exit("here oneDNN does not multiply in float32")
    lengths = random.Random(0)
    for dim in WIDTHS:
        model = Llama(LlamaConfig(vocab_size=64, dim=dim, n_layers=2, n_heads=dim // 64,
                                  n_kv_heads=None))
        for rows, (bs, shortest, longest) in ROWS.items():
            mkl = onednn = 0.0
            for step in range(STEPS):
                ids = torch.randint(64, (bs, lengths.randint(shortest, longest)))
                both = seconds(model, ids, "ieee"), seconds(model, ids, "bf16")
                if step >= WARM_UP:
                    mkl, onednn = mkl + both[0], onednn + both[1]
            print(f"width {dim}, {rows}: {mkl / onednn:.2f}", flush=True)


if __name__ == "__main__":
    main()
