# The agent: what a Remote asks of a machine, in POSIX sh, GNU coreutils, tar, grep and flock.
#
# Standard input is a line with a nonce, then frames. A frame is a line with the length of its
# request in bytes, the request, and the payloads of its operations, in order. A request is an
# operation a line (a quoted word may hold newlines):
#
#   op 'VERB' 'WORD'...      each word in single quotes, a quote in it as '\''
#
# An operation is answered by what it prints, and then, on standard output and on standard error
# alike, by a line that is empty but for what was printed last, and one with the nonce and the
# exit code. Operations are done one after the other; none but these is known:
#
#   stat PATH...             for each that exists: two words that end with NUL, as in the function; else a line of standard error
#   sum PATH...              sha256sum --zero
#   read PATH                the file
#   list DIR                 names in it, each with a NUL, in no order
#   append PATH LENGTH       adds the payload, LENGTH bytes; the file is made 0600, its folder 0700; synced
#   run ID LENGTH ARGV...    a command with KUBEWRIGHT_REQUEST=ID in its environment; LENGTH bytes of payload are
#                            its standard input; if that is empty, it has none. Done when all have closed its outputs
#   query ID LENGTH ARGV...  the same of one that leaves nothing running
#   end NAME=VALUE           kills all processes that have it in their environment, and returns when they are gone
#   receive LENGTH SUMS TEMPORARY...
#                            the payload is LENGTH bytes of tar, and then the line "ok", unless the sender
#                            was wrong: files under their temporary names; SUMS is the input of sha256sum --check.
#                            Then they are synced. If anything fails, none is there, and the agent ends
#   apply (STEP PATH A B)... a dot for each step that is done, until one fails; the others' temporaries are removed:
#                            place PATH TEMPORARY ''; link PATH TEMPORARY TARGET; delete PATH '' '';
#                            dir PATH MODE OWNER; mode PATH MODE OWNER (OWNER may be '')
#   lock PATH RUN COMMAND SINCE
#                            takes the lease of lock.go, the last three as JSON; held by another: code 75, and its lease.
#                            From now on the end of the input ends all of this run here, and gives the lease back
#   renew, unlock            the lease that this agent has

op() {
    [ -z "$over" ] || return
    verb=$1
    shift
    "agent_$verb" "$@"
    code=$?
    printf '\n%s %s\n' "$nonce" "$code"
    printf '\n%s %s\n' "$nonce" "$code" >&2
}

agent_stat() {
    QUOTING_STYLE=literal stat --printf '%f %u %g %s %d %i %.9Y %.9Z  %n\0%N\0' -- "$@" </dev/null
}

agent_sum() { sha256sum --zero -- "$@" </dev/null; }

agent_read() { cat -- "$1" </dev/null; }

agent_list() {
    if ! [ -d "$1" ]; then
        ls -- "$1/" </dev/null
        return
    fi
    for path in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        if [ -e "$path" ] || [ -L "$path" ]; then
            printf '%s\0' "${path##*/}"
        fi
    done
}

agent_append() {
    umask 077
    if [ -d "${1%/*}/" ] || mkdir -p -- "${1%/*}" </dev/null; then
        feed "$2" dd of="$1" oflag=append conv=notrunc,fsync bs=64k status=none
    else
        feed "$2" false
    fi
    code=$?
    umask 022
    return $code
}

# feed gives a command LENGTH bytes of the input, and takes what it leaves.
feed() {
    head -c "$1" | {
        shift
        "$@"
        code=$?
        cat >/dev/null
        exit $code
    }
}

# A command may leave others running. What they print must not get among later answers.
agent_run() {
    {
        code=$({ { { agent_query "$@" 3>&- 4>&- 5>&-; echo $? >&3; } | cat >&4 3>&- 5>&-; } 2>&1 | cat >&5 3>&- 4>&-; } 3>&1)
    } 4>&1 5>&2
    return "$code"
}

agent_query() {
    id=$1 length=$2
    shift 2
    if [ -n "$length" ]; then
        feed "$length" env KUBEWRIGHT_REQUEST="$id" "$@"
    else
        env KUBEWRIGHT_REQUEST="$id" "$@" </dev/null
    fi
}

# end does not see itself: the process that looks does not have this run in its environment.
agent_end() {
    tries=0
    while :; do # grep fails where a process has gone meanwhile
        found=$(exec env -u KUBEWRIGHT_RUN grep -lszxF -e "$1" /proc/[0-9]*/environ </dev/null)
        pids=
        for path in $found; do
            path=${path#/proc/}
            [ "${path%/*}" = $$ ] || pids="$pids ${path%/*}"
        done
        [ -n "$pids" ] || return 0
        if [ $tries = 100 ]; then
            stuck $pids
            return 1
        fi
        kill -9 $pids 2>/dev/null
        tries=$((tries + 1))
        [ $tries -lt 3 ] || sleep 0.05
    done
}

stuck() {
    echo "process $1 of an earlier run does not end, though it was killed: see what it waits for with \`cat /proc/$1/stack\`, and run this again" >&2
}

agent_receive() {
    length=$1 sums=$2
    shift 2
    for path; do
        if [ -d "$path" ] && ! [ -L "$path" ]; then
            rm -rf -- "$path" </dev/null
        fi
    done
    head -c "$length" | tar -xmpPf - --same-owner --numeric-owner &&
        read -r verdict && [ "$verdict" = ok ] &&
        printf '%s\n' "$sums" | sha256sum --check --strict --quiet >&2 &&
        sync -- "$@" </dev/null && return
    rm -f -- "$@" </dev/null
    over=yes
    return 1
}

agent_apply() {
    failed=0
    while [ $# -gt 0 ]; do
        if [ $failed = 0 ]; then
            step "$1" "$2" "$3" "$4" </dev/null
            failed=$?
            [ $failed != 0 ] || printf .
        fi
        if [ $failed != 0 ]; then
            case $1 in place | link) rm -f -- "$3" </dev/null ;; esac
        fi
        shift 4
    done
    return $failed
}

step() {
    case $1 in
    place)
        mv -fT -- "$3" "$2"
        ;;
    link)
        [ -d "${2%/*}/" ] || mkdir -p -- "${2%/*}" || return
        rm -rf -- "$3" && ln -sT -- "$4" "$3" && mv -fT -- "$3" "$2"
        ;;
    delete)
        if [ -d "$2" ] && ! [ -L "$2" ]; then rmdir -- "$2"; else rm -- "$2"; fi
        ;;
    dir)
        if [ -d "$2" ]; then chmod -- "$3" "$2"; else mkdir -p -m "$3" -- "$2"; fi &&
            { [ -z "$4" ] || chown -- "$4" "$2"; }
        ;;
    mode)
        { [ -z "$4" ] || chown -h -- "$4" "$2"; } && chmod -- "$3" "$2"
        ;;
    esac
}

# started sets when a process began; it fails if there is none, or only its remains.
started() {
    started=$(cat "/proc/$1/stat" 2>/dev/null </dev/null) || return
    set -- ${started##*) }
    [ "$1" != Z ] || return
    started=${20}
}

# field sets value to that of a key of the lease.
field() {
    value=${lease#*\""$1"\":}
    value=${value%%[,\}]*}
    value=${value#\"}
    value=${value%\"}
}

uptime() {
    read -r now rest </proc/uptime
    now=${now%.*}${now#*.}0000000
}

agent_lock() {
    lock=$1 run=$2 command=$3 since=$4
    missing=
    for tool in flock tar sha256sum truncate grep; do
        command -v $tool >/dev/null || missing="$missing $tool"
    done
    [ -z "$missing" ] || { echo "this machine lacks$missing: install them with its distribution's packages" >&2; return 1; }
    if ! [ -d "${lock%/*}/" ]; then
        mkdir -p -m 0700 -- "${lock%/*}" </dev/null || return
    fi
    umask 077
    { flock 9 && take; } 9<>"$lock"
    code=$?
    umask 022
    return $code
}

# alive tells whether the process of the lease is there.
alive() { started "$pid" && [ "$started" = "$began" ]; }

take() {
    read -r boot </proc/sys/kernel/random/boot_id
    uptime
    lease=$(cat -- "$lock") || return
    case $lease in '{"run":'*'"renewed":'*'}')
        field boot
        if [ "$value" = "$boot" ]; then
            field pid
            pid=$value
            field started
            began=$value
            field renewed
            if alive && [ $((now - value)) -lt 20000000000 ]; then
                printf %s "$lease"
                return 75
            fi
            tries=0
            while alive; do
                [ $tries -lt 100 ] || { stuck "$pid"; return 1; }
                kill -9 "$pid"
                tries=$((tries + 1))
                [ $tries = 1 ] || sleep 0.05
            done
            field run
            [ "\"$value\"" = "$run" ] || agent_end "KUBEWRIGHT_RUN=$value" || return
        fi
        ;;
    esac
    started $$
    own=$started
    hold && held=yes
}

# hold writes the lease into the file as it is: what is there stays there on a full file system.
hold() {
    uptime
    new="{\"run\":$run,\"command\":$command,\"pid\":$$,\"started\":\"$own\",\"boot\":\"$boot\",\"since\":$since,\"renewed\":$now}"
    printf %s "$new" 1<>"$lock" && { [ ${#new} = ${#lease} ] || truncate -s ${#new} -- "$lock" </dev/null; }
}

agent_renew() { { flock 9 && mine && hold; } 9<>"$lock"; }

agent_unlock() {
    { flock 9 && mine && true >"$lock"; } 9<>"$lock"
    held=
}

mine() {
    lease=$(cat -- "$lock" </dev/null)
    case $lease in "{\"run\":$run,"*) return ;; esac
    echo "another run has taken this host over, as this one had stopped for a while" >&2
    return 1
}

# leave comes when the operator has gone: nobody would finish what its commands do.
leave() {
    [ -n "$held" ] || return
    trap '' PIPE
    agent_end "KUBEWRIGHT_RUN=$KUBEWRIGHT_RUN"
    agent_unlock
}

over= held=
umask 022
trap leave EXIT
trap 'exit 1' HUP INT TERM
read -r nonce
while [ -z "$over" ] && read -r length; do
    request=$(head -c "$length")
    [ ${#request} = "$length" ] || exit 1 # cut short
    eval "$request"
done
