"""Every error segclip raises on purpose; a message says what was given, what is allowed, and what
to do.

SegclipError ├── BadImage          not readable as an image, truncated, empty, or over the pixel
limit ├── BadPrompt         a point, box, text or option that cannot be answered ├── BadTable
a list, table, caption or annotation file of the user's that is not as it must be ├── BadIndex
a search index, journal or other record of segclip's own that is damaged or of another version ├──
NotWritable       an output that cannot be written: full disk, no permission, or a place that is not
segclip's ├── Busy              something another process is working on ├── UnknownName       a
preset, proposer, encoder, policy or format that is not in its table ├── WeightsMissing    a weight
file that is not on this machine ├── WeightsCorrupt    a weight file whose bytes are not the
expected ones └── Unsupported       a request that this model or platform cannot serve
"""

_WORDS = 240  # characters of another library's message that are repeated


class SegclipError(Exception):
    """Base of every error segclip raises on purpose."""


class BadImage(SegclipError):
    """Raise for input that is not a readable image within the limits."""


class BadPrompt(SegclipError):
    """Raise for a point, box, text or option that cannot be answered."""


class BadTable(SegclipError):
    """Raise for a list, table, caption or annotation file that is not as it must be; the message
    names the row.
    """


class BadIndex(SegclipError):
    """Raise for a search index, journal or other record of segclip's own that is damaged or of
    another version.
    """


class NotWritable(SegclipError):
    """Raise for an output that cannot be written: a full disk, no permission, or a place that is
    not segclip's.
    """


class Busy(SegclipError):
    """Raise for something that another process is working on."""


class UnknownName(SegclipError):
    """Raise for a name that is not in its table; the message lists the table."""


class WeightsMissing(SegclipError):
    """Raise for a weight file that is not on this machine and may not be fetched."""


class WeightsCorrupt(SegclipError):
    """Raise for a weight file whose bytes are not the expected ones."""


class Unsupported(SegclipError):
    """Raise for a request that this model or platform cannot serve."""


def one_line(error: BaseException | str) -> str:
    """Repeat another library's message in one printable line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = lines[0] if lines else type(error).__name__
    plain = "".join(character if character.isprintable() else "?" for character in words)
    kind = (
        ""
        if isinstance(error, str) or not isinstance(error, KeyError | AssertionError)
        else type(error).__name__
    )
    return f"{kind} {plain}".strip()[:_WORDS]
