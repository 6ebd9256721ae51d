"""Read a grammar from text files, and generate text from it.

The files in `grammar/` explain the notation in their first lines. `random.Random.random` is the
only source of chance, because Python guarantees its sequence: the same seed gives the same text on
every platform and in every version.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import NamedTuple

from utils import InputError

FOLDER = Path(__file__).resolve().parent / "grammar"
HEADER = re.compile(r"== (rule|table|plot) ([\w ]+)(?:: (.+))?")
ROW = re.compile(r"(?:@(\S+) )?(?:(\d+)x )?(.*)")  # tag, weight, text
SLOT = re.compile(r"\{([\w.]+)\}")
SLOT_OR_CHOICE = re.compile(SLOT.pattern + r"|\[([^][]*)\]")
Line = tuple[str, str]  # file and line number, for messages, and the text


class GrammarError(InputError):
    """A mistake in a grammar file; the message names file and line."""


class Row(NamedTuple):
    """A row of a table, or a wording, which has a single cell."""

    cells: tuple[str, ...]
    columns: tuple[str, ...] = ("text",)
    place: str = ""


class Plot(NamedTuple):
    """A cast, whose parts have alternative lists of tables to draw from, and wordings by beat."""

    place: str
    cast: list[tuple[str, list[list[str]]]]
    beats: list[list[Row]]


def read_sections(path: Path) -> list[list[Line]]:
    """Cut a file into sections, dropping comments and joining continuation lines."""
    sections: list[list[Line]] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = (f"{path}, line {number}", text.rstrip())
        if text.startswith("==") or not sections and re.match("[^#]", text):
            sections.append([line])
        elif text.startswith(" ") and sections:
            place, start = sections[-1].pop()
            sections[-1].append((place, f"{start} {text.strip()}"))
        elif sections and not text.startswith("#"):
            sections[-1].append(line)
    return sections


class Grammar:
    """The rules, tables and plots of some files, each of which may use those before it.

    A row of weight 3 is listed three times. Of the rows tagged with one of `tags`, only those
    tagged `keep` count.

    Raises:
        GrammarError: a line breaks the notation, or a plot has a slot that nothing fills.
    """

    def __init__(self, paths: Iterable[Path], keep: str = "", tags: Iterable[str] = ()) -> None:
        self.keep, self.tags = keep, tags
        self.rules: dict[str, list[Row]] = {}
        self.tables: dict[str, list[Row]] = {}
        self.plots: dict[str, Plot] = {}
        for (place, header), *body in chain.from_iterable(map(read_sections, paths)):
            self.add(place, header, body)
        for plot in self.plots.values():
            self.check_plot(plot)

    def add(self, place: str, header: str, body: list[Line]) -> None:
        """Add a section."""
        match = HEADER.fullmatch(header)
        if not match or (match[1] == "rule") == bool(match[3]):
            raise GrammarError(f"{place}: expected '== rule NAME' or '== table|plot NAME: ...'")
        kind, name, rest = match.groups()
        known = {"rule": self.rules, "table": self.tables, "plot": self.plots}[kind]
        if name in known:
            raise GrammarError(f"{place}: a second {kind} named '{name}'")
        if not any(text for _, text in body):
            raise GrammarError(f"{place}: nothing below this line")
        read = self.plot if kind == "plot" else self.rows
        known[name] = read(place, body, rest or "text")

    def plot(self, place: str, body: list[Line], cast: str) -> Plot:
        """Read a plot; a part `town` draws from the table `town`, blank lines separate beats."""
        sources = [(name, [source.split("+") for source in (tables or name).split("|")])
                   for name, tables in re.findall(r"([^\s:]+):?(\S*)", cast)]
        beats = [list(lines) for blank, lines in groupby(body, lambda line: not line[1])
                 if not blank]
        return Plot(place, sources, [self.rows(lines[0][0], lines) for lines in beats])

    def rows(self, place: str, body: list[Line], columns: str = "text") -> list[Row]:
        """Read rows; after a line `?`, silence is as likely as all of them together."""
        rows, optional = [], body[0][1] == "?"
        for here, line in body[optional:]:
            tag, weight, text = ROW.fullmatch(line).groups()
            if tag not in (None, *self.tags):
                raise GrammarError(f"{here}: unknown tag @{tag}")
            if text and tag in (None, self.keep):
                rows += [self.row(here, text, columns)] * int(weight or 1)
        if not rows:
            raise GrammarError(f"{place}: nothing is left below this line for @{self.keep}")
        return rows + [Row(("",), place=place)] * (len(rows) * optional)

    def row(self, place: str, text: str, header: str) -> Row:
        """Read a row; a dash is an empty cell, and a last column `+sex` appends a row of `sex`."""
        if stray := re.search(r"[][{}|]", re.sub(r"\[[^][{}]*\]", "", SLOT.sub("", text))):
            raise GrammarError(f"{place}: '{stray[0]}' is unclosed or misplaced")
        *columns, last = header.split(" / ")
        *cells, end = ("" if cell == "-" else cell for cell in re.split(" +/ +", text))
        if len(cells) != len(columns):
            raise GrammarError(f"{place}: {len(cells) + 1} columns instead of {len(columns) + 1}")
        if not last.startswith("+"):
            return Row((*cells, end), (*columns, last), place)
        for other in self.tables.get(last[1:], ()):
            if other.cells[0] == end:
                return Row((*cells, *other.cells), (*columns, *other.columns), place)
        raise GrammarError(f"{place}: '{end}' is no row of a table '{last[1:]}'")

    def check_plot(self, plot: Plot) -> None:
        """Check all that a plot can tell; a row may use the facts drawn before it."""
        facts: set[str] = set()
        for name, sources in plot.cast:
            if unknown := set(chain(*sources)) - self.tables.keys():
                raise GrammarError(f"{plot.place}: unknown table '{min(unknown)}'")
            columns = ({f"{name}.{column}" for table in source
                        for column in self.tables[table][0].columns} for source in sources)
            facts |= {name} | set.intersection(*columns)  # whichever source is drawn
            for table in chain(*sources):
                self.check(self.tables[table], facts)
        self.check(chain(*plot.beats), facts)

    def check(self, rows: Iterable[Row], facts: set[str]) -> None:
        """Check that every slot is a fact or a rule, and the same for the rule's wordings."""
        for row in rows:
            for name in set(SLOT.findall(" ".join(row.cells))) - facts:
                if name not in self.rules:
                    raise GrammarError(f"{row.place}: unknown slot {{{name}}}")
                self.check(self.rules[name], facts | {name})


def pick(random: Callable[[], float], options: Sequence):
    """Return one of the options, all equally likely; `choice` may differ between versions."""
    return options[int(random() * len(options))]


class Teller:
    """Generates one text. It remembers the facts, and which rows it has used."""

    def __init__(self, grammar: Grammar, random: Callable[[], float]) -> None:
        self.grammar, self.random = grammar, random
        self.facts: dict[str, str | Sequence[Row]] = {}
        self.used: set[Row] = set()

    def fresh(self, rows: Sequence[Row]) -> Row:
        """Draw a row that has not been used, or any row if all have."""
        row = pick(self.random, [row for row in rows if row not in self.used] or rows)
        self.used.add(row)
        return row

    def draw(self, name: str, table: str) -> None:
        """Draw a row; its first cell becomes the fact `name`, and each cell `name.column`."""
        row = self.fresh(self.grammar.tables[table])
        for column, cell in zip(row.columns, row.cells):
            text = self.tell(cell)
            self.facts.setdefault(name, text)
            self.facts[f"{name}.{column}"] = text

    def tell(self, text: str) -> str:
        """Fill the slots and choices of a text, from left to right."""
        return SLOT_OR_CHOICE.sub(self.fill, text)

    def fill(self, match: re.Match) -> str:
        """Return what stands for a slot or a choice. A fact may be a list, which acts as a rule."""
        name, options = match.groups()
        if name is None:
            return self.tell(pick(self.random, options.split("|")))
        fact = self.facts[name] if name in self.facts else self.grammar.rules[name]
        return fact if isinstance(fact, str) else self.tell(self.fresh(fact).cells[0])

    def tell_plot(self, plot: Plot) -> str:
        """Draw the cast, then tell the beats."""
        for name, sources in plot.cast:
            for table in pick(self.random, sources):
                self.draw(name, table)
        return " ".join(self.tell(self.fresh(wordings).cells[0]) for wordings in plot.beats)
