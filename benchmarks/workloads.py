"""What `bench.py` measures: seeded weights, batches, and the work done on them by both versions."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

import textbook
from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from config import LlamaConfig
from llama import load_pretrained
from lora import apply_lora
from optimizer import AdamW
from run_llama import prefer_onednn, question
from utils import read_examples

TEXTBOOK, OURS = VARIANTS = ("textbook", "project")
NEW_TOKENS = 75
TRAINING = ("finetune", "lora")
CODE = {TEXTBOOK: textbook, OURS: SimpleNamespace(
    AdamW=AdamW, LlamaEmbeddingClassifier=LlamaEmbeddingClassifier, apply_lora=apply_lora,
    LlamaZeroShotClassifier=LlamaZeroShotClassifier, load_pretrained=load_pretrained)}


class Reviews(NamedTuple):
    """A data set: its label names, and the lengths of its sentences in tokens."""

    names: list[str]
    batch_size: int  # of the published results
    mean: float
    longest: int


SETS = {"SST": Reviews(["awful", "bad", "average", "good", "excellent"], 80, 27, 93),
        "CFIMDB": Reviews(["bad", "good"], 10, 236, 585)}
JOBS = {  # kind of work, data set, in the order of the table
    "fine-tuning SST": ("finetune", "SST"), "fine-tuning CFIMDB": ("finetune", "CFIMDB"),
    "LoRA SST": ("lora", "SST"), "LoRA CFIMDB": ("lora", "CFIMDB"),
    "zero-shot SST": ("prompt", "SST"), "zero-shot CFIMDB": ("prompt", "CFIMDB"),
    "generation": ("generate", None), "--option generate": ("process", None),
    "memory fine-tuning CFIMDB": ("memory", "CFIMDB"), "memory LoRA CFIMDB": ("memory", "CFIMDB"),
}
Batch = tuple[torch.Tensor, torch.Tensor]  # (bs, seqlen) token ids and (bs,) labels


class AnyTokens:
    """In place of the official tokenizer: which tokens they are does not change the time."""

    model_path, n_words, pad_id = None, 32000, 3

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        return [len(s)]


def official(name: str) -> Path | None:
    """Find an official file in the repository's folder or in MINI_LLAMA_MIRROR."""
    folders = ROOT, os.environ.get("MINI_LLAMA_MIRROR", ROOT)
    return next((path for folder in folders if (path := Path(folder, name)).is_file()), None)


def save_seeded(path: str, shape: LlamaConfig) -> None:
    """Save a checkpoint with weights of a size at which no part of the model is idle."""
    weights = textbook.Llama(vars(shape)).state_dict()  # output and embedding share their memory
    generator = torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        noise = torch.randn(weight.shape, generator=generator)
        weight.copy_(noise / math.sqrt(noise.shape[1]) if noise.dim() == 2
                     else noise / 8 + name.endswith("weight"))
    torch.save({"model": weights, "model_args": vars(shape)}, path)


def make_batches(kind: str, data: str | None, count: int, run: SimpleNamespace) -> list[Batch]:
    """Shuffle real sentences, or random tokens in sentences of such lengths, into batches."""
    torch.manual_seed(0)
    if kind == "generate":
        return [(torch.randint(4, 200, (1, 33), device=run.device), torch.zeros(1))] * count
    is_prompt, encode = kind == "prompt", run.tokenizer.encode
    path = official(f"data/{data.lower()}-{'dev' if is_prompt else 'train'}.txt")
    if path and run.tokenizer.model_path and not run.quick:
        suffix = encode(question(SETS[data].names), bos=False, eos=False) * is_prompt
        rows = [(encode(sentence, bos=True, eos=False) + suffix, label)
                for label, sentence in read_examples(path)]
    else:
        rows = random_rows(SETS[data], suffix=20 * is_prompt, scale=8 if run.quick else 1)

    def collate(rows: list[tuple[list[int], int]]) -> Batch:
        ids, labels = zip(*rows)
        padded = pad_sequence([*map(torch.tensor, ids)], True, run.tokenizer.pad_id)
        return padded.to(run.device), torch.tensor(labels, device=run.device)

    batch_size = 10 if is_prompt else SETS[data].batch_size
    return list(islice(DataLoader(rows, batch_size, shuffle=True, collate_fn=collate), count))


def random_rows(data: Reviews, suffix: int, scale: int) -> list[tuple[list[int], int]]:
    """Draw 2,000 rows of token ids and labels, sentences with `suffix` more tokens."""
    rng = np.random.default_rng(0)
    # A gamma distribution of shape 5 has the spread of both data sets.
    lengths = np.clip(rng.gamma(5, data.mean / 5, 2000), 3, data.longest) / scale + suffix
    labels = rng.integers(len(data.names), size=2000).tolist()
    return [(torch.randint(4, 200, (int(n) + 1,)).tolist(), k) for n, k in zip(lengths, labels)]


@contextmanager
def products(variant: str, device: torch.device) -> Iterator[None]:
    """Multiply matrices with oneDNN in the project, and as PyTorch does by default elsewhere."""
    if variant == OURS and device.type == "cpu":
        prefer_onednn(dim=512)
    try:
        yield
    finally:
        if matmul := getattr(torch.backends.mkldnn, "matmul", None):  # PyTorch 2.9
            matmul.fp32_precision = "ieee"


def make_model(kind: str, data: str | None, variant: str, run: SimpleNamespace) -> nn.Module:
    """Make the model for a kind of work."""
    code = CODE[variant]
    if kind == "generate":
        return code.load_pretrained(run.checkpoint)
    names = SETS[data].names
    config = SimpleNamespace(num_labels=len(names), pretrained_model_path=run.checkpoint,
                             hidden_dropout_prob=0.3, option="finetune")
    if kind == "prompt":
        return code.LlamaZeroShotClassifier(config, run.tokenizer, names)
    model = code.LlamaEmbeddingClassifier(config)
    if kind == "lora":
        code.apply_lora(model.llama.requires_grad_(variant == TEXTBOOK))
    return model


class Work:
    """A model and its job, called with a batch."""

    def __init__(self, kind: str, data: str | None, variant: str, run: SimpleNamespace) -> None:
        torch.manual_seed(0)
        self.kind, self.variant, self.device = kind, variant, run.device
        self.model = make_model(kind, data, variant, run).to(run.device).eval()
        if kind in TRAINING:
            trained = [p for name, p in self.model.named_parameters()
                       if kind == "finetune" or "lora_" in name or "classifier_head" in name]
            self.optimizer = CODE[variant].AdamW(trained, lr=2e-5)

    def __call__(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss before an optimizer step, the scores of the labels, or the tokens."""
        with products(self.variant, self.device):
            if self.kind == "generate":
                return self.model.generate(ids, NEW_TOKENS, temperature=0.0)
            if self.kind in TRAINING:
                return self.train(ids, labels)
            with torch.inference_mode():
                return self.model(ids)

    def train(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Take an optimizer step; return the loss before it."""
        self.model.train()
        torch.manual_seed(0)  # the same dropout in both versions
        loss = F.nll_loss(self.model(ids), labels, reduction="sum") / len(labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    @torch.no_grad()
    def scores(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the present log-probabilities of the labels, (bs, num_labels)."""
        self.model.eval()
        with products(self.variant, self.device):
            return self.model(ids)


def needed_flops(shape: LlamaConfig, kind: str, bs: int, seqlen: int) -> int:
    """Count the floating-point operations of the matrix products that determine the result.

    Two for each multiplication; in the last layer only the last position, except for keys and
    values; vocabulary logits where they are read. A backward pass costs as much again for the
    gradients of activations, and in fine-tuning once more for those of weights.
    """
    if kind == "generate":
        return sum(needed_flops(shape, "prompt", bs, seqlen + i) for i in range(NEW_TOKENS))
    kv_dim = shape.dim // shape.n_heads * shape.n_kv_heads
    hidden = textbook.hidden_width(vars(shape))
    keys_values = 4 * shape.dim * kv_dim
    rest = 4 * shape.dim**2 + 6 * shape.dim * hidden + 4 * seqlen * shape.dim
    lower = (shape.n_layers - 1) * seqlen * (keys_values + rest)
    logits = 2 * shape.dim * shape.vocab_size if kind == "prompt" else 0
    passes = {"prompt": 1, "lora": 2, "finetune": 3}[kind]
    return passes * bs * (lower + seqlen * keys_values + rest + logits)
