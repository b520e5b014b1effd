package addons

import (
	"crypto/rand"
	"errors"
	"math/big"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cluster-bootstrap/token/api"
)

// Token is a bootstrap token, with which a node joins. [ParseToken] and [NewToken] make it.
//
// Its secret comes out by [Token.Reveal] alone: printed with any verb, or as JSON, a token
// shows its ID, which is public.
type Token struct {
	id string
	// A pointer, because fmt can not call String on an unexported field of another struct
	// and prints its bare values instead: of this one, an address.
	secret *string
}

var tokenForm = regexp.MustCompile(api.BootstrapTokenPattern) // \A([a-z0-9]{6})\.([a-z0-9]{16})\z

var errTokenForm = errors.New(`a bootstrap token has 6 characters, a dot and 16 characters, all of a-z and 0-9, like "abcdef.0123456789abcdef"`)

// ParseToken reads "<id>.<secret>". Its error never repeats what was given, as even a
// mistyped token is most of a secret.
func ParseToken(s string) (Token, error) {
	m := tokenForm.FindStringSubmatch(s)
	if m == nil {
		return Token{}, errTokenForm
	}
	return Token{id: m[1], secret: &m[2]}, nil
}

// NewToken makes a token from the system's random source.
func NewToken() (Token, error) {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyz"
	text := make([]byte, api.BootstrapTokenIDBytes+api.BootstrapTokenSecretBytes)
	for i := range text {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			return Token{}, err
		}
		text[i] = letters[n.Int64()]
	}
	secret := string(text[api.BootstrapTokenIDBytes:])
	return Token{id: string(text[:api.BootstrapTokenIDBytes]), secret: &secret}, nil
}

// ID is the public part.
func (t Token) ID() string { return t.id }

// Reveal is the whole token, secret and all: for a file, a request or the user's terminal,
// never for a log.
func (t Token) Reveal() string {
	if t.secret == nil {
		return ""
	}
	return t.id + "." + *t.secret
}

// String and the others show the ID and hide the secret.
func (t Token) String() string               { return t.id + ".<secret>" }
func (t Token) GoString() string             { return t.String() }
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

func (t Token) key() string { return strings.TrimPrefix(t.Reveal(), t.id+".") }

// What kubeadm's tokens are for, when the user does not say otherwise.
const TokenTTL = 24 * time.Hour

// TokenUsages and TokenGroups are kubeadm's defaults.
func TokenUsages() []string { return []string{"signing", "authentication"} }
func TokenGroups() []string { return []string{bootstrappers} }

// TokenSecret returns the Secret that makes the API accept a token until it expires; a zero
// time means never. Apply it before [ClusterInfo]: the controller manager takes signatures
// by tokens that it does not know out of cluster-info.
func TokenSecret(t Token, description string, expires time.Time, usages, groups []string) Object {
	data := map[string][]byte{
		api.BootstrapTokenIDKey:     []byte(t.id),
		api.BootstrapTokenSecretKey: []byte(t.key()),
	}
	if description != "" {
		data[api.BootstrapTokenDescriptionKey] = []byte(description)
	}
	if !expires.IsZero() {
		data[api.BootstrapTokenExpirationKey] = []byte(expires.UTC().Format(time.RFC3339))
	}
	for _, usage := range usages {
		data[api.BootstrapTokenUsagePrefix+usage] = []byte("true")
	}
	if len(groups) > 0 {
		data[api.BootstrapTokenExtraGroupsKey] = []byte(strings.Join(groups, ","))
	}
	return objects(&corev1.Secret{
		ObjectMeta: named(kubeSystem, api.BootstrapTokenSecretPrefix+t.id),
		Type:       api.SecretTypeBootstrapToken,
		Data:       data,
	})[0]
}
