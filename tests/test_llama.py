"""The forward pass and its gradients, against NumPy in float64."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import llama
import reference
from config import LlamaConfig
from conftest import ROOT, SMALL
from llama import Attention, FeedForward, LayerNorm, Llama, LlamaLayer, load_pretrained
from utils import multiply_by_onednn

NEVER = 10**9  # FUSED_FROM: always the written-out formula; 0: always the fused kernel


def seeded(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def seeded_tokens(bs: int, seqlen: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, SMALL["vocab_size"], (bs, seqlen))


def model_of(weights: reference.Weights, args: dict) -> Llama:
    """The model with the given weights, not by way of a file."""
    model = Llama(LlamaConfig(**args)).eval()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, array in weights.items():
            parameters[name].copy_(torch.tensor(np.asarray(array)))
    return model


# The whole model


@pytest.mark.parametrize("fused_from", [0, NEVER], ids=["fused", "written out"])
@pytest.mark.parametrize("causal", [False, True], ids=["unmasked", "causal"])
@pytest.mark.parametrize("n_kv_heads", [None, 4, 2, 1])
@pytest.mark.parametrize("bs, seqlen", [(1, 1), (1, 7), (3, 13), (2, 21)])
def test_logits_and_hidden_states(monkeypatch, bs, seqlen, n_kv_heads, causal, fused_from):
    """The longest of the texts exceeds max_seq_len."""
    monkeypatch.setattr(llama, "FUSED_FROM", fused_from)
    args = SMALL | {"n_kv_heads": n_kv_heads, "causal": causal}
    weights, tokens = reference.seeded_weights(args, 1, biases=True), seeded_tokens(bs, seqlen)
    expected_logits, expected_hidden = reference.forward(weights, args, tokens)
    ids = torch.tensor(tokens)
    with torch.no_grad():
        model = model_of(weights, args)
        logits, hidden = model(ids, targets=ids)
        last_logits, last_hidden = model(ids)
        last_only = model.hidden_states(ids, last_only=True)
    assert logits.shape == (bs, seqlen, 61) and last_logits.shape == (bs, 1, 61)
    for found, expected in [(logits, expected_logits), (hidden, expected_hidden),
                            (last_logits, expected_logits[:, -1:]), (last_hidden, expected_hidden),
                            (last_only, expected_hidden[:, -1:])]:
        np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("llama2c", [False, True], ids=["course", "llama2.c"])
def test_a_checkpoint_in_either_naming_gives_the_same_model(tmp_path, small_weights, llama2c):
    path = reference.save_checkpoint(tmp_path / "model.pt", small_weights, SMALL, llama2c)
    tokens = seeded_tokens(2, 9)
    with torch.no_grad():
        logits, hidden = load_pretrained(path)(torch.tensor(tokens))
    expected_logits, expected_hidden = reference.forward(small_weights, SMALL, tokens)
    np.testing.assert_allclose(logits, expected_logits[:, -1:], atol=2e-5, rtol=1e-4)
    np.testing.assert_allclose(hidden, expected_hidden, atol=2e-5, rtol=1e-4)


def test_real_weights(stories260k):
    weights, args = reference.read_checkpoint(stories260k)
    tokens = np.random.default_rng(2).integers(0, args["vocab_size"], (2, 150))
    expected_logits, expected_hidden = reference.forward(weights, args, tokens)
    with torch.no_grad():
        logits, hidden = load_pretrained(stories260k)(torch.tensor(tokens))
    np.testing.assert_allclose(hidden, expected_hidden, atol=2e-4, rtol=1e-3)
    np.testing.assert_allclose(logits, expected_logits[:, -1:], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("causal", [False, True], ids=["unmasked", "causal"])
def test_later_tokens_matter_unless_the_model_is_causal(small_weights, causal):
    model = model_of(small_weights, SMALL | {"causal": causal})
    with torch.no_grad():
        _, one = model(torch.tensor([[5, 6, 7]]))
        _, other = model(torch.tensor([[5, 6, 0]]))
    assert torch.allclose(one[:, :2], other[:, :2], atol=1e-6) == causal


def test_gradients_of_every_parameter(small_weights):
    """The slope along a random direction, against a central difference of the reference."""
    args = SMALL | {"n_layers": 1}
    weights = reference.seeded_weights(args, 3, biases=True)
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    tokens, rng = seeded_tokens(2, 5), np.random.default_rng(4)
    pull = rng.standard_normal((2, 5, SMALL["vocab_size"]))

    def loss(changed: reference.Weights) -> float:
        return (reference.forward(weights | changed, args, tokens)[0] * pull).sum()

    model, ids = model_of(weights, args).double(), torch.tensor(tokens)
    (model(ids, targets=ids)[0] * torch.tensor(pull)).sum().backward()
    for name, parameter in model.named_parameters():
        direction, step = rng.standard_normal(parameter.shape), 1e-5
        up, down = ({name: weights[name] + sign * step * direction} for sign in (1, -1))
        slope = (parameter.grad.numpy() * direction).sum()
        assert slope == pytest.approx((loss(up) - loss(down)) / (2 * step), rel=1e-4, abs=1e-4)


def test_parameters_are_those_of_the_published_model():
    with torch.device("meta"):
        model = Llama(LlamaConfig())
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes == reference.shapes({}, biases=True)
    assert sum(p.numel() for p in model.parameters()) == 41_698_304
    assert model.output.weight is model.tok_embeddings.weight


def test_a_fresh_model_prefers_no_token():
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**SMALL)).eval()
    logits, _ = model(torch.tensor([[1, 2, 3]]))
    assert 0 < logits.std() < 0.3
    assert all((norm.weight == 1).all() and (norm.bias == 0).all()
               for norm in model.modules() if isinstance(norm, LayerNorm))


# Its parts


def test_layer_norm():
    norm = LayerNorm(7, 1e-3).double()
    norm.weight.data, norm.bias.data = seeded(7), seeded(2, 7)[1]
    x = seeded(2, 3, 7) * 5 + 100
    expected = reference.layer_norm(x.numpy(), seeded(7).numpy(), seeded(2, 7)[1].numpy(), 1e-3)
    np.testing.assert_allclose(norm(x).detach(), expected, rtol=1e-9, atol=1e-9)


def test_fused_and_written_out_layer_norm_agree_with_their_gradients():
    norm = LayerNorm(7, 1e-3).double()
    norm.weight.data, norm.bias.data = seeded(7), seeded(2, 7)[1]
    results = []
    for compute in (norm.forward, norm.compute_layernorm):
        x = (seeded(2, 3, 7) * 5 + 10).requires_grad_()
        y = compute(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), (x, norm.weight, norm.bias))))
    for fused, written_out in zip(*results):
        torch.testing.assert_close(fused, written_out, rtol=1e-9, atol=1e-9)


def test_layer_norm_of_equal_values_is_its_bias():
    norm = LayerNorm(5, 1e-5)
    norm.bias.data.fill_(3.0)
    torch.testing.assert_close(norm(torch.full((2, 5), 7.0)), torch.full((2, 5), 3.0))


def test_layer_norm_of_half_precision_is_computed_in_float32():
    norm, x = LayerNorm(64, 1e-5), (seeded(2, 64) * 300 + 1000).half()
    assert norm(x).dtype == torch.float16
    torch.testing.assert_close(norm(x), norm(x.float()).half(), atol=0, rtol=0)


def test_layer_norm_gradients():
    norm, x = LayerNorm(6, 1e-5).double(), seeded(2, 3, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: norm(x), (x, *norm.parameters()))


@pytest.mark.parametrize("q_len", [11, 4, 1])
@pytest.mark.parametrize("causal", [False, True], ids=["unmasked", "causal"])
@pytest.mark.parametrize("fused_from", [0, NEVER], ids=["fused", "written out"])
def test_attention_formula(monkeypatch, fused_from, causal, q_len):
    monkeypatch.setattr(llama, "FUSED_FROM", fused_from)
    attention = Attention(LlamaConfig(**SMALL | {"causal": causal})).eval()
    query, key, value = seeded(3, 2, 4, 11, 6)
    found = attention.compute_query_key_value_scores(query[:, :, -q_len:], key, value)
    assert found.shape == (2, 4, q_len, 6)
    for row, head in np.ndindex(2, 4):
        q, k, v = (t[row, head].numpy() for t in (query, key, value))
        expected = reference.attend(q, k, v, causal)[-q_len:]
        np.testing.assert_allclose(found[row, head], expected, atol=1e-10)


@pytest.mark.parametrize("q_len", [5, 2])
@pytest.mark.parametrize("causal", [False, True], ids=["unmasked", "causal"])
def test_fused_and_written_out_attention_agree_with_their_gradients(monkeypatch, causal, q_len):
    attention = Attention(LlamaConfig(**SMALL | {"causal": causal})).eval()
    outcomes = []
    for fused_from in (0, NEVER):
        monkeypatch.setattr(llama, "FUSED_FROM", fused_from)
        inputs = [t.clone().requires_grad_() for t in seeded(3, 2, 4, 5, 6)]
        inputs[0] = seeded(2, 4, q_len, 6).requires_grad_()
        found = attention.compute_query_key_value_scores(*inputs)
        outcomes.append([found, *torch.autograd.grad((found ** 3).sum(), inputs)])
        assert torch.autograd.gradcheck(attention.compute_query_key_value_scores, inputs,
                                        fast_mode=True)
    for fused, written in zip(*outcomes):
        torch.testing.assert_close(fused, written, atol=1e-10, rtol=1e-8)


def test_the_switch_looks_at_the_number_of_keys(monkeypatch):
    kernel, calls = torch.nn.functional.scaled_dot_product_attention, []
    monkeypatch.setattr(llama.F, "scaled_dot_product_attention",
                        lambda *args, **kwargs: calls.append(1) or kernel(*args, **kwargs))
    monkeypatch.setattr(llama, "FUSED_FROM", 5)
    attention = Attention(LlamaConfig(**SMALL)).eval()
    for seqlen, expected in [(4, 0), (5, 1), (6, 2)]:
        query, key, value = seeded(3, 1, 4, seqlen, 6)
        attention.compute_query_key_value_scores(query[:, :, -1:], key, value)
        assert len(calls) == expected


@pytest.mark.parametrize("fused_from", [0, NEVER], ids=["fused", "written out"])
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
    """Every place drops about a quarter of its numbers and scales the others up."""
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**SMALL | {"dropout": 0.25, "dim": 240})).train()
    layer, x = model.layers[0], torch.randn(4, 9, 240)
    layer.attention.attn_dropout.p = 0.0
    seen = []
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    tokens = torch.tensor(seeded_tokens(4, 9))
    model(tokens)
    pairs = [(seen[0], model.tok_embeddings(tokens))]
    for part in (layer.attention, layer.feed_forward):
        pairs.append((part.train()(x), part.eval()(x)))
        layer.attention.attn_dropout.p = 0.0
    for dropped, whole in pairs:
        kept = dropped != 0
        assert 0.72 < kept.float().mean() < 0.78
        torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)


def test_dropout_is_off_in_evaluation(small_weights):
    model, ids = model_of(small_weights, SMALL | {"dropout": 0.5}), torch.tensor([[3, 1, 4]])
    with torch.no_grad():
        _, hidden = model(ids)
    _, expected = reference.forward(small_weights, SMALL, [[3, 1, 4]])
    np.testing.assert_allclose(hidden, expected, atol=2e-5, rtol=1e-4)


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


def test_feed_forward_gradients():
    layer, x = FeedForward(4, 6, 1, 0.0).double(), seeded(2, 4).requires_grad_()
    for formula in (layer, layer.SwiGLU):
        assert torch.autograd.gradcheck(formula, x)


def test_layer_adds_both_of_its_parts_to_what_comes_in():
    layer, x = LlamaLayer(0, LlamaConfig(**SMALL)).eval(), seeded(1, 5, 24).float()
    for part in (layer.attention.compute_output, layer.feed_forward.w2):
        torch.nn.init.zeros_(part.weight)
    torch.testing.assert_close(layer(x), x)


# Configurations that make no model


@pytest.mark.parametrize("field, value", [
    ("vocab_size", 0), ("dim", 0), ("dim", -8), ("dim", 512.0), ("n_layers", 0), ("n_heads", 0),
    ("n_kv_heads", 0), ("n_kv_heads", 3), ("n_heads", 7), ("n_heads", "8"), ("max_seq_len", 0),
    ("max_seq_len", True), ("multiple_of", 0), ("hidden_dim", 0), ("hidden_dim", 1.5),
    ("dropout", -0.1), ("dropout", 1.0), ("dropout", float("nan")), ("layer_norm_eps", -1e-5),
    ("layer_norm_eps", float("nan")), ("layer_norm_eps", None), ("causal", 1)])
def test_bad_configuration_is_named(field, value):
    with pytest.raises(ValueError, match=field) as error:
        LlamaConfig(**{field: value})
    assert "\n" not in str(error.value)


def test_heads_of_odd_width_are_refused():
    with pytest.raises(ValueError, match="n_heads"):
        LlamaConfig(dim=12, n_heads=4, n_kv_heads=4)


def test_no_n_kv_heads_means_n_heads():
    assert LlamaConfig(n_heads=4, n_kv_heads=None).n_kv_heads == 4


@pytest.fixture
def product_settings():
    """Leaves the setting of float32 products as it was."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    yield torch.backends.mkldnn.matmul
    torch.backends.mkldnn.matmul.fp32_precision = before


@pytest.mark.parametrize("shape", [(4400, 512, 1376), (70, 512, 512), (10, 16, 3)], ids=str)
def test_whatever_multiplies_keeps_float32(product_settings, shape):
    """Sums of n products of standard normal numbers: float32 rounding, nothing like bfloat16's."""
    multiply_by_onednn(dim=512)
    rows, inner, columns = shape
    x, weight = seeded(rows + columns, inner).float().split([rows, columns])
    error = torch.nn.functional.linear(x, weight) - x.double() @ weight.double().T
    assert error.abs().max() < inner**0.5 * 1e-5


def test_where_products_would_be_rounded_nothing_changes(product_settings, monkeypatch):
    product_settings.fp32_precision = "ieee"
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, weight: x.bfloat16().float())
    assert not multiply_by_onednn(dim=512)
    assert product_settings.fp32_precision == "ieee"


def test_narrow_models_do_not_wait_for_kernels(product_settings):
    product_settings.fp32_precision = "ieee"
    assert not multiply_by_onednn(dim=288)
    assert product_settings.fp32_precision == "ieee"


def test_a_pytorch_without_that_setting_multiplies_as_it_does(monkeypatch):
    monkeypatch.setattr(torch.backends, "mkldnn", object())
    assert not multiply_by_onednn(dim=512)


GROWTH = """
import torch
from pathlib import Path
from utils import multiply_by_onednn

def pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

torch.set_num_threads(1)
multiply_by_onednn(dim=512)
weight = torch.randn(512, 512, requires_grad=True)
sizes = []
for length in range(20, 320):
    torch.nn.functional.linear(torch.randn(length, 512), weight).sum().backward()
    sizes.append(pages())
print((sizes[-1] - sizes[100]) / sizes[100])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc tells the memory")
def test_kernels_for_ever_new_lengths_do_not_pile_up():
    """oneDNN and PyTorch would keep a thousand of them each, 300 lengths taking 400 MB."""
    run = subprocess.run([sys.executable, "-c", GROWTH], cwd=ROOT, capture_output=True, text=True,
                         check=True)
    assert float(run.stdout) < 0.2
