# killat.sh PATTERN COMMAND...: runs a command, kills it with SIGKILL as soon as a line that it
# prints to standard error holds PATTERN, and prints "killed", or its exit code; "late": it had ended well by then.
pattern=$1
shift
dir=$(mktemp -d)
mkfifo "$dir/said"
"$@" >"$dir/out" 2>"$dir/said" &
pid=$! seen=
while IFS= read -r line; do
	case $line in
	*"$pattern"*)
		seen=yes
		kill -KILL $pid
		break
		;;
	*'"state":"failed"'* | *'"kind":"Error"'*) printf '%s\n' "$line" >&2 ;;
	esac
done <"$dir/said"
wait $pid
code=$?
rm -r "$dir"
case $code$seen in 137yes) echo killed ;; 0yes) echo late ;; *) echo $code ;; esac
