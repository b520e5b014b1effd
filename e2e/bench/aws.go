package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/kubewright/kubewright/e2e/cloud"
	"github.com/kubewright/kubewright/e2e/lab"
)

// awsLatency is what each call takes, as from a laptop to a region that is not far away.
const awsLatency = 80 * time.Millisecond

const awsDocument = `apiVersion: kubewright.dev/v1alpha1
kind: Cluster
metadata: {name: bench}
spec:
  provider:
    name: aws
    aws:
      region: eu-west-1
      controlPlane: {count: 3}
      pools: [{name: work, count: 10}]
`

// awsNeeds are the calls that such machines take, and those that must have ended before each: what AWS itself asks for, whoever
// calls. "look" is what finds out that there is nothing yet.
var awsNeeds = map[string][]string{
	"look":                     nil,
	"CreateVpc":                {"look"},
	"CreateSubnet":             {"CreateVpc"},
	"CreateSecurityGroup":      {"CreateVpc"},
	"CreateInternetGateway":    {"look"},
	"AttachInternetGateway":    {"CreateVpc", "CreateInternetGateway"},
	"AllocateAddress":          {"look"},
	"CreateNatGateway":         {"CreateSubnet", "AllocateAddress", "AttachInternetGateway"},
	"CreateRoute":              {"CreateNatGateway"},
	"CreateRole":               {"look"},
	"CreateInstanceProfile":    {"look"},
	"AddRoleToInstanceProfile": {"CreateRole", "CreateInstanceProfile"},
	"ImportKeyPair":            {"look"},
	"CreateLaunchTemplate":     {"CreateSecurityGroup", "ImportKeyPair"},
	"RunInstances":             {"CreateSubnet", "CreateLaunchTemplate", "AddRoleToInstanceProfile"},
	"DescribeInstances":        {"RunInstances"}, // targets must run
	"CreateLoadBalancer":       {"CreateSubnet", "CreateSecurityGroup"},
	"CreateTargetGroup":        {"CreateVpc"},
	"CreateListener":           {"CreateLoadBalancer", "CreateTargetGroup"},
	"RegisterTargets":          {"CreateTargetGroup", "DescribeInstances"},
}

// awsPath is the time that the longest chain of them takes: nobody is faster.
func awsPath(context.Context, *lab.Lab) (float64, error) {
	var longest func(action string) int
	longest = func(action string) (n int) {
		for _, before := range awsNeeds[action] {
			n = max(n, longest(before))
		}
		return n + 1
	}
	n := 0
	for action := range awsNeeds {
		n = max(n, longest(action))
	}
	return float64(n) * awsLatency.Seconds(), nil
}

// awsRuns makes the machines of 3+10 nodes against the stand-in, in which they are names, and has up look at them so many times more. It
// gives the time and the number of calls of each.
func awsRuns(ctx context.Context, l *lab.Lab, again int) (seconds []float64, calls []int, err error) {
	binary, err := l.Kubewright(ctx)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "kubewright-bench-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "cluster.yaml")
	if err := os.WriteFile(file, []byte(awsDocument), 0o600); err != nil {
		return nil, nil, err
	}
	c := cloud.New(cloud.Options{Latency: awsLatency})
	defer c.Close()
	s := httptest.NewServer(c)
	defer s.Close()
	for range 1 + again {
		before := len(c.Calls())
		cmd := exec.CommandContext(ctx, binary, "up", "-f", file, "--only", "infrastructure", "-o", "json")
		cmd.Env = slices.Concat(os.Environ(), cloud.Env(s.URL), []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir})
		var said bytes.Buffer
		cmd.Stderr = &said
		took, err := timed(cmd.Run)
		if err != nil {
			return nil, nil, fmt.Errorf("up: %w: %s", err, said.String())
		}
		seconds, calls = append(seconds, took), append(calls, len(c.Calls())-before)
	}
	return seconds, calls, nil
}

// awsUp is the time from nothing until all machines run.
func awsUp(ctx context.Context, l *lab.Lab) (float64, error) {
	seconds, _, err := awsRuns(ctx, l, 0)
	if err != nil {
		return 0, err
	}
	return seconds[0], nil
}

// awsCalls are those of a run that has nothing to do.
func awsCalls(ctx context.Context, l *lab.Lab) (float64, error) {
	_, calls, err := awsRuns(ctx, l, 1)
	if err != nil {
		return 0, err
	}
	return float64(calls[1]), nil
}
