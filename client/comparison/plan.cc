#include "client/comparison/plan.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/text/units.h"

namespace mmud::client {
namespace {

// A VM's name has at most 63 characters. Behind this part come the MMU, the
// policy and a number.
constexpr size_t kMaxName = 32;
constexpr absl::Duration kMaxTimeLimit = absl::Hours(1);
constexpr int32_t kMaxRepeats = 99;

absl::Status Wrong(absl::string_view option, absl::string_view value,
                   absl::string_view rule, absl::string_view fix) {
  return absl::InvalidArgumentError(
      absl::StrCat(option, " is ", value, ": ", rule, "; ", fix));
}

// Each value once, and at least one.
template <typename Value, typename View>
absl::Status CheckList(absl::string_view option,
                       const std::vector<Value>& values, View view) {
  if (values.empty()) {
    return Wrong(option, "empty", "there is nothing to compare",
                 "give at least one value");
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::find(values.begin(), values.begin() + i, values[i]) !=
        values.begin() + i) {
      return Wrong(option, view(values[i]), "the value is given twice",
                   "give each value once");
    }
  }
  return absl::OkStatus();
}

int64_t HugePageBytes(v1::PageSize size) {
  return size == v1::PAGE_SIZE_1G ? int64_t{1} << 30 : int64_t{2} << 20;
}

absl::Status CheckLists(const PlanOptions& options) {
  if (absl::Status s = CheckList("--policy", options.policies, PolicyWord);
      !s.ok()) {
    return s;
  }
  const auto number = [](auto value) { return absl::StrCat(value); };
  if (absl::Status s = CheckList("--vcpus", options.vcpu_counts, number);
      !s.ok()) {
    return s;
  }
  for (const int32_t count : options.vcpu_counts) {
    if (count < 1) {
      return Wrong("--vcpus", absl::StrCat(count),
                   "a guest has at least 1 vCPU", "give 1 or more");
    }
  }
  if (absl::Status s =
          CheckList("--write-fraction", options.write_fractions, number);
      !s.ok()) {
    return s;
  }
  for (const double fraction : options.write_fractions) {
    // NaN compares false and so is refused.
    if (!(fraction > 0 && fraction <= 1)) {
      return Wrong("--write-fraction", absl::StrCat(fraction),
                   "the share of writes is more than 0 and at most 1, since a "
                   "guest that writes nothing makes no page dirty",
                   "give for example 1.0 or 0.1");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckMemory(const PlanOptions& options) {
  if (options.huge_page_size != v1::PAGE_SIZE_2M &&
      options.huge_page_size != v1::PAGE_SIZE_1G) {
    return Wrong("--huge-page-size", "4k",
                 "only mappings larger than 4 KiB can be split",
                 "give 2m or 1g");
  }
  const int64_t page = HugePageBytes(options.huge_page_size);
  if (options.memory_bytes <= 0 || options.memory_bytes % page != 0) {
    return Wrong(
        "--memory", FormatBytes(options.memory_bytes),
        absl::StrCat("the memory is a multiple of the huge page size, ",
                     FormatBytes(page)),
        absl::StrCat("give for example ",
                     FormatBytes(std::max<int64_t>(
                         page, options.memory_bytes / page * page))));
  }
  const int32_t most =
      *std::max_element(options.vcpu_counts.begin(), options.vcpu_counts.end());
  if (options.memory_bytes / page < most) {
    return Wrong("--memory", FormatBytes(options.memory_bytes),
                 absl::StrCat("each of ", most, " vCPUs needs a huge page of ",
                              FormatBytes(page), " of its own"),
                 absl::StrCat("give at least ", FormatBytes(most * page),
                              ", or fewer --vcpus"));
  }
  return absl::OkStatus();
}

absl::Status CheckName(const std::string& name) {
  const bool known = std::all_of(name.begin(), name.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return absl::ascii_islower(byte) || absl::ascii_isdigit(byte) || c == '-';
  });
  if (!known || name.empty() || name.size() > kMaxName || name[0] == '-') {
    return Wrong("--name", absl::StrCat("'", name, "'"),
                 absl::StrCat("the names of the VMs begin with 1 to ", kMaxName,
                              " characters of a-z, 0-9 and '-', the first of "
                              "them no '-'"),
                 "give for example compare");
  }
  return absl::OkStatus();
}

bool Has(const PlanOptions& options, LogPolicy policy) {
  return std::find(options.policies.begin(), options.policies.end(), policy) !=
         options.policies.end();
}

absl::Status CheckThrottle(const PlanOptions& options) {
  if (options.throttle.ByteSizeLong() == 0 ||
      Has(options, LogPolicy::kThrottled)) {
    return absl::OkStatus();
  }
  return Wrong("--policy",
               absl::StrJoin(options.policies, ",",
                             [](std::string* out, LogPolicy policy) {
                               out->append(PolicyWord(policy));
                             }),
               "limits on the pace of the split apply to the policy throttled "
               "only",
               "add throttled, or leave the limits out");
}

}  // namespace

const std::map<std::string, LogPolicy>& LogPolicies() {
  static const auto* const policies = new std::map<std::string, LogPolicy>{
      {"lazy", LogPolicy::kLazy},
      {"eager", LogPolicy::kEager},
      {"throttled", LogPolicy::kThrottled}};
  return *policies;
}

std::string PolicyWord(LogPolicy policy) {
  for (const auto& [word, value] : LogPolicies()) {
    if (value == policy) return word;
  }
  return "";
}

absl::StatusOr<Plan> MakePlan(PlanOptions options) {
  if (absl::Status s = CheckLists(options); !s.ok()) return s;
  if (absl::Status s = CheckMemory(options); !s.ok()) return s;
  if (options.time_limit <= absl::ZeroDuration() ||
      options.time_limit > kMaxTimeLimit) {
    return Wrong("--time-limit", FormatTime(options.time_limit),
                 "a step may take more than 0 and at most 1h",
                 "give for example 1m");
  }
  if (options.repeat_count < 1 || options.repeat_count > kMaxRepeats) {
    return Wrong("--repeat", absl::StrCat(options.repeat_count),
                 absl::StrCat("each guest runs 1 to ", kMaxRepeats, " times"),
                 "give for example 5");
  }
  if (absl::Status s = CheckName(options.name); !s.ok()) return s;
  if (absl::Status s = CheckThrottle(options); !s.ok()) return s;
  if (Has(options, LogPolicy::kThrottled) &&
      options.throttle.ByteSizeLong() == 0) {
    options.throttle.set_max_pages_per_second(kDefaultPagesPerSecond);
  }
  Plan plan;
  plan.options = std::move(options);
  for (const int32_t vcpu_count : plan.options.vcpu_counts) {
    for (const double write_fraction : plan.options.write_fractions) {
      for (const LogPolicy policy : plan.options.policies) {
        const std::string id =
            absl::StrCat(plan.options.name, "-", plan.options.mmu->word, "-",
                         PolicyWord(policy), "-", plan.combinations.size() + 1);
        plan.combinations.push_back({.policy = policy,
                                     .vcpu_count = vcpu_count,
                                     .write_fraction = write_fraction,
                                     .vm_id = id});
      }
    }
  }
  return plan;
}

std::string DescribeGuest(const Combination& combination) {
  return absl::StrCat(combination.vcpu_count,
                      combination.vcpu_count == 1 ? " vCPU, " : " vCPUs, ",
                      ViewFraction(combination.write_fraction), " writes");
}

std::string Describe(const Combination& combination) {
  return absl::StrCat(DescribeGuest(combination), ", ",
                      PolicyWord(combination.policy));
}

std::string ViewFraction(double fraction) {
  return absl::StrFormat("%.3g%%", 100 * fraction);
}

int64_t PassLength(const PlanOptions& options, int32_t vcpu_count) {
  const int64_t pages = options.memory_bytes / kPageBytes;
  return (pages + vcpu_count - 1) / vcpu_count;
}

}  // namespace mmud::client
