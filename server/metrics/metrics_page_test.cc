#include "server/metrics/metrics_page.h"

#include <zlib.h>

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"
#include "server/metrics/metric_writer.h"

namespace mmud {
namespace {

class ManyCounters final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override {
    MetricWriter writer;
    writer.Counter("things_total", "Things.");
    for (int i = 0; i < 1000; ++i) {
      writer.Add(i, {{"kind", std::to_string(i)}});
    }
    return writer.Take();
  }
};

std::string Gunzip(const std::string& gzip) {
  z_stream stream = {};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  std::string out(1 << 20, '\0');
  std::string in = gzip;
  stream.next_in = reinterpret_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  inflateEnd(&stream);
  return out;
}

TEST(MetricsPageTest, WhoTakesGzipGetsTheSameTextInAFractionOfTheBytes) {
  const ManyCounters counters;
  const MetricsPage plain = RenderMetrics(counters, "");
  EXPECT_EQ(plain.content_encoding, "");
  EXPECT_EQ(plain.content_type, "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_NE(plain.body.find("mmud_things_total{kind=\"7\"} 7\n"),
            std::string::npos);
  const MetricsPage packed = RenderMetrics(counters, "gzip");
  EXPECT_EQ(packed.content_encoding, "gzip");
  EXPECT_EQ(packed.content_type, plain.content_type);
  EXPECT_LT(packed.body.size() * 4, plain.body.size());
  EXPECT_EQ(Gunzip(packed.body), plain.body);
}

TEST(MetricsPageTest, OnlyWhoAsksForGzipGetsIt) {
  for (const char* yes :
       {"gzip", "GZIP", "deflate, gzip", "gzip;q=1.0", "br;q=1.0, gzip;q=0.001",
        " gzip ; q=0.5", "*", "identity;q=0, *;q=0.3"}) {
    EXPECT_TRUE(AcceptsGzip(yes)) << yes;
  }
  for (const char* no : {"", "identity", "deflate", "gzip;q=0", "gzip;q=0.000",
                         "*, gzip;q=0", "*;q=0", "xgzip", "gzipx"}) {
    EXPECT_FALSE(AcceptsGzip(no)) << no;
  }
}

}  // namespace
}  // namespace mmud
