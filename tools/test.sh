#!/usr/bin/env bash
# Everything that must pass before a change lands: set-up, lint, types, import without Detectron2,
# documentation, tests.
#
#   bash tools/test.sh                       # all
#   bash tools/test.sh tests/ops -k iou      # arguments go to pytest
#   RSD2_TEST_WORKERS=0 bash tools/test.sh   # tests in one process (for a debugger)
#
# Ends with a summary; the exit status is 0 only if every step passed.
set -uo pipefail
exec </dev/null

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT" || exit 1
PY="$ROOT/.venv/bin/python"
export PRE_COMMIT_HOME="$ROOT/.venv/pre-commit" PYTHONNOUSERSITE=1
unset PYTHONPATH
# Before OMP_NUM_THREADS is set, which nproc takes for the number of cores.
CORES="$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2)"
# The tensors of the tests are tiny: one thread for each worker is faster than threads that wait.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"
WORKERS="${RSD2_TEST_WORKERS:-$((CORES < 8 ? CORES : 8))}"

SUMMARY=()
FAILED=0

step() { # step <name> <command...>: run it, remember how it went
    local name="$1" start="$SECONDS" status=0
    shift
    printf '\n== %s\n' "$name"
    "$@" || status=$?
    if [ "$status" -eq 0 ]; then
        SUMMARY+=("ok      $name ($((SECONDS - start)) s)")
    else
        SUMMARY+=("FAILED  $name (status $status, $((SECONDS - start)) s)")
        FAILED=1
    fi
    return "$status"
}

finish() {
    printf '\n== summary\n'
    printf '%s\n' "${SUMMARY[@]}"
    exit "$FAILED"
}

is_git_checkout() {
    [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$ROOT" ] && [ -n "$(git ls-files | head -n 1)" ]
}

lint() {
    if is_git_checkout; then
        "$PY" -m pre_commit run --all-files --show-diff-on-failure
        return
    fi
    local status=0
    "$PY" -m ruff check . || status=1
    "$PY" -m ruff format --check . || status=1
    "$PY" -m codespell_lib || status=1
    return "$status"
}

types() {
    "$PY" -m mypy
}

# These parts promise to work where Detectron2 is not installed.
import_without_detectron2() {
    "$PY" - <<'PY'
import importlib
import pathlib
import sys


class Blocker:
    """Makes every import of Detectron2 fail, as on a machine that lacks it."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "detectron2":
            raise ModuleNotFoundError(f"No module named '{name}' (blocked)", name=name)


sys.meta_path.insert(0, Blocker())
bound = {  # the evaluators
    *("aitod", "classification", "coco", "dota", "drone_crowd", "evaluator", "moving_object"),
    *("soda", "tiny"),
}
names = ["rsd2.env", "rsd2.io", "rsd2.ops", "rsd2.structures", "rsd2.evaluation"]
for path in sorted(pathlib.Path("rsd2/evaluation").rglob("*.py")):
    module = path.with_suffix("")
    if module.name != "__init__" and not (module.parent.name == "evaluation" and module.name in bound):
        names.append(".".join(module.parts))
# detection in images, videos and scenes, but for what holds a trained model or reads datasets
for path in sorted(pathlib.Path("rsd2/inference").glob("*.py")):
    if path.stem not in ("__init__", "image_detector", "clip_detector", "detector", "scene_scoring"):
        names.append(f"rsd2.inference.{path.stem}")
names += [f"rsd2.io.{path.stem}" for path in sorted(pathlib.Path("rsd2/io").glob("[!_]*.py"))]
names.append("rsd2.data.windows.tiling")
for name in names:
    importlib.import_module(name)
    print("imports without Detectron2:", name)
PY
}

# Warnings, broken links among them, are errors. Newer releases of the site's builder need Python 3.11.
documentation() {
    if "$PY" -c 'import mkdocs, mkdocstrings' 2>/dev/null; then
        NO_MKDOCS_2_WARNING=1 "$PY" -m mkdocs build --strict
    else
        printf '%s\n' "mkdocs is not installed: the site is not built"
    fi
}

run_tests() {
    local parallel=()
    # The pages of the documents come last and take minutes each: an idle worker takes its share.
    [ "$WORKERS" -gt 1 ] && parallel=(-n "$WORKERS" --dist worksteal)
    "$PY" -m pytest "${parallel[@]+"${parallel[@]}"}" "$@"
}

step "set-up" bash tools/setup_env.sh || finish
step "lint" lint
step "types" types
step "import without Detectron2" import_without_detectron2
step "documentation" documentation
step "tests" run_tests "$@"
finish
