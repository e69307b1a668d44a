#!/usr/bin/env bash
# What only a GPU can show, within ten minutes of one: the selftest, the tests of devices, products from active rows
# against dense ones, training steps with their floors, the harvest, and a training of the embedded model. Figures go to $OUT (build/gpu by default).
#
#   benchmarks/gpu.sh             on the first GPU
#   benchmarks/gpu.sh --dry-run   on the CPU at tiny sizes, to see that it runs
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-build/gpu}
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=src:packages/xtalk-check/src${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$OUT"

if [ "${1:-}" = --dry-run ]; then
  export XTALK_TEST_DEVICE=cpu
  tests=(-k "products or largest") sizes=(--small) limits=(600 600)
else
  export XTALK_TEST_DEVICE=cuda
  tests=() sizes=() limits=(120 360)
fi

failed=0
if [ "$XTALK_TEST_DEVICE" = cuda ]; then
  timeout 90 "$PYTHON" -m xtalk selftest --device cuda --json >"$OUT/selftest.json" || failed=1
fi
timeout "${limits[0]}" "$PYTHON" -m pytest -q -m device tests/test_devices.py "${tests[@]}" --junitxml "$OUT/tests.xml" || failed=1
timeout "${limits[1]}" "$PYTHON" -m benchmarks.gpu --device "$XTALK_TEST_DEVICE" --out "$OUT" "${sizes[@]}" || failed=1
exit $failed
