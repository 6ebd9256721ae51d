"""The base class of `Llama`: its configuration, initial weights and dtype."""

import torch
from torch import nn

from config import LlamaConfig


class LlamaPreTrainedModel(nn.Module):
    """Keep the configuration, and draw the weights of a fresh model."""

    config_class = LlamaConfig
    base_model_prefix = "llama"

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = config.vocab_size
        self.n_layers = config.n_layers

    def init_weights(self) -> None:
        """Draw the weights of all modules anew."""
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        """Linear and embedding weights from N(0, 0.02²), biases 0 (GPT-2's initialization)."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(self.parameters()).dtype
