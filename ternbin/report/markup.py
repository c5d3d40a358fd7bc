"""HTML that every page is made of: style, tables, links, anchors, energies as text."""

import re
from collections.abc import Sequence
from html import escape

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#1b1f24;background:#fff}
h1{font-size:1.5em;margin-bottom:0}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #d5dae0;padding-bottom:.2em}
table{border-collapse:collapse;font-size:.87em;margin:.6em 0}th,td{padding:.25em .8em;border-bottom:1px solid #e3e7eb;text-align:left}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}th{background:#f5f7f9}
.cards{display:flex;flex-wrap:wrap;gap:.8em;margin:1em 0}.card{border:1px solid #d5dae0;border-radius:8px;padding:.6em 1em;min-width:8.5em}
.card b{display:block;font-size:1.25em}.card span{color:#57606a;font-size:.82em}.good b{color:#1a7f37}.bad b{color:#cf222e}
blockquote{margin:.5em 0;padding:.4em 1em;border-left:3px solid #d5dae0;background:#f8f9fb}
svg{max-width:100%;height:auto}details summary{cursor:pointer;color:#0550ae}.muted{color:#57606a;font-size:.87em}
"""


class Html(str):
    """Text that is HTML already."""


def table(header: Sequence[str], rows: Sequence[Sequence[object]], numeric_from: int = 1) -> str:
    """An HTML table; columns from ``numeric_from`` on are right-aligned. A cell is text or Html."""

    def cells(tag: str, row: Sequence[object]) -> str:
        return "".join(
            f"<{tag}{' class=n' if i >= numeric_from else ''}>{value if isinstance(value, Html) else escape(str(value))}</{tag}>"
            for i, value in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', header)}</tr></thead><tbody>{body}</tbody></table>"


def energy_text(pj: float) -> str:
    """Picojoules in a unit that reads well."""
    for unit, scale in (("mJ", 1e9), ("uJ", 1e6), ("nJ", 1e3)):
        if abs(pj) >= scale:
            return f"{pj / scale:.3g} {unit}"
    return f"{pj:.3g} pJ"


def slug(text: str) -> str:
    """The text as part of an anchor."""
    return re.sub(r"\W+", "-", text).strip("-")


def link(anchor: str, text: str) -> Html:
    return Html(f"<a href='#{anchor}'>{escape(text)}</a>")


def target(anchor: str, text: str) -> Html:
    """Text with an anchor in front."""
    return Html(f"<a id='{anchor}'></a>{escape(text)}")


def details(summary: str, body: str, anchor: str = "") -> str:
    """A body that opens under its summary."""
    where = f" id='{anchor}'" if anchor else ""
    return f"<details{where}><summary>{escape(summary)}</summary>{body}</details>"


def note(text: str) -> str:
    return f"<p class=muted>{escape(text)}</p>"


def document(title: str, body: str, style: str = "") -> str:
    """A self-contained page; ``style``: rules beyond STYLE."""
    head = f"<meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}{style}</style>"
    return f"<!doctype html><html lang=en>{head}<h1>{escape(title)}</h1>{body}</html>\n"
