package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubewright/kubewright/addons"
	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/phases"
	"github.com/kubewright/kubewright/pki"
)

func newToken(out func() output) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "token",
		Short:   "Make, list and delete the tokens with which hosts join",
		Example: "  kubewright token create --print-join-command",
	}
	holdsCommands(cmd)
	var kubeconfig string
	cmd.PersistentFlags().StringVar(&kubeconfig, "kubeconfig", pki.AdminConf, "kubeconfig of the cluster")
	must(cmd.MarkPersistentFlagFilename("kubeconfig"))
	connect := func() (phases.API, error) {
		b, err := os.ReadFile(kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("%w: run this on a control plane as root, or name a kubeconfig with --kubeconfig", err)
		}
		return phases.NewClient(host.Local{}, b)
	}
	cmd.AddCommand(newTokenCreate(out, connect), newTokenList(out, connect), &cobra.Command{
		Use: "delete ID...", Short: "Delete tokens, named whole or by their first six characters",
		Example: "  kubewright token delete abcdef",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name the tokens to delete: see `kubewright token list`")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := connect()
			if err != nil {
				return err
			}
			for _, a := range args {
				if err := phases.DeleteToken(cmd.Context(), api, a); err != nil {
					return err
				}
				id, _, _ := strings.Cut(a, ".")
				fmt.Fprintf(cmd.OutOrStdout(), "token %s deleted\n", id)
			}
			return nil
		},
	})
	return cmd
}

func newTokenCreate(out func() output, connect func() (phases.API, error)) *cobra.Command {
	var o struct {
		description    string
		ttl            time.Duration
		usages, groups []string
		join           bool
	}
	cmd := &cobra.Command{
		Use: "create [TOKEN]", Short: "Make a token; a random one where none is given", Args: cobra.MaximumNArgs(1),
		Example: "  kubewright token create --print-join-command\n  kubewright token create --ttl 1h --description 'two new workers'",
		RunE: func(cmd *cobra.Command, args []string) error {
			t := addons.NewToken()
			if len(args) == 1 {
				var err error
				if t, err = addons.ParseToken(args[0]); err != nil {
					return err
				}
			}
			if err := checkUsages(o.usages, o.groups); err != nil {
				return err
			}
			if o.ttl < 0 {
				return fmt.Errorf("--ttl %s is less than nothing: write 24h, say, or 0 for a token that never expires", o.ttl)
			}
			api, err := connect()
			if err != nil {
				return err
			}
			if err := phases.CreateToken(cmd.Context(), api, t, o.description, o.ttl, o.usages, o.groups); err != nil {
				return err
			}
			result := struct {
				Token string   `json:"token"`
				Join  string   `json:"join,omitempty"`
				Hosts []string `json:"hosts,omitempty"` // lines of /etc/hosts for kubeadm join
			}{Token: t.Reveal()}
			answer := result.Token
			if o.join {
				if result.Join, result.Hosts, err = phases.ClusterJoinCommand(cmd.Context(), api, t); err != nil {
					return err
				}
				answer = result.Join
			}
			if out() == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(result)
			}
			if len(result.Hosts) > 0 { // not on stdout, which is the command and may be run as it is
				fmt.Fprintf(cmd.ErrOrStderr(), hostsFirst, strings.Join(result.Hosts, "\n"))
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), answer)
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.join, "print-join-command", false, "print the whole command for a worker, not the token alone")
	f.DurationVar(&o.ttl, "ttl", addons.TokenTTL, "after this the token expires; 0: never")
	f.StringVar(&o.description, "description", "", "what the token is for")
	f.StringSliceVar(&o.usages, "usages", addons.TokenUsages(), "signing, authentication")
	f.StringSliceVar(&o.groups, "groups", addons.TokenGroups(), "groups of whoever shows the token; each begins with system:bootstrappers:")
	return cmd
}

const hostsFirst = `Only hosts of this cluster know its address. "kubewright join" sees to that; before "kubeadm join",
with the same arguments, put these lines into /etc/hosts of the host:

%s

`

func checkUsages(usages, groups []string) error {
	for _, u := range usages {
		if u != "signing" && u != "authentication" {
			return fmt.Errorf("--usages %q: write signing, authentication or both", u)
		}
	}
	for _, g := range groups {
		if !strings.HasPrefix(g, "system:bootstrappers:") {
			return fmt.Errorf("--groups %q: the API server takes only groups that begin with system:bootstrappers:", g)
		}
	}
	return nil
}

func newTokenList(out func() output, connect func() (phases.API, error)) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the tokens, without their secret half", Args: cobra.NoArgs,
		Example: "  kubewright token list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := connect()
			if err != nil {
				return err
			}
			tokens, err := phases.ListTokens(cmd.Context(), api)
			if err != nil {
				return err
			}
			if out() == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(tokens)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(w, "ID\tEXPIRES\tUSAGES\tGROUPS\tDESCRIPTION")
			for _, t := range tokens {
				expires := "never"
				if !t.Expires.IsZero() {
					expires = t.Expires.Local().Format(time.DateTime)
					if time.Now().After(t.Expires) {
						expires += " (expired)"
					}
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", t.ID, expires, strings.Join(t.Usages, ","), strings.Join(t.Groups, ","), t.Description)
			}
			return w.Flush()
		},
	}
}
