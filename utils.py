"""What several modules share: files that are whole or not there, command lines, seeds, devices."""

import argparse
import errno
import fcntl
import glob
import json
import os
import random
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch

SEPARATOR = " ||| "
ONEDNN_FROM = 512  # width of a model


def require_file(path: str, hint: str) -> None:
    """Make sure that `path` is a file.

    Raises:
        FileNotFoundError: there is nothing; the message ends with `hint`, what to do about it.
        ValueError: there is something else, such as a folder.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file; {hint}")
    if not os.path.isfile(path):
        raise ValueError(f"{path}: not a file; {hint}")


def beside(path: str, name: str) -> str:
    """The file `name` that belongs to `path`: in the same folder, or else in the current one."""
    candidate = os.path.join(os.path.dirname(path), name)
    return candidate if os.path.exists(candidate) else name


def remove_leftovers(folder: str, name: str) -> None:
    """Remove what `atomic_write` could not, since its process was killed."""
    for part in Path(folder).glob(f".{glob.escape(name)}.*.part"):
        pid = part.name.split(".")[-2]
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            part.unlink(missing_ok=True)
        except (ValueError, OverflowError, PermissionError):
            pass  # not ours, or its process is alive


@contextmanager
def atomic_write(path: str, mode: str = "wb") -> Iterator[IO]:
    """Open a file that takes its place under `path` only when it is whole and on the disk.

    Whoever reads `path` sees all of the old file or all of the new one. Text is UTF-8 with plain
    newlines on every platform.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; `path` is untouched.
    """
    folder, name = os.path.split(os.path.abspath(path))
    part = Path(folder, f".{name}.{os.getpid()}.part")
    remove_leftovers(folder, name)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with open(part, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        part.unlink(missing_ok=True)


def read_torch_file(path: str) -> Any:
    """Load a file of `torch.save` from a source that nobody vouches for, onto the CPU.

    Nothing in the file is executed, and it cannot unpack to more than its own size.

    Raises:
        ValueError: damaged, or not made of tensors, containers, numbers and texts alone.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("compressed, which torch.save never does")
            # torch.load skips the checksums: a flipped bit would become a wrong weight.
            damaged = archive.testzip()
            if damaged:
                raise ValueError(f"the checksum of {damaged!r:.80} is wrong")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of tensors that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file provokes, in zipfile, pickle or PyTorch
        reason = str(error).split("\n")[0].split(". ")[0] or type(error).__name__
        raise ValueError(f"{path}: damaged, or not a plain PyTorch file ({reason:.200}); "
                         "get it again from a source that you trust") from error


def save_torch(path: str, content: Any) -> None:
    """torch.save, whole or not at all.

    Raises:
        OSError: as `atomic_write`.
    """
    with atomic_write(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # PyTorch's, about the gap that a failed write has left
            raise (error.__context__ or error) from None


def one_line(message: object) -> str:
    """A message as a single line without control characters, whatever it quotes."""
    text = " ".join(str(message).split())[:1000]
    return "".join(c if c.isprintable() else "?" for c in text)


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {one_line(message)} (--help lists the options)\n")


def fail(program: str, error: object, status: int = 2) -> int:
    """Say in one line on standard error why a program ends; returns the exit status."""
    if isinstance(error, OSError) and error.filename:
        error = f"{error.filename}: {error.strerror}"
    print(f"{program}: {one_line(error)}", file=sys.stderr)
    return status


def set_seed(*seed: int) -> None:
    """Seed every generator that the program draws from, by one number or by several together."""
    state = np.random.SeedSequence(seed).generate_state(1)[0]
    random.seed(int(state))
    np.random.seed(state)
    torch.manual_seed(int(state))  # all CUDA devices included


def pick_device(use_gpu: bool) -> torch.device:
    """The CPU, or the first CUDA device where it was asked for.

    Raises:
        ValueError: it was asked for and there is none.
    """
    if use_gpu and not torch.cuda.is_available():
        raise ValueError("--use_gpu: PyTorch finds no CUDA device; leave the option out to run on "
                         "the CPU, or install a CUDA build of PyTorch and its driver")
    return torch.device("cuda" if use_gpu else "cpu")


def multiply_by_onednn(dim: int) -> bool:
    """Have oneDNN rather than MKL multiply float32 matrices on the CPU, if it does so in float32.

    It is faster, most of all on AMD's processors, but first compiles a kernel for every shape,
    which only wide models repay (benchmarks/README.md). PyTorch offers it only together with the
    permission to round to bfloat16 first, of which oneDNN makes use where the processor has units
    for that (Intel's AMX). There, and for narrow models, everything stays as it was.

    Args:
        dim: width of the model.
    Returns:
        Whether oneDNN is put to use.
    """
    # oneDNN and PyTorch each keep a kernel for every shape met, of up to a megabyte; batches have
    # many lengths. One step needs about 50 at most.
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "64")
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None or dim < ONEDNN_FROM:  # PyTorch before 2.9 has no such setting
        return False
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    probe = torch.full((512, 512), 1 + 2**-12)  # bfloat16 would make it 1
    exact = torch.equal(torch.nn.functional.linear(probe, torch.eye(512)), probe)
    if not exact:
        matmul.fp32_precision = before
    return exact


@contextmanager
def sole_owner(path: str, doing: str) -> Iterator[None]:
    """Hold a lock file for as long as the block runs; the system drops it when the process dies.

    Raises:
        BlockingIOError: another process holds it; `doing` says what both would do.
    """
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(lock.fileno()).st_nlink:  # its last owner has just removed it
                raise BlockingIOError(errno.EAGAIN, "lock removed")
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, f"another run is {doing}; wait for it to end, or "
                                  "give this one other names", path) from error
        try:
            yield
        finally:
            os.unlink(path)


class Example(NamedTuple):
    """One line of a data file."""

    label: int
    sentence: str


def read_examples(path: str) -> list[Example]:
    """Read a file of lines `label ||| sentence`, UTF-8; only the first ` ||| ` separates.

    Raises:
        FileNotFoundError: there is none.
        ValueError: naming file and line, for whatever does not have this form.
    """
    require_file(path, "`bash setup.sh` fetches the official data; see data/README.md")
    examples = []
    with open(path, "rb") as file:
        for number_, raw in enumerate(file, start=1):
            where = f"{path}, line {number_}"
            try:
                line = raw.decode("utf-8-sig" if number_ == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: not UTF-8 (byte {error.start + 1} of the line); "
                                 "convert the file") from error
            label, separator, sentence = line.partition(SEPARATOR)
            if not separator:
                raise ValueError(f"{where}: no ' ||| ' between label and sentence")
            # int() would take "1_0", too
            if not re.fullmatch("-?[0-9]{1,9}", label.strip()):
                raise ValueError(f"{where}: the label {label!r:.40} is not a whole number")
            if not sentence.strip():
                raise ValueError(f"{where}: no sentence after the label")
            examples.append(Example(int(label), sentence.strip()))
    if not examples:
        raise ValueError(f"{path}: empty; it needs lines 'label ||| sentence'")
    return examples


def read_label_names(path: str, num_labels: int) -> list[str]:
    """The words that stand for the labels: a JSON array with one text for each of them."""
    require_file(path, "it holds the names of the labels, as a JSON list")
    try:
        names = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error!s:.80}); it has to be a list of the names of "
                         "the labels") from error
    # A line break in a name would break the lines of the output, too.
    if not isinstance(names, list) or not all(
            isinstance(n, str) and n.strip() and n.isprintable() for n in names):
        raise ValueError(f'{path}: not a JSON list of names, such as ["bad", "good"]')
    if len(names) != num_labels:
        raise ValueError(f"{path}: {len(names)} names for the {num_labels} labels of the training "
                         "file; it needs one for each")
    return names
