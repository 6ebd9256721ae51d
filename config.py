"""The shape of a Llama model."""

from dataclasses import dataclass

LARGEST = 2**20  # keeps a damaged checkpoint from asking for more memory than any real model

@dataclass
class LlamaConfig:
    """Everything that determines the shapes of a model's tensors and what is computed with them.

    A checkpoint stores these fields as its `model_args`; the defaults are those of stories42M.

    Raises:
        ValueError: a field has the wrong type or a value that no model can have.
    """

    vocab_size: int = 32000
    dim: int = 512  # width of the residual stream
    dropout: float = 0.0
    n_layers: int = 8
    n_heads: int = 8  # query heads
    n_kv_heads: int | None = 8  # key/value heads; None means n_heads
    max_seq_len: int = 1024  # in tokens; limits generation only
    layer_norm_eps: float = 1e-5
    multiple_of: int = 32  # hidden_dim is rounded up to a multiple of this
    hidden_dim: int | None = None  # feed-forward width; None: 2/3 of 4*dim, rounded up
    causal: bool = False  # the reference attends to every position, later ones and padding included

    def __post_init__(self) -> None:
        if self.n_kv_heads is None:
            self.n_kv_heads = self.n_heads
        for name in ("vocab_size", "dim", "n_layers", "n_heads", "n_kv_heads", "max_seq_len",
                     "multiple_of", "hidden_dim"):
            value = getattr(self, name)
            if value is None and name == "hidden_dim":
                continue
            if type(value) is not int or not 1 <= value <= LARGEST:
                raise ValueError(
                    f"{name} must be a whole number from 1 to {LARGEST}, not {value!r}")
        for name, below in (("dropout", 1.0), ("layer_norm_eps", float("inf"))):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < below:
                raise ValueError(f"{name} must be a number in [0, {below}), not {value!r}")
        if type(self.causal) is not bool:
            raise ValueError(f"causal must be true or false, not {self.causal!r}")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_heads={self.n_heads} is not divisible by n_kv_heads={self.n_kv_heads}")
        if self.dim % (2 * self.n_heads):
            raise ValueError(f"dim={self.dim} does not divide into n_heads={self.n_heads} heads "
                             "of even width (rotary embeddings turn pairs)")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.n_heads
