#!/usr/bin/env bash
# One machine with all its accelerators; the same command goes on after a stop of any kind:
#   experiments/launch/workstation.sh --config=configs/imagenet64.py --workdir=runs/imagenet64-p0.1
# Another line for each restart by hand: keep it going through crashes and restarts of the machine with
#   until experiments/launch/workstation.sh ...; do [ $? = 1 ] && break; done      # 1 is bad input: mend it
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-.venv/bin/python}" -m experiments.train "$@"
