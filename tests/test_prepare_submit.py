"""A submission is packed only when nothing is wrong with it, and any zip can be checked."""

import errno
import os
import subprocess
import sys
import tempfile
import time
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

import prepare_submit
import runs
from runs import ROOT, STORIES

NAME = "LOVELACE_TURING"
# What the assignment asks for, written out.
CODE = ["base_llama.py", "classifier.py", "config.py", "llama.py", "lora.py", "optimizer.py",
        "rope.py", "run_llama.py", "sanity_check.py", "tokenizer.py", "utils.py"]
TEXTS = ["README.md", "structure.md", "checklist.md", "sanity_check.data", "setup.sh"]
PREDICTIONS = [f"{dataset}-{split}-{kind}-output.txt" for dataset in ("sst", "cfimdb")
               for kind in ("prompting", "finetuning", "lora") for split in ("dev", "test")]
STORY = ("Victor Frankenstein, a young scientist obsessed with uncovering the secrets of life, "
         "succeeds in animating a creature assembled from old clocks. It woke up.")
QUESTIONS = {"sst": " Is this movie awful, bad, average, good, or excellent? This movie is ",
             "cfimdb": " Is this movie bad or good? This movie is "}
LABELS = {"sst": [0, 1, 2, 3, 4] * 4, "cfimdb": [0, 1] * 10}


def lines(split: str, labels: list[int], end: str = "") -> str:
    return "".join(f"{label} ||| The {split} film no. {i} ||| naïve\u2028and \x85 fine .{end}\n"
                   for i, label in enumerate(labels))


def predictions(output: str, right: int) -> str:
    """A file of predictions, of which the first so many are right."""
    dataset, split, kind, _ = output.split("-")
    labels = [label if i < right else (label + 1) % len(set(LABELS[dataset]))
              for i, label in enumerate(LABELS[dataset])]
    return lines(split, labels, QUESTIONS[dataset] * (kind == "prompting"))


DATA = {f"data/{dataset}-{split}.txt": lines(split, LABELS[dataset])
        for dataset in LABELS for split in ("train", "dev", "test")}
SUBMISSION = dict.fromkeys(CODE + TEXTS, "# a stand-in\n")
SUBMISSION |= {STORIES[0]: f"\ufeff{STORY}\r\n", STORIES[1]: f"{STORY} And ran."}
SUBMISSION |= {name: predictions(name, right) for name, right in zip(  # about as published
    PREDICTIONS, (10, 10, 8, 8, 5, 5, 10, 10, 17, 17, 9, 9))}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode(errors="surrogateescape"))
    return folder


def make_zip(path: str = "test.zip", files: dict[str, str] = SUBMISSION, prefix: str = f"{NAME}/",
             more: tuple[str, ...] = (), method: int = zipfile.ZIP_STORED) -> str:
    """Make a zip without the program; `more` are empty members."""
    with zipfile.ZipFile(path, "w", method) as zipped:
        for name, text in files.items():
            zipped.writestr(prefix + name, text)
        for member in more:
            zipped.writestr(member, "")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with data and outputs; code and documents are in the repository."""
    ours = {name: SUBMISSION[name] for name in CODE + TEXTS}
    work = write(tmp_path / "work", DATA | {name: SUBMISSION[name]
                                            for name in STORIES + PREDICTIONS})
    monkeypatch.setattr(prepare_submit, "HERE", write(tmp_path / "repository", ours))
    monkeypatch.chdir(work)
    return work


def run(
    capsys: pytest.CaptureFixture, *argv: str, main: Callable = prepare_submit.main
) -> tuple[int, list[str], list[str]]:
    """Exit status and the lines on standard output and error."""
    status, out, err = runs.run(list(argv), capsys, main)
    return status, out.splitlines(), err


def test_a_submission_has_the_thirty_files_in_one_folder(folder, capsys, monkeypatch, tmp_path):
    """Files come from the given folder first, outputs from there alone."""
    (folder / "README.md").write_text("of the outputs' folder", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(capsys, NAME, "--from", "work") == (
        0, [f"wrote {NAME}.zip: all 30 files are right"], [])
    with zipfile.ZipFile(f"{NAME}.zip") as zipped:
        assert {*zipped.namelist()} == {f"{NAME}/{name}" for name in SUBMISSION}
        assert zipped.read(f"{NAME}/README.md") == b"of the outputs' folder"
    assert run(capsys, f"{NAME}.zip", "--from", "work") == (
        0, [f"{NAME}.zip: all 30 files are right"], [])
    (folder / STORIES[0]).rename(prepare_submit.HERE / STORIES[0])
    assert run(capsys, NAME, "--from", "work")[1] == [
        f"{STORIES[0]}: missing (`python reproduce.py` makes it)"]


@pytest.mark.parametrize("code, seconds, said", [
    ("import reproduce", 100, "exit status 1, ModuleNotFoundError: No module named 'reproduce'"),
    ("input()", 100, "exit status 1, EOFError: EOF when reading a line"),
    ("while True: print()", 1, "still running after 1 seconds, ")])
def test_code_has_to_start_by_itself_in_time(code, seconds, said, folder):
    """Without what is only in the repository, and with nobody at the keyboard."""
    path = make_zip(files=SUBMISSION | {"run_llama.py": code})
    check = f"import prepare_submit as p; p.TIME_LIMIT = {seconds}; p.main([{path!r}])"
    checked = subprocess.run([sys.executable, "-c", check], input="typed", text=True,
                             capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert checked.stdout == f"run_llama.py --help: {said}\n"


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
def test_what_the_code_starts_ends_with_it(folder, capsys):
    """Nor is it waited for, although it has the same standard error."""
    code = "import os, sys, time\npid = os.fork() or time.sleep(999)\nsys.exit(f'pid {pid}')\n"
    _, (said,), _ = run(capsys, make_zip(files=SUBMISSION | {"run_llama.py": code}))
    process = Path(f"/proc/{said.split()[-1]}/cmdline")
    deadline = time.monotonic() + 60  # its end takes a moment
    while process.exists() and process.read_bytes():  # empty where nobody asks for its status
        assert time.monotonic() < deadline


DEFECTS = [  # a file, what it contains, and what is said, in the order of the report
    ("README.md", "", ": empty"),
    ("checklist.md", "#" * 10_000_001, ": more than 10,000,000 bytes"),
    ("setup.sh", "# a stand-in\r\n", ": bash cannot run it with Windows line endings (CRLF)"),
    (STORIES[0], f"Once upon a time {STORY}", ": not the prompt (Victor Frankenstein…)"),
    (STORIES[1], STORY.replace("clocks. It woke up.", "a"), ": not the prompt"),
    (PREDICTIONS[1], lines("test", LABELS["sst"]), ", line 1 and others: expected a label from 0 "
     "to 4, and the sentence in the data, then the question"),
    (PREDICTIONS[4], lines("dev", [0] * 19), ": 19 lines, but 20 in the data"),
    (PREDICTIONS[8], lines("dev", [0, 1, 2] + [0] * 17), ", line 3: expected a label from 0 to 1"),
    (PREDICTIONS[10], lines("test", [0] * 20), ", line 1 and others: expected a label from 0 to 1"),
    (PREDICTIONS[11], "1 ||| na\udcefve", ", line 1: ")]


def test_all_defects_are_named_at_once_and_an_earlier_zip_stays(folder, capsys):
    Path(f"{NAME}.zip").write_bytes(b"the earlier one")
    write(folder, {name: text for name, text, _ in DEFECTS})
    status, out, err = run(capsys, NAME)
    assert (status, err) == (1, [f"{NAME}: problems: {len(DEFECTS)}; no zip was written"])
    assert all(line.startswith(name + said)
               for line, (name, _, said) in zip(out, DEFECTS, strict=True)), out
    assert Path(f"{NAME}.zip").read_bytes() == b"the earlier one"


def test_where_data_are_missing_the_rest_is_checked_and_a_note_says_so(folder, capsys):
    (folder / "data/sst-dev.txt").unlink()
    for label, status in ((4, 0), (5, 1)):
        (folder / PREDICTIONS[4]).write_text(f"{label} ||| another sentence", encoding="utf-8")
        result, (note, _), _ = run(capsys, NAME)
        assert result == status and "not compared with data/sst-dev.txt, which" in note


@pytest.mark.parametrize("how, damage, said", [
    ({"more": (f"{NAME}/", f"{NAME}/data/sst-dev.txt", f"{NAME}/\x1b[2J\n", "__MACOSX/a")}, None,
     r"not part of a submission: '\x1b[2J\n', '__MACOSX', 'data'; `zip -d"),
    ({"prefix": f"{NAME}\\"}, None, "names use \\ for /"),
    ({"prefix": ""}, None, "the files are in '.'; put them into one folder named SURNAME1_SURN"),
    ({"prefix": f"{NAME}/{NAME}/"}, None, f"the files are in '{NAME}/{NAME}'; put them"),
    ({"files": SUBMISSION | {"README.md": "#" * 10_000_000}}, None,
     "the zip has more than 10,000,000 bytes"),
    ({}, lambda content: b"no zip at all", "cannot be read as a zip ("),
    ({}, lambda content: content[:5_000] + content[9_000:], "cannot be read as a zip ("),
    ({"more": ("Ö",)}, lambda content: content.replace("Ö".encode(), b"\xff\xff"),
     "cannot be read as a zip ("),
    *(({"files": SUBMISSION | {CODE[0]: str([*range(999)])}, "method": method},
       lambda content: content[:100] + b"broken" * 7 + content[142:], "cannot be read as a zip (")
      for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))])
def test_what_is_wrong_with_a_zip_is_said(how, damage, said, folder, capsys):
    path = Path(make_zip(**how))
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    status, (line,), _ = run(capsys, str(path))
    assert status == 1 and line.startswith(said)


@pytest.mark.parametrize("name, status", [
    ("Gödel_Noether_Curie", 0), ("O'Neil_Saint-Exupéry", 0), ("कुमार_ශ්\u200dරී", 0), ("Ефимов", 0),
    ("my submission", 2), ("LOVELACE_", 2), ("1_2", 2), ("A__B", 2)])
def test_the_folder_is_named_by_surnames(name, status, folder, capsys, monkeypatch):
    """Also as macOS writes a name: decomposed, and in a zip without the mark of UTF-8."""
    decomposed = unicodedata.normalize("NFD", name)
    assert run(capsys, decomposed)[0] == status
    assert status or Path(f"{unicodedata.normalize('NFC', name)}.zip").is_file()
    assert run(capsys, make_zip(prefix=f"{name}/"))[0] == bool(status)
    monkeypatch.setattr(zipfile.ZipInfo, "_encodeFilenameFlags",
                        lambda self: (self.filename.encode(), self.flag_bits))
    assert run(capsys, make_zip(prefix=f"{decomposed}/"))[0] == bool(status)


def test_a_full_folder_for_temporary_files_is_named(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", Mock(side_effect=OSError(errno.ENOSPC, "disk full")))
    status, _, (said,) = run(capsys, make_zip())
    assert status == 2 and said.startswith(f"prepare_submit.py: {tmp_path}")
    assert said.endswith(": disk full")


@pytest.mark.parametrize("argv, said", [
    (["gone.zip"], "gone.zip"), ([NAME, "--from", "gone"], "gone"), (["."], "'.'"),
    ([NAME], "data/sst-dev.txt, line 1: ")])
def test_bad_usage_or_data_are_an_error_of_one_line(argv, said, folder, capsys):
    (folder / "data/sst-dev.txt").write_text("no separator\n", encoding="utf-8")
    status, out, err = run(capsys, *argv)
    assert (status, out, len(err)) == (2, [], 1) and said in err[0]
    assert not (folder / f"{NAME}.zip").exists()
