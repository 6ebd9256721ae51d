"""What every Llama model has besides its forward pass: a configuration, initial weights, and
weights from a checkpoint that may come from anywhere.
"""

import math
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from config import LlamaConfig
from utils import read_torch_file


class LlamaPreTrainedModel(nn.Module):
    """Base of `Llama`: keeps the configuration and knows how a fresh model is initialised."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config

    def init_weights(self) -> None:
        """Draw all weight matrices from N(0, 0.02²).

        The two projections of a layer that write into the residual stream are drawn smaller by
        1/sqrt(2 n_layers), which keeps the variance of the stream independent of the depth
        (GPT-2, Radford et al. 2019, section 2.3). LayerNorms start as the identity.
        """
        if self.device.type == "meta":  # shapes only: the weights come from a checkpoint
            return
        into_residual = 0.02 / math.sqrt(2 * self.config.n_layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                writes = name.endswith(("compute_output.weight", "w2.weight"))
                nn.init.normal_(parameter, std=into_residual if writes else 0.02)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device


def open_checkpoint(path: str) -> tuple[LlamaConfig, dict[str, torch.Tensor]]:
    """Read `model_args` and `model` of a checkpoint, as they stand in the file.

    Raises:
        ValueError: damaged, not a checkpoint, or `model_args` that describe no model.
    """
    saved = read_torch_file(path)
    if not isinstance(saved, dict) or not all(
            isinstance(saved.get(part), dict) for part in ("model", "model_args")):
        raise ValueError(f"{path}: not a checkpoint of this model: it must hold a dict with "
                         "`model` (a state dict) and `model_args`")
    weights, model_args = saved["model"], saved["model_args"]
    if not all(isinstance(name, str) for name in [*weights, *model_args]):
        raise ValueError(f"{path}: names of tensors and of model_args must be texts")
    known = {field.name for field in fields(LlamaConfig)}
    for key, value in model_args.items():
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r:.60} in model_args; "
                             f"known are {', '.join(sorted(known))}")
        if value is not None and type(value) not in (int, float, bool):
            raise ValueError(f"{path}: {key} in model_args is a {type(value).__name__}")
    try:
        config = LlamaConfig(**model_args)
    except ValueError as error:
        raise ValueError(f"{path}: model_args: {error}") from error
    if config.n_layers > len(weights):
        raise ValueError(f"{path}: {len(weights)} tensors cannot be {config.n_layers} layers")
    return config, weights


def check_tensors(expected: dict[str, torch.Tensor], tensors: Any, where: str) -> None:
    """Make sure that tensors from a file are exactly those that are expected.

    Args:
        expected: names and shapes; the values do not matter.
        tensors: a dict of them, of any floating-point type, from the file `where`.
    Raises:
        ValueError: naming what is missing, unexpected, of the wrong shape or kind, or not finite.
    """
    if not isinstance(tensors, dict):
        raise ValueError(f"{where}: a {type(tensors).__name__} in place of tensors by name")
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "not a plain floating-point tensor": [
            name for name in expected.keys() & tensors if not is_plain_float(tensors[name])],
    }
    if not any(problems.values()):
        problems = {
            "of the wrong shape": [
                f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted.shape)}"
                for name, wanted in expected.items() if tensors[name].shape != wanted.shape]}
    if not any(problems.values()):
        problems = {"not finite": [name for name in expected if not is_finite(tensors[name])]}
    if any(problems.values()):
        raise ValueError(f"{where}: does not fit the model: " + "; ".join(
            f"{what}: {some_of(names)}" for what, names in problems.items() if names))


def load_weights(module: nn.Module, weights: dict[str, torch.Tensor], where: str) -> None:
    """Make `weights` the parameters of `module`, in float32, all of them or none.

    Args:
        module: any module; on the meta device it costs no memory before.
        weights: exactly the tensors of `module.state_dict()`.
        where: the file they come from, for the message.
    Raises:
        ValueError: as `check_tensors`.
    """
    check_tensors(module.state_dict(), weights, where)
    # Copies: two tensors of one file may share their memory, two parameters must not.
    module.load_state_dict(
        {name: tensor.to(torch.float32, copy=True) for name, tensor in weights.items()},
        assign=True)


def is_plain_float(tensor: object) -> bool:
    """Whether this is a dense floating-point tensor in memory, as every weight is."""
    return (type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout is torch.strided
            and tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
            and tensor.device.type == "cpu" and tensor.is_contiguous())


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity: its extremes tell, in one pass."""
    return all(extreme.isfinite() for extreme in tensor.aminmax())


def some_of(names: list[str], most: int = 4) -> str:
    """The first few names and how many there are besides."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"{name!s:.120}" for name in sorted(map(str, names))[:most]) + rest
