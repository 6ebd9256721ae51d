"""Film reviews of the project's own: two labelled sets and unlabelled remarks.

The films do not exist. The tables of `review_grammar.py` are a small grammar whose every choice
has a meaning, and the label is computed from the meaning:

1. A clause has a value from -2 to 2. In `CLAUSES` the number stands before the text: "utterly"
   doubles a word, "far from" turns it round, "not ... for a single minute" does both. {adj}, {verb}
   and {base} multiply the number by +1 or -1; {good}, {bad}, {great} and {awful} do not (there
   the number says what the whole means: "about as {good} as a wet sock" is -2).
2. A sentence has the weighted mean of its clauses. In `JOINS` a number per clause stands before
   the text: its size is the weight ("but" 1 to 2; what is "wrong to say" 0), and a minus marks the
   clauses that take the other side. A clause on the whole film (`VERDICTS`) counts twice as much
   as one on a single aspect.
3. `BANDS` cuts the scale into the five classes, with gaps. What falls into a gap is not written,
   so there is no borderline case and no label noise.
4. A longer text follows one of `PLANS` and has the mean of its sentences, weighted by `ROLES`; its
   sign is the class, and texts nearer to zero than `CLEAR` are not written.

Splits. Rows that end in `train` serve only the training sets (and `remarks`), rows that end in
`held` only dev and test, all others both. That holds for clauses, joins, frames, plans of texts,
openings, aspects of a film, titles, genres, heroes and scenes; five rows in six are
common to all. Words of praise and blame are shared, except those written out in such rows. Dev and
test draw on the same rows. No sentence occurs twice in the six files, neither
as a line nor inside a longer text. Every label is real, in the test files as well (none is -1).

    python demo/reviews.py [--out DIR]
"""

import argparse
import json
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import review_grammar as grammar
from review_grammar import Aspect, Row

SIZES = {5: {"train": 2000, "dev": 300, "test": 300}, 2: {"train": 600, "dev": 100, "test": 100}}
NAMES = {5: ["awful", "bad", "average", "good", "excellent"], 2: ["bad", "good"]}
WORDS = {5: (6, 40), 2: (60, 160)}  # of the shortest and the longest review
BANDS = [(-2, -1.8), (-1.2, -0.8), (-0.35, 0.35), (0.8, 1.2), (1.8, 2)]  # of the classes 0 to 4
CLEAR = 0.5
ROLES = {"point": 1, "both": 1, "turn": 2, "grant": 0.5, "end": 3}  # weights in a longer text


def label_of(kind: int, score: float) -> int | None:
    """The class that a score from -2 to 2 stands for; None where a reader could hesitate."""
    if kind == 2:
        return None if abs(score) < CLEAR else int(score > 0)
    return next((k for k, (low, high) in enumerate(BANDS) if low <= score <= high), None)


def weighted_mean(values: list[float], weights: list[float]) -> float:
    """Of the clauses of a sentence, or of the sentences of a text."""
    return sum(v * w for v, w in zip(values, weights)) / sum(weights)


@cache
def listed(phrases: str) -> list[str]:
    """The phrases between the commas."""
    return [phrase for phrase in phrases.split(", ") if phrase]


def with_s(phrase: str) -> str:
    """Third person of a verb ("loses its way"); nouns form their plural by the same rules."""
    word, space, rest = phrase.partition(" ")
    if re.search("[^aeiou]y$", word):
        word = word[:-1] + "ie"
    return word + ("es" if re.search("(s|sh|ch|o)$", word) else "s") + space + rest


def polished(sentence: str) -> str:
    """A capital at the beginning, and "an" before a vowel."""
    sentence = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", sentence)
    return sentence[0].upper() + sentence[1:]


@cache
def facts_for(where: str) -> dict[str, list[str]]:
    """What a review can be about: heroes, titles, genres, days and so on."""
    facts: dict[str, list[str]] = {}
    for row in grammar.FACTS:
        if row.where in ("", where):
            facts.setdefault(row.head[0], []).append(row.text)
    return facts


@cache
def serves(row: Row, side: int) -> bool:
    """Whether a clause can take the side: one with {adj}, {verb} or {base} can take both."""
    factor = int(row.head[0])
    return factor * side > 0 or factor == side or (
        factor * side < 0 and re.search(r"\{(adj|verb|base)\}", row.text) is not None)


def fill(text: str, slots: dict[str, str | Callable[[], str]]) -> str:
    """The text with its {slots} filled; only the slots that it has are asked."""
    def filler(match: re.Match) -> str:
        value = slots[match[1]]
        return value if isinstance(value, str) else value()
    return re.sub(r"\{(\w+)\}", filler, text)


class Critic:
    """Writes one review with the rows of its split, and computes what the review says.

    `random` is `random.Random.random`, whose sequence Python promises to keep. Within a review
    nothing that was picked is picked again while there is something else.
    """

    def __init__(self, random: Callable[[], float], split: str) -> None:
        self.random, self.where = random, "train" if split == "train" else "held"
        self.used: set = set()
        self.facts = {key: self.pick(texts) for key, texts in facts_for(self.where).items()}
        genre, last = self.facts["genre"].rpartition(" ")[::2]
        self.facts["genres"] = f"{genre} {with_s(last)}".strip()

    def pick(self, options: list):
        """One of the options, with equal chances."""
        fresh = [option for option in options if option not in self.used] or options
        choice = fresh[int(self.random() * len(fresh))]
        self.used.add(choice)
        return choice

    def row(self, rows: list, head: str | None = None):
        """A row or an aspect that serves the split and begins with `head`, if that is given."""
        return self.pick([row for row in rows if row.where in ("", self.where)
                          and (head is None or row.head[0] == head)])

    def clause(self, side: int, aspect: Aspect) -> tuple[int, str]:
        """Value and text of a clause that praises (side 1), blames (-1) or shrugs (0)."""
        table = grammar.VERDICTS if aspect is grammar.WHOLE else grammar.CLAUSES
        row = self.row([row for row in table if serves(row, side)])
        factor = int(row.head[0])
        return side * abs(factor), fill(row.text, self.slots(aspect, praise=side * factor > 0))

    def slots(self, aspect: Aspect, praise: bool) -> dict[str, str | Callable[[], str]]:
        """What a clause can say of the aspect; {adj}, {verb} and {base} praise or blame."""
        noun = self.pick(listed(aspect.singular) + listed(aspect.plural))
        plural = noun in listed(aspect.plural)

        def base(phrases: str) -> str:
            phrase = self.pick(listed(phrases))
            return phrase.replace(" its ", " their ") if plural else phrase

        def verb(phrases: str) -> str:
            return base(phrases) if plural else with_s(base(phrases))

        def word(phrases: str) -> Callable[[], str]:
            return lambda: self.pick(listed(phrases))

        good, bad = word(aspect.good), word(aspect.bad)
        deeds = aspect.deeds if praise else aspect.faults
        return self.facts | {
            "S": noun, "is": "are" if plural else "is", "do": "do" if plural else "does",
            "they": "they" if plural else "it", "adj": good if praise else bad, "good": good,
            "bad": bad, "great": word(grammar.GREAT), "awful": word(grammar.AWFUL),
            "base": lambda: base(deeds), "verb": lambda: verb(deeds),
            "deed": lambda: verb(aspect.deeds), "fault": lambda: verb(aspect.faults),
        }

    def sentence(
        self, side: int, plain: bool = False, whole: bool | None = None
    ) -> tuple[float, str]:
        """Score and text (no capital yet) of a sentence that takes the side.

        plain: all its clauses take that side; whole: it has a clause on the whole film (or None,
        which leaves it to chance).
        """
        join = self.row([row for row in grammar.JOINS if "-" not in "".join(row.head)
                         or side and not plain])
        weights = [abs(float(weight)) for weight in join.head]
        sides = [-side if weight.startswith("-") else side for weight in join.head]
        aspects = [self.row(grammar.ASPECTS)] * len(sides)
        if 0 not in weights:  # hearsay and truth speak of the same aspect, other clauses do not
            aspects[1:] = [self.row(grammar.ASPECTS) for _ in sides[1:]]
            if whole or whole is None and self.random() < 0.3:
                main = sides.index(side)
                aspects[main], weights[main] = grammar.WHOLE, 2 * weights[main]
        values, texts = zip(*map(self.clause, sides, aspects))
        return weighted_mean(values, weights), fill(join.text, dict(zip("ABC", texts)))

    def short(self, side: int) -> tuple[float, list[str]]:
        """Score of a review of one sentence that takes the side, and the sentence in a list."""
        self.facts["about"] = fill(" about {hero} and {friend}", self.facts)
        frame = self.row(grammar.FRAMES)
        score, text = self.sentence(side, whole=False if frame.head[0] == "aspect" else None)
        return score, [polished(fill(frame.text, self.facts | {"x": text}))]

    def long(self, side: int) -> tuple[float, list[str]]:
        """Score and sentences of a longer review whose verdict is on the side."""
        self.facts["about"] = ""
        sentences, scores, weights = [], [], []
        for role, sign in re.findall(r"(\w+)([+-]?)", self.row(grammar.PLANS).text):
            text = ""
            if sign:
                score, text = self.sentence(side if sign == "+" else -side, role != "both",
                                            role == "end")
                scores.append(score)
                weights.append(ROLES[role])
            opener = self.row(grammar.OPENERS, role)
            sentences.append(polished(fill(opener.text, self.facts | {"x": text})))
        return weighted_mean(scores, weights), sentences

    def review(self, kind: int, side: int = 0) -> tuple[float, list[str]]:
        """Score and sentences of a review in the manner of the set with that many classes.

        It takes the side 1 or -1, or any if that is 0.
        """
        if kind == 2:
            return self.long(side or (-1 if self.random() < 0.5 else 1))
        return self.short(side or int(3 * self.random()) - 1)


def collect(kind: int, split: str, taken: set[str]) -> list[tuple[int, str]]:
    """The reviews of one file, without the sentences in `taken`, which gets theirs."""
    rng, found = random.Random(f"{split} reviews of {kind} classes"), []
    low, high = WORDS[kind]
    while len(found) < SIZES[kind][split]:
        wanted, label = int(kind * rng.random()), None
        side = (2 * wanted >= kind) - (2 * wanted < kind - 1)  # 0 for the class in the middle
        while label != wanted:
            score, sentences = Critic(rng.random, split).review(kind, side)
            review = " ".join(sentences)
            if taken.isdisjoint(sentences) and low <= len(review.split()) <= high:
                label = label_of(kind, score)
        taken.update(sentences)
        found.append((wanted, review))
    return found


@cache
def everything() -> tuple[dict[tuple[int, str], list[tuple[int, str]]], frozenset[str]]:
    """The six sets, and all their sentences."""
    taken: set[str] = set()
    sets = {(kind, split): collect(kind, split, taken) for kind in SIZES for split in SIZES[kind]}
    return sets, frozenset(taken)


def reviews(kind: int, split: str) -> list[tuple[int, str]]:
    """Labels and reviews of a set: kind 5 or 2 (classes), split "train", "dev" or "test"."""
    return list(everything()[0][kind, split])


def remarks(count: int, seed: int = 0) -> Iterator[str]:
    """Unlabelled reviews of both lengths, from rows of the training sets only.

    None has a sentence in common with the six files.
    """
    rng, taken = random.Random(f"remarks {seed}"), everything()[1]
    while count > 0:
        sentences = Critic(rng.random, "train").review(5 if rng.random() < 0.6 else 2)[1]
        if taken.isdisjoint(sentences):
            count -= 1
            yield " ".join(sentences)


def files() -> dict[str, str]:
    """Names and contents of the eight files."""
    texts = {f"reviews{kind}-{split}.txt": "".join(f"{k} ||| {text}\n" for k, text in found)
             for (kind, split), found in everything()[0].items()}
    return texts | {f"reviews{kind}-label-mapping.json": json.dumps(names) + "\n"
                    for kind, names in NAMES.items()}


def write(folder: Path) -> None:
    """Write the eight files; each is complete before it takes the place of an older one."""
    for name, text in files().items():
        beside = folder / f"{name}.part"
        beside.write_bytes(text.encode())
        os.replace(beside, folder / name)


def complaint(line: str) -> int:
    """Say on standard error what is wrong; returns the exit status."""
    print(line, file=sys.stderr)
    return 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the two review sets of the demonstration.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR",
                        help="an existing folder (default: the one of this program)")
    folder = parser.parse_args().out
    if not folder.is_dir():
        sys.exit(complaint(f"{folder}: there is no such folder; make it or name another"))
    try:
        write(folder)
    except OSError as error:
        sys.exit(complaint(f"{folder}: cannot write the reviews there: {error.strerror}"))
    print(f"{len(files())} files written to {folder}")


if __name__ == "__main__":
    main()
