"""Loading a checkpoint: exactly the model of the file, or one line about what is wrong with it."""

import errno
from collections import OrderedDict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import reference
from conftest import SMALL
from llama import Llama, load_pretrained
from utils import load_file

EMBEDDING, OUTPUT, NORM = "tok_embeddings.weight", "output.weight", "norm.weight"


@pytest.fixture
def path(small_checkpoint: Path) -> Path:
    """Of a checkpoint that a test may damage."""
    return small_checkpoint


@pytest.fixture
def content(path: Path) -> dict[str, Any]:
    """What it contains, for a test to change and `save`."""
    return torch.load(path, weights_only=True)


def save(path: Path, content: object, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def refusal(path: Path) -> str:
    """The line that refuses a file; it starts with the file's path."""
    with pytest.raises(ValueError) as error:
        load_pretrained(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert "; " in message  # which is followed by what to do
    return message


def assert_loads(path: Path, weights: reference.Weights) -> Llama:
    """Every parameter is the file's, or a bias that it lacks and zero."""
    model = load_pretrained(path)
    assert model.output.weight is model.tok_embeddings.weight and not model.training
    parameters = dict(model.named_parameters())
    assert parameters.keys() == reference.shapes(SMALL, biases=True).keys()
    for name, parameter in parameters.items():
        assert (parameter.dtype, parameter.device.type) == (torch.float32, "cpu")
        assert parameter.is_contiguous() and parameter.requires_grad
        np.testing.assert_array_equal(
            parameter.detach(), weights.get(name, np.zeros(parameter.shape)), err_msg=name)
    return model


@pytest.mark.parametrize("llama2c, prefix", [
    (False, ""), (False, "_orig_mod."), (True, ""), (True, "_orig_mod.")])
@pytest.mark.parametrize("tied, biases", [
    ([EMBEDDING], False), ([OUTPUT], True), ([EMBEDDING, OUTPUT], False)], ids=str)
def test_every_naming_in_circulation_loads(path, llama2c, prefix, tied, biases, capsys):
    weights = reference.seeded_weights(SMALL, 2, biases)
    tensors = weights | dict.fromkeys(["freqs_cos", "freqs_sin"] if llama2c else (), np.ones(3))
    tensors |= dict.fromkeys(tied, tensors.pop(EMBEDDING))
    reference.save_checkpoint(path, tensors, SMALL, llama2c, prefix)
    content = torch.load(path, weights_only=True)
    model = OrderedDict(content["model"])
    model._metadata = OrderedDict({"": {"version": 1}, "tok_embeddings": {"version": 1}})
    assert_loads(save(path, content | {  # and what else a training run saves
        "model": model, "iter_num": 164000, "best_val_loss": torch.tensor(0.85),
        "config": {"out_dir": "out", "compile": False}}), weights)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("dtype, zipped", [
    (torch.bfloat16, True), (torch.float64, True), (torch.float32, False)])
def test_other_precisions_and_the_older_format_load(path, content, dtype, zipped):
    tensors = {name: tensor.to(dtype) for name, tensor in content["model"].items()}
    assert_loads(save(path, content | {"model": tensors}, zipped), {
        name: tensor.float().numpy() for name, tensor in tensors.items()})


@pytest.mark.skipif(not hasattr(torch.serialization, "set_crc32_options"), reason="PyTorch < 2.6")
def test_a_file_saved_without_checksums_loads(path, content, small_weights):
    torch.serialization.set_crc32_options(False)
    try:
        save(path, content)
    finally:
        torch.serialization.set_crc32_options(True)
    assert_loads(path, small_weights)


def test_further_model_args_are_kept_and_named_in_one_line(path, content, small_weights, capsys):
    """Those of this model have their effect and are not named."""
    further = {"rope_theta": 5.0, "norm_eps": None, "causal": True, "dropout": 0.1}
    content["model_args"] |= further
    model = assert_loads(save(path, content), small_weights)
    assert vars(model.config).items() >= (SMALL | further).items()
    assert model.layers[1].attention.causal and model.layers[1].attention.attn_dropout.p == 0.1
    out, notice = capsys.readouterr()
    assert out == "" and notice.count("\n") == 1 and path.name in notice
    assert [name in notice for name in further] == [True, True, False, False]


def test_a_model_for_endless_texts_needs_no_table_for_all_their_positions(path, content):
    ids = torch.arange(40)[None]
    expected = load_pretrained(save(path, content)).generate(ids[:, :10], 6, 0.0)
    content["model_args"]["max_seq_len"] = 2**31 - 1
    assert torch.equal(load_pretrained(save(path, content)).generate(ids[:, :10], 6, 0.0), expected)


@pytest.mark.parametrize("key, value, named", [
    *((name, value, reference.course_name(name)) for name, value in [
        (EMBEDDING, None), ("norm.bias", torch.ones(24)),
        ("layers.1.attention.wk.weight", torch.ones(24, 24)),
        (NORM, [1.0] * 24), (NORM, torch.ones(24, dtype=torch.long)),
        (NORM, torch.ones(24).to_sparse()), (NORM, torch.full((24,), np.nan)),
        ("layers.0.attention.compute_query.weight", torch.ones(24, 24)),  # under both names
        (OUTPUT, torch.ones(61, 24))]),
    ("n_layers", "2", "n_layers"), ("n_layers", 10**9, "n_layers"), ("dim", 8 * 10**15, "dim"),
    ("n_kv_heads", 3, "n_kv_heads"), ("n_layers", 3, "layers.2.ffn_norm.weight"),
    ("n_layers", 1, "layers.1.ffn_norm.weight"), ("vocab_size", 62, EMBEDDING),
], ids=lambda value: f"{value!s:.30}")
def test_what_is_wrong_is_named(path, small_weights, key, value, named):
    reference.save_checkpoint(path, small_weights, SMALL, llama2c=True)
    content = torch.load(path, weights_only=True)
    changed = content["model_args" if key in SMALL else "model"]
    changed[key] = value
    if value is None:
        del changed[key]
    assert named in refusal(save(path, content))


def test_a_file_with_something_else_in_it_is_refused(path):
    for other in (torch.ones(3), {"model": {}}, {"model": {}, "model_args": {3: 4}},
                  {"model": {3: torch.ones(3)}, "model_args": SMALL}):
        refusal(save(path, other))
    assert "classifier" in refusal(save(path, {"model": {}, "model_config": {"num_labels": 2}}))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_or_one_of_another_kind_is_refused(path, content, zipped):
    whole = save(path, content, zipped).read_bytes()
    beginnings = [whole[:int(len(whole) * share)] for share in (0.0, 0.01, 0.3, 0.999)]
    for damaged in (*beginnings, beginnings[2] + whole[len(whole) // 2:],  # or without its middle
                    b"hello, world\n" * 99):
        path.write_bytes(damaged)
        refusal(path)


def test_no_flipped_bit_anywhere_loads_another_model(path, content, small_weights):
    """Some bits of the file mean nothing; any other is noticed."""
    whole, rng = save(path, content).read_bytes(), np.random.default_rng(10)
    refused = 0
    for place in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert_loads(path, small_weights)
        except ValueError:
            refusal(path)
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(path, content, zipped):
    trace = path.with_name("trace")

    class Intruder:
        def __reduce__(self) -> tuple:
            return Path.touch, (trace,)

    refusal(save(path, content | {"more": Intruder()}, zipped))
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("load", [load_pretrained, load_file])
@pytest.mark.parametrize("kind, arguments", [
    (MemoryError, []), (OSError, [errno.EIO, "Input/output error"]),
    (RuntimeError, ["DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."])])
def test_out_of_memory_and_a_failing_disk_are_not_called_damage(
        path, monkeypatch, load, kind, arguments):
    monkeypatch.setattr(torch, "load", Mock(side_effect=kind(*arguments)))
    with pytest.raises(kind) as raised:
        load(path)
    assert kind is not OSError or raised.value.filename == path
