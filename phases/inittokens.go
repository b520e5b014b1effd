package phases

import (
	"cmp"
	"slices"
	"time"

	"github.com/kubewright/kubewright/addons"
)

// InitToken is a bootstrap token that init makes.
type InitToken struct {
	addons.Token
	Description    string        // empty: that init made it
	TTL            time.Duration // 0: it never expires
	Expires        time.Time     // zero: by TTL
	Usages, Groups []string
}

// initTokens are those that were wished for, else the one with which nodes join.
func (t *Target) initTokens() []InitToken {
	if t.Tokens != nil {
		return t.Tokens
	}
	return []InitToken{{Token: t.Token, TTL: t.TTL, Usages: addons.TokenUsages(), Groups: addons.TokenGroups()}}
}

// signers are the tokens that sign cluster-info.
func signers(tokens []InitToken) (list []addons.Token) {
	for _, t := range tokens {
		if slices.Contains(t.Usages, "signing") {
			list = append(list, t.Token)
		}
	}
	return list
}

func (t InitToken) secret(now time.Time) addons.Object {
	expires := t.Expires
	if expires.IsZero() && t.TTL > 0 {
		expires = now.Add(t.TTL)
	}
	return addons.TokenSecret(t.Token, cmp.Or(t.Description, "Made by kubewright init."), expires, t.Usages, t.Groups)
}
