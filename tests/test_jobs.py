"""The jobs as a user starts them, and what they reach on real weights and real data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import run_llama
import runs
from runs import ROOT, STORIES, labels_in

MODULES = [f"{name}.py" for name in (
    "run_llama", "base_llama", "llama", "rope", "lora", "classifier", "optimizer", "config",
    "tokenizer", "utils", "sanity_check")]


# --------------------------------------------------------------------------- processes of their own

@pytest.fixture
def submission(tmp_path, tiny_tokenizer) -> Path:
    """An unzipped submission beside files under the official names."""
    runs.fill(tmp_path, tiny_tokenizer)
    (tmp_path / "data").mkdir()
    for name in ("train.txt", "dev.txt", "test.txt", "names.json"):
        official = name.replace("names", "label-mapping")
        (tmp_path / name).rename(tmp_path / f"data/cfimdb-{official}")
    (tmp_path / "model.pt").rename(tmp_path / "stories42M.pt")
    for name in MODULES:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def start(folder: Path, *argv: str, shell: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """A run in a process of its own. PyTorch 2.1 warns of its own code whenever it loads a file."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*shell, sys.executable, "run_llama.py", *argv], cwd=folder, capture_output=True,
        env=environment | {"PYTHONWARNINGS": "ignore::UserWarning"}, encoding="utf-8")


def test_a_reference_command_runs_in_a_submission(submission):
    before = set(os.listdir(submission))
    outputs = [f"cfimdb-{split}-lora-output.txt" for split in ("dev", "test")]
    result = start(submission, "--option", "lora", "--batch_size", "10", "--dev_out", outputs[0],
                   "--test_out", outputs[1])
    assert (result.returncode, result.stderr) == (0, "")
    assert set(os.listdir(submission)) - before - {"__pycache__"} == {*outputs, "lora-5-2e-05.pt"}


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")
def test_a_closed_standard_output_and_a_refusal_end_as_a_shell_expects(submission):
    closed = start(submission, shell=("sh", "-c", 'exec "$@" >&-', "sh"))
    assert (closed.returncode, closed.stderr) == (0, "")
    assert all((submission / name).stat().st_size for name in STORIES)
    result = start(submission, "--epochs", "0")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)


# -------------------------------------------------------------------------- real weights, real data

def fine_tune(folder: Path, files: dict[str, Path], *more: str) -> float:
    """Accuracy on dev, less the share of the most frequent label there."""
    assert run_llama.main([
        "--option", "finetune", *(text for split, path in files.items()
                                  for text in (f"--{split}", str(path))),
        "--dev_out", "dev-finetuning-output.txt", "--test_out", "test-finetuning-output.txt",
        "--batch_size", "8", *more]) == 0
    labels, predicted = labels_in(str(files["dev"])), labels_in("dev-finetuning-output.txt")
    return np.mean(np.equal(labels, predicted)) - np.bincount(labels).max() / len(labels)


@pytest.mark.slow
def test_fine_tuning_stories260k_on_five_classes_beats_the_majority_class(
        assets, stories260k, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Small batches and short rows have less padding to read. Sixty sentences are enough to test.
    sst = {split: assets / f"data/sst-{split}.txt" for split in ("train", "dev")}
    lines = (assets / "data/sst-test.txt").read_text(encoding="utf-8").splitlines(True)
    Path("test.txt").write_text("".join(lines[-60:]), encoding="utf-8")
    assert fine_tune(tmp_path, sst | {"test": Path("test.txt")}, "--lr", "1e-3", "--epochs", "7",
                     "--max_sentence_len", "48", "--pretrained-model-path", str(stories260k),
                     "--tokenizer", str(assets / "tok512.model")) > 0.03


def test_fine_tuning_the_embedded_model_tells_good_from_bad(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {split: ROOT / f"demo/reviews2-{split}.txt" for split in ("train", "dev", "test")}
    assert fine_tune(tmp_path, files, "--lr", "5e-4", "--epochs", "2", "--pretrained-model-path",
                     str(ROOT / "demo/stories.pt")) > 0.1
