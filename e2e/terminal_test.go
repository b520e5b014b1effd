package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// atTerminal runs a command at a terminal of its own, where a person answers what is asked with
// a line each. Hear gets every line of its standard error. What was on the screen is returned.
func atTerminal(cmd *exec.Cmd, answers []string, hear func(line string)) (screen string, err error) {
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer keyboard.Close()
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return "", err
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		return "", err
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	cmd.Stdin = tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	shown := make(chan string)
	go func() { // until nobody has the terminal any more
		var all strings.Builder
		b := make([]byte, 4096)
		for asked := 0; ; {
			n, err := keyboard.Read(b)
			all.Write(b[:n])
			if err != nil {
				shown <- all.String()
				return
			}
			for ; asked < len(answers) && strings.Count(all.String(), ": ") > asked; asked++ {
				io.WriteString(keyboard, answers[asked]+"\n")
			}
		}
	}()
	err = cmd.Start()
	tty.Close()
	if err == nil {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			hear(lines.Text())
		}
		err = cmd.Wait()
	}
	return <-shown, err
}
