#!/usr/bin/env bash
# Several machines of a SLURM cluster, a process for each GPU; jax reads the rest from SLURM:
#   sbatch experiments/launch/slurm.sh --config=configs/imagenet64.py --workdir=runs/imagenet64-p0.1
# Submit it where .venv is, on a disk that all nodes share. Sweeps: srun -N1 -n1 --gpus-per-node=8 each, or as many as like.
#SBATCH --job-name=cfg_jax
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
# Not --gpus-per-task: each process takes the GPU of its local number among all of its node.
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
python=${PYTHON:-.venv/bin/python}
before=$("$python" -m experiments.launch.finished "$@")
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 "$python" -m experiments.train "$@"
after=$("$python" -m experiments.launch.finished "$@") && exit 0
if [ "$before" = "$after" ]; then # bad input, or it fails at the same step again: the log above says why
  echo "$after, as before: not started again"
  exit 1
fi
scontrol requeue "$SLURM_JOB_ID" # stopped before its time was up, or a process was lost: it goes on
