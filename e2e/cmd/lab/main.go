// Command lab builds what a lab needs, and makes and removes hosts by hand: see package lab.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kubewright/kubewright/e2e/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use: "lab", Short: "Real Kubernetes hosts on this machine",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(buildCommand(), binaryCommand(), upCommand(), demoCommand(), downCommand(), execCommand(), statusCommand())
	err := root.ExecuteContext(ctx)
	if code := exitCode(0); errors.As(err, &code) {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func buildCommand() *cobra.Command {
	var cloud bool
	cmd := &cobra.Command{
		Use: "build", Short: "Install packages, build everything, print the bundle's folder", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := lab.NewBuilder(progress)
			if err != nil {
				return err
			}
			if err := b.Install(cmd.Context()); err != nil {
				return err
			}
			build := b.Bundle
			if cloud {
				build = b.CloudBundle
			}
			dir, err := build(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Println(dir)
			return nil
		},
	}
	cmd.Flags().BoolVar(&cloud, "cloud", false, "with the cloud controller of AWS, whose build takes minutes")
	return cmd
}

// binaryCommand tells tests that have no lab of their own where a real one of Kubernetes' commands is.
func binaryCommand() *cobra.Command {
	return &cobra.Command{
		Use: "binary NAME", Short: "Print the path of a built binary: kubeadm, containerd...", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := lab.NewBuilder(progress)
			if err != nil {
				return err
			}
			path, err := b.Binary(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			fmt.Println(path)
			return nil
		},
	}
}

// upCommand makes hosts and leaves them running.
func upCommand() *cobra.Command {
	var name, families string
	var workers int
	cmd := &cobra.Command{
		Use: "up", Short: "Make hosts and leave them running", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kind, ok := map[string]lab.Families{"ipv4": lab.IPv4, "both": lab.DualStack, "ipv6": lab.IPv6}[families]
			if !ok {
				return fmt.Errorf("--families %q: write ipv4, both or ipv6", families)
			}
			l, err := lab.New(cmd.Context(), lab.Options{Name: name, Log: progress})
			if err != nil {
				return err
			}
			names := []string{"cp-1"}
			for i := range workers {
				names = append(names, fmt.Sprintf("w-%d", i+1))
			}
			hosts, err := l.HostsFrom(cmd.Context(), lab.HostOptions{Families: kind}, names...)
			if err != nil {
				return err
			}
			ssh, err := l.SSH(cmd.Context())
			if err != nil {
				return err
			}
			for _, h := range hosts {
				fmt.Printf("%s\t%s\n", h.Name, h.IP)
			}
			fmt.Printf("\nAs a plain user with sudo: ssh %s\n", strings.Join(ssh.Args(lab.SSHUser, hosts[0]), " "))
			fmt.Printf("Get in:   go run ./e2e/cmd/lab exec --name %[1]s cp-1 -- bash\nRemove:   go run ./e2e/cmd/lab down --name %[1]s\n", name)
			return nil
		},
	}
	nameFlag(cmd, &name)
	cmd.Flags().IntVar(&workers, "workers", 2, "how many workers beside the control plane")
	cmd.Flags().StringVar(&families, "families", "ipv4", "of the hosts' addresses: ipv4, both, ipv6")
	return cmd
}

func downCommand() *cobra.Command {
	var name string
	var all bool
	cmd := &cobra.Command{
		Use: "down", Short: "Remove hosts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withEngine(cmd.Context(), func(ctx context.Context, e *lab.Engine) error {
				if !all {
					return e.Remove(ctx, name)
				}
				return errors.Join(e.Remove(ctx, ""), e.Stop(ctx))
			})
		},
	}
	nameFlag(cmd, &name)
	cmd.Flags().BoolVar(&all, "all", false, "all labs, and stop the engine")
	return cmd
}

func execCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "exec HOST -- COMMAND...", Short: "Run a command on a host", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withEngine(cmd.Context(), func(ctx context.Context, e *lab.Engine) error {
				h, err := e.Find(ctx, name, args[0])
				if err != nil {
					return err
				}
				terminal := term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
				err = h.Attach(ctx, terminal, args[1:]...).Run()
				if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() > 0 {
					return exitCode(exit.ExitCode())
				}
				return err
			})
		},
	}
	nameFlag(cmd, &name)
	return cmd
}

func statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "List the hosts of all labs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withEngine(cmd.Context(), func(ctx context.Context, e *lab.Engine) error {
				all, err := e.Status(ctx)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
				fmt.Fprintln(w, strings.Join([]string{"LAB", "HOST", "ADDRESS", "STATE"}, "\t"))
				for _, s := range all {
					fmt.Fprintln(w, strings.Join([]string{s.Lab, s.Host, s.IP, s.State}, "\t"))
				}
				return w.Flush()
			})
		},
	}
}

// exitCode is that of a command on a host, which has said itself what is wrong.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func nameFlag(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", "demo", "the lab's name")
}

// withEngine is for what makes no sense without hosts: it starts no engine.
func withEngine(ctx context.Context, f func(ctx context.Context, e *lab.Engine) error) error {
	b, err := lab.NewBuilder(progress)
	if err != nil {
		return err
	}
	e, ok := lab.Running(ctx, b)
	if !ok {
		progress("the lab's engine does not run, so there are no hosts")
		return nil
	}
	return f(ctx, e)
}
