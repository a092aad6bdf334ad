#include "server/http_server.h"

#include <atomic>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "CivetServer.h"
#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "civetweb.h"
#include "prometheus/collectable.h"
#include "prometheus/text_serializer.h"
#include "server/drain_state.h"
#include "server/listen_address.h"

namespace mmud {
namespace {

struct Reply {
  int code = 200;
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
};

const char* ReasonPhrase(int code) {
  return code == 200 ? "OK" : "Service Unavailable";
}

// Answers GET and HEAD with what a function says.
class ReplyHandler final : public CivetHandler {
 public:
  explicit ReplyHandler(std::function<Reply()> reply)
      : reply_(std::move(reply)) {}

  bool handleGet(CivetServer*, mg_connection* connection) override {
    const Reply reply = reply_();
    Head(connection, reply);
    mg_write(connection, reply.body.data(), reply.body.size());
    return true;
  }
  bool handleHead(CivetServer*, mg_connection* connection) override {
    Head(connection, reply_());
    return true;
  }

 private:
  static void Head(mg_connection* connection, const Reply& reply) {
    mg_printf(connection,
              "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
              "Cache-Control: no-store\r\nConnection: close\r\n\r\n",
              reply.code, ReasonPhrase(reply.code), reply.content_type.c_str(),
              reply.body.size());
  }

  const std::function<Reply()> reply_;
};

Reply Metrics(const prometheus::Collectable& metrics) {
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, metrics.Collect());
  return {200, text.str(), "text/plain; version=0.0.4; charset=utf-8"};
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    const std::string& address, const prometheus::Collectable& metrics,
    const DrainState& drain) {
  const absl::StatusOr<ListenAddress> parsed =
      ParseListenAddress("metrics_address", address);
  if (!parsed.ok()) return parsed.status();
  if (absl::Status status = ProbeTcp("metrics_address", *parsed);
      !status.ok()) {
    return status;
  }
  auto http = absl::WrapUnique(new HttpServer());
  try {
    http->server_ = std::make_unique<CivetServer>(std::vector<std::string>{
        "listening_ports", parsed->ToString(), "num_threads", "4",
        "request_timeout_ms", "10000"});
  } catch (const CivetException& error) {
    return absl::UnavailableError(
        absl::StrCat("cannot serve HTTP on --metrics_address=", address, ": ",
                     error.what()));
  }
  const auto serve = [&http](const char* path, std::function<Reply()> reply) {
    http->handlers_.push_back(std::make_unique<ReplyHandler>(std::move(reply)));
    http->server_->addHandler(path, *http->handlers_.back());
  };
  serve("/metrics", [&metrics] { return Metrics(metrics); });
  serve("/healthz", [] { return Reply{200, "ok\n"}; });
  serve("/readyz", [&drain] {
    return drain.is_draining() ? Reply{503, "draining\n"}
                               : Reply{200, "ready\n"};
  });
  const std::vector<int> ports = http->server_->getListeningPorts();
  http->port_ = ports.empty() ? parsed->port : ports[0];
  http->address_ = *parsed;
  http->address_.port = http->port_;
  return http;
}

HttpServer::~HttpServer() {
  // The server's main thread looks whether to stop only every 2 s, or when
  // somebody comes.
  std::atomic<bool> stopped{false};
  std::thread knocking([this, &stopped] {
    while (!stopped) {
      Knock(address_);
      absl::SleepFor(absl::Milliseconds(20));
    }
  });
  server_.reset();
  stopped = true;
  knocking.join();
}

}  // namespace mmud
