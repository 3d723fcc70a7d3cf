// A Schema Registry in memory, twice over the same contents: open, and with TLS and a login. It is without import mode
// unless it is asked for.
package main

import (
	"flag"
	"log"
	"net/http"
	"slices"

	"github.com/twmb/franz-go/pkg/sr/srfake"
)

func main() {
	open := flag.String("open", "", "address without a login")
	secure := flag.String("secure", "", "address with TLS and a login; none if empty")
	certificate := flag.String("certificate", "", "PEM file")
	key := flag.String("key", "", "PEM file")
	var logins []string
	flag.Func("authorization", "a header's value that is let in", func(value string) error {
		logins = append(logins, value)
		return nil
	})
	modes := flag.String("import", "", "kept, ignored: an import mode, and what it does with ids")
	delay := flag.Duration("delay", 0, "before each registration, with an import mode")
	flag.Parse()
	registry := srfake.NewRegistry()
	defer registry.Close()
	handler := registry.Handler()
	if *modes != "" {
		ignoresIDs := *modes == "ignored"
		handler = &importing{registry: registry, inner: handler, ignoresIDs: ignoresIDs, delay: *delay}
	}
	if *secure != "" {
		guarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			login := r.Header.Get("Authorization")
			w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
			switch {
			case login == "":
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte(`{"error_code":40101,"message":"no login"}`))
			case !slices.Contains(logins, login):
				w.WriteHeader(http.StatusForbidden)
				_, _ = w.Write([]byte(`{"error_code":40301,"message":"not let in"}`))
			default:
				handler.ServeHTTP(w, r)
			}
		})
		go func() { log.Fatal(http.ListenAndServeTLS(*secure, *certificate, *key, guarded)) }()
	}
	log.Fatal(http.ListenAndServe(*open, handler))
}
