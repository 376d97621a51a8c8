"""A station: several streams in one process, at one address.

`options.py` is what a station can be told, `stream_thread.py` runs one stream again and again, `run.py` starts, changes
and ends the streams.
"""
