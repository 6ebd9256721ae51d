"""What `bench.py` measures: weights, batches, and the work that is done on them.

Every kind of work is a class whose instances are called with a batch, in one of these variants:
the textbook version; the project in float32, as `run_llama.py` runs it; and the project with
products in bfloat16, where those are faster.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import textbook
from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from config import LlamaConfig
from llama import load_pretrained
from lora import apply_lora
from optimizer import AdamW
from run_llama import PROMPT, LlamaDataset, create_data, question, trainable  # noqa: F401
from tokenizer import Tokenizer
from utils import bfloat16_is_faster, pick_device, prefer_onednn  # noqa: F401

TEXTBOOK, OURS, BFLOAT16 = VARIANTS = ("textbook", "float32", "bfloat16")
NEW_TOKENS = 75


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
        shapes = {name: p.shape for name, p in textbook.Llama(vars(shape)).state_dict().items()}
    generator = torch.Generator().manual_seed(0)

    def draw(name: str, size: torch.Size) -> torch.Tensor:
        noise = torch.randn(size, generator=generator)
        return noise / math.sqrt(size[1]) if len(size) == 2 else noise / 8 + name.endswith("weight")

    weights = {name: draw(name, size) for name, size in shapes.items()}
    weights["output.weight"] = weights["tok_embeddings.weight"]
    torch.save({"model": weights, "model_args": vars(shape)}, path)


def make_batches(
    name: str, ask: bool, count: int, tokenizer: Tokenizer | None, quick: bool
) -> list[Batch]:
    """Shuffled batches of real sentences, or of random tokens in sentences of such lengths."""
    data = SETS[name]
    torch.manual_seed(0)
    path = official(f"data/{data.file}-{'dev' if ask else 'train'}.txt")
    if path and tokenizer and not quick:
        with redirect_stdout(sys.stderr):  # create_data's line is no part of the table
            rows = create_data(str(path), tokenizer, "test", eos=False,
                               prompt_suffix=question(data.names) if ask else None)
    else:
        rng = np.random.default_rng(0)
        scale = 8 if quick else 1
        # A gamma distribution of shape 5 has the spread of both data sets.
        lengths = np.clip(rng.gamma(5, data.mean / 5, 2000), 3, data.longest) / scale + 20 * ask
        rows = [("", int(rng.integers(len(data.names))),
                 torch.randint(4, 200, (int(n) + 1,)).tolist()) for n in lengths]
    size = 10 if ask else data.batch_size
    dataset = LlamaDataset(rows, None, tokenizer=tokenizer or SimpleNamespace(pad_id=3, eos_id=2))
    loader = iter(DataLoader(dataset, size, shuffle=True, collate_fn=dataset.collate_fn))
    batches = [next(loader) for _ in range(count)]
    return [(batch["token_ids"], batch["labels"]) for batch in batches]


# --------------------------------------------------------------------------------- what is measured

@contextmanager
def products(variant: str, device: torch.device) -> Iterator[None]:
    """Matrix products as the variant has them."""
    if variant != TEXTBOOK and device.type == "cpu":
        prefer_onednn(dim=512)
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=variant == BFLOAT16):
            yield
    finally:
        if matmul := getattr(torch.backends.mkldnn, "matmul", None):  # PyTorch 2.9
            matmul.fp32_precision = "ieee"


def variants_for(device: torch.device) -> tuple[str, ...]:
    """The variants that `run_llama.py` has on a device."""
    return VARIANTS if device.type == "cpu" and bfloat16_is_faster() else (TEXTBOOK, OURS)


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
            if lora:
                apply_lora(self.model.llama.requires_grad_(False))
            self.model = self.model.to(device)
            self.optimizer = AdamW(trainable(self.model).values(), lr=2e-5)
        self.variant, self.device = variant, device

    def __call__(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of the batch before the step."""
        self.model.train()
        torch.manual_seed(0)  # the same dropout in every variant
        with products(self.variant, self.device):
            log_probs = self.model(ids)
            loss = F.nll_loss(log_probs.float(), labels, reduction="sum") / len(labels)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
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
    kv_dim = shape.dim // shape.n_heads * shape.n_kv_heads
    hidden = textbook.hidden_width(vars(shape))
    keys_values = 4 * shape.dim * kv_dim
    rest = 4 * shape.dim**2 + 6 * shape.dim * hidden + 4 * seqlen * shape.dim
    lower = (shape.n_layers - 1) * seqlen * (keys_values + rest)
    logits = 2 * shape.dim * shape.vocab_size if kind == "prompt" else 0
    passes = {"prompt": 1, "lora": 2, "finetune": 3}[kind]
    return passes * bs * (lower + seqlen * keys_values + rest + logits)
