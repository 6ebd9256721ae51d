"""Check the forward pass against reference values: python sanity_check.py

With stories42M.pt in this folder the reference is the official sanity_check.data; otherwise it is
that of the embedded model, computed in float64 by an independent NumPy implementation.
Exit status: 0 agreement, 1 deviation, 2 nothing could be compared.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from llama import Llama, load_pretrained
from utils import read_torch_file, require_file

OFFICIAL = ("stories42M.pt", "sanity_check.data")
DEMO = Path(__file__).resolve().parent / "demo"
# The official file holds results alone; these are its inputs.
OFFICIAL_IDS = torch.tensor([[101, 7592, 2088, 102, 0, 0, 0, 0],
                             [101, 7592, 15756, 2897, 2005, 17953, 2361, 102]])
TOLERANCE = {"atol": 1e-5, "rtol": 1e-3}


def choose() -> tuple[str, str]:
    """The checkpoint to check and the file of its reference values."""
    if os.path.exists(OFFICIAL[0]):
        print(f"Checking {OFFICIAL[0]} against the official {OFFICIAL[1]}")
        return OFFICIAL
    embedded = DEMO / "stories.pt"
    require_file(embedded if embedded.exists() else OFFICIAL[0], "`bash setup.sh` fetches it")
    checkpoint, data = (os.path.relpath(path) for path in (embedded, DEMO / "sanity_check.data"))
    print(f"{OFFICIAL[0]} is not here (`bash setup.sh` fetches it): checking the embedded "
          f"{checkpoint} against {data}")
    return checkpoint, data


def read_cases(path: str) -> list[dict[str, Any]]:
    """Inputs and expected outputs; the embedded file has several, with and without causal mask."""
    require_file(path, "`bash setup.sh` fetches the official one; git has the embedded one")
    data = read_torch_file(path)
    cases = data if isinstance(data, list) else [data]
    for case in cases:
        if not isinstance(case, dict) or not all(
                isinstance(case.get(name), torch.Tensor) for name in ("logits", "hidden_states")):
            raise ValueError(f"{path}: holds no logits and hidden_states to compare with")
    if not cases:
        raise ValueError(f"{path}: holds nothing to compare with")
    return cases


@torch.inference_mode()
def deviation(model: Llama, case: dict[str, Any]) -> tuple[float, bool]:
    """The largest difference of a case, and whether all are within the tolerance."""
    ids = case.get("token_ids", OFFICIAL_IDS)
    if ids.max() >= model.config.vocab_size:
        raise ValueError(f"the vocabulary of {model.config.vocab_size} is not that of the "
                         "reference values: another model")
    for layer in model.layers:
        layer.attention.causal = case.get("causal", model.config.causal)
    computed = dict(zip(("logits", "hidden_states"), model(ids)))
    largest, agree = 0.0, True
    for name, result in computed.items():
        if result.shape != case[name].shape:
            raise ValueError(f"{name} of shape {tuple(result.shape)} cannot be compared with "
                             f"{tuple(case[name].shape)}: another model")
        largest = max(largest, (result - case[name]).abs().max().item())
        agree = agree and torch.allclose(result, case[name], **TOLERANCE)
    return largest, agree


def main() -> int:
    """Compare; returns the exit status."""
    try:
        checkpoint, data = choose()
        model = load_pretrained(checkpoint)
        results = [deviation(model, case) for case in read_cases(data)]
    except (OSError, ValueError) as error:
        print(f"sanity_check.py: nothing was compared: {error}", file=sys.stderr)
        return 2
    agree = all(within for _, within in results)
    print(f"{'Passed' if agree else 'FAILED'}: logits and hidden states differ by at most "
          f"{max(largest for largest, _ in results):.2g} (tolerance {TOLERANCE['atol']:g} + "
          f"{TOLERANCE['rtol']:g} of the value)")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
