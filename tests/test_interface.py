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
from types import SimpleNamespace

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
from conftest import ROOT, SMALL
from runs import KIND, NAMES, SHAPE, SIZES, WEIGHTS, command, labels_in
from utils import read_examples

FIVE = ["llama", "classifier", "rope", "lora", "optimizer"]
SIX = ["run_llama", "base_llama", "config", "tokenizer", "utils", "sanity_check"]

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
classifier.LlamaEmbeddingClassifier: __init__(config)
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
SENTENCES = ["one red cat", "the little ball sat in the park", "a mat"]

close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def assignment_args(kind: str, **changes) -> Namespace:
    """What graders pass: the assignment's options and `filepath`, and none of ours."""
    files = {split: f"{split}.txt" for split in SIZES}
    files |= {f"{split}_out": f"{split}-{KIND[kind]}-output.txt" for split in ("dev", "test")}
    files |= {"label_names": "names.json", "pretrained_model_path": "model.pt",
              "filepath": f"{kind}-2-0.01.pt"}
    return Namespace(**OPTIONS | files | {"option": kind, "epochs": 2, "lr": 0.01} | changes)


def pieces(text: str | list[str]) -> list:
    """Token ids of a text, straight from SentencePiece."""
    return sentencepiece.SentencePieceProcessor(model_file="tokenizer.model").encode(text)


def padded(sentences: list[str], max_len: int | None = None, eos: bool = False) -> list[list[int]]:
    """The rows of a batch; <s> is token 1, </s> token 2 and <0x00> token 3."""
    rows = [[1, *pieces(s)[:max_len], *[2] * eos] for s in sentences]
    return [row + [3] * (max(map(len, rows)) - len(row)) for row in rows]


def zero_shot_classifier() -> classifier.LlamaZeroShotClassifier:
    settings = SimpleNamespace(num_labels=2, pretrained_model_path="model.pt")
    return classifier.LlamaZeroShotClassifier(settings, tokenizer.Tokenizer(), NAMES)


def embedding_classifier() -> classifier.LlamaEmbeddingClassifier:
    return classifier.LlamaEmbeddingClassifier(SimpleNamespace(
        num_labels=2, pretrained_model_path="model.pt", hidden_dropout_prob=0.3, option="finetune"))


def head_scores(state: dict[str, torch.Tensor], tokens: list[list[int]]) -> np.ndarray:
    """Log-probabilities of an embedding classifier, given its state dict, in float64."""
    state = {name.removeprefix("llama."): w.double().numpy() for name, w in state.items()}
    _, hidden = reference.forward(state, SHAPE, tokens)
    head = [state[f"classifier_head.{name}"] for name in ("weight", "bias")]
    return np.log(reference.softmax(hidden[:, -1] @ head[0].T + head[1]))


# Names, signatures, attributes and imports


@pytest.mark.parametrize("owner, function", SIGNATURES, ids=lambda text: text.partition("(")[0])
def test_signature(owner, function):
    module, *path = owner.split(".")
    name, _, parameters = function.partition("(")
    found = functools.reduce(getattr, [*path, name], importlib.import_module(module))
    found = [p for p in inspect.signature(found).parameters.values() if p.name != "self"]
    wanted = eval(f"lambda {parameters[:-1]}: None")
    wanted = list(inspect.signature(wanted).parameters.values())
    ours, further = found[:len(wanted)], found[len(wanted):]
    assert [(p.name, p.kind) for p in ours] == [(p.name, p.kind) for p in wanted]
    assert all(p.default in (p.empty, own.default) for own, p in zip(ours, wanted, strict=True))
    assert all(p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in further)


def test_attributes_and_their_values(place):
    settings = config.LlamaConfig(**SMALL, dropout=0.25)
    model, words = llama.Llama(settings), tokenizer.Tokenizer(4)
    layer, zero_shot, embedding = model.layers[1], zero_shot_classifier(), embedding_classifier()
    made = [model, layer, layer.attention, layer.feed_forward, layer.ffn_norm, words, zero_shot,
            embedding, lora.LoRALayer(nn.Linear(3, 2))]
    assert {type(each).__name__ for each in made} == ATTRIBUTES.keys()
    assert not [(each, name) for each in made for name in ATTRIBUTES[type(each).__name__].split()
                if not hasattr(each, name)]
    assert model.params is model.config is settings
    assert (model.vocab_size, model.n_layers) == (61, 2)
    assert (layer.layer_id, layer.n_heads, layer.dim, layer.head_dim) == (1, 4, 24, 6)
    assert vars(layer.attention).items() >= {
        "n_kv_heads": 2, "n_local_heads": 4, "n_local_kv_heads": 2, "n_rep": 2, "head_dim": 6,
        "max_seq_len": 16, "dropout": 0.25}.items()
    assert zero_shot.num_labels == embedding.num_labels == 2
    assert [list(ids) for ids in zero_shot.label_name_ids] == pieces(NAMES)
    assert words.model_path == tokenizer.TOKENIZER_MODEL == "tokenizer.model"
    assert words.max_len == 4


@torch.no_grad()
def test_everything_goes_through_forward(place):
    """A forward hook that changes the output changes what is generated and how texts score."""
    def favour_token_7(module, inputs, output):
        logits, hidden = output
        return 9.0 * F.one_hot(torch.full(logits.shape[:2], 7), 290), torch.zeros_like(hidden)

    tokens = torch.tensor(padded(["a cat", "red mat"]))
    model, zero_shot = llama.load_pretrained("model.pt"), zero_shot_classifier()
    embedding = embedding_classifier().eval()
    for hooked in (model, zero_shot.llama, embedding.llama):
        hooked.register_forward_hook(favour_token_7)
    assert (model.generate(tokens, 3, temperature=0.0)[:, -3:] == 7).all()
    each = -math.log(math.exp(9) + 289)
    close(zero_shot(tokens), [[each * len(pieces(name)) for name in NAMES]] * 2)
    close(embedding(tokens), F.log_softmax(embedding.classifier_head.bias, -1).expand(2, 2))


@pytest.mark.parametrize("module", FIVE + SIX)
def test_imports(module):
    """Five files get moved out, others' put in their place; all need the same five packages."""
    allowed = {*sys.stdlib_module_names, "torch", "numpy", "sentencepiece", "tqdm", "sklearn"}
    if module in FIVE:
        allowed.update(FIVE, ["config.LlamaConfig", "base_llama.LlamaPreTrainedModel",
                              "tokenizer.Tokenizer"])
    else:  # of the five, only names of the table above
        listed = [f"{owner}.{function.partition('(')[0]}" for owner, function in SIGNATURES]
        allowed.update(SIX, [name for name in listed if name.count(".") == 1])
        allowed.update(owner for owner, _ in SIGNATURES if "." in owner)
    imported = set()
    for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
    assert not {name for name in imported if not {name, name.partition(".")[0]} & allowed}


# config.py, base_llama.py, llama.py


def test_configuration_is_positional_keeps_further_keywords_and_prints_itself():
    values = [61, 24, 0.1, 2, 4, None, 16, 1e-4, 10, 40, "rotary", False]
    made = config.LlamaConfig(*values, trained_on="stories")
    assert [getattr(made, name) for name in re.findall(r"(\w+)=", CONFIG_FIELDS)] == values
    assert (made.trained_on, config.LlamaConfig.model_type) == ("stories", "llama")
    assert llama.Attention(made).n_kv_heads == 4  # None means n_heads
    assert vars(eval(repr(made), {"LlamaConfig": config.LlamaConfig})) == vars(made)


def test_weights_are_drawn_anew_and_smaller_where_a_layer_adds_to_its_input():
    model = llama.Llama(config.LlamaConfig(200, 96, n_layers=2, n_heads=4, n_kv_heads=4))
    assert base_llama.LlamaConfig is config.LlamaConfig is model.config_class
    assert (model.base_model_prefix, model.dtype) == ("llama", torch.float32)
    assert model.double().dtype == torch.float64
    torch.manual_seed(0)
    for weight in model.parameters():
        nn.init.ones_(weight)
    model.init_weights()
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            small = name.endswith(("w3.weight", "compute_output.weight"))
            assert weight.std().item() == pytest.approx(0.01 if small else 0.02, rel=0.05)
    linear = nn.Linear(200, 200)
    model._init_weights(linear)
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02) and not linear.bias.any()


def test_a_checkpoint_that_cannot_be_read_or_used_is_an_error_of_one_line(place):
    with pytest.raises(OSError) as error:
        llama.load_pretrained("missing.pt")
    assert error.value.filename == "missing.pt"
    with pytest.raises(ValueError, match="^tokenizer.model: .*$"):
        llama.load_pretrained("tokenizer.model")


# run_llama.py


@pytest.mark.parametrize("where", ["empty folder", "repository"])
def test_get_args_returns_the_assignments_defaults_and_takes_abbreviations(
        tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path if where == "empty folder" else ROOT)
    monkeypatch.setattr(sys, "argv", ["run_llama.py"])
    assert vars(run_llama.get_args()).items() >= OPTIONS.items()
    monkeypatch.setattr(sys, "argv", "run_llama.py --opt lora --lab n.json --use --ep 3".split())
    changed = {"option": "lora", "label_names": "n.json", "use_gpu": True, "epochs": 3}
    assert vars(run_llama.get_args()).items() >= (OPTIONS | changed).items()


@pytest.mark.parametrize("arguments, seed", [([], 11711), ([3], 3)])
def test_seed_everything(arguments, seed):
    run_llama.seed_everything(*arguments)
    assert random.random() == random.Random(seed).random()
    assert np.random.rand() == np.random.RandomState(seed).rand()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(seed)))
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark


def test_create_data(place, capsys):
    Path("rows.txt").write_text("2 ||| A Cat \n0 ||| a café ||| Mat\n2 ||| red\n",
                                encoding="utf-8")
    words = tokenizer.Tokenizer()

    def rows(*sentences, eos=True):
        return [(s, label, [1, *pieces(s), *[2] * eos])
                for s, label in zip(sentences, (2, 0, 2), strict=True)]

    plain = rows("A Cat", "a café ||| Mat", "red")
    assert run_llama.create_data("rows.txt", words) == (plain, 2)
    assert capsys.readouterr().out.splitlines() == ["load 3 data from rows.txt"]
    assert run_llama.create_data("rows.txt", words, "test") == plain
    assert run_llama.create_data("rows.txt", words, "valid", True, False) == rows(
        "a cat", "a café ||| mat", "red", eos=False)
    assert run_llama.create_data("rows.txt", words, "valid", prompt_suffix=QUESTION) == rows(
        f"A Cat {QUESTION}", f"a café ||| Mat {QUESTION}", f"red {QUESTION}")


@pytest.mark.parametrize("encoded", ["with eos", "without eos", "not at all"])
@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("max_len", [None, 5])
def test_dataset_pads_on_the_right_and_decides_on_eos_itself(place, encoded, eos, max_len):
    args = assignment_args("finetune", max_sentence_len=max_len)
    rows = run_llama.create_data(
        "dev.txt", tokenizer.Tokenizer(max_len), "valid", eos=encoded == "with eos")
    if encoded == "not at all":
        rows = [(sentence, label, []) for sentence, label, _ in rows]
    dataset = run_llama.LlamaDataset(rows, args, eos=eos)
    labels, sentences = map(list, zip(*read_examples("dev.txt")))
    assert len(dataset) == 7 and dataset[1] == rows[1]
    batch = dataset.collate_fn(rows)
    assert list(batch) == ["token_ids", "labels", "sents"]
    for token_ids, found_labels, sents in (dataset.pad_data(rows), batch.values()):
        assert token_ids.dtype == found_labels.dtype == torch.int64
        assert token_ids.tolist() == padded(sentences, max_len, eos)
        assert (found_labels.tolist(), list(sents)) == (labels, sentences)


def test_model_eval_leaves_placeholders_out(place):
    labels, predictions = [0, 1, -1, 1, 2], [0, 1, 0, 2, 2]
    scripted = iter(predictions)

    class Scripted(nn.Module):
        def forward(self, token_ids):
            return F.one_hot(torch.tensor([next(scripted) for _ in token_ids]), 3).float()

    rows = [(f"cat {i}", label, [1, *pieces(f"cat {i}")]) for i, label in enumerate(labels)]
    dataset = run_llama.LlamaDataset(rows, assignment_args("finetune"))
    loader = DataLoader(dataset, batch_size=2, collate_fn=dataset.collate_fn)
    accuracy, f1, found, given, sents = run_llama.model_eval(loader, Scripted(), "cpu")
    assert accuracy == pytest.approx(3 / 4)
    assert f1 == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert (list(found), list(given)) == (predictions, labels)
    assert list(sents) == [sentence for sentence, _, _ in rows]


N = r"\d+\.\d{3}"
EPOCH = f"epoch 0: train loss :: {N}, train acc :: {N}, dev acc :: {N}.*"
LINES = {"generate": [], "prompt": [], "finetune": [EPOCH, "save the model to finetune-1-0.01.pt"],
         "lora": [f"LoRA {EPOCH}", "save the model to lora-1-0.01.pt"]}


@pytest.mark.parametrize("option", LINES)
def test_a_run_prints_the_lines_that_people_search_logs_for(place, capsys, option):
    assert run_llama.main(command(option)) == 0
    text = capsys.readouterr().out
    first, *printed = text.splitlines()
    assert eval(first.removeprefix("args: ")).items() >= {"option": option, "seed": 1337}.items()
    wanted = ["load model from model.pt", *LINES[option]]
    for split, size in SIZES.items() if option in KIND else ():
        wanted.append(f"load {size} data from {split}.txt")
        if split != "train":
            predicted = labels_in(f"my-{split}-{KIND[option]}-output.txt")
            accuracy = np.mean(np.equal(predicted, labels_in(f"{split}.txt")))
            wanted.append(f"{split} acc :: {accuracy:.3f}")
    for line in wanted:
        assert sum(bool(re.fullmatch(line, each)) for each in printed) == 1, line
    for temperature, path in enumerate(runs.STORIES if option == "generate" else ()):
        story = re.escape(Path(path).read_bytes().decode("utf-8"))
        assert re.search(f"\nTemperature is {temperature}.0\n{story}\n---+\n"
                         f"Wrote generated sentence to {path}.\n", text)


@pytest.mark.parametrize("option", LINES)
def test_jobs_run_on_the_options_of_the_assignment_alone(place, option):
    assert run_llama.train_lora is run_llama.train
    args = assignment_args(option) if option in KIND else Namespace(
        **OPTIONS | {"pretrained_model_path": "model.pt"})
    if option == "generate":
        run_llama.generate_sentence(args, "one day", "story.txt", 3)
    elif option == "prompt":
        run_llama.test_with_prompting(args)
    else:
        run_llama.train(args)
        saved = torch.load(args.filepath, weights_only=True)
        assert type(saved["args"]) is type(saved["model_config"]) is dict
        assert saved["args"].items() >= vars(args).items()
        model = classifier.LlamaEmbeddingClassifier(SimpleNamespace(**saved["model_config"]))
        model.load_state_dict(saved["model"])  # LoRA is merged
        run_llama.test(args)
    outputs = ["story.txt"] if option == "generate" else [args.dev_out, args.test_out]
    assert all(map(os.path.exists, outputs))


# Five files moved out, or in; our support files under the course's programs

# What the course's support files offer our five, without their dead code and their utils.py.
COURSE_FILES = {
    "config.py": f"""
class LlamaConfig:
    def __init__(self, {CONFIG_FIELDS}, **kwargs):
        fields = dict(locals())
        del fields["self"], fields["kwargs"]
        vars(self).update(fields, **kwargs)
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
        self.max_len = max_len
        self.bos_id = self.sp_model.bos_id()
        self.pad_id = self.sp_model.piece_to_id("<0x00>")

    def encode(self, s, bos, eos):
        return [self.bos_id] * bos + self.sp_model.encode(s)[:self.max_len]
""",
}

# How the course's sanity_check.py and run_llama.py use the modules, with results in a file.
COURSE_PROGRAM = f"SENTENCES = {SENTENCES}" + """
from argparse import Namespace
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from config import LlamaConfig
from llama import Llama, load_pretrained
from lora import apply_lora, get_lora_optimizer_params, merge_lora_weights
from optimizer import AdamW
from tokenizer import Tokenizer

args = Namespace(pretrained_model_path="model.pt", lora_rank=2, lora_alpha=4.0, lr=1e-2)
tokenizer = Tokenizer(5)
encoding = [tokenizer.encode(sentence, bos=True, eos=False) for sentence in SENTENCES]
longest = max(len(ids) for ids in encoding)
ids = torch.LongTensor([ids + [tokenizer.pad_id] * (longest - len(ids)) for ids in encoding])
results = {"ids": ids}

with torch.no_grad():
    sanity_data = torch.load("./sanity_check.data")
    llama = load_pretrained(args.pretrained_model_path)
    logits, hidden_states = llama(ids)
    assert torch.allclose(logits, sanity_data["logits"], atol=1e-5, rtol=1e-3)
    assert torch.allclose(hidden_states, sanity_data["hidden_states"], atol=1e-5, rtol=1e-3)
    prefix = torch.tensor(tokenizer.encode("one day", bos=True, eos=False))[None]
    results["story"] = llama.generate(prefix, 4, temperature=0.0)
    config = SimpleNamespace(pretrained_model_path=args.pretrained_model_path, num_labels=2)
    results["scores"] = LlamaZeroShotClassifier(config, tokenizer, ["red", "so big"]).eval()(ids)
    fresh = Llama(LlamaConfig(vocab_size=9, dim=8, n_layers=1, n_heads=2, n_kv_heads=None))
    assert fresh(ids % 9)[0].shape == (3, 1, 9)

for option in ("finetune", "lora"):
    config = SimpleNamespace(hidden_dropout_prob=0.0, num_labels=2, data_dir=".", option=option,
                             pretrained_model_path=args.pretrained_model_path)
    model = LlamaEmbeddingClassifier(config)
    start = {name: w.clone() for name, w in model.state_dict().items()}
    params = model.parameters()
    if option == "lora":
        model.llama = apply_lora(model.llama, rank=args.lora_rank, alpha=args.lora_alpha)
        params = get_lora_optimizer_params(model) + list(model.classifier_head.parameters())
        assert len({id(param) for param in params}) == len(params)  # none is stepped twice
    optimizer = AdamW(params, lr=args.lr)
    model.train()
    optimizer.zero_grad()
    before = model(ids)
    F.nll_loss(before, torch.tensor([1, 0, 1]), reduction="sum").backward()
    optimizer.step()
    after = model.eval()(ids).detach()
    if option == "lora":
        model.llama = merge_lora_weights(model.llama)
    torch.save({"model": model.state_dict(), "optim": optimizer.state_dict(), "args": args,
                "model_config": config}, "saved.pt")
    saved = torch.load("saved.pt", weights_only=False)
    model = LlamaEmbeddingClassifier(saved["model_config"])
    model.load_state_dict(saved["model"])
    results[option] = start, before.detach(), after, model.state_dict()
torch.save(results, "results.pt")
"""


def write_sanity_check() -> list[list[int]]:
    """sanity_check.data for model.pt, from the reference; the result is its token ids."""
    tokens = padded(SENTENCES, 5)
    logits, hidden = reference.forward(WEIGHTS, SHAPE, tokens)
    torch.save({"token_ids": torch.tensor(tokens), "logits": torch.tensor(logits[:, -1:]).float(),
                "hidden_states": torch.tensor(hidden).float()}, "sanity_check.data")
    return tokens


def execute(program: str, path: Path | None = None) -> subprocess.CompletedProcess:
    """Run a program on the modules of this folder or of `path`, and nothing else of ours."""
    Path("program.py").write_text(program, encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(path or ""), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "program.py"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("layout", ["five files moved out", "support files under other programs"])
def test_files_work_among_the_courses_own(place, layout):
    moved, tokens = layout == "five files moved out", write_sanity_check()
    for name in FIVE if moved else ():
        shutil.copy(ROOT / f"{name}.py", place)
    for name, text in COURSE_FILES.items() if moved else ():
        Path(name).write_text(text, encoding="utf-8")
    execute(COURSE_PROGRAM, None if moved else ROOT)

    results, start = torch.load("results.pt"), padded(["one day"])[0]
    assert results["ids"].tolist() == tokens
    story = start + reference.greedy_continuation(WEIGHTS, SHAPE, start, 4)
    assert results["story"].tolist() == [story]
    close(results["scores"], reference.zero_shot_scores(WEIGHTS, SHAPE, tokens, pieces(NAMES)))
    for option in ("finetune", "lora"):
        state, before, after, stepped = results[option]
        close(before, head_scores(state, tokens))
        close(after, head_scores(stepped, tokens), atol=1e-3)
        changed = {name for name in state if not torch.equal(state[name], stepped[name])}
        assert changed == {name for name in state if option == "finetune"
                           or ".compute_" in name or "classifier_head" in name}


def test_programs_run_alike_on_five_files_of_another_solution(place, monkeypatch):
    """All four jobs and the sanity check, as programs in folders with nothing else of ours."""
    write_sanity_check()
    commands = [*(["run_llama.py", *command(option)] for option in LINES),
                ["sanity_check.py", "model.pt"]]
    results = []
    for five in (ROOT, ROOT / "tests/solutions"):
        folder = shutil.copytree(place, place.parent / five.name)
        for name in FIVE + SIX:
            shutil.copy((five if name in FIVE else ROOT) / f"{name}.py", folder)
        monkeypatch.chdir(folder)
        done = execute(f"""
import runpy, sys
for sys.argv in {commands}:
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        print("status", end.code)
""")
        printed = done.stdout.splitlines()
        assert printed.count("status 0") == 5 and not done.stderr
        assert printed[-2] == "Your Llama implementation is correct!"
        results.append({path: content for path, content in runs.contents().items()
                        if path.endswith((".txt", ".pt"))})
    assert results[0].keys() == results[1].keys() > {
        *runs.STORIES, "finetune-1-0.01.pt", "lora-1-0.01.pt",
        *(f"my-{split}-{kind}-output.txt" for kind in KIND.values() for split in ("dev", "test"))}
    # Rounding differs, which training and sampling could amplify.
    for path in (runs.STORIES[0], "my-dev-prompting-output.txt", "my-test-prompting-output.txt"):
        assert results[0][path] == results[1][path]
