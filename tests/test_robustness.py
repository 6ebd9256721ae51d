"""Runs that are killed, whose disk is full or whose files are damaged: nothing good is lost."""

import errno
import os
import re
import signal
from pathlib import Path

import pytest
import torch

import run_llama
import runs
from llama import load_file
from runs import TRAINING, command, contents, refused, reset, run

STATE = "my-dev-lora-output.resume.pt"


def check_models() -> None:
    """Whatever file has the name of a model or a state is whole."""
    for path in Path().glob("*.pt"):
        load_file(str(path))


# ------------------------------------------------------------------------------ stopped and resumed

@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
@pytest.mark.parametrize("option", TRAINING)
def test_killed_at_any_file_operation_and_resumed_it_leaves_the_same_bytes(
        place, tmp_path, option):
    argv, before, log = command(option, epochs=3), contents(), tmp_path / "log"
    assert run_llama.main(argv) == 0
    expected = contents()
    for number in range(1, 100):
        reset(before)
        status = runs.kill_before(number, argv, log)
        # Also into a file, what is printed is there at once: a killed process writes nothing more.
        assert "load model from model.pt\n" in log.read_text(encoding="utf-8")
        if status == 0:
            break
        assert status == -signal.SIGKILL
        check_models()
        assert run_llama.main([*argv, "--resume"]) == 0
        left = {name: content for name, content in contents().items()
                if not name.endswith(".part")}  # the temporary file of the killed run
        assert left == expected, f"killed before file operation {number}"
    # Synced and renamed: a model and a state for each epoch, at least, then model and predictions;
    # at last the state is removed.
    assert number > 2 * 4 + 2 * 3 + 1 and contents() == expected


@pytest.mark.parametrize("option", ["prompt", *TRAINING])
def test_a_full_disk_is_said_in_one_line_and_leaves_the_old_files_or_the_new(
        place, capsys, monkeypatch, option):
    argv, inputs = command(option, epochs=2), contents()
    assert run_llama.main(argv) == 0
    new = contents()
    old = {name: b"0 ||| old\n" for name in new.keys() - inputs.keys() if name.endswith(".txt")}

    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for number in range(1, 100):
        reset(inputs | old)
        with monkeypatch.context() as patch:
            runs.at_file_operation(number, fail, patch.setattr)
            status, _, errors = run(argv, capsys)
        if status == 0:
            break
        (said,) = errors
        assert status == 2 and os.strerror(errno.ENOSPC) in said
        assert re.search(r"[\w-]+\.(txt|pt): ", said), "the file is not named"
        check_models()
        assert all(contents()[name] in (old[name], new[name]) for name in old)
    assert number > 4


def test_a_run_that_is_interrupted_again_and_again_leaves_the_same_bytes(
        place, capsys, interrupt_after):
    argv, before = command("lora", epochs=4), contents()
    assert run_llama.main(argv) == 0
    expected = contents()
    reset(before)
    for done in (0, 1, 3):
        interrupt_after(done, [*argv, "--resume"])
    status, printed, errors = run([*argv, "--resume"], capsys)
    assert (status, errors) == (0, []) and "resume after 3 of 4 epochs" in printed
    assert contents() == expected


def test_what_there_is_to_resume_is_said(place, capsys, interrupt_after):
    _, printed, _ = run(command("lora", resume=True), capsys)
    assert f"there is no {STATE}" in printed and "\nepoch 0: " in printed
    assert f"--resume continues from {STATE}" in interrupt_after(1, command("lora", epochs=2))
    # From that state, a run with another seed could not be resumed.
    assert "--resume" not in interrupt_after(0, command("lora", epochs=2, seed=7))
    _, printed, _ = run(command("lora", epochs=2), capsys)
    assert "--resume would continue" in printed and "\nepoch 0: " in printed


@pytest.mark.parametrize("changed", [
    {"seed": 3}, {"batch_size": 5}, {"hidden_dropout_prob": 0.2}, {"epochs": 3}, {"lr": 0.5},
    {"max_sentence_len": 9}, {"lora_rank": 2}, {"lora_alpha": 2.0}, {"dtype": "bfloat16"},
    {"train": "dev.txt"}, {"dev": "test.txt"}, {"pretrained-model-path": "other.pt"},
    {"tokenizer": "other.model"}], ids=lambda changed: next(iter(changed)))
def test_resuming_with_another_option_or_file_is_refused_by_its_name(
        place, capsys, interrupt_after, tiny_tokenizer, monkeypatch, changed):
    monkeypatch.setattr("utils.bfloat16_is_faster", lambda: True)  # which is up to the machine
    interrupt_after(1, command("lora", epochs=2))
    model = torch.load("model.pt", weights_only=True)
    torch.save(model | {"iter_num": 1}, "other.pt")
    # One field more (1001, unknown to SentencePiece): the same model in another file.
    Path("other.model").write_bytes(tiny_tokenizer.read_bytes() + b"\xc8\x3e\x01")
    argv = command("lora", **{"epochs": 2, "resume": True} | changed)
    said = refused(argv, capsys, may_load=True)
    (name,) = changed
    assert f"--{name};" in said and "leave out --resume" in said


def test_resuming_does_not_mind_where_the_files_are(place, interrupt_after):
    interrupt_after(1, command("lora", epochs=2))
    Path("train.txt").rename("elsewhere.txt")
    assert run_llama.main(command("lora", epochs=2, resume=True, train="elsewhere.txt")) == 0


def test_another_run_that_saves_under_the_same_name_does_no_harm(place, monkeypatch):
    argv, train_epoch = command("finetune", epochs=2), run_llama.train_epoch  # the first is best
    assert run_llama.main(argv) == 0
    expected = contents()
    monkeypatch.setattr(run_llama, "train_epoch", lambda *args: (
        Path("finetune-2-0.01.pt").write_bytes(b"another model"), train_epoch(*args))[1])
    assert run_llama.main(argv) == 0 and contents() == expected


def test_a_damaged_state_is_refused_by_name(place, capsys, interrupt_after):
    """Like every file of `torch.save`; tests/test_checkpoint.py damages one everywhere."""
    interrupt_after(1, command("lora", epochs=2))
    whole = Path(STATE).read_bytes()
    for content in (b"", whole[:len(whole) // 2], whole[:-999]):
        Path(STATE).write_bytes(content)
        said = refused(command("lora", epochs=2, resume=True), capsys, may_load=True)
        assert f"{STATE}: damaged" in said and "leave out --resume" in said
