"""Files with pictures, as they come: read alike by the runtime, by training and by scores.

`video_file.py`: the frames of a video file, each at its own time. `stamps.py`: time stamps as numbers. `names.py`:
which files are videos or pictures, and their order.
"""
