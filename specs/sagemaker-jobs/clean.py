"""Keep the rows of a table that are whole: ``python clean.py wines.csv clean.csv``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

COLUMNS = 13


def main() -> None:
    """Read the input that Windlass names, or the first word; write the table."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    source = os.environ.get("WINDLASS_INPUT_WINES") or words[0]
    rows = [line.split(",") for line in Path(source).read_text().splitlines()]
    whole = [row for row in rows if len(row) == COLUMNS and all(field.strip() for field in row)]
    Path("clean.csv").write_text("".join(",".join(row) + "\n" for row in whole))
    print(f"{len(whole)} of {len(rows)} rows are whole")


if __name__ == "__main__":
    main()
