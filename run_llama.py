"""Command line of Mini-Llama: continue a story, or classify sentences in one of three ways.

    python run_llama.py --option generate | prompt | finetune | lora
"""

import argparse
import hashlib
import math
import os
import random
import sys
import time
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from llama import CheckpointError, Llama, load_file, load_pretrained
from lora import apply_lora, count_lora_parameters, merged_copy
from optimizer import AdamW
from tokenizer import TOKENIZER_MODEL, Tokenizer
from utils import (
    SEPARATOR,
    InputError,
    Parser,
    atomic_write,
    beside,
    check_writable,
    checked,
    configure_stdout,
    fail,
    is_out_of_memory,
    pick_device,
    positive_int,
    positive_number,
    prefer_onednn,
    progress,
    read_examples,
    read_label_names,
    save_file,
)

PROMPT = ("Victor Frankenstein, a young scientist obsessed with uncovering the secrets of life, "
          "succeeds in animating a creature assembled from")
PLACEHOLDER = -1  # the label of sentences whose label is not public
KIND = {"prompt": "prompting", "finetune": "finetuning", "lora": "lora"}  # in output names
DEMO = Path(__file__).parent / "demo"
EMBEDDED = {"model": {"pretrained_model_path": "stories.pt"},
            "data": {"train": "reviews2-train.txt", "dev": "reviews2-dev.txt",
                     "test": "reviews2-test.txt", "label_names": "reviews2-label-mapping.json"}}


# ---------------------------------------------------------------------------------- command line

def get_args(argv: list[str] | None = None) -> Namespace:
    """Parse the command line (default: `sys.argv`)."""
    parser = Parser(prog="run_llama.py", description=__doc__.split("\n")[0], allow_abbrev=False,
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument_group("the job").add_argument
    add("--option", choices=("generate", *KIND), default="generate", help="what to do")
    add("--use_gpu", action="store_true", help="run on CUDA rather than on the CPU")
    add("--dtype", choices=("float32", "bfloat16"), default="float32",
        help="of matrix products; weights and optimizer stay float32")
    add("--seed", type=checked(int, lambda n: 0 <= n < 2**32, "32-bit unsigned integer"),
        default=1337, help="of everything random")
    add("--pretrained-model-path", default="stories42M.pt", metavar="FILE", help="checkpoint")
    add("--tokenizer", metavar="FILE", help="SentencePiece model; None: tokenizer.model beside the "
        "checkpoint, or else in this folder")
    add("--max_sentence_len", type=positive_int, help="cut sentences to this many tokens")

    add = parser.add_argument_group("generate").add_argument
    add("--prompt", type=checked(str, lambda text: text.encode() or True, "UTF-8 text"),
        default=PROMPT, help="text to continue")
    add("--generated_sentence_low_temp_out", default="generated-sentence-temp-0.txt",
        metavar="FILE", help="the greedy story")
    add("--generated_sentence_high_temp_out", default="generated-sentence-temp-1.txt",
        metavar="FILE", help="the sampled story")

    add = parser.add_argument_group("data, for prompt, finetune and lora").add_argument
    for split in ("train", "dev", "test"):
        add(f"--{split}", default=f"data/cfimdb-{split}.txt", metavar="FILE",
            help="labelled sentences")
    add("--label-names", default="data/cfimdb-label-mapping.json", metavar="FILE",
        help="names of the labels, for prompt")
    for split in ("dev", "test"):
        add(f"--{split}_out", default=f"cfimdb-{split}-prompting-output.txt", metavar="FILE",
            help=f"predictions; must end in {split}-{{{','.join(KIND.values())}}}-output.txt")
    add("--batch_size", type=positive_int, default=8, help="sentences a batch")

    add = parser.add_argument_group("finetune and lora").add_argument
    add("--epochs", type=positive_int, default=5, help="passes over the training data")
    add("--lr", type=positive_number, default=2e-5, help="learning rate")
    add("--hidden_dropout_prob", type=checked(float, lambda p: 0 <= p < 1, "probability below 1"),
        default=0.3, help="dropout before the classifier layer")
    add("--lora_rank", type=positive_int, default=4, help="rank of the LoRA matrices")
    add("--lora_alpha", type=checked(float, math.isfinite, "finite number"), default=1.0,
        help="scale of the LoRA update, divided by the rank")
    add("--resume", action="store_true",
        help="continue the same, interrupted run after its last finished epoch")
    return parser.parse_args(argv)


def prepare(args: Namespace) -> Namespace:
    """Complete the options of a job, and refuse output files that would fail after the work.

    What the assignment does not have may be missing: it gets its default. `filepath`, where the
    model is saved, gets the assignment's name for it.
    """
    args = Namespace(**vars(get_args([])) | vars(args))
    args.filepath = getattr(args, "filepath", f"{args.option}-{args.epochs}-{args.lr}.pt")
    use_embedded(args)
    outputs = [args.generated_sentence_low_temp_out, args.generated_sentence_high_temp_out]
    if args.option != "generate":
        outputs = [args.dev_out, args.test_out]
        for split, name in zip(("dev", "test"), outputs):
            ending = f"{split}-{KIND[args.option]}-output.txt"
            if not name.endswith(ending):
                raise InputError(f"--{split}_out {name}: with --option {args.option} the name must "
                                 f"end in {ending}")
    if args.option in ("finetune", "lora"):
        outputs += [args.filepath, resume_path(args)]
    inputs = [getattr(args, name) for files in EMBEDDED.values() for name in files]
    taken = {os.path.realpath(path) for path in (*inputs, tokenizer_path(args))}
    for name in outputs:
        if os.path.realpath(name) in taken:
            raise InputError(f"{name}: is an input or another output of this run; choose another")
        taken.add(os.path.realpath(name))
        check_writable(name)
    return args


def use_embedded(args: Namespace) -> None:
    """Where official files are by default, and none of them is, name the embedded ones, loudly."""
    defaults = vars(get_args([]))
    for what, files in EMBEDDED.items():
        paths = [getattr(args, name) for name in files]
        if paths != [defaults[name] for name in files] or any(map(os.path.exists, paths)):
            continue
        if DEMO.is_dir():
            vars(args).update({name: str(DEMO / file) for name, file in files.items()})
            if what == "model" or args.option != "generate":
                print(f"*** WARNING: {paths[0]} is not here: using the small embedded {what}, "
                      f"{DEMO / [*files.values()][0]}. The published results do not apply to it.\n"
                      "*** `bash setup.sh` fetches the official files.", file=sys.stderr)


def tokenizer_path(args: Namespace) -> str:
    """The tokenizer that was named, or else that of the checkpoint."""
    return args.tokenizer or beside(args.pretrained_model_path, TOKENIZER_MODEL)


def resume_path(args: Namespace) -> str:
    """What --resume continues from. The name of the dev output tells runs apart."""
    return f"{args.dev_out.removesuffix('.txt')}.resume.pt"


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
        self, dataset: list[Row], args: Namespace, eos: bool = False,
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
        return dict(zip(("token_ids", "labels", "sents"), self.pad_data(rows)))


def load_data(args: Namespace, prompt_suffix: str | None = None) -> Data:
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
    rows: list[Row], args: Namespace, tokenizer: Tokenizer, shuffle: bool = False
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


def to_device(
    model: nn.Module, args: Namespace, tokenizer: Tokenizer, device: torch.device
) -> nn.Module:
    """Move a model to the device of its job, once its embeddings are known to do for all tokens."""
    llama = getattr(model, "llama", model)
    if tokenizer.n_words > llama.vocab_size:
        raise InputError(f"{tokenizer.model_path} has {tokenizer.n_words} pieces, the checkpoint "
                         f"embeddings for {llama.vocab_size}: name the tokenizer that belongs to "
                         "the checkpoint with --tokenizer")
    if device.type == "cpu":
        prefer_onednn(llama.params.dim)
    if args.dtype == "bfloat16":
        model.forward = torch.autocast(device.type, torch.bfloat16)(model.forward)
    return model.to(device)


@torch.inference_mode()
def model_eval(
    dataloader: DataLoader, model: nn.Module, device: torch.device
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


def evaluate(args: Namespace, model: nn.Module, data: Data, device: torch.device) -> None:
    """Classify dev and test, write the predictions, and print a report on each."""
    from sklearn.metrics import classification_report

    splits = ("dev", data.dev, args.dev_out), ("test", data.test, args.test_out)
    for split, rows, outfile in splits:
        loader = make_loader(rows, args, data.tokenizer)
        acc, _, pred, labels, sents = model_eval(loader, model, device)
        write_predictions_to_file(split, outfile, acc, pred, sents)
        labels, pred = without_placeholders(labels, pred)
        if labels:
            print(classification_report(labels, pred, digits=4, zero_division=0))
        else:
            print(f"All labels of {split} are placeholders ({PLACEHOLDER}): nothing to report.")


# ---------------------------------------------------------------------------- generate and prompt

def load_llama(args: Namespace) -> Llama:
    """Load the language model onto the device of the job."""
    device = pick_device(args.use_gpu, args.dtype)
    llama = load_pretrained(args.pretrained_model_path)
    print(f"load model from {args.pretrained_model_path}")
    return to_device(llama, args, Tokenizer(None, tokenizer_path(args)), device)


def generate_sentence(
    args: Namespace, prefix: str, outfile: str, max_new_tokens: int = 75,
    temperature: float = 0.0, llama: Llama | None = None,
) -> None:
    """Continue a text, print it and write it to a file; `llama` saves loading the model again."""
    args = prepare(args)
    llama = llama or load_llama(args)
    tokenizer = Tokenizer(None, tokenizer_path(args))
    ids = tokenizer.encode(prefix, bos=True, eos=False)
    ids = torch.tensor([ids], device=llama.output.weight.device)
    text = tokenizer.decode(llama.generate(ids, max_new_tokens, temperature)[0].tolist())
    with atomic_write(outfile, "w") as file:
        file.write(text)
    print(f"\nTemperature {temperature} (written to {outfile}):\n{text}")


def generate(args: Namespace) -> None:
    """Continue the prompt, greedily and by sampling, into two files."""
    llama = load_llama(args)
    generate_sentence(args, args.prompt, args.generated_sentence_low_temp_out, llama=llama)
    generate_sentence(args, args.prompt, args.generated_sentence_high_temp_out, temperature=1.0,
                      llama=llama)


def question(names: list[str]) -> str:
    """What is asked about every sentence; the model's next token is the answer."""
    *others, last = names
    choices = " or ".join(names) if len(names) < 3 else f"{', '.join(others)}, or {last}"
    return f"Is this movie {choices}? This movie is "


def test_with_prompting(args: Namespace) -> None:
    """Classify dev and test by asking the language model, without any training."""
    args = prepare(args)
    device = pick_device(args.use_gpu, args.dtype)
    names = read_label_names(args.label_names)
    data = load_data(args, question(names))
    if len(names) != data.num_labels:
        raise InputError(f"{args.label_names}: {len(names)} names for the {data.num_labels} labels "
                         f"of {args.train}; it needs one for each")
    data.tokenizer.max_len = None  # which was for sentences: names are not cut
    model = LlamaZeroShotClassifier(SimpleNamespace(
        num_labels=data.num_labels, pretrained_model_path=args.pretrained_model_path),
        data.tokenizer, names)
    print(f"load model from {args.pretrained_model_path}")
    evaluate(args, to_device(model, args, data.tokenizer, device), data, device)


# --------------------------------------------------------------------------------- finetune, lora

def train(args: Namespace, data: Data | None = None) -> None:
    """Train all parameters, or LoRA matrices and head, and save the model of the best epoch.

    `data` saves loading it again.
    """
    args = prepare(args)
    device = pick_device(args.use_gpu, args.dtype)
    data = data or load_data(args)
    model, config = make_classifier(args, data, device)
    optimizer = AdamW(trainable(model).values(), lr=args.lr)
    shuffled = make_loader(data.train, args, data.tokenizer, shuffle=True)
    loaders = [make_loader(rows, args, data.tokenizer) for rows in (data.train, data.dev)]
    state = load_state(args, data.tokenizer, model, optimizer)
    args.resume = False  # a resumed run saves the same bytes
    for epoch in range(state["done"], args.epochs):
        started = time.monotonic()
        loss = train_epoch(args, model, optimizer, shuffled, device, epoch)
        (train_acc, *_), (dev_acc, dev_f1, *_) = [
            model_eval(loader, model, device) for loader in loaders]
        state |= {
            "done": epoch + 1, "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if args.use_gpu else None,
            "weights": {name: p.detach().to("cpu", copy=True)
                        for name, p in trainable(model).items()}}
        improved = not dev_acc <= state["best_dev_acc"]  # also where dev has no labels: NaN
        if improved:
            state |= {"best": epoch, "best_dev_acc": dev_acc, "best_weights": state["weights"]}
            save_model(merged_copy(model), optimizer, args, config, args.filepath)
        save_file(resume_path(args), state)
        print(f"epoch {epoch}: train loss :: {loss:.3f}, train acc :: {train_acc:.3f}, dev acc :: "
              f"{dev_acc:.3f}, dev macro F1 :: {dev_f1:.3f}, {time.monotonic() - started:.0f} s"
              f"{', best so far' * improved}")
    model.load_state_dict(model.state_dict() | state["best_weights"])
    # Saved again: another run may have taken the name, which tells neither data nor seed.
    save_model(merged_copy(model), optimizer, args, config, args.filepath)
    print(f"epoch {state['best']} was the best; its model is in {args.filepath}")


train_lora = train  # they differ only in what `make_classifier` has trained


def make_classifier(
    args: Namespace, data: Data, device: torch.device
) -> tuple[nn.Module, SimpleNamespace]:
    """A classifier in which just what --option trains asks for gradients, and its configuration."""
    config = SimpleNamespace(
        hidden_dropout_prob=args.hidden_dropout_prob, num_labels=data.num_labels, data_dir=".",
        pretrained_model_path=args.pretrained_model_path, option=args.option)
    model = LlamaEmbeddingClassifier(config)
    print(f"load model from {args.pretrained_model_path}")
    if args.option == "lora":
        if args.lora_rank > (dim := model.llama.params.dim):
            raise InputError(f"--lora_rank {args.lora_rank}: must not exceed the model's width, "
                             f"{dim}")
        model.llama.requires_grad_(False)
        apply_lora(model.llama, args.lora_rank, args.lora_alpha)
    lora, count, percent = count_lora_parameters(model)
    print(f"train {count:,} parameters on {device}" + f", {lora:,} ({percent:.1f}%) of them LoRA's"
          * (args.option == "lora"))
    return to_device(model, args, data.tokenizer, device), config


def train_epoch(
    args: Namespace, model: nn.Module, optimizer: AdamW, loader: DataLoader, device: torch.device,
    epoch: int,
) -> float:
    """Make one pass over the training data; return the mean loss of a sentence.

    Raises:
        FloatingPointError: the loss or a parameter is no longer finite.
    """
    model.train()
    total = 0.0
    for step, batch in enumerate(progress(loader, f"train epoch {epoch}")):
        log_probs = model(batch["token_ids"].to(device)).float()
        labels = batch["labels"].to(device)
        loss = F.nll_loss(log_probs, labels, reduction="sum") / args.batch_size
        total += loss.item() * args.batch_size
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step} of epoch {epoch}")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if not all(p.isfinite().all() for p in trainable(model).values()):
        raise FloatingPointError(f"a parameter is not finite at the end of epoch {epoch}")
    return total / len(loader.dataset)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that ask for a gradient."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save_model(
    model: nn.Module, optimizer: torch.optim.Optimizer, args: Namespace, config: SimpleNamespace,
    filepath: str,
) -> None:
    """Save a model for `test`, which needs no `optimizer`, loadable with `weights_only=True`."""
    def plain(namespace: Any) -> dict[str, Any]:
        return {name: value if isinstance(value, (str, int, float, type(None))) else str(value)
                for name, value in vars(namespace).items()}

    save_file(filepath, {"model": dict(model.state_dict()), "model_config": plain(config),
                         "args": plain(args)})


def load_state(
    args: Namespace, tokenizer: Tokenizer, model: nn.Module, optimizer: AdamW
) -> dict[str, Any]:
    """Where training starts: anew, or with --resume after the last epoch of an interrupted run."""
    path, options = resume_path(args), fingerprint(args, tokenizer)
    if not args.resume or not os.path.exists(path):
        if args.resume:
            print(f"--resume: there is no {path}; starting from the beginning")
        elif os.path.exists(path):
            print(f"{path}: replaced after the first epoch; --resume would have continued that run")
        return {"options": options, "done": 0, "best_dev_acc": -math.inf}
    state = load_file(path)
    before = state.get("options", {}) if isinstance(state, dict) else {}
    if changed := [name for name, value in options.items() if before.get(name) != value]:
        raise InputError(f"{path}: that run had another {', '.join(changed)}; use the same options "
                         "and files, or leave out --resume to start afresh")
    model.load_state_dict(model.state_dict() | state["weights"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    if args.use_gpu:
        torch.cuda.set_rng_state(state["cuda_rng"])
    print(f"resume after {state['done']} of {args.epochs} epochs")
    return state


def fingerprint(args: Namespace, tokenizer: Tokenizer) -> dict[str, Any]:
    """Everything that determines the result of a training run; files by their SHA-256."""
    names = ("option", "epochs", "lr", "seed", "batch_size", "hidden_dropout_prob",
             "max_sentence_len", "dtype", "use_gpu", "lora_rank", "lora_alpha")
    files = {"--train": args.train, "--dev": args.dev, "--tokenizer": tokenizer.model_path,
             "--pretrained-model-path": args.pretrained_model_path}
    return {f"--{name}": getattr(args, name) for name in names} | {
        name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in files.items()}


def test(args: Namespace, data: Data | None = None) -> None:
    """Evaluate the model that `train` has saved on dev and test; `data` saves loading it again."""
    args = prepare(args)
    device = pick_device(args.use_gpu, args.dtype)
    saved = load_file(args.filepath)
    model = LlamaEmbeddingClassifier(SimpleNamespace(**saved["model_config"]))
    model.load_state_dict(saved["model"])
    print(f"load model from {args.filepath}")
    data = data or load_data(args)
    evaluate(args, to_device(model, args, data.tokenizer, device), data, device)


def train_and_test(args: Namespace) -> None:
    """Train, evaluate the model of the best epoch, and remove what --resume would need."""
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
    args, started = get_args(argv), time.time()
    try:
        args = prepare(args)
        seed_everything(args.seed)
        JOBS[args.option](args)
        return 0
    except KeyboardInterrupt:
        path, advice = resume_path(args), "starts again"
        # An older file may be of another run, which this command cannot resume.
        if os.path.exists(path) and (args.resume or os.path.getmtime(path) >= started):
            advice = f"with --resume continues from {path}"
        status, said = 130, f"interrupted; the same command {advice}"
    except FloatingPointError as error:
        status, said = 1, f"training diverged: {error}; try a smaller --lr than {args.lr:g}"
    except (OSError, InputError, CheckpointError) as error:
        status, said = 2, error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        status, said = 1, "out of memory; a smaller --batch_size or --max_sentence_len needs less"
    return fail("run_llama.py", said, status)


if __name__ == "__main__":
    sys.exit(main())
