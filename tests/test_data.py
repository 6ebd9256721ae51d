"""Data files: what is read, what is refused and how, and batches."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

import run_llama
from run_llama import question
from utils import InputError, read_examples, read_label_names

SPLITS = ("train", "dev", "test")


@pytest.fixture
def write(tmp_path):
    """Write a file, by default data.txt; the result is its path."""
    def write(content: str | bytes, name: str = "data.txt") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)
    return write


@pytest.mark.parametrize("content,expected", [
    ("1 ||| a b\n0 ||| c\n", [(1, "a b"), (0, "c")]),
    ("1 ||| no newline at the end", [(1, "no newline at the end")]),
    ("1 |||  blanks around \t\n", [(1, "blanks around")]),
    ("1 ||| first ||| and second|||c || d\n", [(1, "first ||| and second|||c || d")]),
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


@pytest.mark.parametrize("content,said", [
    ("1 ||| fine\n0 no separator\n", ", line 2: no ' ||| '"),
    ("1|||no blanks\n", ", line 1: no ' ||| '"),
    ("1 ||| fine\n\n0 ||| fine\n", ", line 2: no ' ||| '"),
    ("label ||| sentence\n1 ||| fine\n", ", line 1: the label 'label' is not a whole number"),
    ("1 ||| fine\r1.0 ||| decimal\r", ", line 2: the label '1.0' is not a whole number"),
    (" ||| nothing\n", ", line 1: the label '' is not a whole number"),
    ("1_0 ||| a number to Python\n", ", line 1: the label '1_0' is not a whole number"),
    ("١ ||| a digit to Python\n", ", line 1: the label '١' is not a whole number"),
    ("9" * 5000 + " ||| more than int() takes\n", f", line 1: the label '{'9' * 39} is not a"),
    ("1 ||| fine\n1 ||| fine\n1 |||  \n", ", line 3: no sentence"),
    (b"1 ||| fine\r\n1 ||| fine\r1 ||| caf\xe9\n", ", line 3: not UTF-8"),
    ("1 ||| fine\n".encode("utf-16"), ", line 1: not UTF-8"),
    *((nothing, ": empty") for nothing in ("", "\ufeff", "\n \n")),
])
def test_what_has_another_form_is_refused_by_file_line_and_reason(write, content, said):
    path = write(content)
    with pytest.raises(InputError) as error:
        read_examples(path)
    assert str(error.value).startswith(path + said)


@pytest.mark.parametrize("content", [
    "awful, good", '["awful", "good"', b'["caf\xe9", "good"]', "[" * 99_999, "[]", "[0, 1]",
    '{"0": "awful", "1": "good"}', '["good", ""]', '["good", "a\\nb"]',
], ids=lambda content: repr(content)[:20])
def test_other_label_names_than_a_json_list_are_refused(write, content):
    path = write(content)
    with pytest.raises(InputError, match="not a JSON list") as error:
        read_label_names(path)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


@pytest.mark.parametrize("content,choices", [
    ('["fine"]', "fine"), ('\ufeff["é", "fine"]', "é or fine"),
    ('["bad", "so so", "fine"]', "bad, so so, or fine")])
def test_the_question_lists_the_names_and_ends_in_a_blank(write, content, choices):
    names = read_label_names(write(content))
    assert question(names) == f"Is this movie {choices}? This movie is "


@pytest.mark.parametrize("split,content,line", [
    ("train", "0 ||| a\n2 ||| b\n", 2),  # two classes, so the labels are 0 and 1
    ("train", "0 ||| a\n-1 ||| b\n", 2),
    ("dev", "0 ||| a\n-1 ||| a\n2 ||| b\n", 3),
    ("test", "-2 ||| a\n", 1),
])
def test_labels_outside_the_classes_of_the_training_data_are_refused_by_file_and_line(
        write, tiny_tokenizer, split, content, line):
    texts = {"train": "0 ||| a\n1 ||| b\n", "dev": "0 ||| c\n", "test": "1 ||| d\n"}
    paths = {name: write(text, name) for name, text in (texts | {split: content}).items()}
    args = Namespace(**paths, tokenizer=str(tiny_tokenizer), max_sentence_len=None)
    with pytest.raises(InputError, match=f"{split}, line {line}: .*not from 0 to 1"):
        run_llama.load_data(args, SPLITS)


@pytest.mark.parametrize("name,sizes,classes,mean,longest", [
    ("sst", (8544, 1101, 2210), 5, 27, 93), ("cfimdb", (1707, 245, 488), 2, 236, 585)])
def test_the_official_data_have_the_published_sizes(assets, name, sizes, classes, mean, longest):
    paths = {split: str(assets / f"data/{name}-{split}.txt") for split in SPLITS}
    data = run_llama.load_data(Namespace(
        **paths, tokenizer=str(assets / "tokenizer.model"), max_sentence_len=None), SPLITS)
    train, dev, test = (data.rows[split] for split in SPLITS)
    assert (len(train), len(dev), len(test), data.num_labels) == (*sizes, classes)
    mapping = assets / f"data/{name}-label-mapping.json"
    names = read_label_names(str(mapping))
    assert names == json.loads(mapping.read_bytes())
    lengths = [len(ids) for _, _, ids in train + dev + test]
    assert abs(sum(lengths) / len(lengths) - mean) < 1 and abs(max(lengths) - longest) <= 1
    original = Path(paths["dev"]).read_bytes().decode().rstrip("\n").split("\n")
    assert [f"{label} ||| {sentence}" for sentence, label, _ in dev] == [
        line.rstrip() for line in original]
    # The question is tokenized once, by itself: the reference tokenizes it with every sentence.
    encode = data.tokenizer.sp_model.encode
    for sentence, _, ids in dev:
        assert ids[1:] + encode(question(names)) == encode(f"{sentence} {question(names)}")
