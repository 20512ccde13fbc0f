#!/usr/bin/env bash
# One machine with all its accelerators; the same command goes on after a stop of any kind:
#   experiments/launch/workstation.sh --config=configs/imagenet64.py --workdir=runs/imagenet64-p0.1
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-.venv/bin/python}" -m experiments.train "$@"
