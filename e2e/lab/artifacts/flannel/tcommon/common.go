package common

func StringPtr(s string) *string { return &s }
func BoolPtr(b bool) *bool       { return &b }
func StringPtrs(s []string) []*string {
	o := make([]*string, len(s))
	for i := range s {
		o[i] = &s[i]
	}
	return o
}
