"""LoRA: nothing at the start, the paper's formula after, and plain linear layers once merged."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

import reference
from classifier import LlamaEmbeddingClassifier
from config import LlamaConfig
from conftest import SMALL
from llama import Llama, load_pretrained
from lora import (
    PROJECTIONS,
    LoRALayer,
    apply_lora,
    count_lora_parameters,
    get_lora_optimizer_params,
    merge_lora_weights,
)

ALL_FOUR = {"compute_query", "compute_key", "compute_value", "compute_output"}
IDS = torch.tensor([[1, 5, 9, 60, 2, 2], [1, 7, 3, 3, 3, 3]])


@pytest.fixture
def llama(small_checkpoint) -> Llama:
    return load_pretrained(small_checkpoint)


@pytest.fixture
def classifier(llama) -> LlamaEmbeddingClassifier:
    torch.manual_seed(0)
    config = SimpleNamespace(num_labels=3, hidden_dropout_prob=0.0, option="lora")
    return LlamaEmbeddingClassifier(config, llama)


def learn(model: nn.Module, seed: int = 0) -> None:
    """Random LoRA matrices, as if after training."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)


def adapted(model: nn.Module) -> set[str]:
    """Names of the wrapped modules."""
    return {name for name, module in model.named_modules() if isinstance(module, LoRALayer)}


# One layer


def test_a_new_layer_gives_the_output_of_the_original_one():
    linear, x = nn.Linear(6, 4), torch.randn(2, 5, 6)
    expected = linear(x)
    assert torch.equal(LoRALayer(linear, rank=2, alpha=8.0)(x), expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rank,alpha", [(1, 1.0), (4, 1.0), (3, 16.0), (7, -2.0)])
def test_a_layer_computes_the_formula_of_the_paper(rank, alpha, bias):
    torch.manual_seed(0)
    layer = LoRALayer(nn.Linear(6, 5, bias=bias, dtype=torch.float64), rank, alpha)
    learn(layer)
    a, b, w = (p.detach().numpy()
               for p in (layer.lora_A, layer.lora_B, layer.original_layer.weight))
    x = np.random.default_rng(0).normal(size=(2, 3, 6))
    expected = x @ w.T + alpha / rank * (x @ a.T) @ b.T
    if bias:
        expected = expected + layer.original_layer.bias.detach().numpy()
    assert_allclose(layer(torch.tensor(x)).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_matrices_have_the_shapes_and_the_start_of_the_paper():
    torch.manual_seed(0)
    linear = nn.Linear(1000, 300)
    layer = LoRALayer(linear, rank=40)
    assert layer.original_layer is linear
    assert layer.lora_A.shape == (40, 1000) and layer.lora_B.shape == (300, 40)
    assert not layer.lora_B.any()
    a = layer.lora_A.detach().double()  # 40,000 draws: standard errors 1e-4 and 0.7e-4
    assert abs(a.mean()) < 5e-4 and abs(a.std() - 0.02) < 4e-4
    within = (a.abs() < 0.02).double().mean()  # 68.27% of a normal distribution, not of another
    assert abs(within - 0.6827) < 0.012


def test_the_defaults_are_rank_4_and_alpha_1():
    layer = LoRALayer(nn.Linear(8, 8))
    assert layer.lora_A.shape[0] == 4 and layer.scaling == 0.25


def test_the_original_layer_is_frozen_and_the_matrices_are_not():
    layer = LoRALayer(nn.Linear(6, 5))
    trained = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert trained == {"lora_A", "lora_B"}


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(rank, llama):
    with pytest.raises(ValueError, match="rank"):
        LoRALayer(nn.Linear(6, 5), rank)
    with pytest.raises(ValueError, match="rank"):
        apply_lora(llama, rank)


# A whole model


def test_an_adapted_model_starts_as_the_base_model(llama):
    expected = [t.clone() for t in llama(IDS, IDS)]
    assert apply_lora(llama, rank=3, alpha=5.0) is llama
    assert all(torch.equal(a, b) for a, b in zip(llama(IDS, IDS), expected))


def test_an_adapted_model_is_the_model_of_the_adapted_weights(llama, small_weights):
    # W0 + (alpha / rank) B A in every projection of the reference, in float64.
    apply_lora(llama, rank=3, alpha=2.0)
    learn(llama)
    lora = {name: p.detach().double().numpy() for name, p in llama.named_parameters()
            if "lora_" in name}
    weights = dict(small_weights)
    for name in adapted(llama):
        weights[f"{name}.weight"] = (
            weights[f"{name}.weight"] + 2 / 3 * lora[f"{name}.lora_B"] @ lora[f"{name}.lora_A"])
    for actual, expected in zip(llama(IDS, IDS), reference.forward(weights, SMALL, IDS)):
        assert_allclose(actual.detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_all_four_projections_of_every_layer_are_adapted_by_default(llama):
    apply_lora(llama)
    assert adapted(llama) == {f"layers.{i}.attention.{name}" for i in range(SMALL["n_layers"])
                              for name in ALL_FOUR}
    assert set(PROJECTIONS) == ALL_FOUR


@pytest.mark.parametrize("chosen", [["compute_query", "compute_value"], ("compute_output",)])
def test_a_chosen_subset_of_projections_is_adapted(llama, chosen):
    apply_lora(llama, projections=chosen)
    assert adapted(llama) == {f"layers.{i}.attention.{name}" for i in range(SMALL["n_layers"])
                              for name in chosen}


def test_only_lora_and_the_head_get_gradients(classifier):
    apply_lora(classifier)
    learn(classifier)
    classifier.train()
    nn.functional.nll_loss(classifier(IDS), torch.tensor([0, 2])).backward()
    for name, parameter in classifier.named_parameters():
        own = "lora_" in name or name.startswith("classifier_head.")
        assert (parameter.grad is not None) == parameter.requires_grad == own, name
        assert not own or parameter.grad.any(), name


def test_at_the_start_only_the_second_matrix_gets_a_signal(classifier):
    # The gradient of A goes through B, which is zero: the first step moves B and the head.
    apply_lora(classifier)
    nn.functional.nll_loss(classifier(IDS), torch.tensor([0, 2])).backward()
    for name, parameter in classifier.named_parameters():
        assert "lora_A" not in name or not parameter.grad.any()
        assert "lora_B" not in name or parameter.grad.any()


def test_the_optimizer_gets_the_matrices_and_the_head(classifier):
    apply_lora(classifier)
    expected = {id(p) for name, p in classifier.named_parameters()
                if "lora_" in name or "classifier_head" in name}
    given = get_lora_optimizer_params(classifier)
    assert len(given) == len(expected) == 2 * 4 * SMALL["n_layers"] + 2
    assert {id(p) for p in given} == expected


# Merging


@pytest.mark.parametrize("projections", [PROJECTIONS, ("compute_key",)])
def test_merging_keeps_the_outputs_and_leaves_plain_linear_layers(classifier, projections):
    before = {name: type(module) for name, module in classifier.named_modules()}
    tensors = {name: tensor.shape for name, tensor in classifier.state_dict().items()}
    apply_lora(classifier, rank=3, alpha=2.0, projections=projections)
    learn(classifier)
    expected = classifier(IDS)
    assert merge_lora_weights(classifier) is classifier
    assert_allclose(classifier(IDS).detach(), expected.detach(), rtol=0, atol=1e-5)
    assert {name: type(module) for name, module in classifier.named_modules()} == before
    assert {name: t.shape for name, t in classifier.state_dict().items()} == tensors


def test_merging_adds_the_scaled_product_to_the_weight():
    model = nn.ModuleDict({"only": LoRALayer(nn.Linear(6, 5, dtype=torch.float64), 2, alpha=3.0)})
    layer = model["only"]
    learn(layer)
    expected = layer.original_layer.weight.detach().numpy() + 1.5 * (
        layer.lora_B.detach().numpy() @ layer.lora_A.detach().numpy())
    merge_lora_weights(model)
    assert type(model["only"]) is nn.Linear
    assert_allclose(model["only"].weight.detach().numpy(), expected, rtol=1e-12)


def test_merging_without_lora_changes_nothing(llama):
    expected = {name: tensor.clone() for name, tensor in llama.state_dict().items()}
    merge_lora_weights(llama)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in llama.state_dict().items())


def test_a_merged_model_can_be_adapted_again(llama):
    apply_lora(llama)
    learn(llama)
    expected = llama(IDS)[0]
    apply_lora(merge_lora_weights(llama), rank=2)
    assert_allclose(llama(IDS)[0].detach(), expected.detach(), rtol=0, atol=1e-4)


# Counting


def test_counts_at_the_shape_of_stories42m():
    with torch.device("meta"):
        config = SimpleNamespace(num_labels=5, hidden_dropout_prob=0.3, option="lora")
        model = LlamaEmbeddingClassifier(config, Llama(LlamaConfig()))
        apply_lora(model, rank=4, alpha=1.0)
    lora, trainable, percent = count_lora_parameters(model)
    assert lora == 8 * 4 * 4 * (512 + 512) == 131_072
    assert trainable == lora + 5 * 512 + 5
    assert percent == pytest.approx(100 * lora / (41_698_304 + trainable), rel=1e-12)
    assert f"{percent:.2f}" == "0.31"


def test_counts_of_narrow_keys_and_of_a_subset(llama):
    apply_lora(llama, rank=3, projections=["compute_query", "compute_key"])
    kv_dim = SMALL["dim"] // SMALL["n_heads"] * SMALL["n_kv_heads"]
    expected = SMALL["n_layers"] * 3 * (2 * SMALL["dim"] + SMALL["dim"] + kv_dim)
    assert count_lora_parameters(llama)[:2] == (expected, expected)


def test_without_lora_the_count_is_zero(llama):
    total = sum(p.numel() for p in llama.parameters())
    assert count_lora_parameters(llama) == (0, total, 0.0)


# Refusals


@pytest.mark.parametrize("projections", [["compute_query", "w1"], ["query"], []])
def test_unknown_projections_are_refused(llama, projections):
    with pytest.raises(ValueError, match="projections"):
        apply_lora(llama, projections=projections)
    assert not adapted(llama)


def test_adapting_twice_is_refused(llama):
    apply_lora(llama, projections=["compute_query"])
    with pytest.raises(ValueError, match="already"):
        apply_lora(llama, projections=["compute_value"])
    assert {name.split(".")[-1] for name in adapted(llama)} == {"compute_query"}


def test_a_model_without_attention_is_refused():
    with pytest.raises(ValueError, match="no attention"):
        apply_lora(nn.Sequential(nn.Linear(3, 3)))


@pytest.mark.parametrize("bad", [{"rank": 0}, {"projections": ["w1"]}], ids=str)
def test_a_refused_model_stays_as_it_was(llama, bad):
    with pytest.raises(ValueError):
        apply_lora(llama, **bad)
    assert not adapted(llama) and all(p.requires_grad for p in llama.parameters())
