"""The tokenizer: SentencePiece as it is, with truncation and special tokens around it."""

import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece

from conftest import ROOT
from tokenizer import Tokenizer
from utils import beside

SENTENCE = "a cat sat on a mat"


@pytest.fixture
def pieces(tiny_tokenizer) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(tiny_tokenizer))


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("eos", [False, True])
def test_encode_puts_bos_and_eos_around_the_pieces(tiny_tokenizer, pieces, bos, eos):
    ids = Tokenizer(tokenizer_model=str(tiny_tokenizer)).encode(SENTENCE, bos=bos, eos=eos)
    expected = ["<s>"] * bos + pieces.encode(SENTENCE, out_type=str) + ["</s>"] * eos
    assert [pieces.id_to_piece(i) for i in ids] == expected


@pytest.mark.parametrize("max_len", [1, 3, 99])
def test_encode_truncates_before_bos_and_eos_are_added(tiny_tokenizer, pieces, max_len):
    ids = Tokenizer(max_len, str(tiny_tokenizer)).encode(SENTENCE, bos=True, eos=True)
    assert ids == [pieces.bos_id(), *pieces.encode(SENTENCE)[:max_len], pieces.eos_id()]


@pytest.mark.parametrize("text", [
    "", SENTENCE, "Ünïcode, 日本語 and 🎬", "one ||| two", "tab and `quote' -- it 's .",
    "<s> </s>"])
def test_decode_gives_the_text_back(tiny_tokenizer, text):
    tokenizer = Tokenizer(tokenizer_model=str(tiny_tokenizer))
    assert tokenizer.decode(tokenizer.encode(text, bos=True, eos=True)) == text


def test_special_ids_are_those_of_the_file(tiny_tokenizer, pieces):
    tokenizer = Tokenizer(tokenizer_model=str(tiny_tokenizer))
    assert tokenizer.n_words == 290
    found = [pieces.id_to_piece(i) for i in (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)]
    assert found == ["<s>", "</s>", "<0x00>"]


@pytest.mark.parametrize("name, n_words", [("tokenizer.model", 32000), ("tok512.model", 512)])
def test_official_tokenizers(assets, name, n_words):
    tokenizer = Tokenizer(tokenizer_model=str(assets / name))
    assert tokenizer.n_words == n_words
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 3)


def test_the_vocabulary_of_llama(assets):
    """Ids that Llama 2's vocabulary is known to give."""
    tokenizer = Tokenizer(tokenizer_model=str(assets / "tokenizer.model"))
    assert tokenizer.encode("Hello world", bos=True, eos=False) == [1, 15043, 3186]


def test_the_default_is_the_file_in_the_working_directory(tiny_tokenizer, monkeypatch):
    monkeypatch.chdir(tiny_tokenizer.parent)
    assert Tokenizer().n_words == 290


def test_a_checkpoint_has_the_tokenizer_beside_it(tiny_tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = beside(str(tiny_tokenizer.parent / "any.pt"), "tokenizer.model")
    assert Path(found) == tiny_tokenizer


@pytest.mark.parametrize("checkpoint", ["stories42M.pt", "models/stories42M.pt"])
def test_else_that_of_the_working_directory(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Path(beside(checkpoint, "tokenizer.model")) == Path("tokenizer.model")


def test_a_missing_tokenizer_says_how_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.model.*setup.sh") as error:
        Tokenizer(tokenizer_model=str(tmp_path / "nowhere.model"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [
    lambda whole: b"", lambda whole: b"hello\n", lambda whole: whole[:len(whole) // 2]],
    ids=["empty", "text", "truncated"])
def test_a_damaged_tokenizer_is_named(tiny_tokenizer, tmp_path, damage):
    path = tmp_path / "broken.model"
    path.write_bytes(damage(tiny_tokenizer.read_bytes()))
    with pytest.raises(ValueError, match="broken.model") as error:
        Tokenizer(tokenizer_model=str(path))
    assert "\n" not in str(error.value)


def test_a_tokenizer_without_a_padding_piece_is_refused(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([SENTENCE] * 3), model_prefix=str(tmp_path / "padless"),
        vocab_size=14, model_type="bpe", minloglevel=2)
    with pytest.raises(ValueError, match="<0x00>"):
        Tokenizer(tokenizer_model=str(tmp_path / "padless.model"))


@pytest.mark.parametrize("max_len", [0, -1])
def test_a_length_of_nothing_is_refused(tiny_tokenizer, max_len):
    with pytest.raises(ValueError, match=str(max_len)):
        Tokenizer(max_len, str(tiny_tokenizer))


def test_the_tokenizer_of_another_model_is_refused_with_both_sizes(tiny_tokenizer,
                                                                   small_checkpoint):
    ran = subprocess.run(
        [sys.executable, ROOT / "run_llama.py", "--option", "generate",
         "--pretrained-model-path", small_checkpoint, "--tokenizer", tiny_tokenizer],
        cwd=small_checkpoint.parent, capture_output=True, encoding="utf-8", check=False)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert "290" in ran.stderr and "61" in ran.stderr
    assert [file.name for file in small_checkpoint.parent.iterdir()] == [small_checkpoint.name]
