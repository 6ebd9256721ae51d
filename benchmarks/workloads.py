"""What `bench.py` measures: weights, batches, and the work that is done on them.

All work is done in these variants: the textbook version; the project in float32, as `run_llama.py`
runs it; and the project with products in bfloat16, where those are faster.
"""

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
from run_llama import question
from utils import bfloat16_is_faster, prefer_onednn, read_examples

TEXTBOOK, OURS, BFLOAT16 = VARIANTS = ("textbook", "float32", "bfloat16")
NEW_TOKENS = 75
TRAINING = ("finetune", "lora")
CODE = dict.fromkeys(VARIANTS, SimpleNamespace(
    AdamW=AdamW, LlamaEmbeddingClassifier=LlamaEmbeddingClassifier, apply_lora=apply_lora,
    LlamaZeroShotClassifier=LlamaZeroShotClassifier, load_pretrained=load_pretrained))
CODE[TEXTBOOK] = textbook
# Without the official tokenizer any tokens will do: what they are does not change the time.
STAND_IN = SimpleNamespace(model_path=None, n_words=32000, pad_id=3,
                           encode=lambda s, bos, eos: [len(s)])


class Reviews(NamedTuple):
    """A data set: its label names, and the lengths of its sentences in tokens."""

    names: list[str]
    batch_size: int  # of the published results
    mean: float
    longest: int


SETS = {
    "SST": Reviews(["awful", "bad", "average", "good", "excellent"], 80, 27, 93),
    "CFIMDB": Reviews(["bad", "good"], 10, 236, 585),
}
JOBS = {  # kind of work, data set, in the order of the table
    "fine-tuning SST": ("finetune", "SST"), "fine-tuning CFIMDB": ("finetune", "CFIMDB"),
    "LoRA SST": ("lora", "SST"), "LoRA CFIMDB": ("lora", "CFIMDB"),
    "zero-shot SST": ("prompt", "SST"), "zero-shot CFIMDB": ("prompt", "CFIMDB"),
    "generation": ("generate", None), "--option generate": ("process", None),
    "memory fine-tuning CFIMDB": ("memory", "CFIMDB"), "memory LoRA CFIMDB": ("memory", "CFIMDB"),
}
Batch = tuple[torch.Tensor, torch.Tensor]  # (bs, seqlen) token ids and (bs,) labels


def official(name: str) -> Path | None:
    """Find an official file, if it is in the repository's folder or in MINI_LLAMA_MIRROR."""
    for folder in (ROOT, os.environ.get("MINI_LLAMA_MIRROR")):
        if folder and (path := Path(folder, name)).is_file():
            return path
    return None


def save_seeded(path: str, shape: LlamaConfig) -> None:
    """Save a checkpoint with weights of a size at which no part of the model is idle."""
    with torch.device("meta"):
        weights = textbook.Llama(vars(shape)).state_dict()
    generator = torch.Generator().manual_seed(0)
    for name, empty in weights.items():
        noise = torch.randn(empty.shape, generator=generator)
        weights[name] = (noise / math.sqrt(noise.shape[1]) if noise.dim() == 2
                         else noise / 8 + name.endswith("weight"))
    weights["output.weight"] = weights["tok_embeddings.weight"]
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
    """Draw 2,000 rows of token ids and labels, with `suffix` more tokens than the sentences."""
    rng = np.random.default_rng(0)
    # A gamma distribution of shape 5 has the spread of both data sets.
    lengths = np.clip(rng.gamma(5, data.mean / 5, 2000), 3, data.longest) / scale + suffix
    labels = rng.integers(len(data.names), size=2000).tolist()
    return [(torch.randint(4, 200, (int(n) + 1,)).tolist(), k) for n, k in zip(lengths, labels)]


@contextmanager
def products(variant: str, device: torch.device) -> Iterator[None]:
    """Multiply matrices as the variant does."""
    if variant != TEXTBOOK and device.type == "cpu":
        prefer_onednn(dim=512)
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=variant == BFLOAT16):
            yield
    finally:
        if matmul := getattr(torch.backends.mkldnn, "matmul", None):  # PyTorch 2.9
            matmul.fp32_precision = "ieee"


def variants_for(device: torch.device) -> tuple[str, ...]:
    """Return the variants that `run_llama.py` has on a device."""
    return VARIANTS if device.type == "cpu" and bfloat16_is_faster() else (TEXTBOOK, OURS)


def make_model(kind: str, data: str | None, variant: str, run: SimpleNamespace) -> nn.Module:
    """Make what a kind of work is done with."""
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
    """A model, and what is done with it: call it with a batch."""

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
        torch.manual_seed(0)  # the same dropout in every variant
        loss = F.nll_loss(self.model(ids).float(), labels, reduction="sum") / len(labels)
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
    """Floating-point operations of the matrix products that the result depends on.

    Two for each multiplication; the last layer's at the last position alone, but for keys and
    values; vocabulary logits where they are read. A backward pass costs as much again for the
    gradients of what is multiplied, and in fine-tuning once more for those of the weights.
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
