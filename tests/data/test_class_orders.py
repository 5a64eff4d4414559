"""Class lists: the same names in every order, and the one difference that is known of each."""

import pytest

from rsd2.data.class_orders import CLASS_ORDERS, canonical_class_name, class_order
from rsd2.weights.conversion import class_permutation


@pytest.mark.parametrize("dataset", CLASS_ORDERS)
def test_every_order_has_the_same_different_names(dataset):
    names = sorted(class_order(dataset))
    assert len(set(names)) == len(names)
    for toolbox in CLASS_ORDERS[dataset]:
        assert sorted(class_order(dataset, toolbox)) == names


def test_sizes_and_the_place_of_the_dam():
    sizes = {name: len(class_order(name)) for name in CLASS_ORDERS}
    assert sizes == {
        "dota_v1.0": 15,
        "dota_v1.5": 16,
        "dota_v2.0": 18,
        "dior_r": 20,
        "ohd_sjtu_s": 2,
        "ohd_sjtu_l": 6,
        "hrsc2016": 1,
        "hrsc2016_types": 31,
        "fair1m": 37,
        "fair1m_coarse": 5,
        "soda_a": 9,
    }
    assert list(class_order("dior_r", "mutdet")) == sorted(class_order("dior_r"))
    rows = class_permutation(class_order("dior_r", "ars_detr"), class_order("dior_r", "mutdet"))
    assert rows == [0, 1, 2, 3, 4, 5, 8, 6, 7, *range(9, 20)]
    assert class_order("dota_v1.0", "ultralytics")[:3] == ("plane", "ship", "storage-tank")


def test_spelling_does_not_matter_and_unknown_names_stay():
    names = class_order("dior_r")
    for raw in ("Expressway-Service-area", "expressway service area", "EXPRESSWAY_SERVICE_AREA"):
        assert canonical_class_name(raw, names) == "expressway-service-area"
    assert canonical_class_name("Submarine", names) == "Submarine"


def test_unknown_names_are_errors_that_list_the_known_ones():
    with pytest.raises(ValueError, match=r"no class orders of 'dior'; known are dota_v1\.0"):
        class_order("dior")
    with pytest.raises(
        ValueError, match="no class order 'yolo' of dior_r; known are rsd2, alphabetical"
    ):
        class_order("dior_r", "yolo")
