#include "tests/integration/metrics_text.h"

#include <cctype>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace mmud::integration {
namespace {

absl::Status Bad(absl::string_view what, absl::string_view line) {
  return absl::InvalidArgumentError(absl::StrCat(what, ": ", line));
}

// Takes a name off the front; empty if there is none.
std::string TakeName(absl::string_view* text) {
  size_t size = 0;
  const auto fits = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' ||
           c == ':';
  };
  while (size < text->size() && fits((*text)[size])) ++size;
  if (size > 0 && std::isdigit(static_cast<unsigned char>((*text)[0])) != 0) {
    size = 0;
  }
  const std::string name(text->substr(0, size));
  text->remove_prefix(size);
  return name;
}

// Takes name="value" pairs and the closing brace off the front.
bool TakeLabels(absl::string_view* text,
                std::map<std::string, std::string>* labels) {
  while (!absl::ConsumePrefix(text, "}")) {
    if (!labels->empty() && !absl::ConsumePrefix(text, ",")) return false;
    const std::string name = TakeName(text);
    if (name.empty() || !absl::ConsumePrefix(text, "=\"")) return false;
    std::string value;
    while (!text->empty() && text->front() != '"') {
      if (text->front() == '\\') {
        value += text->front();
        text->remove_prefix(1);
        if (text->empty() || !absl::StrContains("\\\"n", text->substr(0, 1))) {
          return false;
        }
      }
      value += text->front();
      text->remove_prefix(1);
    }
    if (!absl::ConsumePrefix(text, "\"")) return false;
    if (!labels->emplace(name, value).second) return false;
  }
  return true;
}

std::string FamilyOf(const std::string& name, const Metrics& metrics) {
  for (absl::string_view suffix : {"_bucket", "_sum", "_count"}) {
    absl::string_view family = name;
    if (!absl::ConsumeSuffix(&family, suffix)) continue;
    const auto type = metrics.types.find(std::string(family));
    if (type != metrics.types.end() && type->second == "histogram") {
      return std::string(family);
    }
  }
  return name;
}

absl::Status ParseComment(absl::string_view line, Metrics* metrics) {
  const std::vector<std::string> words =
      absl::StrSplit(line, absl::MaxSplits(' ', 3));
  if (words.size() < 4) return Bad("a comment without text", line);
  if (words[1] == "HELP") {
    if (!metrics->helps.emplace(words[2], words[3]).second) {
      return Bad("a second HELP", line);
    }
    return absl::OkStatus();
  }
  if (words[1] != "TYPE") return Bad("an unknown comment", line);
  if (words[3] != "counter" && words[3] != "gauge" && words[3] != "histogram") {
    return Bad("an unknown type", line);
  }
  if (!metrics->types.emplace(words[2], words[3]).second) {
    return Bad("a second TYPE", line);
  }
  return absl::OkStatus();
}

absl::Status ParseSample(absl::string_view line, Metrics* metrics) {
  absl::string_view rest = line;
  const std::string name = TakeName(&rest);
  if (name.empty()) return Bad("no name", line);
  std::map<std::string, std::string> labels;
  if (absl::ConsumePrefix(&rest, "{") && !TakeLabels(&rest, &labels)) {
    return Bad("bad labels", line);
  }
  double value = 0;
  if (!absl::ConsumePrefix(&rest, " ") || !absl::SimpleAtod(rest, &value)) {
    return Bad("no value", line);
  }
  const std::string family = FamilyOf(name, *metrics);
  if (metrics->types.count(family) == 0 || metrics->helps.count(family) == 0) {
    return Bad("a sample without TYPE and HELP", line);
  }
  std::string series = name;
  for (const auto& [label, text] : labels) {
    absl::StrAppend(&series, series.size() == name.size() ? "{" : ",", label,
                    "=\"", text, "\"");
  }
  if (!labels.empty()) series += "}";
  if (!metrics->series.emplace(series, value).second) {
    return Bad("a series twice", line);
  }
  return absl::OkStatus();
}

}  // namespace

double Metrics::Value(const std::string& series_name) const {
  const auto it = series.find(series_name);
  return it == series.end() ? 0 : it->second;
}

double Metrics::Sum(absl::string_view family,
                    const std::vector<std::string>& labels) const {
  double sum = 0;
  for (const auto& [name, value] : series) {
    absl::string_view rest = name;
    if (!absl::ConsumePrefix(&rest, family)) continue;
    if (!rest.empty() && rest[0] != '{') continue;
    bool matches = true;
    for (const std::string& label : labels) {
      matches = matches && absl::StrContains(rest, label);
    }
    if (matches) sum += value;
  }
  return sum;
}

absl::StatusOr<Metrics> ParseMetrics(absl::string_view text) {
  Metrics metrics;
  if (!absl::ConsumeSuffix(&text, "\n")) {
    return Bad("no newline at the end", "");
  }
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (line.empty()) continue;
    absl::Status status = line[0] == '#' ? ParseComment(line, &metrics)
                                         : ParseSample(line, &metrics);
    if (!status.ok()) return status;
  }
  return metrics;
}

}  // namespace mmud::integration
