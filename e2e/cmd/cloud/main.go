// Command cloud runs the stand-in of AWS by itself, for trials by hand: it prints what to export, and serves until it is
// interrupted. With --lab, instances are hosts of a lab, which is removed at the end; the range of a VPC must then lie in --subnet.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/kubewright/kubewright/e2e/cloud"
	"github.com/kubewright/kubewright/e2e/lab"
)

func main() {
	log.SetFlags(log.Ltime)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	o := cloud.Options{Log: log.Printf}
	listen := flag.String("listen", "127.0.0.1:0", "address to listen at")
	name := flag.String("lab", "", "instances are hosts of a new lab of this name, which needs root; none: they are nothing")
	subnet := flag.String("subnet", "10.215.0.0/16", "of that lab's network")
	calls := flag.Bool("calls", false, "log each call")
	flag.DurationVar(&o.Latency, "latency", 0, "of each call")
	flag.DurationVar(&o.Delay, "delay", 0, "that states take: pending, provisioning, deleting")
	flag.IntVar(&o.Lag, "lag", 0, "so many looks do not see a new resource")
	flag.IntVar(&o.PageSize, "page-size", 0, "at most so much in an answer")
	flag.IntVar(&o.Throttle, "throttle", 0, "of so many calls, one is refused")
	flag.Parse()
	if *calls {
		o.After = func(c cloud.Call) { log.Printf("%d %s %s %s", c.N, c.Service, c.Action, c.Code) }
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if *name != "" {
		return inLab(ctx, o, lab.Options{Name: *name, Subnet: *subnet, Log: log.Printf})
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	c := cloud.New(o)
	defer c.Close()
	s := &http.Server{Handler: c}
	export("http://" + l.Addr().String())
	context.AfterFunc(ctx, func() { s.Close() })
	if err := s.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}

func export(endpoint string) {
	fmt.Println("export AWS_REGION=eu-west-1 " + strings.Join(cloud.Env(endpoint), " "))
}

// inLab serves a cloud whose machines are hosts.
func inLab(ctx context.Context, o cloud.Options, lo lab.Options) error {
	l, err := lab.New(ctx, lo)
	if err != nil {
		return err
	}
	ending := context.WithoutCancel(ctx)
	m, err := cloud.NewLab(l, lab.Image{})
	if err != nil {
		return errors.Join(err, l.Close(ending))
	}
	o.Machines, o.Check = m, time.Second
	c := cloud.New(o)
	if err = m.Serve(c); err == nil {
		export(m.Endpoint)
		<-ctx.Done()
	}
	c.Close()
	return errors.Join(err, m.Close(), l.Close(ending))
}
