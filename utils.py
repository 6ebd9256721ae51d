"""Shared constants, data files, atomic writes, one-line errors and progress.

PyTorch takes seconds to import, so only the functions that read or write tensors import it.
"""

import argparse
import errno
import json
import math
import os
import re
import secrets
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

PROMPT = ("Victor Frankenstein, a young scientist obsessed with uncovering the secrets of life, "
          "succeeds in animating a creature assembled from")
KIND = {"prompt": "prompting", "finetune": "finetuning", "lora": "lora"}  # in output names
SEPARATOR = " ||| "


class InputError(ValueError):
    """An error for the user; the message is one line: what is wrong, where, and what to do."""


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Add the path to an OSError that lacks one, as raised when reading or writing fails midway."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


@contextmanager
def refusing(path: str) -> Iterator[None]:
    """Turn a ValueError that names the file `path` into an InputError; others are defects."""
    try:
        yield
    except ValueError as error:
        if str(path) not in str(error):
            raise
        raise InputError(error) from error


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
        try:
            os.replace(part, target)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            shutil.copyfile(part, target)  # a mounted file cannot be replaced
            os.unlink(part)
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
    if os.path.isdir(target):
        raise InputError(f"{path}: is a folder; choose another name")
    is_device = os.path.exists(target) and not os.path.isfile(target)
    if not is_device and not os.access(folder, os.W_OK):
        raise InputError(f"{path}: {folder} is missing or read-only; make it, or choose another")


def save_file(path: str, content: Any) -> None:
    """Call `torch.save`, atomically; raises OSError like `atomic_write`."""
    import torch

    with atomic_write(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # PyTorch wraps the OSError in this
            raise (error.__context__ or error) from None


def load_file(path: str, advice: str = "replace it") -> Any:
    """Load a `torch.save` file onto the CPU, without executing code in it.

    Raises:
        OSError: it cannot be read.
        InputError: it is damaged, or contains more than tensors, containers, numbers and strings.
    """
    import torch

    try:
        with naming(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch 2.1 warns about its own code
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage provokes anything in pickle, zipfile and PyTorch
        # EINVAL: PyTorch seeks past the end of a truncated file.
        is_damage = not isinstance(error, OSError) or error.errno in (None, errno.EINVAL)
        if is_out_of_memory(error) or not is_damage:
            raise
        reason = str(error).split("\n")[0].split(". ")[0] or type(error).__name__
        raise InputError(f"{path}: damaged, or not a plain PyTorch file ({reason:.200}); "
                         f"{advice}") from error


def sibling(path: str, name: str) -> str:
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
    with naming(path), open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = file.read().rstrip().split("\n")
    # Bytes that are not UTF-8 have become characters from U+DC80 to U+DCFF.
    pattern = re.compile(r"(-?[0-9]{1,9})\s* \|\|\| ([^\udc80-\udcff]+)")
    matches = [pattern.fullmatch(line.strip()) for line in lines]
    if None in matches:
        line = lines[matches.index(None)]
        problem = f"{line[:40]!r} is not 'label ||| sentence' with a whole number as label"
        if re.search("[\udc80-\udcff]", line):
            problem = "not UTF-8; convert the file"
        raise InputError(f"{path}, line {matches.index(None) + 1}: {problem}")
    return [Example(int(match[1]), match[2].strip()) for match in matches]


def read_label_names(path: str) -> list[str]:
    """Read the names of the labels, a JSON array of strings; anything else is an InputError."""
    names = None
    with suppress(ValueError, RecursionError), naming(path):
        names = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    # A line break in a name would break the lines of the output, too.
    if not isinstance(names, list) or not names or not all(
            isinstance(name, str) and name.strip() and name.isprintable() for name in names):
        raise InputError(f'{path}: not a JSON list of names, such as ["bad", "good"]')
    return names


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


def run_program(main: Callable[[list[str] | None], int], argv: list[str] | None = None,
                interrupted: str = "interrupted") -> int:
    """Call `main(argv)`; report errors that users can fix in one line on standard error.

    Any other exception is a bug and keeps its traceback.

    Args:
        interrupted: the line after Ctrl-C or SIGTERM.
    Returns:
        The exit status: that of `main`, 1 out of memory, 2 bad input or a file that cannot be read
        or written, 130 Ctrl-C, 143 SIGTERM.
    """
    def terminate(*_: object) -> None:
        raise KeyboardInterrupt(143)

    signal.signal(signal.SIGTERM, terminate)
    if hasattr(sys.stdout, "reconfigure"):  # not in a notebook, nor where it is closed
        # Every line at once, also into a log file; escape what a terminal cannot show.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        return main(argv)
    except KeyboardInterrupt as interrupt:
        status, message = (*interrupt.args, 130)[0], interrupted
    except InputError as error:
        status, message = 2, error
    except OSError as error:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename) or repr('')}: "
        hint = ("; `bash setup.sh` fetches the official files, --help explains how to name others"
                if error.errno == errno.ENOENT else "")
        status, message = 2, f"{where}{error.strerror or error}{hint}"
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        status, message = 1, "out of memory; see Troubleshooting in README.md"
    print(f"{Path(main.__code__.co_filename).name}: {one_line(message):.1000}", file=sys.stderr)
    return status


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, PyTorch's CPU allocator or CUDA ran out of memory."""
    return isinstance(error, MemoryError) or isinstance(error, RuntimeError) and bool(
        re.search("DefaultCPUAllocator|CUDA out of memory", str(error)))


def one_line(message: object) -> str:
    """A message as a single line without control characters, whatever it quotes."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(message).split()))


def progress(batches: Collection, title: str) -> Iterator:
    """Iterate with a progress bar; in a log file, with a line every three minutes."""
    bar = tqdm(batches, title, leave=False, disable=None if sys.stderr else True)
    printed = time.monotonic()
    for done, batch in enumerate(bar):
        if bar.disable and time.monotonic() >= printed + 180:
            printed = time.monotonic()
            print(f"{title}: {done} of {len(batches)}", file=sys.stderr)
        yield batch
