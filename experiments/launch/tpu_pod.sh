#!/usr/bin/env bash
# A Cloud TPU pod slice: the same command on all of its hosts, which find each other by themselves:
#   TPU=my-v4-32 ZONE=us-central2-b experiments/launch/tpu_pod.sh --config=configs/imagenet64.py --workdir=/runs/imagenet64-p0.1
# On every host: this repository in ~/cfg_jax with its .venv and jax[tpu], /runs and config.data.root on a shared disk
# (Filestore). A preempted slice is made anew and started by the same line.
set -euo pipefail
printf -v flags '%q ' "$@"
exec gcloud compute tpus tpu-vm ssh "${TPU:?the name of the slice}" --zone="${ZONE:?its zone}" --worker=all \
  --command="cd cfg_jax && exec .venv/bin/python -m experiments.train $flags"
