"""Model cards: what a trained model is, how it was scored, and what it may be used for.

A card is Markdown. The block of YAML at its head has the facts that tables of models are made of.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from .comparison import student_interval

MARKS = "<!-- models -->", "<!-- end: models -->"
"""Lines around the table of models in a document."""
_SHOWN = ("AP50", "AP75", "AP", "AP50_tiny", "F1")
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s\"'/]+/)+")


class CardError(RuntimeError):
    """A card cannot be made or read; the message says why and what to do."""


@dataclass(frozen=True)
class CardHead:
    """Facts about a model that tables show.

    Attributes:
        name: name of the model.
        task: protocol of its scores.
        config: config that it was trained with.
        trained_on: names of the training sets.
        scored_on: names of the test sets.
        scores: the main scores in a few words.
        weights: SHA-256 of the weights; None if they are not published.
        weights_licence: licence of the weights.
        data_licence: licence of the training data.
    """

    name: str
    task: str
    config: str
    trained_on: list[str]
    scored_on: list[str]
    scores: str
    weights: str | None
    weights_licence: str
    data_licence: str


def format_card(
    head: CardHead,
    results: Sequence[Mapping[str, Any]],
    measured: Mapping[str, Any],
    *,
    classes: Sequence[str],
    start: str,
    intended_use: str,
) -> str:
    """Write a card.

    Args:
        head: facts of the head.
        results: contents of ``results.json``, one for each seed, the model's own first.
        measured: content of the evaluator's file of metrics, with ``protocol`` and ``counts``;
            empty if there is none.
        classes: names of the classes.
        start: name of the weights that the training began with; empty for random ones.
        intended_use: paragraph on what the model is for, and what not.

    Returns:
        The card.
    """
    own = results[0]
    origin = {key: own.get(key) for key in ("commit", "iteration", "time", "hardware", "versions")}
    seeds = ", ".join(str(one.get("seed")) for one in results)
    facts = {
        "Config": head.config,
        "Command": _FOLDERS.sub("", " ".join(map(str, own.get("command") or ()))),
        "Weights at the start": start or "random",
        "Seeds": seeds,
        **{key.capitalize(): value for key, value in origin.items()},
    }
    dataset, counts = measured.get("dataset", {}), measured.get("counts", {})
    data = {
        "Trained on": ", ".join(head.trained_on),
        "Scored on": ", ".join(head.scored_on),
        "SHA-256 of the labels it was scored on": dataset.get("ground_truth_sha256"),
        "Images and objects scored": f"{counts['images']} and {counts['objects_that_count']}"
        if {"images", "objects_that_count"} <= set(counts)
        else None,
        "Classes": ", ".join(classes),
    }
    note = (
        "A score is the mean over the seeds, with Student's 95 % interval."
        if len(results) > 1
        else "One training with one seed: another seed gives other scores, by some points."
    )

    front = yaml.safe_dump(asdict(head), sort_keys=False, allow_unicode=True, width=1000)
    return "\n".join(
        [
            f"---\n{front}---",
            f"# {head.name}\n",
            "## Intended use\n",
            f"{textwrap.fill(intended_use, 100)}\n",
            "## Data\n",
            _listed(data),
            "## Scores\n",
            tabulate(_score_rows(results), headers="keys", tablefmt="pipe", disable_numparse=True),
            f"\n{note}\n",
            "## Protocol\n",
            _listed(measured.get("protocol", {"Protocol": head.task})),
            "## Provenance\n",
            _listed(facts),
            "## Licences\n",
            _listed({"Weights": head.weights_licence, "Data": head.data_licence}),
            "The program is under Apache-2.0. Its licence says nothing about data or weights.\n",
        ]
    )


def main_scores(results: Sequence[Mapping[str, Any]]) -> str:
    """Name the main scores, of averaged weights if there are any.

    Args:
        results: contents of ``results.json``, one for each seed.

    Returns:
        A text like ``AP50 70.2, AP 27.1``.
    """
    rows = _score_rows(results)
    column = [key for key in rows[0] if key != "metric"][-1] if rows else ""
    found = {row["metric"]: row[column] for row in rows}
    return ", ".join(f"{metric} {found[metric]}" for metric in _SHOWN if metric in found)


def read_card_head(path: Path) -> CardHead:
    """Read the head of a card.

    Args:
        path: path of the card.

    Returns:
        Its facts.

    Raises:
        CardError: the file is no card.
    """
    try:
        _, front, _ = path.read_text(encoding="utf-8").split("---\n", 2)
        return CardHead(**yaml.safe_load(front))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise CardError(f"{path} is not a card of rsd2 card: {error}") from error


def format_table(cards: Mapping[str, CardHead]) -> str:
    """Make the table of several models.

    Args:
        cards: link to each card -> its facts.

    Returns:
        A Markdown table.
    """
    rows = [
        {
            "model": f"[{head.name}]({link})",
            "config": f"`{head.config}`",
            "trained on": ", ".join(head.trained_on),
            "scores": head.scores,
            "weights": f"`{head.weights[:12]}`" if head.weights else "not published",
            "licence of data": head.data_licence,
        }
        for link, head in cards.items()
    ]
    return tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True)


def with_table(text: str, table: str) -> str:
    """Replace the table between the marks of a document.

    Args:
        text: the document.
        table: the table.

    Returns:
        The document with the table.

    Raises:
        CardError: the document lacks the marks.
    """
    before, first, rest = text.partition(MARKS[0])
    _, last, after = rest.partition(MARKS[1])
    if not (first and last):
        raise CardError(f"the document needs the lines {MARKS[0]} and {MARKS[1]} around its table")
    return f"{before}{first}\n{table}\n{last}{after}"


def _score_rows(results: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Make a row for each metric, with a column for each kind of weights."""
    tasks = results[0]["results"]
    metrics = dict.fromkeys(metric for task in tasks.values() for metric in task)
    rows = []
    for metric in metrics:
        row = {"metric": metric}
        for task in tasks:
            values = [one["results"].get(task, {}).get(metric) for one in results]
            row[task] = _score([value for value in values if value is not None])
        rows.append(row)
    return rows


def _score(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean, interval = student_interval(values)
    return f"{mean:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")


def _listed(facts: Mapping[str, Any]) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{key} {item}" for key, item in value.items())
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    lines = [f"- {key.replace('_', ' ')}: {shown(v)}" for key, v in facts.items() if v is not None]
    return "\n".join(lines) + "\n"
