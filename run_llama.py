"""Command line of Mini-Llama: continue a story, or classify sentences in one of three ways.

    python run_llama.py --option generate | prompt | finetune | lora
"""

import argparse
import hashlib
import json
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
EMBEDDED = {"pretrained_model_path": "stories.pt", "train": "reviews2-train.txt",
            "dev": "reviews2-dev.txt", "test": "reviews2-test.txt",
            "label_names": "reviews2-label-mapping.json"}  # input files, by their options


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
        default=1337, help="seed of all random number generators")
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
    add("--batch_size", type=positive_int, default=8, help="sentences per batch")

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
    """Complete the options of a job, and check before the work that its outputs can be written.

    Options that the assignment lacks get their defaults; `filepath` is where the model is saved.
    """
    args = Namespace(**vars(get_args([])) | vars(args))
    args.filepath = getattr(args, "filepath", f"{args.option}-{args.epochs}-{args.lr}.pt")
    args.device = pick_device(args.use_gpu, args.dtype)
    use_embedded(args, "model", ["pretrained_model_path"])
    if args.option != "generate":
        use_embedded(args, "data", ["train", "dev", "test", "label_names"])
    args.tokenizer = args.tokenizer or beside(args.pretrained_model_path, TOKENIZER_MODEL)
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
    taken = {os.path.realpath(getattr(args, name)) for name in (*EMBEDDED, "tokenizer")}
    for name in outputs:
        if os.path.realpath(name) in taken:
            raise InputError(f"{name}: is an input or another output of this run; choose another")
        taken.add(os.path.realpath(name))
        check_writable(name)
    return args


def use_embedded(args: Namespace, what: str, names: list[str]) -> None:
    """If these files are the defaults and none of them exists, use the embedded ones, and warn."""
    paths, defaults = ([getattr(a, name) for name in names] for a in (args, get_args([])))
    if paths == defaults and not any(map(os.path.exists, paths)) and DEMO.is_dir():
        vars(args).update({name: str(DEMO / EMBEDDED[name]) for name in names})
        print(f"*** WARNING: {paths[0]} is not here: using the small embedded {what}, "
              f"{getattr(args, names[0])}. The published results do not apply to it.\n"
              "*** `bash setup.sh` fetches the official files.", file=sys.stderr)


def resume_path(args: Namespace) -> str:
    """The file that --resume continues from, named for the dev output, which tells runs apart."""
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
        self.dataset, self.eos = dataset, eos
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
        padded = pad_sequence(
            [torch.tensor(ids + eos * self.eos, dtype=torch.long) for ids in plain],
            batch_first=True, padding_value=self.tokenizer.pad_id)
        return padded, torch.tensor(labels), list(sents)

    def collate_fn(self, rows: list[Row]) -> dict[str, Any]:
        """`pad_data` as a dict."""
        return dict(zip(("token_ids", "labels", "sents"), self.pad_data(rows)))


def load_data(args: Namespace, prompt_suffix: str | None = None) -> Data:
    """Read and tokenize all three splits, each sentence once, and check the labels."""
    tokenizer = Tokenizer(args.max_sentence_len, args.tokenizer)
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


def to_device(model: nn.Module, args: Namespace, tokenizer: Tokenizer) -> nn.Module:
    """Move a model to the device of the job; refuse one without embeddings for all tokens."""
    llama = getattr(model, "llama", model)
    if tokenizer.n_words > llama.vocab_size:
        raise InputError(f"{tokenizer.model_path} has {tokenizer.n_words} pieces, the checkpoint "
                         f"embeddings for {llama.vocab_size}: name the tokenizer that belongs to "
                         "the checkpoint with --tokenizer")
    if args.device.type == "cpu":
        prefer_onednn(llama.params.dim)
    if args.dtype == "bfloat16":
        model.forward = torch.autocast(args.device.type, torch.bfloat16)(model.forward)
    return model.to(args.device)


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
    if known := [pair for pair in zip(labels, predictions) if pair[0] != PLACEHOLDER]:
        accuracy = float(np.mean([label == predicted for label, predicted in known]))
        macro_f1 = f1_score(*zip(*known), average="macro")
    return accuracy, macro_f1, predictions, labels, sents


def write_predictions_to_file(
    split: str, outfile: str, acc: float, pred: list[int], sents: list[str]
) -> None:
    """Print the accuracy of a split and write its predictions, a `label ||| sentence` per line."""
    print(f"{split} acc :: {acc:.3f}")
    with atomic_write(outfile, "w") as file:
        file.writelines(f"{p}{SEPARATOR}{sentence}\n" for p, sentence in zip(pred, sents))
    print(f"{split} predictions are in {outfile}")


def evaluate(args: Namespace, model: nn.Module, data: Data) -> None:
    """Classify dev and test, write the predictions, and print a report on each."""
    from sklearn.metrics import classification_report

    splits = ("dev", data.dev, args.dev_out), ("test", data.test, args.test_out)
    for split, rows, outfile in splits:
        loader = make_loader(rows, args, data.tokenizer)
        acc, _, pred, labels, sents = model_eval(loader, model, args.device)
        write_predictions_to_file(split, outfile, acc, pred, sents)
        if known := [pair for pair in zip(labels, pred) if pair[0] != PLACEHOLDER]:
            print(classification_report(*zip(*known), digits=4, zero_division=0))
        else:
            print(f"All labels of {split} are placeholders ({PLACEHOLDER}): nothing to report.")


# ---------------------------------------------------------------------------- generate and prompt

def load_llama(args: Namespace) -> tuple[Llama, Tokenizer]:
    """Load the language model onto the device of the job, and its tokenizer."""
    llama = load_pretrained(args.pretrained_model_path)
    print(f"load model from {args.pretrained_model_path}")
    tokenizer = Tokenizer(None, args.tokenizer)
    return to_device(llama, args, tokenizer), tokenizer


def generate_sentence(
    args: Namespace, prefix: str, outfile: str, max_new_tokens: int = 75,
    temperature: float = 0.0, loaded: tuple[Llama, Tokenizer] | None = None,
) -> None:
    """Continue a text, print it and write it to a file; `loaded` is what `load_llama` returns."""
    args = prepare(args)
    llama, tokenizer = loaded or load_llama(args)
    ids = torch.tensor([tokenizer.encode(prefix, bos=True, eos=False)], device=args.device)
    text = tokenizer.decode(llama.generate(ids, max_new_tokens, temperature)[0].tolist())
    with atomic_write(outfile, "w") as file:
        file.write(text)
    print(f"\nTemperature {temperature} (written to {outfile}):\n{text}")


def generate(args: Namespace) -> None:
    """Continue the prompt, greedily and by sampling, into two files."""
    loaded = load_llama(args)
    for temperature, outfile in ((0.0, args.generated_sentence_low_temp_out),
                                 (1.0, args.generated_sentence_high_temp_out)):
        generate_sentence(args, args.prompt, outfile, temperature=temperature, loaded=loaded)


def question(names: list[str]) -> str:
    """The question after every sentence; the model's next token is its answer."""
    *others, last = names
    choices = " or ".join(names) if len(names) < 3 else f"{', '.join(others)}, or {last}"
    return f"Is this movie {choices}? This movie is "


def test_with_prompting(args: Namespace) -> None:
    """Classify dev and test by asking the language model, without any training."""
    args = prepare(args)
    names = read_label_names(args.label_names)
    data = load_data(args, question(names))
    if len(names) != data.num_labels:
        raise InputError(f"{args.label_names}: {len(names)} names for the {data.num_labels} labels "
                         f"of {args.train}; it needs one for each")
    data.tokenizer.max_len = None  # the limit is for sentences, not for label names
    model = LlamaZeroShotClassifier(SimpleNamespace(
        num_labels=data.num_labels, pretrained_model_path=args.pretrained_model_path),
        data.tokenizer, names)
    print(f"load model from {args.pretrained_model_path}")
    evaluate(args, to_device(model, args, data.tokenizer), data)


# --------------------------------------------------------------------------------- finetune, lora

def train(args: Namespace, data: Data | None = None) -> None:
    """Train, and save the model of the best epoch; `data` saves loading it again."""
    args = prepare(args)
    data = data or load_data(args)
    model, config = make_classifier(args, data)
    optimizer = AdamW(trainable(model).values(), lr=args.lr)
    shuffled = make_loader(data.train, args, data.tokenizer, shuffle=True)
    loaders = [make_loader(rows, args, data.tokenizer) for rows in (data.train, data.dev)]
    state = load_state(args, model, optimizer)
    args.resume = False  # a resumed run saves the same bytes
    for epoch in range(state["done"], args.epochs):
        started = time.monotonic()
        loss = train_epoch(args, model, optimizer, shuffled, epoch)
        (train_acc, *_), (dev_acc, dev_f1, *_) = [
            model_eval(loader, model, args.device) for loader in loaders]
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
    # Saved again: another run may have overwritten it, since its name has neither data nor seed.
    save_model(merged_copy(model), optimizer, args, config, args.filepath)
    print(f"epoch {state['best']} was the best; its model is in {args.filepath}")


train_lora = train  # they differ only in the parameters that `make_classifier` lets train


def make_classifier(args: Namespace, data: Data) -> tuple[nn.Module, SimpleNamespace]:
    """Build a classifier, all of it trainable or just LoRA matrices and head, and its config."""
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
    print(f"train {count:,} parameters, {lora:,} ({percent:.1f}%) of them LoRA's, on {args.device}")
    return to_device(model, args, data.tokenizer), config


def train_epoch(
    args: Namespace, model: nn.Module, optimizer: AdamW, loader: DataLoader, epoch: int
) -> float:
    """Train for one epoch; return the mean loss. FloatingPointError: training diverged."""
    model.train()
    total = 0.0
    for step, batch in enumerate(progress(loader, f"train epoch {epoch}")):
        log_probs = model(batch["token_ids"].to(args.device)).float()
        labels = batch["labels"].to(args.device)
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
    """The parameters that require a gradient."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save_model(
    model: nn.Module, optimizer: torch.optim.Optimizer, args: Namespace, config: SimpleNamespace,
    filepath: str,
) -> None:
    """Save a model for `test`, loadable with `weights_only=True`; `optimizer` is not needed."""
    plain_config, plain_args = (
        json.loads(json.dumps(vars(namespace), default=str)) for namespace in (config, args))
    save_file(filepath, {"model": dict(model.state_dict()), "model_config": plain_config,
                         "args": plain_args})


def load_state(args: Namespace, model: nn.Module, optimizer: AdamW) -> dict[str, Any]:
    """Start training anew, or with --resume after the last epoch of an interrupted run."""
    path, options = resume_path(args), fingerprint(args)
    if not args.resume or not os.path.exists(path):
        if args.resume:
            print(f"--resume: there is no {path}; starting from the beginning")
        elif os.path.exists(path):
            print(f"{path}: of an earlier run, which --resume would continue; replaced by this one")
        return {"options": options, "done": 0, "best_dev_acc": -math.inf}
    try:
        state = load_file(path)
    except CheckpointError as error:
        raise InputError(f"{error}, or leave out --resume to start afresh") from error
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


def fingerprint(args: Namespace) -> dict[str, Any]:
    """Everything that determines the result of a training run; files by their SHA-256."""
    names = ("option", "epochs", "lr", "seed", "batch_size", "hidden_dropout_prob",
             "max_sentence_len", "dtype", "use_gpu", "lora_rank", "lora_alpha")
    files = {"--train": args.train, "--dev": args.dev, "--tokenizer": args.tokenizer,
             "--pretrained-model-path": args.pretrained_model_path}
    return {f"--{name}": getattr(args, name) for name in names} | {
        name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in files.items()}


def test(args: Namespace, data: Data | None = None) -> None:
    """Evaluate the model that `train` has saved on dev and test; `data` saves loading it again."""
    args = prepare(args)
    saved = load_file(args.filepath)
    model = LlamaEmbeddingClassifier(SimpleNamespace(**saved["model_config"]))
    model.load_state_dict(saved["model"])
    print(f"load model from {args.filepath}")
    data = data or load_data(args)
    evaluate(args, to_device(model, args, data.tokenizer), data)


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

    0: done. 1: training diverged, or memory ran out. 2: bad input, or a file that cannot be read or
    written. 130: interrupted.
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
        is_out_of_memory = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
        if not is_out_of_memory and "DefaultCPUAllocator" not in str(error):
            raise
        status, said = 1, "out of memory; a smaller --batch_size or --max_sentence_len needs less"
    return fail("run_llama.py", said, status)


if __name__ == "__main__":
    sys.exit(main())
