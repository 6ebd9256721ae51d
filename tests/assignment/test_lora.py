"""lora.py, on linear layers of all kinds of modules."""

import copy

import pytest
import torch
from torch import nn

from .judge import compare, part, seeded

FOUR = ("compute_query", "compute_key", "compute_value", "compute_output")
WRAPPED = {f"layers.{i}.attention.{name}" for i in (0, 1) for name in FOUR}


def stand_in() -> nn.Module:
    """A module with the names of a Llama, and simple contents."""
    def layer() -> nn.ModuleDict:
        attention = nn.ModuleDict({name: nn.Linear(6, 5, bias=name in FOUR[:2]) for name in FOUR})
        return nn.ModuleDict({"attention": attention, "norm": nn.LayerNorm(6),
                              "feed_forward": nn.ModuleDict({"w1": nn.Linear(6, 9)})})
    return nn.ModuleDict({"layers": nn.ModuleList([layer(), layer()]), "output": nn.Linear(6, 3)})


def outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.get_submodule(name)(x) for name in sorted(WRAPPED)], dim=-1)


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def learn(model: nn.Module) -> None:
    """Random LoRA matrices, as if after training."""
    for i, (name, parameter) in enumerate(model.named_parameters()):
        if "lora_" in name:
            parameter.data = seeded(*parameter.shape, seed=i)


@part("lora.py LoRALayer")
def test_matrices_at_the_start(lora):
    layer = lora.LoRALayer(nn.Linear(60, 50), rank=8)
    for name, shape in (("lora_A", (8, 60)), ("lora_B", (50, 8))):
        found = tuple(getattr(layer, name).shape)
        assert found == shape, f"{name} of LoRALayer(Linear(60, 50), rank=8): expected the shape " \
            f"{shape}, found {found}."
    compare("lora_B at the start", layer.lora_B, torch.zeros(50, 8), atol=0)
    assert layer.lora_A.std() > 1e-4, "lora_A at the start: expected random numbers, found " \
        f"{layer.lora_A[0, 0].item():.3g} everywhere."


@part("lora.py LoRALayer")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rank, alpha", [(4, 1.0), (3, 12.0)])
def test_formula_of_the_paper(lora, rank, alpha, bias):
    original = nn.Linear(6, 5, bias=bias)
    layer, x = lora.LoRALayer(original, rank, alpha), seeded(2, 7, 6)
    learn(layer)
    base, update = original(x), x @ layer.lora_A.T @ layer.lora_B.T
    compare(f"LoRALayer of rank {rank} and alpha {alpha}", layer(x), base + alpha / rank * update,
            known={"alpha that is not divided by the rank": base + alpha * update,
                   "an update that is not scaled": base + update,
                   "division by the rank without alpha": base + update / rank,
                   "division by the square root of the rank": base + alpha / rank ** .5 * update,
                   "the original layer alone": base, "the update alone": alpha / rank * update})


@part("lora.py LoRALayer")
def test_matrices_are_trained_and_the_original_layer_is_not(lora):
    layer, x = lora.LoRALayer(nn.Linear(6, 5), 3, 12.0), seeded(2, 6)
    assert (found := trainable(layer)) == {"lora_A", "lora_B"}, (
        f"LoRALayer: expected lora_A and lora_B alone to ask for a gradient, found {found}.")
    learn(layer)
    layer(x).sum().backward()
    compare("The gradient of lora_A", layer.lora_A.grad,
            4 * torch.outer(layer.lora_B.sum(0), x.sum(0)))
    compare("The gradient of lora_B", layer.lora_B.grad, 4 * (x @ layer.lora_A.T).sum(0).repeat(5, 1))


@part("lora.py apply_lora")
def test_the_four_projections_are_wrapped_and_nothing_else_changes(lora):
    model, x = stand_in(), seeded(3, 6)
    before, trained = outputs(model, x), trainable(model)
    adapted = lora.apply_lora(model, rank=3, alpha=6.0)
    assert adapted is model, "apply_lora: expected the same model as result, found another."
    layers = {name: module for name, module in model.named_modules()
              if isinstance(module, lora.LoRALayer)}
    assert layers.keys() == WRAPPED, (
        f"apply_lora: expected {len(WRAPPED)} wrapped layers, found {len(layers)}; "
        f"{sorted(WRAPPED ^ layers.keys())[0]} is "
        f"{'not wrapped' if WRAPPED - layers.keys() else 'wrapped'}.")
    for name, layer in layers.items():
        found = tuple(layer.lora_A.shape), layer.scaling
        assert found == ((3, 6), 2.0), f"apply_lora(rank=3, alpha=6.0): expected lora_A of shape " \
            f"(3, 6) and scaling 2.0 in {name}, found {found[0]} and {found[1]}."
    compare("Outputs of the projections right after apply_lora", outputs(model, x), before)
    frozen = {name for name in trained if name.rpartition(".")[0] in WRAPPED}
    matrices = {f"{name}.lora_{matrix}" for name in WRAPPED for matrix in "AB"}
    wrong = trainable(model) ^ (trained - frozen | matrices)
    assert not wrong, (
        "apply_lora: expected the wrapped layers to be frozen and nothing else, found otherwise: "
        f"{sorted(wrong)[0]}.")


@part("lora.py merge_lora_weights")
def test_merging_gives_linear_layers_with_the_same_outputs(lora):
    model, x = stand_in(), seeded(3, 6)
    base, names = outputs(model, x).detach(), [name for name, _ in model.named_parameters()]
    lora.apply_lora(model, rank=3, alpha=6.0)
    learn(model)
    adapted = outputs(model, x).detach()
    merged = lora.merge_lora_weights(model)
    assert merged is model, "merge_lora_weights: expected the same model as result, found another."
    for name in sorted(WRAPPED):
        found = type(model.get_submodule(name)).__name__
        assert found == "Linear", f"merge_lora_weights: expected a Linear at {name}, found {found}."
    update = adapted - base
    compare("Outputs of the projections after merge_lora_weights", outputs(model, x), adapted,
            atol=1e-4, known={"an update that is left out": base,
                              "an update that is subtracted": base - update,
                              "an update that is not scaled": base + update / 2,
                              "an update that is scaled twice": base + update * 2})
    found = [name for name, _ in model.named_parameters()]
    assert sorted(found) == sorted(names), (
        "merge_lora_weights: expected the parameters of the original model, found "
        f"{sorted(set(found) ^ set(names))[:1]} otherwise.")


@pytest.fixture
def adapted(lora) -> nn.Module:
    """With LoRA, a part of it frozen, and a head that is trained."""
    model = nn.ModuleDict({"llama": stand_in().requires_grad_(False), "head": nn.Linear(6, 5)})
    names = sorted(WRAPPED)
    for name in names:  # without apply_lora, which has its own part
        parent, _, child = name.rpartition(".")
        wrapped = lora.LoRALayer(model["llama"].get_submodule(name), rank=2)
        setattr(model["llama"].get_submodule(parent), child, wrapped)
    model["llama"].get_submodule(names[0]).requires_grad_(False)
    return model


@part("lora.py count_lora_parameters")
def test_parameters_that_ask_for_a_gradient_are_counted(lora, adapted):
    each, head, frozen = 2 * (6 + 5), 35, sum(p.numel() for p in adapted.parameters())
    compare("count_lora_parameters (LoRA, all, percent)", lora.count_lora_parameters(adapted),
            [7 * each, 7 * each + head, 100 * 7 * each / (7 * each + head)], known={
                "all parameters, whether or not they ask for a gradient":
                    [8 * each, frozen, 100 * 8 * each / frozen],
                "frozen parameters in the total": [7 * each, frozen, 100 * 7 * each / frozen],
                "a share, not percent": [7 * each, 7 * each + head, 7 * each / (7 * each + head)],
                "percent of the others": [7 * each, 7 * each + head, 100 * 7 * each / head]})
    compare("count_lora_parameters of a model that is frozen",
            lora.count_lora_parameters(copy.deepcopy(adapted).requires_grad_(False)), [0, 0, 0])


@part("lora.py get_lora_optimizer_params")
def test_the_optimizer_gets_the_matrices_that_ask_for_a_gradient(lora, adapted):
    """And not the head, which the training program adds itself: else it is stepped twice."""
    name_of = {id(parameter): name for name, parameter in adapted.named_parameters()}
    found = [name_of[id(p)] for p in lora.get_lora_optimizer_params(adapted)]
    expected = [name for name in name_of.values()
                if "lora_" in name and adapted.get_parameter(name).requires_grad]
    assert sorted(found) == sorted(expected), (
        f"get_lora_optimizer_params: expected the {len(expected)} LoRA matrices that ask for a "
        f"gradient, found {len(found)} parameters; "
        f"{[*{*found} ^ {*expected}, 'one that stands there twice'][0]} is the difference.")
