"""What Mini-Llama computes, in NumPy float64, one line of code for one line of mathematics.

The tests hold the model to this module, and the reference values of the small model in `demo/`
are made with it. It shares no code with the model; it is written from the formulas, and nothing
in it is fast. Texts of equal length may be stacked in leading dimensions (...).

Weights are a `dict` of arrays under the course's names (`layers.0.attention.compute_query.weight`);
LayerNorm biases may be absent and are then zero. `args` are a checkpoint's `model_args`.
"""

from pathlib import Path

import numpy as np
import torch  # reads and writes checkpoint files; computes nothing here

DEFAULTS = {
    "vocab_size": 32000, "dim": 512, "dropout": 0.0, "n_layers": 8, "n_heads": 8, "n_kv_heads": 8,
    "max_seq_len": 1024, "layer_norm_eps": 1e-5, "multiple_of": 32, "hidden_dim": None,
    "causal": False,
}
LLAMA2C_NAMES = {f"attention.w{name[0]}": f"attention.compute_{name}"
                 for name in ("query", "key", "value", "output")}
Weights = dict[str, np.ndarray]


def complete(args: dict) -> dict:
    """`args` with defaults; the feed-forward width is 8/3 dim, rounded up to `multiple_of`."""
    args = DEFAULTS | args
    multiple = args["multiple_of"]
    return args | {
        "n_kv_heads": args["n_kv_heads"] or args["n_heads"],
        "hidden_dim": args["hidden_dim"] or -(-int(8 * args["dim"] / 3) // multiple) * multiple}


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """(x - mean) / sqrt(var + eps) * weight + bias, with the population variance (Ba 2016)."""
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * weight + bias


def rotate(x: np.ndarray, theta: float = 10000.0) -> np.ndarray:
    """RoPE (Su 2021, eq. 15) on x (..., seqlen, head_dim).

    Pair i of position p, read as the complex number x[2i] + j x[2i+1], is multiplied by
    exp(j p theta^(-2i/head_dim)).
    """
    *_, seqlen, head_dim = x.shape
    frequency = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    angle = np.outer(np.arange(seqlen), frequency)
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape)


def softmax(x: np.ndarray) -> np.ndarray:
    """exp(x) / sum(exp(x)) over the last dimension."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool = False) -> np.ndarray:
    """softmax(q k^T / sqrt(head_dim)) v, for one head: (..., seqlen, head_dim) each (Vaswani)."""
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tri(q.shape[-2], dtype=bool), scores, -np.inf)
    return softmax(scores) @ v


def attention(weights: Weights, name: str, args: dict, x: np.ndarray) -> np.ndarray:
    """Attention of x (..., seqlen, dim). Head h reads key/value head h // group (GQA)."""
    head_dim = args["dim"] // args["n_heads"]
    group = args["n_heads"] // args["n_kv_heads"]
    query, key, value = (x @ weights[f"{name}.compute_{part}.weight"].T
                         for part in ("query", "key", "value"))
    heads = []
    for h in range(args["n_heads"]):
        own, shared = (slice(i * head_dim, (i + 1) * head_dim) for i in (h, h // group))
        heads.append(attend(rotate(query[..., own]), rotate(key[..., shared]), value[..., shared],
                            args["causal"]))
    return np.concatenate(heads, -1) @ weights[f"{name}.compute_output.weight"].T


def feed_forward(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """SwiGLU (Shazeer 2020, eq. 6): w2(silu(w1 x) * w3 x), silu(a) = a / (1 + exp(-a))."""
    w1, w2, w3 = (weights[f"{name}.w{i}.weight"] for i in (1, 2, 3))
    gate = x @ w1.T
    return (gate / (1 + np.exp(-gate)) * (x @ w3.T)) @ w2.T


def forward(weights: Weights, args: dict, tokens) -> tuple[np.ndarray, np.ndarray]:
    """Logits (..., seqlen, vocab_size) and hidden states (..., seqlen, dim) of tokens.

    Every layer is pre-norm; hidden states are those after the final norm; the output layer is the
    transposed embedding. Padding is read like any other token.
    """
    args = complete(args)
    weights = {name: np.asarray(w, np.float64) for name, w in weights.items()}

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        bias = weights.get(f"{name}.bias", 0.0)
        return layer_norm(x, weights[f"{name}.weight"], bias, args["layer_norm_eps"])

    h = weights["tok_embeddings.weight"][np.asarray(tokens)]
    for i in range(args["n_layers"]):
        layer = f"layers.{i}"
        h = h + attention(weights, f"{layer}.attention", args, norm(f"{layer}.attention_norm", h))
        h = h + feed_forward(weights, f"{layer}.feed_forward", norm(f"{layer}.ffn_norm", h))
    hidden = norm("norm", h)
    return hidden @ weights["tok_embeddings.weight"].T, hidden


def next_token_distribution(logits: np.ndarray, temperature: float, epsilon: float) -> np.ndarray:
    """The distribution that `generate` samples from, given the logits (vocab_size,) of a step.

    softmax(logits / temperature) without what is less likely than epsilon, renormalized; all on
    the most likely token where nothing reaches epsilon, and at temperature 0.
    """
    greedy = (np.arange(len(logits)) == np.argmax(logits)).astype(np.float64)
    if temperature == 0:
        return greedy
    p = softmax(np.asarray(logits, np.float64) / temperature)
    kept = np.where(p >= epsilon, p, 0.0)
    return kept / kept.sum() if kept.any() else greedy


def greedy_continuation(weights: Weights, args: dict, tokens: list[int], count: int) -> list[int]:
    """The `count` tokens that follow, each the most likely one after the last max_seq_len."""
    args, text = complete(args), list(tokens)
    for _ in range(count):
        logits, _ = forward(weights, args, text[-args["max_seq_len"]:])
        text.append(int(np.argmax(logits[-1])))
    return text[len(tokens):]


def zero_shot_scores(weights: Weights, args: dict, tokens, labels: list[list[int]]) -> np.ndarray:
    """Scores (bs, n_labels) of label names, given as token ids, after right-padded rows of tokens.

    The log-probabilities of a name's tokens, added, all at the last position of the row.
    """
    logits, _ = forward(weights, args, tokens)
    log_p = np.log(softmax(logits[:, -1]))
    return np.stack([log_p[:, label].sum(-1) for label in labels], -1)


def course_name(name: str) -> str:
    """The course's name of a tensor that llama2.c, or a compiled model, calls `name`."""
    name = name.removeprefix("_orig_mod.")
    for theirs, ours in LLAMA2C_NAMES.items():
        name = name.replace(theirs, ours)
    return name


def read_checkpoint(path: str | Path) -> tuple[Weights, dict]:
    """Weights under the course's names, in float64, and `model_args` of a checkpoint file."""
    file = torch.load(path, map_location="cpu", weights_only=True)
    weights = {course_name(name): tensor.double().numpy() for name, tensor in file["model"].items()}
    for extra in ("output.weight", "freqs_cos", "freqs_sin"):
        weights.pop(extra, None)
    return weights, file["model_args"]


def save_checkpoint(path: str | Path, weights: Weights, args: dict, llama2c: bool = False,
                    prefix: str = "") -> Path:
    """Write weights as a float32 checkpoint, in llama2.c's naming or the course's."""
    def file_name(name: str) -> str:
        for theirs, ours in LLAMA2C_NAMES.items() if llama2c else ():
            name = name.replace(ours, theirs)
        return prefix + name

    model = {file_name(name): torch.tensor(np.asarray(w), dtype=torch.float32)
             for name, w in weights.items()}
    torch.save({"model": model, "model_args": args}, path)
    return Path(path)


def shapes(args: dict, biases: bool = False) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model; LayerNorm biases only where asked for."""
    args = complete(args)
    dim, width = args["dim"], args["hidden_dim"]
    kv_dim = dim // args["n_heads"] * args["n_kv_heads"]
    layer = {
        "attention.compute_query": (dim, dim), "attention.compute_key": (kv_dim, dim),
        "attention.compute_value": (kv_dim, dim), "attention.compute_output": (dim, dim),
        "feed_forward.w1": (width, dim), "feed_forward.w2": (dim, width),
        "feed_forward.w3": (width, dim), "attention_norm": (dim,), "ffn_norm": (dim,)}
    table = {"tok_embeddings.weight": (args["vocab_size"], dim), "norm.weight": (dim,)}
    table |= {f"layers.{i}.{name}.weight": shape
              for i in range(args["n_layers"]) for name, shape in layer.items()}
    norms = [name for name, shape in table.items() if len(shape) == 1]
    return table | {name.replace("weight", "bias"): (dim,) for name in norms if biases}


def seeded_weights(args: dict, seed: int, biases: bool = False) -> Weights:
    """Random weights of a size at which no part of the model is idle, exact in float32.

    Matrices keep the variance of what they multiply; norms scale by about one and, with `biases`,
    shift by about a half.
    """
    rng = np.random.default_rng(seed)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        noise = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("norm.weight"):
            return 1 + noise / 4
        return noise / 2 if name.endswith("bias") else noise / np.float32(np.sqrt(shape[-1]))

    return {name: draw(name, shape) for name, shape in shapes(args, biases).items()}
