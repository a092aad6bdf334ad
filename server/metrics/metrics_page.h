// The body of an answer to a scrape.

#ifndef SERVER_METRICS_METRICS_PAGE_H_
#define SERVER_METRICS_METRICS_PAGE_H_

#include <string>

#include "absl/strings/string_view.h"
#include "prometheus/collectable.h"

namespace mmud {

// A value.
struct MetricsPage {
  std::string body;
  std::string content_type;
  std::string content_encoding;  // "gzip", or empty for none
};

// The current metrics in Prometheus' text format, compressed if the client
// accepts that. `accept_encoding` is the request's header, empty if there is
// none. Thread-safe.
MetricsPage RenderMetrics(const prometheus::Collectable& metrics,
                          absl::string_view accept_encoding);

// Whether an Accept-Encoding header names gzip, or any encoding, with a weight
// above 0 (RFC 9110, 12.5.3).
bool AcceptsGzip(absl::string_view accept_encoding);

}  // namespace mmud

#endif  // SERVER_METRICS_METRICS_PAGE_H_
