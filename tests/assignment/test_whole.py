"""All parts together: from a checkpoint to logits, gradients, text and predictions."""

from types import SimpleNamespace

import numpy as np
import torch

from config import LlamaConfig

from . import reference
from .judge import SMALL, array, compare, part, seeded
from .test_classifier import IDS, NAMES, StubTokenizer

whole = part("the whole model")


@whole
def test_logits_and_hidden_states(llama, checkpoint, weights):
    model = llama.load_pretrained(str(checkpoint)).eval()
    (logits, hidden), (last, _) = model(IDS, targets=IDS), model(IDS)
    expected_logits, expected_hidden = reference.forward(weights, SMALL, IDS)
    causal, _ = reference.forward(weights, SMALL | {"causal": True}, IDS)
    compare("Hidden states of a small checkpoint", hidden, expected_hidden, atol=1e-4)
    compare("Logits of a small checkpoint, of all positions", logits, expected_logits, atol=1e-4,
            known={"a causal mask": causal})
    compare("Logits of a small checkpoint", last, expected_logits[:, -1:], atol=1e-4)


@whole
def test_gradients_of_every_parameter(llama, checkpoint, weights):
    """The slope along a random direction, against a central difference of the reference."""
    model, ids, pull = llama.load_pretrained(str(checkpoint)).eval(), IDS[:2, :4], seeded(2, 4, 85)
    parameters, rng = dict(model.named_parameters()), np.random.default_rng(4)

    def loss(changed: reference.Weights) -> float:
        results = reference.forward(weights | changed, SMALL, ids)
        return (np.concatenate(results, axis=-1) * array(pull)).sum()

    (torch.cat(model(ids, ids), dim=-1) * pull).sum().backward()
    for name, shape in reference.shapes(SMALL, biases=True).items():
        direction, gradient = rng.standard_normal(shape), parameters[name].grad
        up, down = (loss({name: weights.get(name, 0.0) + step * direction})
                    for step in (1e-5, -1e-5))
        assert gradient is not None, f"The gradient of {name}: expected numbers, found none."
        compare(f"The slope of a loss along a random direction of {name}",
                (array(gradient) * direction).sum(), (up - down) / 2e-5, atol=2e-3, rtol=2e-3)


@whole
def test_greedy_continuation(llama, checkpoint, weights):
    """Across the length at which the first tokens fall out of the window."""
    found = llama.load_pretrained(str(checkpoint)).eval().generate(IDS, 14, temperature=0.0)
    expected = [row + reference.greedy_continuation(weights, SMALL, row, 14)
                for row in IDS.tolist()]
    compare("The greedy continuation by a small checkpoint", found, expected)


@whole
def test_classifiers(classifier, checkpoint, weights):
    config = SimpleNamespace(pretrained_model_path=str(checkpoint), num_labels=4, option="finetune",
                             hidden_dropout_prob=0.3)
    model = classifier.LlamaZeroShotClassifier(config, StubTokenizer(), list(NAMES)).eval()
    compare("Zero-shot scores of a small checkpoint", model(IDS), reference.zero_shot_scores(
        weights, SMALL, IDS, list(NAMES.values())), atol=2e-4)
    model = classifier.LlamaEmbeddingClassifier(config).eval()
    head, bias = map(array, model.classifier_head.parameters())
    _, hidden = reference.forward(weights, SMALL, IDS)
    compare("Log-probabilities by a small checkpoint and a fresh head", model(IDS),
            np.log(reference.softmax(hidden[:, -1] @ head.T + bias)), atol=1e-4)


@whole
def test_lora_on_the_model(llama, lora):
    model = lora.apply_lora(llama.Llama(LlamaConfig(**SMALL)).eval(), rank=3, alpha=6.0)
    for i, parameter in enumerate(lora.get_lora_optimizer_params(model)):
        parameter.data = seeded(*parameter.shape, seed=i) / 10
    expected = model(IDS)[1].detach()
    lora.merge_lora_weights(model)
    compare("Hidden states of a model with LoRA, after merge_lora_weights", model(IDS)[1], expected,
            atol=1e-4)
