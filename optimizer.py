"""AdamW: Adam (Kingma & Ba 2014, https://arxiv.org/abs/1412.6980) with decoupled weight decay
(Loshchilov & Hutter 2017, https://arxiv.org/abs/1711.05101).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class AdamW(Optimizer):
    """Adam with the efficient bias correction of its section 2, then weight decay on the result.

    With gradient g, moments m and v, and t counting the steps from 1:

        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g²
        p = p - lr sqrt(1 - beta2ᵗ) / (1 - beta1ᵗ) · m / (sqrt(v) + eps)
        p = p - lr weight_decay p

    Args:
        params: parameters, or dicts of them with settings of their own (parameter groups).
        lr: step size, at least 0.
        betas: decay of the two moments, each in [0, 1).
        eps: added to sqrt(v), at least 0.
        weight_decay: at least 0; 0 switches it off.
        correct_bias: whether the step size has the fraction above, or is just `lr`.
        max_grad_norm: if the gradients of a group together have a larger norm, they are first
            scaled down to it, in place.
    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
        max_grad_norm: float | None = None,
    ) -> None:
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "correct_bias": correct_bias, "max_grad_norm": max_grad_norm})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; missing ones are the defaults."""
        settings = {**self.defaults, **param_group}
        for name in ("lr", "eps", "weight_decay"):
            if not 0 <= settings[name] < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, "
                                 f"not {settings[name]}")
        if not all(0 <= beta < 1 for beta in settings["betas"]):
            raise ValueError(f"betas must lie in [0, 1), not {settings['betas']}")
        if settings["max_grad_norm"] is not None and not settings["max_grad_norm"] > 0:
            raise ValueError(f"max_grad_norm must be above 0, not {settings['max_grad_norm']}")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """Update every parameter that has a gradient; returns what `closure` does, if given.

        Raises:
            RuntimeError: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[torch.Tensor], group: dict[str, Any]) -> None:
        """One step of the equations above for all tensors of a group at once."""
        grads = [p.grad for p in params]
        if any(grad.is_sparse for grad in grads):
            raise RuntimeError("AdamW needs dense gradients; use sparse=False in the embedding")
        if group["max_grad_norm"] is not None:
            clip_to_norm(grads, group["max_grad_norm"])
        for p in params:
            if not self.state[p]:
                self.state[p].update(
                    step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        states = [self.state[p] for p in params]
        first = [state["exp_avg"] for state in states]  # m
        second = [state["exp_avg_sq"] for state in states]  # v
        beta1, beta2 = group["betas"]
        steps = []  # each parameter has its own count: it may have had no gradient at first
        for state in states:
            state["step"] += 1
            t = state["step"] if group["correct_bias"] else math.inf  # beta**inf is 0
            steps.append(-group["lr"] * math.sqrt(1 - beta2**t) / (1 - beta1**t))

        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        denominators = torch._foreach_sqrt(second)
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_addcdiv_(params, first, denominators, steps)
        if group["weight_decay"] > 0:
            # Not p * (1 - lr weight_decay): in float32 that factor is off by up to a fifth of
            # lr weight_decay, at the usual settings.
            torch._foreach_add_(params, params, alpha=-group["lr"] * group["weight_decay"])


def clip_to_norm(grads: list[torch.Tensor], max_norm: float) -> None:
    """Scale gradients down, in place, so that together they have at most this norm."""
    norms = torch._foreach_norm(grads)
    total = torch.linalg.vector_norm(torch.stack(norms))
    scale = (max_norm / total).clamp(max=1.0)  # a tensor: no waiting for the device
    torch._foreach_mul_(grads, scale)
