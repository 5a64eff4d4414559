"""Changes of valid label files that every reader has to understand or to name."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import strategies as st

STRANGE = st.sampled_from([None, True, [], [7], {}, {"a": 1}, "", "x", 1.5, -3, 1e300, 10**400])

byte_changes = {
    "share": st.floats(0, 1, exclude_max=True),
    "length": st.integers(0, 4),
    "inserted": st.binary(max_size=4) | st.sampled_from([b"\0", b"\xff\xfe", b"<", b'"', b"nan"]),
}
"""Arguments of `change_bytes`, drawn at random."""


def change_bytes(content: bytes, share: float, length: int, inserted: bytes) -> bytes:
    """Replace some bytes at a place that is a share of the file."""
    place = int(share * len(content))
    return content[:place] + inserted + content[place + length :]


def retype(content: bytes, seed: int) -> bytes:
    """Shuffle the keys of a JSON file and write numbers as other types of the same value."""
    choose = random.Random(seed)

    def other(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, other(one)) for key, one in value.items()]
            return dict(choose.sample(items, len(items)))
        if isinstance(value, list):
            return [other(one) for one in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return choose.choice([value, str(value), float(value)])
        return value

    return json.dumps(other(json.loads(content))).encode()


def put_strange_value(content: bytes, data: st.DataObject) -> tuple[bytes, Any]:
    """Put a value of a wrong kind at a place of a JSON file, both drawn; the file and the value."""
    whole = owner = json.loads(content)
    while True:
        keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(owner[key], dict | list) or not owner[key] or data.draw(st.booleans()):
            break
        owner = owner[key]
    owner[key] = value = data.draw(STRANGE | st.floats())
    return json.dumps(whole).encode(), value
