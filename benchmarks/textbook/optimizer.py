"""Textbook solution: AdamW as in Algorithm 2, one tensor after the other."""

import torch
from torch.optim import Optimizer


class AdamW(Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0,
                 correct_bias=True, max_grad_norm=None):
        if lr < 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        super().__init__(params, dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, correct_bias=correct_bias,
            max_grad_norm=max_grad_norm))

    def step(self, closure=None):
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            if group["max_grad_norm"] is not None:
                torch.nn.utils.clip_grad_norm_(group["params"], group["max_grad_norm"])
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError("Adam does not support sparse gradients")
                self.update(p, p.grad.data, self.state[p], group)
        return loss

    def update(self, p, grad, state, group):
        beta1, beta2 = group["betas"]
        if len(state) == 0:
            state["step"] = 0
            state["m"] = torch.zeros_like(p.data)
            state["v"] = torch.zeros_like(p.data)
        state["step"] += 1
        t, lr, decay = state["step"], group["lr"], group["weight_decay"]
        state["m"].mul_(beta1).add_(grad, alpha=1 - beta1)
        state["v"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        m, v = state["m"], state["v"]
        if group["correct_bias"]:
            m = m / (1 - beta1 ** t)
            v = v / (1 - beta2 ** t)
        p.data = p.data - lr * m / (torch.sqrt(v) + group["eps"])
        if decay > 0:
            p.data = p.data - lr * decay * p.data
