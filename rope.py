"""Rotary position embeddings (RoFormer, Su et al. 2021, https://arxiv.org/abs/2104.09864)."""

from functools import lru_cache

import torch


def reshape_for_broadcast(freqs_cis: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """View a table of positions and pairs so that it broadcasts over batch and heads.

    Args:
        freqs_cis: (seqlen, width).
        x: (bs, seqlen, …, width).
    Returns:
        (1, seqlen, 1, …, width).
    Raises:
        AssertionError: the table does not have the positions and the width of `x`.
    """
    assert freqs_cis.shape == (x.shape[1], x.shape[-1]), (
        f"a table of shape {tuple(freqs_cis.shape)} does not fit {tuple(x.shape)}")
    return freqs_cis.view(1, x.shape[1], *[1] * (x.ndim - 3), x.shape[-1])


@lru_cache(maxsize=16)
def precompute_freqs_cis(
    head_dim: int, seqlen: int, theta: float, device: torch.device
) -> torch.Tensor:
    """exp(1j * position * theta**(-2i/head_dim)), RoFormer's equations 13 and 15.

    Cached, since every layer of a forward pass needs the same table.

    Returns:
        (seqlen, head_dim / 2), complex64.
    """
    with torch.inference_mode(False):  # a cached inference tensor could not be used in training
        pairs = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32)
        positions = torch.arange(seqlen, device=device, dtype=torch.float32)
        angles = torch.outer(positions, theta ** (-pairs / head_dim))
        return torch.polar(torch.ones_like(angles), angles)


def rotate(x: torch.Tensor, freqs_cis: torch.Tensor) -> torch.Tensor:
    """Rotate each pair (x0, x1), (x2, x3), … of the last dimension by its angle (RoFormer, eq. 34).

    A pair is read as a complex number, so that multiplying rotates it:
    (x0 + 1j x1) exp(1j a) = (x0 cos a - x1 sin a) + 1j (x0 sin a + x1 cos a).

    Args:
        x: (bs, seqlen, n_heads, head_dim).
        freqs_cis: (seqlen, head_dim / 2), complex.
    Returns:
        The shape and dtype of `x`; computed in float32 at least.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).contiguous()
    pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)))  # (bs, seqlen, n_heads, head_dim/2)
    rotated = pairs * reshape_for_broadcast(freqs_cis, pairs)
    return torch.view_as_real(rotated).flatten(-2).type_as(x)


def apply_rotary_emb(
    query: torch.Tensor,
    key: torch.Tensor,
    head_dim: int,
    max_seq_len: int,
    theta: float = 10000.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries and keys by their positions, so that only distances between them matter.

    Args:
        query: (bs, q_len, n_heads, head_dim). With q_len < seqlen these are the last positions.
        key: (bs, seqlen, n_kv_heads, head_dim), positions 0 … seqlen - 1.
        head_dim: width of a head, even.
        max_seq_len: not used; the table has the positions that occur, however many they are.
        theta: base of the frequencies.
    Returns:
        The rotated query and key, in their shapes and dtypes.
    Raises:
        ValueError: odd head_dim, or more queries than keys.
    """
    q_len, seqlen = query.shape[1], key.shape[1]
    if head_dim % 2 or q_len > seqlen:
        raise ValueError(f"cannot rotate {q_len} queries and {seqlen} keys of width {head_dim}")
    freqs_cis = precompute_freqs_cis(head_dim, seqlen, theta, key.device)
    if type(freqs_cis) is not torch.Tensor:  # a tracer's, such as torch.export's: not to be cached
        precompute_freqs_cis.cache_clear()
    return rotate(query, freqs_cis[seqlen - q_len:]), rotate(key, freqs_cis)
