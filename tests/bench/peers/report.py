"""The table and the picture of what was measured."""

import re
from dataclasses import dataclass, fields
from html import escape
from pathlib import Path
from typing import Any, Self

from tests.bench.peers.measuring import Results, quantile
from tests.bench.peers.picture import Bar, Panel, draw
from tests.bench.peers.place import Memory


@dataclass
class Line:
    """What is known of one program."""

    name: str
    how: str
    missing: str = ""
    version: str = ""
    results: Results | None = None
    hosts: Memory | None = None
    server: Memory | None = None

    @classmethod
    def of(cls, found: dict[str, Any]) -> Self:
        """Return the line that was dumped as JSON."""
        kinds = {"results": Results, "hosts": Memory, "server": Memory}
        known = {field.name for field in fields(cls)}
        return cls(**{
            name: kinds[name](**value) if name in kinds and value else value
            for name, value in found.items() if name in known
        })  # fmt: skip

    @property
    def label(self) -> str:
        """Name and version."""
        return f"{self.name} ({self.version})" if self.version else self.name


HEADINGS = (
    "program", "one edit, p50", "p95", "set of 60, all there", "old and new mixed", "new files/s",
    "memory of both hosts: RSS / PSS", "server: RSS", "half-written seen", "lost",
)  # fmt: skip


def milliseconds(samples: list[float], share: float = 0.5) -> str:
    """Return a quantile to two digits or so."""
    if not samples:
        return "–"
    value = quantile(samples, share)
    return f"{value:.1f} ms" if value < 9.95 else f"{value:,.0f} ms"


def cells(line: Line) -> list[str]:
    """Return the cells of a line."""
    results, hosts, server = line.results, line.hosts, line.server
    if results is None or hosts is None or server is None:
        return [line.label, f"not measured: {line.missing}", *[""] * (len(HEADINGS) - 2)]
    late = (
        f" ({results.late} of {results.late + len(results.edits) + len(results.sets)} late)"
        if results.late
        else ""
    )
    return [
        line.label,
        milliseconds(results.edits) + late,
        milliseconds(results.edits, 0.95),
        milliseconds(results.sets),
        milliseconds(results.mixed),
        "–" if results.files_per_second is None else f"{results.files_per_second:,.0f}",
        f"{hosts.rss:.0f} / {hosts.pss:.0f} MiB",
        f"{server.rss:.0f} MiB" if server.processes else "none",
        f"{results.torn} of {results.torn_of}",
        f"{results.lost} of {results.lost_of:,}",
    ]


def table(lines: list[Line], found: dict[str, Any]) -> str:
    """Return the whole table in Markdown, with what was measured when."""
    rows = [list(HEADINGS), ["---"] * len(HEADINGS), *(cells(line) for line in lines)]
    samples = [len(line.results.edits) for line in lines if line.results]
    least = f"{min(samples)} to {max(samples)}" if samples else "no"
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{when(found)}; {least} edits each."


def when(found: dict[str, Any]) -> str:
    """Say when and where it was measured."""
    before, after = found["load"]
    return (
        f"Measured on {found['date']} on {found['cores']} cores, with all programs running: load average {before} "
        f"before, {after} after"
    )


def short(lines: list[Line], found: dict[str, Any]) -> str:
    """Return the README's table: the columns that one chooses by."""
    chosen = (0, 1, 3, 4, 5, 6, 7, 8)
    rows = [cells(line) for line in lines if line.results]
    rows = [[row[index] for index in chosen] for row in [list(HEADINGS), ["---"] * len(HEADINGS), *rows]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{when(found)}."


def methods(lines: list[Line]) -> str:
    """Return a list of how each program was run."""
    return "\n".join(f"- **{line.label}**: {line.how}." for line in lines)


def picture(lines: list[Line], found: dict[str, Any]) -> str:
    """Return the picture of those that were measured."""
    measured = [line for line in lines if line.results and line.hosts and line.server]

    def bars(value: Any, unit: str) -> list[Bar]:
        made = []
        for line in measured:
            number = value(line)
            shown = "–" if number is None else f"{number:.1f}{unit}" if number < 9.95 else f"{number:,.0f}{unit}"
            made.append(Bar(line.name, number, shown, ours=line.name.startswith("configstore")))
        return made

    def median(samples: list[float]) -> float | None:
        return quantile(samples, 0.5) if samples else None

    panels = [
        Panel("One edit: ms until the other side has it", "log",
              bars(lambda line: median(line.results.edits), " ms")),
        Panel("A set of 60: ms of old and new mixed", "log", bars(lambda line: median(line.results.mixed), " ms")),
        Panel("New files a second (more is better)", "linear",
              bars(lambda line: line.results.files_per_second, "")),
        Panel("Memory of both hosts and the server: MiB (PSS)", "linear",
              bars(lambda line: line.hosts.pss + line.server.pss, " MiB")),
    ]  # fmt: skip
    said = "; ".join(
        f"{line.name}: {milliseconds(line.results.edits)}, mixed for {milliseconds(line.results.mixed)}"
        for line in measured if line.results
    )  # fmt: skip
    return draw(
        panels,
        title="configstore beside other programs",
        description=f"Latency, mixed window, throughput and memory. Medians of edit and mixed window: {said}.",
        caption=f"one machine, by turns, {found['date']}",
    )


def publish(lines: list[Line], found: dict[str, Any], root: Path) -> None:
    """Write the picture and the tables: into the pages, or beside each other into a folder of their own."""
    svg = picture(lines, found)
    page, readme = root / "docs" / "peers.md", root / "README.md"
    if not page.exists():
        root.mkdir(parents=True, exist_ok=True)
        (root / "peers.svg").write_text(svg)
        (root / "peers.md").write_text(table(lines, found) + "\n\n" + methods(lines) + "\n")
        print(f"written to {root}: peers.svg, peers.md")
        return
    (root / "docs" / "pictures" / "peers.svg").write_text(svg)
    between(page, "figures", table(lines, found))
    between(page, "methods", methods(lines))
    between(readme, "peers", short(lines, found))
    print("written: docs/peers.md, docs/pictures/peers.svg, README.md")


def between(page: Path, name: str, text: str) -> None:
    """Replace what stands between two marks of a page."""
    begin, end = f"<!-- {name}: written by make bench-peers -->", f"<!-- end of {name} -->"
    old = page.read_text()
    new, count = re.subn(
        re.escape(begin) + ".*?" + re.escape(end), lambda _: f"{begin}\n\n{text}\n\n{end}", old, flags=re.DOTALL
    )
    if count != 1:
        raise SystemExit(f"bench-peers: {page} has no place for {escape(begin)}")
    page.write_text(new)
