"""classifier.py, on a stub of a language model."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from config import LlamaConfig

from .judge import SMALL, compare, part, replace

IDS = torch.tensor([[1, 5, 9, 60, 2], [1, 7, 3, 3, 3], [1, 33, 34, 35, 3]])  # 3 is padding
UNPADDED = range(3), (IDS != 3).sum(1) - 1  # the last position of each text
NAMES = {"bad": [7], "so so": [4, 11, 7], "great": [50, 59], "good good": [9, 9]}


class StubTokenizer:
    """A tokenizer of label names alone: one token, several, and the same one twice."""

    bos_id, eos_id, pad_id, n_words = 1, 2, 3, 61

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        return [1] * bos + NAMES[s] + [2] * eos


class StubLlama(nn.Module):
    """A language model whose hidden states depend on tokens and positions in a simple way."""

    def __init__(self) -> None:
        super().__init__()
        self.config = self.params = LlamaConfig(**SMALL)
        self.tok_embeddings = nn.Embedding(61, 24)
        self.output = nn.Linear(24, 61, bias=False)

    def forward(self, tokens, targets=None, *args, **kwargs):
        hidden = torch.sin(self.tok_embeddings(tokens).cumsum(1) * 2)
        return self.output(hidden if targets is not None else hidden[:, -1:]), hidden


@pytest.fixture
def make(classifier, monkeypatch):
    """A classifier of this name, around the stub."""
    def make(name: str, *args, trained: bool = True, option: str = "finetune") -> nn.Module:
        replace(monkeypatch, "llama", "load_pretrained",
                lambda *args, **kwargs: StubLlama().requires_grad_(trained))
        return getattr(classifier, name)(SimpleNamespace(
            pretrained_model_path="model.pt", num_labels=4, hidden_dropout_prob=0.5,
            option=option), *args)
    return make


@part("classifier.py LlamaZeroShotClassifier")
def test_scores_are_sums_of_log_probabilities_after_the_last_position(make):
    model = make("LlamaZeroShotClassifier", StubTokenizer(), list(NAMES)).eval()
    logits, _ = model.llama(IDS, targets=IDS)
    log_p = logits.log_softmax(-1)

    def scores(table: torch.Tensor, score=lambda taken: taken.sum(-1)) -> torch.Tensor:
        return torch.stack([score(table[:, ids]) for ids in NAMES.values()], -1)

    last = log_p[:, -1]
    compare("Scores of LlamaZeroShotClassifier", model(IDS), scores(last), known={
        "the first token of each name alone": scores(last, lambda taken: taken[:, 0]),
        "the mean over the tokens of a name": scores(last, lambda taken: taken.mean(-1)),
        "the first position": scores(log_p[:, 0]),
        "the last position before the padding": scores(log_p[UNPADDED]),
        "logits without log-softmax": scores(logits[:, -1]),
        "probabilities without a logarithm": scores(last.exp())})
    assert not any(p.requires_grad for p in model.llama.parameters()), (
        "LlamaZeroShotClassifier: expected a frozen Llama, found parameters that ask for a "
        "gradient.")


embedding = part("classifier.py LlamaEmbeddingClassifier")


@embedding
def test_log_probabilities_of_the_last_position_with_dropout_before_the_head(make):
    model, seen = make("LlamaEmbeddingClassifier").eval(), []
    _, hidden = model.llama(IDS)
    known = {"the first position": hidden[:, 0], "the mean over the positions": hidden.mean(1),
             "the last position before the padding": hidden[UNPADDED]}
    logits = model.classifier_head(hidden[:, -1])
    compare("Log-probabilities of LlamaEmbeddingClassifier, in evaluation", model(IDS),
            logits.log_softmax(-1), known={
                **{name: model.classifier_head(x).log_softmax(-1) for name, x in known.items()},
                "logits without log-softmax": logits,
                "softmax without a logarithm": logits.softmax(-1)})
    model.classifier_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.train()(IDS.repeat(40, 1))
    assert seen, "LlamaEmbeddingClassifier: expected forward to call classifier_head, it does not."
    dropped = (seen[0] == 0).float().mean().item()
    assert abs(dropped - 0.5) < 0.05, (
        "The input of classifier_head in training with hidden_dropout_prob 0.5: expected half of "
        f"the numbers to be dropped, found {dropped:.0%}.")


@embedding
@pytest.mark.parametrize("option, loaded, trained", [
    ("pretrain", True, False), ("finetune", False, True)])
def test_option_decides_what_is_trained(make, option, loaded, trained):
    model = make("LlamaEmbeddingClassifier", option=option, trained=loaded)
    F.nll_loss(model(IDS), torch.tensor([3, 0, 2])).backward()
    for name, parameter in model.named_parameters():
        wanted = trained or name.startswith("classifier_head")
        reached = parameter.grad is not None or "output" in name  # which has no part in the loss
        assert parameter.requires_grad == wanted and (not wanted or reached), (
            f"LlamaEmbeddingClassifier with option {option!r}: expected {name} "
            f"{'to be trained' if wanted else 'to be frozen'}, found the opposite.")
