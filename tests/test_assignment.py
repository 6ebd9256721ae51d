"""The tests of the assignment are fair to any correct solution, and sharp: each mistake is found.

    python tests/test_assignment.py

prints the table of mistakes: what it is, the part that is blamed for it, the tests that catch it.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT, ASSIGNMENT = TESTS.parent, TESTS / "assignment"
SOLUTION = ROOT / "benchmarks" / "textbook"
sys.path += [path for path in (str(TESTS), str(ROOT)) if path not in sys.path]

from assignment.judge import FIVE, PARTS  # noqa: E402
from mistakes import MISTAKES, OTHER_READINGS  # noqa: E402

WHOLE = "the whole model"
ALL_MISTAKES = [(part, *mistake) for part in MISTAKES for mistake in MISTAKES[part]]


def hand_in(folder: Path, changes: dict[str, Sequence[str]]) -> Path:
    """Write the other solution with texts of its files exchanged: old, new, …"""
    for name in FIVE:
        text = (SOLUTION / f"{name}.py").read_text(encoding="utf-8")
        texts = changes.get(f"{name}.py", ())
        for old, new in zip(texts[::2], texts[1::2], strict=True):
            assert text.count(old) == 1, f"{name}.py has {text.count(old)} times: {old}"
            text = text.replace(old, new)
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def judge(folder: Path, ignored: Sequence[str] = ()) -> list[dict[str, str]]:
    """Run the tests of the assignment on five files in this process; return what fails.

    A process for each would spend its time importing PyTorch.
    """
    path, modules, report = sys.path[:], sys.modules.copy(), folder / "report.jsonl"
    for name in FIVE:
        sys.modules.pop(name, None)
    sys.path.insert(0, str(folder))
    try:
        pytest.main([
            str(ASSIGNMENT), "--report", str(report), "-c", os.devnull, "-q", "--tb=no",
            "--no-summary", "--confcutdir", str(ASSIGNMENT), "--basetemp", str(folder / "tmp"),
            *(f"--ignore={ASSIGNMENT / name}" for name in ignored),
            *(f"-pno:{plugin}" for plugin in ("cacheprovider", "faulthandler",
                                              "unraisableexception", "xdist"))])
    finally:
        sys.path[:] = path
        for name in FIVE:
            sys.modules.pop(name, None)
        sys.modules.update(modules)
    return failures(report)


def failures(report: Path) -> list[dict[str, str]]:
    """Read the lines of the tests that did not pass; each test has started and ended, in order."""
    first, *lines = map(json.loads, report.read_text(encoding="utf-8").splitlines())
    assert first == {"parts": PARTS} and lines
    for started, ended in zip(lines[::2], lines[1::2], strict=True):
        assert started == {"part": ended["part"], "test": ended["test"], "outcome": "started"}
    order = [PARTS.index(line["part"]) for line in lines]
    assert order == sorted(order)
    return [line for line in lines[1::2] if line["outcome"] != "passed"]


def caught(folder: Path, part: str, texts: Sequence[str]) -> list[dict[str, str]]:
    """Change the file of a part, and return what fails."""
    file = part.split()[0]
    # optimizer.py imports none of the others, and none of them imports it.
    ignored = [f"test_{name}.py" for name in (*FIVE, "whole")
               if (name == "optimizer") != (file == "optimizer.py")]
    return judge(hand_in(folder, {file: texts}), ignored)


@pytest.mark.parametrize("changes", [{}, OTHER_READINGS], ids=["plain", "other readings"])
def test_correct_solutions_pass(tmp_path, changes):
    """Ours does wherever the tests of the assignment are collected: with all the others."""
    assert judge(hand_in(tmp_path, changes)) == []


@pytest.mark.parametrize("part, texts", [
    pytest.param(part, texts, id=f"{part}: {what}") for part, what, *texts in ALL_MISTAKES])
def test_a_mistake_is_blamed_on_its_part_alone(tmp_path, part, texts):
    found = {line["part"]: line["message"] for line in caught(tmp_path, part, texts)}
    assert found.keys() - {WHOLE} == {part}, found
    assert "\n" not in found[part] and len(found[part]) < 400


def test_report_for_grade_where_code_is_missing_cannot_be_imported_or_is_not_written(tmp_path):
    """The tests need no other of our modules than three, and name the student's lines."""
    def place(file: str, text: str) -> str:
        before, found, _ = (tmp_path / file).read_text(encoding="utf-8").partition(text)
        assert found
        return f"{file}, line {before.count(chr(10)) + 1}"

    hand_in(tmp_path, {
        "rope.py": ["import torch\n", "import nowhere, torch\n"],
        "llama.py": ["class LlamaLayer(", "class LlamaLayer !("],
        "lora.py": ["return lora, total", "raise NotImplementedError; 0", "return [p", "[p"]})
    (tmp_path / "optimizer.py").unlink()
    for name in ("base_llama", "config", "tokenizer"):
        shutil.copy(ROOT / f"{name}.py", tmp_path)
    shutil.copytree(ASSIGNMENT, tmp_path / "assignment",
                    ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ".", "-c",
         os.devnull, "assignment", "--report", "report.jsonl", f"--without={WHOLE}"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": "", "PYTEST_ADDOPTS": ""},
        capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = failures(tmp_path / "report.jsonl")
    syntax = f"cannot be imported: SyntaxError: invalid syntax ({place('llama.py', 'Layer !(')})"
    assert {(line["part"].split(".")[0], line["message"]) for line in lines} == {
        ("rope", "rope.py cannot be imported: ModuleNotFoundError: No module named 'nowhere' "
                 f"({place('rope.py', 'nowhere')})"),
        ("llama", f"llama.py {syntax}"), ("classifier", f"classifier.py {syntax}"),
        ("optimizer", "optimizer.py cannot be imported: there is no optimizer.py"),
        ("lora", f"not implemented yet ({place('lora.py', 'NotImplemented')})"),
        ("lora", "TypeError: 'NoneType' object is not iterable (in the test, which uses the "
                 "result)")}


if __name__ == "__main__":
    for part, what, *texts in ALL_MISTAKES:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            lines = [line for line in caught(Path(folder), part, texts) if line["part"] == part]
        catchers = ", ".join(line["test"].partition("::")[2] for line in lines)
        print(f"{part} | {what} | {catchers}\n    {lines[0]['message']}", flush=True)
