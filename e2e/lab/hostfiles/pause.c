/* The process that holds a pod's namespaces: waits for the signal to end, and reaps what is left to it. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) { exit(0); }
static void reap(int signal) { while (waitpid(-1, NULL, WNOHANG) > 0); }

int main(int argc, char **argv) {
	if (argc > 1 && strcmp(argv[1], "-v") == 0) return 0; /* kubeadm upgrade runs this as a Job, to see whether one ends */
	signal(SIGINT, end);
	signal(SIGTERM, end);
	signal(SIGCHLD, reap);
	for (;;) pause();
}
