// How far a shard of a long run has come, and the file that keeps it.

#ifndef TESTS_MODEL_PROGRESS_H_
#define TESTS_MODEL_PROGRESS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu::testing {

// Which part of which run a shard does. A value.
struct ShardOfRun {
  uint64_t seed = 0;
  uint64_t shard = 0;   // this one
  uint64_t shards = 1;  // of so many
  std::string mmu;      // the mode of all blocks; "": as each block's seed says
  uint64_t block_operations = 0;

  friend bool operator==(const ShardOfRun&, const ShardOfRun&) = default;
};

// A value.
struct Progress {
  static constexpr size_t kModes = 5;

  ShardOfRun run;
  std::string binary;        // the digest of the program that did it all
  uint64_t blocks_done = 0;  // of this shard
  // By MmuMode.
  std::array<uint64_t, kModes> operations{};
  std::array<double, kModes> cpu_seconds{};

  uint64_t AllOperations() const {
    uint64_t sum = 0;
    for (const uint64_t n : operations) sum += n;
    return sum;
  }
};

// NOT_FOUND: there is no such file. INVALID_ARGUMENT: it is none of these.
absl::StatusOr<Progress> ReadProgress(const std::string& file);
// Replaces the file in one step: a process that is killed leaves the old file
// or the new one.
absl::Status WriteProgress(const std::string& file, const Progress& progress);

}  // namespace mmu::testing

#endif  // TESTS_MODEL_PROGRESS_H_
