"""The parts of the assignment, and comparisons that fail in a student's terms."""

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from traceback import walk_tb
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

FIVE = ("rope", "llama", "optimizer", "lora", "classifier")
PARTS = [  # in the order of dependence: the first that is wrong is the place to begin
    "rope.py apply_rotary_emb",
    "llama.py LayerNorm",
    "llama.py Attention scores",
    "llama.py Attention",
    "llama.py FeedForward",
    "llama.py LlamaLayer",
    "llama.py Llama",
    "llama.py load_pretrained",
    "llama.py generate",
    "optimizer.py AdamW",
    "lora.py LoRALayer",
    "lora.py apply_lora",
    "lora.py merge_lora_weights",
    "lora.py count_lora_parameters",
    "lora.py get_lora_optimizer_params",
    "classifier.py LlamaZeroShotClassifier",
    "classifier.py LlamaEmbeddingClassifier",
    "the whole model",
]
# Every size differs from every other, so that none can stand in for another unnoticed.
SMALL = {"vocab_size": 61, "dim": 24, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
         "max_seq_len": 16, "multiple_of": 10}


def part(name: str) -> Callable:
    """Mark a test as one of this part."""
    def mark(test: Callable) -> Callable:
        test.part = name
        return test
    return mark


def replace(monkeypatch: pytest.MonkeyPatch, module: str, name: str, stub: Callable) -> None:
    """Put a stub in the place of a function of `module`, whichever of the five use it by its name.

    `from rope import apply_rotary_emb` and `import rope` both find it.
    """
    original = getattr(sys.modules.get(module), name, None)
    for other in FIVE:
        if original and getattr(sys.modules.get(other), name, None) is original:
            monkeypatch.setattr(sys.modules[other], name, stub)


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Stub(nn.Module):
    """A module with a given forward, whatever else it is constructed and called with."""

    def __init__(self, *args: Any, compute: Callable = torch.sin, **kwargs: Any) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.compute(x)


def equal(what: str, found: Any, expected: Any) -> None:
    """Fail unless two values are the same; of lists, with what is missing or too many."""
    if found != expected:
        if isinstance(expected, list):
            missing, extra = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
            differ = [f"{name} is missing" for name in missing][:1]
            differ += [f"{name} does not belong there" for name in extra][:1]
            expected, found = len(expected), f"{len(found)}: {' and '.join(differ)}"
        raise AssertionError(f"{what}: expected {expected}, found {found}.")


def compare(what: str, found: Any, expected: Any, atol: float = 2e-5, rtol: float = 2e-4,
            known: dict[str, Any] | None = None) -> None:
    """Fail unless arrays agree: with the worst position, and the known mistake that was made."""
    if found is None or isinstance(found, (str, nn.Module)):
        raise AssertionError(f"{what}: expected numbers, found {type(found).__name__}.")
    found, expected = array(found), array(expected)
    if found.shape != expected.shape:
        raise AssertionError(f"{what}: expected the shape {expected.shape}, found {found.shape}.")
    if np.allclose(found, expected, rtol, atol):
        return
    excess = np.abs(found - expected) - atol - rtol * np.abs(expected)
    worst = np.unravel_index(np.nan_to_num(excess, nan=np.inf).argmax(), excess.shape)
    where = f" at {[int(i) for i in worst]}" if worst else ""
    message = f"{what}: expected {expected[worst]:.5g}, found {found[worst]:.5g}{where}."
    matches = [name for name, value in (known or {}).items() if found.shape == array(value).shape
               and np.allclose(found, array(value), rtol, atol)]
    raise AssertionError(message + (f" This matches {matches[0]}." if matches else ""))


def array(value: Any) -> np.ndarray:
    """A tensor, an array or numbers as an array in float64."""
    if isinstance(value, torch.Tensor):
        value = value.detach().double().numpy()
    return np.asarray(value, np.float64)


def in_the_five(error: BaseException) -> list[str]:
    """Files and lines of a traceback, outermost first, in what students write."""
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or "", error.lineno))
    return [f"{Path(file).name}, line {line}" for file, line in frames if Path(file).stem in FIVE]


def explain(error: BaseException) -> str:
    """One or two sentences: what a test found, or where the student's code gave up."""
    frames = in_the_five(error)
    if isinstance(error, AssertionError) and not frames or isinstance(error, CannotImport):
        return str(error).split("\nassert ")[0]
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    text = re.sub(r" \((/|[A-Z]:).*?\)$", "", text)  # an ImportError's path
    where = frames[-1] if frames else "in the test, which uses the result"
    if isinstance(error, NotImplementedError):
        return f"not implemented yet ({where})"
    return f"{type(error).__name__}: {text:.300}".rstrip(": ") + f" ({where})"


class CannotImport(Exception):
    """A student's module does not exist or fails while it is imported."""

    def __init__(self, name: str, error: BaseException) -> None:
        because = explain(error)
        if isinstance(error, ModuleNotFoundError) and error.name in FIVE:
            because = f"there is no {error.name}.py"
        super().__init__(f"{name}.py cannot be imported: {because}")
