package phases

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/kubewright/kubewright/host"
	"github.com/kubewright/kubewright/manifests"
)

// restore undoes the journal, the newest first. What somebody else has changed since stays
// as it is, and is named.
func restore(ctx context.Context, t *Target) error {
	if t.Journal == nil {
		return nil
	}
	infos, err := t.Host.Stat(ctx, JournalDir)
	if _, ok := infos[JournalDir]; err != nil || !ok {
		return err
	}
	for _, line := range t.Journal.bad {
		t.notice("line %d of %s cannot be read: what it was about, if it was done, is not undone", line, journalPath)
	}
	kept := map[string]bool{} // folders that others use now
	if err := t.restoreUnits(ctx); err != nil {
		return err
	}
	if err := t.restoreFiles(ctx, t.Journal.things(aFile), kept); err != nil {
		return err
	}
	if err := t.restoreLines(ctx); err != nil {
		return err
	}
	if err := t.restoreSysctls(ctx); err != nil {
		return err
	}
	if err := t.removeSharedDirs(ctx, kept); err != nil {
		return err
	}
	if len(t.Journal.bad) > 0 {
		if err := t.nameForgotten(ctx); err != nil {
			return err
		}
	}
	// Its lines have served: the next init begins with what is here then. Last, so that a
	// reset that is killed is finished by the next.
	return t.do(ctx, "rm", "-rf", "--one-file-system", "--", JournalDir)
}

// nameForgotten names what init and join write and what is still there: with half a journal
// nobody knows whose it is.
func (t *Target) nameForgotten(ctx context.Context) error {
	var paths []string
	for _, p := range places {
		paths = append(paths, p.path)
	}
	for _, f := range slices.Concat(manifests.KubeletUnit(""), manifests.Prerequisites(false), []host.File{manifests.ContainerdUnit(), manifests.Containerd(""), manifests.Crictl(""), manifests.CRIO("")}) {
		paths = append(paths, f.Path)
	}
	paths = append(paths, manifests.CertsDir, manifests.LoadBalancerConfig)
	infos, err := t.Host.Stat(ctx, paths...)
	if err != nil {
		return err
	}
	for _, p := range paths {
		if _, ok := infos[p]; ok {
			t.notice("kept: %s may be ours, and the journal does not say so: remove it if you do not need it", p)
		}
	}
	return nil
}

func (t *Target) restoreUnits(ctx context.Context) error {
	for _, s := range t.Journal.things(aUnit) {
		now, err := t.unitState(ctx, s.Name)
		if err != nil {
			return err
		}
		if now == s.Before {
			continue
		}
		file, active, _ := strings.Cut(s.Before, " ")
		verb := "disable"
		if file == "enabled" {
			verb = "enable"
		}
		if !strings.HasPrefix(now, " ") { // a unit whose file is gone has nothing to enable
			if err := t.do(ctx, "systemctl", verb, "--quiet", s.Name); err != nil {
				return err
			}
		}
		verb = "stop"
		if active == "active" {
			verb = "start"
		}
		if err := t.do(ctx, "systemctl", verb, s.Name); err != nil {
			return err
		}
	}
	return nil
}

// restoreFiles undoes these things of the journal.
func (t *Target) restoreFiles(ctx context.Context, things []Step, kept map[string]bool) error {
	var paths []string
	for _, s := range things {
		paths = append(paths, s.Name, host.Temporary(s.Name))
	}
	infos, err := t.Host.Stat(ctx, paths...)
	if err != nil {
		return err
	}
	reload := false
	for _, s := range things {
		reload = reload || strings.HasPrefix(s.Name, "/etc/systemd/system/") // though an earlier reset has removed it
		if _, ok := infos[host.Temporary(s.Name)]; ok {                      // of a run that was killed
			if err := t.do(ctx, "rm", "-rf", "--", host.Temporary(s.Name)); err != nil {
				return err
			}
		}
		info, exists := infos[s.Name]
		now := ""
		if exists {
			if now, err = describePath(ctx, t.Host, s.Name, info); err != nil {
				return err
			}
		}
		switch {
		case now == s.Before:
			continue
		case now == "":
			t.notice("kept: %s is gone, and is not brought back", s.Name)
			continue
		case strings.HasPrefix(s.After, "dir ") && s.Before == "": // when it is empty: it comes after what is in it
			if err := t.removeDir(ctx, s.Name, kept); err != nil {
				return err
			}
			continue
		case now != s.After:
			kept[s.Name] = true
			t.notice("kept: %s was changed since by somebody else", s.Name)
			continue
		}
		if err := t.restoreFile(ctx, s); err != nil {
			return err
		}
	}
	if !reload {
		return nil
	}
	if err := t.do(ctx, "systemctl", "daemon-reload"); err != nil {
		return err
	}
	// A unit that has failed is remembered even when it is gone; that none has is no error.
	t.Host.Run(ctx, host.Cmd("systemctl", "reset-failed", "kubelet.service", "containerd.service"))
	for _, s := range t.Journal.things(aUnit) { // what ran before reads what it read before
		if strings.HasSuffix(s.Before, " active") {
			if err := t.do(ctx, "systemctl", "restart", s.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Target) restoreFile(ctx context.Context, s Step) error {
	kind, rest, _ := strings.Cut(s.Before, " ")
	switch kind {
	case "":
		return t.do(ctx, "rm", "-f", "--", s.Name)
	case "link":
		return t.do(ctx, "ln", "-sfn", "--", rest, s.Name)
	default:
		mode, err := strconv.ParseUint(strings.Fields(rest)[0], 8, 32)
		if err != nil {
			return fmt.Errorf("the journal on %s: %w", s.Name, err)
		}
		if kind == "dir" {
			return t.do(ctx, "chmod", fmt.Sprintf("%04o", mode), s.Name)
		}
		kept := beforePath(s.Before)
		digests, err := t.Host.Digest(ctx, kept)
		if err != nil {
			return err
		}
		d := digests[kept]
		if !strings.HasSuffix(s.Before, d) || d == "" {
			t.notice("kept: %s, as the copy of what it was before is not there or is damaged: %s", s.Name, kept)
			return nil
		}
		// With owner and times, as it was copied; and whole, or not at all.
		temporary := host.Temporary(s.Name)
		if err := t.do(ctx, "cp", "--archive", "--", kept, temporary); err != nil {
			return err
		}
		return t.do(ctx, "mv", "--", temporary, s.Name)
	}
}

func (t *Target) restoreSysctls(ctx context.Context) error {
	before, made := map[string]string{}, map[string]string{}
	if found := t.found(); found != nil {
		for _, s := range manifests.NodeSysctls() {
			if v, ok := found.Sysctls[s.Name]; ok {
				before[s.Name], made[s.Name] = v, s.Value
			}
		}
	}
	for _, s := range t.Journal.things(aSysctl) {
		if _, ok := before[s.Name]; !ok {
			before[s.Name] = s.Before
		}
		made[s.Name] = s.After
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		now, err := t.sysctl(ctx, name)
		switch {
		case err != nil || now == before[name]:
		case made[name] != "" && now != made[name]:
			t.notice("kept: the sysctl %s = %s, which was %s before and was changed since by somebody else", name, now, before[name])
		default:
			if err := t.do(ctx, "sysctl", "-q", "-w", name+"="+before[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Target) removeSharedDirs(ctx context.Context, kept map[string]bool) error {
	found := t.found()
	if !found.counts() {
		return nil
	}
	for _, dir := range sharedDirs {
		if found.hadPath(dir) {
			continue
		}
		if err := t.removeDir(ctx, dir, kept); err != nil {
			return err
		}
	}
	return nil
}

// removeDir removes an empty folder. Of another one it says what is in it, once.
func (t *Target) removeDir(ctx context.Context, dir string, kept map[string]bool) error {
	if kept[dir] {
		return nil
	}
	names, err := t.Host.List(ctx, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return t.do(ctx, "rmdir", "--", dir)
	}
	kept[dir] = true
	news := slices.DeleteFunc(names, func(n string) bool { return kept[path.Join(dir, n)] })
	if len(news) > 0 && dir != JournalDir {
		t.notice("kept: %s, which was not there before, as others have put something into it: %s", dir, strings.Join(news, ", "))
	}
	return nil
}

// unitState is a unit's "enabled active", as the journal has it; the first word is empty
// where there is no such unit.
func (t *Target) unitState(ctx context.Context, unit string) (string, error) {
	out, err := t.Host.Run(ctx, host.Query("systemctl", "show", "--property", "ActiveState,UnitFileState", unit))
	if err != nil {
		return "", err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(out.Stdout)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = value
	}
	if values["ActiveState"] != "inactive" && values["ActiveState"] != "failed" {
		values["ActiveState"] = "active" // or about to be
	} else {
		values["ActiveState"] = "inactive"
	}
	return values["UnitFileState"] + " " + values["ActiveState"], nil
}

// noteUnit writes down what a unit was before we touched it.
func (t *Target) noteUnit(ctx context.Context, unit string) error {
	if t.Journal == nil || slices.ContainsFunc(t.Journal.things(aUnit), func(s Step) bool { return s.Name == unit }) {
		return nil
	}
	state, err := t.unitState(ctx, unit)
	if err != nil {
		return err
	}
	return t.note(ctx, Step{Kind: aUnit, Name: unit, Before: state, After: "enabled active"})
}
