"""Llama 2 (Touvron et al. 2023, https://arxiv.org/abs/2307.09288) as the assignment defines it:
LayerNorm in place of RMSNorm, and attention without a mask unless the configuration is causal.
"""

import errno
import math
import sys
import warnings
import zipfile
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from base_llama import LlamaPreTrainedModel
from config import LlamaConfig
from rope import apply_rotary_emb

# On a CPU, PyTorch's fused attention kernel pays off from this many keys on (benchmarks/README.md).
FUSED_FROM = 256


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimension.

    Ba et al. 2016 (https://arxiv.org/abs/1607.06450), eq. 4, with the population variance.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        """(x - mean) / sqrt(var + eps), without weight and bias."""
        var, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return (x - mean) / torch.sqrt(var + self.eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`_norm(x) * weight + bias`, fused; in float32 at least, returned in the dtype of `x`."""
        wide = torch.promote_types(x.dtype, torch.float32)
        weight, bias = self.weight.to(wide), self.bias.to(wide)
        return F.layer_norm(x.to(wide), weight.shape, weight, bias, self.eps).type_as(x)


class Attention(nn.Module):
    """Grouped-query self-attention (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245).

    Each of the n_kv_heads key/value heads serves n_heads / n_kv_heads consecutive query heads.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.n_kv_heads = config.n_heads if config.n_kv_heads is None else config.n_kv_heads
        # "local" as in Meta's code, which divides the heads among GPUs; here all are local.
        self.n_local_heads = config.n_heads
        self.n_local_kv_heads = self.n_kv_heads
        self.n_rep = self.n_local_heads // self.n_local_kv_heads
        self.head_dim = config.dim // config.n_heads
        self.max_seq_len = config.max_seq_len
        self.causal = bool(getattr(config, "causal", False))
        kv_dim = self.n_kv_heads * self.head_dim
        self.compute_query = nn.Linear(config.dim, config.dim, bias=False)
        self.compute_key = nn.Linear(config.dim, kv_dim, bias=False)
        self.compute_value = nn.Linear(config.dim, kv_dim, bias=False)
        self.compute_output = nn.Linear(config.dim, config.dim, bias=False)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)
        self.dropout = config.dropout

    def compute_query_key_value_scores(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """softmax(Q Kᵀ / sqrt(head_dim)) V (Vaswani et al. 2017, eq. 1), dropout on the weights.

        Args:
            query: (bs, n_local_heads, q_len, head_dim), of all positions or of the last alone.
            key, value: (bs, n_local_heads, seqlen, head_dim).
        Returns:
            (bs, n_local_heads, q_len, head_dim).
        """
        causal = self.causal and query.shape[-2] > 1  # the last position attends to all others
        if key.is_cuda or key.shape[-2] >= FUSED_FROM:  # the same formula
            dropout_p = self.attn_dropout.p if self.training else 0.0
            return F.scaled_dot_product_attention(query, key, value, None, dropout_p, causal)
        # (bs, n_local_heads, q_len, seqlen)
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if causal:
            later = scores.new_ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal=1)
            scores = scores.masked_fill(later, -math.inf)
        weights = self.attn_dropout(scores.softmax(dim=-1))
        return weights @ value  # (bs, n_local_heads, q_len, head_dim)

    def forward(self, x: torch.Tensor, last_only: bool = False) -> torch.Tensor:
        """Mix the positions of x; with `last_only`, compute the result of the last one alone."""
        query = self.compute_query(x[:, -1:] if last_only else x)  # (bs, q_len, dim)
        key, value = self.compute_key(x), self.compute_value(x)  # (bs, seqlen, kv_dim)
        query, key, value = (  # (bs, q_len or seqlen, n_local_heads or n_kv_heads, head_dim)
            t.unflatten(-1, (-1, self.head_dim)) for t in (query, key, value))
        query, key = apply_rotary_emb(query, key, self.head_dim, self.max_seq_len)
        if self.n_rep > 1:
            key = key.repeat_interleave(self.n_rep, dim=2)  # (bs, seqlen, n_local_heads, head_dim)
            value = value.repeat_interleave(self.n_rep, dim=2)
        query, key, value = (  # (bs, n_local_heads, q_len or seqlen, head_dim)
            t.transpose(1, 2) for t in (query, key, value))
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
        """silu(w1 x) * w3 x (Shazeer 2020, https://arxiv.org/abs/2002.05202, eq. 5)."""
        return F.silu(self.w1(x)) * self.w3(x)  # (bs, seqlen, hidden_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two linear layers with SwiGLU between them, for each position by itself."""
        return self.dropout(self.w2(self.SwiGLU(x)))  # (bs, seqlen, dim)


class LlamaLayer(nn.Module):
    """Pre-norm transformer layer: attention, then feed-forward, each added to its input."""

    def __init__(self, layer_id: int, config: LlamaConfig) -> None:
        super().__init__()
        self.layer_id = layer_id
        self.n_heads = config.n_heads
        self.dim = config.dim
        self.head_dim = config.dim // config.n_heads
        self.attention = Attention(config)
        self.feed_forward = FeedForward(
            config.dim, config.hidden_dim, config.multiple_of, config.dropout)
        self.attention_norm = LayerNorm(config.dim, config.layer_norm_eps)
        self.ffn_norm = LayerNorm(config.dim, config.layer_norm_eps)

    def forward(self, x: torch.Tensor, last_only: bool = False) -> torch.Tensor:
        """Add what attention and feed-forward compute; with `last_only`, to the last position."""
        residual = x[:, -1:] if last_only else x  # (bs, q_len, dim)
        h = residual + self.attention(self.attention_norm(x), last_only)
        return h + self.feed_forward(self.ffn_norm(h))


class Llama(LlamaPreTrainedModel):
    """The language model. Its output layer is tied to its token embedding."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.params = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(LlamaLayer(i, config) for i in range(config.n_layers))
        self.norm = LayerNorm(config.dim, config.layer_norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.output.weight = self.tok_embeddings.weight  # tied (Press & Wolf 2017)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw all weights anew; smaller with depth where a layer adds to the residual stream."""
        super().init_weights()
        for name, parameter in self.named_parameters():
            # As in GPT-2; that it is w3 rather than w2 is llama2.c's choice.
            if name.endswith(("w3.weight", "compute_output.weight")):
                nn.init.normal_(parameter, mean=0.0, std=0.02 / math.sqrt(2 * self.n_layers))

    def forward(
        self, tokens: torch.Tensor, targets: torch.Tensor | None = None, last_only: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score the next token.

        Args:
            tokens: (bs, seqlen), token ids; seqlen may exceed max_seq_len.
            targets: if given (its values are not used), every position is scored.
            last_only: return the last position alone. In the last layer everything but keys and
                values is then computed for that position only, which saves a tenth of the work.
        Returns:
            logits: (bs, 1, vocab_size) for the last position, or (bs, seqlen, vocab_size).
            hidden: (bs, seqlen, dim), hidden states after the final norm, or (bs, 1, dim).
        """
        h = self.dropout(self.tok_embeddings(tokens))  # (bs, seqlen, dim)
        *lower, top = self.layers
        for layer in lower:
            h = layer(h)
        hidden = self.norm(top(h, last_only))  # (bs, seqlen, dim), or (bs, 1, dim)
        return self.output(hidden[:, -1:] if targets is None else hidden), hidden

    @torch.inference_mode()
    def generate(
        self, idx: torch.Tensor, max_new_tokens: int, temperature: float = 1.0,
        epsilon: float = 0.05,
    ) -> torch.Tensor:
        """Continue token sequences one token at a time, each from the last max_seq_len tokens.

        Call it in `eval()` mode. Random choices come from PyTorch's global generator.

        Args:
            idx: (bs, seqlen), token ids, at least one each.
            temperature: 0 for the most likely token; otherwise logits are divided by it.
            epsilon: in [0, 1]; tokens less likely than this are dropped, unless all are.
        Returns:
            (bs, seqlen + max_new_tokens).
        Raises:
            ValueError: an argument out of range.
        """
        if idx.ndim != 2 or idx.shape[1] < 1 or max_new_tokens < 0:
            raise ValueError(f"cannot add {max_new_tokens} tokens to a prompt of shape "
                             f"{tuple(idx.shape)}: it must be (bs, at least 1)")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must be 0 or a positive number, not {temperature}")
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon must be between 0 and 1, not {epsilon}")
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -self.params.max_seq_len:], last_only=True)
            next_id = choose_token(logits[:, -1], temperature, epsilon)
            idx = torch.cat((idx, next_id), dim=1)
        return idx


def choose_token(logits: torch.Tensor, temperature: float, epsilon: float) -> torch.Tensor:
    """Epsilon sampling (Hewitt et al. 2022, https://arxiv.org/abs/2210.15191, section 4).

    Keep the tokens of probability epsilon or more, renormalize, and draw; where there is none, and
    at temperature 0, take the most likely token.

    (bs, vocab_size) to (bs, 1), token ids.
    """
    most_likely = logits.argmax(dim=-1, keepdim=True)
    if temperature == 0:
        return most_likely
    probs = (logits.float() / temperature).softmax(dim=-1)
    kept = torch.where(probs >= epsilon, probs, 0.0)
    none_kept = kept.sum(dim=-1, keepdim=True) == 0
    kept.scatter_add_(-1, most_likely, none_kept.type_as(kept))
    return torch.multinomial(kept / kept.sum(dim=-1, keepdim=True), num_samples=1)


# Names in the tinyllamas releases of llama2.c, and the course's.
LLAMA2C_NAMES = {".wq.": ".compute_query.", ".wk.": ".compute_key.",
                 ".wv.": ".compute_value.", ".wo.": ".compute_output."}


# The loader is in this file because courses collect it without our support files.
def load_pretrained(checkpoint: str) -> Llama:
    """Load a checkpoint onto the CPU, in float32 and in evaluation mode.

    Args:
        checkpoint: a `.pt` file with `model` (a state dict, in the course's or llama2.c's naming)
            and `model_args` (keyword arguments of `LlamaConfig`).
    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, not a checkpoint, or its tensors are not those of the model.
    """
    saved = read_file(checkpoint)
    if isinstance(saved, dict) and "model_config" in saved:
        raise ValueError(f"{checkpoint}: a trained classifier, not a language model; name the "
                         "checkpoint that it was trained from")
    if not isinstance(saved, dict) or not all(
            isinstance(saved.get(part), dict) for part in ("model", "model_args")):
        raise ValueError(f"{checkpoint}: not a checkpoint; it must contain two dicts, `model` (the "
                         "tensors) and `model_args`")
    known = {*vars(LlamaConfig()), "causal"}
    if unused := [key for key in saved["model_args"] if key not in known]:
        print(f"{checkpoint}: model_args has keys that this model does not use: "
              f"{', '.join(map(repr, unused))}", file=sys.stderr)
    try:
        config = LlamaConfig(**saved["model_args"])
        if config.n_layers > len(saved["model"]):  # a bad file could request millions
            raise ValueError(f"n_layers={config.n_layers}, with fewer tensors")
        model = Llama(config)
        model.load_state_dict(weights_for(model, saved["model"]))
    except (TypeError, ValueError, RuntimeError) as error:
        if "DefaultCPUAllocator" in str(error):  # out of memory
            raise
        problems = " ".join(str(error).split())
        raise ValueError(f"{checkpoint}: does not fit this model: {problems}; use another "
                         "checkpoint, or download it again") from error
    return model.eval()


def read_file(path: str) -> Any:
    """Load an untrusted `torch.save` file onto the CPU, without executing code in it."""
    try:
        if zipfile.is_zipfile(path):  # torch.save's format since PyTorch 1.6
            with zipfile.ZipFile(path) as archive:
                # torch.load skips the checksums: a flipped bit would become a wrong weight.
                for member in archive.infolist():
                    if member.CRC:  # 0: saved without checksums
                        archive.read(member)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch 2.1 warns about its own code
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage provokes anything in zipfile, pickle and PyTorch
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            error.filename = error.filename or path
            raise
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
            raise
        reason = str(error).split("\n")[0].split(". ")[0] or type(error).__name__
        raise ValueError(f"{path}: damaged, cut short, or not a plain PyTorch file "
                         f"({reason:.200}); replace it") from error


def weights_for(model: Llama, saved: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint under the model's names; ValueError where one cannot be used."""
    # Checkpoints of RMSNorm models have no biases, which stay zero.
    biases = {name: bias for name, bias in model.state_dict().items() if name.endswith("norm.bias")}
    weights = {}
    for name, tensor in saved.items():
        name = str(name).removeprefix("_orig_mod.")
        for theirs, ours in LLAMA2C_NAMES.items():
            name = name.replace(theirs, ours)
        if name in weights:
            raise ValueError(f"two tensors for {name}")
        if name in ("freqs_cos", "freqs_sin"):  # llama2.c's buffers
            continue
        if not (isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
                and tensor.layout == torch.strided and tensor.isfinite().all()):
            raise ValueError(f"{name} is not a dense tensor of finite floating-point numbers")
        weights[name] = tensor
    tied = ("tok_embeddings.weight", "output.weight")
    copies = [weights[name] for name in tied if name in weights]
    if len(copies) == 2 and not torch.equal(*copies):
        raise ValueError(f"{tied[1]} differs from {tied[0]}; this model has one parameter for both")
    weights |= dict.fromkeys(tied, copies[0]) if copies else {}
    return weights if biases.keys() & weights.keys() else weights | biases
