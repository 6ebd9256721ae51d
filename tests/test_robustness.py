"""Runs that are killed, whose disk is full or whose files are damaged: nothing good is lost."""

import errno
import json
import os
import random
import re
import signal
from pathlib import Path

import pytest
import torch

import llama
import run_llama
import runs
from llama import load_file
from runs import TRAINING, command, contents, refused, reset, run


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_tokenizer) -> Path:
    """The current folder, with everything that the four jobs need in it."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    runs.fill(folder, tiny_tokenizer)
    return folder


def interrupt_after(epochs: int, argv: list[str], monkeypatch) -> None:
    """Ctrl-C at the start of the next epoch."""
    train_epoch = run_llama.train_epoch

    def interrupted(*args):
        if args[-1] == epochs:
            raise KeyboardInterrupt
        return train_epoch(*args)

    with monkeypatch.context() as patch:
        patch.setattr(run_llama, "train_epoch", interrupted)
        assert run_llama.main(argv) == 130


def without_leftovers(files: dict[str, bytes]) -> dict[str, bytes]:
    """Files without the temporary ones that killed runs cannot remove."""
    return {name: content for name, content in files.items() if not name.endswith(".part")}


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
        assert without_leftovers(contents()) == expected, f"killed before file operation {number}"
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
        place, capsys, monkeypatch):
    argv, before = command("lora", epochs=4), contents()
    assert run_llama.main(argv) == 0
    expected = contents()
    reset(before)
    for done in (0, 1, 3):
        interrupt_after(done, [*argv, "--resume"], monkeypatch)
    status, printed, errors = run([*argv, "--resume"], capsys)
    assert (status, errors) == (0, []) and "resume after 3 of 4 epochs" in printed
    assert contents() == expected


def test_the_advice_to_resume_is_one_that_works(place, capsys, monkeypatch):
    interrupt_after(1, command("lora", epochs=2), monkeypatch)
    assert "--resume continues from my-dev-lora-output.resume.pt" in capsys.readouterr().err
    # The state of another run is there, which a run with this seed could not be resumed from.
    interrupt_after(0, command("lora", epochs=2, seed=7), monkeypatch)
    assert "--resume" not in capsys.readouterr().err


def test_what_there_is_to_resume_is_said(place, capsys, monkeypatch):
    _, printed, _ = run(command("finetune", resume=True), capsys)
    assert "there is no my-dev-finetuning-output.resume.pt" in printed and "\nepoch 0: " in printed
    interrupt_after(1, command("finetune", epochs=2), monkeypatch)
    _, printed, _ = run(command("finetune", epochs=2), capsys)
    assert "--resume would have continued" in printed and "\nepoch 0: " in printed


@pytest.mark.parametrize("changed", [
    {"seed": 3}, {"batch_size": 5}, {"hidden_dropout_prob": 0.2}, {"epochs": 3}, {"lr": 0.5},
    {"max_sentence_len": 9}, {"lora_rank": 2}, {"lora_alpha": 2.0}, {"dtype": "bfloat16"},
    {"train": "dev.txt"}, {"dev": "test.txt"}, {"pretrained-model-path": "other.pt"},
    {"tokenizer": "other.model"}], ids=lambda changed: next(iter(changed)))
def test_resuming_with_another_option_or_file_is_refused_by_its_name(
        place, monkeypatch, capsys, tiny_tokenizer, changed):
    interrupt_after(1, command("lora", epochs=2), monkeypatch)
    model = torch.load("model.pt", weights_only=True)
    torch.save(model | {"iter_num": 1}, "other.pt")
    # One field more (1001, unknown to SentencePiece): the same model in another file.
    Path("other.model").write_bytes(tiny_tokenizer.read_bytes() + b"\xc8\x3e\x01")
    said = refused(command("lora", **{"epochs": 2, "resume": True} | changed), capsys)
    (name,) = changed
    assert f"--{name};" in said and "leave out --resume" in said


def test_resuming_does_not_mind_where_the_files_are(place, monkeypatch):
    interrupt_after(1, command("lora", epochs=2), monkeypatch)
    Path("elsewhere").mkdir()
    for split in runs.SIZES:
        Path(f"{split}.txt").rename(f"elsewhere/{split}.txt")
    files = {split: f"elsewhere/{split}.txt" for split in runs.SIZES}
    assert run_llama.main(command("lora", epochs=2, resume=True, **files)) == 0


def test_another_run_that_saves_under_the_same_name_does_no_harm(place, monkeypatch):
    argv, train_epoch = command("finetune", epochs=2), run_llama.train_epoch  # the first is best
    assert run_llama.main(argv) == 0
    expected = contents()

    def beside(*args):
        Path("finetune-2-0.01.pt").write_bytes(b"another model")
        return train_epoch(*args)

    monkeypatch.setattr(run_llama, "train_epoch", beside)
    assert run_llama.main(argv) == 0 and contents() == expected


# ------------------------------------------------------------------------------------ damaged files

def truncate(rng: random.Random, content: bytes) -> bytes:
    return content[:rng.randrange(len(content))]


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 2, 64])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def replace_bytes(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content))
    return (content[:start] + rng.randbytes(rng.choice([0, 1, 64]))
            + content[start + rng.choice([0, 1, 64, 1000]):])


def replace_all(rng: random.Random, content: bytes) -> bytes:
    return rng.choice([b"", b"\0" * 999, b"PK\x03\x04", b"\x80\x02.", b"{}", b"[" * 99_999,
                       b"\x89PNG\r\n\x1a\n", b"\n" * 50, rng.randbytes(500)])


BYTES = (truncate, flip_bits, replace_bytes, replace_all)
ODD_TEXTS = ["", " ", "-1", "7", "1e3", "9" * 5000, "\0", "\u200b", "\u2028", "\ufffd", "a\rb",
             " ||| ", "\x1b[31m", "\u202e", "word " * 500, "<s></s><0x00>", "𝔘𝔫𝔦"]


def odd_lines(rng: random.Random, content: bytes) -> bytes:
    """One label or sentence of a data file replaced, or all line ends."""
    lines = content.decode().splitlines()
    place = rng.randrange(len(lines))
    label, _, sentence = lines[place].partition(" ||| ")
    odd = rng.choice(ODD_TEXTS)
    lines[place] = rng.choice([f"{odd} ||| {sentence}", f"{label} ||| {odd}", f"{label}{odd}",
                               lines[place]])
    return rng.choice(["\n", "\r\n", "\r"]).join(lines).encode(
        rng.choice(["utf-8", "utf-8-sig", "utf-16"]))


def odd_names(rng: random.Random, content: bytes) -> bytes:
    """A list of label names that is none, or an odd one."""
    odd = rng.choice([*ODD_TEXTS, 3, None, ["a"], "\ud800", True, 1e400])
    return json.dumps(rng.choice([[odd, "b"], odd, ["a"], {"0": "a"}, ["a", "a"]])).encode()


@pytest.mark.parametrize("name,option,ways,count", [
    ("train.txt", "finetune", (odd_lines, *BYTES), 40),
    ("test.txt", "prompt", (odd_lines, *BYTES), 40),
    ("names.json", "prompt", (odd_names, *BYTES), 40),
    ("model.pt", "generate", BYTES, 40),
    ("my-dev-finetuning-output.resume.pt", "finetune", BYTES, 40),
])
def test_a_damaged_file_is_refused_in_one_line_or_makes_no_difference(
        place, monkeypatch, capsys, name, option, ways, count):
    argv = command(option, epochs=2)
    if name.endswith("resume.pt"):
        interrupt_after(1, argv, monkeypatch)
        argv.append("--resume")
    before = contents()
    assert run_llama.main(argv) == 0
    expected = contents()
    failures = []
    for seed in range(count):
        rng = random.Random(seed)
        way = rng.choice(ways)
        reset(before)
        damaged = way(rng, before[name])
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
            elif name.endswith(".pt") and way in BYTES:  # of which a checksum knows
                assert contents() == expected | ({name: damaged} if name in expected else {})
            else:
                assert len(made) == 2
        except Exception as error:
            failures.append(f"{way.__name__} with seed {seed}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)


ODD_VALUES = [0, -1, 2, 1.5, 10**6, 2**63, 10**30, "2", "a\nb", None, True, float("nan"), [], {},
              [8], torch.tensor(2), torch.ones(2), 1j]
ODD_NAMES = ["", "a\nb", 3, None, (1, 2), "é" * 300, "llama.norm.weight", "_orig_mod."]


def odd_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.double(), tensor.half(), tensor.long(), tensor.to_sparse(), tensor.to("meta"),
            tensor[None], tensor[..., :0], tensor[:1].expand(1000, *tensor.shape[1:]), tensor / 0,
            tensor * 1e30]


def odd_entries(content: dict, names: list[str]):
    """Copies of a dict in which one entry is missing, replaced or added."""
    for name in names:
        others = {other: value for other, value in content.items() if other != name}
        yield "without", name, others
        for value in [*ODD_VALUES, *(odd_tensors(content[name]) if torch.is_tensor(content[name])
                                     else [])]:
            yield f"{value!s:.40} as", name, others | {name: value}
    for name in ODD_NAMES:
        yield "with", name, content | {name: content[names[0]]}


@pytest.fixture
def few_layers(monkeypatch):
    """Fail, rather than fill the memory, when a file asks for layers that it does not have."""
    class Counted(llama.LlamaLayer):
        def __init__(self, layer_id, config):
            assert layer_id < 100
            super().__init__(layer_id, config)

    monkeypatch.setattr(llama, "LlamaLayer", Counted)


@pytest.mark.parametrize("part", ["model", "model_args", None])
def test_a_checkpoint_with_an_odd_entry_is_refused_in_one_line_or_runs(
        place, capsys, monkeypatch, few_layers, part):
    generate = llama.Llama.generate
    monkeypatch.setattr(llama.Llama, "generate", lambda self, idx, _, temperature: generate(
        self, idx, 1, temperature))
    saved, failures = torch.load("model.pt", weights_only=True), []
    content = saved[part] if part else saved
    names = [name for name in content if part != "model" or name in (
        "tok_embeddings.weight", "norm.weight", "layers.1.attention.compute_key.weight")]
    argv = command("generate", **{"pretrained-model-path": "odd.pt"})
    for how, name, odd in odd_entries(content, names):
        torch.save(saved | {part: odd} if part else odd, "odd.pt")
        try:
            status, _, errors = run(argv, capsys)
            # A key of model_args that is not used is mentioned, in one line.
            errors = [line for line in errors if "does not use" not in line]
            assert (status, len(errors)) in ((0, 0), (2, 1)), errors
        except Exception as error:
            failures.append(f"{how} {name!r:.40}: {type(error).__name__}: {error!s:.200}")
    assert not failures, "\n".join(failures)
