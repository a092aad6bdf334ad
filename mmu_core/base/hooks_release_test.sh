#!/bin/bash
# Code that passes a hook has no trace of it in a release build.
set -euo pipefail

grep -q "mmu::ReleaseProbe" "$1"
if grep hook_fn "$1"; then
  echo "FAIL: a release build must not know of hooks"
  exit 1
fi
