"""A submission is packed only when nothing is wrong with it, and any zip can be checked."""

import os
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import prepare_submit
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
    capsys.readouterr()
    try:
        status = main(list(argv))
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def make_zip(folder: Path, prefix: str = f"{NAME}/", more: tuple[str, ...] = ()) -> Path:
    """A complete submission with more members, made without the program."""
    path = folder / "test.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for name in CODE + TEXTS:
            zipped.write(prepare_submit.HERE / name, prefix + name)
        for name in STORIES + PREDICTIONS:
            zipped.write(folder / name, prefix + name)
        for member in more:
            zipped.writestr(member, "")
    return path


def test_a_submission_has_the_thirty_files_in_one_folder_and_its_code_starts(
        folder, capsys, monkeypatch):
    monkeypatch.setattr(prepare_submit, "start_problems", starts)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    status, out, err = run(capsys, NAME)
    assert (status, err) == (0, [])
    assert len(out) == 1 and out[0].startswith(f"{NAME}.zip: written and checked, all 30 files")
    with zipfile.ZipFile(f"{NAME}.zip") as zipped:
        assert sorted(zipped.namelist()) == sorted(
            f"{NAME}/{name}" for name in CODE + TEXTS + STORIES + PREDICTIONS)
        assert zipped.testzip() is None
    assert run(capsys, f"{NAME}.zip")[0] == 0
    # It has to start without what stands in the repository alone.
    with open(prepare_submit.HERE / "utils.py", "a", encoding="utf-8") as file:
        file.write("\nimport prepare_submit\n")
    assert run(capsys, NAME)[:2] == (1, ["run_llama.py --help: exit status 1, ModuleNotFoundError: "
                                         "No module named 'prepare_submit'"])


def test_outputs_come_from_the_given_folder_alone_and_the_rest_from_there_first(
        folder, capsys, monkeypatch, tmp_path):
    (folder / "README.md").write_text("of the outputs' folder\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(capsys, NAME, "--from", str(folder))[0] == 0
    with zipfile.ZipFile(f"{NAME}.zip") as zipped:
        assert zipped.read(f"{NAME}/README.md") == b"of the outputs' folder\n"
        assert zipped.read(f"{NAME}/llama.py") == (ROOT / "llama.py").read_bytes()
    shutil.move(folder / STORIES[0], prepare_submit.HERE)
    assert f"{STORIES[0]}: missing (`python reproduce.py` makes it)" in run(
        capsys, NAME, "--from", str(folder))[1]


# --------------------------------------------------------------------------------------- content

def edit(change: Callable[[str], str]) -> Callable[[Path], None]:
    """A defect: a file whose text is changed."""
    def apply(path: Path) -> None:
        text = change(path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8", newline="\n")
    return apply


DEFECTS = [  # in the order of the report
    ("README.md", edit(lambda text: ""), ": empty"),
    ("setup.sh", lambda path: path.write_bytes(b"set -e\r\necho\r\n"),
     ": its lines end in CRLF, with which bash fails; save it with LF"),
    (STORIES[0], edit(lambda text: "Once upon a time " + text),
     ": does not start with the prompt, Victor Frankenstein…"),
    (STORIES[1], edit(lambda text: text[:text.index(" old clocks")]),
     ": has nothing after the prompt"),
    (PREDICTIONS[0], Path.unlink, ": missing (`python reproduce.py` makes it)"),
    (PREDICTIONS[1], edit(lambda text: text.replace(QUESTIONS["sst"], "", 1)),
     ", line 1: no question at the end"),
    (PREDICTIONS[2], edit(lambda text: text[:text.rindex("\n", 0, -1) + 1]),
     ": 3 lines, but 4 in the data"),
    (PREDICTIONS[3], edit(lambda text: text + "1 ||| one more\n"), ": 5 lines, but 4 in the data"),
    (PREDICTIONS[4], edit(lambda text: text.replace("1 ||| The", "5 ||| The")),
     ", line 2 and 1 more: a label that is not one of 0 to 4"),
    (PREDICTIONS[5], edit(lambda text: text.replace("no. 2", "no. 7")),
     ", line 3: another sentence than in the data"),
    (PREDICTIONS[6], edit(lambda text: text.replace("no. 0", "no. 8")),
     ", line 1: another sentence than in the data"),
    (PREDICTIONS[7], edit(lambda text: ""), ": empty"),
    (PREDICTIONS[8], edit(lambda text: text.replace("\n", QUESTIONS["cfimdb"] + "\n")),
     ", line 1 and 3 more: another sentence than in the data"),
    (PREDICTIONS[9], edit(lambda text: text.replace(" ||| ", " | ")),
     ", line 1: no ' ||| ' between label and sentence"),
    (PREDICTIONS[10], edit(lambda text: text.replace("0 |||", "2 |||", 1)),
     ", line 1: a label that is not one of 0 to 1"),
    (PREDICTIONS[11], lambda path: path.write_bytes(b"0 ||| na\xefve\n"),
     ", line 1: not UTF-8; convert the file"),
]


def test_all_defects_are_named_at_once_and_an_earlier_zip_stays(folder, capsys):
    (folder / f"{NAME}.zip").write_bytes(b"the earlier one")
    for name, spoil, _ in DEFECTS:
        spoil((prepare_submit.HERE if name in TEXTS else folder) / name)
    status, out, err = run(capsys, NAME)
    assert (status, out) == (1, [name + said for name, _, said in DEFECTS])
    assert err == [f"{NAME}.zip: {len(DEFECTS)} problems, so it was not written"]
    assert (folder / f"{NAME}.zip").read_bytes() == b"the earlier one"


def test_byte_order_marks_and_windows_line_ends_are_read(folder, capsys):
    for name in STORIES + PREDICTIONS:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") + b"\r\n")
    assert run(capsys, NAME)[0] == 0


def test_where_data_are_missing_the_rest_is_checked_and_a_note_says_so(folder, capsys):
    (folder / "data/sst-dev.txt").unlink()
    edit(lambda text: text.replace("no. 2", "no. 7"))(folder / PREDICTIONS[4])
    status, (note, checked), _ = run(capsys, NAME)
    assert status == 0 and "as far as could be checked" in checked
    assert note.startswith("note: without data/sst-dev.txt (`bash setup.sh` fetches them)")
    edit(lambda text: text.replace("0 |||", "7 |||", 1))(folder / PREDICTIONS[4])
    assert run(capsys, NAME)[0] == 1


def test_a_zip_over_ten_megabytes_is_too_large(folder, capsys):
    (prepare_submit.HERE / "README.md").write_bytes(os.urandom(10_000_000))
    _, (said,), _ = run(capsys, NAME)
    assert "the limit is 10,000,000" in said


# ----------------------------------------------------------------------------------------- names

SURNAMES = ("they have to be in one that is named SURNAME1_SURNAME2 (letters, and _ between "
            "names)")


@pytest.mark.parametrize("prefix, members, said", [
    (f"{NAME}/", [f"{NAME}/"], []),
    (f"{NAME}/", [f"{NAME}/stories42M.pt", f"{NAME}/data/", f"{NAME}/data/sst-dev.txt", "x.py"],
     [f"'{NAME}/stories42M.pt': does not belong in it",
      f"'{NAME}/data' (2 entries): does not belong in it", "'x.py': does not belong in it"]),
    (f"{NAME}/", [f"__MACOSX/{NAME}/._llama.py", "__MACOSX/._x", f"{NAME}/.DS_Store"],
     ["'__MACOSX' (2 entries): does not belong in it; macOS's Finder added it, "
      "`zip -d FILE.zip '__MACOSX/*'` removes it",
      "'.DS_Store': does not belong in it; macOS's Finder added it, "
      "`zip -d FILE.zip '*.DS_Store'` removes it"]),
    (f"{NAME}/", [f"{NAME}/__pycache__/llama.pyc"],
     ["'__pycache__': does not belong in it; Python makes it anew"]),
    (f"{NAME}/", [f"{NAME}/\x1b[2J\n"], [f"'{NAME}/\\x1b[2J\\n': does not belong in it"]),
    (f"{NAME}\\", [], ["names have \\ where / has to be, as an old Windows program writes them; "
                       "only Windows makes a folder of that, so zip it with another program"]),
    ("", [], [f"the files are in no folder; {SURNAMES}"]),
    (f"{NAME}/{NAME}/", [f"{NAME}/"],
     [f"the files are in the folder '{NAME}/{NAME}'; {SURNAMES}"])])
def test_names_are_checked_and_what_systems_add_is_named_as_such(
        prefix, members, said, folder, capsys):
    status, out, _ = run(capsys, str(make_zip(folder, prefix, members)))
    assert (status, out if said else []) == (bool(said), said)


@pytest.mark.parametrize("name, proper", [
    ("LOVELACE", True), ("Gödel_Noether_Curie", True), ("O'Neil_Saint-Exupéry", True),
    (NFD_NAME, True), ("कुमार_ශ්\u200dරී", True), ("my submission", False), ("LOVELACE_", False),
    ("1_2", False), ("A__B", False), ("A-_B", False)])
def test_the_folder_is_named_by_surnames(name, proper, folder, capsys):
    status, out, _ = run(capsys, str(make_zip(folder, f"{name}/")))
    assert (status == 0) == proper
    assert proper or "SURNAME1_SURNAME2" in out[0]
    assert run(capsys, name)[0] == (0 if proper else 2)


def test_a_name_is_found_as_macos_writes_it_and_written_composed(folder, capsys, monkeypatch):
    with monkeypatch.context() as patch:  # UTF-8, without the flag that says so
        patch.setattr(zipfile.ZipInfo, "_encodeFilenameFlags",
                      lambda self: (self.filename.encode(), self.flag_bits))
        path = make_zip(folder, f"{NFD_NAME}/")
    with zipfile.ZipFile(path) as zipped:
        assert NFD_NAME not in zipped.namelist()[0]
    assert run(capsys, str(path))[0] == run(capsys, NFD_NAME)[0] == 0
    assert (folder / "Müller_Çelik.zip").is_file()


# ---------------------------------------------------------------------------------------- errors

@pytest.mark.parametrize("spoil", [
    lambda content: b"", lambda content: b"no zip at all", lambda content: content[:2000],
    lambda content: content.replace(b"import argparse", b"import Argparse", 1)])
def test_what_cannot_be_unpacked_is_a_finding(spoil, folder, capsys):
    path = make_zip(folder)  # stored, not compressed
    path.write_bytes(spoil(path.read_bytes()))
    status, (said,), _ = run(capsys, str(path))
    assert status == 1 and said.startswith("cannot be read as a zip")


@pytest.mark.parametrize("argv, said", [
    ([], "required"), (["gone.zip"], "gone.zip"), ([NAME, "--from", "gone"], "gone"),
    ([NAME, "--form", "."], "--form"), (["."], "'.'"), (["data.zip"], "data.zip"),
    ([NAME], "data/sst-dev.txt, line 1: no ' ||| ' between label and sentence")])
def test_bad_usage_or_data_are_an_error_of_one_line(argv, said, folder, capsys):
    (folder / "data.zip").mkdir()
    (folder / "data/sst-dev.txt").write_text("no separator\n", encoding="utf-8")
    status, out, err = run(capsys, *argv)
    assert (status, out, len(err)) == (2, [], 1) and said in err[0]
    assert not (folder / f"{NAME}.zip").exists()


def test_a_name_that_the_terminal_cannot_show_is_escaped(folder):
    with zipfile.ZipFile("Müller.zip", "w") as zipped:
        zipped.writestr("Müller 1/llama.py", b"")
    done = subprocess.run([sys.executable, ROOT / "prepare_submit.py", "Müller.zip"],
                          env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert done.returncode == 1 and b"the folder 'M\\xfcller 1'" in done.stdout
    assert done.stderr == b"M\\xfcller.zip: 31 problems\n"
