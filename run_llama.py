"""Command line of Mini-Llama: continue a story, or classify sentences in one of three ways.

    python run_llama.py --option generate | prompt | finetune | lora
"""

import argparse
import copy
import hashlib
import math
import os
import random
import sys
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from llama import CheckpointError, Llama, load_file, load_pretrained
from lora import apply_lora, count_lora_parameters, merge_lora_weights
from optimizer import AdamW
from tokenizer import TOKENIZER_MODEL, Tokenizer
from utils import (
    SEPARATOR,
    InputError,
    Parser,
    atomic_write,
    beside,
    bfloat16_is_faster,
    checked,
    configure_stdout,
    fail,
    pick_device,
    positive_int,
    positive_number,
    prefer_onednn,
    progress,
    read_examples,
    read_label_names,
    save_file,
)

PROGRAM = "run_llama.py"
PROMPT = ("Victor Frankenstein, a young scientist obsessed with uncovering the secrets of life, "
          "succeeds in animating a creature assembled from")
PLACEHOLDER = -1  # the label of sentences whose label is not public
KIND = {"prompt": "prompting", "finetune": "finetuning", "lora": "lora"}  # in output names
DATA = ("train", "dev", "test", "label_names")
DEMO = Path(__file__).resolve().parent / "demo"
EMBEDDED = {"pretrained_model_path": "stories.pt", "train": "reviews2-train.txt",
            "dev": "reviews2-dev.txt", "test": "reviews2-test.txt",
            "label_names": "reviews2-label-mapping.json"}


# ---------------------------------------------------------------------------------- command line

def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line (default: `sys.argv`). `filepath` is where the model is saved."""
    parser = Parser(prog=PROGRAM, description=__doc__.split("\n")[0], allow_abbrev=False,
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    job = parser.add_argument_group("the job")
    job.add_argument("--option", choices=("generate", *KIND), default="generate",
                     help="what to do")
    job.add_argument("--use_gpu", action="store_true", help="run on CUDA rather than on the CPU")
    job.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                     help="of matrix products; weights and optimizer stay float32")
    job.add_argument("--seed", default=1337, help="of everything random",
                     type=checked(int, lambda n: 0 <= n < 2**32, "32-bit unsigned integer"))
    job.add_argument("--pretrained-model-path", default="stories42M.pt", metavar="FILE",
                     help="checkpoint")
    job.add_argument("--tokenizer", metavar="FILE", help="SentencePiece model; None: "
                     "tokenizer.model beside the checkpoint, or else in this folder")
    job.add_argument("--max_sentence_len", type=positive_int, metavar="N",
                     help="cut sentences to this many tokens")
    story = parser.add_argument_group("generate")
    story.add_argument("--prompt", default=PROMPT, metavar="TEXT", help="text to continue",
                       type=checked(str, lambda text: text.encode() or True, "UTF-8 text"))
    story.add_argument("--generated_sentence_low_temp_out", metavar="FILE",
                       default="generated-sentence-temp-0.txt", help="the greedy story")
    story.add_argument("--generated_sentence_high_temp_out", metavar="FILE",
                       default="generated-sentence-temp-1.txt", help="the sampled story")
    data = parser.add_argument_group("data, for prompt, finetune and lora")
    for split in ("train", "dev", "test"):
        data.add_argument(f"--{split}", default=f"data/cfimdb-{split}.txt", metavar="FILE",
                          help="labelled sentences")
    data.add_argument("--label-names", default="data/cfimdb-label-mapping.json", metavar="FILE",
                      help="names of the labels, for prompt")
    for split in ("dev", "test"):
        data.add_argument(f"--{split}_out", default=f"cfimdb-{split}-prompting-output.txt",
                          metavar="FILE", help="predictions; the name must end in "
                          f"{split}-{{{','.join(KIND.values())}}}-output.txt")
    data.add_argument("--batch_size", type=positive_int, default=8, metavar="N",
                      help="sentences a batch")
    training = parser.add_argument_group("finetune and lora")
    training.add_argument("--epochs", type=positive_int, default=5, metavar="N",
                          help="passes over the training data")
    training.add_argument("--lr", type=positive_number, default=2e-5, metavar="X",
                          help="learning rate")
    training.add_argument("--hidden_dropout_prob", default=0.3, metavar="P",
                          type=checked(float, lambda p: 0 <= p < 1, "probability below 1"),
                          help="dropout before the classifier layer")
    training.add_argument("--lora_rank", type=positive_int, default=4, metavar="N",
                          help="rank of the LoRA matrices")
    training.add_argument("--lora_alpha", default=1.0, metavar="X",
                          type=checked(float, math.isfinite, "finite number"),
                          help="scale of the LoRA update, divided by the rank")
    training.add_argument("--resume", action="store_true",
                          help="continue the same, interrupted run after its last finished epoch")
    args = parser.parse_args(argv)
    args.filepath = saved_model_path(args)
    return args


def saved_model_path(args: argparse.Namespace) -> str:
    """The assignment's name of the model that a training run saves."""
    return f"{args.option}-{args.epochs}-{args.lr}.pt"


def resolve(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in options that are missing; where default files are, name the embedded ones, loudly."""
    defaults = vars(get_args([]))
    defaults.pop("filepath")
    args = argparse.Namespace(**defaults | vars(args))
    args.filepath = getattr(args, "filepath", saved_model_path(args))

    def is_missing(name: str) -> bool:
        path = getattr(args, name)
        return path == defaults[name] and not os.path.exists(path)

    for what, names in (("model", ["pretrained_model_path"]), ("data", list(DATA))):
        if DEMO.is_dir() and all(map(is_missing, names)):
            missing = getattr(args, names[0])
            for name in names:
                path = DEMO / EMBEDDED[name]
                inside = path.is_relative_to(Path.cwd())
                setattr(args, name, str(path.relative_to(Path.cwd()) if inside else path))
            if what == "model" or args.option != "generate":
                print(f"*** WARNING: {missing} is not here: using the small embedded {what}, "
                      f"{getattr(args, names[0])}. The published results do not apply to it.\n"
                      "*** `bash setup.sh` fetches the official files.", file=sys.stderr)
    return args


def tokenizer_path(args: argparse.Namespace) -> str:
    """The tokenizer that was named, or else that of the checkpoint."""
    return args.tokenizer or beside(args.pretrained_model_path, TOKENIZER_MODEL)


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse names of output files that would fail, or be taken for other outputs, later."""
    if args.option == "generate":
        outputs = [args.generated_sentence_low_temp_out, args.generated_sentence_high_temp_out]
    else:
        outputs = [args.dev_out, args.test_out]
        for split, name in zip(("dev", "test"), outputs):
            ending = f"{split}-{KIND[args.option]}-output.txt"
            if not name.endswith(ending):
                raise InputError(f"--{split}_out {name}: with --option {args.option} the name must "
                                 f"end in {ending}")
    if os.path.realpath(outputs[0]) == os.path.realpath(outputs[1]):
        raise InputError(f"{outputs[0]} and {outputs[1]} are one file; choose two")
    if args.option in ("finetune", "lora"):
        outputs += [args.filepath, resume_path(args)]
    inputs = [getattr(args, name) for name in (*DATA, "pretrained_model_path")]
    inputs = {os.path.realpath(path) for path in (*inputs, tokenizer_path(args))}
    for name in outputs:
        path = os.path.realpath(name)
        if os.path.isdir(path) or path in inputs:
            raise InputError(f"{name}: is a folder or an input of this run; choose another name")
        with suppress(FileNotFoundError):
            os.stat(path)  # raises another OSError where the name is too long
        is_device = os.path.exists(path) and not os.path.isfile(path)
        if not is_device and not os.access(os.path.dirname(path), os.W_OK):
            raise InputError(f"{name}: {os.path.dirname(path)} is not a folder that can be written "
                             "to; make it, or choose another")


# ------------------------------------------------------------------------------------------- data

Row = tuple[str, int, list[int]]  # a sentence, its label and its token ids


class Data(NamedTuple):
    """What a job reads before its first step."""

    tokenizer: Tokenizer
    num_labels: int
    train: list[Row]
    dev: list[Row]
    test: list[Row]


def create_data(
    filename: str, tokenizer: Tokenizer, flag: str = "train", lower: bool = False,
    eos: bool = True, prompt_suffix: str | None = None,
) -> list[Row] | tuple[list[Row], int]:
    """Read and tokenize a file of lines `label ||| sentence`.

    Args:
        lower: whether to lowercase the sentences.
        eos: whether the token ids end in `</s>`; they start with `<s>`.
        prompt_suffix: to follow each sentence, after a space. It is never cut.
    Returns:
        (sentence, label, token ids) for each line; with `flag='train'` the pair of these and the
        number of different labels.
    Raises:
        OSError, InputError: as `read_examples`.
    """
    ending = tokenizer.sp_model.encode(prompt_suffix) if prompt_suffix else []
    ending += [tokenizer.eos_id] * eos
    rows = []
    for label, sentence in read_examples(filename):
        sentence = sentence.lower() if lower else sentence
        ids = tokenizer.encode(sentence, bos=True, eos=False) + ending
        rows.append((f"{sentence} {prompt_suffix}" if prompt_suffix else sentence, label, ids))
    print(f"load {len(rows)} data from {filename}")
    return (rows, len({label for _, label, _ in rows})) if flag == "train" else rows


class LlamaDataset(Dataset):
    """Rows of `create_data`, and how they become batches.

    Args:
        eos: whether the rows of a batch end in `</s>`, whether or not those of `dataset` do.
        tokenizer: default: the one that `args` names, or else `tokenizer.model`.
    """

    def __init__(
        self, dataset: list[Row], args: argparse.Namespace, eos: bool = False,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.dataset, self.p, self.eos = dataset, args, eos
        self.tokenizer = tokenizer or Tokenizer(
            args.max_sentence_len, getattr(args, "tokenizer", None))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> Row:
        return self.dataset[idx]

    def pad_data(self, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Token ids (bs, longest of the rows), right-padded; labels (bs,); sentences."""
        sents, labels, token_ids = zip(*rows)
        eos = [self.tokenizer.eos_id]
        plain = [ids[:-1] if ids[-1:] == eos else ids for ids in token_ids]
        padded = pad_sequence([torch.tensor(ids + eos * self.eos) for ids in plain],
                              batch_first=True, padding_value=self.tokenizer.pad_id)
        return padded, torch.tensor(labels), list(sents)

    def collate_fn(self, rows: list[Row]) -> dict[str, Any]:
        """`pad_data` as a dict."""
        token_ids, labels, sents = self.pad_data(rows)
        return {"token_ids": token_ids, "labels": labels, "sents": sents}


def load_data(args: argparse.Namespace, prompt_suffix: str | None = None) -> Data:
    """Read and tokenize all three splits, each sentence once, and check the labels."""
    tokenizer = Tokenizer(args.max_sentence_len, tokenizer_path(args))
    train, num_labels = create_data(args.train, tokenizer, "train", eos=False)
    dev, test = (create_data(path, tokenizer, "test", eos=False, prompt_suffix=prompt_suffix)
                 for path in (args.dev, args.test))
    for path, rows in ((args.train, train), (args.dev, dev), (args.test, test)):
        lowest = 0 if path == args.train else PLACEHOLDER
        for line, (_, label, _) in enumerate(rows, start=1):
            if not lowest <= label < num_labels:
                raise InputError(f"{path}, line {line}: label {label} is not from 0 to "
                                 f"{num_labels - 1}; {args.train} has {num_labels} labels")
    return Data(tokenizer, num_labels, train, dev, test)


def make_loader(
    rows: list[Row], args: argparse.Namespace, tokenizer: Tokenizer, shuffle: bool = False
) -> DataLoader:
    """Batches of `--batch_size` rows."""
    dataset = LlamaDataset(rows, args, tokenizer=tokenizer)
    return DataLoader(dataset, args.batch_size, shuffle, collate_fn=dataset.collate_fn)


# ---------------------------------------------------------------------------------- what jobs share

def seed_everything(seed: int = 11711) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators, CUDA's included."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def open_device(args: argparse.Namespace) -> torch.device:
    """The device of a job; --dtype bfloat16 is refused where it would only lose accuracy."""
    # On CUDA, TF32 was faster in every job: autocast adds launches (benchmarks/README.md).
    if args.dtype == "bfloat16" and (args.use_gpu or not bfloat16_is_faster()):
        raise InputError("--dtype bfloat16: slower than float32 on this device; leave it out")
    return pick_device(args.use_gpu)


def autocast(args: argparse.Namespace, device: torch.device) -> AbstractContextManager:
    """Matrix products in --dtype."""
    return torch.autocast(device.type, torch.bfloat16, enabled=args.dtype == "bfloat16")


def fit_to_device(
    model: torch.nn.Module, llama: Llama, tokenizer: Tokenizer, device: torch.device
) -> torch.nn.Module:
    """Move a model to its device, once its `llama` is known to have embeddings for all tokens."""
    if tokenizer.n_words > llama.vocab_size:
        raise InputError(f"{tokenizer.model_path} has {tokenizer.n_words} pieces, the checkpoint "
                         f"embeddings for {llama.vocab_size}: name the tokenizer that belongs to "
                         "the checkpoint with --tokenizer")
    if device.type == "cpu":
        prefer_onednn(llama.params.dim)
    return model.to(device)


@torch.inference_mode()
def model_eval(
    dataloader: DataLoader, model: torch.nn.Module, device: torch.device
) -> tuple[float, float, list[int], list[int], list[str]]:
    """Classify all sentences, in the order of the loader.

    Returns:
        Accuracy and macro F1 (rows with the placeholder label -1 have no part in them; NaN where
        all have it), predictions, labels, sentences.
    """
    from sklearn.metrics import f1_score  # takes a second, which --option generate does not need

    model.eval()
    predictions, labels, sents = [], [], []
    for batch in progress(dataloader, "evaluate"):
        predictions += model(batch["token_ids"].to(device)).argmax(dim=-1).tolist()
        labels += batch["labels"].tolist()
        sents += batch["sents"]
    accuracy = macro_f1 = math.nan
    known_labels, known_predictions = without_placeholders(labels, predictions)
    if known_labels:
        accuracy = float(np.mean(np.equal(known_labels, known_predictions)))
        macro_f1 = f1_score(known_labels, known_predictions, average="macro")
    return accuracy, macro_f1, predictions, labels, sents


def without_placeholders(
    labels: list[int], predictions: list[int]
) -> tuple[list[int], list[int]]:
    """Leave out the rows whose label is not public."""
    known = [i for i, label in enumerate(labels) if label != PLACEHOLDER]
    return [labels[i] for i in known], [predictions[i] for i in known]


def write_predictions_to_file(
    split: str, outfile: str, acc: float, pred: list[int], sents: list[str]
) -> None:
    """Print the accuracy of a split and write its predictions, `label ||| sentence` a line."""
    print(f"{split} acc :: {acc:.3f}")
    with atomic_write(outfile, "w") as file:
        file.writelines(f"{p}{SEPARATOR}{sentence}\n" for p, sentence in zip(pred, sents))
    print(f"{split} predictions are in {outfile}")


def evaluate(
    args: argparse.Namespace, model: torch.nn.Module, data: Data, device: torch.device
) -> None:
    """Classify dev and test, write the predictions, and print a report on each."""
    from sklearn.metrics import classification_report

    splits = ("dev", data.dev, args.dev_out), ("test", data.test, args.test_out)
    for split, rows, outfile in splits:
        with autocast(args, device):
            acc, _, pred, labels, sents = model_eval(
                make_loader(rows, args, data.tokenizer), model, device)
        write_predictions_to_file(split, outfile, acc, pred, sents)
        labels, pred = without_placeholders(labels, pred)
        if labels:
            print(classification_report(labels, pred, digits=4, zero_division=0))
        else:
            print(f"All labels of {split} are placeholders ({PLACEHOLDER}): nothing to report.")


# ---------------------------------------------------------------------------- generate and prompt

def generate_sentence(
    args: argparse.Namespace, prefix: str, outfile: str, max_new_tokens: int = 75,
    temperature: float = 0.0, llama: Llama | None = None,
) -> None:
    """Continue a text, print it and write it to a file; `llama` saves loading the model again."""
    args = resolve(args)
    tokenizer = Tokenizer(None, tokenizer_path(args))
    device = open_device(args)
    llama = llama or load_llama(args)
    llama = fit_to_device(llama, llama, tokenizer, device)
    ids = torch.tensor([tokenizer.encode(prefix, bos=True, eos=False)], device=device)
    with autocast(args, device):
        continued = llama.generate(ids, max_new_tokens, temperature)
    text = tokenizer.decode(continued[0].tolist())
    with atomic_write(outfile, "w") as file:
        file.write(text)
    print(f"\nTemperature {temperature} (written to {outfile}):\n{text}")


def load_llama(args: argparse.Namespace) -> Llama:
    """Load the checkpoint and say so."""
    llama = load_pretrained(args.pretrained_model_path)
    print(f"load model from {args.pretrained_model_path}")
    return llama


def generate(args: argparse.Namespace) -> None:
    """Continue the prompt, greedily and by sampling, into two files."""
    check_outputs(args)
    llama = load_llama(args)
    generate_sentence(args, args.prompt, args.generated_sentence_low_temp_out, llama=llama)
    generate_sentence(args, args.prompt, args.generated_sentence_high_temp_out, temperature=1.0,
                      llama=llama)


def question(names: list[str]) -> str:
    """What is asked about every sentence; the model's next token is the answer."""
    *others, last = names
    choices = " or ".join(names) if len(names) < 3 else f"{', '.join(others)}, or {last}"
    return f"Is this movie {choices}? This movie is "


def test_with_prompting(args: argparse.Namespace) -> None:
    """Classify dev and test by asking the language model, without any training."""
    args = resolve(args)
    check_outputs(args)
    device = open_device(args)
    names = read_label_names(args.label_names)
    data = load_data(args, question(names))
    if len(names) != data.num_labels:
        raise InputError(f"{args.label_names}: {len(names)} names for the {data.num_labels} labels "
                         f"of {args.train}; it needs one for each")
    config = SimpleNamespace(
        num_labels=data.num_labels, pretrained_model_path=args.pretrained_model_path)
    uncut = Tokenizer(None, data.tokenizer.model_path)  # names are not cut to --max_sentence_len
    model = LlamaZeroShotClassifier(config, uncut, names)
    print(f"load model from {args.pretrained_model_path}")
    evaluate(args, fit_to_device(model, model.llama, uncut, device), data, device)


# --------------------------------------------------------------------------------- finetune, lora

def train(args: argparse.Namespace, data: Data | None = None) -> None:
    """Train all parameters, or LoRA matrices and head, and save the model of the best epoch.

    Args:
        data: of `load_data`, where it has been read already.
    """
    args = resolve(args)
    check_outputs(args)
    device = open_device(args)
    data = data or load_data(args)
    model, config = make_classifier(args, data, device)
    optimizer = AdamW(trainable(model).values(), lr=args.lr)
    shuffled = make_loader(data.train, args, data.tokenizer, shuffle=True)
    loaders = [make_loader(rows, args, data.tokenizer) for rows in (data.train, data.dev)]
    options = options_of(args, data.tokenizer)
    done, best = restore_checkpoint(args, options, model, optimizer)
    args.resume = False  # a resumed run saves the same bytes
    for epoch in range(done, args.epochs):
        started = time.monotonic()
        loss = train_epoch(args, model, optimizer, shuffled, device, epoch)
        with autocast(args, device):
            train_acc, *_ = model_eval(loaders[0], model, device)
            dev_acc, dev_f1, *_ = model_eval(loaders[1], model, device)
        weights = {name: p.detach().to("cpu", copy=True) for name, p in trainable(model).items()}
        improved = not dev_acc <= best["dev_acc"]  # also where dev has no labels, and this is NaN
        if improved:
            best = {"epoch": epoch, "dev_acc": dev_acc, "weights": weights}
            save_model(merged(model), optimizer, args, config, args.filepath)
        save_file(resume_path(args), {
            "options": options, "done": epoch + 1, "best": best, "weights": weights,
            "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if args.use_gpu else None})
        print(f"epoch {epoch}: train loss :: {loss:.3f}, train acc :: {train_acc:.3f}, dev acc :: "
              f"{dev_acc:.3f}, dev macro F1 :: {dev_f1:.3f}, {time.monotonic() - started:.0f} s"
              f"{', best so far' * improved}")
    restore_weights(model, best["weights"])
    # Saved again: another run may have taken the name, which tells neither data nor seed.
    save_model(merged(model), optimizer, args, config, args.filepath)
    print(f"epoch {best['epoch']} was the best; its model is in {args.filepath}")


train_lora = train  # they differ only in what `make_classifier` has trained


def make_classifier(
    args: argparse.Namespace, data: Data, device: torch.device
) -> tuple[LlamaEmbeddingClassifier, SimpleNamespace]:
    """A classifier in which just what --option trains asks for gradients, and its configuration."""
    config = SimpleNamespace(
        hidden_dropout_prob=args.hidden_dropout_prob, num_labels=data.num_labels, data_dir=".",
        pretrained_model_path=args.pretrained_model_path, option=args.option)
    model = LlamaEmbeddingClassifier(config)
    print(f"load model from {args.pretrained_model_path}")
    if args.option == "lora":
        if args.lora_rank > model.llama.params.dim:
            raise InputError(f"--lora_rank {args.lora_rank}: must not exceed the model's width, "
                             f"{model.llama.params.dim}")
        model.llama.requires_grad_(False)
        apply_lora(model.llama, args.lora_rank, args.lora_alpha)
    lora, count, percent = count_lora_parameters(model)
    print(f"train {count:,} parameters on {device}" + f", {lora:,} ({percent:.1f}%) of them LoRA's"
          * (args.option == "lora"))
    return fit_to_device(model, model.llama, data.tokenizer, device), config


def train_epoch(
    args: argparse.Namespace, model: LlamaEmbeddingClassifier, optimizer: AdamW,
    loader: DataLoader, device: torch.device, epoch: int,
) -> float:
    """Make one pass over the training data; return the mean loss of a sentence.

    Raises:
        FloatingPointError: the loss or a parameter is no longer finite.
    """
    model.train()
    total = 0.0
    for step, batch in enumerate(progress(loader, f"train epoch {epoch}")):
        with autocast(args, device):
            log_probs = model(batch["token_ids"].to(device))
        labels = batch["labels"].to(device)
        loss = F.nll_loss(log_probs.float(), labels, reduction="sum") / args.batch_size
        total += loss.item() * args.batch_size
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step} of epoch {epoch}")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if not all(p.isfinite().all() for p in trainable(model).values()):
        raise FloatingPointError(f"a parameter is not finite at the end of epoch {epoch}")
    return total / len(loader.dataset)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that ask for a gradient."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def restore_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Set the trained parameters."""
    for name, parameter in trainable(model).items():
        parameter.copy_(weights[name])


def merged(model: torch.nn.Module) -> torch.nn.Module:
    """The model without LoRA layers: itself, or a copy into which they are merged."""
    has_lora = any("lora_" in name for name, _ in model.named_parameters())
    return merge_lora_weights(copy.deepcopy(model)) if has_lora else model


def save_model(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, args: argparse.Namespace,
    config: SimpleNamespace, filepath: str,
) -> None:
    """Save a model for `test`, which needs no `optimizer`, loadable with `weights_only=True`."""
    def plain(namespace: Any) -> dict[str, Any]:
        return {name: value if isinstance(value, (str, int, float, type(None))) else str(value)
                for name, value in vars(namespace).items()}

    save_file(filepath, {"model": dict(model.state_dict()), "model_config": plain(config),
                         "args": plain(args)})


def resume_path(args: argparse.Namespace) -> str:
    """What --resume continues from. The name of the dev output tells runs apart."""
    return f"{args.dev_out.removesuffix('.txt')}.resume.pt"


def options_of(args: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, Any]:
    """Everything that determines the result of a training run; files by their SHA-256."""
    names = ("option", "epochs", "lr", "seed", "batch_size", "hidden_dropout_prob",
             "max_sentence_len", "dtype", "use_gpu", "lora_rank", "lora_alpha")
    files = {"--train": args.train, "--dev": args.dev, "--tokenizer": tokenizer.model_path,
             "--pretrained-model-path": args.pretrained_model_path}
    return {f"--{name}": getattr(args, name) for name in names} | {
        name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in files.items()}


def restore_checkpoint(
    args: argparse.Namespace, options: dict[str, Any], model: torch.nn.Module, optimizer: AdamW
) -> tuple[int, dict[str, Any]]:
    """Bring back what an interrupted run had reached, if --resume asks for it.

    Returns:
        How many epochs are done, and the best of them.
    """
    path = resume_path(args)
    if not args.resume or not os.path.exists(path):
        if args.resume or os.path.exists(path):
            print(f"--resume: there is no {path}; starting from the beginning" if args.resume else
                  f"{path}: replaced after the first epoch; --resume would have continued that run")
        return 0, {"epoch": None, "dev_acc": -math.inf}
    saved = load_file(path)
    before = saved.get("options") if isinstance(saved, dict) else None
    if not isinstance(before, dict):
        raise InputError(f"{path}: not of an interrupted run; leave out --resume to start afresh")
    if changed := [name for name, value in options.items() if before.get(name) != value]:
        raise InputError(f"{path}: that run had another {', '.join(changed)}; use the same options "
                         "and files, or leave out --resume to start afresh")
    restore_weights(model, saved["weights"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["rng"])
    if args.use_gpu:
        torch.cuda.set_rng_state(saved["cuda_rng"])
    print(f"resume after {saved['done']} of {args.epochs} epochs")
    return saved["done"], saved["best"]


def test(args: argparse.Namespace, data: Data | None = None) -> None:
    """Evaluate the model that `train` has saved on dev and test.

    Args:
        data: of `load_data`, where it has been read already.
    """
    args = resolve(args)
    check_outputs(args)
    device = open_device(args)
    saved = load_file(args.filepath)
    model = LlamaEmbeddingClassifier(SimpleNamespace(**saved["model_config"]))
    model.load_state_dict(saved["model"])
    print(f"load model from {args.filepath}")
    data = data or load_data(args)
    evaluate(args, fit_to_device(model, model.llama, data.tokenizer, device), data, device)


def train_and_test(args: argparse.Namespace) -> None:
    """Train, evaluate the model of the best epoch, and remove what --resume would need."""
    check_outputs(args)
    data = load_data(args)
    train(args, data)
    test(args, data)
    with suppress(OSError):
        os.unlink(resume_path(args))


# ------------------------------------------------------------------------------------------- main

JOBS = {"generate": generate, "prompt": test_with_prompting,
        "finetune": train_and_test, "lora": train_and_test}


def main(argv: list[str] | None = None) -> int:
    """Run one job; return the exit status.

    0: done. 1: training diverged, or memory ran out. 2: bad input. 130: interrupted.
    """
    configure_stdout()
    args = get_args(argv)
    started = time.time()
    try:
        args = resolve(args)
        seed_everything(args.seed)
        JOBS[args.option](args)
        return 0
    except KeyboardInterrupt:
        path, advice = resume_path(args), ""
        # An older file may be of another run, which this command cannot resume.
        if os.path.exists(path) and (args.resume or os.path.getmtime(path) >= started):
            advice = f" with --resume continues from {path}"
        return fail(PROGRAM, f"interrupted; the same command{advice or ' starts again'}", 130)
    except FloatingPointError as error:
        return fail(PROGRAM, f"training diverged: {error}; try a smaller --lr than {args.lr:g}. "
                             f"{args.filepath} has the best epoch so far, if one was finished", 1)
    except (OSError, InputError, CheckpointError) as error:
        return fail(PROGRAM, error)
    except (MemoryError, RuntimeError) as error:
        out_of_memory = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
        if not out_of_memory and "DefaultCPUAllocator" not in str(error):
            raise
        return fail(PROGRAM, "out of memory; a smaller --batch_size or --max_sentence_len needs "
                             "less", 1)


if __name__ == "__main__":
    sys.exit(main())
