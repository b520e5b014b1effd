# killat.sh PATTERN COMMAND...: runs a command, kills it with SIGKILL as soon as a line that it
# prints to standard error holds PATTERN, and prints "killed", or its exit code.
pattern=$1
shift
dir=$(mktemp -d)
mkfifo "$dir/said"
"$@" >"$dir/out" 2>"$dir/said" &
pid=$!
while IFS= read -r line; do
	case $line in
	*"$pattern"*)
		kill -KILL $pid
		break
		;;
	*'"state":"failed"'* | *'"kind":"Error"'*) printf '%s\n' "$line" >&2 ;;
	esac
done <"$dir/said"
wait $pid
code=$?
rm -r "$dir"
if [ $code = 137 ]; then echo killed; else echo $code; fi
