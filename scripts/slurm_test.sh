#!/usr/bin/env bash
# `kgen tune --slurm` on a Slurm of two nodes that this script starts on this machine (loopback only, as the present user)
# and ends again: 16 shards on the host device; the command that watches them is killed and given again, a node is drained in
# the middle, one job is requeued as if preempted, one cancelled as if lost. Everything must come to its end, with the trials of a run on one machine, and nothing twice.
# Needs slurmctld, slurmd, slurm-client and munge (Debian's packages); says aloud where it may not start them.
#   scripts/slurm_test.sh [KGEN]
set -euo pipefail
cd "$(dirname "$0")/.."
kgen=$(realpath "${1:-out/build/release/cli/kgen}")
skip() { echo "SKIPPED: slurm_test: $*"; exit 0; }
PATH=$PATH:/usr/sbin:/sbin
for program in munged slurmctld slurmd sbatch squeue scontrol; do
  command -v $program >/dev/null || skip "no $program (apt-get install --no-install-recommends slurmctld slurmd slurm-client munge)"
done

work=$(mktemp -d)
daemons=()
end() {
  [[ -e $work/conf ]] && scancel --user="$(id -un)" 2>/dev/null || true
  for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${daemons[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap end EXIT
fail() {
  echo "slurm_test: $*" >&2
  for log in "$work"/tune.log "$work"/slurmctld.log; do [[ -e $log ]] && tail -n 15 "$log" | sed 's/^/  | /' >&2; done
  exit 1
}
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# --- the cluster
chmod 755 "$work"  # munged wants its socket to be reachable
mkdir "$work"/{munge,state,n1,n2}
chmod 755 "$work/munge"
dd if=/dev/urandom of="$work/munge/key" bs=128 count=1 status=none
chmod 400 "$work/munge/key"
munged --foreground --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
  --seed-file="$work/munge/seed" --log-file="$work/munge/log" >"$work/munge/out" 2>&1 & daemons+=($!)
cat > "$work/conf" <<CONF
ClusterName=kgen_test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$(port)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CredType=cred/munge
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$(port) CPUs=1
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=$(port) CPUs=1
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$work/conf
slurmctld -D >"$work/slurmctld.out" 2>&1 & daemons+=($!)
for node in n1 n2; do slurmd -D -N $node >"$work/slurmd-$node.out" 2>&1 & daemons+=($!); done
for ((i = 0; i < 60; ++i)); do
  [[ $(sinfo --noheader --Node --format=%T 2>/dev/null | grep -c idle) == 2 ]] && break
  for pid in "${daemons[@]}"; do
    kill -0 "$pid" 2>/dev/null || skip "a daemon ended by itself: $(tail -n 2 -q "$work"/munge/out "$work"/*.out | tr '\n' ' ')"
  done
  sleep 0.5
done
[[ $(sinfo --noheader --Node --format=%T | grep -c idle) == 2 ]] || skip "the nodes do not come up: $(tail -n 2 -q "$work"/slurm*.log | tr '\n' ' ')"
echo "slurm $(slurmd -V | cut -d' ' -f2): $(sinfo --noheader --Node --format='%N %T' | tr '\n' ' ')"

# --- one run here, one there
export XDG_CACHE_HOME=$work/cache  # each kernel compiles once
cat > "$work/ops.yaml" <<'YAML'
kgen: 1
ops:
  - op: softmax
    dtype: fp32
    problems: [{rows: [96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111], cols: 1024}]
    tune: {params: {vec: [1, 2, 4, 8], lanes: [1, 64], items: [1, 2, 4, 8], parts: [1]}}
YAML
flags=(--device host --strategy exhaustive --seed 7 --jobs 1)
echo "16 problems on one machine"
"$kgen" tune "$work/ops.yaml" "${flags[@]}" --db "$work/single.db" >"$work/tune.log" 2>&1 || fail "the run on one machine failed"

echo "16 shards on two nodes"
on_slurm() {
  exec "$kgen" tune "$work/ops.yaml" "${flags[@]}" --db "$work/tuned.db" --slurm --partition main --array-size 16 --json \
    >"$work/tune.json" 2>"$work/tune.log"
}
on_slurm & tune=$!
tasks() { squeue --noheader --array --states="$1" ${2:+--nodelist=$2} --format=%i 2>/dev/null; }
done_so_far() { grep -l '"interrupted": false' "$work"/tuned.db.shards/*.json 2>/dev/null | wc -l; }
wait_until() { # what, command…
  local what=$1
  shift
  for ((i = 0; i < 600; ++i)); do
    "$@" && return
    kill -0 "$tune" 2>/dev/null || fail "kgen tune --slurm ended before $what"
    sleep 0.3
  done
  fail "no $what"
}
two_done() { (($(done_so_far) >= 2)); }
runs_on() { [[ -n $(tasks RUNNING "$1") ]]; }
wait_until "two shards were done" two_done
kill -9 "$tune"
wait "$tune" 2>/dev/null || true
on_slurm & tune=$!
echo "killed the command that watches after $(done_so_far) shards, and gave it again"
wait_until "a job on n2" runs_on n2
scontrol update nodename=n2 state=drain reason=test
drained=$(tasks RUNNING n2 | head -n 1)
echo "drained n2 with ${drained:-nothing} on it after $(done_so_far) shards"
wait_until "a job on n1" runs_on n1
requeued=$(tasks RUNNING n1 | head -n 1)
sleep 0.7
scontrol requeue "$requeued" && echo "requeued $requeued in the middle"
waits_again() { tasks PENDING | grep -qx "$requeued"; }
wait_until "the requeued job waits" waits_again
scontrol update jobid="$requeued" starttime=now  # Slurm would let it wait for two minutes
another_runs() { local now; now=$(tasks RUNNING n1 | head -n 1); [[ -n $now && $now != "$requeued" ]]; }
wait_until "another job on n1" another_runs
lost=$(tasks RUNNING n1 | head -n 1)
sleep 0.7
scancel "$lost" && echo "cancelled $lost in the middle"
wait "$tune" || fail "kgen tune --slurm failed"
[[ ! -e $work/tuned.db.shards ]] || fail "the folder of the shards was left behind"
runs_on n2 && fail "something runs on the drained node"

# --- what came of it
"$kgen" db check "$work/tuned.db" >/dev/null || fail "db check"
python3 - "$work/single.db" "$work/tuned.db" "$work/tune.json" <<'PY' || fail "the shards' results are not those of one run"
import json, sqlite3, sys
def trials(path):
    db = sqlite3.connect(path)
    rows = db.execute("SELECT p.dims_key, t.config, CASE WHEN t.status = 'stopped_early' THEN 'timed' ELSE t.status END, t.reason"
                      " FROM trial t JOIN problem p ON p.id = t.problem").fetchall()
    searched = [row[:3] for row in rows if not row[3].startswith("finalist")]  # finals time the best once more, on purpose
    winners = db.execute("SELECT p.dims_key, count(*) FROM winner w JOIN problem p ON p.id = w.problem WHERE w.is_default = 0"
                         " GROUP BY p.dims_key").fetchall()
    return set(row[:3] for row in rows), searched, winners
one, _, one_winners = trials(sys.argv[1])
many, searched, winners = trials(sys.argv[2])
told = json.load(open(sys.argv[3]))
twice = {row for row in searched if searched.count(row) > 1}
print(f"{len(many)} (problem, config, status) in 16 shards, {len(one)} in one run; {told['arrays']} arrays; {len(twice)} twice")
assert many == one, sorted(many ^ one)[:4]
assert not twice, sorted(twice)[:4]
assert sorted(winners) == sorted(one_winners) and len(winners) == 16 and all(count == 1 for _, count in winners), winners
assert told["shards_done"] == 16 and len(told["rows"]) == 16 and not told["any_failed"]
assert told["arrays"] == 1, "the second command submits the lost shard, and nothing that is under way already"
PY
rows() { sqlite3_count "$1" 'SELECT (SELECT count(*) FROM trial), (SELECT count(*) FROM winner), (SELECT count(*) FROM sample)'; }
sqlite3_count() { python3 -c 'import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone())' "$@"; }
before=$(rows "$work/tuned.db")
cp "$work/tuned.db" "$work/again.db"
"$kgen" db merge "$work/again.db" -o "$work/tuned.db" >/dev/null
[[ $(rows "$work/tuned.db") == "$before" ]] || fail "merging twice has changed something: $before, $(rows "$work/tuned.db")"

echo "again: nothing is left to do"
scontrol update nodename=n2 state=resume
"$kgen" tune "$work/ops.yaml" "${flags[@]}" --db "$work/tuned.db" --slurm --array-size 4 >"$work/tune.log" 2>&1 || fail "the second run failed"
[[ $(rows "$work/tuned.db") == "$before" ]] || fail "the second run has tried something again: $before, $(rows "$work/tuned.db")"
echo "slurm_test: passed"
