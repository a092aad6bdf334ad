#include "tests/model/progress.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "mmu_core/testing/mmu_mode_names.h"

namespace mmu::testing {
namespace {

// In files that were written before the binary was noted, too.
constexpr char kUnknown[] = "unknown";

std::string ToText(const Progress& progress) {
  const ShardOfRun& run = progress.run;
  std::string text = absl::StrFormat(
      "seed %d\nshard %d\nshards %d\nmmu %s\nblock_operations %d\n"
      "binary %s\nblocks_done %d\n",
      run.seed, run.shard, run.shards, run.mmu.empty() ? "all" : run.mmu,
      run.block_operations,
      progress.binary.empty() ? kUnknown : progress.binary,
      progress.blocks_done);
  for (size_t i = 0; i < Progress::kModes; ++i) {
    const char* const name = ToString(static_cast<MmuMode>(i));
    absl::StrAppendFormat(&text, "operations.%s %d\ncpu_seconds.%s %.3f\n",
                          name, progress.operations[i], name,
                          progress.cpu_seconds[i]);
  }
  // The last line shows that the file is whole.
  return absl::StrCat(text, "end 1\n");
}

absl::Status Failed(const std::string& what, const std::string& file) {
  return absl::ErrnoToStatus(errno, absl::StrCat(what, " ", file));
}

}  // namespace

absl::StatusOr<Progress> ReadProgress(const std::string& file) {
  std::ifstream in(file);
  if (!in) return absl::NotFoundError(absl::StrCat("there is no ", file));
  std::map<std::string, std::string> values;
  std::string key;
  std::string value;
  while (in >> key >> value) values[key] = value;
  bool whole = true;
  const auto number = [&](const std::string& name) {
    uint64_t n = 0;
    whole = absl::SimpleAtoi(values[name], &n) && whole;
    return n;
  };
  Progress progress;
  progress.run = {.seed = number("seed"),
                  .shard = number("shard"),
                  .shards = number("shards"),
                  .mmu = values["mmu"] == "all" ? "" : values["mmu"],
                  .block_operations = number("block_operations")};
  const std::string& binary = values["binary"];
  progress.binary = binary.empty() ? kUnknown : binary;
  progress.blocks_done = number("blocks_done");
  for (size_t i = 0; i < Progress::kModes; ++i) {
    const char* const name = ToString(static_cast<MmuMode>(i));
    progress.operations[i] = number(absl::StrCat("operations.", name));
    whole = absl::SimpleAtod(values[absl::StrCat("cpu_seconds.", name)],
                             &progress.cpu_seconds[i]) &&
            whole;
  }
  if (!whole || values["end"] != "1") {
    return absl::InvalidArgumentError(
        absl::StrCat(file, " is no progress of a model run"));
  }
  return progress;
}

absl::Status WriteProgress(const std::string& file, const Progress& progress) {
  const std::string next = absl::StrCat(file, ".next");
  const std::string text = ToText(progress);
  const int fd = open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd < 0) return Failed("cannot make", next);
  const bool written = write(fd, text.data(), text.size()) ==
                           static_cast<ssize_t>(text.size()) &&
                       fsync(fd) == 0;
  if (close(fd) != 0 || !written) return Failed("cannot write", next);
  if (std::rename(next.c_str(), file.c_str()) != 0) {
    return Failed("cannot replace", file);
  }
  return absl::OkStatus();
}

}  // namespace mmu::testing
