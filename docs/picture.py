# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Draw the README's picture: what `make up` ends with, from its output on standard input."""

from __future__ import annotations

import io
import sys
import textwrap
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).with_name("make-up.svg")


def main() -> None:
    """Read the output of `make up`, and draw its summary."""
    lines = sys.stdin.read().splitlines()
    start = next(number for number, line in enumerate(lines) if line.lstrip().startswith("Cluster "))
    end = next(number for number in range(start, len(lines)) if not lines[number].strip())
    console = Console(record=True, width=96, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ make up", style="bold"))
    console.print(Text("...", style="dim"))
    console.print(Text(textwrap.dedent("\n".join(lines[start:end]))))
    console.save_svg(str(PICTURE), title="ipyparallel.cluster", unique_id="make-up")


if __name__ == "__main__":
    main()
