"""Seed for seed the course's program: training against a loop written from the specification.

The loop shares the modules' arithmetic with the program, and nothing else.
"""

import copy
import re
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

import reference
import run_llama
from classifier import LlamaEmbeddingClassifier
from lora import apply_lora, get_lora_optimizer_params, merge_lora_weights
from optimizer import AdamW
from runs import KIND, SHAPE, SIZES, TRAINING, command, labels_in
from tokenizer import Tokenizer
from utils import read_examples

# The model's matrices in the order in which they are made; (out_features, in_features) each.
MATRICES = {name.removesuffix(".weight"): shape
            for name, shape in reference.shapes(SHAPE).items() if len(shape) == 2}
VOCABULARY = MATRICES.pop("tok_embeddings")
ADAPTED = {name: shape for name, shape in MATRICES.items() if ".compute_" in name}


def make_model(option: str) -> nn.Module:
    """A classifier whose head and LoRA matrices are drawn here, after all that is drawn before."""
    nn.Embedding(*VOCABULARY)
    for out_features, in_features in (*MATRICES.values(), VOCABULARY):
        nn.Linear(in_features, out_features, bias=False)
    for shape in (VOCABULARY, *MATRICES.values(), VOCABULARY):
        torch.empty(shape).normal_()
    for name, shape in MATRICES.items():
        if name.endswith(("w3", "compute_output")):
            torch.empty(shape).normal_()
    head = nn.Linear(SHAPE["dim"], 2)
    drawn = {"classifier_head.weight": head.weight, "classifier_head.bias": head.bias}
    for name, (_, in_features) in ADAPTED.items() if option == "lora" else ():
        drawn[f"llama.{name}.lora_A"] = torch.randn(2, in_features) * 0.02
    with torch.random.fork_rng():
        model = LlamaEmbeddingClassifier(Namespace(
            num_labels=2, pretrained_model_path="model.pt", hidden_dropout_prob=0.3, option=option))
        if option == "lora":
            apply_lora(model.llama.requires_grad_(False), rank=2, alpha=4.0)
    model.load_state_dict(model.state_dict() | drawn)
    return model


def load(split: str) -> DataLoader:
    tokenizer = Tokenizer()
    rows = [(torch.tensor(tokenizer.encode(e.sentence, bos=True, eos=False)), e.label)
            for e in read_examples(f"{split}.txt")]

    def collate(rows: list) -> tuple[torch.Tensor, torch.Tensor]:
        ids, labels = zip(*rows)
        return pad_sequence(ids, batch_first=True, padding_value=3), torch.tensor(labels)

    return DataLoader(rows, batch_size=4, shuffle=split == "train", collate_fn=collate)


@torch.no_grad()
def predict(model: nn.Module, loader: DataLoader) -> tuple[float, list[int]]:
    """Accuracy and predictions."""
    model.eval()
    pairs = [(model(ids).argmax(-1), labels) for ids, labels in loader]
    predicted, labels = map(torch.cat, zip(*pairs))
    return (predicted == labels).double().mean().item(), predicted.tolist()


def train_as_specified(option: str, seed: int) -> tuple[list[str], nn.Module, list[list[int]]]:
    """The lines of the epochs, the best model, and its predictions for dev and test."""
    torch.manual_seed(seed)
    train, dev, test = map(load, SIZES)
    model, best_acc, lines = make_model(option), 0.0, []
    params = model.parameters()
    if option == "lora":  # as the course's program calls it
        params = get_lora_optimizer_params(model) + list(model.classifier_head.parameters())
    optimizer = AdamW(params, lr=0.02)
    for epoch in range(3):
        model.train()
        losses = []
        for ids, labels in train:
            optimizer.zero_grad()
            loss = F.nll_loss(model(ids), labels, reduction="sum") / 4
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        train_acc, dev_acc = (predict(model, loader)[0] for loader in (train, dev))
        if dev_acc > best_acc:
            best_acc, best = dev_acc, copy.deepcopy(model)
            if option == "lora":  # the merge makes new linear layers
                for out_features, in_features in ADAPTED.values():
                    nn.Linear(in_features, out_features, bias=False)
        lines.append(f"epoch {epoch}: train loss :: {sum(losses) / len(losses):.3f}, "
                     f"train acc :: {train_acc:.3f}, dev acc :: {dev_acc:.3f}")
    best = merge_lora_weights(best)
    return lines, best, [predict(best, loader)[1] for loader in (dev, test)]


@pytest.mark.parametrize("seed", [1337, 5])
@pytest.mark.parametrize("option", TRAINING)
def test_log_model_and_predictions_are_those_of_the_specification(place, capsys, option, seed):
    lines, model, predictions = train_as_specified(option, seed)
    assert run_llama.main(command(
        option, seed=seed, epochs=3, lr=0.02, batch_size=4, lora_rank=2, lora_alpha=4.0)) == 0
    prefix = "LoRA " if option == "lora" else ""
    found = re.findall(rf"^{prefix}(epoch .*?dev acc :: [\d.]+)", capsys.readouterr().out, re.M)
    assert found == lines and len(set(lines)) == 3
    saved = torch.load(f"{option}-3-0.02.pt", weights_only=True)["model"]
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(saved[name], w) for name, w in model.state_dict().items())
    assert predictions == [
        labels_in(f"my-{split}-{KIND[option]}-output.txt") for split in ("dev", "test")]
