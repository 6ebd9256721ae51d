"""The benchmark compares equal computations, and notices a difference; speed is not tested."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import reference
from config import LlamaConfig
from conftest import ROOT, SMALL

sys.path.insert(0, str(ROOT / "benchmarks"))

import bench
import textbook
import workloads

SHAPE = LlamaConfig(vocab_size=300, dim=16, n_layers=2, n_heads=4, n_kv_heads=2)


@pytest.fixture
def run(tmp_path: Path) -> SimpleNamespace:
    path = str(tmp_path / "seeded.pt")
    workloads.save_seeded(path, SHAPE)
    return SimpleNamespace(checkpoint=path, tokenizer=workloads.AnyTokens(), quick=True, rounds=1,
                           device=torch.device("cpu"), shape=SHAPE)


def test_the_textbook_version_agrees_with_the_numpy_reference(small_weights):
    model = textbook.Llama(reference.complete(SMALL))
    weights = {name: torch.tensor(w, dtype=torch.float32) for name, w in small_weights.items()}
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    tokens = torch.randint(0, SMALL["vocab_size"], (3, 11), generator=torch.manual_seed(0))
    logits, hidden = model.eval()(tokens, targets=tokens)
    expected_logits, expected_hidden = reference.forward(small_weights, SMALL, tokens)
    np.testing.assert_allclose(logits.detach(), expected_logits, atol=2e-5, rtol=1e-4)
    np.testing.assert_allclose(hidden.detach(), expected_hidden, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("job", ["fine-tuning SST", "LoRA CFIMDB", "zero-shot SST", "generation"])
def test_both_versions_agree(run, job):
    assert bench.measure(job, run).apart < 1e-5


@pytest.mark.parametrize("change", [
    pytest.param((textbook, "rotate", lambda x: x), id="rotation"),
    pytest.param((textbook.AdamW, "step", lambda self: None), id="optimizer")])
def test_a_changed_formula_is_noticed(run, monkeypatch, change):
    monkeypatch.setattr(*change)
    with pytest.raises(ValueError, match="do not agree"):
        bench.measure("fine-tuning SST", run)


@pytest.mark.parametrize("name, published", [("SST", 27), ("CFIMDB", 236)])
def test_batches_made_without_the_data_have_its_lengths(run, name, published):
    run.quick = False
    batches = workloads.make_batches("finetune", name, 20, run)
    rows = torch.cat([ids.ne(3).sum(dim=1) for ids, _ in batches]).double()
    assert rows.mean() == pytest.approx(published, rel=0.1)
    assert rows.max() <= workloads.SETS[name].longest + 1


def test_needed_operations_are_those_of_the_matrix_products():
    """Counted by hand for one layer of dim 4, feed-forward 8, on one row of 3 tokens."""
    shape = LlamaConfig(vocab_size=10, dim=4, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=8)
    keys_and_values, query_and_output = 2 * 3 * 4 * (2 + 2), 2 * 2 * 4 * 4
    scores_and_sum, feed_forward = 2 * 2 * 3 * 4, 3 * 2 * 4 * 8
    forward = keys_and_values + query_and_output + scores_and_sum + feed_forward
    assert workloads.needed_flops(shape, "prompt", 1, 3) == forward + 2 * 4 * 10  # and logits
    assert workloads.needed_flops(shape, "finetune", 1, 3) == 3 * forward


def test_the_program_prints_a_table(tiny_tokenizer):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/bench.py", "--quick", "--rounds=1", "--jobs",
         "fine-tuning SST"], capture_output=True, text=True,
        env=os.environ | {"MINI_LLAMA_MIRROR": str(tiny_tokenizer.parent)})
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| fine-tuning SST \| [\d,]+ /s \| [\d,]+ /s \| [\d.]+× \|", done.stdout)


def test_memory_is_that_of_a_process_of_its_own(run):
    ballast = torch.ones(2**28)  # 1 GiB here, which the other processes must not report
    (used,), unit, *_ = bench.measure_memory("memory LoRA CFIMDB", run)
    assert unit == "GB" and 0 < max(used) < ballast.nbytes / 1e9
