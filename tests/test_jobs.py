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
from runs import ROOT, labels_in

MODULES = [f"{name}.py" for name in (
    "run_llama", "base_llama", "llama", "rope", "lora", "classifier", "optimizer", "config",
    "tokenizer", "utils", "sanity_check")]


def test_a_submission_runs_a_command_of_the_reference_and_ends_as_a_shell_expects(
        tmp_path, tiny_tokenizer):
    """It stands, unzipped, beside files under the official names."""
    runs.fill(tmp_path, tiny_tokenizer)
    (tmp_path / "data").mkdir()
    for name in ("train.txt", "dev.txt", "test.txt", "names.json"):
        official = name.replace("names", "label-mapping")
        (tmp_path / name).rename(tmp_path / f"data/cfimdb-{official}")
    (tmp_path / "model.pt").rename(tmp_path / "stories42M.pt")
    for name in MODULES:
        shutil.copy(ROOT / name, tmp_path)
    before = {*os.listdir(tmp_path), "__pycache__"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONWARNINGS"] = "ignore::UserWarning"  # PyTorch 2.1 warns of its own code
    outputs = [f"cfimdb-{split}-lora-output.txt" for split in ("dev", "test")]

    def start(*more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "run_llama.py", "--option", "lora", "--batch_size", "10", "--dev_out",
             outputs[0], "--test_out", outputs[1], *more],
            cwd=tmp_path, capture_output=True, env=environment, encoding="utf-8")

    result = start()
    assert (result.returncode, result.stderr) == (0, "")
    assert set(os.listdir(tmp_path)) - before == {*outputs, "lora-5-2e-05.pt"}
    result = start("--epochs", "0")
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
