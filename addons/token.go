package addons

import (
	"crypto/rand"
	"errors"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cluster-bootstrap/token/api"
)

// Token is a bootstrap token, with which a node joins. [ParseToken] and [NewToken] make it.
//
// Its secret comes out by [Token.Reveal] alone: printed with any verb, or as JSON, a token
// shows its ID, which is public, or less.
type Token struct {
	// A pointer, because fmt can not call String on an unexported field of another struct
	// and prints its bare values instead: of this one, an address.
	text *string
}

var tokenForm = regexp.MustCompile(api.BootstrapTokenPattern) // \A([a-z0-9]{6})\.([a-z0-9]{16})\z

var errTokenForm = errors.New(`a bootstrap token has 6 characters, a dot and 16 characters, all of a-z and 0-9, like "abcdef.0123456789abcdef"`)

// ParseToken reads "<id>.<secret>". Its error never repeats what was given, as even a
// mistyped token is most of a secret.
func ParseToken(s string) (Token, error) {
	if !tokenForm.MatchString(s) {
		return Token{}, errTokenForm
	}
	return Token{&s}, nil
}

// NewToken makes a token from the system's random source: five bits a character, 80 in the
// secret (kubeadm's has 82).
func NewToken() Token {
	random := strings.ToLower(rand.Text()) // 26 characters, of which 22 are used
	text := random[:6] + "." + random[6:22]
	return Token{&text}
}

// Reveal is the whole token, secret and all: for a file, a request or the user's terminal,
// never for a log.
func (t Token) Reveal() string {
	if t.text == nil {
		return ""
	}
	return *t.text
}

// ID is the public part.
func (t Token) ID() string {
	id, _, _ := strings.Cut(t.Reveal(), ".")
	return id
}

// key is the secret alone.
func (t Token) key() string {
	_, secret, _ := strings.Cut(t.Reveal(), ".")
	return secret
}

// String shows the ID and hides the secret.
func (t Token) String() string { return t.ID() + ".<secret>" }

// TokenTTL, TokenUsages and TokenGroups are kubeadm's defaults.
const TokenTTL = 24 * time.Hour

func TokenUsages() []string { return []string{"signing", "authentication"} }
func TokenGroups() []string { return []string{bootstrappers} }

// TokenSecret returns the Secret that makes the API accept a token until it expires; a zero
// time means never. Apply it before [ClusterInfo]: the controller manager takes signatures
// by tokens that it does not know out of cluster-info.
func TokenSecret(t Token, description string, expires time.Time, usages, groups []string) Object {
	data := map[string][]byte{
		api.BootstrapTokenIDKey:     []byte(t.ID()),
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
		ObjectMeta: named(kubeSystem, api.BootstrapTokenSecretPrefix+t.ID()),
		Type:       api.SecretTypeBootstrapToken,
		Data:       data,
	})[0]
}
