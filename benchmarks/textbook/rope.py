"""Textbook solution: rotary embeddings without complex numbers."""

import torch


def reshape_for_broadcast(freqs_cis, x):
    assert freqs_cis.shape == (x.shape[1], x.shape[-1])
    return freqs_cis.view([d if i in (1, x.ndim - 1) else 1 for i, d in enumerate(x.shape)])


def rotate(x, cos, sin):
    even, odd = x.float().reshape(x.shape[:-1] + (-1, 2)).unbind(-1)
    cos, sin = reshape_for_broadcast(cos, even), reshape_for_broadcast(sin, even)
    out = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return out.flatten(3).type_as(x)


def apply_rotary_emb(query, key, head_dim, max_seq_len, theta=10000.0):
    seqlen = query.shape[1]
    freqs = 1.0 / (theta ** (torch.arange(0, head_dim, 2, device=query.device).float() / head_dim))
    positions = torch.arange(seqlen, device=query.device).float()
    angles = torch.outer(positions, freqs)
    cos, sin = torch.cos(angles), torch.sin(angles)
    query_out = rotate(query, cos, sin)
    key_out = rotate(key, cos, sin)
    return query_out, key_out
