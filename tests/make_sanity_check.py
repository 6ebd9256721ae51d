"""Write demo/sanity_check.data: what the NumPy reference computes from the embedded weights.

    python tests/make_sanity_check.py
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

DEMO = Path(__file__).resolve().parent.parent / "demo"
sys.path += [str(DEMO), str(DEMO.parent), str(Path(__file__).parent / "assignment")]

import reference  # noqa: E402
from corpus import stories  # noqa: E402
from tokenizer import Tokenizer  # noqa: E402
from utils import atomic_write  # noqa: E402


def cases() -> Iterator[dict[str, torch.Tensor | bool | float]]:
    """Two short rows and a long one, with and without the causal mask, computed in float64."""
    weights, args = reference.read_checkpoint(DEMO / "stories.pt")
    tokenizer = Tokenizer(tokenizer_model=str(DEMO / "tokenizer.model"))
    rows = [tokenizer.encode(text, bos=True, eos=False) for text in stories(2, seed=2)]
    # 259 tokens are enough for the fused attention kernel.
    for ids in map(torch.tensor, ([row[:8] for row in rows], [sum(rows, [])[:259]])):
        for causal in (True, False):
            logits, hidden = reference.forward(weights, args | {"causal": causal}, ids.numpy())
            # float32 rounds what this model computes by several 1e-5.
            yield {"token_ids": ids, "causal": causal, "atol": 1e-4,
                   "logits": torch.tensor(logits[:, -1:]).float(),
                   "hidden_states": torch.tensor(hidden).float()}


if __name__ == "__main__":
    with atomic_write(DEMO / "sanity_check.data") as file:
        torch.save(list(cases()), file)
