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

from llama import CheckpointError, Llama, load_file, load_pretrained
from utils import InputError, Parser, beside, configure_stdout, fail

OFFICIAL, REFERENCE = "stories42M.pt", "sanity_check.data"
EMBEDDED = Path(__file__).resolve().parent / "demo" / "stories.pt"
# The official file holds results alone; these are its inputs.
OFFICIAL_IDS = torch.tensor([[101, 7592, 2088, 102, 0, 0, 0, 0],
                             [101, 7592, 15756, 2897, 2005, 17953, 2361, 102]])
ATOL, RTOL = 1e-5, 1e-3  # of the official values; a file may have an `atol` of its own


def read_cases(path: str) -> list[dict[str, Any]]:
    """Inputs and expected outputs; the embedded file has several, with and without causal mask."""
    saved = load_file(path)
    cases = saved if isinstance(saved, list) else [saved]
    for case in cases:
        if not isinstance(case, dict) or not {"logits", "hidden_states"} <= case.keys():
            raise InputError(f"{path}: holds no logits and hidden_states to compare with")
    return cases


@torch.inference_mode()
def deviation(model: Llama, case: dict[str, Any]) -> tuple[float, bool]:
    """The largest difference of a case, and whether all are within the tolerance."""
    ids = case.get("token_ids", OFFICIAL_IDS)
    if ids.max() >= model.vocab_size:
        raise InputError(f"the vocabulary of {model.vocab_size} is too small for the reference "
                         "values: they belong to another model")
    for layer in model.layers:
        layer.attention.causal = case.get("causal", layer.attention.causal)
    largest, agree = 0.0, True
    for name, result in zip(("logits", "hidden_states"), model(ids)):
        if result.shape != case[name].shape:
            raise InputError(f"{name} of shape {tuple(result.shape)} cannot be compared with "
                             f"{tuple(case[name].shape)}: they belong to another model")
        largest = max(largest, (result - case[name]).abs().max().item())
        agree &= torch.allclose(result, case[name], atol=case.get("atol", ATOL), rtol=RTOL)
    return largest, agree


def main(argv: list[str] | None = None) -> int:
    """Compare; return the exit status."""
    configure_stdout()
    parser = Parser(prog="sanity_check.py", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help=f"(default: {OFFICIAL},"
                        f" or the embedded model; compared with the {REFERENCE} beside it)")
    checkpoint = parser.parse_args(argv).checkpoint
    if not checkpoint and not os.path.exists(OFFICIAL) and EMBEDDED.exists():
        checkpoint = str(EMBEDDED)
        print(f"{OFFICIAL} is not here (`bash setup.sh` fetches it): checking the embedded model")
    checkpoint = checkpoint or OFFICIAL
    reference = beside(checkpoint, REFERENCE)
    try:
        model = load_pretrained(checkpoint)
        cases = read_cases(reference)
        print(f"Checking {checkpoint} against {reference}")
        results = [deviation(model, case) for case in cases]
    except KeyboardInterrupt:
        return fail("sanity_check.py", "interrupted", 130)
    except (OSError, CheckpointError, InputError) as error:
        return fail("sanity_check.py: nothing was compared", error)
    agree = all(within for _, within in results)
    print(f"{'Passed' if agree else 'FAILED'}: logits and hidden states differ by at most "
          f"{max(largest for largest, _ in results):.2g} (tolerance "
          f"{max(case.get('atol', ATOL) for case in cases):g} + {RTOL:g} of the value)")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
