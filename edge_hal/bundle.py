"""The bundle: the directory that `export` writes and `run` reads. It holds graphs, manifest, certificate, thresholds.

`manifest.json` holds the table of rates and shapes, the hash of each graph and of `familiarity.json`, which may be
missing, and how the bundle was made.
`certificate.json` holds the manifest's hash, what was checked, and a hash of itself. No hash covers `decoder.json` and
`procedure.json`, because users edit them; their content is validated.
A bundle is untrusted input: it holds no pickle, links out of its folder are refused, and every hash is checked before
a graph is opened. The hashes find damage and edits. They do not prove who made a bundle, because anybody can compute
them; a signature does (`signature.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_hal import __version__
from edge_hal.bundle_certificate import certificate_problem, certificate_text
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.familiarity import FILE as FAMILIARITY_FILE
from edge_hal.decoding.familiarity import Familiarity, check_unfamiliar
from edge_hal.errors import EdgeHalError
from edge_hal.files import check_readable, check_writable, file_error, no_folder
from edge_hal.procedure.rules import Procedure
from edge_hal.signature import copy_trusted
from edge_hal.spec import PyramidSpec
from edge_hal.untrusted import parse_json, read_regular

SCHEMA = 1
PRECISIONS = ("fp32", "fp16", "int8")
TARGETS = ("any", "onnxruntime", "tensorrt")
DEFAULT_PATH = Path("bundle")
LARGEST_GRAPH = 2 << 30
OUTSIDE = b"location"
"""How a graph names a file with its weights (ONNX external data). Such a file has no hash, and may be anywhere."""
REEXPORT = "export again: edge-hal export --ckpt RUN_DIR --out {path}"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk. `fingerprint` is the SHA-256 of the manifest. `target` is the engine that the graphs
    are made for: float graphs run on any engine, int8 graphs differ. `signer`: the name of the trusted key that signed
    it, None if no signature was asked for. `familiarity`: what the input of training looks like, None if
    that was not learned."""

    path: Path
    spec: PyramidSpec
    precision: str
    decoder: DecoderConfig
    fingerprint: str
    provenance: Mapping[str, Any]
    certified: bool
    target: str = "any"
    signer: str | None = None
    familiarity: Familiarity | None = None

    def graph(self, level: int, chunk: int = 1) -> Path:
        return self.path / graph_name(level, chunk, self.precision)

    @property
    def encoder(self) -> Path | None:
        return None if self.spec.encoder is None else self.path / encoder_name(self.precision)


def graph_name(level: int, chunk: int, precision: str) -> str:
    return f"level{level}.c{chunk}.{precision}.onnx"


def encoder_name(precision: str) -> str:
    return f"encoder.{precision}.onnx"


def expected_graphs(spec: PyramidSpec, precision: str) -> list[str]:
    """The names of all graph files that a bundle with this table must hold."""
    names = [graph_name(level, chunk, precision) for level in range(len(spec.levels)) for chunk in spec.chunks(level)]
    return names if spec.encoder is None else [*names, encoder_name(precision)]


def file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
    path = Path(path).resolve() if Path(path).is_symlink() else Path(path)
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
    if OUTSIDE in content:
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
        if len(found.mean) != spec.front_end.size:
            raise ValueError(f"it is of vectors of {len(found.mean)} numbers, the table says {spec.front_end.size}")
    except (OSError, ValueError) as error:
        raise EdgeHalError(f"cannot read {file}", str(error), todo) from error
    return found


def require_precision(bundle: Bundle, precision: str | None) -> None:
    """Raises EdgeHalError (exit code 2) if `precision` is given and is not that of the bundle."""
    if precision is None or precision == bundle.precision:
        return
    if precision not in PRECISIONS:
        raise EdgeHalError(f"--precision {precision}", f"it is one of {', '.join(PRECISIONS)}", exit_code=2)
    todo = f"edge-hal export --ckpt RUN_DIR --precision {precision} --out ANOTHER_DIR"
    what = f"the bundle {bundle.path} has no {precision} graphs"
    raise EdgeHalError(what, f"it is {bundle.precision}", todo, exit_code=2)


def write_bundle(
    path: Path,
    spec: PyramidSpec,
    precision: str,
    decoder: DecoderConfig,
    provenance: Mapping[str, Any],
    write_graphs: Callable[[Path], None],
    certify: Callable[[Bundle], dict[str, Any]],
    target: str = "any",
    familiarity: Familiarity | None = None,
) -> Bundle:
    """Write a bundle into a temporary directory beside `path`, certify it, and rename it.

    So a bundle appears complete or not at all, and an old one stays until the new one is certified.

    Args:
        write_graphs: writes every file of `expected_graphs` into the given directory.
        certify: runs the graphs and returns the content of the certificate, with the key `passed`.

    Raises:
        EdgeHalError: the directory cannot be written, or the certificate failed. Then no new file is left.
    """
    path = Path(path)
    staging = path.with_name(f".{path.name}.partial-{os.getpid()}")
    if path.exists() and not (path / "manifest.json").is_file():
        raise EdgeHalError(f"{path} exists and is no bundle", "it will not be overwritten", "choose another --out")
    check_writable(staging, f"cannot write the bundle {path}", "choose another --out")
    try:
        staging.mkdir(parents=True)
        write_graphs(staging)
        manifest = {
            "schema": SCHEMA,
            "version": __version__,
            "precision": precision,
            "target": target,
            "spec": spec.to_dict(),
            "graphs": {name: file_hash(staging / name) for name in expected_graphs(spec, precision)},
            "provenance": dict(provenance),
        }
        if familiarity is not None:
            (staging / FAMILIARITY_FILE).write_text(familiarity.to_json())
            manifest["familiarity"] = file_hash(staging / FAMILIARITY_FILE)
        raw = (json.dumps(manifest, indent=2) + "\n").encode()
        (staging / "manifest.json").write_bytes(raw)
        (staging / "decoder.json").write_text(decoder.to_json())
        if decoder.procedure is not None:
            (staging / "procedure.json").write_text(decoder.procedure.to_json())
        body = certify(load_bundle(staging, allow_uncertified=True))
        certificate = {"manifest": hashlib.sha256(raw).hexdigest(), **body}
        (staging / "certificate.json").write_text(certificate_text(certificate))
        if not body["passed"]:
            failed = [check["name"] for check in body["checks"] if not check["passed"]]
            raise EdgeHalError(
                "the exported graphs do not compute what was trained",
                f"failed: {', '.join(failed[:3])}",
                "report this with the run directory; no bundle was written"
                if precision == "fp32"
                else "no bundle was written; a higher precision may pass: --precision fp16, fp32",
            )
        _replace(staging, path)
    except OSError as error:
        raise file_error(f"cannot write the bundle {path}", error, "choose another --out") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return load_bundle(path)


def _replace(staging: Path, path: Path) -> None:
    if not path.exists():
        staging.rename(path)
        return
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    path.rename(old)
    try:
        staging.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _manifest(path: Path, todo: str) -> tuple[bytes, dict[str, Any]]:
    try:
        raw = read_regular(path)
        data = parse_json(raw)
    except (OSError, ValueError) as error:
        raise file_error(f"cannot read {path}", error, todo, path=path) from error
    if not isinstance(data, dict):
        raise EdgeHalError(f"cannot read {path}", "it is not a JSON object", todo)
    return raw, data
