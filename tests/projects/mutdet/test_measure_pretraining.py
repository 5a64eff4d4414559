"""What is measured of a pre-training: agreement within images, and who trains the encoder."""

from __future__ import annotations

import pytest

from rsd2.projects.mutdet.measure_pretraining import METRICS, Measurement


@pytest.fixture
def measure(build_pretraining, make_pseudo_batch):
    """Function that measures a tiny model on two batches, without its files."""

    def make(method: str) -> Measurement:
        measurement = Measurement.__new__(Measurement)
        measurement.model = build_pretraining(f"{method}_small_synthetic_pretrain").eval()
        measurement.model.training = True
        measurement.inputs = make_pseudo_batch(4, 3, 1)
        measurement.steps, measurement.batch = 9, 2
        return measurement

    return make


def test_values_are_means_over_images_with_several_objects(measure):
    found = measure("mutdet").agreement()
    assert list(found) == list(METRICS) and None not in found.values()
    assert found["decoder_image_chance"] == pytest.approx(100 * (1 / 4 + 1 / 3) / 2)
    missing = [name for name, value in measure("detreg").agreement().items() if value is None]
    assert missing == ["enhanced_decoder_image_retrieval", "enhanced_encoder_image_retrieval"]


def test_gradients_are_compared_with_those_of_the_plain_run(measure):
    assert set(measure("detreg").gradients()) == {"siamese detection", "alignment"}
    found = measure("mutdet").gradients()
    assert found["siamese detection"]["cosine"] == pytest.approx(1, abs=1e-4)
    assert abs(found["enhanced detection"]["cosine"]) < 1
    assert all(part["length"] > 0 for part in found.values())
