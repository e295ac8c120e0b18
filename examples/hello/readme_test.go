package main

import (
	"os"
	"strings"
	"testing"
)

// The program in the README is this one.
func TestReadmeHasThisProgram(t *testing.T) {
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(source), "package main")
	if !strings.Contains(string(readme), "```go\npackage main"+program+"```") {
		t.Error("README.md has another program than examples/hello/main.go")
	}
}
