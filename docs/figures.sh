#!/usr/bin/env bash
# Follows docs/tutorial.md, command by command, in a folder of its own, and copies the figures that the pages show into docs/:
#
#     bash docs/figures.sh [FOLDER]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
mkdir -p "$work"
cd "$work"
export PATH="$root/.venv/bin:$PATH"
python() { command python "$root/$1" "${@:2}"; }
awk '/^```/ { inside = ($0 == "```bash"); next } inside && /^python /' "$root/docs/tutorial.md" > commands.sh
source commands.sh

oldest() { ls -tr "$@" | head -1; }
cp "$(oldest results/data/digits-*-test.png)" "$root/docs/data.png"
cp "$(oldest results/eval/*.png)" "$root/docs/eval.png"
cp "$(oldest results/ood_layers/*.png)" "$root/docs/ood_layers.png"
cp "$(oldest results/probe/*-layers.png)" "$root/docs/probes.png"
cp "$(oldest results/similarity/*.png)" "$root/docs/similarity.png"
cp "$(oldest results/stitch/a-model_6-a-model_6-*.png)" "$root/docs/stitching.png"
cp "$(oldest results/stitch_ood/*-energies.png)" "$root/docs/stitch_ood.png"
cp "$(oldest results/projections/*-mass.png)" "$root/docs/projections.png"
cp "$(oldest results/reinit/*.png)" "$root/docs/reinit.png"
cp "$(oldest results/ncg/*.png)" "$root/docs/ncg.png"
cp "$(oldest results/tables/*.png)" "$root/docs/network.png"

# 128 colours are enough for charts, and a third of the bytes
command python - "$root"/docs/*.png <<'END'
import sys

from PIL import Image

for path in sys.argv[1:]:
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
END
