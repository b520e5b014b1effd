package addons

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"k8s.io/cluster-bootstrap/token/util"
)

func TestParseToken(t *testing.T) {
	const secret = "0123456789abcdef"
	for text, ok := range map[string]bool{
		"abcdef." + secret:        true,
		"000000." + secret:        true,
		"":                        false,
		secret:                    false,
		"." + secret:              false,
		"abcde." + secret:         false,
		"abcdefg." + secret:       false,
		"ABCDEF." + secret:        false,
		"abcdef:" + secret:        false,
		"abcdef." + secret + "0":  false,
		"abcdef." + secret + "\n": false,
		" abcdef." + secret:       false,
		"äbcdef." + secret:        false,
	} {
		token, err := ParseToken(text)
		if (err == nil) != ok {
			t.Errorf("ParseToken(%q): error %v, valid is %t", text, err, ok)
			continue
		}
		if ok && token.Reveal() != text {
			t.Errorf("ParseToken(%q) reveals %q", text, token.Reveal())
		}
		if err != nil && (strings.Contains(err.Error(), secret+"0") || !strings.Contains(err.Error(), "6 characters")) {
			t.Errorf("ParseToken(%q): the error should say the form and not repeat the token: %v", text, err)
		}
	}
	// The example in the message has the example's secret; another must not appear.
	if _, err := ParseToken("abcdef.s3cr3ts3cr3ts3cr3t"); err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("the error tells the secret: %v", err)
	}
}

func TestNewTokenIsValidAndNew(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		token := NewToken()
		if !util.IsValidBootstrapToken(token.Reveal()) {
			t.Fatalf("%q is no bootstrap token", token.Reveal())
		}
		if seen[token.ID()] || seen[token.key()] {
			t.Fatalf("%q was there before", token.Reveal())
		}
		seen[token.ID()], seen[token.key()] = true, true
	}
}

func TestTokenIsNotPrintedByAccident(t *testing.T) {
	token := exampleToken(t)
	inside := struct {
		Exported   Token
		unexported Token
		pointer    *Token
		list       []Token
	}{token, token, &token, []Token{token}}
	var out strings.Builder
	for _, v := range []any{token, &token, inside, &inside, map[string]Token{"": token}, fmt.Errorf("join: %v", token)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("token", "token", token, "inside", inside)
	for _, form := range []string{token.key(), fmt.Sprintf("%x", token.key())} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%s is in:\n%s", form, &out)
		}
	}
	if !strings.Contains(out.String(), token.ID()) {
		t.Errorf("the ID, which is public, is hidden:\n%s", &out)
	}
	if got := (Token{}).Reveal(); got != "" {
		t.Errorf("a zero token reveals %q", got)
	}
}

func FuzzParseToken(f *testing.F) {
	for _, seed := range []string{"abcdef.0123456789abcdef", "abcdef.0123456789abcdeF", "", ".", "abcdef.0123456789abcde\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if (err == nil) != util.IsValidBootstrapToken(s) {
			t.Fatalf("%q: error %v, but Kubernetes says %t", s, err, err != nil)
		}
		if err == nil && token.Reveal() != s {
			t.Fatalf("%q became %q", s, token.Reveal())
		}
	})
}
