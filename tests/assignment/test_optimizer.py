"""optimizer.py, against the definition in float64, in every reading that the assignment allows."""

import itertools
import math

import numpy as np
import pytest
import torch

from .judge import compare, part

PUBLISHED = [[0.68190700, 0.96820682, 0.19228892], [-0.39988050, -0.27481613, -0.37405914]]
SHAPES = [(3, 4), (5,)]
DEFAULTS = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0,
            "correct_bias": True, "max_grad_norm": None}
# Epsilon as in Kingma & Ba's "efficient" form or in their Algorithm 1 (Loshchilov & Hutter's 2);
# decay of the new value or of the old one, by the rate or by the bias-corrected step size.
READINGS = [{"epsilon": epsilon, "decay": decay} for epsilon, decay in itertools.product(
    ("efficient", "algorithm"), ("of the new value", "of the old value", "by the step size"))]
MISTAKES = {
    "weight decay in the gradient": {"decay": "in the gradient"},
    "weight decay that is not multiplied by the learning rate": {"decay": "without rate"},
    "no weight decay": {"decay": "none"},
    "no bias correction": {"correction": "none"},
    "bias correction where correct_bias is False": {"correction": "always"},
    "one step count for all parameters": {"count": "common"},
    "epsilon inside of the square root": {"epsilon": "inside"},
    "epsilon inside of the square root of the corrected v": {"epsilon": "inside, corrected"},
    "moments that are lost between steps": {"moments": "lost"},
    "clipping of each parameter by itself": {"clip": "each"},
    "no clipping": {"clip": "none"},
    "a missing square root of v": {"epsilon": "no root"},
    "a second moment of the gradient without its square": {"moments": "no square"},
}


def adamw(params, grads, epsilon="efficient", decay="of the new value", correction="", count="own",
          moments="", clip="all", **settings) -> list[np.ndarray]:
    """The definition and its usual mistakes; a parameter without gradient (None) sits a step out.

    Loops over steps and parameters; m, v and t are lists with an item for each parameter.
    """
    s = DEFAULTS | settings
    params, (beta1, beta2) = [np.array(p, np.float64) for p in params], s["betas"]
    m, v, t = ([0.0] * len(params) for _ in range(3))
    for number, step in enumerate(grads, 1):
        total = math.sqrt(sum((g**2).sum() for g in step if g is not None))
        for i, g in enumerate(step):
            if g is None:
                continue
            norm = {"all": total, "each": math.sqrt((g**2).sum()), "none": 0.0}[clip]
            if s["max_grad_norm"] and norm > s["max_grad_norm"]:
                g = g * s["max_grad_norm"] / norm
            if decay == "in the gradient":
                g = g + s["weight_decay"] * params[i]
            if moments == "lost":
                m[i], v[i], t[i] = 0.0, 0.0, 0
            t[i] = t[i] + 1 if count == "own" else number
            m[i] = beta1 * m[i] + (1 - beta1) * g
            v[i] = beta2 * v[i] + (1 - beta2) * (np.abs(g) if moments == "no square" else g**2)
            corrected = {"none": False, "always": True}.get(correction, s["correct_bias"])
            root = math.sqrt(1 - beta2 ** t[i]) if corrected else 1.0
            size = s["lr"] * root / (1 - beta1 ** t[i] if corrected else 1.0)
            below = {"efficient": np.sqrt(v[i]) + s["eps"],
                     "algorithm": np.sqrt(v[i]) + s["eps"] * root, "no root": v[i] + s["eps"],
                     "inside": np.sqrt(v[i] + s["eps"]),
                     "inside, corrected": np.sqrt(v[i] + s["eps"] * root**2)}[epsilon]
            new = params[i] - size * m[i] / below
            decayed = {"of the new value": s["lr"] * new, "of the old value": s["lr"] * params[i],
                       "by the step size": size * new, "without rate": new}.get(decay, 0.0)
            params[i] = new - s["weight_decay"] * decayed
    return params


def check(optimizer, settings: dict, grads: list) -> None:
    """Compare steps, whose gradients are given, with all readings of the definition."""
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=shape) for shape in SHAPES]
    params = [torch.nn.Parameter(torch.tensor(start, dtype=torch.float32)) for start in starts]
    stepper = optimizer.AdamW(params, **settings)
    for step in grads:
        for p, grad in zip(params, step, strict=True):
            p.grad = None if grad is None else torch.tensor(grad, dtype=torch.float32)
        stepper.step()

    def moved(reading: dict) -> np.ndarray:
        ends = adamw(starts, grads, **reading, **settings)
        return np.concatenate([(e - s).ravel() for e, s in zip(ends, starts)])

    found = np.concatenate([(p.detach().double().numpy() - start).ravel()
                            for p, start in zip(params, starts)])
    readings = [moved(reading) for reading in READINGS]
    nearest = min(readings, key=lambda reading: np.nan_to_num(abs(reading - found), nan=9e9).max())
    named = ", ".join(f"{name}={value}" for name, value in settings.items())
    compare(f"Change of the parameters in {len(grads)} steps of AdamW({named})", found, nearest,
            atol=2e-6, known={name: moved(mistake) for name, mistake in MISTAKES.items()})


def gradients(steps: int) -> list[list[np.ndarray]]:
    """A gradient for every parameter in every step, of sizes far apart."""
    rng = np.random.default_rng(1)
    return [[rng.normal(size=shape) * 10.0 ** rng.integers(-2, 2) for shape in SHAPES]
            for _ in range(steps)]


@part("optimizer.py AdamW")
@pytest.mark.parametrize("settings, steps", [
    ({}, 2), ({}, 10), ({"correct_bias": False}, 10), ({"betas": (0.5, 0.9), "eps": 0.1}, 10),
    ({"weight_decay": 0.2}, 10), ({"max_grad_norm": 0.5}, 10)], ids=str)
def test_steps_follow_the_definition(optimizer, settings, steps):
    """With an epsilon that does not matter, or else in either reading."""
    check(optimizer, {"lr": 0.01, "eps": 1e-10} | settings, gradients(steps))


@part("optimizer.py AdamW")
def test_steps_are_counted_for_each_parameter(optimizer):
    """The second parameter has its first gradient in the fourth step."""
    grads = [[a, b if i > 2 else None] for i, (a, b) in enumerate(gradients(6))]
    check(optimizer, {"lr": 0.01, "eps": 1e-10}, grads)


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
