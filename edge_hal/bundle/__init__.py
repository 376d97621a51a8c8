"""The bundle: the directory that `export` writes and `run` reads. It holds graphs, manifest, certificate, thresholds.

`manifest.json` holds the table of rates and shapes, the hash of each graph and of `familiarity.json`, which may be
missing, and how the bundle was made.
`certificate.json` holds the manifest's hash, what was checked, and a hash of itself. No hash covers `decoder.json` and
`procedure.json`, because users edit them; their content is validated.
A bundle is untrusted input: it holds no pickle, links out of its folder are refused, and every hash is checked before
a graph is opened. The hashes find damage and edits. They do not prove who made a bundle, because anybody can compute
them; a signature does (`signature.py`). `load.py` opens a bundle, `write.py` writes one.
"""

from .bundle import (
    DEFAULT_PATH,
    PRECISIONS,
    SCHEMA,
    TARGETS,
    Bundle,
    encoder_name,
    expected_graphs,
    file_hash,
    graph_name,
    require_precision,
)
from .load import REEXPORT, load_bundle
from .write import write_bundle

__all__ = [
    "DEFAULT_PATH",
    "PRECISIONS",
    "REEXPORT",
    "SCHEMA",
    "TARGETS",
    "Bundle",
    "encoder_name",
    "expected_graphs",
    "file_hash",
    "graph_name",
    "load_bundle",
    "require_precision",
    "write_bundle",
]
