"""grade.py names what is wrong with a hand-in, and survives it."""

import json
import re
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
from test_prepare_submit import CODE, NAME, PREDICTIONS, QUESTIONS, TEXTS

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
    told = {{"part": part_of(item), "test": item.nodeid}}
    write(item.config, **told, outcome="started")
    error = (yield).excinfo
    write(item.config, **told, outcome="failed" if error else "passed",
          message=f"{{error[0].__name__}}: {{error[1]}}" if error else "")
"""
TESTS = f"""
import importlib
import pytest

@pytest.mark.parametrize("time", ["once", "again"])  # varies fastest
@pytest.mark.parametrize("name", {FIVE})
def test_answer(name, time):
    found = importlib.import_module(name[:-3]).answer()
    if found != 42:
        pytest.fail(f"expected 42, found {{found}}")
"""
LABELS = {"sst": [0, 1, 2, 3, 4] * 4, "cfimdb": [0, 1] * 10}
STORY = f"{grade.PROMPT} old clocks. It woke up and smiled."
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
    files |= dict.fromkeys(grade.SUPPORT, "")
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
        assert all("computing" in line or "the tests go on" in line for line in err), err
        return status, [line.strip() for line in out.splitlines()]
    return run


def test_a_right_hand_in_is_right_and_a_folder_may_lack_what_is_not_made_yet(run):
    outputs = STORIES + PREDICTIONS
    for path, lacks in (("LOVELACE.zip", []), ("t", []), ("early", outputs)):
        status, out = run(write(path, dict.fromkeys(lacks)))
        assert status == 0, out
        assert out[1:4] == [f"{path} (1 of 1)", "structure", "right"]
        assert out[4:6] == ["not here yet", ", ".join(outputs)] or not lacks
        parts = out.index("parts")
        assert out[parts + 1:parts + 6] == [f"{part}: right" for part in FIRST]
        found = [" ".join(line.split()) for line in out[parts + 6:]]
        assert ("sst-dev-finetuning-output.txt 0.9500 0.960 (0.010) -1.0 agrees" in found) != (
            lacks == outputs)


@pytest.mark.parametrize("llama, said", [
    (RIGHT.replace("42", "41"), "wrong: Failed: expected 42, found 41"),
    (None, "wrong: ModuleNotFoundError: No module named 'llama'"),
    ("while True: pass\n", "wrong: ImportError: takes more than 20 seconds"),
    ("import os\nos._exit(0)\n", "wrong: ended the process (exit status 0)"),
    ("import os\nos.abort()\n", "wrong: ImportError: ended the process (SIGABRT)"),
    ("x = bytearray(5 << 30)\n", "wrong: MemoryError"),
    ("open('large', 'wb').write(bytes(65 << 20))\n", "wrong: OSError: [Errno 27] File too large"),
    ("print('x' * 1_000_000)\n" + RIGHT, "right"),
    ("raise ValueError('x\\n' * 1_000_000)\n", "wrong: ValueError: x x x"),
    ("input()\n", "wrong: OSError: pytest: reading from stdin while output is captured"),
    ("import os, shutil\nshutil.rmtree(os.getcwd())\n", "wrong: the code deletes its folder"),
], ids=["wrong", "missing", "hangs", "exits", "aborts", "memory", "disk", "prints", "message",
        "input", "deletes"])
def test_code_that_misbehaves_costs_its_own_part(run, tmp_path, llama, said):
    """And what hangs or crashes at import is imported once."""
    write("t", {"llama.py": llama})
    before = runs.contents(tmp_path)
    status, out = run("t", "--timeout", "20" if "20 seconds" in said else "120")
    assert [line.startswith(f"llama.py answer: {said}") for line in out].count(True) == 1, out
    assert status == (f"begin with {FIRST[1]}" in out) == (said != "right")
    assert max(map(len, out)) < 400
    # What is deleted cannot be judged, but for what was judged before.
    right = FIRST[:1] if "deletes" in said else [part for part in FIRST if part != FIRST[1]]
    assert {f"{part}: right" for part in right} < set(out)
    assert runs.contents(tmp_path) == before


def test_a_hand_in_is_not_tried_for_ever_and_what_was_not_tried_is_not_right(run):
    status, out = run(write("t", dict.fromkeys(FIVE[:4], "import os\nos._exit(0)\n")))
    assert status == 1
    assert out[5:10] == [*(f"{part}: wrong: ended the process (exit status 0)"
                           for part in FIRST[:4]),
                         f"{FIRST[4]}: not judged: the tests ended before it"]


def test_several_hand_ins_end_in_a_table_and_an_unreadable_one_does_not_stop_the_others(run):
    Path("B.zip").write_bytes(b"no zip at all")
    status, out = run(write("A.zip"), "B.zip", write("C.zip", {"rope.py": "", "README.md": None}),
                      "--json", "all.json")
    assert status == 1
    assert [line.split() for line in out[-4:]] == [
        "hand-in structure parts begin with outputs".split(),
        "A.zip right 5 of 5 right – right".split(),
        "B.zip 1 wrong not judged – none".split(),
        "C.zip 2 wrong 4 of 5 right rope.py answer right".split()]
    right, unreadable, wrong = json.loads(Path("all.json").read_text(encoding="utf-8"))
    assert [report["right"] for report in (right, unreadable, wrong)] == [True, False, False]
    assert unreadable["structure"][0].startswith("cannot be read as a zip")
    assert wrong["structure"] == ["rope.py: empty", "missing: README.md"]
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
    (STORIES[0], grade.PROMPT + " a", "only 'a' after the prompt"),
])
def test_outputs_that_no_run_makes_are_named(run, name, text, said):
    status, out = run(write("t", {name: text}))
    assert status == 1 and f"{name}: {said}" in out, out
    assert len([line for line in out if re.match("[a-z-]+output.txt +[01][.]", line)]) == 12


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
        "sst-dev-lora-output.txt: not made by this code, whose lora.py apply_lora does not run"]


def test_without_data_the_outputs_are_not_compared_and_a_line_says_so(run):
    shutil.rmtree(grade.HERE / "data")
    status, out = run(write("t"))
    assert status == 0
    assert ("note: predictions were not compared with data/sst-dev.txt, data/sst-test.txt, "
            "data/cfimdb-dev.txt, data/cfimdb-test.txt, which `bash setup.sh` fetches") in out


def test_zero_shot_predictions_are_compared_with_our_own(run, tiny_tokenizer, capsys):
    """The official names, but a small model and few sentences."""
    runs.fill(grade.HERE, tiny_tokenizer)
    data = grade.HERE / "data/cfimdb"
    files = {"model.pt": ("pretrained-model-path", grade.HERE / "stories42M.pt"),
             "names.json": ("label-names", f"{data}-label-mapping.json"),
             "train.txt": ("train", f"{data}-train.txt")}
    for name, (_, path) in files.items():
        (grade.HERE / name).rename(path)
    names = {f"{split}_out": f"cfimdb-{split}-prompting-output.txt" for split in ("dev", "test")}
    runs.run(runs.command("prompt", **dict(files.values()), **names, dev=f"{data}-dev.txt",
                          test=f"{data}-test.txt"), capsys)
    ours = {name: Path(name).read_text(encoding="utf-8") for name in names.values()}
    assert "differ from" not in str(run(write("right", ours)))
    dev = names["dev_out"]
    ours[dev] = str(1 - int(ours[dev][0])) + ours[dev][1:]
    status, out = run(write("t", ours))
    assert status == 1 and [line for line in out if "differ from" in line] == [
        f"{dev}: 1 of 20 lines differ from our predictions"]


def test_bad_usage_is_refused_before_any_code_runs(run, capsys):
    write("t")
    for argv, said in ((["t", "gone.zip"], "there is no gone.zip"),
                       (["t", "--timeout", "0"], "positive number"), ([], "HAND_IN")):
        status, out, (line,) = runs.run(argv, capsys, grade.main)
        assert (status, out) == (2, "") and said in line
