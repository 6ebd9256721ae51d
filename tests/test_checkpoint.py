"""Loading a checkpoint: exactly the model of the file, or one clear line about the file."""

from pathlib import Path

import numpy as np
import pytest
import torch

import reference
from config import LlamaConfig
from conftest import SMALL
from llama import Llama, load_pretrained

BUFFERS = {"freqs_cos": np.ones((16, 3)), "freqs_sin": np.zeros((16, 3))}


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, for a test to change and `save`."""
    return torch.load(path, weights_only=True)["model"]


def save(path: Path, model: object, **model_args) -> Path:
    torch.save({"model": model, "model_args": SMALL | model_args}, path)
    return path


def refusal(path: Path) -> str:
    """The one line with which a checkpoint is refused; it names the file."""
    with pytest.raises(ValueError) as error:
        load_pretrained(path)
    message = str(error.value)
    assert path.name in message and "\n" not in message and len(message) < 1000
    return message


def assert_holds(model: Llama, weights: reference.Weights) -> None:
    """Every parameter is the file's; biases that the file lacks are zero."""
    parameters = dict(model.named_parameters())
    assert parameters.keys() == reference.shapes(SMALL, biases=True).keys()
    for name, parameter in parameters.items():
        expected = weights.get(name, np.zeros(parameter.shape))
        assert parameter.dtype == torch.float32 and parameter.device.type == "cpu"
        np.testing.assert_array_equal(parameter.detach(), expected, err_msg=name)


# What loads


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("llama2c", [False, True], ids=["course", "llama2.c"])
@pytest.mark.parametrize("extras", [False, True], ids=["plain", "with copies and buffers"])
def test_every_naming_in_circulation_loads(tmp_path, small_weights, llama2c, prefix, extras):
    copies = {"output.weight": small_weights["tok_embeddings.weight"], **BUFFERS}
    path = reference.save_checkpoint(
        tmp_path / "model.pt", small_weights | (copies if extras else {}), SMALL, llama2c, prefix)
    model = load_pretrained(path)
    assert_holds(model, small_weights)
    assert model.output.weight is model.tok_embeddings.weight
    assert not model.training and all(p.requires_grad for p in model.parameters())


def test_layer_norm_biases_load_where_a_file_has_them(tmp_path):
    weights = reference.seeded_weights(SMALL, 2, biases=True)
    assert_holds(load_pretrained(reference.save_checkpoint(tmp_path / "b.pt", weights, SMALL)),
                 weights)


def test_a_saved_model_loads_as_itself(tmp_path, small_checkpoint, small_weights):
    path = save(tmp_path / "again.pt", load_pretrained(small_checkpoint).state_dict())
    assert_holds(load_pretrained(path), small_weights)


def test_real_weights_load(stories260k):
    model, (weights, _) = load_pretrained(stories260k), reference.read_checkpoint(stories260k)
    for name, parameter in model.named_parameters():
        expected = weights.get(name, np.zeros(parameter.shape))
        np.testing.assert_array_equal(parameter.detach(), expected, err_msg=name)


def test_half_precision_becomes_float32(small_checkpoint, small_weights):
    halved = {name: t.bfloat16() for name, t in tensors_of(small_checkpoint).items()}
    expected = {name: t.float().numpy() for name, t in halved.items()}
    assert_holds(load_pretrained(save(small_checkpoint, halved)), expected)


def test_model_args_reach_the_model(small_checkpoint):
    tensors = tensors_of(small_checkpoint)
    config = load_pretrained(save(small_checkpoint, tensors, causal=True, dropout=0.1)).config
    assert config == LlamaConfig(**SMALL, causal=True, dropout=0.1)


def test_loading_draws_no_random_numbers(small_checkpoint):
    """None for weights that the file overwrites, and none that shift a seeded run."""
    before = torch.get_rng_state()
    load_pretrained(small_checkpoint)
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_share_no_memory_even_where_the_file_does(small_checkpoint):
    tensors = tensors_of(small_checkpoint)
    tensors["layers.1.ffn_norm.weight"] = tensors["norm.weight"]
    model = load_pretrained(save(small_checkpoint, tensors))
    torch.nn.init.zeros_(model.norm.weight)
    assert (model.layers[1].ffn_norm.weight != 0).all()


def test_a_path_may_be_text(small_checkpoint, small_weights):
    assert_holds(load_pretrained(str(small_checkpoint)), small_weights)


# What is refused: the tensors


@pytest.mark.parametrize("name", ["tok_embeddings.weight", "layers.1.attention.wk.weight",
                                  "layers.0.ffn_norm.weight", "norm.weight"])
def test_a_missing_tensor_is_named(tmp_path, small_weights, name):
    weights = dict(small_weights)
    del weights[reference.course_name(name)]
    path = reference.save_checkpoint(tmp_path / "m.pt", weights, SMALL, llama2c="wk" in name)
    assert reference.course_name(name) in refusal(path)


@pytest.mark.parametrize("name", ["layers.2.attention.compute_query.weight", "lora_A", "head.bias",
                                  "layers.0.attention.compute_query.bias", "output.bias"])
def test_an_unexpected_tensor_is_named(tmp_path, small_weights, name):
    path = reference.save_checkpoint(
        tmp_path / "m.pt", small_weights | {name: np.zeros((24, 24))}, SMALL)
    assert name in refusal(path)


def test_a_tensor_under_both_of_its_names_is_refused(tmp_path, small_weights):
    name = "layers.0.attention.compute_query.weight"
    twice = small_weights | {name.replace("compute_query", "wq"): small_weights[name] + 1}
    assert name in refusal(reference.save_checkpoint(tmp_path / "m.pt", twice, SMALL))


@pytest.mark.parametrize("name, shape", [
    ("layers.0.feed_forward.w1.weight", (70, 23)), ("norm.weight", (1,)),
    ("layers.1.attention.compute_key.weight", (24, 24)), ("norm.weight", ()),
    ("layers.1.feed_forward.w2.weight", (70, 24)), ("tok_embeddings.weight", (60, 24)),
    ("norm.bias", (23,))])
def test_a_tensor_of_the_wrong_shape_is_named(tmp_path, name, shape):
    weights = reference.seeded_weights(SMALL, 0, biases=True) | {name: np.ones(shape)}
    assert name in refusal(reference.save_checkpoint(tmp_path / "m.pt", weights, SMALL))


def test_a_different_output_layer_is_refused(tmp_path, small_weights):
    output = small_weights["tok_embeddings.weight"].copy()
    output[60, 23] += 1e-3
    path = reference.save_checkpoint(
        tmp_path / "m.pt", small_weights | {"output.weight": output}, SMALL)
    assert "output.weight" in refusal(path)


@pytest.mark.parametrize("name", ["tok_embeddings.weight", "layers.1.attention_norm.weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(tmp_path, small_weights, name, value):
    broken = small_weights[name].copy()
    broken.flat[-1] = value
    path = reference.save_checkpoint(tmp_path / "m.pt", small_weights | {name: broken}, SMALL)
    assert name in refusal(path)


@pytest.mark.parametrize("wrong", [
    [1.0] * 24, None, "text", torch.ones(24, dtype=torch.long), torch.ones(24).to_sparse(),
    torch.ones(24, dtype=torch.complex64)])
def test_what_is_not_a_tensor_of_numbers_is_named(small_checkpoint, wrong):
    tensors = tensors_of(small_checkpoint) | {"norm.weight": wrong}
    assert "norm.weight" in refusal(save(small_checkpoint, tensors))


def test_kinds_of_tensors_that_pytorch_warns_of_are_refused_in_silence(small_checkpoint, recwarn):
    quantized = torch.quantize_per_tensor(torch.ones(24), 0.1, 0, torch.quint8)
    recwarn.clear()
    path = save(small_checkpoint, tensors_of(small_checkpoint) | {"norm.weight": quantized})
    recwarn.clear()
    assert "norm.weight" in refusal(path)
    assert not recwarn.list


# What is refused: model_args


@pytest.mark.parametrize("key", ["n_layer", "rope_theta", "__class__"])
def test_an_unknown_key_in_model_args_is_named(small_checkpoint, key):
    assert key in refusal(save(small_checkpoint, tensors_of(small_checkpoint), **{key: 8}))


@pytest.mark.parametrize("key, value", [
    ("n_layers", "2"), ("dim", 24.0), ("dim", [24]), ("n_heads", None), ("vocab_size", True),
    ("layer_norm_eps", "1e-5"), ("causal", "no"), ("dropout", torch.tensor(0.1)),
    ("n_heads", 5), ("n_kv_heads", 3), ("n_layers", 0), ("n_layers", 10**6), ("n_layers", 10**9),
    ("dim", 10**6), ("dim", 10**15)])
def test_a_bad_value_in_model_args_is_named(small_checkpoint, key, value):
    """By its key, or by the tensors that it does not fit."""
    message = refusal(save(small_checkpoint, tensors_of(small_checkpoint), **{key: value}))
    assert key in message or "layers" in message or "shape" in message


@pytest.mark.parametrize("content", [
    None, [1, 2], {}, {"model": {}}, {"model_args": SMALL}, {"model": {}, "model_args": SMALL},
    {"model": None, "model_args": SMALL}, {"model": {}, "model_args": None},
    {"model": {3: torch.ones(3)}, "model_args": SMALL}, {"model": {}, "model_args": {3: 4}}])
def test_a_file_with_something_else_in_it_is_refused(tmp_path, content):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    refusal(path)


# What is refused: the file


def test_a_missing_checkpoint_says_how_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pt.*setup.sh") as error:
        load_pretrained(tmp_path / "nowhere.pt")
    assert "\n" not in str(error.value)


def test_a_folder_is_refused(tmp_path):
    refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"hello, world\n" * 99, b"\x80\x02.", b"\0" * 999])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "junk.pt"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(small_checkpoint, share):
    whole = small_checkpoint.read_bytes()
    small_checkpoint.write_bytes(whole[:int(len(whole) * share)])
    refusal(small_checkpoint)


def test_a_flipped_bit_in_the_weights_is_noticed(small_checkpoint, small_weights):
    damaged = bytearray(small_checkpoint.read_bytes())
    place = damaged.index(np.float32(small_weights["layers.1.feed_forward.w2.weight"]).tobytes())
    damaged[place + 5] ^= 1
    small_checkpoint.write_bytes(damaged)
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
        except ValueError as error:
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
