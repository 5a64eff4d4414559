"""The search of scenes by the workers of a pool, for ``rsd2 scene --engine ray``.

Planning a scene, searching each of its parts and writing its map are calls for any worker. The
parts and their markers are those of a run without workers, so either continues what the other
began.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from rsd2.engine import select_device
from rsd2.geo.scene_files import SceneFiles
from rsd2.inference.image_detector import ImageDetector
from rsd2.inference.scene_search import ScenePart, SceneReader, search_part
from rsd2.io.ray_pool import Call, Pool, run_calls

from .scene_run import Outcome, PlannedScene, SceneRun, finish_scene, plan_scene


@dataclass(frozen=True)
class SceneWorker:
    """What a worker holds and does.

    Attributes:
        run: settings of the search.
    """

    run: SceneRun

    def start(self, device: str) -> None:
        """Move the model to the worker's device."""
        if isinstance(self.run.detect, ImageDetector):
            self.run.detect.model.to(select_device(device))

    def plan(self, files: SceneFiles, path: Path) -> PlannedScene | str:
        """Return a scene with its parts, or a sentence if its map is up to date."""
        planned = plan_scene(files, path, self.run)
        if isinstance(planned, PlannedScene):
            planned.scene.raster.close()
        return planned

    def search(self, planned: PlannedScene, part: ScenePart) -> int:
        """Search a part; return the number of its detections."""
        scene, counts = planned.scene, [0]
        with scene.raster, SceneReader(scene, 2 * scene.parameters.batch_size) as reader:
            search_part(part, reader, self.run.detect, lambda _, found: counts.append(found))
        return sum(counts)

    def finish(self, planned: PlannedScene) -> str:
        """Write the map of a scene; return a sentence about it."""
        with planned.scene.raster:
            return finish_scene(planned, self.run)


def search_by_workers(
    scenes: Sequence[SceneFiles], maps: Sequence[Path], pool: Pool, num_workers: int
) -> Iterator[Outcome]:
    """Search scenes by workers, with a bar of windows and detections.

    Args:
        scenes: the scenes.
        maps: map of each scene.
        pool: pool whose workers hold a `SceneWorker`.
        num_workers: number of workers, >= 1.

    Yields:
        The outcome of each scene, in the order in which they end.

    Raises:
        RuntimeError: workers cannot be started.
    """
    ahead = iter([Call("plan", pair) for pair in zip(scenes, maps)])
    ready: deque[Call] = deque()
    missing: Counter[Path] = Counter()
    failed: set[Path] = set()

    def next_call() -> Call | None:
        # Scenes that were begun come first, so that maps appear early and few parts lie about.
        return ready.popleft() if ready else next(ahead, None)

    with tqdm(total=0, desc=f"{len(scenes)} scenes", unit="window") as bar:
        detections = 0
        for call, (value, reason) in run_calls(next_call, pool, num_workers):
            first = call.arguments[0]
            path = call.arguments[1] if call.method == "plan" else first.path
            if path in failed:
                continue
            if reason is not None:
                # The first failure is the outcome; the scene's other parts need no search.
                failed.add(path)
                ready = deque(c for c in ready if c.arguments[0] is not first)
                yield Outcome(first.name, reason, failed=True)
            elif isinstance(value, str):
                yield Outcome(first.name, value)
            elif call.method == "plan":
                parts = [part for part in value.parts if not part.is_done()]
                ready.extend(Call("search", (value, part)) for part in parts)
                missing[path] = len(parts)
                bar.total += sum(part.num_windows for part in parts)
            else:
                missing[path] -= 1
                detections += value
                bar.set_postfix(detections=detections, refresh=False)
                bar.update(call.arguments[1].num_windows)

            # After its last part, or at once if all were there.
            if missing.get(path) == 0:
                del missing[path]
                planned = value if call.method == "plan" else first
                ready.appendleft(Call("finish", (planned,)))
