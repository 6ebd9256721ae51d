"""Film reviews: two labelled sets, and unlabelled remarks.

The reviews are machine-generated. Every choice in `grammar/reviews.txt` has a meaning, and the
label follows from it: the score of a sentence is the weighted mean of its clauses, that of a longer
text the mean of its sentences, weighted by `ROLES`. `BANDS` cuts the scale into five classes with
gaps between them; with two classes, the sign decides. Reviews that fall into a gap or are closer to
zero than `CLEAR` are rejected, so that there are no borderline cases and no label noise.

Rows tagged `@train` occur only in the training sets and in `remarks`, rows tagged `@held` only in
dev and test; five rows in six have no tag. Words of praise and blame are shared, except those in
the text of tagged rows. No sentence occurs twice in the six files, neither as a line nor within a
longer text. The labels of the test files are real, too (none is -1).

    python demo/reviews.py [--out DIR]
"""

import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from engine import FOLDER, Grammar, GrammarError, Row, Teller
from english import finish
from utils import SEPARATOR, Parser, atomic_write, run_program

SIZES = {5: {"train": 2000, "dev": 300, "test": 300}, 2: {"train": 600, "dev": 100, "test": 100}}
NAMES = {5: ["awful", "bad", "average", "good", "excellent"], 2: ["bad", "good"]}
WORDS = {5: (6, 40), 2: (60, 160)}  # in the shortest and the longest review
BANDS = [(-2, -1.8), (-1.2, -0.8), (-0.35, 0.35), (0.8, 1.2), (1.8, 2)]  # of the classes 0 to 4
CLEAR = 0.5
ROLES = {"point": 1, "both": 1, "turn": 2, "grant": 0.5, "end": 3}  # weights in a longer text

FACTS = "hero friend scene title genre day guest sweets hall place length".split()  # as drawn
TABLES = {  # how the first cell looks, and which slots this module fills
    "clause": (r"-?[012]", "noun they its adj good bad verb deed fault"),
    "verdict": (r"-?[012]", "about adj good bad"),
    "join": (r"-?\d( -?\d){0,2}", ""),  # A, and B and C if there are as many numbers
    "frame": (r"any|aspect", "sentence"),
    "aspect": (r".*", "its"),
}


def label_of(kind: int, score: float) -> int | None:
    """Return the class of a score from -2 to 2, or None if a reader could hesitate."""
    if kind == 2:
        return None if abs(score) < CLEAR else int(score > 0)
    return next((k for k, (low, high) in enumerate(BANDS) if low <= score <= high), None)


def weighted_mean(values: list[float], weights: list[float]) -> float:
    """Average the clauses of a sentence, or the sentences of a text."""
    return sum(v * w for v, w in zip(values, weights)) / sum(weights)


@cache
def grammar(side: str) -> Grammar:
    """Read and check the grammar of the training sets ("train") or of dev and test ("held")."""
    found = Grammar([FOLDER / "reviews.txt"], side, ("train", "held"))
    facts = {*FACTS, "genre.many"}
    for name, (form, slots) in TABLES.items():
        for row in found.tables[name]:
            if not re.fullmatch(form, row.cells[0]):
                raise GrammarError(f"{row.place}: '{row.cells[0]}' does not match {form}")
            filled = "ABC"[:len(row.cells[0].split())] if name == "join" else slots.split()
            found.check([row], facts.union(filled))
    for wordings in found.rules.values():
        found.check(wordings, facts | {"sentence"})
    return found


@cache
def clauses(grammar: Grammar, table: str, side: int) -> list[Row]:
    """List the clauses that can take the side; {adj} and {verb} turn a clause to either side."""
    return [row for row in grammar.tables[table] if bool(int(row.cells[0])) == bool(side)
            and (int(row.cells[0]) * side >= 0 or re.search(r"\{(adj|verb)\}", row.cells[1]))]


class Critic(Teller):
    """Writes one review with the rows of its split, and computes what the review says."""

    def __init__(self, random: Callable[[], float], split: str) -> None:
        super().__init__(grammar("train" if split == "train" else "held"), random)
        self.tables = self.grammar.tables
        self.whole = self.tables["whole"][0]
        for name in FACTS:
            self.draw(name, name)

    def clause(self, side: int, aspect: Row) -> tuple[int, str]:
        """Write a clause that praises (side 1), blames (-1) or does neither (0): value and text."""
        table = "verdict" if aspect is self.whole else "clause"
        factor, text = self.fresh(clauses(self.grammar, table, side)).cells
        singular, plural, good, bad, deeds, faults = (
            [Row((phrase,)) for phrase in cell.split(", ") if phrase] for cell in aspect.cells)
        noun, praise = self.fresh(singular + plural), side * int(factor) > 0
        self.facts |= {
            "noun": noun.cells[0], "good": good, "bad": bad, "deed": deeds, "fault": faults,
            "adj": good if praise else bad, "verb": deeds if praise else faults,
            "they": "they" if noun in plural else "it",
            "its": "their" if noun in plural else "its",
        }
        told = self.tell(text)
        return side * abs(int(factor)), told.replace("~", "^") if noun in plural else told

    def sentence(self, side: int, plain: bool, whole: bool | None) -> tuple[float, str]:
        """Write a sentence that takes the side, with all its clauses if `plain`: score and text.

        `whole`: whether a clause is about the whole film; None leaves that to chance.
        """
        numbers, text = self.fresh([row for row in self.tables["join"] if "-" not in row.cells[0]
                                    or side and not plain]).cells
        weights = [abs(int(number)) for number in numbers.split()]
        sides = [-side if number.startswith("-") else side for number in numbers.split()]
        aspects = [self.fresh(self.tables["aspect"])] * len(sides)
        if 0 not in weights:  # hearsay and truth are about the same aspect, other clauses are not
            aspects[1:] = [self.fresh(self.tables["aspect"]) for _ in sides[1:]]
            if whole or whole is None and self.random() < 0.3:
                main = sides.index(side)
                aspects[main], weights[main] = self.whole, 2 * weights[main]
        values, texts = zip(*map(self.clause, sides, aspects))
        self.facts |= dict(zip("ABC", texts))
        return weighted_mean(values, weights), self.tell(text)

    def short(self, side: int) -> tuple[float, list[str]]:
        """Write a review of one sentence that takes the side: score, and the sentence in a list."""
        self.facts["about"] = self.tell(" about {hero} and {friend}")
        scope, text = self.fresh(self.tables["frame"]).cells
        score, sentence = self.sentence(side, False, False if scope == "aspect" else None)
        return score, [self.framed(text, sentence)]

    def long(self, side: int) -> tuple[float, list[str]]:
        """Write a longer review whose verdict takes the side: score and sentences."""
        self.facts["about"] = ""
        plan, = self.fresh(self.grammar.rules["plan"]).cells
        sentences, scores, weights = [], [], []
        for role, sign in re.findall(r"\{(\w+)\}([+-]?)", plan):
            text = ""
            if sign:
                score, text = self.sentence(int(sign + "1") * side, role != "both", role == "end")
                scores.append(score)
                weights.append(ROLES[role])
            sentences.append(self.framed(f"{{{role}}}", text))
        return weighted_mean(scores, weights), sentences

    def framed(self, frame: str, sentence: str) -> str:
        """Put a sentence into a frame."""
        self.facts["sentence"] = sentence
        return finish(self.tell(frame), "present")

    def review(self, kind: int, side: int = 0) -> tuple[float, list[str]]:
        """Write a review for the set of `kind` classes; side 0 leaves the side to chance."""
        if kind == 2:
            return self.long(side or (-1 if self.random() < 0.5 else 1))
        return self.short(side or int(3 * self.random()) - 1)


def collect(kind: int, split: str, taken: set[str]) -> list[tuple[int, str]]:
    """Write the reviews of one file without the sentences in `taken`, and add theirs to it."""
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
def everything() -> tuple[dict[tuple[int, str], list[tuple[int, str]]], set[str]]:
    """Write the six sets, by number of classes and split. The other value is their sentences."""
    taken: set[str] = set()
    sets = {(kind, split): collect(kind, split, taken) for kind in SIZES for split in SIZES[kind]}
    return sets, taken


def remarks(count: int, seed: int = 0) -> Iterator[str]:
    """Write unlabelled reviews of both lengths, using rows of the training sets only.

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
    texts = {f"reviews{kind}-{split}.txt": "".join(f"{k}{SEPARATOR}{text}\n" for k, text in found)
             for (kind, split), found in everything()[0].items()}
    return texts | {f"reviews{kind}-label-mapping.json": json.dumps(names) + "\n"
                    for kind, names in NAMES.items()}


def main(argv: list[str] | None = None) -> int:
    """Write the two review sets."""
    parser = Parser(prog="reviews.py", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR",
                        help="an existing folder (default: the one of this program)")
    folder = parser.parse_args(argv).out
    for name, text in files().items():
        with atomic_write(folder / name, "w") as file:
            file.write(text)
    print(f"{len(files())} files written to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
