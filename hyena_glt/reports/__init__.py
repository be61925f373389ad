"""One self-contained HTML page about the patches of a genome.

patch lengths, entropies, features -> ContigTrack ┐
pooled hidden states in two dimensions -> Embeddings ┴> ReportData -> render_report -> one HTML file

records.py     what goes in
encoding.py    numbers and names made small and safe for a page
contigs.py     many contigs summed one after the other, the largest kept
track.py       one contig at every zoom: bins, patches, bases
bins.py        its entropies, scores and boundaries summed over stretches
features.py    which annotated features make the gene lanes
histogram.py   patch lengths against memoryless boundaries
scatter.py     embeddings in two dimensions
page.py        the page, its content-security policy, the file
templates/     HTML, CSS and JavaScript, without any library
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyena_glt._lazy import lazy_exports

if TYPE_CHECKING:
    from .page import render_report, write_report
    from .records import Budget, ContigTrack, Embeddings, EntropyModelFacts, ReportData, ambiguous_runs

__all__ = [
    "Budget",
    "ContigTrack",
    "Embeddings",
    "EntropyModelFacts",
    "ReportData",
    "ambiguous_runs",
    "render_report",
    "write_report",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Budget": ".records",
        "ContigTrack": ".records",
        "Embeddings": ".records",
        "EntropyModelFacts": ".records",
        "ReportData": ".records",
        "ambiguous_runs": ".records",
        "render_report": ".page",
        "write_report": ".page",
    },
)
