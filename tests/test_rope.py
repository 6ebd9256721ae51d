"""Rotary embeddings: the worked values of the course's check, and the closed form."""

from math import cos, sin

import numpy as np
import pytest
import torch

import reference
from rope import apply_rotary_emb, reshape_for_broadcast


def seeded(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_worked_values():
    ones = torch.ones(1, 2, 2, 4)
    turned = [cos(1) - sin(1), sin(1) + cos(1), cos(0.01) - sin(0.01), sin(0.01) + cos(0.01)]
    expected = torch.tensor([[[[1.0] * 4] * 2, [turned] * 2]])
    for factor, rotated in zip((2, 3), apply_rotary_emb(2 * ones, 3 * ones, 4, 20)):
        torch.testing.assert_close(rotated, factor * expected)


@pytest.mark.parametrize("shape, expected", [
    ((5, 3, 4, 2), (1, 3, 1, 2)), ((5, 3, 4, 7, 2), (1, 3, 1, 1, 2)), ((5, 2, 4, 2), None),
    ((5, 3, 4, 3), None)])
def test_a_table_broadcasts_over_batch_and_heads_if_positions_and_width_fit(shape, expected):
    table, x = torch.arange(6.0).reshape(3, 2), torch.zeros(shape)
    if expected:
        assert torch.equal(reshape_for_broadcast(table, x), table.reshape(expected))
    else:
        with pytest.raises(AssertionError):
            reshape_for_broadcast(table, x)


@pytest.mark.parametrize("theta", [10000.0, 50.0])
@pytest.mark.parametrize("seqlen", [1, 7, 33])
def test_every_head_has_the_closed_form_beyond_max_seq_len_too(seqlen, theta):
    query, key = seeded(2, seqlen, 4, 6), seeded(2, seqlen, 2, 6) + 1
    rotated = apply_rotary_emb(query, key, 6, 16, theta)
    for before, after in zip((query, key), rotated):
        assert after.shape == before.shape
        for row, head in np.ndindex(before.shape[0], before.shape[2]):
            expected = reference.rotate(before[row, :, head].double().numpy(), theta)
            np.testing.assert_allclose(after[row, :, head], expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype):
    x = seeded(1, 300, 2, 6, dtype=dtype)
    rotated, _ = apply_rotary_emb(x, x, 6, 512)
    wide, _ = apply_rotary_emb(x.float(), x.float(), 6, 512)
    torch.testing.assert_close(rotated, wide.to(dtype), atol=0, rtol=0)


@pytest.mark.parametrize("q_len, seqlen, width", [(3, 2, 4), (2, 2, 3)])
def test_impossible_shapes_are_refused(q_len, seqlen, width):
    with pytest.raises(ValueError):
        apply_rotary_emb(seeded(1, q_len, 1, width), seeded(1, seqlen, 1, width), width, 8)
