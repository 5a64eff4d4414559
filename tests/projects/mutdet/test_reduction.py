"""PCA and k-means: against scikit-learn's exact PCA, by hand, and with wrong input.

Shapes: N objects, F features, D components, K centres.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from rsd2.data.formats.pseudo_labels import PseudoLabelError
from rsd2.projects.mutdet.reduction import Reduction, fit_reduction, load_reduction, unit


def features(count: int = 3000, dim: int = 12, seed: int = 0) -> np.ndarray:
    """Correlated features with a mean far from 0."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((dim, dim)) * np.geomspace(10, 0.1, dim)
    return (rng.standard_normal((count, dim)) @ mixing.T + 50).astype(np.float32)


@pytest.mark.parametrize("whiten", [False, True])
def test_components_are_those_of_pca_whatever_the_batches(whiten: bool) -> None:
    data = features()
    batches = [data[:5], data[:0], data[5:1900], data[1900:2998], data[2998:]]
    found = fit_reduction(batches, 3000, dim=12, num_clusters=3, whiten=whiten)
    exact = PCA(12, whiten=whiten).fit(data.astype(np.float64))
    expected = exact.transform(data.astype(np.float64))
    mine = data @ found.matrix.T + found.offset
    signs = np.sign((mine * expected).sum(axis=0))
    np.testing.assert_allclose(mine * signs, expected, rtol=2e-3, atol=2e-3 * expected.std())
    if whiten:
        np.testing.assert_allclose(mine.std(axis=0), 1, rtol=1e-2)
    embeddings, _ = found.apply(data)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_clusters_are_the_nearest_directions_by_hand() -> None:
    reduction = Reduction(
        np.array([[1, 0, 0], [0, 2, 0]], np.float32),
        np.array([-1, 0], np.float32),
        unit(np.array([[1.0, 0], [0, 3], [-1, -1]])),
    )
    data = np.array([[4, 1, 9], [1, 0.5, 0], [-1, -1, 5], [1, 0, 7]], np.float32)
    embeddings, clusters = reduction.apply(data)
    # (3, 2), (0, 1), (-2, -2), and (0, 0), which has no direction
    expected = [[3 / 13**0.5, 2 / 13**0.5], [0, 1], [-(0.5**0.5), -(0.5**0.5)], [1, 0]]
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    assert clusters.tolist() == [0, 1, 2, 0]
    for array in reduction.apply(data[:0]):
        assert len(array) == 0
    with pytest.raises(PseudoLabelError, match="takes 3 features, there are 2"):
        reduction.apply(data[:, :2])


@pytest.mark.parametrize("kmeans", ["full", "minibatch"])
def test_separate_directions_become_clusters(kmeans: str) -> None:
    rng = np.random.default_rng(1)
    directions = np.eye(4, 6) * 5
    truth = rng.integers(0, 4, 800)
    data = (directions[truth] + 0.1 * rng.standard_normal((800, 6))).astype(np.float32)
    found = fit_reduction([data], 800, dim=3, num_clusters=4, kmeans=kmeans, max_samples=300)
    _, clusters = found.apply(data)
    for cluster in range(4):
        assert len(np.unique(truth[clusters == cluster])) == 1
    assert found.about["objects"] == 800 and found.about["explained_variance"] > 0.95
    np.testing.assert_allclose(np.linalg.norm(found.centers, axis=1), 1, atol=1e-6)


def test_equal_runs_give_equal_files_that_read_back(tmp_path: Path) -> None:
    data, paths = features(600), [tmp_path / "a.npz", tmp_path / "b.npz"]
    for path in paths:
        found = fit_reduction([data], 600, dim=4, num_clusters=5, max_samples=100, about={"x": 1})
        found.save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    read = load_reduction(paths[0])
    assert read.id == found.id and read.about == found.about and read.about["x"] == 1
    for one, two in zip(read.apply(data), found.apply(data)):
        np.testing.assert_array_equal(one, two)
    other = fit_reduction([data], 600, dim=4, num_clusters=5, max_samples=100, seed=1)
    assert other.id != found.id


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")  # of scikit-learn
def test_features_without_variance_do_not_grow() -> None:
    data = features(400, 6)
    data[:, 3:] = 7.0
    found = fit_reduction([data], 400, dim=5, num_clusters=2, whiten=True)
    assert np.isfinite(found.matrix).all() and np.abs(found.matrix).max() < 1e3
    constant = np.full((100, 4), 3.0, np.float32)
    found = fit_reduction([constant], 100, dim=2, num_clusters=1, whiten=True)
    embeddings, clusters = found.apply(constant)
    assert np.isfinite(embeddings).all() and set(clusters) == {0}


def test_too_few_boxes_and_wrong_values() -> None:
    data = features(20, 6)
    with pytest.raises(ValueError, match="20 boxes cannot make 21 clusters; choose fewer --clu"):
        fit_reduction([data], 20, dim=2, num_clusters=21)
    with pytest.raises(ValueError, match="0 boxes cannot make 1"):
        fit_reduction([], 0, dim=1, num_clusters=1)
    with pytest.raises(ValueError, match="7 components.*6 features of 20 objects"):
        fit_reduction([data], 20, dim=7, num_clusters=2)
    with pytest.raises(ValueError, match="7 components.*of 5 objects"):
        fit_reduction([features(5, 12)], 5, dim=7, num_clusters=2)
    for wrong in ({"kmeans": "best"}, {"dim": 0}, {"num_clusters": 0}, {"max_samples": 0}):
        with pytest.raises(ValueError, match="kmeans must be one of"):
            fit_reduction([data], 20, **wrong)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    fit_reduction([features(50)], 50, dim=2, num_clusters=2).save(path)
    for data in (path.read_bytes()[:200], b"x"):
        path.write_bytes(data)
        with pytest.raises(PseudoLabelError, match=str(path)):
            load_reduction(path)
    with pytest.raises(PseudoLabelError, match="none.npz"):
        load_reduction(tmp_path / "none.npz")
