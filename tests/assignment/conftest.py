"""The student's modules as fixtures, and the report for grade.py."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from . import reference
from .judge import FIVE, PARTS, SMALL, CannotImport, explain


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report", metavar="FILE", help="write what each test finds, as JSON lines")
    parser.addoption("--without", metavar="PART", action="append", help="leave out a part")


def part_of(item: pytest.Item) -> str | None:
    return getattr(getattr(item, "function", None), "part", None)


def report(config: pytest.Config, **line: object) -> None:
    """Append a line at once, so that it is there whatever the code under test does next."""
    if path := config.getoption("--report", None):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    without = config.getoption("--without", None) or ()
    items[:] = sorted((item for item in items if part_of(item) not in without),
                      key=lambda item: PARTS.index(part_of(item)) if part_of(item) else -1)
    report(config, parts=PARTS)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    told = {"part": part_of(item), "test": item.nodeid}
    report(item.config, **told, outcome="started")
    item.outcome = {"outcome": "passed", "message": ""}
    yield
    report(item.config, **told, **item.outcome)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    result = (yield).get_result()
    if not result.passed:
        item.outcome = {"outcome": result.outcome, "message": explain(call.excinfo.value)}


def student_module(name: str):
    @pytest.fixture(scope="session", name=name)
    def module():
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise CannotImport(name, error) from None
    return module


rope, llama, optimizer, lora, classifier = map(student_module, FIVE)


@pytest.fixture(autouse=True)
def same_numbers_everywhere() -> None:
    torch.set_num_threads(1)  # which is also faster for small matrices
    torch.default_generator.manual_seed(0)  # torch.manual_seed looks for GPUs, which takes longer
    np.random.seed(0)


@pytest.fixture(scope="session")
def weights() -> reference.Weights:
    return reference.seeded_weights(SMALL, seed=0)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, weights: reference.Weights) -> Path:
    """A checkpoint with the course's names; like the official one, it has no biases."""
    return reference.save_checkpoint(tmp_path_factory.mktemp("model") / "small.pt", weights, SMALL)
