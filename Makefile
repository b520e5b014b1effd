# Everything is built from Go modules and Debian's packages; see docs/lab.md.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# Of code that is large and seldom runs, nothing is inlined: 4 MB less.
FLAGS   := $(shell cat cmd/kubewright/build.flags)
ONLY    ?=

.PHONY: build demo test soak bench lint cross
build: ## the binary, static, in bin/; first the program that it sends to hosts
	go generate ./reach
	CGO_ENABLED=0 go build -trimpath $(FLAGS) -ldflags "$(LDFLAGS)" -o bin/kubewright ./cmd/kubewright

demo: ## a real cluster of one control plane and two workers on this machine
	go run ./e2e/cmd/lab demo

test: build ## all tests; the first run builds Kubernetes
	go run ./e2e/cmd/lab build --cloud
	KUBEADM=$$(go run ./e2e/cmd/lab binary kubeadm) \
	KUBEWRIGHT_TEST_CONTAINERD=$$(go run ./e2e/cmd/lab binary containerd) \
	go test -timeout 40m ./...

soak: build ## longer trials; see docs/soak.md
	KUBEWRIGHT_SOAK=1 go test -count=1 -timeout 2h -run TestSoak -v ./e2e
	KUBEWRIGHT_SOAK=1 go test -count=1 -timeout 30m -run WasKilled -v ./providers/aws

bench: ## figures, side by side with kubeadm: make bench ONLY=init
	go run ./e2e/cmd/bench --only "$(ONLY)"

lint:
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"
	go vet ./...

cross: ## that it builds for what it runs on: the host of a node is Linux, an operator's laptop may be a Mac
	for p in linux/arm64 darwin/amd64 darwin/arm64; do GOOS=$${p%/*} GOARCH=$${p#*/} CGO_ENABLED=0 go build -o /dev/null ./cmd/kubewright || exit 1; done
