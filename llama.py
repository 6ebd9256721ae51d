"""Llama 2 (Touvron et al. 2023, https://arxiv.org/abs/2307.09288) as the assignment defines it:
LayerNorm in place of RMSNorm, and attention without a mask unless the configuration is causal.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from base_llama import LlamaPreTrainedModel, load_weights, open_checkpoint
from config import LlamaConfig
from rope import apply_rotary_emb
from utils import require_file

# From this many keys on, PyTorch's fused attention kernel is used, which does not keep the
# (q_len, seqlen) weights for the backward pass. Below, it is slower than the formula written out
# where oneDNN multiplies (benchmarks/README.md, benchmarks/attention.py).
FUSED_FROM = 256

HOW_TO_GET = "`bash setup.sh` fetches stories42M.pt, or name another checkpoint"


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimension.

    Ba et al. 2016 (https://arxiv.org/abs/1607.06450), eq. 4, with the population variance.
    Computed in float32 at least, returned in the dtype of the input.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def compute_layernorm(self, x: torch.Tensor) -> torch.Tensor:
        """The formula, term by term. `forward` has PyTorch's fused kernel compute the same."""
        var, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return (x - mean) / torch.sqrt(var + self.eps) * self.weight + self.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, dim) to (…, dim)."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.layer_norm(wide, self.weight.shape, self.weight, self.bias, self.eps).type_as(x)


@lru_cache(maxsize=16)
def causal_mask(q_len: int, seqlen: int, device: torch.device) -> torch.Tensor:
    """(q_len, seqlen), true where one of the last q_len positions may look: not at later ones."""
    with torch.inference_mode(False):
        return torch.ones(q_len, seqlen, dtype=torch.bool, device=device).tril(seqlen - q_len)


class Attention(nn.Module):
    """Grouped-query self-attention (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245).

    Each of the n_kv_heads key/value heads serves n_heads / n_kv_heads consecutive query heads.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.n_kv_heads = config.n_kv_heads
        self.head_dim = config.head_dim
        self.max_seq_len = config.max_seq_len
        self.causal = config.causal
        kv_dim = self.n_kv_heads * self.head_dim
        self.compute_query = nn.Linear(config.dim, config.dim, bias=False)
        self.compute_key = nn.Linear(config.dim, kv_dim, bias=False)
        self.compute_value = nn.Linear(config.dim, kv_dim, bias=False)
        self.compute_output = nn.Linear(config.dim, config.dim, bias=False)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)

    def compute_query_key_value_scores(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """softmax(Q Kᵀ / sqrt(head_dim)) V (Vaswani et al. 2017, eq. 1), dropout on the weights.

        Args:
            query: (bs, n_heads, q_len, head_dim), the last q_len of the positions.
            key, value: (bs, n_heads, seqlen, head_dim).
        Returns:
            (bs, n_heads, q_len, head_dim).
        """
        q_len, seqlen = query.shape[-2], key.shape[-2]
        # The last position alone may look everywhere: no mask to apply.
        mask = causal_mask(q_len, seqlen, key.device) if self.causal and q_len > 1 else None
        if seqlen >= FUSED_FROM:
            dropout_p = self.attn_dropout.p if self.training else 0.0
            return F.scaled_dot_product_attention(query, key, value, mask, dropout_p)
        scores = query @ key.transpose(-2, -1) / math.sqrt(self.head_dim)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        weights = self.attn_dropout(scores.softmax(dim=-1))  # (bs, n_heads, q_len, seqlen)
        return weights @ value

    def forward(self, x: torch.Tensor, last_only: bool = False) -> torch.Tensor:
        """Mix the positions of (bs, seqlen, dim); with `last_only` the result is (bs, 1, dim)."""
        asking = x[:, -1:] if last_only else x
        query = self.compute_query(asking).unflatten(-1, (self.n_heads, self.head_dim))
        key = self.compute_key(x).unflatten(-1, (self.n_kv_heads, self.head_dim))
        value = self.compute_value(x).unflatten(-1, (self.n_kv_heads, self.head_dim))
        query, key = apply_rotary_emb(query, key, self.head_dim, self.max_seq_len)
        if self.n_kv_heads < self.n_heads:
            key, value = (t.repeat_interleave(self.n_heads // self.n_kv_heads, dim=2)
                          for t in (key, value))
        query, key, value = (t.transpose(1, 2) for t in (query, key, value))
        mixed = self.compute_query_key_value_scores(query, key, value)
        mixed = mixed.transpose(1, 2).flatten(-2)  # (bs, q_len, dim)
        return self.resid_dropout(self.compute_output(mixed))


class FeedForward(nn.Module):
    """w2(SwiGLU(x)), without biases."""

    def __init__(self, dim: int, hidden_dim: int | None, multiple_of: int, dropout: float) -> None:
        super().__init__()
        if hidden_dim is None:
            hidden_dim = int(2 * (4 * dim) / 3)
            hidden_dim = multiple_of * math.ceil(hidden_dim / multiple_of)
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def SwiGLU(self, x: torch.Tensor) -> torch.Tensor:
        """silu(w1 x) * w3 x (Shazeer 2020, https://arxiv.org/abs/2002.05202, eq. 5).

        (bs, seqlen, dim) to (bs, seqlen, hidden_dim).
        """
        return F.silu(self.w1(x)) * self.w3(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(bs, seqlen, dim) to (bs, seqlen, dim)."""
        return self.dropout(self.w2(self.SwiGLU(x)))


class LlamaLayer(nn.Module):
    """Pre-norm transformer layer: attention, then feed-forward, each added to what comes in."""

    def __init__(self, layer_id: int, config: LlamaConfig) -> None:
        super().__init__()
        self.layer_id = layer_id
        self.attention = Attention(config)
        self.feed_forward = FeedForward(
            config.dim, config.hidden_dim, config.multiple_of, config.dropout)
        self.attention_norm = LayerNorm(config.dim, config.layer_norm_eps)
        self.ffn_norm = LayerNorm(config.dim, config.layer_norm_eps)

    def forward(self, x: torch.Tensor, last_only: bool = False) -> torch.Tensor:
        """(bs, seqlen, dim) to the same, or to (bs, 1, dim): the last position alone."""
        residual = x[:, -1:] if last_only else x
        h = residual + self.attention(self.attention_norm(x), last_only)
        return h + self.feed_forward(self.ffn_norm(h))


class Llama(LlamaPreTrainedModel):
    """The language model. Its output layer is tied to its token embedding."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.tok_embeddings = nn.Embedding.from_pretrained(  # nn.Embedding itself draws at random
            torch.empty(config.vocab_size, config.dim), freeze=False)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(LlamaLayer(i, config) for i in range(config.n_layers))
        self.norm = LayerNorm(config.dim, config.layer_norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.output.weight = self.tok_embeddings.weight  # tied (Press & Wolf 2017)
        self.init_weights()

    def tie_loaded_weights(self, where: str) -> None:
        """Make the output layer and the token embedding one parameter again after loading.

        Raises:
            ValueError: the two differ in the file `where`.
        """
        if not torch.equal(self.output.weight, self.tok_embeddings.weight):
            raise ValueError(f"{where}: output.weight differs from tok_embeddings.weight, to "
                             "which this model ties it")
        self.output.weight = self.tok_embeddings.weight

    def hidden_states(self, tokens: torch.Tensor, last_only: bool = False) -> torch.Tensor:
        """What the model knows at each position, after the last norm.

        Args:
            tokens: (bs, seqlen), token ids; seqlen may exceed max_seq_len.
            last_only: keep the last position alone. In the last layer everything but keys and
                values is then computed for that position only; the values are the same.
        Returns:
            (bs, seqlen, dim), or (bs, 1, dim) with `last_only`.
        """
        h = self.dropout(self.tok_embeddings(tokens))
        *lower, top = self.layers
        for layer in lower:
            h = layer(h)
        return self.norm(top(h, last_only))

    def forward(
        self, tokens: torch.Tensor, targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score the next token.

        Args:
            tokens: (bs, seqlen), token ids.
            targets: if given (its values are not used), every position is scored.
        Returns:
            logits: (bs, 1, vocab_size) for the last position, or (bs, seqlen, vocab_size).
            hidden: (bs, seqlen, dim), every position after the last norm.
        """
        hidden = self.hidden_states(tokens)
        return self.output(hidden[:, -1:] if targets is None else hidden), hidden

    @torch.inference_mode()
    def generate(
        self, idx: torch.Tensor, max_new_tokens: int,
        temperature: float | Sequence[float] = 1.0, epsilon: float = 0.05,
    ) -> torch.Tensor:
        """Continue token sequences one token at a time, seeing the last max_seq_len tokens.

        Call it in `eval()` mode. Random choices come from PyTorch's global generator.

        Args:
            idx: (bs, seqlen), token ids, at least one each.
            max_new_tokens: how many tokens to add.
            temperature: 0 for the most likely token, else logits are divided by it; or one
                temperature for each row.
            epsilon: in [0, 1]; tokens less likely than this are never drawn.
        Returns:
            (bs, seqlen + max_new_tokens).
        Raises:
            ValueError: an argument out of range.
        """
        if idx.ndim != 2 or idx.shape[1] < 1 or max_new_tokens < 0:
            raise ValueError(f"cannot add {max_new_tokens} tokens to a prompt of shape "
                             f"{tuple(idx.shape)}: it must be (bs, at least 1)")
        temperatures = torch.as_tensor(temperature, dtype=torch.float64).reshape(-1, 1)
        if not ((temperatures >= 0) & temperatures.isfinite()).all():
            raise ValueError(f"temperature must be 0 or a positive number, not {temperature}")
        if len(temperatures) not in (1, len(idx)):
            raise ValueError(f"{len(temperatures)} temperatures for {len(idx)} rows")
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon must lie between 0 and 1, not {epsilon}")
        temperatures = temperatures.to(idx.device, torch.float32)
        for _ in range(max_new_tokens):
            hidden = self.hidden_states(idx[:, -self.config.max_seq_len:], last_only=True)
            next_id = choose_token(self.output(hidden[:, -1]), temperatures, epsilon)
            idx = torch.cat((idx, next_id), dim=1)
        return idx


def choose_token(logits: torch.Tensor, temperatures: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Epsilon sampling (Hewitt et al. 2022, https://arxiv.org/abs/2210.15191, section 4).

    Tokens of probability epsilon or more are kept, renormalised and drawn from; where there is
    none, the most likely one is taken, as it always is at temperature 0.

    Args:
        logits: (bs, vocab_size).
        temperatures: (bs, 1) or (1, 1).
    Returns:
        (bs, 1), token ids.
    """
    most_likely = logits.argmax(dim=-1, keepdim=True)
    if not temperatures.any():
        return most_likely
    probs = (logits.float() / temperatures).softmax(dim=-1)
    # Drops NaN, too, for which no comparison holds, and so all of a row of temperature 0.
    kept = torch.where(probs >= epsilon, probs, 0.0)
    none_kept = (kept.sum(dim=-1, keepdim=True) == 0).type_as(kept)
    kept.scatter_add_(-1, most_likely, none_kept)
    return torch.multinomial(kept / kept.sum(dim=-1, keepdim=True), num_samples=1)


# How the tinyllamas releases of llama2.c name what the course calls otherwise.
LLAMA2C_NAMES = {
    ".wq.": ".compute_query.",
    ".wk.": ".compute_key.",
    ".wv.": ".compute_value.",
    ".wo.": ".compute_output.",
}
LLAMA2C_BUFFERS = ("freqs_cos", "freqs_sin")


def to_course_names(weights: dict[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """Give the tensors of a checkpoint the course's names and drop llama2.c's RoPE tables."""
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        name = name.removeprefix("_orig_mod.")
        for theirs, ours in LLAMA2C_NAMES.items():
            name = name.replace(theirs, ours)
        if name in renamed:
            raise ValueError(f"{where}: two tensors for {name}")
        if name not in LLAMA2C_BUFFERS:
            renamed[name] = tensor
    return renamed


def load_pretrained(checkpoint: str) -> Llama:
    """Load a checkpoint onto the CPU, in float32 and in evaluation mode.

    Args:
        checkpoint: a `.pt` file with `model` (state dict, in the course's or llama2.c's naming)
            and `model_args` (the fields of `LlamaConfig`).
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, not a checkpoint, or its tensors are not exactly the model's.
    """
    require_file(checkpoint, HOW_TO_GET)
    config, weights = open_checkpoint(checkpoint)
    weights = to_course_names(weights, checkpoint)
    with torch.device("meta"):  # shapes only: the weights come from the file
        model = Llama(config)
    if "tok_embeddings.weight" in weights:
        weights.setdefault("output.weight", weights["tok_embeddings.weight"])
    # Checkpoints of RMSNorm models have no biases. Some of them but not all would be damage.
    biases = {name: torch.zeros(parameter.shape, device="cpu")
              for name, parameter in model.named_parameters() if name.endswith("norm.bias")}
    if biases.keys().isdisjoint(weights):
        weights |= biases
    load_weights(model, weights, checkpoint)
    model.tie_loaded_weights(checkpoint)
    return model.eval()
