// A strict parser of Prometheus' text format.

#ifndef TESTS_INTEGRATION_METRICS_TEXT_H_
#define TESTS_INTEGRATION_METRICS_TEXT_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace mmud::integration {

// A scrape. A value.
struct Metrics {
  // Values by "name{label="value",...}" with the labels in alphabetic order.
  std::map<std::string, double> series;
  // TYPE and HELP of each family.
  std::map<std::string, std::string> types;
  std::map<std::string, std::string> helps;

  // The series' value; 0 if there is no such series.
  double Value(const std::string& series_name) const;
  // Sum of the series of a family that have all `labels`, each `name="value"`.
  double Sum(absl::string_view family,
             const std::vector<std::string>& labels = {}) const;
};

// Parses a scrape. Every line must conform to the format; every sample must
// belong to a family with a type and a help text before it; no series may occur
// twice.
absl::StatusOr<Metrics> ParseMetrics(absl::string_view text);

}  // namespace mmud::integration

#endif  // TESTS_INTEGRATION_METRICS_TEXT_H_
