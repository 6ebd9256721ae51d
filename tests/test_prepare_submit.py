"""A submission is packed only when nothing is wrong with it, and any zip can be checked."""

import bz2
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import prepare_submit

ROOT = Path(__file__).resolve().parent.parent
NAME = "LOVELACE_TURING"
# Section by section what the assignment asks for, written out.
CODE = ["base_llama.py", "classifier.py", "config.py", "llama.py", "lora.py", "optimizer.py",
        "rope.py", "run_llama.py", "sanity_check.py", "tokenizer.py", "utils.py"]
TEXTS = ["README.md", "structure.md", "checklist.md", "sanity_check.data", "setup.sh"]
STORIES = ["generated-sentence-temp-0.txt", "generated-sentence-temp-1.txt"]
PREDICTIONS = [
    "sst-dev-prompting-output.txt", "sst-test-prompting-output.txt",
    "sst-dev-finetuning-output.txt", "sst-test-finetuning-output.txt",
    "sst-dev-lora-output.txt", "sst-test-lora-output.txt",
    "cfimdb-dev-prompting-output.txt", "cfimdb-test-prompting-output.txt",
    "cfimdb-dev-finetuning-output.txt", "cfimdb-test-finetuning-output.txt",
    "cfimdb-dev-lora-output.txt", "cfimdb-test-lora-output.txt"]
STORY = ("Victor Frankenstein, a young scientist obsessed with uncovering the secrets of life, "
         "succeeds in animating a creature assembled from old clocks.\n")
QUESTIONS = {"sst": " Is this movie awful, bad, average, good, or excellent? This movie is ",
             "cfimdb": " Is this movie bad or good? This movie is "}


def lay_out_repository(folder: Path) -> None:
    """The code as it is, with stand-ins for the documents."""
    folder.mkdir(exist_ok=True)
    for name in CODE:
        shutil.copy(ROOT / name, folder)
    for name in TEXTS:
        folder.joinpath(name).write_text(f"a stand-in for {name}\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with data and outputs; code and documents are in another."""
    lay_out_repository(tmp_path / "repository")
    monkeypatch.setattr(prepare_submit, "HERE", tmp_path / "repository")
    work = tmp_path / "work"
    work.joinpath("data").mkdir(parents=True)
    for name in STORIES:
        work.joinpath(name).write_text(STORY, encoding="utf-8")
    for output in PREDICTIONS:
        dataset, split, kind, _ = output.split("-")
        sentences = [f"The {split} film no. {i} ||| naïve\u2028and \x85 fine ." for i in range(4)]
        work.joinpath("data", f"{dataset}-{split}.txt").write_text(
            "".join(f"1 ||| {sentence}\n" for sentence in sentences), encoding="utf-8")
        question = QUESTIONS[dataset] * (kind == "prompting")
        work.joinpath(output).write_text(
            "".join(f"{i % 2} ||| {s}{question}\n" for i, s in enumerate(sentences)),
            encoding="utf-8", newline="")
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def code_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the start of the program in the zip, which takes a second."""
    monkeypatch.setattr(prepare_submit, "check_code", lambda folder, problems: None)


def run(capsys: pytest.CaptureFixture, *argv: str) -> tuple[int, list[str], list[str]]:
    """Exit status and the lines on standard output and error."""
    capsys.readouterr()
    try:
        status = prepare_submit.main(list(argv))
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def zip_of(folder: Path, top: str = NAME) -> Path:
    """The zip of a right submission, made without the program, under test.zip."""
    path = folder / "test.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in CODE + TEXTS:
            zipped.write(prepare_submit.HERE / name, f"{top}/{name}")
        for name in STORIES + PREDICTIONS:
            zipped.write(folder / name, f"{top}/{name}")
    return path


def add(path: Path, member: str | zipfile.ZipInfo, content: bytes = b"x", **options) -> None:
    """Put one more member into a zip."""
    with zipfile.ZipFile(path, "a") as zipped:
        zipped.writestr(member, content, **options)


def test_a_submission_has_the_thirty_files_in_one_folder_and_its_code_runs(folder, capsys):
    status, out, err = run(capsys, NAME)
    assert (status, err) == (0, [])
    assert len(out) == 1 and out[0].startswith(f"{NAME}.zip: written and checked, all 30 files")
    with zipfile.ZipFile(f"{NAME}.zip") as zipped:
        assert sorted(zipped.namelist()) == sorted(
            f"{NAME}/{name}" for name in CODE + TEXTS + STORIES + PREDICTIONS)
        assert zipped.testzip() is None
    assert run(capsys, f"{NAME}.zip")[0] == 0


def test_an_independently_made_zip_passes_with_and_without_an_entry_for_its_folder(
        folder, capsys, code_not_run):
    path = zip_of(folder)
    assert run(capsys, str(path))[0] == 0
    add(path, f"{NAME}/", b"")
    assert run(capsys, str(path))[0] == 0


def test_the_code_has_to_run_without_the_repository(folder, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with open(prepare_submit.HERE / "utils.py", "a", encoding="utf-8") as file:
        file.write("\nimport prepare_submit\n")
    status, out, _ = run(capsys, NAME)
    assert status == 1
    assert len(out) == 1 and "run_llama.py --help: exit status 1" in out[0]
    assert "No module named 'prepare_submit'" in out[0]


def test_parts_come_from_the_given_folder_and_code_from_the_repository(
        folder, capsys, monkeypatch, code_not_run, tmp_path):
    folder.joinpath("README.md").write_text("of the outputs' folder\n", encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert run(capsys, NAME, "--from", str(folder))[0] == 0
    with zipfile.ZipFile(elsewhere / f"{NAME}.zip") as zipped:
        assert zipped.read(f"{NAME}/README.md") == b"of the outputs' folder\n"
        assert zipped.read(f"{NAME}/llama.py") == ROOT.joinpath("llama.py").read_bytes()


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    """A defect: a file whose text is changed."""
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    return apply


def without_last_line(text: str) -> str:
    return text[:text.rindex("\n", 0, -1) + 1]


DEFECTS = {
    "missing": (lambda folder: folder.joinpath(PREDICTIONS[0]).unlink(),
                "sst-dev-prompting-output.txt: missing (`python reproduce.py` makes it)"),
    "empty": (edit(PREDICTIONS[1], lambda text: ""), "sst-test-prompting-output.txt: empty"),
    "line too few": (edit(PREDICTIONS[2], without_last_line),
                     "sst-dev-finetuning-output.txt: 3 lines, but 4 in the data"),
    "line too many": (edit(PREDICTIONS[3], lambda text: text + "1 ||| one more\n"),
                      "sst-test-finetuning-output.txt: 5 lines, but 4 in the data"),
    "label": (edit(PREDICTIONS[10], lambda text: text.replace("0 |||", "2 |||", 1)),
              "cfimdb-dev-lora-output.txt: a label that is not one of 0 to 1 in line 1"),
    "labels": (edit(PREDICTIONS[4], lambda text: text.replace("1 ||| The", "5 ||| The")),
               "sst-dev-lora-output.txt: a label that is not one of 0 to 4 in line 2 and 1 more"),
    "sentence": (edit(PREDICTIONS[5], lambda text: text.replace("no. 2", "no. 7")),
                 "sst-test-lora-output.txt: another sentence than in the data in line 3"),
    "no question": (edit(PREDICTIONS[6], lambda text: text.replace(QUESTIONS["cfimdb"], "", 1)),
                    "cfimdb-dev-prompting-output.txt: no question at the end in line 1"),
    "question": (edit(PREDICTIONS[8], lambda text: text.replace("\n", QUESTIONS["cfimdb"] + "\n")),
                 "cfimdb-dev-finetuning-output.txt: another sentence than in the data in line 1 "
                 "and 3 more"),
    "prompted sentence": (edit(PREDICTIONS[7], lambda text: text.replace("no. 0", "no. 8")),
                          "cfimdb-test-prompting-output.txt: another sentence than in the data in "
                          "line 1"),
    "form": (edit(PREDICTIONS[9], lambda text: text.replace("0 ||| ", "0 | ", 1)
                  .replace(" ||| naïve", " naïve", 1)),
             "cfimdb-test-finetuning-output.txt: no 'label ||| sentence' in line 1"),
    "not UTF-8": (lambda folder: folder.joinpath(PREDICTIONS[11]).write_bytes(b"0 ||| na\xefve\n"),
                  "cfimdb-test-lora-output.txt: not UTF-8 at byte 9"),
    "story": (edit(STORIES[0], lambda text: "Once upon a time" + text),
              "generated-sentence-temp-0.txt: does not start with the prompt 'Victor Frankenstein"),
    "short story": (edit(STORIES[1], lambda text: text[:text.index(" old clocks")]),
                    "generated-sentence-temp-1.txt: has nothing after the prompt"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_named_and_nothing_is_written(defect, folder, capsys, code_not_run):
    spoil, said = DEFECTS[defect]
    spoil(folder)
    status, out, err = run(capsys, NAME)
    assert status == 1
    assert len(out) == 1 and out[0].startswith(said)
    assert len(err) == 1 and "not written" in err[0]
    assert not list(folder.glob("*.zip*"))


def test_all_defects_are_named_at_once_and_an_earlier_zip_stays(folder, capsys, code_not_run):
    folder.joinpath(f"{NAME}.zip").write_bytes(b"the earlier one")
    for spoil, _ in DEFECTS.values():
        spoil(folder)
    prepare_submit.HERE.joinpath("rope.py").unlink()
    status, out, _ = run(capsys, NAME)
    assert status == 1
    for _, said in [*DEFECTS.values(), (None, "rope.py: missing")]:
        assert len([line for line in out if line.startswith(said)]) == 1
    assert len(out) == len(DEFECTS) + 1
    assert folder.joinpath(f"{NAME}.zip").read_bytes() == b"the earlier one"


def test_where_the_data_are_not_there_it_says_what_was_not_checked(folder, capsys, code_not_run):
    folder.joinpath("data", "sst-dev.txt").unlink()
    edit("sst-dev-lora-output.txt", lambda text: text.replace("no. 2", "no. 7"))(folder)
    status, out, _ = run(capsys, NAME)
    assert status == 0
    assert len(out) == 2 and out[0].startswith("note: data/sst-dev.txt is not here")
    assert "as far as could be checked" in out[1]
    edit("sst-dev-lora-output.txt", lambda text: text.replace("0 |||", "7 |||", 1))(folder)
    assert run(capsys, NAME)[0] == 1


# ------------------------------------------------------------------------------------- FILE.zip

def symbolic_link() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo(f"{NAME}/README.md")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return link


HOSTILE = {
    "path traversal": (lambda path: add(path, f"{NAME}/../../evil.py"), "points out of the folder"),
    "traversal at the top": (lambda path: add(path, "../evil.py"), "points out of the folder"),
    "absolute name": (lambda path: add(path, "/tmp/evil.py"), "points out of the folder"),
    "drive letter": (lambda path: add(path, "C:evil.py"), "points out of the folder"),
    "backslashes": (lambda path: add(path, f"{NAME}\\..\\evil.py"), "points out of the folder"),
    "extra file": (lambda path: add(path, f"{NAME}/stories42M.pt"), "does not belong in it"),
    "extra folder": (lambda path: add(path, f"{NAME}/data/", b""), "does not belong in it"),
    "control characters": (lambda path: add(path, f"{NAME}/\x1b[2J\n.py"), "\\x1b[2J\\n.py"),
    "second folder": (lambda path: add(path, "__MACOSX/._llama.py"), "2 folders at the top"),
    "loose file": (lambda path: add(path, "llama.py"), "does not belong in it"),
    "the same name twice": (lambda path: add(path, f"{NAME}/llama.py"), "there more than once"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_does_not_belong_in_a_zip_is_named(kind, folder, capsys, code_not_run):
    path = zip_of(folder)
    spoil, said = HOSTILE[kind]
    spoil(path)
    status, out, _ = run(capsys, str(path))
    assert status == 1
    assert any(said in line for line in out)
    assert all("\x1b" not in line for line in out)


@pytest.fixture
def own_temporary_folder(tmp_path, monkeypatch) -> Path:
    """The folder in which temporary folders are made."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


def test_a_file_beside_the_folder_does_not_stand_in_for_one_in_it(folder, capsys, code_not_run):
    path = folder / "beside.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr(f"{NAME}/README.md", b"x")
        zipped.writestr("rope.py", b"x")
    _, out, _ = run(capsys, str(path))
    assert "'rope.py': does not belong in it" in out and "rope.py: missing" in out


def test_nothing_is_unpacked_outside_and_nothing_is_left(
        folder, capsys, code_not_run, own_temporary_folder, tmp_path):
    path = zip_of(folder)
    for name in ("../evil.py", f"{NAME}/../../../evil.py", f"{tmp_path}/evil.py"):
        add(path, name)
    before = sorted(tmp_path.rglob("*"))
    assert run(capsys, str(path))[0] == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_symbolic_link_is_not_followed(folder, capsys, code_not_run):
    path = folder / "link.zip"
    add(path, symbolic_link(), b"/etc/passwd")
    _, out, _ = run(capsys, str(path))
    assert any("README.md': a symbolic link" in line for line in out)
    assert "README.md: missing" not in out


def test_a_bomb_is_not_unpacked(folder, capsys, code_not_run, monkeypatch):
    path = folder / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in (f"{NAME}/README.md", f"{NAME}/setup.sh"):
            zipped.writestr(name, bytes(26_000_000))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *args: pytest.fail("was unpacked"))
    _, out, _ = run(capsys, str(path))
    assert any("unpacks to more than 50,000,000 bytes" in line for line in out)


def test_thousands_of_extra_files_are_summed_up(folder, capsys, code_not_run):
    path = zip_of(folder)
    with zipfile.ZipFile(path, "a") as zipped:
        for number in range(3000):
            zipped.writestr(f"{NAME}/{number}", b"")
    _, out, _ = run(capsys, str(path))
    assert len(out) == 41 and out[-1] == "… and 2960 more such names"


def test_a_zip_over_ten_megabytes_is_too_large(folder, capsys, code_not_run):
    prepare_submit.HERE.joinpath("README.md").write_bytes(os.urandom(10_000_000))
    _, out, _ = run(capsys, NAME)
    assert len(out) == 1 and "the limit is 10,000,000" in out[0]


def test_other_compression_and_damage_are_named(folder, capsys, code_not_run):
    path = zip_of(folder)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as zipped:
        damaged = zipped.getinfo(f"{NAME}/llama.py").header_offset + 60
    content[damaged] ^= 0xFF
    path.write_bytes(content)
    _, out, _ = run(capsys, str(path))
    assert len(out) == 1 and out[0].startswith("llama.py: cannot be unpacked")
    path = folder / "bzip2.zip"
    add(path, f"{NAME}/llama.py", bz2.compress(b"x"), compress_type=zipfile.ZIP_BZIP2)
    assert any("llama.py': compressed by a method" in line for line in run(capsys, str(path))[1])


@pytest.mark.parametrize("content", [b"", b"no zip at all", None])
def test_what_is_no_zip_is_a_finding(content, folder, capsys, code_not_run):
    path = zip_of(folder)
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    status, out, _ = run(capsys, str(path))
    assert status == 1
    assert len(out) == 1 and out[0].startswith("not a zip that can be read")


def test_a_flat_zip_has_no_folder(folder, capsys, code_not_run):
    path = folder / "flat.zip"
    for name in CODE:
        add(path, name)
    assert "0 folders at the top; it has to be one, SURNAME1_SURNAME2/" in run(capsys, str(path))[1]


@pytest.mark.parametrize("top, proper", [
    ("LOVELACE", True), ("Gödel_Noether_Curie", True), ("O'Neil_Saint-Exupéry", True),
    ("my submission", False), ("LOVELACE_", False), ("1_2", False), ("A__B", False)])
def test_the_folder_is_named_by_surnames(top, proper, folder, capsys, code_not_run):
    status, out, _ = run(capsys, str(zip_of(folder, top)))
    assert (status == 0) == proper
    assert proper or "is not named SURNAME1_SURNAME2" in out[0]
    status, _, err = run(capsys, top)
    assert status == (0 if proper else 2)
    assert len(err) == (0 if proper else 1)


@pytest.mark.parametrize("argv, said", [
    ([], "required"), (["gone.zip"], "gone.zip"), ([NAME, "--from", "gone"], "gone"),
    ([NAME, "--form", "."], "--form"), (["."], "'.'"), (["data.zip"], "data.zip")])
def test_a_usage_error_is_one_line_and_status_2(argv, said, folder, capsys):
    folder.joinpath("data.zip").mkdir()
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, [])
    assert len(err) == 1 and said in err[0]


def test_damaged_data_are_an_error_of_one_line(folder, capsys, code_not_run):
    folder.joinpath("data", "sst-dev.txt").write_text("no separator\n", encoding="utf-8")
    status, _, err = run(capsys, NAME)
    assert status == 2
    assert err == ["prepare_submit.py: data/sst-dev.txt, line 1: no ' ||| ' between label and "
                   "sentence"]
    assert not folder.joinpath(f"{NAME}.zip").exists()


def test_it_runs_as_a_program(folder):
    done = subprocess.run([sys.executable, ROOT / "prepare_submit.py", "gone.zip"],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "prepare_submit.py: gone.zip: No such file or directory\n"
