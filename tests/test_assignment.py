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
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT, ASSIGNMENT = TESTS.parent, TESTS / "assignment"
sys.path += [path for path in (str(TESTS), str(ROOT)) if path not in sys.path]

from assignment.judge import FIVE, PARTS  # noqa: E402
from mistakes import MISTAKES, OTHER_READINGS  # noqa: E402

SUPPORT = ("run_llama", "base_llama", "config", "tokenizer", "utils", "sanity_check")
WHOLE = "the whole model"


def hand_in(folder: Path, changes: dict[str, Sequence[str]]) -> Path:
    """Write the solution in tests/solutions/ with texts of its files exchanged: old, new, …"""
    for name in FIVE:
        text = (TESTS / "solutions" / f"{name}.py").read_text(encoding="utf-8")
        texts = changes.get(f"{name}.py", ())
        for old, new in zip(texts[::2], texts[1::2], strict=True):
            assert text.count(old) == 1, f"{name}.py has {text.count(old)} times: {old}"
            text = text.replace(old, new)
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


def judge(folder: Path, ignored: Iterable[str] = ()) -> list[dict[str, str]]:
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
    parts, *lines = map(json.loads, report.read_text(encoding="utf-8").splitlines())
    assert parts == {"parts": PARTS} and lines
    for started, ended in zip(lines[::2], lines[1::2], strict=True):
        assert started == {"part": ended["part"], "test": ended["test"], "outcome": "started"}
    order = [PARTS.index(line["part"]) for line in lines]
    assert order == sorted(order)
    return [line for line in lines[1::2] if line["outcome"] != "passed"]


def caught(folder: Path, part: str, texts: Sequence[str]) -> list[dict[str, str]]:
    """Change the file of a part, and return what fails."""
    file = part.split()[0]
    tests = {f"test_{name}.py" for name in (*FIVE, "whole")}
    # optimizer.py imports none of the others, and none of them imports it.
    ignored = tests - {"test_optimizer.py"} if file == "optimizer.py" else {"test_optimizer.py"}
    return judge(hand_in(folder, {file: texts}), ignored)


@pytest.mark.parametrize("changes", [{}, OTHER_READINGS], ids=["plain", "other readings"])
def test_correct_solutions_pass(tmp_path, changes):
    """Ours does wherever the tests of the assignment are collected: with all the others."""
    assert judge(hand_in(tmp_path, changes)) == []


@pytest.mark.parametrize("part, texts", [
    pytest.param(part, texts, id=f"{part}: {what}")
    for part, mistakes in MISTAKES.items() for what, *texts in mistakes])
def test_a_mistake_is_blamed_on_its_part_alone(tmp_path, part, texts):
    found = {line["part"]: line["message"] for line in caught(tmp_path, part, texts)}
    assert found.keys() - {WHOLE} == {part}, found
    assert "\n" not in found[part] and len(found[part]) < 400


# The report: imports that fail, parts that are not there, and where a student has to look


def messages(lines: list[dict[str, str]]) -> dict[str, set[str]]:
    """Messages by file, without those about the whole."""
    said = {}
    for line in lines:
        if line["part"] != WHOLE:
            said.setdefault(line["part"].split()[0], set()).add(line["message"])
    return said


def place(folder: Path, file: str, text: str) -> str:
    before, found, _ = (folder / file).read_text(encoding="utf-8").partition(text)
    assert found
    return f"{file}, line {before.count(chr(10)) + 1}"


def test_a_module_that_cannot_be_imported_is_to_blame_and_no_other(tmp_path):
    lines = judge(hand_in(tmp_path, {"llama.py": ["class LlamaLayer(", "class LlamaLayer !("],
                                     "rope.py": ["import torch\n", "import nowhere, torch\n"]}))
    error = f"SyntaxError: invalid syntax ({place(tmp_path, 'llama.py', 'LlamaLayer !(')})"
    assert messages(lines) == {
        "rope.py": {"rope.py cannot be imported: ModuleNotFoundError: No module named 'nowhere' "
                    f"({place(tmp_path, 'rope.py', 'nowhere')})"},
        "llama.py": {f"llama.py cannot be imported: {error}"},
        "classifier.py": {
            f"classifier.py cannot be imported: because llama.py cannot be: {error}"}}


def test_report_of_the_command_line_for_a_folder_of_its_own(tmp_path):
    """As grade.py calls it: one module missing, one that fails, and a function to be written."""
    hand_in(tmp_path, {
        "llama.py": ["return F.silu(self.w1(x)) * self.w3(x)", "raise NotImplementedError"],
        "lora.py": ["NAMES = ", "NAMES = 1 / 0, "],
        "rope.py": ["return query_out, key_out", "pass"]})
    for name in SUPPORT:
        shutil.copy(ROOT / f"{name}.py", tmp_path)
    (tmp_path / "optimizer.py").unlink()
    shutil.copytree(ASSIGNMENT, tmp_path / "assignment",
                    ignore=shutil.ignore_patterns("__pycache__"))
    without = "llama.py load_pretrained"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", ".", "-c",
         os.devnull, "assignment", "--report", "report.jsonl", f"--without={without}"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": "", "PYTEST_ADDOPTS": ""},
        capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    report = tmp_path / "report.jsonl"
    assert report.read_text(encoding="utf-8").count(without) == 1  # among all parts, in line 1
    assert messages(failures(report)) == {
        "rope.py": {"TypeError: 'NoneType' object is not iterable (in the test, which uses the "
                    "result)"},
        "llama.py": {f"not implemented yet ({place(tmp_path, 'llama.py', 'NotImplemented')})"},
        "optimizer.py": {"optimizer.py cannot be imported: there is no optimizer.py"},
        "lora.py": {"lora.py cannot be imported: ZeroDivisionError: division by zero "
                    f"({place(tmp_path, 'lora.py', '1 / 0')})"}}


if __name__ == "__main__":
    for part, what, *texts in ((key, *mistake) for key in MISTAKES for mistake in MISTAKES[key]):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            lines = [line for line in caught(Path(folder), part, texts) if line["part"] == part]
        catchers = ", ".join(line["test"].partition("::")[2] for line in lines)
        print(f"{part} | {what} | {catchers}\n    {lines[0]['message']}", flush=True)
