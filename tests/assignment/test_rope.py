"""rope.py, against the closed form in float64."""

from math import cos, sin

import numpy as np
import pytest
import torch

from . import reference
from .judge import array, compare, part, seeded


def rotated(x, theta: float = 10000.0) -> np.ndarray:
    """Of shape (bs, seqlen, n_heads, head_dim), as in the model."""
    return reference.rotate(array(x).swapaxes(1, 2), theta).swapaxes(1, 2)


def known_mistakes(x: torch.Tensor, theta: float) -> dict[str, np.ndarray]:
    pairs = torch.stack(x.chunk(2, dim=-1), dim=-1).reshape(x.shape)
    turned, conjugate = rotated(pairs, theta), torch.tensor([1.0, -1.0] * (x.shape[-1] // 2))
    return {
        "no rotation at all": x,
        "rotation by halves (pair x0 with x1, not with x[d/2])":
            np.concatenate((turned[..., 0::2], turned[..., 1::2]), axis=-1),
        "positions counted from 1": rotated(torch.cat((x[:, :1], x), dim=1), theta)[:, 1:],
        "an exponent without its minus": rotated(x, 1 / theta),
        "an exponent without the 2 of 2i": rotated(x, theta ** 0.5),
        "a theta of 10000, not the given one": rotated(x),
        "rotation in the opposite direction": rotated(x * conjugate, theta) * array(conjugate),
    }


@part("rope.py apply_rotary_emb")
def test_worked_values(rope):
    """Those of the course's own check."""
    ones = torch.ones(1, 2, 2, 4)
    turned = [cos(1) - sin(1), sin(1) + cos(1), cos(0.01) - sin(0.01), sin(0.01) + cos(0.01)]
    expected = torch.tensor([[[[1.0] * 4] * 2, [turned] * 2]])
    for name, x, found in zip(("query", "key"), (2 * ones, 3 * ones),
                              rope.apply_rotary_emb(2 * ones, 3 * ones, 4, 20)):
        compare(f"rotated {name} (batch, position, head, channel) of all {x.max():.0f}", found,
                x * expected, known=known_mistakes(x, 10000.0))


@part("rope.py apply_rotary_emb")
@pytest.mark.parametrize("seqlen, theta", [(7, 10000.0), (16, 50.0)])
def test_every_row_and_head(rope, seqlen, theta):
    """With fewer heads for the keys than for the queries."""
    query, key = seeded(2, seqlen, 4, 6), seeded(2, seqlen, 2, 6, seed=1)
    for name, x, found in zip(("query", "key"), (query, key),
                              rope.apply_rotary_emb(query, key, 6, 16, theta)):
        compare(f"rotated {name} (batch, position, head, channel) with theta {theta:.0f}", found,
                rotated(x, theta), known=known_mistakes(x, theta))
