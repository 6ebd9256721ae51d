"""What only our five files have; what the assignment demands of them is in tests/assignment/."""

import copy
import math
from argparse import Namespace
from functools import partial

import numpy as np
import pytest
import sentencepiece
import torch
from torch import nn
from torch.nn import functional as F

import classifier
import llama
import lora
import reference
import run_llama
from assignment import test_llama as demanded
from assignment.judge import seeded
from assignment.test_classifier import NAMES, StubTokenizer
from assignment.test_optimizer import SHAPES, adamw, gradients
from config import LlamaConfig
from conftest import SMALL
from llama import Llama, load_pretrained
from optimizer import AdamW
from rope import apply_rotary_emb, precompute_freqs_cis, reshape_for_broadcast


def agree(found, expected, **tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.detach(), theirs, **tolerance)


# Causal masks, the last position alone and fused kernels


@pytest.mark.parametrize("fused_from", [0, 10**9], ids=["fused", "written out"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("n_kv_heads, seqlen", [(2, 5), (1, 1), (4, 21)])
def test_logits_hidden_states_and_gradients(
        monkeypatch, tmp_path, n_kv_heads, seqlen, last_only, causal, fused_from):
    """Also of texts beyond max_seq_len; slopes against central differences of the reference."""
    monkeypatch.setattr(llama, "FUSED_FROM", fused_from)
    args, rng = SMALL | {"causal": causal, "n_kv_heads": n_kv_heads}, np.random.default_rng(4)
    weights = {name: array.astype(np.float64)
               for name, array in reference.seeded_weights(args, 3, biases=True).items()}
    tokens, seen = rng.integers(0, 61, (2, seqlen)), slice(-1 if last_only else None, None)

    def results(changed: reference.Weights) -> list[np.ndarray]:
        return [result[:, seen] for result in reference.forward(weights | changed, args, tokens)]

    model = load_pretrained(reference.save_checkpoint(
        tmp_path / "m.pt", weights, args | {"dropout": 0.5})).double()
    ids, expected = torch.tensor(tokens), results({})
    found = model(ids, None if last_only else ids, last_only)
    agree(found, expected, atol=1e-6, rtol=1e-5)
    pulls = [rng.standard_normal(result.shape) for result in expected]
    sum((result * torch.tensor(pull)).sum() for result, pull in zip(found, pulls)).backward()
    for name, parameter in list(model.named_parameters())[::1 if seqlen == 5 else 4]:
        direction = rng.standard_normal(parameter.shape)
        up, down = (sum((result * pull).sum() for result, pull in zip(
            results({name: weights[name] + step * direction}), pulls)) for step in (1e-5, -1e-5))
        slope = (parameter.grad.numpy() * direction).sum()
        assert slope == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-5), name


def test_the_fused_kernel_drops_attention_weights_in_training_alone(monkeypatch):
    monkeypatch.setattr(llama, "FUSED_FROM", 0)
    torch.manual_seed(0)
    demanded.test_scores(llama)
    demanded.test_scores_drop_attention_weights_in_training(llama)


def test_tables_made_in_inference_mode_or_by_a_tracer_are_of_no_consequence(small_checkpoint):
    precompute_freqs_cis.cache_clear()
    model, ids = load_pretrained(small_checkpoint), torch.arange(37)[None]
    model.generate(ids[:, :5], 1)
    model(ids[:, :5], ids)[0].sum().backward()
    if hasattr(torch.serialization, "set_crc32_options"):  # PyTorch 2.6
        torch.export.export(model, (ids,))
    for later in (model, load_pretrained(small_checkpoint)):
        assert type(later(ids)[1]) is type(later.generate(ids, 2, 0.0)) is torch.Tensor


# Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32_and_kept(dtype):
    x = seeded(1, 300, 2, 6).to(dtype)
    for function in (llama.LayerNorm(6), lambda x: apply_rotary_emb(x, x, 6, 512)[0]):
        assert torch.equal(function(x), function(x.float()).to(dtype))


def test_layer_norm_of_float64():
    norm, (weight, bias) = llama.LayerNorm(7, 1e-3), seeded(2, 7).double()
    norm.weight.data, norm.bias.data = weight, bias
    x = torch.cat((seeded(2, 3, 7).double() * 5 + 100, torch.full((2, 1, 7), 7.0)), dim=1)
    expected = reference.layer_norm(x.numpy(), weight.numpy(), bias.numpy(), 1e-3)
    agree([norm(x)], [expected], rtol=1e-9, atol=1e-9)


def test_products_stay_float32_where_a_run_prefers_onednn(monkeypatch):
    """Rounding of float32, nothing like bfloat16's."""
    if matmul := getattr(torch.backends.mkldnn, "matmul", None):  # PyTorch 2.9
        monkeypatch.setattr(matmul, "fp32_precision", matmul.fp32_precision)  # until the end
    run_llama.prefer_onednn(512)
    for rows, inner, columns in ((4400, 512, 1376), (10, 16, 3)):
        x, weight = seeded(rows, inner), seeded(columns, inner, seed=1)
        found, expected = F.linear(x, weight), x.double() @ weight.double().T
        assert (found - expected).abs().max() < inner**0.5 * 1e-5


# Published models


def test_published_weights_and_their_story(assets):
    """llama2.c's model of 260K parameters: numbers, and a greedy continuation to the letter."""
    if not (path := assets / "stories260K.pt").is_file():
        pytest.skip(f"no {path}")
    weights, args = reference.read_checkpoint(path)
    tokens = np.random.default_rng(2).integers(0, args["vocab_size"], (2, 150))
    model, ids = load_pretrained(path), torch.tensor(tokens)
    agree(model(ids, ids), reference.forward(weights, args, tokens), atol=2e-4, rtol=1e-3)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(assets / "tok512.model"))
    start = "Once upon a time, there was a little girl"
    ids = model.generate(torch.tensor([[pieces.bos_id()] + pieces.encode(start)]), 60, 0.0)
    assert pieces.decode(ids[0].tolist()).startswith(
        f"{start} named Lily. She loved to play outside in the park. One day, she saw a big, "
        "shiny ball.")


def test_parameters_are_those_of_stories42m_and_lora_adds_a_third_of_a_percent():
    with torch.device("meta"):
        model = Llama(LlamaConfig())
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes == reference.shapes({}, biases=True)
    assert lora.count_lora_parameters(model) == (0, 41_698_304, 0.0)
    lora.apply_lora(model.requires_grad_(False))
    assert lora.count_lora_parameters(model) == (131_072, 131_072, 100.0)


# What is refused


GENERATE = Llama(LlamaConfig(**SMALL)).generate
ONE = torch.zeros(1, 1, dtype=torch.long)
PARAMS = [nn.Parameter(torch.ones(1))]


@pytest.mark.parametrize("named, call", [
    *((f"{value}", partial(LlamaConfig, **{name: value})) for name, value in [
        ("vocab_size", 0), ("dim", 512.0), ("n_heads", 512), ("n_kv_heads", 3),
        ("dropout", math.nan), ("layer_norm_eps", None)]),
    ("prompt", partial(GENERATE, ONE, -1)), ("prompt", partial(GENERATE, ONE[:, :0], 1)),
    ("temperature", partial(GENERATE, ONE, 1, -0.1)),
    ("temperature", partial(GENERATE, ONE, 1, math.inf)),
    ("epsilon", partial(GENERATE, ONE, 1, 1.0, 1.01)),
    ("3 queries and 2 keys", partial(
        apply_rotary_emb, torch.ones(1, 3, 1, 4), torch.ones(1, 2, 1, 4), 4, 8)),
    ("4 label names for 5 labels", partial(
        classifier.LlamaZeroShotClassifier,
        Namespace(num_labels=5, pretrained_model_path="model.pt"), StubTokenizer(), list(NAMES))),
    ("rank", partial(lora.LoRALayer, nn.Linear(6, 5), 0)),
    ("lr", partial(AdamW, [{"params": PARAMS, "lr": -1.0}])),
    *((name, partial(AdamW, PARAMS, **{name: value})) for name, value in [
        ("eps", math.inf), ("betas", (0.9, 1.0)), ("weight_decay", math.nan),
        ("max_grad_norm", 0.0)])])
def test_arguments_out_of_range_are_refused_by_name(named, call):
    with pytest.raises(ValueError, match=named) as error:
        call()
    assert "\n" not in str(error.value)


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="dense"):
        AdamW(embedding.parameters()).step()


def test_a_table_broadcasts_over_batch_and_heads_if_positions_and_width_fit():
    table = torch.arange(6.0).reshape(3, 2)
    for shape, expected in (((5, 3, 4, 2), (1, 3, 1, 2)), ((5, 3, 4, 7, 2), (1, 3, 1, 1, 2))):
        found = reshape_for_broadcast(table, torch.zeros(shape))
        assert torch.equal(found, table.reshape(expected))
    for shape in ((5, 2, 4, 2), (5, 3, 4, 3)):
        with pytest.raises(AssertionError):
            reshape_for_broadcast(table, torch.zeros(shape))


# Readings that we have chosen


@pytest.mark.parametrize("temperature, epsilon", [(1.0, 0.3), (1e308, 0.3), (1e-320, 0.05)])
def test_the_most_likely_token_is_taken_in_rows_where_no_other_reaches_epsilon(
        temperature, epsilon):
    """And in no other row: at temperature 1, two tokens of the second one do."""
    torch.manual_seed(9)
    logits = torch.tensor([[0.0, 0.1, 0.0, 0.0], [3.0, 0.0, 3.0, 0.0]]).repeat(1000, 1)
    fallen_back, drawn = llama.choose_token(logits, temperature, epsilon).view(1000, 2).T
    assert (fallen_back == 1).all()
    if temperature == 1:
        assert set(drawn.tolist()) == {0, 2}
        assert abs((drawn == 0).float().mean() - 0.5) < 5 * 0.5 / math.sqrt(1000)


@pytest.mark.parametrize("trained", [True, False])
def test_an_option_without_a_meaning_leaves_the_llama_as_it_is(monkeypatch, trained):
    monkeypatch.setattr(classifier, "load_pretrained",
                        lambda path: Llama(LlamaConfig(**SMALL)).requires_grad_(trained))
    model = classifier.LlamaEmbeddingClassifier(Namespace(
        num_labels=5, pretrained_model_path="m.pt", hidden_dropout_prob=0.3, option="lora"))
    assert {p.requires_grad for p in model.llama.parameters()} == {trained}


# AdamW in float64, and its groups


@pytest.mark.parametrize("settings", [
    {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-2}, {"weight_decay": 0.3, "lr": 0.05},
    {"correct_bias": False, "weight_decay": 0.01}, {"max_grad_norm": 0.5}, {"lr": 0.0},
    {"betas": (0.0, 0.0), "eps": 0.1}], ids=str)
@pytest.mark.parametrize("groups", [False, True])
def test_adamw_is_the_specification_to_the_last_digits(settings, groups):
    """Decay of the new value, epsilon of the "efficient" form; for all or for a group alone."""
    params, grads = [nn.Parameter(seeded(*shape).double()) for shape in SHAPES], gradients(50)
    grads[20][0] = None  # sits a step out
    first, second = starts = [p.detach().numpy().copy() for p in params]
    optimizer, expected = AdamW(params, **settings), adamw(starts, grads, **settings)
    if groups:
        expected = [*adamw([first], [step[:1] for step in grads], lr=0.02),
                    *adamw([second], [step[1:] for step in grads], **{"lr": 0.02} | settings)]
        optimizer = AdamW([{"params": params[:1]}, {"params": params[1:], **settings}], lr=0.02)
    for step in grads:
        for p, grad in zip(params, step, strict=True):
            p.grad = None if grad is None else torch.tensor(grad)
        optimizer.step()
    agree(params, expected, rtol=1e-12, atol=1e-14)


def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned():
    p = nn.Parameter(torch.tensor([2.0]))

    def closure() -> torch.Tensor:
        loss = (3 * p).sum()
        loss.backward()
        return loss

    assert AdamW([p], lr=0.01).step(closure).item() == 6.0 and p.item() == pytest.approx(1.99)


# LoRA


def test_linear_layers_are_adapted_by_their_qualified_name():
    model = nn.ModuleDict({
        "compute_query": nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)),
        "decoder": nn.ModuleDict({"my_compute_value": nn.Linear(3, 4), "query": nn.Linear(3, 3)}),
        "compute_key": nn.Embedding(3, 3)})
    layers = {name for name, module in lora.apply_lora(model).named_modules()
              if isinstance(module, lora.LoRALayer)}
    assert layers == {"compute_query.0", "decoder.my_compute_value"}


@pytest.mark.parametrize("projections", [lora.PROJECTIONS, ("compute_key",)])
def test_merging_undoes_adapting_but_keeps_what_was_learned(small_checkpoint, projections):
    """The same tensors and wishes for a gradient as before, the outputs of the adapted model."""
    model, ids = load_pretrained(small_checkpoint).double(), torch.tensor([[1, 5, 9, 60, 2, 2]])
    for frozen in (model.layers[0].attention.compute_key, model.norm):
        frozen.requires_grad_(False)
    before = copy.deepcopy(model)
    lora.apply_lora(model, rank=3, alpha=2.0, projections=projections)
    with pytest.raises(ValueError, match="already"):
        lora.apply_lora(model)
    for parameter in lora.get_lora_optimizer_params(model):
        nn.init.normal_(parameter, std=0.3)
    expected = model(ids, ids)
    lora.merge_lora_weights(model)
    agree(model(ids, ids), [e.detach() for e in expected], rtol=1e-10, atol=1e-10)
    described, wanted = ([(name, p.requires_grad, p.dtype) for name, p in m.named_parameters()]
                         for m in (model, before))
    assert described == wanted
    changed = {name for name, tensor in before.state_dict().items()
               if not torch.equal(tensor, model.state_dict()[name])}
    assert changed == {f"layers.{i}.attention.{projection}.weight"
                       for i in (0, 1) for projection in projections}
