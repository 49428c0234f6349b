#!/bin/bash
# Windlass: one run of a Job, on a compute node. The same text for every run; what differs is data.
#   batch.sh FOLDER            a run, or one element of a run that is an array
#   batch.sh --map FOLDER      one of several runs that were submitted as one array
# Ends with 95 (no container program), 96 (another job has this run), 97 (the folder is not to be
# seen from here), 98 (cancelled before it began) or 99 (it has begun already) without having run
# anything.
umask 077
JOB=$1
INDEX=${SLURM_ARRAY_TASK_ID:-}
ID=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${INDEX:+_$INDEX}
if [ "$1" = --map ]; then
    JOB=$(sed -n "$((INDEX + 1))p" "$2/map" 2>/dev/null)
    INDEX=
fi
if ! cd -- "$JOB" 2>/dev/null || ! [ -s words ]; then
    echo "windlass: ${JOB:-the run of array index $SLURM_ARRAY_TASK_ID} is not to be seen on $(hostname)" >&2
    exit 97
fi
E=${INDEX:+.$INDEX}
stop() { printf '%s %s\n' "$1" "$ID" >>"note$E"; exit "$1"; }
[ -e cancelled ] && stop 98
# The claim: whoever makes this link runs, and nobody else ever does. One atomic step, on NFS too.
ln -s -- "$ID" "claim$E" 2>/dev/null
[ "$(readlink "claim$E")" = "$ID" ] || stop 96
# A job that is put back into the queue has a restart count that is one higher. The same one again
# means that the controller was killed before it had written the first start down.
grep -qs " start $ID ${SLURM_RESTART_COUNT:-0} " "events$E" && stop 99
rm -f "rc$E"

event() { printf '%s %s %s %s %s\n' "$(date +%s)" "$1" "$ID" "${SLURM_RESTART_COUNT:-0}" "$(hostname)" >>"events$E"; }
finish() {
    rc=$?
    trap - EXIT
    event "end:$rc"
    printf '%s %s %s %s\n' "$rc" "$ID" "${SLURM_RESTART_COUNT:-0}" "$HEARD" >"rc$E.tmp" && mv -f "rc$E.tmp" "rc$E"
    exit "$rc"
}

export WINDLASS_WORK=$JOB/work${INDEX:+/$INDEX}
if [ -n "$INDEX" ]; then
    export WINDLASS_ARRAY_INDEX=$INDEX
    if [ ! -e "ready$E" ]; then
        mkdir -p "$WINDLASS_WORK" && cp -R template/. "$WINDLASS_WORK/" && : >"ready$E" || stop 97
    fi
fi
take() { # reads the next list of the file words: how many, then each, all ended by NUL
    local count word
    IFS= read -r -d '' count <&3
    WORDS=()
    while [ "$count" -gt 0 ]; do
        IFS= read -r -d '' word <&3
        WORDS+=("$word")
        count=$((count - 1))
    done
}
exec 3<words
take && IMAGE=${WORDS[0]}
take && INSIDE=${WORDS[0]:-$WINDLASS_WORK}
take && RUNTIMES=("${WORDS[@]}")
take && FLAGS=("${WORDS[@]}")
take && ARGV=("${WORDS[@]}")
take && for folder in "${WORDS[@]}"; do mkdir -p -- "$WINDLASS_WORK/$folder"; done
exec 3<&-
event start
[ -s setup.sh ] && . ./setup.sh

# What is sourced inside, whatever runs it: values are quoted data, and are read by sh alone.
INNER='WINDLASS_WORK=$2; export WINDLASS_WORK; . "$1/environ.sh"; shift 2; exec "$@"'
STDOUT=log/stdout$E
STDERR=log/stderr$E

find_runtime() {
    for RUNTIME in "${RUNTIMES[@]}"; do command -v "$RUNTIME" >/dev/null 2>&1 && return; done
    echo "windlass: none of ${RUNTIMES[*]} is on the PATH of $(hostname)" >>"$STDERR"
    stop 95
}

# An address is pulled once: into cas/ by its content, under a name made of the address. Another
# name of it in the run's folder says that it is in use.
pull_image() { # pull_image ADDRESS: sets IMAGE
    local root=${JOB%/jobs/*/*} name lock part digest
    name=$root/images/$(printf '%s' "$1" | sha256sum | cut -c1-32)
    lock=$name.lock
    mkdir -p "$root/images"
    until [ -e "$name" ]; do
        if mkdir "$lock" 2>/dev/null; then
            part=$root/images/part.$ID.$RANDOM
            export APPTAINER_CACHEDIR=$part.cache SINGULARITY_CACHEDIR=$part.cache
            if [ -e "$name" ] || { "$RUNTIME" pull "$part" "$1" >>"log/pull$E" 2>&1 && keep_image "$part" "$name"; }; then
                rm -rf "$part.cache"
                rmdir "$lock"
            else
                rm -rf "$part" "$part.cache"
                rmdir "$lock"
                { echo "windlass: $1 could not be pulled:"; tail -n 5 "log/pull$E"; } >>"$STDERR"
                stop 94
            fi
        elif [ -n "$(find "$lock" -maxdepth 0 -mmin +60 2>/dev/null)" ]; then
            rmdir "$lock" 2>/dev/null # its owner is gone
        else
            sleep 1
        fi
    done
    ln -L -- "$name" pulled.sif 2>/dev/null
    touch -c -- "$name"
    IMAGE=$JOB/pulled.sif
    [ -e "$IMAGE" ] || IMAGE=$name # a disk that makes no second names
}
keep_image() { # keep_image FILE NAME
    local digest root=${2%/images/*}
    digest=$(sha256sum "$1" | cut -c1-64) || return 1
    mkdir -p "$root/cas/sha256/${digest:0:2}" && chmod 444 "$1" &&
        mv -f "$1" "$root/cas/sha256/${digest:0:2}/$digest" &&
        ln -sfn "../cas/sha256/${digest:0:2}/$digest" "$2"
}

if [ -n "$IMAGE" ]; then
    find_runtime
    case $IMAGE in *://*) pull_image "$IMAGE" ;; esac
    export APPTAINER_NO_EVAL=1 SINGULARITY_NO_EVAL=1
    for name in $(compgen -e); do
        case $name in
            SLURM_* | CUDA_VISIBLE_DEVICES | ROCR_VISIBLE_DEVICES | HIP_VISIBLE_DEVICES | GPU_DEVICE_ORDINAL | OMP_NUM_THREADS | WINDLASS_ARRAY_INDEX)
                export "APPTAINERENV_$name=${!name}" "SINGULARITYENV_$name=${!name}"
                ;;
        esac
    done
    set -- "$RUNTIME" exec "${FLAGS[@]}" --bind "$JOB:$JOB" --pwd "$INSIDE" "$IMAGE" /bin/sh
    FROM=/ # not from a folder in the home: the home would be shown again
else
    set -- /bin/sh
    FROM=$WINDLASS_WORK
fi

trap finish EXIT
# What it heard before its end, should the queue forget why it ended: "term", or "time" at its limit.
HEARD=
heard() {
    HEARD=term
    [ -n "$SLURM_JOB_END_TIME" ] && [ "$(date +%s)" -ge $((SLURM_JOB_END_TIME - 5)) ] && HEARD=time
    event "$HEARD"
}
trap 'heard; kill -TERM "$child" 2>/dev/null' TERM
trap 'event usr1; kill -USR1 "$child" 2>/dev/null' USR1
trap 'event usr2; kill -USR2 "$child" 2>/dev/null' USR2
(cd -- "$FROM" && exec "$@" -c "$INNER" windlass "$JOB" "$WINDLASS_WORK" "${ARGV[@]}") \
    </dev/null >>"$STDOUT" 2>>"$STDERR" &
child=$!
wait "$child"
rc=$?
while kill -0 "$child" 2>/dev/null; do # a trap ends a wait, not the program
    wait "$child"
    rc=$?
done
wait "$child" 2>/dev/null
last=$?
[ "$last" -eq 127 ] || rc=$last
exit "$rc"
