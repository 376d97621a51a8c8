"""`edge-hal doctor`: which engine runs a bundle on this machine, and whether it computes correctly."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edge_hal.errors import EdgeHalError


def doctor(
    bundle: Annotated[Path, typer.Option(help="Folder that `edge-hal export` wrote.")] = Path("bundle"),
    selftest: Annotated[
        bool, typer.Option("--selftest", help="Compare TensorRT with ONNX Runtime on this device, about one minute.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON array.")] = False,
) -> None:
    """Show which engine would run a bundle on this machine, and why. --selftest adds a report for an issue."""
    from edge_hal.bundle import load_bundle
    from edge_hal.runtime.checks.selftest import Finding, describe_machine
    from edge_hal.runtime.checks.selftest import selftest as prove
    from edge_hal.runtime.engines.choose import choose_engines

    opened = load_bundle(bundle)
    if selftest:
        findings = prove(opened)
    else:
        engines = choose_engines(opened)
        findings = [
            Finding("machine", True, describe_machine()),
            Finding("bundle", True, f"{opened.precision} for {opened.target}, {opened.fingerprint[:12]}"),
            Finding("engine", True, f"{engines.kind}: {engines.why}"),
        ]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.passed else 'FAIL'}  {finding.name}: {finding.detail}")
    failed = [finding.name for finding in findings if not finding.passed]
    if failed:
        raise EdgeHalError(f"a check failed on this device: {failed[0]}", "", "see docs/tensorrt.md")
