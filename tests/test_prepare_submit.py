"""A submission is packed only when nothing is wrong with it, and any zip can be checked."""

import errno
import os
import shutil
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
ALL = CODE + TEXTS + STORIES + PREDICTIONS
STORY = ("Victor Frankenstein, a young scientist obsessed with uncovering the secrets of life, "
         "succeeds in animating a creature assembled from old clocks. It woke up.")
QUESTIONS = {"sst": " Is this movie awful, bad, average, good, or excellent? This movie is ",
             "cfimdb": " Is this movie bad or good? This movie is "}
starts = prepare_submit.start_problems


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with data and outputs; code and stand-ins for documents are in another."""
    here, work = tmp_path / "repository", tmp_path / "work"
    here.mkdir()
    (work / "data").mkdir(parents=True)
    for name in CODE:
        shutil.copy(ROOT / name, here)
    files = {here / name: f"a stand-in for {name}\n" for name in TEXTS}
    files |= {work / name: STORY for name in STORIES}
    for output in PREDICTIONS:
        dataset, split, kind, _ = output.split("-")
        question = QUESTIONS[dataset] * (kind == "prompting")
        for name, end in ((f"data/{dataset}-{split}.txt", ""), (output, question)):
            files[work / name] = "".join(
                f"{i % 2} ||| The {split} film no. {i} ||| naïve\u2028and \x85 fine .{end}\n"
                for i in range(4))
    for path, text in files.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    monkeypatch.setattr(prepare_submit, "HERE", here)
    monkeypatch.setattr(prepare_submit, "start_problems", lambda folder: [])  # takes seconds
    monkeypatch.chdir(work)
    return work


def run(
    capsys: pytest.CaptureFixture, *argv: str, main: Callable = prepare_submit.main
) -> tuple[int, list[str], list[str]]:
    """Exit status and the lines on standard output and error."""
    status, out, err = runs.run(list(argv), capsys, main)
    return status, out.splitlines(), err


def make_zip(prefix: str = f"{NAME}/", more: tuple[str, ...] = (),
             method: int = zipfile.ZIP_STORED) -> Path:
    """A complete submission with more members, made without the program."""
    with zipfile.ZipFile("test.zip", "w", method) as zipped:
        for name in ALL:
            zipped.write(prepare_submit.find(name, Path()), prefix + name)
        for member in more:
            zipped.writestr(member, "")
    return Path("test.zip")


def test_a_submission_has_the_thirty_files_in_one_folder_and_its_code_starts(
        folder, capsys, monkeypatch, tmp_path):
    """Files come from the given folder first, outputs from there alone."""
    (folder / "README.md").write_text("of the outputs' folder", encoding="utf-8")
    monkeypatch.setattr(prepare_submit, "start_problems", starts)
    monkeypatch.chdir(tmp_path)
    assert run(capsys, NAME, "--from", str(folder)) == (
        0, [f"wrote {NAME}.zip: all 30 files are right"], [])
    with zipfile.ZipFile(f"{NAME}.zip") as zipped:
        assert sorted(zipped.namelist()) == sorted(f"{NAME}/{name}" for name in ALL)
        assert zipped.read(f"{NAME}/README.md") == b"of the outputs' folder"
    assert run(capsys, f"{NAME}.zip", "--from", str(folder)) == (
        0, [f"{NAME}.zip: all 30 files are right"], [])
    shutil.move(folder / STORIES[0], prepare_submit.HERE)
    assert run(capsys, NAME, "--from", str(folder))[1] == [
        f"{STORIES[0]}: missing (`python reproduce.py` makes it)"]


@pytest.mark.parametrize("code, said", [
    ("import reproduce", "exit status 1, ModuleNotFoundError: No module named 'reproduce'"),
    ("input()", "exit status 1, EOFError: EOF when reading a line"),
    ("while True: print()", "still running after 1 seconds, ")])
def test_code_has_to_start_by_itself_in_time(code, said, folder, monkeypatch):
    """Without what is only in the repository, and with nobody at the keyboard."""
    monkeypatch.setattr(prepare_submit, "TIME_LIMIT", 1 if "while" in code else 100)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (folder / "run_llama.py").write_text(f"{code}\n", encoding="utf-8")
    keyboard = os.dup(0)
    try:
        with open(folder / "run_llama.py", "rb") as typed:
            os.dup2(typed.fileno(), 0)
        assert starts(folder) == [f"run_llama.py --help: {said}"]
    finally:
        os.dup2(keyboard, 0)
        os.close(keyboard)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
def test_what_the_code_starts_ends_with_it(folder):
    """Nor is it waited for, although it has the same standard error."""
    (folder / "run_llama.py").write_text(
        "import subprocess, sys\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(1000)']\n"
        "sys.exit(f'pid {subprocess.Popen(sleep).pid}')\n", encoding="utf-8")
    (said,) = starts(folder)
    process = Path(f"/proc/{said.split()[-1]}/cmdline")
    deadline = time.monotonic() + 60  # its end takes a moment
    while process.exists() and process.read_bytes():  # empty where nobody asks for its status
        assert time.monotonic() < deadline


DEFECTS = [  # a text that is replaced in a file, in the order of the report
    ("README.md", "a stand-in for README.md\n", "", ": empty"),
    ("setup.sh", "\n", "\r\n", ": bash cannot run it with Windows line endings (CRLF)"),
    (STORIES[0], "Victor", "Once upon a time Victor", ": not the prompt (Victor Frankenstein…)"),
    (STORIES[1], "clocks. It woke up.", "a", ": not the prompt (Victor Frankenstein…)"),
    (PREDICTIONS[1], QUESTIONS["sst"], "", ", line 1 and others: expected a label from 0 to 4, "
     "and the sentence in the data, then the question"),
    (PREDICTIONS[4], "1 ||| The dev film no. 3 ||| naïve\u2028and \x85 fine .\n", "",
     ": 3 lines, but 4 in the data"),
    (PREDICTIONS[8], "0 ||| The dev film no. 2", "2 ||| The dev film no. 2",
     ", line 3: expected a label from 0 to 1"),
    (PREDICTIONS[10], "no. 2", "no. 7", ", line 3: expected a label from 0 to 1"),
    (PREDICTIONS[11], "naïve", "na\udcefve", ", line 1: not UTF-8"),
]


def test_all_defects_are_named_at_once_and_an_earlier_zip_stays(folder, capsys):
    Path(f"{NAME}.zip").write_bytes(b"the earlier one")
    for name, old, new, _ in DEFECTS:
        path = prepare_submit.find(name, folder)
        text = path.read_bytes().decode().replace(old, new)
        path.write_bytes(text.encode(errors="surrogateescape"))
    status, out, err = run(capsys, NAME)
    assert (status, err) == (1, [f"{NAME}: problems: {len(DEFECTS)}; no zip was written"])
    assert all(line.startswith(name + said)
               for line, (name, _, _, said) in zip(out, DEFECTS, strict=True)), out
    assert Path(f"{NAME}.zip").read_bytes() == b"the earlier one"


def test_byte_order_marks_and_windows_line_ends_are_read(folder, capsys):
    for name in STORIES + PREDICTIONS:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n")
    assert run(capsys, NAME)[0] == 0


def test_where_data_are_missing_the_rest_is_checked_and_a_note_says_so(folder, capsys):
    (folder / "data/sst-dev.txt").unlink()
    for label, status in ((4, 0), (5, 1)):
        (folder / PREDICTIONS[4]).write_text(f"{label} ||| another sentence", encoding="utf-8")
        result, (note, _), _ = run(capsys, NAME)
        assert result == status and "not compared with data/sst-dev.txt, which" in note


def test_the_zip_and_each_file_in_it_have_at_most_ten_megabytes(folder, capsys):
    readme = prepare_submit.HERE / "README.md"
    readme.write_bytes(os.urandom(10_000_000))
    assert run(capsys, NAME)[1] == ["the zip has more than 10,000,000 bytes"]
    readme.write_bytes(bytes(10_000_001))  # 10 KB when compressed
    assert run(capsys, NAME)[1] == ["README.md: more than 10,000,000 bytes"]


@pytest.mark.parametrize("prefix, members, said", [
    (f"{NAME}/", [f"{NAME}/", f"{NAME}/data/sst-dev.txt", f"{NAME}/\x1b[2J\n", "x.py"],
     r"not part of a submission: '\x1b[2J\n', 'data', 'x.py'; "),
    (f"{NAME}\\", [], "names use \\ for /"),
    ("", [], "the files are in ''; put them into one folder named SURNAME1_SURNAME2"),
    (f"{NAME}/{NAME}/", [], f"the files are in '{NAME}/{NAME}'; put them")])
def test_names_in_a_zip_are_checked(prefix, members, said, folder, capsys):
    status, (line,), _ = run(capsys, str(make_zip(prefix, members)))
    assert status == 1 and line.startswith(said)


@pytest.mark.parametrize("name, status", [
    ("Gödel_Noether_Curie", 0), ("O'Neil_Saint-Exupéry", 0), ("कुमार_ශ්\u200dරී", 0), ("Ефимов", 0),
    ("my submission", 2), ("LOVELACE_", 2), ("1_2", 2), ("A__B", 2)])
def test_the_folder_is_named_by_surnames(name, status, folder, capsys, monkeypatch):
    """Also as macOS writes a name: decomposed, and in a zip without the mark of UTF-8."""
    decomposed = unicodedata.normalize("NFD", name)
    assert run(capsys, decomposed)[0] == status
    assert status or Path(f"{unicodedata.normalize('NFC', name)}.zip").is_file()
    assert run(capsys, str(make_zip(f"{name}/")))[0] == bool(status)
    monkeypatch.setattr(zipfile.ZipInfo, "_encodeFilenameFlags",
                        lambda self: (self.filename.encode(), self.flag_bits))
    assert run(capsys, str(make_zip(f"{decomposed}/")))[0] == bool(status)


@pytest.mark.parametrize("method, spoil", [
    (zipfile.ZIP_STORED, lambda content: b"no zip at all"),
    (zipfile.ZIP_STORED, lambda content: content[:20_000] + content[36_000:]),
    (zipfile.ZIP_STORED, lambda content: content.replace("Ö".encode(), b"\xff\xff")),
    *((method, lambda content: content[:100] + b"broken" * 7 + content[142:])
      for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))])
def test_a_damaged_zip_cannot_be_read(method, spoil, folder, capsys):
    path = make_zip(more=("Ö",), method=method)
    path.write_bytes(spoil(path.read_bytes()))
    status, (said,), _ = run(capsys, str(path))
    assert status == 1 and said.startswith("cannot be read as a zip (")


def test_a_full_folder_for_temporary_files_is_named(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", Mock(side_effect=OSError(errno.ENOSPC, "disk full")))
    status, _, (said,) = run(capsys, str(make_zip()))
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
