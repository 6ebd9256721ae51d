"""sanity_check.py compares, says so, and never passes without having compared."""

import shutil

import numpy as np
import pytest
import torch

import reference
import sanity_check
from conftest import SMALL

WIDE = SMALL | {"vocab_size": 18_000}  # has the token ids of the official values


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
    """A working directory with files of the official names and form, and of a small model."""
    weights = reference.seeded_weights(WIDE, seed=0)
    reference.save_checkpoint("stories42M.pt", weights, WIDE)
    logits, hidden = reference.forward(weights, WIDE, sanity_check.OFFICIAL_IDS)
    values = {"logits": logits[:, -1:], "hidden_states": hidden}
    torch.save({name: torch.tensor(np.float32(value)) for name, value in values.items()},
               "sanity_check.data")
    return values


def change(path, edit) -> None:
    saved = torch.load(path, weights_only=True)
    edit(saved)
    torch.save(saved, path)


def test_the_embedded_model_passes_where_there_is_no_official_one(embedded, capsys):
    assert sanity_check.main([]) == 0
    out = capsys.readouterr().out
    assert "stories42M.pt is not here" in out and "Passed" in out
    assert sanity_check.main(["stories42M.pt"]) == 2  # it was asked for by name


def test_one_of_several_cases_is_enough_to_fail(embedded):
    change(embedded / "sanity_check.data", lambda cases: cases[1]["logits"][0, 0, 5].add_(0.5))
    assert sanity_check.main([]) == 1


@pytest.mark.parametrize("name", ["logits", "hidden_states"])
@pytest.mark.parametrize("factor, status, said", [(0, 0, "Passed"), (0.9, 0, "Passed"),
                                                  (2.0, 1, "FAILED")])
def test_official_files_are_compared_within_the_official_tolerance(
        official, capsys, name, factor, status, said):
    """A hundred-thousandth and a thousandth of the value; 0.9 leaves room for float32 itself."""
    def edit(saved):
        expected = saved[name].flatten()[-1]
        saved[name].flatten()[-1] += factor * (1e-5 + 1e-3 * abs(expected))

    change("sanity_check.data", edit)
    assert sanity_check.main([]) == status
    printed = capsys.readouterr().out
    assert f"Checking stories42M.pt against sanity_check.data\n{said}" in printed


@pytest.mark.parametrize("damage, said", [
    (lambda folder: (folder / "stories.pt").unlink(), "stories42M.pt"),
    (lambda folder: (folder / "sanity_check.data").unlink(), "sanity_check.data"),
    (lambda folder: (folder / "sanity_check.data").write_bytes(b"PK"), "damaged"),
    (lambda folder: change(folder / "sanity_check.data", lambda cases: cases[0].pop("logits")),
     "holds no logits"),
    (lambda folder: change(folder / "sanity_check.data",
                           lambda cases: cases[0].update(logits=torch.ones(2, 1, 7))),
     "another model"),
    (lambda folder: change(folder / "sanity_check.data",
                           lambda cases: cases[0]["token_ids"].fill_(10**6)), "too small"),
], ids=["no checkpoint", "no values", "damaged", "no logits", "other shape", "other tokens"])
def test_nothing_passes_without_a_comparison(embedded, capsys, damage, said):
    damage(embedded)
    assert sanity_check.main([]) == 2
    out, error = capsys.readouterr()
    assert "nothing was compared" in error and said in error and error.count("\n") == 1
    assert "Passed" not in out
