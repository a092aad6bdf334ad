// The real mmuctl with the real daemon: its output for people and for scripts.

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

using Json = nlohmann::json;

class MmuctlTest : public ::testing::Test {
 protected:
  // Runs `mmuctl LINE` with the daemon's address in the environment.
  ProgramResult Run(const std::string& line) {
    std::vector<std::string> arguments = {
        "/usr/bin/env", "MMUD_ADDRESS=" + daemon_.address(),
        "XDG_RUNTIME_DIR=" + daemon_.directory().path(), MmuctlPath()};
    for (const auto& word : absl::StrSplit(line, ' ', absl::SkipEmpty())) {
      arguments.emplace_back(word);
    }
    return RunProgram(arguments, daemon_.directory().File("mmuctl"));
  }
  // Runs `mmuctl LINE`, which must succeed, and returns its output.
  std::string Must(const std::string& line) {
    const ProgramResult result = Run(line);
    EXPECT_EQ(result.exit_code, 0) << line << "\n" << result.err;
    return result.out;
  }
  Json MustJson(const std::string& line) {
    const std::string text = Must("--json " + line);
    Json json = Json::parse(text, nullptr, false);
    EXPECT_FALSE(json.is_discarded()) << line << "\n" << text;
    return json;
  }
  // The text at a path such as "/vm/name"; "" if there is none.
  std::string At(const Json& json, const std::string& path) {
    return json.value(Json::json_pointer(path), "");
  }

  Daemon daemon_;
};

TEST_F(MmuctlTest, MigrationByHandWorksFromMakingToDeleting) {
  EXPECT_TRUE(absl::StrContains(
      Must("vm create alpha --vcpus 2 --memory 64MiB --host-page-size 2m"),
      "vms/alpha"));
  Must(
      "workload start alpha --pattern sequential --write-fraction 1 "
      "--count 8192 --watch");
  const Json split = MustJson("split start alpha");
  const std::string operation = At(split, "/name");
  Must("op wait " + operation.substr(operation.find('/') + 1, 8));
  const Json vm = MustJson("vm get alpha");
  EXPECT_EQ(vm["vm"]["mapped_pages"]["pages_2m_count"], 0);
  EXPECT_EQ(vm["vm"]["mapped_pages"]["pages_4k_count"], 16384);

  Must("dirty-log start alpha");
  Must(
      "workload start alpha --pattern uniform --write-fraction 0.5 "
      "--count 1000 --watch");
  EXPECT_TRUE(MustJson("dirty-log peek alpha 0").is_object());
  EXPECT_FALSE(MustJson("dirty-log harvest alpha").empty());
  EXPECT_TRUE(absl::StrContains(Must("dirty-log ack alpha"),
                                "; 0 are still in flight"));
  Must("vm pause alpha --for 1h");
  EXPECT_EQ(At(MustJson("vm get alpha"), "/vm/vcpu_state"),
            "VCPU_STATE_PAUSED");
  Must("vm resume alpha");
  EXPECT_FALSE(MustJson("age alpha --clear").empty());
  EXPECT_FALSE(MustJson("stats alpha --per-vcpu").empty());
  EXPECT_FALSE(MustJson("op list").empty());
  Must("dirty-log stop alpha --discard");
  Must("debug audit alpha");
  EXPECT_TRUE(absl::StrContains(Must("debug tables alpha --level 4"), " tdp "));
  EXPECT_TRUE(
      absl::StartsWith(Must("debug tables alpha --tree"), "root level 4, tdp"));
  EXPECT_EQ(MustJson("debug tables alpha --level 1")["tables"].size(), 32u);
  Must("memslot set alpha 1 --gpa 4GiB --size 1MiB");
  EXPECT_EQ(At(MustJson("vm get alpha"), "/vm/memslots/1/name"),
            "vms/alpha/memslots/1");
  Must("memslot delete alpha 1");
  Must("vm delete alpha");
  EXPECT_TRUE(MustJson("vm list").is_object());
}

TEST_F(MmuctlTest, MemoryThatWasReadIsTheGuestsMemory) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(kMiB)});
  guest.WritePages(256);
  const std::string file = daemon_.directory().File("alpha.bin");
  Must("memory read alpha 0+1MiB --output " + file);
  EXPECT_TRUE(ReadFile(file) == guest.ReadAll(kMiB));
}

TEST_F(MmuctlTest, TraceInfoReadsTheFileToItsEnd) {
  const std::string whole = TracesDirectory() + "/sort.trace";
  EXPECT_TRUE(absl::StrContains(Must("trace info " + whole), "accesses:"));
  const std::string cut = daemon_.directory().File("cut.trace");
  WriteFile(cut, ReadFile(whole).substr(0, 3000));
  const ProgramResult result = Run("trace info " + cut);
  EXPECT_EQ(result.exit_code, 10) << result.out;
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(absl::StrContains(result.err, "not copied completely"))
      << result.err;
}

TEST_F(MmuctlTest, TablesAreForPeopleAndJsonIsForPrograms) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(kMiB)});
  for (const char* line :
       {"vm list", "vm get alpha", "memslot list alpha", "workload list",
        "stats", "op list", "capabilities", "build-info", "health"}) {
    const std::string table = Must(line);
    EXPECT_FALSE(table.empty()) << line;
    EXPECT_NE(table[0], '{') << line;
    EXPECT_FALSE(MustJson(line).is_discarded()) << line;
  }
}

TEST_F(MmuctlTest, ErrorsHaveAnExitCodeAReasonAndAWayOut) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(kMiB)});
  const struct {
    const char* line;
    int exit_code;
    const char* says;
  } kCases[] = {
      {"vm get nobody", 4, "VM_NOT_FOUND"},
      {"vm create alpha --memory 1MiB", 5, "VM_EXISTS"},
      {"vm create Alpha --memory 1MiB", 3, "INVALID_NAME"},
      {"memslot set alpha 1 --gpa 1 --size 4096", 3, "UNALIGNED"},
      {"memslot set alpha 1 --gpa 0 --size 1MiB", 5, "REGION_OVERLAP"},
      {"dirty-log harvest alpha", 5, "dirty-log start"},
      {"dirty-log stop alpha", 5, "DIRTY_LOG_OFF"},
      {"vm create beta --memory 99999TiB", 3, "memslots[0].size_bytes"},
      {"vm create beta --memory 4TiB", 9, "--max_guest_memory_bytes"},
      {"workload stop alpha", 5, "WORKLOAD_NOT_RUNNING"},
      {"workload start alpha --trace no.trace", 4, "TRACE_NOT_FOUND"},
      {"op get 77", 4, "no operation begins with '77'"},
      {"op get 3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b", 4, "OPERATION_NOT_FOUND"},
      {"memory read alpha 1GiB+4KiB", 3, "GPA_OUT_OF_RANGE"},
      {"vm", 2, "mmuctl vm --help"},
      {"vm create beta --memory 3XB", 2, "--help"},
      {"--address unix:/nonexistent/s --timeout 1s vm list", 6, "is mmud"},
  };
  for (const auto& wrong : kCases) {
    const ProgramResult result = Run(wrong.line);
    EXPECT_EQ(result.exit_code, wrong.exit_code) << wrong.line << result.err;
    EXPECT_EQ(result.out, "") << wrong.line;
    EXPECT_TRUE(absl::StartsWith(result.err, "error: ")) << result.err;
    EXPECT_TRUE(absl::StrContains(result.err, wrong.says)) << wrong.line << "\n"
                                                           << result.err;
  }
}

TEST_F(MmuctlTest, ClearBeforeAnySealIsToldThatNothingIsSealed) {
  const Guest guest(daemon_.client(), "alpha", {MakeSlot(kMiB)});
  Must("dirty-log start alpha");
  const ProgramResult result =
      Run("dirty-log clear alpha 0 --epoch 1 --range 0+1MiB");
  EXPECT_EQ(result.exit_code, 5) << result.err;
  EXPECT_TRUE(absl::StrContains(result.err, "seal first")) << result.err;
  EXPECT_FALSE(absl::StrContains(result.err, "another client")) << result.err;
}

}  // namespace
}  // namespace mmud::integration
