"""LoRA: nothing at the start, the paper's formula after, and plain linear layers once merged."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from classifier import LlamaEmbeddingClassifier
from config import LlamaConfig
from conftest import SMALL
from llama import Llama, load_pretrained
from lora import (
    LoRALayer,
    apply_lora,
    count_lora_parameters,
    get_lora_optimizer_params,
    merge_lora_weights,
)
from optimizer import AdamW

ALL_FOUR = ("compute_query", "compute_key", "compute_value", "compute_output")
IDS = torch.tensor([[1, 5, 9, 60, 2, 2], [1, 7, 3, 3, 3, 3]])
LABELS = torch.tensor([0, 2])


@pytest.fixture
def llama(small_checkpoint) -> Llama:
    return load_pretrained(small_checkpoint)


@pytest.fixture
def classifier(small_checkpoint) -> LlamaEmbeddingClassifier:
    """Adapted as the course does it, in its training loop."""
    torch.manual_seed(0)
    model = LlamaEmbeddingClassifier(SimpleNamespace(
        num_labels=3, hidden_dropout_prob=0.0, option="lora",
        pretrained_model_path=small_checkpoint))
    model.llama.requires_grad_(False)
    model.llama = apply_lora(model.llama, rank=4, alpha=1.0)
    return model


def learn(model: nn.Module) -> None:
    """Random LoRA matrices, as if after training."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)


def adapted(model: nn.Module) -> set[str]:
    """Names of the wrapped modules."""
    return {name for name, module in model.named_modules() if isinstance(module, LoRALayer)}


def asking(model: nn.Module) -> set[str]:
    """Names of the parameters that ask for a gradient."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


# One layer


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
    assert (layer.rank, layer.alpha, layer.scaling) == (rank, alpha, alpha / rank)
    assert asking(layer) == {"lora_A", "lora_B"}


def test_matrices_start_as_in_the_paper():
    torch.manual_seed(0)
    layer = LoRALayer(nn.Linear(1000, 300), rank=40)
    assert not layer.lora_B.any()
    a = layer.lora_A.detach().double()  # 40,000 draws: standard errors 1e-4 and 0.7e-4
    assert abs(a.mean()) < 5e-4 and abs(a.std() - 0.02) < 4e-4
    within = (a.abs() < 0.02).double().mean()  # 68.27% of a normal distribution, not of another
    assert abs(within - 0.6827) < 0.012


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(rank):
    with pytest.raises(ValueError, match="rank"):
        LoRALayer(nn.Linear(6, 5), rank)


# A whole model


def test_an_adapted_model_starts_as_the_base_model(llama):
    expected = [t.clone() for t in llama(IDS, IDS)]
    assert apply_lora(llama, rank=3, alpha=5.0) is llama
    assert all(torch.equal(a, b) for a, b in zip(llama(IDS, IDS), expected))


@pytest.mark.parametrize("chosen", [None, ["compute_query", "compute_value"], ("compute_output",)])
def test_all_four_projections_of_every_layer_are_adapted_or_a_chosen_subset(llama, chosen):
    apply_lora(llama, **{"projections": chosen} if chosen else {})
    assert adapted(llama) == {f"layers.{i}.attention.{name}" for i in range(SMALL["n_layers"])
                              for name in chosen or ALL_FOUR}


def test_linear_layers_of_any_module_are_adapted_by_their_qualified_name():
    model = nn.ModuleDict({
        "compute_query": nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)),
        "decoder": nn.ModuleDict({"my_compute_value": nn.Linear(3, 4), "query": nn.Linear(3, 3)}),
        "compute_key": nn.Embedding(3, 3)})
    before = asking(model)
    apply_lora(model)
    assert adapted(model) == {"compute_query.0", "decoder.my_compute_value"}
    frozen = {f"{name}.{part}" for name in adapted(model) for part in ("weight", "bias")}
    assert asking(model) == before - frozen | {
        f"{name}.lora_{matrix}" for name in adapted(model) for matrix in "AB"}


def test_adapting_twice_is_refused(llama):
    apply_lora(llama, projections=["compute_query"])
    with pytest.raises(ValueError, match="already"):
        apply_lora(llama, projections=["compute_value"])
    assert {name.split(".")[-1] for name in adapted(llama)} == {"compute_query"}


# Training


@pytest.mark.parametrize("trained", [False, True])
def test_only_lora_and_the_head_get_gradients(classifier, trained):
    """At the start A gets no signal yet: its gradient goes through B, which is zero."""
    if trained:
        learn(classifier)
    nn.functional.nll_loss(classifier.train()(IDS), LABELS).backward()
    for name, parameter in classifier.named_parameters():
        own = "lora_" in name or name.startswith("classifier_head.")
        assert (parameter.grad is not None) == parameter.requires_grad == own, name
        assert not own or parameter.grad.any() == (trained or "lora_A" not in name), name


def test_a_head_that_the_course_adds_is_stepped_once(classifier):
    """Adam's first step moves every parameter that has a gradient by the learning rate."""
    classifier.llama.layers[0].requires_grad_(False)  # frozen matrices are not for the optimizer
    lora = get_lora_optimizer_params(classifier)
    assert sorted(map(id, lora)) == sorted(
        id(p) for name, p in classifier.named_parameters() if "lora_" in name and p.requires_grad)
    assert len(lora) == 2 * 4 * (SMALL["n_layers"] - 1)
    head = list(classifier.classifier_head.parameters())
    before = [p.detach().clone() for p in head]
    optimizer = AdamW(lora + head, lr=1e-3, eps=0.0)
    nn.functional.nll_loss(classifier(IDS), LABELS).backward()
    optimizer.step()
    for old, new in zip(before, head):
        assert_allclose((new - old).abs().detach(), 1e-3, rtol=1e-3)


# Merging


@pytest.mark.parametrize("projections", [ALL_FOUR, ("compute_key",)])
def test_merging_undoes_adapting_but_keeps_what_was_learned(llama, projections):
    """The same modules, tensors and wishes for a gradient as before, the outputs of the adapted."""
    llama.double().layers[0].attention.compute_key.requires_grad_(False)
    llama.norm.requires_grad_(False)
    before = copy.deepcopy(llama)
    apply_lora(llama, rank=3, alpha=2.0, projections=projections)
    learn(llama)
    expected = llama(IDS)
    products = {f"{name}.weight": (2 / 3 * layer.lora_B @ layer.lora_A).detach()
                for name, layer in llama.named_modules() if isinstance(layer, LoRALayer)}
    assert merge_lora_weights(llama) is llama
    for actual, wanted in zip(llama(IDS), expected):
        assert_allclose(actual.detach(), wanted.detach(), rtol=1e-10, atol=1e-10)
    assert asking(llama) == asking(before)
    assert [(name, type(module)) for name, module in llama.named_modules()] == [
        (name, type(module)) for name, module in before.named_modules()]
    for name, tensor in before.state_dict().items():
        product = products.get(name, torch.zeros(()))
        assert_allclose(llama.state_dict()[name], tensor + product, rtol=1e-12, atol=1e-12)


# Counting


def test_counts_at_the_shape_of_stories42m():
    with torch.device("meta"):
        model = nn.ModuleDict({"llama": Llama(LlamaConfig()), "classifier_head": nn.Linear(512, 5)})
    model["llama"].requires_grad_(False)
    apply_lora(model, rank=4, alpha=1.0)
    lora, total, percent = count_lora_parameters(model)
    assert lora == 8 * 4 * 4 * (512 + 512) == 131_072
    assert total == lora + 5 * 512 + 5
    assert percent == pytest.approx(100 * 131_072 / 133_637, rel=1e-12)


def test_counts_are_of_what_asks_for_a_gradient(llama):
    total = sum(p.numel() for p in llama.parameters())
    assert count_lora_parameters(llama) == (0, total, 0.0)
    assert count_lora_parameters(llama.requires_grad_(False)) == (0, 0, 0.0)
    apply_lora(llama, rank=3, projections=["compute_query", "compute_key"])
    kv_dim = SMALL["dim"] // SMALL["n_heads"] * SMALL["n_kv_heads"]
    expected = SMALL["n_layers"] * 3 * (2 * SMALL["dim"] + SMALL["dim"] + kv_dim)
    assert count_lora_parameters(llama) == (expected, expected, 100.0)
