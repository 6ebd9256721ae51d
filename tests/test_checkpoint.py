"""Loading a checkpoint: exactly the model of the file, or one clear line about the file."""

from pathlib import Path

import numpy as np
import pytest
import torch

import reference
from conftest import SMALL
from llama import CheckpointError, Llama, load_pretrained

EMBEDDING, OUTPUT = "tok_embeddings.weight", "output.weight"
BUFFERS = {"freqs_cos": np.ones((16, 3)), "freqs_sin": np.zeros((16, 3))}


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, for a test to change and `save`."""
    return torch.load(path, weights_only=True)["model"]


def save(path: Path, model: object, **model_args) -> Path:
    torch.save({"model": model, "model_args": SMALL | model_args}, path)
    return path


def refusal(path: Path) -> str:
    """The one line with which a checkpoint is refused; it names the file."""
    with pytest.raises(CheckpointError) as error:
        load_pretrained(path)
    message = str(error.value)
    assert path.name in message and "\n" not in message
    return message


def assert_holds(model: Llama, weights: reference.Weights, args: dict = SMALL) -> None:
    """Every parameter is the file's; biases that the file lacks are zero."""
    parameters = dict(model.named_parameters())
    assert parameters.keys() == reference.shapes(args, biases=True).keys()
    assert model.output.weight is model.tok_embeddings.weight
    assert not model.training
    for name, parameter in parameters.items():
        expected = weights.get(name, np.zeros(parameter.shape))
        assert parameter.dtype == torch.float32 and parameter.device.type == "cpu"
        assert parameter.is_contiguous() and parameter.requires_grad
        np.testing.assert_array_equal(parameter.detach(), expected, err_msg=name)


# What loads


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("llama2c", [False, True], ids=["course", "llama2.c"])
@pytest.mark.parametrize("biases", [False, True], ids=["", "biases"])
@pytest.mark.parametrize("tied", [[EMBEDDING], [OUTPUT], [EMBEDDING, OUTPUT]], ids=str)
def test_every_naming_in_circulation_loads(tmp_path, llama2c, prefix, biases, tied, capsys):
    """With one name of the tied tensor or with both, and with llama2.c's buffers."""
    weights = reference.seeded_weights(SMALL, 2, biases)
    tensors = weights | (BUFFERS if len(tied) > 1 else {})
    embedding = tensors.pop(EMBEDDING)
    tensors |= dict.fromkeys(tied, embedding)
    path = reference.save_checkpoint(tmp_path / "model.pt", tensors, SMALL, llama2c, prefix)
    assert_holds(load_pretrained(path), weights)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_precisions_become_float32(small_checkpoint, dtype):
    other = {name: t.to(dtype) for name, t in tensors_of(small_checkpoint).items()}
    expected = {name: t.float().numpy() for name, t in other.items()}
    assert_holds(load_pretrained(save(small_checkpoint, other)), expected)


def test_tensors_need_not_be_contiguous_nor_have_memory_of_their_own(
        small_checkpoint, small_weights):
    tensors = {name: t.t().contiguous().t() if t.ndim == 2 else torch.stack((t, t), dim=1)[:, 0]
               for name, t in tensors_of(small_checkpoint).items()}
    tensors["norm.weight"] = torch.tensor(2.0).expand(24)
    names = [f"layers.{i}.ffn_norm.weight" for i in (0, 1)]
    tensors |= dict.fromkeys(names, tensors[names[0]].contiguous())
    expected = small_weights | {"norm.weight": np.full(24, 2.0)} | dict.fromkeys(
        names, small_weights[names[0]])
    model = load_pretrained(save(small_checkpoint, tensors))
    assert_holds(model, expected)
    torch.nn.init.zeros_(model.layers[0].ffn_norm.weight)
    model.norm.weight.data[0] = 5.0
    assert (model.layers[1].ffn_norm.weight != 0).all() and model.norm.weight[1] == 2.0


def test_the_older_format_with_more_in_the_file_loads(tmp_path, small_checkpoint, small_weights):
    """As training programs write it: optimizer, configuration and counters beside the model."""
    content = {"model": tensors_of(small_checkpoint), "model_args": SMALL, "iter_num": 3,
               "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "config": {"lr": 1e-3},
               "best_val_loss": torch.tensor(1.5)}
    for zipped in (True, False):
        torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
        assert_holds(load_pretrained(tmp_path / "m.pt"), small_weights)


def test_further_model_args_are_kept_and_named_in_one_line(
        small_checkpoint, small_weights, capsys):
    """Those of this model have their effect and are not named."""
    path = save(small_checkpoint, tensors_of(small_checkpoint), rope_theta=5.0, norm_eps=None,
                causal=True, dropout=0.1, position_embedding_type="other")
    model = load_pretrained(path)
    assert_holds(model, small_weights)
    assert vars(model.config).items() >= {
        **SMALL, "rope_theta": 5.0, "norm_eps": None, "dropout": 0.1}.items()
    assert model.layers[1].attention.causal and model.layers[1].attention.attn_dropout.p == 0.1
    out, notice = capsys.readouterr()
    assert out == "" and notice.count("\n") == 1
    assert path.name in notice and notice.endswith(": 'rope_theta', 'norm_eps'\n")


# What is refused: the tensors


MISSING = object()


@pytest.mark.parametrize("name, value", [
    (EMBEDDING, MISSING), ("layers.0.ffn_norm.weight", MISSING),
    ("layers.1.attention.wk.weight", MISSING),
    # There is no such tensor.
    ("layers.2.attention.wq.weight", torch.ones(24, 24)), ("lora_A", torch.ones(4, 24)),
    ("output.bias", torch.ones(61)),
    # It has another shape.
    ("layers.1.attention.wk.weight", torch.ones(24, 24)), ("norm.weight", torch.tensor(1.0)),
    ("layers.1.feed_forward.w2.weight", torch.ones(70, 24)), (EMBEDDING, torch.ones(60, 24)),
    # It is no dense tensor of floating-point numbers, or not all of them are numbers.
    *(("norm.weight", wrong) for wrong in (
        [1.0] * 24, torch.ones(24, dtype=torch.long), torch.ones(24).to_sparse(),
        torch.ones(24, dtype=torch.complex64), torch.tensor([1.0] * 23 + [np.nan]),
        torch.tensor([1.0] * 23 + [-np.inf]))),
    # It is there under another of its names, too.
    ("layers.0.attention.compute_query.weight", torch.ones(24, 24)), (OUTPUT, torch.ones(61, 24)),
])
def test_a_tensor_that_is_not_the_models_is_named(tmp_path, small_weights, name, value):
    path = reference.save_checkpoint(tmp_path / "m.pt", small_weights, SMALL, llama2c=True)
    tensors = tensors_of(path) | {name: value}
    if value is MISSING:
        del tensors[name]
    assert reference.course_name(name) in refusal(save(path, tensors))


def test_biases_of_another_shape_or_without_the_others_are_named(tmp_path):
    weights = reference.seeded_weights(SMALL, 2, biases=True) | {"norm.bias": np.ones(23)}
    del weights["layers.1.ffn_norm.bias"]
    message = refusal(reference.save_checkpoint(tmp_path / "m.pt", weights, SMALL))
    assert '"layers.1.ffn_norm.bias"' in message and "mismatch for norm.bias" in message


# What is refused: the rest of what the file says


@pytest.mark.parametrize("key, value, said", [
    *((key, value, "model_args describes no model") for key, value in [
        ("n_layers", "2"), ("dim", [24]), ("n_heads", None), ("n_kv_heads", 3),
        ("dropout", torch.tensor(0.1)), ("dim", 8 * 10**15)]),
    ("n_layers", 10**9, "20 tensors cannot be 1000000000 layers"),
    ("n_layers", 3, "layers.2.ffn_norm.weight"), ("n_layers", 1, "layers.1.ffn_norm.weight"),
    ("vocab_size", 62, EMBEDDING), ("multiple_of", 32, "layers.0.feed_forward.w1.weight")], ids=str)
def test_model_args_of_no_model_or_another_are_refused(small_checkpoint, key, value, said):
    assert said in refusal(save(small_checkpoint, tensors_of(small_checkpoint), **{key: value}))


@pytest.mark.parametrize("content", [
    [1, 2], torch.ones(3), {"model": {}}, {"model": {}, "model_args": SMALL},
    {"model": None, "model_args": SMALL}, {"model": {}, "model_args": None},
    {"model": {3: torch.ones(3)}, "model_args": SMALL}, {"model": {}, "model_args": {3: 4}}],
    ids=str)
def test_a_file_with_something_else_in_it_is_refused(tmp_path, content):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    refusal(path)


# What is refused: the file


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_or_one_of_another_kind_is_refused(small_checkpoint, zipped):
    torch.save(torch.load(small_checkpoint, weights_only=True), small_checkpoint,
               _use_new_zipfile_serialization=zipped)
    whole = small_checkpoint.read_bytes()
    truncated = [whole[:int(len(whole) * share)] for share in (0.0, 0.01, 0.3, 0.9, 0.999)]
    for content in (*truncated, b"PK", b"hello, world\n" * 99, b"\x80\x02.", b"\0" * 999):
        small_checkpoint.write_bytes(content)
        refusal(small_checkpoint)


def test_no_flipped_bit_anywhere_loads_another_model(small_checkpoint, small_weights):
    """Some bits of the file mean nothing; any other is noticed."""
    whole, rng = small_checkpoint.read_bytes(), np.random.default_rng(10)
    refused = 0
    for place in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        small_checkpoint.write_bytes(damaged)
        try:
            model = load_pretrained(small_checkpoint)
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert_holds(model, small_weights)
    assert refused > 100


class Intruder:
    """Unpickles as a call that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path, small_weights, zipped):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    content = {"model": dict(small_weights), "model_args": SMALL, "more": Intruder(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    refusal(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()
