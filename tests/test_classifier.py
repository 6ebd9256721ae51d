"""The two classifiers against the NumPy reference, and a trained one saved and loaded."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

import reference
from classifier import (
    LlamaEmbeddingClassifier,
    LlamaZeroShotClassifier,
    encode,
    load_classifier,
    make_loader,
    save_classifier,
    with_question,
)
from conftest import SMALL
from llama import load_pretrained
from lora import apply_lora, merge_lora_weights
from tokenizer import Tokenizer
from utils import read_examples

PAD = 3
ROWS = [[1, 5, 9, 60, 2], [1, 7, PAD, PAD, PAD], [1, 33, 34, 35, PAD]]


class Names:
    """A tokenizer of label names alone, for a model without one."""

    ids = {"bad": [7], "so so": [4, 11, 7], "great": [50, 59], "good good": [9, 9]}

    def encode(self, name: str, bos: bool, eos: bool) -> list[int]:
        assert not bos and not eos
        return self.ids[name]


def config_of(checkpoint: Path, num_labels: int, **more) -> SimpleNamespace:
    return SimpleNamespace(num_labels=num_labels, pretrained_model_path=str(checkpoint), **more)


def embedding_classifier(checkpoint: Path, option: str = "finetune", dropout: float = 0.3,
                         num_labels: int = 5) -> LlamaEmbeddingClassifier:
    torch.manual_seed(0)
    return LlamaEmbeddingClassifier(config_of(
        checkpoint, num_labels, hidden_dropout_prob=dropout, option=option))


# Zero-shot


def test_scores_are_sums_over_the_tokens_of_each_name(small_checkpoint, small_weights):
    # One token, several, and the same one twice; all from one distribution.
    model = LlamaZeroShotClassifier(config_of(small_checkpoint, 4), Names(), list(Names.ids))
    expected = reference.zero_shot_scores(small_weights, SMALL, ROWS, list(Names.ids.values()))
    scores = model(torch.tensor(ROWS)).numpy()
    assert scores.shape == (3, 4)
    assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)


@pytest.fixture(scope="module")
def zero_shot_on_sst(assets, stories260k):
    """The model with real weights, its tokenizer, and 12 real sentences with the question."""
    names = ["terrible", "bad", "okay", "good", "excellent"]
    tokenizer = Tokenizer(tokenizer_model=str(assets / "tok512.model"))
    model = LlamaZeroShotClassifier(config_of(stories260k, 5), tokenizer, names)
    examples = read_examples(str(assets / "data" / "sst-dev.txt"))[:12]
    return model, tokenizer, names, encode(with_question(examples, names), tokenizer)


def test_scores_of_real_sentences_follow_the_definition(zero_shot_on_sst, stories260k):
    model, tokenizer, names, encoded = zero_shot_on_sst
    weights, args = reference.read_checkpoint(stories260k)
    labels = [tokenizer.model.encode(name) for name in names]
    assert max(map(len, labels)) > 1
    for start, (ids, _) in enumerate(make_loader(encoded, 4, tokenizer.pad_id)):
        rows = [sentence.tolist() for sentence, _ in encoded[4 * start:4 * start + 4]]
        longest = max(map(len, rows))
        padded = [row + [PAD] * (longest - len(row)) for row in rows]
        expected = reference.zero_shot_scores(weights, args, padded, labels)
        scores = model(ids).numpy()
        assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)
        assert (scores.argmax(-1) == expected.argmax(-1)).all()


def test_scores_depend_on_the_padding_that_the_batch_asks_for(zero_shot_on_sst, stories260k):
    model, tokenizer, names, encoded = zero_shot_on_sst
    weights, args = reference.read_checkpoint(stories260k)
    short = min((ids for ids, _ in encoded), key=len).tolist()
    padded = short + [tokenizer.pad_id] * 9
    labels = [tokenizer.model.encode(name) for name in names]
    alone, beside_longer = (model(torch.tensor([row])).numpy() for row in (short, padded))
    assert abs(alone - beside_longer).max() > 0.1
    assert_allclose(beside_longer, reference.zero_shot_scores(weights, args, [padded], labels),
                    rtol=1e-5, atol=1e-4)


def test_scores_do_not_depend_on_the_rows_beside(small_checkpoint):
    model = LlamaZeroShotClassifier(config_of(small_checkpoint, 4), Names(), list(Names.ids))
    together = model(torch.tensor(ROWS))
    for row, scores in zip(ROWS, together):
        assert_allclose(model(torch.tensor([row]))[0], scores, rtol=1e-5, atol=1e-5)


def test_names_and_labels_must_be_as_many(small_checkpoint):
    with pytest.raises(ValueError, match="4 label names for 5 labels"):
        LlamaZeroShotClassifier(config_of(small_checkpoint, 5), Names(), list(Names.ids))


def test_asking_trains_nothing(small_checkpoint):
    model = LlamaZeroShotClassifier(config_of(small_checkpoint, 4), Names(), list(Names.ids))
    assert not any(p.requires_grad for p in model.parameters())


# The trained classifier


def log_softmax(x: np.ndarray) -> np.ndarray:
    return np.log(reference.softmax(x))


def test_log_probabilities_are_of_the_last_padded_position(small_checkpoint, small_weights):
    model = embedding_classifier(small_checkpoint).eval()
    head, bias = (p.detach().double().numpy() for p in model.classifier_head.parameters())
    _, hidden = reference.forward(small_weights, SMALL, ROWS)
    result = model(torch.tensor(ROWS)).detach().numpy()
    assert result.shape == (3, 5)
    assert_allclose(result, log_softmax(hidden[:, -1] @ head.T + bias), rtol=1e-5, atol=1e-5)


def test_log_probabilities_of_real_sentences_follow_the_definition(assets, stories260k):
    model = embedding_classifier(stories260k).eval()
    weights, args = reference.read_checkpoint(stories260k)
    head, bias = (p.detach().double().numpy() for p in model.classifier_head.parameters())
    tokenizer = Tokenizer(tokenizer_model=str(assets / "tok512.model"))
    examples = read_examples(str(assets / "data" / "sst-dev.txt"))[:4]
    ((ids, _),) = make_loader(encode(examples, tokenizer), 4, tokenizer.pad_id)
    _, hidden = reference.forward(weights, args, ids)
    assert_allclose(model(ids).detach().numpy(), log_softmax(hidden[:, -1] @ head.T + bias),
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


def test_the_last_position_alone_has_values_and_gradients_of_the_full_path(small_checkpoint):
    model = embedding_classifier(small_checkpoint, dropout=0.0).double()
    ids, labels = torch.tensor(ROWS), torch.tensor([4, 0, 2])
    results = []
    for full in (False, True):
        model.zero_grad()
        log_probs = model(ids) if not full else nn.functional.log_softmax(
            model.classifier_head(model.llama(ids)[1][:, -1]), dim=-1)
        nn.functional.nll_loss(log_probs, labels).backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append({"value": log_probs.detach()} | gradients)
    everything = {"value"} | dict(model.named_parameters()).keys()
    assert results[0].keys() == results[1].keys() == everything
    for name in results[0]:
        assert_allclose(results[0][name], results[1][name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("option,llama_is_trained", [
    ("finetune", True), ("pretrain", False), ("lora", False)])
def test_option_decides_what_is_trained(small_checkpoint, option, llama_is_trained):
    model = embedding_classifier(small_checkpoint, option)
    nn.functional.nll_loss(model(torch.tensor(ROWS)), torch.tensor([4, 0, 2])).backward()
    for name, parameter in model.named_parameters():
        trained = llama_is_trained or name.startswith("classifier_head")
        assert parameter.requires_grad == (parameter.grad is not None) == trained, name


@pytest.mark.parametrize("option", ["generate", "", None])
def test_other_options_are_refused(small_checkpoint, option):
    with pytest.raises(ValueError, match="option"):
        embedding_classifier(small_checkpoint, option)


# Saving and loading


def test_a_saved_classifier_loads_as_it_was(tmp_path, small_checkpoint):
    model = embedding_classifier(small_checkpoint, num_labels=3)
    with torch.no_grad():  # as after training: LayerNorm biases are no longer zero
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) / 10
    save_classifier(str(tmp_path / "mine.pt"), model, options={"lr": 0.1}, epoch=2)
    loaded = load_classifier(str(tmp_path / "mine.pt"))
    assert loaded.num_labels == 3 and not loaded.training
    assert loaded.llama.config == model.llama.config
    assert loaded.llama.output.weight is loaded.llama.tok_embeddings.weight
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    # Not compared bit by bit while one is frozen and the other not: PyTorch picks the kernel of a
    # matrix product by that, too.
    model.eval().requires_grad_(False), loaded.requires_grad_(False)
    assert torch.equal(loaded(torch.tensor(ROWS)), model(torch.tensor(ROWS)))
    file = torch.load(tmp_path / "mine.pt", weights_only=True)
    assert (file["num_labels"], file["options"], file["epoch"]) == (3, {"lr": 0.1}, 2)


def test_a_merged_lora_classifier_loads_as_a_plain_one(tmp_path, small_checkpoint):
    model = apply_lora(embedding_classifier(small_checkpoint, "lora"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    expected = model.eval()(torch.tensor(ROWS))
    save_classifier(str(tmp_path / "mine.pt"), merge_lora_weights(model))
    loaded = load_classifier(str(tmp_path / "mine.pt"))
    assert not any("lora" in name for name in loaded.state_dict())
    assert_allclose(loaded(torch.tensor(ROWS)).detach(), expected.detach(), rtol=0, atol=1e-5)


@pytest.fixture
def saved(tmp_path, small_checkpoint) -> Path:
    save_classifier(str(tmp_path / "mine.pt"), embedding_classifier(small_checkpoint))
    return tmp_path / "mine.pt"


def damage(path: Path, change) -> None:
    file = torch.load(path, weights_only=True)
    change(file["model"])
    torch.save(file, path)


@pytest.mark.parametrize("change,message", [
    (lambda w: w.pop("classifier_head.weight"), "classifier_head"),
    (lambda w: w.pop("classifier_head.bias"), "missing: classifier_head.bias"),
    (lambda w: w.update({"classifier_head.weight": torch.zeros(5)}), "classifier_head"),
    (lambda w: w.update({"classifier_head.weight": torch.zeros(5, 7)}), r"shape.*\(5, 7\)"),
    (lambda w: w.pop("llama.norm.bias"), "missing: llama.norm.bias"),
    (lambda w: w.update({"llama.extra": torch.zeros(5)}), "unexpected: llama.extra"),
    (lambda w: w["llama.norm.weight"].fill_(torch.nan), "not finite: llama.norm.weight"),
    (lambda w: w.update({"llama.output.weight": w["llama.output.weight"] + 1}), "output.weight"),
])
def test_a_damaged_classifier_is_refused_by_name(saved, change, message):
    damage(saved, change)
    with pytest.raises(ValueError, match=message) as error:
        load_classifier(str(saved))
    assert str(saved) in str(error.value) and "\n" not in str(error.value)


def test_a_language_model_is_no_classifier_and_the_other_way_round(saved, small_checkpoint):
    with pytest.raises(ValueError, match="no classifier"):
        load_classifier(str(small_checkpoint))
    with pytest.raises(ValueError, match="unexpected: classifier_head"):
        load_pretrained(str(saved))


def test_a_missing_classifier_says_what_makes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pt.*run_llama.py"):
        load_classifier(str(tmp_path / "nothing.pt"))


def test_a_cut_off_classifier_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="damaged"):
        load_classifier(str(saved))
