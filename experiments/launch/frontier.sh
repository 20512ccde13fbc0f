#!/usr/bin/env bash
# Compare every rule of guidance on two training seeds, after training the models that this takes:
#   experiments/launch/frontier.sh digits
#   experiments/launch/frontier.sh fashion_mnist_16    # its data: docs/rungs.md
set -euo pipefail
cd "$(dirname "$0")/../.."
data=${1:-digits}
case $data in # the steps of a guide of less training and of an inner head; a guide of less capacity; the points of a curve
  digits)
    name=digits early=300 head=600
    small=('--config.model.multipliers=(1,)' '--config.model.attention_resolutions=(8,)')
    points=(--w=0,0.25,1 --config.sampler.num_steps=32)
    ;;
  fashion_mnist_16)
    name=clothes early=1000 head=1000
    small=('--config.model.multipliers=(1,1)' --config.train.num_steps=2000)
    points=(--w=0,0.5,1.5 --config.eval.num_images=400 --config.eval.neighbours=5000)
    ;;
  *) echo "error: $data: choose digits or fashion_mnist_16" >&2 && exit 1 ;;
esac
run() { "${PYTHON:-.venv/bin/python}" -m "experiments.$1" --config="configs/$data.py" "${@:2}"; }
for seed in 0 1; do
  run train --workdir=runs/$name-$seed --config.seed=$seed --config.train.keep_every=$early
  run train --workdir=runs/$name-head-$seed --config.seed=$seed --config.init_from=runs/$name-$seed \
    --config.model.inner_head=True --config.train.inner_head_alone=True --config.train.num_steps=$head
  run train --workdir=runs/$name-small-$seed --config.seed=$seed "${small[@]}"
done
run frontier "${points[@]}" --runs=runs/$name-head-0,runs/$name-head-1 --out=runs/frontier-$name \
  --guides=runs/$name-0@$early,runs/$name-1@$early --curve='inner head: guidance.uncond=inner_head' \
  --curve="smaller guide: guide=runs/$name-small-0,runs/$name-small-1"
