"""A common solution of the assignment, for `bench.py` to compare with: correct, but not tuned.

Classes, functions and parameters have the project's names, so one state dict loads into both.
`python benchmarks/textbook.py CHECKPOINT TOKENIZER PROMPT` does `--option generate`.
"""

import math
import sys
from typing import Any

import sentencepiece
import sklearn.metrics  # noqa: F401  (usual in this program, although only training needs it)
import torch
import torch.nn.functional as F
from torch import nn

NEW_TOKENS = 75


def rotate(x: torch.Tensor, theta: float = 10000.0) -> torch.Tensor:
    """RoPE on (bs, seqlen, n_heads, head_dim); every call makes the tables again."""
    seqlen, head_dim = x.shape[1], x.shape[-1]
    frequencies = theta ** (-torch.arange(0, head_dim, 2, device=x.device).float() / head_dim)
    angles = torch.outer(torch.arange(seqlen, device=x.device).float(), frequencies)
    cos, sin = angles.cos()[None, :, None, :], angles.sin()[None, :, None, :]
    even, odd = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).type_as(x)


class LayerNorm(nn.Module):
    """Layer normalization, one operation after the other."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        mean = wide.mean(dim=-1, keepdim=True)
        var = wide.var(dim=-1, keepdim=True, unbiased=False)
        return ((wide - mean) / torch.sqrt(var + self.eps)).type_as(x) * self.weight + self.bias


class Attention(nn.Module):
    """Grouped-query attention, always for every position."""

    def __init__(self, args: dict) -> None:
        super().__init__()
        dim, self.n_heads, self.n_kv_heads = args["dim"], args["n_heads"], args["n_kv_heads"]
        self.head_dim = dim // self.n_heads
        self.compute_query = nn.Linear(dim, dim, bias=False)
        self.compute_key = nn.Linear(dim, self.n_kv_heads * self.head_dim, bias=False)
        self.compute_value = nn.Linear(dim, self.n_kv_heads * self.head_dim, bias=False)
        self.compute_output = nn.Linear(dim, dim, bias=False)
        self.attn_dropout = nn.Dropout(args["dropout"])
        self.resid_dropout = nn.Dropout(args["dropout"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bs, seqlen, dim = x.shape
        query = self.compute_query(x).view(bs, seqlen, self.n_heads, self.head_dim)
        key = self.compute_key(x).view(bs, seqlen, self.n_kv_heads, self.head_dim)
        value = self.compute_value(x).view(bs, seqlen, self.n_kv_heads, self.head_dim)
        query, key = rotate(query), rotate(key)
        key = torch.repeat_interleave(key, self.n_heads // self.n_kv_heads, dim=2)
        value = torch.repeat_interleave(value, self.n_heads // self.n_kv_heads, dim=2)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(self.head_dim)
        weights = self.attn_dropout(F.softmax(scores.float(), dim=-1).type_as(query))
        mixed = torch.matmul(weights, value)  # (bs, n_heads, seqlen, head_dim)
        mixed = mixed.transpose(1, 2).contiguous().view(bs, seqlen, dim)
        return self.resid_dropout(self.compute_output(mixed))


def hidden_width(args: dict) -> int:
    """8/3 dim, rounded up to a multiple of `multiple_of`, unless given."""
    if args["hidden_dim"] is not None:
        return args["hidden_dim"]
    return args["multiple_of"] * math.ceil(int(8 * args["dim"] / 3) / args["multiple_of"])


class FeedForward(nn.Module):
    """w2(silu(w1 x) * w3 x)."""

    def __init__(self, args: dict) -> None:
        super().__init__()
        self.w1 = nn.Linear(args["dim"], hidden_width(args), bias=False)
        self.w2 = nn.Linear(hidden_width(args), args["dim"], bias=False)
        self.w3 = nn.Linear(args["dim"], hidden_width(args), bias=False)
        self.dropout = nn.Dropout(args["dropout"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.w2(F.silu(self.w1(x)) * self.w3(x)))


class LlamaLayer(nn.Module):
    """Pre-norm attention and feed-forward, each added to its input."""

    def __init__(self, args: dict) -> None:
        super().__init__()
        self.attention = Attention(args)
        self.feed_forward = FeedForward(args)
        self.attention_norm = LayerNorm(args["dim"], args["layer_norm_eps"])
        self.ffn_norm = LayerNorm(args["dim"], args["layer_norm_eps"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x + self.attention(self.attention_norm(x))
        return h + self.feed_forward(self.ffn_norm(h))


class Llama(nn.Module):
    """The language model, from complete `model_args` of a checkpoint."""

    def __init__(self, args: dict) -> None:
        super().__init__()
        self.args = args
        self.tok_embeddings = nn.Embedding(args["vocab_size"], args["dim"])
        self.dropout = nn.Dropout(args["dropout"])
        self.layers = nn.ModuleList(LlamaLayer(args) for _ in range(args["n_layers"]))
        self.norm = LayerNorm(args["dim"], args["layer_norm_eps"])
        self.output = nn.Linear(args["dim"], args["vocab_size"], bias=False)
        self.output.weight = self.tok_embeddings.weight
        self.apply(self.init_weights)

    def init_weights(self, module: nn.Module) -> None:
        """N(0, 0.02²)."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)

    def forward(self, tokens: torch.Tensor, targets=None) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and hidden states; classifiers do not need the logits."""
        h = self.dropout(self.tok_embeddings(tokens))
        for layer in self.layers:
            h = layer(h)
        h = self.norm(h)
        return self.output(h if targets is not None else h[:, [-1], :]), h

    @torch.no_grad()
    def generate(self, idx: torch.Tensor, max_new_tokens: int, temperature: float = 1.0,
                 epsilon: float = 0.05) -> torch.Tensor:
        """Continue (bs, seqlen), greedily or by epsilon sampling."""
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -self.args["max_seq_len"]:])
            logits = logits[:, -1, :]
            if temperature == 0.0:
                chosen = logits.argmax(dim=-1, keepdim=True)
            else:
                probs = F.softmax(logits / temperature, dim=-1)
                least = probs.amax(dim=-1, keepdim=True).clamp(max=epsilon)
                kept = torch.where(probs >= least, probs, torch.zeros_like(probs))
                chosen = torch.multinomial(kept / kept.sum(-1, keepdim=True), num_samples=1)
            idx = torch.cat((idx, chosen), dim=1)
        return idx


def load_pretrained(checkpoint: str) -> Llama:
    """A model with the weights of a checkpoint."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = Llama(saved["model_args"])
    model.load_state_dict(saved["model"])
    return model.eval()


class LoRALayer(nn.Module):
    """h = W0 x + (alpha / rank) B A x; W0 still gets a gradient."""

    def __init__(self, original_layer: nn.Linear, rank: int = 4, alpha: float = 1.0) -> None:
        super().__init__()
        self.original_layer = original_layer
        self.scaling = alpha / rank
        self.lora_A = nn.Parameter(torch.randn(rank, original_layer.in_features) * 0.02)
        self.lora_B = nn.Parameter(torch.zeros(original_layer.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        update = F.linear(F.linear(x, self.lora_A), self.lora_B)
        return self.original_layer(x) + self.scaling * update


def apply_lora(model: Llama) -> None:
    """Wrap the four layers of every attention."""
    for layer in model.layers:
        for name in ("compute_query", "compute_key", "compute_value", "compute_output"):
            setattr(layer.attention, name, LoRALayer(getattr(layer.attention, name)))


class LlamaEmbeddingClassifier(nn.Module):
    """A linear layer on the hidden state of the last position."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.llama = load_pretrained(config.pretrained_model_path)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier_head = nn.Linear(self.llama.args["dim"], config.num_labels)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        _, hidden = self.llama(ids)
        last = hidden[:, -1, :].contiguous()  # otherwise CUDA's dropout draws another mask
        return F.log_softmax(self.classifier_head(self.dropout(last)), dim=-1)


class LlamaZeroShotClassifier(nn.Module):
    """Log-probabilities of the tokens of each label name, summed."""

    def __init__(self, config: Any, tokenizer: Any, label_names: list[str]) -> None:
        super().__init__()
        self.llama = load_pretrained(config.pretrained_model_path)
        self.label_name_ids = [tokenizer.encode(name, bos=False, eos=False) for name in label_names]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits, _ = self.llama(ids)
        log_probs = F.log_softmax(logits, dim=-1)
        scores = [log_probs[:, -1, name].sum(dim=-1) for name in self.label_name_ids]
        return torch.stack(scores, dim=-1)


class AdamW(torch.optim.Optimizer):
    """AdamW without weight decay, which no job uses; one tensor after the other."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-6})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["step"] += 1
                beta1, beta2 = group["betas"]
                state["m"].mul_(beta1).add_(p.grad, alpha=1 - beta1)
                state["v"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                step_size = group["lr"] * math.sqrt(1 - beta2 ** state["step"])
                step_size /= 1 - beta1 ** state["step"]
                p.addcdiv_(state["m"], state["v"].sqrt().add_(group["eps"]), value=-step_size)


def main(checkpoint: str, tokenizer_model: str, prompt: str) -> None:
    """Generate two stories, loading the model for each."""
    for temperature in (0.0, 1.0):
        torch.manual_seed(1337)
        tokenizer = sentencepiece.SentencePieceProcessor(model_file=tokenizer_model)
        ids = torch.tensor([[tokenizer.bos_id()] + tokenizer.encode(prompt)])
        generated = load_pretrained(checkpoint).generate(ids, NEW_TOKENS, temperature)
        print(f"Temperature {temperature}:\n{tokenizer.decode(generated[0].tolist())}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
