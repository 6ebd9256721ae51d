"""Check the forward pass against reference values.

    python sanity_check.py [CHECKPOINT]

CHECKPOINT is stories42M.pt, or the embedded model where that is not here. Its reference values are
the sanity_check.data beside it, or else in this folder: the official ones for stories42M.pt; those
of the embedded model were computed in float64 by an independent NumPy implementation.
Exit status: 0 agreement, 1 deviation, 2 nothing could be compared.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from llama import Llama, load_pretrained
from utils import Parser, beside, fail, read_torch_file, require_file

OFFICIAL, REFERENCE = "stories42M.pt", "sanity_check.data"
DEMO = Path(__file__).resolve().parent / "demo"
# The official file holds results alone; these are its inputs.
OFFICIAL_IDS = torch.tensor([[101, 7592, 2088, 102, 0, 0, 0, 0],
                             [101, 7592, 15756, 2897, 2005, 17953, 2361, 102]])
ATOL, RTOL = 1e-5, 1e-3  # of the official values; a file may have an `atol` of its own


def choose() -> str:
    """The checkpoint to check where none was named."""
    embedded = DEMO / "stories.pt"
    if os.path.exists(OFFICIAL) or not embedded.exists():
        return OFFICIAL
    print(f"{OFFICIAL} is not here (`bash setup.sh` fetches it): checking the embedded model")
    return os.path.relpath(embedded)


def read_cases(path: str) -> list[dict[str, Any]]:
    """Inputs and expected outputs; the embedded file has several, with and without causal mask."""
    require_file(path, "`bash setup.sh` fetches the official one; git has the embedded one")
    data = read_torch_file(path)
    cases = data if isinstance(data, list) else [data]
    for case in cases:
        if not isinstance(case, dict) or not all(
                isinstance(case.get(name), torch.Tensor) for name in ("logits", "hidden_states")
        ) or type(case.get("atol", ATOL)) is not float:
            raise ValueError(f"{path}: holds no logits and hidden_states to compare with")
    if not cases:
        raise ValueError(f"{path}: holds nothing to compare with")
    return cases


@torch.inference_mode()
def deviation(model: Llama, case: dict[str, Any]) -> tuple[float, bool]:
    """The largest difference of a case, and whether all are within the tolerance."""
    atol = case.get("atol", ATOL)
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
        agree = agree and torch.allclose(result, case[name], atol=atol, rtol=RTOL)
    return largest, agree


def main(argv: list[str] | None = None) -> int:
    """Compare; returns the exit status."""
    parser = Parser(prog="sanity_check.py", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help=f"(default: {OFFICIAL},"
                        f" or the embedded model; compared with the {REFERENCE} beside it)")
    checkpoint = parser.parse_args(argv).checkpoint or choose()
    reference = beside(checkpoint, REFERENCE)
    try:
        model = load_pretrained(checkpoint)
        cases = read_cases(reference)
        print(f"Checking {checkpoint} against {reference}")
        results = [deviation(model, case) for case in cases]
    except (OSError, ValueError) as error:
        return fail("sanity_check.py: nothing was compared", error)
    agree = all(within for _, within in results)
    print(f"{'Passed' if agree else 'FAILED'}: logits and hidden states differ by at most "
          f"{max(largest for largest, _ in results):.2g} (tolerance "
          f"{max(case.get('atol', ATOL) for case in cases):g} + {RTOL:g} of the value)")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
