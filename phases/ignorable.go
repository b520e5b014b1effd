package phases

import (
	"fmt"
	"slices"
	"strings"
)

// ignorable are the checks that --ignore-preflight-errors may name; of one that ends with a dash something follows. The last are those of kubeadm
// that have no counterpart here: whoever comes from there may go on naming them.
var ignorable = []string{
	"Address", "Architecture", "Artifacts", "Bundle", "Certificates", "Clock", "CNI", "ContainerRuntimeVersion", "CRI", "DefaultRoute", "DirAvailable-", "DuplicateAddress", "DuplicateHostname", "DuplicateMAC", "DuplicateMachineID", "DuplicateProductUUID",
	"ExternalEtcdClientCertificates", "ExternalEtcdVersion", "FileAvailable-", "FileExisting-", "Hostname", "IPv6", "IsPrivilegedUser", "Kernel-", "KernelVersion", "KubeProxyMode", "Mem", "Mirrors", "MTU",
	"NetworkOverlap", "NumCPU", "Patches", "Port-", "Reach", "Reachable", "RouterAdvertisements", "SandboxImage", "Swap", "SystemVerification", "Systemd", "Writable-",
	"FileContent-", "Firewalld", "HTTPProxy", "HTTPProxyCIDR", "ImagePull", "KubeletVersion", "KubernetesVersion", "Service-",
}

// CheckIgnore refuses names that no check has, whatever their case.
func CheckIgnore(names []string) error {
	for _, name := range names {
		known := slices.ContainsFunc(ignorable, func(check string) bool {
			if !strings.HasSuffix(check, "-") {
				return strings.EqualFold(name, check)
			}
			return len(name) > len(check) && strings.EqualFold(name[:len(check)], check)
		})
		if !known && !strings.EqualFold(name, "all") {
			return fmt.Errorf("--ignore-preflight-errors: there is no check %q: the checks are %s, or write all", name, strings.Join(ignorable, ", "))
		}
	}
	return nil
}
