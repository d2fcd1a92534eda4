# Sourced by the sbatch files. `job NAME` runs jobs/NAME.sh; `finish STATUS` ends a Slurm job, or puts it back into the queue if
# its command was interrupted and says, by exit status 75, that it can go on. More nodes: sbatch --nodes=4 jobs/NAME.sbatch.
set -euo pipefail

finish() {
    if [ "$1" = 75 ]; then
        scontrol requeue "$SLURM_JOB_ID"
        sleep 60  # until the requeueing ends this
    fi
    exit "$1"
}

job() {
    local status=0
    bash "jobs/$1.sh" || status=$?
    finish "$status"
}
