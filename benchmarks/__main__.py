"""Time rsd2 against what a user would otherwise run, side by side in one process.

    python -m benchmarks ops                             # a JSON row per case and peer
    python -m benchmarks ops --case "iou mix 1000x1000" --output output/iou.jsonl
    python -m benchmarks ops --markdown docs/benchmarks.md   # also renews its table

SUBJECT is a module of benchmarks. Rows go to standard output, one JSON object a line, and to
--output after each case. Keep the machine quiet: a ratio is only as good as the worse of its times.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from rsd2.io.files import write_atomically

from .harness import Case, peak_memory, run_cases

FOLDER = Path(__file__).resolve().parent


def subjects() -> list[str]:
    """Return the names of the modules that have cases."""
    files = sorted(FOLDER.glob("*.py"))
    return [file.stem for file in files if "\ndef cases(" in file.read_text("utf-8")]


def cases_of(subject: str) -> dict[str, Case]:
    """Return the cases of a subject by name.

    Args:
        subject: one of :func:`subjects`.

    Raises:
        ValueError: there is no such subject; the message lists all subjects.
    """
    if subject not in subjects():
        raise ValueError(f"no subject {subject!r}; there are: {', '.join(subjects())}")
    return {case.name: case for case in importlib.import_module(f"benchmarks.{subject}").cases()}


def choose(cases: dict[str, Case], names: list[str], quick: bool) -> list[Case]:
    """Pick cases by their names.

    Args:
        cases: cases by name.
        names: names of the wanted cases; empty takes all.
        quick: whether to leave out slow cases that are not named.

    Raises:
        ValueError: a name is unknown; the message lists the known ones.
    """
    unknown = [name for name in names if name not in cases]
    if unknown:
        known = "".join(f"\n  {name}" for name in cases)
        raise ValueError(f"no case {', '.join(map(repr, unknown))}; there are:{known}")

    if names:
        return [cases[name] for name in names]
    return [case for case in cases.values() if not (quick and case.is_slow)]


def memory_in_child(subject: str, case: Case) -> dict[str, float | None]:
    """Measure the peak memory of a case's contenders in a separate process.

    Args:
        subject: module of the case.
        case: the case.

    Returns:
        Contender -> MB, or None where the system cannot tell.

    Raises:
        RuntimeError: the process failed; the message has the end of its errors.
    """
    command = [sys.executable, "-m", "benchmarks", subject, "--case", case.name, "--only-memory"]
    command += ["--threads", str(torch.get_num_threads())]
    # A process of its own: what another case left in memory would count as free.
    result = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent)
    if result.returncode:
        raise RuntimeError(
            f"the memory of {case.name!r} could not be measured: exit {result.returncode}: "
            f"{result.stderr.strip()[-500:]}"
        )

    return json.loads(result.stdout.splitlines()[-1])


def _time(ms: float | None) -> str:
    if ms is None:
        return ""
    return f"{ms / 1e3:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"


def _number(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:.3g}{unit}" if value < 100 else f"{value:.0f}{unit}"


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Tabulate rows, with the machine and the versions above the table.

    Args:
        rows: rows of :func:`benchmarks.harness.run_cases`, at least one.
    """
    first = rows[0]
    machines = sorted({f"{row['machine']} ({row['threads']} threads)" for row in rows})
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    lines = [
        f"Machine: {'; '.join(machines)}. Versions: {versions}. Commit {first['commit']}, "
        f"{first['time']}.",
        "",
        "| case | size | dtype, device | rsd2: median (min) | peer | peer: median (min) | "
        "ratio (of minima) | peak MB: rsd2 / peer | floor |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    for row in rows:
        ours = f"{_time(row['ours_ms'])} ({_time(row['ours_min_ms'])})"
        theirs = ratio = ""
        if row["peer"] is not None:
            theirs = f"{_time(row['peer_ms'])} ({_time(row['peer_min_ms'])})"
            ratio = f"{_number(row['ratio'], 'x')} ({_number(row['ratio_of_minima'], 'x')})"
        memory = f"{_number(row['ours_mb'])} / {_number(row['peer_mb'])}"
        floor = f"{_time(row['floor_ms'])} {row['floor']}".strip()
        kind = f"{row['dtype']}, {row['device']}"
        # A case without a peer says why in the place of the peer.
        peer = row["peer"] or f"none: {row['note']}"
        cells = [row["case"], row["size"], kind, ours, peer, theirs, ratio, memory, floor]
        lines.append(f"| {' | '.join(cells)} |")

    return "\n".join(lines)


def around_table(path: Path, subject: str) -> tuple[str, str]:
    """Split a document at the table of a subject.

    Args:
        path: path of the document.
        subject: subject in the marks ``<!-- benchmark: SUBJECT -->`` and ``<!-- end: SUBJECT -->``.

    Returns:
        The text before the table, with the first mark, and the text after it, with the last mark.

    Raises:
        ValueError: the document is absent or lacks a mark.
    """
    marks = f"<!-- benchmark: {subject} -->", f"<!-- end: {subject} -->"
    # An absent document fails below with the lines that it needs.
    text = path.read_text("utf-8") if path.is_file() else ""
    before, found_first, rest = text.partition(marks[0])
    _, found_last, after = rest.partition(marks[1])
    if not (found_first and found_last):
        raise ValueError(f"{path} needs the lines {marks[0]} and {marks[1]} around its table")
    return before + marks[0], marks[1] + after


def arguments() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subject", metavar="SUBJECT", help=f"one of: {', '.join(subjects())}")
    parser.add_argument("--case", action="append", default=[], metavar="NAME", help="only this one")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="renew its table")
    parser.add_argument("--quick", action="store_true", help="one round, no memory, no slow cases")
    parser.add_argument("--rounds", type=int, default=5, help="runs per contender (default: 5)")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and end")
    parser.add_argument("--only-memory", action="store_true", help="peak MB of one case, no times")
    return parser


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the cases of a subject.

    Args:
        argv: command line; None takes that of the process.

    Returns:
        The rows, which are also printed and written.
    """
    parser = arguments()
    args = parser.parse_args(argv)
    if args.rounds < 1 or (args.threads is not None and args.threads < 1):
        parser.error(f"--rounds and --threads need 1 or more, got {args.rounds}, {args.threads}")

    # Before any case is built: inputs may already be made by torch's threads.
    if args.threads:
        torch.set_num_threads(args.threads)

    try:
        cases = choose(cases_of(args.subject), args.case, args.quick)
        if args.markdown:  # fail before the work, not after it
            around_table(args.markdown, args.subject)
    except ValueError as problem:
        parser.error(str(problem))

    if args.list:
        print("\n".join(case.name for case in cases))
        return []
    if args.only_memory:
        if len(cases) != 1:
            parser.error("--only-memory needs one --case")
        print(json.dumps(peak_memory(cases[0])))
        return []

    def memory(case: Case) -> dict[str, float | None]:
        return {} if args.quick else memory_in_child(args.subject, case)

    def finished(rows: list[dict[str, Any]]) -> None:
        if args.output:
            # After each case, so that an interrupted run keeps what it has measured.
            args.output.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(args.output, "".join(json.dumps(row) + "\n" for row in rows))

    rows = run_cases(cases, 1 if args.quick else args.rounds, memory, finished)
    for row in rows:
        print(json.dumps(row))
    if args.markdown:
        # Read again, because the document may have changed during the hours of measuring.
        before, after = around_table(args.markdown, args.subject)
        write_atomically(args.markdown, f"{before}\n\n{markdown_table(rows)}\n\n{after}")
    return rows


if __name__ == "__main__":
    main()
