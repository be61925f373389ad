"""The page: template, data, content-security policy, and the file it is written to.

    ReportData -> Ledger -> tiles, table, script data -> HTML text -> one file

The page asks nothing of a network: style and script stand in it and are allowed by their hash, everything
else is forbidden by its content-security policy. Text goes through the template's escaping, data through
`script_json`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .contigs import Ledger, Row, contig_payloads, not_shown, whole_input
from .encoding import script_json, visible
from .histogram import histogram_payload
from .records import Budget, ReportData
from .scatter import scatter_payload

SCRIPTS = (
    "text.js",
    "decode.js",
    "contig.js",
    "colours.js",
    "state.js",
    "lanes.js",
    "genes.js",
    "browser.js",
    "overview.js",
    "pointer.js",
    "search.js",
    "histogram.js",
    "scatter.js",
    "table.js",
    "main.js",
)
TEXT_LIMIT = 4000  # characters of a provenance value that the page shows
NO_VALUE = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Tile:
    """One key figure of the header."""

    label: str
    value: str
    unit: str = ""
    note: str = ""


def write_report(
    path: str | os.PathLike[str], data: ReportData, overwrite: bool = False, budget: Budget | None = None
) -> None:
    """Write the page as one HTML file, whole or not at all.

    Raises:
        OutputExistsError: The file is there and `overwrite` is False.
        SystemProblem: The file cannot be written.
    """
    from hyena_glt.sequences.atomic import atomic_write

    text = render_report(data, budget)
    with atomic_write(path, "wb", overwrite=overwrite) as handle:
        handle.write(text.encode("utf-8"))


def render_report(data: ReportData, budget: Budget | None = None) -> str:
    """Return the page as HTML text; the same data gives the same text.

    Raises:
        ConfigError: The totals are smaller than the contigs given.
    """
    budget = budget or Budget()
    ledger = Ledger(budget)
    for track in data.contigs:
        ledger.add(track)
    return fill_template(page_context(data, ledger, budget))


def page_context(data: ReportData, ledger: Ledger, budget: Budget) -> dict[str, Any]:
    """Collect what the template shows."""
    shown = ledger.shown()
    whole = whole_input(ledger.total, data.totals)
    rows = [row for row, _ in shown]
    scatter = scatter_payload(data.embeddings, budget.points)
    contigs = contig_payloads([summary for _, summary in shown], budget)
    script_data = {
        "threshold": data.threshold,
        "scoreName": visible(data.score_name),
        "contigs": contigs,
        "histogram": histogram_payload(ledger.counts, ledger.total.bases),
        "scatter": scatter,
    }
    return {
        "title": visible(data.title),
        "tiles": tiles(data, whole),
        "rows": rows,
        "rest": not_shown(whole, rows),
        "whole": whole,
        "score_name": visible(data.score_name),
        "threshold": data.threshold,
        "has_features": any(contig["features"]["names"] for contig in contigs),
        "has_runs": any(contig["runs"] for contig in contigs),
        "has_entropies": any(contig["scored"] for contig in contigs),
        "scatter": scatter,
        "scatter_note": visible(data.embeddings.note) if data.embeddings else "",
        "provenance": [(visible(k), visible(str(v), TEXT_LIMIT)) for k, v in data.provenance.items()],
        "origin": json.dumps(dict(data.provenance), default=str),
        "data": Markup(script_json(script_data)),
    }


def tiles(data: ReportData, whole: Row) -> list[Tile]:
    """Return the key figures, in the order they are read."""
    mean = whole.mean_length
    wanted = f"target {data.target_length:g}" if data.target_length is not None else "bases per patch"
    saved = f"{1 - 1 / mean:.1%} fewer trunk steps than bases" if mean else ""
    return [
        Tile("Bases", f"{whole.bases:,}", note=f"{whole.contigs:,} contig{'s' if whole.contigs != 1 else ''}"),
        Tile("Patches", f"{whole.patches:,}", note=f"longest {whole.longest:,} bases"),
        Tile("Mean patch length", number(mean, ".2f"), "bases", wanted),
        Tile("Compression", number(mean, ".1f"), "\N{MULTIPLICATION SIGN}", saved),
        bits_tile(data, whole),
        Tile(
            "Threshold",
            number(data.threshold, ".4f"),
            "nats" if data.threshold is not None else "",
            threshold_note(data),
        ),
    ]


def bits_tile(data: ReportData, whole: Row) -> Tile:
    """Bits per base of the entropy model where it is known, else the mean of the patch scores."""
    model = data.entropy_model or {}
    order = f", order {model['order']}" if model.get("order") is not None else ""
    name = visible(str(model.get("name") or "")) + order
    if model.get("bits_per_base") is not None:
        return Tile("Bits per base", number(model["bits_per_base"], ".3f"), "bits", name)
    return Tile("Bits per base", number(whole.score_bits, ".3f"), "bits", name or data.score_name)


def threshold_note(data: ReportData) -> str:
    """Say what the threshold does."""
    return "entropy above it starts a patch" if data.threshold is not None else "no single threshold"


def number(value: float | None, spec: str) -> str:
    """Format a number, or show that there is none."""
    return NO_VALUE if value is None else format(value, spec)


def fill_template(context: dict[str, Any]) -> str:
    """Fill the template, with the style, the script and the policy that allows just these two."""
    style, script = template_text("report.css"), page_script()
    environment = Environment(
        loader=PackageLoader("hyena_glt.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template("report.html.j2").render(
        **context, style=Markup(style), script=Markup(script), policy=security_policy(style, script)
    )


def security_policy(style: str, script: str) -> str:
    """Return a content-security policy that allows this style and this script, and nothing else."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src '{inline_hash(script)}'",
            f"style-src '{inline_hash(style)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def inline_hash(text: str) -> str:
    """Return the source expression of an inline element: the hash of what stands between its tags."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def page_script() -> str:
    """Join the script's files, in order, into one function scope."""
    parts = "\n".join(template_text(f"js/{name}") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def template_text(name: str) -> str:
    """Read a file of the templates folder."""
    return (files("hyena_glt.reports") / "templates" / name).read_text(encoding="utf-8")
