#include "server/metrics/metrics_page.h"

#include <zlib.h>

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "prometheus/collectable.h"
#include "prometheus/text_serializer.h"

namespace mmud {
namespace {

// The fastest level: the text is repetitive enough to shrink to a fraction of
// its size, and a scrape should cost little.
constexpr int kLevel = 1;
// zlib's largest window; 16 more asks for gzip's header instead of its own.
constexpr int kGzipWindow = 15 + 16;
constexpr int kMemoryLevel = 8;

absl::optional<std::string> Gzip(const std::string& text) {
  z_stream stream = {};
  if (deflateInit2(&stream, kLevel, Z_DEFLATED, kGzipWindow, kMemoryLevel,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return absl::nullopt;
  }
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in =
      reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));  // not written
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  if (result != Z_STREAM_END) return absl::nullopt;
  return out;
}

// The weight of one element of the header, such as "gzip;q=0.5".
double WeightOf(absl::string_view element) {
  for (absl::string_view parameter : absl::StrSplit(element, ';')) {
    parameter = absl::StripAsciiWhitespace(parameter);
    double weight = 0;
    if (absl::StartsWithIgnoreCase(parameter, "q=") &&
        absl::SimpleAtod(parameter.substr(2), &weight)) {
      return weight;
    }
  }
  return 1;
}

}  // namespace

bool AcceptsGzip(absl::string_view accept_encoding) {
  bool any = false;
  for (absl::string_view element : absl::StrSplit(accept_encoding, ',')) {
    const absl::string_view coding =
        absl::StripAsciiWhitespace(element.substr(0, element.find(';')));
    if (absl::EqualsIgnoreCase(coding, "gzip")) return WeightOf(element) > 0;
    if (coding == "*") any = WeightOf(element) > 0;
  }
  return any;
}

MetricsPage RenderMetrics(const prometheus::Collectable& metrics,
                          absl::string_view accept_encoding) {
  MetricsPage page;
  page.body = prometheus::TextSerializer().Serialize(metrics.Collect());
  page.content_type = "text/plain; version=0.0.4; charset=utf-8";
  if (!AcceptsGzip(accept_encoding)) return page;
  if (absl::optional<std::string> gzip = Gzip(page.body); gzip.has_value()) {
    page.body = *std::move(gzip);
    page.content_encoding = "gzip";
  }
  return page;
}

}  // namespace mmud
