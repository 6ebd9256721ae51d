"""The two classifiers against the NumPy reference, and what of them gets trained."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

import classifier
import reference
from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from conftest import SMALL
from llama import load_pretrained

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


def test_scores_are_sums_over_the_tokens_of_each_name(small_checkpoint, small_weights):
    """All read from one distribution, by a model that is frozen."""
    expected = reference.zero_shot_scores(small_weights, SMALL, ROWS, list(Names.ids.values()))
    model = zero_shot_classifier(small_checkpoint)
    assert_allclose(model(torch.tensor(ROWS)).numpy(), expected, rtol=1e-5, atol=1e-4)
    assert not any(p.requires_grad for p in model.parameters())


def test_names_and_labels_must_be_as_many(small_checkpoint):
    with pytest.raises(ValueError, match="4 label names for 5 labels"):
        zero_shot_classifier(small_checkpoint, num_labels=5)


def test_log_probabilities_are_of_the_last_padded_position(small_checkpoint, small_weights):
    model = embedding_classifier(small_checkpoint).eval()
    _, hidden = reference.forward(small_weights, SMALL, ROWS)
    head, bias = (p.detach().double().numpy() for p in model.classifier_head.parameters())
    expected = np.log(reference.softmax(hidden[:, -1] @ head.T + bias))
    assert_allclose(model(torch.tensor(ROWS)).detach(), expected, rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("option, loaded, trained", [
    ("pretrain", True, False), ("finetune", False, True), ("lora", True, True),
    ("lora", False, False), (None, True, True)])
def test_option_decides_what_is_trained(small_checkpoint, monkeypatch, option, loaded, trained):
    """Other options than the two named ones leave the Llama as it was loaded."""
    monkeypatch.setattr(classifier, "load_pretrained",
                        lambda path: load_pretrained(path).requires_grad_(loaded))
    model = embedding_classifier(small_checkpoint, option)
    nn.functional.nll_loss(model(torch.tensor(ROWS)), torch.tensor([4, 0, 2])).backward()
    for name, parameter in model.named_parameters():
        wanted = trained or name.startswith("classifier_head")
        assert parameter.requires_grad == (parameter.grad is not None) == wanted, name
