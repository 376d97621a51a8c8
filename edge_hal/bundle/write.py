"""Write a bundle: complete and certified, or not at all."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_hal import __version__
from edge_hal.decoding.decoder_config import DecoderConfig
from edge_hal.decoding.familiarity import FILE as FAMILIARITY_FILE
from edge_hal.decoding.familiarity import Familiarity
from edge_hal.errors import EdgeHalError
from edge_hal.files import check_writable, file_error, replace_folder
from edge_hal.spec import PyramidSpec

from .bundle import SCHEMA, Bundle, expected_graphs, file_hash
from .certificate import certificate_text
from .load import load_bundle


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
    if path.is_symlink():
        path = Path(os.path.realpath(path))  # the link stays
    staging = path.with_name(f".{path.name}{PARTIAL}{os.getpid()}")
    if path.exists() and not (path / "manifest.json").is_file():
        raise EdgeHalError(f"{path} exists and is no bundle", "it will not be overwritten", "choose another --out")
    remove_leftovers(path)
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
        replace_folder(staging, path)
    except OSError as error:
        raise file_error(f"cannot write the bundle {path}", error, "choose another --out") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return load_bundle(path)


PARTIAL = ".partial-"


def remove_leftovers(path: Path) -> None:
    """What exports of this bundle left that were killed: the folders of processes that are gone."""
    for each in path.parent.glob(f".{glob.escape(path.name)}{PARTIAL}*"):
        number = each.name.rpartition("-")[2]
        if number.isdecimal() and not Path("/proc", number).exists():
            shutil.rmtree(each, ignore_errors=True)
