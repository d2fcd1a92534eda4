#!/usr/bin/env bash
# A Slurm cluster of one node on loopback, for tests: `cluster.sh start FOLDER` and `cluster.sh stop FOLDER`, as root, with
# Debian's slurm-wlm and munge. Everything it writes is under FOLDER; SLURM_CONF=FOLDER/slurm.conf makes sbatch find it.
# Jobs of the partition `low` are requeued, after ten seconds' notice, for those of `high`.
set -euo pipefail
action=$1 folder=$(realpath -m "$2")

stop() {
    for daemon in slurmd slurmctld munged; do
        if [ -s "$folder/$daemon.pid" ]; then kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true; fi
    done
}

start() {
    mkdir -p "$folder"/{state,spool}
    chmod 755 "$folder"
    head -c 128 /dev/urandom > "$folder/munge.key"
    chmod 400 "$folder/munge.key"
    local host port
    host=$(hostname -s) port=$((20000 + RANDOM % 20000))
    cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=10
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=5
MinJobAge=600
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 State=UNKNOWN
PartitionName=low Nodes=$host Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=10 MaxTime=INFINITE State=UP
PartitionName=high Nodes=$host PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF="$folder/slurm.conf"
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
    slurmctld -c
    slurmd -c
    for _ in $(seq 60); do
        if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then return; fi
        sleep 0.5
    done
    echo "the node did not come up; see $folder/slurmctld.log and $folder/slurmd.log" >&2
    stop
    return 1
}

case $action in
    start) start ;;
    stop) stop ;;
    *) echo "$action: start or stop" >&2; exit 2 ;;
esac
