"""Where frames come from: cameras, addresses, videos, folders of pictures, arrays of feature vectors.

To add a source, edit two files here, then document it:

1. `source_spec.py`: a `SourceKind` and how its text is parsed. Nothing else looks at the text of `--camera`.
2. If it is read frame by frame from disk: `file_readers.py`, a `Reader` and its line in `open_file`. If it delivers
   frames in real time: `camera_backends.py`, its capture in `OpenCvCamera` or a new `Camera`.

Pace, threads, the reading process, retries, faults and counts then work without a change. A source that is neither is a
subclass of `Source` (`base.py`) and needs its line in `runtime/open_source.py`, as recordings do.
The text is documented in the help of `--camera` and in `docs/cameras.md`.
"""
