"""Files as all packages read and write them. `whole.py`: files that are whole or not there. `access.py`: what may be
read and written, and errors of files. `untrusted.py`: files that anybody may have written. The others: one kind of file
each."""

from .access import (
    DENIED,
    FULL,
    NO_TEXT,
    check_place,
    check_readable,
    check_regular,
    check_writable,
    file_error,
    no_folder,
    what_it_is,
)
from .whole import CONTINUE, private, replace_folder, replacing, write_file, write_files

__all__ = [
    "CONTINUE",
    "DENIED",
    "FULL",
    "NO_TEXT",
    "check_place",
    "check_readable",
    "check_regular",
    "check_writable",
    "file_error",
    "no_folder",
    "private",
    "replace_folder",
    "replacing",
    "what_it_is",
    "write_file",
    "write_files",
]
