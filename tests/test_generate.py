"""Generation: the published continuation, the exact sampling distribution, and no crash."""

import math

import numpy as np
import pytest
import sentencepiece
import torch
from scipy.stats import chisquare

import reference
from config import LlamaConfig
from conftest import SMALL
from llama import Llama, choose_token, load_pretrained
from rope import precompute_freqs_cis


def model_that_says(logits: list[float]) -> Llama:
    """A model that gives the same logits after any text: its last norm gives its bias alone."""
    model = Llama(LlamaConfig(vocab_size=len(logits), dim=len(logits), n_layers=1, n_heads=1,
                              n_kv_heads=1)).eval()
    with torch.no_grad():
        model.tok_embeddings.weight.copy_(torch.eye(len(logits)))
        model.norm.weight.zero_()
        model.norm.bias.copy_(torch.tensor(logits))
    return model


def test_greedy_continuation_of_real_weights_to_the_letter(assets, stories260k):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(assets / "tok512.model"))
    prompt = [pieces.bos_id()] + pieces.encode("Once upon a time, there was a little girl")
    ids = load_pretrained(stories260k).generate(torch.tensor([prompt]), 60, temperature=0.0)
    assert pieces.decode(ids[0].tolist()).startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the "
        "park. One day, she saw a big, shiny ball.")


@pytest.mark.parametrize("length", [1, 10, 16, 30])
def test_greedy_generation_sees_the_last_max_seq_len_tokens_of_each_row(
        small_checkpoint, small_weights, length):
    rows = np.random.default_rng(12).integers(0, SMALL["vocab_size"], (2, length)).tolist()
    model = load_pretrained(small_checkpoint)
    for args, same in ((SMALL, True), (SMALL | {"max_seq_len": 99}, False)):
        expected = [
            row + reference.greedy_continuation(small_weights, args, row, 20) for row in rows]
        assert (model.generate(torch.tensor(rows), 20, 0.0).tolist() == expected) == same
    assert model.generate(torch.tensor(rows), 0).tolist() == rows


@pytest.mark.parametrize("temperature, epsilon", [(1.0, 0.05), (1.0, 0.0), (0.5, 0.05),
                                                  (2.0, 0.1), (1.0, 0.3)])
def test_samples_have_the_exact_distribution(temperature, epsilon):
    logits = [2.0, 1.5, 1.0, 0.0, -0.5, -1.0, -2.0, -6.0]
    expected = reference.next_token_distribution(np.array(logits), temperature, epsilon)
    torch.manual_seed(6)
    prompt = torch.zeros(5000, 1, dtype=torch.long)
    ids = model_that_says(logits).generate(prompt, 2, temperature, epsilon)[:, 1:]
    counts, possible = np.bincount(ids.flatten(), minlength=8), expected > 0
    assert counts.sum() == 10_000 and not counts[~possible].any()
    if possible.sum() > 1:
        assert chisquare(counts[possible], 10_000 * expected[possible]).pvalue > 0.01


def test_a_token_of_probability_epsilon_is_kept():
    torch.manual_seed(8)
    prompt = torch.zeros(400, 1, dtype=torch.long)
    ids = model_that_says([1.0] * 4).generate(prompt, 1, 1.0, epsilon=0.25)[:, 1]
    assert set(ids.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("temperature, epsilon", [
    (1.0, 0.251), (1.0, 1.0), (1e308, 0.251), (1e-5, 0.05), (1e-30, 0.0), (1e-320, 1.0)])
def test_the_most_likely_token_is_taken_where_none_or_no_other_reaches_epsilon(
        temperature, epsilon):
    model = model_that_says([0.0, 0.0, 0.001, 0.0])
    ids = model.generate(torch.zeros(50, 1, dtype=torch.long), 2, temperature, epsilon)
    assert (ids[:, 1:] == 2).all()


def test_rows_with_and_without_a_likely_token_do_not_affect_each_other():
    """Of every two rows one falls back; the other has two tokens to choose from."""
    torch.manual_seed(9)
    logits = torch.tensor([[0.0, 0.1, 0.0, 0.0], [3.0, 0.0, 3.0, 0.0]]).repeat(1000, 1)
    fallen_back, drawn = choose_token(logits, 1.0, epsilon=0.3).view(1000, 2).T
    assert (fallen_back == 1).all() and set(drawn.tolist()) == {0, 2}
    assert abs((drawn == 0).float().mean() - 0.5) < 5 * 0.5 / math.sqrt(1000)


@pytest.mark.parametrize("causal", [False, True], ids=["unmasked", "causal"])
def test_training_goes_on_after_generation(small_weights, tmp_path, causal):
    """With tables that were made, and kept, in inference mode."""
    precompute_freqs_cis.cache_clear()
    model = load_pretrained(reference.save_checkpoint(
        tmp_path / "model.pt", small_weights, SMALL | {"causal": causal}))
    text = model.generate(torch.tensor([[1, 2, 3]]), 4)
    logits, _ = model.train()(text[:, :6].clone(), targets=text)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("prompt, count, options, named", [
    *(([[0]], 1, {"temperature": value}, "temperature") for value in (-0.1, math.nan, math.inf)),
    *(([[0]], 1, {"epsilon": value}, "epsilon") for value in (-0.01, 1.01, math.nan)),
    ([[0]], -1, {}, "prompt"), ([0], 1, {}, "prompt"), ([[]], 1, {}, "prompt")])
def test_what_is_out_of_range_is_refused_by_name(prompt, count, options, named):
    with pytest.raises(ValueError, match=named):
        model_that_says([0.0] * 4).generate(torch.tensor(prompt), count, **options)
