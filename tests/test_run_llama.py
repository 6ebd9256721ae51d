"""The command line: its options, what it refuses and when, what it says, and what it leaves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
import run_llama
from classifier import load_classifier
from conftest import ROOT
from optimizer import AdamW
from tokenizer import Tokenizer
from utils import read_examples

DEFAULTS = {
    "train": "data/cfimdb-train.txt", "dev": "data/cfimdb-dev.txt", "test": "data/cfimdb-test.txt",
    "label_names": "data/cfimdb-label-mapping.json", "pretrained_model_path": "stories42M.pt",
    "max_sentence_len": None, "seed": 1337, "epochs": 5, "option": "generate", "use_gpu": False,
    "generated_sentence_low_temp_out": "generated-sentence-temp-0.txt",
    "generated_sentence_high_temp_out": "generated-sentence-temp-1.txt",
    "dev_out": "cfimdb-dev-prompting-output.txt", "test_out": "cfimdb-test-prompting-output.txt",
    "lora_rank": 4, "lora_alpha": 1.0, "batch_size": 8, "hidden_dropout_prob": 0.3, "lr": 2e-5}
SHAPE = {"vocab_size": 290, "dim": 24, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
         "max_seq_len": 16, "multiple_of": 8}
STORIES = ["generated-sentence-temp-0.txt", "generated-sentence-temp-1.txt"]
NAMES = ["red", "so big"]
KIND = {"prompt": "prompting", "finetune": "finetuning", "lora": "lora"}
WORDS = "one day a cat sat on mat and saw big red ball in the park with little girl".split()


def lines(count: int, seed: int, labels: list[int] | None = None) -> str:
    """Sentences of different lengths; labels 0 and 1 in turn unless given."""
    rng = np.random.default_rng(seed)
    return "".join(
        f"{labels[i] if labels else i % 2} ||| {' '.join(rng.choice(WORDS, rng.integers(1, 9)))}\n"
        for i in range(count))


@pytest.fixture(scope="module")
def weights() -> reference.Weights:
    return reference.seeded_weights(SHAPE, seed=0)


@pytest.fixture
def place(tmp_path, monkeypatch, weights, tiny_tokenizer) -> Path:
    """The current folder, with everything that the four jobs need in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_llama, "DEMO", tmp_path / "demo")
    reference.save_checkpoint("model.pt", weights, SHAPE)
    Path("tokenizer.model").symlink_to(tiny_tokenizer)
    for seed, (split, count) in enumerate({"train": 10, "dev": 7, "test": 5}.items()):
        Path(f"{split}.txt").write_text(lines(count, seed))
    Path("names.json").write_text(json.dumps(NAMES))
    return tmp_path


def command(option: str, **changed: object) -> list[str]:
    """A command line that works in `place`; True is an option without a value, None none."""
    options = {"option": option, "pretrained-model-path": "model.pt"}
    if option in KIND:
        options |= {split: f"{split}.txt" for split in ("train", "dev", "test")}
        options |= {f"{s}_out": f"my-{s}-{KIND[option]}-output.txt" for s in ("dev", "test")}
        options |= {"label-names": "names.json", "epochs": 1, "lr": 0.01, "batch_size": 4}
    options |= changed
    return [text for name, value in options.items() if value is not None
            for text in ([f"--{name}"] if value is True else [f"--{name}", str(value)])]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def saved_model(option: str = "finetune") -> str:
    (name,) = Path().glob(f"{option}-*.pt")
    return str(name)


def predicted(split: str, option: str) -> list[int]:
    return [e.label for e in read_examples(f"my-{split}-{KIND[option]}-output.txt")]


# Options


@pytest.mark.parametrize("name", DEFAULTS)
def test_options_have_the_defaults_of_the_assignment(place, name):
    args = run_llama.get_args([])
    value = getattr(args, name)
    assert value == DEFAULTS[name] and type(value) is type(DEFAULTS[name])


def test_options_have_the_names_of_the_assignment(place):
    given = {"train": "a", "dev": "b", "test": "c", "label-names": "d",
             "pretrained-model-path": "e", "max_sentence_len": 6, "seed": 7, "epochs": 8,
             "option": "lora", "generated_sentence_low_temp_out": "f",
             "generated_sentence_high_temp_out": "g", "dev_out": "h", "test_out": "i",
             "lora_rank": 9, "lora_alpha": 2.5, "batch_size": 10, "hidden_dropout_prob": 0.5,
             "lr": 1e-3}
    argv = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    args = vars(run_llama.get_args([*argv, "--use_gpu"]))
    assert args.pop("use_gpu") is True
    assert {name: args[name.replace("-", "_")] for name in given} == given


def test_help_shows_every_option_of_the_assignment_and_its_default(capsys):
    with pytest.raises(SystemExit) as end:
        run_llama.get_args(["--help"])
    shown = "".join(capsys.readouterr().out.split())  # argparse breaks lines at hyphens, too
    assert end.value.code == 0
    for name, value in DEFAULTS.items():
        spelled = "--" + (name.replace("_", "-") if name in (
            "label_names", "pretrained_model_path") else name)
        assert spelled in shown
        assert value in (None, False) or f"(default:{value})" in shown, name


# Refusals


def refused(argv: list[str], capsys) -> str:
    """The one line on standard error with which a command line is refused."""
    before = contents(Path())
    try:
        status = run_llama.main(argv)
    except SystemExit as end:  # argparse's way
        status = end.code
    printed = capsys.readouterr()
    assert status == 2 and printed.out == ""
    assert printed.err.startswith("run_llama.py: ") and printed.err.count("\n") == 1
    assert contents(Path()) == before
    return printed.err


@pytest.fixture
def no_work(monkeypatch):
    """Fail when a model is loaded."""
    def loaded(path):
        raise AssertionError(f"{path} was loaded before the command line was refused")

    for module in ("run_llama", "classifier"):
        monkeypatch.setattr(f"{module}.load_pretrained", loaded)


@pytest.mark.parametrize("option", KIND)
@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("name", [
    "predictions.txt", "my-{other}-{kind}-output.txt", "my-{split}-{kind}-output.txt.bak",
    "my-{split}-{wrong}-output.txt", "my-{split}-output.txt", ""])
def test_output_names_that_do_not_fit_the_option_are_refused(
        place, no_work, capsys, option, split, name):
    name = name.format(split=split, other={"dev": "test", "test": "dev"}[split],
                       kind=KIND[option], wrong={"prompt": "lora"}.get(option, "prompting"))
    said = refused(command(option, **{f"{split}_out": name}), capsys)
    assert f"--{split}_out" in said and f"{split}-{KIND[option]}-output.txt" in said


@pytest.mark.parametrize("argv,said", [
    (command("prompt", dev_out="nowhere/dev-prompting-output.txt"), "no folder nowhere"),
    (command("lora", test_out="nowhere/test-lora-output.txt"), "no folder nowhere"),
    (command("generate", generated_sentence_low_temp_out="nowhere/a.txt"), "no folder nowhere"),
    (command("generate", generated_sentence_low_temp_out="same.txt",
             generated_sentence_high_temp_out="./same.txt"), "two names"),
    (command("generate", generated_sentence_low_temp_out="model.pt"), "is an input"),
    (command("prompt", dev="my-dev-prompting-output.txt"), "is an input"),
    (command("finetune", epochs=0), "--epochs: '0'"),
    (command("finetune", epochs="two"), "--epochs: 'two'"),
    (command("finetune", epochs=1.5), "--epochs: '1.5'"),
    (command("finetune", lr=0), "--lr: '0'"),
    (command("finetune", lr="nan"), "--lr: 'nan'"),
    (command("finetune", lr="inf"), "--lr: 'inf'"),
    (command("finetune", lr=-1), "--lr: '-1'"),
    (command("finetune", batch_size=0), "--batch_size: '0'"),
    (command("finetune", hidden_dropout_prob=1), "--hidden_dropout_prob: '1'"),
    (command("finetune", hidden_dropout_prob=-0.1), "--hidden_dropout_prob: '-0.1'"),
    (command("lora", lora_rank=0), "--lora_rank: '0'"),
    (command("lora", lora_alpha="much"), "--lora_alpha: 'much'"),
    (command("prompt", max_sentence_len=0), "--max_sentence_len: '0'"),
    (command("prompt", seed=-1), "--seed: '-1'"),
    (command("pretrain"), "--option: invalid choice: 'pretrain'"),
    (command("prompt", bath_size=3), "unrecognized arguments: --bath_size 3"),
    (command("prompt", batch=3), "unrecognized arguments: --batch 3"),
    ([*command("prompt"), "--epochs"], "--epochs: expected one argument"),
], ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "")
def test_wrong_command_lines_are_refused_before_any_work(place, no_work, capsys, argv, said):
    assert said in refused(argv, capsys)


@pytest.mark.parametrize("option", ["generate", *KIND])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_refused(place, no_work, capsys, option):
    assert "--use_gpu" in refused(command(option, use_gpu=True), capsys)


def test_one_name_for_both_outputs_is_refused(place, no_work, capsys):
    # No name can end as both have to, so the ending of one of them is what is wrong.
    both = "my-dev-lora-output.txt"
    assert both in refused(command("lora", dev_out=both, test_out=both), capsys)


@pytest.mark.parametrize("option", KIND)
@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_every_data_file_is_checked_before_the_model_is_loaded(
        place, no_work, capsys, option, name):
    missing = refused(command(option, **{name: "nothing.txt"}), capsys)
    assert "nothing.txt" in missing and "setup.sh" in missing
    Path(f"{name}.txt").write_text("0 ||| fine\n1 ||| fine\nbroken\n")
    assert f"{name}.txt, line 3" in refused(command(option), capsys)


@pytest.mark.parametrize("content,said", [
    ('["one"]', "1 names for the 2 labels"), ("{", "not JSON"), ("[1, 2]", "not a JSON list")])
def test_label_names_are_checked_before_the_model_is_loaded(
        place, no_work, capsys, content, said):
    Path("names.json").write_text(content)
    message = refused(command("prompt"), capsys)
    assert "names.json" in message and said in message


@pytest.mark.parametrize("option", ["generate", *KIND])
def test_a_missing_checkpoint_says_how_to_get_it(place, capsys, option):
    said = refused(command(option, **{"pretrained-model-path": "nothing.pt"}), capsys)
    assert "nothing.pt" in said and "setup.sh" in said


@pytest.mark.parametrize("option", ["generate", *KIND])
def test_a_tokenizer_of_another_vocabulary_is_refused(place, capsys, option, weights):
    few = weights | {"tok_embeddings.weight": weights["tok_embeddings.weight"][:61]}
    reference.save_checkpoint("other.pt", few, SHAPE | {"vocab_size": 61})
    said = refused(command(option, **{"pretrained-model-path": "other.pt"}), capsys)
    assert "290" in said and "61" in said and "--tokenizer" in said


def test_the_name_of_the_saved_model_is_checked_before_training(place, no_work, capsys):
    Path("finetune-1-0.01.pt").mkdir()
    assert "finetune-1-0.01.pt: is a folder" in refused(command("finetune"), capsys)


def test_the_process_ends_with_status_2_and_one_line(place):
    result = subprocess.run([sys.executable, ROOT / "run_llama.py", *command("finetune", epochs=0)],
                            capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)


# The embedded default


@pytest.fixture
def demo(place) -> Path:
    """The embedded model and reviews stand in demo/, the official ones nowhere."""
    folder = place / "demo"
    folder.mkdir()
    Path("model.pt").rename(folder / "stories.pt")
    Path("tokenizer.model").rename(folder / "tokenizer.model")
    for split in ("train", "dev", "test"):
        Path(f"{split}.txt").rename(folder / f"reviews2-{split}.txt")
    Path("names.json").rename(folder / "reviews2-label-mapping.json")
    return folder


def test_without_the_official_files_the_embedded_ones_are_used_and_named(demo, capsys):
    outputs = {f"{split}_out": f"my-{split}-prompting-output.txt" for split in ("dev", "test")}
    given = {name: None for name in ("train", "dev", "test", "label-names",
                                     "pretrained-model-path")}
    assert run_llama.main(command("prompt", **outputs, **given)) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 4  # two for the model, two for the data
    for warned, missing in ((warnings[:2], "stories42M.pt"), (warnings[2:], "CFIMDB")):
        assert missing in warned[0] and "demo" in warned[0] and "published results" in warned[0]
        assert "setup.sh" in warned[1]
    assert len(predicted("dev", "prompt")) == 7 and len(predicted("test", "prompt")) == 5


def test_generating_needs_no_data_and_says_nothing_about_them(demo, capsys):
    assert run_llama.main(["--option", "generate"]) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2 and "stories42M.pt" in warnings[0] and "setup.sh" in warnings[1]


def test_a_path_that_was_given_is_never_replaced(demo, capsys):
    named = ["--pretrained-model-path", "stories42M.pt", "--tokenizer", "demo/tokenizer.model"]
    assert "stories42M.pt" in refused(named, capsys)
    args = run_llama.get_args(["--option", "prompt", "--dev", "mine.txt"])
    assert (args.train, args.dev) == (DEFAULTS["train"], "mine.txt")
    args = run_llama.get_args(["--option", "prompt", "--train", DEFAULTS["train"]])
    assert (args.train, args.dev) == (DEFAULTS["train"], DEFAULTS["dev"])


def test_official_files_that_are_there_are_used_without_a_word(demo, capsys):
    Path("data").mkdir()
    for name in ("train", "dev", "test", "label_names"):
        Path(DEFAULTS[name]).touch()
    Path("stories42M.pt").touch()
    args = run_llama.get_args(["--option", "prompt"])
    assert {name: getattr(args, name) for name in DEFAULTS} == DEFAULTS | {"option": "prompt"}
    assert capsys.readouterr().err == ""


def test_some_official_files_are_not_filled_up_with_embedded_ones(demo):
    Path("data").mkdir()
    Path(DEFAULTS["dev"]).touch()
    assert run_llama.get_args(["--option", "prompt"]).train == DEFAULTS["train"]


def test_without_the_embedded_model_a_missing_checkpoint_says_how_to_get_it(place, capsys):
    said = refused(["--option", "generate"], capsys)
    assert "stories42M.pt" in said and "setup.sh" in said


# Generate and prompt


def test_generating_writes_two_texts_that_start_with_the_prompt(place, capsys):
    assert run_llama.main(command("generate", prompt="a cat sat")) == 0
    texts = [Path(name).read_text() for name in STORIES]
    assert all(text.startswith("a cat sat") and text.endswith("\n") for text in texts)
    printed = capsys.readouterr()
    assert all(text in printed.out for text in texts) and printed.err == ""


def test_the_sampled_text_depends_on_the_seed_and_the_greedy_one_does_not(place, weights):
    # Twice the logits: some tokens are likely enough to be drawn from.
    sharp = weights | {"tok_embeddings.weight": 2 * weights["tok_embeddings.weight"]}
    reference.save_checkpoint("model.pt", sharp, SHAPE)
    made = []
    for seed in (1, 1, 2):
        assert run_llama.main(command("generate", seed=seed)) == 0
        made.append([Path(name).read_bytes() for name in STORIES])
    assert made[0] == made[1] and made[0][0] == made[2][0] and made[0][1] != made[2][1]


def test_prompting_writes_the_likeliest_label_and_the_sentence_with_its_question(place, weights):
    assert run_llama.main(command("prompt", batch_size=3)) == 0
    tokenizer = Tokenizer()
    labels = [tokenizer.model.encode(name) for name in NAMES]
    for split in ("dev", "test"):
        sentences = [f"{e.sentence} Is this movie red or so big? This movie is "
                     for e in read_examples(f"{split}.txt")]
        rows = [[tokenizer.bos_id, *tokenizer.model.encode(sentence)] for sentence in sentences]
        expected = []
        for start in range(0, len(rows), 3):  # padding depends on the batch
            batch = rows[start:start + 3]
            longest = max(map(len, batch))
            scores = reference.zero_shot_scores(
                weights, SHAPE, [row + [tokenizer.pad_id] * (longest - len(row)) for row in batch],
                labels)
            expected += scores.argmax(-1).tolist()
        written = Path(f"my-{split}-prompting-output.txt").read_bytes().decode()
        assert written == "".join(
            f"{label} ||| {sentence}\n" for label, sentence in zip(expected, sentences))


def test_prompting_leaves_nothing_but_its_outputs_and_says_how_good_they_are(place, capsys):
    before = set(os.listdir())
    assert run_llama.main(command("prompt")) == 0
    assert set(os.listdir()) - before == {f"my-{s}-prompting-output.txt" for s in ("dev", "test")}
    printed = capsys.readouterr()
    assert printed.err == ""  # no progress bars where nobody watches
    for split in ("dev", "test"):
        labels = [e.label for e in read_examples(f"{split}.txt")]
        right = np.mean([a == b for a, b in zip(labels, predicted(split, "prompt"))])
        assert f"{split} accuracy {right:.4f}" in printed.out
    assert printed.out.count("precision") == printed.out.count("macro avg") == 2


# Training


@pytest.fixture
def recorded(monkeypatch) -> list[dict]:
    """For each step of a run: classifier weights before it, a gradient, and whether in training."""
    steps, models = [], []
    make = run_llama.LlamaEmbeddingClassifier

    class Recorder(AdamW):
        def step(self, closure=None):
            head = models[-1].classifier_head
            steps.append({"head": [p.detach().double().numpy().copy() for p in head.parameters()],
                          "bias grad": head.bias.grad.double().numpy().copy(),
                          "training": models[-1].training})
            return super().step(closure)

    def made(*args, **kwargs):
        models.append(make(*args, **kwargs))
        return models[-1]

    monkeypatch.setattr(run_llama, "LlamaEmbeddingClassifier", made)
    monkeypatch.setattr(run_llama, "AdamW", Recorder)
    return steps


@pytest.mark.parametrize("option", ["finetune", "lora"])
def test_the_first_loss_is_the_likelihood_of_the_labels_over_the_batch_size(
        place, weights, recorded, capsys, option):
    # All ten sentences in one batch of at most 16: the gradient is divided by 16, not by 10.
    assert run_llama.main(command(option, batch_size=16, hidden_dropout_prob=0)) == 0
    tokenizer, examples = Tokenizer(), read_examples("train.txt")
    rows = [[tokenizer.bos_id, *tokenizer.model.encode(e.sentence)] for e in examples]
    longest, labels = max(map(len, rows)), [e.label for e in examples]
    _, hidden = reference.forward(
        weights, SHAPE, [row + [tokenizer.pad_id] * (longest - len(row)) for row in rows])
    head, bias = recorded[0]["head"]
    p = reference.softmax(hidden[:, -1] @ head.T + bias)
    loss = -np.log(p[np.arange(10), labels]).sum()
    assert f"train loss {loss / 10:.4f}" in capsys.readouterr().out
    np.testing.assert_allclose(recorded[0]["bias grad"], (p - np.eye(2)[labels]).sum(0) / 16,
                               rtol=1e-4, atol=1e-6)


def test_every_sentence_is_seen_once_in_each_epoch(place, recorded):
    assert run_llama.main(command("finetune", epochs=3)) == 0  # ten sentences, four at a time
    assert len(recorded) == 3 * 3 and all(step["training"] for step in recorded)


@pytest.mark.parametrize("option", ["finetune", "lora"])
def test_accuracies_of_an_epoch_are_measured_without_dropout(place, capsys, option):
    Path("dev.txt").write_text(lines(60, 7))
    Path("test.txt").write_text(Path("train.txt").read_text())
    assert run_llama.main(command(option, hidden_dropout_prob=0.9, lr=1e-4)) == 0
    printed = capsys.readouterr().out
    for of_epoch, of_file in (("train", "test"), ("dev", "dev")):
        (measured,) = re.findall(rf"{of_epoch} accuracy ([\d.]+), ", printed)
        assert 0 < float(measured) < 1 and f"{of_file} accuracy {measured} on" in printed


def test_sentences_are_not_tokenized_again_in_every_epoch(place, monkeypatch):
    counts, encode = [], Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, s, bos, eos: (
        counts.append(s), encode(self, s, bos, eos))[1])
    assert run_llama.main(command("finetune", epochs=1)) == 0
    once = len(counts)
    assert run_llama.main(command("finetune", epochs=4)) == 0
    assert len(counts) == 2 * once


def test_a_run_says_what_it_trains_and_how_each_epoch_went(place, capsys):
    assert run_llama.main(command("lora", epochs=2, lora_rank=3)) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    head = 24 * 2 + 2
    total = sum(int(np.prod(shape)) for shape in reference.shapes(SHAPE, biases=True).values())
    lora = 2 * 3 * (24 + 24 + 2 * (24 + 12) + 24 + 24)
    assert f"LoRA rank 3, alpha 1 on 8 projections: {lora:,} of" in printed.out
    assert f"({100 * lora / (total + lora + head):.2f}%) plus the head" in printed.out
    epochs = [line for line in printed.out.splitlines() if line.startswith("epoch ")]
    assert len(epochs) == 2
    for number, line in enumerate(epochs, start=1):
        assert re.fullmatch(
            rf"epoch {number}/2: train loss \d+\.\d{{4}}, train accuracy [01]\.\d{{4}}, "
            r"dev accuracy [01]\.\d{4}, macro F1 [01]\.\d{4}, \d+ s(, best so far)?", line)
    assert epochs[0].endswith("best so far")


@pytest.mark.parametrize("option", ["finetune", "lora"])
def test_the_saved_model_holds_what_is_needed_to_use_it_again(place, option):
    assert run_llama.main(command(option, epochs=2, seed=5)) == 0
    name = saved_model(option)
    assert name == f"{option}-2-0.01.pt"
    assert sorted(Path().glob("*.pt")) == [Path(name), Path("model.pt")]  # no leftovers
    file = torch.load(name, weights_only=True)
    assert file["num_labels"] == 2 and file["model_args"].items() >= SHAPE.items()
    used = {"option": option, "epochs": 2, "lr": 0.01, "seed": 5, "batch_size": 4}
    assert file["options"].items() >= used.items()
    names = {f"llama.{tensor}" for tensor in reference.shapes(SHAPE, biases=True)}
    head = {"llama.output.weight", "classifier_head.weight", "classifier_head.bias"}
    assert file["model"].keys() == names | head


def test_lora_changes_the_attention_projections_and_the_head_alone(place, weights):
    assert run_llama.main(command("lora", lr=0.1)) == 0
    for name, tensor in torch.load(saved_model("lora"), weights_only=True)["model"].items():
        original = weights.get(name.removeprefix("llama."))
        if original is not None:
            changed = not np.array_equal(tensor.numpy(), original.astype(np.float32))
            assert changed == ("attention.compute" in name), name


@pytest.fixture
def always(monkeypatch):
    """After its n-th epoch the model predicts the n-th of these labels, whatever the sentence."""
    def always(*labels: int) -> None:
        train_epoch = run_llama.train_epoch

        def ruined(args, model, optimizer, loader, epoch):
            loss = train_epoch(args, model, optimizer, loader, epoch)
            with torch.no_grad():
                model.classifier_head.bias.zero_()[labels[epoch - 1]] = 1e4
            return loss

        monkeypatch.setattr(run_llama, "train_epoch", ruined)
    return always


@pytest.mark.parametrize("option", ["finetune", "lora"])
@pytest.mark.parametrize("dev,by_epoch,best", [
    ([1, 1, 1, 0], (1, 0), 1),
    ([1, 1, 1, 0], (0, 1, 0, 0), 2),
    ([0, 0, 0, 1], (1, 0), 2),
    ([0, 1, 0, 1], (1, 0), 1),  # equally good: the first
])
def test_the_best_epoch_is_evaluated_and_not_the_last(
        place, always, capsys, option, dev, by_epoch, best):
    Path("dev.txt").write_text(lines(len(dev), 7, dev))
    always(*by_epoch)
    assert run_llama.main(command(option, epochs=len(by_epoch))) == 0
    said = by_epoch[best - 1]
    assert predicted("dev", option) == [said] * len(dev)
    assert predicted("test", option) == [said] * 5
    file = torch.load(saved_model(option), weights_only=True)
    assert (file["epoch"], file["dev_accuracy"]) == (best, dev.count(said) / len(dev))
    assert f"dev accuracy {dev.count(said) / len(dev):.4f} on 4" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["finetune", "lora"])
@pytest.mark.parametrize("label", [1, -1], ids=["never right", "placeholders"])
def test_a_model_of_an_earlier_run_is_never_evaluated(place, always, option, label):
    # Dev accuracy stays 0, and a model under the same name is there already.
    assert run_llama.main(command(option, seed=1)) == 0
    earlier = load_classifier(saved_model(option))
    for name in (saved_model(option), f"my-dev-{KIND[option]}-output.best.pt"):
        with torch.no_grad():
            earlier.classifier_head.bias.zero_()[1] = 1e4  # it says 1
        file = torch.load(saved_model(option), weights_only=True)
        file["model"]["classifier_head.bias"] = earlier.classifier_head.bias.detach()
        torch.save(file, name)
    Path("dev.txt").write_text(lines(6, 7, [label] * 6))
    always(0, 0)
    assert run_llama.main(command(option, seed=2, epochs=1)) == 0
    assert predicted("dev", option) == [0] * 6 and predicted("test", option) == [0] * 5
    assert torch.load(saved_model(option), weights_only=True)["options"]["seed"] == 2


@pytest.mark.parametrize("option", ["finetune", "lora"])
def test_outputs_hold_the_predictions_of_the_saved_model_in_the_order_of_the_file(place, option):
    Path("dev.txt").write_text("1 ||| a ||| b\n0 |||   café 🎬  \n1 ||| a\r\n0 ||| a\n",
                               encoding="utf-8")
    assert run_llama.main(command(option, epochs=2, batch_size=1, lr=0.05)) == 0
    file = torch.load(saved_model(option), weights_only=True)
    weights = {name.removeprefix("llama."): w.numpy() for name, w in file["model"].items()}
    tokenizer, expected = Tokenizer(), ""
    for sentence in ("a ||| b", "café 🎬", "a", "a"):
        ids = [tokenizer.bos_id, *tokenizer.model.encode(sentence)]
        _, hidden = reference.forward(weights, SHAPE, [ids])
        scores = weights["classifier_head.weight"] @ hidden[0, -1] + weights["classifier_head.bias"]
        expected += f"{scores.argmax()} ||| {sentence}\n"
    written = Path(f"my-dev-{KIND[option]}-output.txt").read_bytes()
    assert written.decode("utf-8") == expected


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("option", ["prompt", "finetune"])
def test_a_split_of_placeholders_says_so_in_place_of_a_report(place, capsys, option, split):
    Path(f"{split}.txt").write_text(lines(5, 7, [-1] * 5))
    assert run_llama.main(command(option)) == 0
    printed = capsys.readouterr().out
    assert f"all labels of {split} are placeholders" in printed
    assert f"{split} accuracy 0.0000" in printed and printed.count("precision") == 1


# Resuming


def interrupt_after(epoch_done: int, monkeypatch) -> None:
    """Let the next epoch end as Ctrl-C would end it."""
    train_epoch = run_llama.train_epoch

    def interrupted(args, model, optimizer, loader, epoch):
        if epoch > epoch_done:
            raise KeyboardInterrupt
        return train_epoch(args, model, optimizer, loader, epoch)

    monkeypatch.setattr(run_llama, "train_epoch", interrupted)


@pytest.mark.parametrize("option", ["finetune", "lora"])
def test_a_resumed_run_leaves_the_same_files_wherever_the_best_epoch_was(
        place, monkeypatch, capsys, option):
    argv, before = command(option, epochs=4), contents(place)
    assert run_llama.main(argv) == 0
    expected = contents(place)
    for name in expected.keys() - before.keys():
        os.unlink(name)
    for done in (0, 1, 3):
        with monkeypatch.context() as patch:
            interrupt_after(done, patch)
            assert run_llama.main([*argv, "--resume"]) == 130
        said = capsys.readouterr()
        assert said.err.count("\n") == 2 and "interrupted" in said.err
        assert ("nothing was written" if done == 0 else f"{done} of 4 epochs are kept") in said.err
    assert run_llama.main([*argv, "--resume"]) == 0
    assert "Resuming after epoch 3 of 4" in capsys.readouterr().out
    assert contents(place) == expected


def test_with_nothing_to_resume_it_says_so_and_starts_from_the_beginning(place, capsys):
    assert run_llama.main(command("finetune", resume=True)) == 0
    printed = capsys.readouterr().out
    assert "nothing to resume" in printed and "epoch 1/1" in printed


@pytest.mark.parametrize("changed,said", [
    ({"seed": 3}, "seed (1337, now 3)"), ({"batch_size": 5}, "batch_size (4, now 5)"),
    ({"hidden_dropout_prob": 0.2}, "hidden_dropout_prob (0.3, now 0.2)"),
    ({"epochs": 3}, "epochs (2, now 3)"), ({"lr": 0.5}, "lr (0.01, now 0.5)"),
    ({"max_sentence_len": 9}, "max_sentence_len (None, now 9)"),
    ({"train": "dev.txt"}, "train ("), ({"dev": "test.txt"}, "dev ("),
    ({"lora_rank": 2}, "lora_rank (4, now 2)"), ({"lora_alpha": 2.0}, "lora_alpha (1.0, now 2.0)"),
], ids=str)
def test_other_options_than_the_interrupted_ones_are_named(
        place, monkeypatch, capsys, changed, said):
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        assert run_llama.main(command("lora", epochs=2)) == 130
    capsys.readouterr()
    message = refused([*command("lora", **{"epochs": 2} | changed), "--resume"], capsys)
    assert said in message and "leave out --resume" in message


@pytest.mark.parametrize("file", ["resume", "best"])
@pytest.mark.parametrize("wrong", [torch.ones(3), {"seed": torch.ones(3)}, None], ids=str)
def test_options_of_any_type_are_those_of_another_run(place, monkeypatch, capsys, file, wrong):
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        assert run_llama.main(command("lora", epochs=2)) == 130
    capsys.readouterr()
    path = f"my-dev-lora-output.{file}.pt"
    torch.save(torch.load(path, weights_only=True) | {"options": wrong}, path)
    message = refused([*command("lora", epochs=2), "--resume"], capsys)
    assert "cannot be resumed" in message and "leave out --resume" in message


@pytest.mark.parametrize("wrong", [0.5, None, [], {}], ids=str)
def test_a_state_without_moments_is_refused(place, monkeypatch, capsys, wrong):
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        assert run_llama.main(command("finetune", epochs=2)) == 130
    capsys.readouterr()
    path = "my-dev-finetuning-output.resume.pt"
    torch.save(torch.load(path, weights_only=True) | {"exp_avg_sq": wrong}, path)
    message = refused([*command("finetune", epochs=2), "--resume"], capsys)
    assert "exp_avg_sq" in message and "leave out --resume" in message


def test_moments_of_another_precision_are_resumed_in_float32(place, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        assert run_llama.main(command("finetune", epochs=2)) == 130
    path = "my-dev-finetuning-output.resume.pt"
    state = torch.load(path, weights_only=True)
    state["exp_avg"] = {name: moment.bfloat16() for name, moment in state["exp_avg"].items()}
    torch.save(state, path)
    assert run_llama.main([*command("finetune", epochs=2), "--resume"]) == 0


def test_an_interrupted_run_is_mentioned_where_it_is_not_resumed(place, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        assert run_llama.main(command("finetune", epochs=2)) == 130
    assert run_llama.main(command("finetune", epochs=2)) == 0
    printed = capsys.readouterr().out
    assert "--resume would continue" in printed and printed.count("epoch 1/2") == 2
