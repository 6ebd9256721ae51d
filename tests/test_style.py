"""What a linter finds, and that CI runs the command that README names for the tests."""

import shutil
import subprocess
import sys

from conftest import ROOT

RUFF = [sys.executable, "-m", "ruff", "check", "--no-cache"]


def test_python_is_clean():
    subprocess.run([*RUFF, "."], cwd=ROOT, check=True)
    setup = (ROOT / "setup.sh").read_text(encoding="utf-8")
    program = setup.partition("<<'PYTHON'\n")[2].partition("PYTHON\n")[0]
    assert program
    subprocess.run([*RUFF, "-"], input=program, text=True, cwd=ROOT, check=True)


def test_shell_is_clean():
    for script in (ROOT / "setup.sh", ROOT / ".ci/run"):
        for check in ["bash", "-n"], ["shellcheck"]:
            if shutil.which(check[0]):
                subprocess.run([*check, script], check=True)


def test_ci_runs_the_command_of_the_readme():
    command = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-1]
    assert command in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
