package reach

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/kubewright/kubewright/host"
)

// The program that hosts run, for each architecture of theirs, as `make build` has made it: a
// kubewright for another system than Linux has it, too.
//
//go:generate go run ./generate
//go:embed all:programs
var programs embed.FS

// program is that of a machine (amd64, arm64), gzip'ed.
func program(machine string) ([]byte, error) {
	b, err := programs.ReadFile("programs/" + machine + ".gz")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("this kubewright was built without the program for %s that looks: build it with `make build`", machine)
	}
	return b, err
}

//go:embed start.sh
var startProgram string

// machines are those that there are programs for, by what uname says.
var machines = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}

// relayProgram says in a line what kind of machine it runs on, and then becomes the program for that. It begins with /var/tmp: a
// container's other folders run no programs, or are emptied while it boots.
func relayProgram() (string, error) {
	lengths := ""
	for name, machine := range machines {
		packed, err := program(machine)
		if err != nil {
			return "", err
		}
		lengths += fmt.Sprintf("%s) length=%d ;;\n", name, len(packed))
	}
	return fmt.Sprintf("task=relay folders='/var/tmp /run /dev/shm /tmp' machine=$(uname -m)\ncase $machine in\n%s*) echo \"there is no program for a machine that is called $machine\" >&2; exit 1 ;;\nesac\necho $machine\n%s", lengths, startProgram), nil
}

// folders are where a program may lie that is there for a moment.
const folders = "/run /dev/shm /tmp /var/tmp"

// start starts what becomes the program, once it has been sent it.
func (h Host) start(ctx context.Context) (pipe *host.Pipe, packed []byte, err error) {
	if packed, err = program(h.Machine); err == nil {
		pipe, err = h.Start(ctx, fmt.Sprintf("length=%d task=reach folders='%s'\n%s", len(packed), folders, startProgram))
	}
	return pipe, packed, err
}
