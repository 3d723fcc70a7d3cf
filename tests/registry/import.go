package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

const (
	notPermitted = 42205
	invalidMode  = 42204
)

// importing adds import mode to the fake, as Confluent documents it: ids and versions are given, and nothing else is
// taken meanwhile; modes are checked, and let nothing be written that they forbid.
type importing struct {
	registry *srfake.Registry
	inner    http.Handler
	// What a registry does that takes the mode and gives ids of its own.
	ignoresIDs bool
	// Before each registration.
	delay time.Duration
	mu    sync.Mutex
}

func (i *importing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		i.inner.ServeHTTP(w, r)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.Method == http.MethodPut && path[0] == "mode":
		i.setMode(w, r, path[1:], body)
	case r.Method == http.MethodPost && len(path) == 3 && path[0] == "subjects":
		time.Sleep(i.delay)
		i.register(w, r, path[1], body)
	case r.Method == http.MethodDelete && path[0] == "subjects" && i.mode(path[1]) == "READONLY":
		refuse(w, notPermitted, "Subject "+path[1]+" is in read-only mode")
	default:
		i.inner.ServeHTTP(w, r)
	}
}

func (i *importing) setMode(w http.ResponseWriter, r *http.Request, subject []string, body []byte) {
	var asked struct {
		Mode string `json:"mode"`
	}
	_ = json.Unmarshal(body, &asked)
	if !slices.Contains([]string{"READWRITE", "READONLY", "IMPORT"}, asked.Mode) {
		refuse(w, invalidMode, "Invalid mode. Valid values are READWRITE, READONLY, IMPORT and FORWARD.")
		return
	}
	if asked.Mode == "IMPORT" && r.URL.Query().Get("force") != "true" {
		path := "/subjects"
		if len(subject) > 0 {
			path += "/" + subject[0] + "/versions"
		}
		if status, there := i.get(path); status == http.StatusOK && there != "[]" {
			refuse(w, notPermitted, "Cannot import since found existing subjects")
			return
		}
	}
	i.inner.ServeHTTP(w, r)
}

func (i *importing) register(w http.ResponseWriter, r *http.Request, subject string, body []byte) {
	var given struct{ ID, Version int }
	var schema sr.Schema
	if json.Unmarshal(body, &given) != nil || json.Unmarshal(body, &schema) != nil {
		refuse(w, 42201, "not a schema")
		return
	}
	mode := i.mode(subject)
	switch {
	case given.ID == 0 && mode != "READWRITE":
		refuse(w, notPermitted, "Subject "+subject+" is not in read-write mode")
	case given.ID != 0 && mode != "IMPORT":
		refuse(w, notPermitted, "Subject "+subject+" is not in import mode")
	case given.ID == 0 || i.ignoresIDs:
		// The fake takes no members that it does not know.
		plain, _ := json.Marshal(schema)
		r.Body = io.NopCloser(bytes.NewReader(plain))
		i.inner.ServeHTTP(w, r)
	default:
		i.take(w, r, subject, given.ID, given.Version, schema)
	}
}

// take keeps id and version. An id that is taken must be of the same schema.
func (i *importing) take(w http.ResponseWriter, r *http.Request, subject string, id, version int, schema sr.Schema) {
	if _, known := i.get(fmt.Sprintf("/schemas/ids/%d", id)); known != "" {
		var other sr.Schema
		if json.Unmarshal([]byte(known), &other) == nil && other.Schema != "" {
			if other.Schema != schema.Schema {
				refuse(w, notPermitted, fmt.Sprintf("Overwrite new schema with id %d is not permitted.", id))
				return
			}
			// The fake gives the schema the id that it has in its other subject, and the next version.
			plain, _ := json.Marshal(schema)
			r.Body = io.NopCloser(bytes.NewReader(plain))
			i.inner.ServeHTTP(w, r)
			if status, _ := i.get(fmt.Sprintf("/subjects/%s/versions/%d", subject, version)); status != http.StatusOK {
				panic("the fake gave another version than " + fmt.Sprint(version))
			}
			return
		}
	}
	defer func() {
		if flaw := recover(); flaw != nil {
			refuse(w, 42201, fmt.Sprint(flaw))
		}
	}()
	i.registry.SeedSchema(subject, version, id, schema)
	_ = json.NewEncoder(w).Encode(map[string]int{"id": id})
}

func (i *importing) mode(subject string) string {
	_, answer := i.get("/mode/" + subject)
	var found struct {
		Mode string `json:"mode"`
	}
	_ = json.Unmarshal([]byte(answer), &found)
	return found.Mode
}

func (i *importing) get(path string) (int, string) {
	recorder := httptest.NewRecorder()
	i.inner.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
	return recorder.Code, strings.TrimSpace(recorder.Body.String())
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	w.WriteHeader(http.StatusUnprocessableEntity)
	_ = json.NewEncoder(w).Encode(map[string]any{"error_code": code, "message": message})
}
