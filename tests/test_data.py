"""Data files: what is read from them, what is refused and how, and the batches made of them."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

import run_llama
from tokenizer import Tokenizer
from utils import InputError, read_examples, read_label_names


@pytest.fixture
def write(tmp_path):
    """Write a file, by default data.txt; the result is its path."""
    def write(content: str | bytes, name: str = "data.txt") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)
    return write


# ---------------------------------------------------------------------------------------- reading

@pytest.mark.parametrize("content,expected", [
    ("1 ||| a b\n0 ||| c\n", [(1, "a b"), (0, "c")]),
    ("1 ||| no newline at the end", [(1, "no newline at the end")]),
    ("1 |||  blanks around \t\n", [(1, "blanks around")]),
    ("1 ||| first ||| and second\n", [(1, "first ||| and second")]),
    ("1 ||| a|||b || c\n", [(1, "a|||b || c")]),
    ("-1 ||| no label\n", [(-1, "no label")]),
    ("1 ||| carriage\r\n0 ||| return\r\n", [(1, "carriage"), (0, "return")]),
    ("1 ||| carriage\r0 ||| return\r", [(1, "carriage"), (0, "return")]),
    ("1 ||| blank lines\n\n \r\n\n", [(1, "blank lines")]),
    ("\ufeff1 ||| byte order mark\n", [(1, "byte order mark")]),
    ("1 ||| naïve 日本 🎬\n", [(1, "naïve 日本 🎬")]),
    ("1 ||| one\u2028odd\u0085line\x0b\x1c.\n", [(1, "one\u2028odd\u0085line\x0b\x1c.")]),
])
def test_lines_are_label_separator_and_sentence(write, content, expected):
    assert read_examples(write(content)) == expected


@pytest.mark.parametrize("content,line,reason", [
    ("1 ||| fine\n0 no separator\n", 2, "no ' ||| '"),
    ("1|||no blanks\n", 1, "no ' ||| '"),
    ("1 ||| fine\n\n0 ||| fine\n", 2, "no ' ||| '"),
    ("label ||| sentence\n1 ||| fine\n", 1, "'label' is not a whole number"),
    ("1 ||| fine\r1.0 ||| decimal\r", 2, "'1.0' is not a whole number"),
    (" ||| nothing\n", 1, "'' is not a whole number"),
    ("1_0 ||| a number to Python\n", 1, "'1_0' is not a whole number"),
    ("١ ||| a digit to Python\n", 1, "'١' is not a whole number"),
    ("9" * 5000 + " ||| too much for int()\n", 1, "is not a whole number"),
    ("1 ||| fine\n1 ||| fine\n1 |||  \n", 3, "no sentence"),
    (b"1 ||| fine\r\n1 ||| fine\r1 ||| caf\xe9\n", 3, "not UTF-8"),
    ("1 ||| fine\n".encode("utf-16"), 1, "not UTF-8"),
])
def test_bad_lines_are_refused_by_file_line_and_reason(write, content, line, reason):
    path = write(content)
    with pytest.raises(InputError) as error:
        read_examples(path)
    assert str(error.value).startswith(f"{path}, line {line}: ") and reason in str(error.value)


@pytest.mark.parametrize("content", ["", "\ufeff", "\n \n"])
def test_a_file_without_examples_is_refused(write, content):
    path = write(content)
    with pytest.raises(InputError, match="empty") as error:
        read_examples(path)
    assert path in str(error.value)


def test_text_is_utf8_whatever_the_platform_says(write, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    assert read_examples(write("0 ||| é\n")) == [(0, "é")]
    assert read_label_names(write('\ufeff["é"]', "names.json")) == ["é"]  # and without the mark


@pytest.mark.parametrize("content", [
    "awful, good", '["awful", "good"', b'["caf\xe9", "good"]', "[" * 99_999, "[]", "[0, 1]",
    '{"0": "awful", "1": "good"}', '["good", ""]', '["good", "a\\nb"]',
], ids=lambda content: repr(content)[:20])
def test_other_label_names_than_a_json_list_are_refused(write, content):
    path = write(content)
    with pytest.raises(InputError, match="not a JSON list") as error:
        read_label_names(path)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


@pytest.mark.parametrize("names,question", [
    (["fine"], "Is this movie fine? This movie is "),
    (["bad", "fine"], "Is this movie bad or fine? This movie is "),
    (["bad", "so so", "fine"], "Is this movie bad, so so, or fine? This movie is "),
    (["a", "b", "c", "d", "e"], "Is this movie a, b, c, d, or e? This movie is "),
])
def test_the_question_lists_the_names_and_ends_in_a_blank(names, question):
    assert run_llama.question(names) == question


# ------------------------------------------------------------------------ the three splits together

def splits(write, tokenizer, **changed) -> Namespace:
    texts = {"train": "0 ||| a\n1 ||| b\n", "dev": "0 ||| c\n", "test": "1 ||| d\n"} | changed
    return Namespace(**{split: write(text, split) for split, text in texts.items()},
                     tokenizer=str(tokenizer), pretrained_model_path="", max_sentence_len=None)


def test_the_training_labels_decide_how_many_classes_there_are(write, tiny_tokenizer):
    data = run_llama.load_data(
        splits(write, tiny_tokenizer, train="2 ||| a\n0 ||| b\n1 ||| c\n2 ||| d\n"))
    assert data.num_labels == 3


@pytest.mark.parametrize("split,content,line", [
    ("train", "0 ||| a\n2 ||| b\n", 2),  # two classes, so the labels are 0 and 1
    ("train", "0 ||| a\n-1 ||| b\n", 2),
    ("dev", "0 ||| a\n-1 ||| a\n2 ||| b\n", 3),
    ("test", "-2 ||| a\n", 1),
])
def test_labels_outside_the_classes_are_refused_by_file_and_line(
        write, tiny_tokenizer, split, content, line):
    args = splits(write, tiny_tokenizer, **{split: content})
    with pytest.raises(InputError, match="not from 0 to 1") as error:
        run_llama.load_data(args)
    assert str(error.value).startswith(f"{getattr(args, split)}, line {line}: ")


# ---------------------------------------------------------------------------------------- batches

SENTENCES = ["a cat", "one day a cat sat on a mat", "a", "a big red ball", "in the park"]


def batches(write, tokenizer_path, max_len=None, suffix=None, **options) -> list[tuple]:
    """Batches of two of `SENTENCES`, whose labels are their places."""
    path = write("".join(f"{i} ||| {sentence}\n" for i, sentence in enumerate(SENTENCES)))
    tokenizer = Tokenizer(max_len, str(tokenizer_path))
    rows = run_llama.create_data(path, tokenizer, "test", eos=False, prompt_suffix=suffix)
    loader = run_llama.make_loader(rows, Namespace(batch_size=2), tokenizer, **options)
    return [tuple(batch.values()) for batch in loader]


@pytest.mark.parametrize("max_len,suffix", [
    (None, None), (3, None), (None, "is it "), (3, "is it ")])
def test_rows_are_cut_sentence_whole_suffix_and_padding(write, tiny_tokenizer, max_len, suffix):
    tokenizer = Tokenizer(None, str(tiny_tokenizer))
    encode, pad_id = tokenizer.sp_model.encode, tokenizer.sp_model.piece_to_id("<0x00>")
    made = batches(write, tiny_tokenizer, max_len, suffix)
    assert [labels.tolist() for _, labels, _ in made] == [[0, 1], [2, 3], [4]]
    for token_ids, labels, sents in made:
        rows = [[tokenizer.bos_id] + encode(SENTENCES[i])[:max_len] + encode(suffix or "")
                for i in labels]
        longest = max(map(len, rows))
        assert token_ids.tolist() == [row + [pad_id] * (longest - len(row)) for row in rows]
        assert sents == [SENTENCES[i] + (f" {suffix}" if suffix else "") for i in labels]


def test_shuffled_batches_hold_every_sentence_once_in_an_order_of_the_seed(write, tiny_tokenizer):
    orders = []
    for seed in (0, 0, 1, 2, 3):
        torch.manual_seed(seed)
        made = batches(write, tiny_tokenizer, shuffle=True)
        orders.append([label for _, labels, _ in made for label in labels.tolist()])
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert orders[0] == orders[1] and len({tuple(order) for order in orders}) > 2


# ------------------------------------------------------------------------------- the official data

@pytest.mark.parametrize("name,sizes,classes,mean,longest", [
    ("sst", (8544, 1101, 2210), 5, 27, 93), ("cfimdb", (1707, 245, 488), 2, 236, 585)])
def test_the_official_data_have_the_published_sizes(assets, name, sizes, classes, mean, longest):
    paths = {split: str(assets / f"data/{name}-{split}.txt") for split in ("train", "dev", "test")}
    data = run_llama.load_data(Namespace(
        **paths, tokenizer=str(assets / "tokenizer.model"), max_sentence_len=None,
        pretrained_model_path=""))
    assert (len(data.train), len(data.dev), len(data.test)) == sizes
    assert data.num_labels == classes
    mapping = assets / f"data/{name}-label-mapping.json"
    names = read_label_names(str(mapping))
    assert names == json.loads(mapping.read_bytes())
    lengths = [len(ids) for _, _, ids in data.train + data.dev + data.test]
    assert abs(sum(lengths) / len(lengths) - mean) < 1 and abs(max(lengths) - longest) <= 1
    original = Path(paths["dev"]).read_bytes().decode().rstrip("\n").split("\n")
    assert [f"{label} ||| {sentence}" for sentence, label, _ in data.dev] == [
        line.rstrip() for line in original]
    # The question is tokenized once, by itself: the reference tokenizes it with every sentence.
    question = run_llama.question(names)
    apart = data.tokenizer.sp_model.encode(question)
    for sentence, _, ids in data.dev:
        assert ids[1:] + apart == data.tokenizer.sp_model.encode(f"{sentence} {question}")
