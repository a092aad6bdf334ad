#include "client/working_set/age_bins.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/working_set/age_text.h"
#include "client/working_set/picture.h"

namespace mmud::client {
namespace {

// The number of round ages up to `age`.
size_t ClassOf(absl::Duration age) {
  const std::vector<absl::Duration>& round = RoundAges();
  return static_cast<size_t>(std::upper_bound(round.begin(), round.end(), age) -
                             round.begin());
}

}  // namespace

std::vector<AgeBin> FoldBins(const std::vector<AgeBin>& bins, size_t most) {
  if (bins.size() <= most) return bins;
  std::vector<AgeBin> folded;
  for (const AgeBin& bin : bins) {
    if (folded.empty() ||
        ClassOf(folded.back().min_age) != ClassOf(bin.min_age)) {
      folded.push_back(bin);
      continue;
    }
    AgeBin& last = folded.back();
    last.oldest_generation = bin.oldest_generation.value_or(bin.generation);
    last.max_age = bin.max_age;
    last.page_count += bin.page_count;
    last.size_bytes += bin.size_bytes;
  }
  return folded;
}

std::string GenerationsOf(const AgeBin& bin) {
  const int64_t oldest = bin.oldest_generation.value_or(bin.generation);
  return oldest == bin.generation ? absl::StrCat(bin.generation)
                                  : absl::StrCat(oldest, "-", bin.generation);
}

}  // namespace mmud::client
