"""Define the errors segclip raises: each message names the input, what is allowed and the remedy.

SegclipError
├── BadImage        not readable as an image, truncated, empty, or over the pixel limit
├── BadPrompt       an unusable point, box, text or option
├── BadTable        an invalid list, table, caption or annotation file of the user's
├── BadIndex        a search index, journal or other segclip record, damaged or of another version
├── NotWritable     an output that cannot be written: full disk, no permission, or not segclip's
├── Busy            something another process is working on
├── UnknownName     a preset, proposer, encoder, policy or format that is not in its table
├── WeightsMissing  a weight file that is not on this machine
├── WeightsCorrupt  a weight file with unexpected bytes
└── Unsupported     a request that this model or platform cannot serve
"""

_MAX_LENGTH = 240  # characters kept of another library's message


class SegclipError(Exception):
    """Base of every error segclip raises on purpose."""


class BadImage(SegclipError):
    """Input that is not a readable image within the limits."""


class BadPrompt(SegclipError):
    """An unusable point, box, text or option."""


class BadTable(SegclipError):
    """An invalid list, table, caption or annotation file; the message names the row."""


class BadIndex(SegclipError):
    """A search index, journal or other segclip record, damaged or of another version."""


class NotWritable(SegclipError):
    """An output that cannot be written: a full disk, no permission, or a path not segclip's."""


class Busy(SegclipError):
    """Something that another process is working on."""


class UnknownName(SegclipError):
    """A name that is not in its table; the message lists the table."""


class WeightsMissing(SegclipError):
    """A weight file that is not on this machine and may not be downloaded."""


class WeightsCorrupt(SegclipError):
    """A weight file with unexpected bytes."""


class Unsupported(SegclipError):
    """A request that this model or platform cannot serve."""


def one_line(error: BaseException | str) -> str:
    """Return another library's message as one printable line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0] if lines else type(error).__name__
    plain = "".join(character if character.isprintable() else "?" for character in message)
    kind = type(error).__name__ if isinstance(error, KeyError | AssertionError) else ""
    return f"{kind} {plain}".strip()[:_MAX_LENGTH]
