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
from optimizer import AdamW
from runs import TRAINING, command, contents, refused, reset, run
from utils import load_file

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
    # Synced and renamed: three states, one model at least, two predictions; then one is removed.
    assert number > 2 * (3 + 1 + 2) + 1 and contents() == expected


@pytest.mark.parametrize("option", ["prompt", "lora"])
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
    for epochs in (0, 1, 2):
        interrupt_after(epochs, [*argv, "--resume"])
    status, printed, errors = run([*argv, "--resume"], capsys)
    assert (status, errors) == (0, []) and "resume after 3 of 4 epochs" in printed
    assert contents() == expected


def test_there_may_be_nothing_to_resume(place, capsys):
    _, printed, _ = run(command("lora", resume=True), capsys)
    assert f"there is no {STATE}" in printed and "\nLoRA epoch 0: " in printed


def test_a_run_succeeds_whose_state_cannot_be_removed(place, monkeypatch):
    def unlink(path):
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr(os, "unlink", unlink)
    assert run_llama.main(command("finetune")) == 0


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
        assert f"another {name.replace('-', '_')};" in said and "leave out --resume" in said


def test_resuming_does_not_mind_where_the_files_are(place, interrupt_after):
    interrupt_after(1, command("lora", epochs=2))
    moved = {"train": "a.txt", "dev": "b.txt", "pretrained-model-path": "c.pt", "tokenizer": "d"}
    for old, new in zip(("train.txt", "dev.txt", "model.pt", "tokenizer.model"), moved.values()):
        Path(old).rename(new)
    assert run_llama.main(command("lora", epochs=2, resume=True, **moved)) == 0


def test_another_run_that_saves_under_the_same_name_changes_no_prediction(place, monkeypatch):
    argv, step = command("finetune", epochs=2), AdamW.step
    assert run_llama.main(argv) == 0
    expected = {name: content for name, content in contents().items() if "output" in name}
    monkeypatch.setattr(AdamW, "step", lambda self: (
        Path("finetune-2-0.01.pt").write_bytes(b"another model"), step(self))[1])
    assert run_llama.main(argv) == 0 and contents().items() >= expected.items()


def test_a_damaged_state_is_refused_by_name(place, capsys, interrupt_after):
    interrupt_after(1, command("lora", epochs=2))
    Path(STATE).write_bytes(Path(STATE).read_bytes()[:-999])
    said = refused(command("lora", epochs=2, resume=True), capsys, may_load=True)
    assert f"{STATE}: damaged" in said and "leave out --resume" in said
