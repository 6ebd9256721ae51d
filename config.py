"""The shape of a Llama model."""

from typing import Any


class LlamaConfig:
    """Everything that determines the shapes of a model's tensors and what is computed with them.

    A checkpoint stores these values as its `model_args`; the defaults are those of stories42M.

    Args:
        dim: width of the residual stream.
        n_heads: query heads.
        n_kv_heads: key/value heads; None: `n_heads`.
        hidden_dim: width of the feed-forward layer; None: 8/3 dim, rounded up to a multiple of
            `multiple_of`.
        max_seq_len: how many tokens `Llama.generate` looks back at.
        kwargs: become attributes, since checkpoints carry keys of other programs. This model uses
            one of them, `causal`: whether a position attends to itself and earlier ones only.
    Raises:
        ValueError: a value that no model can have.
    """

    model_type = "llama"

    def __init__(
        self,
        vocab_size: int = 32000,
        dim: int = 512,
        dropout: float = 0.0,
        n_layers: int = 8,
        n_heads: int = 8,
        n_kv_heads: int | None = 8,
        max_seq_len: int = 1024,
        layer_norm_eps: float = 1e-5,
        multiple_of: int = 32,
        hidden_dim: int | None = None,
        position_embedding_type: str = "rotary",
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.dim = dim
        self.dropout = dropout
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.max_seq_len = max_seq_len
        self.layer_norm_eps = layer_norm_eps
        self.multiple_of = multiple_of
        self.hidden_dim = hidden_dim
        self.position_embedding_type = position_embedding_type
        self.use_cache = use_cache
        for name, value in kwargs.items():
            setattr(self, name, value)
        self._check()

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"LlamaConfig({values})"

    def _check(self) -> None:
        for name in ("vocab_size", "dim", "n_layers", "n_heads", "n_kv_heads", "max_seq_len",
                     "multiple_of", "hidden_dim"):
            size = getattr(self, name)
            if size is None and name in ("n_kv_heads", "hidden_dim"):
                continue
            if type(size) is not int or not 1 <= size < 2**31:
                raise ValueError(f"{name} must be a positive integer, not {size!r:.40}")
        for value in (self.dropout, self.layer_norm_eps):
            if not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise ValueError(f"dropout and layer_norm_eps must be in [0, 1), not {value!r:.40}")
        if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads={self.n_heads} is not divisible by n_kv_heads={self.n_kv_heads}")
        if self.dim % (2 * self.n_heads):
            raise ValueError(f"dim={self.dim} does not divide into n_heads={self.n_heads} heads of "
                             "even width (rotary embeddings rotate pairs)")
