"""The two classifiers against the NumPy reference, on small and on real weights."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

import reference
from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from conftest import SMALL
from tokenizer import Tokenizer

PAD = 3
ROWS = [[1, 5, 9, 60, 2], [1, 7, PAD, PAD, PAD], [1, 33, 34, 35, PAD]]


class Names:
    """A tokenizer of label names alone: one token, several, and the same one twice."""

    ids = {"bad": [7], "so so": [4, 11, 7], "great": [50, 59], "good good": [9, 9]}

    def encode(self, name: str, bos: bool, eos: bool) -> list[int]:
        assert not bos and not eos
        return self.ids[name]


def zero_shot_classifier(checkpoint: Path, num_labels: int = 4) -> LlamaZeroShotClassifier:
    config = SimpleNamespace(num_labels=num_labels, pretrained_model_path=str(checkpoint))
    return LlamaZeroShotClassifier(config, Names(), list(Names.ids))


def embedding_classifier(checkpoint: Path, option: str = "finetune",
                         dropout: float = 0.3) -> LlamaEmbeddingClassifier:
    torch.manual_seed(0)
    return LlamaEmbeddingClassifier(SimpleNamespace(
        num_labels=5, pretrained_model_path=str(checkpoint), hidden_dropout_prob=dropout,
        option=option))


@pytest.fixture(scope="module")
def real_rows(assets) -> list[list[int]]:
    """Sentences of SST with a question, as token ids; one batch, so padded to the longest."""
    tokenizer = Tokenizer(tokenizer_model=str(assets / "tok512.model"))
    lines = (assets / "data" / "sst-dev.txt").read_text(encoding="utf-8").splitlines()[:8]
    sentences = [line.partition(" ||| ")[2] for line in lines]
    rows = [tokenizer.encode(f"{sentence} This movie is ", bos=True, eos=False)
            for sentence in sentences]
    longest = max(map(len, rows))
    assert tokenizer.pad_id == PAD and min(map(len, rows)) < longest
    return [row + [PAD] * (longest - len(row)) for row in rows]


@pytest.mark.parametrize("build", [zero_shot_classifier, embedding_classifier])
def test_hooks_on_the_llama_fire_and_may_change_what_is_classified(small_checkpoint, build):
    model, seen = build(small_checkpoint).eval(), []
    before = model(torch.tensor(ROWS))

    def negate(module, inputs, output):
        seen.append(inputs[0])
        return tuple(-tensor for tensor in output)

    model.llama.register_forward_hook(negate)
    assert not torch.allclose(model(torch.tensor(ROWS)), before)
    assert len(seen) == 1 and seen[0].tolist() == ROWS


# Zero-shot


def test_scores_are_sums_over_the_tokens_of_each_name(small_checkpoint, small_weights):
    """All read from one distribution."""
    expected = reference.zero_shot_scores(small_weights, SMALL, ROWS, list(Names.ids.values()))
    scores = zero_shot_classifier(small_checkpoint)(torch.tensor(ROWS)).numpy()
    assert scores.shape == (3, 4)
    assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)


def test_scores_of_real_sentences_follow_the_definition(assets, stories260k, real_rows):
    names = ["terrible", "bad", "okay", "good", "excellent"]
    tokenizer = Tokenizer(tokenizer_model=str(assets / "tok512.model"))
    model = LlamaZeroShotClassifier(SimpleNamespace(
        num_labels=5, pretrained_model_path=str(stories260k)), tokenizer, names)
    weights, args = reference.read_checkpoint(stories260k)
    labels = [tokenizer.sp_model.encode(name) for name in names]
    assert max(map(len, labels)) > 1
    expected = reference.zero_shot_scores(weights, args, real_rows, labels)
    scores = model(torch.tensor(real_rows)).numpy()
    assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)
    assert (scores.argmax(-1) == expected.argmax(-1)).all()
    # Padding is read like any other token.
    padded = max(range(len(real_rows)), key=lambda row: real_rows[row].count(PAD))
    alone = model(torch.tensor([[token for token in real_rows[padded] if token != PAD]])).numpy()
    assert abs(alone - scores[padded]).max() > 0.1


def test_names_and_labels_must_be_as_many(small_checkpoint):
    with pytest.raises(ValueError, match="4 label names for 5 labels"):
        zero_shot_classifier(small_checkpoint, num_labels=5)


def test_asking_trains_nothing(small_checkpoint):
    model = zero_shot_classifier(small_checkpoint)
    assert not any(p.requires_grad for p in model.parameters())


# The trained classifier


def log_probs(model: LlamaEmbeddingClassifier, hidden: np.ndarray) -> np.ndarray:
    """log_softmax(W h + b) of the last position, in float64."""
    head, bias = (p.detach().double().numpy() for p in model.classifier_head.parameters())
    return np.log(reference.softmax(hidden[:, -1] @ head.T + bias))


def test_log_probabilities_are_of_the_last_padded_position(small_checkpoint, small_weights):
    model = embedding_classifier(small_checkpoint).eval()
    _, hidden = reference.forward(small_weights, SMALL, ROWS)
    result = model(torch.tensor(ROWS)).detach().numpy()
    assert_allclose(result, log_probs(model, hidden), rtol=1e-5, atol=1e-5)


def test_log_probabilities_of_real_sentences_follow_the_definition(stories260k, real_rows):
    model = embedding_classifier(stories260k).eval()
    weights, args = reference.read_checkpoint(stories260k)
    _, hidden = reference.forward(weights, args, real_rows)
    assert_allclose(model(torch.tensor(real_rows)).detach().numpy(), log_probs(model, hidden),
                    rtol=1e-4, atol=1e-4)


def test_dropout_between_hidden_state_and_head_is_for_training_alone(small_checkpoint):
    model = embedding_classifier(small_checkpoint, dropout=0.5)
    seen = []
    model.classifier_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ids = torch.tensor(ROWS).repeat(40, 1)
    model.eval()(ids)
    model.train()(ids)
    plain, dropped = seen
    kept = dropped != 0  # (120, dim): half of it, doubled
    assert abs(kept.float().mean() - 0.5) < 0.05
    assert_allclose(dropped[kept].detach(), 2 * plain[kept].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("option, llama_is_trained", [
    ("finetune", True), ("pretrain", False), ("lora", True), (None, True)])
def test_option_decides_what_is_trained(small_checkpoint, option, llama_is_trained):
    """Other options than the two named ones leave the Llama as it was loaded: to be trained."""
    model = embedding_classifier(small_checkpoint, option)
    nn.functional.nll_loss(model(torch.tensor(ROWS)), torch.tensor([4, 0, 2])).backward()
    for name, parameter in model.named_parameters():
        trained = llama_is_trained or name.startswith("classifier_head")
        assert parameter.requires_grad == (parameter.grad is not None) == trained, name
