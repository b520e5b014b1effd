package host

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// What of Local only Linux can do; local_other.go has the rest of the world.

// endsWithUs has a process killed when the one that started it dies.
func endsWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

func stampOf(st *syscall.Stat_t) string {
	return fmt.Sprintf("%d.%d.%d.%d.%d", st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
}

// sinceBoot is the time since the kernel began, in nanoseconds, with those of sleep.
func sinceBoot() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // every kernel since 2.6.39 has this clock
	}
	return ts.Nano()
}

// kill ends a process at once, and tells whether it is gone within five seconds.
func kill(pid int) (gone bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) != nil {
		return true
	}
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
	return n != 0
}
