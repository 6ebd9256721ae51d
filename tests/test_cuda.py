"""On a GPU: the same numbers as on the CPU, and all jobs. Skipped where there is none."""

import numpy as np
import pytest
import torch

import reference
import run_llama
from conftest import SMALL
from llama import load_pretrained
from utils import pick_device

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

WIDE = SMALL | {"dim": 128, "n_heads": 4, "n_layers": 3}
SENTENCES = {0: "a cat sat on a mat", 1: "one big red ball in the park"}


@pytest.fixture
def precision():
    """Leave the setting for TF32 as it was."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_tokenizer, precision):
    """Run the command line on the GPU, in a folder with data and a small model."""
    shape = WIDE | {"vocab_size": 290}
    reference.save_checkpoint(tmp_path / "model.pt",
                              reference.seeded_weights(shape, seed=0), shape)
    for split, count in {"train": 24, "dev": 8, "test": 8}.items():
        lines = [f"{n % 2} ||| {SENTENCES[n % 2]} {'and a girl ' * (n % 5)}\n"
                 for n in range(count)]
        (tmp_path / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "names.json").write_text('["cat", "ball"]', encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def run(option: str, *more: str) -> int:
        ending = run_llama.KIND.get(option)
        outputs = [] if option == "generate" else [
            "--dev_out", f"dev-{ending}-output.txt", "--test_out", f"test-{ending}-output.txt"]
        return run_llama.main([
            "--use_gpu", "--option", option, "--pretrained-model-path", "model.pt", "--tokenizer",
            str(tiny_tokenizer), "--train", "train.txt", "--dev", "dev.txt", "--test", "test.txt",
            "--label-names", "names.json", "--epochs", "2", "--lr", "0.01", *outputs, *more])

    run.folder = tmp_path
    return run


def results(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("tf32, tolerance", [(False, 1e-4), (True, 1e-2)])
@pytest.mark.parametrize("seqlen", [9, 300])
def test_cpu_and_gpu_agree(tmp_path, precision, tf32, tolerance, seqlen):
    path = reference.save_checkpoint(
        tmp_path / "model.pt", reference.seeded_weights(WIDE, seed=0), WIDE)
    device = pick_device(use_gpu=True)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    ids = torch.tensor(np.random.default_rng(0).integers(0, WIDE["vocab_size"], (3, seqlen)))
    model = load_pretrained(path)
    with torch.inference_mode():
        expected = model(ids)
        found = model.to(device)(ids.to(device))
    for ours, theirs in zip(found, expected):
        assert (ours.cpu() - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("option", ["generate", "prompt", "finetune", "lora"])
def test_a_job_repeats_to_the_byte(run, option):
    assert run(option) == 0
    first = results(run.folder)
    assert run(option) == 0
    assert results(run.folder) == first


@pytest.mark.parametrize("option", ["finetune", "lora"])
def test_an_interrupted_run_resumes_to_the_same_bytes(run, option, monkeypatch):
    assert run(option) == 0
    expected = results(run.folder)
    train_epoch = run_llama.train_epoch

    def interrupted(args, model, optimizer, loader, device, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return train_epoch(args, model, optimizer, loader, device, epoch)

    monkeypatch.setattr(run_llama, "train_epoch", interrupted)
    assert run(option) == 130
    monkeypatch.undo()
    monkeypatch.chdir(run.folder)
    assert run(option, "--resume") == 0
    assert results(run.folder) == expected


def test_a_full_gpu_is_said_in_one_line(run, monkeypatch, capsys):
    def fill(*_) -> None:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")

    monkeypatch.setattr(run_llama, "train_epoch", fill)
    assert run("finetune") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "out of memory" in error


def test_bfloat16_is_refused(run, capsys):
    assert run("generate", "--dtype", "bfloat16") == 2
    assert "slower than float32" in capsys.readouterr().err
