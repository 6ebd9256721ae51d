"""LoRA: low-rank adaptation (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from llama import Attention

# The literature usually adapts query and value alone; the published results adapt all four.
PROJECTIONS = ("compute_query", "compute_key", "compute_value", "compute_output")


class LoRALayer(nn.Module):
    """h = W0 x + (alpha / rank) B A x (section 4.1), with W0 frozen.

    A starts random and B at zero, so the layer starts as the original one.

    Args:
        original_layer: the linear layer W0, (in_features) to (out_features), kept and frozen.
        rank: of the update, at least 1.
        alpha: its scale, divided by the rank.
    Raises:
        ValueError: a rank below 1.
    """

    def __init__(self, original_layer: nn.Linear, rank: int = 4, alpha: float = 1.0) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"the LoRA rank must be at least 1, not {rank}")
        self.original_layer = original_layer.requires_grad_(False)
        self.scaling = alpha / rank
        weight = original_layer.weight
        self.lora_A = nn.Parameter(weight.new_empty(rank, original_layer.in_features))
        self.lora_B = nn.Parameter(weight.new_zeros(original_layer.out_features, rank))
        nn.init.normal_(self.lora_A, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in_features) to (…, out_features)."""
        scaled_B = self.scaling * self.lora_B  # smaller than the update would be to scale
        return self.original_layer(x) + F.linear(F.linear(x, self.lora_A), scaled_B)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """Fold (alpha / rank) B A into the original layer, which takes the place of this one."""
        self.original_layer.weight += self.scaling * self.lora_B @ self.lora_A
        return self.original_layer


def apply_lora(
    model: nn.Module, rank: int = 4, alpha: float = 1.0, projections: Sequence[str] = PROJECTIONS
) -> nn.Module:
    """Wrap the chosen projections of every attention layer, in place.

    Afterwards only the LoRA matrices and `classifier_head`, where the model has one, are trained;
    nothing else asks for a gradient.

    Args:
        projections: names of linear layers of `Attention`.
    Returns:
        The same model.
    Raises:
        ValueError: no attention in the model, no such projection, or adapted before.
    """
    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    if not attentions:
        raise ValueError("there is no attention layer to adapt in this model")
    unknown = set(projections) - set(PROJECTIONS)
    if unknown or not projections:
        raise ValueError(f"projections must be some of {', '.join(PROJECTIONS)}, "
                         f"not {', '.join(sorted(unknown)) or 'none'}")
    if lora_layers(model):
        raise ValueError("this model has LoRA layers already: merge them first")
    wrapped = [(attention, name, LoRALayer(getattr(attention, name), rank, alpha))
               for attention in attentions for name in projections]
    model.requires_grad_(False)
    for attention, name, layer in wrapped:
        setattr(attention, name, layer)
    if hasattr(model, "classifier_head"):
        model.classifier_head.requires_grad_(True)
    return model


def merge_lora_weights(model: nn.Module) -> nn.Module:
    """Undo `apply_lora`, in place, keeping what was learnt: plain linear layers, same outputs."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoRALayer):
                setattr(parent, name, child.merge())
    return model


def lora_layers(model: nn.Module) -> list[LoRALayer]:
    """All LoRA layers of a model."""
    return [module for module in model.modules() if isinstance(module, LoRALayer)]


def count_lora_parameters(model: nn.Module) -> tuple[int, int, float]:
    """Count parameters.

    Returns:
        lora: elements of all LoRA matrices.
        trainable: elements of all parameters that ask for a gradient, the head included.
        percent: `lora` in percent of all parameters of the model.
    """
    lora = sum(layer.lora_A.numel() + layer.lora_B.numel() for layer in lora_layers(model))
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    return lora, trainable, 100 * lora / total


def get_lora_optimizer_params(model: nn.Module) -> list[nn.Parameter]:
    """What an optimizer has to update: the LoRA matrices and the classifier head."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
