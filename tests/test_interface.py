"""The public face: what students, graders' scripts and the course's own programs rely on."""

import functools
import importlib
import inspect
import os
import random
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from torch import nn

import base_llama
import reference
import run_llama
import runs
from assignment.judge import FIVE
from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from config import LlamaConfig
from conftest import ROOT, SMALL
from llama import Llama, load_pretrained
from runs import KIND, NAMES, SHAPE, WEIGHTS, command, contents, python
from tokenizer import TOKENIZER_MODEL, Tokenizer
from utils import InputError, read_examples

SIX = ("run_llama", "base_llama", "config", "tokenizer", "utils", "sanity_check")

CONFIG_FIELDS = """vocab_size=32000, dim=512, dropout=0.0, n_layers=8, n_heads=8, n_kv_heads=8, \
max_seq_len=1024, layer_norm_eps=1e-5, multiple_of=32, hidden_dim=None, \
position_embedding_type="rotary", use_cache=True"""

# Owner: functions or methods, without `self`. Further parameters may follow where optional.
SIGNATURES = f"""
config.LlamaConfig: __init__({CONFIG_FIELDS})
base_llama.LlamaPreTrainedModel: __init__(config) init_weights() _init_weights(module)
rope: reshape_for_broadcast(freqs_cis, x) apply_rotary_emb(query, key, head_dim, max_seq_len, \
theta=10000.0)
llama.LayerNorm: __init__(dim, eps=1e-6) _norm(x) forward(x)
llama.Attention: __init__(config) compute_query_key_value_scores(query, key, value) forward(x)
llama.FeedForward: __init__(dim, hidden_dim, multiple_of, dropout) SwiGLU(x) forward(x)
llama.LlamaLayer: __init__(layer_id, config) forward(x)
llama.Llama: __init__(config) forward(tokens, targets=None)
llama.Llama: generate(idx, max_new_tokens, temperature=1.0, epsilon=0.05)
llama: load_pretrained(checkpoint)
lora.LoRALayer: __init__(original_layer, rank=4, alpha=1.0)
lora: apply_lora(model, rank=4, alpha=1.0) merge_lora_weights(model)
lora: count_lora_parameters(model) get_lora_optimizer_params(model)
classifier.LlamaZeroShotClassifier: __init__(config, tokenizer, label_names) forward(input_ids)
classifier.LlamaEmbeddingClassifier: __init__(config) forward(input_ids)
optimizer.AdamW: __init__(params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, \
correct_bias=True, max_grad_norm=None) step(closure=None)
tokenizer.Tokenizer: __init__(max_len=None, tokenizer_model=None) encode(s, bos, eos) decode(t)
run_llama: get_args() seed_everything(seed=11711)
run_llama: create_data(filename, tokenizer, flag='train', lower=False, eos=True, prompt_suffix=None)
run_llama.LlamaDataset: __init__(dataset, args, eos=False) pad_data(rows) collate_fn(rows)
run_llama: model_eval(dataloader, model, device)
run_llama: save_model(model, optimizer, args, config, filepath)
run_llama: train(args) train_lora(args) test(args) test_with_prompting(args)
run_llama: generate_sentence(args, prefix, outfile, max_new_tokens=75, temperature=0.0)
run_llama: write_predictions_to_file(split, outfile, acc, pred, sents)
""".strip().splitlines()
SIGNATURES = [(line.partition(":")[0], function)
              for line in SIGNATURES for function in re.findall(r"\w+\(.*?\)(?= |$)", line)]

# The assignment's command line and its defaults.
OPTIONS = {
    "train": "data/cfimdb-train.txt", "dev": "data/cfimdb-dev.txt", "test": "data/cfimdb-test.txt",
    "label_names": "data/cfimdb-label-mapping.json", "pretrained_model_path": "stories42M.pt",
    "max_sentence_len": None, "seed": 1337, "epochs": 5, "option": "generate", "use_gpu": False,
    "generated_sentence_low_temp_out": "generated-sentence-temp-0.txt",
    "generated_sentence_high_temp_out": "generated-sentence-temp-1.txt",
    "dev_out": "cfimdb-dev-prompting-output.txt", "test_out": "cfimdb-test-prompting-output.txt",
    "lora_rank": 4, "lora_alpha": 1.0, "batch_size": 8, "hidden_dropout_prob": 0.3, "lr": 2e-5,
}


def pieces(text: str | list[str]) -> list:
    """Token ids of a text, straight from SentencePiece."""
    return sentencepiece.SentencePieceProcessor(model_file="tokenizer.model").encode(text)


def make_classifiers() -> tuple[nn.Module, nn.Module]:
    settings = Namespace(num_labels=2, pretrained_model_path="model.pt", option="finetune",
                         hidden_dropout_prob=0.3)
    return (LlamaZeroShotClassifier(settings, Tokenizer(), NAMES),
            LlamaEmbeddingClassifier(settings).eval())


# Names, signatures, attributes and imports


@pytest.mark.parametrize("owner, function", SIGNATURES, ids=lambda text: text.partition("(")[0])
def test_signature(owner, function):
    module, *path = owner.split(".")
    name, _, parameters = function.partition("(")
    found = functools.reduce(getattr, [*path, name], importlib.import_module(module))
    found = [p for p in inspect.signature(found).parameters.values() if p.name != "self"]
    wanted = inspect.signature(eval(f"lambda {parameters[:-1]}: None")).parameters.values()
    ours, further = found[:len(wanted)], found[len(wanted):]
    assert [(p.name, p.kind) for p in ours] == [(p.name, p.kind) for p in wanted]
    assert all(p.default in (p.empty, own.default) for own, p in zip(ours, wanted, strict=True))
    assert all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in further)


def test_attributes_that_the_tests_of_the_assignment_do_not_use(place):
    config = LlamaConfig(**SMALL, dropout=0.25)
    model, tokenizer, (zero_shot, embedding) = Llama(config), Tokenizer(4), make_classifiers()
    layer = model.layers[1]
    for owner, attributes in (
            (base_llama, {"LlamaConfig": LlamaConfig}),
            (model, {"params": config, "config": config, "config_class": LlamaConfig,
                     "base_model_prefix": "llama", "vocab_size": 61, "n_layers": 2,
                     "dtype": torch.float32}),
            (layer, {"layer_id": 1, "n_heads": 4, "dim": 24, "head_dim": 6}),
            (layer.attention, {"n_kv_heads": 2, "n_local_heads": 4, "n_local_kv_heads": 2,
                               "n_rep": 2, "head_dim": 6, "max_seq_len": 16, "dropout": 0.25}),
            (layer.ffn_norm, {"eps": 1e-5}), (config, {"model_type": "llama"}),
            (zero_shot, {"num_labels": 2, "label_name_ids": pieces(NAMES)}),
            (embedding, {"num_labels": 2}),
            (tokenizer, {"model_path": TOKENIZER_MODEL, "max_len": 4})):
        assert {name: getattr(owner, name) for name in attributes} == attributes
    assert TOKENIZER_MODEL == "tokenizer.model" and zero_shot.tokenizer and tokenizer.sp_model
    for dropout in (model.dropout, layer.attention.attn_dropout, layer.attention.resid_dropout,
                    layer.feed_forward.dropout, embedding.dropout):
        assert isinstance(dropout, nn.Dropout)


def test_forward_hooks_fire_in_generation_and_in_both_classifiers(place):
    tokens, model, fired = torch.tensor([[1, 5, 9]]), load_pretrained("model.pt"), []
    zero_shot, embedding = make_classifiers()
    for hooked in (model, zero_shot.llama, embedding.llama):
        hooked.register_forward_hook(lambda module, *_: fired.append(module))
    model.generate(tokens, 3)
    zero_shot(tokens)
    embedding(tokens)
    assert fired == [*[model] * 3, zero_shot.llama, embedding.llama]


# config.py, base_llama.py


def test_configuration_is_positional_keeps_further_keywords_and_prints_itself():
    values = [61, 24, 0.1, 2, 4, None, 16, 1e-4, 10, 40, "rotary", False]
    made = LlamaConfig(*values, trained_on="stories")
    assert [getattr(made, name) for name in re.findall(r"(\w+)=", CONFIG_FIELDS)] == values
    assert made.trained_on == "stories" and vars(eval(repr(made))) == vars(made)


def test_initial_weights_of_a_module():
    linear = nn.Linear(200, 200)
    Llama(LlamaConfig(**SMALL))._init_weights(linear)
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02) and not linear.bias.any()


# run_llama.py


def test_get_args_returns_the_assignments_defaults_and_takes_abbreviations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # has none of the files
    for argv, changed in ("", {}), ("--opt lora --lab n.json --use --ep 3", {
            "option": "lora", "label_names": "n.json", "use_gpu": True, "epochs": 3}):
        monkeypatch.setattr(sys, "argv", ["run_llama.py", *argv.split()])
        assert vars(run_llama.get_args()).items() >= (OPTIONS | changed).items()


def test_seed_everything():
    run_llama.seed_everything(3)
    assert random.random() == random.Random(3).random()
    assert np.random.rand() == np.random.RandomState(3).rand()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3)))
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("arguments, change, eos", [
    ({}, str, True), ({"flag": "test", "lower": True, "eos": False}, str.lower, False),
    ({"flag": "valid", "prompt_suffix": "Good?"}, lambda text: f"{text} Good?", True)])
def test_create_data(place, capsys, arguments, change, eos):
    Path("rows.txt").write_text("2 ||| A Cat \n0 ||| a café ||| Mat\n2 ||| red\n",
                                encoding="utf-8")
    expected = [(change(sentence), label, [1, *pieces(change(sentence)), *[2] * eos])
                for sentence, label in (("A Cat", 2), ("a café ||| Mat", 0), ("red", 2))]
    found = run_llama.create_data("rows.txt", Tokenizer(), **arguments)
    assert found == (expected if arguments else (expected, 2))
    assert capsys.readouterr().out == "load 3 data from rows.txt\n"


@pytest.mark.parametrize("encoded", ["with eos", "without eos", "not at all"])
@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("max_len", [None, 5])
def test_dataset_pads_on_the_right_and_decides_on_eos_itself(place, encoded, eos, max_len):
    rows = run_llama.create_data("dev.txt", Tokenizer(max_len), "valid", eos=encoded == "with eos")
    if encoded == "not at all":
        rows = [(sentence, label, []) for sentence, label, _ in rows]
    dataset = run_llama.LlamaDataset(rows, Namespace(max_sentence_len=max_len), eos=eos)
    assert len(dataset) == 7 and dataset[1] == rows[1]
    labels, sentences = map(list, zip(*read_examples("dev.txt")))
    plain = [[1, *pieces(sentence)[:max_len], *[2] * eos] for sentence in sentences]
    padded = [row + [3] * (max(map(len, plain)) - len(row)) for row in plain]  # with <0x00>
    batch = dataset.collate_fn(rows)
    assert list(batch) == ["token_ids", "labels", "sents"]
    for token_ids, found, sents in (dataset.pad_data(rows), batch.values()):
        assert token_ids.dtype == found.dtype == torch.int64
        assert (token_ids.tolist(), found.tolist(), list(sents)) == (padded, labels, sentences)


def test_model_eval_leaves_placeholders_out():
    labels, predictions, sents = [0, 1, -1, 1, 2], [0, 1, 0, 2, 2], ["a", "b", "c", "d", "e"]
    loader = [{"token_ids": torch.tensor(predictions[batch])[:, None],
               "labels": torch.tensor(labels[batch]), "sents": sents[batch]}
              for batch in (slice(0, 2), slice(2, 5))]
    model = nn.Sequential(nn.Embedding.from_pretrained(torch.eye(3)), nn.Flatten())
    accuracy, f1, *found = run_llama.model_eval(loader, model, "cpu")
    assert (accuracy, f1) == pytest.approx((3 / 4, (1 + 2 / 3 + 2 / 3) / 3))
    assert found == [predictions, labels, sents]


@pytest.mark.parametrize("option", ["generate", *KIND])
def test_each_job_as_a_function_checks_its_own_files_alone_whatever_the_option(
        place, capsys, option):
    """On what graders pass: the assignment's options and `filepath`, and none of ours."""
    def args(kind: str = "", used: Iterable[str] = (), filepath: str = "saved.pt") -> Namespace:
        right = {split: f"{split}.txt" for split in runs.SIZES} | {
            "label_names": "names.json", "dev_out": f"my-dev-{kind}-output.txt",
            "test_out": f"my-test-{kind}-output.txt"}
        wrong = {name: "x.txt" if name in outputs else "nowhere/x.txt"
                 for name, value in OPTIONS.items() if str(value).endswith((".txt", ".json"))}
        return Namespace(**OPTIONS | wrong | {name: right[name] for name in used} | {
            "option": option, "pretrained_model_path": "model.pt", "filepath": filepath,
            "epochs": 1})

    assert run_llama.train_lora is run_llama.train
    outputs, before = ["dev_out", "test_out"], contents()
    kind = "lora" if option == "lora" else "finetuning"
    for job, name, used in (
            (run_llama.test_with_prompting, "prompting", [*runs.SIZES, "label_names", *outputs]),
            (run_llama.train, "any", ["train", "dev"]),
            (run_llama.test, kind, ["dev", "test", *outputs])):
        for wrong in used:
            with pytest.raises((InputError, FileNotFoundError), match="x.txt"):
                job(args(name, {*used} - {wrong}))
        given = args(name, used)
        job(given)
        assert given == args(name, used)
    with pytest.raises(InputError, match="model.pt: not a trained classifier"):
        run_llama.test(args(kind, used, filepath="model.pt"))
    wide = SHAPE | {"dim": 48}
    reference.save_checkpoint("wide.pt", reference.seeded_weights(wide, 0), wide)
    with pytest.raises(InputError, match="trained from another checkpoint than wide.pt"):
        run_llama.test(Namespace(**vars(given) | {"pretrained_model_path": "wide.pt"}))
    run_llama.generate_sentence(args(), "a cat", "story.txt", 3, 2.0)
    with pytest.raises(InputError, match="nowhere/x.txt"):
        run_llama.generate_sentence(args(), "a cat", "nowhere/x.txt")
    lines = capsys.readouterr().out.splitlines()
    assert [lines.count(line) for line in (
        "load model from model.pt", "save the model to saved.pt", "load model from saved.pt",
        "Temperature is 2.0")] == [3, 1, 2, 1]  # nothing is loaded where something is refused
    predictions = {f"my-{split}-{name}-output.txt"
                   for split in ("dev", "test") for name in ("prompting", kind)}
    assert contents().keys() - before.keys() == predictions | {
        "saved.pt", "story.txt", "wide.pt"}
    saved = torch.load("saved.pt", weights_only=True)
    assert saved["args"].items() >= {"seed": 1337, "train": "train.txt"}.items()
    model = LlamaEmbeddingClassifier(Namespace(**saved["model_config"]))
    model.load_state_dict(saved["model"])  # LoRA is merged


# Five files moved out, or in

# What the course's support files offer our five.
COURSE_FILES = {
    "config.py": f"""
class LlamaConfig:
    def __init__(self, {CONFIG_FIELDS}, **kwargs):
        vars(self).update(locals() | kwargs)
""",
    "base_llama.py": """
from torch import nn

class LlamaPreTrainedModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.vocab_size, self.n_layers = config, config.vocab_size, config.n_layers

    def init_weights(self):
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
""",
    "tokenizer.py": "class Tokenizer: ...",
}


def test_our_five_files_do_the_assignment_among_the_courses_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "tests/assignment", "assignment")
    for name in FIVE:
        shutil.copy(ROOT / f"{name}.py", ".")
    for name, text in COURSE_FILES.items():
        Path(name).write_text(text, encoding="utf-8")
    python("-m", "pytest", "-c", os.devnull, "--rootdir", ".", "assignment")


def test_others_five_files_give_the_same_results_under_our_programs(place):
    before, ids = contents(), torch.tensor([[1, 40, 50, 60], [1, 7, 8, 3]])
    for option in ("generate", *KIND):
        assert run_llama.main(command(option)) == 0
    expected = contents()
    runs.reset(before)
    logits, hidden = (torch.tensor(x).float() for x in reference.forward(WEIGHTS, SHAPE, ids))
    torch.save({"token_ids": ids, "logits": logits[:, -1:], "hidden_states": hidden},
               "sanity_check.data")
    for name in (*SIX, *FIVE):
        folder = ROOT / "benchmarks/textbook" if name in FIVE else ROOT
        shutil.copy(folder / f"{name}.py", ".")
    for option in ("generate", *KIND):
        python("run_llama.py", *command(option))
    printed = python("sanity_check.py", "model.pt")
    assert "Your Llama implementation is correct!" in printed.splitlines()
    assert contents().keys() >= expected.keys()
    # Rounding differs, which training and sampling could amplify.
    for path in (runs.STORIES[0], "my-dev-prompting-output.txt", "my-test-prompting-output.txt"):
        assert contents()[path] == expected[path]
