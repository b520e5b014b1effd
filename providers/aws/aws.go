// Package aws makes machines in EC2, and what lies around them: in goes a document whose provider is aws, out come
// its hosts and its endpoint, and from there on the machines are like any others that are reached over SSH.
//
// What there is to be is a graph of resources (graph.go), each with what finds it, what makes it, and what
// it needs. There is no file of state: everything is found by its tags, by its name, or by the id that the document has.
//
// The clients of the SDK must never become interfaces: a linker that sees one of them in an interface keeps all of
// its methods, 800 of EC2 alone. So nothing that holds a client is printed, and the SDK's own pagers and waiters are not used.
package aws

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	sdkconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"

	"github.com/kubewright/kubewright/config"
	"github.com/kubewright/kubewright/providers/waits"
)

// Tags of what is made. The first is on everything: whoever does not carry it is not ours.
const (
	clusterTag = "kubewright.dev/cluster" // the cluster's name
	partTag    = "kubewright.dev/part"    // what it is in the cluster: control-plane-0, say
	zonesTag   = "kubewright.dev/zones"   // of a VPC: those that were chosen for it
	diskTag    = "kubewright.dev/disk"    // of an instance: its root volume, in GiB, of which AWS tells only with the volume
	digestTag  = "kubewright.dev/digest"  // of what can't be compared otherwise
)

// Cloud is the part of an account and a region that is one cluster's.
type Cloud struct {
	c       *config.Cluster
	aws     config.AWSProvider
	name    string // of the cluster
	region  string
	account string
	// partition is aws, aws-cn or aws-us-gov: worlds of their own.
	partition string
	known     func() error // who calls: from then on account and partition are set
	dir       string       // of the cluster's key and of its hosts' keys
	ec2       *ec2.Client
	elb       *elb.Client
	iam       *iam.Client
	sts       *sts.Client
	surplus   []config.Node
	leaving   []Change // their ends
	remarks   []string
	started   map[string]time.Time // machines of nodes, or what leads to them, whichever was later
	vpcs      []string             // their ids, once they are found by who deletes
	waits     *waits.List

	// Say tells a person what happens, Warn what deserves attention.
	Say, Warn func(format string, args ...any)
	// Pause is between two looks at what takes its time, Patience how long something may take that gets no further.
	Pause, Patience time.Duration
}

// New takes a document whose provider is aws, completes that part of it, and finds credentials and region as every tool of AWS does:
// environment, profile, metadata service; also AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_EC2...
// What is waited for is in w.
func New(ctx context.Context, c *config.Cluster, w *waits.List) (*Cloud, error) {
	c.DefaultAWS()
	if err := c.ValidateAWS(); err != nil {
		return nil, &DocumentError{err}
	}
	p := c.Spec.Provider.AWS
	silent := func(string, ...any) {}
	a := &Cloud{c: c, aws: p, name: c.Metadata.Name, waits: w, Say: silent, Warn: silent, Pause: 5 * time.Second, Patience: 10 * time.Minute}
	told := &backoff{waits: w}
	options := []func(*sdkconfig.LoadOptions) error{sdkconfig.WithAppID("kubewright"), sdkconfig.WithLogger(logging.Nop{}), sdkconfig.WithRetryer(func() sdk.Retryer {
		return retryer(told, elsewhere) // AWS says so with a status that looks like a failure of its own
	})}
	if p.Region != "" {
		options = append(options, sdkconfig.WithRegion(p.Region))
	}
	cfg, err := sdkconfig.LoadDefaultConfig(ctx, options...)
	if none := (sdkconfig.SharedConfigProfileNotExistError{}); errors.As(err, &none) {
		return nil, fmt.Errorf("AWS: there is no profile %s: set AWS_PROFILE to one that `aws configure list-profiles` shows, or unset it", none.Profile)
	}
	if err != nil {
		return nil, fmt.Errorf("AWS: %w: look at AWS_PROFILE, and at ~/.aws/config", err)
	}
	if a.region = cfg.Region; a.region == "" {
		return nil, &DocumentError{errors.New("AWS: no region is known: write spec.provider.aws.region, or set AWS_REGION, or a region in your profile")}
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return nil, fmt.Errorf("AWS: no credentials: %w: set AWS_PROFILE, log in with `aws sso login`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", err)
	}
	if a.dir, err = dataDir(a.region, a.name); err != nil {
		return nil, err
	}
	a.ec2, a.elb, a.iam, a.sts = ec2.NewFromConfig(cfg), elb.NewFromConfig(cfg), iam.NewFromConfig(cfg), sts.NewFromConfig(cfg, func(o *sts.Options) { o.Retryer = retryer(told, noHost) }) // the first to find that a region is misspelt
	a.known = sync.OnceValue(func() error {
		err := a.identify(ctx)
		told.answered.Store(err == nil)
		return err
	})
	go a.known() // whoever wants to know waits for it
	return a, nil
}

// retryer tries each call up to twelve times, but for errors of a kind. Not in the SDK's adaptive mode, which holds back all calls when one is
// throttled: it made a run of 150 calls, every 23rd of which was throttled, take twice as long.
func retryer(told *backoff, final func(error) bool) sdk.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.Backoff, o.RateLimiter = attempts, told, ratelimit.None // a quota of retries would end a run in which many small calls are throttled
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) sdk.Ternary {
			if final(err) {
				return sdk.FalseTernary
			}
			return sdk.UnknownTernary
		})}, o.Retryables...)
	})
}

// identify finds out whose account it is: that which the document names, where it does.
func (a *Cloud) identify(ctx context.Context) error {
	out, err := a.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if noHost(err) {
		return fmt.Errorf("AWS: %s has no address: is the region called %s (spec.provider.aws.region, AWS_REGION, or your profile)? Else look at the network", hostOf(err), a.region)
	}
	if err != nil {
		return fmt.Errorf("AWS: region %s: %w", a.region, explain(err))
	}
	a.account = sdk.ToString(out.Account)
	if arn := strings.Split(sdk.ToString(out.Arn), ":"); len(arn) > 1 {
		a.partition = arn[1]
	}
	if wanted := a.aws.Account; wanted != "" && a.account != wanted {
		return fmt.Errorf("AWS: the credentials are of the account %s (%s), and spec.provider.aws.account is %s: choose others, with AWS_PROFILE, say", a.account, sdk.ToString(out.Arn), wanted)
	}
	return nil
}

// dataDir is where what belongs to a cluster in a region is kept on this machine.
func dataDir(region, name string) (string, error) {
	base := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		base = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(base, "kubewright", "aws", region, name), nil
}

// tags are those of one part.
func (a *Cloud) tags(part string, more ...string) (all []ec2types.Tag) {
	add := func(k, v string) { all = append(all, ec2types.Tag{Key: &k, Value: &v}) }
	add("Name", a.name+"-"+part)
	add(clusterTag, a.name)
	add(partTag, part)
	for i := 0; i+1 < len(more); i += 2 {
		add(more[i], more[i+1])
	}
	for _, k := range sorted(a.aws.Tags) {
		add(k, a.aws.Tags[k])
	}
	return all
}

// specified are tags for what is being made.
func (a *Cloud) specified(t ec2types.ResourceType, part string, more ...string) []ec2types.TagSpecification {
	return []ec2types.TagSpecification{{ResourceType: t, Tags: a.tags(part, more...)}}
}

// kubernetes is the tag by which cloud-controller-manager knows what is of its cluster.
func (a *Cloud) kubernetes() (key, value string) { return "kubernetes.io/cluster/" + a.name, "owned" }

func tagOf(tags []ec2types.Tag, key string) string {
	for _, t := range tags {
		if sdk.ToString(t.Key) == key {
			return sdk.ToString(t.Value)
		}
	}
	return ""
}

// named is a name for what has one beside its tags: kubewright-CLUSTER-part, cut to what AWS takes.
func (a *Cloud) named(limit int, parts ...string) string {
	s := strings.Join(append([]string{"kubewright", a.name}, parts...), "-")
	if len(s) > limit {
		s = s[:limit-9] + "-" + token(s)[:8]
	}
	return s
}

// token is the same for the same words: AWS makes a thing but once for it.
func token(words ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(words, "\x00")))
	return hex.EncodeToString(sum[:])
}

// privateName is the name that EC2 gives an address.
func privateName(region, ip string) string {
	if region += ".compute"; region == "us-east-1.compute" {
		region = "ec2"
	}
	return "ip-" + strings.ReplaceAll(ip, ".", "-") + "." + region + ".internal"
}
