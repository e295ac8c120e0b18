package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// tlsName is the name in the certificates of servers.
const tlsName = "redistest"

// The files of TLS, in the root of a container, which is where its server runs.
const (
	tlsCA   = "/ca.crt"
	tlsCert = "/server.crt"
	tlsKey  = "/server.key"
)

// WithTLS returns options of servers that speak nothing but TLS and want
// certificates of their clients, and the configuration of such a client. They
// need containers; elsewhere tests are skipped.
func WithTLS(tb testing.TB, o Options) (Options, *tls.Config) {
	tb.Helper()
	caKey, ca := certify(tb, &x509.Certificate{
		Subject: pkix.Name{CommonName: "CA of redistest"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	uses := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} // nodes of a cluster are clients, too
	serverKey, server := certify(tb, &x509.Certificate{DNSNames: []string{tlsName}, ExtKeyUsage: uses}, ca, caKey)
	clientKey, client := certify(tb, &x509.Certificate{Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: uses}, ca, caKey)

	encoded, err := x509.MarshalECPrivateKey(serverKey)
	if err != nil {
		tb.Fatal(err)
	}
	o.files = map[string][]byte{
		tlsCA:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}),
		tlsCert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Raw}),
		tlsKey:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}),
	}
	o.Args = append([]string{
		"--port", "0", "--tls-port", serverPort, "--tls-auth-clients", "yes", "--tls-replication", "yes", "--tls-cluster", "yes",
		"--tls-ca-cert-file", tlsCA, "--tls-cert-file", tlsCert, "--tls-key-file", tlsKey,
	}, o.Args...)
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	o.tls = &tls.Config{
		RootCAs: roots, ServerName: tlsName,
		Certificates: []tls.Certificate{{Certificate: [][]byte{client.Raw}, PrivateKey: clientKey, Leaf: client}},
	}
	return o, o.tls.Clone()
}

// certify makes a key, and a certificate of it that is signed by a parent; nil:
// by itself.
func certify(tb testing.TB, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		tb.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return key, certificate
}
