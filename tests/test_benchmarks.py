"""The benchmark compares equal computations, and notices a difference; speed is not tested."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from config import LlamaConfig
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import bench
from bench import CODE, TEXTBOOK


@pytest.fixture
def run(tmp_path: Path) -> SimpleNamespace:
    return bench.prepare(str(tmp_path), "cpu", rounds=1, quick=True)


@pytest.mark.parametrize("change", [
    pytest.param((CODE[TEXTBOOK].rope, "rotate", lambda x, cos, sin: x), id="rotation"),
    pytest.param((CODE[TEXTBOOK].optimizer.AdamW, "update", lambda *_: None), id="optimizer")])
def test_a_changed_formula_is_noticed(run, monkeypatch, change):
    monkeypatch.setattr(*change)
    with pytest.raises(ValueError, match="do not agree"):
        bench.measure_speed("finetune", "SST", run)


@pytest.mark.parametrize("data, mean, padded", [("SST", 27, 0.57), ("CFIMDB", 236, 0.42)])
def test_batches_have_the_lengths_of_the_official_sentences(run, data, mean, padded):
    run.quick = False
    rows = [row != run.tokenizer.pad_id
            for ids, _ in bench.make_batches("finetune", data, 50, run) for row in ids]
    lengths = torch.tensor([row.sum() for row in rows]).double()
    assert lengths.mean() == pytest.approx(mean, rel=0.05)
    assert lengths.max() <= bench.SETS[data].longest + 1
    assert 1 - lengths.sum() / sum(map(len, rows)) == pytest.approx(padded, abs=0.03)


def test_needed_operations_are_those_of_the_matrix_products():
    """Counted by hand for one layer of dim 4, feed-forward 8, on one row of 3 tokens."""
    shape = LlamaConfig(vocab_size=10, dim=4, n_layers=1, n_heads=2, n_kv_heads=1, hidden_dim=8)
    keys_and_values, query_and_output = 2 * 3 * 4 * (2 + 2), 2 * 2 * 4 * 4
    scores_and_sum, feed_forward = 2 * 2 * 3 * 4, 3 * 2 * 4 * 8
    forward = keys_and_values + query_and_output + scores_and_sum + feed_forward
    assert bench.needed_flops(shape, "prompt", 1, 3) == forward + 2 * 4 * 10  # and logits
    assert bench.needed_flops(shape, "finetune", 1, 3) == 3 * forward


def test_the_program_finds_that_both_versions_agree_and_prints_a_table(capsys):
    speeds = ["fine-tuning SST", "LoRA CFIMDB", "zero-shot SST", "generation"]
    assert bench.main(["--quick", "--rounds=1", "--jobs", *speeds, "--option generate"]) == 0
    table = capsys.readouterr().out
    rows = re.findall(r"\| (.+) \| .+ /s \| .+ /s \| [\d.]+× \| .+% / .+% \| (.+) \|\n", table)
    assert [job for job, _ in rows] == speeds
    assert all(float(apart) < 1e-5 for _, apart in rows)
    assert re.search(r"\n\| --option generate \| [\d.]+ s \| [\d.]+ s \| [\d.]+× \|", table)


def test_memory_is_that_of_a_process_of_its_own(run):
    ballast = torch.ones(2**28)  # 1 GiB here, which the other processes must not report
    (used,), unit, *_ = bench.measure_memory("lora", "CFIMDB", run)
    assert unit == "GB" and 0 < max(used) < ballast.nbytes / 1e9
