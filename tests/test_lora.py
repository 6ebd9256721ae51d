"""LoRA: nothing at the start, the paper's formula after, and plain linear layers once merged."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from config import LlamaConfig
from llama import Llama, load_pretrained
from lora import (
    LoRALayer,
    apply_lora,
    count_lora_parameters,
    get_lora_optimizer_params,
    merge_lora_weights,
)

ALL_FOUR = ("compute_query", "compute_key", "compute_value", "compute_output")
IDS = torch.tensor([[1, 5, 9, 60, 2, 2], [1, 7, 3, 3, 3, 3]])


@pytest.fixture
def llama(small_checkpoint) -> Llama:
    return load_pretrained(small_checkpoint)


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


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rank,alpha", [(1, 1.0), (4, 1.0), (3, 16.0), (7, -2.0)])
def test_a_layer_computes_the_formula_of_the_paper_and_its_gradients(rank, alpha, bias):
    torch.manual_seed(0)
    layer = LoRALayer(nn.Linear(6, 5, bias=bias, dtype=torch.float64), rank, alpha)
    learn(layer)
    a, b, w = (p.detach().numpy()
               for p in (layer.lora_A, layer.lora_B, layer.original_layer.weight))
    rng = np.random.default_rng(0)
    x, pull = rng.normal(size=(7, 6)), rng.normal(size=(7, 5))
    expected = x @ w.T + alpha / rank * (x @ a.T) @ b.T
    if bias:
        expected = expected + layer.original_layer.bias.detach().numpy()
    found = layer(torch.tensor(x))
    (found * torch.tensor(pull)).sum().backward()
    for ours, value in [(found.detach(), expected),
                        (layer.lora_A.grad, alpha / rank * (pull @ b).T @ x),
                        (layer.lora_B.grad, alpha / rank * pull.T @ (x @ a.T))]:
        assert_allclose(ours, value, rtol=1e-12, atol=1e-12)
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


def test_an_adapted_model_starts_as_the_base_model(llama):
    expected = [t.clone() for t in llama(IDS, IDS)]
    assert apply_lora(llama, rank=3, alpha=5.0) is llama
    assert all(torch.equal(a, b) for a, b in zip(llama(IDS, IDS), expected))


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


def test_the_optimizer_gets_the_matrices_that_ask_for_a_gradient_and_nothing_else(llama):
    """Not the head, which the course adds itself: what stands twice is stepped twice."""
    model = nn.ModuleDict({"llama": apply_lora(llama), "classifier_head": nn.Linear(24, 5)})
    llama.layers[0].requires_grad_(False)
    layer = llama.layers[1].attention
    assert sorted(map(id, get_lora_optimizer_params(model))) == sorted(
        id(getattr(getattr(layer, name), f"lora_{matrix}")) for name in ALL_FOUR for matrix in "AB")


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


def test_counts_at_the_shape_of_stories42m_are_of_what_asks_for_a_gradient():
    with torch.device("meta"):
        model = nn.ModuleDict({"llama": Llama(LlamaConfig()), "classifier_head": nn.Linear(512, 5)})
    assert count_lora_parameters(model) == (0, 41_698_304 + 2_565, 0.0)
    assert count_lora_parameters(model["llama"].requires_grad_(False)) == (0, 0, 0.0)
    apply_lora(model, rank=4, alpha=1.0)
    lora = 8 * 4 * 4 * (512 + 512)
    assert count_lora_parameters(model) == (
        lora, lora + 2_565, pytest.approx(100 * 131_072 / 133_637, rel=1e-12))
    model["llama"].layers[0].requires_grad_(False)
    assert count_lora_parameters(model["llama"]) == (lora * 7 // 8, lora * 7 // 8, 100.0)
