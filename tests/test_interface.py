"""The assignment's public face: the names, signatures and results that other programs rely on.

Students know these names from the course, graders' scripts import them, and both combine our files
with the course's own. A failure here means that somebody else's program breaks. Numbers are
compared with a closed form, a published answer, or the float64 model in `reference.py`.
"""

import ast
import collections
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


def log_softmax(x):
    return np.log(reference.softmax(x))


def head_scores(state, tokens):
    """Log-probabilities of an embedding classifier, given its state dict, in float64."""
    state = {name.removeprefix("llama."): w.double().numpy() for name, w in state.items()}
    _, hidden = reference.forward(state, TINY, tokens)
    head = [state[f"classifier_head.{name}"] for name in ("weight", "bias")]
    return log_softmax(hidden[:, -1] @ head[0].T + head[1])


def run_python(script, cwd, path):
    """Run a script in `cwd`, with modules from its own folder and from `path`."""
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, script], cwd=cwd, env=env,
                          capture_output=True, encoding="utf-8", check=False)


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
], ids=["LayerNorm", "Attention", "FeedForward", "LlamaLayer", "Llama", "LoRALayer"])
def test_module_has_the_attributes(make, names):
    module = make(config.LlamaConfig(**SMALL))
    assert not [name for name in names.split() if not hasattr(module, name)]


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
    settings = config.LlamaConfig(**SMALL)
    model = Model(settings)
    assert (model.config, model.vocab_size, model.n_layers) == (settings, 61, 2)
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


def test_rotary_embedding_check_of_the_course():
    ones = torch.ones(1, 2, 2, 4)
    query, key = rope.apply_rotary_emb(2 * ones, 3 * ones, 4, 20)
    turned = [f(a) + sign * g(a) for a in (1, 0.01)
              for f, sign, g in ((math.cos, -1, math.sin), (math.sin, 1, math.cos))]
    expected = np.array([[[[1] * 4] * 2, [turned] * 2]])
    np.testing.assert_allclose(query, 2 * expected, atol=1e-5)
    np.testing.assert_allclose(key, 3 * expected, atol=1e-5)


# llama.py


@torch.no_grad()
def test_layer_norm_leaves_weight_and_bias_to_forward():
    torch.manual_seed(0)
    norm, x = llama.LayerNorm(8, eps=0.1), torch.randn(2, 3, 8)
    for p in norm.parameters():
        nn.init.normal_(p)
    x64, weight, bias = (t.double().numpy() for t in (x, norm.weight, norm.bias))
    close(norm._norm(x), reference.layer_norm(x64, 1, 0, 0.1))
    close(norm(x), reference.layer_norm(x64, weight, bias, 0.1))


def test_attention_sizes_and_scale():
    attention = llama.Attention(config.LlamaConfig(**SMALL, dropout=0.25)).eval()
    sizes = {"n_kv_heads": 2, "n_local_heads": 4, "n_local_kv_heads": 2, "n_rep": 2, "head_dim": 6,
             "max_seq_len": 16, "dropout": 0.25}
    assert {name: getattr(attention, name) for name in sizes} == sizes
    # Width 4 is not head_dim: the scale follows the tensors.
    qkv = np.random.default_rng(0).standard_normal((3, 2, 4, 5, 4))
    scores = attention.compute_query_key_value_scores(*torch.tensor(qkv).float())
    close(scores, [[reference.attend(*qkv[:, b, h]) for h in range(4)] for b in range(2)])


@torch.no_grad()
def test_feed_forward_multiplies_swiglu_by_w2():
    torch.manual_seed(0)
    feed, x = llama.FeedForward(24, None, 10, 0.0), torch.randn(3, 24)
    weights = {f"f.{name}": w.double().numpy() for name, w in feed.state_dict().items()}
    for found in (feed(x), feed.w2(feed.SwiGLU(x))):
        close(found, reference.feed_forward(weights, "f", x.double().numpy()))


def test_fresh_model_follows_llama2c():
    torch.manual_seed(0)
    settings = config.LlamaConfig(vocab_size=400, dim=64, n_layers=3, n_heads=4, n_kv_heads=2)
    model = llama.Llama(settings)
    assert model.params is settings and model.output.weight is model.tok_embeddings.weight
    for name, p in model.named_parameters():
        if "norm" in name:
            assert (p == name.endswith("weight")).all()
            continue
        scaled = name.endswith(("w3.weight", "compute_output.weight"))
        std = 0.02 / math.sqrt(2 * 3) if scaled else 0.02
        # Within five standard errors.
        assert p.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * p.numel())), name
        assert abs(p.mean().item()) < 5 * std / math.sqrt(p.numel()), name


@torch.no_grad()
def test_everything_goes_through_forward(folder):
    """A forward hook that changes the output changes what is generated and how texts score."""
    def favour_token_7(module, inputs, output):
        logits, hidden = output
        return 9.0 * F.one_hot(torch.full(logits.shape[:2], 7), 300), torch.zeros_like(hidden)

    tokens = torch.tensor(padded(["a cat", "red mat"]))
    model = llama.load_pretrained("tiny.pt").eval()
    settings = SimpleNamespace(num_labels=3, pretrained_model_path="tiny.pt",
                               hidden_dropout_prob=0.3, option="pretrain")
    zero_shot = classifier.LlamaZeroShotClassifier(settings, tokenizer.Tokenizer(), LABELS).eval()
    embedding = classifier.LlamaEmbeddingClassifier(settings).eval()
    for hooked in (model, zero_shot.llama, embedding.llama):
        hooked.register_forward_hook(favour_token_7)
    assert (model.generate(tokens, 3, temperature=0.0)[:, -3:] == 7).all()
    each = -math.log(math.exp(9) + 299)
    close(zero_shot(tokens), [[each * len(pieces(label)) for label in LABELS]] * 2)
    close(embedding(tokens), [log_softmax(embedding.classifier_head.bias.numpy())] * 2)


# lora.py


def test_lora_layer_freezes_the_original_layer_alone():
    torch.manual_seed(0)
    layer = lora.LoRALayer(nn.Linear(300, 20), rank=50, alpha=25.0)
    assert (layer.rank, layer.alpha, layer.scaling) == (50, 25.0, 0.5)
    assert (layer.lora_A.shape, layer.lora_B.shape) == ((50, 300), (20, 50))
    assert layer.lora_A.std().item() == pytest.approx(0.02, rel=0.03) and not layer.lora_B.any()
    asking = {name for name, p in layer.named_parameters() if p.requires_grad}
    assert asking == {"lora_A", "lora_B"}


@torch.no_grad()
def test_lora_adapts_any_module_in_place_and_merges_back():
    torch.manual_seed(0)
    model = nn.ModuleDict({
        "compute_query": nn.Sequential(nn.Linear(6, 5)),  # its qualified name is compute_query.0
        "cross": nn.ModuleDict({"compute_key": nn.Linear(6, 5), "w1": nn.Linear(6, 5)}),
        "my_compute_value_projection": nn.Linear(6, 5, bias=False),
        "compute_output": nn.Linear(6, 5), "compute_query_table": nn.Embedding(6, 5),
        "frozen": nn.Linear(6, 5).requires_grad_(False)})
    model["compute_output"].weight.requires_grad_(False)
    plain = {name: (p.requires_grad, p.clone()) for name, p in model.named_parameters()}

    assert lora.apply_lora(model, rank=2, alpha=6.0) is model
    wrapped = {name: m for name, m in model.named_modules() if isinstance(m, lora.LoRALayer)}
    assert set(wrapped) == {"compute_query.0", "cross.compute_key", "my_compute_value_projection",
                            "compute_output"}
    for name, p in model.named_parameters():
        asked = plain[name][0] if name in plain else "lora_" in name
        assert p.requires_grad == asked, name

    products = {}
    for name, layer in wrapped.items():
        nn.init.normal_(layer.lora_B)
        products[f"{name}.weight"] = 6 / 2 * (layer.lora_B.double() @ layer.lora_A.double())
    assert lora.merge_lora_weights(model) is model
    assert all(type(model.get_submodule(name)) is nn.Linear for name in wrapped)
    merged = dict(model.named_parameters())
    assert merged.keys() == plain.keys()
    for name, (asked, before) in plain.items():
        assert merged[name].requires_grad == asked, name
        close(merged[name], before + products.get(name, 0))


def test_lora_parameters_are_counted_and_listed():
    model = llama.Llama(config.LlamaConfig(**SMALL))
    model.classifier_head = nn.Linear(24, 2)
    lora.apply_lora(model, rank=3)
    adapters = 2 * 3 * ((24 + 24) + (24 + 12) + (24 + 12) + (24 + 24))
    shapes = reference.shapes(SMALL, biases=True).items()
    total = adapters + 50 + sum(math.prod(s) for name, s in shapes if "compute_" not in name)
    assert lora.count_lora_parameters(model) == (adapters, total,
                                                 pytest.approx(100 * adapters / total))

    named = dict(model.named_parameters())
    named["layers.1.attention.compute_key.lora_A"].requires_grad_(False)
    listed = lora.get_lora_optimizer_params(model) + []  # the course adds the head's to a list
    expected = [p for name, p in named.items() if "lora_" in name and p.requires_grad]
    assert sorted(map(id, listed)) == sorted(map(id, expected))
    model.requires_grad_(False)
    assert lora.count_lora_parameters(model) == (0, 0, 0)


# classifier.py


def test_zero_shot_classifier_has_its_attributes_and_a_frozen_model(folder):
    settings = SimpleNamespace(num_labels=3, pretrained_model_path="tiny.pt")
    words = tokenizer.Tokenizer()
    model = classifier.LlamaZeroShotClassifier(settings, words, LABELS)
    assert model.num_labels == 3 and model.tokenizer is words
    assert [list(ids) for ids in model.label_name_ids] == pieces(LABELS)
    assert not any(p.requires_grad for p in model.llama.parameters())


@pytest.mark.parametrize("option, loaded, asks", [
    ("pretrain", True, False), ("finetune", False, True), ("lora", True, True),
    ("lora", False, False)])
def test_embedding_classifier_follows_its_option(folder, monkeypatch, option, loaded, asks):
    pretrained = llama.load_pretrained("tiny.pt").requires_grad_(loaded)
    for module in (llama, classifier):
        monkeypatch.setattr(module, "load_pretrained", lambda path: pretrained, raising=False)
    settings = SimpleNamespace(num_labels=3, pretrained_model_path="tiny.pt",
                               hidden_dropout_prob=0.4, option=option)
    model = classifier.LlamaEmbeddingClassifier(settings)
    assert (model.num_labels, model.dropout.p, model.classifier_head.out_features) == (3, 0.4, 3)
    assert {p.requires_grad for p in model.llama.parameters()} == {asks}
    assert all(p.requires_grad for p in model.classifier_head.parameters())


# optimizer.py


def test_optimizer_check_of_the_course():
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False)
    adamw = optimizer.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, max_grad_norm=0.9)
    for _ in range(1000):
        adamw.zero_grad()
        x = torch.FloatTensor(rng.uniform(size=[3]))
        ((model(x) - torch.stack([x[0] + x[1], -x[2]])) ** 2).sum().backward()
        adamw.step()
    # The same rule in float64 misses the published second number by 1.4e-5.
    np.testing.assert_allclose(model.weight.detach(), [
        [0.68190700, 0.96820682, 0.19228892], [-0.39988050, -0.27481613, -0.37405914]],
        atol=1e-5, rtol=1e-5)


# tokenizer.py


def test_tokenizer_reads_the_folders_model_and_truncates_before_marks(folder):
    assert tokenizer.TOKENIZER_MODEL == "tokenizer.model"
    ids = pieces("a big red ball")
    for words in (tokenizer.Tokenizer(4), tokenizer.Tokenizer(4, str(folder / "tokenizer.model"))):
        assert Path(words.model_path).resolve() == folder / "tokenizer.model"
        assert (words.max_len, words.bos_id, words.eos_id) == (4, 1, 2)
        assert words.n_words == words.sp_model.vocab_size() == 290
        assert words.pad_id == words.sp_model.piece_to_id("<0x00>")
        assert words.encode("a big red ball", bos=True, eos=True) == [1, *ids[:4], 2]
        assert words.encode("a big red ball", False, False) == ids[:4]
    words = tokenizer.Tokenizer()
    assert words.max_len is None and words.encode("a big red ball", False, True) == [*ids, 2]
    assert words.decode(ids) == "a big red ball"


def test_pad_id_is_that_of_unk_without_a_piece_for_the_zero_byte(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a cat sat on a mat"] * 3), model_prefix=str(tmp_path / "plain"),
        vocab_size=14, model_type="bpe", minloglevel=2)
    words = tokenizer.Tokenizer(tokenizer_model=str(tmp_path / "plain.model"))
    assert words.pad_id == words.sp_model.unk_id()


def test_official_tokenizer(assets):
    words = tokenizer.Tokenizer(tokenizer_model=str(assets / "tokenizer.model"))
    assert (words.n_words, words.bos_id, words.eos_id, words.pad_id) == (32000, 1, 2, 3)


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


def test_question_of_a_prompt_survives_max_sentence_len(folder):
    words = tokenizer.Tokenizer(3)
    rows = run_llama.create_data("dev.txt", words, "valid", eos=False, prompt_suffix=QUESTION)
    dataset = run_llama.LlamaDataset(rows, assignment_args("prompt", max_sentence_len=3))
    token_ids, _, sents = dataset.pad_data(rows)
    for ids, sentence in zip(token_ids.tolist(), sents, strict=True):
        text = words.decode([i for i in ids if i != words.pad_id])
        assert text.strip().endswith(QUESTION.strip()) and len(text) < len(sentence.strip())


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


def assert_reported(split, args, out, scores, suffix=""):
    """Hold an output file and the printed accuracy to independent scores of one padded batch."""
    rows, predicted = SPLITS[split], scores.argmax(-1)
    lines = Path(getattr(args, f"{split}_out")).read_text(encoding="utf-8").splitlines()
    assert lines == [f"{p} ||| {s}{suffix}" for p, (_, s) in zip(predicted, rows, strict=True)]
    accuracy = np.mean(predicted == [label for label, _ in rows])
    assert re.search(rf"^{split} acc :: {accuracy:.3f}", out, re.MULTILINE)
    assert f"load {len(rows)} data from {split}.txt" in out.splitlines()


@pytest.mark.parametrize("option, max_len", [("finetune", 5), ("lora", None)])
def test_train_then_test(folder, capsys, option, max_len):
    assert run_llama.train_lora is run_llama.train
    args = assignment_args(option, max_sentence_len=max_len)
    run_llama.train(args)
    out = capsys.readouterr().out
    assert {"load 6 data from train.txt", "load 3 data from dev.txt"} <= set(out.splitlines())
    line = r"^epoch (\d+): train loss :: N, train acc :: N, dev acc :: N"
    assert re.findall(line.replace("N", r"\d+\.\d{3}"), out, re.MULTILINE) == ["0", "1"]

    saved = torch.load(args.filepath, weights_only=True)
    assert saved["args"]["lr"] == 0.01 and saved["model_config"]["num_labels"] == 3
    model = classifier.LlamaEmbeddingClassifier(SimpleNamespace(**saved["model_config"]))
    model.load_state_dict(saved["model"])  # LoRA is merged
    frozen = np.array_equal(saved["model"]["llama.layers.0.feed_forward.w1.weight"],
                            tiny_weights()["layers.0.feed_forward.w1.weight"])
    assert frozen == (option == "lora")

    run_llama.test(args)
    out = capsys.readouterr().out
    assert "load model from " in out
    for split in ("dev", "test"):
        tokens = padded([sentence for _, sentence in SPLITS[split]], max_len)
        assert_reported(split, args, out, head_scores(saved["model"], tokens))


def test_prompting(folder, capsys):
    args = assignment_args("prompt")
    run_llama.test_with_prompting(args)
    out = capsys.readouterr().out
    for split in ("dev", "test"):
        tokens = padded([f"{sentence} {QUESTION}" for _, sentence in SPLITS[split]])
        scores = reference.zero_shot_scores(tiny_weights(), TINY, tokens, pieces(LABELS))
        assert_reported(split, args, out, scores, f" {QUESTION}")


@pytest.mark.parametrize("run, option", [("train", "finetune"), ("test_with_prompting", "prompt")])
def test_run_encodes_each_sentence_once(folder, monkeypatch, run, option):
    seen, encode = collections.Counter(), tokenizer.Tokenizer.encode

    def counted(self, s, *args, **kwargs):
        seen[s] += 1
        return encode(self, s, *args, **kwargs)

    monkeypatch.setattr(tokenizer.Tokenizer, "encode", counted)
    getattr(run_llama, run)(assignment_args(option))
    sentences = tuple(s for rows in SPLITS.values() for _, s in rows)
    assert {n for text, n in seen.items() if text.startswith(sentences)} == {1}


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


# sanity_check.py

@pytest.mark.parametrize("damaged", [None, "logits", "hidden_states"])
def test_sanity_check_passes_only_where_all_agrees(tmp_path, damaged):
    settings, ids = TINY | {"vocab_size": 32000}, [[101, 7592, 2088, 102, 0, 0, 0, 0],
                                                   [101, 7592, 15756, 2897, 2005, 17953, 2361, 102]]
    weights = reference.seeded_weights(settings, seed=2)
    reference.save_checkpoint(tmp_path / "stories42M.pt", weights, settings)
    logits, hidden = map(torch.tensor, reference.forward(weights, settings, ids))
    data = {"logits": logits[:, -1:].float(), "hidden_states": hidden.float()}
    if damaged:
        data[damaged][-1, -1, -1] += 0.01
    torch.save(data, tmp_path / "sanity_check.data")
    done = run_python(ROOT / "sanity_check.py", tmp_path, str(ROOT))
    assert (done.returncode == 0) == (damaged is None), done.stdout + done.stderr


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
from torch.utils.data import DataLoader

from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from config import LlamaConfig
from llama import Llama, load_pretrained
from lora import apply_lora, get_lora_optimizer_params, merge_lora_weights
from optimizer import AdamW
from tokenizer import Tokenizer

args = Namespace(max_sentence_len=5, pretrained_model_path="tiny.pt", hidden_dropout_prob=0.0,
                 batch_size=3, lr=1e-2, lora_rank=2, lora_alpha=4.0, filepath="saved.pt")
tokenizer = Tokenizer(args.max_sentence_len)
lines = open("dev.txt", encoding="utf-8").read().splitlines()

def collate_fn(rows):
    encoding = [tokenizer.encode(s, bos=True, eos=False) for _, s in rows]
    longest = max(len(ids) for ids in encoding)
    padded = [ids + [tokenizer.pad_id] * (longest - len(ids)) for ids in encoding]
    return torch.LongTensor(padded), torch.LongTensor([int(label) for label, _ in rows])

((ids, labels),) = DataLoader([line.split(" ||| ", 1) for line in lines],
                              batch_size=args.batch_size, collate_fn=collate_fn)
results = {"ids": ids}

with torch.no_grad():
    sanity_data = torch.load("./sanity_check.data")
    llama = load_pretrained(args.pretrained_model_path)
    logits, hidden_states = llama(ids)
    assert torch.allclose(logits, sanity_data["logits"], atol=1e-5, rtol=1e-3)
    assert torch.allclose(hidden_states, sanity_data["hidden_states"], atol=1e-5, rtol=1e-3)
    results["logits"], _ = llama(ids, ids)
    prefix = torch.tensor(tokenizer.encode("one day", bos=True, eos=False))[None]
    results["story"] = llama.generate(prefix, 4, temperature=0.0)
    llama.generate(prefix, 4)
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
    loss = F.nll_loss(before, labels.view(-1), reduction="sum") / args.batch_size
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
    reference.save_checkpoint("tiny.pt", tiny_weights(), TINY | {"trained_on": "stories"})
    tokens = padded(DEV, 5)
    logits, hidden = reference.forward(tiny_weights(), TINY, tokens)
    torch.save({"logits": torch.tensor(logits[:, -1:]).float(),
                "hidden_states": torch.tensor(hidden).float()}, "sanity_check.data")
    Path("program.py").write_text(COURSE_PROGRAM)
    done = run_python("program.py", folder, "" if moved else str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr

    results, start = torch.load("results.pt"), padded(["one day"])[0]
    assert results["ids"].tolist() == tokens
    close(results["logits"], logits)
    story = start + reference.greedy_continuation(tiny_weights(), TINY, start, 4)
    assert results["story"].tolist() == [story]
    label_ids = [ids[:5] for ids in pieces(LABELS)]
    close(results["scores"], reference.zero_shot_scores(tiny_weights(), TINY, tokens, label_ids))

    for option in ("finetune", "lora"):
        state, before, after, stepped = results[option]
        scores = head_scores(state, tokens)
        close(before, scores)
        # Adam's first step on the head, whose gradient has a closed form.
        labels = np.eye(3)[[label for label, _ in SPLITS["dev"]]]
        gradient = (np.exp(scores) - labels).T @ hidden[:, -1] / 3
        step = 0.01 * gradient / (abs(gradient) + 1e-6 / math.sqrt(0.001))
        close(stepped["classifier_head.weight"],
              state["classifier_head.weight"].double().numpy() - step)
        changed = {name for name in state if not torch.equal(state[name], stepped[name])}
        assert changed == {name for name in state if option == "finetune"
                           or ".compute_" in name or "classifier_head" in name}
        close(after, head_scores(stepped, tokens), atol=1e-3)
