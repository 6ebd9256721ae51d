"""Two ways to classify a sentence with a language model: prompt it, or train a layer on top."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from llama import load_pretrained
from tokenizer import Tokenizer


class LlamaZeroShotClassifier(nn.Module):
    """Choose the label whose name the language model considers the most likely continuation.

    Args:
        config: any object with `num_labels` and `pretrained_model_path`.
        tokenizer: the one that belongs to the checkpoint.
        label_names: `num_labels` words, in the order of the labels.
    Raises:
        ValueError: not `num_labels` names; also what `load_pretrained` raises.
    """

    def __init__(self, config: Any, tokenizer: Tokenizer, label_names: list[str]) -> None:
        super().__init__()
        if len(label_names) != config.num_labels:
            raise ValueError(f"{len(label_names)} label names for {config.num_labels} labels")
        self.num_labels = config.num_labels
        self.llama = load_pretrained(config.pretrained_model_path).requires_grad_(False)
        self.tokenizer = tokenizer
        self.label_name_ids = [
            tokenizer.encode(name, bos=False, eos=False) for name in label_names]

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Score the labels: (bs, seqlen), right-padded, to (bs, num_labels).

        A score is the sum of the log-probabilities of the name's tokens, all read from one
        distribution, that of the token after the last position of the padded row: the reference
        does not feed back one token of a name to predict the next.
        """
        logits, _ = self.llama(input_ids, last_only=True)
        log_probs = F.log_softmax(logits[:, -1], dim=-1)  # (bs, vocab_size)
        return torch.stack([log_probs[:, ids].sum(dim=-1) for ids in self.label_name_ids], dim=-1)


class LlamaEmbeddingClassifier(nn.Module):
    """A linear layer on the hidden state of the last position.

    Args:
        config: any object with `num_labels`, `pretrained_model_path`, `hidden_dropout_prob` and
            `option`: 'pretrain' freezes the Llama, 'finetune' trains it, others leave it as it is.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.num_labels = config.num_labels
        self.llama = load_pretrained(config.pretrained_model_path)
        if config.option in ("pretrain", "finetune"):
            self.llama.requires_grad_(config.option == "finetune")
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier_head = nn.Linear(self.llama.config.dim, config.num_labels)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the labels: (bs, seqlen), right-padded, to (bs, num_labels).

        The reference reads the last position of the padded row even where that is padding, which
        attends to the whole sentence like every other position.
        """
        _, hidden = self.llama(input_ids, last_only=True)
        pooled = hidden[:, -1]  # (bs, dim)
        return F.log_softmax(self.classifier_head(self.dropout(pooled)), dim=-1)
