"""What `bench.py` measures: weights, batches, and the work that is done on them.

Every kind of work is a class whose instances are called with a batch, in one of these variants:
the textbook version; the project in float32, as `run_llama.py` runs it; the same with products by
PyTorch's default library rather than by oneDNN; and the project with products in bfloat16.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import textbook  # noqa: E402
from classifier import (  # noqa: E402
    LlamaEmbeddingClassifier,
    LlamaZeroShotClassifier,
    encode,
    make_loader,
    with_question,
)
from config import LlamaConfig  # noqa: E402
from llama import load_pretrained  # noqa: E402
from lora import apply_lora, get_lora_optimizer_params  # noqa: E402
from optimizer import AdamW  # noqa: E402
from run_llama import NEW_TOKENS, PROMPT  # noqa: E402, F401  (PROMPT for bench.py)
from tokenizer import Tokenizer  # noqa: E402
from utils import multiply_by_onednn, read_examples  # noqa: E402

TEXTBOOK, OURS, DEFAULT, BFLOAT16 = VARIANTS = (
    "textbook", "float32", "float32 without oneDNN", "bfloat16")


class Reviews(NamedTuple):
    """A data set: its file, label names, and the lengths of its sentences in tokens."""

    file: str
    names: list[str]
    batch_size: int  # of the published results
    mean: float
    longest: int


SETS = {
    "SST": Reviews("sst", ["awful", "bad", "average", "good", "excellent"], 80, 27, 93),
    "CFIMDB": Reviews("cfimdb", ["bad", "good"], 10, 236, 585),
}
JOBS = {  # kind of work, data set, in the order of the table
    "fine-tuning SST": ("finetune", "SST"), "fine-tuning CFIMDB": ("finetune", "CFIMDB"),
    "LoRA SST": ("lora", "SST"), "LoRA CFIMDB": ("lora", "CFIMDB"),
    "zero-shot SST": ("prompt", "SST"), "zero-shot CFIMDB": ("prompt", "CFIMDB"),
    "generation": ("generate", None), "--option generate": ("process", None),
    "memory fine-tuning CFIMDB": ("memory", "CFIMDB"), "memory LoRA CFIMDB": ("memory", "CFIMDB"),
}
Batch = tuple[torch.Tensor, torch.Tensor]  # (bs, seqlen) token ids and (bs,) labels


# ------------------------------------------------------------------------------ weights and batches

def official(name: str) -> Path | None:
    """One of the official files, if it is in the repository's folder or in MINI_LLAMA_MIRROR."""
    for folder in (ROOT, os.environ.get("MINI_LLAMA_MIRROR")):
        if folder and (path := Path(folder, name)).is_file():
            return path
    return None


def save_seeded(path: str, shape: LlamaConfig) -> None:
    """A checkpoint whose weights are drawn at a size at which no part of the model is idle."""
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in textbook.Llama(asdict(shape)).state_dict().items()}
    generator = torch.Generator().manual_seed(0)

    def draw(name: str, size: torch.Size) -> torch.Tensor:
        noise = torch.randn(size, generator=generator)
        return noise / math.sqrt(size[1]) if len(size) == 2 else noise / 8 + name.endswith("weight")

    weights = {name: draw(name, size) for name, size in shapes.items()}
    weights["output.weight"] = weights["tok_embeddings.weight"]
    torch.save({"model": weights, "model_args": asdict(shape)}, path)


def make_batches(
    name: str, ask: bool, count: int, tokenizer: Tokenizer | None, quick: bool
) -> list[Batch]:
    """Shuffled batches of real sentences, or of random tokens in sentences of such lengths."""
    data = SETS[name]
    torch.manual_seed(0)
    path = official(f"data/{data.file}-{'dev' if ask else 'train'}.txt")
    if path and tokenizer and not quick:
        examples = read_examples(str(path))
        encoded = encode(with_question(examples, data.names) if ask else examples, tokenizer)
    else:
        rng = np.random.default_rng(0)
        scale = 8 if quick else 1
        # A gamma distribution of shape 5 has the spread of both data sets.
        lengths = np.clip(rng.gamma(5, data.mean / 5, 2000), 3, data.longest) / scale + 20 * ask
        encoded = [(torch.randint(4, 200, (int(n) + 1,)), int(rng.integers(len(data.names))))
                   for n in lengths]
    size = 10 if ask else data.batch_size
    loader = iter(make_loader(encoded, size, pad_id=3, shuffle=True))
    return [next(loader) for _ in range(count)]


# --------------------------------------------------------------------------------- what is measured

@cache
def our_products() -> str:
    """What `multiply_by_onednn` sets on this machine."""
    with products(TEXTBOOK, torch.device("cpu")):
        multiply_by_onednn(dim=512)
        return torch.backends.mkldnn.matmul.fp32_precision


@contextmanager
def products(variant: str, device: torch.device) -> Iterator[None]:
    """Matrix products as the variant has them."""
    mkldnn = torch.backends.mkldnn.matmul
    mkldnn.fp32_precision = our_products() if variant in (OURS, BFLOAT16) else "ieee"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=variant == BFLOAT16):
            yield
    finally:
        mkldnn.fp32_precision = "ieee"


def variants_for(device: torch.device) -> tuple[str, ...]:
    """The variants that differ on a machine: oneDNN may not be good for float32 there."""
    onednn = device.type == "cpu" and our_products() != "ieee"
    return tuple(variant for variant in VARIANTS if variant != DEFAULT or onednn)


class Training:
    """Fine-tuning or LoRA: calling it is one optimizer step on a batch."""

    def __init__(self, variant: str, lora: bool, labels: int, path: str, device: torch.device):
        torch.manual_seed(0)
        if variant == TEXTBOOK:
            llama = textbook.load_pretrained(path)
            self.model = textbook.LlamaEmbeddingClassifier(llama, labels, 0.3, lora).to(device)
            self.optimizer = textbook.AdamW(self.model.trained(), lr=2e-5)
        else:
            settings = SimpleNamespace(num_labels=labels, hidden_dropout_prob=0.3,
                                       pretrained_model_path=path, option="finetune")
            self.model = LlamaEmbeddingClassifier(settings)
            self.model = (apply_lora(self.model) if lora else self.model).to(device)
            self.optimizer = AdamW(get_lora_optimizer_params(self.model), lr=2e-5)
        self.variant, self.device = variant, device

    def __call__(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of the batch before the step."""
        self.model.train()
        torch.manual_seed(0)  # the same dropout in every variant
        with products(self.variant, self.device):
            log_probs = self.model(ids)
            loss = F.nll_loss(log_probs.float(), labels, reduction="sum") / len(labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def scores(self, ids: torch.Tensor) -> torch.Tensor:
        """(bs, num_labels), as they are now."""
        self.model.eval()
        with products(self.variant, self.device):
            return self.model(ids)


class Prompting:
    """Zero-shot: calling it scores the labels of a batch."""

    def __init__(self, variant: str, data: Reviews, path: str, tokenizer: Tokenizer | None,
                 device: torch.device):
        settings = SimpleNamespace(num_labels=len(data.names), pretrained_model_path=path)
        # Without a tokenizer any tokens will do: what they are does not change the time.
        stand_in = SimpleNamespace(encode=lambda name, bos, eos: [len(name)])
        model = LlamaZeroShotClassifier(settings, tokenizer or stand_in, data.names)
        if variant == TEXTBOOK:
            llama = textbook.load_pretrained(path)
            model = textbook.LlamaZeroShotClassifier(llama, model.label_name_ids)
        self.model, self.variant, self.device = model.to(device).eval(), variant, device

    @torch.inference_mode()
    def __call__(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with products(self.variant, self.device):
            return self.model(ids)


class Generating:
    """Generation at temperature 0; its batch is a prompt of the length of the assignment's."""

    def __init__(self, variant: str, path: str, device: torch.device):
        load = textbook.load_pretrained if variant == TEXTBOOK else load_pretrained
        self.model, self.variant, self.device = load(path).to(device), variant, device

    def __call__(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with products(self.variant, self.device):
            return self.model.generate(ids, NEW_TOKENS, temperature=0.0)


def make_work(kind: str, data: str | None, variant: str, run: SimpleNamespace) -> Any:
    """What to call with a batch."""
    if kind == "generate":
        return Generating(variant, run.checkpoint, run.device)
    if kind == "prompt":
        return Prompting(variant, SETS[data], run.checkpoint, run.tokenizer, run.device)
    return Training(variant, kind == "lora", len(SETS[data].names), run.checkpoint, run.device)


def needed_flops(shape: LlamaConfig, kind: str, bs: int, seqlen: int) -> int:
    """Floating-point operations of the matrix products that the result depends on.

    Two for each multiplication; the last layer's at the last position alone, but for keys and
    values; vocabulary logits where they are read. A backward pass costs as much again for the
    gradients of what is multiplied, and in fine-tuning once more for those of the weights.
    """
    if kind == "generate":
        return sum(needed_flops(shape, "prompt", bs, seqlen + i) for i in range(NEW_TOKENS))
    kv_dim = shape.head_dim * shape.n_kv_heads
    hidden = textbook.hidden_width(asdict(shape))
    keys_values = 4 * shape.dim * kv_dim
    rest = 4 * shape.dim**2 + 6 * shape.dim * hidden + 4 * seqlen * shape.dim
    lower = (shape.n_layers - 1) * seqlen * (keys_values + rest)
    logits = 2 * shape.dim * shape.vocab_size if kind == "prompt" else 0
    passes = {"prompt": 1, "lora": 2, "finetune": 3}[kind]
    return passes * bs * (lower + seqlen * keys_values + rest + logits)
