"""lora.py, on linear layers of all kinds of modules."""

import pytest
import torch
from torch import nn

from .judge import compare, equal, part, seeded

FOUR = ("compute_query", "compute_key", "compute_value", "compute_output")
WRAPPED = sorted(f"layers.{i}.attention.{name}" for i in (0, 1) for name in FOUR)


@pytest.fixture
def model() -> nn.Module:
    """A module with the names of a Llama, and simple contents."""
    def layer() -> nn.ModuleDict:
        attention = nn.ModuleDict({name: nn.Linear(6, 5, bias=name in FOUR[:2]) for name in FOUR})
        return nn.ModuleDict({"attention": attention, "norm": nn.LayerNorm(6),
                              "feed_forward": nn.ModuleDict({"w1": nn.Linear(6, 9)})})
    return nn.ModuleDict({"layers": nn.ModuleList([layer(), layer()]), "output": nn.Linear(6, 3)})


def projections(model: nn.Module) -> list[nn.Module]:
    return [model.get_submodule(name) for name in WRAPPED]


def wrap(lora, model: nn.Module) -> None:
    """`apply_lora`, which has its own part, with matrices as if after training."""
    for i, name in enumerate(WRAPPED):
        parent, _, child = name.rpartition(".")
        layer = lora.LoRALayer(model.get_submodule(name), rank=3, alpha=6.0)
        layer.lora_A.data, layer.lora_B.data = seeded(3, 6, seed=i), seeded(5, 3, seed=i)
        setattr(model.get_submodule(parent), child, layer)


def trainable(model: nn.Module) -> list[str]:
    return sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)


@part("lora.py LoRALayer")
@pytest.mark.parametrize("rank, alpha, bias", [(4, 1.0, False), (3, 12.0, True)])
def test_formula_of_the_paper(lora, rank, alpha, bias):
    original, x = nn.Linear(6, 5, bias=bias), seeded(7, 6)
    layer = lora.LoRALayer(original, rank, alpha)
    equal("The shape of lora_A of LoRALayer(Linear(6, 5), rank)", tuple(layer.lora_A.shape),
          (rank, 6))
    compare("lora_B of a LoRALayer at the start", layer.lora_B, torch.zeros(5, rank))
    assert layer.lora_A.std() > 1e-4, "lora_A at the start: expected random numbers, found zeros."
    layer.lora_A.data, layer.lora_B.data = seeded(rank, 6), seeded(5, rank)
    base, update = original(x), x @ layer.lora_A.T @ layer.lora_B.T
    compare(f"LoRALayer of rank {rank} and alpha {alpha}", layer(x), base + alpha / rank * update,
            known={"alpha that is not divided by the rank": base + alpha * update,
                   "an update that is not scaled": base + update,
                   "the original layer alone": base, "the update alone": alpha / rank * update})
    equal("Parameters of LoRALayer with requires_grad", trainable(layer), ["lora_A", "lora_B"])
    layer(x).sum().backward()
    for name, slope in (("lora_A", torch.outer(layer.lora_B.sum(0), x.sum(0))),
                        ("lora_B", (x @ layer.lora_A.T).sum(0).repeat(5, 1))):
        compare(f"The gradient of {name}", getattr(layer, name).grad, alpha / rank * slope)


@part("lora.py apply_lora")
def test_the_four_projections_are_wrapped_and_nothing_else_changes(lora, model):
    def others() -> list[str]:
        return [name for name in trainable(model) if not name.startswith(tuple(WRAPPED))]

    originals, before = projections(model), others()
    assert lora.apply_lora(model, rank=3, alpha=6.0) is model, (
        "apply_lora: expected the same model as result, found another.")
    equal("The layers that apply_lora wraps", sorted(
        name for name, module in model.named_modules() if isinstance(module, lora.LoRALayer)),
        WRAPPED)
    for name, layer, original in zip(WRAPPED, projections(model), originals):
        equal(f"rank and alpha of {name} after apply_lora", (layer.rank, layer.alpha), (3, 6.0))
        compare(f"{name}.original_layer.weight after apply_lora", layer.original_layer.weight,
                original.weight, atol=0)
    equal("Parameters with requires_grad outside of the wrapped layers", others(), before)


@part("lora.py merge_lora_weights")
def test_merging_gives_linear_layers_with_the_same_outputs(lora, model):
    """The same by the formula, whatever `LoRALayer.forward` makes of it."""
    def outputs(projection=lambda layer: layer(x)) -> torch.Tensor:
        return torch.cat([projection(layer) for layer in projections(model)], dim=-1).detach()

    x = seeded(3, 6)
    base = outputs()
    wrap(lora, model)
    scale = projections(model)[0].scaling
    update = outputs(lambda layer: x @ layer.lora_A.T @ layer.lora_B.T)
    assert lora.merge_lora_weights(model) is model, (
        "merge_lora_weights: expected the same model as result, found another.")
    for name, layer in zip(WRAPPED, projections(model)):
        equal(f"The type of {name} after merge_lora_weights", type(layer).__name__, "Linear")
    compare("Outputs of the projections after merge_lora_weights", outputs(), base + scale * update,
            atol=1e-4, known={
                "an update that is left out": base,
                "an update that is subtracted": base - scale * update,
                "an update that is not scaled": base + update})


@pytest.fixture
def adapted(lora, model) -> nn.Module:
    """With LoRA, a part of it frozen, and a head that is trained."""
    wrap(lora, model.requires_grad_(False))
    projections(model)[0].requires_grad_(False)
    return nn.ModuleDict({"llama": model, "head": nn.Linear(6, 5)})


@part("lora.py count_lora_parameters")
def test_parameters_that_ask_for_a_gradient_are_counted(lora, adapted):
    each, head, every = 3 * (6 + 5), 35, sum(p.numel() for p in adapted.parameters())
    compare("count_lora_parameters (LoRA, all, percent)", lora.count_lora_parameters(adapted),
            [7 * each, 7 * each + head, 100 * 7 * each / (7 * each + head)], known={
                "frozen parameters in both counts": [8 * each, every, 100 * 8 * each / every],
                "frozen parameters in the total": [7 * each, every, 100 * 7 * each / every],
                "a share, not percent": [7 * each, 7 * each + head, 7 * each / (7 * each + head)]})
    compare("count_lora_parameters of a model that is frozen",
            lora.count_lora_parameters(adapted.requires_grad_(False)), [0, 0, 0])


@part("lora.py get_lora_optimizer_params")
def test_the_optimizer_gets_the_matrices_that_ask_for_a_gradient(lora, adapted):
    """And not the head, which the training program adds itself: else it is stepped twice."""
    name_of = {id(parameter): name for name, parameter in adapted.named_parameters()}
    equal("The parameters of get_lora_optimizer_params",
          sorted(name_of[id(p)] for p in lora.get_lora_optimizer_params(adapted)),
          [name for name in trainable(adapted) if "lora_" in name])
