"""What several test files share: the official files, small models, and a place for runs."""

import os
from pathlib import Path

import pytest
import sentencepiece
import torch

import reference
import runs
from assignment.judge import SMALL
from optimizer import AdamW
from runs import ROOT


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small matrices are slower on many threads, and sums come out the same everywhere on one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of official files, laid out as the repository's root."""
    folder = Path(os.environ.get("MINI_LLAMA_MIRROR") or ROOT.parent / "shared" / "assets")
    if not folder.is_dir():
        pytest.skip(f"no official files at {folder}: set MINI_LLAMA_MIRROR to their folder")
    return folder


@pytest.fixture(scope="session")
def small_weights() -> reference.Weights:
    return reference.seeded_weights(SMALL, seed=0)


@pytest.fixture
def small_checkpoint(tmp_path: Path, small_weights: reference.Weights) -> Path:
    return reference.save_checkpoint(tmp_path / "small.pt", small_weights, SMALL)


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model of Llama's kind: byte pairs, <s>, </s> and a piece for every byte."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    text = "one day a cat sat on a mat and saw a big red ball in the park with a little girl"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text] * 3), model_prefix=str(path.with_suffix("")),
        vocab_size=290, model_type="bpe", byte_fallback=True, minloglevel=2)
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what takes minutes, while the other cores do the rest."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Path) -> Path:
    """The current folder, with everything that the four jobs need in it."""
    (folder := tmp_path / "place").mkdir()
    monkeypatch.chdir(folder)
    runs.fill(folder, tiny_tokenizer)
    return folder


@pytest.fixture
def interrupt_after(capsys, monkeypatch):
    """Start a command line, and press Ctrl-C after so many epochs."""
    def interrupt_after(epochs: int, argv: list[str]) -> None:
        step, left = AdamW.step, iter(range(epochs * runs.STEPS))

        def interrupted(self):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return step(self)

        with monkeypatch.context() as patch:
            patch.setattr(AdamW, "step", interrupted)
            assert runs.run(argv, capsys)[0] == 130
    return interrupt_after
