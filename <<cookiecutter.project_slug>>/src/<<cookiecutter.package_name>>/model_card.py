"""A version's model card: what it is for whoever decides on it, as Markdown and as HTML.

After Mitchell et al. 2019, "Model Cards for Model Reporting": data, figures with their intervals,
segments, pictures, limits and lineage. Everything in it was stored with the version.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from .bundle import Bundle
from .verdict import Verdict

if TYPE_CHECKING:
    from .versions import Version

SHOWN_SEGMENTS = 10
TITLE = "Model card: {name}, version {number}"
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.2rem .6rem;"
    "text-align:left;vertical-align:top}img{max-width:100%}"
)


def markdown(
    version: Version, bundle: Bundle, verdict: Verdict | None, pictures: Iterable[Path]
) -> str:
    """Write the card; pictures are named by their paths."""
    metadata = bundle.metadata
    parts = [
        f"# {TITLE.format(name=metadata.model_name, number=version.number)}",
        _facts(version, bundle),
        _features(bundle),
        _hold_out(bundle, verdict),
        _verdict(verdict),
        _segments(verdict),
        _pictures(list(pictures)),
        _limits(bundle, verdict),
        _lineage(version, bundle),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def html(card: str, title: str, pictures: Iterable[Path]) -> str:
    """One page that needs no other file: the pictures are inside."""
    for path in pictures:
        content = base64.b64encode(path.read_bytes()).decode("ascii")
        card = card.replace(f"]({path.name})", f"](data:image/png;base64,{content})")
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(card)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )


def _facts(version: Version, bundle: Bundle) -> str:
    metadata = bundle.metadata
    signature = metadata.signature
    classes = f" of {', '.join(map(str, signature.classes))}" if signature.classes else ""
    return _table(
        ("", ""),
        [
            ("predicts", f"{signature.label} ({signature.task}{classes})"),
            ("estimator", f"{metadata.estimator} {metadata.parameters}"),
            ("aliases", ", ".join(version.aliases) or "none"),
            ("gate", version.validation),
            ("trained at", f"{metadata.created_at:%Y-%m-%d %H:%M} UTC"),
            ("knows the world until", f"{metadata.as_of:%Y-%m-%d %H:%M} UTC"),
            ("size", f"{len(bundle.model):,} bytes of ONNX"),
        ],
    )


def _features(bundle: Bundle) -> str:
    profile, rows = bundle.profile, []
    for feature in bundle.signature.features:
        if feature.name in profile.numbers:
            edges = profile.numbers[feature.name].edges
            seen = f"middle {edges[len(edges) // 2]:g}, most from {edges[0]:g} to {edges[-1]:g}"
        else:
            counts = profile.strings[feature.name].counts
            seen = ", ".join(f"{name!r} ({count:,})" for name, count in list(counts.items())[:5])
        rows.append((feature.name, feature.type, feature.description, seen))
    trained_on = bundle.metadata.training_rows
    trained = "" if trained_on is None else f"Trained on {trained_on:,} rows. "
    return (
        f"## Data\n\n{trained}Judged on {profile.rows:,} rows of later times, the hold-out.\n\n"
        + _table(("feature", "type", "meaning", "in the hold-out"), rows)
    )


def _hold_out(bundle: Bundle, verdict: Verdict | None) -> str:
    metadata = bundle.metadata
    rows = [
        (name, f"{value:.4f}", f"{metadata.baseline_metrics[name]:.4f}")
        for name, value in metadata.metrics.items()
    ]
    text = (
        "## Figures\n\nOn the hold-out:\n\n"
        + _table(("metric", "model", "baseline"), rows)
        + f"\n\nGain over the baseline in {metadata.primary_metric}: {metadata.gain_over_baseline} "
        "(95 % interval)."
    )
    for name, measured in (verdict.measured if verdict else {}).items():
        intervals = [
            (metric, f"{i.estimate:.4f}", f"{i.low:.4f} to {i.high:.4f}")
            for metric, i in measured.metrics.items()
        ]
        text += f"\n\nMeasured by the gate, {name} ({measured.rows:,} rows):\n\n" + _table(
            ("metric", "value", "95 % interval"), intervals
        )
    return text


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return "## Gate\n\nNot judged yet."
    against = f"version {verdict.production}" if verdict.production else "no production version"
    word = "Passed" if verdict.passed else "Failed"
    return (
        f"## Gate\n\n{word} at {verdict.judged_at:%Y-%m-%d %H:%M} UTC, against {against}.\n\n"
        + _table(
            ("check", "on", "passed", "figure", "limit"),
            [
                (c.name, c.rows, "yes" if c.passed else "no", c.figure, c.limit)
                for c in verdict.checks
            ],
        )
    )


def _segments(verdict: Verdict | None) -> str:
    text = ""
    for name, measured in (verdict.measured if verdict else {}).items():
        if measured.segments:
            text += f"\n\nOn the {name}, the worst of {len(measured.segments)}:\n\n" + _table(
                ("segment", "rows", "loss", "loss of the other", "harm", "harm at least"),
                [
                    (
                        f"{s.feature} {s.values}",
                        f"{s.rows:,}",
                        *(f"{x:.4f}" for x in (s.loss, s.other_loss)),
                        *(f"{x:+.4f}" for x in (s.harm, s.harm_at_least)),
                    )
                    for s in measured.segments[:SHOWN_SEGMENTS]
                ],
            )
    return text and f"## Segments{text}"


def _pictures(pictures: list[Path]) -> str:
    shown = "\n\n".join(f"![{path.stem.replace('_', ' ')}]({path.name})" for path in pictures)
    return shown and f"## Pictures\n\n{shown}"


def _limits(bundle: Bundle, verdict: Verdict | None) -> str:
    lines = [
        f"It knows nothing that happened after {bundle.metadata.as_of:%Y-%m-%d}.",
        "Values far from those of the hold-out (see Data) are answered all the same.",
        "A confidence is a frequency among rows like those of the hold-out, no certainty.",
    ]
    if bundle.signature.task == "regression":
        lines.pop()
    if verdict is None:
        lines.append("The gate has not judged it: nothing is known of its segments.")
    elif failed := verdict.failed:
        lines.append(f"It failed the gate: {', '.join(failed)}.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _lineage(version: Version, bundle: Bundle) -> str:
    metadata = bundle.metadata
    rows = [
        ("data fingerprint", metadata.data_fingerprint),
        ("git commit", metadata.git_commit or "unknown"),
        ("packages", ", ".join(f"{name} {v}" for name, v in metadata.packages.items())),
    ]
    if metadata.run is not None:
        rows.append((f"{metadata.run.tracker} run", f"{metadata.run.id} {metadata.run.url or ''}"))
    rows += [
        (name.replace("_", " "), value)
        for name, value in version.tags.items()
        if name.startswith("pipeline")
    ]
    return "## Lineage\n\n" + _table(("", ""), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
