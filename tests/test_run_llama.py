"""The command line: what it refuses, what the jobs compute, write and say."""

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
import run_llama
import runs
from runs import SHAPE, STORIES, WEIGHTS, command, contents, refused, run
from tokenizer import Tokenizer
from utils import read_examples

LOW, HIGH = (f"generated_sentence_{t}_temp_out" for t in ("low", "high"))


# ---------------------------------------------------------------------------------------- refusals

@pytest.mark.parametrize("argv,said", [
    (command("lora", test_out="my-dev-lora-output.txt"), "test-lora-output.txt"),
    (command("generate", **{LOW: "link.txt"}), "link.txt: "),  # to nowhere/a.txt
    (command("generate", **{LOW: "same.txt", HIGH: "./same.txt"}), "another output"),
    (command("finetune", **{"pretrained-model-path": "finetune-1-0.01.pt"}), "finetune-1-0.01.pt"),
    (command("lora", epochs=2), "lora-2-0.01.pt"),  # a folder, made in the test
    (command("lora", dev_out=f"{'x' * 232}-dev-lora-output.txt"), "name too long"),  # .resume.pt
    (command("prompt", use_gpu=True), "--use_gpu"),
    (command("generate", **{"pretrained-model-path": "nothing.pt"}), "setup.sh"),
    (command("generate", **{"pretrained-model-path": "dev.txt"}), "dev.txt: damaged"),
    (command("prompt", **{"label-names": "one.json"}), "1 names for the 2 labels"),
    (command("finetune", train="/proc/self/mem"), "/proc/self/mem: "),  # fails while it is read
    (command("lora", test="wrong.txt"), "wrong.txt, line 3"),
    ([*command("prompt"), "a\nb\x1b[31m"], "unrecognized arguments"),
    *((command("lora", **{option: value}), f"--{option}") for option, value in [
        ("epochs", 1.5), ("lr", "inf"), ("batch_size", 0), ("hidden_dropout_prob", 1),
        ("lora_rank", 0), ("lora_alpha", "nan"), ("max_sentence_len", 0), ("seed", -1)]),
], ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_wrong_command_lines_are_refused_before_any_work(
        place, capsys, monkeypatch, argv, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("finetune-1-0.01.pt").write_bytes(Path("model.pt").read_bytes())
    Path("lora-2-0.01.pt").mkdir()
    Path("link.txt").symlink_to("nowhere/a.txt")
    Path("one.json").write_text('["one"]', encoding="utf-8")
    Path("wrong.txt").write_text("0 ||| fine\n1 ||| fine\n1.0 ||| wrong\n", encoding="utf-8")
    assert said.lower() in refused(argv, capsys).lower()


def test_a_tokenizer_that_does_not_fit_the_model_is_refused(place, capsys):
    for size in (300, 61):  # of the embedding; the tokenizer may have fewer pieces, but not more
        embeddings = np.resize(WEIGHTS["tok_embeddings.weight"], (size, 24))
        reference.save_checkpoint("model.pt", WEIGHTS | {"tok_embeddings.weight": embeddings},
                                  SHAPE | {"vocab_size": size})
        if size == 300:
            assert run_llama.main(command("prompt")) == 0
    said = refused(command("prompt"), capsys, may_load=True)
    assert "290" in said and "61" in said and "--tokenizer" in said


# ----------------------------------------------------------------------------- the embedded default

def test_only_default_files_of_which_none_is_there_are_replaced_by_the_embedded_ones(
        tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, warnings = run(["--option", "prompt"], capsys)
    assert status == 0 and len(warnings) == 4  # two for the model, two for the data
    for warned, missing in ((warnings[:2], "stories42M.pt"), (warnings[2:], "cfimdb")):
        assert missing in warned[0] and "demo" in warned[0] and "published results" in warned[0]
        assert "setup.sh" in warned[1]
    assert len(runs.labels_in("cfimdb-dev-prompting-output.txt")) == 100
    assert len(run(["--option", "generate"], capsys)[2]) == 2  # which needs no data

    # A path of one's own, one official file, and what belongs to it stay what they are.
    assert "mine.pt" in refused(["--pretrained-model-path", "mine.pt"], capsys)
    Path("data").mkdir()
    Path("data/cfimdb-dev.txt").write_text("0 ||| a\n", encoding="utf-8")
    assert "data/cfimdb-train.txt" in run(["--option", "prompt"], capsys)[2][-1]
    Path("stories42M.pt").touch()
    assert "tokenizer.model" in refused(["--option", "generate"], capsys)  # its own, not demo's


# ------------------------------------------------------------------------------ generate and prompt

def test_generating_writes_two_texts_that_start_with_the_prompt_and_repeat(place, capsys):
    before, texts = contents(), []
    for seed in (1, 1, 2):
        status, printed, errors = run(command("generate", prompt="a cat sat", seed=seed), capsys)
        assert (status, errors) == (0, []) and contents().keys() - before.keys() == {*STORIES}
        assert re.match(rf"args: {{.*'seed': {seed}, .*}}\nload model from model.pt\n", printed)
        texts.append([Path(name).read_bytes().decode() for name in STORIES])
        for temperature, (path, text) in enumerate(zip(STORIES, texts[-1])):
            assert text.startswith("a cat sat") and (
                f"\nTemperature is {temperature}.0\n{text}\n{'-' * 80}\n"
                f"Wrote generated sentence to {path}.\n") in printed
    (greedy, sampled), *_ = texts
    assert texts[1] == [greedy, sampled] and texts[2][0] == greedy and texts[2][1] != sampled
    tokenizer = Tokenizer()
    ids = tokenizer.encode("a cat sat", bos=True, eos=False)
    assert greedy == tokenizer.decode(
        ids + reference.greedy_continuation(WEIGHTS, SHAPE, ids, 75))  # to the last character


@pytest.mark.parametrize("max_len", [None, 2])
def test_prompting_writes_the_likeliest_label_and_the_sentence_with_its_question(
        place, capsys, max_len):
    Path("dev.txt").write_text("1 ||| a ||| b\n-1 |||   café 🎬  \n1 ||| a\u2028b\n0 ||| mat\r",
                               encoding="utf-8")
    Path("test.txt").write_text(runs.lines([-1] * 5, seed=3), encoding="utf-8")
    before, tokenizer = contents(), Tokenizer()
    encode = tokenizer.sp_model.encode
    question = "Is this movie one or day? This movie is "
    status, printed, errors = run(
        command("prompt", batch_size=3, max_sentence_len=max_len), capsys)
    assert (status, errors) == (0, [])  # no progress bars where nobody watches
    outputs = {split: f"my-{split}-prompting-output.txt" for split in ("dev", "test")}
    assert contents().keys() - before.keys() == {*outputs.values()}
    for split, path in outputs.items():
        examples, expected = read_examples(f"{split}.txt"), []
        # The question stays whole where the sentence is cut.
        rows = [[tokenizer.bos_id, *encode(e.sentence)[:max_len], *encode(question)]
                for e in examples]
        for batch in (rows[:3], rows[3:]):  # padding depends on it
            longest = max(map(len, batch))
            scores = reference.zero_shot_scores(
                WEIGHTS, SHAPE, [row + [tokenizer.pad_id] * (longest - len(row)) for row in batch],
                [encode(name) for name in runs.NAMES])
            expected += scores.argmax(-1).tolist()
        assert {*expected} == {0, 1} or max_len  # a constant would prove little
        assert Path(path).read_bytes().decode() == "".join(
            f"{label} ||| {e.sentence} {question}\n" for label, e in zip(expected, examples))
        # Placeholders have no part in accuracy, which is NaN where there is nothing else.
        right = [label == e.label for label, e in zip(expected, examples) if e.label >= 0]
        assert f"{split} acc :: {np.mean(right or np.nan):.3f}\n" in printed
    assert printed.count("precision") == 1 and "All labels of test are placeholders" in printed


# ---------------------------------------------------------------------------------------- training

@pytest.mark.parametrize("accuracy, best", [
    (0.0, "0"), (math.nan, "2")], ids=["never right", "nobody knows"])
def test_a_model_is_saved_even_if_no_epoch_is_better_than_another(
        place, capsys, monkeypatch, accuracy, best):
    """The first, or the last if dev has no labels; for the others see test_seed.py."""
    evaluate = run_llama.model_eval
    monkeypatch.setattr(run_llama, "model_eval", lambda *args: (accuracy, *evaluate(*args)[1:]))
    assert run_llama.main(command("finetune", epochs=3)) == 0
    assert f"epoch {best} was the best" in capsys.readouterr().out
    assert Path("finetune-3-0.01.pt").is_file()


def test_a_run_encodes_each_sentence_once(place, monkeypatch):
    seen, encode = [], Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, s, bos, eos: (
        seen.append(s), encode(self, s, bos, eos))[1])
    assert run_llama.main(command("finetune", epochs=3)) == 0
    assert sorted(seen) == sorted(
        e.sentence for split in runs.SIZES for e in read_examples(f"{split}.txt"))


@pytest.mark.parametrize("lr,batch_size", [
    ("1e+30", 4), ("1e+39", 10)])  # the loss of the second step; the parameters after the only one
def test_divergence_is_reported_in_one_line_and_saves_nothing(place, capsys, lr, batch_size):
    before = contents()
    status, _, (said,) = run(command("lora", lr=lr, batch_size=batch_size), capsys)
    assert status != 0 and "diverged" in said and f"--lr than {lr}" in said
    assert contents() == before


# -------------------------------------------------------------------------- real weights, real data

@pytest.mark.slow
def test_fine_tuning_stories260k_on_five_classes_beats_the_majority_class(
        assets, tmp_path, monkeypatch):
    if not (assets / "stories260K.pt").is_file():
        pytest.skip("no stories260K.pt")
    monkeypatch.chdir(tmp_path)
    # Small batches and short rows have less padding to read. Sixty sentences are enough to test.
    lines = (assets / "data/sst-test.txt").read_text(encoding="utf-8").splitlines(True)
    Path("test.txt").write_text("".join(lines[-60:]), encoding="utf-8")
    assert run_llama.main(command("finetune", **{
        "pretrained-model-path": assets / "stories260K.pt", "tokenizer": assets / "tok512.model",
        "train": assets / "data/sst-train.txt", "dev": assets / "data/sst-dev.txt",
        "lr": 1e-3, "epochs": 7, "batch_size": 8, "max_sentence_len": 48})) == 0
    labels = runs.labels_in(str(assets / "data/sst-dev.txt"))
    predicted = runs.labels_in("my-dev-finetuning-output.txt")
    accuracy, majority = np.mean(np.equal(labels, predicted)), max(Counter(labels).values())
    assert accuracy > majority / len(labels) + 0.03


def test_fine_tuning_the_embedded_model_fits_the_sentences_that_it_trains_on(place, capsys):
    lines = (run_llama.DEMO / "reviews2-train.txt").read_text(encoding="utf-8").splitlines(True)
    some = [line for label in "01" for line in [line for line in lines if line[0] == label][:12]]
    Path("few.txt").write_text("".join(some), encoding="utf-8")
    assert run_llama.main(command("finetune", **{
        "pretrained-model-path": run_llama.DEMO / "stories.pt",
        "tokenizer": run_llama.DEMO / "tokenizer.model", "train": "few.txt", "dev": "few.txt",
        "lr": 1e-3, "epochs": 4, "max_sentence_len": 40, "hidden_dropout_prob": 0})) == 0
    assert "dev acc :: 1.000" in capsys.readouterr().out  # with eight seeds and rates by epoch 3
