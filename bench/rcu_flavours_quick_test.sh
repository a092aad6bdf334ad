#!/bin/bash
# Every flavour of liburcu is measured. Nothing here judges a time.
set -euo pipefail

output="$("$1" --quick)"
for flavour in memb mb signal bp qsbr RcuReadGuard; do
  if ! grep -q "^$flavour " <<< "$output"; then
    echo "FAIL: no line of $flavour in:"
    echo "$output"
    exit 1
  fi
done
