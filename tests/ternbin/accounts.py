"""Energy lines counted again from what a result stores, and the links of its page followed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser


def check_counts(lines: list[dict], counted: Mapping[str, Mapping[str, float]]) -> None:
    """Every line of a phase is its factor times what its counter counted; ``counted``: basis -> counter -> count. What is not a hardware
    counter's is a kind of external bytes, or the weights that a reference writes to WBUF as they come."""
    for line in lines:
        assert line["count"] == line["factor"] * counted[line["basis"]][line["counter"]], line
        assert line["pj"] == line["count"] * line["pj_each"], line
        assert line["factor"] > 0, line
        assert line["basis"] == "counters" or line["group"] == "external" or line["counter"] == "weights", line


def check_records(lines: list[dict], sources: dict) -> None:
    """Every line names a record that the sources hold."""
    for line in lines:
        assert line["record"] in sources[line["table"]], line


@dataclass
class Cell:
    text: str = ""
    links: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    """Rows of tables as cells, and for each anchor the text of what carries it: its row, or its element outside tables."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[Cell]] = []
        self.anchors: dict[str, list[Cell]] = {}
        self._open: list[Cell] | None = None
        self._svg = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        values = dict(attrs)
        self._svg += tag == "svg"
        if self._svg:
            return
        if tag == "tr":
            self._open = []
            self.rows.append(self._open)
        elif tag in ("td", "th"):
            assert self._open is not None
            self._open.append(Cell())
        elif tag in ("p", "span", "h2", "details"):
            self._open = [Cell()]
        if "id" in values:
            assert values["id"] not in self.anchors, values["id"]
            self.anchors[values["id"]] = [Cell()] if self._open is None else self._open
        if values.get("href", "").startswith("#"):
            assert self._open
            self._open[-1].links.append(values["href"][1:])

    def handle_endtag(self, tag: str) -> None:
        self._svg -= tag == "svg"
        if not self._svg and tag in ("tr", "span"):
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open and not self._svg:
            self._open[-1].text += data


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    return reader


def check_links(page: str, lines: list[dict], shown: dict[str, str]) -> None:
    """Follows every link of the rows of energy lines, which stand on the page in the order of ``lines``: the counter's leads to a row that
    shows it with the count of ``shown`` (counter -> text), the source's to the record."""
    reader = read(page)
    rows = [row for row in reader.rows if len(row) == 11 and row[0].text not in ("unit", "record")]
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        assert [cell.text for cell in row[:3]] == [line["unit"], line["event"], line["group"]]
        assert row[4].text == line["counter"] and row[10].text == line["source"]
        (counter,), (record,) = row[4].links, row[10].links
        counted = " ".join(cell.text for cell in reader.anchors[counter]).split()
        assert counted[0] == line["counter"] and shown[counter] in counted, (line, counted)
        named = reader.anchors[record][0].text
        assert named.replace(" bytes", "").replace(" ", "").replace(",", "") == line["record"].replace(" ", "").replace(
            ",", ""
        ), (line, named)
    every = {link for row in reader.rows for cell in row for link in cell.links}
    assert every <= set(reader.anchors)
