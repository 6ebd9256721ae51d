"""The assignment's public face: the names, signatures and results that other programs rely on.

Students know these names from the course, graders' scripts import them, and both combine our files
with the course's own. A failure here means that somebody else's program breaks. What the modules
compute is for the tests named after them; here, results are looked at where programs exchange them.
"""

import ast
import functools
import importlib
import inspect
import json
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
import optimizer
import reference
import rope
import run_llama
import tokenizer
from conftest import SMALL

ROOT = Path(reference.__file__).resolve().parent.parent
FIVE = ["llama", "classifier", "rope", "lora", "optimizer"]
ELEVEN = [*FIVE, "run_llama", "base_llama", "config", "tokenizer", "utils", "sanity_check"]

CONFIG_FIELDS = """vocab_size=32000, dim=512, dropout=0.0, n_layers=8, n_heads=8, n_kv_heads=8, \
max_seq_len=1024, layer_norm_eps=1e-5, multiple_of=32, hidden_dim=None, \
position_embedding_type="rotary", use_cache=True"""

# Owner: functions or methods, without `self`. Further parameters may follow where optional.
SIGNATURES = f"""
config.LlamaConfig: __init__({CONFIG_FIELDS})
base_llama.LlamaPreTrainedModel: __init__(config) init_weights() _init_weights(module)
rope: reshape_for_broadcast(freqs_cis, x)
rope: apply_rotary_emb(query, key, head_dim, max_seq_len, theta=10000.0)
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
run_llama: train(args) test(args) test_with_prompting(args)
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

# A model for the tiny tokenizer, with a few more rows than that has pieces.
TINY = {"vocab_size": 300, "dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
        "max_seq_len": 150, "multiple_of": 10}
SPLITS = {
    "train": [(0, "a cat sat on a mat"), (1, "a big red ball"), (2, "one day a girl saw the park"),
              (0, "the cat saw the ball"), (1, "red mat"), (2, "a little girl in the park")],
    "dev": [(1, "one red cat"), (0, "the little ball sat in the park"), (2, "a café ||| a mat")],
    "test": [(2, "a girl sat"), (1, "one big day in the big park")],
}
DEV = [sentence for _, sentence in SPLITS["dev"]]
LABELS = ["a cat", "red", "park"]
QUESTION = "Is this movie a cat, red, or park? This movie is "

close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


@functools.cache
def tiny_weights():
    return reference.seeded_weights(TINY, seed=1)


@pytest.fixture
def folder(tmp_path, tiny_tokenizer, monkeypatch):
    """The current folder, with a tokenizer, a model and data where a run looks for them."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_tokenizer, "tokenizer.model")
    reference.save_checkpoint("tiny.pt", tiny_weights(), TINY)
    for split, rows in SPLITS.items():
        text = "".join(f"{label} ||| {sentence}\n" for label, sentence in rows)
        Path(f"{split}.txt").write_text(text, encoding="utf-8")
    Path("labels.json").write_text(json.dumps(LABELS))
    return tmp_path


def assignment_args(option, **changes):
    """What graders pass: the assignment's options and `filepath`, and none of ours."""
    kind = {"prompt": "prompting", "finetune": "finetuning"}.get(option, option)
    files = {"train": "train.txt", "dev": "dev.txt", "test": "test.txt",
             "label_names": "labels.json", "pretrained_model_path": "tiny.pt",
             "dev_out": f"dev-{kind}-output.txt", "test_out": f"test-{kind}-output.txt",
             "filepath": f"{option}-2-0.01.pt"}
    return Namespace(**OPTIONS | files | {"option": option, "epochs": 2, "lr": 0.01} | changes)


def pieces(text):
    """Token ids of a text, straight from SentencePiece."""
    return sentencepiece.SentencePieceProcessor(model_file="tokenizer.model").encode(text)


def padded(sentences, max_len=None, eos=False):
    """The rows of a batch; <s> is token 1 and </s> token 2."""
    rows = [[1, *pieces(s)[:max_len], *[2] * eos] for s in sentences]
    zero = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")["<0x00>"]
    longest = max(map(len, rows))
    return [row + [zero] * (longest - len(row)) for row in rows]


def zero_shot_classifier():
    settings = SimpleNamespace(num_labels=3, pretrained_model_path="tiny.pt")
    return classifier.LlamaZeroShotClassifier(settings, tokenizer.Tokenizer(), LABELS)


def embedding_classifier():
    return classifier.LlamaEmbeddingClassifier(SimpleNamespace(
        num_labels=3, pretrained_model_path="tiny.pt", hidden_dropout_prob=0.3, option="finetune"))


def log_softmax(x):
    return np.log(reference.softmax(x))


def head_scores(state, tokens):
    """Log-probabilities of an embedding classifier, given its state dict, in float64."""
    state = {name.removeprefix("llama."): w.double().numpy() for name, w in state.items()}
    _, hidden = reference.forward(state, TINY, tokens)
    head = [state[f"classifier_head.{name}"] for name in ("weight", "bias")]
    return log_softmax(hidden[:, -1] @ head[0].T + head[1])


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


@pytest.mark.parametrize("make, names", [
    (lambda c: llama.LayerNorm(c.dim), "eps weight bias"),
    (llama.Attention, "n_kv_heads n_local_heads n_local_kv_heads n_rep head_dim max_seq_len "
     "compute_query compute_key compute_value compute_output attn_dropout resid_dropout dropout"),
    (lambda c: llama.FeedForward(c.dim, None, 10, 0.0), "w1 w2 w3 dropout"),
    (lambda c: llama.LlamaLayer(1, c),
     "n_heads dim head_dim attention feed_forward layer_id attention_norm ffn_norm"),
    (llama.Llama, "params vocab_size n_layers tok_embeddings dropout layers norm output config"),
    (lambda c: lora.LoRALayer(nn.Linear(3, 2)), "original_layer rank alpha scaling lora_A lora_B"),
    (lambda c: zero_shot_classifier(), "num_labels llama tokenizer label_name_ids"),
    (lambda c: embedding_classifier(), "num_labels llama dropout classifier_head"),
    (lambda c: tokenizer.Tokenizer(),
     "sp_model model_path max_len n_words bos_id eos_id pad_id"),
], ids=["LayerNorm", "Attention", "FeedForward", "LlamaLayer", "Llama", "LoRALayer",
        "LlamaZeroShotClassifier", "LlamaEmbeddingClassifier", "Tokenizer"])
def test_object_has_the_attributes(folder, make, names):
    made = make(config.LlamaConfig(**SMALL))
    assert not [name for name in names.split() if not hasattr(made, name)]


def test_attributes_have_the_values_of_the_configuration(folder):
    settings = config.LlamaConfig(**SMALL, dropout=0.25)
    model, zero_shot = llama.Llama(settings), zero_shot_classifier()
    assert model.params is model.config is settings
    assert (model.vocab_size, model.n_layers) == (61, 2)
    sizes = {"n_kv_heads": 2, "n_local_heads": 4, "n_local_kv_heads": 2, "n_rep": 2, "head_dim": 6,
             "max_seq_len": 16, "dropout": 0.25}
    assert vars(model.layers[1].attention).items() >= sizes.items()
    assert vars(model.layers[1]).items() >= {
        "layer_id": 1, "n_heads": 4, "dim": 24, "head_dim": 6}.items()
    assert zero_shot.num_labels == embedding_classifier().num_labels == 3
    assert [list(ids) for ids in zero_shot.label_name_ids] == pieces(LABELS)
    words = tokenizer.Tokenizer(4)
    assert words.model_path == tokenizer.TOKENIZER_MODEL == "tokenizer.model"
    assert (words.max_len, words.n_words, words.bos_id, words.eos_id) == (4, 290, 1, 2)


@torch.no_grad()
def test_everything_goes_through_forward(folder):
    """A forward hook that changes the output changes what is generated and how texts score."""
    def favour_token_7(module, inputs, output):
        logits, hidden = output
        return 9.0 * F.one_hot(torch.full(logits.shape[:2], 7), 300), torch.zeros_like(hidden)

    tokens = torch.tensor(padded(["a cat", "red mat"]))
    model, zero_shot = llama.load_pretrained("tiny.pt"), zero_shot_classifier()
    embedding = embedding_classifier().eval()
    for hooked in (model, zero_shot.llama, embedding.llama):
        hooked.register_forward_hook(favour_token_7)
    assert (model.generate(tokens, 3, temperature=0.0)[:, -3:] == 7).all()
    each = -math.log(math.exp(9) + 299)
    close(zero_shot(tokens), [[each * len(pieces(label)) for label in LABELS]] * 2)
    close(embedding(tokens), [log_softmax(embedding.classifier_head.bias.numpy())] * 2)


@pytest.mark.parametrize("module", ELEVEN)
def test_imports(module):
    """The five that get moved out lean on little of ours; none of the eleven on more packages."""
    allowed = {*sys.stdlib_module_names, "torch", "numpy", "sentencepiece", "tqdm", "sklearn"}
    allowed.update(ELEVEN if module not in FIVE else [
        *FIVE, "config.LlamaConfig", "base_llama.LlamaPreTrainedModel", "tokenizer.Tokenizer"])
    imported = set()
    for node in ast.walk(ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
    assert not {name for name in imported if not {name, name.partition(".")[0]} & allowed}


# config.py, base_llama.py, rope.py


def test_configuration_is_positional_and_keeps_further_keywords():
    values = [61, 24, 0.1, 2, 4, None, 16, 1e-4, 10, 40, "rotary", False]
    made = config.LlamaConfig(*values, trained_on="stories")
    assert [getattr(made, name) for name in re.findall(r"(\w+)=", CONFIG_FIELDS)] == values
    assert (made.trained_on, config.LlamaConfig.model_type) == ("stories", "llama")
    assert llama.Attention(made).n_kv_heads == 4  # None means n_heads


def test_pretrained_model_initialises_weights_and_knows_its_dtype():
    class Model(base_llama.LlamaPreTrainedModel):
        def __init__(self, settings):
            super().__init__(settings)
            self.linear, self.embedding = nn.Linear(200, 200), nn.Embedding(200, 200)

    assert base_llama.LlamaConfig is config.LlamaConfig is Model.config_class
    model = Model(config.LlamaConfig(**SMALL))
    assert (model.base_model_prefix, model.dtype) == ("llama", torch.float32)
    assert model.double().dtype == torch.float64
    torch.manual_seed(0)
    for initialise in (model.init_weights, lambda: model._init_weights(model.linear)):
        nn.init.ones_(model.linear.weight)
        nn.init.ones_(model.linear.bias)
        initialise()
        for part in (model.linear, model.embedding):
            assert part.weight.std().item() == pytest.approx(0.02, rel=0.02)
            assert abs(part.weight.mean().item()) < 5e-4
        assert not model.linear.bias.any()


def test_reshape_for_broadcast():
    freqs = torch.arange(6.0).reshape(3, 2)
    for shape, expected in [((5, 3, 4, 2), (1, 3, 1, 2)), ((5, 3, 4, 7, 2), (1, 3, 1, 1, 2))]:
        reshaped = rope.reshape_for_broadcast(freqs, torch.zeros(shape))
        assert reshaped.shape == expected and torch.equal(reshaped.flatten(), freqs.flatten())
    for shape in [(5, 2, 4, 2), (5, 3, 4, 3)]:
        with pytest.raises(AssertionError):
            rope.reshape_for_broadcast(freqs, torch.zeros(shape))


# run_llama.py


@pytest.mark.parametrize("place", ["empty folder", "repository"])
def test_get_args_returns_the_assignments_defaults(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path if place == "empty folder" else ROOT)
    monkeypatch.setattr(sys, "argv", ["run_llama.py"])
    assert vars(run_llama.get_args()).items() >= OPTIONS.items()


def test_embedded_model_is_chosen_where_files_are_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run_llama.py"])
    args = run_llama.get_args()
    run_llama.generate_sentence(args, "Once upon a time", "story.txt", max_new_tokens=1)
    assert Path("story.txt").read_text(encoding="utf-8").startswith("Once upon a time")
    assert args.pretrained_model_path == "stories42M.pt"


@pytest.mark.parametrize("arguments, seed", [([], 11711), ([3], 3)])
def test_seed_everything(arguments, seed):
    run_llama.seed_everything(*arguments)
    assert random.random() == random.Random(seed).random()
    assert np.random.rand() == np.random.RandomState(seed).rand()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(seed)))


def test_create_data(folder, capsys):
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


@pytest.mark.parametrize("created", [True, False])
@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("max_len", [None, 5])
def test_dataset_pads_on_the_right_and_decides_on_eos_itself(folder, created, eos, max_len):
    args = assignment_args("finetune", max_sentence_len=max_len)
    rows = run_llama.create_data("dev.txt", tokenizer.Tokenizer(max_len), "valid", eos=created)
    dataset = run_llama.LlamaDataset(rows, args, eos=eos)
    assert len(dataset) == 3 and dataset[1] == rows[1]
    batch = dataset.collate_fn(rows)
    assert batch.keys() == {"token_ids", "labels", "sents"}
    for token_ids, labels, sents in (dataset.pad_data(rows), batch.values()):
        assert token_ids.dtype == labels.dtype == torch.int64
        assert token_ids.tolist() == padded(DEV, max_len, eos)
        assert (labels.tolist(), list(sents)) == ([1, 0, 2], DEV)


def test_model_eval_leaves_placeholders_out(folder):
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


def test_saved_model_holds_plain_dictionaries(tmp_path):
    model, path = nn.Linear(3, 2), tmp_path / "model.pt"
    args, settings = assignment_args("finetune"), SimpleNamespace(num_labels=2, option="finetune")
    run_llama.save_model(model, optimizer.AdamW(model.parameters()), args, settings, path)
    saved = torch.load(path, weights_only=True)
    assert torch.equal(saved["model"]["weight"], model.weight)
    assert type(saved["args"]) is type(saved["model_config"]) is dict
    assert saved["args"] == vars(args) and saved["model_config"] == vars(settings)


def test_write_predictions_to_file(tmp_path, capsys):
    path = tmp_path / "out.txt"
    run_llama.write_predictions_to_file("dev", str(path), 0.4114, [1, 0], ["a café", "b ||| c"])
    assert path.read_text(encoding="utf-8") == "1 ||| a café\n0 ||| b ||| c\n"
    assert capsys.readouterr().out.startswith("dev acc :: 0.411")


@pytest.mark.parametrize("option, max_len", [("prompt", None), ("finetune", 5), ("lora", None)])
def test_jobs_run_on_the_options_of_the_assignment_alone(folder, capsys, option, max_len):
    assert run_llama.train_lora is run_llama.train
    args = assignment_args(option, max_sentence_len=max_len)
    suffix = f" {QUESTION}" if option == "prompt" else ""
    if option == "prompt":
        run_llama.test_with_prompting(args)
    else:
        run_llama.train(args)
        out = capsys.readouterr().out
        assert {"load 6 data from train.txt", "load 3 data from dev.txt"} <= set(out.splitlines())
        line = r"^epoch (\d+): train loss :: N, train acc :: N, dev acc :: N"
        assert re.findall(line.replace("N", r"\d+\.\d{3}"), out, re.MULTILINE) == ["0", "1"]
        saved = torch.load(args.filepath, weights_only=True)
        assert saved["args"]["lr"] == 0.01 and saved["model_config"]["num_labels"] == 3
        model = classifier.LlamaEmbeddingClassifier(SimpleNamespace(**saved["model_config"]))
        model.load_state_dict(saved["model"])  # LoRA is merged
        changed = {name.removeprefix("llama.") for name, w in saved["model"].items()
                   if not np.array_equal(w, tiny_weights().get(name.removeprefix("llama."), w))}
        projections = {name for name in tiny_weights() if ".compute_" in name}
        assert changed == (projections if option == "lora" else {*tiny_weights()})
        run_llama.test(args)
    out = capsys.readouterr().out
    assert "load model from " in out
    for split in ("dev", "test"):
        lines = Path(getattr(args, f"{split}_out")).read_text(encoding="utf-8").splitlines()
        labels, sentences = zip(*SPLITS[split], strict=True)
        predicted = [int(line.partition(" ||| ")[0]) for line in lines]
        assert lines == [f"{p} ||| {s}{suffix}" for p, s in zip(predicted, sentences, strict=True)]
        if option != "prompt":
            scores = head_scores(saved["model"], padded(sentences, max_len))
            assert predicted == scores.argmax(-1).tolist()
        right = np.equal(predicted, labels)
        assert re.search(rf"^{split} acc :: {np.mean(right):.3f}", out, re.MULTILINE)
        assert f"load {len(lines)} data from {split}.txt" in out.splitlines()


@pytest.mark.parametrize("model_folder", [".", "models"])
def test_generated_sentence_is_the_text_alone(folder, capsys, model_folder):
    """The tokenizer comes from the current folder or, where that has none, from the model's."""
    start = padded(["one day"])[0]
    words = sentencepiece.SentencePieceProcessor(model_file="tokenizer.model")
    tokens = start + reference.greedy_continuation(tiny_weights(), TINY, start, 6)
    Path(model_folder).mkdir(exist_ok=True)
    for name in ("tokenizer.model", "tiny.pt"):
        Path(name).rename(Path(model_folder, name))
    args = assignment_args("generate", pretrained_model_path=f"{model_folder}/tiny.pt")
    run_llama.generate_sentence(args, "one day", "story.txt", max_new_tokens=6)
    story, out = Path("story.txt").read_bytes().decode("utf-8"), capsys.readouterr().out
    assert story == words.decode(tokens)
    assert "load model from " in out and story in out


# Five files moved out, and our support files under the course's programs

# What the course's support files offer, without their dead code and their utils.py.
COURSE_FILES = {
    "config.py": f"""
class LlamaConfig:
    model_type = "llama"

    def __init__(self, {CONFIG_FIELDS}, **kwargs):
        fields = dict(locals())
        del fields["self"], fields["kwargs"]
        vars(self).update(fields, **kwargs)
""",
    "base_llama.py": """
from torch import nn
from config import LlamaConfig

class LlamaPreTrainedModel(nn.Module):
    config_class = LlamaConfig
    base_model_prefix = "llama"

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
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()

    @property
    def dtype(self):
        return next(self.parameters()).dtype
""",
    "tokenizer.py": """
from sentencepiece import SentencePieceProcessor

TOKENIZER_MODEL = "tokenizer.model"

class Tokenizer:
    def __init__(self, max_len=None, tokenizer_model=None):
        self.model_path = tokenizer_model or TOKENIZER_MODEL
        self.sp_model = SentencePieceProcessor(model_file=self.model_path)
        self.max_len = max_len
        self.n_words = self.sp_model.vocab_size()
        self.bos_id = self.sp_model.bos_id()
        self.eos_id = self.sp_model.eos_id()
        self.pad_id = self.sp_model.piece_to_id("<0x00>")

    def encode(self, s, bos, eos):
        return [self.bos_id] * bos + self.sp_model.encode(s)[:self.max_len] + [self.eos_id] * eos

    def decode(self, t):
        return self.sp_model.decode(t)
""",
}

# How the course's sanity_check.py and run_llama.py use the modules, with results in a file.
COURSE_PROGRAM = """
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

args = Namespace(max_sentence_len=5, pretrained_model_path="tiny.pt", hidden_dropout_prob=0.0,
                 lr=1e-2, lora_rank=2, lora_alpha=4.0, filepath="saved.pt")
tokenizer = Tokenizer(args.max_sentence_len)
rows = [line.split(" ||| ", 1) for line in open("dev.txt", encoding="utf-8").read().splitlines()]
encoding = [tokenizer.encode(s, bos=True, eos=False) for _, s in rows]
longest = max(len(ids) for ids in encoding)
ids = torch.LongTensor([ids + [tokenizer.pad_id] * (longest - len(ids)) for ids in encoding])
labels = torch.LongTensor([int(label) for label, _ in rows])
results = {"ids": ids}

with torch.no_grad():
    sanity_data = torch.load("./sanity_check.data")
    llama = load_pretrained(args.pretrained_model_path)
    logits, hidden_states = llama(ids)
    assert torch.allclose(logits, sanity_data["logits"], atol=1e-5, rtol=1e-3)
    assert torch.allclose(hidden_states, sanity_data["hidden_states"], atol=1e-5, rtol=1e-3)
    prefix = torch.tensor(tokenizer.encode("one day", bos=True, eos=False))[None]
    results["story"] = llama.generate(prefix, 4, temperature=0.0)
    config = SimpleNamespace(pretrained_model_path=args.pretrained_model_path, num_labels=3)
    model = LlamaZeroShotClassifier(config, tokenizer, ["a cat", "red", "park"])
    results["scores"] = model.eval()(ids)
    fresh = Llama(LlamaConfig(vocab_size=9, dim=8, n_layers=1, n_heads=2, n_kv_heads=None))
    assert fresh(ids % 9)[0].shape == (3, 1, 9)

for option in ("finetune", "lora"):
    config = SimpleNamespace(hidden_dropout_prob=args.hidden_dropout_prob, num_labels=3,
                             pretrained_model_path=args.pretrained_model_path, data_dir=".",
                             option=option)
    model = LlamaEmbeddingClassifier(config)
    start = {name: w.clone() for name, w in model.state_dict().items()}
    params = model.parameters()
    if option == "lora":
        model.llama = apply_lora(model.llama, rank=args.lora_rank, alpha=args.lora_alpha)
        params = get_lora_optimizer_params(model) + list(model.classifier_head.parameters())
    optimizer = AdamW(params, lr=args.lr)
    model.train()
    optimizer.zero_grad()
    before = model(ids)
    loss = F.nll_loss(before, labels.view(-1), reduction="sum") / len(rows)
    loss.backward()
    optimizer.step()
    after = model.eval()(ids).detach()
    if option == "lora":
        model.llama = merge_lora_weights(model.llama)
    torch.save({"model": model.state_dict(), "optim": optimizer.state_dict(), "args": args,
                "model_config": config}, args.filepath)
    saved = torch.load(args.filepath, weights_only=False)
    model = LlamaEmbeddingClassifier(saved["model_config"])
    model.load_state_dict(saved["model"])
    results[option] = start, before.detach(), after, model.state_dict()
torch.save(results, "results.pt")
"""


@pytest.mark.parametrize("layout", ["five files moved out", "support files under other programs"])
def test_files_work_among_the_courses_own(folder, layout):
    moved = layout == "five files moved out"
    for name in FIVE if moved else ():
        shutil.copy(ROOT / f"{name}.py", folder)
    for name, text in COURSE_FILES.items() if moved else ():
        Path(name).write_text(text)
    Path("program.py").write_text(COURSE_PROGRAM)
    reference.save_checkpoint("tiny.pt", tiny_weights(), TINY | {"trained_on": "stories"})
    tokens = padded(DEV, 5)
    logits, hidden = reference.forward(tiny_weights(), TINY, tokens)
    torch.save({"logits": torch.tensor(logits[:, -1:]).float(),
                "hidden_states": torch.tensor(hidden).float()}, "sanity_check.data")
    env = os.environ | {"PYTHONPATH": "" if moved else str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "program.py"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    results, start = torch.load("results.pt"), padded(["one day"])[0]
    assert results["ids"].tolist() == tokens
    story = start + reference.greedy_continuation(tiny_weights(), TINY, start, 4)
    assert results["story"].tolist() == [story]
    label_ids = [ids[:5] for ids in pieces(LABELS)]
    close(results["scores"], reference.zero_shot_scores(tiny_weights(), TINY, tokens, label_ids))
    for option in ("finetune", "lora"):
        state, before, after, stepped = results[option]
        close(before, head_scores(state, tokens))
        close(after, head_scores(stepped, tokens), atol=1e-3)
        changed = {name for name in state if not torch.equal(state[name], stepped[name])}
        assert changed == {name for name in state if option == "finetune"
                           or ".compute_" in name or "classifier_head" in name}
