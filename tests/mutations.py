"""Damage of every kind: to data files, to checkpoints, to command lines. Seeded, so repeatable."""

import io
import json
import math
import random
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# ------------------------------------------------------------------------------------------ bytes


def truncate(rng: random.Random, content: bytes) -> bytes:
    return content[:rng.randrange(len(content))]


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content))
    length = min(rng.choice([1, 4, 64, 1000]), len(content) - start)
    return content[:start] + rng.randbytes(length) + content[start + length:]


def remove(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.choice([1, 4, 64, 1000]):]


def insert(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.randbytes(rng.choice([1, 4, 64])) + content[place:]


def another_kind(rng: random.Random, content: bytes) -> bytes:
    return rng.choice([b"", b"\0" * 999, b"PK\x03\x04", b"\x80\x02.", b"\x80\x04N.", b"{}", b"[[",
                       b"\x89PNG\r\n\x1a\n", b"%PDF-1.7\n", b"\x1f\x8b\x08\0", b"[" * 99_999,
                       rng.randbytes(500), b"\n" * 50, "ä".encode("latin-1"), content * 2])


BYTES = (truncate, flip_bits, overwrite, remove, insert, another_kind)

# ------------------------------------------------------------------------------------- data files

LABELS = ["", " ", "-1", "-2", "7", "1e3", "0x1", "1_0", "١", "nan", "None", "9" * 30, "9" * 5000,
          "true", "\0", "0\u200b"]
SENTENCES = ["", " ", "\t", "\0", "\u200b", "\u2028", "a\rb", "\ufffd", "||| |||", " ||| ",
             "𝔘𝔫𝔦", "\u202e", "word " * 3000, "x" * 9000, "\x1b[31m", "<s></s><0x00>"]


def mutate_lines(rng: random.Random, content: bytes) -> bytes:
    """Change one line of a data file to something odd."""
    lines = content.decode().splitlines()
    place = rng.randrange(len(lines))
    label, _, sentence = lines[place].partition(" ||| ")
    lines[place] = rng.choice([
        lambda: f"{rng.choice(LABELS)} ||| {sentence}",
        lambda: f"{label} ||| {rng.choice(SENTENCES)}",
        lambda: f"{label}{rng.choice(['|||', ' || ', ' |||', '', ',', chr(9)])}{sentence}",
        lambda: f"{sentence} ||| {label}",
        lambda: ""])()
    if rng.random() < 0.2:
        lines = [f"{rng.choice(LABELS)} ||| {sentence}" for _ in lines]
    return rng.choice(["\n", "\n", "\r\n", "\r"]).join(lines).encode(
        rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]), "replace")


def mutate_names(rng: random.Random, content: bytes) -> bytes:
    """A list of label names that is none, or an odd one."""
    odd = rng.choice(["", " ", 3, None, ["a"], {"a": 1}, "\ud800", "\u200b", "a\nb", "x" * 9999,
                      True, 1e400, "\0", "<s>"])
    return json.dumps(rng.choice([[odd, "b"], ["a", odd], odd, ["a"], ["a", "b", "c"], [],
                                  {"0": "a", "1": "b"}, ["a", "a"]])).encode()


def mutated_data(rng: random.Random, content: bytes, names: bool) -> tuple[str, bytes]:
    """How a data file, or the list of label names, was mutated, and the result."""
    how = rng.choice([*BYTES, *[mutate_names if names else mutate_lines] * len(BYTES)])
    return how.__name__, how(rng, content)


# ------------------------------------------------------------------------------- zips: checkpoints


def zip_members(content: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def zip_of(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.simplefilter("ignore")  # names that appear twice are meant to
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def mutate_zip(rng: random.Random, content: bytes) -> bytes:
    """Swap, remove, rename, double, cut or compress members, their checksums right."""
    members = zip_members(content)
    one, other = rng.sample(range(len(members)), 2)
    (name, data), (other_name, other_data) = members[one], members[other]
    how = rng.randrange(8)
    if how == 0:
        members[one], members[other] = (name, other_data), (other_name, data)
    elif how == 1:
        del members[one]
    elif how == 2:
        members[one] = (rng.choice(["../../escaped", "/tmp/escaped", "data.pkl", name + "x", " ",
                                    other_name, "a" * 500, name.upper()]), data)
    elif how == 3:
        members.append((name, other_data))
    elif how == 4:
        members[one] = (name, truncate(rng, data or b"x"))
    elif how == 5:
        members[one] = (name, flip_bits(rng, data or b"x"))
    elif how == 6:
        members = [(n, flip_bits(rng, d) if n.endswith("data.pkl") else d) for n, d in members]
    return zip_of(members, rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
                  if how == 7 else zipfile.ZIP_STORED)


# --------------------------------------------------------------------- what is in a checkpoint


def odd_tensors(t: torch.Tensor) -> list[Callable[[], Any]]:
    """What may stand in a tensor's place; made only when chosen, as some are large."""
    floats = [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
    others = [torch.int64, torch.int8, torch.uint8, torch.bool, torch.complex64]
    return [*(lambda d=d: t.to(d) for d in floats + others),
            lambda: t.to_sparse(), lambda: t.reshape(-1, 1).to_sparse_csr(),
            lambda: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
            lambda: t.to("meta"), lambda: t.reshape(-1), lambda: t[None], lambda: t[..., :0],
            lambda: t.reshape(-1)[0], lambda: t.transpose(0, -1).contiguous(), lambda: t.mT
            if t.ndim > 1 else t[::2], lambda: t[:1].expand(1000, *t.shape[1:]),
            lambda: torch.zeros(1).expand(2**20, 2**20), lambda: t * math.nan,
            lambda: t / 0, lambda: t * 1e30, lambda: t * 0, lambda: torch.nn.Parameter(t),
            lambda: str(t), lambda: t.tolist(), lambda: 3, lambda: None, lambda: {}, lambda: ""]


ODD_VALUES = [0, -1, 2, 3, 1.5, 10**6, 2**31, 2**63, 10**30, 10**5000, "2", "", "a\nb", None, True,
              False, math.nan, math.inf, -math.inf, [], {}, [8], (1,), {"a": {"b": 1}}, b"2",
              torch.tensor(2), torch.ones(2), 1j]
ODD_NAMES = ["", "x", "a\nb", "freqs_cos", "_orig_mod.", "output.weight", 3, None, (1, 2),
             "é" * 300, "norm.weight", "llama.norm.weight", "layers.99.ffn_norm.weight",
             "__class__", "\x1b[31m"]


def mutate_dict(rng: random.Random, content: dict) -> None:
    """Remove, rename, add or replace one entry, in place; tensors by odd tensors."""
    if not content:
        return
    key = rng.choice(list(content))
    value = content[key]
    how = rng.randrange(8)
    if how == 0:
        del content[key]
    elif how == 1:
        content[rng.choice(ODD_NAMES)] = content.pop(key)
    elif how == 2:
        content[rng.choice(ODD_NAMES)] = value
    elif how == 3:
        other = rng.choice(list(content))
        content[key], content[other] = content[other], value
    elif isinstance(value, torch.Tensor) and value.numel() < 2**20:  # not one expanded before
        content[key] = rng.choice(odd_tensors(value))()
    else:
        content[key] = rng.choice(ODD_VALUES)


def mutate_content(rng: random.Random, content: bytes) -> bytes:
    """Change what a checkpoint says, somewhere, and save it properly."""
    saved = torch.load(io.BytesIO(content), weights_only=True)
    inside = [saved]
    while len(inside) < 200:  # a dict at a random depth
        deeper = [v for v in (inside[-1].values() if isinstance(inside[-1], dict) else inside[-1])
                  if isinstance(v, (dict, list)) and v]
        if not deeper or (len(inside) > 1 and rng.random() < 0.3):
            break
        inside.append(rng.choice(deeper))
    target = next(part for part in reversed(inside) if isinstance(part, dict))
    for _ in range(rng.choice([1, 1, 1, 3])):
        mutate_dict(rng, target if rng.random() < 0.9 else saved)
    if rng.random() < 0.05:
        saved = rng.choice([None, [], 3, "text", {}, [saved], saved.get("model")])
    file = io.BytesIO()
    torch.save(saved, file, _use_new_zipfile_serialization=rng.random() > 0.02)
    return file.getvalue()


def mutated_checkpoint(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """How a checkpoint was mutated, and the result."""
    how = rng.choice([*BYTES, mutate_zip, mutate_zip, mutate_zip, *[mutate_content] * 9])
    with warnings.catch_warnings():  # of PyTorch, about its rarer kinds of tensors
        warnings.simplefilter("ignore")
        return how.__name__, how(rng, content)


# ----------------------------------------------------------------------------------- hostile files


class Bomb:
    """Unpickles as a shell command that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        import os
        return os.system, (f"touch '{self.trace}'",)


def pickle_bomb(content: bytes, trace: Path) -> bytes:
    """The same checkpoint with a command in it."""
    file = io.BytesIO()
    torch.save(torch.load(io.BytesIO(content), weights_only=True) | {"more": Bomb(trace)}, file)
    return file.getvalue()


def traversing_zip(content: bytes) -> bytes:
    """The same checkpoint with members that an unpacker would write elsewhere."""
    more = [(name, b"escaped") for name in ("../escaped", "../../escaped", "/tmp/escaped",
                                            "archive/../../escaped", "..\\escaped")]
    return zip_of(zip_members(content) + more)


# ----------------------------------------------------------------------------------- command lines

ODD_TEXTS = ["", " ", "-1", "0", "1.5", "nan", "inf", "-inf", "1e999", "1e-999", "9" * 30,
             "9" * 5000, "None", "two", "٣", "0x10", "1_000", "--", "-", "--help-me", "a\nb",
             "\x1b[31m", "é", "\udcff", "x" * 5000, "/", ".", "..", "/dev/null", "/dev/zero",
             "nowhere/x", "dev-finetuning-output.txt/x", "*", "$(touch escaped)", "%s", "{0}",
             "'", '"']


def mutated_command(rng: random.Random, argv: list[str]) -> tuple[str, list[str]]:
    """How a command line was mutated, and the result. Numbers stay small: it may be a right one."""
    argv = list(argv)
    values = range(1, len(argv), 2)
    how = rng.choice(["odd value"] * 5 + ["no value", "misspelt", "unknown", "twice", "stray",
                                         "exchanged", "no dashes", "abbreviated", "glued"])
    place = rng.choice(values)
    if how == "odd value":
        argv[place] = rng.choice(ODD_TEXTS)
    elif how == "no value":
        del argv[place]
    elif how == "misspelt":
        argv[place - 1] += rng.choice(["s", "-", "\n", " ", "=", "\u200b"])
    elif how == "unknown":
        argv[place:place] = [rng.choice(["--verbose", "-v", "--rank", "--a\nb", "---", "--=3"])]
    elif how == "twice":
        argv += argv[place - 1:place] + [rng.choice(ODD_TEXTS)]
    elif how == "stray":
        argv.insert(rng.randrange(len(argv) + 1), rng.choice(ODD_TEXTS))
    elif how == "exchanged":
        other = rng.choice(values)
        argv[place], argv[other] = argv[other], argv[place]
    elif how == "no dashes":
        argv[place - 1] = argv[place - 1].lstrip("-")
    elif how == "abbreviated":
        argv[place - 1] = argv[place - 1][:-1]
    else:
        argv[place - 1:place + 1] = [argv[place - 1] + rng.choice(["", "==", "=,"]) + argv[place]]
    return how, argv
