"""Text that people and other tools wrote: label files, lists, JSON, XML, in whatever encoding.

A byte-order mark decides. Without one, the reader tries UTF-8, or UTF-16 if every other byte is
zero, and then the encodings that the user names in ``RSD2_TEXT_ENCODINGS``, by default GB18030,
which contains GBK and GB2312. A file that cannot be read raises a `TextError` with file, line and
remedy, never a bare decoding error.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ENCODINGS_VARIABLE = "RSD2_TEXT_ENCODINGS"
"""Environment variable: encodings to try after UTF-8 and UTF-16, separated by commas."""
DEFAULT_ENCODINGS = ("gb18030",)

# The mark of UTF-32 begins like that of UTF-16, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NOT_IN_TEXT = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f]")
_XML_ENCODING = re.compile(rb"\A\s*<\?xml[^>]*?\bencoding\s*=\s*[\"']([\w.:-]+)[\"']")
# Programs that declare the smaller set write characters of the larger one, too.
_SUPERSETS = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "big5": "big5hkscs",
    "euc_kr": "cp949",
}


class TextError(ValueError):
    """A file that cannot be read as text; the message names file, line and remedy.

    Attributes:
        line: 1-based number of the line where reading failed, or None.
        reason: message without file and line.
    """

    def __init__(self, source: str | Path, line: int | None, reason: str, column: str = "") -> None:
        """Compose the message."""
        self.line, self.reason = line, reason
        super().__init__(f"{source}{'' if line is None else f':{line}'}{column}: {reason}")


def read_text(
    path: str | Path, *, encodings: Sequence[str] | None = None, is_xml: bool = False
) -> str:
    """Read a whole file as text.

    Args:
        path: path of the file.
        encodings: encodings to try in this order after UTF-8 and UTF-16; None takes those of the
            environment variable ``RSD2_TEXT_ENCODINGS``, or GB18030 if it is not set.
        is_xml: try the encoding of an XML declaration before ``encodings``. Text that is valid in
            UTF-8 is read as UTF-8, because programs often save it under another declaration.

    Returns:
        the text without byte-order mark, line ends as in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        TextError: if it is a folder, cannot be opened, or is not text in any of the encodings.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}; correct the path.") from None
    except OSError as error:
        reason = error.strerror or error
        message = f"cannot read the file ({reason}); make it a readable text file"
        raise TextError(path, None, message) from error

    return decode_text(data, path, encodings=encodings, is_xml=is_xml)


def decode_text(
    data: bytes,
    source: str | Path,
    *,
    encodings: Sequence[str] | None = None,
    is_xml: bool = False,
) -> str:
    """Turn the bytes of a file, or of a member of an archive, into text.

    Args:
        data: all bytes of the file.
        source: name of the file, for messages.
        encodings: encodings to try, see `read_text`.
        is_xml: whether the text is XML, see `read_text`.

    Returns:
        the text, see `read_text`.

    Raises:
        TextError: if it is not text in any of the encodings, or one of them is unknown.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode_marked(data, mark, encoding, source)

    # A zero byte is valid in UTF-8, so UTF-16 has to be ruled out first.
    if b"\0" in data:
        return _decode_unmarked_utf16(data, source)

    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        first_bad = error.start

    chosen = _chosen_encodings() if encodings is None else tuple(encodings)
    if is_xml:
        chosen = (*_declared_encodings(data), *chosen)

    for encoding in chosen:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        except LookupError:
            message = (
                f"there is no encoding {encoding!r}; correct {ENCODINGS_VARIABLE}, for example"
            )
            raise TextError(source, None, f"{message} to gbk,big5,shift_jis") from None

        # Encodings of single bytes decode anything; control characters give binary data away.
        if not _NOT_IN_TEXT.search(text):
            return text

    line = data.count(b"\n", 0, first_bad) + 1
    tried = " or ".join(["UTF-8", *chosen])
    raise TextError(
        source,
        line,
        f"no text in {tried} (byte {first_bad + 1} is 0x{data[first_bad]:02x}); save the file as "
        f"UTF-8, or name its encoding in the variable {ENCODINGS_VARIABLE}, for example big5",
    )


def read_lines(path: str | Path) -> list[str]:
    """Read a text file line by line.

    Args:
        path: path of the file.

    Returns:
        the lines without their ends, whatever system wrote them; line k of an editor is entry
        k - 1.

    Raises:
        FileNotFoundError: see `read_text`.
        TextError: see `read_text`.
    """
    return split_lines(read_text(path))


def split_lines(text: str) -> list[str]:
    """Split text at the line ends of all systems, as editors do.

    Args:
        text: any text.

    Returns:
        the lines without their ends; unlike ``str.splitlines``, rare separators such as U+2028 do
        not shift the line numbers.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Args:
        path: path of the file.

    Returns:
        parsed content of the file.

    Raises:
        FileNotFoundError: see `read_text`.
        TextError: if it is not text, or not valid JSON; the message has line and column.
    """
    text = read_text(path)
    remedy = "the file is broken or was cut off, get it again."
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message, column = f"not valid JSON ({error.msg}); {remedy}", f":{error.colno}"
        raise TextError(path, error.lineno, message, column) from error
    except (ValueError, RecursionError) as error:  # a number too long, or a nesting too deep
        raise TextError(path, None, f"not valid JSON ({error}); {remedy}") from error


def _chosen_encodings() -> tuple[str, ...]:
    """Return the user's encodings, which are tried after UTF-8 and UTF-16."""
    names = os.environ.get(ENCODINGS_VARIABLE)
    if names is None:
        return DEFAULT_ENCODINGS

    return tuple(name.strip() for name in names.split(",") if name.strip())


def _decode_marked(data: bytes, mark: bytes, encoding: str, source: str | Path) -> str:
    content = data[len(mark) :]
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        # Up to the failure the text is valid, so its line ends can be counted after decoding.
        before = content[: error.start].decode(encoding)
        raise TextError(
            source,
            before.count("\n") + 1,
            f"no text in {encoding[:6].rstrip('-').upper()}, which its byte-order mark announces "
            f"(byte {len(mark) + error.start + 1}: {error.reason}); save the file as UTF-8",
        ) from error
    if "\0" in text:
        raise _binary(data, source)
    return text


def _declared_encodings(data: bytes) -> tuple[str, ...]:
    """Return the encoding that an XML declaration names, or nothing if Python lacks it."""
    declared = _XML_ENCODING.match(data)
    try:
        # UTF-8 was tried before, so without declaration nothing is left to try.
        codec = codecs.lookup(declared[1].decode("ascii")).name if declared else "utf-8"
        # A declaration that can be read byte by byte is not in UTF-16, whatever it says.
        if codec.startswith("utf") or b"a".decode(codec) != "a":
            return ()
    except (LookupError, UnicodeDecodeError):
        return ()
    return (_SUPERSETS.get(codec, codec),)


def _decode_unmarked_utf16(data: bytes, source: str | Path) -> str:
    """Decode UTF-16 without byte-order mark, in which Latin text has every other byte zero."""
    low, high = data[1::2].count(0), data[::2].count(0)
    # More than a quarter of the characters is Latin: classes may be Chinese, coordinates are not.
    if 4 * max(low, high) > len(data) // 2:
        try:
            text = data.decode("utf-16-le" if low > high else "utf-16-be")
        except UnicodeDecodeError:
            text = "\0"
        if not _NOT_IN_TEXT.search(text):
            return text
    raise _binary(data, source)


def _binary(data: bytes, source: str | Path) -> TextError:
    place = data.index(b"\0")
    line = data.count(b"\n", 0, place) + 1
    return TextError(
        source,
        line,
        f"no text in UTF-8 or UTF-16 but binary data (byte {place + 1} is zero); it is another "
        "kind of file or was damaged, get it again or remove it",
    )
