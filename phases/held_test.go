package phases

import "testing"

func TestOfSeveralImagesTheNewestCounts(t *testing.T) {
	for _, tags := range [][2]string{{"v1.36.10", "v1.36.9"}, {"3.6.8-1", "3.6.8-0"}, {"v0.28.10", "latest"}, {"2.6.12", ""}, {"latest", ""}} {
		if !newer(tags[0], tags[1]) || newer(tags[1], tags[0]) && tags[1] != "" {
			t.Errorf("%q is not newer than %q", tags[0], tags[1])
		}
	}
}
