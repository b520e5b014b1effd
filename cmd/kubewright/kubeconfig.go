package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/kubewright/kubewright/pki"
)

// kubeconfigOptions are those of all commands that look at, or change, a user's kubeconfig.
type kubeconfigOptions struct {
	out  func() output
	file string
	wait time.Duration // for the lock
}

func (o *kubeconfigOptions) path() (string, error) {
	return kubeconfigPath(o.file, os.Getenv, os.Geteuid(), homeOf)
}

func newKubeconfig(out func() output) *cobra.Command {
	o := &kubeconfigOptions{out: out}
	cmd := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Fetch, merge, name, switch and remove contexts of your kubeconfig",
		Long: `Fetch, merge, name, switch and remove contexts of your kubeconfig.

Your kubeconfig is the first file of $KUBECONFIG, else ~/.kube/config; with sudo, that of
the user who typed it, to whom the file then belongs. It is changed under the lock that
kubectl and kind take too, and at once. Entries of others, and fields that nobody here
knows, stay as they are; comments are lost, as with kubectl.`,
		Example: `  # on a control plane, for yourself
  kubewright kubeconfig merge --name prod
  # of a cluster whose file you have fetched
  kubewright kubeconfig merge --from admin.conf --name prod
  kubewright kubeconfig list`,
	}
	holdsCommands(cmd)
	f := cmd.PersistentFlags()
	f.StringVar(&o.file, "kubeconfig", "", "your kubeconfig (default: the first of $KUBECONFIG, else ~/.kube/config)")
	f.DurationVar(&o.wait, "lock-timeout", 10*time.Second, "how long to wait for others who change the same file")
	must(cmd.MarkPersistentFlagFilename("kubeconfig"))
	cmd.AddCommand(o.newGet(), o.newMerge(), o.newList(), o.newUse(), o.newRename(), o.newRemove())
	return cmd
}

// readSource reads the kubeconfig that --from names; dir is what its relative paths start from.
func readSource(from string, stdin io.Reader) (b []byte, dir string, err error) {
	if from == "-" {
		b, err = io.ReadAll(stdin)
		return b, ".", err
	}
	b, err = os.ReadFile(from)
	switch {
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: run this with sudo, or name another file with --from", err)
	case errors.Is(err, fs.ErrNotExist) && from == pki.AdminConf:
		err = fmt.Errorf("%w: run this on a control plane, or name a file with --from", err)
	}
	return b, filepath.Dir(from), err
}

func (o *kubeconfigOptions) newGet() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use: "get", Short: "Print the kubeconfig of the cluster's administrator, which is a secret", Args: cobra.NoArgs,
		Long: `Print the kubeconfig of the cluster's administrator, which is a secret: whoever has it may
do everything in the cluster. From your own machine:

  ssh root@CONTROL-PLANE kubewright kubeconfig get | kubewright kubeconfig merge --from - --name prod`,
		Example: "  kubewright kubeconfig get\n  kubewright kubeconfig get --from admin.conf -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, _, err := readSource(from, cmd.InOrStdin())
			if err != nil {
				return err
			}
			if _, _, err := parseEntries(b); err != nil {
				return fmt.Errorf("%s %w", from, err)
			}
			if o.out() == "json" {
				if b, err = yaml.YAMLToJSON(b); err != nil {
					return err
				}
				b = append(b, '\n')
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		},
	}
	fromFlag(cmd, &from)
	return cmd
}

func fromFlag(cmd *cobra.Command, from *string) {
	cmd.Flags().StringVar(from, "from", pki.AdminConf, "kubeconfig of the cluster; - is standard input")
	must(cmd.MarkFlagFilename("from"))
}

// edit changes the kubeconfig, and says what was done: in words, or as an object.
func (o *kubeconfigOptions) edit(cmd *cobra.Command, change func(entries, *api.Config) (did string, err error)) error {
	path, err := o.path()
	if err != nil {
		return err
	}
	var did, current string
	changed, err := editKubeconfig(cmd.Context(), path, o.wait, func(e entries, have *api.Config) (err error) {
		did, err = change(e, have)
		current, _ = e["current-context"].(string)
		return err
	})
	if err != nil {
		return err
	}
	if o.out() == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
			Kubeconfig string `json:"kubeconfig"`
			Changed    bool   `json:"changed"`
			Current    string `json:"current"`
		}{path, changed, current})
	}
	if !changed {
		did += " already: unchanged"
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", path, did)
	return err
}

func (o *kubeconfigOptions) newMerge() *cobra.Command {
	var from string
	var m mergeOptions
	cmd := &cobra.Command{
		Use: "merge", Short: "Put a cluster into your kubeconfig", Args: cobra.NoArgs,
		Long: `Put a cluster into your kubeconfig: its address and CA, its user, and a context, all
under one name. An entry of that name is replaced if it is of the same cluster, which
its CA shows. The new context becomes the current one. Comments in the file are lost.`,
		Example: `  kubewright kubeconfig merge
  kubewright kubeconfig merge --from admin.conf --name prod --keep-context`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, dir, err := readSource(from, cmd.InOrStdin())
			if err != nil {
				return err
			}
			cluster, err := source(b, dir)
			if err != nil {
				return fmt.Errorf("%s %w", from, err)
			}
			return o.edit(cmd, func(e entries, have *api.Config) (string, error) {
				name, err := merge(e, have, cluster, m)
				if other := (*strangerError)(nil); errors.As(err, &other) {
					err = fmt.Errorf("%w: choose another name with --name, or replace that with --overwrite", err)
				}
				if m.keep {
					return "it has the context " + name, err
				}
				return name + " is the current context", err
			})
		},
	}
	fromFlag(cmd, &from)
	f := cmd.Flags()
	f.StringVar(&m.name, "name", "", "name of cluster, user and context (default: the cluster's own)")
	f.BoolVar(&m.overwrite, "overwrite", false, "replace entries of that name, even of another cluster")
	f.BoolVar(&m.keep, "keep-context", false, "leave the current context as it is")
	return cmd
}

func (o *kubeconfigOptions) newList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the contexts, and when their certificates expire", Args: cobra.NoArgs,
		Example: "  kubewright kubeconfig list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := o.path()
			if err != nil {
				return err
			}
			_, have, err := loadKubeconfig(path)
			if err != nil {
				return err
			}
			if o.out() == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(contextRows(have))
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "CURRENT\tNAME\tCLUSTER\tSERVER\tEXPIRES")
			for _, r := range contextRows(have) {
				current, expires := "", "-"
				if r.Current {
					current = "*"
				}
				if r.Expires != nil {
					expires = r.Expires.Local().Format(time.DateTime)
					if time.Now().After(*r.Expires) {
						expires += " (expired)"
					}
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", current, r.Name, r.Cluster, r.Server, expires)
			}
			return w.Flush()
		},
	}
}

func (o *kubeconfigOptions) newUse() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", ValidArgsFunction: o.contexts(1),
		Example: "  kubewright kubeconfig use prod",
		Args:    named(1, "name the context to use: see `kubewright kubeconfig list`"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.edit(cmd, func(e entries, have *api.Config) (string, error) {
				return args[0] + " is the current context", use(e, have, args[0])
			})
		},
	}
}

func (o *kubeconfigOptions) newRename() *cobra.Command {
	return &cobra.Command{
		Use: "rename OLD NEW", Short: "Give a context another name", ValidArgsFunction: o.contexts(1),
		Example: "  kubewright kubeconfig rename kubernetes prod",
		Args:    named(2, "write the context's name and its new name: kubewright kubeconfig rename OLD NEW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.edit(cmd, func(e entries, have *api.Config) (string, error) {
				return "context " + args[0] + " is " + args[1], rename(e, have, args[0], args[1])
			})
		},
	}
}

func (o *kubeconfigOptions) newRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME...", Short: "Remove contexts, with the clusters and users that no other context uses", ValidArgsFunction: o.contexts(0),
		Example: "  kubewright kubeconfig remove prod test",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name the contexts to remove: see `kubewright kubeconfig list`")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.edit(cmd, func(e entries, have *api.Config) (string, error) {
				orphaned, err := remove(e, have, args)
				did := strings.Join(args, ", ") + " removed"
				if orphaned {
					did += "; there is no current context any more: choose one with `kubewright kubeconfig use`"
				}
				return did, err
			})
		},
	}
}

// named wants exactly so many arguments.
func named(n int, hint string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n || slices.Contains(args, "") {
			return errors.New(hint)
		}
		return nil
	}
}

// contexts completes names of contexts, for as many arguments as that; 0: for all.
func (o *kubeconfigOptions) contexts(limit int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		path, err := o.path()
		if err != nil || limit > 0 && len(args) >= limit {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		_, have, err := loadKubeconfig(path)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := slices.Sorted(maps.Keys(have.Contexts))
		return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(args, n) }), cobra.ShellCompDirectiveNoFileComp
	}
}
