#!/usr/bin/env bash
# The whole story on generated data: set up, draw scenes, propose boxes on them without labels,
# pre-train by MutDet, fine-tune on 10 % and on all of the labels beside training from scratch with
# the same steps and seed, compare, draw what was found.
#
#   bash tools/demo.sh                        # results under output/demo
#   OUTPUT=somewhere bash tools/demo.sh
#   bash tools/demo.sh finetune_steps=100     # other sizes, see run_study.py --list
#
# An interrupted run continues where it stopped. To start over, remove the output folder.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
OUTPUT="${OUTPUT:-output/demo}"
PY="$ROOT/.venv/bin/python"
start="$SECONDS"

bash tools/setup_env.sh
printf 'demo: set-up took %s s\n' "$((SECONDS - start))"

export PYTHONNOUSERSITE=1 PYTHONWARNINGS="ignore::FutureWarning"
"$PY" projects/MutDet/tools/run_study.py --preset demo --output "$OUTPUT" "$@"
printf 'demo: %s s until everything was trained and compared\n' "$((SECONDS - start))"

"$PY" tools/predict.py --config-file "$OUTPUT/finetune/mutdet_100/config.yaml" --ema \
    --weights "$OUTPUT/finetune/mutdet_100/model_final.pth" \
    --input "$OUTPUT/data/synthetic/val/images" --output "$OUTPUT/predictions" --score-threshold 0.3
printf 'demo: done in %s s; look at %s/report.html and results.md\n' \
    "$((SECONDS - start))" "$OUTPUT"
