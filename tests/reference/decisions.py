"""The list of decisions, by their headings."""

import re
from pathlib import Path

from tests.reference.markdown import MADE

PAGE = """\
# Decisions

What was decided where another way was as near at hand, and why.

{list}
"""


def page(folder: Path) -> str:
    """Return the list of the decisions in a folder."""
    lines = []
    for file in sorted(folder.glob("[0-9]*.md")):
        title = re.sub(r"^# (?:\d+\. )?", "", file.read_text().partition("\n")[0])
        lines.append(f"- [{file.name[:4]}]({file.name}): {title}")
    return f"{MADE}\n\n" + PAGE.format(list="\n".join(lines))
