"""Runs that are killed, whose disk is full or whose files are damaged: nothing good is lost."""

import errno
import itertools
import os
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

import run_llama
from optimizer import AdamW
from runs import TRAINING, command, contents, refused, reset, run

STATE = "my-dev-lora-output.resume.pt"


class Killed(BaseException):
    """A run ends as by SIGKILL: it does not even remove its temporary file any more."""


@contextmanager
def file_operations_fail(numbers: Container[int], error: BaseException) -> Iterator[None]:
    """Raise an error in place of the n-th fsync, rename or removal of a file, for these n."""
    count = itertools.count(1)

    def counted(function):
        def operation(*args, **kwargs):
            if next(count) in numbers:
                raise error
            return function(*args, **kwargs)
        return operation

    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "replace", "unlink"):
            patch.setattr(os, name, counted(getattr(os, name)))
        yield


def is_killed(argv: list[str], number: int) -> bool:
    """Run until the number-th file operation; whether the run gets that far."""
    with suppress(Killed), file_operations_fail(range(number, 999), Killed()):
        run_llama.main(argv)
        return False
    return True


def check_models() -> None:
    """Whatever file has the name of a model or a state is whole."""
    for path in Path().glob("*.pt"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("option", TRAINING)
def test_killed_at_any_file_operation_and_resumed_it_leaves_the_same_bytes(place, option):
    argv, before = command(option, epochs=3), contents()
    assert run_llama.main(argv) == 0
    expected = contents()
    for number in range(1, 100):
        reset(before)
        if not is_killed(argv, number):
            break
        check_models()
        is_killed([*argv, "--resume"], 4)  # once more, an epoch or two later
        assert run_llama.main([*argv, "--resume"]) == 0
        left = {name: content for name, content in contents().items()
                if not name.endswith(".part")}  # temporary files of the killed runs
        assert left == expected, f"killed before file operation {number}"
    # Synced and renamed: three states, one model at least, two predictions; then one is removed.
    assert number > 2 * (3 + 1 + 2) + 1 and contents() == expected


@pytest.mark.parametrize("option", ["prompt", "lora"])
def test_a_full_disk_is_said_in_one_line_and_leaves_the_old_files_or_the_new(
        place, capsys, option):
    argv, inputs = command(option, epochs=2), contents()
    assert run_llama.main(argv) == 0
    new = contents()
    old = {name: b"0 ||| old\n" for name in new.keys() - inputs.keys() if name.endswith(".txt")}
    for number in range(1, 100):
        reset(inputs | old)
        with file_operations_fail([number], OSError(errno.ENOSPC, "No space left on device")):
            status, _, errors = run(argv, capsys)
        if status == 0:
            break
        (said,) = errors
        assert status == 2 and re.search(r"[\w-]+\.(txt|pt): No space left on device", said)
        check_models()
        assert all(contents()[name] in (old[name], new[name]) for name in old)
    assert number > 4


def test_resuming_with_another_option_or_file_is_refused_by_its_name(
        place, capsys, interrupt_after, tiny_tokenizer):
    interrupt_after(1, command("lora", epochs=2))
    model = torch.load("model.pt", weights_only=True)
    torch.save(model | {"iter_num": 1}, "other.pt")
    # One field more (1001, unknown to SentencePiece): the same model in another file.
    Path("other.model").write_bytes(tiny_tokenizer.read_bytes() + b"\xc8\x3e\x01")
    changes = {
        "seed": 3, "batch_size": 5, "hidden_dropout_prob": 0.2, "epochs": 3, "lr": 0.5,
        "max_sentence_len": 9, "lora_rank": 2, "lora_alpha": 2.0, "train": "dev.txt",
        "dev": "test.txt", "pretrained-model-path": "other.pt", "tokenizer": "other.model"}
    # What neither changes the training nor is tried here is an option that has to be added.
    tried = {name.replace("-", "_") for name in changes} | {"option", "use_gpu"}
    assert tried == vars(run_llama.get_args([])).keys() - run_llama.NOT_COMPARED
    for name, value in changes.items():
        argv = command("lora", **{"epochs": 2, "resume": True, name: value})
        said = refused(argv, capsys, may_load=True)
        assert f"used another {name.replace('-', '_')};" in said and "leave out --resume" in said


def test_resuming_continues_wherever_the_files_are(place, capsys, interrupt_after):
    interrupt_after(1, command("lora", epochs=3, resume=True))  # there is nothing to resume yet
    moved = {"train": "a.txt", "dev": "b.txt", "pretrained-model-path": "c.pt", "tokenizer": "d"}
    for old, new in zip(("train.txt", "dev.txt", "model.pt", "tokenizer.model"), moved.values()):
        Path(old).rename(new)
    interrupt_after(1, command("lora", epochs=3, resume=True, **moved))
    status, printed, errors = run(command("lora", epochs=3, resume=True, **moved), capsys)
    assert (status, errors) == (0, []) and "resume after 2 of 3 epochs" in printed


def test_a_damaged_state_is_refused_by_name(place, capsys, interrupt_after):
    interrupt_after(1, command("lora", epochs=2))
    Path(STATE).write_bytes(Path(STATE).read_bytes()[:-999])
    said = refused(command("lora", epochs=2, resume=True), capsys, may_load=True)
    assert f"{STATE}: damaged" in said and "leave out --resume" in said


def test_another_run_that_saves_under_the_same_name_changes_no_result(
        place, interrupt_after, monkeypatch):
    # A rate at which the second epoch is no better than the first, and saves nothing.
    argv, saved = command("finetune", epochs=2, lr=1e-9), Path("finetune-2-1e-09.pt")
    assert run_llama.main(argv) == 0
    expected = contents()
    interrupt_after(1, argv)
    saved.write_bytes(b"another model")
    assert run_llama.main([*argv, "--resume"]) == 0 and contents() == expected
    step = AdamW.step
    monkeypatch.setattr(AdamW, "step", lambda self: (
        saved.write_bytes(b"another model"), step(self))[1])
    assert run_llama.main(argv) == 0
    assert all(contents()[name] == expected[name] for name in expected if "output" in name)
