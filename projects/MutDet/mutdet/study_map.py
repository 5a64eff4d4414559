"""The last step of a study: a detector finds the objects of a harbour with coordinates."""

from __future__ import annotations

from pathlib import Path

from rsd2.study import Job, drawing_job, module_command

_SEED = 0  # no scene of the trainings lies in a harbour of its own
_SCORE_THRESHOLD = 0.3


def harbour_jobs(folder: Path, run: str, side: int) -> list[Job]:
    """List the jobs that draw a georeferenced harbour and map it.

    Args:
        folder: output folder of the study.
        run: name of the fine-tuning, and of its folder, whose detector searches.
        side: of the scene, pixels, a multiple of 16.

    Returns:
        The jobs; the map is ``maps/harbour_<side>.gpkg``, a picture lies beside it.
    """
    name = f"harbour_{side}"
    # One tile as large as the scene, because a harbour of several would have seams.
    look = ("--size", side, "--tile-size", side, "--themes", "marina", "--empty-fraction", 0)
    drawing = drawing_job(
        name,
        folder,
        f"data/{name}",
        "S000000.gpkg",
        images=1,
        seed=_SEED,
        options=("--georeferenced", *look, "--num-workers", 0),
    )

    trained, made = folder / "finetune" / run, f"maps/{name}.gpkg"
    mapping = module_command(
        "rsd2",
        "scene",
        *("--config-file", trained / "config.yaml", "--weights", trained / "model_final.pth"),
        *("--ema", "--input", folder / f"data/{name}/S000000.tif", "--output", folder / made),
        # Windows as large as the images of the training, which overlap by the longest boats.
        *("--window", 128, "--overlap", 48, "--score-threshold", _SCORE_THRESHOLD),
    )
    needs = (name, f"finetune_{run}")
    return [drawing, Job(f"map_{name}", mapping, needs, (made, f"maps/{name}.png"))]
