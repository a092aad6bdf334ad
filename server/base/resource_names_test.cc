#include "server/base/resource_names.h"

#include <string>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmud {
namespace {

TEST(ResourceNames, AcceptsVmNamesOfLettersDigitsAndInnerDashes) {
  for (const char* name : {"vms/a", "vms/0", "vms/a-b", "vms/a1-2-3z"}) {
    EXPECT_TRUE(CheckVmName(name, "vm").ok()) << name;
  }
  EXPECT_TRUE(CheckVmName("vms/" + std::string(63, 'a'), "vm").ok());
}

TEST(ResourceNames, RejectsMisspeltVmNamesWithTheField) {
  for (const std::string& name :
       {std::string(), std::string("a"), std::string("vms/"),
        std::string("vms/A"), std::string("vms/-a"), std::string("vms/a-"),
        std::string("vms/a_b"), std::string("vms/a/b"),
        "vms/" + std::string(64, 'a'), std::string("vms/a\0b", 7)}) {
    const absl::Status status = CheckVmName(name, "vm");
    EXPECT_EQ(mmu::DetailOf(status).reason, mmu::Reason::kInvalidName) << name;
    EXPECT_EQ(mmu::DetailOf(status).field, "vm") << name;
  }
}

TEST(ResourceNames, ParsesWhatItMakes) {
  const auto slot = ParseMemslotName(MakeMemslotName("vms/a", 32763), "name");
  ASSERT_TRUE(slot.ok());
  EXPECT_EQ(slot->vm, "vms/a");
  EXPECT_EQ(slot->slot, 32763u);
  const std::string name = NewOperationName();
  EXPECT_EQ(ParseOperationName(name, "name").value(), name);
}

TEST(ResourceNames, RejectsNumbersInAnyOtherForm) {
  for (const char* name : {"vms/a/memslots/32764", "vms/a/memslots/01",
                           "vms/a/memslots/-1", "vms/a/memslots/"}) {
    EXPECT_FALSE(ParseMemslotName(name, "name").ok()) << name;
  }
}

TEST(ResourceNames, OperationsHaveUuidsInSmallLettersOrCapitals) {
  EXPECT_NE(NewOperationName(), NewOperationName());
  EXPECT_EQ(ParseOperationName(
                "operations/6F9619FF-8B86-4D01-B42D-00CF4FC964FF", "name")
                .value(),
            "operations/6f9619ff-8b86-4d01-b42d-00cf4fc964ff");
  for (const char* name :
       {"operations/", "operations/1", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
        "operations/6f9619ff-8b86-4d01-b42d-00cf4fc964ff/"}) {
    const absl::Status status = ParseOperationName(name, "operation").status();
    EXPECT_EQ(mmu::DetailOf(status).reason, mmu::Reason::kInvalidName) << name;
    EXPECT_EQ(mmu::DetailOf(status).field, "operation") << name;
  }
}

TEST(ResourceNames, WorkloadsHaveAVmAndAUuid) {
  const std::string made = NewWorkloadName("vms/a");
  EXPECT_NE(made, NewWorkloadName("vms/a"));
  EXPECT_EQ(ParseWorkloadName(made, "name")->vm, "vms/a");
  EXPECT_EQ(ParseWorkloadName(made, "name")->name, made);
  EXPECT_EQ(ParseWorkloadName(
                "vms/a/workloads/6F9619FF-8B86-4D01-B42D-00CF4FC964FF", "name")
                ->name,
            "vms/a/workloads/6f9619ff-8b86-4d01-b42d-00cf4fc964ff");
  for (const char* name :
       {"", "vms/a", "vms/a/workloads/", "vms/a/workloads/1",
        "vms//workloads/6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
        "workloads/6f9619ff-8b86-4d01-b42d-00cf4fc964ff",
        "vms/a/workloads/6f9619ff-8b86-4d01-b42d-00cf4fc964ff/"}) {
    const absl::Status status = ParseWorkloadName(name, "name").status();
    EXPECT_EQ(mmu::DetailOf(status).reason, mmu::Reason::kInvalidName) << name;
    EXPECT_EQ(mmu::DetailOf(status).field, "name") << name;
  }
}

TEST(ResourceNames, PageTokensBelongToTheirList) {
  const std::string token = MakePageToken("vms", "vms/b");
  EXPECT_EQ(ParsePageToken("vms", token).value(), "vms/b");
  EXPECT_EQ(ParsePageToken("vms", "").value(), "");
  EXPECT_EQ(mmu::DetailOf(ParsePageToken("operations", token).status()).reason,
            mmu::Reason::kInvalidPageToken);
  EXPECT_FALSE(ParsePageToken("vms", "!!").ok());
}

TEST(ResourceNames, ANumberTokenHasANumber) {
  EXPECT_EQ(ParseNumberToken("slots", MakePageToken("slots", "7")).value(), 7u);
  EXPECT_EQ(ParseNumberToken("slots", "").value(), absl::nullopt);
  for (const std::string& token :
       {MakePageToken("slots", "x"), MakePageToken("slots", "-1"),
        MakePageToken("vms", "7"), std::string("!!")}) {
    EXPECT_EQ(mmu::DetailOf(ParseNumberToken("slots", token).status()).reason,
              mmu::Reason::kInvalidPageToken)
        << token;
  }
}

TEST(ResourceNames, OneVmIsOnePage) {
  EXPECT_TRUE(CheckOnePage("").ok());
  EXPECT_EQ(mmu::DetailOf(CheckOnePage(MakePageToken("vms", "a"))).reason,
            mmu::Reason::kInvalidPageToken);
}

TEST(ResourceNames, PageSizesHaveADefaultAndALimit) {
  EXPECT_EQ(CheckPageSize(0).value(), 100);
  EXPECT_EQ(CheckPageSize(5).value(), 5);
  EXPECT_EQ(CheckPageSize(1'000'000).value(), 1000);
  EXPECT_FALSE(CheckPageSize(-1).ok());
}

}  // namespace
}  // namespace mmud
