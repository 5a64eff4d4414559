"""The text reader: one rule for marks, encodings and binary files, and where reading failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsd2.io.text import (
    ENCODINGS_VARIABLE,
    TextError,
    decode_text,
    read_json,
    read_lines,
    read_text,
)

TEXT = "10 20 30 40 Löschboot 渔船\nb\n"
CHINESE = "10 20 30 40 渔船\nb\n"


@pytest.fixture(autouse=True)
def no_choice_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENCODINGS_VARIABLE, raising=False)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030"]
)
def test_text_is_the_same_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode(encoding))
    assert read_text(path) == TEXT
    path.write_bytes(TEXT.replace("\n", "\r\n").encode(encoding))
    assert read_lines(path) == TEXT.split("\n")


def test_marked_big_endian_text_is_read(tmp_path: Path) -> None:
    for mark, encoding in ((b"\xfe\xff", "utf-16-be"), (b"\x00\x00\xfe\xff", "utf-32-be")):
        assert decode_text(mark + TEXT.encode(encoding), "a") == TEXT


def test_gbk_is_read_unless_the_user_names_other_encodings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode_text(CHINESE.encode("gbk"), "a") == CHINESE
    japanese = "1 2 漁船ー\n"
    assert decode_text(japanese.encode("shift_jis"), "a", encodings=["shift_jis"]) == japanese
    monkeypatch.setenv(ENCODINGS_VARIABLE, "ascii, shift_jis")
    assert decode_text(japanese.encode("shift_jis"), "a") == japanese
    monkeypatch.setenv(ENCODINGS_VARIABLE, "")
    with pytest.raises(TextError, match=r"^a:1: no text in UTF-8 \(byte 13 is 0xd3\); save"):
        decode_text(CHINESE.encode("gbk"), "a")
    monkeypatch.setenv(ENCODINGS_VARIABLE, "klingon")
    with pytest.raises(TextError, match=f"no encoding 'klingon'; correct {ENCODINGS_VARIABLE}"):
        decode_text(CHINESE.encode("gbk"), "a")


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"a\nb\xff\xff\n", 2, "no text in UTF-8 or gb18030 (byte 4 is 0xff); save the file as"),
        (b"\xef\xbb\xbfa\n\xff", 2, "no text in UTF-8, which its byte-order mark announces"),
        ("\ufeffa\nb".encode("utf-16-le")[:-1], 2, "no text in UTF-16, which its byte-order"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", 3, "binary data (byte 9 is zero)"),
        (b"\xef\xbb\xbfa\n\x00b", 2, "binary data"),
        (b"\xff\xd8\xff\xe0\x01", 1, "no text in UTF-8"),
    ],
)
def test_what_is_no_text_is_named_with_line_and_remedy(
    tmp_path: Path, data: bytes, line: int, words: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(TextError) as caught:
        read_text(path)
    assert str(caught.value).startswith(f"{path}:{line}: ") and words in str(caught.value)
    assert caught.value.line == line
    assert "get it again or remove it" in str(caught.value) or "save the file as" in str(
        caught.value
    )


def test_folders_and_absent_files(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"cannot read the file \(Is a directory\); make it a"):
        read_text(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file .*a\.txt; correct the path"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("declared", ["gb2312", "GBK", "Big5", "Shift_JIS", "euc-kr", "iso-8859-1"])
def test_xml_follows_its_declaration(declared: str) -> None:
    name = {"Big5": "漁船", "Shift_JIS": "漁船ー", "euc-kr": "어선", "iso-8859-1": "Löschboot"}
    text = f"<?xml version='1.0' encoding='{declared}'?>\n<a>{name.get(declared, '渔船')}</a>"
    assert decode_text(text.encode(declared), "a", is_xml=True) == text


@pytest.mark.parametrize("declared", ["utf-16", "gb2312", "no-such-encoding", "base64"])
def test_a_wrong_declaration_does_not_hide_text_in_utf8(declared: str) -> None:
    # é in UTF-8 would be 茅 in GB2312
    text = f'<?xml version="1.0" encoding="{declared}"?>\n<a>é</a>'
    assert decode_text(text.encode(), "a", is_xml=True) == text


def test_json_is_named_by_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": "渔船"}', encoding="utf-16")
    assert read_json(path) == {"a": "渔船"}
    path.write_text('{"a":\n }')
    with pytest.raises(TextError, match=r"a\.json:2:2: not valid JSON \(Expecting value\); .*cut"):
        read_json(path)
    for endless in ("[" * 100_000, "[" + "1" * 5000 + "]"):
        path.write_text(endless)
        with pytest.raises(TextError, match=r"a\.json: not valid JSON"):
            read_json(path)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_text_or_a_named_error(data: bytes, is_xml: bool) -> None:
    try:
        text = decode_text(data, "a.txt", is_xml=is_xml)
    except TextError as error:
        assert str(error).startswith("a.txt:") and error.line >= 1
    else:
        assert "\0" not in text
