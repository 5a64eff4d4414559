"""Shares of the labels: nested, the same whatever the order, hashed; lists that were damaged."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.data.splits import (
    choose_share,
    digest_of,
    get_dataset_dicts,
    read_split,
    select_images,
    write_split,
)

IDS = [f"{index:05d}" for index in range(1, 201)]


def test_shares_are_nested_independent_of_order_and_differ_by_seed():
    quarter, tenth = choose_share(IDS, 0.25), choose_share(IDS, 0.1)
    assert len(quarter) == 50 and len(tenth) == 20 and set(tenth) < set(quarter)
    assert choose_share(reversed(IDS + IDS), 0.1) == tenth
    assert choose_share(IDS, 1.0) == IDS
    assert len(set(choose_share(IDS, 0.1, seed=1)) & set(tenth)) < 10
    assert len(choose_share(IDS, 1e-6)) == 1 and len(choose_share(IDS[:30], 0.1)) == 3
    for fraction in (0, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"fraction in \(0, 1\]"):
            choose_share(IDS, fraction)


def test_the_choice_is_that_of_every_machine_and_version():
    # `printf 0:a | sha256sum` and so on begin with 9d, e0, be, 7d, e0
    assert choose_share(["a", "b", "c", "d", "e"], 0.4, seed=0) == ["a", "d"]
    # as `printf 'a\\nb\\n' | sha256sum` says
    assert digest_of(["b", "a"]).startswith("911169ddaaf146aff539f58c26c489af")


def test_list_round_trip_and_damage(tmp_path):
    path = tmp_path / "ten.txt"
    digest = write_split(path, ["b", "a"], ["of something"])
    assert read_split(path) == ["a", "b"] and digest == digest_of(["a", "b"])
    assert path.read_text().splitlines()[0] == "# of something"
    path.write_text(path.read_text() + "c\n")
    with pytest.raises(ValueError, match=r"3 ids of .*ten\.txt have another hash"):
        read_split(path)
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="names no image"):
        read_split(path)
    path.write_text("x\r\ny\r\n")
    assert read_split(path) == ["x", "y"], "a list of one's own needs no hash"
    with pytest.raises(FileNotFoundError, match=r"make_split\.py"):
        read_split(tmp_path / "absent.txt")


def record(image_id, objects=1, tile=None):
    annotations = [{"category_id": 0, "iscrowd": 0}] * objects
    extra = {} if tile is None else {"tile": {"source_id": tile}}
    return {"image_id": image_id, "annotations": annotations, **extra}


def test_tiles_are_chosen_by_their_source_image():
    tiles = [record(f"{source}_{k}", tile=source) for source in "abc" for k in range(3)]
    chosen = select_images(tiles, ["a", "c"], "list")
    assert [r["image_id"] for r in chosen] == ["a_0", "a_1", "a_2", "c_0", "c_1", "c_2"]
    with pytest.raises(ValueError, match="1 of the 2 images of list are not in the .*'a_0'"):
        select_images(tiles, ["a", "a_0"], "list")


def test_lists_name_images_by_paths_in_any_spelling():
    records = [record(name) for name in ("P0001", "far/P0002", "v.1", "V.2")]
    for listed in ("./P0001", "p0001", "P0001.png", "x/../P0001.TIF", "/data/images/P0001.png"):
        assert select_images(records, [listed], "list") == records[:1]
    assert select_images(records, ["far\\P0002.png", "v.2"], "list") == [records[1], records[3]]
    with pytest.raises(ValueError, match="'far/P0001'"):
        select_images(records, ["far/P0001"], "list")
    with pytest.raises(ValueError, match="'p1'"):  # which of the two cannot be told
        select_images([record("P1"), record("P1.png")], ["p1"], "list")


@pytest.fixture
def dataset():
    name = "set_to_split"
    DatasetCatalog.register(name, lambda: [record(x, objects=int(x) % 2) for x in IDS])
    MetadataCatalog.get(name).thing_classes = ["ship"]
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_data_set_by_fraction_equals_data_set_by_list(dataset, tmp_path, caplog):
    everything = get_dataset_dicts(dataset)
    assert [r["image_id"] for r in everything] == IDS
    with caplog.at_level("INFO"):
        tenth = get_dataset_dicts([dataset], fraction=0.1)
    assert [r["image_id"] for r in tenth] == choose_share(IDS, 0.1)
    assert digest_of(choose_share(IDS, 0.1)) in caplog.text and "20 of 200" in caplog.text
    write_split(tmp_path / "ten.txt", choose_share(IDS, 0.1))
    assert get_dataset_dicts(dataset, split_file=tmp_path / "ten.txt") == tenth
    full = get_dataset_dicts(dataset, fraction=0.1, filter_empty=True)
    assert full == [r for r in tenth if r["annotations"]] and len(full) < 20
    with pytest.raises(ValueError, match="not both"):
        get_dataset_dicts(dataset, fraction=0.1, split_file=tmp_path / "ten.txt")
    with pytest.raises(ValueError, match="no data set is named"):
        get_dataset_dicts([])
    (tmp_path / "one.txt").write_text("00002\n")
    with pytest.raises(ValueError, match="no image of set_to_split is left"):
        get_dataset_dicts(dataset, split_file=tmp_path / "one.txt", filter_empty=True)
