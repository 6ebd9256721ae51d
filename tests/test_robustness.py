"""Runs that are killed, whose disk is full or whose files are damaged: nothing good is lost."""

import errno
import os
import random
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


@pytest.fixture
def interrupt_after(capsys, monkeypatch):
    """Press Ctrl-C at the start of the epoch after the given ones; the result is what is said."""
    def interrupt_after(epochs: int, argv: list[str]) -> str:
        train_epoch = run_llama.train_epoch

        def interrupted(*args):
            if args[-1] == epochs:
                raise KeyboardInterrupt
            return train_epoch(*args)

        with monkeypatch.context() as patch:
            patch.setattr(run_llama, "train_epoch", interrupted)
            status, _, (said,) = run(argv, capsys)
        assert status == 130
        return said
    return interrupt_after


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
    argv, new = command(option, epochs=2), contents()
    assert run_llama.main(argv) == 0
    new = {name: content for name, content in contents().items() if name not in new}
    before = contents() | {name: b"0 ||| old\n" for name in new if name.endswith(".txt")}

    def fail():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for number in range(1, 100):
        reset(before)
        with monkeypatch.context() as patch:
            runs.at_file_operation(number, fail, patch.setattr)
            status, _, errors = run(argv, capsys)
        if status == 0:
            break
        (said,) = errors
        assert status == 2 and os.strerror(errno.ENOSPC) in said
        assert re.search(r"[\w-]+\.(txt|pt): ", said), "the file is not named"
        check_models()
        for name, content in contents().items():
            assert name.endswith(".pt") or content in (before[name], new.get(name)), name
        if option != "prompt":
            assert run_llama.main([*argv, "--resume"]) == 0
            assert contents() == before | new
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
    assert "--resume would have continued" in printed and "\nepoch 0: " in printed


@pytest.mark.parametrize("changed", [
    {"seed": 3}, {"batch_size": 5}, {"hidden_dropout_prob": 0.2}, {"epochs": 3}, {"lr": 0.5},
    {"max_sentence_len": 9}, {"lora_rank": 2}, {"lora_alpha": 2.0}, {"dtype": "bfloat16"},
    {"train": "dev.txt"}, {"dev": "test.txt"}, {"pretrained-model-path": "other.pt"},
    {"tokenizer": "other.model"}], ids=lambda changed: next(iter(changed)))
def test_resuming_with_another_option_or_file_is_refused_by_its_name(
        place, capsys, interrupt_after, tiny_tokenizer, changed):
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


# ------------------------------------------------------------------------------------ damaged files

JUNK = [b"", b"\0" * 999, b"PK\x03\x04", b"\x80\x02.", b"{}", b"[" * 99_999, b"\x89PNG\r\n\x1a\n"]


def odd_bytes(rng: random.Random, content: bytes) -> bytes:
    """Content that is cut short, has bits flipped or bytes replaced, or is something else."""
    place = rng.randrange(len(content))
    flipped = bytearray(content)
    for _ in range(rng.choice([1, 2, 64])):
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    replaced = (content[:place] + rng.randbytes(rng.choice([0, 1, 64]))
                + content[place + rng.choice([0, 1, 64, 1000]):])
    return rng.choice([content[:place], bytes(flipped), replaced, rng.choice(JUNK)])


@pytest.mark.parametrize("name,option", [
    ("train.txt", "finetune"), ("test.txt", "prompt"), ("names.json", "prompt"),
    ("model.pt", "generate"), (STATE, "lora")])
def test_a_damaged_file_is_refused_in_one_line_or_makes_no_difference(
        place, capsys, interrupt_after, name, option):
    argv = command(option, epochs=2)
    if name == STATE:
        interrupt_after(1, argv)
        argv.append("--resume")
    before = contents()
    assert run_llama.main(argv) == 0
    expected = contents()
    failures = []
    for seed in range(40):
        reset(before)
        damaged = odd_bytes(random.Random(seed), before[name])
        Path(name).write_bytes(damaged)
        try:
            status, _, errors = run(argv, capsys)
            made = {path: content for path, content in contents().items()
                    if path not in before and not path.endswith(".pt")}
            assert (status == 0 and not errors) or (status in (1, 2) and len(errors) == 1)
            if status == 2:
                assert contents() == before | {name: damaged}
            elif status == 1:
                assert "diverged" in errors[0] and not made
            elif name.endswith(".pt"):  # whose bytes a checksum knows
                assert contents() == expected | ({name: damaged} if name in expected else {})
            else:
                assert len(made) == 2
        except Exception as error:
            failures.append(f"seed {seed}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)
