"""The command line: what it refuses, what the jobs compute, write and say."""

import os
import re
import signal
import sys
import threading
from collections import Counter
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
import run_llama
import runs
from optimizer import AdamW
from runs import KIND, NAMES, SHAPE, STORIES, TRAINING, WEIGHTS, command, contents, refused, run
from tokenizer import Tokenizer
from utils import read_examples


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_tokenizer) -> Path:
    """The current folder, with everything that the four jobs need in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_llama, "DEMO", tmp_path / "demo")
    runs.fill(tmp_path, tiny_tokenizer)
    return tmp_path


def saved(option: str) -> dict:
    return torch.load(f"{option}-1-0.01.pt", weights_only=True)["model"]


def padded(rows: list[list[int]]) -> list[list[int]]:
    longest, pad_id = max(map(len, rows)), Tokenizer().pad_id
    return [row + [pad_id] * (longest - len(row)) for row in rows]


# ---------------------------------------------------------------------------------------- refusals

@pytest.fixture
def no_work(monkeypatch):
    """Fail when a model is loaded."""
    def loaded(path):
        raise AssertionError(f"{path} was loaded before the command line was refused")

    for module in ("run_llama", "classifier"):
        monkeypatch.setattr(f"{module}.load_pretrained", loaded)


LOW, HIGH = (f"generated_sentence_{t}_temp_out" for t in ("low", "high"))


@pytest.mark.parametrize("argv,said", [
    (command("prompt", dev_out=""), "dev-prompting-output.txt"),
    (command("finetune", dev_out="predictions.txt"), "dev-finetuning-output.txt"),
    (command("finetune", dev_out="my-dev-prompting-output.txt"), "dev-finetuning-output.txt"),
    (command("lora", test_out="my-dev-lora-output.txt"), "test-lora-output.txt"),
    (command("lora", test_out="my-test-lora-output.txt.bak"), "test-lora-output.txt"),
    (command("prompt", dev_out="nowhere/dev-prompting-output.txt"), "nowhere"),
    (command("lora", test_out="nowhere/test-lora-output.txt"), "nowhere"),
    (command("generate", **{LOW: "nowhere/a.txt"}), "nowhere"),
    (command("generate", **{LOW: "same.txt", HIGH: "./same.txt"}), "one file"),
    (command("generate", **{HIGH: "link.txt"}), "one file"),
    (command("generate", **{HIGH: "model.pt"}), "model.pt"),
    (command("generate", **{HIGH: "tokenizer.model"}), "tokenizer.model"),
    (command("prompt", dev="my-dev-prompting-output.txt"), "my-dev-prompting-output.txt"),
    (command("finetune", **{"pretrained-model-path": "finetune-1-0.01.pt"}), "finetune-1-0.01.pt"),
    (command("lora", epochs=2), "lora-2-0.01.pt"),  # a folder, made in the test
    (command("generate", **{LOW: "x" * 300}), "name too long"),
    (command("lora", dev_out=f"{'x' * 232}-dev-lora-output.txt"), "name too long"),  # .resume.pt
    (command("finetune", epochs=0), "--epochs"),
    (command("finetune", epochs="two"), "--epochs"),
    (command("finetune", epochs=1.5), "--epochs"),
    (command("finetune", lr=0), "--lr"),
    (command("finetune", lr="nan"), "--lr"),
    (command("finetune", lr="inf"), "--lr"),
    (command("finetune", batch_size=0), "--batch_size"),
    (command("finetune", hidden_dropout_prob=1), "--hidden_dropout_prob"),
    (command("finetune", hidden_dropout_prob=-0.1), "--hidden_dropout_prob"),
    (command("lora", lora_rank=0), "--lora_rank"),
    (command("lora", lora_alpha="nan"), "--lora_alpha"),
    (command("prompt", max_sentence_len=0), "--max_sentence_len"),
    (command("prompt", seed=-1), "--seed"),
    (command("prompt", seed="9" * 5000), "--seed"),
    (command("pretrain"), "--option"),
    (command("prompt", batch=3), "unrecognized arguments: --batch 3"),  # not an abbreviation
    ([*command("prompt"), "--epochs"], "--epochs"),
    ([*command("prompt"), "a\nb\x1b[31m"], "unrecognized arguments"),
], ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_wrong_command_lines_are_refused_before_any_work(place, no_work, capsys, argv, said):
    Path("finetune-1-0.01.pt").write_bytes(Path("model.pt").read_bytes())
    Path("lora-2-0.01.pt").mkdir()
    Path("link.txt").symlink_to(STORIES[0])
    assert said.lower() in refused(argv, capsys).lower()


def test_folders_of_outputs_are_checked_where_the_files_will_be(
        place, no_work, capsys, monkeypatch):
    Path("sealed").mkdir()
    Path("link.txt").symlink_to("sealed/story.txt")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: (
        Path(path).resolve().name != "sealed" and access(path, mode)))
    for name in ("sealed/story.txt", "link.txt"):
        assert name in refused(command("generate", **{LOW: name}), capsys)


def test_a_device_will_do_also_where_its_folder_cannot_be_written_to(place, capsys, monkeypatch):
    access, folder = os.access, os.path.dirname(os.devnull)
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and access(path, mode))
    status, _, errors = run(command("generate", **{LOW: os.devnull}), capsys)
    assert (status, errors) == (0, [])


@pytest.mark.parametrize("option", ["generate", *KIND])
def test_a_gpu_that_is_not_there_is_refused(place, capsys, monkeypatch, option):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--use_gpu" in refused(command(option, use_gpu=True), capsys)


@pytest.mark.parametrize("option", KIND)
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_every_data_file_is_checked_before_the_model_is_loaded(
        place, no_work, capsys, option, split):
    missing = refused(command(option, **{split: "nothing.txt"}), capsys)
    assert "nothing.txt" in missing and "setup.sh" in missing
    Path(f"{split}.txt").write_text("0 ||| fine\n1 ||| fine\n1.0 ||| wrong\n", encoding="utf-8")
    assert f"{split}.txt, line 3" in refused(command(option), capsys)


def test_label_names_are_checked_before_the_model_is_loaded(place, no_work, capsys):
    Path("names.json").write_text('["one"]', encoding="utf-8")
    assert "1 names for the 2 labels" in refused(command("prompt"), capsys)
    assert "nothing.json" in refused(command("prompt", **{"label-names": "nothing.json"}), capsys)


@pytest.mark.parametrize("option", ["generate", *KIND])
def test_a_missing_checkpoint_or_tokenizer_says_how_to_get_it(place, capsys, option):
    for name in ("pretrained-model-path", "tokenizer"):
        said = refused(command(option, **{name: "nothing"}), capsys)
        assert "nothing" in said and "setup.sh" in said


@pytest.mark.parametrize("option", ["generate", *KIND])
def test_a_tokenizer_may_have_fewer_pieces_than_the_model_but_not_more(place, capsys, option):
    embeddings = WEIGHTS["tok_embeddings.weight"]
    for size in (61, 300):
        weights = WEIGHTS | {"tok_embeddings.weight": np.resize(embeddings, (size, 24))}
        reference.save_checkpoint("model.pt", weights, SHAPE | {"vocab_size": size})
        if size > 290:
            assert run_llama.main(command(option)) == 0
        else:
            said = refused(command(option), capsys)
            assert "290" in said and "61" in said and "--tokenizer" in said


def test_a_lora_rank_above_the_width_of_the_model_is_refused(place, capsys):
    assert "--lora_rank 25" in refused(command("lora", lora_rank=25), capsys)


# ----------------------------------------------------------------------------- the embedded default

@pytest.fixture
def demo(place) -> Path:
    """The embedded model and reviews stand in demo/, the official ones nowhere."""
    folder = place / "demo"
    folder.mkdir()
    for path in ("model.pt stories.pt", "tokenizer.model tokenizer.model",
                 "names.json reviews2-label-mapping.json",
                 *(f"{split}.txt reviews2-{split}.txt" for split in runs.SIZES)):
        name, embedded = path.split()
        Path(name).rename(folder / embedded)
    return folder


def test_without_the_official_files_the_embedded_ones_are_used_and_named(demo, capsys):
    status, _, warnings = run(["--option", "prompt"], capsys)
    assert status == 0 and len(warnings) == 4  # two for the model, two for the data
    for warned, missing in ((warnings[:2], "stories42M.pt"), (warnings[2:], "cfimdb")):
        assert missing in warned[0] and "demo" in warned[0] and "published results" in warned[0]
        assert "setup.sh" in warned[1]
    assert len(runs.labels_in("cfimdb-dev-prompting-output.txt")) == runs.SIZES["dev"]
    assert len(run(["--option", "generate"], capsys)[2]) == 2  # which needs no data


def test_a_path_that_was_given_or_some_of_the_official_files_are_never_replaced(demo, capsys):
    named = ["--option", "prompt", "--label-names", str(demo / "reviews2-label-mapping.json")]
    assert "mine.txt" in run([*named, "--train", "mine.txt"], capsys)[2][-1]
    assert "mine.pt" in refused(["--pretrained-model-path", "mine.pt"], capsys)
    Path("data").mkdir()
    Path("data/cfimdb-dev.txt").write_text("0 ||| a\n", encoding="utf-8")
    assert "data/cfimdb-train.txt" in run(named, capsys)[2][-1]
    Path("stories42M.pt").touch()
    assert "stories42M.pt" in refused(["--option", "generate"], capsys)


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
    before, tokenizer = contents(), Tokenizer()
    encode = tokenizer.sp_model.encode
    question = "Is this movie red or so big? This movie is "
    status, printed, errors = run(
        command("prompt", batch_size=3, max_sentence_len=max_len), capsys)
    assert (status, errors) == (0, [])  # no progress bars where nobody watches
    outputs = {split: f"my-{split}-prompting-output.txt" for split in ("dev", "test")}
    assert contents().keys() - before.keys() == {*outputs.values()}
    for split, path in outputs.items():
        examples = read_examples(f"{split}.txt")
        # The question stays whole where the sentence is cut.
        rows = [[tokenizer.bos_id, *encode(e.sentence)[:max_len], *encode(question)]
                for e in examples]
        expected = []
        for start in range(0, len(rows), 3):  # padding depends on the batch
            scores = reference.zero_shot_scores(
                WEIGHTS, SHAPE, padded(rows[start:start + 3]), [encode(name) for name in NAMES])
            expected += scores.argmax(-1).tolist()
        assert Path(path).read_bytes().decode() == "".join(
            f"{label} ||| {e.sentence} {question}\n" for label, e in zip(expected, examples))
        right = np.mean([label == e.label for label, e in zip(expected, examples)])
        assert f"{split} acc :: {right:.3f}\n" in printed
    assert printed.count("precision") == printed.count("macro avg") == 2


@pytest.mark.parametrize("option", ["prompt", "finetune"])
def test_a_run_encodes_each_sentence_once(place, monkeypatch, option):
    seen, encode = [], Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, s, bos, eos: (
        seen.append(s), encode(self, s, bos, eos))[1])
    assert run_llama.main(command(option, epochs=3)) == 0
    sentences = [e.sentence for split in runs.SIZES for e in read_examples(f"{split}.txt")]
    assert Counter(seen) == Counter(sentences + (NAMES if option == "prompt" else []))


# ---------------------------------------------------------------------------------------- training

@pytest.mark.parametrize("option", TRAINING)
@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_loss_of_the_first_epoch_is_the_likelihood_of_the_labels(
        place, capsys, monkeypatch, option, batch_size):
    gradients = []

    class Recorder(AdamW):
        def step(self):
            gradients.append(self.param_groups[0]["params"][-1].grad.double().numpy().copy())
            return super().step()

    monkeypatch.setattr(run_llama, "AdamW", Recorder)
    # At this rate the weights stay what they are. One sentence a batch has no padding, whatever
    # the order; or all ten are in one batch of at most sixteen.
    status, printed, errors = run(command(
        option, batch_size=batch_size, hidden_dropout_prob=0, lr=1e-12), capsys)
    assert (status, errors) == (0, []) and len(gradients) == (10 if batch_size == 1 else 1)
    model = torch.load(f"{option}-1-1e-12.pt", weights_only=True)["model"]
    head, bias = (model[f"classifier_head.{part}"].double().numpy() for part in ("weight", "bias"))
    tokenizer, examples = Tokenizer(), read_examples("train.txt")
    rows = [tokenizer.encode(e.sentence, bos=True, eos=False) for e in examples]
    batches = [[row] for row in rows] if batch_size == 1 else [padded(rows)]
    hidden = np.concatenate([reference.forward(WEIGHTS, SHAPE, b)[1][:, -1] for b in batches])
    p, labels = reference.softmax(hidden @ head.T + bias), [e.label for e in examples]
    loss = -np.log(p[np.arange(10), labels]).mean()
    assert abs(float(re.search(r"train loss :: (\S+),", printed)[1]) - loss) < 6e-4
    # Divided by --batch_size, also where a batch is smaller.
    np.testing.assert_allclose(sum(gradients), (p - np.eye(2)[labels]).sum(0) / batch_size,
                               rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("option", TRAINING)
def test_training_leaves_a_model_and_predictions_that_depend_on_the_seed_alone(
        place, capsys, option):
    before, made = contents(), []
    kind = KIND[option]
    for seed in (1, 1, 2):
        status, _, errors = run(command(option, epochs=2, seed=seed), capsys)
        assert (status, errors) == (0, [])
        made.append({name: contents()[name] for name in contents().keys() - before.keys()})
    assert made[0].keys() == {
        f"{option}-2-0.01.pt", f"my-dev-{kind}-output.txt", f"my-test-{kind}-output.txt"}
    assert made[0] == made[1]
    assert made[0][f"{option}-2-0.01.pt"] != made[2][f"{option}-2-0.01.pt"]


@pytest.mark.parametrize("option", TRAINING)
def test_outputs_hold_the_predictions_of_the_saved_model_in_the_order_of_the_file(place, option):
    Path("dev.txt").write_text("1 ||| a ||| b\n0 |||   café 🎬  \n1 ||| a\u2028b\n0 ||| mat\r",
                               encoding="utf-8")
    assert run_llama.main(command(option, batch_size=1, lr=0.01)) == 0
    weights = {name.removeprefix("llama."): w.numpy() for name, w in saved(option).items()}
    assert not any("lora" in name for name in weights)  # merged
    tokenizer, expected = Tokenizer(), ""
    for sentence in ("a ||| b", "café 🎬", "a\u2028b", "mat"):
        ids = tokenizer.encode(sentence, bos=True, eos=False)
        _, hidden = reference.forward(weights, SHAPE, [ids])
        scores = weights["classifier_head.weight"] @ hidden[0, -1] + weights["classifier_head.bias"]
        expected += f"{scores.argmax()} ||| {sentence}\n"
    assert Path(f"my-dev-{KIND[option]}-output.txt").read_bytes().decode("utf-8") == expected


def test_lora_changes_the_attention_projections_and_the_head_alone(place):
    assert run_llama.main(command("lora")) == 0
    for name, tensor in saved("lora").items():
        original = WEIGHTS.get(name.removeprefix("llama."))
        if original is not None:
            changed = not np.array_equal(tensor.numpy(), original.astype(np.float32))
            assert changed == ("attention.compute" in name), name


def test_accuracies_of_an_epoch_are_measured_without_dropout(place, capsys):
    Path("dev.txt").write_text(runs.lines(60, 7), encoding="utf-8")
    Path("test.txt").write_bytes(Path("train.txt").read_bytes())
    _, printed, _ = run(command("finetune", hidden_dropout_prob=0.9, lr=1e-4), capsys)
    for of_epoch, of_file in (("train", "test"), ("dev", "dev")):
        measured = re.search(rf"{of_epoch} acc :: ([\d.]+), ", printed)[1]
        assert 0 < float(measured) < 1 and f"\n{of_file} acc :: {measured}\n" in printed


@pytest.fixture
def always(monkeypatch):
    """After its n-th epoch the model predicts the n-th of these labels, whatever the sentence."""
    def always(*labels: int) -> None:
        train_epoch, answers = run_llama.train_epoch, iter(labels)

        def ruined(args, model, *rest):
            loss = train_epoch(args, model, *rest)
            with torch.no_grad():
                model.classifier_head.bias.zero_()[next(answers)] = 1e4
            return loss

        monkeypatch.setattr(run_llama, "train_epoch", ruined)
    return always


@pytest.mark.parametrize("option", TRAINING)
@pytest.mark.parametrize("dev,by_epoch,best", [
    ([1, 1, 1, 0], (1, 0), 0),
    ([1, 1, 1, 0], (0, 1, 0, 0), 1),
    ([0, 0, 0, 1], (1, 0), 1),
    ([0, 1, 0, 1], (1, 0), 0),  # equally good: the first
    ([1, 1, 1, 1], (0, 0), 0),  # never right
    ([-1, -1], (0, 0, 1), 2),  # nobody knows: the last
])
def test_the_best_epoch_is_saved_and_evaluated_whatever_was_saved_before(
        place, always, option, dev, by_epoch, best):
    Path("dev.txt").write_text(runs.lines(len(dev), 7, dev), encoding="utf-8")
    always(dev[0], *by_epoch)
    path, answer = f"{option}-{len(by_epoch)}-0.01.pt", by_epoch[best]
    assert run_llama.main(command(option)) == 0
    Path(f"{option}-1-0.01.pt").replace(path)  # an earlier run's
    assert run_llama.main(command(option, epochs=len(by_epoch))) == 0
    assert runs.labels_in(f"my-dev-{KIND[option]}-output.txt") == [answer] * len(dev)
    assert runs.labels_in(f"my-test-{KIND[option]}-output.txt") == [answer] * 5
    model = torch.load(path, weights_only=True)["model"]
    assert model["classifier_head.bias"].argmax() == answer


@pytest.mark.parametrize("option", ["prompt", "finetune"])
def test_placeholders_have_no_part_in_accuracy(place, capsys, option):
    some = runs.lines(7, 1, [-1, 0, -1, -1, 1, 0, -1])
    Path("dev.txt").write_text(some, encoding="utf-8")
    Path("test.txt").write_text(runs.lines(5, 7, [-1] * 5), encoding="utf-8")
    status, printed, errors = run(command(option), capsys)
    assert (status, errors) == (0, [])
    predicted = runs.labels_in(f"my-dev-{KIND[option]}-output.txt")
    right = (predicted[1] == 0) + (predicted[4] == 1) + (predicted[5] == 0)
    assert len(predicted) == 7 and f"\ndev acc :: {right / 3:.3f}\n" in printed
    assert "All labels of test are placeholders" in printed and printed.count("precision") == 1
    assert len(runs.labels_in(f"my-test-{KIND[option]}-output.txt")) == 5


# --------------------------------------------------------------------------------- how a run ends

@pytest.fixture
def at_step(monkeypatch):
    """Call a function before the number-th step of the optimizer, counted over epochs."""
    def at_step(number: int, action) -> None:
        step, left = AdamW.step, iter(range(1, number))

        def counted(self, *args):
            if next(left, None) is None:
                action()
            return step(self, *args)

        monkeypatch.setattr(AdamW, "step", counted)
    return at_step


def raising(error: BaseException):
    def action():
        raise error
    return action


@pytest.mark.parametrize("step,kept", [(2, False), (5, True)])  # three steps an epoch
def test_ctrl_c_between_two_steps_says_how_to_go_on(place, capsys, at_step, step, kept):
    before, state = contents(), "my-dev-finetuning-output.resume.pt"
    at_step(step, raising(KeyboardInterrupt()))
    status, _, (said,) = run(command("finetune", epochs=2), capsys)
    assert status == 130 and "interrupted" in said and ("--resume" in said) == kept
    left = contents().keys() - before.keys()
    assert left == ({state, "finetune-2-0.01.pt"} if kept else set())
    assert (state in said) == kept


@pytest.mark.parametrize("error", [
    ValueError("a defect"), RuntimeError("CUDA error: an illegal memory access was encountered"),
    KeyError("epoch"), UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range")], ids=repr)
def test_a_defect_keeps_its_traceback(place, at_step, error):
    at_step(1, raising(error))
    with pytest.raises(type(error)) as caught:
        run_llama.main(command("finetune"))
    assert caught.value is error


@pytest.mark.parametrize("action", [
    raising(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore")),
    raising(MemoryError()), lambda: torch.empty(2**60)], ids=["CUDA", "Python", "the allocator"])
def test_out_of_memory_is_said_in_one_line(place, capsys, at_step, action):
    at_step(1, action)
    status, _, (said,) = run(command("finetune"), capsys)
    assert status == 1 and "out of memory" in said and "--batch_size" in said


@pytest.mark.parametrize("option", TRAINING)
@pytest.mark.parametrize("batch_size,saved", [(4, False), (10, True)])  # 10: one step an epoch
def test_divergence_is_said_in_one_line_with_advice_that_works(
        place, capsys, option, batch_size, saved):
    status, _, (said,) = run(command(option, lr=1e30, batch_size=batch_size, epochs=3), capsys)
    assert status == 1 and "diverged" in said and "epoch" in said
    assert "--lr than 1e+30" in said and "--resume" not in said
    assert Path(f"{option}-3-1e+30.pt").exists() == saved
    assert run_llama.main(command(option, batch_size=batch_size, epochs=3)) == 0


def test_main_works_in_a_worker_thread_and_leaves_signal_handlers_alone(place):
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(run_llama.main(command("finetune"))))
    thread.start()
    thread.join()
    assert statuses == [0] and run_llama.main(command("finetune")) == 0
    assert handlers == {number: signal.getsignal(number) for number in signal.valid_signals()}


@pytest.mark.parametrize("stdout", [None, StringIO()], ids=["closed", "a notebook's"])
def test_a_standard_output_that_cannot_be_configured_will_do(place, monkeypatch, stdout):
    monkeypatch.setattr(sys, "stdout", stdout)
    for option in ("generate", *KIND):
        assert run_llama.main(command(option)) == 0


def test_what_a_terminal_cannot_show_is_escaped(place, monkeypatch, tmp_path):
    with open(tmp_path / "shown", "w", encoding="ascii") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert run_llama.main(command("generate", prompt="é 🎬")) == 0
    assert r"\xe9 \U0001f3ac" in (tmp_path / "shown").read_text(encoding="ascii")
