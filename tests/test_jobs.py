"""The jobs from the command line to the files that they leave, on small and on real data."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import reference
import run_llama
from classifier import encode, load_classifier, make_loader
from tokenizer import Tokenizer
from utils import read_examples

ROOT = Path(run_llama.__file__).parent
MODULES = [f"{name}.py" for name in (
    "run_llama", "base_llama", "llama", "rope", "lora", "classifier", "optimizer", "config",
    "tokenizer", "utils", "sanity_check")]
SIZES = {"train": 400, "dev": 120, "test": 60}


@pytest.fixture
def sst(assets, tmp_path, monkeypatch):
    """A folder with a part of SST in it, and the options that name it and stories260K."""
    for split, size in SIZES.items():
        lines = (assets / f"data/sst-{split}.txt").read_text(encoding="utf-8").splitlines(True)
        (tmp_path / f"{split}.txt").write_text("".join(lines[-size:]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return ["--train", "train.txt", "--dev", "dev.txt", "--test", "test.txt",
            "--pretrained-model-path", str(assets / "stories260K.pt"),
            "--tokenizer", str(assets / "tok512.model")]


def train(option, sst, kind, *more):
    """Run a training job in this folder; returns the bytes of the three files that it leaves."""
    status = run_llama.main([
        "--option", option, *sst, "--dev_out", f"dev-{kind}-output.txt",
        "--test_out", f"test-{kind}-output.txt", "--batch_size", "16", "--epochs", "2", *more])
    assert status == 0
    names = [*Path().glob(f"{option}-2-*.pt"), *Path().glob(f"*-{kind}-output.txt")]
    assert len(names) == 3
    return {path.name: path.read_bytes() for path in names}


def losses(printed):
    return [float(line.split("train loss ")[1].split(",")[0])
            for line in printed.splitlines() if line.startswith("epoch")]


@pytest.mark.parametrize("option,kind,lr", [("finetune", "finetuning", "2e-3"),
                                            ("lora", "lora", "5e-3")])
def test_training_lowers_the_loss_and_repeats_byte_for_byte(sst, capsys, option, kind, lr):
    first = train(option, sst, kind, "--lr", lr)
    falling = losses(capsys.readouterr().out)
    assert falling[-1] < falling[0]
    assert sorted(path.name for path in Path().glob("*.pt")) == [f"{option}-2-{float(lr)}.pt"]
    assert train(option, sst, kind, "--lr", lr) == first
    assert train(option, sst, kind, "--lr", lr, "--seed", "1") != first


def test_the_saved_model_gives_the_written_predictions(sst):
    train("lora", sst, "lora", "--lr", "5e-3")
    model = load_classifier("lora-2-0.005.pt")
    assert not any("lora" in name for name in model.state_dict())
    tokenizer = Tokenizer(tokenizer_model=sst[-1])
    examples = read_examples("dev.txt")
    loader = make_loader(encode(examples, tokenizer), 16, tokenizer.pad_id)
    with torch.inference_mode():
        predicted = torch.cat([model(ids).argmax(-1) for ids, _ in loader]).tolist()
    assert Path("dev-lora-output.txt").read_text(encoding="utf-8").splitlines() == [
        f"{label} ||| {example.sentence}" for label, example in zip(predicted, examples)]


@pytest.mark.parametrize("option,kind", [("finetune", "finetuning"), ("lora", "lora")])
def test_a_resumed_run_ends_with_the_same_bytes(sst, capsys, monkeypatch, option, kind):
    whole_run = train(option, sst, kind, "--lr", "2e-3")
    for path in whole_run:
        Path(path).unlink()
    one_epoch = run_llama.train_epoch

    def interrupted(args, model, optimizer, loader, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return one_epoch(args, model, optimizer, loader, epoch)

    monkeypatch.setattr(run_llama, "train_epoch", interrupted)
    command = ["--option", option, *sst, "--dev_out", f"dev-{kind}-output.txt", "--test_out",
               f"test-{kind}-output.txt", "--batch_size", "16", "--epochs", "2", "--lr", "2e-3"]
    assert run_llama.main(command) == 130
    assert "1 of 2 epochs are kept" in capsys.readouterr().err
    monkeypatch.setattr(run_llama, "train_epoch", one_epoch)
    assert run_llama.main([*command, "--resume", "--seed", "7"]) == 2
    assert "seed (1337, now 7)" in capsys.readouterr().err
    assert train(option, sst, kind, "--lr", "2e-3", "--resume") == whole_run


def majority_share(labels):
    return np.bincount(labels).max() / len(labels)


def test_fine_tuning_on_five_classes_beats_the_majority_class(assets, sst):
    data = assets / "data"
    assert run_llama.main([
        "--option", "finetune", *sst, "--train", str(data / "sst-train.txt"), "--dev",
        str(data / "sst-dev.txt"), "--dev_out", "dev-finetuning-output.txt", "--test_out",
        "test-finetuning-output.txt", "--lr", "1e-3", "--epochs", "4", "--batch_size", "8",
        "--max_sentence_len", "48"]) == 0  # small batches and short rows have less padding to read
    labels = [example.label for example in read_examples(str(data / "sst-dev.txt"))]
    predicted = [example.label for example in read_examples("dev-finetuning-output.txt")]
    assert np.mean(np.equal(labels, predicted)) > majority_share(labels) + 0.03


def test_sentences_are_tokenized_once(sst, monkeypatch):
    seen = []
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, s, bos, eos: (
        seen.append(s), encode(self, s, bos, eos))[1])
    train("finetune", sst, "finetuning")
    assert len(seen) == sum(SIZES.values())


def test_fine_tuning_the_embedded_model_tells_good_from_bad(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demo = Path(run_llama.__file__).parent / "demo"
    files = {split: str(demo / f"reviews2-{split}.txt") for split in ("train", "dev", "test")}
    assert run_llama.main([
        "--option", "finetune", "--pretrained-model-path", str(demo / "stories.pt"), "--train",
        files["train"], "--dev", files["dev"], "--test", files["test"], "--dev_out",
        "dev-finetuning-output.txt", "--test_out", "test-finetuning-output.txt", "--lr", "5e-4",
        "--epochs", "3", "--batch_size", "8"]) == 0
    labels = [example.label for example in read_examples(files["dev"])]
    predicted = [example.label for example in read_examples("dev-finetuning-output.txt")]
    assert np.mean(np.equal(labels, predicted)) > majority_share(labels) + 0.1


def test_placeholder_labels_are_said_and_not_scored(sst, capsys):
    Path("test.txt").write_text("-1 ||| one film\n-1 ||| another film\n", encoding="utf-8")
    assert run_llama.main(["--option", "finetune", *sst, "--dev_out", "dev-finetuning-output.txt",
                           "--test_out", "test-finetuning-output.txt", "--epochs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "test accuracy 0.0000" in printed and "all labels of test are placeholders" in printed


@pytest.fixture
def submission(assets, tmp_path):
    """An unzipped submission: modules and documents, the data cut down, tokenizer, checkpoint."""
    for name in (*MODULES, "README.md", "structure.md", "checklist.md", "setup.sh"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("tokenizer.model", "sanity_check.data"):
        shutil.copy(assets / name, tmp_path)
    (tmp_path / "data").mkdir()
    for source in (assets / "data").iterdir():
        lines = source.read_text(encoding="utf-8").splitlines(True)
        (tmp_path / "data" / source.name).write_text("".join(lines[:90]), encoding="utf-8")
    args = {"vocab_size": 32000, "dim": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2,
            "max_seq_len": 1024, "multiple_of": 32, "hidden_dim": None, "layer_norm_eps": 1e-5,
            "dropout": 0.0, "causal": False}
    reference.save_checkpoint(tmp_path / "stories42M.pt", reference.seeded_weights(args, 0), args)
    return tmp_path


@pytest.mark.parametrize("option,kind", [
    ("prompt", "prompting"), ("finetune", "finetuning"), ("lora", "lora")])
@pytest.mark.parametrize("name,batch_size", [("sst", "80"), ("cfimdb", "10")])
def test_the_reference_commands_run_in_a_submission(submission, option, kind, name, batch_size):
    data = f"data/{name}"
    result = subprocess.run([
        sys.executable, "run_llama.py", "--option", option, "--epochs", "1", "--lr", "2e-5",
        "--batch_size", "10" if option == "prompt" else batch_size,
        "--train", f"{data}-train.txt", "--dev", f"{data}-dev.txt", "--test", f"{data}-test.txt",
        "--label-names", f"{data}-label-mapping.json",
        "--dev_out", f"{name}-dev-{kind}-output.txt",
        "--test_out", f"{name}-test-{kind}-output.txt",
    ], cwd=submission, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (0, "")
    for split in ("dev", "test"):
        written = read_examples(str(submission / f"{name}-{split}-{kind}-output.txt"))
        given = read_examples(str(submission / f"{data}-{split}.txt"))
        assert len(written) == len(given)
        assert all(w.sentence.startswith(g.sentence) for w, g in zip(written, given))
    assert ("Is this movie" in written[0].sentence) == (option == "prompt")
