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
srun --kill-on-bad-exit=1 "$python" -m experiments.train "$@"
status=$?
[ $status = 1 ] && exit 1 # bad input: said in one line, and the same again
for flag in "$@"; do
  case "$flag" in --workdir=*) "$python" -m experiments.launch.finished "${flag#--workdir=}" && exit 0 ;; esac
done
[ "${SLURM_RESTART_COUNT:-0}" -lt 100 ] || exit $status
scontrol requeue "$SLURM_JOB_ID" # stopped before its time was up, or a node was lost: it goes on
