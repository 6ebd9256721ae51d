"""The assignment's public face: the names, signatures and results that other programs rely on.

Students know these names from the course, graders' scripts import them, and both combine our files
with the course's own. A failure here means that somebody else's program breaks. What the modules
compute is for the tests named after them; here, results are looked at where programs exchange them.
"""

import ast
import functools
import importlib
import inspect
import math
import os
import random
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import base_llama
import classifier
import config
import llama
import lora
import reference
import run_llama
import runs
import tokenizer
from assignment.judge import FIVE
from conftest import ROOT, SMALL
from runs import KIND, NAMES, SHAPE, SIZES, WEIGHTS, command
from utils import read_examples

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

ATTRIBUTES = {
    "LayerNorm": "eps weight bias",
    "Attention": "n_kv_heads n_local_heads n_local_kv_heads n_rep head_dim max_seq_len dropout "
                 "compute_query compute_key compute_value compute_output attn_dropout "
                 "resid_dropout",
    "FeedForward": "w1 w2 w3 dropout",
    "LlamaLayer": "n_heads dim head_dim attention feed_forward layer_id attention_norm ffn_norm",
    "Llama": "params config vocab_size n_layers tok_embeddings dropout layers norm output",
    "LoRALayer": "original_layer rank alpha scaling lora_A lora_B",
    "LlamaZeroShotClassifier": "num_labels llama tokenizer label_name_ids",
    "LlamaEmbeddingClassifier": "num_labels llama dropout classifier_head",
    "Tokenizer": "sp_model model_path max_len n_words bos_id eos_id pad_id",
}

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
QUESTION = "Is this movie red or so big? This movie is "

close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def assignment_args(option: str) -> Namespace:
    """What graders pass: the assignment's options and `filepath`, and none of ours."""
    files = {split: f"{split}.txt" for split in SIZES} | {
        f"{split}_out": f"{split}-{KIND.get(option)}-output.txt" for split in ("dev", "test")}
    return Namespace(**OPTIONS | files | {
        "label_names": "names.json", "pretrained_model_path": "model.pt", "filepath": "saved.pt",
        "option": option, "epochs": 1, "lr": 0.01})


def pieces(text: str | list[str]) -> list:
    """Token ids of a text, straight from SentencePiece."""
    return sentencepiece.SentencePieceProcessor(model_file="tokenizer.model").encode(text)


def make_models() -> tuple[nn.Module, nn.Module, nn.Module]:
    """A Llama, and the two classifiers around another one."""
    settings = Namespace(num_labels=2, pretrained_model_path="model.pt", option="finetune",
                         hidden_dropout_prob=0.3)
    return (llama.load_pretrained("model.pt"),
            classifier.LlamaZeroShotClassifier(settings, tokenizer.Tokenizer(), NAMES),
            classifier.LlamaEmbeddingClassifier(settings).eval())


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


def test_attributes_and_their_values(place):
    _, zero_shot, embedding = make_models()
    settings = config.LlamaConfig(**SMALL, dropout=0.25)
    model, words = llama.Llama(settings), tokenizer.Tokenizer(4)
    layer = model.layers[1]
    made = [model, layer, layer.attention, layer.feed_forward, layer.ffn_norm, words, zero_shot,
            embedding, lora.LoRALayer(nn.Linear(3, 2))]
    assert {type(each).__name__ for each in made} == ATTRIBUTES.keys()
    assert not [(each, name) for each in made for name in ATTRIBUTES[type(each).__name__].split()
                if not hasattr(each, name)]
    assert model.params is model.config is settings
    assert base_llama.LlamaConfig is config.LlamaConfig is model.config_class
    assert (config.LlamaConfig.model_type, model.base_model_prefix) == ("llama", "llama")
    assert (model.vocab_size, model.n_layers) == (61, 2)
    assert (layer.layer_id, layer.n_heads, layer.dim, layer.head_dim) == (1, 4, 24, 6)
    assert vars(layer.attention).items() >= {
        "n_kv_heads": 2, "n_local_heads": 4, "n_local_kv_heads": 2, "n_rep": 2, "head_dim": 6,
        "max_seq_len": 16, "dropout": 0.25}.items()
    assert [list(ids) for ids in zero_shot.label_name_ids] == pieces(NAMES)
    assert zero_shot.num_labels == embedding.num_labels == 2
    assert (words.model_path, words.max_len) == (tokenizer.TOKENIZER_MODEL, 4)
    assert tokenizer.TOKENIZER_MODEL == "tokenizer.model"


@torch.no_grad()
def test_everything_goes_through_forward(place):
    """A forward hook that changes the output changes what is generated and how texts score."""
    tokens, (model, zero_shot, embedding) = torch.tensor([[1, 5, 9], [1, 60, 3]]), make_models()
    for hooked in (model, zero_shot.llama, embedding.llama):
        hooked.register_forward_hook(
            lambda module, inputs, outputs: tuple(map(torch.zeros_like, outputs)))
    assert not model.generate(tokens, 3, temperature=0.0)[:, 3:].any()
    close(zero_shot(tokens), [[-math.log(290) * len(ids) for ids in pieces(NAMES)]] * 2)
    close(embedding(tokens), F.log_softmax(embedding.classifier_head.bias, -1).expand(2, 2))


@pytest.mark.parametrize("module", [*FIVE, *SIX])
def test_imports(module):
    """Five files get moved out, others' put in their place; all need the same five packages."""
    allowed = {*sys.stdlib_module_names, "torch", "numpy", "sentencepiece", "tqdm", "sklearn"}
    if module in FIVE:
        allowed.update(FIVE, ["config.LlamaConfig", "base_llama.LlamaPreTrainedModel",
                              "tokenizer.Tokenizer"])
    else:  # of the five, only names of the table above
        allowed.update(SIX, (owner for owner, _ in SIGNATURES if "." in owner), (
            f"{owner}.{function.partition('(')[0]}" for owner, function in SIGNATURES))
    imported = set()
    for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
    assert not {name for name in imported if not {name, name.partition(".")[0]} & allowed}


# config.py, base_llama.py


def test_configuration_is_positional_keeps_further_keywords_and_prints_itself():
    values = [61, 24, 0.1, 2, 4, None, 16, 1e-4, 10, 40, "rotary", False]
    made = config.LlamaConfig(*values, trained_on="stories")
    assert [getattr(made, name) for name in re.findall(r"(\w+)=", CONFIG_FIELDS)] == values
    assert made.trained_on == "stories"
    assert llama.Attention(made).n_kv_heads == 4  # None means n_heads
    assert vars(eval(repr(made), {"LlamaConfig": config.LlamaConfig})) == vars(made)


def test_weights_are_drawn_anew_and_smaller_where_a_layer_adds_to_its_input():
    model = llama.Llama(config.LlamaConfig(200, 96, n_layers=2, n_heads=4, n_kv_heads=4)).double()
    assert model.dtype == torch.float64
    for weight in model.parameters():
        nn.init.ones_(weight)
    torch.manual_seed(0)
    model.init_weights()
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            small = name.endswith(("w3.weight", "compute_output.weight"))
            assert weight.std().item() == pytest.approx(0.01 if small else 0.02, rel=0.05)
    linear = nn.Linear(200, 200)
    model._init_weights(linear)
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
    ({}, str, True), ({"flag": "test"}, str, True),
    ({"flag": "valid", "lower": True, "eos": False}, str.lower, False),
    ({"flag": "valid", "prompt_suffix": QUESTION}, lambda text: f"{text} {QUESTION}", True)])
def test_create_data(place, capsys, arguments, change, eos):
    Path("rows.txt").write_text("2 ||| A Cat \n0 ||| a café ||| Mat\n2 ||| red\n",
                                encoding="utf-8")
    expected = [(change(sentence), label, [1, *pieces(change(sentence)), *[2] * eos])
                for sentence, label in (("A Cat", 2), ("a café ||| Mat", 0), ("red", 2))]
    found = run_llama.create_data("rows.txt", tokenizer.Tokenizer(), **arguments)
    assert found == (expected if arguments else (expected, 2))
    assert capsys.readouterr().out == "load 3 data from rows.txt\n"


@pytest.mark.parametrize("encoded", ["with eos", "without eos", "not at all"])
@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("max_len", [None, 5])
def test_dataset_pads_on_the_right_and_decides_on_eos_itself(place, encoded, eos, max_len):
    rows = run_llama.create_data(
        "dev.txt", tokenizer.Tokenizer(max_len), "valid", eos=encoded == "with eos")
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


def test_model_eval_leaves_placeholders_out(place):
    labels, predictions = [0, 1, -1, 1, 2], [0, 1, 0, 2, 2]
    rows = [(f"cat {i}", label, [predictions[i], 1]) for i, label in enumerate(labels)]
    dataset = run_llama.LlamaDataset(rows, assignment_args("finetune"))
    loader = DataLoader(dataset, batch_size=2, collate_fn=dataset.collate_fn)
    model = nn.Embedding.from_pretrained(torch.eye(3))
    model.register_forward_hook(lambda module, inputs, rows: rows[:, 0])
    accuracy, f1, found, given, sents = run_llama.model_eval(loader, model, "cpu")
    assert accuracy == pytest.approx(3 / 4)
    assert f1 == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert (list(found), list(given)) == (predictions, labels)
    assert list(sents) == [sentence for sentence, _, _ in rows]


@pytest.mark.parametrize("option", KIND)
def test_jobs_run_on_the_options_of_the_assignment_and_print_lines_to_search_logs_for(
        place, capsys, option):
    assert run_llama.train_lora is run_llama.train
    args, wanted = assignment_args(option), ["load model from model.pt"]
    if option == "prompt":
        run_llama.test_with_prompting(args)
    else:
        run_llama.train(args)
        saved = torch.load("saved.pt", weights_only=True)
        assert type(saved["args"]) is type(saved["model_config"]) is dict
        assert saved["args"].items() >= vars(args).items()
        model = classifier.LlamaEmbeddingClassifier(Namespace(**saved["model_config"]))
        model.load_state_dict(saved["model"])  # LoRA is merged
        run_llama.test(args)
        wanted += ["save the model to saved.pt", "load model from saved.pt",
                   f"{'LoRA ' if option == 'lora' else ''}epoch 0: train loss :: N, "
                   "train acc :: N, dev acc :: N.*"]
    printed = capsys.readouterr().out
    for line in [*wanted, "dev acc :: N", "test acc :: N"]:
        pattern = line.replace("N", r"\d+\.\d{3}")
        assert len(re.findall(f"^{pattern}$", printed, re.M)) == 1, line
    assert os.path.exists(args.dev_out) and os.path.exists(args.test_out)


def test_a_run_prints_its_options_and_the_stories_that_it_writes(place, capsys):
    assert run_llama.main(command("generate")) == 0
    run_llama.generate_sentence(assignment_args("generate"), "one day", "2.txt", 3, 2.0)
    printed = capsys.readouterr().out
    first = eval(printed.partition("\n")[0].removeprefix("args: "))
    assert first.items() >= {"option": "generate", "seed": 1337}.items()
    assert printed.count("\nload model from model.pt\n") == 2
    for temperature, path in enumerate([*runs.STORIES, "2.txt"]):
        story = re.escape(Path(path).read_bytes().decode("utf-8"))
        assert re.search(f"\nTemperature is {temperature}.0\n{story}\n---+\n"
                         f"Wrote generated sentence to {path}.\n", printed)


# Five files moved out, or in; our support files under the course's programs

# What the course's support files offer our five, without their dead code and their utils.py.
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
        self.config = config
        self.vocab_size = config.vocab_size
        self.n_layers = config.n_layers

    def init_weights(self):
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(mean=0.0, std=0.02)
""",
    "tokenizer.py": """
from sentencepiece import SentencePieceProcessor

class Tokenizer:
    def __init__(self, max_len=None):
        self.sp_model = SentencePieceProcessor(model_file="tokenizer.model")
        self.bos_id = self.sp_model.bos_id()

    def encode(self, s, bos, eos):
        return [self.bos_id] * bos + self.sp_model.encode(s)
""",
}

# How the course's sanity_check.py and run_llama.py use the modules, with results in a file.
COURSE_PROGRAM = """
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from llama import load_pretrained
from lora import apply_lora, get_lora_optimizer_params, merge_lora_weights
from optimizer import AdamW
from tokenizer import Tokenizer

config = SimpleNamespace(pretrained_model_path="model.pt", num_labels=2, hidden_dropout_prob=0.0)
sanity_data = torch.load("./sanity_check.data")
ids, tokenizer = sanity_data["token_ids"], Tokenizer(5)
llama = load_pretrained(config.pretrained_model_path)
with torch.no_grad():
    logits, hidden_states = llama(ids)
    assert torch.allclose(logits, sanity_data["logits"], atol=1e-5, rtol=1e-3)
    assert torch.allclose(hidden_states, sanity_data["hidden_states"], atol=1e-5, rtol=1e-3)
    prefix = torch.tensor(tokenizer.encode("one day", bos=True, eos=False))[None]
    results = {"story": llama.generate(prefix, 4, temperature=0.0)}
    results["scores"] = LlamaZeroShotClassifier(config, tokenizer, ["red", "so big"]).eval()(ids)

for config.option in ("finetune", "lora"):
    model = LlamaEmbeddingClassifier(config)
    params, new = list(model.parameters()), list(model.classifier_head.parameters())
    if config.option == "lora":
        model.llama = apply_lora(model.llama, rank=2, alpha=4.0)
        params = new = get_lora_optimizer_params(model) + new
    for param in new:
        param.data = torch.linspace(-0.5, 0.5, param.numel()).view_as(param)
    optimizer = AdamW(params, lr=1e-2, eps=1e-10)  # small: there are two readings of it
    optimizer.zero_grad()
    F.nll_loss(model.train()(ids), torch.tensor([1, 0, 1]), reduction="sum").backward()
    optimizer.step()
    results[config.option] = model.eval()(ids).detach()
    if config.option == "lora":
        model.llama = merge_lora_weights(model.llama)
    torch.save({"model": model.state_dict(), "optim": optimizer.state_dict(),
                "model_config": config}, "saved.pt")
    saved = torch.load("saved.pt", weights_only=False)
    model = LlamaEmbeddingClassifier(saved["model_config"])
    model.load_state_dict(saved["model"])
    assert torch.allclose(model.eval()(ids), results[config.option], atol=1e-5)
torch.save(results, "results.pt")
"""

# All four jobs and the sanity check.
OUR_PROGRAMS = f"""
import runpy, sys
for sys.argv in {[*(["run_llama.py", *command(option)] for option in ("generate", *KIND)),
                  ["sanity_check.py", "model.pt"]]}:
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        print("status", end.code)
"""


def test_our_files_work_among_others_and_others_among_ours(place, monkeypatch):
    """With the same results: our five among the course's files, and ours or others among ours."""
    ids = torch.tensor([[1, 40, 50, 60], [1, 7, 8, 3], [1, 70, 3, 3]])
    logits, hidden = (torch.tensor(result).float()
                      for result in reference.forward(WEIGHTS, SHAPE, ids))
    torch.save({"token_ids": ids, "logits": logits[:, -1:], "hidden_states": hidden},
               "sanity_check.data")
    computed, written = [], []
    for five, course in ((ROOT, True), (ROOT, False), (ROOT / "tests/solutions", False)):
        monkeypatch.chdir(shutil.copytree(place, place.parent / f"{five.name} {course}"))
        for name in FIVE if course else (*SIX, *FIVE):
            shutil.copy((five if name in FIVE else ROOT) / f"{name}.py", ".")
        for name, text in COURSE_FILES.items() if course else ():
            Path(name).write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", COURSE_PROGRAM + ("" if course else OUR_PROGRAMS)],
            env=os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1",
                              "PYTHONWARNINGS": "ignore"},  # PyTorch 2.1 warns about its own code
            capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        computed.append(torch.load("results.pt"))
        if not course:
            assert done.stdout.count("\nstatus 0\n") == 5
            assert "\nYour Llama implementation is correct!\n" in done.stdout
            written.append(runs.contents())
    for name, expected in computed[2].items():
        for found in computed[:2]:
            close(found[name], expected, err_msg=name)
    assert written[0].keys() == written[1].keys() > {
        *runs.STORIES, "finetune-1-0.01.pt", "lora-1-0.01.pt",
        *(f"my-{split}-{kind}-output.txt" for kind in KIND.values() for split in ("dev", "test"))}
    # Rounding differs, which training and sampling could amplify.
    for path in (runs.STORIES[0], "my-dev-prompting-output.txt", "my-test-prompting-output.txt"):
        assert written[0][path] == written[1][path]
