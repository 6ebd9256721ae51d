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

FOLDER = Path(__file__).resolve().parent / "grammar"
HEADER = re.compile(r"== (rule|table|plot) ([\w ]+)(?:: (.+))?")
ROW = re.compile(r"(?:@(\S+) )?(?:(\d+)x )?(.*)")  # tag, weight, text
SLOT = re.compile(r"\{([\w.]+)\}")
SLOT_OR_CHOICE = re.compile(SLOT.pattern + r"|\[([^][]*)\]")


class GrammarError(ValueError):
    """A mistake in a grammar file; the message names file and line."""


class Line(NamedTuple):
    """A line of a file, including the indented lines that continue it."""

    place: str
    text: str

    def error(self, message: str) -> GrammarError:
        """Make an error that names file and line."""
        return GrammarError(f"{self.place}: {message}")


class Row(NamedTuple):
    """A row of a table, or a wording, which has a single cell."""

    cells: tuple[str, ...]
    line: Line = Line("", "")


class Table(NamedTuple):
    """Rows under named columns. A row of weight 3 is listed three times."""

    columns: tuple[str, ...]
    rows: list[Row]


class Plot(NamedTuple):
    """A cast, and the wordings of each beat.

    Every part has alternative sources; a source is a list of tables that contribute a row each.
    """

    header: Line
    cast: list[tuple[str, list[list[str]]]]
    beats: list[list[Row]]


def read_sections(path: Path) -> list[list[Line]]:
    """Cut a file into sections, dropping comments and joining continuation lines."""
    sections: list[list[Line]] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = Line(f"{path}, line {number}", text.rstrip())
        if line.text.startswith(" ") and sections:
            place, start = sections[-1].pop()
            sections[-1].append(Line(place, f"{start} {line.text.strip()}"))
        elif line.text.startswith("==") or not sections and re.match("[^#]", line.text):
            sections.append([line])
        elif sections and not line.text.startswith("#"):
            sections[-1].append(line)
    return sections


def parse_cast(text: str) -> list[tuple[str, list[list[str]]]]:
    """Parse `town hero:child|animal+beast`; the part `town` draws from the table `town`."""
    parts = (part.partition(":") for part in text.split())
    return [(name, [source.split("+") for source in (sources or name).split("|")])
            for name, _, sources in parts]


class Grammar:
    """The rules, tables and plots of some files, each of which may use those before it.

    Rows tagged `@KEEP` count like any other; rows tagged `@DROP` are left out.

    Raises:
        GrammarError: a line breaks the notation, or a plot has a slot that nothing fills.
    """

    def __init__(self, paths: Iterable[Path], keep: str = "", drop: str = "") -> None:
        self.keep, self.drop = keep, drop
        self.rules: dict[str, list[Row]] = {}
        self.tables: dict[str, Table] = {}
        self.plots: dict[str, Plot] = {}
        for path in paths:
            for header, *body in read_sections(path):
                self.add(header, body)
        for plot in self.plots.values():
            self.check_plot(plot)

    def add(self, header: Line, body: list[Line]) -> None:
        """Add a section."""
        match = HEADER.fullmatch(header.text)
        if not match or (match[1] == "rule") == bool(match[3]):
            raise header.error("expected '== rule NAME', '== table NAME: COLUMN / COLUMN' or "
                               "'== plot NAME: PART PART'")
        kind, name, rest = match.groups()
        known = {"rule": self.rules, "table": self.tables, "plot": self.plots}[kind]
        if name in known:
            raise header.error(f"a second {kind} named '{name}'")
        if not any(line.text for line in body):
            raise header.error("nothing below this line")
        if kind == "rule":
            known[name] = self.rows(header, body)
        elif kind == "table":
            known[name] = self.table(header, rest.split(" / "), body)
        else:
            known[name] = Plot(header, parse_cast(rest), self.beats(body))

    def rows(self, header: Line, body: list[Line], width: int = 1) -> list[Row]:
        """Read rows of this many cells, each as often as its weight says.

        After a line `?`, silence is as likely as all the other wordings together.
        """
        rows, optional = [], bool(body) and body[0].text == "?"
        for line in body[optional:]:
            tag, weight, text = ROW.fullmatch(line.text).groups()
            if tag not in (None, self.keep, self.drop):
                raise line.error(f"unknown tag @{tag}")
            if text and tag != self.drop:
                rows += [Row(self.cells(line, text, width), line)] * int(weight or 1)
        if not rows:
            raise header.error(f"nothing is left below this line for @{self.keep}")
        return rows + [Row(("",), header)] * (len(rows) * optional)

    def cells(self, line: Line, text: str, width: int) -> tuple[str, ...]:
        """Split a row into cells; a dash is an empty one."""
        if stray := re.search(r"[][{}|]", re.sub(r"\[[^][{}]*\]", "", SLOT.sub("", text))):
            raise line.error(f"'{stray[0]}' is unclosed or misplaced")
        cells = tuple("" if cell == "-" else cell for cell in re.split(" +/ +", text))
        if len(cells) != width:
            raise line.error(f"{len(cells)} columns instead of {width}")
        return cells

    def beats(self, body: list[Line]) -> list[list[Row]]:
        """Read beats, which are separated by blank lines."""
        groups = groupby(body, lambda line: line.text != "")
        return [self.rows(first, [first, *others]) for filled, (first, *others) in groups if filled]

    def table(self, header: Line, columns: list[str], body: list[Line]) -> Table:
        """Read a table. The cells of a last column `+sex` name rows of `sex` to append."""
        rows = self.rows(header, body, len(columns))
        if not columns[-1].startswith("+"):
            return Table(tuple(columns), rows)
        other = self.lookup(header, columns[-1][1:])
        endings = {row.cells[0]: row.cells for row in other.rows}
        for i, (cells, line) in enumerate(rows):
            if cells[-1] not in endings:
                raise line.error(f"'{cells[-1]}' is no row of table {columns[-1][1:]}")
            rows[i] = Row(cells[:-1] + endings[cells[-1]], line)
        return Table((*columns[:-1], *other.columns), rows)

    def lookup(self, line: Line, name: str) -> Table:
        """Return a table that a line mentions."""
        if name not in self.tables:
            raise line.error(f"unknown table '{name}'")
        return self.tables[name]

    def check_plot(self, plot: Plot) -> None:
        """Check all that a plot can tell; a row may use the facts drawn before it."""
        facts: set[str] = set()
        for name, sources in plot.cast:
            columns = [{f"{name}.{column}" for table in source
                        for column in self.lookup(plot.header, table).columns}
                       for source in sources]
            facts |= {name} | set.intersection(*columns)  # whichever source is drawn
            for table in chain(*sources):
                self.check(self.tables[table].rows, facts)
        for wordings in plot.beats:
            self.check(wordings, facts)

    def check(self, rows: Iterable[Row], facts: set[str]) -> None:
        """Check that every slot is a fact or a rule, and the same for the rule's wordings."""
        for row in rows:
            for name in set(SLOT.findall(" ".join(row.cells))) - facts:
                if name not in self.rules:
                    raise row.line.error(f"unknown slot {{{name}}}")
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
        columns, rows = self.grammar.tables[table]
        for column, cell in zip(columns, self.fresh(rows).cells):
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
        fact = self.facts.get(name)
        if isinstance(fact, str):
            return fact
        return self.tell(self.fresh(fact or self.grammar.rules[name]).cells[0])

    def tell_plot(self, plot: Plot) -> str:
        """Draw the cast, then tell the beats."""
        for name, sources in plot.cast:
            for table in pick(self.random, sources):
                self.draw(name, table)
        return " ".join(self.tell(self.fresh(wordings).cells[0]) for wordings in plot.beats)
