"""NPZ files: read whole, or refused with one kind of error."""

import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsd2.io.arrays import ArrayFileError, read_arrays


def test_all_or_some_arrays_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.ones((2, 2)))
    assert set(read_arrays(tmp_path / "a.npz")) == {"x", "y"}
    (x,) = read_arrays(tmp_path / "a.npz", ["x"]).values()
    assert x.tolist() == [0, 1, 2]
    with pytest.raises(ArrayFileError, match=r"a\.npz.*z"):
        read_arrays(tmp_path / "a.npz", ["z"])
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "b.npz")


@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), end=st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_wrong_ends_in_one_error(tmp_path, place, byte, end):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, scores=np.arange(50.0), names=np.array(["a", "bc"]))
    content = bytearray(path.read_bytes())
    place %= len(content)
    if end:
        content = content[:place]
    else:
        content[place] = byte
    path.write_bytes(bytes(content))
    try:
        read_arrays(path)
    except ArrayFileError as error:
        assert "a.npz" in str(error)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1180591620717411303424,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3, }",
        "{[]: 1}",
    ],
)
def test_headers_that_make_no_sense_are_damage(tmp_path, header):
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(ArrayFileError, match=r"a\.npz"):
        read_arrays(tmp_path / "a.npz")


def test_what_is_no_damage_stays_what_it_is(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    with pytest.raises(ArrayFileError, match=r"a\.npy"):
        read_arrays(tmp_path / "a.npy")
    with pytest.raises(TypeError):
        read_arrays(None)


def test_pickles_are_not_run(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ArrayFileError, match="pickle"):
        read_arrays(tmp_path / "a.npz")
