#include "tls.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <atomic>
#include <cstring>

namespace ambit_io {

// Counted for the whole process: tests look for zero at the end.
static std::atomic<long> tls_count{0};
static std::atomic<long> context_count{0};

long TlsLive() { return tls_count.load(); }
long ContextsLive() { return context_count.load(); }

namespace {

// Where the records of the connection being worked on come from and go to.
int BioRead(BIO* bio, char* to, int length) {
  auto* buffers = static_cast<TlsBuffers*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (length <= 0) return 0;
  if (buffers->in_left == 0) {
    if (buffers->in_ended) return 0;
    BIO_set_retry_read(bio);
    return -1;
  }
  size_t take = static_cast<size_t>(length) < buffers->in_left ? static_cast<size_t>(length) : buffers->in_left;
  memcpy(to, buffers->in, take);
  buffers->in += take;
  buffers->in_left -= take;
  return static_cast<int>(take);
}

int BioWrite(BIO* bio, const char* from, int length) {
  auto* buffers = static_cast<TlsBuffers*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (length <= 0) return 0;
  const auto* bytes = reinterpret_cast<const uint8_t*>(from);
  buffers->out.insert(buffers->out.end(), bytes, bytes + length);
  return length;
}

long BioControl(BIO* bio, int command, long, void*) {
  if (command == BIO_CTRL_EOF) return static_cast<TlsBuffers*>(BIO_get_data(bio))->in_ended ? 1 : 0;
  return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP ? 1 : 0;
}

BIO_METHOD* Method() {
  static BIO_METHOD* method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ambit turn");
    BIO_meth_set_read(made, BioRead);
    BIO_meth_set_write(made, BioWrite);
    BIO_meth_set_ctrl(made, BioControl);
    BIO_meth_set_create(made, [](BIO* bio) {
      BIO_set_init(bio, 1);
      return 1;
    });
    return made;
  }();
  return method;
}

TlsState* StateOf(const SSL* ssl) { return static_cast<TlsState*>(SSL_get_app_data(const_cast<SSL*>(ssl))); }

// The name in the ClientHello (RFC 6066 §3): a list with one host name. Anything else is no name.
std::string NameIn(SSL* ssl) {
  const unsigned char* bytes = nullptr;
  size_t length = 0;
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &bytes, &length) != 1 || length < 5) return "";
  size_t list = static_cast<size_t>(bytes[0]) << 8 | bytes[1];
  size_t name = static_cast<size_t>(bytes[3]) << 8 | bytes[4];
  if (bytes[2] != TLSEXT_NAMETYPE_host_name || list + 2 != length || name + 5 != length || name > 255) return "";
  for (size_t i = 0; i < name; i++) {
    if (bytes[5 + i] <= 0x20 || bytes[5 + i] >= 0x7f) return "";
  }
  return std::string(reinterpret_cast<const char*>(bytes + 5), name);
}

// Holds the handshake until the caller has chosen a certificate by name: before tickets are looked
// at, so that a session is judged against the certificate of this connection.
int OnClientHello(SSL* ssl, int* alert, void*) {
  TlsState* tls = StateOf(ssl);
  if (tls->refused) {
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_CLIENT_HELLO_ERROR;
  }
  if (tls->context != nullptr) return SSL_CLIENT_HELLO_SUCCESS;
  tls->server_name = NameIn(ssl);
  return SSL_CLIENT_HELLO_RETRY;
}

// Our list decides the order; no common protocol is an alert (RFC 7301 §3.2).
int OnAlpn(SSL* ssl, const unsigned char** out, unsigned char* out_length, const unsigned char* in, unsigned in_length,
           void*) {
  const TlsState* tls = StateOf(ssl);
  if (tls->settings == nullptr || tls->settings->alpn.empty()) return SSL_TLSEXT_ERR_NOACK;
  unsigned char* chosen = nullptr;
  const auto& ours = tls->settings->alpn;
  int result =
      SSL_select_next_proto(&chosen, out_length, ours.data(), static_cast<unsigned>(ours.size()), in, in_length);
  *out = chosen;
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

// RFC 5077's session, from the server: kept under the key its connection was opened with.
int OnSession(SSL* ssl, SSL_SESSION* session) {
  TlsState* tls = StateOf(ssl);
  if (tls->server || tls->session_key.empty() || tls->context == nullptr) return 0;
  tls->context->Keep(tls->session_key, session);
  return 1;
}

void OnInfo(const SSL* ssl, int where, int value) {
  if ((where & SSL_CB_ALERT) == 0 || (value & 0xff) == SSL_AD_CLOSE_NOTIFY) return;
  TlsState* tls = StateOf(ssl);
  if (tls == nullptr) return;
  tls->alert = (where & SSL_CB_READ) != 0 ? "received alert " : "sent alert ";
  tls->alert += SSL_alert_desc_string_long(value);
}

void Common(SSL_CTX* context) {
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  // Certificate compression (RFC 8879) saves some hundred bytes and, done anew for each handshake by Brotli, cost more
  // than all the rest of it: a full handshake took 2.4 times the CPU.
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
#ifdef SSL_OP_NO_TX_CERTIFICATE_COMPRESSION  // OpenSSL 3.2; the sanitizers' program may meet an older one
  SSL_CTX_set_options(context, SSL_OP_NO_TX_CERTIFICATE_COMPRESSION | SSL_OP_NO_RX_CERTIFICATE_COMPRESSION);
#endif
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_info_callback(context, OnInfo);
  SSL_CTX_set_alpn_select_cb(context, OnAlpn, nullptr);
  SSL_CTX_set_num_tickets(context, 1);
  // A resumed peer skips the check of its chain: for an hour at most, and PeerStillValid
  // looks at its dates.
  SSL_CTX_set_timeout(context, 3600);
}

BIO* Text(const std::string& text) { return BIO_new_mem_buf(text.data(), static_cast<int>(text.size())); }

std::string LastError() {
  unsigned long code = ERR_peek_last_error();
  if (code == 0) return "no reason given";
  const char* reason = ERR_reason_error_string(code);
  return reason != nullptr ? reason : "error " + std::to_string(code);
}

bool LoadChain(SSL_CTX* context, const std::string& pem) {
  BIO* bio = Text(pem);
  X509* leaf = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
  bool ok = leaf != nullptr && SSL_CTX_use_certificate(context, leaf) == 1;
  X509_free(leaf);
  while (ok) {
    X509* next = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
    if (next == nullptr) break;
    // Takes the certificate over when it works.
    if (SSL_CTX_add0_chain_cert(context, next) != 1) {
      X509_free(next);
      ok = false;
    }
  }
  BIO_free(bio);
  if (ok) ERR_clear_error();  // the end of the text is reported as an error
  return ok;
}

bool LoadTrust(SSL_CTX* context, const std::string& pem) {
  BIO* bio = Text(pem);
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  int count = 0;
  for (;;) {
    X509* root = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
    if (root == nullptr) break;
    if (X509_STORE_add_cert(store, root) == 1) count++;
    X509_free(root);
  }
  BIO_free(bio);
  ERR_clear_error();
  return count > 0;
}

}  // namespace

std::shared_ptr<TlsContext> TlsContext::Make(const std::string& certificate, const std::string& key,
                                             const std::string& trust, std::string* error) {
  ERR_clear_error();
  auto made = std::make_shared<TlsContext>();
  context_count++;
  made->context_ = SSL_CTX_new(TLS_method());
  SSL_CTX* context = made->context_;
  if (context == nullptr) {
    *error = LastError();
    return nullptr;
  }
  Common(context);
  if (!LoadChain(context, certificate)) {
    *error = "the certificate: " + LastError();
    return nullptr;
  }
  BIO* bio = Text(key);
  // No password: a key that asks for one is refused, not asked about on the terminal.
  EVP_PKEY* parsed = PEM_read_bio_PrivateKey(
      bio, nullptr, [](char*, int, int, void*) { return -1; }, nullptr);
  BIO_free(bio);
  bool fits =
      parsed != nullptr && SSL_CTX_use_PrivateKey(context, parsed) == 1 && SSL_CTX_check_private_key(context) == 1;
  EVP_PKEY_free(parsed);
  if (!fits) {
    *error = "the key: " + LastError();
    return nullptr;
  }
  if (!LoadTrust(context, trust)) {
    *error = "the trust bundle holds no certificate";
    return nullptr;
  }
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context, OnSession);
  std::string all = certificate + '\0' + key + '\0' + trust;
  unsigned length = 0;
  EVP_Digest(all.data(), all.size(), made->digest_, &length, EVP_sha256(), nullptr);
  return made;
}

TlsContext::~TlsContext() {
  for (Entry& entry : order_) SSL_SESSION_free(entry.session);
  SSL_CTX_free(context_);
  context_count--;
}

void TlsContext::Keep(const std::string& key, SSL_SESSION* session) {
  order_.push_front({key, session});
  by_key_.emplace(key, order_.begin());
  if (order_.size() <= kSessions) return;
  auto last = std::prev(order_.end());
  auto [from, to] = by_key_.equal_range(last->key);
  for (auto at = from; at != to; ++at) {
    if (at->second != last) continue;
    by_key_.erase(at);
    break;
  }
  SSL_SESSION_free(last->session);
  order_.erase(last);
}

SSL_SESSION* TlsContext::Take(const std::string& key) {
  auto at = by_key_.find(key);
  if (at == by_key_.end()) return nullptr;
  SSL_SESSION* session = at->second->session;
  order_.erase(at->second);
  by_key_.erase(at);
  return session;
}

std::unique_ptr<ServerTls> ServerTls::Make(std::vector<uint8_t> alpn, bool request, int min_version) {
  auto made = std::make_unique<ServerTls>();
  made->base = SSL_CTX_new(TLS_server_method());
  if (made->base == nullptr) return nullptr;
  Common(made->base);
  SSL_CTX_set_session_cache_mode(made->base, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_client_hello_cb(made->base, OnClientHello, nullptr);
  made->alpn = std::move(alpn);
  made->request = request;
  made->min_version = min_version;
  return made;
}

ServerTls::~ServerTls() { SSL_CTX_free(base); }

std::unique_ptr<TlsState> TlsState::Client(std::vector<uint8_t> alpn, std::string server_name, std::string session_key,
                                           int min_version) {
  auto made = std::make_unique<TlsState>();
  made->alpn = std::move(alpn);
  made->server_name = std::move(server_name);
  made->session_key = std::move(session_key);
  made->min_version = min_version;
  return made;
}

std::unique_ptr<TlsState> TlsState::Server(const ServerTls* server) {
  auto made = std::make_unique<TlsState>();
  made->server = true;
  made->settings = server;
  made->min_version = server->min_version;
  return made;
}

TlsState::~TlsState() {
  if (ssl == nullptr) return;
  // Else OpenSSL takes the session for broken, also one that a client keeps for later.
  SSL_set_quiet_shutdown(ssl, 1);
  SSL_shutdown(ssl);
  SSL_free(ssl);
  // The queue of errors is the thread's, and Node's own TLS takes what it finds there for its own.
  ERR_clear_error();
  tls_count--;
}

bool TlsState::Start(TlsBuffers* buffers, std::string* error) {
  ERR_clear_error();
  ssl = SSL_new(server ? settings->base : context->context());
  BIO* bio = ssl == nullptr ? nullptr : BIO_new(Method());
  if (bio == nullptr) {
    SSL_free(ssl);
    ssl = nullptr;
    *error = LastError();
    return false;
  }
  tls_count++;
  BIO_set_data(bio, buffers);
  SSL_set_bio(ssl, bio, bio);
  SSL_set_app_data(ssl, this);
  SSL_set_min_proto_version(ssl, min_version);
  if (server) {
    SSL_set_verify(ssl, settings->request ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_NONE,
                   nullptr);
    SSL_set_accept_state(ssl);
    return true;
  }
  SSL_set_verify(ssl, SSL_VERIFY_PEER, nullptr);
  if (!alpn.empty()) SSL_set_alpn_protos(ssl, alpn.data(), static_cast<unsigned>(alpn.size()));
  if (!server_name.empty()) SSL_set_tlsext_host_name(ssl, server_name.c_str());
  if (!session_key.empty()) {
    SSL_SESSION* session = context->Take(session_key);
    if (session != nullptr) {
      SSL_set_session(ssl, session);
      SSL_SESSION_free(session);
    }
  }
  SSL_set_connect_state(ssl);
  return true;
}

bool TlsState::Use(std::shared_ptr<TlsContext> with, std::string* error) {
  context = std::move(with);
  if (!server) return true;
  ERR_clear_error();
  // A ticket made under another certificate, key or trust does not resume here.
  if (SSL_set_SSL_CTX(ssl, context->context()) == nullptr ||
      SSL_set_session_id_context(ssl, context->digest(), 32) != 1) {
    *error = LastError();
    return false;
  }
  return true;
}

std::string TlsError(TlsState* tls) {
  std::string text = LastError();
  if (tls->ssl != nullptr) {
    long verdict = SSL_get_verify_result(tls->ssl);
    if (verdict != X509_V_OK) text += std::string(": ") + X509_verify_cert_error_string(verdict);
  }
  if (!tls->alert.empty()) text += " (" + tls->alert + ")";
  ERR_clear_error();
  return text;
}

namespace {

void AddDer(std::vector<std::vector<uint8_t>>* to, X509* certificate) {
  int length = i2d_X509(certificate, nullptr);
  if (length <= 0) return;
  std::vector<uint8_t> der(static_cast<size_t>(length));
  uint8_t* at = der.data();
  i2d_X509(certificate, &at);
  to->push_back(std::move(der));
}

}  // namespace

TlsPeer PeerOf(TlsState* tls) {
  TlsPeer peer;
  const unsigned char* alpn = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(tls->ssl, &alpn, &length);
  if (alpn != nullptr) peer.alpn.assign(reinterpret_cast<const char*>(alpn), length);
  peer.server_name = tls->server_name;
  peer.resumed = SSL_session_reused(tls->ssl) == 1;
  X509* leaf = SSL_get0_peer_certificate(tls->ssl);
  if (leaf == nullptr) return peer;
  AddDer(&peer.certificates, leaf);
  // Bound: 16, far beyond any real chain.
  STACK_OF(X509)* chain = SSL_get_peer_cert_chain(tls->ssl);
  for (int i = 0; i < sk_X509_num(chain) && peer.certificates.size() < 16; i++) {
    X509* certificate = sk_X509_value(chain, i);
    // On the client side the chain begins with the leaf.
    if (i == 0 && X509_cmp(certificate, leaf) == 0) continue;
    AddDer(&peer.certificates, certificate);
  }
  return peer;
}

bool PeerStillValid(TlsState* tls) {
  if (SSL_session_reused(tls->ssl) != 1) return true;
  X509* leaf = SSL_get0_peer_certificate(tls->ssl);
  if (leaf == nullptr) return !tls->server || !tls->settings->request;
  return SSL_get_verify_result(tls->ssl) == X509_V_OK && X509_cmp_current_time(X509_get0_notBefore(leaf)) < 0 &&
         X509_cmp_current_time(X509_get0_notAfter(leaf)) > 0;
}

}  // namespace ambit_io
