"""sanity_check.py compares, prints the result, and never passes without having compared."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
import runs
import sanity_check
from conftest import SMALL

CORRECT = "Your Llama implementation is correct!"
WIDE = SMALL | {"vocab_size": 18_000}


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """A copy of the embedded model to tamper with, and a folder without official files."""
    for name in ("stories.pt", "sanity_check.data"):
        shutil.copy(sanity_check.EMBEDDED.parent / name, tmp_path)
    monkeypatch.setattr(sanity_check, "EMBEDDED", tmp_path / "stories.pt")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def official(embedded):
    """Files of the official names and form, for a small model with the official token ids."""
    weights = reference.seeded_weights(WIDE, seed=0)
    reference.save_checkpoint("stories42M.pt", weights, WIDE)
    logits, hidden = reference.forward(weights, WIDE, sanity_check.OFFICIAL_IDS)
    values = {"logits": logits[:, -1:], "hidden_states": hidden}
    torch.save({name: torch.tensor(np.float32(value)) for name, value in values.items()},
               "sanity_check.data")


@pytest.fixture
def check(capsys):
    """Run the check: its status, its output, and its lines on standard error."""
    def check(*argv: str) -> tuple[int, str, list[str]]:
        status, printed, said = runs.run([*argv], capsys, sanity_check.main)
        assert (CORRECT in printed.splitlines()) == (status == 0)
        return status, printed, said
    return check


def change(path, edit) -> None:
    saved = torch.load(path, weights_only=True)
    edit(saved)
    torch.save(saved, path)


def test_the_embedded_model_takes_the_place_of_the_official_one_unless_that_is_named(
        embedded, check):
    status, printed, said = check()
    assert status == 0 and "stories42M.pt is not here" in printed and not said
    status, _, (said,) = check("stories42M.pt")
    assert status == 2 and said.startswith("sanity_check.py: stories42M.pt: ")


def test_each_case_without_a_mask_is_compared(embedded, check):
    path = embedded / "sanity_check.data"
    cases = torch.load(path, weights_only=True)
    assert {case["causal"] for case in cases} == {True, False}
    for case in cases:
        case["logits"][0, 0, 5] += 0.5
        torch.save(cases, path)
        assert check()[0] == (0 if case["causal"] else 1)
        case["logits"][0, 0, 5] -= 0.5


@pytest.mark.parametrize("name", ["logits", "hidden_states"])
@pytest.mark.parametrize("extreme", [torch.argmin, torch.argmax])  # a hundred-thousandth decides,
@pytest.mark.parametrize("factor, status", [(0, 0), (0.9, 0), (1.2, 1)])  # or a thousandth of it
def test_official_files_are_compared_within_the_official_tolerance(
        official, check, name, extreme, factor, status):
    def edit(saved):
        values, i = saved[name].view(-1), extreme(saved[name].abs())
        values[i] += factor * (1e-5 + 1e-3 * abs(values[i]))

    change("sanity_check.data", edit)
    found, printed, said = check()
    assert found == status and not said
    assert "Checking stories42M.pt against sanity_check.data" in printed.splitlines()


@pytest.mark.parametrize("wrong", [
    lambda logits, hidden: (logits.repeat(1, 8, 1), hidden),
    lambda logits, hidden: (logits, hidden[:, -1:]),
    lambda logits, hidden: (logits, hidden * torch.nan)],
    ids=["logits of all positions", "hidden state of the last position", "NaN"])
def test_results_of_another_shape_or_without_numbers_fail(official, check, monkeypatch, wrong):
    model = sanity_check.load_model("stories42M.pt")
    model.register_forward_hook(lambda module, inputs, outputs: wrong(*outputs))
    monkeypatch.setattr(sanity_check, "load_model", lambda path: model)
    status, printed, said = check()
    assert status == 1 and "differ by at most inf" in printed and not said


@pytest.mark.parametrize("name, damage, expected", [
    ("stories.pt", Path.unlink, "stories42M.pt"),
    ("stories.pt", lambda path: path.write_bytes(b"PK"), "stories.pt: damaged"),
    ("sanity_check.data", Path.unlink, "sanity_check.data"),
    ("sanity_check.data", lambda path: path.write_bytes(b"PK"), "damaged"),
    *(("sanity_check.data", partial(change, edit=edit), expected) for edit, expected in [
        (lambda cases: cases[0].pop("logits"), "no logits"),
        (lambda cases: cases[1].update(logits=torch.ones(2, 1, 7)), "another model"),
        (lambda cases: cases[1]["token_ids"].fill_(10**6), "another model")]),
])
def test_nothing_passes_without_a_comparison(embedded, check, name, damage, expected):
    damage(embedded / name)
    status, _, (said,) = check()
    assert status == 2 and said.startswith("sanity_check.py: ") and expected in said
