# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The example notebooks are as a reader expects them; scenario local runs them."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

import nbformat
import pytest

EXAMPLES = Path(__file__).parents[2] / "roles/notebook/files/examples"
PATHS = sorted(EXAMPLES.iterdir())
each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def test_there_are_five():
    names = {path.name for path in PATHS}
    assert names == {
        f"{name}.ipynb" for name in ("Monte Carlo", "Prime numbers", "Random matrices", "Remote execution", "Welcome")
    }


def read(path):
    return nbformat.read(path, as_version=4)


@each
def test_it_is_valid_and_small(path):
    nbformat.validate(read(path))
    assert path.stat().st_size < 30_000


@each
def test_it_is_as_if_it_had_never_run(path):
    notebook = read(path)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert not cell.metadata
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)


@each
def test_it_has_a_title_and_tells_of_each_step(path):
    cells = read(path).cells
    assert cells[0].source.startswith(f"# {path.stem}\n\n")
    codes = [cell for cell in cells if cell.cell_type == "code"]
    texts = [cell for cell in cells if cell.cell_type == "markdown"]
    assert len(texts) >= 0.6 * len(codes)
    assert max(cell.source.count("\n") + 1 for cell in codes) <= 40
    assert all(cell.source.strip() for cell in cells)


@each
def test_it_names_no_place_and_no_secret(path):
    source = "\n".join(cell.source for cell in read(path).cells)
    without_links = re.sub(r"https://\S+", "", source)
    assert re.findall(r"(?<![\w.)])~?/(?:home|tmp|opt|etc|var|root|usr)\b", without_links) == []
    assert re.findall(r"(?i)password\s*=|token\s*=|\bkey\s*=|\d+\.\d+\.\d+\.\d+|[0-9a-f]{32}", without_links) == []


@each
def test_its_links_lead_to_other_examples(path):
    source = "\n".join(cell.source for cell in read(path).cells)
    links = re.findall(r"\]\((?!http)([^)]+)\)", source)
    assert links
    assert [link for link in links if not (EXAMPLES / urllib.parse.unquote(link)).exists()] == []
