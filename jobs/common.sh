# Sourced by every job. Two words are used in them:
#
#   pick PAPER SMALL      the paper's setting; with SMALL=1 one for built-in data, such that a whole job takes minutes
#   run exec_x.py ...     a command of the suite; under Slurm as a step of the job, trainings on all its GPUs
#
# Jobs work in the root of the repository, at SMALL=1 in small/ with models and results of their own, or in WORK_DIR.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
here=${WORK_DIR:-$root${SMALL:+/small}}
mkdir -p "$here"
cd "$here"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-$(nproc)}}"
export PATH="$root/.venv/bin:$PATH"

pick() { if [ -n "${SMALL:-}" ]; then echo "$2"; else echo "$1"; fi; }

# The last epoch of a training, by its folder under models/.
last() { find "models/$1" -name 'model_*.pt' | sort -V | tail -1; }

run() {
    local script=$1 step=() processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}} nodes=${SLURM_NNODES:-1}
    shift
    if [ -n "${SMALL:-}" ] && [[ $script != exec_projections.py && $script != exec_tables.py ]]; then
        set -- "$@" --max-examples 200
    fi
    echo "+ python $script $*" >&2
    if [ -n "${SLURM_JOB_ID:-}" ]; then step=(srun --nodes=1 --ntasks=1); fi
    if [[ $script = exec_train.py && $((processes * nodes)) -gt 1 ]]; then
        together "$@"
    else
        "${step[@]}" python "$root/$script" "$@"
    fi
}

# A training in several processes, on several nodes if the job has them. torchrun does not hand on the exit status 75: what
# saved a position since it was started was interrupted and goes on; what fails without one has failed.
together() {
    local step=() meeting=(--standalone) stamp status=0 word folder=
    stamp=$(mktemp)
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        step=(srun --ntasks-per-node=1)
        meeting=(--nnodes "$nodes" --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint
                 "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -1):$((20000 + SLURM_JOB_ID % 20000))")
    fi
    "${step[@]}" torchrun "${meeting[@]}" --nproc-per-node "$processes" "$root/exec_train.py" "$@" || status=$?
    if [ "$status" != 0 ]; then
        for word in "$@"; do
            if [ "$folder" = next ]; then folder=models/$word; elif [ "$word" = -dir ]; then folder=next; fi
        done
        if [ "$folder/resume.pt" -nt "$stamp" ]; then status=75; fi
    fi
    rm -f "$stamp"
    return "$status"
}

source "$root/jobs/networks.sh"
