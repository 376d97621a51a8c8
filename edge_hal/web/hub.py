"""The pages that are connected. Each has a bounded queue; a page whose queue is full is dropped, the others go on."""

from __future__ import annotations

import asyncio
from collections import deque

PAGES = 32
QUEUE_MESSAGES, QUEUE_BYTES = 2000, 4_000_000


class Page:
    """What waits to be sent to one page."""

    def __init__(self) -> None:
        self.full = asyncio.Event()
        self._waiting: deque[str] = deque()
        self._bytes = 0
        self._some = asyncio.Event()

    def put(self, text: str) -> None:
        if len(self._waiting) >= QUEUE_MESSAGES or self._bytes + len(text) > QUEUE_BYTES:
            self.full.set()
            return
        self._waiting.append(text)
        self._bytes += len(text)
        self._some.set()

    async def next(self) -> str:
        while not self._waiting:
            self._some.clear()
            await self._some.wait()
        text = self._waiting.popleft()
        self._bytes -= len(text)
        return text


class Hub:
    """For the thread of the event loop, except `tell`."""

    def __init__(self) -> None:
        self._pages: set[Page] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Call in the event loop before anything is told."""
        self._loop = asyncio.get_running_loop()

    def join(self) -> Page | None:
        """A new page; None if there are too many."""
        if len(self._pages) >= PAGES:
            return None
        page = Page()
        self._pages.add(page)
        return page

    def leave(self, page: Page) -> None:
        self._pages.discard(page)

    def tell(self, text: str) -> None:
        """Send to all pages; for any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._spread, text)

    def _spread(self, text: str) -> None:
        for page in self._pages:
            page.put(text)
