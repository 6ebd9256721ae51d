"""Grammar files mean what their notation says, and the stories are fixed and in good English."""

import hashlib
import random
import re
from collections import Counter

import pytest

import corpus
import engine
import english
from runs import run

SHIPPED = "473d0eb2f903d03ca74bad8e9d8ae5a40cb12ba5a18a91e5aad3455767e8c33a"

HEAD = """# A comment.
== table sex: sex / he
m / he

== table child: name / +sex
Ben / m
"""


@pytest.fixture
def read(tmp_path):
    def read(sections: str) -> engine.Grammar:
        path = tmp_path / "words.txt"
        path.write_text(HEAD + sections)
        return engine.Grammar([path], "past", ("past", "present"))
    return read


@pytest.mark.parametrize("sections, expected", [
    ("== plot p: k:child\n{k} or\n\n[{k.he}|b|]", {f"Ben or {x}": 1 / 3 for x in ("he", "b", "")}),
    ("== plot p: child\n{rule}\n\n== rule rule\n3x often\nonce\n", {"often": 3 / 4, "once": 1 / 4}),
    ("== plot p: child\n@past a\n@present b\n2x @ c\n", {"a": 1 / 3, "@ c": 2 / 3}),
    ("== plot p: child\n?\na\nb", {"a": 1 / 4, "b": 1 / 4, "": 1 / 2}),
    ("== plot p: child\na\n- \nb\n  # c", {"a": 1 / 3, "": 1 / 3, "b # c": 1 / 3}),
    ("== table hat: name / owner\nred\n  / {k}\n\n== plot p: k:child x:child|hat|child+hat\n{x}",
     {"Ben": 2 / 3, "red": 1 / 3}),
    ("== rule r\na\nb\n\n== plot p: child\n{r}{r}", {"ab": 1 / 2, "ba": 1 / 2}),
])
def test_plot_tells_what_the_notation_says(read, sections, expected):
    grammar, rng = read(sections), random.Random(0)
    told = Counter(engine.Teller(grammar, rng.random).tell_plot(grammar.plots["p"])
                   for _ in range(600))
    assert told.keys() == expected.keys()
    assert all(abs(told[text] / 600 - share) < 0.06 for text, share in expected.items())


@pytest.mark.parametrize("line, sections, message", [
    (7, "== rul r\na", "expected '== rule NAME'"),
    (9, "== rule r\na\n== rule r\nb", "a second rule named 'r'"),
    (7, "== rule r\n@present a", "nothing is left below this line for @past"),
    (8, "== rule r\n@pats a", "unknown tag @pats"),
    (9, "== rule r\na\nb [c|d", "'['"),
    (9, "== table t: name / kind\na / b\nc", "1 columns instead of 2"),
    (8, "== table t: name / +sex\nMia / g", "'g' is no row of a table 'sex'"),
    (7, "== plot p: child|hat\na", "unknown table 'hat'"),
    (8, "== plot p: child\n[a|{child.age}]", "unknown slot {child.age}"),
    (11, "== table hat: name\nred\n\n== plot p: x:child|hat\n{x.he}", "unknown slot {x.he}"),
])
def test_mistake_is_reported_with_file_and_line(read, line, sections, message):
    where = f"words.txt, line {line}: .*"
    with pytest.raises(engine.GrammarError, match=where + re.escape(message)):
        read(sections)


def test_command_prints_stories_and_reports_a_plot_that_is_too_short_in_one_line(
        read, monkeypatch, capsys):
    status, printed, said = run(["--count", "2", "--seed", "3"], capsys, corpus.main)
    assert (status, printed.splitlines(), said) == (0, list(corpus.stories(2, seed=3)), [])
    short = read("== plot p: child\n{child} ~be home.")
    monkeypatch.setattr(corpus, "grammar", lambda group, tense: short)
    status, _, (said,) = run([], capsys, corpus.main)
    assert status == 2 and said.endswith("words.txt, line 7: never makes 120 to 250 words")


@pytest.mark.parametrize("text, tense, expected", [
    ("a hour, a apple, a unicorn, a bear", "past", "An hour, an apple, a unicorn, a bear"),
    ("~try, ~stop, ~open, ~love, ~be, ~go", "past", "Tried, stopped, opened, loved, was, went"),
    ("~try, ~catch, ~play, ~have", "present", "Tries, catches, plays, has"),
    ("^go. they ^be", "present", "Go. They are"),
    ('"no," ~say she.  "i  ~can not." "oh?" ', "past", '"No," said she. "I could not." "Oh?"'),
])
def test_english_is_finished_with_its_neighbours(text, tense, expected):
    assert english.finish(text, tense) == expected


def test_stories_are_those_that_the_embedded_model_was_trained_on():
    sample = "\n".join(text for seed in range(10) for text in corpus.stories(100, seed))
    assert hashlib.sha256(sample.encode()).hexdigest() == SHIPPED


def test_each_story_is_another_and_in_good_english():
    told = list(corpus.stories(4000, seed=5))  # to meet every wording many times
    assert told[20] == corpus.story(5, 20) and len(set(told)) == len(told)
    for fault in (
            r"""[^A-Za-z ',.!?"-]""",  # unusual character
            r"""[^.!?"]$|[^.!?]"$""",  # open end
            r"""^([^"]*"[^"]*")*[^"]*"[^"]*$""",  # open quotation
            r"""^ |  | $| [,.!?]|[,.!?]{2}|[,.!?][A-Za-z]""",
            r"(?i)\b(\w+) \1\b",  # doubled word
            r"^(?=Victor ).*(Victor \w+ her\b|and she \w+ Victor)"):
        assert [text for text in told if re.search(fault, text)] == []
