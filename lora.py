"""LoRA: low-rank adaptation (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

# The literature usually adapts query and value alone; the published results adapt all four.
PROJECTIONS = ("compute_query", "compute_key", "compute_value", "compute_output")


class LoRALayer(nn.Module):
    """h = W0 x + (alpha / rank) B A x (Hu et al. 2021, eq. 3), with W0 frozen.

    A is random and B zero at first, so the layer starts out as the original one.

    Args:
        original_layer: the linear layer W0, in_features to out_features; kept and frozen.
        rank: of the update, at least 1.
        alpha: scale of the update, divided by the rank.
    Raises:
        ValueError: a rank below 1.
    """

    def __init__(self, original_layer: nn.Linear, rank: int = 4, alpha: float = 1.0) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"the LoRA rank must be at least 1, not {rank}")
        self.rank, self.alpha, self.scaling = rank, alpha, alpha / rank
        self.was_trained = {
            name: p.requires_grad for name, p in original_layer.named_parameters()}
        self.original_layer = original_layer.requires_grad_(False)
        # Drawn as in the course's program: in float32, by the CPU's generator.
        lora_A = torch.randn(rank, original_layer.in_features) * 0.02
        self.lora_A = nn.Parameter(lora_A.to(original_layer.weight))
        self.lora_B = nn.Parameter(
            original_layer.weight.new_zeros(original_layer.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in_features) to (…, out_features)."""
        scaled_B = self.scaling * self.lora_B  # cheaper than scaling the update, which is larger
        return self.original_layer(x) + F.linear(F.linear(x, self.lora_A), scaled_B)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """A linear layer with (alpha / rank) B A folded into it, as trainable as the original."""
        original = self.original_layer
        layer = nn.Linear(original.in_features, original.out_features, original.bias is not None)
        layer.to(original.weight).load_state_dict(original.state_dict())
        layer.weight += self.scaling * self.lora_B @ self.lora_A
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(self.was_trained[name])
        return layer.train(self.training)


def apply_lora(
    model: nn.Module, rank: int = 4, alpha: float = 1.0, projections: Sequence[str] = PROJECTIONS
) -> nn.Module:
    """Wrap linear layers in `LoRALayer`, in place. Nothing but these layers is frozen.

    Args:
        rank, alpha: of every `LoRALayer`.
        projections: which layers: those whose qualified name contains one of these.
    Returns:
        The same model.
    Raises:
        ValueError: the model has LoRA layers already.
    """
    modules = dict(model.named_modules())
    if any(isinstance(module, LoRALayer) for module in modules.values()):
        raise ValueError("this model has LoRA layers already; merge them first")
    for prefix, module in modules.items():
        for name, child in list(module.named_children()):
            wanted = any(projection in f"{prefix}.{name}" for projection in projections)
            if wanted and isinstance(child, nn.Linear):
                setattr(module, name, LoRALayer(child, rank, alpha))
    return model


def merge_lora_weights(model: nn.Module) -> nn.Module:
    """Undo `apply_lora`, in place, but keep what was learned: plain linear layers, same outputs."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoRALayer):
                setattr(module, name, child.merge())
    return model


def count_lora_parameters(model: nn.Module) -> tuple[int, int, float]:
    """Count the elements of the trainable parameters.

    Returns:
        Those of LoRA matrices, all of them, and the former in percent of the latter.
    """
    lora = sum(parameter.numel() for parameter in get_lora_optimizer_params(model))
    total = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return lora, total, 100 * lora / total if total else 0.0


def get_lora_optimizer_params(model: nn.Module) -> list[nn.Parameter]:
    """The trainable LoRA matrices. A classifier head is not among them: add it."""
    return [parameter for name, parameter in model.named_parameters()
            if "lora_" in name and parameter.requires_grad]
