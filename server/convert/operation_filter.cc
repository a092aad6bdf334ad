#include "server/convert/operation_filter.h"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "google/protobuf/util/time_util.h"
#include "mmu_core/base/reason.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/split_service.pb.h"
#include "server/base/errors.h"

namespace mmud {

namespace {

// Seconds and nanoseconds of a google.protobuf.Timestamp. People write and read
// these times, and a filter only compares them.
using Instant = std::pair<int64_t, int32_t>;

Instant ToInstant(const google::protobuf::Timestamp& time) {
  return {time.seconds(), time.nanos()};
}

}  // namespace

// The properties of an operation that a filter can use.
struct OperationFilter::Facts {
  std::string vm;
  std::string vm_uid;
  std::string method;
  bool done = false;
  std::optional<Instant> start_time;
  std::optional<Instant> end_time;
};

namespace {

constexpr absl::string_view kRule =
    "it must be terms joined by AND: vm, vm_uid, method or done with = or "
    "!=, or start_time or end_time with =, !=, <, <=, > or >= and a time as in "
    "\"2026-11-21T08:00:00Z\"; for example vm = \"vms/alpha\" AND done = "
    "false";

absl::Status Bad(absl::string_view what) {
  return InvalidField(mmu::Reason::kInvalidFilter, "filter",
                      absl::StrCat("filter: ", what, "; ", kRule));
}

bool IsRelation(char c) { return c == '=' || c == '!' || c == '<' || c == '>'; }

// The tokens of a filter: names, relations, and values without their quotes.
absl::StatusOr<std::vector<std::string>> Words(absl::string_view text) {
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    size_t end = at + 1;
    if (absl::ascii_isspace(static_cast<unsigned char>(c))) {
      ++at;
      continue;
    }
    if (c == '"') {
      end = text.find('"', at + 1);
      if (end == text.npos) return Bad("a quote is not closed");
      words.emplace_back(text.substr(at + 1, end - at - 1));
      at = end + 1;
      continue;
    }
    const bool relation = IsRelation(c);
    while (end < text.size() && text[end] != '"' &&
           !absl::ascii_isspace(static_cast<unsigned char>(text[end])) &&
           IsRelation(text[end]) == relation) {
      ++end;
    }
    words.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

// `left relation right`, for a relation that is one.
template <typename T>
bool Holds(const T& left, const std::string& relation, const T& right) {
  if (relation == "=") return left == right;
  if (relation == "!=") return left != right;
  if (relation == "<") return left < right;
  if (relation == "<=") return left <= right;
  if (relation == ">") return left > right;
  return left >= right;
}

template <typename Metadata, typename Facts>
bool Unpack(const google::protobuf::Any& any, const char* method,
            Facts* facts) {
  Metadata metadata;
  if (!any.UnpackTo(&metadata)) return false;
  facts->vm = metadata.vm();
  facts->vm_uid = metadata.vm_uid();
  facts->method = method;
  facts->start_time = ToInstant(metadata.start_time());
  if (metadata.has_end_time()) {
    facts->end_time = ToInstant(metadata.end_time());
  }
  return true;
}

}  // namespace

absl::StatusOr<OperationFilter::Term> OperationFilter::ParseTerm(
    const std::string& field, const std::string& relation,
    const std::string& value) {
  const bool equality = relation == "=" || relation == "!=";
  if (!equality && relation != "<" && relation != "<=" && relation != ">" &&
      relation != ">=") {
    return Bad(absl::StrCat(Quote(relation), " behind ", Quote(field),
                            " compares nothing"));
  }
  if (field == "start_time" || field == "end_time") {
    const auto fact =
        field == "start_time" ? &Facts::start_time : &Facts::end_time;
    google::protobuf::Timestamp timestamp;
    if (!google::protobuf::util::TimeUtil::FromString(value, &timestamp)) {
      return Bad(absl::StrCat(Quote(value), " is no time"));
    }
    return Term(
        [relation, fact, time = ToInstant(timestamp)](const Facts& facts) {
          return facts.*fact ? Holds(*(facts.*fact), relation, time)
                             : relation == "!=";
        });
  }
  if (!equality) {
    return Bad(
        absl::StrCat(Quote(relation), " does not go with ", Quote(field)));
  }
  for (const auto& [name, fact] :
       {std::pair("vm", &Facts::vm), std::pair("vm_uid", &Facts::vm_uid),
        std::pair("method", &Facts::method)}) {
    if (field != name) continue;
    return Term([relation, value, wanted = fact](const Facts& facts) {
      return Holds(facts.*wanted, relation, value);
    });
  }
  if (field == "done") {
    if (value != "true" && value != "false") {
      return Bad(absl::StrCat("done is true or false, not ", Quote(value)));
    }
    return Term([relation, done = value == "true"](const Facts& facts) {
      return Holds(facts.done, relation, done);
    });
  }
  return Bad(absl::StrCat("there is no field ", Quote(field)));
}

absl::StatusOr<OperationFilter> OperationFilter::Parse(absl::string_view text) {
  const absl::StatusOr<std::vector<std::string>> words = Words(text);
  if (!words.ok()) return words.status();
  OperationFilter filter;
  for (size_t at = 0; at < words->size(); at += 4) {
    if (words->size() - at < 3) {
      return Bad(absl::StrCat("the term that begins with ", Quote((*words)[at]),
                              " is not whole"));
    }
    absl::StatusOr<Term> term =
        ParseTerm((*words)[at], (*words)[at + 1], (*words)[at + 2]);
    if (!term.ok()) return term.status();
    filter.terms_.push_back(*std::move(term));
    if (at + 3 == words->size()) break;
    if ((*words)[at + 3] != "AND") {
      return Bad(absl::StrCat(Quote((*words)[at + 3]),
                              " stands where AND or the end is expected"));
    }
    if (at + 4 == words->size()) return Bad("nothing follows AND");
  }
  return filter;
}

bool OperationFilter::Matches(
    const google::longrunning::Operation& operation) const {
  if (terms_.empty()) return true;
  Facts facts;
  facts.done = operation.done();
  const google::protobuf::Any& any = operation.metadata();
  static_cast<void>(
      Unpack<v1::SplitMetadata>(any, "SplitHugePages", &facts) ||
      Unpack<v1::RecoverMetadata>(any, "RecoverHugePages", &facts) ||
      Unpack<v1::StartDirtyLogMetadata>(any, "StartDirtyLog", &facts));
  for (const Term& term : terms_) {
    if (!term(facts)) return false;
  }
  return true;
}

}  // namespace mmud
