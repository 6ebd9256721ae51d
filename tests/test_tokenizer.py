"""The tokenizer: SentencePiece as it is, with truncation and special tokens around it."""

import os
from pathlib import Path

import pytest
import sentencepiece

from tokenizer import Tokenizer
from utils import InputError

SENTENCE = "a cat sat on a mat"


def trained(folder: Path, **settings) -> str:
    """A model without a piece for every byte, so without <0x00>."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([SENTENCE] * 3), model_prefix=str(folder / "small"), vocab_size=14,
        model_type="bpe", minloglevel=2, **settings)
    return str(folder / "small.model")


@pytest.mark.parametrize("bos, eos", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("max_len", [None, 3, 99])
def test_encode_truncates_before_bos_and_eos_are_added(tiny_tokenizer, max_len, bos, eos):
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tiny_tokenizer))
    ids = Tokenizer(max_len, str(tiny_tokenizer)).encode(SENTENCE, bos=bos, eos=eos)
    cut = pieces.encode(SENTENCE, out_type=str)[:max_len]
    assert [pieces.id_to_piece(i) for i in ids] == ["<s>"] * bos + cut + ["</s>"] * eos


@pytest.mark.parametrize("text", [
    "", SENTENCE, "Ünïcode, 日本語 and 🎬", "one ||| two", "tab and `quote' -- it 's .",
    "<s> </s>"])
def test_decode_gives_the_text_back(tiny_tokenizer, text):
    tokenizer = Tokenizer(tokenizer_model=str(tiny_tokenizer))
    ids = tokenizer.encode(text, bos=True, eos=True)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([tokenizer.n_words, *ids, 10**6]) == text  # as from a padded vocabulary


@pytest.mark.parametrize("name, n_words, greeting", [
    ("tokenizer.model", 32000, [1, 15043, 3186]), ("tok512.model", 512, None)])
def test_official_tokenizers(assets, name, n_words, greeting):
    """With ids that Llama 2's vocabulary is known to give."""
    tokenizer = Tokenizer(tokenizer_model=str(assets / name))
    assert tokenizer.n_words == n_words
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 3)
    assert greeting in (None, tokenizer.encode("Hello world", bos=True, eos=False))


def test_rows_are_padded_with_unk_where_there_is_no_piece_for_bytes(tmp_path):
    """<unk> is given an id other than 0, the one that anything missing might end up with."""
    tokenizer = Tokenizer(tokenizer_model=trained(tmp_path, bos_id=0, unk_id=2, eos_id=1))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere names of files are text, not bytes")
def test_a_folder_may_have_a_name_that_is_not_utf8(tiny_tokenizer, tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"M\xfcller")
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    path = os.path.join(folder, b"tokenizer.model")
    with open(path, "wb") as file:
        file.write(tiny_tokenizer.read_bytes())
    assert Tokenizer(tokenizer_model=os.fsdecode(path)).n_words == 290


def test_what_is_no_sentencepiece_model_is_refused_by_name(tiny_tokenizer, tmp_path):
    path, whole = tmp_path / "broken.model", tiny_tokenizer.read_bytes()
    for content in (b"", b"hello\n", whole[:len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="^.*broken.model: not a SentencePiece model$"):
            Tokenizer(tokenizer_model=str(path))
    for missing, settings in (("<s>", {"bos_id": -1, "eos_id": 1}), ("</s>", {"eos_id": -1})):
        with pytest.raises(InputError, match=f"small.model: .*{missing}"):
            Tokenizer(tokenizer_model=trained(tmp_path, **settings))
