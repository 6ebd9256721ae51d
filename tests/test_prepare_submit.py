"""A submission is packed only when nothing is wrong with it, and any zip can be checked."""

import os
import shutil
import tempfile
import time
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

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
         "succeeds in animating a creature assembled from old clocks.")
QUESTIONS = {"sst": " Is this movie awful, bad, average, good, or excellent? This movie is ",
             "cfimdb": " Is this movie bad or good? This movie is "}
NFD_NAME = unicodedata.normalize("NFD", "Müller_Çelik")
starts = prepare_submit.start_problems


def lay_out_repository(folder: Path) -> None:
    """The code as it is, with stand-ins for the documents."""
    folder.mkdir()
    for name in CODE:
        shutil.copy(ROOT / name, folder)
    for name in TEXTS:
        (folder / name).write_text(f"a stand-in for {name}\n", encoding="utf-8", newline="\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with data and outputs; code and documents are in another."""
    lay_out_repository(tmp_path / "repository")
    monkeypatch.setattr(prepare_submit, "HERE", tmp_path / "repository")
    monkeypatch.setattr(prepare_submit, "start_problems", lambda folder: [])  # takes seconds
    work = tmp_path / "work"
    (work / "data").mkdir(parents=True)
    for name in STORIES:
        (work / name).write_text(STORY, encoding="utf-8")
    for output in PREDICTIONS:
        dataset, split, kind, _ = output.split("-")
        sentences = [f"The {split} film no. {i} ||| naïve\u2028and \x85 fine ." for i in range(4)]
        question = QUESTIONS[dataset] * (kind == "prompting")
        for name, end in ((f"data/{dataset}-{split}.txt", ""), (output, question)):
            (work / name).write_text("".join(
                f"{i % 2} ||| {sentence}{end}\n" for i, sentence in enumerate(sentences)),
                encoding="utf-8", newline="\n")
    monkeypatch.chdir(work)
    return work


def run(
    capsys: pytest.CaptureFixture, *argv: str, main: Callable = prepare_submit.main
) -> tuple[int, list[str], list[str]]:
    """Exit status and the lines on standard output and error."""
    status, out, err = runs.run(list(argv), capsys, main)
    return status, out.splitlines(), err


def make_zip(folder: Path, prefix: str = f"{NAME}/", more: tuple[str, ...] = (),
             method: int = zipfile.ZIP_STORED) -> Path:
    """A complete submission with more members, made without the program."""
    path = folder / "test.zip"
    with zipfile.ZipFile(path, "w", method) as zipped:
        for name in CODE + TEXTS + STORIES + PREDICTIONS:
            source = prepare_submit.HERE if name in CODE + TEXTS else folder
            zipped.write(source / name, prefix + name)
        for member in more:
            zipped.writestr(member, "")
    return path


def test_a_submission_has_the_thirty_files_in_one_folder_and_its_code_starts(
        folder, capsys, monkeypatch):
    monkeypatch.setattr(prepare_submit, "start_problems", starts)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert run(capsys, NAME) == (0, [f"wrote {NAME}.zip: all 30 files are right"], [])
    with zipfile.ZipFile(f"{NAME}.zip") as zipped:
        assert sorted(zipped.namelist()) == sorted(
            f"{NAME}/{name}" for name in CODE + TEXTS + STORIES + PREDICTIONS)
        assert zipped.testzip() is None
    assert run(capsys, f"{NAME}.zip") == (0, [f"{NAME}.zip: all 30 files are right"], [])


@pytest.mark.parametrize("code, said", [
    ("import reproduce", "exit status 1, ModuleNotFoundError: No module named 'reproduce'"),
    ("input()", "exit status 1, EOFError: EOF when reading a line"),
    ("while True: print()", "still running after 1 seconds")])
def test_code_has_to_start_by_itself_in_time(code, said, folder, monkeypatch):
    """Without what is only in the repository, and with nobody at the keyboard."""
    monkeypatch.setattr(prepare_submit, "TIME_LIMIT", 1 if "while" in code else 100)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (folder / "run_llama.py").write_text(f"{code}\n", encoding="utf-8")
    keyboard = os.dup(0)
    try:
        with open(folder / "run_llama.py", "rb") as typed:
            os.dup2(typed.fileno(), 0)
        assert [*starts(folder)] == [f"run_llama.py --help: {said}"]
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
    assert "exit status 1, pid" in said
    process = Path(f"/proc/{said.split()[-1]}/cmdline")
    deadline = time.monotonic() + 60  # its end takes a moment
    while process.exists() and process.read_bytes():  # empty where nobody asks for its status
        assert time.monotonic() < deadline


def test_outputs_come_from_the_given_folder_alone_and_the_rest_from_there_first(
        folder, capsys, monkeypatch, tmp_path):
    (folder / "README.md").write_text("of the outputs' folder", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(capsys, NAME, "--from", str(folder))[0] == 0
    with zipfile.ZipFile(f"{NAME}.zip") as zipped:
        assert zipped.read(f"{NAME}/README.md") == b"of the outputs' folder"
    shutil.move(folder / STORIES[0], prepare_submit.HERE)
    assert run(capsys, NAME, "--from", str(folder))[1] == [
        f"{STORIES[0]}: missing (`python reproduce.py` makes it)"]


def replace(old: str, new: str, count: int = -1) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, count)


DEFECTS = [  # how a file's text is changed, in the order of the report
    ("README.md", lambda text: "", ": empty"),
    ("setup.sh", lambda text: "set -e\r\necho\r\n",
     ": bash cannot run it with Windows line endings (CRLF); save it with LF"),
    (STORIES[0], lambda text: "Once upon a time " + text,
     ": does not start with the prompt, Victor Frankenstein…"),
    (STORIES[1], replace(" old clocks.", ""), ": has nothing after the prompt"),
    (PREDICTIONS[1], replace(QUESTIONS["sst"], "", 1), ", line 1: no question at the end"),
    (PREDICTIONS[2], lambda text: text[:text.rindex("\n", 0, -1) + 1],
     ": 3 lines, but 4 in the data"),
    (PREDICTIONS[4], replace("1 ||| The", "5 ||| The"),
     ", line 2 and others: a label that is not one of 0 to 4"),
    (PREDICTIONS[5], replace("no. 2", "no. 7"), ", line 3: another sentence than in the data"),
    (PREDICTIONS[6], replace("no. 0", "no. 8"), ", line 1: another sentence than in the data"),
    (PREDICTIONS[8], replace("\n", QUESTIONS["cfimdb"] + "\n"),
     ", line 1 and others: another sentence than in the data"),
    (PREDICTIONS[10], replace("0 |||", "2 |||", 1),
     ", line 1: a label that is not one of 0 to 1"),
    (PREDICTIONS[11], replace("naïve", "na\udcefve"), ", line 1: not UTF-8; convert the file"),
]


def test_all_defects_are_named_at_once_and_an_earlier_zip_stays(folder, capsys):
    (folder / f"{NAME}.zip").write_bytes(b"the earlier one")
    for name, spoil, _ in DEFECTS:
        path = (prepare_submit.HERE if name in TEXTS else folder) / name
        text = path.read_bytes().decode()
        path.write_bytes(spoil(text).encode(errors="surrogateescape"))
    assert run(capsys, NAME) == (
        1, [name + said for name, _, said in DEFECTS],
        [f"{NAME}: problems: {len(DEFECTS)}; no zip was written"])
    assert (folder / f"{NAME}.zip").read_bytes() == b"the earlier one"


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
    assert "the limit is 10,000,000" in run(capsys, NAME)[1][0]
    readme.write_bytes(bytes(10_000_001))  # 10 KB when compressed
    assert run(capsys, NAME)[1] == ["README.md: more than 10,000,000 bytes"]


@pytest.mark.parametrize("prefix, members, said", [
    (f"{NAME}/", [f"{NAME}/"], []),
    (f"{NAME}/", [f"{NAME}/data/", f"{NAME}/data/sst-dev.txt", f"{NAME}/\x1b[2J\n", "x.py"],
     ["'data': does not belong", "'\\x1b[2J\\n': does not belong", "'x.py': does not belong"]),
    (f"{NAME}/", [f"__MACOSX/{NAME}/._llama.py", "__MACOSX/._x", f"{NAME}/.DS_Store"],
     ["'__MACOSX': does not belong in a submission; macOS's Finder added it, "
      "`zip -d FILE.zip '*__MACOSX*'` removes it", "'.DS_Store': does not belong"]),
    (f"{NAME}\\", [], ["names use \\ for /"]),
    ("", [], ["the files are in '.'; put them into one folder named SURNAME1_SURNAME2"]),
    (f"{NAME}/{NAME}/", [], [f"the files are in '{NAME}/{NAME}'; put them"])])
def test_names_are_checked_and_what_systems_add_is_named_as_such(
        prefix, members, said, folder, capsys):
    status, out, _ = run(capsys, str(make_zip(folder, prefix, members)))
    assert status == bool(said) and len(out) == max(len(said), 1)
    assert all(line.startswith(start) for line, start in zip(out, said))


@pytest.mark.parametrize("name, status", [
    *((name, 0) for name in ("LOVELACE", "Gödel_Noether_Curie", "O'Neil_Saint-Exupéry", NFD_NAME,
                             "कुमार_ශ්\u200dරී")),
    *((name, 2) for name in ("my submission", "LOVELACE_", "1_2", "A__B"))])
def test_the_folder_is_named_by_surnames(name, status, folder, capsys):
    assert run(capsys, name)[0] == status
    _, out, _ = run(capsys, str(make_zip(folder, f"{name}/")))
    assert ("SURNAME1_SURNAME2" in out[0]) == bool(status)


def test_a_name_is_found_as_macos_writes_it_and_written_composed(folder, capsys, monkeypatch):
    with monkeypatch.context() as patch:  # UTF-8, without the flag that says so
        patch.setattr(zipfile.ZipInfo, "_encodeFilenameFlags",
                      lambda self: (self.filename.encode(), self.flag_bits))
        path = make_zip(folder, f"{NFD_NAME}/")
    with zipfile.ZipFile(path) as zipped:
        assert NFD_NAME not in zipped.namelist()[0]
    assert run(capsys, str(path))[0] == run(capsys, NFD_NAME)[0] == 0
    assert (folder / "Müller_Çelik.zip").is_file()


@pytest.mark.parametrize("method, spoil", [
    (zipfile.ZIP_STORED, lambda content: b"no zip at all"),
    (zipfile.ZIP_STORED, lambda content: content[:20_000] + content[36_000:]),
    (zipfile.ZIP_DEFLATED, lambda content: content[:2000]),
    (zipfile.ZIP_STORED, lambda content: content.replace("Ö".encode(), b"\xff\xff")),
    *((method, lambda content: content[:100] + b"broken" * 7 + content[142:])
      for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))])
def test_a_damaged_zip_cannot_be_read(method, spoil, folder, capsys):
    path = make_zip(folder, more=("Ö",), method=method)
    path.write_bytes(spoil(path.read_bytes()))
    status, (said,), _ = run(capsys, str(path))
    assert status == 1 and said.startswith("cannot be read as a zip (")


def test_a_full_folder_for_temporary_files_is_named(folder, capsys, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    path, (soft, hard) = make_zip(folder), resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        status, _, (said,) = run(capsys, str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2 and said.startswith(f"prepare_submit.py: {tmp_path}/tmp")


@pytest.mark.parametrize("argv, said", [
    (["gone.zip"], "gone.zip"), ([NAME, "--from", "gone"], "gone"), (["."], "'.'"),
    ([NAME], "data/sst-dev.txt, line 1: no ' ||| ' between label and sentence")])
def test_bad_usage_or_data_are_an_error_of_one_line(argv, said, folder, capsys):
    (folder / "data/sst-dev.txt").write_text("no separator\n", encoding="utf-8")
    status, out, err = run(capsys, *argv)
    assert (status, out, len(err)) == (2, [], 1) and said in err[0]
    assert not (folder / f"{NAME}.zip").exists()
