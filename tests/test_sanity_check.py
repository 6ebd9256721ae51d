"""sanity_check.py compares, prints the result, and never passes without having compared."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

import reference
import runs
import sanity_check
from conftest import SMALL

WIDE = SMALL | {"vocab_size": 18_000}  # for the official token ids


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """A copy of the embedded model to tamper with, beside a folder without official files."""
    demo = tmp_path / "demo"
    demo.mkdir()
    for name in ("stories.pt", "sanity_check.data"):
        shutil.copy(sanity_check.EMBEDDED.parent / name, demo)
    monkeypatch.setattr(sanity_check, "EMBEDDED", demo / "stories.pt")
    monkeypatch.chdir(tmp_path)
    return demo


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Files of the official names and form, for a small model."""
    monkeypatch.chdir(tmp_path)
    weights = reference.seeded_weights(WIDE, seed=0)
    reference.save_checkpoint("stories42M.pt", weights, WIDE)
    logits, hidden = map(torch.tensor, reference.forward(weights, WIDE, sanity_check.OFFICIAL_IDS))
    torch.save({"logits": logits[:, -1:].float(), "hidden_states": hidden.float()},
               "sanity_check.data")


@pytest.fixture
def check(capsys):
    """Run the check: its status, and all that it prints."""
    def check(*argv: str) -> tuple[int, str]:
        status, printed, said = runs.run([*argv], capsys, sanity_check.main)
        correct = "Your Llama implementation is correct!" in printed.splitlines()
        assert (correct, len(said)) == (status == 0, status == 2)
        return status, printed + "".join(said)
    return check


def change(path, edit) -> None:
    saved = torch.load(path, weights_only=True)
    edit(saved)
    torch.save(saved, path)


def test_the_embedded_model_stands_in_for_the_official_one_unless_that_is_named(embedded, check):
    status, printed = check()
    assert status == 0 and "stories42M.pt is not here" in printed
    status, printed = check("stories42M.pt")
    assert status == 2 and printed.startswith("sanity_check.py: stories42M.pt: ")


@pytest.mark.parametrize("case, status", [(0, 0), (1, 1), (2, 0), (3, 1)])  # 0 and 2 are causal
@pytest.mark.parametrize("largest, wrong", [
    ("0.5", lambda values: values + 0.5), ("inf", lambda values: values * torch.nan),
    ("inf", lambda values: values.repeat(1, 8, 1))], ids=["other", "NaN", "shape"])
def test_each_case_without_a_mask_is_compared(embedded, check, case, status, largest, wrong):
    change(embedded / "sanity_check.data",
           lambda cases: cases[case].update(logits=wrong(cases[case]["logits"])))
    found, printed = check()
    assert found == status and (f"differ by at most {largest} " in printed) == (status == 1)


@pytest.mark.parametrize("name", ["logits", "hidden_states"])
@pytest.mark.parametrize("extreme", [torch.argmin, torch.argmax])  # a hundred-thousandth decides,
@pytest.mark.parametrize("factor, status", [(0, 0), (0.9, 0), (1.2, 1)])  # or a thousandth of it
def test_official_files_are_compared_within_the_official_tolerance(
        official, check, name, extreme, factor, status):
    def edit(saved):
        values, i = saved[name].view(-1), extreme(saved[name].abs())
        values[i] += factor * (1e-5 + 1e-3 * abs(values[i]))

    change("sanity_check.data", edit)
    assert check()[0] == status


@pytest.mark.parametrize("name, damage, expected", [
    ("stories.pt", lambda path: path.write_bytes(b"PK"), "stories.pt: damaged"),
    ("sanity_check.data", Path.unlink, "sanity_check.data"),
    ("sanity_check.data", partial(change, edit=lambda cases: cases[0].pop("logits")), "no logits"),
    *(("sanity_check.data", partial(change, edit=edit), "another model") for edit in [
        lambda cases: cases[1].update(logits=torch.ones(2, 1, 7)),
        lambda cases: cases[1]["token_ids"].fill_(10**6)])])
def test_nothing_passes_without_a_comparison(embedded, check, name, damage, expected):
    damage(embedded / name)
    status, printed = check()
    assert status == 2 and expected in printed
