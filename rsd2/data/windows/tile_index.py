"""The index of a tile folder: the place of each tile in its full image, and counts of the cutting.

``tiles.json`` holds ``format``, ``parameters``, ``has_labels``, ``sources``, ``tiles``, ``counts``
and ``problems``. It is written when all images are done; a folder without it is unfinished.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FORMAT = "rsd2-tiles-1"
INDEX_NAME = "tiles.json"


@dataclass(frozen=True)
class Tile:
    """One window: tile pixel = full-image pixel - (x, y).

    Attributes:
        name: file name without extension.
        source_id: name of the full image without extension.
        x: first column in the full image, pixels.
        y: first row in the full image, pixels.
        width: pixels, padding included.
        height: pixels, padding included.
        objects: objects written for this tile.
        truncated: number of objects of which the tile shows only a part.
    """

    name: str
    source_id: str
    x: int
    y: int
    width: int
    height: int
    objects: int
    truncated: int


@dataclass(frozen=True)
class TileSource:
    """One full image.

    Attributes:
        source_id: name without extension.
        width: pixels; 0 if it could not be read.
        height: pixels; 0 if it could not be read.
        objects: number of objects in its label file.
        objects_without_tile: number of objects of which no window shows enough.
        dropped_empty_tiles: number of windows without objects that were not written.
    """

    source_id: str
    width: int
    height: int
    objects: int
    objects_without_tile: int
    dropped_empty_tiles: int


@dataclass(frozen=True)
class TileIndex:
    """Content of ``tiles.json``.

    Attributes:
        parameters: ``TilingParameters.as_dict()`` and the reading policies.
        has_labels: whether the tiles have label files.
        sources: full images, sorted by name.
        tiles: tiles in the order of their sources.
        report: ``LabelReport.as_dict()`` of the cutting.
    """

    parameters: dict
    has_labels: bool
    sources: list[TileSource]
    tiles: list[Tile]
    report: dict

    @property
    def counts(self) -> dict[str, int]:
        """Totals: images, unreadable images, tiles, empty tiles, objects, and so on."""
        return {
            "images": len(self.sources),
            # Images that could not be read, and images whose windows were all empty and dropped.
            "images_without_tiles": len(
                {s.source_id for s in self.sources} - {t.source_id for t in self.tiles}
            ),
            "tiles": len(self.tiles),
            "empty_tiles": sum(tile.objects == 0 for tile in self.tiles),
            "dropped_empty_tiles": sum(s.dropped_empty_tiles for s in self.sources),
            "objects": sum(s.objects for s in self.sources),
            "objects_without_tile": sum(s.objects_without_tile for s in self.sources),
            "objects_in_tiles": sum(tile.objects for tile in self.tiles),
            "truncated_in_tiles": sum(tile.truncated for tile in self.tiles),
        }

    def to_json(self) -> str:
        """Return the text of ``tiles.json``; equal indices give equal text."""
        content = {
            "format": FORMAT,
            "parameters": self.parameters,
            "has_labels": self.has_labels,
            "counts": self.counts,
            "report": self.report,
            "sources": [asdict(source) for source in self.sources],
            "tiles": [asdict(tile) for tile in self.tiles],
        }
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def load(cls, tiles_dir: str | Path) -> TileIndex:
        """Read the index of a tile folder.

        Args:
            tiles_dir: the folder that ``tools/prepare_dota.py`` wrote.

        Returns:
            the index.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the file is broken or of another format.
        """
        path = Path(tiles_dir) / INDEX_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no {INDEX_NAME} in {tiles_dir}: the folder is missing or unfinished; "
                "run tools/prepare_dota.py (again: it resumes)."
            )

        # A file of another version may lack any key, or have others.
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
            return cls(
                parameters=content["parameters"],
                has_labels=content["has_labels"],
                sources=[TileSource(**source) for source in content["sources"]],
                tiles=[Tile(**tile) for tile in content["tiles"]],
                report=content["report"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"Cannot read {path}: {error!r}; run tools/prepare_dota.py again to rewrite it."
            ) from error
