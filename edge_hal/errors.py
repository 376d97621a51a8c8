"""The error that users see: what happened, why, and what to do next."""

from __future__ import annotations

from edge_hal.redaction import mask, visible

LONGEST = 4000
"""Characters of each part of an error. It may quote a file of any size."""


class EdgeHalError(Exception):
    """A failure the user can act on. The command line prints it and exits; it never shows a traceback. Its texts hold
    no password and no token of an address, and nothing that a terminal would obey.

    Args:
        what: what happened, in one clause that names the file, key or address.
        why: the cause, if it is known and not part of `what`.
        todo: what to do next, if possible a command.
        exit_code: 1 if the work failed, 2 if the command was used wrongly.
    """

    def __init__(self, what: str, why: str = "", todo: str = "", *, exit_code: int = 1) -> None:
        self.what, self.why, self.todo = (_shortened(text) for text in (what, why, todo))
        self.exit_code = exit_code
        super().__init__(self.__str__())

    def __str__(self) -> str:
        text = self.what if not self.why else f"{self.what}: {self.why}"
        return text if not self.todo else f"{text}\n  -> {self.todo}"


def _shortened(text: str) -> str:
    shown = visible(mask(text[: 4 * LONGEST]))  # masking may shorten it
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."
