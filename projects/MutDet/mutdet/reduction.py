"""From features to embeddings and pseudo-classes: PCA, unit length, the nearest of k centres.

Source: MutDet's ``step1_5_cluster_and_make_pslabels.py``, which applies y = A x + b,
o = y / |y|, and the centre of the largest cosine. The script that fitted them was not released: PCA
to 256 components and k-means with 256 centres are reported, but not whether the components were
whitened. Here both are scikit-learn's.

Shapes: N objects, F features, D components, K centres.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import IncrementalPCA

from rsd2.data.formats.pseudo_labels import PseudoLabelError
from rsd2.io.arrays import read_arrays
from rsd2.io.files import write_atomically

FORMAT = "rsd2-reduction-1"
KMEANS = {"full": KMeans, "minibatch": MiniBatchKMeans}


@dataclass(frozen=True, eq=False)
class Reduction:
    """A fitted reduction.

    Attributes:
        matrix: (D, F) float32, A; with whitening its rows are divided by the components'
            deviations.
        offset: (D,) float32, b.
        centers: (K, D) float32 unit vectors.
        about: plain values: the features' settings, which later features must share, and numbers of
            the fitting.
    """

    matrix: np.ndarray
    offset: np.ndarray
    centers: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reduce features.

        Args:
            features: (N, F) float32.

        Returns:
            (embeddings (N, D) float32 unit vectors, clusters (N,) int64). Features that reduce to
            the zero vector, which has no direction, get the first component's.

        Raises:
            PseudoLabelError: if F differs from that of the fit.
        """
        if not len(features):
            return np.zeros((0, len(self.matrix)), np.float32), np.zeros(0, np.int64)
        if features.shape[1] != self.matrix.shape[1]:
            raise PseudoLabelError(
                f"the reduction takes {self.matrix.shape[1]} features, there are "
                f"{features.shape[1]}; it was fitted on another backbone"
            )

        embeddings = unit(features @ self.matrix.T + self.offset)
        return embeddings, (embeddings @ self.centers.T).argmax(axis=1)

    def save(self, path: str | Path) -> str:
        """Write the file, whole or not at all; equal reductions give equal bytes.

        Args:
            path: path of the ``.npz`` file.

        Returns:
            The id, a hash of the content.
        """
        text = json.dumps({"format": FORMAT, "about": dict(self.about)}, sort_keys=True)
        stream = io.BytesIO()
        np.savez(
            stream,
            header=np.frombuffer(text.encode("utf-8"), dtype=np.uint8),
            matrix=self.matrix,
            offset=self.offset,
            centers=self.centers,
        )
        write_atomically(path, stream.getvalue())
        return self.id

    @property
    def id(self) -> str:
        """Hash of the numbers, 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for array in (self.matrix, self.offset, self.centers):
            # The numbers alone, so that the id does not depend on the file format.
            digest.update(np.ascontiguousarray(array, dtype=np.float32).tobytes())
        return digest.hexdigest()[:16]


def load_reduction(path: str | Path) -> Reduction:
    """Read a file of `Reduction.save`, without running any code.

    Args:
        path: path of the file.

    Returns:
        The reduction.

    Raises:
        PseudoLabelError: if it is missing, damaged or of another format.
    """
    try:
        content = read_arrays(path)
        header = json.loads(content["header"].tobytes().decode("utf-8"))
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r}, not {FORMAT!r}")
        arrays = [content[name] for name in ("matrix", "offset", "centers")]

        dim = len(arrays[0])
        if arrays[1].shape != (dim,) or arrays[2].shape[1:] != (dim,):
            raise ValueError(f"its arrays have shapes {[a.shape for a in arrays]}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PseudoLabelError(f"{path} cannot be read as a reduction: {error}") from error
    return Reduction(*arrays, about=header["about"])


def fit_reduction(
    batches: Iterable[np.ndarray],
    total: int,
    *,
    dim: int = 256,
    num_clusters: int = 256,
    whiten: bool = True,
    kmeans: str = "minibatch",
    max_samples: int = 200_000,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
) -> Reduction:
    """Fit PCA on all features, and k-means on the embeddings of a sample of them.

    Memory holds one batch, and ``max_samples`` x (F + D) numbers, however many objects there are.

    Args:
        batches: (N_i, F) float32 each, in a fixed order; empty ones are skipped.
        total: N, the sum of all N_i.
        dim: D, at most F and N.
        num_clusters: K, at most N.
        whiten: divide components by their deviations, so that all count alike in the cosine.
        kmeans: ``"minibatch"`` or ``"full"``, both of scikit-learn.
        max_samples: number of objects that k-means sees, drawn uniformly.
        seed: seed of the sample and of k-means.
        about: plain values to keep in the result.

    Returns:
        The reduction.

    Raises:
        ValueError: if there are fewer objects than clusters or components, fewer features than
            components, or ``kmeans`` is unknown.
    """
    if kmeans not in KMEANS or min(dim, num_clusters, max_samples) < 1:
        raise ValueError(
            f"kmeans must be one of {tuple(KMEANS)}, dim, num_clusters and max_samples at least 1; "
            f"got {kmeans!r}, {dim}, {num_clusters} and {max_samples}"
        )
    if total < num_clusters:
        raise ValueError(
            f"{total} boxes cannot make {num_clusters} clusters; choose fewer --clusters, or label "
            "more images"
        )

    pca, rng = IncrementalPCA(n_components=dim), np.random.default_rng(seed)
    # The sample is drawn by index before anything is read, so one pass over the features is
    # enough.
    size = min(total, max(max_samples, num_clusters))
    chosen, seen, sample = np.sort(rng.choice(total, size, replace=False)), 0, []

    for batch in _at_least(batches, max(dim, 1024)):
        if batch.shape[1] < dim or len(batch) < dim:
            raise ValueError(
                f"{dim} components need at least as many features and objects, there are "
                f"{batch.shape[1]} features of {len(batch)} objects; choose a smaller --dim"
            )

        pca.partial_fit(batch)
        here = slice(*np.searchsorted(chosen, (seen, seen + len(batch))))
        sample.append(batch[chosen[here] - seen])
        seen += len(batch)

    assert seen == total, (seen, total)
    matrix = pca.components_
    if whiten:
        # directions without any variance stay as they are, instead of growing without bound
        deviation = np.sqrt(pca.explained_variance_)
        matrix = matrix / np.where(deviation > 1e-6 * deviation[0], deviation, 1)[:, None]

    offset = (-matrix @ pca.mean_).astype(np.float32)
    matrix = matrix.astype(np.float32)
    embeddings = unit(np.concatenate(sample) @ matrix.T + offset)
    model = KMEANS[kmeans](num_clusters, n_init=3, random_state=seed).fit(embeddings)

    numbers = {
        "objects": total,
        "explained_variance": float(pca.explained_variance_ratio_.sum()),
        "whiten": whiten,
        "kmeans": kmeans,
        "seed": seed,
    }
    return Reduction(matrix, offset, unit(model.cluster_centers_), {**(about or {}), **numbers})


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (N, D) to length 1, in float32; zero vectors become the first unit vector."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    result[lengths[:, 0] == 0, 0] = 1
    return result


def _at_least(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Join batches to ones of at least ``size`` rows, if there are so many; PCA needs D rows."""
    waiting: list[np.ndarray] = []
    ready: np.ndarray | None = None
    for batch in batches:
        if len(batch):
            waiting.append(batch)
        if sum(map(len, waiting)) >= size:
            if ready is not None:
                yield ready
            ready, waiting = np.concatenate(waiting), []

    # The last batch may have too few rows, so it is joined with the one before.
    rest = ([] if ready is None else [ready]) + waiting
    if rest:
        yield np.concatenate(rest)
