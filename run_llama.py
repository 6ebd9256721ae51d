"""Command line of Mini-Llama: continue a story, or classify sentences in one of three ways.

    python run_llama.py --option generate | prompt | finetune | lora
"""

import copy
import hashlib
import json
import math
import os
import random
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, Namespace
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

import utils
from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from llama import load_pretrained
from lora import apply_lora, count_lora_parameters, merge_lora_weights
from optimizer import AdamW
from tokenizer import TOKENIZER_MODEL, Tokenizer
from utils import KIND, PROMPT, InputError, checked, progress

PLACEHOLDER = -1  # label of a sentence whose true label is not public
NOT_COMPARED = {  # options that --resume does not compare
    "resume", "device", "state", "filepath", "dev_out", "test_out", "test", "label_names", "prompt",
    "generated_sentence_low_temp_out", "generated_sentence_high_temp_out"}
DEMO = Path(__file__).resolve().parent / "demo"
EMBEDDED = {"stories42M.pt": "stories.pt"} | {  # stand-ins in demo/ for official files
    f"data/cfimdb-{name}": f"reviews2-{name}"
    for name in ("train.txt", "dev.txt", "test.txt", "label-mapping.json")}


def get_args(argv: list[str] | None = None) -> Namespace:
    """Parse the command line (default: `sys.argv`)."""
    parser = utils.Parser("run_llama.py", formatter_class=ArgumentDefaultsHelpFormatter,
                          description="Continue a story, or classify sentences in three ways.")
    add = parser.add_argument_group("the job").add_argument
    add("--option", choices=("generate", *KIND), default="generate", help="what to do")
    add("--use_gpu", action="store_true", help="run on CUDA rather than on the CPU")
    add("--seed", type=checked(int, lambda n: 0 <= n < 2**32, "32-bit unsigned integer"),
        default=1337, help="seed of all random number generators")
    add("--pretrained-model-path", default="stories42M.pt", metavar="FILE", help="checkpoint")
    add("--tokenizer", metavar="FILE", help="SentencePiece model; None: tokenizer.model beside the "
        "checkpoint, or in the current folder")
    add("--max_sentence_len", type=utils.positive_int, help="cut sentences to this many tokens")

    add = parser.add_argument_group("generate").add_argument
    add("--prompt", type=checked(str, lambda text: text.encode() or True, "UTF-8 text"),
        default=PROMPT, help="text to continue")
    add("--generated_sentence_low_temp_out", default="generated-sentence-temp-0.txt",
        metavar="FILE", help="the greedy story")
    add("--generated_sentence_high_temp_out", default="generated-sentence-temp-1.txt",
        metavar="FILE", help="the sampled story")

    add = parser.add_argument_group("data, for prompt, finetune and lora").add_argument
    add("--train", default="data/cfimdb-train.txt", metavar="FILE", help="labelled sentences")
    add("--dev", default="data/cfimdb-dev.txt", metavar="FILE", help="labelled sentences")
    add("--test", default="data/cfimdb-test.txt", metavar="FILE", help="labelled sentences")
    add("--label-names", default="data/cfimdb-label-mapping.json", metavar="FILE",
        help="names of the labels, for prompt")
    kinds = "|".join(KIND.values())
    add("--dev_out", default="cfimdb-dev-prompting-output.txt", metavar="FILE",
        help=f"predictions; must end in dev-({kinds})-output.txt")
    add("--test_out", default="cfimdb-test-prompting-output.txt", metavar="FILE",
        help=f"predictions; must end in test-({kinds})-output.txt")
    add("--batch_size", type=utils.positive_int, default=8, help="sentences per batch")

    add = parser.add_argument_group("finetune and lora").add_argument
    add("--epochs", type=utils.positive_int, default=5, help="passes over the training data")
    add("--lr", type=utils.positive_number, default=2e-5, help="learning rate")
    add("--hidden_dropout_prob", type=checked(float, lambda p: 0 <= p < 1, "probability below 1"),
        default=0.3, help="dropout before the classifier layer")
    add("--lora_rank", type=utils.positive_int, default=4, help="rank of the LoRA matrices")
    add("--lora_alpha", type=checked(float, math.isfinite, "finite number"), default=1.0,
        help="scale of the LoRA update, divided by the rank")
    add("--resume", action="store_true",
        help="continue the same, interrupted run after its last finished epoch")
    return parser.parse_args(argv)


def prepare(
    args: Namespace, job: str, reads: Sequence[str] = (), writes: Sequence[str] = ()
) -> Namespace:
    """Fill in a job's missing options, and check its inputs and outputs before any work.

    Args:
        job: a choice of --option, or "train": "lora" if `args.option` is that, else "finetune".
        reads, writes: names of the attributes with the paths of its data files and outputs.
    Returns:
        A copy of `args` with defaults for missing options, the `device`, and two paths: `filepath`
        of the trained model, and `state`, which --resume continues from.
    """
    args = Namespace(**vars(get_args([])) | vars(args))
    if job == "train":
        job = "lora" if args.option == "lora" else "finetune"
    args.option = job
    args.filepath = getattr(args, "filepath", f"{job}-{args.epochs}-{args.lr}.pt")
    args.state = f"{args.dev_out.removesuffix('.txt')}.resume.pt"  # tells data sets apart
    args.device = pick_device(args.use_gpu)
    fall_back_to_demo(args, ["pretrained_model_path"])
    if reads:
        fall_back_to_demo(args, reads)
        try:
            import sklearn.metrics  # noqa: F401  (takes a second; needed after the first epoch)
        except ImportError as error:
            raise InputError(f"scikit-learn: {error}; `bash setup.sh` installs it") from error
    args.tokenizer = args.tokenizer or utils.sibling(args.pretrained_model_path, TOKENIZER_MODEL)
    inputs = [getattr(args, name) for name in ("pretrained_model_path", "tokenizer", *reads)]
    taken = set(map(os.path.realpath, inputs))
    for name in writes:
        path, split = getattr(args, name), name.removesuffix("_out")
        if split in ("dev", "test") and not path.endswith(f"{split}-{KIND[job]}-output.txt"):
            raise InputError(f"--{name} {path}: for this job, {job}, the name must end in "
                             f"{split}-{KIND[job]}-output.txt")
        if os.path.realpath(path) in taken:
            raise InputError(f"{path}: is also an input or another output; choose another name")
        taken.add(os.path.realpath(path))
        utils.check_writable(path)
    for path in inputs:
        open(path, "rb").close()  # raises an OSError where it cannot be read
    return args


def fall_back_to_demo(args: Namespace, options: Sequence[str]) -> None:
    """If these options have their defaults and no such file exists, use demo/, and warn."""
    paths = [getattr(args, option) for option in options]
    if EMBEDDED.keys() >= set(paths) and not any(map(os.path.exists, paths)) and DEMO.is_dir():
        embedded = [str(DEMO / EMBEDDED[path]) for path in paths]
        vars(args).update(zip(options, embedded))
        print(f"*** WARNING: {paths[0]} is not here: using the small embedded {embedded[0]} "
              "instead. The published results do not apply to it.\n"
              "*** `bash setup.sh` fetches the official files.", file=sys.stderr)


Row = tuple[str, int, list[int]]  # a sentence, its label and its token ids


def create_data(
    filename: str, tokenizer: Tokenizer, flag: str = "train", lower: bool = False,
    eos: bool = True, prompt_suffix: str | None = None,
) -> list[Row] | tuple[list[Row], int]:
    """Read and tokenize a file of lines `label ||| sentence`.

    Args:
        eos: whether the token ids end in `</s>`; they start with `<s>`.
        prompt_suffix: appended to each sentence, after a space; never truncated.
    Returns:
        (sentence, label, token ids) for each line; with `flag='train'`, a pair of this list and
        the number of distinct labels.
    """
    ending = tokenizer.sp_model.encode(prompt_suffix) if prompt_suffix else []
    ending += [tokenizer.eos_id] * eos
    rows = []
    for label, sentence in utils.read_examples(filename):
        sentence = sentence.lower() if lower else sentence
        ids = tokenizer.encode(sentence, bos=True, eos=False) + ending
        rows.append((f"{sentence} {prompt_suffix}" if prompt_suffix else sentence, label, ids))
    print(f"load {len(rows)} data from {filename}")
    return (rows, len({label for _, label, _ in rows})) if flag == "train" else rows


class LlamaDataset(Dataset):
    """Rows of `create_data`, collated into padded batches.

    Rows without token ids are encoded from their sentences. In a batch, rows end in `</s>` if `eos`
    is true, whatever they end in here.
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
        encoded = [ids or self.tokenizer.encode(sentence, bos=True, eos=False)
                   for sentence, ids in zip(sents, token_ids)]
        plain = [ids[:-1] if ids[-1:] == eos else ids for ids in encoded]
        padded = pad_sequence(
            [torch.tensor(ids + eos * self.eos, dtype=torch.long) for ids in plain],
            batch_first=True, padding_value=self.tokenizer.pad_id)
        return padded, torch.tensor(labels), list(sents)

    def collate_fn(self, rows: list[Row]) -> dict[str, Any]:
        """`pad_data` as a dict."""
        return dict(zip(("token_ids", "labels", "sents"), self.pad_data(rows)))


def load_data(
    args: Namespace, splits: Iterable[str], num_labels: int = 0, prompt_suffix: str | None = None
) -> tuple[Tokenizer, int, dict[str, DataLoader]]:
    """Read and tokenize splits, each sentence once, and check their labels.

    Args:
        num_labels: used where "train" is not among the splits.
        prompt_suffix: appended to the sentences of dev and test.
    Returns:
        The tokenizer, the number of labels, and for each split its batches, shuffled for "train".
    """
    tokenizer, loaders = Tokenizer(args.max_sentence_len, args.tokenizer), {}
    for split in splits:
        path, is_train = getattr(args, split), split == "train"
        rows = create_data(path, tokenizer, split, eos=False,
                           prompt_suffix=None if is_train else prompt_suffix)
        if is_train:
            rows, num_labels = rows
        for line, (_, label, _) in enumerate(rows, start=1):
            if not (0 if is_train else PLACEHOLDER) <= label < num_labels:
                raise InputError(f"{path}, line {line}: label {label} is not from 0 to "
                                 f"{num_labels - 1}; the training data have {num_labels} labels")
        dataset = LlamaDataset(rows, args, tokenizer=tokenizer)
        loaders[split] = DataLoader(dataset, args.batch_size, is_train,
                                    collate_fn=dataset.collate_fn)
    return tokenizer, num_labels, loaders


def seed_everything(seed: int = 11711) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators, CUDA's included."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def pick_device(use_gpu: bool) -> torch.device:
    """The CPU or, if asked for, CUDA, configured as in the reference; InputError without CUDA."""
    if not use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError("--use_gpu: PyTorch finds no CUDA device; leave the option out to run on "
                         "the CPU, or install a CUDA build of PyTorch and its driver")
    torch.set_float32_matmul_precision("high")  # TF32, as in the published results
    if hasattr(torch.backends.cuda, "enable_cudnn_sdp"):  # PyTorch 2.5
        torch.backends.cuda.enable_cudnn_sdp(False)  # it spends 145 ms on every new length
    return torch.device("cuda")


def prefer_onednn(dim: int) -> None:
    """Multiply float32 matrices with oneDNN (benchmarks/README.md) where that stays exact."""
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, "64")  # kernels of up to 1 MB; a step needs about 50
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # PyTorch 2.9
    if matmul is None or dim < 512:  # compiling a kernel for each shape pays off only for wide ones
        return
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    probe = torch.full((512, 512), 1 + 2**-12)  # bfloat16 units (Intel's AMX) would make it 1
    if not torch.equal(F.linear(probe, torch.eye(512)), probe):
        matmul.fp32_precision = before


def load_model(
    args: Namespace, path: str, tokenizer: Tokenizer, build: Callable[[], nn.Module]
) -> nn.Module:
    """Build a model, say that it is from the file `path`, and move it to the device of the job."""
    with utils.refusing(args.pretrained_model_path):
        model = build()
    print(f"load model from {path}")
    llama = getattr(model, "llama", model)
    if tokenizer.n_words > llama.vocab_size:
        raise InputError(f"{tokenizer.model_path} has {tokenizer.n_words} pieces, the checkpoint "
                         f"embeddings for {llama.vocab_size}: name the tokenizer that belongs to "
                         "the checkpoint with --tokenizer")
    if args.device.type == "cpu":
        prefer_onednn(llama.params.dim)
    return model.to(args.device)


@torch.inference_mode()
def model_eval(
    dataloader: DataLoader, model: nn.Module, device: torch.device
) -> tuple[float, float, list[int], list[int], list[str]]:
    """Classify all sentences, in the order of the loader.

    Returns:
        Accuracy and macro F1 (without rows labelled with the placeholder -1; NaN if there are no
        others), predictions, labels, sentences.
    """
    from sklearn.metrics import f1_score
    model.eval()
    predictions, labels, sents = [], [], []
    for batch in progress(dataloader, "evaluate"):
        predictions += model(batch["token_ids"].to(device)).argmax(dim=-1).tolist()
        labels += batch["labels"].tolist()
        sents += batch["sents"]
    if not (known := without_placeholders(labels, predictions)):
        return math.nan, math.nan, predictions, labels, sents
    accuracy = float(np.mean(np.equal(*known)))
    return accuracy, f1_score(*known, average="macro"), predictions, labels, sents


def without_placeholders(labels: list[int], predictions: list[int]) -> list[tuple[int, ...]]:
    """Labels and predictions where the label is known; empty if it never is."""
    return [*zip(*(pair for pair in zip(labels, predictions) if pair[0] != PLACEHOLDER))]


def write_predictions_to_file(
    split: str, outfile: str, acc: float, pred: list[int], sents: list[str]
) -> None:
    """Print the accuracy of a split and write its predictions, a `label ||| sentence` per line."""
    print(f"{split} acc :: {acc:.3f}")
    with utils.atomic_write(outfile, "w") as file:
        file.writelines(f"{p}{utils.SEPARATOR}{sentence}\n" for p, sentence in zip(pred, sents))
    print(f"{split} predictions are in {outfile}")


def evaluate(args: Namespace, model: nn.Module, loaders: dict[str, DataLoader]) -> None:
    """Classify dev and test, write the predictions, and print a report on each."""
    from sklearn.metrics import classification_report
    for split, outfile in (("dev", args.dev_out), ("test", args.test_out)):
        acc, _, pred, labels, sents = model_eval(loaders[split], model, args.device)
        write_predictions_to_file(split, outfile, acc, pred, sents)
        if known := without_placeholders(labels, pred):
            print(classification_report(*known, digits=4, zero_division=0))
        else:
            print(f"All labels of {split} are placeholders ({PLACEHOLDER}): nothing to report.")


def generate_sentence(
    args: Namespace, prefix: str, outfile: str, max_new_tokens: int = 75, temperature: float = 0.0
) -> None:
    """Continue a text, print it and write it to a file."""
    args = prepare(Namespace(**vars(args) | {"outfile": outfile}), "generate", writes=["outfile"])
    write_stories(args, prefix, {outfile: temperature}, max_new_tokens)


def generate(args: Namespace) -> None:
    """Continue the prompt, greedily and by sampling, into two files."""
    args = prepare(args, "generate", writes=[
        "generated_sentence_low_temp_out", "generated_sentence_high_temp_out"])
    write_stories(args, args.prompt, {args.generated_sentence_low_temp_out: 0.0,
                                      args.generated_sentence_high_temp_out: 1.0})


@torch.inference_mode()
def write_stories(
    args: Namespace, prefix: str, temperatures: dict[str, float], max_new_tokens: int = 75
) -> None:
    """Continue a text at a temperature for each output file, with one model."""
    tokenizer, path = Tokenizer(None, args.tokenizer), args.pretrained_model_path
    with torch.random.fork_rng(devices=[]):  # loading draws, too, but a story starts at the seed
        llama = load_model(args, path, tokenizer, lambda: load_pretrained(path)).eval()
    ids = torch.tensor([tokenizer.encode(prefix, bos=True, eos=False)], device=args.device)
    for outfile, temperature in temperatures.items():
        text = tokenizer.decode(llama.generate(ids, max_new_tokens, temperature)[0].tolist())
        with utils.atomic_write(outfile, "w") as file:
            file.write(text)
        print(f"Temperature is {temperature}\n{text}\n{'-' * 80}\n"
              f"Wrote generated sentence to {outfile}.")


def question(names: list[str]) -> str:
    """The question after each sentence; the model answers with its next token."""
    *others, last = names
    choices = " or ".join(names) if len(names) < 3 else f"{', '.join(others)}, or {last}"
    return f"Is this movie {choices}? This movie is "


def test_with_prompting(args: Namespace) -> None:
    """Classify dev and test by asking the language model, without any training."""
    splits = ["train", "dev", "test"]
    args = prepare(args, "prompt", [*splits, "label_names"], ["dev_out", "test_out"])
    names = utils.read_label_names(args.label_names)
    _, num_labels, loaders = load_data(args, splits, prompt_suffix=question(names))
    if len(names) != num_labels:
        raise InputError(f"{args.label_names}: {len(names)} names for the {num_labels} labels of "
                         f"{args.train}; it needs one for each")
    path = args.pretrained_model_path
    config = SimpleNamespace(num_labels=num_labels, pretrained_model_path=path)
    tokenizer = Tokenizer(None, args.tokenizer)  # --max_sentence_len does not cut label names
    model = load_model(args, path, tokenizer,
                       lambda: LlamaZeroShotClassifier(config, tokenizer, names))
    evaluate(args, model, loaders)


def train(args: Namespace) -> None:
    """Train, with LoRA if `args.option` is "lora", and save the model of the best epoch."""
    args = prepare(args, "train", ["train", "dev"], ["filepath", "state"])
    fit(args, *load_data(args, ["train", "dev"]))
    with suppress(OSError):  # the run has succeeded
        os.unlink(args.state)


train_lora = train  # `make_classifier` decides which parameters are trained


def test(args: Namespace) -> None:
    """Evaluate the model that `train` has saved on dev and test."""
    args = prepare(args, "train", ["dev", "test"], ["dev_out", "test_out"])
    saved = utils.load_file(args.filepath)
    if not isinstance(saved, dict) or "model_config" not in saved:
        raise InputError(f"{args.filepath}: not a trained classifier; `train` saves one")
    config = SimpleNamespace(**saved["model_config"] | {
        "pretrained_model_path": args.pretrained_model_path})
    tokenizer, _, loaders = load_data(args, ["dev", "test"], config.num_labels)
    model = load_model(args, args.filepath, tokenizer, lambda: LlamaEmbeddingClassifier(config))
    try:
        model.load_state_dict(saved["model"])
    except RuntimeError as error:
        raise InputError(f"{args.filepath}: was trained from another checkpoint than "
                         f"{args.pretrained_model_path}; name that one") from error
    evaluate(args, model, loaders)


def train_and_test(args: Namespace) -> None:
    """Train, and evaluate the model of the best epoch on dev and test."""
    splits = ["train", "dev", "test"]
    args = prepare(args, "train", splits, ["filepath", "state", "dev_out", "test_out"])
    tokenizer, num_labels, loaders = load_data(args, splits)
    evaluate(args, fit(args, tokenizer, num_labels, loaders), loaders)
    with suppress(OSError):  # the run has succeeded
        os.unlink(args.state)


def fit(
    args: Namespace, tokenizer: Tokenizer, num_labels: int, loaders: dict[str, DataLoader]
) -> nn.Module:
    """Train a classifier; return the model of the best epoch, with LoRA merged into it.

    Random numbers are drawn in the order of the course's program (structure.md).
    """
    config = SimpleNamespace(
        hidden_dropout_prob=args.hidden_dropout_prob, num_labels=num_labels, data_dir=".",
        pretrained_model_path=args.pretrained_model_path, option=args.option)
    model = load_model(args, args.pretrained_model_path, tokenizer,
                       lambda: make_classifier(args, config))
    lora, count, percent = count_lora_parameters(model)
    print(f"training {count:,} parameters, {lora:,} ({percent:.1f}%) of LoRA, on {args.device}")
    optimizer = AdamW([p for p in model.parameters() if p.requires_grad], lr=args.lr)
    state = load_state(args, model, optimizer)
    for epoch in range(state["done"], args.epochs):
        started = time.monotonic()
        loss = train_epoch(args, model, optimizer, loaders["train"], epoch)
        train_acc, *_ = model_eval(loaders["train"], model, args.device)
        dev_acc, dev_f1, *_ = model_eval(loaders["dev"], model, args.device)
        state |= {"done": epoch + 1, "weights": {
            name: p.detach().to("cpu", copy=True)
            for name, p in model.named_parameters() if p.requires_grad}}
        improved = not dev_acc <= state["best_dev_acc"]  # also where dev has no labels: NaN
        if improved:
            state |= {"best_dev_acc": dev_acc, "best": epoch, "best_weights": state["weights"]}
            best = merge_lora_weights(copy.deepcopy(model))
            save_model(best, optimizer, args, config, args.filepath)
        utils.save_file(args.state, state | {
            "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if args.use_gpu else None})
        print(f"{'LoRA ' if args.option == 'lora' else ''}epoch {epoch}: train loss :: {loss:.3f}, "
              f"train acc :: {train_acc:.3f}, dev acc :: {dev_acc:.3f}, "
              f"dev macro F1 :: {dev_f1:.3f}, {time.monotonic() - started:.0f} s"
              f"{', best so far' if improved else ''}")
    model.load_state_dict(model.state_dict() | state["best_weights"])
    best = merge_lora_weights(model)
    if args.resume:  # another run may have overwritten the file since that epoch
        save_model(best, optimizer, args, config, args.filepath)
    print(f"epoch {state['best']} was the best; its model is in {args.filepath}")
    return best


def make_classifier(args: Namespace, config: SimpleNamespace) -> LlamaEmbeddingClassifier:
    """A classifier with all parameters trainable, or with LoRA only its matrices and the head."""
    model = LlamaEmbeddingClassifier(config)
    if args.option == "lora":
        model.llama.requires_grad_(False)
        model.llama = apply_lora(model.llama, rank=args.lora_rank, alpha=args.lora_alpha)
    return model


def train_epoch(
    args: Namespace, model: nn.Module, optimizer: AdamW, loader: DataLoader, epoch: int
) -> float:
    """Train for one epoch; return the mean loss of its batches, or raise InputError."""
    model.train()
    total = 0.0
    for batch in progress(loader, f"train epoch {epoch}"):
        log_probs = model(batch["token_ids"].to(args.device))
        labels = batch["labels"].to(args.device)
        loss = F.nll_loss(log_probs, labels, reduction="sum") / args.batch_size
        total += loss.item()
        if not math.isfinite(total):
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if not (math.isfinite(total) and all(p.isfinite().all() for p in model.parameters())):
        raise InputError(f"training diverged in epoch {epoch}, at a loss of {loss.item():g}; try a "
                         f"smaller --lr than {args.lr:g}")
    return total / len(loader)


def save_model(
    model: nn.Module, optimizer: torch.optim.Optimizer, args: Namespace, config: SimpleNamespace,
    filepath: str,
) -> None:
    """Save a model for `test`, loadable with `weights_only=True`; `optimizer` is not needed."""
    plain_config, plain_args = (
        json.loads(json.dumps(vars(namespace), default=str)) for namespace in (config, args))
    plain_args.pop("resume", None)  # a resumed run saves the same bytes
    utils.save_file(filepath, {
        "model": dict(model.state_dict()), "model_config": plain_config, "args": plain_args})
    print(f"save the model to {filepath}")


def load_state(args: Namespace, model: nn.Module, optimizer: AdamW) -> dict[str, Any]:
    """The state before training; with --resume the saved one, restored to model and optimizer."""
    options = {name: str(value) for name, value in vars(args).items() if name not in NOT_COMPARED}
    for name in ("train", "dev", "pretrained_model_path", "tokenizer"):  # wherever the file is
        options[name] = hashlib.sha256(Path(getattr(args, name)).read_bytes()).hexdigest()
    if not args.resume or not os.path.exists(args.state):
        if args.resume:
            print(f"--resume: there is no {args.state}; starting from the beginning")
        return {"options": options, "done": 0, "best_dev_acc": -math.inf}
    advice = "leave out --resume to start afresh"
    state = utils.load_file(args.state, advice)
    before = state.get("options", {}) if isinstance(state, dict) else {}
    if changed := [name for name in options if before.get(name) != options[name]]:
        raise InputError(f"{args.state}: that run used another {', '.join(changed)}; use the same "
                         f"options and files, or {advice}")
    model.load_state_dict(model.state_dict() | state["weights"])
    optimizer.load_state_dict(state.pop("optimizer"))
    torch.set_rng_state(state["rng"])
    if args.use_gpu:
        torch.cuda.set_rng_state(state["cuda_rng"])
    print(f"resume after {state['done']} of {args.epochs} epochs")
    return state


JOBS = {"generate": generate, "prompt": test_with_prompting,
        "finetune": train_and_test, "lora": train_and_test}


def main(argv: list[str] | None = None) -> int:
    """Run one job."""
    args = get_args(argv)
    print(f"args: {vars(args)}")
    seed_everything(args.seed)
    JOBS[args.option](args)
    return 0


if __name__ == "__main__":
    sys.exit(utils.run_program(main, interrupted="interrupted; the same command starts again, or "
                               "with --resume continues training after the last finished epoch"))
