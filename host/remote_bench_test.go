package host

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
)

// What a machine has to do for what is asked often: run it with -bench Remote.
func BenchmarkRemote(b *testing.B) {
	dir := b.TempDir()
	var paths []string
	var files []File
	for i := range 100 {
		paths = append(paths, filepath.Join(dir, fmt.Sprint(i)))
		files = append(files, File{Path: paths[i], Content: Text(fmt.Sprintf("file %d\n", i))})
	}
	if _, err := (Local{}).WriteFiles(b.Context(), files...); err != nil {
		b.Fatal(err)
	}
	for _, shell := range []string{"dash", "bash"} {
		r := remote(b, shell)
		for name, do := range map[string]func(i int) error{
			"stat-100": func(int) error { _, err := r.Stat(b.Context(), paths...); return err },
			"read-40": func(int) error {
				var wait sync.WaitGroup
				errs := make(chan error, 40)
				for _, p := range paths[:40] {
					wait.Go(func() {
						if _, err := r.ReadFile(b.Context(), p); err != nil {
							errs <- err
						}
					})
				}
				wait.Wait()
				close(errs)
				return <-errs
			},
			"write-40": func(i int) error {
				for j := range 40 {
					files[j].Content = Text(fmt.Sprintf("file %d of %d\n", j, i))
				}
				_, err := r.WriteFiles(b.Context(), files[:40]...)
				return err
			},
			"append": func(int) error { return r.Append(b.Context(), dir+"/journal", []byte("line\n")) },
			"run":    func(int) error { _, err := r.Run(b.Context(), Cmd("true")); return err },
			"query":  func(int) error { _, err := r.Run(b.Context(), Query("true")); return err },
		} {
			b.Run(shell+"/"+name, func(b *testing.B) {
				trips := r.RoundTrips()
				for i := 0; b.Loop(); i++ {
					if err := do(i); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(r.RoundTrips()-trips)/float64(b.N), "trips/op")
			})
		}
	}
}
