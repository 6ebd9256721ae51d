"""Check the forward pass against reference values.

    python sanity_check.py [CHECKPOINT]

CHECKPOINT is stories42M.pt, or the embedded model where that is not here. Its reference values are
the sanity_check.data beside it, or else in this folder: the official ones for stories42M.pt; those
of the embedded model were computed in float64 by an independent NumPy implementation.
Exit status: 0 agreement, 1 deviation, 2 nothing could be compared.
"""

import math
import os
import sys
from pathlib import Path
from typing import Any

import torch

from llama import Llama, load_pretrained
from utils import InputError, Parser, load_file, refusing, run_program, sibling

OFFICIAL, REFERENCE = "stories42M.pt", "sanity_check.data"
EMBEDDED = Path(__file__).resolve().parent / "demo" / "stories.pt"
# The official file contains only results; these are its inputs.
OFFICIAL_IDS = torch.tensor([[101, 7592, 2088, 102, 0, 0, 0, 0],
                             [101, 7592, 15756, 2897, 2005, 17953, 2361, 102]])
ATOL, RTOL = 1e-5, 1e-3  # of the official values; a file may have an `atol` of its own


def load_model(path: str) -> Llama:
    """Load the checkpoint; its attention has no mask, whatever the checkpoint was trained with."""
    with refusing(path):
        model = load_pretrained(path).eval()
    for layer in model.layers:
        layer.attention.causal = False  # no part of the assignment
    return model


def read_cases(path: str) -> list[dict[str, Any]]:
    """Inputs and expected outputs; the embedded file has several."""
    saved = load_file(path)
    cases = saved if isinstance(saved, list) else [saved]
    for case in cases or [None]:
        if not isinstance(case, dict) or not all(
                isinstance(case.get(name), torch.Tensor) for name in ("logits", "hidden_states")):
            raise InputError(f"{path}: has no logits and hidden_states to compare with")
    return [case for case in cases if not case.get("causal")]


@torch.inference_mode()
def deviation(model: Llama, case: dict[str, Any]) -> tuple[float, bool]:
    """The largest difference of a case, and whether all are within the tolerance."""
    ids = case.get("token_ids", OFFICIAL_IDS)
    sizes = case["logits"].shape[-1], case["hidden_states"].shape[-1]
    if sizes != (model.vocab_size, model.params.dim) or ids.max() >= model.vocab_size:
        raise InputError(f"reference values for a vocabulary of {sizes[0]} and a width of "
                         f"{sizes[1]} belong to another model than one of {model.vocab_size} and "
                         f"{model.params.dim}")
    largest, agree = 0.0, True
    for name, result in zip(("logits", "hidden_states"), model(ids)):
        if result.shape != case[name].shape:
            print(f"{name} of shape {tuple(result.shape)}, not {tuple(case[name].shape)}")
            return math.inf, False
        difference = (result - case[name]).abs().nan_to_num(math.inf, math.inf)
        largest = max(largest, difference.max().item())
        agree &= torch.allclose(result, case[name], atol=case.get("atol", ATOL), rtol=RTOL)
    return largest, agree


def main(argv: list[str] | None = None) -> int:
    """Compare; return the exit status."""
    parser = Parser(prog="sanity_check.py", description="Compare a forward pass with reference "
                    "values. Exit status: 0 agreement, 1 deviation, 2 nothing was compared.")
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help=f"(default: {OFFICIAL},"
                        f" or the embedded model; compared with the {REFERENCE} beside it)")
    checkpoint = parser.parse_args(argv).checkpoint
    if not checkpoint and not os.path.exists(OFFICIAL) and EMBEDDED.exists():
        checkpoint = str(EMBEDDED)
        print(f"{OFFICIAL} is not here (`bash setup.sh` fetches it): checking the embedded model")
    checkpoint = checkpoint or OFFICIAL
    reference = sibling(checkpoint, REFERENCE)
    model, cases = load_model(checkpoint), read_cases(reference)
    print(f"Checking {checkpoint} against {reference}")
    results = [deviation(model, case) for case in cases]
    print(f"Logits and hidden states differ by at most {max(largest for largest, _ in results):.2g}"
          f" (tolerance {max(case.get('atol', ATOL) for case in cases):g} + {RTOL:g} of the value)")
    agree = all(within for _, within in results)
    print("Your Llama implementation is correct!" if agree else "FAILED: they do not agree.")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(run_program(main))
