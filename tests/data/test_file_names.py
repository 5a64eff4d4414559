"""Names of files and images, compared as paths."""

from pathlib import Path

import pytest

from rsd2.data.file_names import FolderFiles, NameIndex, list_data_files, list_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``images`` with a linked folder, one that links back, and two names that case tells apart."""
    (tmp_path / "images" / "far").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    for name in ("images/a.png", "images/B.png", "images/b.png", "images/far/c.png", "other/d.png"):
        (tmp_path / name).write_text("")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "other")
    (tmp_path / "images" / "again").symlink_to(tmp_path / "images" / "far")
    (tmp_path / "images" / "far" / "back").symlink_to(tmp_path / "images")
    return tmp_path / "images"


def test_linked_folders_are_followed_once(folder: Path) -> None:
    own = {"a.png", "B.png", "b.png", "far/c.png", "again/c.png", "linked/d.png"}
    found = list_files(folder)
    assert own <= set(found) and len(found) == len(set(found)) < 30


def test_what_programs_leave_beside_images_is_no_data(folder: Path) -> None:
    before = list_data_files(folder)
    for name in ("a.png.aux.xml", "far/C.TIF.AUX.XML", "._a.png", "far/.a.xml"):
        (folder / name).write_text("<PAMDataset/>")
    assert list_data_files(folder) == before and len(list_files(folder)) > len(before)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.png", "a.png"),
        (" ./far//../a.png", "a.png"),
        ("FAR\\C.PNG", "far/c.png"),
        ("linked/d.png", "linked/d.png"),
        ("b.png", "b.png"),
        ("b.PNG", None),
        ("c.png", None),
        ("../other/d.png", "../other/d.png"),
        ("../other/e.png", None),
        ("C:\\data\\images\\far\\c.png", "far/c.png"),
        ("/data/photos/far/c.png", None),
    ],
)
def test_files_of_a_folder(folder: Path, name: str, found: str | None) -> None:
    assert FolderFiles(folder).find(name) == found


def test_absolute_names_here_and_elsewhere(folder: Path) -> None:
    files = FolderFiles(folder)
    assert files.find(f"{folder}/far/./c.png") == "far/c.png"
    assert files.find(f"{folder.parent}/other/d.png") == f"{folder.parent}/other/d.png"


def test_ids_need_no_extension() -> None:
    index = NameIndex(["P1", "far/P2.tif", "v1.5"], with_extension=False)
    assert [index.find(n) for n in ("p1.png", "far\\P2", "V1.5", "/x/far/P2.jpg", "P1.txt")] == [
        *("P1", "far/P2.tif", "v1.5", "far/P2.tif", None)
    ]
