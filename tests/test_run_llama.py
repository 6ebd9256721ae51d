"""The command line: what it refuses, what the jobs compute, write and say."""

import os
from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
import run_llama
import runs
from optimizer import AdamW
from runs import KIND, NAMES, SHAPE, STORIES, WEIGHTS, command, contents, refused, run
from tokenizer import Tokenizer
from utils import InputError, read_examples

JOBS = ("generate", *KIND)


# ---------------------------------------------------------------------------------------- refusals

LOW, HIGH = (f"generated_sentence_{t}_temp_out" for t in ("low", "high"))


@pytest.mark.parametrize("argv,said", [
    (command("prompt", dev_out=""), "dev-prompting-output.txt"),
    (command("finetune", dev_out="my-dev-prompting-output.txt"), "dev-finetuning-output.txt"),
    (command("lora", test_out="my-dev-lora-output.txt"), "test-lora-output.txt"),
    (command("generate", **{LOW: "nowhere/a.txt"}), "nowhere"),
    (command("generate", **{LOW: "same.txt", HIGH: "./same.txt"}), "another output of this run"),
    (command("generate", **{HIGH: "model.pt"}), "model.pt"),
    (command("prompt", dev="my-dev-prompting-output.txt"), "my-dev-prompting-output.txt"),
    (command("finetune", **{"pretrained-model-path": "finetune-1-0.01.pt"}), "finetune-1-0.01.pt"),
    (command("lora", epochs=2), "lora-2-0.01.pt"),  # a folder, made in the test
    (command("generate", **{LOW: "x" * 300}), "name too long"),
    (command("lora", dev_out=f"{'x' * 232}-dev-lora-output.txt"), "name too long"),  # .resume.pt
    (command("prompt", use_gpu=True), "--use_gpu"),
    (command("generate", **{"pretrained-model-path": "nothing.pt"}), "setup.sh"),
    (command("lora", tokenizer="nothing.model"), "nothing.model"),
    (command("prompt", **{"label-names": "nothing.json"}), "nothing.json"),
    (command("prompt", **{"label-names": "one.json"}), "1 names for the 2 labels"),
    (command("finetune", dev="nothing.txt"), "nothing.txt"),
    (command("prompt", train="wrong.txt"), "wrong.txt, line 3"),
    (command("finetune", dev="wrong.txt"), "wrong.txt, line 3"),
    (command("lora", test="wrong.txt"), "wrong.txt, line 3"),
    ([*command("prompt"), "--epochs"], "--epochs"),
    ([*command("prompt"), "a\nb\x1b[31m"], "unrecognized arguments"),
], ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_wrong_command_lines_are_refused_before_any_work(
        place, capsys, monkeypatch, argv, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("finetune-1-0.01.pt").write_bytes(Path("model.pt").read_bytes())
    Path("lora-2-0.01.pt").mkdir()
    Path("one.json").write_text('["one"]', encoding="utf-8")
    Path("wrong.txt").write_text("0 ||| fine\n1 ||| fine\n1.0 ||| wrong\n", encoding="utf-8")
    assert said.lower() in refused(argv, capsys).lower()


@pytest.mark.parametrize("option,values", [
    ("epochs", [0, "two", 1.5]), ("lr", [0, "nan", "inf"]), ("batch_size", [0]),
    ("hidden_dropout_prob", [1, -0.1]), ("lora_rank", [0]), ("lora_alpha", ["nan"]),
    ("max_sentence_len", [0]), ("seed", [-1, "9" * 5000])])
def test_numbers_out_of_range_are_refused_by_their_option(place, capsys, option, values):
    for value in values:
        assert f"--{option}" in refused(command("lora", **{option: value}), capsys)


def test_folders_of_outputs_are_checked_where_the_files_will_be(place, capsys, monkeypatch):
    Path("sealed").mkdir()
    Path("link.txt").symlink_to("sealed/story.txt")
    sealed, access = [os.path.realpath("sealed"), os.path.dirname(os.devnull)], os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path not in sealed and access(path, mode))
    for name in ("sealed/story.txt", "link.txt"):
        assert name in refused(command("generate", **{LOW: name}), capsys)
    # A device will do in any folder.
    assert run(command("generate", **{LOW: os.devnull}), capsys)[0] == 0


def test_what_does_not_fit_the_model_is_refused(place, capsys):
    assert "--lora_rank 25" in refused(command("lora", lora_rank=25), capsys, may_load=True)
    no_model = command("generate", **{"pretrained-model-path": "dev.txt"})
    assert "dev.txt: damaged" in refused(no_model, capsys)
    for size in (61, 300):  # of the embedding; the tokenizer may have fewer pieces, but not more
        embeddings = np.resize(WEIGHTS["tok_embeddings.weight"], (size, 24))
        reference.save_checkpoint("model.pt", WEIGHTS | {"tok_embeddings.weight": embeddings},
                                  SHAPE | {"vocab_size": size})
        if size == 61:
            said = refused(command("prompt"), capsys, may_load=True)
            assert "290" in said and "61" in said and "--tokenizer" in said
    assert run_llama.main(command("prompt")) == 0


# ------------------------------------------------------------- each public function by itself

def args_of(option: str, **changed: object) -> Namespace:
    """Options of a job, with outputs of other jobs that cannot be written."""
    args = vars(run_llama.get_args(command("prompt"))) | {
        "dev_out": "nowhere/dev.txt", "test_out": "nowhere/test.txt",
        "generated_sentence_low_temp_out": "nowhere/low.txt"}
    return Namespace(**args | {"option": option} | changed)


@pytest.mark.parametrize("option", JOBS)
def test_generate_sentence_checks_its_own_output_alone(place, capsys, option):
    Path("train.txt").unlink()
    run_llama.generate_sentence(args_of(option), "a cat", "x.txt", max_new_tokens=2)
    assert Path("x.txt").read_text(encoding="utf-8").startswith("a cat")
    capsys.readouterr()
    with pytest.raises(InputError, match="nowhere"):
        run_llama.generate_sentence(args_of(option), "a cat", "nowhere/x.txt")
    assert "load model" not in capsys.readouterr().out


@pytest.mark.parametrize("option", JOBS)
def test_prompting_checks_its_own_outputs_alone(place, option):
    with pytest.raises(InputError, match="wrong-name.txt"):
        run_llama.test_with_prompting(args_of(option, dev_out="wrong-name.txt"))
    names = {f"{split}_out": f"{split}-prompting-output.txt" for split in ("dev", "test")}
    run_llama.test_with_prompting(args_of(option, **names))
    assert {*names.values()} <= contents().keys()


@pytest.mark.parametrize("option", JOBS)
def test_training_and_testing_check_their_own_files_alone(place, option):
    kind = "lora" if option == "lora" else "finetuning"
    names = {f"{split}_out": f"my-{split}-{kind}-output.txt" for split in ("dev", "test")}
    Path("test.txt").rename("later.txt")
    args = args_of(option, filepath="model-of-mine.pt", **{**names, "test_out": "wrong-name.txt"})
    run_llama.train(args)
    Path("later.txt").rename("test.txt")
    Path("train.txt").unlink()
    with pytest.raises(InputError, match="wrong-name.txt"):
        run_llama.test(args)
    args.test_out = names["test_out"]
    before = vars(args).copy()
    run_llama.test(args)
    assert {*names.values(), "model-of-mine.pt"} <= contents().keys()
    assert vars(args) == before and not [*Path().glob("*.resume.pt")]
    for wrong in ("model.pt", "nothing.pt", "dev.txt"):
        with pytest.raises((InputError, OSError), match=wrong):
            run_llama.test(args_of(option, filepath=wrong, **names))


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

    Path("mine.json").write_text('["bad", "good"]', encoding="utf-8")
    mixed = run(["--option", "prompt", "--label-names", "mine.json"], capsys)[2][-1]
    assert "data/cfimdb-train.txt" in mixed
    assert "mine.pt" in refused(["--pretrained-model-path", "mine.pt"], capsys)
    Path("data").mkdir()
    Path("data/cfimdb-dev.txt").write_text("0 ||| a\n", encoding="utf-8")
    assert "data/cfimdb-train.txt" in run(["--option", "prompt"], capsys)[2][-1]
    Path("stories42M.pt").touch()
    assert "tokenizer.model" in refused(["--option", "generate"], capsys)  # its own, not demo's


# ------------------------------------------------------------------------------ generate and prompt

def test_generating_writes_two_texts_that_start_with_the_prompt_and_repeat(place, capsys):
    # Twice the logits: some tokens are likely enough to be drawn from.
    sharp = WEIGHTS | {"tok_embeddings.weight": 2 * WEIGHTS["tok_embeddings.weight"]}
    reference.save_checkpoint("model.pt", sharp, SHAPE)
    before, texts = contents(), []
    for seed in (1, 1, 2):
        status, printed, errors = run(command("generate", prompt="a cat sat", seed=seed), capsys)
        assert (status, errors) == (0, []) and contents().keys() - before.keys() == {*STORIES}
        texts.append([Path(name).read_bytes().decode() for name in STORIES])
        assert all(text.startswith("a cat sat") and text in printed for text in texts[-1])
    (greedy, sampled), *_ = texts
    assert texts[1] == [greedy, sampled] and texts[2][0] == greedy and texts[2][1] != sampled
    tokenizer = Tokenizer()
    ids = tokenizer.encode("a cat sat", bos=True, eos=False)
    assert greedy == tokenizer.decode(
        ids + reference.greedy_continuation(sharp, SHAPE, ids, 75))  # to the last character


@pytest.mark.parametrize("max_len", [None, 2])
def test_prompting_writes_the_likeliest_label_and_the_sentence_with_its_question(
        place, capsys, max_len):
    Path("dev.txt").write_text("1 ||| a ||| b\n0 |||   café 🎬  \n1 ||| a\u2028b\n0 ||| mat\r",
                               encoding="utf-8")
    before, tokenizer = contents(), Tokenizer()
    encode = tokenizer.sp_model.encode
    question = "Is this movie red or so big? This movie is "
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
                [encode(name) for name in NAMES])
            expected += scores.argmax(-1).tolist()
        assert Path(path).read_bytes().decode() == "".join(
            f"{label} ||| {e.sentence} {question}\n" for label, e in zip(expected, examples))
        right = np.mean([label == e.label for label, e in zip(expected, examples)])
        assert f"{split} acc :: {right:.3f}\n" in printed
    assert printed.count("precision") == printed.count("macro avg") == 2


# ---------------------------------------------------------------------------------------- training

@pytest.mark.parametrize("dev,by_epoch,best", [
    ([1, 1, 1, 0], (1, 0), 0),
    ([1, 1, 1, 0], (0, 1, 0, 0), 1),
    ([0, 0, 0, 1], (1, 0), 1),
    ([0, 1, 0, 1], (1, 0), 0),  # equally good: the first
    ([1, 1, 1, 1], (0, 0), 0),  # never right
    ([-1, -1], (0, 0, 1), 2),  # nobody knows: the last
])
def test_the_best_epoch_is_saved_and_evaluated_whatever_was_saved_before(
        place, monkeypatch, dev, by_epoch, best):
    answers = iter(by_epoch)

    class ToAnswer(AdamW):
        def step(self):
            """After its n-th epoch the model predicts the n-th answer, whatever the sentence."""
            super().step()
            with torch.no_grad():
                self.param_groups[0]["params"][-1].zero_()[next(answers)] = 1e4  # the head's bias

    monkeypatch.setattr(run_llama, "AdamW", ToAnswer)
    Path("dev.txt").write_text(runs.lines(len(dev), 7, dev), encoding="utf-8")
    path, answer = f"lora-{len(by_epoch)}-0.01.pt", by_epoch[best]
    Path(path).write_bytes(b"an earlier run's")
    before = contents()
    assert run_llama.main(command("lora", epochs=len(by_epoch), batch_size=10)) == 0
    outputs = [f"my-{split}-lora-output.txt" for split in ("dev", "test")]
    assert contents().keys() - before.keys() == {*outputs}
    assert [runs.labels_in(name) for name in outputs] == [[answer] * len(dev), [answer] * 5]
    model = torch.load(path, weights_only=True)["model"]
    assert model["classifier_head.bias"].argmax() == answer


def test_a_run_encodes_each_sentence_once(place, monkeypatch):
    seen, encode = [], Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, s, bos, eos: (
        seen.append(s), encode(self, s, bos, eos))[1])
    assert run_llama.main(command("finetune", epochs=3)) == 0
    assert sorted(seen) == sorted(
        e.sentence for split in runs.SIZES for e in read_examples(f"{split}.txt"))


def test_placeholders_have_no_part_in_accuracy(place, capsys):
    some = runs.lines(7, 1, [-1, 0, -1, -1, 1, 0, -1])
    Path("dev.txt").write_text(some, encoding="utf-8")
    Path("test.txt").write_text(runs.lines(5, 7, [-1] * 5), encoding="utf-8")
    status, printed, errors = run(command("prompt"), capsys)
    assert (status, errors) == (0, [])
    predicted = runs.labels_in("my-dev-prompting-output.txt")
    right = (predicted[1] == 0) + (predicted[4] == 1) + (predicted[5] == 0)
    assert len(predicted) == 7 and f"\ndev acc :: {right / 3:.3f}\n" in printed
    assert "All labels of test are placeholders" in printed and printed.count("precision") == 1
    assert len(runs.labels_in("my-test-prompting-output.txt")) == 5


@pytest.mark.parametrize("lr,batch_size,saved", [
    ("1e+30", 4, False), ("1e+30", 10, True),  # 10: one step an epoch
    ("1e+39", 10, False)])  # a step to infinity
def test_divergence_is_reported_in_one_line_with_advice_that_works(
        place, capsys, lr, batch_size, saved):
    status, _, (said,) = run(command("lora", lr=lr, batch_size=batch_size, epochs=2), capsys)
    assert status == 1 and "diverged" in said and "epoch" in said
    assert f"--lr than {lr}" in said and "--resume" not in said
    assert Path(f"lora-2-{lr}.pt").exists() == saved
    assert run_llama.main(command("lora", batch_size=batch_size, epochs=2)) == 0


# -------------------------------------------------------------------------- real weights, real data

@pytest.mark.slow
def test_fine_tuning_stories260k_on_five_classes_beats_the_majority_class(
        assets, stories260k, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Small batches and short rows have less padding to read. Sixty sentences are enough to test.
    lines = (assets / "data/sst-test.txt").read_text(encoding="utf-8").splitlines(True)
    Path("test.txt").write_text("".join(lines[-60:]), encoding="utf-8")
    assert run_llama.main(command("finetune", **{
        "pretrained-model-path": stories260k, "tokenizer": assets / "tok512.model",
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
