"""Open a bundle. It is untrusted input: every hash is checked before a graph is opened."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_hal import __version__
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.familiarity import FILE as FAMILIARITY_FILE
from edge_hal.decoding.familiarity import Familiarity, check_unfamiliar
from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable, file_error, no_folder
from edge_hal.files.untrusted import parse_json, read_regular
from edge_hal.procedure.rules import Procedure
from edge_hal.spec import PyramidSpec

from .bundle import PRECISIONS, SCHEMA, TARGETS, Bundle, expected_graphs
from .certificate import certificate_problem
from .signature import copy_trusted

LARGEST_GRAPH = 2 << 30
OUTSIDE = re.compile(rb"[\0\x08]location")
"""How a graph names a file with its weights (ONNX external data): by the key `location`. Such a file has no hash, and
may be anywhere. In protobuf the length of a text, here 8, is right before it. The last byte of the length is 8, or 0 if
it is written with more bytes than it needs. So a longer name, such as `/allocation/Cast`, is none."""
REEXPORT = "export again: edge-hal export --ckpt RUN_DIR --out {path}"


def load_bundle(path: Path, *, allow_uncertified: bool = False, trusted: Path | None = None) -> Bundle:
    """Open a bundle and check every hash and the certificate. A bundle of 0.1 whose certificate has no hash of itself
    is opened with a warning. A link to a bundle is followed once, so that it may be changed meanwhile.

    Args:
        trusted: folder of public signing keys. A bundle that none of them signed is refused. The result is a private
            copy, deleted with it, so that nobody can change it after the check.

    Raises:
        EdgeHalError: not a bundle, another schema, a changed or missing file, a link out of the folder, a certificate
            that failed or belongs to another manifest (unless `allow_uncertified`), or no trusted signature.
    """
    path = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    if trusted is None:
        return _load(path, allow_uncertified)
    private = Path(tempfile.mkdtemp(prefix="edge-hal-"))
    try:
        copy = private / (path.resolve().name or "bundle")
        copy.mkdir()
        signer = copy_trusted(path, trusted, copy)
        bundle = replace(_load(copy, allow_uncertified), signer=signer)
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise
    weakref.finalize(bundle, shutil.rmtree, private, ignore_errors=True)
    return bundle


def _load(path: Path, allow_uncertified: bool) -> Bundle:
    todo = REEXPORT.format(path=path)
    check_readable(path / "manifest.json")
    if not (path / "manifest.json").is_file():
        why = "it has no manifest.json" if path.is_dir() else no_folder(path)
        raise EdgeHalError(f"{path} is no bundle", why, "give a folder that edge-hal export wrote, or a task folder")
    for file in sorted(path.iterdir()):
        check_readable(file, f"cannot read the bundle {path}")
    _refuse_links_out(path, todo)
    raw, manifest = _manifest(path / "manifest.json", todo)
    if manifest.get("schema") != SCHEMA:
        raise EdgeHalError(
            f"the bundle {path} has schema {manifest.get('schema')!r}",
            f"edge-hal {manifest.get('version', '0.1')} wrote it; this is {__version__} and reads schema {SCHEMA}",
            todo,
        )
    try:
        spec = PyramidSpec.from_dict(manifest["spec"])
        precision, graphs = manifest["precision"], dict(manifest["graphs"])
        provenance, target = dict(manifest.get("provenance", {})), manifest.get("target", "any")
        if precision not in PRECISIONS:  # it becomes part of file names
            raise ValueError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
        if target not in TARGETS:
            raise ValueError(f"target {target!r} is not one of {', '.join(TARGETS)}")
    except (KeyError, TypeError, ValueError) as error:
        raise EdgeHalError(f"the manifest of {path} is incomplete", str(error), todo) from error
    expected = expected_graphs(spec, precision)
    if set(graphs) != set(expected):
        odd = sorted(map(str, set(graphs) ^ set(expected)))[0]
        raise EdgeHalError(f"the manifest of {path} does not fit its table", f"see '{odd}'", todo)
    for name, digest in sorted(graphs.items()):
        _check_graph(path / name, digest, todo)
    fingerprint = hashlib.sha256(raw).hexdigest()
    problem = certificate_problem(path, fingerprint, todo, may_lack_hash="version" not in manifest)
    if problem and not allow_uncertified:
        raise EdgeHalError(f"the bundle {path} is not certified", problem, f"{todo} (or --allow-uncertified)")
    followed = path / "procedure.json"
    procedure = Procedure.from_file(followed, spec.labels) if os.path.lexists(followed) else None
    decoder = DecoderConfig.from_file(path / "decoder.json", procedure)
    familiarity = _familiarity(path / FAMILIARITY_FILE, manifest.get("familiarity"), spec, todo)
    try:
        check_unfamiliar(decoder, familiarity)
    except EdgeHalError as error:
        raise EdgeHalError(f"{path / 'decoder.json'}: {error.what}", error.why, error.todo) from error
    return Bundle(
        path=path,
        spec=spec,
        precision=precision,
        decoder=decoder,
        fingerprint=fingerprint,
        provenance=provenance,
        certified=not problem,
        target=target,
        familiarity=familiarity,
    )


def _refuse_links_out(path: Path, todo: str) -> None:
    root = path.resolve()
    try:
        for entry in os.scandir(path):
            if entry.is_symlink() and root not in Path(os.path.realpath(entry.path)).parents:
                what = f"the bundle {path} has a link to a file outside it"
                raise EdgeHalError(what, f"{entry.name} leads to {os.path.realpath(entry.path)}", todo)
    except OSError as error:
        raise EdgeHalError(f"cannot read the bundle {path}", error.strerror or str(error), todo) from error


def _check_graph(file: Path, digest: str, todo: str) -> None:
    """Raises EdgeHalError unless the file is the graph of that hash, and whole in itself."""
    if not file.is_file():
        raise EdgeHalError(f"the bundle {file.parent} lacks {file.name}", "", todo)
    try:
        content = read_regular(file, LARGEST_GRAPH)
    except (OSError, ValueError) as error:
        raise EdgeHalError(f"cannot read {file}", str(error), todo) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise EdgeHalError(f"{file} is not the file that was exported", "its SHA-256 differs from the manifest's", todo)
    if OUTSIDE.search(content):
        raise EdgeHalError(f"{file} names files outside the graph", "their content has no hash", todo)


def _familiarity(file: Path, digest: object, spec: PyramidSpec, todo: str) -> Familiarity | None:
    """Raises EdgeHalError unless the file is the one of that hash and fits the table."""
    if digest is None:
        return None
    if not file.is_file():
        raise EdgeHalError(f"the bundle {file.parent} lacks {file.name}", "", todo)
    try:
        content = read_regular(file)
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("it is not the file that was exported: its SHA-256 differs from the manifest's")
        found = Familiarity.from_json(content)
        front_end = spec.front_end
        if (found.size, found.vector.size) != (front_end.size, front_end.read):
            why = f"{found.size} numbers, of which {found.vector.size} are read"
            raise ValueError(f"it is of vectors of {why}; the table says {front_end.size} and {front_end.read}")
    except (OSError, ValueError) as error:
        raise EdgeHalError(f"cannot read {file}", str(error), todo) from error
    return found


def _manifest(path: Path, todo: str) -> tuple[bytes, dict[str, Any]]:
    try:
        raw = read_regular(path)
        data = parse_json(raw)
    except (OSError, ValueError) as error:
        raise file_error(f"cannot read {path}", error, todo, path=path) from error
    if not isinstance(data, dict):
        raise EdgeHalError(f"cannot read {path}", "it is not a JSON object", todo)
    return raw, data
