"""What several modules share: data files, atomic writes, one-line errors, devices, progress."""

import argparse
import errno
import json
import math
import os
import re
import secrets
import sys
import time
import timeit
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from tqdm import tqdm

SEPARATOR = " ||| "
LOG_SECONDS = 180  # between two lines of progress in a log file


class InputError(ValueError):
    """Bad input: the message says in one line what is wrong, where, and what to do."""


# ------------------------------------------------------------------------------------------ files

@contextmanager
def atomic_write(path: str, mode: str = "wb") -> Iterator[IO]:
    """Write to a temporary file, then rename it to `path`: readers see the old file or the new one.

    A symbolic link is followed. Anything but a regular file, such as /dev/null, is written to
    directly. Text is UTF-8 with plain newlines on every platform.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; `path` is untouched.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    target = os.path.realpath(path)
    part = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.part")
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, mode, **text) as file:
                yield file
            return
        with open(part, mode.replace("w", "x"), **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(part)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, path) from error
        raise


def check_writable(path: str) -> None:
    """Raise OSError or InputError, naming the path, if `atomic_write` could not write to it."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    with suppress(FileNotFoundError):
        os.stat(target)  # raises another OSError where the name is too long
    is_device = os.path.exists(target) and not os.path.isfile(target)
    if os.path.isdir(target):
        raise InputError(f"{path}: is a folder; choose another name")
    if not is_device and not os.access(folder, os.W_OK):
        raise InputError(f"{path}: {folder} is missing or read-only; make it, or choose another")


def save_file(path: str, content: Any) -> None:
    """Call `torch.save`, atomically; raises OSError like `atomic_write`."""
    with atomic_write(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # behind which PyTorch hides the failed write
            raise (error.__context__ or error) from None


def beside(path: str, name: str) -> str:
    """The file `name` that belongs to `path`: in the same folder, or else in the current one."""
    candidate = os.path.join(os.path.dirname(path), name)
    return candidate if os.path.exists(candidate) else name


class Example(NamedTuple):
    """One line of a data file."""

    label: int
    sentence: str


def read_examples(path: str) -> list[Example]:
    r"""Read a file of lines `label ||| sentence`; only the first ` ||| ` separates.

    UTF-8, with or without byte-order mark; lines end in \n, \r\n or \r, and in nothing else.

    Raises:
        InputError: naming file and line, for a line that does not have this form.
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + len(re.findall(rb"\r\n|\r|\n", content[:error.start]))
        raise InputError(f"{path}, line {line}: not UTF-8; convert the file") from error
    lines = re.split("\r\n|\r|\n", text)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"{path}: empty; it needs lines 'label ||| sentence'")
    return [parse_example(line, f"{path}, line {n}") for n, line in enumerate(lines, start=1)]


def parse_example(line: str, where: str) -> Example:
    """Split a line of a data file; `where` is for the messages."""
    label, separator, sentence = line.partition(SEPARATOR)
    if not separator:
        raise InputError(f"{where}: no ' ||| ' between label and sentence")
    if not re.fullmatch("-?[0-9]{1,9}", label.strip()):
        raise InputError(f"{where}: the label {label!r:.40} is not a whole number")
    if not sentence.strip():
        raise InputError(f"{where}: no sentence after the label")
    return Example(int(label), sentence.strip())


def read_label_names(path: str) -> list[str]:
    """Read the names of the labels, a JSON array of strings; anything else is an InputError."""
    try:
        names = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        names = None
    # A line break in a name would break the lines of the output, too.
    if not isinstance(names, list) or not names or not all(
            isinstance(name, str) and name.strip() and name.isprintable() for name in names):
        raise InputError(f'{path}: not a JSON list of names, such as ["bad", "good"]')
    return names


# ----------------------------------------------------------------------------------- command line

class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports errors in one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {one_line(message)} (--help lists the options)\n")


def checked(kind: type, is_valid: Callable[[Any], bool], description: str) -> Callable[[str], Any]:
    """A type for argparse: a number or text that meets a condition."""
    def parse(text: str) -> Any:
        value = kind(text)
        if not is_valid(value):
            raise ValueError
        return value
    parse.__name__ = description  # argparse says "invalid {description} value"
    return parse


positive_int = checked(int, lambda n: 0 < n < 2**31, "positive integer")
positive_number = checked(float, lambda x: 0 < x < math.inf, "positive number")


def one_line(message: object) -> str:
    """A message as a single line without control characters, whatever it quotes."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(message).split()))


def fail(program: str, error: object, status: int = 2) -> int:
    """Say in one line on standard error why a program ends; return the exit status."""
    if isinstance(error, OSError):
        where = "standard output" if error.filename is None else os.fsdecode(error.filename)
        hint = ("; `bash setup.sh` fetches the official files, --help says how to name others"
                * (error.errno == errno.ENOENT))
        error = f"{where}: {error.strerror}{hint}"
    print(f"{program}: {one_line(error):.1000}", file=sys.stderr)
    return status


def configure_stdout() -> None:
    """Print every line at once, also into a log file, and escape what a terminal cannot show."""
    if hasattr(sys.stdout, "reconfigure"):  # not in a notebook, nor where it is closed
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def progress(batches: Iterable, title: str) -> Iterator:
    """Iterate with a progress bar on a terminal, or with a line now and then in a log file."""
    if sys.stderr and sys.stderr.isatty():
        yield from tqdm(batches, title, leave=False)
        return
    said = time.monotonic()
    for number, batch in enumerate(batches, start=1):
        yield batch
        if time.monotonic() - said >= LOG_SECONDS:
            print(f"{title}: {number:,} of {len(batches):,} batches")
            said = time.monotonic()


# ---------------------------------------------------------------------------------------- devices

def pick_device(use_gpu: bool, dtype: str = "float32") -> torch.device:
    """The CPU or, if asked for, CUDA, configured as in the reference.

    Raises:
        InputError: there is no CUDA, or `dtype` is bfloat16 and would only lose accuracy.
    """
    if dtype == "bfloat16":
        prefer_onednn(dim=512)  # float32 at its best
        # On CUDA, TF32 was faster in every job: autocast adds launches (benchmarks/README.md).
        if use_gpu or not bfloat16_is_faster():
            raise InputError("--dtype bfloat16: slower than float32 on this device; leave it out")
    if not use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError("--use_gpu: PyTorch finds no CUDA device; leave the option out to run on "
                         "the CPU, or install a CUDA build of PyTorch and its driver")
    torch.set_float32_matmul_precision("high")  # TF32, as in the published results
    if hasattr(torch.backends.cuda, "enable_cudnn_sdp"):  # PyTorch 2.5
        torch.backends.cuda.enable_cudnn_sdp(False)  # it takes 145 ms for every new length
    return torch.device("cuda")


def prefer_onednn(dim: int) -> None:
    """Multiply float32 matrices with oneDNN (benchmarks/README.md) where that stays exact."""
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, "64")  # kernels, of up to 1 MB; one step needs about 50
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # PyTorch 2.9
    if matmul is None or dim < 512:  # compiling a kernel for each shape pays off only for wide ones
        return
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    probe = torch.full((512, 512), 1 + 2**-12)  # bfloat16 units (Intel's AMX) would make it 1
    if not torch.equal(torch.nn.functional.linear(probe, torch.eye(512)), probe):
        matmul.fp32_precision = before


@cache  # measured once: a run that has begun is not refused later
def bfloat16_is_faster() -> bool:
    """Whether the CPU multiplies bfloat16 faster than float32: without units for it, far slower."""
    def fastest(dtype: torch.dtype) -> float:
        x, weight = torch.ones(256, 512, dtype=dtype), torch.ones(1376, 512, dtype=dtype)
        return min(timeit.repeat(lambda: torch.nn.functional.linear(x, weight), number=1, repeat=5))

    return fastest(torch.bfloat16) < fastest(torch.float32)
