"""grade.py names what is wrong with a hand-in, and survives it."""

import json
import os
import re
import shutil
import zipfile
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

def write(**line):
    REPORT.write(json.dumps(line) + "\\n")
    REPORT.flush()

def pytest_configure(config):
    global REPORT
    REPORT = open(config.getoption("--report"), "w")
    write(parts={FIRST})

def part_of(item):
    return item.callspec.params["name"] + ".py answer"

def pytest_collection_modifyitems(config, items):
    items[:] = [item for item in items if part_of(item) not in config.getoption("--without")]

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    done = (yield).get_result()
    part = part_of(item)
    if call.when == "setup":
        write(part=part, test=item.nodeid, outcome="started")
    if call.when == "call":
        message = f"{{call.excinfo.typename}}: {{call.excinfo.value}}" if call.excinfo else ""
        write(part=part, test=item.nodeid, outcome=done.outcome, message=message)
"""
TESTS = f"""
import importlib
import pytest

@pytest.mark.parametrize("time", ["once", "again"])  # varies fastest
@pytest.mark.parametrize("name", {[name[:-3] for name in FIVE]})
def test_answer(name, time):
    found = importlib.import_module(name).answer()
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
    files = {name: "a stand-in" for name in CODE + TEXTS} | {name: RIGHT for name in FIVE}
    files |= {STORIES[0]: STORY, STORIES[1]: STORY + " And ran."}
    for output in PREDICTIONS:
        dataset, _, kind, _ = output.split("-")
        wrong = {"prompting": range(10), "finetuning": [3], "lora": [4, 5]}[kind]
        labels = [(label + 1) % CLASSES[dataset] if i in wrong else label
                  for i, label in enumerate(LABELS[dataset])]
        files[output] = lines(labels, QUESTIONS[dataset] * (kind == "prompting"))
    return files


def write(path: str, changed: dict[str, str | None] | None = None) -> str:
    """A complete zip or folder, but for some files; None: missing."""
    files = complete() | (changed or {})
    files = {name: text for name, text in files.items() if text is not None}
    if path.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as zipped:
            for name, text in files.items():
                zipped.writestr(f"{NAME}/{name}", text)
        return path
    os.mkdir(path)
    for name, text in files.items():
        Path(path, name).write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, list[str]]]:
    """A smaller assignment in place of ours; call it for an exit status and the lines printed."""
    here = tmp_path / "here"
    (here / "tests" / "assignment").mkdir(parents=True)
    (here / "tests" / "assignment" / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (here / "tests" / "assignment" / "test_answer.py").write_text(TESTS, encoding="utf-8")
    (here / "data").mkdir()
    for name in grade.SUPPORT:
        (here / name).touch()
    for dataset, labels in LABELS.items():
        for split in ("dev", "test"):
            (here / f"data/{dataset}-{split}.txt").write_text(lines(labels), encoding="utf-8")
        for option, published in PUBLISHED.items():
            monkeypatch.setitem(reproduce.PUBLISHED, f"{dataset}-{option}", (published, published))
    monkeypatch.setattr(grade, "HERE", here)
    monkeypatch.setattr(prepare_submit, "HERE", here)
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, list[str]]:
        status, out, err = runs.run(list(argv), capsys, grade.main)
        assert all("computing" in line or "the tests go on" in line for line in err), err
        return status, [line.strip() for line in out.splitlines()]
    return run


def test_a_right_hand_in_is_right_as_a_zip_and_as_a_folder(run):
    for path in ("LOVELACE.zip", "lovelace"):
        status, out = run(write(path))
        assert status == 0, out
        assert out[1:4] == [f"{path} (1 of 1)", "structure", "right"]
        assert out[4:10] == ["parts", *(f"{part}: right" for part in FIRST)]
        assert "sst-dev-finetuning-output.txt 0.9500 0.960 (0.010) -1.0 agrees" in [
            " ".join(line.split()) for line in out]
        assert "begin with" not in " ".join(out)


def test_a_wrong_part_is_named_with_its_message_and_begun_with(run):
    status, out = run(write("T.zip", {"llama.py": RIGHT.replace("42", "41"),
                                     "lora.py": "import nothing\n"}))
    assert status == 1
    assert out[5:10] == [
        "rope.py answer: right", "llama.py answer: wrong: Failed: expected 42, found 41",
        "classifier.py answer: right", "optimizer.py answer: right",
        "lora.py answer: wrong: ModuleNotFoundError: No module named 'nothing'"]
    assert out[10] == "begin with llama.py answer"


@pytest.mark.parametrize("llama, said", [
    (None, "wrong: ModuleNotFoundError: No module named 'llama'"),
    ("import time\ntime.sleep(1000)\n", "wrong: takes more than 20 seconds"),
    ("import os\nos._exit(0)\n", "wrong: ended the process (exit status 0)"),
    ("import os\nos.abort()\n", "wrong: ended the process (SIGABRT)"),
    ("x = bytearray(5 << 30)\n", "wrong: MemoryError"),
    ("open('large', 'wb').write(bytes(65 << 20))\n", "wrong: OSError: [Errno 27] File too large"),
    ("print('x' * 1_000_000)\n" + RIGHT, "right"),
    ("raise ValueError('x\\n' * 1_000_000)\n", "wrong: ValueError: x x x"),
    ("input()\n", "wrong: OSError: pytest: reading from stdin while output is captured"),
], ids=["missing", "hangs", "exits", "aborts", "memory", "disk", "prints", "message", "input"])
def test_code_that_misbehaves_costs_its_own_part(run, llama, said):
    limit = ["--timeout", "20"] if "more than" in said else []
    status, out = run(write("T.zip", {"llama.py": llama}), *limit)
    assert [line.startswith(f"llama.py answer: {said}") for line in out].count(True) == 1, out
    assert status == (said != "right")
    assert {f"{part}: right" for part in FIRST if part != FIRST[1]} < set(out)
    assert max(map(len, out)) < 400


def test_nothing_of_the_grader_is_within_reach_of_code_that_deletes_its_folder(run, tmp_path):
    delete = ("import os, shutil\nshutil.rmtree(os.getcwd())\n"
              "shutil.rmtree(os.path.dirname(__file__), ignore_errors=True)\n")
    before = runs.contents(tmp_path / "here")
    status, out = run(write("t", {"llama.py": delete}), write("T.zip"))
    assert status == 1 and f"{FIRST[0]}: right" in out
    assert runs.contents(tmp_path / "here") == before and len(os.listdir("t")) == 30
    assert f"{FIRST[1]}: wrong: the code deletes its folder" in out


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
def test_children_that_the_code_starts_end_with_it(run):
    spawn = ("import subprocess, sys\n"
             "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
             "def answer():\n    return child.pid\n")
    _, out = run(write("t", {"llama.py": spawn}))
    pid = next(line for line in out if line.startswith("llama.py")).rpartition(" ")[2]
    process = Path(f"/proc/{pid}/cmdline")  # empty where nobody has waited for its end
    assert not process.exists() or not process.read_bytes()


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
    assert [line.split("  ")[0] for line in out[-4:]] == ["hand-in", "A.zip", "B.zip", "C.zip"]
    assert out[-3].split()[1:] == "right 5 of 5 right – right".split()
    assert out[-2].split()[1:] == "1 wrong not judged – none".split()
    assert out[-1].split()[1:] == "2 wrong 4 of 5 right rope.py answer right".split()
    right, unreadable, wrong = json.loads(Path("all.json").read_text(encoding="utf-8"))
    assert [report["right"] for report in (right, unreadable, wrong)] == [True, False, False]
    assert unreadable["structure"][0].startswith("cannot be read as a zip")
    assert wrong["structure"] == ["rope.py: empty", "missing: README.md"]
    assert right["parts"] == dict.fromkeys(FIRST, "right")
    assert right["accuracy"]["sst-dev-lora-output.txt"] == pytest.approx(0.9)


def test_a_folder_may_lack_what_is_not_made_yet(run):
    path = write("work")
    for name in STORIES + PREDICTIONS:
        Path(path, name).unlink()
    status, out = run(path)
    assert status == 0 and out[4] == "not here yet"
    assert out[5] == ", ".join(STORIES + PREDICTIONS)


def constant(dataset: str) -> str:
    return lines([1] * len(LABELS[dataset]))


@pytest.mark.parametrize("changed, said", [
    ({"sst-dev-finetuning-output.txt": constant("sst")},
     "sst-dev-finetuning-output.txt: constant, 1 on every line"),
    ({"sst-test-lora-output.txt": complete()["sst-test-finetuning-output.txt"]},
     "sst-test-lora-output.txt: the same predictions as in sst-test-finetuning-output.txt"),
    ({"sst-dev-prompting-output.txt": lines(LABELS["sst"], QUESTIONS["sst"])},
     "sst-dev-prompting-output.txt: too far from the published accuracy"),
    ({"sst-test-lora-output.txt": lines(LABELS["sst"])},
     "sst-test-lora-output.txt: too far from the published accuracy"),
    ({"generated-sentence-temp-1.txt": STORY},
     "generated-sentence-temp-1.txt: the same story as in generated-sentence-temp-0.txt"),
    ({"generated-sentence-temp-0.txt": grade.PROMPT + " a"},
     "generated-sentence-temp-0.txt: only 'a' after the prompt"),
])
def test_outputs_that_no_run_makes_are_named(run, changed, said):
    status, out = run(write("T.zip", changed))
    assert status == 1 and said in out, out
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
    origin = [line for line in theirs["outputs"] if "not made by this code" in line]
    assert origin == [
        "sst-dev-lora-output.txt: not made by this code, whose lora.py apply_lora does not run"]


def test_without_data_the_outputs_are_not_compared_and_a_line_says_so(run, tmp_path):
    shutil.rmtree(tmp_path / "here/data")
    status, out = run(write("T.zip"))
    assert status == 0
    assert ("not compared, since data/sst-dev.txt, data/sst-test.txt, data/cfimdb-dev.txt, "
            "data/cfimdb-test.txt are not here (`bash setup.sh` fetches them)") in out


def test_zero_shot_predictions_are_compared_with_our_own(run, tmp_path, tiny_tokenizer, capsys):
    """Our code and the official names, but a small model and few sentences."""
    here = grade.HERE
    for name in CODE:
        shutil.copy(ROOT / name, here)
    runs.fill(here, tiny_tokenizer)
    (here / "model.pt").rename(here / "stories42M.pt")
    (here / "names.json").rename(here / "data/cfimdb-label-mapping.json")
    shutil.copy(here / "data/cfimdb-dev.txt", here / "data/cfimdb-train.txt")
    grade.zero_shot.cache_clear()
    options = [f"--{split}={here}/data/cfimdb-{split}.txt" for split in ("train", "dev", "test")]
    runs.run(["--option=prompt", "--batch_size=10", *options, "--pretrained-model-path",
              str(here / "stories42M.pt"), "--label-names",
              str(here / "data/cfimdb-label-mapping.json")], capsys)
    dev, _ = names = [f"cfimdb-{split}-prompting-output.txt" for split in ("dev", "test")]
    ours = {name: Path(name).read_text(encoding="utf-8") for name in names}
    assert not differing(run(write("right.zip", ours))[1])
    ours[dev] = str(1 - int(ours[dev][0])) + ours[dev][1:]
    status, out = run(write("T.zip", ours))
    assert status == 1 and differing(out) == [
        "cfimdb-dev-prompting-output.txt: 1 of 20 lines differ from our predictions"]


def differing(out: list[str]) -> list[str]:
    return [line for line in out if "differ from" in line]


def test_bad_usage_is_refused_before_any_code_runs(run, capsys):
    write("T.zip")
    for argv, said in ((["T.zip", "gone.zip"], "there is no gone.zip"),
                       (["T.zip", "--timeout", "0"], "positive number"), ([], "HAND_IN")):
        status, out, (line,) = runs.run(argv, capsys, grade.main)
        assert (status, out) == (2, "") and said in line
