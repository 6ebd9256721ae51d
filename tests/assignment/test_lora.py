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
    model = stand_in()
    originals = {name: model.get_submodule(name) for name in WRAPPED}
    others = {name for name in trainable(model) if name.rpartition(".")[0] not in WRAPPED}
    adapted = lora.apply_lora(model, rank=3, alpha=6.0)
    assert adapted is model, "apply_lora: expected the same model as result, found another."
    layers = {name: module for name, module in model.named_modules()
              if isinstance(module, lora.LoRALayer)}
    assert layers.keys() == WRAPPED, (
        f"apply_lora: expected {len(WRAPPED)} wrapped layers, found {len(layers)}; "
        f"{sorted(WRAPPED ^ layers.keys())[0]} is "
        f"{'not wrapped' if WRAPPED - layers.keys() else 'wrapped'}.")
    for name, layer in layers.items():
        found = layer.rank, layer.alpha
        assert found == (3, 6.0), (
            f"apply_lora(rank=3, alpha=6.0): expected these of {name}, found {found}.")
        compare(f"{name}.original_layer.weight after apply_lora", layer.original_layer.weight,
                originals[name].weight, atol=0)
    changed = others ^ {name for name in trainable(model)
                        if not name.startswith(tuple(f"{wrapped}." for wrapped in WRAPPED))}
    assert not changed, (
        "apply_lora: expected no change outside of the wrapped layers, but whether "
        f"{sorted(changed)[0]} asks for a gradient has changed.")


@part("lora.py merge_lora_weights")
def test_merging_gives_linear_layers_with_the_same_outputs(lora):
    """The same by the formula, whatever `LoRALayer.forward` makes of it."""
    model, x = stand_in(), seeded(3, 6)
    base, names = outputs(model, x).detach(), [name for name, _ in model.named_parameters()]
    lora.apply_lora(model, rank=3, alpha=6.0)
    learn(model)
    layers = [model.get_submodule(name) for name in sorted(WRAPPED)]
    update = torch.cat([x @ layer.lora_A.T @ layer.lora_B.T for layer in layers], -1).detach()
    scale = layers[0].scaling
    merged = lora.merge_lora_weights(model)
    assert merged is model, "merge_lora_weights: expected the same model as result, found another."
    for name in sorted(WRAPPED):
        found = type(model.get_submodule(name)).__name__
        assert found == "Linear", f"merge_lora_weights: expected a Linear at {name}, found {found}."
    compare("Outputs of the projections after merge_lora_weights", outputs(model, x),
            base + scale * update, atol=1e-4, known={
                "an update that is left out": base,
                "an update that is subtracted": base - scale * update,
                "an update that is not scaled": base + update,
                "an update that is scaled twice": base + scale ** 2 * update})
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
