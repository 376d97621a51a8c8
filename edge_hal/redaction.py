"""What may be shown of a text that can hold a password. Everything that edge-hal prints, logs or publishes passes here.

`redact` is for an argument: an address in any spelling, a pipeline, a path. It shows what cannot be secret, so a
spelling that nobody thought of shows less, not more. `mask` is for free text: messages, tracebacks, log lines. It also
replaces the secrets of arguments that were given to `remember`.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):[/\\]+|[/\\]{2,}")
AT = re.compile(r"@|%(?:25)*40|[＠﹫]", re.IGNORECASE)
"""The end of user and password. A password may contain it, so the last one counts."""
QUERY = re.compile(r"[?#;&\s]|%(?:25)*(?:3f|23|3b|26)|[/\\][^/\\?#;&]*=", re.IGNORECASE)
"""The end of what is shown of a path: a query, a fragment, parameters, or `/user=admin_password=...` as some cameras
have it."""
HOST = re.compile(r"(\[[\w:.%]*\]|[\w.*-]*)(:(\d{1,5}|\*))?(?=[/\\]|$)")
SCRIPT = re.compile(
    r"(?:(?:drop|dup|jitter|freeze|clockstep|seed|hang|unplug)(?:[=@+-]+[\d.]+(?:%|ms|s|m)?){0,4}\s*(?:,\s*|$))+"
)
ENCODER = re.compile(
    r"(?:model\.encoder\.kind=)?(?:efficientnet-lite\d|(?:timm|torchvision):[\w.-]+)@\d{1,4}(?:x\d{1,4})?(?:/\dx\d)?"
)
"""The name of a frame encoder, with the size of its pictures. No host is a number of four digits."""
SECRET_KEY = r"[\w-]*(?:passw|passphrase|pwd|-pw|secret|token|api[_-]?key|signature|credential|auth(?![a-z]))[\w-]*"
SETTING = re.compile(rf"(?i)\b({SECRET_KEY}=)(\"[^\"]*\"|'[^']*'|[^\s,;&]+)")
BEARER = re.compile(r"(?i)\b(basic|bearer|digest)\s+[\w+/=.~-]{6,}")
QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'")
CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
TOKEN = re.compile(r"\S+")
QUOTES, ENDS = "'\"([{<`", "'\")]}>`,.;:"
SHORTEST = 4
"""A shorter part of a secret is not searched for in free text: it would be found everywhere."""
ARG_START, ARG_END = 48 - 3, 49 - 3
"""Positions of `arg_start` and `arg_end` in /proc/self/stat (see proc(5)), counted after the process name."""

_known: dict[str, str] = {}


def redact(text: str) -> str:
    """What may be shown of one argument. `rtsp://user:password@host/path?query` -> `rtsp://host/path`.

    A text without anything that could be secret is returned as it is.
    """
    if ENCODER.fullmatch(text):
        return text
    if text.startswith("fault:"):
        script, _, rest = text[6:].partition(":")
        known = rest and SCRIPT.fullmatch(script)
        return f"fault:{script}:{redact(rest)}" if known else f"fault:{redact(text[6:])}"
    for prefix in ("gst:", "replay:", "csi:", "features:"):
        if text.startswith(prefix):
            return prefix + {"gst:": _pipeline, "features:": _features}.get(prefix, redact)(text.removeprefix(prefix))
    if text.startswith("ipc://"):  # names a file, or a name after @
        return text if re.fullmatch(r"ipc://([/@][^:?#&]*|[^:?#&@]*)", text) else f"ipc://{HIDDEN}"
    scheme = SCHEME.match(text)
    return _without_scheme(text) if scheme is None else _after(scheme, text)


def mask(text: str) -> str:
    """A message, a traceback or a log line without secrets."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, _known[secret])
    text = SETTING.sub(rf"\1{HIDDEN}", BEARER.sub(rf"\1 {HIDDEN}", text))
    return TOKEN.sub(lambda token: _masked_token(token[0]), text)


def visible(text: str) -> str:
    """The text with escapes for characters that a terminal would obey: control characters but line ends and tabs, and
    those that change the direction of writing."""
    return CONTROL.sub(lambda odd: ascii(odd[0])[1:-1], text)


def one_line(text: str) -> str:
    """The text as one line: each character without a shape, line ends among them, becomes an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def mask_all(value: Any) -> Any:
    """`mask` for each text in lists, tuples and dicts; a path becomes a text."""
    if isinstance(value, dict):
        return {key: mask_all(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_all(item) for item in value]
    return mask(str(value)) if isinstance(value, (str, Path)) else value


def remember(argument: str) -> None:
    """Hide the secrets of this argument, as far as `redact` finds any, in all free text from now on."""
    shown = redact(argument)
    if shown == argument:
        return
    _known[argument] = _known[str(Path(argument))] = shown
    for key, value in re.findall(r"([\w-]+)=(\"[^\"]*\"|'[^']*'|[^\s,;&#]+)", argument):
        if "gst:" not in argument or re.fullmatch(SECRET_KEY, key, re.IGNORECASE):
            remember_secret(value.strip("\"'"))
    for after in re.split(r"[?#]", argument)[1:]:
        remember_secret(after)
    for address in re.findall(r"[/\\:]+(.+)", argument) if "gst:" not in argument else re.findall(r"//(\S+)", argument):
        ends = [*AT.finditer(address)]
        if ends:
            name, _, password = re.sub("(?i)%3a", ":", address[: ends[-1].start()]).partition(":")
            if password or not argument.startswith("postgresql"):  # elsewhere a name alone may be a token
                remember_secret(password or name)


def remember_secret(secret: str) -> None:
    """Hide this text, also percent-encoded, in all free text from now on."""
    quoted = (quote(secret, safe, errors="surrogatepass") for safe in ("", "/"))
    for spelling in (secret, unquote(secret), *quoted):
        if len(spelling) >= (6 if spelling.isdigit() else SHORTEST):
            _known[spelling] = HIDDEN


def hide_arguments(words: list[str]) -> None:
    """Overwrite what `redact` does not show of these words in the command line of this process, as `ps` shows it.

    Other users could see it until now. Works on Linux only.
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[ARG_START]), int(fields[ARG_END])
    except (OSError, IndexError, ValueError):
        return
    if not 0 < start < end:
        return
    for word in words:
        covered = _covered(word)
        if covered == word:
            continue
        secret, hidden = (text.encode("utf-8", "surrogateescape") for text in (word, covered))
        found = ctypes.string_at(start, end - start).find(secret)
        while found >= 0:
            ctypes.memmove(start + found, hidden.ljust(len(secret), b"*")[: len(secret)], len(secret))
            found = ctypes.string_at(start, end - start).find(secret)


def _after(scheme: re.Match[str], text: str) -> str:
    """What is shown of an address."""
    rest, start = text[scheme.end() :], f"{scheme[1]}://" if scheme[1] else "//"
    if scheme[0] == f"{scheme[1]}:///":  # a path, as in sqlite:///FILE
        start += "/"
    ends = [*AT.finditer(rest)]
    tail = rest[ends[-1].end() :] if ends else rest
    query = QUERY.search(rest)
    if ends and query and query.start() < ends[-1].start() and HOST.match(rest[: query.start()]):
        return start + HIDDEN  # `h/x?token=a@b` and `name:1/?password@h` look alike
    return start + _place(tail)


def _place(text: str) -> str:
    """Host, port and path."""
    query = QUERY.search(text)
    if query is not None:
        text = text[: query.start()]
    return text if HOST.match(text) else HIDDEN


def _without_scheme(text: str) -> str:
    ends = [*AT.finditer(text)]
    if ends:
        before, tail = text[: ends[-1].start()], text[ends[-1].end() :]
        if re.search(r"[:\\：]|//|%(?:25)*3a", before, re.IGNORECASE) or "/" not in before:
            return f"{HIDDEN}@{_place(tail)}"
    cut = re.search(rf"(?i)[?#&;].*=|{SECRET_KEY}=", text, re.DOTALL)
    return text if cut is None else text[: cut.start()] + HIDDEN


def _features(text: str) -> str:
    """`FILE.npy@HZ`, also in these very words, as hints have them; a file name may hold `:` and `@`."""
    path, _, rate = text.rpartition("@")
    if re.fullmatch(r"[\d.eE+-]{1,12}|HZ", rate) is None:
        return redact(text)
    plain = path.endswith(".npy") and not re.search(r":[/\\]|[/\\]{2}|[?#]", path)
    return f"{path if plain else redact(path)}@{rate}"


def _pipeline(text: str) -> str:
    """The names of the elements of a GStreamer pipeline, because passwords are properties. Nothing is shown after a
    quotation mark without another, because nobody can say where the secret ends."""
    names = []
    for part in re.split(r"(?:^|\s)!(?:\s|$)", QUOTED.sub("''", text)):
        words = part.split()
        if not words or re.fullmatch(r"[A-Za-z][\w-]*", words[0]) is None:
            break
        names.append(words[0])
        if re.search(r"[\"\\]|'(?!')", part.replace("''", "")):
            break
    return " ! ".join(names) or HIDDEN


def _masked_token(token: str) -> str:
    core = token.lstrip(QUOTES)
    start = token[: len(token) - len(core)]
    stripped = core.rstrip(ENDS)
    if re.search(r":[/\\]|^[/\\]{2}", stripped) or (re.search("(?i):|%3a", stripped) and AT.search(stripped)):
        return start + redact(stripped) + core[len(stripped) :]
    return token


def _covered(word: str) -> str:
    """The word with `*` over its secrets, of the same length."""
    option = re.match(r"--?[\w-]+=", word)
    start = option.end() if option else 0
    shown = redact(word[start:])
    if shown == word[start:]:
        return word
    if (script := re.match(rf"fault:(?:{SCRIPT.pattern.replace('$', '(?=:)')}:)?", word[start:])) is not None:
        start, shown = start + script.end(), redact(word[start + script.end() :])
    if (scheme := SCHEME.match(word[start:])) is not None:
        start, shown = start + scheme.end(), shown.partition("//")[2]
    elif (prefix := re.match(r"(gst|replay|csi|features):", word[start:])) is not None:
        start, shown = start + prefix.end(), ""
    secret, hidden = word[start:], "*" * len(word)
    if shown and secret.startswith(shown):  # it hides a query only
        return word[:start] + shown + hidden[start + len(shown) :]
    at = word.rfind(f"@{shown}", start)
    if not shown or HIDDEN in shown or at < 0:
        return word[:start] + hidden[start:]
    end = at + 1 + len(shown)
    return word[:start] + hidden[start:at] + word[at:end] + hidden[end:]
