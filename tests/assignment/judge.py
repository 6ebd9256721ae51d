"""The parts of the assignment, and comparisons that fail in a student's terms."""

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
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
    assert name in PARTS

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
    """A module with a given forward, whatever it is constructed and called with beside that."""

    def __init__(self, *args: Any, compute: Callable = torch.sin, **kwargs: Any) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.compute(x)


def equal(what: str, found: Any, expected: Any) -> None:
    """Fail unless two values are the same; of lists, with what is missing or too many."""
    __tracebackhide__ = True
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
    __tracebackhide__ = True
    found, expected = to_array(found, what), to_array(expected, what)
    if found.shape != expected.shape:
        raise AssertionError(f"{what}: expected the shape {expected.shape}, found {found.shape}.")
    with np.errstate(invalid="ignore"):
        excess = np.abs(found - expected) - atol - rtol * np.abs(expected)
    excess = np.nan_to_num(excess, nan=np.inf)
    if (excess <= 0).all():
        return
    worst = np.unravel_index(excess.argmax(), excess.shape)
    where = f" at {[int(i) for i in worst]}" if worst else ""
    message = f"{what}: expected {expected[worst]:.5g}, found {found[worst]:.5g}{where}."
    known = {name: to_array(value, name) for name, value in (known or {}).items()}
    matches = [name for name, value in known.items()
               if value.shape == found.shape and np.allclose(found, value, rtol, atol)]
    raise AssertionError(message + (f" This matches {matches[0]}." if matches else ""))


def to_array(value: Any, what: str) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().double().numpy()
    if value is None or isinstance(value, (str, nn.Module)):
        raise AssertionError(f"{what}: expected numbers, found {type(value).__name__}.")
    return np.asarray(value, np.float64)


# What a failure says


def in_the_five(error: BaseException) -> list[tuple[str, int]]:
    """File names and lines of a traceback, outermost first, in what students write."""
    frames, traceback = [], error.__traceback__
    while traceback:
        frames.append((Path(traceback.tb_frame.f_code.co_filename), traceback.tb_lineno))
        traceback = traceback.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((Path(error.filename), error.lineno or 0))
    return [(path.name, line) for path, line in frames if path.stem in FIVE]


def explain(error: BaseException) -> str:
    """One or two sentences: what a test found, or where the student's code gave up."""
    frames = in_the_five(error)
    if isinstance(error, AssertionError) and not frames or isinstance(error, CannotImport):
        return str(error).split("\nassert ")[0]
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    text = re.sub(r" \((/|[A-Z]:).*?\)$", "", text)  # an ImportError's path
    where = "{}, line {}".format(*frames[-1]) if frames else "in the test, which uses the result"
    if isinstance(error, NotImplementedError):
        return f"not implemented yet ({where})"
    return f"{type(error).__name__}: {text:.300}".rstrip(": ") + f" ({where})"


class CannotImport(Exception):
    """A student's module does not exist or fails while it is imported."""

    def __init__(self, name: str, error: BaseException) -> None:
        culprit = ([f"{name}.py", *(file for file, _ in in_the_five(error))])[-1]
        because = "" if culprit == f"{name}.py" else f"because {culprit} cannot be: "
        if isinstance(error, ModuleNotFoundError) and error.name in FIVE:
            because, error = "", f"there is no {error.name}.py"
        else:
            error = explain(error)
        super().__init__(f"{name}.py cannot be imported: {because}{error}")
