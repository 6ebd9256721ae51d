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
from prepare_submit import CLASSES
from runs import ROOT, STORIES
from test_prepare_submit import CODE, NAME, PREDICTIONS, QUESTIONS, STORY, TEXTS

FIVE = ["rope.py", "llama.py", "classifier.py", "optimizer.py", "lora.py"]
RIGHT = "def answer():\n    return 42\n"
FIRST = [f"{name} answer" for name in FIVE]
# The tests of a smaller assignment: each of the five files has to know the answer.
CONFTEST = f"""
import json
import pytest

def pytest_addoption(parser):
    parser.addoption("--report")
    parser.addoption("--without", action="append", default=[])

def write(config, **line):
    with open(config.getoption("--report"), "a") as file:
        file.write(json.dumps(line) + "\\n")

def part_of(item):
    return item.callspec.params["name"] + " answer"

def pytest_collection_modifyitems(config, items):
    items[:] = [item for item in items if part_of(item) not in config.getoption("--without")]
    write(config, parts={FIRST})

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    write(item.config, part=part_of(item), outcome="started")
    error = (yield).excinfo
    write(item.config, part=part_of(item), outcome="failed" if error else "passed",
          message=f"{{error[0].__name__}}: {{error[1]}}" if error else "")
"""
TESTS = f"""
import importlib
import pytest

@pytest.mark.parametrize("time", ["once", "again"])  # varies fastest
@pytest.mark.parametrize("name", {FIVE})
def test_answer(name, time):
    found = importlib.import_module(name[:-3]).answer()
    assert found == 42, f"found {{found}} {{time}}"
"""
LABELS = {"sst": [0, 1, 2, 3, 4] * 4, "cfimdb": [0, 1] * 10}
PUBLISHED = {"prompt": (0.5, 0.0), "finetune": (0.96, 0.01), "lora": (0.9, 0.01)}


def lines(labels: list[int], end: str = "") -> str:
    return "".join(f"{label} ||| film no. {i} .{end}\n" for i, label in enumerate(labels))


def complete() -> dict[str, str]:
    """The files of a hand-in without fault: every prediction file has other mistakes."""
    files = dict.fromkeys(CODE + TEXTS, "a stand-in") | dict.fromkeys(FIVE, RIGHT)
    files |= {STORIES[0]: STORY, STORIES[1]: STORY + " And ran."}
    for output in PREDICTIONS:
        dataset, _, kind, _ = output.split("-")
        wrong = {"prompting": range(10), "finetuning": [3], "lora": [4, 5]}[kind]
        labels = [(label + (i in wrong)) % CLASSES[dataset]
                  for i, label in enumerate(LABELS[dataset])]
        files[output] = lines(labels, QUESTIONS[dataset] * (kind == "prompting"))
    return files


def write(path: str, changed: dict[str, str | None] | None = None) -> str:
    """A complete zip or folder, but for some files; None: missing."""
    folder = Path(path.removesuffix(".zip"), NAME if path.endswith(".zip") else "")
    folder.mkdir(parents=True)
    for name, text in (complete() | (changed or {})).items():
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    if path.endswith(".zip"):
        shutil.make_archive(path.removesuffix(".zip"), "zip", folder.parent, NAME)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, list[str]]]:
    """A smaller assignment in place of ours; call it for an exit status and the lines printed."""
    here = tmp_path / "here"
    files = {"tests/assignment/conftest.py": CONFTEST, "tests/assignment/test_answer.py": TESTS}
    for dataset, labels in LABELS.items():
        files |= {f"data/{dataset}-{split}.txt": lines(labels) for split in ("dev", "test")}
        for option, published in PUBLISHED.items():
            monkeypatch.setitem(reproduce.PUBLISHED, f"{dataset}-{option}", (published, published))
    for name, text in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text, encoding="utf-8")
    for module in (grade, prepare_submit):
        monkeypatch.setattr(module, "HERE", here)
    grade.zero_shot.cache_clear()  # of another test's model
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, list[str]]:
        status, out, err = runs.run(list(argv), capsys, grade.main)
        assert all("computing" in line for line in err), err
        return status, [" ".join(line.split()) for line in out.splitlines()]
    return run


@pytest.mark.parametrize("llama, said", [
    (RIGHT.replace("42", "41"), "AssertionError: found 41 once"),
    (None, "ModuleNotFoundError: No module named 'llama'"),
    ("while True: pass\n", "still running after 20 seconds"),
    ("import os\nos.abort()\n", "SIGABRT"),
    ("x = bytearray(5 << 30)\n", "MemoryError"),
    ("open('large', 'wb').write(bytes(65 << 20))\n", "OSError: [Errno 27] File too large"),
    ("print('x' * 1_000_000)\nraise ValueError('x\\n' * 1_000_000)\n", "ValueError: x x x"),
    ("import os, shutil\nshutil.rmtree(os.getcwd())\n", "the code deletes its folder"),
], ids=["wrong", "missing", "hangs", "aborts", "memory", "disk", "prints", "deletes"])
def test_code_that_misbehaves_costs_its_own_part(run, tmp_path, llama, said):
    write("t", {"llama.py": llama})
    before = runs.contents(tmp_path)
    status, out = run("t", "--timeout", "20" if "20 seconds" in said else "120")
    (verdict,) = [line for line in out if line.startswith(f"{FIRST[1]}: wrong: {said}")]
    assert status == 1 and f"begin with {FIRST[1]}" in out and len(verdict) < 400
    # What is deleted cannot be judged, but for what was judged before.
    right = FIRST[:1] if "deletes" in said else [part for part in FIRST if part != FIRST[1]]
    assert {f"{part}: right" for part in right} < set(out)
    assert runs.contents(tmp_path) == before


def test_a_crash_on_import_is_met_once_and_what_is_not_tried_is_not_right(run):
    """In folders, which may lack what is not made yet."""
    outputs = STORIES + PREDICTIONS
    importing = dict.fromkeys(FIVE[2:], f"import llama\n{RIGHT}")
    crash = "import os\nos.{}\n"
    write("once", dict.fromkeys(outputs) | importing | {"llama.py": crash.format("abort()")})
    write("often", dict.fromkeys(outputs) | dict.fromkeys(FIVE[:4], crash.format("_exit(0)")))
    _, once = run("once")
    assert once[:7] == ["", "once", "structure", "right", "not here yet", ", ".join(outputs),
                        "parts"]
    assert once[-4:-1] == [f"{part}: wrong: ImportError: SIGABRT" for part in FIRST[2:]]
    _, often = run("often")
    assert often[-6:-1] == [*(f"{part}: wrong: exit status 0" for part in FIRST[:4]),
                            f"{FIRST[4]}: not judged: the tests ended before it"]


def test_several_hand_ins_end_in_a_table_and_an_unreadable_one_does_not_stop_the_others(run):
    Path("B.zip").write_bytes(b"no zip at all")
    status, out = run(write("A.zip"), "B.zip", write("C.zip", {"rope.py": "", "README.md": None}),
                      "--json", "all.json")
    assert status == 1
    assert "sst-dev-finetuning-output.txt 0.9500 0.960 (0.010) -1.0 agrees" in out
    assert out[-4:] == [
        "hand-in structure parts begin with outputs", "A.zip right 5 of 5 right – right",
        "B.zip 1 wrong not judged – none", "C.zip 2 wrong 4 of 5 right rope.py answer right"]
    right, unreadable, wrong = json.loads(Path("all.json").read_text(encoding="utf-8"))
    assert [report["right"] for report in (right, unreadable, wrong)] == [True, False, False]
    assert unreadable["structure"][0].startswith("cannot be read as a zip")
    assert wrong["structure"] == ["rope.py: empty", "README.md: missing"]
    assert right["parts"] == dict.fromkeys(FIRST, "right")
    assert right["accuracy"]["sst-dev-lora-output.txt"] == pytest.approx(0.9)


@pytest.mark.parametrize("name, text, said", [
    ("sst-dev-finetuning-output.txt", lines([1] * 20), "constant, 1 on every line"),
    ("sst-test-lora-output.txt", complete()["sst-test-finetuning-output.txt"],
     "the same predictions as in sst-test-finetuning-output.txt"),
    ("sst-dev-prompting-output.txt", lines(LABELS["sst"], QUESTIONS["sst"]),
     "too far from the published accuracy"),
    ("sst-test-lora-output.txt", lines(LABELS["sst"]), "too far from the published accuracy"),
    (STORIES[1], STORY, f"the same story as in {STORIES[0]}"),
    (STORIES[0], grade.prepare_submit.PROMPT + " a", "not the prompt (Victor Frankenstein…) "
     "followed by at least five words")])
def test_outputs_that_no_run_makes_are_named(run, name, text, said):
    status, out = run(write("t", {name: text}))
    assert status == 1 and f"{name}: {said}" in out, out


def test_constant_predictions_of_lora_are_named_but_may_be_right(run, monkeypatch):
    """Without data, too, where nothing is compared and a line says so."""
    monkeypatch.setitem(reproduce.PUBLISHED, "cfimdb-lora", ((0.51, 0.05), (0.9, 0.01)))
    status, out = run(write("t", {"cfimdb-dev-lora-output.txt": lines([0] * 20)}))
    assert status == 0
    assert "cfimdb-dev-lora-output.txt 0.5000 0.510 (0.050) -0.2 agrees, constant" in out
    shutil.rmtree(grade.HERE / "data")
    status, out = run("t")
    assert status == 0 and "cfimdb-dev-lora-output.txt constant" in out
    assert "note: predictions were not compared with data/sst-dev.txt" in str(out)


def test_our_own_code_is_right_in_every_part_and_what_it_lacks_is_seen_in_its_outputs(
        tmp_path, capsys, monkeypatch):
    """With the real tests; without stories42M.pt, which would take minutes."""
    monkeypatch.setattr(grade, "MODEL", "none.pt")
    monkeypatch.chdir(tmp_path)
    five = {name: (ROOT / name).read_text(encoding="utf-8") for name in FIVE}
    write("ours", five)
    write("theirs", five | {"lora.py": "def apply_lora(model, rank=4, alpha=1.0):\n"
                                       "    raise NotImplementedError\n"})
    runs.run(["ours", "theirs", "--json", "both.json"], capsys, grade.main)
    ours, theirs = json.loads(Path("both.json").read_text(encoding="utf-8"))
    assert set(ours["parts"].values()) == {"right"} and len(ours["parts"]) > 15
    assert theirs["parts"]["rope.py apply_rotary_emb"] == "right"
    assert theirs["parts"]["lora.py apply_lora"].startswith("wrong: not implemented")
    assert [line for line in theirs["outputs"] if "not made by this code" in line] == [
        f"{name}: not made by this code, whose lora.py apply_lora does not run"
        for name in PREDICTIONS if "lora" in name]


def test_zero_shot_predictions_are_compared_with_our_own(run, monkeypatch):
    """As another run would write them, since the official model is not here."""
    def execute(run, command):
        executed.append(run.dataset)
        run.folder.mkdir()
        for name in run.outputs.values():
            (run.folder / name).write_text(complete()[name], encoding="utf-8")

    executed = []
    monkeypatch.setattr(grade, "execute", execute)
    monkeypatch.setitem(reproduce.PUBLISHED, "sst-prompt", ((0.9, 0.0), (0.9, 0.0)))
    for name in ("stories42M.pt", "tokenizer.model", "data/sst-train.txt",
                 "data/sst-label-mapping.json"):
        (grade.HERE / name).touch()
    name = "sst-dev-prompting-output.txt"
    other = complete()[name].replace("1 |||", "2 |||", 1)
    _, out = run(write("ours"), write("theirs", {name: other}))
    assert [line for line in out if "differ from" in line] == [
        f"{name}: 1 of 20 lines differ from our predictions"]
    assert executed == ["sst"] and "too far" not in str(out)


def test_bad_usage_is_refused_before_any_code_runs(run, capsys):
    write("t")
    for argv, said in ((["t", "gone.zip"], "cannot read gone.zip"),
                       (["t", "--timeout", "0"], "positive number"), ([], "HAND_IN")):
        status, out, (line,) = runs.run(argv, capsys, grade.main)
        assert (status, out) == (2, "") and said in line
