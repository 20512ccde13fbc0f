#!/usr/bin/env bash
# One process of several, in a container: passes SIGTERM on, and ends with 75 where the run has steps left, so that a
# scheduler that takes 0 for done starts it again.
#   experiments/launch/pod.sh --config=configs/imagenet64.py --workdir=/runs/imagenet64-p0.1 --coordinator=HOST:PORT ...
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
"$python" -m experiments.train "$@" &
train=$!
trap 'kill -TERM $train' TERM INT HUP USR1 USR2 XCPU # process 1 of a container hands nothing down by itself
wait $train
status=$?
while kill -0 $train 2>/dev/null; do # a signal ended the wait, not the run
  wait $train
  status=$?
done
[ $status = 0 ] || exit $status
exec "$python" -m experiments.launch.finished "$@"
