"""Textbook solution: LoRA, with a merge that makes new linear layers."""

import torch
from torch import nn

NAMES = ("compute_query", "compute_key", "compute_value", "compute_output")


class LoRALayer(nn.Module):
    def __init__(self, original_layer, rank=4, alpha=1.0):
        super().__init__()
        self.original_layer = original_layer
        self.rank = rank
        self.alpha = alpha
        self.scaling = alpha / rank
        for p in self.original_layer.parameters():
            p.requires_grad = False
        self.lora_A = nn.Parameter(torch.randn(rank, original_layer.in_features) * 0.02)
        self.lora_B = nn.Parameter(torch.zeros(original_layer.out_features, rank))

    def forward(self, x):
        update = x @ self.lora_A.T @ self.lora_B.T
        return self.original_layer(x) + self.scaling * update


def replace(model, wanted, make):
    for name, module in list(model.named_modules()):
        if wanted(name, module):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, make(module))
    return model


def apply_lora(model, rank=4, alpha=1.0):
    return replace(
        model, lambda name, m: isinstance(m, nn.Linear) and any(part in name for part in NAMES),
        lambda m: LoRALayer(m, rank, alpha))


def merge(layer):
    old = layer.original_layer
    new = nn.Linear(old.in_features, old.out_features, bias=old.bias is not None)
    new.weight.data = old.weight.data + layer.scaling * (layer.lora_B @ layer.lora_A).data
    if old.bias is not None:
        new.bias.data = old.bias.data.clone()
    return new


def merge_lora_weights(model):
    return replace(model, lambda name, m: isinstance(m, LoRALayer), merge)


def get_lora_optimizer_params(model):
    return [p for name, p in model.named_parameters() if "lora_" in name and p.requires_grad]


def count_lora_parameters(model):
    total = sum(p.numel() for p in model.parameters() if p.requires_grad)
    lora = sum(p.numel() for name, p in model.named_parameters()
               if "lora_" in name and p.requires_grad)
    return lora, total, 100 * lora / total if total > 0 else 0.0
