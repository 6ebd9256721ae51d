"""The two review sets: the files, the split, and labels that follow from the meaning."""

import re
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import pytest

import reviews
from engine import Row
from runs import run

DEMO = Path(reviews.__file__).parent


def texts(*splits: str) -> list[str]:
    return [text for (_, split), found in reviews.everything()[0].items() if split in splits
            for _, text in found]


def test_command_makes_the_files_that_are_here(tmp_path, capsys):
    status, _, said = run(["--out", str(tmp_path)], capsys, reviews.main)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert (status, said, len(written)) == (0, [], 8)
    assert written == {name: (DEMO / name).read_bytes() for name in written}


def test_train_and_test_share_the_words_of_praise_and_blame():
    train, held = (reviews.grammar(side).tables["aspect"] for side in ("train", "held"))
    for splits, rows in ((("train",), held), (("dev", "test"), train)):
        text = " ".join(texts(*splits)).lower()
        words = ", ".join(cell for row in rows for cell in row.cells[2:4])
        assert all(word in text for word in words.split(", "))


@pytest.mark.parametrize("label, values, weights", [
    (2, [0], [1]),  # The plot is neither clever nor stale.
    (2, [2, -1], [1, 2]),  # The songs are superb, but the plot is thin.
    (3, [-1, 2], [1, 2]),  # The plot is thin, but the songs are superb.
    (0, [1, -2], [0, 1]),  # It is wrong to say that the songs are sweet: they are dreadful.
    (None, [2, -2], [1, 2]),  # The songs are superb, but the plot is dreadful: bad or average?
])
def test_label_follows_from_the_values_of_the_clauses(label, values, weights):
    assert reviews.label_of(5, reviews.weighted_mean(values, weights)) == label
    assert [reviews.label_of(2, score) for score in (-2, -0.5, -0.4, 0.4, 0.5)] == [
        0, 0, None, None, 1]  # with two classes, the sign


@pytest.mark.parametrize("text, side, value, word", [
    ("{noun} ~be utterly {adj}", 1, 2, "clever"),
    ("{noun} ~be far from {adj}", 1, 1, "dull"),  # praise by a word of blame
    ("{noun} ~be not {adj} for a single minute", -1, -2, "clever"),
])
def test_negation_turns_the_word_round(text, side, value, word, monkeypatch):
    row = next(row for row in reviews.grammar("held").tables["clause"] if row.cells[1] == text)
    monkeypatch.setattr(reviews, "clauses", lambda grammar, table, side: [row])
    aspect = Row(("the plot", "", "clever", "dull", "", ""))
    expected = text.replace("{noun}", "the plot").replace("{adj}", word)
    assert reviews.Critic(lambda: 0.5, "dev").clause(side, aspect) == (value, expected)


@pytest.mark.parametrize("kind, bound", [(5, 0.32), (2, 0.64)])
def test_no_single_word_decides(kind, bound):
    """Guessing from one word's presence, the better class either way, stays near chance."""
    with_word = defaultdict(Counter)
    for label, text in reviews.everything()[0][kind, "train"]:
        for word in {"", *re.findall(r"[a-z']+", text.lower())}:  # "" is in every text
            with_word[word][label] += 1
    labels = with_word[""]
    for word, counts in with_word.items():
        right = max(counts.values()) + max((labels - counts).values(), default=0)
        assert right / labels.total() < bound, word


def test_remarks_repeat_by_seed_and_share_no_sentence_with_the_files():
    made = list(reviews.remarks(500, seed=3))
    assert made[:20] == list(islice(reviews.remarks(10**9, seed=3), 20))
    assert made[:20] != list(reviews.remarks(20, seed=4))
    filed, remarked = ({sentence for text in some for sentence in re.split(r"(?<=\.) ", text)}
                       for some in (texts("train", "dev", "test"), made))
    assert filed.isdisjoint(remarked)


@pytest.mark.parametrize("old, new, message", [
    ("\n2 / {noun} ~be utterly {adj}", "\ntwo / it", "'two' does not match"),
    ("\n-1 2 / {A}, but {B}.", "\n-1 2 / {A}, but {C}.", "unknown slot {C}"),
])
def test_mistake_is_reported_with_file_and_line(old, new, message, tmp_path, monkeypatch):
    text = (reviews.FOLDER / "reviews.txt").read_text()
    line = text[:text.index(old)].count("\n") + 2
    (tmp_path / "reviews.txt").write_text(text.replace(old, new, 1))
    monkeypatch.setattr(reviews, "FOLDER", tmp_path)
    reviews.grammar.cache_clear()
    with pytest.raises(ValueError, match=re.escape(f"reviews.txt, line {line}: {message}")):
        reviews.grammar("train")
