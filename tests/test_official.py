"""The official checkpoint in full, as a stand-in made from its beginning: numbers and jobs."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
import runs
import sanity_check
from llama import load_pretrained
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
def stand_in(assets: Path, tmp_path: Path) -> Iterator[Path]:
    """A file of 232 MB, removed after the test: pytest would keep those of three runs."""
    program, path = assets / "complete_stories42M.py", tmp_path / "stories42M.pt"
    if not program.is_file():
        pytest.skip(f"no {program}")
    subprocess.run([sys.executable, program, path], check=True)
    yield path
    path.unlink()


@pytest.mark.slow
def test_a_stand_in_has_the_official_numbers_and_does_the_four_jobs(stand_in, assets, capsys):
    model = load_pretrained(stand_in)
    assert capsys.readouterr() == ("", "")  # no keys to warn of
    weights, args = reference.read_checkpoint(stand_in)
    with torch.inference_mode():
        ids = sanity_check.OFFICIAL_IDS
        for found, expected in zip(model(ids, ids), reference.forward(weights, args, ids.numpy())):
            np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)
    official = torch.load(ROOT / "sanity_check.data", weights_only=True)
    rows = model.output.weight[:ROWS].detach()
    np.testing.assert_allclose(official["hidden_states"][:, -1] @ rows.T,
                               official["logits"][:, 0, :ROWS], atol=1e-5, rtol=0)
    assert_does_the_jobs(stand_in.parent, assets)


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
