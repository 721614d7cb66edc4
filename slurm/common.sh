# What the jobs of this folder share. They read it where they are submitted: in the folder that holds slurm/.
set -euo pipefail
: "${SLURM_JOB_ID:?submit the .sbatch file with sbatch}"

# Your environment, unless you submit with it: module load ..., or VENV=/path/to/venv
if [ -n "${VENV:-}" ]; then source "$VENV/bin/activate"; fi

HEAD=$(hostname)                       # a job's script runs on the first of its nodes
PORT=$((20000 + SLURM_JOB_ID % 10000)) # of this job alone, where several share a node
GPUS=${SLURM_GPUS_ON_NODE:-1}
export OMP_NUM_THREADS=$((${SLURM_CPUS_PER_TASK:-1} / GPUS > 1 ? SLURM_CPUS_PER_TASK / GPUS : 1))
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi

# A minute before a job's time is over (--signal=B:USR1@60) it goes back into the queue, and its --resume goes on.
again() {
  if ((${SLURM_RESTART_COUNT:-0} < ${RESTARTS:-20})); then scontrol requeue "$SLURM_JOB_ID"; fi
}
trap again USR1

# In the background, because bash hears a signal only while it waits; the second wait is for one that was interrupted.
run() {
  "$@" &
  wait $! || wait $!
}

# A verb on all GPUs of the job: one torchrun a node, one process a GPU.
on_gpus() {
  run srun torchrun --nnodes="${SLURM_NNODES:-1}" --nproc-per-node="$GPUS" --rdzv-backend=c10d \
    --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$HEAD:$PORT" -m tiir "$@"
}

# Of several names, the one of this task of a job array.
mine() {
  local names n=${SLURM_ARRAY_TASK_ID:-0}
  read -ra names <<<"$1"
  echo "${names[n]:?array task $n: there are only ${#names[@]} of \"$1\"}"
}
