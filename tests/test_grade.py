"""grade.py names what is wrong with a hand-in, and survives it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import grade
import prepare_submit
import reproduce
import runs
from grade import WRITTEN
from runs import ROOT, STORIES
from test_prepare_submit import DATA, PREDICTIONS, SUBMISSION, lines, make_zip, predictions, write
from utils import PROMPT

# A smaller assignment, judged in a fraction of a second: each of the five files has to know the
# answer. PyTorch is not needed, and would take seconds to import.
PARTS = ["rope.py apply_rotary_emb", "llama.py LayerNorm", "optimizer.py AdamW",
         "lora.py apply_lora", "classifier.py LlamaEmbeddingClassifier"]
ASSIGNMENT = {"tests/assignment/__init__.py": f"""
import sys
from unittest.mock import MagicMock

sys.modules.update(numpy=MagicMock(), torch=MagicMock())
from . import judge

judge.PARTS = {PARTS}
""", "tests/assignment/test_answers.py": """
import pytest
from .judge import FIVE, PARTS, equal, part

def asks(name, about):
    @part(about)
    @pytest.mark.parametrize("time", ["once", "again"])
    def ask(request, time):
        equal(f"the answer {time}", request.getfixturevalue(name).answer(), 42)
    return ask

test_rope, test_llama, test_optimizer, test_lora, test_classifier = map(asks, FIVE, PARTS)
"""}
RIGHT = "def answer():\n    return 42\n"
CONSTANT = "cfimdb-dev-lora-output.txt"  # as such a run may well end
COMPLETE = SUBMISSION | dict.fromkeys(WRITTEN, RIGHT) | {CONSTANT: lines("dev", [0] * 20)}


def hand_in(path: str, changed: dict[str, str | None]) -> str:
    """A zip or folder that is right, but for some files; None: missing."""
    files = {name: text for name, text in (COMPLETE | changed).items() if text is not None}
    return make_zip(path, files) if path.endswith(".zip") else str(write(Path(path), files))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, list[str], list[dict]]]:
    """Put the smaller assignment in place; call it for the exit status, lines and findings."""
    here = tmp_path / "here"
    shutil.copytree(ROOT / "tests/assignment", here / "tests/assignment",
                    ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    write(here, DATA | ASSIGNMENT)
    for task in ("sst-prompt", "cfimdb-prompt"):
        monkeypatch.setitem(reproduce.PUBLISHED, task, ((0.5, 0.0), (0.5, 0.0)))
    for module in (grade, prepare_submit):
        monkeypatch.setattr(module, "HERE", here)
    grade.zero_shot.cache_clear()  # of another test's model
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, list[str], list[dict]]:
        status, out, err = runs.run([*argv, "--json", "all.json"], capsys, grade.main)
        assert all("computing" in line for line in err), err
        findings = json.loads(Path("all.json").read_text(encoding="utf-8"))
        return status, [" ".join(line.split()) for line in out.splitlines()], findings
    return run


@pytest.mark.parametrize("llama, said", [
    (RIGHT.replace("42", "'x' * 1_000"), "the answer once: expected 42, found xxx"),
    (None, "llama.py cannot be imported: there is no llama.py"),
    ("while True: pass\n", "still running after 20 seconds"),
    ("import os\nos.abort()\n", "SIGABRT"),
    ("x = bytearray(5 << 30)\n", "llama.py cannot be imported: MemoryError"),
    ("open('large', 'wb').write(bytes(65 << 20))\n", "llama.py cannot be imported: OSError: [Err"),
    ("print('x' * 1_000_000)\nraise ValueError('x\\n' * 1_000_000)\n",
     "llama.py cannot be imported: ValueError: x x x"),
    ("import os, shutil\nshutil.rmtree(os.getcwd())\n", "the code deletes its folder"),
], ids=["wrong", "missing", "hangs", "aborts", "memory", "disk", "prints", "deletes"])
def test_code_that_misbehaves_costs_its_own_part(run, tmp_path, llama, said):
    hand_in("t", {"llama.py": llama})
    before = runs.contents(tmp_path)
    status, out, (found,) = run("t", "--timeout", "20" if "20 seconds" in said else "120")
    (tmp_path / "all.json").unlink()
    assert runs.contents(tmp_path) == before
    verdict = found["parts"].pop(PARTS[1])
    assert verdict.startswith(f"wrong: {said}") and len(verdict) < 400
    assert status == 1 and f"begin with {PARTS[1]}" in out
    # What is deleted cannot be judged, but for what was judged before.
    assert {*found["parts"].values()} == {"right"} or "deletes" in said
    assert found["parts"][PARTS[0]] == "right"


def test_a_crash_on_import_is_met_once_and_what_is_not_tried_is_not_right(run):
    """In folders, which may lack what is not made yet."""
    outputs = dict.fromkeys(STORIES + PREDICTIONS)
    importing = dict.fromkeys(WRITTEN[2:], f"import llama\n{RIGHT}")
    crash = "import os\nos.{}\n"
    hand_in("once", outputs | importing | {"llama.py": crash.format("abort()")})
    hand_in("often", outputs | dict.fromkeys(WRITTEN[:4], crash.format("_exit(0)")))
    _, out, (once, often) = run("once", "often")
    assert out[:6] == ["", "once", "structure", "right", "not here yet", ", ".join(outputs)]
    assert all("ImportError: SIGABRT" in once["parts"][part] for part in PARTS[2:])
    assert [often["parts"][part] for part in PARTS] == [
        *["wrong: exit status 0"] * 4, "not judged: the tests ended before it"]


def test_several_hand_ins_end_in_a_table_and_an_unreadable_one_does_not_stop_the_others(run):
    Path("B.zip").write_bytes(b"no zip at all")
    status, out, (right, unreadable, wrong) = run(
        hand_in("A.zip", {}), "B.zip", hand_in("C.zip", {"rope.py": "", "README.md": None}))
    assert status == 1 and out[-4:] == [
        "hand-in structure parts begin with outputs", "A.zip right 5 of 5 right – right",
        "B.zip 1 wrong not judged – none", f"C.zip 2 wrong 4 of 5 right {PARTS[0]} right"]
    assert right["right"] and right["parts"] == dict.fromkeys(PARTS, "right")
    assert "sst-dev-finetuning-output.txt 0.4000 0.411 (0.025) -0.4 agrees" in out
    assert f"{CONSTANT} 0.5000 0.510 (0.051) -0.2 agrees, constant" in out
    assert right["accuracy"]["sst-dev-lora-output.txt"] == pytest.approx(0.25)
    assert unreadable["structure"][0].startswith("cannot be read as a zip")
    assert wrong["structure"] == ["rope.py: empty", "README.md: missing"]

    shutil.rmtree(grade.HERE / "data")
    status, out, _ = run("A.zip", "A.zip")
    assert status == 0 and f"{CONSTANT} constant" in out
    assert "note: predictions were not compared with data/sst-dev.txt" in str(out)
    assert out[-1] == "A.zip right 5 of 5 right – not compared"


SIGNS = [  # a file, what it contains, and what is said
    (STORIES[0], f"{PROMPT} a", "not the prompt (Victor Frankenstein…) followed by at least five "
     "words"),
    (STORIES[1], f"{PROMPT} a", f"the same story as in {STORIES[0]}"),
    ("sst-dev-prompting-output.txt", predictions("sst-dev-prompting-output.txt", 20),
     "too far from the published accuracy"),
    ("sst-dev-finetuning-output.txt", predictions("sst-dev-finetuning-output.txt", 15),
     "too far from the published accuracy"),
    ("cfimdb-test-finetuning-output.txt", lines("test", [1] * 20), "constant, 1 on every line"),
    ("cfimdb-dev-lora-output.txt", predictions("cfimdb-dev-lora-output.txt", 10),
     "the same predictions as in cfimdb-dev-prompting-output.txt")]


def test_outputs_that_no_run_of_this_code_makes_are_named(run):
    skeleton = {"lora.py": "def answer():\n    raise NotImplementedError\n"}
    hand_in("t", skeleton | {name: text for name, text, _ in SIGNS})
    status, out, (found,) = run("t")
    signs = {f"{name}: {said}" for name, _, said in SIGNS}
    assert status == 1 and signs < {*out}
    assert {*found["outputs"]} == signs - {*found["structure"]} | {
        f"{name}: not made by this code, whose lora.py apply_lora does not run"
        for name in PREDICTIONS if "lora" in name}


def test_zero_shot_predictions_are_compared_with_our_own(run, monkeypatch):
    """As another run would write them, since the official model is not here."""
    def execute(run, command):
        executed.append(run.dataset)
        write(run.folder, {name: COMPLETE[name] for name in run.outputs.values()})

    executed = []
    monkeypatch.setattr(grade, "execute", execute)
    monkeypatch.setitem(reproduce.PUBLISHED, "sst-prompt", ((0.9, 0.0), (0.9, 0.0)))
    write(grade.HERE, dict.fromkeys(
        ["stories42M.pt", "tokenizer.model", "data/sst-label-mapping.json"], ""))
    name = "sst-dev-prompting-output.txt"
    _, _, (ours, theirs) = run(hand_in("ours", {}), hand_in("theirs", {name: predictions(name, 9)}))
    assert (ours["outputs"], theirs["outputs"]) == (
        [], [f"{name}: 1 of 20 lines differ from our predictions"])
    assert executed == ["sst"]


def test_our_own_code_is_right_in_every_part(tmp_path, capsys):
    """With the real tests, which have the parts of the smaller assignment, too."""
    hand_in = write(tmp_path, {name: (ROOT / name).read_text(encoding="utf-8") for name in WRITTEN})
    status, out, _ = runs.run([str(hand_in)], capsys, grade.main)
    assert status == 0 and out.count(": right\n") > 15
    assert all(f"  {part}: right\n" in out for part in PARTS)


def test_bad_usage_is_refused_before_any_code_runs(run, capsys):
    hand_in("t", {})
    for argv, said in ((["t", "gone.zip"], "cannot read gone.zip"),
                       (["t", "--timeout", "0"], "positive number"), ([], "HAND_IN")):
        status, out, (line,) = runs.run(argv, capsys, grade.main)
        assert (status, out) == (2, "") and said in line
