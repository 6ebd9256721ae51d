"""llama.py part by part, each with reference code in the place of the parts before it."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from config import LlamaConfig

from . import reference
from .judge import SMALL, Stub, array, compare, equal, part, replace, seeded
from .test_rope import rotated


def config(**changed: object) -> LlamaConfig:
    return LlamaConfig(**SMALL | changed)


def arrays(module: nn.Module, prefix: str) -> reference.Weights:
    """The parameters of a module under the names that the reference knows."""
    return {f"{prefix}.{name}": array(p) for name, p in module.named_parameters()}


def check_dropout(what: str, dropped: torch.Tensor, whole: torch.Tensor, rate: float) -> None:
    """A share of the numbers is zero, the others are scaled up."""
    kept = dropped != 0
    share = 1 - kept.double().mean().item()
    assert abs(share - rate) < 0.05, (
        f"{what}, in training with dropout {rate}: expected about {rate:.0%} of the numbers to be "
        f"dropped, found {share:.0%}.")
    compare(f"{what}, in training with dropout {rate}, where it is not 0", dropped[kept],
            whole[kept] / (1 - rate), known={"no scaling by 1 / (1 - dropout)": whole[kept]})


def fraction(x: np.ndarray, ddof: int = 0, inside: float = 1e-3, outside: float = 0.0):
    deviation = np.sqrt(x.var(-1, keepdims=True, ddof=ddof) + inside) + outside
    return (x - x.mean(-1, keepdims=True)) / deviation


@part("llama.py LayerNorm")
def test_layer_norm(llama):
    norm, x = llama.LayerNorm(7, 1e-3), 2 + 0.05 * seeded(2, 3, 7)
    norm.weight.data, norm.bias.data = seeded(2, 7)
    weight, bias, x64 = array(norm.weight), array(norm.bias), array(x)
    right, var = fraction(x64), x64.var(-1, keepdims=True) + 1e-3
    known = {"the sample variance (divide by n, not by n - 1)": fraction(x64, ddof=1),
             "epsilon added outside of the square root": fraction(x64, 0, 0.0, 1e-3),
             "an epsilon of 1e-6, not the given one": fraction(x64, inside=1e-6),
             "a missing square root": right / var ** 0.5,
             "a mean that is not subtracted": x64 / var ** 0.5,
             "RMSNorm": x64 / ((x64 ** 2).mean(-1, keepdims=True) + 1e-3) ** 0.5}
    compare("LayerNorm._norm", norm._norm(x), right, known=known)
    compare("LayerNorm", norm(x), reference.layer_norm(x64, weight, bias, 1e-3), known={
        **{name: value * weight + bias for name, value in known.items()},
        "a missing bias": right * weight, "a missing weight": right + bias})


@part("llama.py LayerNorm")
def test_layer_norm_of_half_precision_is_computed_in_float32(llama):
    """Whatever its result's dtype; the squares of these numbers are beyond float16."""
    x = (seeded(3, 8) * 500).half()
    expected = reference.layer_norm(array(x), 1.0, 0.0, 1e-6)
    compare("LayerNorm of float16", llama.LayerNorm(8)(x), expected, atol=2e-3)


@part("llama.py Attention scores")
def test_scores(llama):
    attention = llama.Attention(config(dropout=0.25)).eval()
    query, key, value = seeded(3, 2, 4, 5, 6)
    q, k, v = array(query), array(key), array(value)

    def scaled(factor: float) -> np.ndarray:
        return reference.attend(q * factor, k, v)

    compare("Attention.compute_query_key_value_scores, in evaluation",
            attention.compute_query_key_value_scores(query, key, value), scaled(1.0), known={
                "a causal mask": reference.attend(q, k, v, causal=True),
                "a missing division by sqrt(head_dim)": scaled(6 ** 0.5),
                "a missing square root of head_dim": scaled(6 ** -0.5),
                "division by the root of the model's width": scaled((6 / 24) ** 0.5),
                "a softmax over the queries":
                    (query @ key.mT / 6 ** 0.5).softmax(-2) @ value})


@part("llama.py Attention scores")
def test_scores_drop_attention_weights_in_training(llama):
    """With the identity as value, the result is the weights themselves."""
    attention = llama.Attention(config(dropout=0.25)).train()
    query, key = seeded(2, 50, 4, 6, 6)
    value = torch.eye(6).expand(50, 4, 6, 6)
    check_dropout("Attention weights", attention.compute_query_key_value_scores(query, key, value),
                  (query @ key.mT / 6 ** 0.5).softmax(-1), 0.25)


@part("llama.py Attention")
@pytest.mark.parametrize("n_kv_heads", [None, 2, 1])
def test_attention(llama, monkeypatch, n_kv_heads):
    """With reference rotary embeddings and reference scores."""
    def rotate(query, key, *args, **kwargs):
        return [torch.tensor(rotated(x)).type_as(x) for x in (query, key)]

    def scores(query, key, value):
        equal("The shapes that Attention.forward gives to compute_query_key_value_scores",
              [tuple(t.shape) for t in (query, key, value)], [(20, 4, 5, 6)] * 3)
        return (query @ key.mT / 6 ** 0.5).softmax(-1) @ value

    def expected(changed: dict, **other_args: object) -> np.ndarray:
        return reference.attention(weights | changed, "a", args | other_args, array(x))

    replace(monkeypatch, "rope", "apply_rotary_emb", rotate)
    attention, x = llama.Attention(config(n_kv_heads=n_kv_heads, dropout=0.25)), seeded(20, 5, 24)
    attention.compute_query_key_value_scores = scores
    whole, dropped, weights = attention.eval()(x), attention.train()(x), arrays(attention, "a")
    args = reference.complete(SMALL | {"n_kv_heads": n_kv_heads})
    in_turn = {name: np.tile(weights[name], (4 // args["n_kv_heads"], 1))
               for name in ("a.compute_key.weight", "a.compute_value.weight")}
    right, known = expected({}), {
        "key/value heads in the order a b a b, not a a b b": expected(in_turn, n_kv_heads=4),
        "a missing output projection": expected({"a.compute_output.weight": np.eye(24)})}
    monkeypatch.setattr(reference, "rotate", lambda x: x)
    compare(f"Attention with 4 heads and {n_kv_heads or 4} key/value heads", whole, right,
            known={**known, "query and key that are not rotated": expected({})})
    check_dropout("Attention (resid_dropout)", dropped, whole, 0.25)


@part("llama.py FeedForward")
@pytest.mark.parametrize("dim, width, multiple_of, expected", [
    (512, None, 32, 1376), (24, None, 10, 70), (20, None, 1, 53), (24, 50, 32, 50)])
def test_feed_forward_width(llama, dim, width, multiple_of, expected):
    equal(f"The width of FeedForward(dim={dim}, hidden_dim={width}, multiple_of={multiple_of})",
          llama.FeedForward(dim, width, multiple_of, 0.0).w1.out_features, expected)


@part("llama.py FeedForward")
def test_feed_forward(llama):
    layer, x = llama.FeedForward(6, 10, 1, 0.25).eval(), 4 * seeded(5, 40, 6)
    gate, up = layer.w1(x), layer.w3(x)
    known = {"w1 and w3 exchanged": F.silu(up) * gate, "GELU, not SiLU": F.gelu(gate) * up,
             "ReLU, not SiLU": gate.relu() * up, "a sigmoid, not SiLU": gate.sigmoid() * up,
             "no product with w3 x": F.silu(gate), "a product without SiLU": gate * up}
    compare("FeedForward.SwiGLU", layer.SwiGLU(x), gate / (1 + torch.exp(-gate)) * up, known=known)
    whole = layer(x)
    compare("FeedForward, in evaluation", whole,
            reference.feed_forward(arrays(layer, "f"), "f", array(x)),
            known={name: layer.w2(value) for name, value in known.items()})
    check_dropout("FeedForward", layer.train()(x), whole, 0.25)


@part("llama.py LlamaLayer")
def test_layer_adds_attention_and_feed_forward_to_their_inputs(llama, monkeypatch):
    """With simple functions for the two norms, attention and feed-forward."""
    for name in ("Attention", "FeedForward", "LayerNorm"):
        monkeypatch.setattr(llama, name, Stub)
    layer, x = llama.LlamaLayer(1, config()), seeded(2, 5, 24).double()
    parts = {"attention_norm": torch.sin, "attention": lambda x: x.roll(1, 1) ** 2,
             "ffn_norm": torch.cos, "feed_forward": lambda x: torch.exp(-x)}
    for name, compute in parts.items():
        setattr(layer, name, Stub(compute=compute))
    norm, mix, norm2, feed = parts.values()

    def second(h: torch.Tensor) -> torch.Tensor:
        return h + feed(norm2(h))

    h, after = x + mix(norm(x)), norm(x + mix(x))
    compare("LlamaLayer", layer(x), second(h), known={
        "norms after the additions, not before": norm2(after + feed(after)),
        "a residual from the normed input": second(norm(x) + mix(norm(x))),
        "a second residual from x": x + feed(norm2(h)),
        "attention_norm in both places": h + feed(norm(h)),
        "a missing attention_norm": second(x + mix(x)), "a missing ffn_norm": h + feed(h)})


LAYERS = [torch.exp, lambda x: x.roll(1, 1) + x ** 2]


@pytest.fixture
def model(llama, monkeypatch) -> nn.Module:
    """The student's Llama, with stubs for its layers and its last norm, which is torch.sin."""
    monkeypatch.setattr(llama, "LlamaLayer", lambda layer_id, *_, **__: Stub(
        compute=LAYERS[layer_id]))
    monkeypatch.setattr(llama, "LayerNorm", Stub)
    return llama.Llama(config(dropout=0.25)).eval()


@part("llama.py Llama")
def test_logits_and_hidden_states(model):
    """Logits of the last position alone, or with targets of all."""
    assert model.output.weight is model.tok_embeddings.weight, (
        "Llama: expected output.weight and tok_embeddings.weight to be one parameter, found two.")
    nn.init.normal_(model.tok_embeddings.weight)
    ids = torch.arange(10).view(2, 5) * 7 % 61
    table, (first, second) = model.tok_embeddings.weight.detach(), LAYERS
    before = second(first(table[ids]))
    hidden = before.sin()
    known = {"hidden states before the last norm": before,
             "the first layer alone": first(table[ids]).sin(),
             "layers in the opposite order": first(second(table[ids])).sin()}
    for targets, given in ((None, "without targets"), (ids, "with targets")):
        logits, found = model(ids, targets)
        seen = slice(-1 if targets is None else None, None)
        compare(f"Hidden states of Llama.forward {given}", found, hidden, known=known)
        compare(f"Logits of Llama.forward {given}", logits, hidden[:, seen] @ table.T, known={
            "logits of the first position": hidden[:, :1] @ table.T,
            "logits of hidden states before the last norm": before[:, seen] @ table.T})


@part("llama.py Llama")
def test_embeddings_are_dropped_in_training(model):
    model.layers[0], model.layers[1], model.norm = (Stub(compute=lambda x: x) for _ in range(3))
    ids = torch.arange(60).view(3, 20)
    check_dropout("The embeddings of Llama", model.train()(ids)[1], model.tok_embeddings(ids), 0.25)


@part("llama.py Llama")
def test_fresh_weights(llama):
    model = llama.Llama(config(dim=48))
    for name in reference.shapes(SMALL):
        narrow = name.endswith(("w3.weight", "compute_output.weight"))
        wanted, found = 0.02 / 2 if narrow else 0.02, model.get_parameter(name).std().item()
        assert "norm" in name or abs(found / wanted - 1) < 0.15, (
            f"A fresh Llama of 2 layers: expected {name} with a standard deviation of {wanted:.3f}"
            f", found {found:.3f}.")


@part("llama.py load_pretrained")
@pytest.mark.parametrize("prefix", ["", "_orig_mod."], ids=["plain", "compiled"])
def test_every_tensor_of_a_checkpoint_is_loaded(llama, tmp_path, weights, prefix):
    """In training or evaluation mode. The biases, which no checkpoint has, stay 0."""
    args = SMALL | {"hidden_dim": 70, "max_seq_len": 17}
    path = reference.save_checkpoint(tmp_path / "small.pt", weights, args, prefix=prefix)
    model = llama.load_pretrained(str(path))
    for name, value in args.items():
        equal(f"{name} after load_pretrained", getattr(model.params, name), value)
    parameters = dict(model.named_parameters())
    for name, shape in reference.shapes(SMALL, biases=True).items():
        assert name in parameters, f"load_pretrained: expected a parameter {name}, found none."
        compare(f"{name} after load_pretrained, {prefix}{name} in the file",
                parameters[name], weights.get(name, np.zeros(shape)), atol=0, rtol=0)


def speak(model: nn.Module, logits_of) -> list[torch.Tensor]:
    """Give a model a stub for forward; the result is a list of the tokens that it gets to see."""
    seen = []

    def forward(tokens, targets=None, *args, **kwargs):
        seen.append(tokens)
        logits = logits_of(tokens)[:, None]
        return logits if targets is None else logits.expand(-1, tokens.shape[1], -1), None

    model.forward = forward
    return seen


def constant(model: nn.Module, *logits: float) -> np.ndarray:
    """Give the first tokens these logits, whatever the text; the others have no probability."""
    every = torch.tensor([*logits, *[-200.0] * (61 - len(logits))])
    speak(model, lambda tokens: every.expand(tokens.shape[0], -1))
    return every.numpy()


def sample(model: nn.Module, rows: int, *settings: float) -> torch.Tensor:
    """The token that `generate` adds to each of many rows."""
    return model.generate(torch.zeros(rows, 1, dtype=torch.long), 1, *settings)[:, 1]


@part("llama.py generate")
@pytest.mark.parametrize("length", [3, 20])
def test_greedy_continuation_of_each_row(model, length):
    """Of every position the successor; each step sees the last max_seq_len tokens."""
    seen = speak(model, lambda tokens: F.one_hot((tokens[:, -1] + 1) % 61, 61).float())
    prompt = torch.arange(2 * length).view(2, length) % 61
    found = model.generate(prompt, 5, temperature=0.0)
    expected = torch.cat([prompt, (prompt[:, -1:] + torch.arange(1, 6)) % 61], dim=1)
    for step, tokens in enumerate(seen):
        so_far = expected[:, :length + step]
        compare(f"The tokens that Llama.generate gives to forward in step {step + 1} "
                "(max_seq_len is 16)", tokens, so_far[:, -16:], known={
                    "the first max_seq_len tokens, not the last": so_far[:, :16],
                    "all tokens": so_far})
    compare("Prompt and continuation of Llama.generate at temperature 0", found, expected)


@part("llama.py generate")
def test_temperature_0_takes_the_most_likely_token(model):
    constant(model, 0.0, 0.2, 0.1)
    compare("The tokens at temperature 0, of logits [0, 0.2, 0.1]", sample(model, 60, 0.0),
            np.ones(60))


@part("llama.py generate")
@pytest.mark.parametrize("temperature, epsilon", [(1.0, 0.05), (0.5, 0.05), (2.0, 0.1), (1.0, 0.0)])
def test_distribution_of_samples(model, temperature, epsilon):
    logits, rows = [2.0, 1.5, 1.0, 0.0, -0.5, -1.0, -2.0, -6.0], 20_000
    every = constant(model, *logits)
    distribution = partial(reference.next_token_distribution, every)
    right, found = distribution(temperature, epsilon), sample(model, rows, temperature, epsilon)
    kept = reference.softmax(every / temperature) * (right > 0)
    kept[0] += 1 - kept.sum()
    compare(f"Shares of the tokens sampled from softmax({logits} / {temperature}) with epsilon "
            f"{epsilon}", np.bincount(found, minlength=61) / rows, right, atol=0.02, known={
                "no temperature": distribution(1, epsilon),
                "a temperature after the softmax": distribution(1, epsilon * temperature),
                "logits times temperature": distribution(1 / temperature, epsilon),
                "no epsilon": distribution(temperature, 0.0),
                "probabilities that are not renormalized": kept,
                "the most likely token alone": distribution(0, 0)})


@part("llama.py generate")
def test_a_token_of_probability_epsilon_is_kept(model):
    constant(model, 1.0, 1.0, 1.0, 1.0)
    found = sample(model, 200, 1.0, 0.25)
    equal("Tokens of probability 0.25 that are sampled with epsilon 0.25 (those >= epsilon)",
          sorted(set(found.tolist())), [0, 1, 2, 3])


@part("llama.py generate")
def test_no_token_that_reaches_epsilon_is_no_crash(model):
    """A likely one is taken; the assignment does not say which."""
    constant(model, -200.0, 0.0, -200.0, 0.0)
    what = "Llama.generate where no token reaches epsilon: expected one of the likely ones, found"
    try:
        found = {*sample(model, 20, 1.0, 0.9).tolist()}
    except RuntimeError as error:
        raise AssertionError(f"{what} a RuntimeError: {error}.") from None
    assert found <= {1, 3}, f"{what} {min(found - {1, 3})}."
