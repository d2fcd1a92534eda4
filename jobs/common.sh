# Sourced by every job. Two words are used in them:
#
#   pick PAPER SMALL      the paper's setting; with SMALL=1 one for built-in data, such that a whole job takes minutes
#   run exec_x.py ...     a command of the suite; under Slurm as a step of the job, on all its GPUs where it can be
#
# Any job takes other settings from the environment, for one's own data, network or machine:
#
#   INSTEAD="cifar10=my-set resnet18=resnet20"     words that are replaced in its commands
#   MORE_TRAIN="-e 20 -lr 0.05" MORE_NCG="-k 5"    flags behind those of every exec_train.py, exec_ncg.py
#   DATA=cifar10   TYPES=resnet18   NETWORKS="lenet:mnist"   SEEDS="0 1"   UNSEEN="cifar10-wo4"   EPS=2
#                                                  some of those that a job goes over
#
# Jobs work in the root of the repository, those of an installed suite in the folder where they are called; at SMALL=1 in
# small/ there, with models and results of their own; or in WORK_DIR.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=$root
if [ ! -f "$root/pyproject.toml" ]; then home=$PWD; fi
here=${WORK_DIR:-$home${SMALL:+/small}}
mkdir -p "$here"
cd "$here"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-$(nproc)}}"
export PATH="$root/.venv/bin:$PATH"

pick() { if [ -n "${SMALL:-}" ]; then echo "$2"; else echo "$1"; fi; }

# A word, or what INSTEAD has for it.
instead() {
    local pair pairs
    read -ra pairs <<< "${INSTEAD:-}"
    for pair in "${pairs[@]}"; do
        if [ "$1" = "${pair%%=*}" ]; then printf '%s\n' "${pair#*=}"; return; fi
    done
    printf '%s\n' "$1"
}

# The last epoch of a training, by its folder under models/.
last() { find "models/$(instead "$1")" -name 'model_*.pt' | sort -V | tail -1; }

run() {
    local script=$1 step=() processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}} nodes=${SLURM_NNODES:-1}
    local name=${1#exec_} place words=("${@:2}") more
    name=MORE_${name%.py} name=${name^^}
    read -ra more <<< "${!name:-}"
    if [ -n "${INSTEAD:-}" ]; then
        for place in "${!words[@]}"; do words[place]=$(instead "${words[place]}"); done
    fi
    set -- "${words[@]}" "${more[@]}"
    if [ -n "${SMALL:-}" ] && [[ $script != exec_projections.py && $script != exec_tables.py ]]; then
        set -- "$@" --max-examples 200
    fi
    echo "+ python $script $*" >&2
    if [ -n "${SLURM_JOB_ID:-}" ]; then step=(srun --nodes=1 --ntasks=1); fi
    if [[ " $parallel " = *" $script "* && $((processes * nodes)) -gt 1 ]]; then
        together "$@"
    else
        "${step[@]}" python "$root/$script" "$@"
    fi
}

# The scripts whose work several processes can share.
parallel="exec_train.py exec_eval.py exec_ood_layers.py exec_probe.py exec_reinit.py exec_ncg.py"

# A command in several processes, on several nodes if the job has them. torchrun does not hand on exit statuses, such as the 75
# of what was interrupted and can go on: the first process writes its own down.
together() {
    local step=() meeting=(--standalone) said status=0
    said=$(mktemp)
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        step=(srun --ntasks-per-node=1)
        meeting=(--nnodes "$nodes" --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint
                 "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -1):$((20000 + SLURM_JOB_ID % 20000))")
    fi
    EXIT_STATUS_FILE=$said "${step[@]}" torchrun "${meeting[@]}" --nproc-per-node "$processes" "$root/$script" "$@" || status=$?
    if [ -s "$said" ]; then status=$(cat "$said"); fi
    rm -f "$said"
    return "$status"
}

source "$root/jobs/networks.sh"
