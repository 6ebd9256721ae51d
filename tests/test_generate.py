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
from llama import Llama, causal_mask, load_pretrained
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
def test_greedy_generation_sees_the_last_max_seq_len_tokens(small_checkpoint, small_weights,
                                                            length):
    prompt = np.random.default_rng(12).integers(0, SMALL["vocab_size"], length).tolist()
    expected = reference.greedy_continuation(small_weights, SMALL, prompt, 20)
    found = load_pretrained(small_checkpoint).generate(torch.tensor([prompt]), 20, 0.0)
    assert found.tolist() == [prompt + expected]
    uncropped = SMALL | {"max_seq_len": 99}
    assert reference.greedy_continuation(small_weights, uncropped, prompt, 20) != expected


def test_rows_are_continued_independently_of_each_other(small_checkpoint):
    model, rows = load_pretrained(small_checkpoint), torch.tensor([[5, 6, 7], [8, 9, 10]])
    together = model.generate(rows, 8, 0.0)
    assert together.shape == (2, 11)
    for row, found in zip(rows, together):
        assert torch.equal(model.generate(row[None], 8, 0.0)[0], found)


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


@pytest.mark.parametrize("epsilon", [0.251, 0.9, 1.0])
def test_the_most_likely_token_is_taken_where_none_reaches_epsilon(epsilon):
    model = model_that_says([0.0, 0.0, 0.001, 0.0])
    ids = model.generate(torch.zeros(50, 1, dtype=torch.long), 2, 1.0, epsilon)
    assert (ids[:, 1:] == 2).all()


def test_rows_with_and_without_a_likely_token_go_together():
    """Of two rows one falls back; the model predicts the token that it has just seen, or none."""
    model = model_that_says([0.0] * 16)
    with torch.no_grad():  # hidden is a norm of the last token's embedding; 0 gives equal logits
        model.norm.weight.fill_(1.0)
        model.norm.bias.zero_()
        model.tok_embeddings.weight[0].zero_()
        for layer in model.layers:
            layer.attention.compute_output.weight.zero_()
            layer.feed_forward.w2.weight.zero_()
    torch.manual_seed(9)
    ids = model.generate(torch.tensor([[0], [5]]), 1, 1.0, epsilon=0.5)
    assert ids.tolist() == [[0, 0], [5, 5]]


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 1e-30, 1.0, 1e30, 1e308])
@pytest.mark.parametrize("epsilon", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("logits", [
    [3e38, -3e38, 0.0, 1.0], [3e38, 3e38, 3e38, 3e38], [math.nan] * 4, [0.0, math.nan, 1.0, 2.0],
    [math.inf, 0.0, 1.0, 2.0], [-math.inf] * 4, [1e-45, 0.0, 0.0, 0.0]])
def test_no_logits_crash_it(logits, temperature, epsilon):
    ids = model_that_says(logits).generate(torch.tensor([[1, 2], [0, 3]]), 3, temperature, epsilon)
    assert ids.shape == (2, 5) and ids.min() >= 0 and ids.max() <= 3


@pytest.mark.parametrize("temperature", [1e-320, 1e-30, 1e-3])
def test_a_temperature_close_to_zero_takes_the_most_likely_token(temperature):
    ids = model_that_says([0.0, 1.0, 3.0, 2.0]).generate(torch.tensor([[0]]), 3, temperature)
    assert ids.tolist() == [[0, 2, 2, 2]]


def test_no_new_tokens_leave_the_prompt(small_checkpoint):
    prompt = torch.tensor([[1, 2, 3]])
    assert torch.equal(load_pretrained(small_checkpoint).generate(prompt, 0), prompt)


@pytest.mark.parametrize("causal", [False, True], ids=["unmasked", "causal"])
def test_training_goes_on_after_generation(small_weights, tmp_path, causal):
    """With tables and masks that were made, and kept, in inference mode."""
    precompute_freqs_cis.cache_clear()
    causal_mask.cache_clear()
    model = load_pretrained(reference.save_checkpoint(
        tmp_path / "model.pt", small_weights, SMALL | {"causal": causal}))
    text = model.generate(torch.tensor([[1, 2, 3]]), 4)
    logits, _ = model.train()(text[:, :6].clone(), targets=text)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_seed_makes_samples_repeatable_and_temperature_zero_draws_nothing(small_checkpoint):
    model, prompt, texts = load_pretrained(small_checkpoint), torch.tensor([[1, 2, 3]]), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        model.generate(prompt, 5, 0.0)
        assert torch.equal(torch.get_rng_state(), before)
        texts.append(model.generate(prompt, 12, 1.0, 0.0).tolist())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("prompt, count, options, named", [
    *(([[0]], 1, {"temperature": value}, "temperature") for value in (-0.1, math.nan, math.inf)),
    *(([[0]], 1, {"epsilon": value}, "epsilon") for value in (-0.01, 1.01, math.nan)),
    ([[0]], -1, {}, "prompt"), ([0], 1, {}, "prompt"), ([[]], 1, {}, "prompt")])
def test_what_is_out_of_range_is_refused_by_name(prompt, count, options, named):
    with pytest.raises(ValueError, match=named):
        model_that_says([0.0] * 4).generate(torch.tensor(prompt), count, **options)
