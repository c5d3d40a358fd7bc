"""The code of the pages that show how to extend the graph runs as it stands there."""

import re
from pathlib import Path

import pytest

from ternbin.graph.ops.registry import OPS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def ops():
    """What a page registers is gone afterwards."""
    before = dict(OPS)
    yield
    for name in OPS.keys() - before.keys():
        del OPS[name]


@pytest.mark.parametrize("page", ["add-an-activation", "add-an-op"])
def test_the_code_of_a_page_runs(page, ops):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.S)
    assert blocks
    exec("\n".join(blocks), {"__name__": page})
