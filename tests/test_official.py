"""The official checkpoint in full, as a stand-in made from its beginning: numbers and jobs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
import runs
from llama import load_pretrained
from sanity_check import OFFICIAL_IDS
from utils import KIND

JOBS = """
import sys
from pathlib import Path
import run_llama
run_llama.generate_sentence(run_llama.get_args([]), "One day", "story.txt", max_new_tokens=5)
for command in {}:
    assert run_llama.main(command) == 0
if sys.platform == "linux":
    assert int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) < 2e6  # KB
"""


@pytest.mark.slow
def test_a_stand_in_has_the_official_numbers_and_does_the_four_jobs(
        assets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program = assets / "complete_stories42M.py"
    if not program.is_file():
        pytest.skip(f"no {program}")
    subprocess.run([sys.executable, program, "stories42M.pt"], check=True)
    try:
        check_numbers()
        assert capsys.readouterr() == ("", "")  # no keys to warn of
        check_jobs(assets)
    finally:
        os.unlink("stories42M.pt")  # 232 MB; pytest would keep those of three runs


@torch.inference_mode()
def check_numbers() -> None:
    model = load_pretrained("stories42M.pt")
    weights, args = reference.read_checkpoint("stories42M.pt")
    expected = reference.forward(weights, args, OFFICIAL_IDS.numpy())
    for ours, theirs in zip(model(OFFICIAL_IDS, OFFICIAL_IDS), expected):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-4)
    official = torch.load(runs.ROOT / "sanity_check.data", weights_only=True)
    rows = model.output.weight[:108]  # those in the known beginning of the file
    np.testing.assert_allclose(official["hidden_states"][:, -1] @ rows.T,
                               official["logits"][:, 0, :108], atol=1e-5, rtol=0)


def check_jobs(assets) -> None:
    """A story, and predictions for a sentence of each label."""
    shutil.copy(assets / "tokenizer.model", ".")
    for split in runs.SIZES:
        lines = (assets / f"data/sst-{split}.txt").read_text(encoding="utf-8").splitlines()
        some = {line[0]: line for line in lines}.values()
        Path(f"{split}.txt").write_text("\n".join(some), encoding="utf-8")
    commands = [runs.command(option, **{
        "pretrained-model-path": "stories42M.pt", "lr": 2e-5,
        "label-names": assets / "data/sst-label-mapping.json"}) for option in KIND]
    subprocess.run([sys.executable, "-c", JOBS.format(commands)], check=True,
                   env=os.environ | {"PYTHONPATH": str(runs.ROOT), "OMP_NUM_THREADS": "1"})
    assert Path("story.txt").read_text(encoding="utf-8").startswith("One day")
    for name in (f"my-{split}-{k}-output.txt" for split in ("dev", "test") for k in KIND.values()):
        predicted = runs.labels_in(name)
        assert len(predicted) == 5 and {*predicted} <= {*range(5)}
