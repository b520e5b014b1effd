package cloud

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Key is an access key's secret half.
type Key struct {
	Secret, Session string // Session: of temporary credentials
	Account         string // 12 digits
	ARN             string // of whose it is; empty: a user named test
	Role            string // whose policies say what may be done; empty: everything
}

// TestKeyID is the key of a cloud that was given none; these are the examples of AWS's documentation.
const TestKeyID = "AKIAIOSFODNN7EXAMPLE"

// TestKey is its secret half.
var TestKey = Key{Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", Account: "111122223333"}

// Env is the environment of somebody whose AWS is served at an endpoint, with the test key.
func Env(endpoint string) []string {
	return []string{"AWS_ENDPOINT_URL=" + endpoint, "AWS_ACCESS_KEY_ID=" + TestKeyID, "AWS_SECRET_ACCESS_KEY=" + TestKey.Secret, "AWS_EC2_METADATA_DISABLED=true"}
}

// scope is what a signature is for.
type scope struct{ key, date, region, service, headers string }

// scopeOf is that of a request: AWS4-HMAC-SHA256 Credential=KEY/20260101/eu-west-1/ec2/aws4_request, SignedHeaders=a;b, Signature=...
func scopeOf(r *http.Request) (s scope) {
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	credential, rest, _ := strings.Cut(rest, ",")
	if f := strings.Split(credential, "/"); len(f) == 5 {
		s = scope{key: f[0], date: f[1], region: f[2], service: f[3]}
	}
	_, rest, _ = strings.Cut(rest, "SignedHeaders=")
	s.headers, _, _ = strings.Cut(rest, ",")
	return s
}

// authenticate finds out who calls.
func (c *Cloud) authenticate(q *call, s scope, r *http.Request, body []byte) *Error {
	refuse := func(code, message string) *Error {
		if q.Service == "ec2" || q.Service == "" {
			return &Error{"AuthFailure", "AWS was not able to validate the provided access credentials", http.StatusUnauthorized}
		}
		return &Error{code, message, http.StatusForbidden}
	}
	c.mu.Lock()
	key, ok := c.options.Keys[s.key]
	expired := c.options.Expire > 0 && c.n >= c.options.Expire
	_, region := c.options.Regions[s.region]
	c.mu.Unlock()
	switch {
	case s.key == "":
		return refuse("MissingAuthenticationToken", "Missing Authentication Token")
	case !ok || r.Header.Get("X-Amz-Security-Token") != key.Session:
		return refuse("InvalidClientTokenId", "The security token included in the request is invalid.")
	case !signed(r, body, s, aws.Credentials{AccessKeyID: s.key, SecretAccessKey: key.Secret, SessionToken: key.Session}):
		return refuse("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.")
	case expired && q.Service == "ec2":
		return &Error{"RequestExpired", "Request has expired.", http.StatusBadRequest}
	case expired:
		return &Error{"ExpiredToken", "The security token included in the request is expired", http.StatusForbidden}
	case !region:
		return refuse("InvalidClientTokenId", "There is no region "+s.region)
	}
	q.caller, q.Partition = key, partitionOf(s.region)
	if q.Account = key.Account; q.Service == "iam" {
		q.Region = "" // one for all
	}
	return nil
}

// signed says whether the signature is that of the request as it came.
func signed(r *http.Request, body []byte, s scope, credentials aws.Credentials) bool {
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return false
	}
	again := r.Clone(r.Context())
	again.URL.Host, again.Header = r.Host, http.Header{}
	for _, name := range strings.Split(s.headers, ";") {
		if v := r.Header.Values(name); len(v) > 0 {
			again.Header[http.CanonicalHeaderKey(name)] = v
		}
	}
	if !slices.Contains(strings.Split(s.headers, ";"), "content-length") { // as the AWS CLI leaves it out
		again.ContentLength = 0
	}
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(r.Context(), credentials, again, hex.EncodeToString(sum[:]), s.service, s.region, at)
	return err == nil && again.Header.Get("Authorization") == r.Header.Get("Authorization")
}

func callerIdentity(q *call) doc {
	return doc{"Account": q.Account, "Arn": cmp.Or(q.caller.ARN, "arn:"+q.Partition+":iam::"+q.Account+":user/test"), "UserId": "AIDACKCEVSQ6C2EXAMPLE"}
}
