package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/hashicorp/go-multierror"

	"github.com/kubewright/kubewright/config"
)

// codeOf is what AWS calls an error; empty: it is none of AWS.
func codeOf(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

func messageOf(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorMessage()
	}
	return err.Error()
}

// errUnseen is of something that is there, as AWS says, and of which it does not tell yet.
var errUnseen = errors.New("it is there already, and is not seen")

// profileUnseen is what EC2 says of an instance profile, or of its role, that IAM has and EC2 does not know of yet.
var profileUnseen = regexp.MustCompile(`(?i)iam ?instance ?profile`)

// missing tells of an error that something is not there; it may only not be there yet.
func missing(err error) bool {
	if errors.Is(err, errUnseen) {
		return true
	}
	code := codeOf(err)
	switch code {
	case "NoSuchEntity", "InvalidSecurityGroup", "InvalidSubnet", "InvalidTarget": // of IAM, and of ELB, which asks EC2
		return true
	}
	return strings.HasSuffix(code, "NotFound") || strings.HasSuffix(code, "NotFoundException") ||
		code == "ValidationError" && strings.Contains(messageOf(err), "not found") || // of ELB, for a VPC
		code == "InvalidParameterValue" && profileUnseen.MatchString(messageOf(err))
}

// settle does something to what was made a moment ago, and which not every part of AWS may know of yet.
func (a *Cloud) settle(ctx context.Context, do func() error) error {
	wait, end := a.Pause/20, time.Now().Add(2*time.Minute)
	for {
		err := do()
		if !missing(err) || time.Now().After(end) {
			return err
		}
		a.waits.For("AWS to know of what was made a moment ago", messageOf(err), time.Now().Add(wait))
		if e := pause(ctx, wait); e != nil {
			return e
		}
		wait = min(wait*3/2, a.Pause)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// until looks until something is so, of which people read meanwhile what it is. What it waits for, AWS tells by no event.
func (a *Cloud) until(ctx context.Context, what string, limit time.Duration, so func() (bool, string, error)) error {
	wait, end := a.Pause/20, time.Now().Add(limit)
	is, over := a.waits.Begin(what)
	defer over()
	for {
		ok, state, err := so()
		if ok || err != nil {
			return err
		}
		is(state)
		if time.Now().After(end) {
			return fmt.Errorf("it is %s after %s: look at it in the console, and run this again", state, limit)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait = min(wait*3/2, a.Pause)
	}
}

// elsewhere tells of errors after which another zone is worth a try.
func elsewhere(err error) bool {
	switch codeOf(err) {
	case "InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity", "InsufficientFreeAddressesInSubnet", "Unsupported", "UnsupportedOperation", "SpotMaxPriceTooLow":
		return true
	}
	return false
}

// noHost tells of a name that nobody knows: that of a region's service, if the region is misspelt.
func noHost(err error) bool {
	var e *net.DNSError
	return errors.As(err, &e) && e.IsNotFound
}

func hostOf(err error) string {
	var e *net.DNSError
	errors.As(err, &e)
	return e.Name
}

// throttling is that of all services: two of its codes look like quotas.
func throttling(code string) bool {
	switch code {
	case "RequestLimitExceeded", "TooManyRequestsException", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException", "BandwidthLimitExceeded", "EC2ThrottledException":
		return true
	}
	return false
}

// explain adds to an error of AWS what to do next.
func explain(err error) error {
	code := codeOf(err)
	next := ""
	var unsent *smithyhttp.RequestSendError
	switch {
	case code == "" && errors.As(err, &unsent) && !errors.Is(err, context.Canceled):
		return fmt.Errorf("AWS is not reached: %w: look at the network, and at HTTPS_PROXY and AWS_ENDPOINT_URL where they are set", unsent.Err)
	case err == nil, code == "":
		return err
	case code == "ExpiredToken", code == "ExpiredTokenException", code == "RequestExpired":
		next = "the credentials have expired: get new ones (`aws sso login`, say), and run this again: it goes on where it was"
	case code == "AuthFailure", code == "InvalidClientTokenId", code == "UnrecognizedClientException", code == "SignatureDoesNotMatch", code == "IncompleteSignature", code == "MissingAuthenticationToken":
		next = "AWS does not take the credentials: look at AWS_PROFILE and AWS_ACCESS_KEY_ID, at the clock, and whether the region is enabled for the account"
	case code == "UnauthorizedOperation", code == "AccessDenied", code == "AccessDeniedException":
		next = "the credentials lack a permission: docs/aws.md lists those that are needed"
	case code == "OptInRequired", code == "PendingVerification":
		next = "the account may not do so yet: finish its registration with AWS"
	case throttling(code):
		next = "AWS takes no more calls at this rate, and none of twelve tries was let through: others in the account may be calling, too; run this again in a while, and it goes on where it was"
	case code == "MaxSpotInstanceCountExceeded", strings.HasSuffix(code, "LimitExceeded"), strings.HasPrefix(code, "TooMany"), code == "LimitExceededException", code == "ResourceCountExceeded", code == "InstanceLimitExceeded":
		next = "a quota of the account is used up: ask for more under Service Quotas in the console, or remove what is no longer needed, and run this again"
	case code == "DependencyViolation":
		next = "something else still uses it"
	case code == "IdempotentParameterMismatch":
		next = "another run has asked for the same thing with other settings a moment ago: run this again in a minute"
	default:
		of, bare := err.(*smithy.OperationError)
		if !bare { // we have said more
			return err
		}
		next = fmt.Sprintf("so %s answers %s", of.Service(), of.Operation())
	}
	return &APIError{Code: code, Next: next, Err: err}
}

// DocumentError is of a document that AWS, or what is there of the cluster, does not go with.
type DocumentError struct{ Err error }

func (e *DocumentError) Error() string { return e.Err.Error() }
func (e *DocumentError) Unwrap() error { return e.Err }

// wrong is of a field below spec.provider.aws.
func wrong(field, format string, args ...any) error {
	return &DocumentError{fmt.Errorf("spec.provider.aws."+field+": "+format, args...)}
}

// wrongs is all that is wrong with the document. Where something else has failed, too, it is that, and tells of the document: nobody may have seen all of it.
func wrongs(all *multierror.Error, other error) error {
	if all == nil || len(all.Errors) == 0 {
		return other
	}
	sort.Sort(all)
	if other != nil {
		return fmt.Errorf("%w\nand the document is wrong: %v", other, config.Errors(all))
	}
	return &DocumentError{config.Errors(all)}
}

// gathered is [wrongs] of some errors, or of none.
func gathered(errs ...error) error {
	var all *multierror.Error
	var other error
	for _, err := range errs {
		if d := (*DocumentError)(nil); errors.As(err, &d) {
			all = multierror.Append(all, d.Err)
		} else {
			other = cmp.Or(other, explain(err))
		}
	}
	return wrongs(all, other)
}

// APIError is an error of AWS of which is known what to do next.
type APIError struct {
	Code, Next string
	Err        error
}

func (e *APIError) Error() string { return fmt.Sprintf("%s: %s: %s", e.Code, messageOf(e.Err), e.Next) }
func (e *APIError) Unwrap() error { return e.Err }
