"""The official checkpoint's layout: in small, and in full as a stand-in made from its beginning."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
import runs
import sanity_check
from conftest import SMALL
from llama import Llama, load_pretrained
from runs import ROOT
from utils import KIND, PROMPT

ROWS = 108  # rows of the embedding in the known beginning of stories42M.pt
# The four jobs, in a process of their own that ends by printing its peak memory in GB.
JOBS = """
import json, pathlib, sys
import run_llama, utils
run_llama.generate_sentence(run_llama.get_args([]), utils.PROMPT, "story.txt", max_new_tokens=5)
for command in json.loads(sys.argv[1]):
    assert run_llama.main(command) == 0
if sys.platform == "linux":
    status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    print(int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9)
"""


@pytest.fixture
def complete(assets: Path) -> Iterator[Callable[..., Path]]:
    """Make a stand-in of 232 MB, removed after the test: pytest would keep those of three runs."""
    program = assets / "complete_stories42M.py"
    if not program.is_file():
        pytest.skip(f"no {program}")

    def complete(*options: str) -> Path:
        subprocess.run([sys.executable, program, path, *options], check=True)
        return path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stories42M.pt")
        yield complete


def test_its_layout_in_small_loads_without_a_word(tmp_path, capsys):
    weights = reference.seeded_weights(SMALL, seed=1)
    tensors = {name: torch.tensor(weight) for name, weight in weights.items()}
    norm, attention = tensors.pop("norm.weight"), {
        name: tensors.pop(name) for name in weights if "attention.compute" in name}
    model = OrderedDict(tensors | {"norm.weight": norm} | {
        "output.weight": tensors["tok_embeddings.weight"].clone()} | attention)
    model._metadata = OrderedDict({"": {"version": 1}, "tok_embeddings": {"version": 1}})
    path = tmp_path / "small.pt"
    torch.save({"model": model, "model_args": SMALL, "iter_num": 164000, "best_val_loss":
                torch.tensor(0.85), "config": {"out_dir": "out", "compile": False}}, path)
    tokens = np.random.default_rng(0).integers(0, SMALL["vocab_size"], (2, 9))
    assert_computes(path, weights, SMALL, tokens, capsys)


def assert_computes(
    path: Path, weights: reference.Weights, args: dict, tokens: np.ndarray, capsys
) -> Llama:
    """A checkpoint loads without a word, and the model has the reference's numbers."""
    capsys.readouterr()
    model = load_pretrained(path)
    assert capsys.readouterr() == ("", "")
    with torch.inference_mode():
        ids = torch.tensor(tokens)
        for found, expected in zip(model(ids, ids), reference.forward(weights, args, tokens)):
            np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)
    return model


@pytest.mark.slow
def test_a_stand_in_has_the_official_numbers_and_does_the_four_jobs(complete, assets, capsys):
    path = complete()
    tokens = sanity_check.OFFICIAL_IDS.numpy()
    model = assert_computes(path, *reference.read_checkpoint(path), tokens, capsys)
    official = torch.load(ROOT / "sanity_check.data", weights_only=True)
    rows = model.output.weight[:ROWS].detach()
    np.testing.assert_allclose(official["hidden_states"][:, -1] @ rows.T,
                               official["logits"][:, 0, :ROWS], atol=1e-5, rtol=0)
    assert_does_the_jobs(path.parent, assets)


def assert_does_the_jobs(folder: Path, assets: Path) -> None:
    """A story and predictions for a sentence of each label, in less than 2 GB."""
    shutil.copy(assets / "tokenizer.model", folder)
    for split in runs.SIZES:
        lines = (assets / f"data/sst-{split}.txt").read_text(encoding="utf-8").splitlines()
        first = {line[0]: line for line in reversed(lines)}
        (folder / f"{split}.txt").write_text("\n".join(first.values()), encoding="utf-8")
    commands = [runs.command(option, **{
        "pretrained-model-path": "stories42M.pt", "lr": 2e-5,
        "label-names": assets / "data/sst-label-mapping.json"}) for option in KIND]
    done = subprocess.run(
        [sys.executable, "-c", JOBS, json.dumps(commands)], cwd=folder, capture_output=True,
        text=True, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert (folder / "story.txt").read_text(encoding="utf-8").startswith(PROMPT)
    for kind in KIND.values():
        for split in ("dev", "test"):
            predicted = runs.labels_in(folder / f"my-{split}-{kind}-output.txt")
            assert len(predicted) == 5 and {*predicted} <= {*range(5)}
    if sys.platform == "linux":
        assert float(done.stdout.split()[-1]) < 2


def test_an_output_layer_that_is_not_the_embedding_is_refused(complete, capsys):
    assert "output.weight differs from tok_embeddings.weight" in refusal(
        complete("--untie"), capsys)


def test_an_interrupted_download_is_refused(assets, tmp_path, capsys):
    """The first 237,568 bytes of the official file, as that one left them."""
    if not (head := assets / "stories42M.head").is_file():
        pytest.skip(f"no {head}")
    assert "cut short" in refusal(Path(shutil.copy(head, tmp_path / "stories42M.pt")), capsys)


def refusal(path: Path, capsys) -> str:
    """The one line in which sanity_check.py refuses a file and says what to do."""
    status, printed, (said,) = runs.run([str(path)], capsys, sanity_check.main)
    assert (status, printed) == (2, "") and said.startswith(f"sanity_check.py: {path}: ")
    assert re.search("; .*(replace|download|use another)", said)
    return said
