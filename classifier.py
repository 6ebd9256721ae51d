"""Two ways to classify a sentence with a language model: ask it, or train a layer on top of it.

And the batches that both take.
"""

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from base_llama import load_weights, open_checkpoint
from llama import Llama, load_pretrained
from tokenizer import Tokenizer
from utils import Example, require_file, save_torch

Encoded = list[tuple[torch.Tensor, int]]  # token ids of a sentence, and its label


def encode(examples: list[Example], tokenizer: Tokenizer) -> Encoded:
    """Tokenize with bos and without eos, once for all epochs."""
    return [(torch.tensor(tokenizer.encode(sentence, bos=True, eos=False)), label)
            for label, sentence in examples]


def make_loader(
    encoded: Encoded, batch_size: int, pad_id: int, shuffle: bool = False
) -> DataLoader:
    """Batches of (ids, labels), (bs, longest of the batch) and (bs,), right-padded with pad_id."""
    def collate(batch: Encoded) -> tuple[torch.Tensor, torch.Tensor]:
        ids, labels = zip(*batch)
        return (pad_sequence(ids, batch_first=True, padding_value=pad_id), torch.tensor(labels))

    return DataLoader(encoded, batch_size, shuffle, collate_fn=collate)


def with_question(examples: list[Example], names: list[str]) -> list[Example]:
    """Each sentence followed by the question that the next token is to answer."""
    *others, last = names
    choices = " or ".join([others[0], last]) if len(names) == 2 else ", ".join(
        [*others, f"or {last}" if others else last])
    question = f" Is this movie {choices}? This movie is "
    return [Example(label, sentence + question) for label, sentence in examples]


class LlamaZeroShotClassifier(nn.Module):
    """Chooses the label whose name the language model finds the likeliest to come next.

    Args:
        config: anything with `num_labels` and `pretrained_model_path`.
        tokenizer: the one that belongs to the checkpoint.
        label_names: `num_labels` words, in the order of the labels.
    """

    def __init__(self, config: Any, tokenizer: Tokenizer, label_names: list[str]) -> None:
        super().__init__()
        if len(label_names) != config.num_labels:
            raise ValueError(f"{len(label_names)} label names for {config.num_labels} labels")
        self.num_labels = config.num_labels
        self.llama = load_pretrained(config.pretrained_model_path)
        self.llama.requires_grad_(False)
        self.label_name_ids = [tokenizer.encode(name, bos=False, eos=False)
                               for name in label_names]

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Score the labels.

        All tokens of a name are read from one distribution, that of the token after the last
        position of the padded row; the reference does not feed one token to predict the next.

        Args:
            input_ids: (bs, seqlen), right-padded.
        Returns:
            (bs, num_labels), sums of log-probabilities.
        """
        hidden = self.llama.hidden_states(input_ids, last_only=True)
        log_probs = F.log_softmax(self.llama.output(hidden[:, -1]), dim=-1)  # (bs, vocab_size)
        return torch.stack([log_probs[:, ids].sum(dim=-1) for ids in self.label_name_ids], dim=-1)


class LlamaEmbeddingClassifier(nn.Module):
    """A linear layer on the hidden state of the last position.

    Args:
        config: anything with `num_labels`, `pretrained_model_path`, `hidden_dropout_prob`, and
            `option`: 'finetune' trains all parameters, 'pretrain' and 'lora' the layer on top
            only (and what `apply_lora` adds).
        llama: the model to put it on, if it is not to be loaded from `pretrained_model_path`.
    Raises:
        ValueError: an option other than these.
    """

    def __init__(self, config: Any, llama: Llama | None = None) -> None:
        super().__init__()
        if config.option not in ("pretrain", "finetune", "lora"):
            raise ValueError(f"option must be pretrain, finetune or lora, not {config.option!r}")
        self.num_labels = config.num_labels
        self.llama = load_pretrained(config.pretrained_model_path) if llama is None else llama
        self.llama.requires_grad_(config.option == "finetune")
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier_head = nn.Linear(self.llama.config.dim, config.num_labels)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(bs, seqlen), right-padded token ids, to (bs, num_labels), log-probabilities.

        The last position of the padded row is taken, as the reference does, even where it holds
        padding: it attends to the whole sentence like every other position.
        """
        hidden = self.llama.hidden_states(input_ids, last_only=True)[:, -1]  # (bs, dim)
        return F.log_softmax(self.classifier_head(self.dropout(hidden)), dim=-1)


def save_classifier(path: str, model: LlamaEmbeddingClassifier, **facts: Any) -> None:
    """Save all that is needed to use a model again, and facts about it, for `load_classifier`.

    Args:
        model: without LoRA layers; merge them first.
        facts: numbers, texts and containers of them.
    """
    save_torch(path, {"model": dict(model.state_dict()), "model_args": asdict(model.llama.config),
                      "num_labels": model.num_labels, **facts})


def load_classifier(path: str) -> LlamaEmbeddingClassifier:
    """Load a model that `run_llama.py --option finetune` or `lora` has saved, in eval mode.

    Raises:
        FileNotFoundError, ValueError: as `load_pretrained`, or if it holds no classifier.
    """
    require_file(path, "`run_llama.py --option finetune` or `lora` makes it")
    config, weights = open_checkpoint(path)
    head = weights.get("classifier_head.weight")
    if not isinstance(head, torch.Tensor) or head.ndim != 2:
        raise ValueError(f"{path}: holds no classifier (classifier_head.weight is missing)")
    settings = SimpleNamespace(num_labels=len(head), hidden_dropout_prob=0.0, option="pretrain")
    with torch.device("meta"):
        model = LlamaEmbeddingClassifier(settings, Llama(config))
    load_weights(model, weights, path)
    model.llama.tie_loaded_weights(path)
    return model.eval()
