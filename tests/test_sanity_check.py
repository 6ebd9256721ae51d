"""sanity_check.py compares, and says so; the program says in one line what it cannot run on."""

import shutil

import pytest
import torch

import run_llama
import sanity_check
from utils import read_label_names


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """A copy of the embedded model to tamper with, and a folder without official files."""
    for name in ("stories.pt", "sanity_check.data", "tokenizer.model"):
        shutil.copy(sanity_check.DEMO / name, tmp_path)
    monkeypatch.setattr(sanity_check, "DEMO", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_embedded_model_passes(embedded, capsys):
    assert sanity_check.main([]) == 0
    assert "Passed" in capsys.readouterr().out


def test_one_changed_weight_fails(embedded, capsys):
    saved = torch.load("stories.pt", weights_only=True)
    saved["model"]["layers.2.feed_forward.w1.weight"][3, 5] += 0.5
    torch.save(saved, "stories.pt")
    assert sanity_check.main([]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("folder", [".", "elsewhere"])
def test_a_named_checkpoint_is_compared_with_the_values_beside_it(embedded, capsys, folder):
    checkpoint = embedded / folder / "mine.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    shutil.move(embedded / "stories.pt", checkpoint)
    shutil.move(embedded / "sanity_check.data", checkpoint.parent / "sanity_check.data")
    assert sanity_check.main([str(checkpoint)]) == 0
    assert f"{checkpoint} against {checkpoint.parent / 'sanity_check.data'}" in (
        capsys.readouterr().out)


def test_a_missing_checkpoint_is_named_in_one_line(embedded, capsys):
    assert sanity_check.main(["lost.pt"]) == 2
    error = capsys.readouterr().err
    assert "lost.pt: no such file" in error and error.count("\n") == 1


@pytest.mark.parametrize("names", ['["bad", "go\\nod"]', '["bad", "\\ud800"]'])
def test_a_label_name_that_no_line_can_hold_is_refused(tmp_path, names):
    path = tmp_path / "names.json"
    path.write_text(names, encoding="utf-8")
    with pytest.raises(ValueError, match="not a JSON list of names"):
        read_label_names(str(path), 2)


def test_a_prompt_that_is_not_utf8_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        run_llama.get_args(["--prompt", "caf\udce9"])
    assert "not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["stories.pt", "sanity_check.data"])
def test_nothing_passes_without_a_comparison(embedded, capsys, missing):
    (embedded / missing).unlink()
    assert sanity_check.main([]) == 2
    assert "nothing was compared" in capsys.readouterr().err


@pytest.mark.parametrize("options,said", [
    (["--use_gpu"], "no CUDA device"),
    (["--tokenizer", "other.model"], "other.model: no such file"),
    (["--pretrained-model-path", "lost.pt", "--tokenizer", "other.model"],
     "lost.pt: no such file; `bash setup.sh`"),
])
def test_what_is_not_there_is_said_in_one_line(embedded, capsys, monkeypatch, options, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_llama.main(["--pretrained-model-path", "stories.pt", *options]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(embedded.glob("generated*"))
