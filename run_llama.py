"""Command line of Mini-Llama: continue a story, or classify sentences in one of three ways.

    python run_llama.py --option generate | prompt | finetune | lora
"""

import argparse
import copy
import hashlib
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    # The imports below take seconds. From main() on, Ctrl-C also says what is kept.
    def leave_early(*_: object) -> None:
        os.write(2, b"\ninterrupted: nothing was written; the same command starts again\n")
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave_early)

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from base_llama import check_tensors, is_finite
from classifier import (
    LlamaEmbeddingClassifier,
    LlamaZeroShotClassifier,
    encode,
    load_classifier,
    make_loader,
    save_classifier,
    with_question,
)
from llama import HOW_TO_GET, Llama, load_pretrained
from lora import (
    apply_lora,
    count_lora_parameters,
    get_lora_optimizer_params,
    lora_layers,
    merge_lora_weights,
)
from optimizer import AdamW
from tokenizer import DEFAULT_TOKENIZER, Tokenizer
from utils import (
    SEPARATOR,
    Example,
    Parser,
    atomic_write,
    beside,
    fail,
    multiply_by_onednn,
    pick_device,
    read_examples,
    read_label_names,
    read_torch_file,
    require_file,
    save_torch,
    set_seed,
    sole_owner,
)

PROGRAM = "run_llama.py"
PROMPT = ("Victor Frankenstein, a young scientist obsessed with uncovering the secrets of life, "
          "succeeds in animating a creature assembled from")
NEW_TOKENS = 75
PLACEHOLDER = -1  # the label of sentences whose label is not public
KIND = {"prompt": "prompting", "finetune": "finetuning", "lora": "lora"}  # in output names

CHECKPOINT = "stories42M.pt"
DATA = {"train": "data/cfimdb-train.txt", "dev": "data/cfimdb-dev.txt",
        "test": "data/cfimdb-test.txt", "label_names": "data/cfimdb-label-mapping.json"}
DEMO = Path(__file__).resolve().parent / "demo"
DEMO_DATA = {"train": "reviews2-train.txt", "dev": "reviews2-dev.txt",
             "test": "reviews2-test.txt", "label_names": "reviews2-label-mapping.json"}


# ---------------------------------------------------------------------------------- command line

def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line; what was left open gets its default."""
    parser = Parser(
        prog=PROGRAM, description=__doc__.split("\n")[0], allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=100))
    job = parser.add_argument_group("the job")
    job.add_argument("--option", choices=("generate", "prompt", "finetune", "lora"),
                     default="generate", help="what to do (default: generate)")
    job.add_argument("--seed", type=whole(0), default=1337, help="(default: 1337)")
    job.add_argument("--use_gpu", action="store_true", help="run on CUDA rather than on the CPU")
    job.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                     help="of matrix products; weights and optimizer stay float32 "
                          "(default: float32)")
    model = parser.add_argument_group("the model")
    model.add_argument("--pretrained-model-path", metavar="FILE",
                       help=f"checkpoint (default: {CHECKPOINT})")
    model.add_argument("--tokenizer", metavar="FILE", help="SentencePiece model (default: "
                       "tokenizer.model beside the checkpoint, or else in this folder)")
    model.add_argument("--max_sentence_len", type=whole(1), metavar="N",
                       help="cut sentences to this many tokens (default: not cut)")
    story = parser.add_argument_group("generate")
    story.add_argument("--prompt", type=utf8, default=PROMPT, metavar="TEXT",
                       help="text to continue (default: Frankenstein)")
    story.add_argument("--generated_sentence_low_temp_out", metavar="FILE",
                       default="generated-sentence-temp-0.txt", help="(default: %(default)s)")
    story.add_argument("--generated_sentence_high_temp_out", metavar="FILE",
                       default="generated-sentence-temp-1.txt", help="(default: %(default)s)")
    data = parser.add_argument_group("data, for prompt, finetune and lora")
    for name, default in DATA.items():
        data.add_argument("--" + name.replace("_", "-"), metavar="FILE",
                          help=f"(default: {default})")
    for split in ("dev", "test"):
        data.add_argument(f"--{split}_out", metavar="FILE",
                          default=f"cfimdb-{split}-prompting-output.txt",
                          help="predictions; the name has to end in "
                               f"{split}-{{{','.join(KIND.values())}}}-output.txt "
                               "(default: %(default)s)")
    data.add_argument("--batch_size", type=whole(1), default=8, metavar="N", help="(default: 8)")
    training = parser.add_argument_group("finetune and lora")
    training.add_argument("--epochs", type=whole(1), default=5, metavar="N", help="(default: 5)")
    training.add_argument("--lr", type=number(0, above=True), default=2e-5, metavar="X",
                          help="learning rate (default: 2e-05)")
    training.add_argument("--hidden_dropout_prob", type=number(0, below=1), default=0.3,
                          metavar="P", help="before the classifier layer (default: 0.3)")
    training.add_argument("--lora_rank", type=whole(1), default=4, metavar="N",
                          help="(default: 4)")
    training.add_argument("--lora_alpha", type=number(), default=1.0, metavar="X",
                          help="(default: 1.0)")
    training.add_argument("--resume", action="store_true",
                          help="go on from the last finished epoch of the same, interrupted run")
    args = parser.parse_args(argv)
    fill_in_defaults(args)
    return args


def utf8(text: str) -> str:
    """A type for argparse: a text without bytes that the terminal's encoding could not read."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise argparse.ArgumentTypeError("the text is not UTF-8")
    return text


def whole(least: int) -> Callable[[str], int]:
    """A type for argparse: a whole number of at least this."""
    def parse(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) < 2**31):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)
    return parse


def number(
    least: float = -math.inf, below: float = math.inf, above: bool = False
) -> Callable[[str], float]:
    """A type for argparse: a finite number in [least, below), or (least, below) with `above`."""
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < below or math.isinf(value) or (above and value == least):
            bounds = f" {'above' if above else 'from'} {least}" if least > -math.inf else ""
            bounds += f" and below {below}" if below < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not a number{bounds}")
        return value
    return parse


def fill_in_defaults(args: argparse.Namespace) -> None:
    """Where a path was not given: the official file, or loudly the embedded one."""
    if args.pretrained_model_path is None:
        args.pretrained_model_path = CHECKPOINT
        if not os.path.exists(CHECKPOINT) and (DEMO / "stories.pt").exists():
            args.pretrained_model_path = os.path.relpath(DEMO / "stories.pt")
            warn(f"{CHECKPOINT} is not here: using the small model {args.pretrained_model_path}. "
                 "The published results do not apply to it.",
                 "`bash setup.sh` fetches the real one; --pretrained-model-path names another.")
    none_given = all(getattr(args, name) is None for name in DATA)
    none_there = not any(os.path.exists(path) for path in DATA.values())
    demo = none_given and none_there and (DEMO / DEMO_DATA["train"]).exists()
    if demo and args.option != "generate":
        warn("the CFIMDB files are not in data/: using the small review set "
             f"{os.path.relpath(DEMO / 'reviews2-*.txt')}. The published results do not apply.",
             "`bash setup.sh` fetches the real files; --train, --dev, --test and --label-names "
             "name others.")
    for name, official in DATA.items():
        if getattr(args, name) is None:
            embedded = os.path.relpath(DEMO / DEMO_DATA[name])
            setattr(args, name, embedded if demo else official)


def warn(first: str, second: str) -> None:
    """Two lines on standard error that cannot be overlooked."""
    print(f"*** WARNING: {first}\n*** {second}", file=sys.stderr)


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse names and places of output files that would fail, or be taken for others', later."""
    if args.option == "generate":
        outputs = [args.generated_sentence_low_temp_out, args.generated_sentence_high_temp_out]
    else:
        outputs = [args.dev_out, args.test_out]
        for split, name in zip(("dev", "test"), outputs):
            ending = f"{split}-{KIND[args.option]}-output.txt"
            if not name.endswith(ending):
                raise ValueError(f"--{split}_out {name}: with --option {args.option} the name "
                                 f"has to end in {ending}")
    if os.path.abspath(outputs[0]) == os.path.abspath(outputs[1]):
        raise ValueError(f"{outputs[0]}: named for two outputs; they need two names")
    if args.option in ("finetune", "lora"):
        outputs.append(files_of(args).model)
    inputs = {os.path.realpath(getattr(args, name)) for name in (*DATA, "pretrained_model_path")}
    for name in outputs:
        if os.path.realpath(name) in inputs:
            raise ValueError(f"{name}: is an input of this run; an output needs another name")
        folder = os.path.dirname(name) or "."
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"{name}: there is no folder {folder}; make it first")
        if os.path.isdir(name):
            raise ValueError(f"{name}: is a folder; an output needs the name of a file")
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{name}: the folder {folder} is not writable; choose another")


class Data(NamedTuple):
    """The three splits, and how many classes the training labels name."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    num_labels: int


def read_data(args: argparse.Namespace) -> Data:
    """Read all three files and check their labels.

    Raises:
        FileNotFoundError, ValueError: naming the file, and the line where there is one.
    """
    train, dev, test = (read_examples(path) for path in (args.train, args.dev, args.test))
    num_labels = len({example.label for example in train})
    for path, examples in ((args.train, train), (args.dev, dev), (args.test, test)):
        placeholders = path != args.train and all(e.label == PLACEHOLDER for e in examples)
        for line, (label, _) in enumerate(examples, start=1):
            if not (0 <= label < num_labels or placeholders):
                raise ValueError(f"{path}, line {line}: label {label} is outside the classes 0 to "
                                 f"{num_labels - 1} ({args.train} has {num_labels} different)")
    return Data(train, dev, test, num_labels)


# ---------------------------------------------------------------------------- generate and prompt

def load_tokenizer(args: argparse.Namespace, max_len: int | None) -> Tokenizer:
    """The tokenizer that was named, or else that of the checkpoint, which has to be there."""
    require_file(args.pretrained_model_path, HOW_TO_GET)
    return Tokenizer(max_len, args.tokenizer or beside(args.pretrained_model_path,
                                                       DEFAULT_TOKENIZER))


def check_vocabulary(args: argparse.Namespace, tokenizer: Tokenizer, model: Llama) -> None:
    """Raise ValueError where the tokenizer is not one for this model."""
    if tokenizer.n_words != model.config.vocab_size:
        raise ValueError(
            f"{tokenizer.path} has {tokenizer.n_words} pieces, but the vocab_size of "
            f"{args.pretrained_model_path} is {model.config.vocab_size}: name the tokenizer that "
            "belongs to the checkpoint by --tokenizer")


def autocast(args: argparse.Namespace, device: torch.device) -> AbstractContextManager:
    """Matrix products in --dtype."""
    return torch.autocast(device.type, torch.bfloat16, enabled=args.dtype == "bfloat16")


def run_generate(args: argparse.Namespace) -> None:
    """Continue the prompt, greedily and by sampling, into two files."""
    device = pick_device(args.use_gpu)
    tokenizer = load_tokenizer(args, max_len=None)
    model = load_pretrained(args.pretrained_model_path).to(device)
    check_vocabulary(args, tokenizer, model)
    multiply_by_onednn(model.config.dim)
    prompt = torch.tensor([tokenizer.encode(args.prompt, bos=True, eos=False)], device=device)
    print(f"Continuing the prompt by {NEW_TOKENS} tokens with {args.pretrained_model_path}, on "
          f"{device}\n", flush=True)
    outputs = {0.0: args.generated_sentence_low_temp_out,
               1.0: args.generated_sentence_high_temp_out}
    set_seed(args.seed)
    with autocast(args, device):  # both in one batch, which takes less time than one by one
        rows = model.generate(prompt.expand(len(outputs), -1), NEW_TOKENS, list(outputs))
    for (temperature, out), ids in zip(outputs.items(), rows.tolist()):
        text = tokenizer.decode(ids)
        with atomic_write(out, "w") as file:
            file.write(text + "\n")
        print(f"Temperature {temperature} (written to {out}):\n{text}\n")


def run_prompt(args: argparse.Namespace) -> None:
    """Classify dev and test by asking the language model, without any training."""
    device = pick_device(args.use_gpu)
    data = read_data(args)
    names = read_label_names(args.label_names, data.num_labels)
    tokenizer = load_tokenizer(args, args.max_sentence_len)
    args.num_labels = data.num_labels
    model = LlamaZeroShotClassifier(args, tokenizer, names).to(device)
    check_vocabulary(args, tokenizer, model.llama)
    multiply_by_onednn(model.llama.config.dim)
    print(f"Zero-shot: asking {args.pretrained_model_path} about {len(data.dev):,} dev and "
          f"{len(data.test):,} test sentences, on {device}")
    data = data._replace(dev=with_question(data.dev, names), test=with_question(data.test, names))
    write_predictions(args, model, data, make_loaders(args, data, tokenizer, "dev", "test"))


# --------------------------------------------------------------------------------------- evaluate

def make_loaders(
    args: argparse.Namespace, data: Data, tokenizer: Tokenizer, *splits: str
) -> dict[str, DataLoader]:
    """Batches of each split in the order of its file, tokenized once for the whole run."""
    return {split: make_loader(encode(getattr(data, split), tokenizer), args.batch_size,
                               tokenizer.pad_id) for split in splits}


@torch.inference_mode()
def predict(
    args: argparse.Namespace, model: torch.nn.Module, loader: DataLoader, title: str
) -> list[int]:
    """The most likely label of every sentence, in the order of the loader."""
    model.eval()
    device = next(model.parameters()).device
    predictions = []
    for ids, _ in tqdm(loader, title, leave=False, disable=None):
        with autocast(args, device):
            predictions += model(ids.to(device)).argmax(dim=-1).tolist()
    return predictions


def accuracy(examples: list[Example], predictions: list[int]) -> float:
    """Share of predictions that are the label."""
    hits = sum(p == label for p, (label, _) in zip(predictions, examples, strict=True))
    return hits / len(examples)


def write_predictions(
    args: argparse.Namespace, model: torch.nn.Module, data: Data, loaders: dict[str, DataLoader]
) -> None:
    """Predict dev and test, write both output files, and print how good the predictions are."""
    from sklearn.metrics import classification_report  # takes a second: not for --option generate

    for split, out in (("dev", args.dev_out), ("test", args.test_out)):
        examples = getattr(data, split)
        predictions = predict(args, model, loaders[split], split)
        with atomic_write(out, "w") as file:
            file.writelines(f"{predicted}{SEPARATOR}{sentence}\n"
                            for predicted, (_, sentence) in zip(predictions, examples))
        print(f"\n{split} accuracy {accuracy(examples, predictions):.4f} on {len(examples):,} "
              f"sentences; predictions are in {out}")
        labels = [label for label, _ in examples]
        if all(label == PLACEHOLDER for label in labels):
            print(f"(all labels of {split} are placeholders, {PLACEHOLDER}: the accuracy says "
                  "nothing, and there is no report per class)")
        else:
            print(classification_report(labels, predictions, labels=range(data.num_labels),
                                        zero_division=0, digits=3))


# -------------------------------------------------------------------------------- finetune, lora

class RunFiles(NamedTuple):
    """The files of one training run, beside its dev output, whose name tells runs apart."""

    model: str  # the best model so far, under the name that the assignment gives it
    best: str  # the same, where no other run of the same option, epochs and lr replaces it
    state: str  # what --resume goes on from
    lock: str


def files_of(args: argparse.Namespace) -> RunFiles:
    """Name the files of a run."""
    run = args.dev_out.removesuffix(".txt")
    return RunFiles(f"{args.option}-{args.epochs}-{args.lr}.pt", f"{run}.best.pt",
                    f"{run}.resume.pt", f"{run}.lock")


def options_of(args: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, Any]:
    """Everything that decides the result of a training run; files by their SHA-256."""
    names = ["option", "epochs", "lr", "seed", "batch_size", "hidden_dropout_prob",
             "max_sentence_len", "dtype", "use_gpu"]
    if args.option == "lora":
        names += ["lora_rank", "lora_alpha"]
    files = {"train": args.train, "dev": args.dev, "test": args.test,
             "pretrained_model_path": args.pretrained_model_path, "tokenizer": tokenizer.path}
    return {name: getattr(args, name) for name in names} | {
        name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in files.items()}


def run_training(args: argparse.Namespace) -> None:
    """Fine-tune all parameters, or LoRA matrices alone, and evaluate the best epoch's model."""
    device = pick_device(args.use_gpu)
    data = read_data(args)
    tokenizer = load_tokenizer(args, args.max_sentence_len)
    files = files_of(args)
    with sole_owner(files.lock, f"making {args.dev_out}"):
        set_seed(args.seed)
        args.num_labels = data.num_labels
        model = LlamaEmbeddingClassifier(args)
        check_vocabulary(args, tokenizer, model.llama)
        multiply_by_onednn(model.llama.config.dim)
        if args.option == "lora":
            if args.lora_rank > model.llama.config.dim:
                raise ValueError(f"--lora_rank {args.lora_rank}: larger than the width of the "
                                 f"model, {model.llama.config.dim}, is no low rank")
            apply_lora(model, args.lora_rank, args.lora_alpha)
        loaders = make_loaders(args, data, tokenizer, "train", "dev", "test")
        train(args, model.to(device), data, loaders, tokenizer, files)
        del model  # the best epoch's takes its place
        best = load_classifier(files.best).to(device)
        print(f"\nEvaluating the model of the best epoch, saved as {files.model}")
        write_predictions(args, best, data, loaders)
        publish(files)  # another run may have taken the name meanwhile
        for leftover in (files.state, files.best):
            os.unlink(leftover)


def train(
    args: argparse.Namespace, model: LlamaEmbeddingClassifier, data: Data,
    loaders: dict[str, DataLoader], tokenizer: Tokenizer, files: RunFiles,
) -> None:
    """Train epoch by epoch, keeping the best model so far and what a resumed run needs."""
    from sklearn.metrics import f1_score

    params = get_lora_optimizer_params(model)
    optimizer = AdamW(params, lr=args.lr)
    options = options_of(args, tokenizer)
    shuffled = make_loader(loaders["train"].dataset, args.batch_size, tokenizer.pad_id,
                           shuffle=True)
    done, best = restore(args, model, optimizer, options, files, steps=len(shuffled))
    if done:
        args.kept = what_is_kept(args, done, files)
    print(f"{what_is_trained(args, model)}; {args.epochs} epochs of {len(shuffled):,} batches on "
          f"{model.llama.device}")

    for epoch in range(done + 1, args.epochs + 1):
        started = time.monotonic()
        # Shuffling and dropout depend on seed and epoch alone, so a resumed run repeats them.
        set_seed(args.seed, epoch)
        loss = train_epoch(args, model, optimizer, shuffled, epoch)
        train_accuracy = accuracy(
            data.train, predict(args, model, loaders["train"], "train accuracy"))
        predictions = predict(args, model, loaders["dev"], "dev accuracy")
        dev_accuracy = accuracy(data.dev, predictions)
        macro_f1 = f1_score([label for label, _ in data.dev], predictions, average="macro",
                            labels=range(data.num_labels), zero_division=0)
        is_best = dev_accuracy > best["dev_accuracy"]
        if is_best:
            best = {"epoch": epoch, "dev_accuracy": dev_accuracy}
            plain = merge_lora_weights(copy.deepcopy(model)) if args.option == "lora" else model
            save_classifier(files.best, plain, options=options, **best)
            publish(files)
        save_state(model, optimizer, options, epoch, best, files)
        args.kept = what_is_kept(args, epoch, files)
        print(f"epoch {epoch}/{args.epochs}: train loss {loss:.4f}, train accuracy "
              f"{train_accuracy:.4f}, dev accuracy {dev_accuracy:.4f}, macro F1 {macro_f1:.4f}, "
              f"{time.monotonic() - started:.0f} s{', best so far' if is_best else ''}", flush=True)


def train_epoch(
    args: argparse.Namespace, model: LlamaEmbeddingClassifier, optimizer: AdamW,
    loader: DataLoader, epoch: int,
) -> float:
    """One pass over the training data; returns the mean loss of a sentence.

    Raises:
        FloatingPointError: the loss or a parameter is no longer finite.
    """
    model.train()
    device = model.llama.device
    total, sentences = 0.0, 0
    bar = tqdm(loader, f"epoch {epoch}/{args.epochs}", leave=False, disable=None)
    for step, (ids, labels) in enumerate(bar, start=1):
        with autocast(args, device):
            log_probs = model(ids.to(device))
        loss = F.nll_loss(log_probs.float(), labels.to(device), reduction="sum") / args.batch_size
        total += loss.item() * args.batch_size
        sentences += len(labels)
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step} of epoch {epoch}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{total / sentences:.3f}", refresh=False)
    if not all(is_finite(p) for group in optimizer.param_groups for p in group["params"]):
        raise FloatingPointError(f"a parameter is no longer finite at the end of epoch {epoch}")
    return total / sentences


def what_is_trained(args: argparse.Namespace, model: LlamaEmbeddingClassifier) -> str:
    """The first line of a training run."""
    lora, trainable, percent = count_lora_parameters(model)
    total = sum(p.numel() for p in model.parameters())
    if args.option == "finetune":
        return f"Fine-tuning all {trainable:,} parameters"
    return (f"LoRA rank {args.lora_rank}, alpha {args.lora_alpha:g} on {len(lora_layers(model))} "
            f"projections: {lora:,} of {total / 1e6:.1f} M parameters ({percent:.2f}%) plus the "
            "head")


def what_is_kept(args: argparse.Namespace, epoch: int, files: RunFiles) -> str:
    """What to tell somebody whose run ends early."""
    return (f"{epoch} of {args.epochs} epochs are kept in {files.state}, the best model so far in "
            f"{files.model}; the same command with --resume goes on from there")


def publish(files: RunFiles) -> None:
    """Copy the best model of this run to the name that the assignment gives it."""
    with open(files.best, "rb") as best, atomic_write(files.model) as model:
        shutil.copyfileobj(best, model)


def trained_tensors(
    model: LlamaEmbeddingClassifier, optimizer: AdamW
) -> dict[str, dict[str, torch.Tensor]]:
    """Every tensor that training changes: the trained parameters and their two moments."""
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {"model": {name: p.detach() for name, p in params.items()}} | {
        moment: {name: optimizer.state[p].get(moment, torch.zeros_like(p))
                 for name, p in params.items()} for moment in ("exp_avg", "exp_avg_sq")}


def save_state(
    model: LlamaEmbeddingClassifier, optimizer: AdamW, options: dict[str, Any], epoch: int,
    best: dict[str, Any], files: RunFiles,
) -> None:
    """Save what `restore` needs; parameters that are not trained stand in the checkpoint."""
    save_torch(files.state, {"options": options, "epoch": epoch, "best": best,
                             **trained_tensors(model, optimizer)})


def restore(
    args: argparse.Namespace, model: LlamaEmbeddingClassifier, optimizer: AdamW,
    options: dict[str, Any], files: RunFiles, steps: int,
) -> tuple[int, dict[str, Any]]:
    """Bring back an interrupted run, if --resume asks for it.

    Args:
        steps: of the optimizer, in one epoch.
    Returns:
        How many epochs are done, and epoch and dev accuracy of the best of them.
    Raises:
        ValueError: the interrupted run had other options, or its files are not of one run.
    """
    nothing_yet = 0, {"epoch": 0, "dev_accuracy": -1.0}
    if not os.path.exists(files.state):
        if args.resume:
            print(f"--resume: there is no {files.state}, so nothing to resume; starting from the "
                  "beginning")
        return nothing_yet
    if not args.resume:
        print(f"{files.state} is of an interrupted run, which --resume would continue; starting "
              "afresh and replacing it after the first epoch")
        return nothing_yet
    afresh = "leave out --resume to start afresh"
    require_file(files.best, afresh)
    state = read_torch_file(files.state)
    try:
        check_same_run(state, read_torch_file(files.best), options)
        load_classifier(files.best)  # refused now rather than after the remaining epochs
        tensors = trained_tensors(model, optimizer)
        for kind, expected in tensors.items():
            check_tensors(expected, state.get(kind), kind)
    except ValueError as error:
        raise ValueError(f"{files.state} cannot be resumed: {error}; {afresh}") from error
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state["model"][name])
                optimizer.state[parameter] = {"step": state["epoch"] * steps} | {
                    moment: state[moment][name].to(parameter)
                    for moment in ("exp_avg", "exp_avg_sq")}
    print(f"Resuming after epoch {state['epoch']} of {args.epochs}; the best so far is epoch "
          f"{state['best']['epoch']} with dev accuracy {state['best']['dev_accuracy']:.4f}")
    return state["epoch"], state["best"]


def check_same_run(state: Any, saved: Any, options: dict[str, Any]) -> None:
    """Raise ValueError unless both files are of a run with these options."""
    if not isinstance(state, dict) or not isinstance(state.get("options"), dict):
        raise ValueError("it is not the state of a run")
    others = differing(state["options"], options)
    if others:
        raise ValueError("it was run with other options: " + ", ".join(
            f"{name} ({state['options'].get(name)!s:.12}, now {options[name]!s:.12})"
            for name in others))
    epoch, best = state.get("epoch"), state.get("best")
    if not (type(epoch) is int and isinstance(best, dict) and type(best.get("epoch")) is int
            and type(best.get("dev_accuracy")) is float
            and 1 <= best["epoch"] <= epoch <= options["epochs"]):
        raise ValueError("its counts of epochs are not those of a run")
    # One epoch ahead: interrupted between the writing of the two, it is about to be repeated.
    if not isinstance(saved, dict) or differing(saved.get("options"), options) or (
            differing(saved, {"epoch": best["epoch"]}) and differing(saved, {"epoch": epoch + 1})):
        raise ValueError("the best model beside it is of another run")


def differing(saved: Any, expected: dict[str, Any]) -> list[str]:
    """Names whose values in a file, which may be of any type, are not those that are expected."""
    saved = saved if isinstance(saved, dict) else {}
    return [name for name, value in expected.items()
            if type(saved.get(name)) is not type(value) or saved.get(name) != value]


# ------------------------------------------------------------------------------------------- main

JOBS = {"generate": run_generate, "prompt": run_prompt,
        "finetune": run_training, "lora": run_training}


@contextmanager
def prompt_interrupts(args: argparse.Namespace) -> Iterator[None]:
    """Let Ctrl-C end the block, and the program, within about a second.

    Python hears of the signal only between two of its own instructions, and one backward pass
    over long texts can take many seconds; so a thread waits for the signal, too. What is being
    written meanwhile is a temporary file: no file under its own name is ever half-written.
    """
    wake, signalled = os.pipe()
    os.set_blocking(signalled, False)
    left = threading.Event()

    def wait_for_signal() -> None:
        if os.read(wake, 1) and not left.wait(timeout=1):
            print(f"\ninterrupted: {args.kept}", file=sys.stderr, flush=True)
            os._exit(130)
        os.close(wake)

    threading.Thread(target=wait_for_signal, daemon=True).start()
    previous = signal.set_wakeup_fd(signalled)
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(previous)
        os.close(signalled)


def main(argv: list[str] | None = None) -> int:
    """Run one job; returns the exit status.

    0: done. 1: training diverged. 2: bad input, said in one line on standard error.
    130: interrupted.
    """
    args = get_args(argv)
    args.kept = "nothing was written; the same command starts again"
    try:
        with prompt_interrupts(args):
            check_outputs(args)
            JOBS[args.option](args)
        return 0
    except KeyboardInterrupt:
        print(f"\ninterrupted: {args.kept}", file=sys.stderr)
        return 130
    except FloatingPointError as error:
        return fail(PROGRAM, f"training stopped: {error}, at learning rate {args.lr:g}; "
                             f"{args.kept}. Try a smaller --lr", status=1)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise  # a defect of the program
        return fail(PROGRAM, "out of memory: a smaller --batch_size or --max_sentence_len needs "
                             f"less; {args.kept}", status=1)
    except (OSError, ValueError) as error:
        return fail(PROGRAM, error)


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is leave_early:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 is no failure
    sys.exit(main())
