"""Segments as ELAN files (EAF 3.0), one for each video: the tier `steps`, and below it a tier with the confidences.

Format: https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf. Times are whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from edge_hal.errors import EdgeHalError
from edge_hal.files import file_error
from edge_hal.files.untrusted import read_regular
from edge_hal.media.names import composed

from .segments import Mark, SegmentedVideo, time_of

SUFFIX = ".eaf"
STEPS, CONFIDENCE = "steps", "confidence"
FASTEST_HZ = 500.0
"""With more frames a second a millisecond is too long to tell two neighbours apart."""
SCHEMA = "http://www.w3.org/2001/XMLSchema-instance"
ONE_TO_ONE = "Symbolic_Association"
TYPES = {".mp4": "video/mp4", ".mov": "video/quicktime", ".mpg": "video/mpeg", ".mpeg": "video/mpeg"}


def write_eaf(videos: Sequence[SegmentedVideo]) -> dict[str, str]:
    """Names and contents of the files. Raises EdgeHalError for more than `FASTEST_HZ` frames a second."""
    return {f"{video.name}{SUFFIX}": _document(video) for video in videos}


def _document(video: SegmentedVideo) -> str:
    if video.rate_hz > FASTEST_HZ:
        why = f"ELAN has milliseconds, and it has {video.rate_hz:g} frames a second"
        raise EdgeHalError(f"video {video.name} has no EAF file", why, "choose another --format", exit_code=2)
    root = Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "edge-hal",
            "DATE": "1970-01-01T00:00:00+00:00",  # the same suggestions give the same file
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": SCHEMA,
            "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
        },
    )
    header = SubElement(root, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    if video.kind == "video":
        path, mime = video.path.absolute(), TYPES.get(video.path.suffix.lower(), "unknown")
        SubElement(header, "MEDIA_DESCRIPTOR", {"MEDIA_URL": path.as_uri(), "MIME_TYPE": mime})
    count = len(video.segments)
    SubElement(header, "PROPERTY", {"NAME": "lastUsedAnnotationId"}).text = str(2 * count)
    times = SubElement(root, "TIME_ORDER")
    for number, frame in enumerate([*(each.first for each in video.segments), video.length], 1):
        milliseconds = str(round(1000 * frame / video.rate_hz))
        SubElement(times, "TIME_SLOT", {"TIME_SLOT_ID": f"ts{number}", "TIME_VALUE": milliseconds})
    steps = SubElement(root, "TIER", {"TIER_ID": STEPS, "LINGUISTIC_TYPE_REF": "step"})
    below = {"TIER_ID": CONFIDENCE, "LINGUISTIC_TYPE_REF": CONFIDENCE, "PARENT_REF": STEPS}
    confidences = SubElement(root, "TIER", below)
    for m, (each, confidence) in enumerate(video.with_confidences, 1):
        slots = {"TIME_SLOT_REF1": f"ts{m}", "TIME_SLOT_REF2": f"ts{m + 1}"}
        aligned = SubElement(
            SubElement(steps, "ANNOTATION"), "ALIGNABLE_ANNOTATION", {"ANNOTATION_ID": f"a{m}", **slots}
        )
        SubElement(aligned, "ANNOTATION_VALUE").text = each.step
        ids = {"ANNOTATION_ID": f"a{count + m}", "ANNOTATION_REF": f"a{m}"}
        referring = SubElement(SubElement(confidences, "ANNOTATION"), "REF_ANNOTATION", ids)
        SubElement(referring, "ANNOTATION_VALUE").text = f"{confidence:.2f}"
    plain = {"GRAPHIC_REFERENCES": "false"}
    SubElement(root, "LINGUISTIC_TYPE", {**plain, "LINGUISTIC_TYPE_ID": "step", "TIME_ALIGNABLE": "true"})
    tied = {"LINGUISTIC_TYPE_ID": CONFIDENCE, "TIME_ALIGNABLE": "false", "CONSTRAINTS": ONE_TO_ONE}
    SubElement(root, "LINGUISTIC_TYPE", {**plain, **tied})
    SubElement(
        root, "CONSTRAINT", {"STEREOTYPE": ONE_TO_ONE, "DESCRIPTION": "1-1 association with a parent annotation"}
    )
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def read_eaf(path: Path) -> dict[str, list[Mark]]:
    """The marks of the tier `steps`, or of the only tier with times, for the video that the file is named after. Empty
    annotations label nothing.

    Raises:
        EdgeHalError: the file is no EAF file or declares entities, it has several tiers and none called `steps`, or an
            annotation has no time.
    """
    try:
        data = read_regular(path)
        plain = data.replace(b"\0", b"")  # as the parser reads UTF-16
        if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:  # an entity can blow up memory
            raise ValueError("it declares a document type, which ELAN never writes")
        root = ElementTree.fromstring(data)
        if root.tag != "ANNOTATION_DOCUMENT":
            raise ValueError(f"it is a document {root.tag[:40]}, not ANNOTATION_DOCUMENT")
        header = root.find("HEADER")
        unit = "milliseconds" if header is None else header.attrib.get("TIME_UNITS", "milliseconds")
        if unit != "milliseconds":
            raise ValueError(f"its times are in {unit[:40]}, not in milliseconds")
        slots = {slot.attrib["TIME_SLOT_ID"]: slot.attrib.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
        medium = root.find("HEADER/MEDIA_DESCRIPTOR")
        origin_ms = int("0" if medium is None else medium.attrib.get("TIME_ORIGIN", "0"))
        names = [tier.attrib["TIER_ID"] for tier in root.iter("TIER")]
        if len(names) != len(set(names)):
            raise ValueError("it has two tiers of one name")
        tiers = {tier.attrib["TIER_ID"]: list(tier.iter("ALIGNABLE_ANNOTATION")) for tier in root.iter("TIER")}
        tiers = {name: annotations for name, annotations in tiers.items() if annotations}
        if STEPS not in tiers and len(tiers) > 1:
            raise ValueError(f"it has the tiers {', '.join(sorted(tiers))}, and none is called {STEPS}")
        marks = []
        for annotation in tiers.get(STEPS) or next(iter(tiers.values()), []):
            place = f"{path}, annotation {annotation.attrib['ANNOTATION_ID']}"
            begin, end = (slots[annotation.attrib[f"TIME_SLOT_REF{n}"]] for n in (1, 2))
            if begin is None or end is None:
                raise ValueError(f"annotation {annotation.attrib['ANNOTATION_ID']} has no time")
            step = composed((annotation.findtext("ANNOTATION_VALUE") or "").strip())
            if not step:  # drawn, and not yet named
                continue
            begin_s, end_s = (time_of(origin_ms + int(time)) / 1000 for time in (begin, end))
            marks.append(Mark(begin_s, end_s, "s", step, place))
    except (OSError, ValueError, LookupError, ElementTree.ParseError, RecursionError) as error:
        why = ValueError(f"there is no {error}") if isinstance(error, KeyError) else error
        raise file_error(f"cannot read the labels {path}", why, "save it again in ELAN", path=path) from error
    return {composed(path.stem): marks}
