#include "server/convert/operation_filter.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "google/longrunning/operations.pb.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/split_service.pb.h"

namespace mmud {
namespace {

using google::longrunning::Operation;

template <typename Metadata>
Operation Make(const std::string& name, const std::string& vm, int64_t seconds,
               bool done) {
  Metadata metadata;
  metadata.set_vm(vm);
  metadata.set_vm_uid("uid-of-" + name);
  metadata.mutable_start_time()->set_seconds(seconds);
  if (done) metadata.mutable_end_time()->set_seconds(seconds + 10);
  Operation operation;
  operation.set_name(name);
  operation.set_done(done);
  operation.mutable_metadata()->PackFrom(metadata);
  return operation;
}

// The names of the operations, out of four, that match.
std::string Matching(const std::string& filter) {
  const std::vector<Operation> all = {
      Make<v1::StartDirtyLogMetadata>("d", "vms/a", 1000, false),
      Make<v1::SplitMetadata>("s", "vms/a", 2000, true),
      Make<v1::RecoverMetadata>("r", "vms/b", 3000, false),
      Make<v1::SplitMetadata>("t", "vms/b", 4000, false)};
  const auto parsed = OperationFilter::Parse(filter);
  if (!parsed.ok()) return std::string(parsed.status().message());
  std::string names;
  for (const Operation& operation : all) {
    if (parsed->Matches(operation)) names += operation.name();
  }
  return names;
}

TEST(OperationFilterTest, ListsWhatEveryTermHoldsFor) {
  EXPECT_EQ(Matching(""), "dsrt");
  EXPECT_EQ(Matching("  "), "dsrt");
  EXPECT_EQ(Matching("vm = \"vms/a\""), "ds");
  EXPECT_EQ(Matching("vm=vms/a"), "ds");
  EXPECT_EQ(Matching("vm != vms/a"), "rt");
  EXPECT_EQ(Matching("vm_uid = uid-of-s"), "s");
  EXPECT_EQ(Matching("vm = vms/a AND vm_uid != uid-of-s"), "d");
  EXPECT_EQ(Matching("method = SplitHugePages"), "st");
  EXPECT_EQ(Matching("method = RecoverHugePages"), "r");
  EXPECT_EQ(Matching("method = StartDirtyLog"), "d");
  EXPECT_EQ(Matching("method = Nothing"), "");
  EXPECT_EQ(Matching("done = true"), "s");
  EXPECT_EQ(Matching("done != true"), "drt");
  EXPECT_EQ(Matching("method = SplitHugePages AND done = false"), "t");
  EXPECT_EQ(Matching("vm=vms/b AND done=false AND method!=SplitHugePages"),
            "r");
}

TEST(OperationFilterTest, TimesAreCompared) {
  // 2000 s after the epoch.
  const std::string time = "\"1970-01-01T00:33:20Z\"";
  EXPECT_EQ(Matching("start_time = " + time), "s");
  EXPECT_EQ(Matching("start_time != " + time), "drt");
  EXPECT_EQ(Matching("start_time < " + time), "d");
  EXPECT_EQ(Matching("start_time <= " + time), "ds");
  EXPECT_EQ(Matching("start_time > " + time), "rt");
  EXPECT_EQ(Matching("start_time>=" + time), "srt");
}

TEST(OperationFilterTest, WhatGoesOnHasNoEnd) {
  // 2010 s after the epoch.
  const std::string time = "\"1970-01-01T00:33:30Z\"";
  EXPECT_EQ(Matching("end_time = " + time), "s");
  EXPECT_EQ(Matching("end_time < " + time), "");
  EXPECT_EQ(Matching("end_time > \"1970-01-01T00:00:00Z\""), "s");
  EXPECT_EQ(Matching("end_time != " + time), "drt");
}

TEST(OperationFilterTest, UnknownMetadataHasNothingToCompare) {
  Operation operation;
  for (const char* filter :
       {"vm = vms/a", "vm_uid = x", "method = SplitHugePages",
        "end_time > \"1970-01-01T00:33:20Z\"",
        "start_time > \"1970-01-01T00:33:20Z\""}) {
    EXPECT_FALSE(OperationFilter::Parse(filter)->Matches(operation)) << filter;
  }
  EXPECT_TRUE(OperationFilter::Parse("done = false")->Matches(operation));
}

TEST(OperationFilterTest, WhatIsNoFilterIsRefusedWithTheRule) {
  const struct {
    const char* filter;
    const char* says;
  } kCases[] = {
      {"vm", "begins with \"vm\" is not whole"},
      {"vm =", "is not whole"},
      {"done = maybe", "done is true or false, not \"maybe\""},
      {"name = x", "there is no field \"name\""},
      {"vm < vms/a", "\"<\" does not go with \"vm\""},
      {"vm == vms/a", "\"==\" behind \"vm\" compares nothing"},
      {"vm : vms/a", "compares nothing"},
      {"vm = \"vms/a", "a quote is not closed"},
      {"done = true OR done = false", "\"OR\" stands where AND"},
      {"done = true AND", "nothing follows AND"},
      {"start_time > yesterday", "\"yesterday\" is no time"},
  };
  for (const auto& wrong : kCases) {
    const auto parsed = OperationFilter::Parse(wrong.filter);
    ASSERT_FALSE(parsed.ok()) << wrong.filter;
    EXPECT_EQ(mmu::DetailOf(parsed.status()).reason,
              mmu::Reason::kInvalidFilter);
    EXPECT_TRUE(absl::StrContains(parsed.status().message(), wrong.says))
        << parsed.status();
    EXPECT_TRUE(
        absl::StrContains(parsed.status().message(), "terms joined by AND"))
        << parsed.status();
  }
}

}  // namespace
}  // namespace mmud
