"""On a GPU: the same numbers as on the CPU, and all jobs."""

import numpy as np
import pytest
import torch

import reference
import run_llama
import runs
from conftest import SMALL
from llama import load_pretrained

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

WIDE = SMALL | {"dim": 128, "n_heads": 4, "n_layers": 3}


@pytest.fixture
def precision():
    """Leave the setting for TF32 as it was."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def run(place, capsys, precision):
    """Run a command line on the GPU: its status, and its lines on standard error."""
    def run(option, **changed) -> tuple[int, list[str]]:
        status, _, said = runs.run(runs.command(option, use_gpu=True, epochs=2, **changed), capsys)
        return status, said
    return run


@pytest.mark.parametrize("tf32, tolerance", [(False, 1e-4), (True, 1e-2)])
@pytest.mark.parametrize("seqlen", [9, 300])
def test_cpu_and_gpu_agree(tmp_path, precision, tf32, tolerance, seqlen):
    path = reference.save_checkpoint(
        tmp_path / "model.pt", reference.seeded_weights(WIDE, seed=0), WIDE)
    device = run_llama.pick_device(use_gpu=True)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    ids = torch.tensor(np.random.default_rng(0).integers(0, WIDE["vocab_size"], (3, seqlen)))
    model = load_pretrained(path)
    with torch.inference_mode():
        expected = model(ids)
        found = model.to(device)(ids.to(device))
    for ours, theirs in zip(found, expected):
        assert (ours.cpu() - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("option", ["generate", *runs.KIND])
def test_a_job_repeats_to_the_byte_also_when_training_is_interrupted(run, option, interrupt_after):
    assert run(option)[0] == 0
    expected = runs.contents()
    if option in runs.TRAINING:
        interrupt_after(1, runs.command(option, use_gpu=True, epochs=2))
    assert run(option, resume=option in runs.TRAINING or None)[0] == 0
    assert runs.contents() == expected


def test_a_full_gpu_is_reported_in_one_line(run, monkeypatch):
    def step(optimizer):
        torch.empty(2**50, dtype=torch.uint8, device="cuda")

    monkeypatch.setattr(run_llama.AdamW, "step", step)
    status, said = run("finetune")
    assert status == 1 and "out of memory" in said[-1]
