"""The forward pass and its gradients, against NumPy in float64."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import llama
import reference
from config import LlamaConfig
from conftest import ROOT, SMALL
from llama import Attention, FeedForward, LayerNorm, Llama, load_pretrained

NEVER = 10**9  # FUSED_FROM: always the written-out formula; 0: always the fused kernel
both_kernels = pytest.mark.parametrize("fused_from", [0, NEVER], ids=["fused", "written out"])
both_masks = pytest.mark.parametrize("causal", [False, True], ids=["unmasked", "causal"])


def seeded(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def seeded_tokens(bs: int, seqlen: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, SMALL["vocab_size"], (bs, seqlen))


# The whole model


@both_kernels
@both_masks
@pytest.mark.parametrize("n_kv_heads", [None, 4, 2, 1])
@pytest.mark.parametrize("bs, seqlen", [(1, 1), (1, 7), (3, 13), (2, 21)])
def test_logits_and_hidden_states(
        monkeypatch, tmp_path, bs, seqlen, n_kv_heads, causal, fused_from):
    """In evaluation, so without dropout. The longest of the texts exceeds max_seq_len."""
    monkeypatch.setattr(llama, "FUSED_FROM", fused_from)
    args = SMALL | {"n_kv_heads": n_kv_heads, "causal": causal}
    weights, tokens = reference.seeded_weights(args, 1, biases=True), seeded_tokens(bs, seqlen)
    expected_logits, expected_hidden = reference.forward(weights, args, tokens)
    path = reference.save_checkpoint(tmp_path / "m.pt", weights, args | {"dropout": 0.5})
    model, ids = load_pretrained(path), torch.tensor(tokens)
    with torch.no_grad():
        logits, hidden = model(ids, targets=ids)
        last_logits, same_hidden = model(ids)
        only_logits, only_hidden = model(ids, last_only=True)
    for found, expected in [(logits, expected_logits), (hidden, expected_hidden),
                            (last_logits, expected_logits[:, -1:]), (same_hidden, expected_hidden),
                            (only_logits, expected_logits[:, -1:]),
                            (only_hidden, expected_hidden[:, -1:])]:
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)


def test_real_weights(stories260k):
    weights, args = reference.read_checkpoint(stories260k)
    tokens = np.random.default_rng(2).integers(0, args["vocab_size"], (2, 150))
    expected_logits, expected_hidden = reference.forward(weights, args, tokens)
    with torch.no_grad():
        logits, hidden = load_pretrained(stories260k)(torch.tensor(tokens))
    np.testing.assert_allclose(hidden, expected_hidden, atol=2e-4, rtol=1e-3)
    np.testing.assert_allclose(logits, expected_logits[:, -1:], atol=2e-4, rtol=1e-3)


@both_kernels
@both_masks
@pytest.mark.parametrize("last_only", [False, True])
def test_gradients_of_every_parameter(monkeypatch, tmp_path, last_only, causal, fused_from):
    """The slope along a random direction, against a central difference of the reference."""
    monkeypatch.setattr(llama, "FUSED_FROM", fused_from)
    args = SMALL | {"causal": causal}
    weights = reference.seeded_weights(args, 3, biases=True)
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    tokens, rng = seeded_tokens(2, 5), np.random.default_rng(4)
    seen = slice(-1 if last_only else None, None)
    pulls = [rng.standard_normal((2, 5, width))[:, seen] for width in (61, 24)]

    def loss(changed: reference.Weights) -> float:
        results = reference.forward(weights | changed, args, tokens)
        return sum((result[:, seen] * pull).sum() for result, pull in zip(results, pulls))

    model = load_pretrained(reference.save_checkpoint(tmp_path / "m.pt", weights, args)).double()
    ids = torch.tensor(tokens)
    results = model(ids, None if last_only else ids, last_only)
    sum((result * torch.tensor(pull)).sum() for result, pull in zip(results, pulls)).backward()
    for name, parameter in model.named_parameters():
        direction, step = rng.standard_normal(parameter.shape), 1e-5
        up, down = ({name: weights[name] + sign * step * direction} for sign in (1, -1))
        slope = (parameter.grad.numpy() * direction).sum()
        assert slope == pytest.approx((loss(up) - loss(down)) / (2 * step), rel=1e-5, abs=1e-5)


def test_parameters_are_those_of_the_published_model():
    with torch.device("meta"):
        model = Llama(LlamaConfig())
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes == reference.shapes({}, biases=True)
    assert sum(p.numel() for p in model.parameters()) == 41_698_304


def test_fresh_weights_have_the_spread_of_the_assignment():
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**SMALL | {"dim": 240, "vocab_size": 500}))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == name.endswith("weight")).all(), name
            continue
        narrow = name.endswith(("w3.weight", "compute_output.weight"))
        expected, draws = 0.02 / np.sqrt(2 * 2) if narrow else 0.02, parameter.numel()
        # Within five standard errors.
        assert parameter.std().item() == pytest.approx(expected, rel=5 / np.sqrt(2 * draws)), name
        assert abs(parameter.mean()) < 5 * expected / np.sqrt(draws), name


# Its parts


def test_layer_norm():
    """Of random values, and of equal ones, whose norm is the bias alone."""
    norm = LayerNorm(7, 1e-3).double()
    norm.weight.data, norm.bias.data = seeded(7), seeded(2, 7)[1]
    weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    values = torch.cat((seeded(2, 3, 7) * 5 + 100, torch.full((2, 1, 7), 7.0)), dim=1)
    np.testing.assert_allclose(norm(values).detach(), rtol=1e-9, atol=1e-9,
                               desired=reference.layer_norm(values.numpy(), weight, bias, 1e-3))
    np.testing.assert_allclose(norm._norm(values).detach(), rtol=1e-9, atol=1e-9,
                               desired=reference.layer_norm(values.numpy(), 1.0, 0.0, 1e-3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("moved", [False, True], ids=["float32 weights", "moved weights"])
def test_layer_norm_of_half_precision_is_computed_in_float32(dtype, moved):
    norm, x = LayerNorm(64, 1e-5), (seeded(2, 64) * 300 + 1000).to(dtype)
    norm.weight.data, norm.bias.data = seeded(2, 64).to(dtype if moved else torch.float32)
    found = norm(x)
    torch.testing.assert_close(found, norm.float()(x.float()).to(dtype), atol=0, rtol=0)


@pytest.mark.parametrize("q_len", [11, 1])
@pytest.mark.parametrize("width", [6, 10])
@both_masks
def test_attention_formula_with_its_gradients(monkeypatch, causal, width, q_len):
    """Of both kernels. The scale is that of the tensors, wider than the model's heads or not."""
    attention = Attention(LlamaConfig(**SMALL | {"causal": causal})).eval()
    query, key, value = seeded(3, 2, 4, 11, width)
    expected = np.empty((2, 4, q_len, width))
    for row, head in np.ndindex(2, 4):
        q, k, v = (t[row, head].numpy() for t in (query, key, value))
        expected[row, head] = reference.attend(q, k, v, causal)[-q_len:]
    gradients = []
    for fused_from in (0, NEVER):
        monkeypatch.setattr(llama, "FUSED_FROM", fused_from)
        inputs = [t.clone().requires_grad_() for t in (query[:, :, -q_len:], key, value)]
        found = attention.compute_query_key_value_scores(*inputs)
        np.testing.assert_allclose(found.detach(), expected, atol=1e-10)
        assert torch.autograd.gradcheck(attention.compute_query_key_value_scores, inputs,
                                        fast_mode=True)
        gradients.append(torch.autograd.grad((found ** 3).sum(), inputs))
    for fused, written_out in zip(*gradients):
        torch.testing.assert_close(fused, written_out, atol=1e-10, rtol=1e-8)


def test_the_fused_kernel_serves_from_a_number_of_keys_on(monkeypatch):
    kernel, calls = torch.nn.functional.scaled_dot_product_attention, []
    monkeypatch.setattr(llama.F, "scaled_dot_product_attention",
                        lambda *args, **kwargs: calls.append(1) or kernel(*args, **kwargs))
    monkeypatch.setattr(llama, "FUSED_FROM", 5)
    attention = Attention(LlamaConfig(**SMALL)).eval()
    for seqlen, expected in [(4, 0), (5, 1), (6, 2)]:
        query, key, value = seeded(3, 1, 4, seqlen, 6)
        attention.compute_query_key_value_scores(query[:, :, -1:], key, value)
        assert len(calls) == expected


@both_kernels
def test_dropout_acts_on_the_attention_weights(monkeypatch, fused_from):
    """With the identity as value, the result is the weights themselves."""
    monkeypatch.setattr(llama, "FUSED_FROM", fused_from)
    torch.manual_seed(0)
    attention = Attention(LlamaConfig(**SMALL | {"dropout": 0.25})).train()
    query, key = seeded(2, 50, 4, 6, 6)
    value = torch.eye(6, dtype=torch.float64).expand(50, 4, 6, 6)
    weights = attention.compute_query_key_value_scores(query, key, value)
    kept = weights != 0
    assert 0.72 < kept.double().mean() < 0.78
    expected = (query @ key.transpose(-2, -1) / 6 ** 0.5).softmax(-1) / 0.75
    torch.testing.assert_close(weights[kept], expected[kept])
    attention.eval()
    torch.testing.assert_close(attention.compute_query_key_value_scores(query, key, value),
                               expected * 0.75)


def test_dropout_acts_after_embedding_attention_and_feed_forward():
    """Each of them drops about a quarter of its numbers and scales the others up."""
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**SMALL | {"dropout": 0.25, "dim": 240})).train()
    layer, x = model.layers[0], torch.randn(4, 9, 240)
    layer.attention.attn_dropout.p = 0.0
    seen = []
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    tokens = torch.tensor(seeded_tokens(4, 9))
    model(tokens)
    pairs = [(seen[0], model.tok_embeddings(tokens))]
    pairs += [(part.train()(x), part.eval()(x)) for part in (layer.attention, layer.feed_forward)]
    for dropped, whole in pairs:
        kept = dropped != 0
        assert 0.72 < kept.float().mean() < 0.78
        torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)


@pytest.mark.parametrize("dim, width, multiple_of, expected", [
    (512, None, 32, 1376), (64, None, 4, 172), (24, None, 10, 70), (12, None, 32, 32),
    (24, None, 64, 64), (24, 50, 32, 50)])
def test_feed_forward_width(dim, width, multiple_of, expected):
    layer = FeedForward(dim, width, multiple_of, 0.0)
    assert layer.w1.weight.shape == layer.w3.weight.shape == (expected, dim)
    assert layer.w2.weight.shape == (dim, expected)


def test_feed_forward():
    layer, x = FeedForward(6, 10, 1, 0.0).double(), seeded(2, 3, 6) * 4
    weights = {f"ff.{name}": p.detach().numpy() for name, p in layer.named_parameters()}
    expected = reference.feed_forward(weights, "ff", x.numpy())
    np.testing.assert_allclose(layer(x).detach(), expected, atol=1e-10)
    np.testing.assert_allclose(layer.SwiGLU(x).detach().numpy() @ weights["ff.w2.weight"].T,
                               expected, atol=1e-10)


# Configurations and settings


@pytest.mark.parametrize("field, value", [
    ("vocab_size", 0), ("dim", -8), ("dim", 512.0), ("n_layers", 0), ("n_heads", 0),
    ("n_heads", 7), ("n_heads", "8"), ("n_heads", 512), ("n_kv_heads", 0), ("n_kv_heads", 3),
    ("max_seq_len", 0), ("multiple_of", 0), ("hidden_dim", 0), ("hidden_dim", 1.5),
    ("dropout", -0.1), ("dropout", 1.0), ("dropout", float("nan")), ("layer_norm_eps", -1e-5),
    ("layer_norm_eps", float("nan")), ("layer_norm_eps", None)])
def test_a_configuration_that_no_model_can_have_is_refused(field, value):
    with pytest.raises(ValueError) as error:
        LlamaConfig(**{field: value})
    assert str(value) in str(error.value) and "\n" not in str(error.value)


PRODUCTS = """
import torch
from utils import prefer_onednn
prefer_onednn(dim=512)
for rows, inner, columns in ((4400, 512, 1376), (70, 512, 512), (10, 16, 3)):
    torch.manual_seed(0)
    x, weight = torch.randn(rows, inner), torch.randn(columns, inner)
    error = torch.nn.functional.linear(x, weight) - x.double() @ weight.double().T
    assert error.abs().max() < inner**0.5 * 1e-5, error.abs().max()
"""


def test_products_stay_float32_where_onednn_is_preferred():
    """Sums of n products of standard normal numbers: float32 rounding, nothing like bfloat16's.

    In a process of its own, since the setting is the whole process's.
    """
    subprocess.run([sys.executable, "-c", PRODUCTS], cwd=ROOT, check=True)
