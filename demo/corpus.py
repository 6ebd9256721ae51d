"""English children's stories, told from the plots and words in `grammar/`.

The demonstration model is trained on them.

    python demo/corpus.py --count 5 --seed 0
"""

import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from engine import FOLDER, Grammar, GrammarError, Teller, pick
from english import finish
from utils import Parser, run_program

MIN_WORDS, MAX_WORDS = 120, 250
INVENTORS = 0.42  # share of the corpus
PRESENT = {"inventors": 0.7, "everyday": 0.15}  # share of stories in the present tense


@cache
def grammar(group: str, tense: str) -> Grammar:
    """Read the words of all stories and the plots of one group, for "past" or "present"."""
    return Grammar([FOLDER / "words.txt", FOLDER / f"{group}.txt"], tense, ("past", "present"))


def story(seed: int, index: int = 0) -> str:
    """Tell story `index` of the run `seed`: one line of 120 to 250 words.

    Raises:
        GrammarError: there is a mistake in the grammar, or a plot is too short or too long.
    """
    rng = random.Random(f"{seed}/{index}")
    group = "inventors" if rng.random() < INVENTORS else "everyday"
    name = pick(rng.random, list(grammar(group, "past").plots))
    tense = "present" if rng.random() < PRESENT[group] else "past"
    told = grammar(group, tense)
    for _ in range(1000):
        text = finish(Teller(told, rng.random).tell_plot(told.plots[name]), tense)
        if MIN_WORDS <= text.count(" ") + 1 <= MAX_WORDS:
            return text
    raise GrammarError(f"{told.plots[name].place}: never makes {MIN_WORDS} to {MAX_WORDS} words")


def stories(count: int, seed: int = 0) -> Iterator[str]:
    """Tell the first `count` stories of the run `seed`."""
    return (story(seed, index) for index in range(count))


def main(argv: list[str] | None = None) -> int:
    """Print stories, one a line."""
    parser = Parser(prog="corpus.py", description=main.__doc__)
    parser.add_argument("--count", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    for text in stories(args.count, args.seed):
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
