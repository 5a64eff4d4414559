#!/usr/bin/env bash
# The main job on generated data: set up, draw scenes, train, evaluate, draw what was found.
#
#   bash tools/demo.sh                        # results under output/demo
#   OUTPUT=somewhere bash tools/demo.sh
#   bash tools/demo.sh train.max_iter=200     # overrides go to the training
#
# An interrupted run continues where it stopped. To start over, remove the output folder.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
OUTPUT="${OUTPUT:-output/demo}"
PY="$ROOT/.venv/bin/python"
CONFIG=configs/rotated_deformable_detr_small_synthetic.py
start="$SECONDS"

bash tools/setup_env.sh
printf 'demo: set-up took %s s\n' "$((SECONDS - start))"

export DETECTRON2_DATASETS="$OUTPUT/data" PYTHONNOUSERSITE=1 PYTHONWARNINGS="ignore::FutureWarning"
"$PY" tools/make_synthetic.py --output "$OUTPUT/data/synthetic/train" --num-images 4000 --size 128 \
    --seed 1 --preview 24
"$PY" tools/make_synthetic.py --output "$OUTPUT/data/synthetic/val" --num-images 200 --size 128 \
    --seed 2
printf 'demo: %s s until the scenes were drawn\n' "$((SECONDS - start))"

# Two processes of one thread each: on small tensors faster than one process of two threads.
OMP_NUM_THREADS=1 "$PY" tools/lazyconfig_train_net.py --config-file "$CONFIG" --resume --num-gpus 2 \
    train.output_dir="$OUTPUT/train" dataloader.evaluator=null "$@"  # evaluated on its own, below
printf 'demo: %s s until the training was done\n' "$((SECONDS - start))"

"$PY" tools/lazyconfig_train_net.py --config-file "$CONFIG" --eval-only \
    train.output_dir="$OUTPUT/eval" "$@" train.init_checkpoint="$OUTPUT/train/model_final.pth"
"$PY" tools/report_run.py --run "$OUTPUT/train" --results "$OUTPUT/eval/results.json" \
    --output "$OUTPUT" --weights ema --score-threshold 0.2
"$PY" tools/predict.py --config-file "$OUTPUT/train/config.yaml" --ema \
    --weights "$OUTPUT/train/model_final.pth" --input "$OUTPUT/data/synthetic/val/images" \
    --output "$OUTPUT/predictions" --score-threshold 0.2
printf 'demo: done in %s s; look at %s/predictions.png, loss_curve.png and results.md\n' \
    "$((SECONDS - start))" "$OUTPUT"
