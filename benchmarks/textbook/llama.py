"""Textbook solution: the model, written plainly."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from base_llama import LlamaPreTrainedModel
from config import LlamaConfig
from rope import apply_rotary_emb


class LayerNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def _norm(self, x):
        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(var + self.eps)

    def forward(self, x):
        output = self._norm(x.float()).type_as(x)
        return output * self.weight + self.bias


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_kv_heads = config.n_heads if config.n_kv_heads is None else config.n_kv_heads
        assert config.n_heads % self.n_kv_heads == 0
        self.n_local_heads = config.n_heads
        self.n_local_kv_heads = self.n_kv_heads
        self.n_rep = self.n_local_heads // self.n_local_kv_heads
        self.head_dim = config.dim // config.n_heads
        self.max_seq_len = config.max_seq_len
        self.compute_query = nn.Linear(config.dim, config.n_heads * self.head_dim, bias=False)
        self.compute_key = nn.Linear(config.dim, self.n_kv_heads * self.head_dim, bias=False)
        self.compute_value = nn.Linear(config.dim, self.n_kv_heads * self.head_dim, bias=False)
        self.compute_output = nn.Linear(config.n_heads * self.head_dim, config.dim, bias=False)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)
        self.dropout = config.dropout

    def compute_query_key_value_scores(self, query, key, value):
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(query.shape[-1])
        weights = F.softmax(scores, dim=-1)
        weights = self.attn_dropout(weights)
        return torch.matmul(weights, value)

    def forward(self, x):
        bs, seqlen, _ = x.shape
        query = self.compute_query(x).view(bs, seqlen, self.n_local_heads, self.head_dim)
        key = self.compute_key(x).view(bs, seqlen, self.n_local_kv_heads, self.head_dim)
        value = self.compute_value(x).view(bs, seqlen, self.n_local_kv_heads, self.head_dim)
        query, key = apply_rotary_emb(query, key, self.head_dim, self.max_seq_len)
        key = torch.repeat_interleave(key, self.n_rep, dim=2)
        value = torch.repeat_interleave(value, self.n_rep, dim=2)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        output = self.compute_query_key_value_scores(query, key, value)
        output = output.transpose(1, 2).contiguous().view(bs, seqlen, -1)
        return self.resid_dropout(self.compute_output(output))


class FeedForward(nn.Module):
    def __init__(self, dim, hidden_dim, multiple_of, dropout):
        super().__init__()
        if hidden_dim is None:
            hidden_dim = int(2 * (4 * dim) / 3)
            hidden_dim = multiple_of * ((hidden_dim + multiple_of - 1) // multiple_of)
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def SwiGLU(self, x):
        return F.silu(self.w1(x)) * self.w3(x)

    def forward(self, x):
        return self.dropout(self.w2(self.SwiGLU(x)))


class LlamaLayer(nn.Module):
    def __init__(self, layer_id, config):
        super().__init__()
        self.n_heads = config.n_heads
        self.dim = config.dim
        self.head_dim = config.dim // config.n_heads
        self.attention = Attention(config)
        self.feed_forward = FeedForward(
            config.dim, config.hidden_dim, config.multiple_of, config.dropout)
        self.layer_id = layer_id
        self.attention_norm = LayerNorm(config.dim, eps=config.layer_norm_eps)
        self.ffn_norm = LayerNorm(config.dim, eps=config.layer_norm_eps)

    def forward(self, x):
        h = x + self.attention(self.attention_norm(x))
        return h + self.feed_forward(self.ffn_norm(h))


class Llama(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.params = config
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([LlamaLayer(i, config) for i in range(config.n_layers)])
        self.norm = LayerNorm(config.dim, eps=config.layer_norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.tok_embeddings.weight = self.output.weight
        self.apply(self._init_weights)
        for name, p in self.named_parameters():
            if name.endswith("w3.weight") or name.endswith("compute_output.weight"):
                nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * config.n_layers))

    def forward(self, tokens, targets=None):
        h = self.dropout(self.tok_embeddings(tokens))
        for layer in self.layers:
            h = layer(h)
        h = self.norm(h)
        logits = self.output(h[:, [-1], :]) if targets is None else self.output(h)
        return logits, h

    @torch.inference_mode()
    def generate(self, idx, max_new_tokens, temperature=1.0, epsilon=0.05):
        for _ in range(max_new_tokens):
            idx_cond = idx[:, -self.params.max_seq_len:]
            logits, _ = self(idx_cond)
            logits = logits[:, -1, :]
            if temperature == 0.0:
                idx_next = logits.argmax(dim=-1, keepdim=True)
            else:
                probs = F.softmax(logits / temperature, dim=-1)
                threshold = probs.max(dim=-1, keepdim=True).values.clamp(max=epsilon)
                probs = probs * (probs >= threshold)
                probs = probs / probs.sum(dim=-1, keepdim=True)
                idx_next = torch.multinomial(probs, num_samples=1)
            idx = torch.cat((idx, idx_next), dim=1)
        return idx


def load_pretrained(checkpoint):
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = Llama(LlamaConfig(**saved["model_args"]))
    state = {name.removeprefix("_orig_mod."): p for name, p in saved["model"].items()}
    model.load_state_dict(state, strict=False)
    return model
