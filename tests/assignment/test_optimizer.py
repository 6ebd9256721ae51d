"""optimizer.py, against the definition in float64, in every reading that the assignment allows."""

import itertools
import math

import numpy as np
import pytest
import torch

from .judge import array, compare, part, seeded

PUBLISHED = [[0.68190700, 0.96820682, 0.19228892], [-0.39988050, -0.27481613, -0.37405914]]
SHAPES = [(3, 4), (5,)]
# Epsilon as in Kingma & Ba's "efficient" form or in their Algorithm 1 (Loshchilov & Hutter's 2);
# decay of the new value or of the old one, by the rate or by the bias-corrected step size.
READINGS = [{"epsilon": epsilon, "decay": decay} for epsilon, decay in itertools.product(
    ("efficient", "algorithm"), ("of the new value", "of the old value", "by the step size"))]
MISTAKES = {
    "weight decay in the gradient": {"decay": "in the gradient"},
    "weight decay that is not multiplied by the learning rate": {"decay": "without rate"},
    "no weight decay": {"decay": "none"},
    "no bias correction": {"corrected": False},
    "bias correction where correct_bias is False": {"corrected": True},
    "one step count for all parameters": {"count": "common"},
    "epsilon inside of the square root": {"epsilon": "inside"},
    "epsilon inside of the square root of the corrected v": {"epsilon": "inside, corrected"},
    "a missing square root of v": {"epsilon": "no root"},
    "moments that are lost between steps": {"count": "none"},
    "clipping of each parameter by itself": {"clip": "each"},
    "no clipping": {"clip": "none"},
}


def adamw(params, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0,
          correct_bias=True, max_grad_norm=None, *, epsilon="efficient", decay="of the new value",
          corrected=None, count="own", clip="all") -> list[np.ndarray]:
    """The definition and its usual mistakes; a parameter without gradient (None) sits a step out.

    Loops over steps and parameters; m, v and t are lists with an item for each parameter.
    """
    params, (beta1, beta2) = [array(p) for p in params], betas
    corrected = correct_bias if corrected is None else corrected
    m, v, t = ([0.0] * len(params) for _ in range(3))
    for number, step in enumerate(grads, 1):
        total = math.sqrt(sum((g**2).sum() for g in step if g is not None))
        for i, g in enumerate(step):
            if g is None:
                continue
            norm = {"all": total, "each": math.sqrt((g**2).sum()), "none": 0.0}[clip]
            if max_grad_norm and norm > max_grad_norm:
                g = g * max_grad_norm / norm
            if decay == "in the gradient":
                g = g + weight_decay * params[i]
            if count == "none":
                m[i], v[i], t[i] = 0.0, 0.0, 0
            t[i] = number if count == "common" else t[i] + 1
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * g**2
            root = math.sqrt(1 - beta2 ** t[i]) if corrected else 1.0
            size = lr * root / (1 - beta1 ** t[i] if corrected else 1.0)
            below = {"efficient": np.sqrt(v[i]) + eps, "algorithm": np.sqrt(v[i]) + eps * root,
                     "no root": v[i] + eps, "inside": np.sqrt(v[i] + eps),
                     "inside, corrected": np.sqrt(v[i] + eps * root**2)}[epsilon]
            new = params[i] - size * m[i] / below
            decayed = {"of the new value": lr * new, "of the old value": lr * params[i],
                       "by the step size": size * new, "without rate": new}.get(decay, 0.0)
            params[i] = new - weight_decay * decayed
    return params


def gradients(steps: int) -> list[list[np.ndarray]]:
    """A gradient for every parameter in every step, of sizes far apart."""
    rng = np.random.default_rng(1)
    return [[rng.normal(size=shape) * 10.0 ** rng.integers(-2, 2) for shape in SHAPES]
            for _ in range(steps)]


@part("optimizer.py AdamW")
@pytest.mark.parametrize("settings", [
    {}, {"correct_bias": False}, {"betas": (0.5, 0.9), "eps": 0.1}, {"weight_decay": 0.2},
    {"max_grad_norm": 0.5}], ids=str)
def test_steps_follow_the_definition(optimizer, settings):
    """The second parameter's first gradient comes late, and its steps are counted from there."""
    settings = {"lr": 0.01, "eps": 1e-10} | settings  # an epsilon that does not matter
    grads = [[a, b if i > 2 else None] for i, (a, b) in enumerate(gradients(10))]
    starts = [seeded(*shape) for shape in SHAPES]
    params = [torch.nn.Parameter(start.clone()) for start in starts]
    stepper = optimizer.AdamW(params, **settings)
    for step in grads:
        for p, grad in zip(params, step):
            p.grad = None if grad is None else torch.tensor(grad).float()
        stepper.step()

    def change(ends: list) -> np.ndarray:
        return np.concatenate([(array(e) - array(s)).ravel() for e, s in zip(ends, starts)])

    def by(reading: dict) -> np.ndarray:
        return change(adamw(starts, grads, **reading, **settings))

    found = change(params)
    nearest = min(map(by, READINGS), key=lambda right: np.nan_to_num(abs(right - found)).max())
    named = ", ".join(f"{name}={value}" for name, value in settings.items())
    compare(f"Change of the parameters in {len(grads)} steps of AdamW({named})", found, nearest,
            atol=2e-6, known={name: by(mistake) for name, mistake in MISTAKES.items()})


@part("optimizer.py AdamW")
def test_the_courses_own_check(optimizer):
    rng = np.random.default_rng(0)
    model = torch.nn.Linear(3, 2, bias=False)
    stepper = optimizer.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, max_grad_norm=0.9)
    for _ in range(1000):
        x = torch.tensor(rng.uniform(size=[3]), dtype=torch.float32)
        stepper.zero_grad()
        ((model(x) - torch.stack([x[0] + x[1], -x[2]])) ** 2).sum().backward()
        stepper.step()
    compare("The weight after the 1,000 steps of optimizer_test", model.weight, PUBLISHED,
            atol=1e-5, rtol=1e-5)
