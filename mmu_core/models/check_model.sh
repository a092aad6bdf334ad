#!/bin/bash
# Checks a Promela model with spin, as designed and with steps left out.
#
#   check_model.sh MODEL.pml [STEP...]
#
# As designed it must hold, in every interleaving. For each STEP, a macro that
# leaves one step out, an assertion must fail: otherwise the model does not show
# what the step is for.
set -euo pipefail

model="$(realpath "$1")"
shift
work="$(mktemp -d "${TEST_TMPDIR:-/tmp}/model.XXXXXX")"
trap 'rm -rf "$work"' EXIT
cd "$work"

# verdict OPTIMISATION [-DMACRO]: writes the verdict of `spin` on the model with
# the given macro to stdout.
verdict() {
  local optimisation="$1"
  shift
  rm -f pan* ./*.trail
  spin "$@" -a "$model" > spin.log || { cat spin.log >&2; exit 2; }
  gcc "$optimisation" -w -DSAFETY -DCOLLAPSE -o pan pan.c
  ./pan -n -m200000
}

fail=0
verdict -O2 > out.log
if ! grep -q 'errors: 0' out.log || grep -q 'max search depth too small' out.log
then
  echo "FAIL: as designed"
  cat out.log
  fail=1
else
  echo "as designed: holds in $(grep -o '[0-9]* states, stored' out.log)"
fi
for step in "$@"; do
  # The search ends at the first error: compiling would take most of the time.
  verdict -O0 "-D$step" > out.log
  if grep -q 'assertion violated' out.log; then
    echo "$step: $(grep -m1 -o 'assertion violated.*' out.log)"
  else
    echo "FAIL: with $step the model still holds"
    cat out.log
    fail=1
  fi
done
exit "$fail"
