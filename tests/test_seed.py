"""Seed for seed the course's program: training against a loop written from the specification.

The loop shares the modules' arithmetic with the program, but neither its random numbers, which are
drawn here one by one, nor its data loading, loop, selection of the best epoch and log.
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

import run_llama
from classifier import LlamaEmbeddingClassifier
from lora import apply_lora, merge_lora_weights
from optimizer import AdamW
from runs import KIND, SHAPE, SIZES, TRAINING, command, labels_in
from tokenizer import Tokenizer
from utils import read_examples

DIM, KV_DIM, WIDTH = 24, 12, 64  # of SHAPE
OPTIONS = {"epochs": 3, "lr": 0.02, "batch_size": 4, "lora_rank": 2, "lora_alpha": 4.0}


def draw_initial_parameters(option: str) -> dict[str, torch.Tensor]:
    """Head and LoRA matrices, after everything that is drawn before them."""
    layers = SHAPE["n_layers"] * [
        ("query", (DIM, DIM)), ("key", (KV_DIM, DIM)), ("value", (KV_DIM, DIM)),
        ("output", (DIM, DIM)), ("w1", (WIDTH, DIM)), ("w2", (DIM, WIDTH)), ("w3", (WIDTH, DIM))]
    nn.Embedding(SHAPE["vocab_size"], DIM)
    for _, (out_features, in_features) in layers:
        nn.Linear(in_features, out_features, bias=False)
    nn.Linear(DIM, SHAPE["vocab_size"], bias=False)
    vocabulary = torch.empty(SHAPE["vocab_size"], DIM)
    for tensor in (vocabulary, *(torch.empty(shape) for _, shape in layers), vocabulary):
        tensor.normal_()
    for name, shape in layers:
        if name in ("w3", "output"):
            torch.empty(shape).normal_()
    head = nn.Linear(DIM, 2)
    drawn = {"classifier_head.weight": head.weight, "classifier_head.bias": head.bias}
    for i in range(SHAPE["n_layers"] if option == "lora" else 0):
        for name in ("query", "key", "value", "output"):
            drawn[f"llama.layers.{i}.attention.compute_{name}.lora_A"] = torch.randn(2, DIM) * 0.02
    return drawn


def make_model(option: str) -> nn.Module:
    """A classifier with these parameters; building it draws nothing from the global generator."""
    drawn = draw_initial_parameters(option)
    with torch.random.fork_rng():
        model = LlamaEmbeddingClassifier(Namespace(
            num_labels=2, pretrained_model_path="model.pt", hidden_dropout_prob=0.3, option=option))
        if option == "lora":
            apply_lora(model.llama.requires_grad_(False), rank=2, alpha=4.0)
    model.load_state_dict(model.state_dict() | drawn)
    return model


def collate(rows: list[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, labels = zip(*rows)
    return pad_sequence([*map(torch.tensor, ids)], True, padding_value=3), torch.tensor(labels)


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
    train, dev, test = (
        DataLoader([(Tokenizer().encode(e.sentence, bos=True, eos=False), e.label)
                    for e in read_examples(f"{split}.txt")],
                   batch_size=4, shuffle=split == "train", collate_fn=collate)
        for split in SIZES)
    model, best_acc, lines = make_model(option), 0.0, []
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for epoch in range(3):
        model.train()
        losses = []
        for ids, labels in train:
            optimizer.zero_grad()
            loss = F.nll_loss(model(ids), labels, reduction="sum") / 4
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        (train_acc, _), (dev_acc, _) = predict(model, train), predict(model, dev)
        if dev_acc > best_acc:
            best_acc, best = dev_acc, copy.deepcopy(model)
            if option == "lora":  # the merge makes new linear layers
                for _ in range(SHAPE["n_layers"]):
                    for out_features in (DIM, KV_DIM, KV_DIM, DIM):
                        nn.Linear(DIM, out_features, bias=False)
        lines.append(f"epoch {epoch}: train loss :: {sum(losses) / len(losses):.3f}, "
                     f"train acc :: {train_acc:.3f}, dev acc :: {dev_acc:.3f}")
    best = merge_lora_weights(best)
    return lines, best, [predict(best, loader)[1] for loader in (dev, test)]


@pytest.mark.parametrize("seed", [1337, 5])
@pytest.mark.parametrize("option", TRAINING)
def test_log_model_and_predictions_are_those_of_the_specification(place, capsys, option, seed):
    lines, model, predictions = train_as_specified(option, seed)
    assert run_llama.main(command(option, seed=seed, **OPTIONS)) == 0
    prefix = "LoRA " if option == "lora" else ""
    found = re.findall(rf"^{prefix}(epoch .*?dev acc :: [\d.]+)", capsys.readouterr().out, re.M)
    assert found == lines and len(set(lines)) == 3
    saved = torch.load(f"{option}-3-0.02.pt", weights_only=True)["model"]
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(saved[name], w) for name, w in model.state_dict().items())
    assert predictions == [
        labels_in(f"my-{split}-{KIND[option]}-output.txt") for split in ("dev", "test")]
