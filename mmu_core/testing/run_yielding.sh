#!/bin/bash
# run_yielding.sh TEST: runs a test with every walk yielding whenever it may.
set -eu
if ! grep -q MMU_HOLD_CLOCK "$1"; then
  echo "$1 does not link //mmu_core/testing:hold_clock: no walk would yield" >&2
  exit 1
fi
MMU_HOLD_CLOCK=leaping exec "$@"
